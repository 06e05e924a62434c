"""Notices about a source: lost once, restored once, for any number of attempts in between."""

from __future__ import annotations

from collections.abc import Collection

import pytest
from attrs import evolve

from actors.connector import Interest
from dataflow.sources.port import SourceSettings
from dataflow.sources.state import Audience, Delivered, SourceState, carriers


class Diary(Audience):
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.away: list[float] = []  # seconds, of each restoration
        self.first: list[str] = []  # what is told of first connections

    def connected(self, source: str, address: str, symbols: Collection[str]) -> None:
        self.first.append(f"{source} to {address} [{','.join(symbols)}]")

    def lost(self, source: str, reason: str, symbols: Collection[str]) -> None:
        self.lines.append(f"lost {source}: {reason} [{','.join(symbols)}]")

    def restored(self, source: str, symbols: Collection[str], away: float) -> None:
        self.lines.append(f"restored {source} [{','.join(symbols)}]")
        self.away.append(away)

    def refused(self, source: str, symbol: str, reason: str) -> None:
        self.lines.append(f"refused {source}: {reason} [{symbol}]")

    def accepted(self, source: str, symbol: str) -> None:
        self.lines.append(f"accepted {source} [{symbol}]")

    def stalled(self, source: str, symbol: str, reason: str) -> None:
        self.lines.append(f"stalled {source}: {reason} [{symbol}]")

    def recovered(self, source: str, symbol: str) -> None:
        self.lines.append(f"recovered {source} [{symbol}]")

    def problem(self, source: str, reason: str, excerpt: str) -> None:
        self.lines.append(f"problem {source}: {reason}")


def state(diary: Diary, *symbols: str, eager: bool = False, url: str = "ws://x/") -> SourceState:
    settings = SourceSettings(connector="a", url=url, symbols=symbols, eager=eager)
    return SourceState("a", settings, diary, clock=lambda: 1.0)


@pytest.fixture
def diary() -> Diary:
    return Diary()


def test_the_first_connection_is_told_once_and_restores_nothing(diary: Diary) -> None:
    """Nothing was lost. The address shows neither its password nor a key in its query."""
    source = state(diary, "X-Y", url="wss://me:hush@[::1]:8443/feed/v2?key=hush")
    source.connecting()
    source.up(["X-Y"])
    source.up(["X-Y"])
    assert (diary.first, diary.lines) == (["a to wss://me:***@[::1]:8443/feed/v2?key=*** [X-Y]"], [])


def test_ages_do_not_follow_the_wall(diary: Diary) -> None:
    """The wall clock is set back by an hour: what happened a second ago still did so a second ago."""
    wall, steady = 10_000.0, 0.0
    settings = SourceSettings(connector="a", url="ws://x/", symbols=("X-Y",))
    source = SourceState("a", settings, diary, clock=lambda: wall, steady=lambda: steady)
    steady += 5
    source.down("refused")
    wall, steady = wall - 3600, steady + 1
    assert (source.age, source.failed_ago, source.silent_for) == (1, 1, None)
    source.down("refused again")
    steady += 1
    assert (source.age, source.failed_ago) == (2, 1)
    source.up(["X-Y"])
    source.received(3, 600)
    steady += 1
    assert (source.age, source.failed_ago, source.silent_for) == (1, None, 1)


def test_what_a_source_delivered(diary: Diary) -> None:
    """Trades, reads that brought some, and all bytes; a read without trades is no sign of trades."""
    now = 0.0
    settings = SourceSettings(connector="a", url="ws://x/", symbols=("X-Y",))
    source = SourceState("a", settings, diary, clock=lambda: 0.0, steady=lambda: now)
    for items in (2, 0, 3, 0):
        source.received(items, 100)
        now += 1
    assert source.delivered == Delivered(trades=5, batches=2, bytes=400, last_at=2)
    assert source.silent_for == 2


def test_many_attempts_are_one_loss(diary: Diary) -> None:
    """The connector fails often. Clients are told once that it is lost and once that it is restored."""
    source = state(diary, "X-Y", eager=True)
    source.up(["X-Y"])
    for _ in range(5):
        source.down("refused")
        source.connecting()
    source.up(["X-Y"])
    source.up(["X-Y"])
    assert diary.lines == ["lost a: refused [X-Y]", "restored a [X-Y]"]


def test_a_reason_holds_no_secret(diary: Diary) -> None:
    """Clients are told the reason, and an upstream may repeat what we sent to it."""
    source = state(diary, "X-Y", eager=True)
    source.down("refused ws://user:planted@x/?token=planted")
    source.up([])
    source.refused("X-Y", '{"apiKey": "planted"}')
    assert diary.lines[0] == "lost a: refused ws://user:***@x/?token=*** [X-Y]"
    assert source.refusal("X-Y") == '{"apiKey": "***"}'
    assert "planted" not in str(diary.lines)


def test_a_source_that_is_down_from_the_start_is_lost_too(diary: Diary) -> None:
    """The state at the start is no special case."""
    source = state(diary, "X-Y", eager=True)
    source.down("refused")
    source.up(["X-Y"])
    assert diary.lines == ["lost a: refused [X-Y]", "restored a [X-Y]"]


def test_a_refused_symbol_is_told_once_and_restored_when_it_is_accepted(diary: Diary) -> None:
    """Also when the refusal is repeated on every connection."""
    source = state(diary, "X-Y", eager=True)
    source.refused("X-Y", "unknown")
    source.up([])
    source.down("cut")
    source.refused("X-Y", "unknown")
    source.up([])
    source.subscribed("X-Y")
    told = [line for line in diary.lines if "problem" not in line]
    assert told == [
        "refused a: unknown [X-Y]",
        "lost a: cut [X-Y]",
        "restored a []",
        "accepted a [X-Y]",
    ]


def test_a_refusal_is_held_against_a_symbol_only_while_somebody_wants_it(diary: Diary) -> None:
    """When no subscriber is left, the next one is a reason to try again."""
    source = state(diary, "X-Y")
    source.interest.want("X-Y", "me")
    source.up([])
    source.refused("X-Y", "busy")
    assert source.refusal("X-Y") == "busy"
    assert source.status("X-Y") == "rejected"
    source.interest.release("X-Y", "me")
    assert source.refusal("X-Y") is None
    assert source.status("X-Y") == "idle"


def lost(diary: Diary) -> list[str]:
    return [line for line in diary.lines if line.startswith(("lost", "refused"))]


def test_the_next_subscriber_of_a_refused_symbol_is_told_anew(diary: Diary) -> None:
    """A refusal is announced once to the subscribers of the symbol, and forgotten with the last of them."""
    source = state(diary, "X-Y")
    for _ in range(2):
        source.interest.want("X-Y", "me")
        assert source.refusal("X-Y") is None
        assert source.status("X-Y") == "connecting"
        for _ in range(2):
            source.refused("X-Y", "unknown")
        assert source.refused_symbols == {"X-Y": "unknown"}
        source.interest.release("X-Y", "me")
        assert source.refused_symbols == {}
    assert lost(diary) == ["refused a: unknown [X-Y]"] * 2


def test_a_refusal_told_before_the_connection_was_lost_is_forgotten_too(diary: Diary) -> None:
    """A subscriber that comes while there is no connection is told the next result."""
    source = state(diary, "X-Y")
    source.interest.want("X-Y", "me")
    source.refused("X-Y", "unknown")
    source.down("cut")
    source.interest.release("X-Y", "me")
    source.interest.want("X-Y", "you")
    source.up([])
    source.refused("X-Y", "unknown")
    assert lost(diary)[-1] == "refused a: unknown [X-Y]"
    assert len(lost(diary)) == 3


def test_a_refusal_ends_with_its_connection(diary: Diary) -> None:
    """The next connection may have better news: until it has an answer, the symbol is lost and not refused."""
    source = state(diary, "X-Y", eager=True)
    source.refused("X-Y", "busy")
    source.down("cut")
    assert source.refusal("X-Y") is None
    assert source.refused_symbols == {}
    assert source.status("X-Y") == "lost"


def test_a_symbol_without_subscribers_makes_no_notice(diary: Diary) -> None:
    """A late refusal is only counted; and a symbol that was released is not restored."""
    source = state(diary, "X-Y")
    source.up([])
    source.refused("X-Y", "unknown")
    assert lost(diary) == []
    assert source.problems == {"rejected": 1}
    assert source.refused_symbols == {}
    source.interest.want("X-Y", "me")
    source.refused("X-Y", "unknown")
    source.interest.release("X-Y", "me")
    source.interest.want("X-Y", "you")
    source.subscribed("X-Y")
    assert [line for line in diary.lines if line.startswith("restored")] == []
    assert source.status("X-Y") == "live"


def test_the_status_of_a_symbol_follows_the_connection(diary: Diary) -> None:
    """connecting, idle, subscribing, live, lost."""
    source = state(diary, "X-Y")
    assert source.status("X-Y") == "connecting"
    source.up([])
    assert source.status("X-Y") == "idle"
    source.interest.want("X-Y", "me")
    assert source.status("X-Y") == "subscribing"
    source.subscribed("X-Y")
    assert source.status("X-Y") == "live"
    source.down("cut")
    assert source.status("X-Y") == "lost"


def test_an_eager_source_is_wanted_by_nobody_in_particular(diary: Diary) -> None:
    """Its symbols stay wanted after any release."""
    source = state(diary, "X-Y", eager=True)
    source.interest.want("X-Y", "me")
    source.interest.release("X-Y", "me")
    assert source.interest.topics == {"X-Y"}


def test_the_sources_of_a_symbol_stand_in_the_order_of_the_configuration(diary: Diary) -> None:
    """Several sources may carry one symbol."""
    states = {"b": state(diary, "X-Y"), "a": state(diary, "X-Y", "Z-Y")}
    assert carriers(states) == {"X-Y": [states["b"], states["a"]], "Z-Y": [states["a"]]}
    assert list(carriers(states)) == ["X-Y", "Z-Y"]


def test_a_source_that_brings_its_symbols(diary: Diary) -> None:
    """Each is carried from its discovery on, behind those that are named. The wildcard is none."""
    source = state(diary, "X-Y", "*")
    assert source.symbols == ["X-Y"]
    assert [source.discover(symbol) for symbol in ("AAPL", "AAPL", "X-Y", "MSFT")] == [
        True,
        False,
        False,
        True,
    ]
    assert source.symbols == ["X-Y", "AAPL", "MSFT"]
    assert carriers({"a": source}) == {"X-Y": [source], "AAPL": [source], "MSFT": [source]}


def test_a_source_that_is_not_asked_to_brings_none(diary: Diary) -> None:
    """Also after it did, when its configuration has changed."""
    source = state(diary, "X-Y")
    assert not source.discover("AAPL")
    assert list(source.symbols) == ["X-Y"]
    free = state(diary, "*")
    free.discover("AAPL")
    free.become(evolve(free.settings, symbols=("X-Y",)))
    assert list(free.symbols) == ["X-Y"]
    free.become(evolve(free.settings, symbols=("*",)))
    assert list(free.symbols) == ["AAPL"], "its trades are still there"


def test_a_restoration_tells_how_long_it_was_away(diary: Diary) -> None:
    """From the loss until it is back, by the clock that never jumps, however often was tried in between."""
    now = [100.0]
    settings = SourceSettings(connector="a", url="ws://x/", symbols=("X-Y",))
    source = SourceState("a", settings, diary, clock=lambda: 1.0, steady=lambda: now[0])
    source.up([])
    for at, is_up in ((110.0, False), (120.0, False), (131.5, True), (140.0, False), (141.0, True)):
        now[0] = at
        if is_up:
            source.up(["X-Y"])
        else:
            source.down("cut")
    assert diary.away == [21.5, 1.0]


def test_a_stall_is_told_once_and_its_end_once(diary: Diary) -> None:
    """However often it is looked at; and an end without a stall is none."""
    source = state(diary, "X-Y")
    for reason in (None, "newer", "newer", None, None, "newer"):
        source.stalls("X-Y", reason)
    assert diary.lines == ["stalled a: newer [X-Y]", "recovered a [X-Y]", "stalled a: newer [X-Y]"]


def test_a_status_costs_the_same_however_many_symbols_there_are(
    diary: Diary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each page asks for that of every symbol: none of them copies what is wanted of all."""
    source = state(diary, "X-Y", "A-B")
    source.interest.want("X-Y", "me")
    source.up([])
    monkeypatch.setattr(Interest, "topics", property(lambda _interest: pytest.fail("all are copied")))
    assert [source.status(symbol) for symbol in ("X-Y", "A-B")] == ["subscribing", "idle"]
