"""The price hub's words: what a handshake selects, and what a price looks like."""

from __future__ import annotations

import json
from decimal import Decimal
from functools import cache
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.app import hall
from dataflow.domain import Topic, Trade
from dataflow.faces import pricehub
from dataflow.faces.pricehub import PRICES_FORMAT
from dataflow.gateway.hall import Hall
from dataflow.gateway.problems import InvalidValue, Problem
from dataflow.server.handshake import Handshake
from dataflow.settings.schema import Settings
from dataflow.topics.prices import EVERY
from tests.system.daemon import from_binance

SYMBOLS = ("BTC-USDT", "ETH-USDT")


@cache
def built() -> Hall:
    return hall(Settings(sources=from_binance("ws://127.0.0.1:1/", *SYMBOLS)))


def selected(query: str) -> list[Topic]:
    client = Handshake("/pricehub", query, (), "127.0.0.1:1", False)
    return list(pricehub._selected(built(), client))


@pytest.mark.parametrize("query", ["", "id=5", "Instruments=BTCUSDT"])
def test_without_a_selection_all_are_followed(query: str) -> None:
    """Also what comes to be; other parameters mean nothing. An empty selection is a mistake."""
    assert selected(query) == [EVERY]
    with pytest.raises(InvalidValue):
        selected(f"instruments&{query}")


@given(
    st.lists(st.sampled_from(["BTCUSDT", "btcusdt", "BTC-USDT", " eth-usdt ", "EthUsdt"]), min_size=1),
    st.booleans(),
)
def test_each_instrument_is_selected_once(names: list[str], apart: bool) -> None:
    """In the order of the first mention, in one parameter or in several."""
    query = (
        "&".join(f"instruments={quote(name)}" for name in names)
        if apart
        else f"instruments={quote(','.join(names))}"
    )
    wanted = ["BTC-USDT" if "b" in name.lower() else "ETH-USDT" for name in names]
    assert [topic.symbol for topic in selected(query)] == list(dict.fromkeys(wanted))


@given(st.text(max_size=200) | st.text("instrumeBTCUSDT-,=&%+; \0", max_size=60).map("instruments={}".format))
def test_whatever_a_query_says_it_is_a_selection_or_a_mistake(query: str) -> None:
    """Of what is selected there are topics; every other query is refused as a problem, by both ways in."""
    try:
        topics = selected(query)
    except Problem:
        return
    assert topics
    assert {topic.symbol for topic in topics} <= {"*", *SYMBOLS}


@given(
    st.decimals("1E-60", "1E+60", allow_nan=False, allow_infinity=False)
    | st.floats(1e-320, 1e308).map(lambda f: Decimal(repr(f))),
    st.sampled_from(["BTC-USDT", "AAPL", "X" * 64, '"\\' * 32, "Ω" * 64]),
)
def test_a_price_is_two_texts_that_a_small_buffer_holds(price: Decimal, symbol: str) -> None:
    """The exact value without an exponent; a client that reads 1,024 bytes at once gets it whole."""
    trade = Trade("binance", symbol, "1", "buy", price, Decimal(1), 1)
    [text] = PRICES_FORMAT.encoder(EVERY, 7)([(1, trade)])
    assert text == PRICES_FORMAT.item(EVERY, 7, 1, trade)
    assert len(text) < 1024
    told = json.loads(text)
    assert list(told) == ["Instrument", "Price"]
    assert told["Instrument"] == symbol.replace("-", "")
    assert "e" not in told["Price"].lower()
    assert Decimal(told["Price"]) == price


def test_a_path_is_one() -> None:
    """As it is written in a configuration."""
    for path in ("", "pricehub", "/price hub", "/a/", "/<x>"):
        with pytest.raises(ValueError, match="must begin with"):
            pricehub.Settings(path=path)
    assert pricehub.Settings(path="/v1/prices").path == "/v1/prices"
