"""No message and no question makes a simulated exchange raise."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulators import exchanges
from simulators.exchanges.blockchain import ORIGIN

NAMES = ("bitstamp", "coinbase", "gemini", "kraken")
EACH = pytest.mark.parametrize("name", NAMES)
WORDS = (
    "subscribe",
    "unsubscribe",
    "bts:subscribe",
    "trade",
    "matches",
    "l2",
    "BTC-USD",
    "BTC/USD",
    "btcusd",
)
KEYS = ("type", "event", "method", "params", "data", "channel", "channels", "product_ids", "symbol", "pair")

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(WORDS),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from((*KEYS, "name", "symbols", "subscriptions", "subscription")), inner)
    ),
    max_leaves=8,
)


def dialect(name: str) -> Any:
    return exchanges.find(name).dialect(frozenset())


@EACH
@given(message=st.binary(max_size=50) | st.text(max_size=50) | values.map(json.dumps))
def test_every_message_is_answered_or_obeyed(name: str, message: str | bytes) -> None:
    """Whatever a client says, what comes back is JSON."""
    made = dialect(name)
    for path in {made.path, "/"} if name == "kraken" else {made.path}:
        session = made.open(path, {"origin": ORIGIN}, lambda symbol: False)
        for text in (*session.receive(message), *session.beat(0)):
            json.loads(text)
        assert session.symbols <= {*exchanges.find(name).feed().symbols}


PATHS = (
    "/products/BTC-USD/trades",
    "/0/public/Trades",
    "/api/v2/transactions/btcusd/",
    "/v1/trades/btcusd",
)


@EACH
@given(
    st.sampled_from(PATHS) | st.text(max_size=20),
    st.dictionaries(
        st.sampled_from(
            ("limit", "after", "before", "pair", "since", "count", "time", "timestamp", "since_tid")
        ),
        st.text(max_size=5) | st.integers(-1, 10**20).map(str) | st.sampled_from(("XBTUSD", "hour", "")),
    ),
)
def test_every_question_is_answered(name: str, path: str, query: dict[str, str]) -> None:
    """With JSON, whatever is asked for."""
    made = dialect(name)
    answer = made.rest(path, query, lambda symbol: ())
    assert answer.status in (200, 400, 404)
    json.loads(answer.body)
