"""What an upstream allows to ask by HTTP: the weight of a minute, and the order of those who wait for it.

Rules of this file: no I/O; a budget outlives the clients that share it. The weight of the questions of any
60 s has a bound, and so has the part of it for proof of life. What others at our address use counts as far as
the upstream tells it. Nothing is asked before the time that it named. Urgent questions go first. Every wait
for a turn has an end, and so has the queue.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from enum import IntEnum
from itertools import count
from typing import Final, NamedTuple, Protocol

import trio

AT_ONCE: Final = 4  # questions under way
QUEUE: Final = 64  # questions that may wait for their turn
MINUTE: Final = 60.0  # seconds
MARGIN: Final = 1.0  # seconds: the upstream's minute is not ours, and the way there takes time
TURN_WITHIN: Final = 90.0  # seconds to wait for a turn
LIMITED_FOR: Final = 10.0  # seconds: for an upstream that refuses and does not say for how long
LIFE: Final = 4  # proof of life gets one part of so many


class Priority(IntEnum):
    """Who goes first."""

    HOLD = 0  # live trades wait for the answer
    FILL = 1  # a gap that was told
    LIFE = 2  # whether a silent symbol is quiet


class RestFailed(Exception):
    """A question has no usable answer. `reason`: a snake_case name, for counting. `wait`: seconds in which
    asking again is in vain, as far as the upstream told it.

    Reasons: unreachable, untrusted (TLS), broken, no_answer (in time), redirected, client_error (4xx),
    server_error (5xx), rate_limited, too_large, bad_encoding. Of our own bounds: too_heavy, busy, no_turn.
    """

    def __init__(self, reason: str, words: str, wait: float = 0.0) -> None:
        super().__init__(words)
        self.reason = reason
        self.wait = wait


class _Ticket(NamedTuple):
    priority: Priority
    number: int
    weight: int


class Budget:
    """What an upstream allows: `most` weight within any 60 s. All who ask it share one. Outlives clients.

    `used`: the weight of the questions of the last 60 s, with what others at our address have used as far as
    the upstream tells it.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._spent: deque[tuple[float, int, bool]] = deque()  # when, weight, whether for proof of life
        self._not_before = float("-inf")
        self._waiting: list[_Ticket] = []
        self._numbers = count()
        self._under_way = 0
        self._changed = trio.lowlevel.ParkingLot()

    def used(self, now: float) -> int:
        return sum(weight for _, weight, _ in self._recent(now))

    def closed_for(self, now: float) -> float:
        """Seconds for which the upstream wants no questions; 0.0: none."""
        return max(0.0, self._not_before - now)

    def free_at(self, weight: int, now: float) -> float:
        """From when `weight` more may be spent, if nobody else asks; the past: now."""
        return _fits_at(list(self._recent(now)), weight, self.most)

    def close_until(self, moment: float) -> None:
        """Ask nothing before this time."""
        self._not_before = max(self._not_before, moment)
        self._changed.unpark_all()

    def told(self, used: int, now: float) -> None:
        """The upstream tells what it counts in this minute. More than we know of counts as spent now."""
        more = min(used, self.most) - self.used(now)
        if more > 0:
            self._spent.append((now, more, False))

    @asynccontextmanager
    async def turn(self, weight: int, priority: Priority) -> AsyncIterator[None]:
        """Wait until one more question may be asked, which lasts as long as the block. Raises RestFailed."""
        if weight > (self.most // LIFE if priority is Priority.LIFE else self.most):
            raise RestFailed("too_heavy", f"a question of weight {weight} never fits {self.most} a minute")
        if len(self._waiting) >= QUEUE:
            raise RestFailed("busy", f"{QUEUE} other questions wait already")
        ticket = _Ticket(priority, next(self._numbers), weight)
        insort(self._waiting, ticket)
        try:
            with trio.fail_after(TURN_WITHIN):
                await self._wait(ticket)
        except trio.TooSlowError:
            raise RestFailed("no_turn", f"no turn to ask within {TURN_WITHIN:g} s") from None
        finally:
            self._waiting.remove(ticket)
            self._changed.unpark_all()
        self._spent.append((trio.current_time(), weight, priority is Priority.LIFE))
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1
            self._changed.unpark_all()

    async def _wait(self, ticket: _Ticket) -> None:
        await trio.lowlevel.checkpoint()
        while True:
            now = trio.current_time()
            if closed := self.closed_for(now):
                raise RestFailed("rate_limited", f"the upstream wants no question for {closed:.3g} s", closed)
            free_at = float("inf")
            if self._waiting[0] is ticket and self._under_way < AT_ONCE:
                free_at = self._free_at(ticket, now)
                if free_at <= now:
                    return
            with trio.CancelScope(deadline=free_at):
                await self._changed.park()

    def _free_at(self, ticket: _Ticket, now: float) -> float:
        """When enough of what was spent is a minute old."""
        at = self.free_at(ticket.weight, now)
        if ticket.priority is Priority.LIFE:
            of_life = [each for each in self._recent(now) if each[2]]
            at = max(at, _fits_at(of_life, ticket.weight, self.most // LIFE))
        return at

    def _recent(self, now: float) -> Iterator[tuple[float, int, bool]]:
        while self._spent and self._spent[0][0] + MINUTE + MARGIN <= now:
            self._spent.popleft()
        return iter(self._spent)


def _fits_at(spent: list[tuple[float, int, bool]], weight: int, most: int) -> float:
    """The time from which `weight` more is not too much. `spent`: the oldest first."""
    room = most - sum(each for _, each, _ in spent)
    at = float("-inf")
    for moment, each, _ in spent:
        if room >= weight:
            break
        room += each
        at = moment + MINUTE + MARGIN
    return at


class Asks(Protocol):
    """Asks an upstream within a budget: a `rest.RestClient`."""

    async def get(self, path: str, weight: int, priority: Priority) -> bytes:
        """The whole answer. Raises RestFailed."""
