"""The channel `quality`: changes only, and of each source only the newest."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from actors.outbox import Outbox, SlowClient
from actors.session import Manners, Session
from actors.subscription import Fanout, Subscription
from actors.update import Encode, Places, Rendering, Update
from dataflow.domain import Topic
from dataflow.domain.quality import Grade, Quality
from dataflow.domain.topic import QUALITY
from dataflow.sources.vitals import UNHEARD
from dataflow.topics.quality import Qualities, QualityLog, judge, make
from supervisors import Child, Pool, Restart, open_supervisor
from tests.actors.fakes import FakeWire
from tests.dataflow.topics.stage import EPOCH, SYMBOLS, Stage, read_on

BTC = Topic(QUALITY, SYMBOLS[0])
SOURCES = ("a", "b", "c")


def quality(source: str, state: Grade = Grade.IDLE, reason: str | None = None, since: int = 0) -> Quality:
    return Quality(SYMBOLS[0], source, state, since, reason)


def new_log() -> QualityLog:
    return QualityLog(BTC, EPOCH, [quality(source) for source in SOURCES])


qualities = st.builds(
    quality,
    st.sampled_from(SOURCES),
    st.sampled_from(Grade),
    st.sampled_from([None, "x", "y"]),
    st.integers(0, 9),
)


@given(st.lists(qualities, max_size=40))
def test_only_changes_have_places_and_only_the_newest_of_a_source_is_kept(states: list[Quality]) -> None:
    """A change is another state or another reason. A reading from any place gives each source at most once.

    Another reason alone does not begin anew: the time of the state stays.
    """
    log = new_log()
    model = [(place, quality(source)) for place, source in enumerate(SOURCES, start=1)]  # every place so far
    for state in states:
        before = next(known for _, known in reversed(model) if known.source == state.source)
        is_change = (before.state, before.reason) != (state.state, state.reason)
        assert log.put(state) is is_change
        if is_change:
            if before.state is state.state:
                state = evolve(state, since=before.since)
            model.append((len(model) + 1, state))
        assert log.last == len(model)
    newest = {state.source: (place, state) for place, state in model}
    assert log.states == [newest[source][1] for source in SOURCES]
    for after in range(log.last + 1):
        expected = sorted((each for each in newest.values() if each[0] > after), key=lambda each: each[0])
        assert read_on(log, after) == expected


def test_the_first_states_are_places_too() -> None:
    """A subscriber at place 0 gets the state of each source."""
    assert new_log().last == len(SOURCES)
    assert [state.source for _, state in read_on(new_log(), 0)] == list(SOURCES)


def test_the_newest_are_the_states_and_there_is_no_past() -> None:
    """The oldest change first. Nothing else is kept, so no position can be recovered."""
    log = new_log()
    log.put(quality("a", Grade.LIVE))
    assert log.newest(9) == [(2, quality("b")), (3, quality("c")), (4, quality("a", Grade.LIVE))]
    assert log.newest(1) == [(4, quality("a", Grade.LIVE))]
    assert log.newest(0) == []
    assert (log.resume(EPOCH, 0, 9)[:2], log.behind(0, 9)) == ((False, log.last), ())


Turn = Callable[[Stage], Any]

TURNS: list[tuple[Turn, Grade, str | None]] = [
    (lambda s: None, Grade.LOST, "connecting"),
    (lambda s: s.sources["a"].up([]), Grade.IDLE, None),
    (lambda s: s.sources["a"].interest.want(SYMBOLS[0], "me"), Grade.LOST, "subscribing"),
    (lambda s: s.sources["a"].subscribed(SYMBOLS[0]), Grade.QUIET, UNHEARD),
    (lambda s: s.sources["a"].refused(SYMBOLS[0], "unknown"), Grade.REJECTED, "unknown"),
    (lambda s: s.sources["a"].down("cut"), Grade.LOST, "cut"),
]


@pytest.mark.parametrize("steps", range(1, len(TURNS) + 1))
def test_a_quality_is_the_status_with_its_reason(steps: int) -> None:
    """A source that connects or subscribes is lost, for that reason; a refusal has the words of the source. What
    is subscribed is not live before anything has come."""
    stage = Stage()
    for turn, _, _ in TURNS[:steps]:
        turn(stage)
    _, grade, reason = TURNS[steps - 1]
    assert judge(stage.sources["a"], SYMBOLS[0], 5) == Quality(SYMBOLS[0], "a", grade, 5, reason)


def test_each_change_wakes_the_topic_once() -> None:
    """With the time of the change. A look without a change wakes nobody."""
    stage = Stage()
    channel = stage.make(make)
    log = channel.log_of(BTC)
    first = log.last
    stage.now = 1234.5
    stage.sources["b"].up([])
    assert stage.news == [Topic(QUALITY, symbol) for symbol in SYMBOLS], "its connection carries both"
    channel.look(SYMBOLS)
    stage.sources["b"].up([])
    assert len(stage.news) == len(SYMBOLS)
    assert read_on(log, first) == [(first + 1, Quality(SYMBOLS[0], "b", Grade.IDLE, 1_234_500_000_000))]


def test_the_interest_of_others_is_a_change_too() -> None:
    """The channel itself wants nothing of the sources."""
    stage = Stage()
    channel = stage.make(make)
    assert isinstance(channel, Qualities)
    assert list(channel.wants(BTC)) == []
    stage.sources["a"].up([])
    stage.sources["a"].interest.want(SYMBOLS[0], "trades")
    channel.look([SYMBOLS[0]])
    assert [state.reason for state in channel.log_of(BTC).states] == ["subscribing", "connecting"]


def test_a_symbol_that_is_not_configured_is_no_trouble() -> None:
    """The configured symbols beside it are looked at all the same."""
    stage = Stage()
    channel = stage.make(make)
    stage.watching.clear()
    stage.sources["a"].up([])
    channel.look(["X-Y", SYMBOLS[0]])
    assert stage.news == [BTC]


class Words:
    """A format: source and state of an entry."""

    def encoder(self, topic: object, epoch: int) -> Encode:
        def encode(places: Places) -> list[bytes]:
            return [f"{state.source} {state.state}".encode() for _, state in places]

        return encode


def payload(texts: Sequence[bytes]) -> list[str]:
    return [text.decode() for text in texts]


@pytest.mark.parametrize("policy", SlowClient)
def test_a_slow_client_gets_the_newest_of_each_source(policy: SlowClient) -> None:
    """Older changes are replaced while they wait: no gap is owed, and nobody is disconnected for them."""
    rendering = Rendering(Words(), None, payload)

    def announce(*_dropped: Any) -> list[str]:
        raise AssertionError("nothing is dropped")

    def pack(update: Update) -> list[str]:
        return rendering.payload(update)

    outbox: Outbox[list[str]] = Outbox(3, policy, pack, announce)
    log, position = new_log(), len(SOURCES)
    for number in range(20):
        log.put(quality("ab"[number % 2], Grade.LIVE if number % 4 < 2 else Grade.LOST))
        update = log.read(position)
        assert update is not None
        position = update.last
        outbox.put_update(update)
    assert outbox.dropped == 0
    assert len(outbox) == 2
    assert outbox.take() == [f"{state.source} {state.state}" for state in log.states[:2]]
    assert outbox.take() is None


class Answers:
    """A dialogue that says nothing by itself."""

    async def hear(self, message: str) -> None: ...

    def gap(self, topic: Any, first: int, last: int, items: int) -> bytes:
        raise AssertionError("nothing is dropped")

    def notice(self, notice: Any) -> None: ...
    def farewell(self) -> None: ...
    def heartbeat(self) -> None: ...

    alarm = math.inf

    def on_alarm(self) -> None: ...
    def closed(self) -> None: ...


async def test_a_session_on_a_slow_connection_gets_the_newest_of_each_source() -> None:
    """While it takes nothing, changes are replaced. Then it gets what is true, and each source once."""
    wire = FakeWire(room=0)
    session = Session(wire, Manners(outbox=3))
    session.speak(Answers())
    log = new_log()
    fanout = Fanout(BTC, log)
    async with open_supervisor(Pool()) as pool:
        await pool.start(Child("session", session.myself, restart=Restart.TEMPORARY, stop_within=0))
        session.follow(BTC, log.last, Rendering(Words(), None, wire.pack))
        fanout.join(session)
        ref = await pool.start(Child("topic", lambda: Subscription(fanout, Nowhere(), 30.0)))
        log.put(quality("c", Grade.REJECTED))
        ref.put("news")
        await wait_all_tasks_blocked()  # this change is with the connection already: the next ones wait
        for number in range(20):
            log.put(quality("ab"[number % 2], Grade.LIVE if number % 4 < 2 else Grade.LOST))
            ref.put("news")
            await wait_all_tasks_blocked()
        assert session.ended is None
        wire.reads(1 << 20)
        await wait_all_tasks_blocked()
        assert wire.texts == ["c rejected", *(f"{state.source} {state.state}" for state in log.states[:2])]


class Nowhere:
    """An upstream of which nothing is wanted."""

    async def want(self, topic: Any, wake: object) -> None: ...
    async def release(self, topic: Any) -> None: ...
