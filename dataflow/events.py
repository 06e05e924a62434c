"""What happened in the daemon, for operators: crashes, restarts, sources lost and back, faults, reloads.

Rules of this file. The ring outlives every actor, is bounded, waits for nobody, and raises nothing for what
it is told. Repetitions at one place within a second are one event with a count. When the ring is full
the oldest event of the most frequent kind goes: a burst of one kind washes out no other. No text holds a
secret. The log has all of this, too.
"""

from __future__ import annotations

import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Sequence
from enum import StrEnum
from heapq import merge
from itertools import islice
from typing import Final

from attrs import define

from .domain.secrets import concealed, without_kept

KEPT: Final = 1000  # events
TEXT: Final = 500  # characters
STACK: Final = 8192  # bytes of UTF-8
TOGETHER: Final = 1.0  # seconds after the first one in which others count as the same event
STACKS: Final = 10  # within a second; more events have none: to write one costs a millisecond
_LOOKED_AT: Final = 8  # times as much of a text is looked at for secrets, and then cut


class Kind(StrEnum):
    """What happened."""

    CRASHED = "crashed"  # an actor failed, or did not start: a fault of the daemon
    RESTARTED = "restarted"  # an actor runs again
    BACKOFF = "backoff"  # an attempt to connect failed; the next one waits
    GIVEN_UP = "given_up"  # it failed too often, and is not restarted by its supervisor
    STOPPED = "stopped"  # on request
    LOST = "lost"  # the connection to a source, or one of its symbols
    RESTORED = "restored"
    SWITCHED = "switched"  # the stream of a symbol is that of another source
    RENUMBERED = "renumbered"  # a source numbers the trades of a symbol anew
    STALLED = "stalled"  # a symbol whose source has newer trades or sends what must be refused, or a client
    RECOVERED = "recovered"  # from that
    FAULT = "fault"  # was injected, strikes, or was withdrawn
    RELOAD = "reload"  # the configuration was read again


@define
class Event:
    """`at`: when it happened first, ns since the epoch. `path`: of the actor; of a source its branch.

    `stack`: the traceback of the first one, its end if it is long; None in a storm. `times`: how often it
    happened within `TOGETHER`; this number alone may still grow.
    """

    id: int
    at: int
    kind: Kind
    path: str
    text: str
    stack: str | None
    times: int = 1


class Events:
    """The newest events. `clock`: wall time, seconds.

    The ids grow by one, and over restarts of the process: a reader that knows an older one misses nothing.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.told: Counter[Kind] = Counter(dict.fromkeys(Kind, 0))  # all that happened
        self.forgotten = 0  # events that found no room any more
        self._clock = clock
        self._last = int(clock() * 1000)
        self._of: dict[Kind, deque[Event]] = {kind: deque() for kind in Kind}
        self._newest: dict[tuple[Kind, str], Event] = {}  # of each kind at each place
        self._stacks: deque[int] = deque([0] * STACKS, maxlen=STACKS)  # when the last ones were written

    def tell(
        self,
        kind: Kind,
        path: str,
        text: str,
        error: BaseException | None = None,
        *,
        alike: str | None = None,
    ) -> None:
        """Something happened. `error`: for the stack. `alike`: what is the same; None: all at `path`."""
        self.told[kind] += 1
        at, place = int(self._clock() * 1e9), (kind, path if alike is None else alike)
        newest = self._newest.get(place)
        if newest is not None and 0 <= at - newest.at < TOGETHER * 1e9:
            newest.times += 1
            return
        self._last += 1
        event = Event(self._last, at, kind, path, shown(text, TEXT), self._stack(error, at))
        self._newest.pop(place, None)
        self._newest[place] = event
        self._of[kind].append(event)
        self._make_room()

    def behind(self, after: int, limit: int) -> Sequence[Event]:
        """The first `limit` events with an id above `after`, oldest first.

        An id that was never given is of an earlier process whose clock was ahead: then of all there are.
        """
        after = after if after <= self._last else 0
        later = ([each for each in events if each.id > after] for events in self._of.values())
        return list(islice(merge(*later, key=_id), limit))

    def newest(self, limit: int) -> Sequence[Event]:
        """The newest `limit` events, oldest first."""
        return list(merge(*self._of.values(), key=_id))[-limit:]

    def _stack(self, error: BaseException | None, at: int) -> str | None:
        if error is None or 0 <= at - self._stacks[0] < 1_000_000_000:
            return None
        self._stacks.append(at)
        return _stack(error)

    def _make_room(self) -> None:
        if sum(map(len, self._of.values())) > KEPT:
            max(self._of.values(), key=len).popleft()
            self.forgotten += 1
        if len(self._newest) > KEPT:
            del self._newest[next(iter(self._newest))]


def shown(text: str, most: int) -> str:
    """The beginning of a text from anywhere: at most `most` characters, and no secret."""
    told = concealed(without_kept(text)[: most * _LOOKED_AT])
    return told if len(told) <= most else f"{told[: most - 3]}..."


def _stack(error: BaseException) -> str:
    """The end of a traceback says most: what was raised, and where."""
    whole = without_kept("".join(traceback.format_exception(error)))[-STACK * _LOOKED_AT :]
    told = concealed(whole).rstrip().encode(errors="replace")
    return (told if len(told) <= STACK else b"..." + told[3 - STACK :]).decode(errors="ignore")


def _id(event: Event) -> int:
    return event.id
