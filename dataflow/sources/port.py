"""What can be plugged into dataflow, and the contract that a plug has to keep.

A source is one module. It defines two names, and nothing else has to know it:

* `Settings`: an attrs class derived from `SourceSettings`, the keys of its `[sources.NAME]` block;
* `Codec`: a class that satisfies the protocol below, built as `Codec(name, settings)` anew for every
  connection, so that whatever it counts per connection starts from nothing.

`connector = "blockchain"` in the configuration finds `dataflow.connectors.blockchain`; a dotted
name (`connector = "my_feeds.acme"`) finds a module of the user's.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from attrs import field, frozen, validators

from actors.connector import Received
from dataflow.domain import Item, Missed


@frozen(kw_only=True)
class SourceSettings:
    """Keys that every `[sources.NAME]` block has. Durations are seconds."""

    connector: str
    url: str
    symbols: tuple[str, ...] = ()
    eager: bool = False  # subscribe upstream at start, also while no client is interested
    stale_after: float = field(default=15.0, validator=validators.gt(0))
    connect_within: float = field(default=10.0, validator=validators.gt(0))
    subscribe_within: float = field(default=10.0, validator=validators.gt(0))
    linger: float = field(default=30.0, validator=validators.ge(0))
    max_message_bytes: int = field(default=1 << 20, validator=validators.gt(0))


class Codec(Protocol):
    """The language of one upstream, for one connection: pure, no I/O, no clock, no retry."""

    def headers(self) -> Collection[tuple[str, str]]:
        """HTTP headers for the handshake."""

    def opening(self) -> Sequence[str]:
        """Messages to send once, right after the connection opened."""

    def subscribe(self, symbols: Collection[str]) -> Sequence[str]:
        """Messages that ask for the trades of `symbols` (BASE-QUOTE)."""

    def unsubscribe(self, symbols: Collection[str]) -> Sequence[str]:
        """Messages that end it."""

    def probe(self) -> Sequence[str]:
        """Messages that a living upstream answers, for when it is silent; none when it has heartbeats."""

    def decode(self, message: str | bytes, into: Received[Item]) -> None:
        """Add what `message` says to `into`: append trades to `into.items`, and tell answers with
        `into.subscribed(*symbols)`, `into.unsubscribed(*symbols)` and `into.refused(reason, *symbols)`.
        Never raises for what came from outside: what cannot be understood is added as a problem, and
        what ends the connection is set as `into.lost`. A refusal of several symbols at once is not
        taken for one of each: they are asked for again in smaller parts."""

    def missed(self, symbol: str) -> Missed | None:
        """The mark to leave when `symbol` was (re)subscribed; None when the trades' sequence proves gaps.

        With `resubscribed=True` a replay that comes through the newest trade we have takes it back.
        """
