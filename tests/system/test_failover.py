"""One symbol, two sources, one stream: who takes over, when, and what clients are told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import inf
from pathlib import Path
from typing import Any

import pytest
from attrs import define, evolve

from dataflow.domain.quality import Grade
from dataflow.settings.schema import BackoffSettings, History, Mode, Symbol
from dataflow.sources import health, lookout
from dataflow.sources.port import SourceSettings
from simulators import Exchange, Trade, open_binance
from supervisors import Point, StartFailed
from tests.support.waiting import until
from tests.system import test_sse
from tests.system.daemon import Client, Daemon, client, daemon, from_binance, http_client
from tests.system.test_sse import listening

BTC = "BTC-USDT"


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """The looks at the symbols come faster than in real life. The trades are of 1970: that costs no points."""
    monkeypatch.setattr(lookout, "LOOK_EVERY", 0.02)
    monkeypatch.setattr(health, "LAG_WORST", 1e12)


def trade(id: int) -> Trade:
    return Trade(id=id, symbol="BTCUSDT", side="buy", price="1.0", qty="1", timestamp_us=id * 1000)


def binance(exchange: Exchange, *symbols: str, **more: Any) -> SourceSettings:
    return from_binance(exchange.url, *(symbols or (BTC,)), **more)["binance"]


def failing_over(return_after: float = 0.0, *sources: str) -> dict[str, Symbol]:
    keys = Symbol(sources=sources or ("one", "two"), mode=Mode.FAILOVER, return_after=return_after)
    return {BTC: keys}


@define
class Stage:
    """Two exchanges that trade the same; `one` is preferred."""

    daemon: Daemon
    one: Exchange
    two: Exchange
    client: Client
    told: int = 0

    @property
    def active(self) -> str | None:
        return self.daemon.core.active(BTC)

    async def trades(self, exchange: Exchange, *ids: int) -> None:
        """Returns when the client has them."""
        for id in ids:
            await exchange.publish(trade(id))
        self.told += len(ids)
        await self.client.until(lambda: self.client.traded[BTC] == self.told)

    async def left_out(self, exchange: Exchange, name: str, *ids: int) -> None:
        """Returns when they have come, and were left out."""
        counts = self.daemon.core.delivery.left_out
        before = counts[name]
        for id in ids:
            await exchange.publish(trade(id))
        await until(lambda: counts[name] == before + len(ids))

    async def lives(self, exchange: Exchange, name: str, id: int) -> None:
        """Returns when it stands by, and is known to live: it has sent that trade."""
        pulses = self.daemon.core.sources[name].vitals.pulses
        await until(lambda: BTC in pulses and pulses[BTC].ask_at < inf)  # the first look is no proof
        await self.left_out(exchange, name, id)
        await until(lambda: pulses[BTC].grade is Grade.LIVE)

    async def switched(self, count: int) -> dict[str, Any]:
        """What was told of the switch with that number."""
        await self.client.until(lambda: len(self.client.of("stream.switched")) >= count)
        return self.client.of("stream.switched")[count - 1]

    def stream(self) -> list[str]:
        """The ids of all trades with their sources, and the gaps, in order. Each place follows the one before."""
        last, found = 0, []
        for entry in self.client.stream(BTC):
            first = entry.get("from", entry.get("offset"))
            assert first == last + 1
            last = entry.get("to") or first
            found.append(f"{entry['source']} {entry['tradeId']}" if "tradeId" in entry else "gap")
        return found


@asynccontextmanager
async def stage(
    return_after: float = 60.0, *, can_be_asked: bool = False, hold: float = 60.0, **tables: Any
) -> AsyncIterator[Stage]:
    def keys(exchange: Exchange) -> dict[str, Any]:
        return {"refill_url": exchange.rest_url, "hold": hold} if can_be_asked else {"refill": False}

    tables.setdefault("symbols", failing_over(return_after))
    tables.setdefault("backoff", BackoffSettings(initial_delay=0.01, jitter=0.0))
    async with (
        open_binance() as one,
        open_binance() as two,
        daemon(sources={"one": binance(one, **keys(one)), "two": binance(two, **keys(two))}, **tables) as d,
        client(d.url) as listener,
    ):
        await listener.call("subscribe", symbol=BTC)
        for name in ("one", "two"):
            await until(lambda name=name: d.core.sources[name].status(BTC) == "live")  # type: ignore[misc]
        yield Stage(d, one, two, listener)


async def test_the_stream_is_that_of_the_preferred_source() -> None:
    """The other one is connected and subscribed, and its trades are counted, but no part of the stream."""
    async with stage() as s:
        assert s.active == "one"
        await s.left_out(s.two, "two", 500, 501)
        await s.trades(s.one, 1, 2)
        await s.left_out(s.two, "two", 502)
        await s.trades(s.one, 3)
        assert s.stream() == ["one 1", "one 2", "one 3"]
        assert not s.client.of("stream.switched")


async def test_when_the_active_source_dies_the_other_one_takes_over() -> None:
    """At once, and told. What may be missing of the dead one is a gap; nothing is missing of the one that stood by,
    though trades of it were left out. When the preferred one is back and well, it is taken back without a gap."""
    async with stage() as s:
        await s.trades(s.one, 1, 2)
        await s.left_out(s.two, "two", 500, 501)
        await s.one.disconnect("refuse")
        told = await s.switched(1)
        assert (told["symbol"], told["channel"], told["from"], told["to"]) == (BTC, "trades", "one", "two")
        assert told["offset"] == 3
        assert told["epoch"] == s.daemon.core.epoch
        await s.trades(s.two, 502, 503)
        await s.one.disconnect("accept")
        await until(lambda: s.daemon.core.sources["one"].status(BTC) == "live")
        await s.lives(s.one, "one", 6)
        assert s.active == "two"
        await s.daemon.reload(evolve(s.daemon.hall.settings, symbols=failing_over(0.0)))
        back = await s.switched(2)
        assert (back["from"], back["to"], back["offset"]) == ("two", "one", 5)
        await s.left_out(s.two, "two", 504)
        await s.trades(s.one, 7)
        assert s.stream() == ["one 1", "one 2", "gap", "two 502", "two 503", "one 7"]


async def test_the_last_trades_of_a_source_that_can_be_asked_come_before_the_new_one() -> None:
    """The exchange dropped them on their way, and then the connection. Its REST has them: no gap, and the new source
    waits for them."""
    async with stage(can_be_asked=True) as s:
        await s.trades(s.one, 1, 2)
        await s.left_out(s.two, "two", 500)
        s.one.stall()
        for id in (3, 4):
            await s.one.publish(trade(id))
        await s.one.disconnect("abrupt")
        told = await s.switched(1)
        assert told["offset"] == 4
        s.told += 2
        await s.trades(s.two, 501)
        assert s.stream() == ["one 1", "one 2", "one 3", "one 4", "two 501"]


async def test_if_it_does_not_answer_the_gap_is_told_when_the_wait_is_over() -> None:
    """Nothing waits for longer than `hold`."""
    async with stage(can_be_asked=True, hold=0.05) as s:
        await s.trades(s.one, 1)
        s.one.fault("rest_error", times=None)
        await s.one.disconnect("abrupt")
        await s.switched(1)
        await s.trades(s.two, 501)
        assert s.stream() == ["one 1", "gap", "two 501"]


async def test_when_both_are_down_whoever_comes_first_takes_over() -> None:
    """Until then nothing is switched, and nobody is told anything wrong."""
    async with stage() as s:
        await s.trades(s.one, 1)
        await s.two.disconnect("refuse")
        await until(lambda: s.daemon.core.sources["two"].status(BTC) == "lost")
        await s.one.disconnect("refuse")
        await until(lambda: s.daemon.core.sources["one"].status(BTC) == "lost")
        assert s.active == "one"
        assert not s.client.of("stream.switched")
        await s.two.disconnect("accept")
        assert (await s.switched(1))["to"] == "two"
        await s.trades(s.two, 501)
        assert s.stream() == ["one 1", "gap", "two 501"]


async def test_a_client_comes_back_over_a_switch() -> None:
    """Its position is good on both sides of it: it gets what it missed, each trade with its source."""
    async with stage() as s:
        await s.trades(s.one, 1, 2)
        epoch = s.daemon.core.epoch
        await s.one.disconnect("refuse")
        await s.switched(1)
        await s.trades(s.two, 501)
        async with client(s.daemon.url) as later:
            answer = await later.call("subscribe", symbol=BTC, since={"epoch": epoch, "offset": 1})
        assert answer["recovered"] is True
        assert [(t["source"], t["tradeId"]) for t in answer["trades"]] == [("one", "2"), ("two", "501")]
        assert [(gap["from"], gap["to"]) for gap in answer["gaps"]] == [(3, None)]


async def test_candles_go_on_over_a_switch() -> None:
    """A source that stands by is not waited for, and after a switch in good health the candle is complete."""
    async with stage() as s:
        await s.trades(s.one, 1)
        await s.lives(s.two, "two", 2)
        await s.daemon.reload(evolve(s.daemon.hall.settings, symbols=failing_over(0.0, "two", "one")))
        assert (await s.switched(1))["to"] == "two"
        await s.trades(s.two, 3)
        [candle] = (await s.client.call("getCandles", symbol=BTC, interval="1m"))["candles"]
        assert (candle["count"], candle["complete"], candle["gaps"]) == (2, True, [])


async def test_the_table_of_symbols_is_reloaded() -> None:
    """Sources come into the stream and leave it while it goes on. Nothing that was left out counts as missing."""
    async with stage() as s:
        settings = s.daemon.hall.settings
        await s.trades(s.one, 1)
        await s.left_out(s.two, "two", 500, 501)
        await s.daemon.reload(evolve(settings, symbols={}))
        assert s.active is None
        await s.trades(s.two, 502)
        await s.trades(s.one, 2)
        only_two = {BTC: Symbol(sources=("two",))}
        await s.daemon.reload(evolve(settings, symbols=only_two))
        await until(lambda: not s.one.subscribed)
        [told] = await s.client.call("getSymbols")
        assert told["sources"] == ["two"]
        await s.trades(s.two, 503)
        await s.daemon.reload(evolve(settings, symbols=failing_over(60.0)))
        await s.one.wait_subscribed(["BTCUSDT"])
        assert s.active == "two"
        await s.left_out(s.one, "one", 9)
        await s.trades(s.two, 504)
        assert s.stream() == ["one 1", "two 502", "one 2", "two 503", "two 504"]


async def test_the_stream_goes_on_with_its_source_after_a_restart(tmp_path: Path) -> None:
    """What the preferred source traded meanwhile was never part of it, so it is not missing."""
    history = History(directory=str(tmp_path))
    async with stage(history=history) as s:
        await s.trades(s.one, 1)
        await s.one.disconnect("refuse")
        await s.switched(1)
        await s.trades(s.two, 501)
    async with stage(history=history) as s:
        assert s.active == "two"
        await s.lives(s.one, "one", 8)
        await s.daemon.reload(evolve(s.daemon.hall.settings, symbols=failing_over(0.0)))
        assert (await s.switched(1))["to"] == "one"
        await s.trades(s.one, 9)
        page = await s.client.call("getTrades", symbol=BTC)
        assert [t["tradeId"] for t in page["trades"]] == ["1", "501", "9"]
        assert len(page["gaps"]) == 1


async def test_everybody_is_told_that_symbols_have_changed() -> None:
    """In each protocol that has notices. `getSymbols` agrees with it."""
    async with (
        open_binance() as one,
        daemon(sources={"one": binance(one)}) as d,
        client(d.url) as listener,
        listening(test_sse.Stage(one, d)) as events,
    ):
        sources = {"one": binance(one, "ETH-USDT", "XRP-USDT")}
        await d.reload(evolve(d.hall.settings, sources=sources))
        await listener.until(lambda: listener.of("symbols.changed"))
        told = {"added": ["ETH-USDT", "XRP-USDT"], "removed": [BTC]}
        assert listener.of("symbols.changed") == [told]
        assert [each["symbol"] for each in await listener.call("getSymbols")] == told["added"]
        await until(lambda: {"kind": "symbols.changed", **told} in events.of("notice"))


async def test_who_follows_hears_of_a_switch_and_nobody_else() -> None:
    """By Server-Sent Events as an event of its own; whoever follows all symbols follows this one, too."""
    async with (
        stage() as s,
        client(s.daemon.url) as of_all,
        client(s.daemon.url) as bystander,
        listening(test_sse.Stage(s.one, s.daemon)) as events,
    ):
        await of_all.call("subscribe", symbol="*")
        await s.trades(s.one, 1)
        await s.one.disconnect("refuse")
        told = await s.switched(1)
        await of_all.until(lambda: of_all.of("stream.switched"))
        await until(lambda: events.of("switched"))
        assert events.of("switched") == [told]
        await bystander.call("ping")
        assert not bystander.of("stream.switched")


async def test_operators_see_who_is_active_and_why() -> None:
    """The score with its parts, in `getSymbols`, `/api/v1` and the metrics; and how often it was switched."""
    async with stage() as s, http_client(s.daemon.http) as http:
        await s.trades(s.one, 1)
        await s.lives(s.two, "two", 500)
        await s.one.disconnect("refuse")
        await s.switched(1)
        told = (await http.get(f"/api/v1/symbols/{BTC}")).json()["failover"]
        assert (told["active"], told["switches"]) == ("two", 1)
        assert told["sources"]["two"] == {
            "score": 100,
            "state": "live",
            "parts": {"connection": 30, "quality": 30, "lag": 20, "errors": 20},
        }
        assert (told["sources"]["one"]["score"], told["sources"]["one"]["state"]) == (0, "lost")
        assert (await http.get("/api/v1/status")).json()["failover"].keys() == {BTC}
        metrics = (await http.get("/metrics")).text
        for series in (
            'source_active_symbols{source="one"} 0.0',
            'source_active_symbols{source="two"} 1.0',
            'source_lowest_score{source="one"} 0.0',
            'source_lowest_score{source="two"} 100.0',
            "stream_switches_total 1.0",
        ):
            assert f"\ndataflow_{series}\n" in metrics
        states = (await http.get(f"/api/v1/symbols/{BTC}")).json()["quality"]["sources"]
        assert states["two"]["state"] == "live"


async def test_a_crash_of_the_watch_loses_no_switch() -> None:
    """What happened while it was down is seen when it comes back."""
    async with stage() as s:
        await s.trades(s.one, 1)
        s.daemon.sabotage.arm(Point.START, "failover/watch")
        with pytest.raises(StartFailed):
            await s.daemon.root.supervisor("failover").restart("watch")
        await s.one.disconnect("refuse")
        assert (await s.switched(1))["to"] == "two"
        await s.trades(s.two, 501)
        assert s.stream() == ["one 1", "gap", "two 501"]


async def test_the_lines_of_a_dead_source_share_one_attempt() -> None:
    """After five that failed in a row the circuit is open; it is shown, and closes when the source is back."""
    async with stage() as s, http_client(s.daemon.http) as http:
        source = s.daemon.core.sources["one"]
        await s.one.disconnect("refuse")
        await until(lambda: source.breaker.opened)
        told = (await http.get("/api/v1/sources/one")).json()
        assert told["circuit"] in ("open", "half_open")
        await s.one.disconnect("accept")
        await until(lambda: source.status(BTC) == "live")
        assert (await http.get("/api/v1/sources/one")).json()["circuit"] == "closed"


async def test_what_waits_for_an_answer_when_the_daemon_stops_is_kept(tmp_path: Path) -> None:
    """It gets its places behind the gap, and is on disk."""
    history = History(directory=str(tmp_path))
    async with stage(can_be_asked=True, hold=30.0, history=history) as s:
        await s.trades(s.one, 1)
        s.one.fault("rest_slow", times=None, seconds=30.0)
        await s.one.disconnect("abrupt")
        await until(lambda: s.active == "two")
        await s.two.publish(trade(501))
        await until(lambda: s.daemon.core.stores[0].waiting + s.daemon.core.stores[1].waiting == 1)
    async with stage(history=history) as s:
        page = await s.client.call("getTrades", symbol=BTC)
        assert [t["tradeId"] for t in page["trades"]] == ["1", "501"]
        assert [(gap["from"], gap["to"]) for gap in page["gaps"]] == [(2, None)]
