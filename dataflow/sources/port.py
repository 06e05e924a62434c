"""The port for sources, and the contract of a connector.

A connector is one module with two names. No other file names the module.

* `Settings`: an attrs class derived from `SourceSettings`, the keys of its `[sources.NAME]` block.
* `Codec`: a class that satisfies the protocol below. `Codec(name, settings)` is made again for every
  connection, so its counters start at nothing.

`connector = "blockchain"` in the configuration finds `dataflow.connectors.blockchain`. A dotted name
(`connector = "my_feeds.acme"`) finds a module of the user.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from typing import ClassVar, Protocol

from attrs import field, frozen, validators

from actors.connector import Received
from dataflow.domain import Item, Missed
from dataflow.domain.symbols import BASE_QUOTE, Form


@frozen(kw_only=True)
class SourceSettings:
    """Keys that every `[sources.NAME]` block has. Durations are seconds.

    `requests_per_second`: the frames that the upstream takes on one connection within any one second, pongs
    included; 0: any number. A connector whose upstream has such bounds sets other defaults.
    """

    symbols_a_request: ClassVar[int] = sys.maxsize  # that one request may name
    symbol_form: ClassVar[Form] = BASE_QUOTE  # of the symbols; see `domain.symbols`

    connector: str
    url: str
    symbols: tuple[str, ...] = ()
    eager: bool = False  # subscribe upstream at the start, even without a subscribed client
    stale_after: float = field(default=15.0, validator=validators.gt(0))
    connect_within: float = field(default=10.0, validator=validators.gt(0))
    subscribe_within: float = field(default=10.0, validator=validators.gt(0))
    linger: float = field(default=30.0, validator=validators.ge(0))
    max_message_bytes: int = field(default=1 << 20, validator=validators.gt(0))
    requests_per_second: int = field(default=0, validator=validators.ge(0))


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
