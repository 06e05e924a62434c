"""Each state of `quality` in a running daemon with a simulated exchange; and what is done about a stall.

The looks of the daemon come faster here than in real life, so that no test waits for seconds.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from attrs import define
from playwright.sync_api import Page, expect
from trio.testing import wait_all_tasks_blocked

from dataflow.settings.schema import Mode, Symbol
from dataflow.sources import lookout, vitals
from simulators import Exchange, Trade, open_binance
from tests.support.browser import Heard, browse, in_the_test
from tests.support.waiting import until
from tests.system.daemon import Client, Daemon, client, daemon, from_binance, http_client

BTC, ETH = "BTC-USDT", "ETH-USDT"
BETWEEN = 0.002  # s between two trades of a market that goes on; less than between two looks
LOOK_EVERY, GRACE, STALL_AFTER = 0.02, 0.1, 0.2


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookout, "LOOK_EVERY", LOOK_EVERY)
    monkeypatch.setattr(vitals, "GRACE", GRACE)


@define
class Stage:
    exchange: Exchange
    daemon: Daemon
    client: Client
    _number: int = 0

    async def trade(self, *symbols: str) -> int:
        """One trade of each symbol, with the next number."""
        self._number += 1
        for symbol in symbols:
            name, at = symbol.replace("-", ""), self.exchange.now_us()
            await self.exchange.publish(
                Trade(self._number, symbol=name, side="sell", price="2.50", qty="0.5", timestamp_us=at)
            )
        return self._number

    async def heard(self, symbol: str, number: int) -> None:
        await self.client.until(lambda: str(number) in self.ids(symbol))

    async def looked_at(self, number: int | None) -> None:
        """Returns when the daemon has looked at both symbols, and seen that trade."""
        pulses = self.daemon.core.sources["binance"].vitals.pulses
        await until(
            lambda: all(
                symbol in pulses and (number is None or _sequence(pulses[symbol].ours) == number)
                for symbol in (BTC, ETH)
            )
        )

    def ids(self, symbol: str) -> list[str]:
        """Of the trades that the client has, the filled ones too, in the order of their coming."""
        fills = [t["tradeId"] for fill in self.client.of("stream.filled") for t in fill["trades"]]
        return [each["tradeId"] for each in self.client.trades(symbol)] + fills

    def states(self, symbol: str = BTC) -> list[str]:
        """The states that the client was told of, in order."""
        return [each["state"] for each in self.client.of("quality.update") if each["symbol"] == symbol]

    async def told(self, *states: str, symbol: str = BTC) -> None:
        """Returns when the client was told of these states, in this order and perhaps with others between."""
        await self.client.until(lambda: _is_in(states, self.states(symbol)))

    async def trades_until(self, *states: str, symbol: str = BTC) -> None:
        """The symbol trades until the client was told of these states, in this order."""
        while not _is_in(states, self.states(symbol)):
            await self.trade(symbol)
            await wait_all_tasks_blocked(BETWEEN)

    async def quality(self, symbol: str = BTC) -> dict[str, Any]:
        [found] = [each for each in await self.client.call("getSymbols") if each["symbol"] == symbol]
        return dict(found["quality"])


def _sequence(trade: Any) -> Any:
    return trade and trade.sequence


def _is_in(states: tuple[str, ...], told: list[str]) -> bool:
    rest = iter(told)
    return all(state in rest for state in states)


@asynccontextmanager
async def stage(*, follow: bool = True, **settings: Any) -> AsyncIterator[Stage]:
    async with open_binance() as exchange:
        settings.setdefault("stall_after", STALL_AFTER)
        settings.setdefault("refill_url", exchange.rest_url)
        sources = from_binance(exchange.url, BTC, ETH, **settings)
        async with daemon(sources=sources) as d, client(d.url) as listener:
            made = Stage(exchange, d, listener)
            await listener.call("subscribe", symbol=[BTC, ETH], channel="quality")
            if follow:
                await listener.call("subscribe", symbol=[BTC, ETH])
                await exchange.wait_subscribed(["BTCUSDT", "ETHUSDT"])
                await made.looked_at(None)
                number = await made.trade(BTC, ETH)
                await made.heard(BTC, number)
                await made.heard(ETH, number)
                await made.looked_at(number)
            yield made


async def test_a_symbol_that_falls_silent_alone_is_cured_alone() -> None:
    """It is found stalled by what the exchange tells of its newest trade, subscribed anew, and refilled. The
    connection stays, the other symbol is not disturbed, and no trade is missing."""
    async with stage(hold=60.0) as s:
        s.exchange.fault("mute", symbol="BTCUSDT")
        await s.trade(BTC, ETH)
        await s.told("stalled")
        reasons = [each["reason"] for each in s.client.of("quality.update") if each["state"] == "stalled"]
        assert reasons[0] == "the source has newer trades than it sends"
        number = 0
        while not _is_in(("stalled", "live"), s.states()):
            number = await s.trade(BTC, ETH)
            await s.heard(ETH, number)
        await s.heard(BTC, number)
        assert sorted(map(int, s.ids(BTC))) == list(range(1, number + 1))
        assert s.exchange.accepted == 1
        assert s.client.of("connection.lost") == []
        assert "stalled" not in s.states(ETH)
        assert [t["tradeId"] for t in s.client.trades(ETH)] == [str(n) for n in range(1, number + 1)]


async def test_a_stall_that_a_new_subscription_does_not_cure_ends_with_a_new_connection() -> None:
    """It says why."""
    async with stage() as s:
        s.exchange.fault("mute", symbol="BTCUSDT", times=2)
        while s.exchange.accepted == 1:
            await s.trade(BTC)
            await wait_all_tasks_blocked(BETWEEN)
        await s.client.until(lambda: s.client.of("connection.lost"))  # a message, and so later than that
        [lost] = s.client.of("connection.lost")
        assert lost["reason"] == "BTC-USDT is stalled: the source has newer trades than it sends"


async def test_a_market_where_nothing_trades_is_quiet() -> None:
    """The exchange confirms it. Nothing is done, and the next trade ends it."""
    async with stage() as s:
        await s.told("live", "quiet", symbol=BTC)
        await s.told("live", "quiet", symbol=ETH)
        assert (await s.quality())["sources"]["binance"]["reason"] is None
        number = await s.trade(BTC)
        await s.heard(BTC, number)
        await s.told("live", "quiet", "live")
        assert s.exchange.accepted == 1
        assert s.daemon.core.sources["binance"].vitals.remedies == {}
        assert s.client.of("stream.gap") == []


async def test_an_exchange_that_does_not_answer_proves_nothing() -> None:
    """The silence is told, with the reason that nobody knows better. The failure is counted."""
    async with stage() as s:
        s.exchange.fault("rest_error", times=None)
        reason = "silent; the source did not answer whether it has newer trades"
        await s.client.until(  # before the fault it may have been quiet by an answer
            lambda: ("quiet", reason) in [(q["state"], q["reason"]) for q in s.client.of("quality.update")]
        )
        source = s.daemon.core.sources["binance"]
        assert source.vitals.failed["server_error"] >= 1
        assert source.vitals.remedies == {}


async def test_a_symbol_that_nobody_wants_is_idle_and_then_lost_until_it_is_subscribed() -> None:
    """Connecting and subscribing are `lost`, with that reason. It is not live before a trade has come."""
    async with stage(follow=False) as s:
        await until(lambda: [each.state for each in s.daemon.core.quality(BTC)] == ["idle"])
        await s.client.call("subscribe", symbol=BTC)
        await s.trades_until("lost", "quiet", "live")
        reasons = [each["reason"] for each in s.client.of("quality.update") if each["state"] == "lost"]
        assert "subscribing" in reasons


async def test_a_refused_symbol_is_rejected_and_a_cut_connection_loses_all() -> None:
    """In the words of the exchange, or with what happened to the connection."""
    async with stage(follow=False) as s:
        s.exchange.fault("refuse", symbol="BTCUSDT", times=None)
        await s.client.call("subscribe", symbol=[BTC, ETH])
        await s.told("rejected", symbol=BTC)
        await s.trades_until("live", symbol=ETH)
        await s.exchange.disconnect("abrupt")
        await s.told("live", "lost", symbol=ETH)
        await s.exchange.wait_subscribed(["ETHUSDT"])
        await s.trades_until("live", "lost", "live", symbol=ETH)


async def test_missed_trades_are_gapped_for_a_while() -> None:
    """Where they cannot be had: `missing` counts their places. The trades go on."""
    async with stage(refill=False, hold=0.0) as s:
        s.exchange.fault("drop", symbol="BTCUSDT", times=3)
        for _ in range(5):
            number = await s.trade(BTC)
        await s.heard(BTC, number)
        await s.told("gapped")
        quality = await s.quality()
        assert (quality["state"], quality["missing"]) == ("gapped", 3)
        assert quality["lag"] is not None
        [gap] = s.client.of("stream.gap")
        assert gap["to"] - gap["from"] + 1 == 3


async def test_missed_trades_that_are_asked_for_are_refilling() -> None:
    """Until they are there. Nothing is missing then, and `/ready` has nothing to say."""
    async with stage(hold=0.0) as s, http_client(s.daemon.http) as http:
        s.exchange.fault("rest_error", times=None)
        s.exchange.fault("drop", symbol="BTCUSDT", times=2)
        for _ in range(4):
            number = await s.trade(BTC)
        await s.heard(BTC, number)
        await s.told("refilling")
        ready = (await http.get("/ready")).json()
        assert ready["degraded"] == ["binance: BTC-USDT refilling"]
        s.exchange.faults.withdraw()
        await s.trades_until("refilling", "live")
        assert (await s.quality())["missing"] == 0
        assert (await http.get("/ready")).json()["status"] == "ready"


async def test_the_page_shows_a_stall_and_its_end() -> None:
    """In the row of the symbol, with the reason as a hint, and as a notice; without a reload."""

    async with stage() as s:
        stalled, cured = trio.Event(), trio.Event()

        def visit(page: Page, heard: Heard) -> tuple[str, list[str]]:
            page.goto(s.daemon.http)
            row = page.locator("table.symbols tbody tr", has_text=BTC)
            cell, link = row.locator(".quality"), row.get_by_role("link")
            expect(cell).to_have_text(re.compile("live|quiet"))
            in_the_test(stalled.set)
            expect(cell).to_have_text("stalled")
            hint, notices = "", page.locator("#notices")
            while "stalled" not in hint:  # the state comes and goes; a hint tells that of the moment
                page.mouse.move(0, 0)
                link.hover()
                hint = str(link.get_attribute("title"))
            expect(notices).to_contain_text(f"binance has newer trades than it sends: {BTC}")
            in_the_test(cured.set)
            expect(cell).not_to_have_text("stalled")
            expect(notices).to_contain_text(f"binance sends again: {BTC}")
            return hint, heard.complaints

        async def market() -> None:
            await stalled.wait()
            s.exchange.fault("mute", symbol="BTCUSDT", times=None)
            while not cured.is_set():
                await s.trade(BTC)
                await trio.sleep(BETWEEN)
            s.exchange.faults.withdraw()
            for connection in s.exchange.connections:
                connection.unmute(["BTCUSDT"])
            while True:
                await s.trade(BTC)
                await trio.sleep(BETWEEN)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(market)
            hint, complaints = await browse(visit)
            nursery.cancel_scope.cancel()
        assert "the source has newer trades than it sends" in hint
        assert complaints == []


async def test_the_quality_over_http() -> None:
    """`/api/v1/symbols` says what `getSymbols` says; `/ready` names what is served with less than it should."""
    async with stage() as s, http_client(s.daemon.http) as http:
        s.exchange.fault("mute", symbol="BTCUSDT", times=None)
        await s.trade(BTC)
        await s.told("stalled")
        s.exchange.fault("rest_error", times=None)  # else it is quiet as soon as it has what it missed
        symbol = (await http.get(f"/api/v1/symbols/{BTC}")).json()
        assert symbol["quality"]["state"] == "stalled"
        reason = symbol["quality"]["sources"]["binance"]["reason"]
        assert reason == "the source has newer trades than it sends"
        ready = (await http.get("/ready")).json()
        assert ready["status"] == "degraded"
        assert ready["degraded"] == ["binance: BTC-USDT stalled"]
        metrics = (await http.get("/metrics")).text
        assert 'dataflow_source_symbols{source="binance",state="stalled"} 1.0' in metrics


async def test_a_symbol_that_is_mute_from_its_first_second_is_never_live() -> None:
    """Nobody knows how it fares before the exchange is asked. That is told, and no reason not to be ready. The
    answers show that it is stalled."""
    async with stage(follow=False, stall_after=600.0) as s, http_client(s.daemon.http) as http:
        await s.client.call("subscribe", symbol=[BTC, ETH])
        await s.told("quiet", symbol=BTC)
        await s.told("quiet", symbol=ETH)
        assert (await s.quality())["sources"]["binance"][
            "reason"
        ] == "whether its trades come is not known yet"
        assert (await http.get("/ready")).json()["status"] == "ready"
    async with stage(follow=False) as s:
        s.exchange.fault("mute", symbol="BTCUSDT", times=None)
        await s.client.call("subscribe", symbol=[BTC, ETH])
        await s.trades_until("stalled")
        assert "live" not in s.states()


async def test_a_source_that_stands_by_is_judged_before_it_is_needed() -> None:
    """Well, it is `standby`, and the state of the symbol is that of the active source. Mute, it is found stalled,
    told everywhere, and not taken when the active one is lost: another one is."""
    async with open_binance() as one, open_binance() as two, open_binance() as three:

        def trade(number: int) -> Trade:
            at = two.now_us()
            return Trade(number, symbol="BTCUSDT", side="sell", price="2.50", qty="0.5", timestamp_us=at)

        await two.publish(trade(1))  # so its exchange has something to tell
        sources = {
            name: from_binance(exchange.url, BTC, refill_url=exchange.rest_url, stall_after=STALL_AFTER)[
                "binance"
            ]
            for name, exchange in (("one", one), ("two", two), ("three", three))
        }
        symbols = {BTC: Symbol(sources=("one", "two", "three"), mode=Mode.FAILOVER)}
        async with (
            daemon(sources=sources, symbols=symbols) as d,
            client(d.url) as listener,
            http_client(d.http) as http,
        ):

            def told(name: str) -> tuple[str, str | None]:
                [found] = [each for each in d.core.quality(BTC) if each.source == name]
                return found.state.value, found.reason

            await listener.call("subscribe", symbol=BTC)
            await until(lambda: told("one") == ("quiet", None))  # their exchanges were asked
            await until(lambda: told("two") == ("standby", "one is preferred"))
            await until(lambda: told("three") == ("standby", "one is preferred"))
            [symbol] = await listener.call("getSymbols")
            assert symbol["quality"]["state"] in ("live", "quiet")
            two.fault("mute", symbol="BTCUSDT", times=None)
            await two.publish(trade(2))
            await until(lambda: told("two")[0] == "stalled")
            assert told("two")[1] == "the source has newer trades than it sends; one is preferred"
            assert (await http.get("/ready")).json()["degraded"] == ["two: BTC-USDT stalled"]
            assert (await http.get("/api/v1/sources/two")).json()["quality"]["states"] == {"stalled": 1}
            metrics = (await http.get("/metrics")).text
            assert 'dataflow_source_symbols{source="two",state="stalled"} 1.0' in metrics
            assert 'dataflow_lookout_stalls_total{source="two"}' in metrics
            await one.disconnect("refuse")
            await until(lambda: d.core.active(BTC) != "one")
            assert d.core.active(BTC) == "three"
