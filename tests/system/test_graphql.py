"""GraphQL over the real daemon, with the client libraries of others: gql, graphql-ws, and graphql-http's audits."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import gql
import pytest
import trio
from attrs import define, evolve, field
from gql.transport.httpx import HTTPXAsyncTransport
from gql.transport.websockets import WebsocketsTransport
from playwright.sync_api import Page
from trio.testing import MockClock
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from actors import session as actors_session
from actors.outbox import SlowClient
from dataflow.cache.archive import Places
from dataflow.domain import Topic
from dataflow.domain.topic import DAYS, TRADES
from dataflow.faces.graphql import Settings
from dataflow.faces.graphql.conversation import Operations
from dataflow.faces.graphql.selections import RESULTS, Selection
from dataflow.faces.graphql.transport_ws import SUBPROTOCOL
from dataflow.settings.schema import Admission, Cache, FanOut, History, Limits, Session
from simulators import Trade
from tests.support import node
from tests.support.browser import Heard, browse, in_the_test
from tests.support.memory_archive import MemoryArchive
from tests.support.waiting import until
from tests.system import test_sse
from tests.system.daemon import client, from_binance, http_client
from tests.system.test_sse import SYMBOL, TOPIC, Stage

PATH = "/graphql"
BAR = "marketData(symbol: $s) {symbol open high low close volume timestamp}"
TICKS = "subscription($s: String!) {trades(symbol: $s) {price qty side tradeId timestamp time offset source symbol}}"

IDS = [f"id{n}" for n in range(20)]
LONG = " ".join(f"{'x' * 15}{n}: timestamp" for n in range(49))  # of an event of 2 KB


@asynccontextmanager
async def stage(graphql: Settings | None = None, **tables: Any) -> AsyncIterator[Stage]:
    face = graphql or Settings(enabled=True)
    async with test_sse.stage(faces={"graphql": face}, **tables) as s:
        yield s


def url(s: Stage) -> str:
    return s.daemon.http + PATH


def bar(count: int) -> dict[str, Any]:
    """The bar of the day behind so many trades of the stage."""
    price = Decimal("2.50000000")
    told = {"symbol": SYMBOL, **dict.fromkeys(("open", "high", "low", "close"), price)}
    volume = Decimal("0.5") * count
    return told | {"volume": f"{volume:f}".removesuffix(".0"), "timestamp": "1700000000000"}


def listeners(s: Stage, channel: str = TRADES, symbol: str = SYMBOL) -> int:
    return s.daemon.core.topics.subscribers.get(Topic(channel, symbol), 0)


@define
class Talk:
    """A client that says exactly what a test wants, and keeps what it hears."""

    socket: WebSocketConnection
    heard: list[Any] = field(factory=list)
    closed: tuple[int, str] | None = None
    reads: trio.Event = field(factory=trio.Event)  # not set: it does not read

    async def say(self, message: Any) -> None:
        await self.socket.send_message(message if isinstance(message, str | bytes) else json.dumps(message))

    async def subscribe(self, id: str, query: str, **variables: Any) -> None:
        await self.say({"id": id, "type": "subscribe", "payload": {"query": query, "variables": variables}})

    async def until_done(self) -> None:
        """Returns when the daemon has done all that was said: it answers in order."""
        pong = {"type": "pong", "payload": {"said": "all"}}
        await self.say(pong | {"type": "ping"})
        await until(lambda: pong in self.heard)
        self.heard.remove(pong)

    async def listen(self) -> None:
        try:
            while True:
                await self.reads.wait()
                self.heard.append(json.loads(await self.socket.get_message(), parse_float=Decimal))
        except ConnectionClosed as error:
            reason = error.reason
            self.closed = (reason.code, reason.reason or "") if reason else (1006, "")

    def of(self, id: str) -> list[Any]:
        """The payloads of the results of an operation."""
        return [m["payload"] for m in self.heard if m.get("id") == id and m["type"] == "next"]

    def offsets(self, id: str) -> list[int]:
        return [each["data"]["trades"]["offset"] for each in self.of(id) if each["data"]]


@asynccontextmanager
async def talk(
    s: Stage, *, subprotocols: Sequence[str] = (SUBPROTOCOL,), init: bool = True
) -> AsyncIterator[Talk]:
    address = s.daemon.http.removeprefix("http://")
    host, _, port = address.partition(":")
    stream = await trio.open_tcp_stream(host, int(port))
    async with stream, trio.open_nursery() as nursery:
        socket = await wrap_client_stream(nursery, stream, address, PATH, subprotocols=list(subprotocols))
        made = Talk(socket)
        made.reads.set()
        nursery.start_soon(made.listen)
        if init:
            await made.say({"type": "connection_init"})
            await until(lambda: made.heard)
            assert made.heard.pop() == {"type": "connection_ack"}
        yield made
        nursery.cancel_scope.cancel()


# Queries.


async def test_the_audits_of_graphql_http() -> None:
    """All of them, also those that the specification only recommends."""
    async with stage() as s, node.program("graphql_audits.mjs", url(s)) as audits:
        told = await audits.hear_until(lambda line: line is None)
        assert len(told) == 62
        assert [audit for audit in told[:-1] if audit["status"] != "ok"] == []


async def test_a_query_answers_with_the_bar_of_the_day() -> None:
    """Exact values, the name in any spelling, and null for what there is not."""
    async with stage() as s, http_client(s.daemon.http) as http:
        await s.publish(3)
        for name in (SYMBOL, " btc-usdt ", "BTCUSDT", "btcusdt"):
            told = await http.post(
                PATH, json={"query": f"query($s: String!) {{{BAR}}}", "variables": {"s": name}}
            )
            assert told.headers["content-type"] == "application/json; charset=utf-8"
            assert json.loads(told.text, parse_float=Decimal) == {"data": {"marketData": bar(3)}}
        for name in ("ETH-USDT", "AAPL", "", "a/b", "x" * 1000):
            told = await http.get(
                PATH,
                params={
                    "query": "query($s:String!){marketData(symbol:$s){close}}",
                    "variables": json.dumps({"s": name}),
                },
            )
            assert (told.status_code, told.json()) == (200, {"data": {"marketData": None}})


async def test_gql_over_http() -> None:
    """Python's client, whose schema check is the introspection of the daemon."""
    async with stage() as s:
        await s.publish(2)

        async def ask() -> Any:
            transport = HTTPXAsyncTransport(url(s), timeout=None)
            patient = gql.Client(transport=transport, fetch_schema_from_transport=True, execute_timeout=None)
            async with patient as session:
                request = gql.gql(f"query($s: String!) {{{BAR}}}")
                request.variable_values = {"s": "btcusdt"}
                return await session.execute(request)

        told = await trio.to_thread.run_sync(lambda: asyncio.run(ask()))
        assert told == {"marketData": json.loads(json.dumps(bar(2), default=float))}


async def test_what_is_not_served() -> None:
    """Other methods, bodies that are too long, a page that nobody asked for: each with its own status."""
    async with (
        stage(Settings(enabled=True, graphiql=False, path="/api/graphql")) as s,
        http_client(s.daemon.http) as http,
    ):
        assert (await http.get("/graphiql")).status_code == 404
        assert (await http.get(PATH)).status_code == 404
        path = "/api" + PATH
        browser = await http.get(path, headers={"Accept": "text/html,*/*;q=0.8"})
        assert (browser.status_code, browser.json()["errors"][0]["message"][:7]) == (400, "'query'")
        refused = await http.put(path)
        assert refused.status_code == 405
        assert {"GET", "POST"} <= set(refused.headers["allow"].split(", "))
        long = await http.post(path, content=b"x" * 65_537, headers={"Content-Type": "application/json"})
        assert (long.status_code, long.json()) == (
            413,
            {"errors": [{"message": "A request has at most 65536 bytes."}]},
        )
        form = await http.post(path, data={"query": "{__typename}"})
        assert (form.status_code, form.headers["accept"]) == (415, "application/json")
        none = await http.post(path, json={"query": "{__typename}"}, headers={"Accept": "image/png"})
        assert none.status_code == 406
        told = await http.post(path, json={"query": TICKS, "variables": {"s": SYMBOL}})
        assert told.json() == {
            "errors": [{"message": "A subscription needs a WebSocket: graphql-transport-ws."}]
        }
        assert s.daemon.crashes() == []


async def test_without_the_face_there_is_nothing() -> None:
    """Off, as it is by default: 404 for HTTP and for WebSockets."""
    async with test_sse.stage() as s, http_client(s.daemon.http) as http:
        for path in (PATH, "/graphiql", "/graphiql/page.js"):
            assert (await http.get(path)).status_code == 404
        upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
        key = {"Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Protocol": SUBPROTOCOL}
        assert (await http.get(PATH, headers={**upgrade, **key})).status_code == 404


# Queries for trades and candles of any time.

PAGE = """query($s: String!, $from: String, $to: String, $after: String, $limit: Int! = 100) {
  page: trades(symbol: $s, from: $from, to: $to, after: $after, limit: $limit) {
    symbol epoch next rewound __typename gaps {from to reason}
    trades {at: offset price qty side tradeId timestamp time source symbol __typename}
  }
}"""
CANDLES = """query($s: String!, $interval: String! = "1s") {
  candles(symbol: $s, interval: $interval) {next candles {
    symbol interval start open high low close volume quoteVolume buyVolume count rev closed complete firstOffset
    lastOffset gaps {from to reason}
  }}
}"""


async def asked(stage: Stage, query: str, /, **variables: Any) -> Any:
    async with http_client(stage.daemon.http) as http:
        told = await http.post(PATH, json={"query": query, "variables": {"s": "btcusdt"} | variables})
        return json.loads(told.text, parse_float=Decimal)


def traded(n: int) -> dict[str, Any]:
    """The trade at this place of the stage, as a query shows it."""
    told = {"at": n, "price": Decimal("2.50000000"), "qty": Decimal("0.50000000"), "side": "sell"}
    more = {"tradeId": str(n), "timestamp": "1700000000000", "time": "2023-11-14T22:13:20.000000Z"}
    return told | more | {"source": "binance", "symbol": SYMBOL, "__typename": "Trade"}


async def test_trades_of_any_time_page_by_page(tmp_path: Path) -> None:
    """From memory and disk alike, with the gaps among them, digit by digit: each page goes on behind the last one."""
    few = {"history": History(directory=str(tmp_path)), "cache": Cache(trades_per_symbol=10)}
    async with stage(**few) as s:
        for _ in range(4):
            await s.publish(5)
            await until(lambda: s.daemon.core.recording.is_complete)
        s.published += 2
        await s.publish(3)
        places, gaps, after = [], [], None
        for _ in range(4):
            told = await asked(s, PAGE, after=after, limit=7)
            page = told["data"]["page"]
            places += page["trades"]
            gaps += page["gaps"]
            after = page["next"]
            assert page | {"trades": [], "gaps": []} == {
                "symbol": SYMBOL,
                "epoch": str(s.daemon.core.epoch),
                "next": after,
                "rewound": None,
                "__typename": "Trades",
                "trades": [],
                "gaps": [],
            }
        assert places == [traded(n) for n in (*range(1, 21), *range(23, 26))]
        assert gaps == [{"from": 21, "to": 22, "reason": "source_gap"}]
        assert after == f"{s.daemon.core.epoch}:25"
        times = {"from": "2023-11-14T22:13:20Z", "to": "2023-11-14T22:13:20.000001Z"}
        page = (await asked(s, PAGE, **times))["data"]["page"]
        assert ([each["at"] for each in page["trades"]], page["next"]) == ([*range(1, 21), 23, 24, 25], None)
        unknown = (await asked(s, PAGE, after="1:1", limit=1))["data"]["page"]
        assert unknown["gaps"] == [{"from": 0, "to": None, "reason": "overrun"}]


async def test_candles_of_any_time() -> None:
    """The same as in the other protocols; sums are text, as the volume of the day is."""
    async with stage() as s:
        await s.publish(4)
        (page,) = (await asked(s, CANDLES))["data"].values()
        (candle,) = page["candles"]
        price = dict.fromkeys(("open", "high", "low", "close"), Decimal("2.50000000"))
        about = {"symbol": SYMBOL, "interval": "1s", "start": "2023-11-14T22:13:20.000000Z", "count": 4}
        sums = {"volume": "2", "quoteVolume": "5", "buyVolume": "0"}
        more = {"complete": True, "gaps": [], "firstOffset": 1, "lastOffset": 4}
        assert candle == price | about | sums | more | {"rev": candle["rev"], "closed": candle["closed"]}


@pytest.mark.parametrize(
    ("query", "variables", "words", "told"),
    [
        (PAGE, {"s": "BTC-USDX"}, "symbol: unknown symbol", {"value": "BTC-USDX"}),
        (PAGE, {"s": "a/b"}, "symbol: must be", {"param": "symbol"}),
        (PAGE, {"from": "today"}, "from: ", {"param": "from"}),
        (PAGE, {"after": "7"}, "after: must be EPOCH:OFFSET", {"value": "7"}),
        (PAGE, {"limit": 0}, "limit: ", {"param": "limit"}),
        (PAGE, {"limit": 1001}, "limit: at most 1,000 entries in a document", {"value": 1001}),
        (CANDLES, {"interval": "7m"}, "interval: unknown interval", {"value": "7m"}),
        (
            "query($s: String!) {candles(symbol: $s) {candles {"
            + " ".join(f"a{n}: open" for n in range(51))
            + "}}}",
            {},
            "fields: at most 50 fields",
            {"value": 51},
        ),
    ],
)
async def test_pages_that_cannot_be_had(
    query: str, variables: dict[str, Any], words: str, told: dict[str, Any]
) -> None:
    """An error at the place of the page, in the words of the other protocols; what is beside it is answered."""
    async with stage() as s:
        await s.publish(1)
        beside = query.rstrip()[:-1] + ' marketData(symbol: "BTCUSDT") {close}}'
        answer = await asked(s, beside, **variables)
        (error,) = answer["errors"]
        ((key, page), day) = answer["data"].items()
        assert page is None
        assert day == ("marketData", {"close": Decimal("2.50000000")})
        assert error["path"] == [key]
        assert error["message"].startswith(words)
        assert error["extensions"].items() >= {"code": "InvalidValue", **told}.items()


async def test_the_pages_of_a_document_share_a_bound() -> None:
    """However they are called, a document has a thousand entries at most."""
    async with stage() as s:
        await s.publish(2)
        each = "trades(symbol: $s, limit: 400) {trades {offset}}"
        answer = await asked(s, f"query($s: String!) {{a: {each} b: {each} c: {each}}}")
        page = {"trades": [{"offset": 1}, {"offset": 2}]}
        assert answer["data"] == {"a": page, "b": page, "c": None}
        assert [error["path"] for error in answer["errors"]] == [["c"]]


class Stuck(MemoryArchive):
    """A disk that is read when it is told to be."""

    def __init__(self) -> None:
        super().__init__()
        self.may_read = threading.Event()

    def behind(self, symbol: str, after: int, limit: int) -> Places:
        self.may_read.wait()
        return super().behind(symbol, after, limit)


async def test_a_page_that_waits_for_the_disk_holds_up_nobody() -> None:
    """Over WebSocket, too: the client gets it behind what it follows, and others have their turns meanwhile."""
    archive = Stuck()
    few = {"archive": archive, "cache": Cache(trades_per_symbol=10), "admission": Admission(at_once=1)}
    async with stage(**few) as s, talk(s) as c, talk(s) as other:
        for _ in range(4):
            await s.publish(5)
            await until(lambda: s.daemon.core.recording.is_complete)
        await c.subscribe("page", PAGE, s=SYMBOL)
        await other.subscribe("day", f"query($s: String!) {{{BAR}}}", s=SYMBOL)
        await until(lambda: other.of("day"))
        assert c.heard == []
        archive.may_read.set()
        await until(lambda: len(c.heard) == 2)
        (page,) = c.of("page")
        assert [each["at"] for each in page["data"]["page"]["trades"]] == list(range(1, 21))
        assert c.heard[-1] == {"id": "page", "type": "complete"}


# Subscriptions.


async def test_gql_over_websockets() -> None:
    """Python's client gets every trade, in order, with exact values."""
    async with stage() as s:
        got: list[dict[str, Any]] = []

        async def follow() -> None:
            transport = WebsocketsTransport(
                url(s).replace("http", "ws"),
                subprotocols=[SUBPROTOCOL],
                connect_timeout=None,
                ack_timeout=None,
            )
            async with gql.Client(transport=transport) as session:
                request = gql.gql(TICKS)
                request.variable_values = {"s": "btc-usdt"}
                async for told in session.subscribe(request):
                    got.append(told["trades"])
                    if len(got) == 5:
                        return

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, lambda: asyncio.run(follow()))
            await until(lambda: listeners(s) == 1)
            await s.publish(5)
        assert got == [
            {
                "price": 2.5,
                "qty": 0.5,
                "side": "sell",
                "tradeId": str(n),
                "timestamp": "1700000000000",
                "time": "2023-11-14T22:13:20.000000Z",
                "offset": n,
                "source": "binance",
                "symbol": SYMBOL,
            }
            for n in range(1, 6)
        ]
        await until(lambda: listeners(s) == 0)


async def test_graphql_ws_with_several_operations_on_one_connection() -> None:
    """Each gets its own events, with its own selection; a gap is an event with an error; one that stops stops alone."""
    async with stage() as s, node.program("graphql_ws.mjs", url(s).replace("http", "ws")) as js:
        await s.publish(1)

        async def subscribe(id: str, query: str, **variables: Any) -> None:
            await js.tell(
                {"do": "subscribe", "client": "c", "id": id, "query": query, "variables": variables}
            )

        await subscribe("a", 'subscription {trades(symbol: "btcusdt") {offset}}')
        await subscribe(
            "b", "subscription($s: String!) {t: trades(symbol: $s) {at: offset, __typename}}", s=SYMBOL
        )
        await subscribe("day", f"subscription($s: String!) {{{BAR}}}", s=SYMBOL)
        await subscribe("q", f"query($s: String!) {{{BAR}}}", s=SYMBOL)
        await subscribe("bad", 'subscription {trades(symbol: "a/b") {offset}}')
        await subscribe("worse", "subscription {nothing}")
        awaited = {
            ("q", "complete"),
            ("worse", "error"),
        }  # the library tells an end a moment later than an error
        heard = await js.hear_until(
            lambda event: awaited.discard((event.get("id"), [*event][-1])) or not awaited
        )
        result = {"data": {"marketData": json.loads(json.dumps(bar(1), default=float))}}
        assert heard[0] == {"client": "c", "event": "connected"}
        assert [e for e in heard if e.get("id") == "day"] == [{"client": "c", "id": "day", "next": result}]
        assert [e for e in heard if e.get("id") == "q"] == [
            {"client": "c", "id": "q", "next": result},
            {"client": "c", "id": "q", "complete": True},
        ]
        (bad,) = [e["error"] for e in heard if e.get("id") == "bad"]
        assert bad[0]["message"].startswith("symbol: must be")
        assert bad[0]["extensions"]["value"] == "a/b".upper() or bad[0]["extensions"]["value"] == "a/b"
        (worse,) = [e["error"] for e in heard if e.get("id") == "worse"]
        assert worse[0]["message"].startswith("Cannot query field 'nothing'")

        s.published += 2
        await s.publish(1)
        heard = await js.hear_until(lambda event: event.get("id") == "b" and event["next"].get("data"))
        missing = {"code": "GAP", "from": 2, "to": 3, "reason": "source_gap"}
        for id, data in (("a", {"trades": {"offset": 4}}), ("b", {"t": {"at": 4, "__typename": "Trade"}})):
            gap, trade = [e["next"] for e in heard if e.get("id") == id]
            assert (gap["data"], gap["errors"][0]["extensions"]) == (None, missing)
            assert trade == {"data": data}

        await js.tell({"do": "stop", "id": "a"})
        await js.hear_until(lambda event: event == {"client": "c", "id": "a", "complete": True})
        await s.publish(1)
        heard = await js.hear_until(lambda event: event.get("id") == "b")
        assert [e for e in heard if e.get("id") == "a"] == []
        assert len(s.daemon.lobby.clients) == 1
        await js.tell({"do": "dispose", "client": "c"})
        await until(lambda: len(s.daemon.lobby.clients) == 0)


async def test_graphql_ws_comes_back_after_a_stop_of_the_server() -> None:
    """It is told 1001, which is no reason to give up: the same operations go on over a new connection."""
    async with stage() as s, node.program("graphql_ws.mjs", url(s).replace("http", "ws")) as js:
        await js.tell(
            {"do": "subscribe", "client": "c", "id": "a", "query": TICKS, "variables": {"s": SYMBOL}}
        )
        await until(lambda: listeners(s) == 1)
        await s.publish(1)
        await js.hear_until(lambda event: event.get("id") == "a")
        await s.daemon.root.supervisor("gateway").restart("sessions")
        heard = await js.hear_until(lambda event: event.get("event") == "connected")
        assert heard[0]["event"] == "closed"
        assert (heard[0]["code"], heard[0]["reason"]) == (1001, "server going away")
        await until(lambda: listeners(s) == 1)
        await s.publish(1)
        assert (await js.hear())["next"]["data"]["trades"]["offset"] == 2


async def test_a_state_comes_first_and_never_twice() -> None:
    """Joining in the middle of a burst, over and over: states only grow, and the last one is the bar of all trades.

    A further operation of the same client begins with the present state, too, and disturbs the first one in nothing.
    """
    query = 'subscription {marketData(symbol: "BTCUSDT") {volume}}'
    pauses = FanOut(
        interval=0.2
    )  # between two passes: an operation that comes meanwhile finds much undelivered
    async with stage(fanout=pauses) as s, talk(s) as c:
        await s.publish(1)
        ids = [f"op{n}" for n in range(6)]
        for id in ids:
            await s.publish(10)
            await c.subscribe(id, query)
            await until(lambda id=id: c.of(id))
        await s.publish(10)
        await until(lambda: all(volumes(c, id)[-1:] == [s.published * 0.5] for id in ids))
        for id in ids:
            assert all(later > former for former, later in pairwise(volumes(c, id))), volumes(c, id)
        assert len(c.of(ids[0])) > len(c.of(ids[-1]))


def volumes(c: Talk, id: str) -> list[float]:
    return [float(each["data"]["marketData"]["volume"]) for each in c.of(id)]


async def test_a_trade_is_written_once_for_all_who_want_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many clients follow, and whatever their ids are."""
    written: list[int] = []
    result = Selection.result

    def counted(self: Selection, value: Any) -> bytes:
        written.append(value.offset)
        return result(self, value)

    monkeypatch.setattr(Selection, "result", counted)
    async with stage() as s, AsyncExitStack() as several:
        talks = [await several.enter_async_context(talk(s)) for _ in range(5)]
        for number, each in enumerate(talks):
            await each.subscribe(f"id{number}", 'subscription {trades(symbol: "BTCUSDT") {offset price}}')
        await until(lambda: listeners(s) == 5)
        await s.publish(20)
        await until(lambda: all(len(each.offsets(f"id{n}")) == 20 for n, each in enumerate(talks)))
        assert written == list(range(1, 21))


async def test_a_symbol_that_does_not_exist_may_come() -> None:
    """Both subscriptions stay open, and get everything of it from its first trade on. Afterwards nothing is left."""
    async with stage() as s, talk(s) as c:
        await c.subscribe("t", 'subscription {trades(symbol: "sol-usdt") {offset price}}')
        await c.subscribe("d", 'subscription {marketData(symbol: "SOL-USDT") {symbol close}}')
        await until(lambda: listeners(s, DAYS, "SOL-USDT") == listeners(s, TRADES, "SOL-USDT") == 1)
        assert c.heard == []
        settings = from_binance(s.exchange.url, SYMBOL, "SOL-USDT", eager=True)
        await s.daemon.reload(evolve(s.daemon.hall.settings, sources=settings))
        await s.daemon.until_carried("SOL-USDT")
        for n in (1, 2):
            await s.exchange.publish(
                Trade(
                    id=n,
                    symbol="SOLUSDT",
                    side="buy",
                    price="7.5",
                    qty="1",
                    timestamp_us=1_700_000_000_000_000 + n,
                )
            )
        await until(lambda: len(c.offsets("t")) == 2 and c.of("d"))
        assert c.offsets("t") == [1, 2]
        assert c.of("d")[-1] == {"data": {"marketData": {"symbol": "SOL-USDT", "close": Decimal("7.5")}}}


# The connection.

INIT = {"type": "connection_init"}
ASK = {
    "id": "a",
    "type": "subscribe",
    "payload": {"query": 'subscription {trades(symbol: "BTCUSDT") {offset}}'},
}


@pytest.fixture
async def s() -> AsyncIterator[Stage]:
    async with stage() as made:
        yield made


@pytest.mark.parametrize(
    ("messages", "code", "words"),
    [
        (["{"], 4400, "Invalid message"),
        ([INIT, {"type": "start"}], 4400, "Invalid message"),
        ([INIT, {"id": "a", "type": "subscribe", "payload": {}}], 4400, "Invalid message"),
        (["[" * 60_000], 4400, "Invalid message"),
        ([ASK], 4401, "Unauthorized"),
        ([INIT, ASK, ASK], 4409, "Subscriber for a already exists"),
        ([INIT, INIT], 4429, "Too many initialisation requests"),
        ([b"\x00"], 1003, ""),
        (["x" * 70_000], 1009, ""),
    ],
)
async def test_who_breaks_a_rule_is_closed(s: Stage, messages: list[Any], code: int, words: str) -> None:
    """With the code of the protocol, and nothing of its operations is left."""
    async with talk(s, init=False) as c:
        for message in messages:
            await c.say(message)
        await until(lambda: c.closed)
        assert c.closed is not None
        assert c.closed[0] == code
        assert c.closed[1].startswith(words)
    await until(lambda: len(s.daemon.lobby.clients) == listeners(s) == 0)


async def test_another_subprotocol_is_4406(s: Stage) -> None:
    """Also none at all."""
    for offered in ((), ("graphql-ws",)):
        async with talk(s, subprotocols=offered, init=False) as c:
            await until(lambda c=c: c.closed)
            assert c.closed == (4406, "Subprotocol not acceptable")


async def test_who_does_not_begin_is_4408(s: Stage, mock_clock: MockClock) -> None:
    """After 3 s. Whoever has begun may be silent."""
    async with talk(s) as begun:
        async with talk(s, init=False) as c:
            await c.say({"type": "ping"})
            await until(lambda: c.heard)
            assert c.heard == [{"type": "pong"}]
            mock_clock.jump(2.9)
            await until(lambda: True)
            assert c.closed is None
            mock_clock.jump(0.2)
            await until(lambda: c.closed)
            assert c.heard == [{"type": "pong"}]
            assert c.closed == (4408, "Connection initialisation timeout")
        assert begun.closed is None
        await begun.say({"type": "ping", "payload": {"n": 1}})
        await until(lambda: begun.heard)
        assert begun.heard == [{"type": "pong", "payload": {"n": 1}}]


async def test_an_id_may_be_used_again(s: Stage) -> None:
    """After the client's `complete`, after that of the server, and after an error."""
    async with talk(s) as c:
        for _ in range(2):
            await c.subscribe("a", "{__typename}")
            await c.subscribe("a", "{nothing}")
            await c.subscribe("a", TICKS, s=SYMBOL)
            await until(lambda: listeners(s) == 1)
            await c.say({"type": "complete", "id": "a"})
            await until(lambda: listeners(s) == 0)
        await c.until_done()
        kinds = [message["type"] for message in c.heard]
        assert kinds == ["next", "complete", "error"] * 2
        assert c.closed is None


async def test_a_client_cannot_have_each_trade_any_number_of_times(s: Stage) -> None:
    """Operations in one topic are bounded, and so is what each of them makes of a trade."""
    async with talk(s) as c:
        for id in [*IDS, "more"]:
            await c.subscribe(id, 'subscription {trades(symbol: "BTCUSDT") {offset}}')
        await until(lambda: c.heard)
        (error,) = c.heard
        assert (error["id"], error["type"], error["payload"][0]["message"]) == (
            "more",
            "error",
            "too many subscriptions",
        )
        await c.say({"type": "complete", "id": IDS[0]})
        await c.subscribe("more", 'subscription {trades(symbol: "BTCUSDT") {offset}}')
        await c.until_done()
        await s.publish(1)
        await until(lambda: c.offsets("more"))
        assert [c.offsets(id) for id in IDS] == [[], *[[1]] * 19]


async def test_quotas_hold_for_operations(mock_clock: MockClock) -> None:
    """Too many at once, or too fast: an error for that operation, and the connection goes on."""
    session, limits = Session(max_subscriptions=3), Limits(loopback=True, calls_per_second=1)
    async with stage(session=session, limits=limits) as s, talk(s) as c:
        for number in range(4):
            await c.subscribe(f"{number}", f'subscription {{trades(symbol: "X{number}") {{offset}}}}')
        await until(lambda: c.heard)
        assert [(m["id"], m["type"], m["payload"][0]["extensions"]["code"]) for m in c.heard] == [
            ("3", "error", "TooManySubscriptions")
        ]
        await c.say({"type": "complete", "id": "0"})
        c.heard.clear()
        for _ in range(10):
            await c.subscribe("q", "{__typename}")
        await until(lambda: any(m["type"] == "error" for m in c.heard))
        error = next(m["payload"][0] for m in c.heard if m["type"] == "error")
        assert error["message"] == "too many calls"
        assert error["extensions"]["retryAfter"] > 0
        assert c.closed is None


async def test_new_documents_cost_more_than_their_length(mock_clock: MockClock) -> None:
    """Whoever sends one after the other is held up, over HTTP and WebSocket; one that is known costs what it is."""
    async with (
        stage(limits=Limits(loopback=True, bytes_per_second=1500)) as s,
        http_client(s.daemon.http) as http,
    ):
        for _ in range(5):
            assert (await http.post(PATH, json={"query": "{__typename}"})).status_code == 200
        async with talk(s) as c:
            await c.subscribe("q", "{a:__typename}")
            await c.subscribe("q", "{b:__typename}")
            await c.subscribe("q", "{c:__typename}")
            await until(lambda: len(c.heard) == 5)
            assert [m["type"] for m in c.heard] == ["next", "complete", "next", "complete", "error"]
            assert c.heard[-1]["payload"][0]["message"] == "too many bytes"
        assert (await http.post(PATH, json={"query": "{__typename}"})).status_code == 429


async def test_a_hundred_operations_that_come_and_go_leave_nothing(s: Stage) -> None:
    """Half of them say goodbye, half just vanish; with operations that run, end, and fail."""
    before = actors(s)

    async def come_and_go(number: int) -> None:
        async with talk(s) as c:
            await c.subscribe("t", f'subscription {{trades(symbol: "{SYMBOL}") {{a{number}: offset}}}}')
            await c.subscribe("d", f'subscription {{marketData(symbol: "NO-{number}") {{close}}}}')
            await c.subscribe("n", f'subscription {{trades(symbol: "NO-{number}") {{price}}}}')
            await c.subscribe("q", "{__typename}")
            await until(lambda: any(m["type"] == "complete" for m in c.heard))
            if number % 2:
                for id in "td":
                    await c.say({"type": "complete", "id": id})
                await c.socket.aclose()

    async with trio.open_nursery() as nursery:
        for number in range(25):
            nursery.start_soon(come_and_go, number)
    await until(lambda: len(s.daemon.lobby.clients) == 0)
    assert sum(s.daemon.core.topics.subscribers.values()) == 0
    assert s.daemon.hall.quotas.exempt.subscriptions == 0
    assert s.daemon.crashes() == []
    await until(lambda: actors(s) <= before | {f"topics/{SYMBOL}"})
    gc.collect()
    kinds = Selection | Operations | actors_session.Session
    assert not [each for each in gc.get_objects() if isinstance(each, kinds)]


def actors(s: Stage) -> set[str]:
    """The paths of all actors that there are."""
    found, nodes = set[str](), [s.daemon.hall.tree()]
    while nodes:
        node_ = nodes.pop()
        found.add(node_.path)
        nodes += node_.children
    return found


@pytest.mark.parametrize("policy", [SlowClient.DISCONNECT, SlowClient.DROP_OLDEST])
async def test_a_client_that_does_not_read_holds_nobody_up(policy: SlowClient) -> None:
    """It is let go of, or told what it missed, for each of its operations. What waits is bounded; others get all."""
    async with stage(session=Session(outbox=50, slow_client=policy)) as s, client(s.daemon.url) as quick:
        await quick.call("subscribe", symbol=SYMBOL)
        async with talk(s) as slow:
            for id in IDS:
                await slow.subscribe(id, f'subscription {{trades(symbol: "BTCUSDT") {{offset {LONG}}}}}')
            await slow.until_done()
            (deaf,) = [
                each for each in s.daemon.lobby.clients if each.lanes[TOPIC].rendering.format is RESULTS
            ]
            slow.reads = trio.Event()
            while deaf.ended is None and not deaf.dropped:
                await s.publish(50)
                assert deaf.waiting <= 50 + 256
            slow.reads.set()
            await quick.until(lambda: len(quick.trades()) == s.published)
            if policy is SlowClient.DISCONNECT:
                await until(lambda: slow.closed)
                return
            await s.publish(1)
            for id in IDS:
                await until(lambda id=id: slow.offsets(id)[-1:] == [s.published])
                assert accounted(slow.of(id)) == list(range(1, s.published + 1))
                assert any(each["data"] is None for each in slow.of(id))


async def test_a_slow_follower_of_the_day_gets_the_newest_state() -> None:
    """What it does not read in time is replaced, never piled up; no policy drops it. The last state arrives."""
    async with stage() as s, talk(s) as slow:
        for id in IDS:
            await slow.subscribe(id, f'subscription {{marketData(symbol: "BTCUSDT") {{volume {LONG}}}}}')
        await slow.until_done()
        (deaf,) = s.daemon.lobby.clients
        slow.reads = trio.Event()
        for _ in range(2):
            await s.publish(20)
            while not deaf.waiting:  # the kernel has taken more
                await s.publish(20)
            assert deaf.waiting == 1
        slow.reads.set()
        for id in IDS:
            await until(lambda id=id: volumes(slow, id)[-1:] == [s.published * 0.5])
            assert all(later > former for former, later in pairwise(volumes(slow, id)))
            assert len(slow.of(id)) < s.published
        assert deaf.dropped == 0


def accounted(results: Sequence[Any]) -> list[int]:
    """Every place that a client was told of, as a trade or as missing, in order."""
    places: list[int] = []
    for each in results:
        if each["data"] is None:
            ((gap),) = [error["extensions"] for error in each["errors"]]
            assert gap["reason"] == "slow_client"
            assert gap["skipped"] == gap["to"] - gap["from"] + 1
            places += range(gap["from"], gap["to"] + 1)
        else:
            places.append(each["data"]["trades"]["offset"])
    return places


# GraphiQL.

SHOWN = "document.querySelector('.result-window .CodeMirror').CodeMirror.getValue()"


async def test_graphiql_in_a_browser() -> None:
    """A query and a live subscription, from our own files alone, without a complaint."""
    async with stage() as s:
        await s.publish(2)

        def visit(page: Page, heard: Heard) -> tuple[str, str]:
            page.goto(s.daemon.http + PATH)  # a browser is led to the page
            run = page.locator(".graphiql-execute-button")
            result = page.locator(".result-window")
            run.click()
            page.get_by_role("menuitem", name="Bar").click()
            result.get_by_text("marketData").wait_for()
            bar = page.evaluate(SHOWN)
            run.click()
            page.get_by_role("menuitem", name="Trades").click()
            in_the_test(until, lambda: listeners(s) == 1)
            in_the_test(s.publish, 1)
            result.get_by_text("trades").wait_for()
            assert heard.complaints == []
            assert {url for url in heard.urls if not url.startswith((s.daemon.http, "data:"))} == set()
            return bar, page.evaluate(SHOWN)

        bar_shown, trade_shown = await browse(visit)
        assert json.loads(bar_shown)["data"]["marketData"]["volume"] == "1"
        assert json.loads(trade_shown)["data"]["trades"]["offset"] == 3
