"""Feeds: what to publish, and when. Pure: no input or output and no clock; `player` waits for the time.

Rule 1: the `at_ns` of its ticks gives a feed its order and its pace; only differences between them count.
Rule 2: a looped feed continues. Each round adds to the ids of a symbol the range that one round covers, and
to all times the length of a round. So no id comes twice, no id is missing, and time never goes back.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import count
from typing import TypeAlias

import msgspec
from attrs import evolve, frozen

from .trade import Item, StreamMessage, Trade

MILLISECOND_NS = 1_000_000


@frozen
class Tick:
    """One item, and when it was received: nanoseconds of any clock, the same for the whole feed."""

    at_ns: int
    item: Item


@frozen
class Feed:
    """The matter of a player: the symbols of its trades, and how to open it, given now in microseconds."""

    symbols: frozenset[str]
    open: Callable[[int], Iterator[Tick]]


def recorded(ticks: Iterable[Tick], *, loop: bool = False, rebase: bool = False) -> Feed:
    """A feed of recorded ticks. `loop` repeats it for ever; `rebase` moves its times to now."""
    kept = tuple(ticks)
    symbols = frozenset(tick.item.symbol for tick in kept if isinstance(tick.item, Trade))

    def begin(now_us: int) -> Iterator[Tick]:
        rounds = looped(kept) if loop else iter(kept)
        return rebased(rounds, until_now(kept, now_us)) if rebase else rounds

    return Feed(symbols, begin)


def merge(*feeds: Iterable[Tick]) -> Iterator[Tick]:
    """The ticks of several feeds of one clock, in the order of time."""
    return heapq.merge(*feeds, key=lambda tick: tick.at_ns)


def relabel(ticks: Iterable[Tick], names: Mapping[str, str]) -> Iterator[Tick]:
    """The trades of the symbols in `names`, under their new names; all other ticks are left out."""
    return (
        evolve(tick, item=evolve(tick.item, symbol=names[tick.item.symbol]))
        for tick in ticks
        if isinstance(tick.item, Trade) and tick.item.symbol in names
    )


def rebased(ticks: Iterable[Tick], us: int) -> Iterator[Tick]:
    """The ticks, whose items happen `us` microseconds later."""
    return (evolve(tick, item=tick.item.moved(us=us)) for tick in ticks)


def until_now(ticks: Sequence[Tick], now_us: int) -> int:
    """By how many microseconds the ticks must be moved, if they are played from `now_us` on as they were
    received: the most whole milliseconds with which no trade comes before it was sent. 0 without trades."""
    ages = [tick.at_ns // 1000 - _sent_us(tick.item) for tick in ticks if isinstance(tick.item, Trade)]
    return (now_us - ticks[0].at_ns // 1000 + min(ages)) // 1000 * 1000 if ages else 0


def _sent_us(trade: Trade) -> int:
    return max(trade.timestamp_us, trade.event_us or trade.timestamp_us)


def looped(ticks: Sequence[Tick]) -> Iterator[Tick]:
    """The ticks over and over. Between two rounds is the mean time between ticks, at least a millisecond."""
    if not ticks:
        return
    spans = _spans(ticks)
    length = ticks[-1].at_ns - ticks[0].at_ns
    period = -(-(length + length // len(ticks) + 1) // MILLISECOND_NS) * MILLISECOND_NS
    for turn in count():
        for tick in ticks:
            yield Tick(tick.at_ns + turn * period, _moved(tick.item, turn, spans, turn * period // 1000))


_Series: TypeAlias = tuple[str, str]


def _spans(ticks: Iterable[Tick]) -> dict[_Series, int]:
    """The range that the ids of each series cover: last - first + 1."""
    ends: dict[_Series, tuple[int, int]] = {}
    for tick in ticks:
        for series, first, last in _ids(tick.item):
            low, high = ends.get(series, (first, last))
            ends[series] = min(low, first), max(high, last)
    return {series: high - low + 1 for series, (low, high) in ends.items()}


def _ids(item: Item) -> Iterator[tuple[_Series, int, int]]:
    if isinstance(item, StreamMessage):
        data = msgspec.json.decode(item.data)
        if isinstance(data.get("u"), int):
            yield (item.symbol, "book"), data.get("U", data["u"]), data["u"]
    elif item.aggregate is None:
        yield (item.symbol, "trade"), item.id, item.id
    else:
        yield (item.symbol, "aggregate"), item.id, item.id
        yield (item.symbol, "trade"), *item.aggregate


def _moved(item: Item, turn: int, spans: Mapping[_Series, int], us: int) -> Item:
    if not turn:
        return item
    if isinstance(item, StreamMessage):
        return item.moved(ids=turn * spans.get((item.symbol, "book"), 0), us=us)
    trades = turn * spans.get((item.symbol, "trade"), 0)
    if item.aggregate is None:
        return item.moved(ids=trades, us=us)
    return item.moved(ids=turn * spans[item.symbol, "aggregate"], members=trades, us=us)
