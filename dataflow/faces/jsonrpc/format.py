"""Entries and notices as JSON-RPC: the notifications of the public contract, as bytes.

Rules of this file: encoding only. Prices and quantities become JSON numbers with exactly the digits that they
have inside; times become RFC 3339 in UTC with microseconds. All subscribers get the same bytes, so nothing
here depends on a client.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

import msgspec

from actors.update import Encode, Places
from dataflow.domain import Gap, Topic, Trade
from dataflow.domain.notice import SWITCHES_AT_ONCE, Notice, SourceRestored
from dataflow.domain.symbols import ANY
from dataflow.domain.timestamps import to_rfc3339
from dataflow.domain.topic import TRADES
from dataflow.gateway import spelling
from dataflow.gateway.format import Format
from dataflow.gateway.spelling import encode

_HEAD: Final = '{"jsonrpc":"2.0","method":"trades.update","params":{"seqnum":'


class Updates:
    """Encodes the updates of one symbol: its trades and gaps, each as a notification.

    Every trade with a subscriber passes here, so repeating parts are kept: the names, and the time, which
    the trades of one burst share. Joining strings takes half the time of encoding a Struct. Only a text that
    needs escaping goes through the encoder.
    """

    def __init__(self, topic: Topic, epoch: int) -> None:
        self._topic = topic
        self._epoch = epoch
        self._symbol = encode(topic.symbol).decode()
        self._moment: int | None = None
        self._middle = ""  # from the seqnum to the side, for trades of `_moment`
        self._plain: dict[str, bool] = {}  # by the name of a source: whether it needs no escaping

    def texts(self, places: Places) -> list[bytes]:
        """Trades, each with its offset, and `stream.gap` for the gaps among them."""
        made: list[bytes] = []
        plain = self._plain
        for offset, trade in places:
            if isinstance(trade, Gap):
                made.append(JSONRPC.gap(self._topic, self._epoch, trade))
                continue
            name = trade.trade_id
            if name is None or trade.side is None:
                made.append(self._incomplete(offset, trade))
                continue
            if not (name.isalnum() and plain.get(trade.source)) and not self._is_plain(trade):
                made.append(_notification("trades.update", spelling.trade(offset, trade)))
                continue
            if trade.timestamp != self._moment:
                self._turn_to(trade.timestamp)
            text = (
                f'{_HEAD}{offset}{self._middle}"{trade.side}","qty":{trade.quantity!s},"price":{trade.price!s},'
                f'"tradeId":"{name}","source":"{trade.source}","offset":{offset}}}}}'
            )
            made.append(text.encode())
        return made

    def _incomplete(self, offset: int, trade: Trade) -> bytes:
        """A trade without id or side. Those of most such sources have neither."""
        if trade.trade_id is not None or trade.side is not None or not self._is_plain(trade):
            return _notification("trades.update", spelling.trade(offset, trade))
        if trade.timestamp != self._moment:
            self._turn_to(trade.timestamp)
        text = (
            f'{_HEAD}{offset}{self._middle}null,"qty":{trade.quantity!s},"price":{trade.price!s},'
            f'"tradeId":null,"source":"{trade.source}","offset":{offset}}}}}'
        )
        return text.encode()

    def _turn_to(self, moment: int) -> None:
        self._middle = (
            f',"event":"updated","channel":"trades","symbol":{self._symbol},'
            f'"timestamp":"{to_rfc3339(moment)}","side":'
        )
        self._moment = moment

    def _is_plain(self, trade: Trade) -> bool:
        if trade.source not in self._plain:
            self._plain[trade.source] = _needs_no_escaping(trade.source)
        return self._plain[trade.source] and (trade.trade_id is None or _needs_no_escaping(trade.trade_id))


def _needs_no_escaping(text: str) -> bool:
    return encode(text) == b'"%s"' % text.encode()


class JsonRpc(Format):
    """The format `json`: prices and quantities are numbers."""

    name = "jsonrpc"
    _write: Callable[[Any], bytes] = staticmethod(encode)

    def encoder(self, topic: Topic, epoch: int) -> Encode:
        if topic.symbol == ANY:
            return announcements
        if topic.channel == TRADES:
            return Updates(topic, epoch).texts
        return self._encoder_of_any(topic, epoch)

    def _encoder_of_any(self, topic: Topic, epoch: int) -> Encode:
        def encode_each(places: Places) -> list[bytes]:
            return [
                self.gap(topic, epoch, value)
                if isinstance(value, Gap)
                else self._write(_message(f"{topic.channel}.update", spelling.item(topic, offset, value)))
                for offset, value in places
            ]

        return encode_each

    def item(self, topic: Topic, epoch: int, offset: int, value: Any) -> bytes:
        """An item in an answer: of the channel `trades` a trade, whose `seqnum` is its offset."""
        return self._write(spelling.item(topic, offset, value))

    def hole(self, topic: Topic, epoch: int, gap: Gap) -> bytes:
        """A gap in an answer: `from`, `to` (null when the number of trades is unknown) and `reason`."""
        return encode(spelling.gap(gap))

    def gap(self, topic: Topic, epoch: int, gap: Gap, skipped: int | None = None) -> bytes:
        """`stream.gap`: places that this client will not get.

        `skipped` counts trades that the server has and leaves out, because the client is slow.
        """
        params = {"symbol": topic.symbol, "channel": topic.channel, "epoch": epoch, **spelling.gap(gap)}
        return _notification("stream.gap", params if skipped is None else params | {"skipped": skipped})

    def fill(self, topic: Topic, epoch: int, places: Places) -> bytes:
        """In an answer: `from`, `to` and `trades`."""
        return encode(filled(self, topic, epoch, places))

    def filled(self, topic: Topic, epoch: int, places: Places) -> bytes:
        """`stream.filled`: places that this client was told of as a gap hold these trades now."""
        return notification_of_fill(self, topic, epoch, places)

    def notice(self, notice: Notice) -> bytes:
        return _notice(notice)


def filled(format: Format, topic: Topic, epoch: int, places: Places) -> dict[str, Any]:
    """A fill, its trades in `format`."""
    trades = b",".join([format.item(topic, epoch, place, value) for place, value in places])
    return {"from": places[0][0], "to": places[-1][0], "trades": msgspec.Raw(b"[%b]" % trades)}


def notification_of_fill(format: Format, topic: Topic, epoch: int, places: Places) -> bytes:
    """`stream.filled`, its trades in `format`."""
    params = {"symbol": topic.symbol, "channel": topic.channel, "epoch": epoch}
    return _notification("stream.filled", params | filled(format, topic, epoch, places))


@lru_cache(maxsize=SWITCHES_AT_ONCE + 16)  # every session asks for the texts of all that is told at once
def _notice(notice: Notice) -> bytes:
    params = spelling.fields(notice)
    if isinstance(notice, SourceRestored):
        params["action"] = "resubscribe"
    return _notification(spelling.KINDS[type(notice)], params)


class Strings(JsonRpc):
    """The format `strings`: as `json`, but decimals are JSON strings, for clients with binary numbers.

    Such topics are few, so they have no encoder of their own.
    """

    name = "jsonrpc strings"
    _write = staticmethod(msgspec.json.Encoder(decimal_format="string").encode)

    def encoder(self, topic: Topic, epoch: int) -> Encode:
        return announcements if topic.symbol == ANY else self._encoder_of_any(topic, epoch)


JSONRPC: Final = JsonRpc()
STRINGS: Final = Strings()


def announcements(places: Places) -> list[bytes]:
    """Of the topic of all symbols: `stream.started`, each for a symbol that has come."""
    return [_notification("stream.started", spelling.fields(started)) for _, started in places]


def _message(method: str, params: dict[str, Any] | spelling.SpelledTrade) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": method, "params": params}


def _notification(method: str, params: dict[str, Any] | spelling.SpelledTrade) -> bytes:
    return encode(_message(method, params))
