"""The example in dataflow/topics/README.md is true: it is put into place as it stands, and runs."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import trio
from httpx_sse import EventSource, ServerSentEvent
from trio.testing import wait_all_tasks_blocked

import dataflow.topics
from actors.subscription import Fanout, Lane, Subscription
from actors.update import Encode, Places, Rendering, Update
from dataflow.domain import Topic
from dataflow.topics.channel import channels
from simulators import Trade, open_binance
from supervisors import Child, Pool, open_supervisor
from tests.dataflow.topics.stage import SYMBOLS, Stage, check_log
from tests.support.waiting import until
from tests.system.daemon import client, daemon, from_binance, http_client

README = Path(dataflow.topics.__path__[0]) / "README.md"
BTC = Topic("ticker", SYMBOLS[0])


def block(containing: str) -> str:
    """The Python block that contains a text."""
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    (found,) = [each for each in blocks if containing in each]
    return str(found)


@pytest.fixture
def ticker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The example as `dataflow/topics/ticker.py`."""
    (tmp_path / "ticker.py").write_text(block("class TickerLog"))
    monkeypatch.setattr(dataflow.topics, "__path__", [*dataflow.topics.__path__, str(tmp_path)])
    importlib.invalidate_caches()
    yield importlib.import_module("dataflow.topics.ticker")
    del sys.modules["dataflow.topics.ticker"]
    del dataflow.topics.ticker  # type: ignore[attr-defined]


def test_the_channel_is_found_by_its_file(ticker: ModuleType) -> None:
    """Beside those that are shipped."""
    assert set(channels(Stage().ground)) == {"candles", "days", "prices", "quality", "ticker", "trades"}


async def test_its_log_keeps_the_promises_of_a_log(ticker: ModuleType) -> None:
    """Of what it skips, nothing is owed."""
    stage = Stage()
    check_log(stage.make(ticker.make), BTC, lambda _number: stage.trade())


def test_a_gap_is_no_price(ticker: ModuleType) -> None:
    """It takes a place, and the newest trade is read once all the same."""
    stage = Stage()
    log = stage.make(ticker.make).log_of(BTC)
    assert log.read(0) is None
    stage.trade()
    stage.hole()
    trade = stage.trade()
    update = log.read(0)
    assert update is not None
    assert (log.last, update.first, update.places) == (3, 1, [(3, trade)])
    assert log.read(2) is not None
    assert log.read(3) is None


class Prices:
    """A format: the price of each entry."""

    def encoder(self, topic: object, epoch: int) -> Encode:
        def encode(places: Places) -> list[bytes]:
            return [str(trade.price).encode() for _, trade in places]

        return encode


class Listener:
    """A subscriber, which may be busy."""

    def __init__(self) -> None:
        self.prices: list[str] = []
        rendering = Rendering(Prices(), None, lambda texts: [text.decode() for text in texts])
        self.lane: Lane[Any] = Lane(0, rendering, self.send)
        self.lanes = {BTC: self.lane}

    def send(self, payload: list[str]) -> int:
        self.prices += payload
        return len(payload)

    def finish(self, payload: Any, taken: int | None) -> None:
        raise AssertionError("it takes everything")

    def offer(self, update: Update) -> None: ...


class Upstream:
    async def want(self, topic: Topic, wake: object) -> None: ...
    async def release(self, topic: Topic) -> None: ...


async def test_a_subscription_brings_the_newest_price(ticker: ModuleType) -> None:
    """Trades that come between two passes leave as one."""
    stage, listener = Stage(), Listener()
    fanout = Fanout(BTC, stage.make(ticker.make).log_of(BTC))
    fanout.join(listener)
    async with open_supervisor(Pool()) as pool:
        ref = await pool.start(Child("ticker", lambda: Subscription(fanout, Upstream(), 30.0)))
        stage.trade()
        ref.put("news")
        await wait_all_tasks_blocked()
        for _ in range(5):
            stage.trade()
        ref.put("news")
        await wait_all_tasks_blocked()
    assert listener.prices == ["1", "6"]


async def test_clients_of_the_daemon_get_the_newest_price(ticker: ModuleType) -> None:
    """No other file is opened: found by its name, the symbol wanted of its source, written by two protocols."""
    async with (
        open_binance() as exchange,
        daemon(sources=from_binance(exchange.url, "BTC-USDT")) as d,
        client(d.url) as c,
        http_client(d.http) as http,
        http.stream("GET", "/api/v1/stream/BTC-USDT?channel=ticker", timeout=None) as response,
        trio.open_nursery() as nursery,
    ):
        answer = await c.call("subscribe", channel="ticker", symbol="BTC-USDT", snapshot=1)
        assert (answer["channel"], answer["offset"], answer["ticker"]) == ("ticker", 0, [])
        await exchange.wait_subscribed(["BTCUSDT"])
        events: list[ServerSentEvent] = []

        @nursery.start_soon
        async def listen() -> None:
            async for event in EventSource(response).aiter_sse():
                events.append(event)

        for n in range(1, 11):
            await exchange.publish(
                Trade(id=n, symbol="BTCUSDT", side="buy", price=f"{n}.10", qty="1", timestamp_us=n * 1000)
            )
        await c.until(lambda: c.of("ticker.update") and c.of("ticker.update")[-1]["offset"] == 10)
        newest = c.of("ticker.update")[-1]
        assert (newest["price"], newest["channel"], newest["tradeId"]) == (Decimal("10.1"), "ticker", "10")
        await until(lambda: events and events[-1].id == f"{d.core.epoch}-10")
        assert events[-1].event == "ticker"
        again = await c.call("subscribe", channel="ticker", symbol="BTC-USDT", snapshot=1)
        assert [trade["price"] for trade in again["ticker"]] == [Decimal("10.1")]
        await c.call("unsubscribe", channel="ticker", symbol="BTC-USDT")
        nursery.cancel_scope.cancel()
