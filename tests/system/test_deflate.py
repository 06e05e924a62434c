"""Clients that offer permessage-deflate, of several makers: they get what all others get, in an eighth of the bytes."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import trio
from attrs import define
from playwright.sync_api import Page
from websockets.sync.client import connect
from wsproto.events import CloseConnection, TextMessage

from actors.outbox import SlowClient
from dataflow.domain.topic import Topic
from dataflow.faces import graphql
from dataflow.net.websocket import deflate
from dataflow.settings.schema import FanOut, Gateway, Session
from simulators import Exchange, Trade, open_binance
from tests.dataflow.server.wires_client import Client, open_client
from tests.support import node
from tests.support.browser import Heard, browse
from tests.support.waiting import until
from tests.system.daemon import Daemon, client, daemon, from_binance, http_client

SYMBOL = "BTC-USDT"
TOPIC = Topic("trades", SYMBOL)
PAST, LIVE = 1200, 600  # trades before the clients come, and while they are there
LAST = PAST + LIVE
ALL = [(n, str(n)) for n in range(1, LAST + 1)]
AT_LEAST = 200  # bytes of an update in an answer, uncompressed
NEVER = 86_400.0  # seconds

Follow: TypeAlias = Callable[[int, int], Awaitable[tuple[list[tuple[int, str]], int]]]


@define
class Stage:
    """A daemon with `PAST` trades. Its updates come in runs."""

    exchange: Exchange
    daemon: Daemon

    async def publish(self, first: int, last: int) -> None:
        """Trades `first` to `last`."""
        await self.exchange.publish_all(
            Trade(
                id=n,
                symbol="BTCUSDT",
                side=("buy", "sell")[n % 3 == 0],
                price=f"6{n % 997:04}.{n % 89:02}",
                qty=f"0.{n * 7919 % 100_000:05}",
                timestamp_us=1_700_000_000_000_000 + n * 1700,
            )
            for n in range(first, last + 1)
        )

    def since(self, offset: int) -> dict[str, int]:
        """A position."""
        return {"epoch": self.daemon.core.history(SYMBOL).epoch, "offset": offset}

    async def publish_before(self, followers: int) -> None:
        """The live trades, once so many follow."""
        await until(lambda: self.daemon.core.topics.subscribers.get(TOPIC) == followers)
        await self.publish(PAST + 1, LAST)

    async def check(self, *followers: Follow) -> None:
        """Each follower comes, sees the live trades, goes in their midst and comes back with its place."""
        seen: dict[Follow, list[tuple[int, str]]] = {}
        bytes_: dict[Follow, int] = {}
        half = PAST + LIVE // 2

        async def live(follow: Follow) -> None:
            first, taken = await follow(0, half)
            at = first[-1][0]
            rest, more = await follow(at, LAST)
            seen[follow], bytes_[follow] = first + rest, taken + more

        async with trio.open_nursery() as nursery:
            for follow in followers:
                nursery.start_soon(live, follow)
            await self.publish_before(len(followers))
        for follow in followers:
            assert seen[follow] == ALL
            assert bytes_[follow] * 3 < LAST * AT_LEAST


@asynccontextmanager
async def stage(**tables: Any) -> AsyncIterator[Stage]:
    # Many leave together, and no ping comes, however slow the machine is: `by_wsproto` knows none.
    tables = {"fanout": FanOut(interval=0.2), "session": Session(ping_interval=NEVER), **tables}
    with trio.fail_after(60):
        async with (
            open_binance() as exchange,
            daemon(sources=from_binance(exchange.url, SYMBOL, eager=True), **tables) as d,
        ):
            made = Stage(exchange, d)
            await exchange.wait_subscribed(["BTCUSDT"])
            await made.publish(1, PAST)
            await until(lambda: d.core.history(SYMBOL).last == PAST)
            yield made


@asynccontextmanager
async def by_wsproto(
    d: Daemon, path: str = "/ws", protocol: str = "", receive_buffer: int | None = None
) -> AsyncIterator[Client]:
    """A client that compresses all it says, and reads only when it is told."""
    headers = [b"Sec-WebSocket-Protocol: " + protocol.encode()] if protocol else []
    made = await open_client(d.lobby.port, path, *headers, deflate=True, receive_buffer=receive_buffer)
    try:
        yield made
    finally:
        made.vanish()


def subscribe(since: dict[str, int]) -> str:
    params = {"channel": "trades", "symbol": SYMBOL, "since": since}
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": "subscribe", "params": params})


def trades_in(text: str | bytes) -> list[tuple[int, str]]:
    """The trades of a message: an answer or an update."""
    message = json.loads(text)
    if "result" in message:
        assert message["result"]["recovered"] is True
        return [(trade["offset"], trade["tradeId"]) for trade in message["result"]["trades"]]
    assert message["method"] == "trades.update", message
    return [(message["params"]["offset"], message["params"]["tradeId"])]


async def metric(d: Daemon, name: str) -> float:
    async with http_client(d.http) as http:
        found = re.search(rf"^{re.escape(name)} (\S+)$", (await http.get("/metrics")).text, re.MULTILINE)
    assert found is not None
    return float(found[1])


async def test_clients_in_python_and_node_get_every_trade_once() -> None:
    """`websockets`, wsproto and `ws` for Node, at the same time: a long past in pieces, live runs, and a
    return in their midst. A third of the bytes at most, however few leave together."""
    await trio.to_thread.run_sync(node.install)  # it may take longer than the stage stands
    async with stage() as s:
        before = await metric(s.daemon, 'dataflow_deflate_bytes_total{side="before"}')

        async def websockets(since: int, last: int) -> tuple[list[tuple[int, str]], int]:
            position = s.since(since)

            def run() -> tuple[list[tuple[int, str]], int]:
                got: list[tuple[int, str]] = []
                # With a bound it would leave what it has not read, and wait 10 s for the answer to its goodbye.
                with connect(s.daemon.url, max_size=1 << 26, max_queue=None, open_timeout=None) as ws:
                    assert [each.name for each in ws.protocol.extensions] == ["permessage-deflate"]
                    ws.send(subscribe(position))
                    while not got or got[-1][0] < last:
                        got += trades_in(ws.recv(timeout=30))
                return got, 0  # it does not count

            return await trio.to_thread.run_sync(run)

        async def wsproto(since: int, last: int) -> tuple[list[tuple[int, str]], int]:
            async with by_wsproto(s.daemon) as ws:
                await ws.say(subscribe(s.since(since)))
                got: list[tuple[int, str]] = []
                while not got or got[-1][0] < last:
                    got += trades_in(await ws.text())
                return got, ws.received

        async with node.program("deflate.mjs", s.daemon.url) as program:

            async def by_node(since: int, last: int) -> tuple[list[tuple[int, str]], int]:
                await program.tell({"symbol": SYMBOL, "since": s.since(since), "until": last})
                told = await program.hear()
                assert told["extensions"] == "permessage-deflate"
                return [(offset, id) for offset, id in told["trades"]], told["bytes"]

            await s.check(websockets, wsproto, by_node)
        after = await metric(s.daemon, 'dataflow_deflate_bytes_total{side="before"}')
        assert after > before


_IN_THE_PAGE = """([url, text, last]) => new Promise((done) => {
  const socket = new WebSocket(url), trades = [];
  const take = ({offset, tradeId}) => trades.push([offset, tradeId]);
  socket.onopen = () => socket.send(text);
  socket.onmessage = ({data}) => {
    const {result, params} = JSON.parse(data);
    if (result) result.trades.forEach(take); else take(params);
    if (trades.length > 0 && trades.at(-1)[0] >= last) {
      done([socket.extensions, trades]);
      socket.close();
    }
  };
})"""


async def test_a_browser_gets_every_trade_once() -> None:
    """Chromium, which offers compression and compresses all that it says."""
    async with stage() as s:
        lives = [s.since(0), s.since(PAST + 50)]

        def visit(page: Page, _heard: Heard) -> list[Any]:
            page.goto(f"{s.daemon.http}/health")
            return [page.evaluate(_IN_THE_PAGE, [s.daemon.url, subscribe(each), LAST]) for each in lives]

        async with trio.open_nursery() as nursery:
            nursery.start_soon(s.publish_before, 1)
            told = await browse(visit, bypass_csp=True)
        for since, (extensions, trades) in zip(lives, told, strict=True):
            assert extensions.startswith("permessage-deflate")
            assert [(offset, id) for offset, id in trades] == ALL[since["offset"] :]


async def test_a_slow_reader_is_told_what_it_missed() -> None:
    """Whole payloads and parts of them are dropped: what it gets and its gaps are all places, each once."""
    session = Session(outbox=300, slow_client=SlowClient.DROP_OLDEST, ping_interval=NEVER)
    last = PAST + 6_000
    async with stage(session=session) as s, by_wsproto(s.daemon, receive_buffer=4096) as slow:
        await until(lambda: len(s.daemon.lobby.clients))  # the answer to its handshake came before
        [served] = s.daemon.lobby.clients
        served._wire._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        await slow.say(subscribe(s.since(PAST)))
        assert trades_in(await slow.text()) == []
        await s.publish(PAST + 1, last)
        await until(lambda: served.dropped > 0)  # it reads nothing until it has missed something
        told = list[int]()
        while not told or told[-1] < last:
            message = json.loads(await slow.text())
            if message["method"] == "stream.gap":
                assert message["params"]["reason"] == "slow_client"
                told += range(message["params"]["from"], message["params"]["to"] + 1)
            else:
                [(offset, id)] = trades_in(json.dumps(message))
                assert id == str(offset)
                told.append(offset)
        assert told == list(range(PAST + 1, last + 1))


async def test_what_is_made_for_one_client_is_not_compressed() -> None:
    """Messages with a client's own id, as GraphQL has them: compression would cost each client anew."""
    request = {"query": f'subscription {{ trades(symbol: "{SYMBOL}") {{ tradeId offset }} }}'}
    faces = {"graphql": graphql.Settings(enabled=True)}
    async with (
        stage(faces=faces) as s,
        by_wsproto(s.daemon, path="/graphql", protocol="graphql-transport-ws") as ws,
    ):
        before = deflate.totals()
        await ws.say('{"type":"connection_init"}')
        assert "connection_ack" in await ws.text()
        await ws.say(json.dumps({"id": "1", "type": "subscribe", "payload": request}))
        await s.publish_before(1)
        told = [json.loads(await ws.text())["payload"]["data"]["trades"] for _ in range(LIVE)]
        assert [(trade["offset"], trade["tradeId"]) for trade in told] == ALL[PAST:]
        assert deflate.totals() == before


async def test_a_bomb_hurts_nobody_else() -> None:
    """A request that becomes more than a message may have: 1009 for that client. Others go on."""
    async with stage() as s, client(s.daemon.url) as other, by_wsproto(s.daemon) as bomber:
        await other.call("subscribe", symbol=SYMBOL)
        await bomber.send(TextMessage(data=" " * (1 << 24)))
        while not isinstance(event := await bomber.event(), CloseConnection):
            assert event is not None
        assert (event.code, event.reason) == (1009, "a message may have 65536 bytes")
        await s.publish(PAST + 1, LAST)
        await other.until(lambda: other.traded[SYMBOL] == LIVE)


async def test_it_can_be_switched_off() -> None:
    """`[gateway] deflate = false`: nothing is agreed on, whatever a client offers."""
    async with stage(gateway=Gateway(port=0, deflate=False)) as s:

        def offer() -> Any:
            with connect(s.daemon.url, open_timeout=None) as ws:
                return ws.protocol.extensions

        assert await trio.to_thread.run_sync(offer) == []
