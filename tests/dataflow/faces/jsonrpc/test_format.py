"""Promises of dataflow.gateway.wire."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.domain import Gap, Recorded, Trade
from dataflow.faces.jsonrpc import format as wire

RECORDED = Recorded(
    offset=7,
    trade=Trade(
        source="blockchain",
        symbol="BTC-USD",
        trade_id="12886314421",
        side="buy",
        price=Decimal("8501.10"),
        quantity=Decimal("5.892E-4"),
        timestamp=1_589_135_616_696_315_999,
        sequence=None,
    ),
)
FIELDS = (
    '{"seqnum":7,"event":"updated","channel":"trades","symbol":"BTC-USD",'
    '"timestamp":"2020-05-10T18:33:36.696315Z","side":"buy","qty":0.0005892,"price":8501.10,'
    '"tradeId":"12886314421","source":"blockchain","offset":7}'
)


def told(message: bytes) -> Any:
    return json.loads(message)


def update_of(recorded: Recorded) -> bytes:
    [message] = wire.Updates(recorded.trade.symbol, 1).messages([(recorded.offset, recorded.trade)])
    assert (message.first, message.last, message.items) == (recorded.offset, recorded.offset, 1)
    return message.text


def test_an_update_is_the_contract_to_the_byte() -> None:
    """Names, order, numbers as numbers with the very digits that came, time in UTC with microseconds."""
    expected = f'{{"jsonrpc":"2.0","method":"trades.update","params":{FIELDS}}}'
    assert update_of(RECORDED).decode() == expected


def test_a_trade_in_an_answer_has_the_same_fields() -> None:
    """Without the envelope, ready to be put into a result."""
    assert bytes(wire.trade(RECORDED)).decode() == FIELDS


def test_a_gap_tells_which_offsets_will_not_come() -> None:
    """`to` is null when nobody knows how many trades are missing."""
    exact, unknown = Gap(3, 9, "source_gap"), Gap(3, 3, "shard_restart", exact=False)
    assert told(wire.stream_gap("BTC-USD", 5, exact)) == {
        "jsonrpc": "2.0",
        "method": "stream.gap",
        "params": {
            "symbol": "BTC-USD",
            "channel": "trades",
            "epoch": 5,
            "from": 3,
            "to": 9,
            "reason": "source_gap",
        },
    }
    assert told(wire.stream_gap("BTC-USD", 5, unknown))["params"]["to"] is None
    assert told(bytes(wire.gap(unknown))) == {"from": 3, "to": None, "reason": "shard_restart"}


def test_notices_about_connections() -> None:
    """Lost, restored, draining: the fields of the contract."""
    assert told(wire.connection_lost("binance", "closed with 1001: bye", ["BTC-USDT"])) == {
        "jsonrpc": "2.0",
        "method": "connection.lost",
        "params": {"reason": "closed with 1001: bye", "source": "binance", "symbols": ["BTC-USDT"]},
    }
    assert told(wire.connection_restored("binance", ("BTC-USDT", "ETH-USDT"))) == {
        "jsonrpc": "2.0",
        "method": "connection.restored",
        "params": {"action": "resubscribe", "source": "binance", "symbols": ["BTC-USDT", "ETH-USDT"]},
    }
    assert told(wire.connection_draining())["method"] == "connection.draining"


@given(
    st.decimals(min_value=Decimal("1E-30"), max_value=Decimal("1E30"), allow_nan=False, places=None),
    st.text(),
    st.sampled_from(["buy", "sell"]),
    st.integers(0, 253402300799_999_999_999),
)
def test_no_digit_is_lost(number: Decimal, text: str, side: Any, timestamp: int) -> None:
    """Whatever a trade holds, a reader of exact numbers gets it back."""
    trade = Trade(text, text, text, side, number, number / 3, timestamp)
    params = json.loads(update_of(Recorded(1, trade)), parse_float=Decimal, parse_int=Decimal)["params"]
    assert (params["price"], params["qty"]) == (number, number / 3)
    assert (params["source"], params["symbol"], params["tradeId"], params["side"]) == (text, text, text, side)


@pytest.mark.parametrize("written", ["61837.63000000", "1E-7", "0.10", "100"])
def test_a_number_keeps_its_form(written: str) -> None:
    """Neither rounded nor normalised."""
    trade = Trade("s", "A-B", "1", "sell", Decimal(written), Decimal(1), 0)
    assert f'"price":{written},'.encode() in update_of(Recorded(1, trade))


names = (
    st.sampled_from(
        ["1", "a-1", "x7", 'say "hi"', "back\\slash", "tab\t", "%d", "{0}", "\u00e9", "\u2028", ""]
    )
    | st.text()
)
moments = st.integers(0, 3).map(lambda n: 1_589_135_616_696_315_999 + n * 500)


@given(names, st.lists(st.tuples(names, names, moments, st.integers(1, 2**53))))
def test_what_is_kept_between_updates_shows_in_none(
    symbol: str, told_of: list[tuple[str, str, int, int]]
) -> None:
    """One encoder, trade after trade: each is what an answer tells of it, in the envelope, whatever came before."""
    updates = wire.Updates(symbol, 1)
    for source, name, moment, offset in told_of:
        trade = Trade(source, symbol, name, "buy", Decimal("1.50"), Decimal("2"), moment)
        params = bytes(wire.trade(Recorded(offset, trade))).decode()
        expected = f'{{"jsonrpc":"2.0","method":"trades.update","params":{params}}}'
        assert [m.text.decode() for m in updates.messages([(offset, trade)])] == [expected]


def test_gaps_keep_their_place_among_the_updates() -> None:
    """Trade, gap, trade: three messages in that order, and the gap brings no item."""
    gap = Gap(8, 11, "source_gap")
    trade = RECORDED.trade
    made = wire.Updates("BTC-USD", 5).messages([(7, trade), (11, gap), (12, trade)])
    assert [(m.first, m.last, m.items) for m in made] == [(7, 7, 1), (8, 11, 0), (12, 12, 1)]
    assert made[1].text == wire.stream_gap("BTC-USD", 5, gap)
