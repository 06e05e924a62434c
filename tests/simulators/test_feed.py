"""Feeds lose, repeat and reorder nothing; paces are exact; a seed always gives the same market."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from itertools import islice, pairwise
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from simulators import (
    BINANCE_MARKET,
    BLOCKCHAIN_MARKET,
    Exchange,
    Feed,
    Instrument,
    Pace,
    Player,
    StreamMessage,
    Tick,
    Trade,
    binance_dialect,
    blockchain_feed,
    exchanges,
    generated,
    market,
    merge,
    playing,
    recorded,
    relabel,
    shipped,
)
from simulators.feed import looped


def trades(feed: Any, count: int) -> list[Trade]:
    return [tick.item for tick in islice(feed, count)]


def test_a_loop_continues_ids_and_times() -> None:
    """Over three rounds ids have no gaps and times never go back."""
    ticks = shipped("binance_ethusdt_trades_20240808.jsonl.gz").ticks
    turned = trades(looped(ticks), 3 * len(ticks))
    first = turned[0].id
    assert [trade.id for trade in turned] == list(range(first, first + len(turned)))
    stamps = [trade.timestamp_us for trade in turned]
    assert stamps == sorted(stamps)
    again = turned[len(ticks)]
    assert (again.price, again.qty, again.side) == (turned[0].price, turned[0].qty, turned[0].side)
    assert again.event_us is not None
    assert turned[0].event_us is not None
    assert again.event_us - again.timestamp_us == turned[0].event_us - turned[0].timestamp_us


def test_a_loop_of_two_symbols_continues_each() -> None:
    """The ids of each symbol grow by its own range, all times by the same step."""
    names = ("binance_btcusdt_trades_20240808.jsonl.gz", "binance_ethusdt_trades_20240808.jsonl.gz")
    ticks = tuple(merge(*(shipped(name).ticks for name in names)))
    turned = trades(looped(ticks), 2 * len(ticks))
    for symbol in ("BTCUSDT", "ETHUSDT"):
        ids = [trade.id for trade in turned if trade.symbol == symbol]
        assert ids == list(range(ids[0], ids[0] + len(ids)))
    steps = {b.timestamp_us - a.timestamp_us for a, b in zip(turned, turned[len(ticks) :], strict=False)}
    assert len(steps) == 1


def test_a_loop_moves_books_and_aggregates_too() -> None:
    """Ids of book updates, ids of aggregated trades, and the times of other messages continue too."""
    agg = Trade(5, "X", "buy", "1", "1", 1_000_000, 1_002_000, (50, 53))
    depth = StreamMessage(
        "x@depth", '{"e":"depthUpdate","E":1000,"s":"X","U":7,"u":9,"b":[["1.0","2"]],"a":[]}'
    )
    turned = [tick.item for tick in islice(looped((Tick(0, agg), Tick(10**9, depth))), 4)]
    assert turned[:2] == [agg, depth]
    period_ms = 1501  # one second, and half a second as the mean time between ticks, rounded up
    assert turned[2] == Trade(
        6, "X", "buy", "1", "1", 1_000_000 + period_ms * 1000, 1_002_000 + period_ms * 1000, (54, 57)
    )
    moved = '{"e":"depthUpdate","E":2501,"s":"X","U":10,"u":12,"b":[["1.0","2"]],"a":[]}'
    assert turned[3] == StreamMessage("x@depth", moved)


def test_a_loop_of_nothing_is_nothing() -> None:
    """It ends, and does not spin."""
    assert list(looped(())) == []


def test_rebasing_moves_all_times_to_now() -> None:
    """By the same whole milliseconds, also those before the first trade: the trade that was under way for the shortest
    time comes within a millisecond after it was sent, and no trade comes before that."""
    book = StreamMessage("x@bookTicker", '{"u":1,"s":"X"}')
    ticks = (
        Tick(0, book),
        Tick(5_000_000, Trade(1, "X", "buy", "1", "2", 1_000_250)),
        Tick(504_000_000, Trade(2, "X", "sell", "3", "4", 1_490_000, event_us=1_503_000)),
        Tick(600_000_000, Trade(3, "X", "sell", "3", "4", 1_510_000)),
    )
    before, *trades = recorded(ticks, rebase=True).open(9_000_000_999)
    first, second, third = (each.item for each in trades if isinstance(each.item, Trade))
    assert second.event_us is not None
    assert 0 <= 9_000_000_999 + 504_000 - second.event_us < 1000
    assert first.timestamp_us % 1000 == 250
    assert second.timestamp_us - first.timestamp_us == 489_750
    assert third.timestamp_us - first.timestamp_us == 509_750
    assert (before.item, [each.at_ns for each in trades]) == (book, [each.at_ns for each in ticks[1:]])


@pytest.mark.parametrize("name", exchanges.names())
def test_no_trade_comes_before_it_has_happened(name: str) -> None:
    """As fast as it happened, the shipped feeds have no trade of the future."""
    now_us, first_ns = 1_800_000_000_000_123, None
    for tick in islice(exchanges.find(name).feed().open(now_us), 500):
        first_ns = tick.at_ns if first_ns is None else first_ns
        assert isinstance(tick.item, Trade)
        assert tick.item.timestamp_us <= now_us + (tick.at_ns - first_ns) // 1000


def test_relabelling_changes_only_the_name() -> None:
    """Symbols without a new name are left out."""
    ticks = (Tick(0, Trade(1, "BTCUSDT", "buy", "1", "2", 3)), Tick(1, Trade(1, "OTHER", "buy", "1", "2", 3)))
    assert list(relabel(ticks, {"BTCUSDT": "BTC-USD"})) == [Tick(0, Trade(1, "BTC-USD", "buy", "1", "2", 3))]


def test_the_shipped_blockchain_feed_begins_now() -> None:
    """Looped and moved to now, under the names of that exchange."""
    feed = blockchain_feed()
    first = next(feed.open(1_800_000_000_000_000)).item
    assert feed.symbols == {"BTC-USD", "ETH-USD"}
    assert isinstance(first, Trade)
    assert first.timestamp_us == 1_800_000_000_000_000


# Paces


@given(
    st.lists(
        st.tuples(st.sampled_from(["change", "pause", "resume", "wait"]), st.floats(0.25, 8.0)), max_size=20
    )
)
def test_a_pace_never_jumps(steps: list[tuple[str, float]]) -> None:
    """No change of speed and no pause skips or repeats a part of the feed."""
    pace, now = Pace(), 0.0
    pace.anchor(0.0, 0.0)
    position = 0.0
    for step, amount in steps:
        if step == "wait":
            now += amount
            position += 0.0 if pace.paused else amount * pace.speed
        elif step == "change":
            pace.change(amount, now)
        else:
            (pace.pause if step == "pause" else pace.resume)(now)
        if not pace.paused:
            assert pace.due(position) == pytest.approx(now, abs=1e-6)
            assert pace.due(position + 1.0) == pytest.approx(now + 1.0 / pace.speed, abs=1e-6)


@pytest.mark.parametrize("speed", [0.0, -1.0, math.nan])
def test_a_wrong_speed_is_refused(speed: float) -> None:
    """Zero, negative and NaN are errors, not a feed that hangs."""
    with pytest.raises(ValueError, match="greater than 0"):
        Pace(speed)


def noted(speed: float) -> tuple[Player, list[float]]:
    """A player of four trades over three seconds, and the times at which they are published."""
    ticks = [Tick(i * 10**9 + 77, Trade(i, "X", "buy", "1", "1", i)) for i in range(4)]
    times: list[float] = []

    class Noting(Exchange):
        async def publish(self, item: Any) -> None:
            await trio.lowlevel.checkpoint()
            times.append(trio.current_time())

    return Player(Noting(binance_dialect()), recorded(ticks), Pace(speed)), times


@pytest.mark.parametrize(
    ("speed", "expected"), [(1.0, [0.0, 1.0, 2.0, 3.0]), (4.0, [0.0, 0.25, 0.5, 0.75]), (math.inf, [0.0] * 4)]
)
async def test_a_feed_is_played_at_its_pace(
    speed: float, expected: list[float], autojump_clock: MockClock
) -> None:
    """At its own speed, four times as fast, and as fast as possible."""
    player, times = noted(speed)
    begin = trio.current_time()
    await player.run()
    assert [at - begin for at in times] == pytest.approx(expected)
    assert player.finished.is_set()


async def test_a_feed_pauses_and_changes_its_speed(autojump_clock: MockClock) -> None:
    """A pause delays the rest by its length; a new speed holds from then on."""
    player, times = noted(1.0)
    begin = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(player.run)
        await trio.sleep(0.5)
        player.pause()
        await trio.sleep(10.0)
        player.resume()
        await trio.sleep(1.0)
        player.set_speed(2.0)
    assert [at - begin for at in times] == pytest.approx([0.0, 11.0, 11.75, 12.25])


async def test_time_in_which_trades_are_held_does_not_count(
    attach: Callable[..., Any], autojump_clock: MockClock
) -> None:
    """A feed that was held while nobody was subscribed continues at its pace, without a burst."""
    ticks = [Tick(i * 10**9, Trade(i, "BTCUSDT", "buy", "1", "1", i)) for i in range(4)]
    exchange = Exchange(binance_dialect(), absent="held")
    async with playing(exchange, recorded(ticks)):
        await trio.sleep(100.0)
        async with attach(exchange, "/ws/btcusdt@trade") as raw:
            times = [trio.current_time() for _ in ticks if await raw.text()]
    assert [at - times[0] for at in times] == pytest.approx([0.0, 1.0, 2.0, 3.0])


async def test_a_feed_can_wait_for_begin(autojump_clock: MockClock) -> None:
    """Nothing is played before `begin`."""
    player, times = noted(1.0)
    player.start = "told"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(player.run)
        await trio.sleep(100.0)
        assert times == []
        player.begin()
    assert len(times) == 4


# Markets


def test_a_seed_gives_one_market() -> None:
    """The same seed, the same trades; another seed, others."""
    one, two, other = (trades_of(seed) for seed in (7, 7, 8))
    assert one == two
    assert one != other


def trades_of(seed: int, **options: Any) -> list[Trade]:
    return list(islice(market(BINANCE_MARKET, seed=seed, start_us=10**15, **options), 2000))


def test_a_further_symbol_changes_no_other() -> None:
    """Each symbol has its own random numbers."""
    alone = list(islice(market(BINANCE_MARKET[:1], seed=7, start_us=10**15), 500))
    together = [trade for trade in trades_of(7) if trade.symbol == "BTCUSDT"][:500]
    assert together == alone[: len(together)]
    assert len(together) == 500


def test_two_symbols_alike_do_not_move_alike() -> None:
    """Their random numbers differ although their instruments do not."""
    alike = [Instrument(symbol, Decimal(100)) for symbol in ("AAA", "BBB")]
    made = list(islice(market(alike, seed=7, start_us=0), 400))
    sides = [[trade.side for trade in made if trade.symbol == each.symbol][:100] for each in alike]
    assert sides[0] != sides[1]


def test_a_market_looks_like_one() -> None:
    """Whole increments and lots, ids without gaps, both sides, and times that never go back."""
    made = trades_of(1)
    for instrument in BINANCE_MARKET:
        own = [trade for trade in made if trade.symbol == instrument.symbol]
        assert [trade.id for trade in own] == list(range(instrument.first_id, instrument.first_id + len(own)))
        assert all(Decimal(trade.price) % instrument.increment == 0 for trade in own)
        assert all(Decimal(trade.qty) % instrument.lot == 0 and Decimal(trade.qty) > 0 for trade in own)
        assert {trade.side for trade in own} == {"buy", "sell"}
        drift = Decimal(own[-1].price) / instrument.price
        assert Decimal("0.9") < drift < Decimal("1.1")
    assert [t.timestamp_us for t in made] == sorted(t.timestamp_us for t in made)


def test_gappy_ids_grow_and_have_gaps() -> None:
    """Like on an exchange that numbers the trades of all symbols together."""
    ids = [t.id for t in islice(market(BLOCKCHAIN_MARKET[:1], seed=1, start_us=0, ids="gappy"), 300)]
    steps = {b - a for a, b in pairwise(ids)}
    assert min(steps) >= 1
    assert max(steps) > 1


def test_a_generated_feed_begins_now() -> None:
    """Its first trade happens when it is opened."""
    feed: Feed = generated(seed=3)
    first = next(feed.open(10**15)).item
    assert isinstance(first, Trade)
    assert 0 <= 10**15 - first.timestamp_us <= 2
    assert feed.symbols == {"BTCUSDT", "ETHUSDT"}
