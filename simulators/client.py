"""A client of dataflow's JSON-RPC protocol. It shows what it receives, and can disconnect in every way.

Rule 1: when the server ends the connection it reconnects by itself, and resumes every symbol with `since`. A
server that has no room says how long to wait; otherwise it waits a random time from `retry_after` on.
Rule 2: after it left by itself it stays away until `come_back` (after `drop`: until its time is over).
Rule 3: nothing is printed. `say` gets lines of words, `show` each notification as it was received.
Rule 4: it trusts nothing. A `Ledger` checks offsets and trade ids, and each finding is a line.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any, Literal, TypeAlias
from urllib.parse import urlsplit

import trio
from attrs import define, field
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    HandshakeError,
    WebSocketConnection,
    wrap_client_stream,
)

from .connection import reset
from .exchange import ignore
from .keyboard import DROP_SECONDS, Key, each_key, help_line, presser
from .ledger import Ledger

URL = "ws://127.0.0.1:8080/ws"
RETRY_AFTER = 1.0
OPEN_WITHIN = 10.0
CLOSE_WITHIN = 5.0
Leave: TypeAlias = Literal["graceful", "abrupt"]


@define(eq=False)
class Client:
    """One client of the daemon.

    `show` gets the method and the parameters of every notification, and every trade of an answer as one; by
    default it becomes a line of `say`. `retry_after` is in seconds; the real pause is a random
    time between it and twice as long. `connections` counts how often it connected, `notices` the
    notifications other than trades.
    """

    symbols: tuple[str, ...]
    url: str = URL
    say: Callable[[str], None] = ignore
    show: Callable[[str, dict[str, Any]], None] | None = None
    retry_after: float = RETRY_AFTER
    ledger: Ledger = field(factory=Ledger)
    connections: int = 0
    notices: int = 0
    _wanted: bool = True
    _not_before: float = -1.0
    _sent_away: float | None = None  # seconds that the server asked it to wait
    _stream: trio.abc.Stream | None = None
    _websocket: WebSocketConnection | None = None
    _leaving: trio.Event | None = None
    _subscribed: set[str] = field(factory=set)
    _calls: dict[int, str] = field(factory=dict)
    _changed: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot)
    _scope: trio.CancelScope = field(factory=trio.CancelScope)

    # For people and tests

    @property
    def connected(self) -> bool:
        """Whether the connection is open."""
        return self._websocket is not None

    @property
    def subscribed(self) -> frozenset[str]:
        """The symbols whose subscription the server has confirmed on this connection."""
        return frozenset(self._subscribed)

    async def leave(self, how: Leave = "graceful") -> None:
        """Disconnect and stay away. ``graceful``: with a close frame. ``abrupt``: with a TCP reset."""
        self._wanted = False
        await self._end(how)

    async def drop(self, seconds: float) -> None:
        """Disconnect with a TCP reset, and connect again after `seconds`."""
        self._not_before = trio.current_time() + seconds
        await self._end("abrupt")

    def come_back(self) -> None:
        """Connect again at once."""
        self._wanted, self._not_before = True, -1.0
        self._changed.unpark_all()

    def quit(self) -> None:
        """End `run`."""
        self._scope.cancel()

    def status(self) -> dict[str, Any]:
        """State, counters, findings and positions, as plain data."""
        return {
            "url": self.url,
            "connected": self.connected,
            "connections": self.connections,
            "subscribed": sorted(self._subscribed),
            "trades": self.ledger.trades,
            "notices": self.notices,
            "findings": dict(self.ledger.findings),
            "positions": {symbol: self.ledger.since(symbol) for symbol in self.symbols},
        }

    async def wait_until(self, condition: Callable[[Client], bool]) -> None:
        """Wait until `condition(client)` is true. It is checked after every message and every change."""
        while not condition(self):
            await self._changed.park()

    # The connection

    async def run(self) -> None:
        """Connect, and connect again, until `quit`."""
        with self._scope:
            while True:
                await self._wait_until_wanted()
                await self._try()
                self._not_before = max(self._not_before, trio.current_time() + self._pause())

    def _pause(self) -> float:
        told, self._sent_away = self._sent_away, None
        return self.retry_after * random.uniform(1.0, 2.0) if told is None else told

    async def _wait_until_wanted(self) -> None:
        while not self._wanted or trio.current_time() < self._not_before:
            with trio.CancelScope(deadline=self._not_before if self._wanted else float("inf")):
                await self._changed.park()

    async def _try(self) -> None:
        try:
            await self._converse()
        except* ConnectionClosed as group:
            self.say(f"disconnected: {_first(group).reason or 'by a reset'}")
        except* (OSError, HandshakeError, trio.TooSlowError) as group:
            self.say(f"cannot connect to {self.url}: {why_unreachable(_first(group))}; trying again")
        finally:
            await self._close_stream()
            self._websocket = self._leaving = None
            self._subscribed.clear()
            self._calls.clear()
            self._changed.unpark_all()

    async def _close_stream(self) -> None:
        """Close the socket: trio-websocket leaves it open when the server closes first."""
        stream, self._stream = self._stream, None
        if stream is not None:
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(stream)

    async def _converse(self) -> None:
        async with trio.open_nursery() as nursery:
            with trio.fail_after(OPEN_WITHIN):
                websocket = await self._open(nursery)
            self.connections += 1
            self.say(f"connected to {self.url}")
            await self._subscribe_all(websocket)
            await self._listen(websocket)

    async def _listen(self, websocket: WebSocketConnection) -> None:
        try:
            while True:
                self._take(await websocket.get_message())
                self._changed.unpark_all()
        except ConnectionClosed:
            if self._leaving is not None:
                await self._leaving.wait()  # the close handshake needs the reader, which ends with this task
            raise

    async def _open(self, nursery: trio.Nursery) -> WebSocketConnection:
        parts = urlsplit(self.url)
        secure, host = parts.scheme == "wss", parts.hostname or ""
        opener = trio.open_ssl_over_tcp_stream if secure else trio.open_tcp_stream
        stream: Any = await opener(host, parts.port or (443 if secure else 80))
        self._stream = stream
        path = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
        self._websocket = await wrap_client_stream(nursery, stream, parts.netloc, path)
        self._changed.unpark_all()
        return self._websocket

    async def _subscribe_all(self, websocket: WebSocketConnection) -> None:
        for number, symbol in enumerate(self.symbols, 1):
            since = self.ledger.since(symbol)
            params = {"channel": "trades", "symbol": symbol, **({"since": since} if since else {})}
            self._calls[number] = symbol
            call = {"jsonrpc": "2.0", "id": number, "method": "subscribe", "params": params}
            await websocket.send_message(json.dumps(call))

    async def _end(self, how: Leave) -> None:
        stream, websocket = self._stream, self._websocket
        self._changed.unpark_all()
        if stream is None:
            return
        self._leaving = leaving = trio.Event()
        if how == "graceful" and websocket is not None:
            with trio.move_on_after(CLOSE_WITHIN):
                await websocket.aclose(1000, "leaving")
        await reset(stream)
        leaving.set()
        await self.wait_until(lambda client: client._stream is not stream)

    # Messages

    def _take(self, text: str | bytes) -> None:
        try:
            message = json.loads(text, parse_float=Decimal)
        except ValueError:
            self.say(f"UNREADABLE {text!r}")
            return
        for each in message if isinstance(message, list) else [message]:
            self._take_one(each)

    def _take_one(self, message: dict[str, Any]) -> None:
        params = message.get("params") or {}
        match message.get("method"):
            case None:
                self._answered(message)
            case "trades.update":
                self._tell(self.ledger.trade(params))
                self._show("trades.update", params)
            case method:
                self.notices += 1
                if method == "stream.gap":
                    *found, _announced = self.ledger.gap(params)  # the notification itself says it
                    self._tell(found)
                if method == "connection.refused":
                    self._sent_away = float(params["retryAfter"])
                self._show(method, params)

    def _answered(self, message: dict[str, Any]) -> None:
        symbol = self._calls.pop(message.get("id", 0), None)
        if "error" in message:
            self.say(f"refused: {symbol or 'a call'}: {_refusal(message['error'])}")
            return
        answer = message["result"]
        if symbol is not None:
            self._tell(self.ledger.subscribed({"symbol": symbol, **answer}))
            for trade in answer.get("trades") or []:
                self._show("trades.update", {"symbol": symbol, **trade})
            self._subscribed.add(symbol)
            self.say(f"subscribed to {symbol} at {answer.get('epoch')}:{answer.get('offset')}")

    def _tell(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.say(line)

    def _show(self, method: str, params: dict[str, Any]) -> None:
        if self.show is None:
            self.say(plainly(method, params))
        else:
            self.show(method, params)


def plainly(method: str, params: dict[str, Any]) -> str:
    """A notification in one line: of a trade the usual columns, of any other its members."""
    if method == "trades.update":
        names = ("timestamp", "symbol", "side", "price", "qty", "source")
        return " ".join((*(str(params.get(name)) for name in names), f"#{params.get('offset')}"))
    return f"{method} {', '.join(f'{name} {value}' for name, value in params.items())}"


def summary(status: Mapping[str, Any]) -> str:
    """`Client.status` in a sentence."""
    found = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in status["findings"].items())
    places = (
        f"{symbol} at {place['epoch']}:{place['offset']}" if place else f"{symbol} nowhere yet"
        for symbol, place in status["positions"].items()
    )
    state = "connected" if status["connected"] else "not connected"
    return (
        f"{state} to {status['url']}, connection {status['connections']}; {status['trades']} trades, "
        f"{status['notices']} notices; found: {found or 'nothing wrong'}; {', '.join(places)}"
    )


def _refusal(error: Any) -> str:
    """An error of JSON-RPC in words."""
    if not isinstance(error, dict):
        return str(error)
    data = error.get("data") if isinstance(error.get("data"), dict) else {}
    told = str((data or {}).get("problem", error.get("message")))
    nearest = (data or {}).get("nearest")
    return f"{told}; did you mean {' or '.join(map(str, nearest))}?" if nearest else told


def why_unreachable(error: BaseException) -> str:
    """Why a connection could not be made, in words."""
    if isinstance(error, ConnectionRejected):
        return f"the answer is status {error.status_code}"
    if isinstance(error, trio.TooSlowError):
        return "no answer in time"
    cause = error.__cause__
    if isinstance(cause, BaseExceptionGroup):  # one for each address
        error = _first(cause)
    number = getattr(error, "errno", None) or 0
    if number < 0:  # of a name server; the text of the error has the bare number in front
        return str(error.args[-1])
    return os.strerror(number) if number else str(error) or type(error).__name__


def _first(group: BaseExceptionGroup[Any]) -> Any:
    first: Any = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


def client_keys(client: Client) -> dict[str, Key]:
    """The client's keys."""

    async def graceful() -> None:
        await client.leave("graceful")

    async def abrupt() -> None:
        await client.leave("abrupt")

    async def drop() -> None:
        await client.drop(DROP_SECONDS)

    async def come_back() -> None:
        client.come_back()
        await trio.lowlevel.checkpoint()

    async def status() -> None:
        client.say(summary(client.status()))
        await trio.lowlevel.checkpoint()

    async def quit_() -> None:
        client.quit()
        await trio.lowlevel.checkpoint()

    return {
        "g": Key("graceful disconnect", graceful),
        "a": Key("abrupt disconnect", abrupt),
        "t": Key(f"drop for {DROP_SECONDS:g} s", drop),
        "c": Key("connect again", come_back),
        "s": Key("status", status),
        "q": Key("quit", quit_),
    }


async def run_client(
    symbols: Iterable[str],
    *,
    url: str = URL,
    keyboard: bool = True,
    say: Callable[[str], None],
    show: Callable[[str, dict[str, Any]], None] | None = None,
    task_status: trio.TaskStatus[Client] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run the interactive client until `quit`; reports the client by `task_status` when it has started."""
    client = Client(symbols=tuple(symbols), url=url, say=say, show=show)
    async with trio.open_nursery() as nursery:
        task_status.started(client)
        if keyboard:
            keys = client_keys(client)
            say(help_line(keys))
            nursery.start_soon(each_key, presser(keys, say))
        await client.run()
        nursery.cancel_scope.cancel()
