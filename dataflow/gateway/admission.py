"""Turns for clients when many come at once, and refusals when there is no room to wait.

Rules of this file.
1. At most `at_once` clients hold a turn. A client keeps its turn over a checkpoint. So one pass of the event
   loop answers at most that many calls, and the fan-out, one step in each pass, waits for no more than that.
2. Clients already served come first, then clients that resume, then new ones. Within each group the order is
   first come, first served. So a client finishes its calls before the next newcomer begins.
3. At most `waiting` newcomers wait; a newcomer is a client that was never served. When there is no room, a
   client that resumes takes the place of the newest client that does not resume. All others are refused.
4. A client that asks for a turn is served, is refused, or leaves: exactly one of these.
`Admission` decides and never waits; its clock and dice are arguments. `Turns` waits, for one client. One task
tells all clients that have waited for long: to wake thousands of them would cost as much as to answer them.
"""

from __future__ import annotations

import random
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable
from enum import Enum, IntEnum
from typing import Protocol, TypeVar

import trio
from attrs import define, field

from actors.session import Ending
from dataflow.domain.notice import Notice, Refused, Waiting

T = TypeVar("T")

FIRST_SIGN = 1.0  # seconds of waiting before a client is told that it waits ...
NEXT_SIGN = 3.0  # ... and told again
LOOK_EVERY = 0.25  # seconds between two searches for clients to tell
TOLD_AT_ONCE = 64  # clients told between two checkpoints
TOO_MANY_SESSIONS = "too many sessions"
TOO_MANY_OF_ONE = "too many sessions of one address or name"
TOO_LITTLE_MEMORY = "too little memory"
TOO_MANY_WAITING = "too many clients are waiting"
REFUSALS = (TOO_MANY_SESSIONS, TOO_MANY_OF_ONE, TOO_LITTLE_MEMORY, TOO_MANY_WAITING)
_PACE_WEIGHT = 0.05  # of the newest interval in the running mean of the time for one client


class Urgency(IntEnum):
    """The order of turns: the smaller value comes first."""

    SERVED = 0
    RESUMING = 1
    NEW = 2


class Standing(Enum):
    """The state of a turn."""

    WAITING = "waiting"
    SERVING = "serving"
    REFUSED = "refused"
    OVER = "over"


@define(eq=False)
class Turn:
    """A turn. `since` is the time of the request, `sign_at` the time of the next sign to its client."""

    urgency: Urgency
    since: float
    standing: Standing
    sign_at: float
    tell: Callable[[Notice], None]
    _wake: Callable[[], None]
    _number: int

    def _become(self, standing: Standing) -> None:
        self.standing = standing
        self._wake()


def _ignore(notice: Notice) -> None:
    pass


class Admission:
    """Hands out turns. Durations are seconds on `clock`."""

    def __init__(
        self,
        at_once: int,
        waiting: int,
        retry_after: float,
        *,
        clock: Callable[[], float] = trio.current_time,
        dice: random.Random | None = None,
    ) -> None:
        self.admitted = 0  # newcomers, with or without waiting
        self.refused: Counter[str] = Counter(dict.fromkeys(REFUSALS, 0))
        self._at_once = at_once
        self._room = waiting
        self._retry_after = retry_after
        self._clock = clock
        self._dice = dice or random.Random()
        self._serving = 0
        self._entered = Counter[Urgency]()
        # Not plain dictionaries: after many removals at the front, finding their first key gets ever slower.
        self._queues = {urgency: OrderedDict[Turn, None]() for urgency in Urgency}
        self._longest_wait = 0.0
        self._pace = 0.0  # seconds from one newcomer's turn to the next, while newcomers wait
        self._paced_at: float | None = None

    @property
    def waiting(self) -> dict[str, int]:
        """The number of waiting clients by urgency: "served", "resuming" and "new"."""
        return {urgency.name.lower(): len(queue) for urgency, queue in self._queues.items()}

    @property
    def longest_wait(self) -> float:
        """The longest wait of a newcomer so far, in seconds, including newcomers that still wait."""
        oldest = [next(iter(queue)).since for queue in self._newcomers() if queue]
        return max([self._longest_wait, *(self._clock() - since for since in oldest)])

    def enter(
        self, urgency: Urgency, wake: Callable[[], None], tell: Callable[[Notice], None] = _ignore
    ) -> Turn:
        """Ask for a turn. When it must wait, `tell(notice)` is called for every sign.

        `wake()` is called when a waiting turn is served or refused.
        """
        now = self._clock()
        self._entered[urgency] += 1
        number = self._entered[urgency]
        turn = Turn(urgency, now, Standing.WAITING, now + FIRST_SIGN, tell, wake, number)
        if self._serving < self._at_once:  # then no client waits
            turn.standing = Standing.SERVING
            self._begin(turn)
        elif urgency is Urgency.SERVED or self._has_room(urgency):
            self._queues[urgency][turn] = None
        else:
            turn.standing = Standing.REFUSED
            self.refused[TOO_MANY_WAITING] += 1
        return turn

    def leave(self, turn: Turn) -> None:
        """End a turn, or withdraw it while it waits. Idempotent."""
        before, turn.standing = turn.standing, Standing.OVER
        if before is Standing.WAITING:
            del self._queues[turn.urgency][turn]
        elif before is Standing.SERVING:
            self._serving -= 1
            self._serve_next()

    def ahead(self, turn: Turn) -> int:
        """The most clients that now come before this waiting one. More urgent ones may still come."""
        more_urgent = sum(len(self._queues[each]) for each in Urgency if each < turn.urgency)
        equal = self._queues[turn.urgency]
        return more_urgent + min(turn._number - next(iter(equal))._number, len(equal) - 1)

    async def give_signs(self) -> None:
        """Tell clients that have waited for long how many come before them. Runs until cancelled."""
        while True:
            await trio.sleep(LOOK_EVERY)
            now, told = self._clock(), 0
            for turn in [turn for queue in self._queues.values() for turn in queue if turn.sign_at <= now]:
                if turn.standing is Standing.WAITING:
                    turn.sign_at = now + NEXT_SIGN
                    turn.tell(Waiting(self.ahead(turn), round(now - turn.since, 1)))
                    told += 1
                if told % TOLD_AT_ONCE == 0:
                    await trio.lowlevel.checkpoint()

    def turn_away(self, reason: str) -> float:
        """Count a client that is refused before it asks for a turn; returns `delay()`."""
        self.refused[reason] += 1
        return self.delay()

    def delay(self) -> float:
        """Seconds after which a refused client may try again.

        Jittered, so that refused clients do not return together. Not shorter than the waiting clients are
        expected to take.
        """
        waiting = sum(map(len, self._newcomers()))
        return round(max(self._retry_after, waiting * self._pace) * self._dice.uniform(1.0, 2.0), 1)

    def _newcomers(self) -> tuple[OrderedDict[Turn, None], ...]:
        return self._queues[Urgency.RESUMING], self._queues[Urgency.NEW]

    def _has_room(self, urgency: Urgency) -> bool:
        if sum(map(len, self._newcomers())) < self._room:
            return True
        if urgency is not Urgency.RESUMING or not self._queues[Urgency.NEW]:
            return False
        displaced, _ = self._queues[Urgency.NEW].popitem(last=True)
        self.refused[TOO_MANY_WAITING] += 1
        displaced._become(Standing.REFUSED)
        return True

    def _serve_next(self) -> None:
        queue = next((queue for queue in self._queues.values() if queue), None)
        if queue is not None:
            turn, _ = queue.popitem(last=False)
            self._begin(turn)
            turn._become(Standing.SERVING)

    def _begin(self, turn: Turn) -> None:
        self._serving += 1
        if turn.urgency is not Urgency.SERVED:
            self.admitted += 1
            now = self._clock()
            self._longest_wait = max(self._longest_wait, now - turn.since)
            self._keep_pace(now)

    def _keep_pace(self, now: float) -> None:
        if self._paced_at is not None:
            self._pace += _PACE_WEIGHT * (now - self._paced_at - self._pace)
        self._paced_at = now if any(self._newcomers()) else None


class Visitor(Protocol):
    """A client that can wait, be told and be closed: a session."""

    def tell(self, notice: Notice) -> None:
        """Send a notice. Never waits or raises."""

    def end(self, why: Ending, words: str) -> None:
        """Close, and cancel the visitor's task."""

    async def listen_ahead(self) -> None:
        """Read until cancelled, so that a visitor that hangs up is noticed at once, and cancelled."""


@define(eq=False)
class Turns:
    """The turns of one client, from its first call to its end."""

    _admission: Admission
    _visitor: Visitor
    _turn: Turn | None = None
    _served: bool = False
    _waiting: trio.CancelScope | None = field(default=None, init=False)

    async def take(self, resuming: bool) -> None:
        """Wait for a turn, which lasts until `leave`. A turn in hand is given back for it.

        `resuming` counts for the first turn only. A refused client is told, closed and cancelled.
        """
        before, self._turn = self._turn, self._enter(resuming)
        if before is not None:  # after `_enter`; before it, a newcomer would get the turn
            self._admission.leave(before)
        try:
            await self._until_served(self._turn)
        except BaseException:
            self.leave()
            raise
        self._served = True

    def leave(self) -> None:
        """Give the turn back. Idempotent."""
        if self._turn is not None:
            self._admission.leave(self._turn)
            self._turn = None

    async def pause(self) -> None:
        """Let others have a turn, in the middle of a long answer."""
        await trio.lowlevel.checkpoint()
        await self.take(resuming=False)

    async def elsewhere(self, wait: Awaitable[T]) -> T:
        """Wait for something that others need not wait for: a disk, say. There is a turn again behind it."""
        self.leave()
        try:
            return await wait
        finally:
            await self.take(resuming=False)

    def _enter(self, resuming: bool) -> Turn:
        newcomer = Urgency.RESUMING if resuming else Urgency.NEW
        urgency = Urgency.SERVED if self._served else newcomer
        return self._admission.enter(urgency, self._wake, self._visitor.tell)

    def _wake(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()

    async def _until_served(self, turn: Turn) -> None:
        if turn.standing is Standing.WAITING:
            with trio.CancelScope() as self._waiting:
                await self._visitor.listen_ahead()
            self._waiting = None
        if turn.standing is Standing.REFUSED:
            await self._go()

    async def _go(self) -> None:
        delay = self._admission.delay()
        self._visitor.tell(Refused(TOO_MANY_WAITING, delay))
        self._visitor.end(Ending.REFUSED, goodbye(TOO_MANY_WAITING, delay))
        await trio.sleep_forever()


def goodbye(reason: str, delay: float) -> str:
    """The close reason of a client that is refused for `delay` seconds."""
    return f"{reason}, try again in {delay:g} s"
