"""The pace of the frames that leave on one connection, for a peer that allows only so many in a second.

Rules of this file: pure, the caller brings the time. A frame is a request, or an answer that the protocol
demands (a pong). Requests leave one place of every second to answers, and answers leave one to requests. So
neither kind starves the other.
"""

from __future__ import annotations

import math
from collections import deque
from enum import Enum
from typing import Final

WINDOW: Final = 1.25  # seconds: the peer counts one, and the way there may bring frames closer together


class Kind(Enum):
    """The kind of a frame."""

    REQUEST = "request"
    ANSWER = "answer"


class Pace:
    """At most `most` frames within any second of the peer's clock; 0: any number. Times are seconds."""

    def __init__(self, most: int) -> None:
        self._all = _latest(most)
        self._of = {kind: _latest(most - 1 or most) for kind in Kind} if most else {}

    def free_at(self, kind: Kind) -> float:
        """The time from which the next frame of this kind may leave."""
        if not self._of:
            return -math.inf
        return max(self._all[0], self._of[kind][0]) + WINDOW

    def left(self, kind: Kind, now: float) -> None:
        """A frame of this kind leaves now."""
        if self._of:
            self._all.append(now)
            self._of[kind].append(now)


def _latest(count: int) -> deque[float]:
    """The times of the latest `count` frames. Its first one decides about the next frame."""
    return deque([-math.inf] * count, maxlen=count)
