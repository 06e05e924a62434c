"""The pace that a peer allows: of the frames that leave on one connection, and of new connections.

Rules of this file: pure, the caller brings the time. A frame is a request, or an answer that the protocol
demands (a pong). Requests leave one place of every second to answers, and answers leave one to requests. So
neither kind starves the other. Attempts to connect count whatever becomes of them.
"""

from __future__ import annotations

import math
from collections import deque
from enum import Enum
from typing import Final

WINDOW: Final = 1.25  # seconds: the peer counts one, and the way there may bring frames closer together

_ON_THE_WAY: Final = 1.05  # an attempt may take long to arrive, and a later one be quick


class Kind(Enum):
    """The kind of a frame."""

    REQUEST = "request"
    ANSWER = "answer"


class Pace:
    """At most `most` frames within any second of the peer's clock; 0: any number. Times are seconds."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._all = _latest(most)
        self._of = {kind: _latest(most - 1 or most) for kind in Kind} if most else {}

    def free_at(self, kind: Kind) -> float:
        """The time from which the next frame of this kind may leave."""
        if not self._of:
            return -math.inf
        return max(self._all[0], self._of[kind][0]) + WINDOW

    def used(self, now: float) -> int:
        """The frames that left within the last second."""
        return sum(at > now - 1.0 for at in self._all)

    def left(self, kind: Kind, now: float) -> None:
        """A frame of this kind leaves now."""
        if self._of:
            self._all.append(now)
            self._of[kind].append(now)


class Attempts:
    """At most `most` new connections within any `seconds` of the peer's clock; 0: any number."""

    def __init__(self, most: int, seconds: float) -> None:
        self.most = most
        self._made = _latest(most)
        self._window = seconds * _ON_THE_WAY

    def used(self, now: float) -> int:
        """Those that were made within the window, which is a little longer than the peer's."""
        return sum(at + self._window > now for at in self._made)

    def take(self, now: float) -> float:
        """Seconds until one more may be made; 0: now, and it counts."""
        if not self._made.maxlen:
            return 0.0
        wait = self._made[0] + self._window - now
        if wait <= 0:
            self._made.append(now)
        return max(wait, 0.0)


def _latest(count: int) -> deque[float]:
    """The times of the latest `count` frames. Its first one decides about the next frame."""
    return deque([-math.inf] * count, maxlen=count)
