"""Entries as lines of text: CSV and NDJSON, for tables of any length.

Rules of this file: pure. The columns of CSV are the names of the JSON fields, and the values have all their
digits. A row is a trade or a gap: the cells of the other are empty. `null` is an empty cell, and an empty
text is `""`, as PostgreSQL reads them. A line of NDJSON is what stands in a page of JSON.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec

from dataflow.cache.archive import Places
from dataflow.domain import Gap, Trade
from dataflow.domain.candle import Candle
from dataflow.domain.timestamps import to_rfc3339
from dataflow.gateway import spelled, spelling
from dataflow.gateway.spelling import SpelledTrade

CSV: Final = "text/csv"
NDJSON: Final = "application/x-ndjson"

_GAP: Final = ("from", "to", "reason")
_TRADE: Final = [each.encode_name for each in msgspec.structs.fields(SpelledTrade)]
_CANDLE: Final = list(spelled.Candle.__annotations__)
TRADES_HEAD: Final = ",".join([*_TRADE, *_GAP]).encode() + b"\r\n"
CANDLES_HEAD: Final = ",".join(_CANDLE).encode() + b"\r\n"
_BEFORE_SYMBOL: Final = "," * _TRADE.index("symbol")
_BEHIND_SYMBOL: Final = "," * (len(_TRADE) - _TRADE.index("symbol"))
_AFTER_TRADE: Final = "," * len(_GAP) + "\r\n"

_lines: Final = msgspec.json.Encoder(decimal_format="number").encode_lines


def trades_csv(places: Places, symbol: str = "") -> bytes:
    """Rows of trades and gaps. About 1 us for each. `symbol`: of the gaps, in a table of several symbols."""
    return "".join(
        [
            _gap(entry, symbol) if isinstance(entry, Gap) else f"{_trade(offset, entry)}{_AFTER_TRADE}"
            for offset, entry in places
        ]
    ).encode()


def trades_ndjson(places: Places, symbol: str = "") -> bytes:
    """Objects of trades and gaps. About 2 us for each. `symbol`: as in `trades_csv`."""
    more = {"symbol": symbol} if symbol else {}
    return _lines(
        [
            spelling.gap(entry) | more if isinstance(entry, Gap) else spelling.trade(offset, entry)
            for offset, entry in places
        ]
    )


def candles_csv(candles: Sequence[Candle]) -> bytes:
    """Rows of candles; their gaps are a JSON text in one cell."""
    return "".join(
        [",".join(map(_cell, spelling.candle(each).values())) + "\r\n" for each in candles]
    ).encode()


def candles_ndjson(candles: Sequence[Candle]) -> bytes:
    """Objects of candles."""
    return _lines([spelling.candle(each) for each in candles])


def _trade(offset: int, trade: Trade) -> str:
    name = trade.trade_id
    if name is None or not name.isalnum():
        name = "" if name is None else quoted(name)
    return (
        f"{offset},updated,trades,{_name(trade.symbol)},{to_rfc3339(trade.timestamp)},{trade.side or ''},"
        f"{trade.quantity!s},{trade.price!s},{name},{quoted(trade.source)},{offset}"
    )


def _gap(gap: Gap, symbol: str) -> str:
    told = spelling.gap(gap)
    name = _name(symbol) if symbol else ""
    return f"{_BEFORE_SYMBOL}{name}{_BEHIND_SYMBOL}{','.join([_cell(told[each]) for each in _GAP])}\r\n"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return quoted(spelling.encode(value).decode()) if value else ""
    return quoted(str(value))


def quoted(text: str) -> str:
    """A cell of CSV (RFC 4180): in quotes where it must be."""
    if text.isalnum():
        return text
    if not text or any(each in text for each in ',"\r\n'):
        return '"' + text.replace('"', '""') + '"'
    return text


_name: Final = lru_cache(10_000)(quoted)  # of a symbol: it stands in every row
