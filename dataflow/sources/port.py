"""The port for sources, and the contract of a connector.

A connector is one module with two names, or three. No other file names the module.

* `Settings`: an attrs class, the keys of its `[sources.NAME]` block. It is derived from `SourceSettings` for
  an upstream that we connect to, from `ListenerSettings` for producers that connect to us, or from
  `PushSettings` for producers that push by HTTP.
* `Codec`: a class that satisfies the protocol `Codec` or `Intaker` below. It is made again for every
  connection or request, so its counters start at nothing: `Codec(name, settings)`; for producers it is
  `Codec(settings, judge)`.

* `Filler`: if the upstream can be asked for past trades by HTTP, a class that satisfies the protocol `Filler`
  below. It is made once for each use: `Filler(name, settings)`.

One for producers may have `about(settings)`, as a face has: samples for the page `/faces`.

`connector = "blockchain"` in the configuration finds `dataflow.connectors.blockchain`. A dotted name
(`connector = "my_feeds.acme"`) finds a module of the user. The way of the bytes is a module too, a file in
`dataflow/transports`, which the settings name.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from enum import StrEnum
from typing import Any, ClassVar, Final, Literal, NamedTuple, Protocol, TypeAlias
from urllib.parse import urlsplit

from attrs import Factory, field, frozen, validators

from actors.connector import Received
from dataflow.domain import Item, Missed, Missing, Side, Trade
from dataflow.domain.symbols import ANY, BASE_QUOTE, Form
from dataflow.net.ip import is_this_machine

SHORTEST_TOKEN: Final = 16  # characters
TICKER: Final = Form(r"[A-Z0-9][A-Z0-9._:-]{0,31}", "capitals, digits and . _ : -, at most 32")


class Proof(StrEnum):
    """What proves that no trade of a source was lost, in words for people."""

    NUMBERS = "trades are numbered: one that is lost shows"
    MESSAGES = "messages are numbered: one that is lost while connected shows"
    OVERLAP = "each answer reaches back to the one before it: a loss shows"
    NOTHING = "cannot prove completeness: a message that is lost while connected leaves no trace"
    PRODUCERS = "cannot prove completeness: what a producer does not push is not known"

    @property
    def is_complete(self) -> bool:
        """Whether anything proves it."""
        return self not in (Proof.NOTHING, Proof.PRODUCERS)


@frozen(kw_only=True)
class AnySourceSettings:
    """Keys that every `[sources.NAME]` block has, and what is asked of the settings of any source."""

    symbol_form: ClassVar[Form]  # of the symbols; see `domain.symbols`

    connector: str
    symbols: tuple[str, ...] = ()

    @property
    def transport(self) -> str:
        """The way of the bytes: a file in `dataflow/transports`."""
        raise NotImplementedError

    @property
    def address(self) -> str:
        """Where the data comes from, as an address that may hold secrets."""
        raise NotImplementedError

    @property
    def proof(self) -> Proof:
        """What proves that nothing is missing."""
        raise NotImplementedError

    @property
    def eager(self) -> bool:
        """Whether its symbols are wanted from the start."""
        return False

    @property
    def linger(self) -> float:
        """Seconds for which a topic of its outlives the last client."""
        return 0.0


def place(url: str) -> tuple[str, str] | None:
    """Host and path of an address, for a connector that reads more from it.

    None if it is not whole. The check of the configuration tells that, so a validator must not, too.
    """
    with suppress(ValueError):  # an invalid IPv6 address
        parts = urlsplit(url)
        if parts.hostname:
            return parts.hostname, parts.path
    return None


def is_here(url: str) -> bool:
    """Whether an address is on this machine: that of a simulated exchange, or of a tunnel."""
    where = place(url)
    return where is not None and is_this_machine(where[0])


def rest_at(known: str) -> Any:
    """The key `refill_url` of a connector: the REST that it knows.

    Empty if the upstream is on this machine: the exchange knows nothing of what a simulated one has sent.
    """
    return field(default=Factory(lambda self: "" if is_here(self.url) else known, takes_self=True))


def told_apart(settings: SourceSettings, _attribute: object, symbols: tuple[str, ...]) -> None:
    """A validator: no two symbols have one name at the exchange, or the way back would be a guess."""
    names: dict[str, str] = {}
    for symbol in symbols:
        name = settings.exchange_name(symbol)
        if (other := names.setdefault(name, symbol)) != symbol:
            raise ValueError(f"must not hold {other} and {symbol}: both have the same name there, {name}")


@frozen(kw_only=True)
class SourceSettings(AnySourceSettings):
    """Keys of an upstream that we connect to. Durations are seconds.

    A connector sets other defaults where its upstream has such bounds or habits. `config/server.toml` tells
    what each key does. The class attributes are what the upstream takes, and nobody may choose:

    `symbols_a_request`: symbols that one request may name. `symbols_a_connection`: symbols, or streams, on
    one connection; more need more connections. `connections_in`: so many new connections within so many
    seconds; 0: any number. `weight_header`: the header of its REST that tells the weight used in this minute.
    """

    symbols_a_request: ClassVar[int] = sys.maxsize
    symbols_a_connection: ClassVar[int] = sys.maxsize
    connections_in: ClassVar[tuple[int, float]] = (0, 1.0)
    weight_header: ClassVar[str | None] = None
    symbol_form: ClassVar[Form] = BASE_QUOTE

    url: str
    symbols: tuple[str, ...] = field(default=(), validator=told_apart)
    transport: Literal["websocket", "rest"] = "websocket"
    names: Mapping[str, str] = Factory(dict)  # canonical: the exchange's own, where it cannot be derived
    eager: bool = False  # subscribe upstream at the start, even without a subscribed client
    stale_after: float = field(default=15.0, validator=validators.gt(0))
    stall_after: float = field(default=0.0, validator=validators.ge(0))
    connect_within: float = field(default=10.0, validator=validators.gt(0))
    subscribe_within: float = field(default=10.0, validator=validators.gt(0))
    linger: float = field(default=30.0, validator=validators.ge(0))
    max_message_bytes: int = field(default=1 << 20, validator=validators.gt(0))
    requests_per_second: int = field(default=0, validator=validators.ge(0))
    lines: int = field(default=1, validator=[validators.ge(1), validators.le(4)])
    rotate_after: float = field(default=0.0, validator=validators.ge(0))
    proxy: str = field(default="", repr=False)  # it may hold a password
    refill: bool = True
    refill_url: str = ""
    refill_weight: int = field(default=1200, validator=validators.gt(0))
    refill_within: float = field(default=600.0, validator=validators.ge(0))
    hold: float = field(default=2.0, validator=[validators.ge(0), validators.le(60)])
    poll_interval: float = field(default=1.0, validator=validators.gt(0))

    @property
    def address(self) -> str:
        return self.refill_url if self.transport == "rest" else self.url

    @property
    def numbered(self) -> Proof:
        """What the numbers of its stream prove. A connector overrides it."""
        return Proof.NOTHING

    @property
    def proof(self) -> Proof:
        by_answers = self.transport == "rest" and self.numbered is not Proof.NUMBERS
        return Proof.OVERLAP if by_answers else self.numbered

    def exchange_name(self, symbol: str) -> str:
        """What the exchange calls `symbol`: as `names` say, else derived."""
        return self.names.get(symbol) or self.derived(symbol)

    def derived(self, symbol: str) -> str:
        """The name that follows from the canonical one. A connector overrides it."""
        return symbol


def can_be_asked(settings: AnySourceSettings) -> bool:
    """Whether the source has a REST for questions: its connector a `Filler`, and its settings an address."""
    has_filler = hasattr(sys.modules[type(settings).__module__], "Filler")
    return isinstance(settings, SourceSettings) and has_filler and bool(settings.refill_url)


@frozen(kw_only=True)
class ProducerSettings(AnySourceSettings):
    """Keys of a source whose producers come to us. `symbols`: those that they may send; `ANY` alone: any.

    `max_symbols`: with `ANY`, so many different ones.
    """

    symbol_form: ClassVar[Form] = Form(rf"\*|{TICKER.pattern}", f'{TICKER.words}; or "*", which is any')

    symbols: tuple[str, ...] = field(default=(ANY,))
    max_symbols: int = field(default=1000, validator=validators.gt(0))

    @property
    def proof(self) -> Proof:
        return Proof.PRODUCERS

    @symbols.validator
    def _any_or_some(self, _attribute: object, value: tuple[str, ...]) -> None:
        if ANY in value and len(value) > 1:
            raise ValueError(f'must be ["{ANY}"], or symbols; they do not go together')


@frozen(kw_only=True)
class ListenerSettings(ProducerSettings):
    """Keys of producers that connect to us. `max_connections`: producers at once."""

    host: str = "127.0.0.1"
    port: int = field(default=9000, validator=[validators.ge(0), validators.le(65535)])
    max_connections: int = field(default=100, validator=validators.gt(0))

    @property
    def transport(self) -> str:
        return "tcp_listener"

    @property
    def address(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp://{host}:{self.port}"


@frozen(kw_only=True)
class PushSettings(ProducerSettings):
    """Keys of producers that push by HTTP, to `POST /api/v1/ingest/NAME`.

    `token`: the producers' own; without one only this machine may push. `max_requests`: at once; one address
    gets half of them.
    """

    token: str | None = field(default=None, repr=False)
    max_requests: int = field(default=8, validator=validators.gt(0))

    @token.validator
    def _is_long_enough(self, _attribute: object, value: str | None) -> None:
        if value is not None and len(value) < SHORTEST_TOKEN:
            raise ValueError(f"must have at least {SHORTEST_TOKEN} characters: a shorter one can be guessed")

    @property
    def transport(self) -> str:
        return "http_push"

    @property
    def address(self) -> str:
        return "/api/v1/ingest"


def codec_class(settings: AnySourceSettings) -> Any:
    """`Codec` stands beside the `Settings` that the configuration found."""
    return sys.modules[type(settings).__module__].Codec


class Codec(Protocol):
    """The language of one upstream, for one connection: pure, no I/O, no clock, no retry."""

    def headers(self) -> Collection[tuple[str, str]]:
        """HTTP headers for the handshake."""

    def opening(self) -> Sequence[str]:
        """Messages to send once, right after the connection has opened."""

    def subscribe(self, symbols: Collection[str]) -> Sequence[str]:
        """Messages that subscribe to the trades of `symbols`, by their canonical names: at least one, and at
        most `symbols_a_request`."""

    def unsubscribe(self, symbols: Collection[str]) -> Sequence[str]:
        """Messages that unsubscribe from them, as many at once."""

    def probe(self) -> Sequence[str]:
        """Messages that a living upstream answers, sent when it is silent. None if it has heartbeats."""

    def decode(self, message: str | bytes, into: Received[Item]) -> None:
        """Add the content of `message` to `into`.

        Append trades to `into.items`. Report answers with `into.subscribed(*symbols)`,
        `into.unsubscribed(*symbols)` and `into.refused(reason, *symbols)`. Report a refusal of several
        symbols as one: the connector asks for them again in smaller parts. If the upstream announces its end,
        set `into.leaving` to its words: another connection is made before that.

        Never raises because of a message. Append a message that cannot be understood to `into.problems`, as
        (reason, excerpt). If the connection must end, set `into.lost` to the reason.
        """

    def missed(self, symbol: str) -> Missed | None:
        """The mark for a new subscription of `symbol`. None if the trades have a sequence, which proves gaps.

        With `resubscribed=True`, a replay that passes our newest trade takes the mark back.
        """


@frozen
class Request:
    """A GET for the REST of an upstream. `path`: with its query, behind `refill_url`, and beginning with "/".

    `weight`: what it costs, as the upstream counts.
    """

    path: str
    weight: int = 1


@frozen
class Page:
    """What one answer says. `trades`: oldest first, as far as they answer the question.

    `following`: the request for the next part of the answer, older or newer; None: this was all of it.
    """

    trades: Sequence[Trade]
    following: Request | None = None


@frozen
class Newest:
    """What an upstream tells of its newest trade in a symbol, as far as it does. `timestamp`: ns since epoch.

    The time may be later than the trade, if the upstream gives only that of its answer; then it is None.
    """

    sequence: int | None = None
    trade_id: str | None = None
    timestamp: int | None = None

    @classmethod
    def of(cls, trade: Trade) -> Newest:
        """What a trade says of itself."""
        return cls(trade.sequence, trade.trade_id, trade.timestamp)


RATE_LIMITED: Final = "rate_limited"  # the reason of an Unusable: asked too often


class Filler(Protocol):
    """The language of an upstream's REST: pure, no I/O, no clock, no state between two questions.

    It is never believed: whoever asks refuses ids and times outside of the question, other symbols, and two
    values for one id. So it only reads. A method that reads an answer raises Unusable for one that cannot be
    used, and for an error that the upstream tells with HTTP status 200 (`RATE_LIMITED` for one of them).
    """

    def fill(self, missing: Missing) -> Request | None:
        """The first request for trades that are missing; None if they cannot be had.

        The answer should hold `missing.after` and `missing.before` too, as far as they are known: that they
        are in it proves for a source without sequences that nothing is missing. Without `after`: the newest
        trades. Without `before`: up to now.
        """

    def filled(self, missing: Missing, request: Request, answer: bytes) -> Page:
        """What an answer says. Trades that nobody asked for are left out where the upstream cannot be asked
        exactly (the last hour, the newest thousand), and only there."""

    def latest(self, symbols: Sequence[str]) -> Request | None:
        """The request for the newest trade of the first of `symbols`, and of as many others as it can tell.

        None: there is no such request.
        """

    def newest(self, symbols: Sequence[str], answer: bytes) -> Mapping[str, Newest]:
        """What the answer says of `symbols`. One without any trade is left out."""


def filler_of(name: str, settings: SourceSettings) -> Filler | None:
    """The questions to a source's REST; None if it has none, or none is configured."""
    made = getattr(sys.modules[type(settings).__module__], "Filler", None)
    return made(name, settings) if made is not None and settings.refill_url else None


class Tick(Protocol):
    """A trade as a producer reports it, unchecked. `exchange_timestamp`: ns since the epoch."""

    symbol: str
    price: float
    volume: int
    exchange_timestamp: int


class Pushed(NamedTuple):
    """A trade as a producer reports it, read but not judged. `symbol`: as it was written."""

    symbol: str
    price: Decimal
    quantity: Decimal
    timestamp: int
    side: Side | None = None
    trade_id: str | None = None
    sequence: int | None = None


# Each raises Unusable. The first is that of ListenerSettings, the second that of PushSettings.
Judge: TypeAlias = Callable[[Tick], Trade]
PushJudge: TypeAlias = Callable[[Pushed], Trade]


class Intaker(Protocol):
    """The language of producers, for one connection: pure, no I/O, no clock. Producers get no answer."""

    def decode(self, data: bytes, into: Received[Item]) -> None:
        """Add the content of the next bytes to `into`, whatever they end in the middle of.

        Append trades to `into.items`, and what cannot be used to `into.problems`, as (reason, excerpt). If
        the connection must end, set `into.lost` to the reason. Never raises because of the bytes.
        """

    @property
    def whole(self) -> int:
        """The messages that have come so far, good or bad."""

    @property
    def begun(self) -> bool:
        """Whether a message has begun that is not whole yet."""
