"""The state takes other sources over: whatever is configured one after the other, nothing old is left in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from dataflow.core import Core
from dataflow.domain import Topic
from dataflow.domain.topic import QUALITY, TRADES
from dataflow.settings.schema import Settings
from dataflow.sources.port import SourceSettings
from dataflow.sources.state import Audience, SourceState
from dataflow.sources.vitals import Pulse
from supervisors import Child

SYMBOLS = ("A-X", "B-X", "C-X")

sources = st.dictionaries(
    st.sampled_from(["one", "two", "three"]),
    st.builds(
        SourceSettings,
        connector=st.just("any"),
        url=st.sampled_from(["ws://a/", "ws://b/"]),
        symbols=st.lists(st.sampled_from(SYMBOLS), unique=True).map(tuple),
        eager=st.booleans(),
    ),
)
# A configuration, the symbols that are followed while it holds, and the sources that are connected then.
steps = st.lists(
    st.tuples(
        sources,
        st.frozensets(st.sampled_from(SYMBOLS)),
        st.frozensets(st.sampled_from(["one", "two", "three"])),
    ),
    min_size=1,
    max_size=6,
)


class Starter:
    """A pool whose subscriptions do nothing."""

    async def start(self, child: Child) -> Any:
        return self

    def put(self, _message: object) -> None:
        pass

    async def watch(self) -> None:
        pass


class Told(Audience):
    def __init__(self) -> None:
        self.lost_by: list[str] = []

    def lost(self, source: str, reason: str, symbols: Sequence[str]) -> None:  # type: ignore[override]
        self.lost_by.append(source)


@given(sources, steps)
def test_the_state_is_that_of_the_newest_configuration(first: Any, later: Any) -> None:
    """Symbols, wishes and qualities are those of the sources of now. A source that comes back is the same."""
    trio.run(_walk, first, later)


async def _walk(
    first: dict[str, SourceSettings], later: list[tuple[Any, frozenset[str], frozenset[str]]]
) -> None:
    core = Core(Settings(sources=first), Told())
    known: dict[str, SourceState] = dict(core.sources)
    followed: set[str] = set()
    for configured, wanted, connected in later:
        for symbol in sorted(wanted - followed):
            if symbol in core.carriers:
                topic = Topic(TRADES, symbol)
                await core.topics.open(topic, Starter())  # type: ignore[arg-type]
                await core.topics.want(topic, lambda: None)
                followed.add(symbol)
        for symbol in sorted(followed - wanted):
            core.topics.abandon(Topic(TRADES, symbol))
            followed.discard(symbol)
        for name, source in core.sources.items():
            source.connecting()
            if name in connected:
                source.up(sorted(source.interest.topics))
        core.adopt(Settings(sources=configured))

        assert list(core.sources) == list(configured)
        assert {name: source.settings for name, source in core.sources.items()} == configured
        carried = sorted({symbol for source in configured.values() for symbol in source.symbols})
        assert list(core.symbols) == carried
        for symbol in carried:
            names = [name for name, source in configured.items() if symbol in source.symbols]
            assert [source.name for source in core.carriers[symbol]] == names
            assert sorted(quality.source for quality in core.quality(symbol)) == sorted(names)
        for name, source in core.sources.items():
            eager = set(source.settings.symbols) if source.settings.eager else set()
            assert source.interest.topics == eager | (followed & set(source.settings.symbols))
            assert known.setdefault(name, source) is source
        for name in known.keys() - configured.keys():
            assert not known[name].interest.topics
        for symbol in SYMBOLS:
            if symbol not in carried and symbol in core.channels[QUALITY]._logs:  # type: ignore[attr-defined]
                assert list(core.quality(symbol)) == []


def test_a_removed_source_tells_its_subscribers_even_if_it_was_lost() -> None:
    """They would wait for its return otherwise. It is told once."""
    told = Told()
    core = Core(
        Settings(sources={"a": SourceSettings(connector="any", url="ws://a/", symbols=("A-X",))}), told
    )
    source = core.sources["a"]
    source.down("refused")
    source.retire("removed")
    source.down("stopped")
    assert told.lost_by == ["a", "a"]


def test_a_symbol_that_a_source_brings_is_known_like_any_other() -> None:
    """To questions, to topics and to the quality, at once; also after a reload."""
    settings = Settings(sources={"ticks": SourceSettings(connector="x", url="ws://x/", symbols=("*",))})
    core = Core(settings, epoch=1)
    assert list(core.symbols) == []
    for symbol in ("MSFT", "AAPL", "MSFT"):
        core.discover(symbol, "ticks")
    for _ in range(2):
        assert list(core.symbols) == ["AAPL", "MSFT"]
        assert core.names.find("aapl") == "AAPL"
        assert core.carriers == {"MSFT": [core.sources["ticks"]], "AAPL": [core.sources["ticks"]]}
        assert [quality.source for quality in core.quality("AAPL")] == ["ticks"]
        core.adopt(settings)
    with pytest.raises(KeyError):
        core.discover("X", "nobody")


def test_a_source_that_is_not_asked_to_brings_nothing() -> None:
    """Its symbols are those of the configuration."""
    core = Core(
        Settings(sources={"a": SourceSettings(connector="x", url="ws://x/", symbols=("A-B",))}), epoch=1
    )
    core.discover("C-D", "a")
    assert list(core.symbols) == ["A-B"]


async def test_the_worst_symbol_of_a_source() -> None:
    """Of those that somebody wants: a lost one before one that lags, and that before a good one. A source that nobody
    wants anything of has none."""
    settings = SourceSettings(connector="any", url="ws://a/", symbols=(*SYMBOLS, "D-X"))
    core = Core(Settings(sources={"one": settings}))
    source = core.sources["one"]

    def worst() -> tuple[str, int] | None:
        found = core.worst(source, core.symbols_by_state()["one"])
        return None if found is None else (found[0], found[1].score)

    assert worst() is None
    for symbol in SYMBOLS:
        source.interest.want(symbol, "me")
    source.up([])
    for symbol in SYMBOLS:
        source.subscribed(symbol)
        source.vitals.pulses[symbol] = Pulse(lag=0.5)
    assert worst() == ("A-X", 100)
    source.vitals.pulses["B-X"].lag = 10.0
    assert worst() == ("B-X", 80)
    source.refused("C-X", "no such symbol")
    assert worst() == ("C-X", 0)
    source.interest.release("C-X", "me")
    assert worst() == ("B-X", 80)
    source.down("cut")
    assert worst() == ("A-X", 0)
