"""`tail`: live trades, for people or for a pipe.

Rules of this file: `Tail` decides without I/O. The core of a client (`dataflow.client`) keeps the position of
every symbol, and goes on there after a lost connection. What the daemon cannot bring back, or takes back,
tail says. Text from the daemon reaches the terminal as text, never as an escape code.
"""

from __future__ import annotations

import os
import random
import sys
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec
import trio
from cyclopts import Parameter
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    HandshakeError,
    WebSocketConnection,
    wrap_client_stream,
)

from dataflow.client import (
    EVERY,
    Client,
    Event,
    Filled,
    Gap,
    Notice,
    Quality,
    Refused,
    Rewound,
    ServerFault,
    Trade,
    Unreadable,
)
from dataflow.logs.terminal import disarmed, wants_colour

from .columns import WIDTH, Columns, in_words
from .common import Json, Url, daemon_url, not_running, until_interrupted
from .ends import Failure, Mistake, only

RETRY_FIRST, RETRY_MOST = 0.5, 5.0  # seconds between attempts to reconnect; random, up to twice as long
TOLD_MOST = 300.0  # seconds: the longest `retryAfter` that is obeyed
OPEN_WITHIN, CLOSE_WITHIN = 10.0, 1.0
_BROKEN = 1006  # not sent by anybody: the connection ended without a close
LARGEST_ANSWER = 64 << 20  # bytes: the answer after a long absence holds all missed trades
WORTH_A_WORD = ("quiet", "refilling", "gapped", "stalled")  # losses and refusals have notices of their own
COMING = ("connecting", "subscribing")  # reasons of a source that is not down but will be there soon


def tail(
    *symbols: str,
    count: Annotated[int | None, Parameter(name=("--count", "-n"))] = None,
    snapshot: int | None = None,
    url: Url = None,
    json: Json = False,
) -> None:
    """Live trades, and between them gaps and lost or restored connections.

    Survives a restart of the daemon, also after a crash: it fetches the
    missed trades, or says which are lost. Says what comes after all, and
    what a crash took back.

    Parameters
    ----------
    symbols
        Symbols to follow, such as BTC-USD; '*' for all.
    count
        End after this number of trades.
    snapshot
        Begin with this number of past trades, at most 1000.
    """
    if not symbols:
        raise Mistake("tail needs a symbol, such as `dataflow tail BTC-USD`")
    wanted = tuple(dict.fromkeys(symbol.upper() for symbol in symbols))
    coloured = not json and wants_colour(sys.stdout, os.environ)
    width = max(WIDTH if symbol == EVERY else len(symbol) for symbol in wanted)
    screen = Screen(width, coloured) if not json else None
    address = f"{daemon_url(url).replace('http', 'ws', 1)}/ws"
    until_interrupted(follow, address, Tail(wanted, snapshot, count), screen or Raw())


class Show(ABC):
    """The output. Trades and notices go to standard output; `news` is for people only.

    `raw`: as the daemon wrote it.
    """

    @abstractmethod
    def trade(self, trade: Trade, raw: bytes) -> None: ...

    @abstractmethod
    def notice(self, method: str, raw: bytes) -> None: ...

    @abstractmethod
    def news(self, text: str) -> None: ...

    @abstractmethod
    def late(self, trades: Sequence[Trade]) -> None:
        """The trades of the notice before."""


class Raw(Show):
    """For programs: the unchanged `params` of every notification, one per line. News go to standard error."""

    def trade(self, trade: Trade, raw: bytes) -> None:
        print(raw.decode())

    def notice(self, method: str, raw: bytes) -> None:
        print(raw.decode())

    def late(self, trades: Sequence[Trade]) -> None:
        """They stand in the notice."""

    def news(self, text: str) -> None:
        print(text, file=sys.stderr)


class Screen(Show):
    """For people: aligned columns, coloured sides."""

    def __init__(self, symbol_width: int, coloured: bool) -> None:
        self._columns = Columns(symbol_width, coloured)

    def trade(self, trade: Trade, raw: bytes) -> None:
        print(self._columns.trade(trade))

    def late(self, trades: Sequence[Trade]) -> None:
        for trade in trades:
            self.trade(trade, b"")

    def notice(self, method: str, raw: bytes) -> None:
        self.news(in_words(method, msgspec.json.decode(raw)))

    def news(self, text: str) -> None:
        print(self._columns.news(text))


class Tail:
    """The followed symbols and their positions. `left`: trades until the end, None: no end."""

    def __init__(self, symbols: Sequence[str], snapshot: int | None = None, left: int | None = None) -> None:
        self.left = left
        self.sent_away: float | None = None  # seconds to wait before the next connection, told by the daemon
        self._core = Client(keep=0)
        self._told_down: set[str] = set()  # sources that were reported as down on this connection
        self._met: set[tuple[str, str]] = set()  # symbols and sources whose state came on this connection
        self._told_states: dict[tuple[str, str], str] = {}  # by symbol and source, if worth a word
        for symbol in symbols:
            self._core.follow(symbol, snapshot=snapshot)
        for symbol in symbols:
            self._core.follow(symbol, "quality")

    @property
    def done(self) -> bool:
        return self.left is not None and self.left <= 0

    @property
    def resumes(self) -> bool:
        """Whether it goes on where an earlier connection ended."""
        return any(stream.since for stream in self._core.streams.values())

    def requests(self) -> list[str]:
        """The calls of a new connection: they start the symbols, or resume them at their positions."""
        self._told_down.clear()
        self._met.clear()
        return self._core.connect()

    def take(self, text: str | bytes, show: Show) -> None:
        """Show the content of a message from the daemon.

        Raises Mistake when the daemon refuses a symbol, ServerFault when it breaks its contract.
        """
        for event, raw in self._core.read(text):
            if self.done:
                return
            self._take(event, raw, show)

    def _take(self, event: Event, raw: bytes, show: Show) -> None:
        match event:
            case Trade():
                if self.left is not None:
                    self.left -= 1
                show.trade(event, raw)
            case Gap():
                show.notice("stream.gap", raw)
            case Filled():
                show.notice("stream.filled", raw)
                show.late(event.trades)
            case Rewound():
                show.notice("stream.rewind", raw)
            case Quality():
                self._source(event, show)
                self._state(event, show)
            case Notice():
                if event.method == "connection.refused":
                    self.sent_away = float(event.params["retryAfter"])
                show.notice(event.method, raw)
            case Refused():
                raise Mistake(refusal(event))

    def _source(self, quality: Quality, show: Show) -> None:
        """Report a source without a connection, if the first state of a symbol says so: its `connection.lost`
        was sent before this client came. Of a later end it tells itself."""
        key, name = (quality.symbol, quality.source), quality.source
        down = quality.state == "lost" and quality.reason not in COMING
        if down and key not in self._met and name not in self._told_down:
            self._told_down.add(name)
            show.news(f"{name}: no connection ({quality.reason}), the daemon tries again")
        self._met.add(key)

    def _state(self, quality: Quality, show: Show) -> None:
        """Report how a symbol fares. That it is live needs no word behind a silence: its trade shows it."""
        key = quality.symbol, quality.source
        before, state = self._told_states.get(key), quality.state
        if state == before:
            return
        if state in WORTH_A_WORD:
            self._told_states[key] = state
            reason = f" ({quality.reason})" if quality.reason else ""
            show.news(f"{quality.symbol}: {state} at {quality.source}{reason}")
        elif state == "lost" and quality.reason in COMING:
            return  # subscribed anew: whether that helps will show
        elif self._told_states.pop(key, "quiet") != "quiet" and state == "live":
            show.news(f"{quality.symbol}: {state} at {quality.source}")


def refusal(refused: Refused) -> str:
    """A refused subscription in one line, with the valid values."""
    about = refused.data if isinstance(refused.data, dict) else {}
    told = f"{refused.topic and refused.topic.symbol}: {about.get('problem', refused.message)}"
    if about.get("param", "symbol") != "symbol":
        told = f"{about['param']} {about.get('value')}: {about.get('problem')}"
    if about.get("nearest"):
        told += f"; did you mean {' or '.join(map(str, about['nearest']))}?"
    return disarmed(told)


async def follow(url: str, tail: Tail, show: Show) -> None:
    """Show the stream of `tail` until it is done, and reconnect after lost connections.

    Raises Mistake when no daemon answers the first attempt, or when it refuses a symbol; Failure when its
    messages cannot be understood.
    """
    delay, met = RETRY_FIRST, False
    while not tail.done:
        try:
            await _converse(url, tail, show)
        except ConnectionClosed as closed:
            delay, met = RETRY_FIRST, True
            show.news(f"disconnected ({_why(closed)}), coming back")
        except Unreadable as error:
            raise Failure(f"{url} says what this client does not understand: {error}") from None
        except ServerFault as fault:
            delay, met = RETRY_FIRST, True
            show.news(f"a fault of the daemon ({fault}), coming back")
        except _Unreachable as error:
            if not met:
                raise Mistake(_unreachable(url, error.__cause__)) from None
            delay = min(delay * 2, RETRY_MOST)
        else:
            return
        _flush()
        await trio.sleep(_pause(tail, delay))


def _pause(tail: Tail, delay: float) -> float:
    """Seconds to wait: told by the daemon, or `delay` and a random part, so that not all return at once."""
    told, tail.sent_away = tail.sent_away, None
    return delay * random.uniform(1.0, 2.0) if told is None else min(told, TOLD_MOST)


async def _converse(url: str, tail: Tail, show: Show) -> None:
    try:
        async with _connected(url) as socket:
            if tail.resumes:
                show.news("connected again")
            for request in tail.requests():
                await socket.send_message(request)
            while not tail.done:
                tail.take(await socket.get_message(), show)
                _flush()
    except BaseExceptionGroup as group:
        raise only(group) from None


def _why(closed: ConnectionClosed) -> str:
    told = closed.reason
    if told is None or told.code == _BROKEN:
        return "without a word"
    return str(told.reason or told.name.lower().replace("_", " "))


class _Unreachable(Exception):
    """No connection is possible; the cause has the reason."""


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[WebSocketConnection]:
    """A connection. Closes its socket also after a refused handshake; `open_websocket_url` would not."""
    try:
        async with await _stream(url) as stream, trio.open_nursery() as nursery:
            with trio.fail_after(OPEN_WITHIN):
                socket = await wrap_client_stream(
                    nursery, stream, urlsplit(url).netloc, urlsplit(url).path, max_message_size=LARGEST_ANSWER
                )
            yield socket
            with trio.move_on_after(CLOSE_WITHIN):
                await socket.aclose()
            nursery.cancel_scope.cancel()
    except* (HandshakeError, trio.TooSlowError) as group:
        raise _Unreachable from only(group)


async def _stream(url: str) -> Any:
    parts = urlsplit(url)
    host, secure = parts.hostname or "", parts.scheme == "wss"
    opened = trio.open_ssl_over_tcp_stream if secure else trio.open_tcp_stream
    try:
        with trio.fail_after(OPEN_WITHIN):
            stream = await opened(host, parts.port or (443 if secure else 80))
            if isinstance(stream, trio.SSLStream):
                await _shake_hands(stream)
            return stream
    except OSError as error:  # only here: a closed standard output is an OSError as well
        raise _Unreachable from error


async def _shake_hands(stream: trio.SSLStream[trio.SocketStream]) -> None:
    """Done here and not with the first message, so that an error is known to come from TLS."""
    try:
        await stream.do_handshake()
    except trio.BrokenResourceError as error:
        await trio.aclose_forcefully(stream)
        raise _Unreachable from error.__cause__


def _flush() -> None:
    sys.stdout.flush()


def _unreachable(url: str, error: BaseException | None) -> str:
    if isinstance(error, ConnectionRejected):
        return f"{url} answers with status {error.status_code}, it is not a dataflow daemon"
    return not_running(url, error)
