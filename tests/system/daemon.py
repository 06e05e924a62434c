"""The whole daemon in a test's own Trio loop, and a client of it."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import httpx
import trio
from attrs import define, field
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from dataflow.app import hall, store, tree
from dataflow.cache.archive import Archive
from dataflow.connectors import binance, blockchain
from dataflow.core import Core
from dataflow.domain.errors import ConfigError
from dataflow.gateway.hall import Hall
from dataflow.gateway.lobby import Lobby
from dataflow.reactions import Reactions
from dataflow.settings.schema import BackoffSettings, Gateway, Settings
from dataflow.sources.lookout import Lookout
from dataflow.sources.port import SourceSettings
from supervisors import Event, Point, open_supervisor
from tests.support.waiting import until


@define
class Saboteur:
    """A fault hook: `arm` makes the next visit of a point of an actor raise."""

    _armed: set[tuple[Point, str]] = field(factory=set)

    def arm(self, point: Point, path: str) -> None:
        self._armed.add((point, path))

    def disarm(self) -> None:
        self._armed.clear()

    async def __call__(self, point: Point, path: str, _epoch: int) -> None:
        if (point, path) in self._armed:
            self._armed.remove((point, path))
            raise RuntimeError("sabotage")


@define
class Daemon:
    hall: Hall
    root: Any
    sabotage: Saboteur
    events: list[Event] = field(factory=list)
    keep_events: bool = True
    is_dead: bool = False
    configured: Settings | ConfigError | None = None  # what a reload reads; None: what is in force
    _news: trio.Event = field(factory=trio.Event)

    def read(self) -> Settings:
        """What `reload` reads. Raises ConfigError."""
        if isinstance(self.configured, ConfigError):
            raise self.configured
        return self.configured or self.hall.settings

    async def reload(self, configured: Settings | ConfigError) -> None:
        """As after SIGHUP. Returns when it is done."""
        self.configured = configured
        self.root.find("ops/reload").put("SIGHUP")
        reloading = self.root.supervisor("ops").tree
        await until(
            lambda: (
                not any(
                    node.mailbox.queued
                    for node in reloading().children
                    if node.path == "ops/reload" and node.mailbox
                )
            )
        )

    @property
    def core(self) -> Core:
        return self.hall.core

    def die(self) -> None:
        """From now on nothing is written, and the store is not closed in order: as after a kill."""
        self.is_dead = True
        recording = self.core.recording
        assert recording.archive is not None
        recording.archive.close(clean=False)
        recording.trouble = "dead"

    @property
    def lobby(self) -> Lobby:
        return self.hall.lobby

    def on_event(self, event: Event) -> None:
        if self.keep_events:
            self.events.append(event)
        self._news.set()
        self._news = trio.Event()

    async def until(self, condition: Callable[[], Any]) -> None:
        """Returns when `condition()` holds, looked at after every event of the tree."""
        while not condition():
            await self._news.wait()

    async def until_carried(self, *symbols: str) -> None:
        """Returns when the daemon knows that a source carries each of them. The exchange knows it earlier."""
        sources = self.core.sources.values()
        await until(lambda: set().union(*(source.subscribed_symbols for source in sources)) >= {*symbols})

    @property
    def http(self) -> str:
        return str(self.root.find("gateway/http").value[0])

    @property
    def url(self) -> str:
        return self.http.replace("http", "ws") + "/ws"

    def crashes(self, path: str = "") -> list[str]:
        return [
            e.path for e in self.events if e.kind in ("crash", "start_failed") and e.path.startswith(path)
        ]


@asynccontextmanager
async def daemon(
    *,
    sources: dict[str, SourceSettings],
    archive: Archive | None = None,
    clock: Callable[[], float] = time.time,
    **tables: Any,
) -> AsyncIterator[Daemon]:
    """The daemon on a free port. A source that is lost is retried after 0.05 s, unless `backoff` says otherwise.

    `history=History(directory=...)` records on disk, `archive` somewhere else. `clock`: its wall clock. The end is a stop in order, unless the
    test calls `Daemon.die`. Several lives on one port take an `own_port`.
    """
    tables.setdefault("gateway", Gateway(port=0))
    tables.setdefault("backoff", BackoffSettings(initial_delay=0.05, jitter=0.0))
    settings = Settings(sources=sources, **tables)
    built = hall(settings, archive=archive or store(settings), clock=clock)
    made = Daemon(built, None, Saboteur())
    react = Reactions(built)

    def on_event(event: Event) -> None:
        react(event)
        made.on_event(event)

    async def strike(point: Point, path: str, epoch: int) -> None:
        await made.sabotage(point, path, epoch)
        if built.core.faults is not None:
            await built.core.faults(point, path, epoch)

    try:
        async with open_supervisor(
            tree(built, made.read), on_event=on_event, faults=strike, blocked_after=None
        ) as made.root:
            yield made
    finally:
        if not made.is_dead:
            built.core.finish()


def http_client(url: str) -> httpx.AsyncClient:
    """A client for plain HTTP. It loads no authorities: that takes as long as a whole test.

    It waits for each answer as long as that takes: five seconds, its usual bound, say how busy the machine is.
    """
    return httpx.AsyncClient(base_url=url, verify=False, timeout=None)


def from_binance(url: str, *symbols: str, **more: Any) -> dict[str, SourceSettings]:
    """Nothing is asked by HTTP, unless `refill_url` says where."""
    more.setdefault("refill_url", "")
    return {"binance": binance.Settings(connector="binance", url=url, symbols=symbols, **more)}


async def look_away(_lookout: Lookout) -> None:
    """Instead of `Lookout._look`: whether a trade came before the first look is a matter of luck."""
    await trio.lowlevel.checkpoint()


def from_blockchain(url: str, *symbols: str, **more: Any) -> dict[str, SourceSettings]:
    return {"blockchain": blockchain.Settings(connector="blockchain", url=url, symbols=symbols, **more)}


@define
class Client:
    """A JSON-RPC client that keeps everything it was sent, in order."""

    socket: WebSocketConnection
    notices: list[dict[str, Any]] = field(factory=list)
    answers: dict[Any, dict[str, Any]] = field(factory=dict)
    rows: list[list[Any]] = field(factory=list)  # trades in the format `compact`
    traded: Counter[str] = field(factory=Counter)  # how many trades came, by symbol
    keep_notices: bool = True
    closed: tuple[int, str] | None = None
    _serial: int = 0
    _news: trio.Event = field(factory=trio.Event)

    async def listen(self) -> None:
        try:
            while True:
                message = json.loads(await self.socket.get_message(), parse_float=Decimal)
                several = isinstance(message, list) and isinstance(message[0], list | dict)
                for each in message if several else [message]:
                    self._keep(each)
                self._wake()
        except ConnectionClosed as error:
            self.closed = how_it_ended(error)
            self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = trio.Event()

    def _keep(self, message: Any) -> None:
        if isinstance(message, list):
            self.rows.append(message)
            return
        if "method" in message and not self.keep_notices:
            return
        if "method" in message:
            self.notices.append(message)
            self.traded[message["params"].get("symbol")] += message["method"] == "trades.update"
        else:
            self.answers[message["id"]] = message

    async def until(self, condition: Callable[[], Any]) -> None:
        """Returns when `condition()` holds; the test's own timeout is the bound."""
        while not condition():
            await self._news.wait()

    async def call(self, method: str, **params: Any) -> Any:
        """The result; raises AssertionError with the error when there is one."""
        answer = await self.ask(method, **params)
        assert "error" not in answer, answer
        return answer["result"]

    async def ask(self, method: str, **params: Any) -> dict[str, Any]:
        self._serial += 1
        serial = self._serial
        request = {"jsonrpc": "2.0", "id": serial, "method": method, "params": params}
        await self.socket.send_message(json.dumps(request))
        await self.until(lambda: serial in self.answers or self.closed)
        return self.answers.pop(serial)

    def of(self, method: str) -> list[dict[str, Any]]:
        """The parameters of every notification `method` so far."""
        return [notice["params"] for notice in self.notices if notice["method"] == method]

    def trades(self, symbol: str | None = None) -> list[dict[str, Any]]:
        return [t for t in self.of("trades.update") if symbol in (None, t["symbol"])]

    def stream(self, symbol: str) -> list[dict[str, Any]]:
        """Trades and gaps of one symbol, in the order in which they came."""
        kinds = ("trades.update", "stream.gap")
        return [n["params"] for n in self.notices if n["method"] in kinds and n["params"]["symbol"] == symbol]


@asynccontextmanager
async def connection(url: str) -> AsyncIterator[WebSocketConnection]:
    """A WebSocket whose socket is closed in the end, whoever closed the WebSocket."""
    address = urlsplit(url)
    stream = await trio.open_tcp_stream(str(address.hostname), int(address.port or 80))
    path = f"{address.path}?{address.query}" if address.query else address.path
    async with stream, trio.open_nursery() as nursery:
        yield await wrap_client_stream(nursery, stream, address.netloc, path, max_message_size=1 << 26)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def client(url: str) -> AsyncIterator[Client]:
    async with connection(url) as socket, trio.open_nursery() as nursery:
        made = Client(socket)
        nursery.start_soon(made.listen)
        yield made
        nursery.cancel_scope.cancel()


def how_it_ended(error: ConnectionClosed) -> tuple[int, str]:
    """The close code and the reason; 1006 for a connection that broke."""
    return (error.reason.code, error.reason.reason or "") if error.reason else (1006, "")
