"""What clients are told, as bytes: the notifications of the public contract.

Rules of this file: encoding only. Prices and quantities leave as JSON numbers with exactly the digits
they have inside; times leave as RFC 3339 in UTC with microseconds. An update is encoded once and the
same bytes go to every subscriber, so nothing here depends on a client.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any, Final

import msgspec

from ..domain import Gap, Recorded, Side
from ..timestamps import to_rfc3339

_encode: Final = msgspec.json.Encoder(decimal_format="number").encode


class _Trade(msgspec.Struct, rename="camel", gc=False):
    seqnum: int
    event: str
    channel: str
    symbol: str
    timestamp: str
    side: Side
    qty: Decimal
    price: Decimal
    trade_id: str
    source: str
    offset: int


class _Update(msgspec.Struct, gc=False):
    jsonrpc: str
    method: str
    params: _Trade


def trades_update(recorded: Recorded) -> bytes:
    """The `trades.update` notification of an admitted trade; `seqnum` is its offset."""
    return _encode(_Update("2.0", "trades.update", _fields(recorded)))


def trade(recorded: Recorded) -> msgspec.Raw:
    """The same fields without the envelope, to be put into an answer."""
    return msgspec.Raw(_encode(_fields(recorded)))


def stream_gap(symbol: str, epoch: int, gap: Gap) -> bytes:
    """The `stream.gap` notification: offsets that this client will not get."""
    return _notification("stream.gap", {"symbol": symbol, "channel": "trades", "epoch": epoch, **_span(gap)})


def gap(entry: Gap) -> msgspec.Raw:
    """A gap as it stands in an answer: `from`, `to` (null when nobody knows how many) and `reason`."""
    return msgspec.Raw(_encode(_span(entry)))


def connection_lost(source: str, reason: str, symbols: Iterable[str]) -> bytes:
    """The `connection.lost` notification, for every client."""
    return _notification("connection.lost", {"reason": reason, "source": source, "symbols": list(symbols)})


def connection_restored(source: str, symbols: Iterable[str]) -> bytes:
    """The `connection.restored` notification, for every client."""
    fields = {"action": "resubscribe", "source": source, "symbols": list(symbols)}
    return _notification("connection.restored", fields)


def connection_draining() -> bytes:
    """The `connection.draining` notification: a close with 1001 follows."""
    return _notification("connection.draining", {"reason": "server going away"})


def _fields(recorded: Recorded) -> _Trade:
    trade = recorded.trade
    return _Trade(
        recorded.offset,
        "updated",
        "trades",
        trade.symbol,
        to_rfc3339(trade.timestamp),
        trade.side,
        trade.quantity,
        trade.price,
        trade.trade_id,
        trade.source,
        recorded.offset,
    )


def _span(gap: Gap) -> dict[str, Any]:
    return {"from": gap.first, "to": gap.last if gap.exact else None, "reason": gap.reason}


def _notification(method: str, params: dict[str, Any]) -> bytes:
    return _encode({"jsonrpc": "2.0", "method": method, "params": params})
