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

from actors.update import Message
from dataflow.domain import Gap, Recorded, Side, Trade
from dataflow.domain.timestamps import to_rfc3339

_encode: Final = msgspec.json.Encoder(decimal_format="number").encode
_HEAD: Final = '{"jsonrpc":"2.0","method":"trades.update","params":{"seqnum":'


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


def trade(recorded: Recorded) -> msgspec.Raw:
    """An admitted trade, to be put into an answer; `seqnum` is its offset."""
    return msgspec.Raw(_encode(_fields(recorded)))


class Updates:
    """Encodes what subscribers of one symbol are sent: the fields of `trade`, in an envelope, and the gaps.

    Every trade that has a subscriber comes through here, so what repeats is kept: the names, and the time,
    which the trades of one burst share. Putting strings together takes half the time of an encoder that is
    handed a Struct; what would need escaping is left to the encoder all the same.
    """

    def __init__(self, symbol: str, epoch: int) -> None:
        self._name = symbol
        self._epoch = epoch
        self._symbol = _encode(symbol).decode()
        self._moment: int | None = None
        self._middle = ""  # from the seqnum to the side, for a trade of that moment
        self._plain: dict[str, bool] = {}  # names of sources, and whether they need no escaping

    def messages(self, places: Iterable[tuple[int, Trade | Gap]]) -> list[Message]:
        """Trades, each with its offset, and `stream.gap` for the gaps among them."""
        made: list[Message] = []
        plain = self._plain
        for offset, trade in places:
            if isinstance(trade, Gap):
                made.append(Message(trade.first, trade.last, stream_gap(self._name, self._epoch, trade), 0))
                continue
            if not (trade.trade_id.isalnum() and plain.get(trade.source)) and not self._is_plain(trade):
                text = _notification("trades.update", _fields(Recorded(offset, trade)))
                made.append(Message(offset, offset, text))
                continue
            if trade.timestamp != self._moment:
                self._turn_to(trade.timestamp)
            text = (
                f'{_HEAD}{offset}{self._middle}{trade.side}","qty":{trade.quantity!s},"price":{trade.price!s},'
                f'"tradeId":"{trade.trade_id}","source":"{trade.source}","offset":{offset}}}}}'
            ).encode()
            made.append(Message(offset, offset, text))
        return made

    def _turn_to(self, moment: int) -> None:
        self._middle = (
            f',"event":"updated","channel":"trades","symbol":{self._symbol},'
            f'"timestamp":"{to_rfc3339(moment)}","side":"'
        )
        self._moment = moment

    def _is_plain(self, trade: Trade) -> bool:
        if trade.source not in self._plain:
            self._plain[trade.source] = _needs_no_escaping(trade.source)
        return self._plain[trade.source] and _needs_no_escaping(trade.trade_id)


def _needs_no_escaping(text: str) -> bool:
    return _encode(text) == b'"%s"' % text.encode()


def stream_gap(symbol: str, epoch: int, gap: Gap, skipped: int | None = None) -> bytes:
    """The `stream.gap` notification: offsets that this client will not get, and how many trades of those that
    the server has were skipped for its slowness."""
    params = {"symbol": symbol, "channel": "trades", "epoch": epoch, **_span(gap)}
    return _notification("stream.gap", params if skipped is None else params | {"skipped": skipped})


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


def connection_waiting(ahead: int, seconds: float) -> bytes:
    """The `connection.waiting` notification: a newcomer has waited for so long, behind so many others."""
    return _notification("connection.waiting", {"ahead": ahead, "seconds": seconds})


def connection_refused(reason: str, retry_after: float) -> bytes:
    """The `connection.refused` notification: a close with 1013 follows; try again after so many seconds."""
    return _notification("connection.refused", {"reason": reason, "retryAfter": retry_after})


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


def _notification(method: str, params: dict[str, Any] | _Trade) -> bytes:
    return _encode({"jsonrpc": "2.0", "method": method, "params": params})
