"""Lines of JSON that producers push: the same trades however the bytes are cut, and a name for what is none."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from actors.connector import Received
from dataflow.connectors.push import Codec, Settings
from dataflow.domain import Item, Trade
from dataflow.sources.port import Pushed
from dataflow.sources.reading import excerpt

GOOD = {
    "symbol": "AAPL",
    "timestamp": "2026-01-02T15:04:05.123456789Z",
    "price": 0.1,
    "qty": "2.50",
    "side": "sell",
    "tradeId": "7",
    "sequence": 7,
}


def judge(pushed: Pushed) -> Trade:
    """Nothing is refused, so that the reading alone is seen."""
    return Trade(
        *("own", pushed.symbol, pushed.trade_id, pushed.side),
        *(pushed.price, pushed.quantity, pushed.timestamp, pushed.sequence),
    )


def read(*pieces: bytes) -> Received[Item]:
    codec, into = Codec(Settings(connector="push"), judge), Received[Item]()
    for piece in pieces:
        codec.decode(piece, into)
    codec.decode(b"\n", into)
    assert not codec.begun
    return into


def test_a_line_is_read_exactly() -> None:
    """All digits, and nine of a second."""
    (trade,) = read(json.dumps(GOOD).encode()).items
    assert trade == Trade("own", "AAPL", "7", "sell", Decimal("0.1"), Decimal("2.50"), 1767366245123456789, 7)
    assert str(trade.quantity) == "2.50"


def test_null_is_what_is_not_known() -> None:
    """Where a field may be left out."""
    (trade,) = read(json.dumps(GOOD | {"side": None, "tradeId": None, "sequence": None}).encode()).items
    assert isinstance(trade, Trade)
    assert (trade.side, trade.trade_id, trade.sequence) == (None, None, None)


LINE = st.one_of(
    st.just(json.dumps(GOOD)),
    st.dictionaries(st.sampled_from([*GOOD, "other"]), st.none() | st.integers() | st.text(max_size=4)).map(
        lambda changed: json.dumps(GOOD | changed)
    ),
    st.text(max_size=30),
).map(str.encode)


@given(st.lists(LINE, max_size=6), st.data())
def test_how_the_bytes_are_cut_changes_nothing(lines: list[bytes], data: Any) -> None:
    """The same trades and the same problems, in the same order, whole or byte by byte."""
    body = b"\n".join(lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=5)))
    pieces = [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    whole, cut = read(body), read(*pieces)
    assert (whole.items, whole.problems) == (cut.items, cut.problems)


@given(st.binary(max_size=200))
def test_any_bytes_give_problems_or_complete_trades(body: bytes) -> None:
    """Nothing makes it raise."""
    into = read(body)
    assert len(into.items) + len(into.problems) <= body.count(b"\n") + 1
    assert all(len(shown) <= len(excerpt("x" * 999)) for _, shown in into.problems)
