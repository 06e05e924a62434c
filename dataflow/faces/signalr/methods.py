"""The methods of JSON-RPC as the hub has them: with the words and bounds that its clients know.

Rules of this file: what differs from `faces.jsonrpc.methods`, and nothing else. Symbols are canonical names;
the channel is `trades`.
"""

from __future__ import annotations

from typing import Any, Final

from attrs import frozen

from dataflow.domain import Topic
from dataflow.domain.topic import TRADES
from dataflow.faces.jsonrpc import messages
from dataflow.faces.jsonrpc.methods import Calls
from dataflow.faces.jsonrpc.protocol import Long, Methods
from dataflow.gateway.problems import InvalidValue

_SHOWN: Final = 80  # characters of a wrong symbol in the words


@frozen(kw_only=True)
class Subscribe:
    symbol: str | None = None
    channel: str = TRADES
    snapshot: int | None = None
    since: dict[str, Any] | None = None
    batch: bool = False  # means nothing here: a client never gets an array


@frozen(kw_only=True)
class Unsubscribe:
    symbol: str | None = None
    channel: str = TRADES


@frozen(kw_only=True)
class RecentTrades:
    symbol: str | None = None
    count: int | None = None
    beforeTimestamp: str | None = None  # noqa: N815 - the public contract's spelling
    afterTimestamp: str | None = None  # noqa: N815


class HubCalls(Calls):
    """One client's calls."""

    __slots__ = ("max_recent",)

    max_recent: int  # trades in one answer

    async def hub_subscribe(self, params: Subscribe) -> Long:
        _check_channel(params.channel)
        symbol = self._known(params.symbol)
        return await self.subscribe(
            messages.Subscribe(symbol=symbol, snapshot=params.snapshot, since=params.since)
        )

    async def hub_unsubscribe(self, params: Unsubscribe) -> Any:
        _check_channel(params.channel)
        symbol = _named(params.symbol)
        if not self.subscriptions.follows(Topic(TRADES, symbol)):  # one that is followed may have left
            self._known(symbol)
        return await self.unsubscribe(messages.Unsubscribe(symbol=symbol))

    async def hub_recent_trades(self, params: RecentTrades) -> Long:
        symbol = self._known(params.symbol)
        count = self.max_recent if params.count is None else params.count
        if not 1 <= count <= self.max_recent:
            raise InvalidValue("count", count, f"Count must be between 1 and {self.max_recent}")
        before = None if params.afterTimestamp is not None else params.beforeTimestamp
        return await self.recent_trades(
            messages.RecentTrades(
                symbol=symbol, count=count, beforeTimestamp=before, afterTimestamp=params.afterTimestamp
            )
        )

    def _known(self, symbol: str | None) -> str:
        """Raises InvalidValue when no source is configured to carry `symbol`."""
        named = _named(symbol)
        try:
            self.hall.desk.check_symbol(named)
        except InvalidValue as problem:
            words = {"problem": f"Invalid symbol: {named[:_SHOWN]}"}
            raise InvalidValue(**(problem.data | words)) from None
        return named


def _named(symbol: str | None) -> str:
    if not symbol:
        raise InvalidValue("symbol", symbol, "Symbol is required")
    return symbol


def _check_channel(channel: str) -> None:
    if channel != TRADES:
        raise InvalidValue("channel", channel, "Only 'trades' channel is supported", valid=[TRADES])


# One table for all clients, as in `faces.jsonrpc.methods`.
METHODS: Final = Methods(
    subscribe=(Subscribe, HubCalls.hub_subscribe),
    unsubscribe=(Unsubscribe, HubCalls.hub_unsubscribe),
    getRecentTrades=(RecentTrades, HubCalls.hub_recent_trades),
    getSymbols=(None, Calls.symbols),
    getStatus=(None, Calls.status),
    ping=(None, Calls.ping),
)
