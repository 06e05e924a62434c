"""What happened is kept, bounded, in order, and without secrets; no burst hides what else happened."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.domain import secrets
from dataflow.events import KEPT, STACK, STACKS, TEXT, Event, Events, Kind
from dataflow.settings.schema import Operator, Settings


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ring(clock: Clock) -> Events:
    return Events(clock)


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(secrets, "_kept", set())
    monkeypatch.setattr(secrets, "_any_kept", None)
    secrets.keep(Settings(operator=Operator(token="sesame-open")))
    return "sesame-open"


def told(events: list[Event] | tuple[Event, ...] | object) -> list[tuple[str, str, int]]:
    return [(each.kind.value, each.path, each.times) for each in events]  # type: ignore[attr-defined]


def test_what_happens_again_within_a_second_is_one_event(ring: Events, clock: Clock) -> None:
    """The first one's text and stack are shown. Another kind, another place and the next second are others."""
    for n in range(3):
        ring.tell(Kind.CRASHED, "cache/shard-0", f"crash {n}", ValueError(f"error {n}"))
        clock.now += 0.25
    ring.tell(Kind.RESTARTED, "cache/shard-0", "back")
    ring.tell(Kind.CRASHED, "cache/shard-1", "crash")
    clock.now += 0.5
    ring.tell(Kind.CRASHED, "cache/shard-0", "crash 3")
    first, *others = ring.newest(10)
    assert (first.text, first.times, first.at) == ("crash 0", 3, 1000 * 10**9)
    assert "ValueError: error 0" in (first.stack or "")
    assert told(others) == [
        ("restarted", "cache/shard-0", 1),
        ("crashed", "cache/shard-1", 1),
        ("crashed", "cache/shard-0", 1),
    ]
    assert ring.told[Kind.CRASHED] == 5


def test_many_that_are_alike_are_one_event(ring: Events) -> None:
    """A thousand sessions that crash together do not need a thousand events."""
    for n in range(1000):
        ring.tell(Kind.CRASHED, f"gateway/sessions/{n}", "crash", alike="gateway/sessions")
    assert told(ring.newest(10)) == [("crashed", "gateway/sessions/0", 1000)]


def test_a_burst_of_one_kind_washes_out_no_other(ring: Events, clock: Clock) -> None:
    """One crash is still there after ten thousand losses; what found no room is counted."""
    ring.tell(Kind.CRASHED, "cache/shard-0", "the one that matters")
    for n in range(10_000):
        clock.now += 0.01
        ring.tell(Kind.LOST, f"sources/{n}", "lost")
    events = ring.newest(KEPT)
    assert len(events) == KEPT
    assert events[0].text == "the one that matters"
    assert events[-1].path == "sources/9999"
    assert ring.forgotten == 10_001 - KEPT


def test_a_storm_of_crashes_has_few_stacks(ring: Events, clock: Clock) -> None:
    """Each costs a millisecond. The texts are all there, and so is the stack of the next crash."""
    for n in range(100):
        ring.tell(Kind.CRASHED, f"topics/{n}", "crash", ValueError("x"))
    clock.now += 1
    ring.tell(Kind.CRASHED, "topics/0", "crash", ValueError("x"))
    events = ring.newest(200)
    assert len(events) == 101
    assert [n for n, each in enumerate(events) if each.stack] == [*range(STACKS), 100]


def test_ids_grow_over_restarts(ring: Events, clock: Clock) -> None:
    """Who goes on after the last id that it knows gets what happened since the restart."""
    ring.tell(Kind.LOST, "sources/a", "lost")
    known = ring.newest(1)[0].id
    clock.now += 2
    again = Events(clock)
    again.tell(Kind.RESTORED, "sources/a", "back")
    assert told(again.behind(known, 10)) == [("restored", "sources/a", 1)]


def test_no_event_holds_a_secret_or_is_long(ring: Events, secret: str) -> None:
    """Neither text nor stack, also where the text is cut; the end of a stack is what stays."""
    text = f"{'x' * (TEXT - 6)}{secret} token=abcdefgh {secret}"
    ring.tell(Kind.CRASHED, "a", text, RuntimeError(f"{'é' * STACK} {secret} password=abcdefgh"))
    (event,) = ring.newest(1)
    assert event.stack is not None
    assert len(event.text) <= TEXT
    assert len(event.stack.encode()) <= STACK
    assert event.stack.endswith("*** password=***")
    for shown in (event.text, event.stack):
        assert "sesame" not in shown
        assert "abcdefgh" not in shown


happenings = st.lists(
    st.tuples(st.sampled_from(Kind), st.sampled_from("abc"), st.floats(-0.5, 3)), max_size=60
)


@given(happenings, st.integers(1, 7))
def test_a_reader_gets_every_event_once_and_in_order(
    happened: list[tuple[Kind, str, float]], limit: int
) -> None:
    """It goes on behind the last id that it has, however often, also if the wall clock is set back."""
    clock = Clock()
    ring = Events(clock)
    got: list[Event] = []
    for kind, path, pause in happened:
        clock.now += pause
        ring.tell(kind, path, "x")
        got += ring.behind(got[-1].id if got else 0, limit)
    while more := ring.behind(got[-1].id if got else 0, limit):
        got += more
    assert got == list(ring.newest(KEPT))
    ids = [each.id for each in got]
    assert ids == sorted(set(ids))
    assert sum(each.times for each in got) == len(happened) == ring.told.total()


def test_a_reader_from_before_a_clock_that_went_back_misses_nothing() -> None:
    """Its id is of a process that is gone, and larger than all of this one."""
    earlier, later = Events(lambda: 2_000.0), Events(lambda: 1_000.0)
    earlier.tell(Kind.LOST, "sources/a", "cut")
    later.tell(Kind.LOST, "sources/a", "cut again")
    (known,) = earlier.newest(10)
    assert [event.text for event in later.behind(known.id, 10)] == ["cut again"]
    (newest,) = later.newest(10)
    assert later.behind(newest.id, 10) == []
