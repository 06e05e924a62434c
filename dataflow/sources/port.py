"""The port for sources, and the contract of a connector.

A connector is one module with two names. No other file names the module.

* `Settings`: an attrs class, the keys of its `[sources.NAME]` block. It is derived from `SourceSettings` for
  an upstream that we connect to, or from `ListenerSettings` for producers that connect to us.
* `Codec`: a class that satisfies the protocol `Codec` or `Intaker` below. It is made again for every
  connection, so its counters start at nothing: `Codec(name, settings)`; for producers it is
  `Codec(settings, judge)`.

One for producers may have a third, `about(settings)`, as a face has: samples for the page `/faces`.

`connector = "blockchain"` in the configuration finds `dataflow.connectors.blockchain`. A dotted name
(`connector = "my_feeds.acme"`) finds a module of the user. The way of the bytes is a module too, a file in
`dataflow/transports`, which the settings name.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Sequence
from typing import ClassVar, Final, Protocol, TypeAlias

from attrs import field, frozen, validators

from actors.connector import Received
from dataflow.domain import Item, Missed, Trade
from dataflow.domain.symbols import ANY, BASE_QUOTE, Form

TICKER: Final = Form(r"[A-Z0-9][A-Z0-9._:-]{0,31}", "capitals, digits and . _ : -, at most 32")


@frozen(kw_only=True)
class AnySourceSettings:
    """Keys that every `[sources.NAME]` block has, and what is asked of the settings of any source."""

    transport: ClassVar[str]  # a file in `dataflow/transports`
    symbol_form: ClassVar[Form]  # of the symbols; see `domain.symbols`

    connector: str
    symbols: tuple[str, ...] = ()

    @property
    def address(self) -> str:
        """Where the data comes from, as an address that may hold secrets."""
        raise NotImplementedError

    @property
    def eager(self) -> bool:
        """Whether its symbols are wanted from the start."""
        return False

    @property
    def linger(self) -> float:
        """Seconds for which a topic of its outlives the last client."""
        return 0.0


@frozen(kw_only=True)
class SourceSettings(AnySourceSettings):
    """Keys of an upstream that we connect to. Durations are seconds.

    `requests_per_second`: the frames that the upstream takes on one connection within any one second, pongs
    included; 0: any number. A connector whose upstream has such bounds sets other defaults.
    """

    transport: ClassVar[str] = "websocket"
    symbols_a_request: ClassVar[int] = sys.maxsize  # that one request may name
    symbol_form: ClassVar[Form] = BASE_QUOTE

    url: str
    eager: bool = False  # subscribe upstream at the start, even without a subscribed client
    stale_after: float = field(default=15.0, validator=validators.gt(0))
    connect_within: float = field(default=10.0, validator=validators.gt(0))
    subscribe_within: float = field(default=10.0, validator=validators.gt(0))
    linger: float = field(default=30.0, validator=validators.ge(0))
    max_message_bytes: int = field(default=1 << 20, validator=validators.gt(0))
    requests_per_second: int = field(default=0, validator=validators.ge(0))

    @property
    def address(self) -> str:
        return self.url


@frozen(kw_only=True)
class ListenerSettings(AnySourceSettings):
    """Keys of producers that connect to us. `symbols`: those that they may send; `ANY` alone: any.

    `max_symbols`: with `ANY`, so many different ones. `max_connections`: producers at once.
    """

    transport: ClassVar[str] = "tcp_listener"
    symbol_form: ClassVar[Form] = Form(rf"\*|{TICKER.pattern}", f'{TICKER.words}; or "*", which is any')

    host: str = "127.0.0.1"
    port: int = field(default=9000, validator=[validators.ge(0), validators.le(65535)])
    symbols: tuple[str, ...] = field(default=(ANY,))
    max_symbols: int = field(default=1000, validator=validators.gt(0))
    max_connections: int = field(default=100, validator=validators.gt(0))

    @symbols.validator
    def _any_or_some(self, _attribute: object, value: tuple[str, ...]) -> None:
        if ANY in value and len(value) > 1:
            raise ValueError(f'must be ["{ANY}"], or symbols; they do not go together')

    @property
    def address(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp://{host}:{self.port}"


class Codec(Protocol):
    """The language of one upstream, for one connection: pure, no I/O, no clock, no retry."""

    def headers(self) -> Collection[tuple[str, str]]:
        """HTTP headers for the handshake."""

    def opening(self) -> Sequence[str]:
        """Messages to send once, right after the connection has opened."""

    def subscribe(self, symbols: Collection[str]) -> Sequence[str]:
        """Messages that subscribe to the trades of `symbols`, by their canonical names."""

    def unsubscribe(self, symbols: Collection[str]) -> Sequence[str]:
        """Messages that unsubscribe from them."""

    def probe(self) -> Sequence[str]:
        """Messages that a living upstream answers, sent when it is silent. None if it has heartbeats."""

    def decode(self, message: str | bytes, into: Received[Item]) -> None:
        """Add the content of `message` to `into`.

        Append trades to `into.items`. Report answers with `into.subscribed(*symbols)`,
        `into.unsubscribed(*symbols)` and `into.refused(reason, *symbols)`. Report a refusal of several
        symbols as one: the connector asks for them again in smaller parts. If the upstream announces its end,
        set `into.leaving` to its words: a new connection is made at once.

        Never raises because of a message. Append a message that cannot be understood to `into.problems`, as
        (reason, excerpt). If the connection must end, set `into.lost` to the reason.
        """

    def missed(self, symbol: str) -> Missed | None:
        """The mark for a new subscription of `symbol`. None if the trades have a sequence, which proves gaps.

        With `resubscribed=True`, a replay that passes our newest trade takes the mark back.
        """


class Tick(Protocol):
    """A trade as a producer reports it, unchecked. `exchange_timestamp`: ns since the epoch."""

    symbol: str
    price: float
    volume: int
    exchange_timestamp: int


Judge: TypeAlias = Callable[[Tick], Trade]  # raises Unusable


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
