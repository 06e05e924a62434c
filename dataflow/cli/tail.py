"""`tail`: live trades, for people or for a pipe.

Rules of this file: `Tail` decides without I/O. The link of the client (`dataflow.client.link`) connects, and
goes on behind the position of every symbol after a lost connection. What the daemon cannot bring back, or
takes back, tail says. The same news of many symbols are one line. Text from the daemon reaches the terminal
as text, never as an escape code.
"""

from __future__ import annotations

import os
import ssl
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import islice
from typing import Annotated

import msgspec
from cyclopts import Parameter

from dataflow.client import (
    EVERY,
    CallError,
    Client,
    Connection,
    Event,
    Filled,
    Gap,
    Notice,
    Quality,
    Refused,
    Rewound,
    Subscribed,
    Trade,
    Unreachable,
    Unreadable,
)
from dataflow.client.address import address_of
from dataflow.client.client import TRADES
from dataflow.client.link import FAULT, Link
from dataflow.client.socket import reason_of
from dataflow.logs.terminal import disarmed, wants_colour
from dataflow.sources.vitals import UNHEARD

from .columns import WIDTH, Columns, in_words
from .common import Json, Url, daemon_url, not_running, until_interrupted
from .ends import Failure, Mistake, wrong

RETRY_FIRST, RETRY_MOST = 0.5, 5.0  # seconds between attempts to reconnect; random, up to twice as long
WORTH_A_WORD = ("quiet", "refilling", "gapped", "stalled")  # losses and refusals have notices of their own
APART, NAMED = 5, 3  # symbols with a line each; of more so many have their names in the one line
NOTHING = "no trade so far, waiting for the first one"
COMING = ("connecting", "subscribing", UNHEARD)  # reasons of a source that is not down but will be there soon
WELL = ("live", "standby")


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
    if count is not None and count < 1:
        raise wrong("--count", count, "at least 1")
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
    """For people: aligned columns, coloured sides. The numbers of a symbol have equally many digits."""

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
        self.core = Client(keep=0)
        self._told_down: set[str] = set()  # sources that were reported as down on this connection
        self._met: set[tuple[str, str]] = set()  # symbols and sources whose state came on this connection
        self._down: set[str] = set()  # symbols without a source, of which that is said
        self._told_states: dict[tuple[str, str], str] = {}  # by symbol and source, if worth a word
        self._unsaid: dict[str, dict[str, None]] = {}  # words, and the symbols of which they are to be said
        for symbol in symbols:
            self.core.follow(symbol, snapshot=snapshot)
        for symbol in symbols:
            self.core.follow(symbol, "quality")

    @property
    def done(self) -> bool:
        return self.left is not None and self.left <= 0

    def connection(self, connection: Connection, show: Show) -> None:
        """Say what becomes of the connection. Attempts that fail are no news: the loss was."""
        self.tell(show)
        if connection.state == "connected":
            self._told_down.clear()
            self._met.clear()
            if any(stream.since for stream in self.core.streams.values()):
                show.news("connected again")
        elif connection.state == "lost" and connection.code is not None:
            show.news(f"disconnected ({connection.reason}), coming back")
        elif connection.state == "lost" and str(connection.reason).startswith(FAULT):
            show.news(f"{connection.reason}, coming back")

    def take(self, event: Event, raw: bytes, show: Show) -> None:
        """Show an event. `raw`: its text. Raises Mistake when the daemon refuses a symbol."""
        if self.done:
            return
        if not isinstance(event, Subscribed | Quality):
            self.tell(show)
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
            case Subscribed(topic=(channel, symbol, _), newest=0):
                if channel == TRADES and symbol not in self._down:
                    self._say(symbol, NOTHING, show)
            case Quality():
                self._source(event, show)
                self._state(event, show)
            case Notice():
                show.notice(event.method, raw)
            case Refused():
                raise Mistake(refusal(event))

    def _source(self, quality: Quality, show: Show) -> None:
        """Report a source without a connection, if the first state of a symbol says so: its `connection.lost`
        was sent before this client came. Of a later end it tells itself."""
        key, name = (quality.symbol, quality.source), quality.source
        down = quality.state == "lost" and quality.reason not in COMING
        (self._down.add if down else self._down.discard)(quality.symbol)
        if down and key not in self._met and name not in self._told_down:
            self._told_down.add(name)
            self.tell(show)
            show.news(f"{name}: no connection ({quality.reason}), the daemon tries again")
        self._met.add(key)

    def _state(self, quality: Quality, show: Show) -> None:
        """Report how a symbol fares. That it is live needs no word behind a silence: its trade shows it."""
        key = quality.symbol, quality.source
        before, state = self._told_states.get(key), quality.state
        if state == before or quality.reason in COMING:  # whether it comes will show
            return
        if state in WORTH_A_WORD:
            self._told_states[key] = state
        elif self._told_states.pop(key, "quiet") == "quiet" or state not in WELL:
            return
        reason = f" ({quality.reason})" if quality.reason else ""
        self._say(quality.symbol, f"{state} at {quality.source}{reason}", show)

    def _say(self, symbol: str, words: str, show: Show) -> None:
        """Of a symbol, with others of which the same is to be said."""
        if any(symbol in symbols for said, symbols in self._unsaid.items() if said != NOTHING):
            self.tell(show)  # its states keep their order
        self._unsaid.setdefault(words, {})[symbol] = None

    def tell(self, show: Show) -> None:
        """Say what is the same of several symbols: they are thousands where all are followed."""
        for words, symbols in self._unsaid.items():
            for symbol in symbols if len(symbols) <= APART else ():
                show.news(f"{symbol}: {words}")
            if len(symbols) > APART:
                show.news(f"{', '.join(islice(symbols, NAMED))} and {len(symbols) - NAMED:,} more: {words}")
        self._unsaid.clear()


def refusal(refused: Refused) -> str:
    """A refused subscription in one line, with the valid values."""
    about = None if refused.topic is None else refused.topic.symbol
    return disarmed(str(CallError(refused.code, refused.message, refused.data, about)))


async def follow(url: str, tail: Tail, show: Show) -> None:
    """Show the stream of `tail` until it is done, and reconnect after lost connections.

    Raises Mistake when no daemon answers the first attempt, or when it refuses a symbol; Failure when its
    messages cannot be understood.
    """
    try:
        link = Link(
            address_of(url), tail.core, tail.core.read, retry_first=RETRY_FIRST, retry_most=RETRY_MOST
        )
        async with link:
            async for news in link:
                if isinstance(news, Connection):
                    tail.connection(news, show)
                for event, raw in () if isinstance(news, Connection) else news:
                    tail.take(event, raw, show)
                tail.tell(show)
                sys.stdout.flush()
                if tail.done:
                    return
    except ValueError as error:
        raise Mistake(str(error)) from None
    except Unreachable as error:
        raise Mistake(str(error) if error.status else not_running(url, _cause(error))) from None
    except Unreadable as error:
        raise Failure(f"{url} says what this client does not understand: {error}") from None


def _cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error if isinstance(error, ssl.SSLError) else Exception(reason_of(error))
