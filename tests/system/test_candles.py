"""Candles over the real daemon: every client gets the same exact bars, live and in answers."""

from __future__ import annotations

import csv
import gzip
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import define

from actors.update import Update
from dataflow.cache.delivery import shard_of
from dataflow.domain import Trade as Item
from dataflow.domain.candle import DAY, HOUR, MINUTE, SECOND, Candle, interval
from dataflow.paths import CANDLES
from dataflow.settings.schema import Cache, Candles, History, Send
from dataflow.topics.candle_streams import CandleLog
from dataflow.topics.series import Chain
from simulators import Exchange, Trade, open_binance
from tests.dataflow.topics.test_candles import all_figures, full_bars
from tests.support.real_trades import admitted, rows
from tests.support.waiting import until
from tests.system.daemon import Daemon, client, daemon, from_binance
from tests.system.test_sse import listening

SYMBOL = "BTC-USDT"
START_US = 1_700_000_040_000_000  # the begin of a minute
QUICK = Candles(throttle=0.01, intervals=("1s", "1m", "5m", "3t", "2v"))
DATA = Path(__file__).parents[1] / "data"


@define
class Stage:
    exchange: Exchange
    daemon: Daemon
    published: int = 0

    async def trade(
        self, second: float, price: str = "2.50", qty: str = "0.5", side: str = "buy", skip: int = 0
    ) -> None:
        self.published += 1 + skip
        at = START_US + int(second * 1_000_000)
        trade = Trade(self.published, "BTCUSDT", side, price, qty, at)  # type: ignore[arg-type]
        await self.exchange.publish(trade)
        await until(lambda: self.daemon.core.history(SYMBOL).last >= self.published)


@asynccontextmanager
async def stage(candles: Candles = QUICK, **tables: Any) -> AsyncIterator[Stage]:
    async with (
        open_binance() as exchange,
        daemon(
            sources=from_binance(exchange.url, SYMBOL, eager=True, linger=0.0), candles=candles, **tables
        ) as d,
    ):
        await exchange.wait_subscribed(["BTCUSDT"])
        yield Stage(exchange, d)


async def test_a_candle_from_its_first_trade_to_a_correction() -> None:
    """All fields as the contract has them: open, closed once, and again with a higher `rev`."""
    async with stage() as s, client(s.daemon.url) as c:
        await s.trade(0.5, "10.50", "2.0")
        answer = await c.call("subscribe", channel="candles", symbol=SYMBOL, interval="1m", snapshot=5)
        assert {key: answer[key] for key in ("channel", "symbol", "interval", "event")} == {
            "channel": "candles",
            "symbol": SYMBOL,
            "interval": "1m",
            "event": "subscribed",
        }
        assert [candle["count"] for candle in answer["candles"]] == [1]
        await s.trade(59.9, "9.25", "1.5", "sell")
        await c.until(lambda: c.of("candles.update"))
        assert c.of("candles.update")[-1] == {
            "symbol": SYMBOL,
            "interval": "1m",
            "start": "2023-11-14T22:14:00.000000Z",
            "open": Decimal("10.50"),
            "high": Decimal("10.50"),
            "low": Decimal("9.25"),
            "close": Decimal("9.25"),
            "volume": Decimal("3.5"),
            "quoteVolume": Decimal("34.875"),
            "buyVolume": Decimal("2.0"),
            "count": 2,
            "rev": 2,
            "closed": False,
            "complete": True,
            "gaps": [],
            "firstOffset": 1,
            "lastOffset": 2,
        }
        await s.trade(61.999999)
        await c.until(lambda: c.of("candles.update")[-1]["start"] > "2023-11-14T22:14:59")
        assert not [candle for candle in c.of("candles.update") if candle["closed"]], (
            "two seconds have not passed"
        )
        await s.trade(62.0)
        await c.until(lambda: any(candle["closed"] for candle in c.of("candles.update")))
        await s.trade(30.0, "11")
        await c.until(lambda: [x for x in c.of("candles.update") if x["closed"]][1:])
        closed, corrected = [candle for candle in c.of("candles.update") if candle["closed"]]
        assert closed["start"] == corrected["start"] == "2023-11-14T22:14:00.000000Z"
        assert (closed["count"], corrected["count"], corrected["high"]) == (2, 3, 11)
        assert corrected["rev"] > closed["rev"] > 2
        left = await c.call("unsubscribe", channel="candles", symbol=SYMBOL, interval="1m")
        assert left == {"channel": "candles", "symbol": SYMBOL, "interval": "1m", "event": "unsubscribed"}


async def test_a_gap_makes_a_candle_incomplete() -> None:
    """The windows between the trade before it and the one behind it, and no other."""
    async with stage() as s, client(s.daemon.url) as c:
        for second in (0.1, 1.1):
            await s.trade(second)
        await s.trade(3.1, skip=2)
        await s.trade(4.1)
        page = await c.call("getCandles", symbol=SYMBOL, interval="1s")
        told = {candle["start"][17:19]: (candle["complete"], candle["gaps"]) for candle in page["candles"]}
        gap = {"from": 3, "to": 4, "reason": "source_gap"}
        assert told == {"00": (True, []), "01": (False, [gap]), "03": (False, [gap]), "04": (True, [])}


async def test_a_filled_gap_revises_its_candles() -> None:
    """They have the trades that were missing, are complete, and come again with a higher `rev`."""
    async with stage() as s, client(s.daemon.url) as c:
        await s.trade(0.1, "5")
        await c.call("subscribe", channel="candles", symbol=SYMBOL, interval="1s", snapshot=9)
        await s.trade(2.1, "5", skip=2)
        await s.trade(5.1)

        def told(second: str) -> list[dict[str, Any]]:
            return [candle for candle in c.of("candles.update") if candle["start"][17:19] == second]

        await c.until(lambda: told("02") and told("02")[-1]["closed"])
        assert not told("02")[-1]["complete"]
        for number, second, price in ((2, 1.5, "7"), (3, 2.05, "9")):
            late = Trade(number, "BTCUSDT", "buy", price, "1", START_US + int(second * 1_000_000))
            await s.exchange.publish(late)
        await c.until(lambda: told("02")[-1]["complete"] and told("01"))
        corrected = told("02")[-1]
        assert (corrected["open"], corrected["high"], corrected["count"], corrected["gaps"]) == (9, 9, 2, [])
        assert (corrected["firstOffset"], corrected["lastOffset"]) == (3, 4)
        assert [candle["rev"] for candle in told("02")] == sorted({candle["rev"] for candle in told("02")})
        assert (told("01")[-1]["count"], told("01")[-1]["closed"]) == (1, True)
        page = await c.call("getCandles", symbol=SYMBOL, interval="1m")
        assert [(candle["count"], candle["complete"]) for candle in page["candles"]] == [(5, True)]


async def test_pages_of_candles() -> None:
    """From and to, limits, and where to go on; what is open is told again."""
    async with stage() as s, client(s.daemon.url) as c:
        for second in (0.1, 1.1, 5.1, 65.1, 130.1):
            await s.trade(second)

        async def starts(**params: Any) -> tuple[list[str], str | None]:
            page = await c.call("getCandles", symbol=SYMBOL, **params)
            assert (page["symbol"], page["interval"]) == (SYMBOL, params["interval"])
            return [candle["start"][14:19] for candle in page["candles"]], page["next"] and page["next"][
                14:19
            ]

        at = "2023-11-14T22:14:{}Z".format
        every = ["14:00", "14:01", "14:05", "15:05", "16:10"]
        assert await starts(interval="1s") == (every, "16:10")
        assert await starts(interval="1s", limit=2) == (["15:05", "16:10"], "16:10")
        assert await starts(interval="1s", **{"from": "1970-01-01T00:00:00Z"}, limit=2) == (
            every[:2],
            "14:05",
        )
        assert await starts(interval="1s", **{"from": at("00.000001"), "to": at("05")}) == (["14:01"], None)
        assert await starts(interval="1s", **{"from": at("01"), "to": at("05.5")}, limit=1) == (
            ["14:01"],
            "14:05",
        )
        assert await starts(interval="1m") == (["14:00", "15:00", "16:00"], "16:00")
        assert await starts(interval="5m") == (["10:00", "15:00"], "15:00")
        assert await starts(interval="3t") == (["14:00", "15:05"], "15:05")
        assert await starts(interval="2v", **{"from": at("00")}) == (["14:00", "16:10"], "16:10")


async def test_what_a_client_says_wrong() -> None:
    """Each is told what would be right."""
    async with stage() as s, client(s.daemon.url) as c:
        for method, params, param in (
            ("subscribe", {"channel": "candles"}, "interval"),
            ("subscribe", {"channel": "candles", "interval": "2m"}, "interval"),
            ("subscribe", {"interval": "1m"}, "interval"),
            ("unsubscribe", {"channel": "candles", "interval": "2m"}, "interval"),
            ("getCandles", {"interval": "2m"}, "interval"),
            ("getCandles", {"interval": "1m", "limit": 10_001}, "limit"),
            ("getCandles", {"interval": "1m", "from": "yesterday"}, "from"),
            (
                "getCandles",
                {"interval": "1m", "from": "2023-01-02T00:00:00Z", "to": "2023-01-01T00:00:00Z"},
                "to",
            ),
        ):
            error = (await c.ask(method, symbol=SYMBOL, **params))["error"]
            assert (error["code"], error["data"]["param"]) == (-32602, param)
        wrong = await c.ask("getCandles", symbol=SYMBOL, interval="2m")
        assert wrong["error"]["data"]["valid"] == ["1s", "1m", "5m", "3t", "2v"]


async def test_server_sent_events() -> None:
    """The same candles as events of the name `candle`, from the present one on."""
    async with stage() as s:
        await s.trade(0.5)
        path = f"/api/v1/stream/{SYMBOL}?channel=candles&interval=1m"
        async with listening(s, path) as listener:  # type: ignore[arg-type]
            await until(lambda: listener.of("candle"))
            assert listener.of("candle")[0]["volume"] == Decimal("0.5")


async def test_nobody_pays_for_candles_that_nobody_wants() -> None:
    """Bars are made while somebody follows them, and of the rest nothing is kept."""
    async with stage() as s:
        core = s.daemon.core
        async with client(s.daemon.url) as c:
            await s.trade(0.5)
            assert core.candles.series(SYMBOL) is None
            await c.call("subscribe", channel="candles", symbol=SYMBOL, interval="1m")
            assert core.candles.series(SYMBOL) is not None
        await until(lambda: core.candles.series(SYMBOL) is None)


async def test_trades_do_not_wake_a_topic_of_candles(monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks when a candle is told, not at each batch: however many trades there are between."""
    reads: list[int] = []
    read = CandleLog.read

    def counted(log: CandleLog, after: int) -> Update | None:
        reads.append(after)
        return read(log, after)

    monkeypatch.setattr(CandleLog, "read", counted)
    async with stage(Candles(throttle=1000.0)) as s, client(s.daemon.url) as c:
        await c.call("subscribe", channel="candles", symbol=SYMBOL, interval="1m")
        before = len(reads)
        for number in range(20):
            await s.trade(number)
        await c.call("ping")
        assert len(reads) == before
        assert s.daemon.core.sources["binance"].interest.topics == {SYMBOL}


async def test_a_follower_that_fails_goes_on_where_it_was() -> None:
    """Nothing is counted twice, and nothing is left out."""
    async with stage() as s, client(s.daemon.url) as c:
        await c.call("subscribe", channel="candles", symbol=SYMBOL, interval="1m")

        async def counted(count: int) -> None:
            await c.until(lambda: any(candle["count"] == count for candle in c.of("candles.update")))

        for number in range(1, 7):
            await s.trade(number)
            if number % 2:
                await counted(number)
                s.daemon.hall.restart(CANDLES)
        await counted(6)
        page = await c.call("getCandles", symbol=SYMBOL, interval="1m")
        assert [candle["count"] for candle in page["candles"]] == [6]


async def test_candles_wait_for_the_disk_as_trades_do(tmp_path: Path) -> None:
    """With `send = "after_commit"` no candle has a trade that could still be lost with the process."""
    trades = real_trades()
    tables: dict[str, Any] = {
        "sources": from_binance("ws://127.0.0.1:1/stream", SYMBOL),
        "history": History(directory=str(tmp_path), interval=0.01, send=Send.AFTER_COMMIT),
        "candles": QUICK,
    }
    async with daemon(**tables) as d:
        await admit(d, trades[:10])
        d.core.stores[shard_of(SYMBOL, len(d.core.stores))].admit(trades[10:20], trio.current_time())
        for name in ("1m", "1s"):
            assert sum(candle.count for candle in await every(d, name)) == 10, name
        d.core.news(SYMBOL)
        await until(lambda: d.core.recording.is_complete)
        assert sum(candle.count for candle in await every(d, "1m")) == 20


def real_trades(symbol: str = "BTCUSDT") -> list[Item]:
    """Ten minutes of an exchange, as a source gives them."""
    return [admitted(row, SYMBOL) for row in rows() if row["symbol"] == symbol]


def oracle(name: str, symbol: str = "BTCUSDT") -> dict[int, tuple[Any, ...]]:
    """All fields of the bars that other code made of them, by start."""
    file = DATA / f"binance_spot_20240808_09_{name}"
    text = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    keys = ("open", "high", "low", "close", "volume", "quote_volume", "buy_volume")
    return {
        int(row["bucket_start_us"]) * 1000: (*(Decimal(row[key]) for key in keys), int(row["count"]))
        for row in csv.DictReader(text.decode().splitlines())
        if row["symbol"] == symbol
    }


async def admit(d: Daemon, trades: Sequence[Item]) -> None:
    """As a shard does; the followers have their turns."""
    for at in range(0, len(trades), 1_000):
        d.core.stores[shard_of(SYMBOL, len(d.core.stores))].admit(
            trades[at : at + 1_000], trio.current_time()
        )
        d.core.news(SYMBOL)
        await until(lambda: d.core.recording.is_complete or d.is_dead)


async def every(d: Daemon, name: str, limit: int = 250) -> list[Candle]:
    """All candles, page by page."""
    found: list[Candle] = []
    start: int | None = 0
    while start is not None:
        page = await d.hall.desk.candles(SYMBOL, name, start, 2_000_000_000 * SECOND, limit)
        more = len(page.candles) == limit and page.candles[-1].closed
        found += page.candles
        start = page.next if more else None
    return found


def figures(candles: Sequence[Candle]) -> dict[int, tuple[Any, ...]]:
    assert [each.start for each in candles] == sorted({each.start for each in candles}), "each once, in order"
    return {
        c.start: (c.open, c.high, c.low, c.close, c.volume, c.quote_volume, c.buy_volume, c.count)
        for c in candles
    }


async def check_chain(d: Daemon, trades: Sequence[Item]) -> None:
    """A topic that is opened behind a restart has the bars of the whole UTC day; pages have those of the days before."""
    chain = Chain(interval("100t"), closed=deque())
    chain.add(trades, range(1, len(trades) + 1))
    expected = [bar.candle(SYMBOL, "100t") for bar in (*chain.closed, *([chain.bar] if chain.bar else ()))]
    assert await every(d, "100t", 50) == expected
    topic = d.hall.desk.topic("candles", SYMBOL, "100t")
    await d.core.topics.open(topic, d.hall.pool)
    midnight = trades[-1].timestamp // DAY * DAY
    log = d.core.candles.log_of(topic)
    assert [candle for _, candle in log.newest(1000)] == [each for each in expected if each.start >= midnight]
    assert expected[0].start < midnight


@pytest.mark.parametrize("ends", ["stops", "dies"])
async def test_candles_of_all_lives(ends: str, tmp_path: Path) -> None:
    """From memory, from recorded bars and from recorded trades: every field of every candle is that of the oracle.

    The daemon is stopped, or killed, in the middle of a window; memory has a tenth of the trades.
    """
    trades = real_trades()
    tables: dict[str, Any] = {
        "sources": from_binance("ws://127.0.0.1:1/stream", SYMBOL),
        "history": History(directory=str(tmp_path)),
        "cache": Cache(trades_per_symbol=1000),
        "candles": Candles(throttle=0.01, intervals=("1s", "15s", "1m", "5m", "1h", "1d", "100t")),
    }
    for part in (trades[:3_333], trades[3_333:6_001], trades[6_001:]):
        async with daemon(**tables) as d:
            before = d.core.history(SYMBOL).last
            await admit(d, part)
            assert d.core.history(SYMBOL).last == before + len(part), "nothing was lost on the way"
            so_far = trades[: d.core.history(SYMBOL).last]
            is_last = part[-1] is trades[-1] and ends == "dies"  # the dearer half once
            for name, width in (
                ("1m", MINUTE),
                ("1h", HOUR),
                *([("1s", SECOND), ("15s", 15 * SECOND)] * is_last),
            ):
                expected = all_figures(full_bars(so_far, [width], lambda: 10_000)[width])
                assert figures(await every(d, name)) == expected, name
            if is_last:
                await check_chain(d, trades)
            if ends == "dies":
                d.die()
    assert len(so_far) == len(trades)
    assert all_figures(full_bars(so_far, [MINUTE], lambda: 10_000)[MINUTE]) == oracle("1m.csv")
