"""Ten minutes of a real exchange, through the daemon and its disk, a kill in the middle, and out at every door.

The oracles are the exchange's own archive and bars that other code made of it: `tests/data`.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import trio
from attrs import define, field
from trio_websocket import ConnectionClosed

from dataflow.client import Client, Filled, Gap, Topic, Trade
from dataflow.domain.timestamps import from_rfc3339
from simulators import Exchange, open_binance
from simulators import Trade as Published
from tests.support import real_trades
from tests.system.daemon import client, connection, http_client
from tests.system.process import Home, Life
from tests.system.test_candles import oracle

NAMES = {"ETHUSDT": "ETH-USDT"}  # of the two recordings the shorter one
DATA = Path(__file__).parent.parent / "data"
LOST = 700  # trades that nobody hears: those while the daemon is away
REPEATED = 2_000  # trades that the exchange says again, at least
SUMS = ("open", "high", "low", "close", "volume", "quoteVolume", "buyVolume")

Row = tuple[str, int, str, str, str]


def archive() -> list[Mapping[str, str]]:
    """The trades of the symbols here, each with exactly its digits."""
    return [row for row in real_trades.rows() if row["symbol"] in NAMES]


def rows(trades: Iterable[dict[str, Any]]) -> list[Row]:
    """Trades as a face tells them: the place of each is checked, the rest is to be compared."""
    found = list(trades)
    assert [int(each["offset"]) for each in found] == list(range(1, len(found) + 1)), "no place is missing"
    return [
        (
            str(each["tradeId"]),
            from_rfc3339(each["timestamp"]) // 1000,
            str(each["side"]),
            str(each["price"]),
            str(each["qty"]),
        )
        for each in found
    ]


@define
class Listener:
    """A client made of the core alone, which outlives the daemon."""

    core: Client = field(factory=lambda: Client(format="compact", keep=None))
    told: list[object] = field(factory=list)
    news: trio.Event = field(factory=trio.Event)

    @asynccontextmanager
    async def connected(self, life: Life) -> AsyncIterator[None]:
        async with connection(life.url) as socket, trio.open_nursery() as nursery:
            for call in self.core.connect():
                await socket.send_message(call)
            nursery.start_soon(self._listen, socket)
            yield
            nursery.cancel_scope.cancel()

    async def _listen(self, socket: Any) -> None:
        with suppress(ConnectionClosed):  # by the kill
            while True:
                events = self.core.hear(await socket.get_message())
                self.told += [event for event in events if not isinstance(event, Trade)]
                self.news.set()
                self.news = trio.Event()

    async def joined(self) -> None:
        """Returns when it follows all symbols."""
        while sum(stream.live for stream in self.core.streams.values()) < len(NAMES):
            await self.news.wait()

    async def until(self, held: dict[str, list[Row]]) -> None:
        """Returns when its newest trade of each symbol is that of these."""
        while any(
            (log := self.log(symbol)) == [] or log[-1] != wanted[-1] for symbol, wanted in held.items()
        ):
            await self.news.wait()

    def log(self, symbol: str) -> list[Row]:
        stream = self.core.streams.get(Topic("trades", symbol))
        return [
            (
                str(each.trade_id),
                int(each.timestamp.timestamp() * 1e6),
                str(each.side),
                str(each.price),
                str(each.quantity),
            )
            for each in (stream.log if stream else [])
            if isinstance(each, Trade)
        ]

    @property
    def missing(self) -> int:
        """Places of which it knows that they are empty."""
        return sum(
            gap.to - gap.first + 1 for each in self.core.streams.values() for gap in each.gaps if gap.to
        )


def by_symbol(part: Sequence[dict[str, str]]) -> dict[str, list[Row]]:
    """The rows of the archive as `rows` has those of a face."""
    found: dict[str, list[Row]] = {name: [] for name in NAMES.values()}
    for row in part:
        told = (row["trade_id"], int(row["timestamp_us"]), row["side"], row["price"], row["qty"])
        found[NAMES[row["symbol"]]].append(told)
    return found


async def publish(exchange: Exchange, part: Sequence[dict[str, str]]) -> None:
    for row in part:
        await exchange.publish(
            Published(
                int(row["trade_id"]),
                row["symbol"],
                row["side"],  # type: ignore[arg-type]
                row["price"],
                row["qty"],
                int(row["timestamp_us"]),
            )
        )


# The doors.


async def by_calls(life: Life, symbol: str) -> list[Row]:
    """`getTrades`, page by page."""
    found: list[dict[str, Any]] = []
    async with client(life.url) as asking:
        position: dict[str, Any] = {}
        while True:
            page = await asking.call("getTrades", symbol=symbol, limit=3_000, **position)
            assert page["gaps"] == []
            if not page["trades"]:
                return rows(found)
            found += page["trades"]
            position = {"after": page["next"]}


async def by_pages(http: httpx.AsyncClient, symbol: str) -> list[Row]:
    """REST, along the links."""
    found: list[dict[str, Any]] = []
    at: httpx.URL | str | None = f"/api/v1/trades/{symbol}?limit=7000"
    while at is not None:
        answer = await http.get(at)
        page = json.loads(answer.text, parse_float=Decimal)
        assert page["gaps"] == []
        found += page["trades"]
        following = answer.links.get("next")
        at = answer.url.join(following["url"]) if following else None
    return rows(found)


async def by_graphql(http: httpx.AsyncClient, symbol: str) -> list[Row]:
    """GraphQL, page by page."""
    found: list[dict[str, Any]] = []
    fields = "gaps {from} next trades {tradeId timestamp: time side price qty offset}"
    query = f"query($s: String!, $a: String) {{trades(symbol: $s, after: $a, limit: 1000) {{{fields}}}}}"
    after: str | None = None
    while True:
        body = {"query": query, "variables": {"s": symbol, "a": after}}
        page = json.loads((await http.post("/graphql", json=body)).text, parse_float=Decimal)["data"][
            "trades"
        ]
        assert page["gaps"] == []
        if not page["trades"]:
            return rows(found)
        found += page["trades"]
        after = page["next"]


async def by_stream(http: httpx.AsyncClient, symbol: str, media: str) -> list[Row]:
    """Everything at once."""
    text = (await http.get(f"/api/v1/trades/{symbol}", headers={"Accept": media})).text
    if media == "text/csv":
        return rows(csv.DictReader(text.splitlines()))
    return rows(json.loads(line, parse_float=Decimal) for line in text.splitlines())


async def by_export(home: Home, symbol: str) -> list[Row]:
    """`dataflow history export`, beside the running daemon."""
    command = [
        sys.executable,
        "-m",
        "dataflow",
        "history",
        "export",
        symbol,
        "--directory",
        str(home.history),
    ]
    done = await trio.run_process(command, capture_stdout=True, capture_stderr=True)
    return rows(csv.DictReader(done.stdout.decode().splitlines()))


async def candles(http: httpx.AsyncClient, symbol: str, interval: str) -> dict[int, tuple[Any, ...]]:
    answer = await http.get(f"/api/v1/candles/{symbol}?interval={interval}", headers={"Accept": "text/csv"})
    told = list(csv.DictReader(answer.text.splitlines()))
    assert {each["complete"] for each in told} == {"true"}
    return {
        from_rfc3339(each["start"]): (*(Decimal(each[name]) for name in SUMS), int(each["count"]))
        for each in told
    }


async def test_a_recording_comes_out_as_it_went_in(tmp_path: Path) -> None:
    """Id by id and digit by digit at every door. What the kill cost is a named gap, until the exchange repeats it."""
    trades = archive()
    half, later = len(trades) // 2, len(trades) // 2 + LOST
    whole = by_symbol(trades)
    listener = Listener()
    for symbol in NAMES.values():
        listener.core.follow(symbol)
    faces = "[faces.graphql]\nenabled = true\n[candles]\nthrottle = 0.01\n"
    async with open_binance() as exchange:
        home = Home(tmp_path, exchange.url, tuple(NAMES.values()), more=faces)
        async with home.living() as life, listener.connected(life):
            await exchange.wait_subscribed(NAMES)
            await listener.joined()
            await publish(exchange, trades[:half])
            await listener.until(by_symbol(trades[:half]))
            await life.kill()  # in the middle: the last commits are not awaited
        await exchange.wait_disconnected()
        await publish(exchange, trades[half:later])
        async with home.living() as life, listener.connected(life):
            await exchange.wait_subscribed(NAMES)
            await publish(exchange, trades[later : later + 500])
            await listener.until(by_symbol(trades[later : later + 500]))
            gaps = [each for each in listener.told if isinstance(each, Gap)]
            assert {each.reason for each in gaps} == {"source_gap"}
            assert listener.missing >= LOST
            # How much the kill has cost is a matter of the disk. Place n is that of the n-th trade.
            first = min(gap.first for each in listener.core.streams.values() for gap in each.gaps)
            await publish(exchange, trades[min(later - REPEATED, first - 1) : later])
            await publish(exchange, trades[later + 500 :])
            await listener.until(whole)
            while listener.missing:
                await listener.news.wait()
            assert any(isinstance(each, Filled) for each in listener.told)
            await life.until_on_disk()
            async with http_client(life.http) as http:
                for symbol, wanted in whole.items():
                    assert listener.log(symbol) == wanted
                    assert await by_export(home, symbol) == wanted
                    assert await by_calls(life, symbol) == wanted
                    assert await by_pages(http, symbol) == wanted
                    assert await by_graphql(http, symbol) == wanted
                    assert await by_stream(http, symbol, "text/csv") == wanted
                    assert await by_stream(http, symbol, "application/x-ndjson") == wanted
                for theirs, symbol in NAMES.items():
                    assert await candles(http, symbol, "1m") == oracle("1m.csv", theirs)
                    assert await candles(http, symbol, "1s") == oracle("1s.csv.gz", theirs)
