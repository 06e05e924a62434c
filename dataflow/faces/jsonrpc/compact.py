"""Trades as short JSON arrays: the format `compact`, a quarter of the bytes.

Rules of this file: encoding only, the same bytes for all clients. An array has what differs from trade to
trade; the answer to `subscribe` has the rest once: the names of the columns, the number of the topic and
those of the sources. Gaps and notices stay what they are in the format `json`.

A number is never explained behind the answer: such a message could be dropped before a slow client. So only
the symbols and sources that the daemon started with have numbers. What comes later is written by its name. In
the arrays of a symbol that came later the sources are, too: who follows all symbols may have had no answer
that names them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from actors.update import Encode, Places
from dataflow.domain import Gap, Topic
from dataflow.domain.notice import Notice
from dataflow.domain.symbols import ANY
from dataflow.gateway.format import Format
from dataflow.gateway.spelling import encode

from .format import JSONRPC, announcements, filled, notification_of_fill

COLUMNS: Final = ("topic", "offset", "timestamp", "side", "price", "qty", "tradeId", "source")
_SIDES: Final = {"buy": '"buy"', "sell": '"sell"', None: "null"}


class Compact(Format):
    """The format of one daemon. `symbols` and `sources`: those that have numbers, their indices."""

    name = "jsonrpc compact"

    def __init__(self, symbols: Sequence[str], sources: Sequence[str]) -> None:
        self.sources = sources
        self._symbols = _Texts(_numbers(symbols))
        self._sources = _Texts(_numbers(sources))
        self._names = _Texts({name: _text(name) for name in sources})

    def key(self, topic: Topic) -> msgspec.Raw:
        """What stands for `topic` in its arrays, as JSON: its number, or the name of its symbol."""
        return msgspec.Raw(self._symbols[topic.symbol].encode())

    def encoder(self, topic: Topic, epoch: int) -> Encode:
        if topic.symbol == ANY:
            return announcements
        sources = self._sources if topic.symbol in self._symbols else self._names
        return _Rows(topic, epoch, self._symbols[topic.symbol], sources).texts

    def item(self, topic: Topic, epoch: int, offset: int, value: Any) -> bytes:
        """A trade in an answer: the same array as live."""
        [text] = self.encoder(topic, epoch)([(offset, value)])
        return text

    def hole(self, topic: Topic, epoch: int, gap: Gap) -> bytes:
        return JSONRPC.hole(topic, epoch, gap)

    def gap(self, topic: Topic, epoch: int, gap: Gap, skipped: int) -> bytes:
        return JSONRPC.gap(topic, epoch, gap, skipped)

    def fill(self, topic: Topic, epoch: int, places: Places) -> bytes:
        return encode(filled(self, topic, epoch, places))

    def filled(self, topic: Topic, epoch: int, places: Places) -> bytes:
        """`stream.filled` with arrays for trades."""
        return notification_of_fill(self, topic, epoch, places)

    def notice(self, notice: Notice) -> bytes:
        return JSONRPC.notice(notice)


class _Texts(dict[str, str]):
    """The JSON that stands for each name: the name itself where nothing else does."""

    def __missing__(self, name: str) -> str:
        return _text(name)


def _numbers(names: Iterable[str]) -> dict[str, str]:
    return {name: str(number) for number, name in enumerate(names)}


def _text(name: str) -> str:
    return encode(name).decode()


class _Rows:
    """Encodes the trades of one topic. Trades of one burst share their time, which is written once."""

    def __init__(self, topic: Topic, epoch: int, key: str, sources: Mapping[str, str]) -> None:
        self._topic = topic
        self._epoch = epoch
        self._head = f"[{key},"
        self._sources = sources
        self._moment: int | None = None
        self._middle = ""  # the time, and the commas around it

    def texts(self, places: Places) -> list[bytes]:
        """Trades as arrays, and `stream.gap` for the gaps among them."""
        made: list[bytes] = []
        head, sources, moment, middle = self._head, self._sources, self._moment, self._middle
        for offset, trade in places:
            if isinstance(trade, Gap):
                made.append(JSONRPC.gap(self._topic, self._epoch, trade))
                continue
            if trade.timestamp != moment:
                moment = trade.timestamp
                middle = f",{moment // 1000},"
            name = trade.trade_id
            written = f'"{name}"' if name is not None and name.isalnum() else encode(name).decode()
            text = (
                f"{head}{offset}{middle}{_SIDES[trade.side]},{trade.price!s},{trade.quantity!s},"
                f"{written},{sources[trade.source]}]"
            )
            made.append(text.encode())
        self._moment, self._middle = moment, middle
        return made
