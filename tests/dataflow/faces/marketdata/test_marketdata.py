"""The words of a day: which symbol a handshake names, and what a state looks like."""

from __future__ import annotations

import json
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from dataflow.app import hall
from dataflow.domain.aggregate import Aggregate
from dataflow.domain.symbols import well_formed
from dataflow.faces import marketdata
from dataflow.gateway.problems import Problem
from dataflow.server.handshake import Handshake
from dataflow.settings.schema import Settings

HALL = hall(Settings())
NUMBERS = st.decimals("1E-40", "1E+40", allow_nan=False, allow_infinity=False)


@given(st.text(max_size=100) | st.text("symbolABC-=&%+/* \0", max_size=90).map("symbol={}".format))
def test_whatever_a_query_says_it_names_a_symbol_or_is_a_mistake(query: str) -> None:
    """A symbol need not exist, but it could."""
    try:
        symbol = marketdata._symbol(HALL, Handshake(marketdata.PATH, query, (), "127.0.0.1:1", False))
    except Problem:
        return
    assert well_formed(symbol)


@given(prices=st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS), volume=NUMBERS, at=st.integers(0, 1 << 62))
def test_a_state_is_exact(prices: tuple[Decimal, ...], volume: Decimal, at: int) -> None:
    """Each number reads back as what it is, without an exponent, and a whole volume without a point; the time is in ms."""
    day = Aggregate("BTC-USDT", 0, *prices, volume, 3, at, 5)
    text = marketdata.spelled(day)
    told = json.loads(text, parse_float=Decimal, parse_int=Decimal)
    assert list(told) == ["symbol", "open", "high", "low", "close", "volume", "timestamp"]
    assert tuple(told.values()) == ("BTC-USDT", *prices, volume, at // 1_000_000)
    numbers = text.partition(b"open")[2]
    assert b"E" not in numbers
    if volume == int(volume):
        assert b"." not in numbers.partition(b"volume")[2]
