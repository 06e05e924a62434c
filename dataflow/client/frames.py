"""Trades and candles as tables: of pandas, and of Arrow.

Rules of this file. Both libraries are extras, and imported when they are asked for. Columns have the names of
the fields. Arrow's decimals are exact; so are those of a data frame with `exact=True`, as objects of Python.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from importlib import import_module
from typing import Any, Final

from .events import Candle, Trade

TRADE: Final = ("symbol", "offset", "timestamp", "side", "price", "quantity", "trade_id", "source")
CANDLE: Final = (
    "symbol",
    "interval",
    "start",
    "open",
    "high",
    "low",
    "close",
    "volume",
    "quote_volume",
    "buy_volume",
    "count",
    "rev",
    "closed",
    "complete",
    "first_offset",
    "last_offset",
)
NUMBERS: Final = ("price", "quantity", "open", "high", "low", "close", "volume", "quote_volume", "buy_volume")
MOST_DIGITS: Final = 38  # of a decimal128


def to_pandas(rows: Iterable[Any], *, exact: bool = False) -> Any:
    """A data frame of trades, or of candles, in their order; anything else among them (gaps, connections) is
    left out.

    The index is the time of a trade, the start of a candle. Prices and quantities are binary numbers of 64
    bits, or Decimal with `exact`. Raises ImportError without the library.
    """
    library = _library("pandas")
    columns, kept = _columns(rows)
    data = {name: [getattr(row, name) for row in kept] for name in columns}
    if not exact:
        data |= {name: [float(value) for value in data[name]] for name in NUMBERS if name in data}
    time = "timestamp" if "timestamp" in data else "start"
    index = library.DatetimeIndex(data.pop(time), name=time, tz="UTC")
    return library.DataFrame(data, index=index)


def to_arrow(rows: Iterable[Any]) -> Any:
    """A table of Arrow, as `to_pandas`. Prices and quantities are decimal128, with as many digits as the
    column needs.

    Raises ImportError without the library, ValueError for numbers that need more than 38 digits in one
    column.
    """
    library = _library("arrow", "pyarrow")
    columns, kept = _columns(rows)
    arrays = {}
    for name in columns:
        values = [getattr(row, name) for row in kept]
        if name in NUMBERS:
            arrays[name] = library.array(values, library.decimal128(*_digits(name, values)))
        elif name in ("timestamp", "start"):
            arrays[name] = library.array(values, library.timestamp("us", tz="UTC"))
        elif name in ("offset", "count", "rev", "first_offset", "last_offset"):
            arrays[name] = library.array(values, library.int64())
        elif name in ("closed", "complete"):
            arrays[name] = library.array(values, library.bool_())
        else:
            arrays[name] = library.array(values, library.string())
    return library.table(arrays)


def _columns(rows: Iterable[Any]) -> tuple[Sequence[str], list[Any]]:
    kept = [row for row in rows if isinstance(row, Trade | Candle)]
    if len({type(row) for row in kept}) > 1:
        raise ValueError("trades and candles do not fit into one table")
    return (CANDLE if kept and isinstance(kept[0], Candle) else TRADE), kept


def _digits(name: str, values: Sequence[Decimal]) -> tuple[int, int]:
    """Precision and scale that hold all of them."""
    scale = max((_scale(value) for value in values), default=0)
    whole = max((value.adjusted() + 1 for value in values if value), default=1)
    if max(whole, 1) + scale > MOST_DIGITS:
        raise ValueError(
            f"the column {name} needs {max(whole, 1) + scale} digits; a decimal128 has {MOST_DIGITS}"
        )
    return max(whole, 1) + scale, scale


def _scale(value: Decimal) -> int:
    exponent = value.as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


def _library(extra: str, name: str | None = None) -> Any:
    try:
        return import_module(name or extra)
    except ImportError:
        raise ImportError(
            f"this needs {name or extra}: pip install 'dataflow-client[{extra}]', or 'dataflow[{extra}]'"
        ) from None
