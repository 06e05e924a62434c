"""Tables of trades and candles: each value in its place, decimals to the digit."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from dataflow.client import Connection, Trade, to_arrow, to_pandas


def trade(offset: int, price: str, quantity: str = "0.1", **other: Any) -> Trade:
    fields: dict[str, Any] = {
        "symbol": "A-B",
        "side": "buy",
        "trade_id": str(offset),
        "source": "acme",
    } | other
    moment = datetime(2025, 1, 2, 3, 4, 5, offset, UTC)
    return Trade(offset=offset, timestamp=moment, price=Decimal(price), quantity=Decimal(quantity), **fields)


TRADES = [trade(1, "61837.630000001234"), trade(2, "1E+3", side=None, trade_id=None), trade(3, "0.00000001")]


def test_arrow_keeps_all_digits() -> None:
    """Of each column, as many as its numbers need. What is no row is left out."""
    table = to_arrow([*TRADES, Connection(state="lost")])
    assert table.column("price").to_pylist() == [each.price for each in TRADES]
    assert str(table.schema.field("price").type) == "decimal128(17, 12)"
    assert table.column("timestamp").to_pylist() == [each.timestamp for each in TRADES]
    assert table.column("side").to_pylist() == ["buy", None, "buy"]


def test_arrow_refuses_what_does_not_fit() -> None:
    """Rather than to round: 38 digits are all that there are."""
    with pytest.raises(ValueError, match="the column price needs 39 digits; a decimal128 has 38"):
        to_arrow([trade(1, "1E+8"), trade(2, "1E-30")])


def test_pandas_by_time() -> None:
    """Binary numbers to reckon with, or exact ones."""
    frame = to_pandas(TRADES)
    assert list(frame["price"]) == [61837.630000001234, 1000.0, 1e-8]
    assert frame.index[0].to_pydatetime() == TRADES[0].timestamp
    assert list(to_pandas(TRADES, exact=True)["price"]) == [each.price for each in TRADES]
    assert to_pandas([]).empty


@pytest.mark.parametrize(
    ("make", "library", "extra"), [(to_pandas, "pandas", "pandas"), (to_arrow, "pyarrow", "arrow")]
)
def test_a_missing_library_is_named_with_its_extra(
    make: Any, library: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What to install stands in the error."""
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=rf"this needs {library}: pip install 'dataflow-client\[{extra}\]'"):
        make(TRADES)
