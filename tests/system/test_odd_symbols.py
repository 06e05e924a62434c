"""A symbol is a name that users choose: what the configuration takes works everywhere, whatever its characters mean."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from urllib.parse import quote

import trio

from dataflow.client import Trade as Told
from dataflow.client import connect
from dataflow.settings.schema import History
from simulators import Exchange, Trade, open_binance
from tests.support.node import Program, program
from tests.support.waiting import until
from tests.system.daemon import Daemon, client, daemon, from_binance, http_client

SYMBOLS = (
    *('A"B-USDT', "A\\B'-USDT", "%41+*-USDT", "A?B#C-USDT", "A&B=C-<D>", "A,B;C-[{D}]", "..-..", "@-A"),
    *("__PROTO__-USDT", "7-0", "\u65e5\u672c-USDT", "\U0001f600-USDT", "\u00c4" * 59 + "-USDT"),  # 123 bytes
)


async def publish(exchange: Exchange, d: Daemon, number: int) -> None:
    """A trade of each symbol."""
    await d.until_carried(*SYMBOLS)  # the exchange may still know the daemon before
    for symbol in SYMBOLS:
        at = 1_700_000_000_000_000 + number
        await exchange.publish(Trade(number, symbol.replace("-", ""), "buy", "1.5", "2", at))
    await until(lambda: all(d.core.history(symbol).last == number for symbol in SYMBOLS))


async def ask_by_http(d: Daemon) -> None:
    """Each symbol has two trades and a candle, below a path of its own."""
    async with http_client(d.http) as http:
        for symbol in SYMBOLS:
            name = quote(symbol, safe="")
            assert (await http.get(f"/api/v1/symbols/{name}")).json()["symbol"] == symbol
            page = await http.get(f"/api/v1/trades/{name}", params={"limit": 1})
            first = page.json()
            link = page.headers["Link"].partition(">")[0].lstrip("<")
            second = (await http.get(page.url.join(link))).json()
            assert [each["symbol"] for each in (*first["trades"], *second["trades"])] == [symbol, symbol]
            text = (await http.get(f"/api/v1/trades/{name}", headers={"Accept": "text/csv"})).text
            assert [row["symbol"] for row in csv.DictReader(text.splitlines())] == [symbol, symbol]
            [candle] = (await http.get(f"/api/v1/candles/{name}?interval=1m")).json()["candles"]
            assert (candle["symbol"], candle["count"]) == (symbol, 2)
            assert json.dumps(symbol, ensure_ascii=False) in await streamed(
                d, f"{name}?since={first['epoch']}-0"
            )


async def streamed(d: Daemon, what: str) -> str:
    """The first trade of an endless answer."""
    said = b""
    async with await trio.open_tcp_stream("127.0.0.1", int(d.http.rpartition(":")[2])) as socket:
        await socket.send_all(f"GET /api/v1/stream/{what} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        while b"tradeId" not in said:
            said += await socket.receive_some()
    return said.decode()


async def in_javascript(user: Program, count: int) -> None:
    """It is told so many trades of each symbol."""
    counted: Counter[str] = Counter()
    while any(counted[symbol] < count for symbol in SYMBOLS):
        told = await user.hear()
        if told["name"] == "all":
            assert told["event"]["type"] == "trade"
            counted[told["event"]["symbol"]] += 1


async def test_every_name_works_everywhere(tmp_path: Path) -> None:
    """In calls and arrays, alone and among all, in both clients, in paths and their queries, as text and on disk."""
    history = History(directory=str(tmp_path), min_free_bytes=0)
    async with open_binance() as exchange:
        sources = from_binance(exchange.url, *SYMBOLS, eager=True)
        async with daemon(sources=sources, history=history) as d:
            await publish(exchange, d, 1)
        async with (
            daemon(sources=sources, history=history) as d,
            client(d.url) as c,
            connect(d.http) as feed,
            program("client.mjs", d.http) as user,
        ):
            await user.tell({"do": "trades", "name": "all", "symbols": "*", "options": {"snapshot": 5}})
            counted: Counter[str] = Counter()
            trades = feed.trades("*", snapshot=5)
            for form in ("json", "compact"):
                for symbol in SYMBOLS:
                    answer = await c.call("subscribe", symbol=symbol, snapshot=5, format=form)
                    assert (answer["symbol"], len(answer["trades"])) == (symbol, 1)
            await publish(exchange, d, 2)
            await c.until(lambda: len(c.rows) == len(SYMBOLS))
            while counted.total() < 2 * len(SYMBOLS):
                event = await anext(trades)
                assert isinstance(event, Told)
                counted[event.symbol] += 1
            assert counted == dict.fromkeys(SYMBOLS, 2)
            assert feed.positions.keys() == set(SYMBOLS)
            await in_javascript(user, 2)
            await ask_by_http(d)
            positions = json.loads(json.dumps(feed.positions))
            async with connect(d.http) as later:
                resumed = later.trades("*", since=positions)
                await publish(exchange, d, 3)
                for _ in SYMBOLS:
                    event = await anext(resumed)
                    assert isinstance(event, Told)
                    assert event.offset == 3
