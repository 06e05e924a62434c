"""Symbols: what can be one, and how one is found by what a client writes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.domain.symbols import ANY, BASE_QUOTE, LONGEST, Form, Names, compact, contract, well_formed


@pytest.mark.parametrize(
    "symbol", ["A", "AAPL", "BTC-USD", "BRK.B", "X:Y", "7203", "ÄÖ", "€", "(A)", "A" * LONGEST]
)
def test_a_symbol(symbol: str) -> None:
    """Printable characters without blanks and slashes, in capitals."""
    assert well_formed(symbol)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "A B",
        " A",
        "A/B",
        "a",
        "Ab",
        "A\n",
        "A\0",
        "A\u200b",
        "A\u00a0B",
        "ß",
        ANY,
        ".",
        "..",
        "A" * (LONGEST + 1),
    ],
)
def test_no_symbol(text: str) -> None:
    assert not well_formed(text)


@pytest.mark.parametrize("symbol", ["BTC-USD", "1INCH-USDT", "BTC-USDT-PERP", "BTC-USD-261225"])
def test_the_symbols_of_an_exchange(symbol: str) -> None:
    """Pairs, perpetual contracts, and those that end on a day."""
    assert BASE_QUOTE.fits(symbol)


@pytest.mark.parametrize(
    "text",
    [
        "BTCUSD",
        "BTC-",
        "-USD",
        "BTC-USD-",
        "BTC--USD",
        "btc-usd",
        "BTC-USD-SWAP",
        "BTC-USD-26122",
        "A:B-C",
        "A B-C",
        ANY,
    ],
)
def test_no_symbols_of_an_exchange(text: str) -> None:
    assert not BASE_QUOTE.fits(text)


@pytest.mark.parametrize(
    ("symbol", "found"),
    [
        ("BTC-USDT-PERP", ("BTC-USDT", "PERP")),
        ("BTC-USDT-251226", ("BTC-USDT", "251226")),
        ("BTC-USDT", None),
        ("ABC-PERP", None),  # a pair, whose quote has this name
        ("ABC-251226", None),
        ("A-B-C-PERP", None),
        ("BTC-USDT-25122", None),
    ],
)
def test_a_contract_has_a_pair_and_a_kind(symbol: str, found: tuple[str, str] | None) -> None:
    """A pair has none, whatever its currencies are called."""
    assert contract(symbol) == found


def test_a_source_may_bring_any() -> None:
    """Its form says whether a configuration can ask for that."""
    assert Form(r"\*|[A-Z]+", "tickers").fits(ANY)
    assert not Form("[A-Z ]+", "tickers").fits("A B")


def test_names() -> None:
    """The canonical name comes first. A compact one finds its symbol if there is no other with it."""
    names = Names(["BTC-USDT", "AAPL", "A-BC", "AB-C", "D-E", "DE"])
    for written, found in {
        "BTC-USDT": "BTC-USDT",
        "BTCUSDT": "BTC-USDT",
        " btcUsdt ": "BTC-USDT",
        "btc-usdt\n": "BTC-USDT",
        "AAPL": "AAPL",
        "DE": "DE",
        "D-E": "D-E",
        "A-BC": "A-BC",
        "ABC": None,
        "BTC-USD-T": None,
        "BTC": None,
        "": None,
    }.items():
        assert names.find(written) == found, written
    assert names.ambiguous() == [["A-BC", "AB-C"], ["D-E", "DE"]]
    assert names.alike("ABC") == ["A-BC", "AB-C"]
    assert not names.alike("BTC")


symbols = st.lists(st.text("AB-", min_size=1, max_size=4), max_size=8)


@given(symbols, st.text("ABab- ", max_size=5))
def test_nothing_is_guessed(known: list[str], written: str) -> None:
    """What is found has the written name, or is the only one whose compact name it is."""
    names, name = Names(known), written.strip().upper()
    found = names.find(written)
    alike = {symbol for symbol in known if compact(symbol) == name}
    assert found == (name if name in known else alike.pop() if len(alike) == 1 else None)
