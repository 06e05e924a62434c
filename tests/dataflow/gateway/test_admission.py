"""Admission: the order of turns, waiting, refusals, and their bounds."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import trio
from attrs import define, field
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from trio.testing import MockClock

from actors.session import Ending
from dataflow.domain.notice import Notice, Refused, Waiting
from dataflow.gateway.admission import (
    TOO_MANY_SESSIONS,
    TOO_MANY_WAITING,
    Admission,
    Standing,
    Turn,
    Turns,
    Urgency,
    goodbye,
)

NEW, RESUMING, SERVED = Urgency.NEW, Urgency.RESUMING, Urgency.SERVED


class Stage:
    """An admission with a clock of its own. `woken` has the names of the woken clients, in order."""

    def __init__(self, at_once: int = 1, waiting: int = 10, seed: int = 1) -> None:
        self.now = 0.0
        self.woken: list[str] = []
        self.admission = Admission(at_once, waiting, 5.0, clock=lambda: self.now, dice=random.Random(seed))

    def enter(self, urgency: Urgency, name: str = "") -> Turn:
        return self.admission.enter(urgency, lambda: self.woken.append(name))


def test_first_come_first_served() -> None:
    """The first client does not wait. The others are served in the order in which they came."""
    stage = Stage()
    turns = [stage.enter(NEW, name) for name in "abc"]
    assert [turn.standing for turn in turns] == [Standing.SERVING, Standing.WAITING, Standing.WAITING]
    for turn in turns:
        assert turn.standing is Standing.SERVING
        stage.admission.leave(turn)
    assert stage.woken == ["b", "c"]
    assert stage.admission.admitted == 3


def test_served_clients_come_before_resuming_ones_and_new_ones_last() -> None:
    """In whatever order they came."""
    stage = Stage()
    turn = stage.enter(NEW)
    waiting = {name: stage.enter(urgency, name) for name, urgency in
               (("n1", NEW), ("r1", RESUMING), ("s1", SERVED), ("n2", NEW), ("r2", RESUMING), ("s2", SERVED))}  # fmt: skip
    for _ in waiting:
        stage.admission.leave(turn)
        turn = waiting[stage.woken[-1]]
    assert stage.woken == ["s1", "s2", "r1", "r2", "n1", "n2"]


def test_a_resuming_client_takes_the_place_of_the_newest_newcomer() -> None:
    """Without room to wait, a new client is refused. For a resuming one, the newest new client is refused instead."""
    stage = Stage(waiting=3)
    stage.enter(NEW)
    old, middle, newest = (stage.enter(NEW, name) for name in "omn")
    assert stage.enter(NEW).standing is Standing.REFUSED
    resuming = stage.enter(RESUMING, "r")
    assert [turn.standing for turn in (old, middle, newest)] == [Standing.WAITING] * 2 + [Standing.REFUSED]
    assert resuming.standing is Standing.WAITING
    assert stage.woken == ["n"]
    assert stage.admission.waiting == {"served": 0, "resuming": 1, "new": 2}
    assert +stage.admission.refused == {TOO_MANY_WAITING: 2}


def test_a_resuming_client_is_refused_when_all_waiting_clients_resume() -> None:
    """The room for resuming clients is bounded too."""
    stage = Stage(waiting=2)
    stage.enter(NEW)
    waiting = [stage.enter(RESUMING), stage.enter(RESUMING)]
    assert stage.enter(RESUMING).standing is Standing.REFUSED
    assert all(turn.standing is Standing.WAITING for turn in waiting)


def test_a_served_client_is_never_refused() -> None:
    """The bound is for newcomers; a client that was served once may always ask."""
    stage = Stage(waiting=1)
    stage.enter(NEW)
    stage.enter(NEW)
    assert [stage.enter(SERVED).standing for _ in range(5)] == [Standing.WAITING] * 5
    assert stage.enter(NEW).standing is Standing.REFUSED


def test_a_client_that_leaves_the_queue_is_not_served() -> None:
    """Its place is free at once, and the next client moves up."""
    stage = Stage(waiting=2)
    first, gone, last = stage.enter(NEW), stage.enter(NEW, "gone"), stage.enter(NEW, "last")
    stage.admission.leave(gone)
    assert stage.admission.waiting == {"served": 0, "resuming": 0, "new": 1}
    assert stage.admission.ahead(last) == 0
    assert stage.enter(NEW).standing is Standing.WAITING
    stage.admission.leave(first)
    assert stage.woken == ["last"]


def test_ahead_counts_the_clients_that_come_first() -> None:
    """The earlier clients of the same urgency, and all more urgent ones."""
    stage = Stage()
    stage.enter(NEW)
    new = [stage.enter(NEW) for _ in range(3)]
    resuming = [stage.enter(RESUMING) for _ in range(2)]
    assert [stage.admission.ahead(turn) for turn in new] == [2, 3, 4]
    assert [stage.admission.ahead(turn) for turn in resuming] == [0, 1]


def test_the_longest_wait() -> None:
    """It covers served clients and waiting ones."""
    stage = Stage()
    turn = stage.enter(NEW)
    waiting = stage.enter(RESUMING)
    stage.now = 3.0
    assert stage.admission.longest_wait == 3.0
    stage.admission.leave(turn)
    stage.now = 50.0
    assert stage.admission.longest_wait == 3.0
    stage.admission.leave(waiting)
    assert stage.admission.longest_wait == 3.0


def test_a_delay_is_jittered_and_repeatable() -> None:
    """Between once and twice `retry_after`, spread, and the same for the same dice."""
    delays = [Stage(seed=7).admission.delay() for _ in range(2)]
    assert delays[0] == delays[1]
    stage = Stage()
    spread = [stage.admission.delay() for _ in range(200)]
    assert min(spread) >= 5.0
    assert max(spread) <= 10.0
    assert len(set(spread)) > 30


def test_a_delay_is_no_shorter_than_the_queue() -> None:
    """When the waiting clients need longer than `retry_after`, that delay would be too short."""
    stage = Stage(waiting=1000)
    turns = [stage.enter(NEW) for _ in range(1000)]
    for turn in turns[:300]:
        stage.now += 0.1
        stage.admission.leave(turn)
    assert stage.admission.delay() >= 0.95 * 0.1 * 700


def test_a_client_refused_before_it_asks_is_counted() -> None:
    """By reason, and with a delay like any other refused client."""
    stage = Stage()
    assert 5.0 <= stage.admission.turn_away(TOO_MANY_SESSIONS) <= 10.0
    assert stage.admission.refused[TOO_MANY_SESSIONS] == 1
    assert goodbye(TOO_MANY_SESSIONS, 7.0) == "too many sessions, try again in 7 s"


class AdmissionModel(RuleBasedStateMachine):
    """Clients come, leave and give turns back in any order; a plain model of the rules predicts each result."""

    AT_ONCE, WAITING = 3, 4

    def __init__(self) -> None:
        super().__init__()
        self.admission = Admission(self.AT_ONCE, self.WAITING, 5.0, clock=lambda: 0.0, dice=random.Random(0))
        self.turns: list[Turn] = []  # all turns, oldest first
        self.woken: list[Turn] = []

    def _enter(self, urgency: Urgency) -> Turn:
        made: list[Turn] = []
        turn = self.admission.enter(urgency, lambda: self.woken.append(made[0]))
        made.append(turn)
        self.turns.append(turn)
        return turn

    def _with(self, standing: Standing) -> list[Turn]:
        return [turn for turn in self.turns if turn.standing is standing]

    @rule(urgency=st.sampled_from(Urgency))
    def enter(self, urgency: Urgency) -> None:
        newcomers = [turn for turn in self._with(Standing.WAITING) if turn.urgency is not SERVED]
        displaceable = [turn for turn in newcomers if turn.urgency is NEW]
        serving = len(self._with(Standing.SERVING))
        turn = self._enter(urgency)
        if serving < self.AT_ONCE:
            assert turn.standing is Standing.SERVING
        elif urgency is SERVED or len(newcomers) < self.WAITING:
            assert turn.standing is Standing.WAITING
        elif urgency is RESUMING and displaceable:
            assert turn.standing is Standing.WAITING
            assert displaceable[-1].standing is Standing.REFUSED
        else:
            assert turn.standing is Standing.REFUSED

    @precondition(lambda self: self._with(Standing.SERVING))
    @rule(data=st.data())
    def give_back(self, data: Any) -> None:
        waiting = self._with(Standing.WAITING)
        turn = data.draw(st.sampled_from(self._with(Standing.SERVING)))
        self.admission.leave(turn)
        self.admission.leave(turn)
        if waiting:
            best = min(waiting, key=lambda each: each.urgency)  # the oldest of the most urgent
            assert best.standing is Standing.SERVING
            assert self.woken[-1] is best

    @precondition(lambda self: self._with(Standing.WAITING))
    @rule(data=st.data())
    def hang_up(self, data: Any) -> None:
        serving = self._with(Standing.SERVING)
        self.admission.leave(data.draw(st.sampled_from(self._with(Standing.WAITING))))
        assert self._with(Standing.SERVING) == serving

    @invariant()
    def bounded_and_never_idle(self) -> None:
        serving, waiting = self._with(Standing.SERVING), self._with(Standing.WAITING)
        assert len(serving) <= self.AT_ONCE
        assert len([turn for turn in waiting if turn.urgency is not SERVED]) <= self.WAITING
        assert not waiting or len(serving) == self.AT_ONCE
        assert sum(self.admission.waiting.values()) == len(waiting)

    @invariant()
    def woken_once_at_most(self) -> None:
        assert len(set(map(id, self.woken))) == len(self.woken)

    @invariant()
    def ahead_is_not_too_few(self) -> None:
        waiting = sorted(self._with(Standing.WAITING), key=lambda each: each.urgency)
        for place, turn in enumerate(waiting):
            assert place <= self.admission.ahead(turn) < len(waiting)

    def teardown(self) -> None:
        """All waiting clients are served in the end."""
        while serving := self._with(Standing.SERVING):
            self.admission.leave(serving[0])
        assert not self._with(Standing.WAITING)
        assert {turn.standing for turn in self.turns} <= {Standing.OVER, Standing.REFUSED}


AdmissionModel.TestCase.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None, derandomize=True
)
TestAdmissionModel = AdmissionModel.TestCase


@define
class Guest:
    """A client's session as admission sees it. `ends` has the reason of its end, and the words."""

    scope: trio.CancelScope = field(factory=trio.CancelScope)
    said: list[Any] = field(factory=list)
    ends: tuple[Ending, str] | None = None
    listening: bool = False

    def tell(self, notice: Notice) -> None:
        self.said.append(notice)

    def end(self, why: Ending, words: str) -> None:
        self.ends = (why, words)
        self.scope.cancel()

    async def listen_ahead(self) -> None:
        self.listening = True
        try:
            await trio.sleep_forever()
        finally:
            self.listening = False

    async def visit(self, admission: Admission, act: Callable[[], Any], *, resuming: bool = False) -> None:
        """Take a turn, `act` in it, give it back."""
        turns = Turns(admission, self)
        with self.scope:
            await turns.take(resuming)
            with suppress(trio.Cancelled):
                act()
            await trio.lowlevel.checkpoint()
            turns.leave()


async def test_a_client_that_waits_gets_a_sign(autojump_clock: MockClock) -> None:
    """After one second, then every three: the number of clients before it, and the seconds it has waited."""
    admission, guests, served = Admission(1, 10, 5.0), [Guest(), Guest()], list[int]()
    busy = admission.enter(NEW, lambda: None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(admission.give_signs)
        for number, guest in enumerate(guests):
            nursery.start_soon(guest.visit, admission, lambda n=number: served.append(n))
            await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(6.9)
        for number, guest in enumerate(guests):
            assert {type(notice) for notice in guest.said} == {Waiting}
            assert [notice.ahead for notice in guest.said] == [number, number]
            first, second = (notice.seconds for notice in guest.said)
            assert 1.0 <= first <= 1.3
            assert 4.0 <= second <= 4.6
        admission.leave(busy)
        await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    assert served == [0, 1]
    assert [len(guest.said) for guest in guests] == [2, 2]


async def test_a_client_that_hangs_up_leaves_the_queue() -> None:
    """It reads while it waits, so the hang-up cancels it, and its place is free at once."""
    admission, gone, served = Admission(1, 10, 5.0), Guest(), list[str]()
    busy = admission.enter(NEW, lambda: None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(gone.visit, admission, lambda: served.append("gone"))
        await trio.testing.wait_all_tasks_blocked()
        assert gone.listening
        gone.end(Ending.GONE, "")
        await trio.testing.wait_all_tasks_blocked()
        assert admission.waiting == {"served": 0, "resuming": 0, "new": 0}
        nursery.start_soon(Guest().visit, admission, lambda: served.append("next"))
        await trio.testing.wait_all_tasks_blocked()
        admission.leave(busy)
    assert served == ["next"]


async def test_a_client_that_is_cancelled_in_its_turn_gives_it_back() -> None:
    """No turn is lost with a client."""
    admission, served = Admission(1, 10, 5.0), list[str]()
    busy = admission.enter(NEW, lambda: None)
    guest, other = Guest(), Guest()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(guest.visit, admission, lambda: served.append("first"))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(other.visit, admission, lambda: served.append("second"))
        await trio.testing.wait_all_tasks_blocked()
        admission.leave(busy)  # the first client gets the turn, and is gone before it can use it
        guest.end(Ending.GONE, "")
    assert "second" in served
    assert admission.waiting == {"served": 0, "resuming": 0, "new": 0}


@pytest.mark.parametrize("displaced", [False, True])
async def test_a_client_without_a_place_is_told_when_to_come_back(displaced: bool) -> None:
    """By a notice and in the close reason: at once, or when a resuming client takes its place."""
    admission, guest = Admission(1, 1, 5.0, dice=random.Random(3)), Guest()
    admission.enter(NEW, lambda: None)
    if not displaced:
        admission.enter(RESUMING, lambda: None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(guest.visit, admission, lambda: None)
        await trio.testing.wait_all_tasks_blocked()
        assert (guest.ends is None) is displaced
        if displaced:
            admission.enter(RESUMING, lambda: None)
    (notice,) = guest.said
    delay = notice.retry_after
    assert notice == Refused(TOO_MANY_WAITING, delay)
    assert 5.0 <= delay <= 10.0
    assert guest.ends == (Ending.REFUSED, f"too many clients are waiting, try again in {delay:g} s")


async def test_a_pass_serves_no_more_than_may_be_at_once() -> None:
    """A client keeps its turn over a checkpoint, so a hundred clients are served in many passes."""
    admission, served, most = Admission(4, 1000, 5.0), list[int](), 0
    async with trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(Guest().visit, admission, lambda n=number: served.append(n))
        while len(served) < 100:
            before = len(served)
            await trio.lowlevel.checkpoint()
            most = max(most, len(served) - before)
    assert most <= 2 * 4  # this task may run first in one pass and last in the next one


async def test_a_client_in_the_middle_of_its_work_comes_before_newcomers() -> None:
    """A pause gives turns to other served clients, not to newcomers."""
    admission, order = Admission(1, 10, 5.0), list[str]()

    async def long() -> None:
        turns = Turns(admission, Guest())
        await turns.take(resuming=False)
        for n in range(3):
            order.append(f"slice {n}")
            await turns.pause()
        turns.leave()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(long)
        await trio.lowlevel.checkpoint()
        nursery.start_soon(Guest().visit, admission, lambda: order.append("newcomer"))
    assert order == ["slice 0", "slice 1", "slice 2", "newcomer"]
