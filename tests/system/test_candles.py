"""Candles over the real daemon: every client gets the same exact bars, live and in answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

from attrs import define

from dataflow.settings.schema import Candles
from simulators import Exchange, Trade, open_binance
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
