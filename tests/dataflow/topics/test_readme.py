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
from trio.testing import wait_all_tasks_blocked

import dataflow.topics
from actors.subscription import Fanout, Lane, Subscription
from actors.update import Encode, Places, Rendering, Update
from dataflow.domain import Topic
from dataflow.faces.jsonrpc.format import JsonRpc
from dataflow.topics.channel import channels
from simulators import Trade, open_binance
from supervisors import Child, Pool, open_supervisor
from tests.dataflow.topics.stage import SYMBOLS, Stage, check_log
from tests.system.daemon import client, daemon, from_binance

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


def ticker_updates() -> Encode:
    """The function for the JSON-RPC format."""
    names: dict[str, Any] = {}
    exec(block("def ticker_updates"), names)
    updates: Encode = names["ticker_updates"]
    return updates


def test_the_channel_is_found_by_its_file(ticker: ModuleType) -> None:
    """Beside those that are shipped."""
    assert set(channels(Stage().ground)) == {"quality", "ticker", "trades"}


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
        self.lane: Lane[Any] = Lane(0, rendering, self.write)
        self.lanes = {BTC: self.lane}

    def write(self, payload: list[str]) -> None:
        self.prices += payload

    def finish(self, rest: Any) -> None:
        raise AssertionError("it takes everything")

    def offer(self, update: Update) -> None: ...


class Upstream:
    def want(self, topic: Topic) -> None: ...
    def release(self, topic: Topic) -> None: ...


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


async def test_a_client_of_the_daemon_gets_the_newest_price(
    ticker: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found by the name of the channel, with the symbol wanted of its source, and written by its own function."""
    updates, others = ticker_updates(), JsonRpc.encoder

    def encoder(self: JsonRpc, topic: Topic, epoch: int) -> Encode:
        return updates if topic.channel == "ticker" else others(self, topic, epoch)

    monkeypatch.setattr(JsonRpc, "encoder", encoder)
    async with (
        open_binance() as exchange,
        daemon(sources=from_binance(exchange.url, "BTC-USDT")) as d,
        client(d.url) as c,
    ):
        answer = await c.call("subscribe", channel="ticker", symbol="BTC-USDT", snapshot=1)
        assert (answer["channel"], answer["offset"], answer["trades"]) == ("ticker", 0, [])
        await exchange.wait_subscribed(["BTCUSDT"])
        for n in range(1, 11):
            await exchange.publish(
                Trade(id=n, symbol="BTCUSDT", side="buy", price=f"{n}.10", qty="1", timestamp_us=n * 1000)
            )
        last = {"symbol": "BTC-USDT", "price": Decimal("10.10"), "offset": 10}
        await c.until(lambda: last in c.of("ticker.update"))
        assert c.of("ticker.update")[-1] == last
        again = await c.call("subscribe", channel="ticker", symbol="BTC-USDT", snapshot=1)
        assert [trade["price"] for trade in again["trades"]] == [Decimal("10.1")]
        await c.call("unsubscribe", channel="ticker", symbol="BTC-USDT")
