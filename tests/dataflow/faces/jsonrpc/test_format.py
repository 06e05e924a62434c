"""Entries and notices as JSON-RPC: the bytes of the public contract."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.domain import Gap, Recorded, Topic, Trade
from dataflow.domain.notice import (
    SWITCHES_AT_ONCE,
    Draining,
    Refused,
    SourceLost,
    SourceRestored,
    StreamSwitched,
    SymbolsChanged,
    Waiting,
)
from dataflow.domain.quality import Grade, Quality
from dataflow.domain.symbols import ANY
from dataflow.faces.jsonrpc.format import JSONRPC
from dataflow.gateway.spelling import symbol_quality


def trades(symbol: str) -> Topic:
    return Topic("trades", symbol)


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
    [text] = JSONRPC.encoder(trades(recorded.trade.symbol), 1)([(recorded.offset, recorded.trade)])
    return text


def test_an_update_is_the_contract_to_the_byte() -> None:
    """Names, their order, numbers with the digits of the source, time in UTC with microseconds."""
    expected = f'{{"jsonrpc":"2.0","method":"trades.update","params":{FIELDS}}}'
    assert update_of(RECORDED).decode() == expected


def test_what_the_source_does_not_tell_is_null() -> None:
    """Never an invented id, and no side by default."""
    trade = Trade("ticks", "AAPL", None, None, Decimal("100.25"), Decimal(10), RECORDED.trade.timestamp)
    assert update_of(Recorded(3, trade)).decode() == (
        '{"jsonrpc":"2.0","method":"trades.update","params":{"seqnum":3,"event":"updated","channel":"trades",'
        '"symbol":"AAPL","timestamp":"2020-05-10T18:33:36.696315Z","side":null,"qty":10,"price":100.25,'
        '"tradeId":null,"source":"ticks","offset":3}}'
    )


def test_a_trade_in_an_answer_has_the_same_fields() -> None:
    """Without the envelope, ready for a result."""
    assert JSONRPC.item(trades("BTC-USD"), 1, RECORDED.offset, RECORDED.trade).decode() == FIELDS


def test_a_gap_tells_which_offsets_will_not_come() -> None:
    """`to` is null when the number of missing trades is unknown."""
    exact, unknown = Gap(3, 9, "source_gap"), Gap(3, 3, "shard_restart", exact=False)
    assert told(JSONRPC.gap(trades("BTC-USD"), 5, exact)) == {
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
    assert told(JSONRPC.gap(trades("BTC-USD"), 5, unknown))["params"]["to"] is None
    assert told(JSONRPC.hole(trades("BTC-USD"), 1, unknown)) == {
        "from": 3,
        "to": None,
        "reason": "shard_restart",
    }


def test_notices_about_connections() -> None:
    """Lost, restored, draining: the fields of the contract."""
    assert told(JSONRPC.notice(SourceLost("binance", "closed with 1001: bye", ("BTC-USDT",)))) == {
        "jsonrpc": "2.0",
        "method": "connection.lost",
        "params": {"reason": "closed with 1001: bye", "source": "binance", "symbols": ["BTC-USDT"]},
    }
    assert told(JSONRPC.notice(SourceRestored("binance", ("BTC-USDT", "ETH-USDT")))) == {
        "jsonrpc": "2.0",
        "method": "connection.restored",
        "params": {"action": "resubscribe", "source": "binance", "symbols": ["BTC-USDT", "ETH-USDT"]},
    }
    assert told(JSONRPC.notice(Draining())) == {
        "jsonrpc": "2.0",
        "method": "connection.draining",
        "params": {"reason": "server going away"},
    }
    assert told(JSONRPC.notice(Waiting(3, 1.2))) == {
        "jsonrpc": "2.0",
        "method": "connection.waiting",
        "params": {"ahead": 3, "seconds": 1.2},
    }
    assert told(JSONRPC.notice(Refused("too many sessions", 7.5))) == {
        "jsonrpc": "2.0",
        "method": "connection.refused",
        "params": {"reason": "too many sessions", "retryAfter": 7.5},
    }


def test_notices_about_symbols_and_their_sources() -> None:
    """Which stream goes over, where, from whom to whom and why; which symbols come and go."""
    assert told(JSONRPC.notice(switched("BTC-USD", 612))) == {
        "jsonrpc": "2.0",
        "method": "stream.switched",
        "params": {
            "symbol": "BTC-USD",
            "channel": "trades",
            "epoch": 1763696936212,
            "offset": 612,
            "from": "coinbase",
            "to": "kraken",
            "reason": "coinbase is lost",
        },
    }
    assert told(JSONRPC.notice(SymbolsChanged(("SOL-USD",), ()))) == {
        "jsonrpc": "2.0",
        "method": "symbols.changed",
        "params": {"added": ["SOL-USD"], "removed": []},
    }


def test_all_that_is_told_at_once_is_written_once_for_all_clients() -> None:
    """Each client is told all of it before the next one is."""
    notices = [switched(f"S{n}-USD", n) for n in range(SWITCHES_AT_ONCE)]
    one, other = ([JSONRPC.notice(notice) for notice in notices] for _ in range(2))
    assert all(a is b for a, b in zip(one, other, strict=True))


def switched(symbol: str, offset: int) -> StreamSwitched:
    return StreamSwitched(symbol, "trades", 1763696936212, offset, "coinbase", "kraken", "coinbase is lost")


def test_a_slow_client_is_told_how_much_it_missed() -> None:
    """`skipped` counts the trades at these places."""
    params = told(JSONRPC.gap(trades("BTC-USD"), 5, Gap(3, 9, "slow_client"), 6))["params"]
    assert (params["from"], params["to"], params["skipped"]) == (3, 9, 6)


def test_quality_is_told_by_source_and_for_the_symbol() -> None:
    """A notification tells a change. An answer has the best source's state and each source's."""
    lost = Quality("BTC-USD", "kraken", Grade.LOST, 1_589_135_616_696_315_999, "cut")
    live = Quality("BTC-USD", "coinbase", Grade.LIVE, 1_589_135_616_000_000_000)
    [text] = JSONRPC.encoder(Topic("quality", "BTC-USD"), 1)([(3, lost)])
    assert told(text) == {
        "jsonrpc": "2.0",
        "method": "quality.update",
        "params": {
            "symbol": "BTC-USD",
            "source": "kraken",
            "state": "lost",
            "since": "2020-05-10T18:33:36.696315Z",
            "reason": "cut",
            "missing": None,
            "lag": None,
        },
    }
    answer = symbol_quality([lost, live])
    assert answer is not None
    assert (answer["state"], answer["since"]) == ("live", "2020-05-10T18:33:36.000000Z")
    assert list(answer["sources"]) == ["kraken", "coinbase"]
    assert answer["sources"]["kraken"]["reason"] == "cut"


@given(
    st.decimals(min_value=Decimal("1E-30"), max_value=Decimal("1E30"), allow_nan=False, places=None),
    st.text().filter(lambda text: text != ANY),  # which is no symbol
    st.none() | st.text(),
    st.sampled_from(["buy", "sell", None]),
    st.integers(0, 253402300799_999_999_999),
)
def test_no_digit_is_lost(number: Decimal, text: str, name: Any, side: Any, timestamp: int) -> None:
    """A reader of exact numbers gets every trade back as it was, with null for what its source does not tell."""
    trade = Trade(text, text, name, side, number, number / 3, timestamp)
    params = json.loads(update_of(Recorded(1, trade)), parse_float=Decimal, parse_int=Decimal)["params"]
    assert (params["price"], params["qty"]) == (number, number / 3)
    assert (params["source"], params["symbol"], params["tradeId"], params["side"]) == (text, text, name, side)


@pytest.mark.parametrize("written", ["61837.63000000", "1E-7", "0.10", "100"])
def test_a_number_keeps_its_form(written: str) -> None:
    """It is neither rounded nor normalised."""
    trade = Trade("s", "A-B", "1", "sell", Decimal(written), Decimal(1), 0)
    assert f'"price":{written},'.encode() in update_of(Recorded(1, trade))


names = (
    st.sampled_from(
        ["1", "a-1", "x7", 'say "hi"', "back\\slash", "tab\t", "%d", "{0}", "\u00e9", "\u2028", ""]
    )
    | st.text()
)
moments = st.integers(0, 3).map(lambda n: 1_589_135_616_696_315_999 + n * 500)


sides = st.sampled_from(["buy", "sell", None])


@given(names, st.lists(st.tuples(names, st.none() | names, sides, moments, st.integers(1, 2**53))))
def test_kept_parts_of_one_update_show_in_no_other(
    symbol: str, told_of: list[tuple[str, str | None, Any, int, int]]
) -> None:
    """One encoder, many trades: each text is the answer's text in the envelope, whatever came before."""
    encode, topic = JSONRPC.encoder(trades(symbol), 1), trades(symbol)
    for source, name, side, moment, offset in told_of:
        trade = Trade(source, symbol, name, side, Decimal("1.50"), Decimal("2"), moment)
        params = JSONRPC.item(topic, 1, offset, trade).decode()
        expected = f'{{"jsonrpc":"2.0","method":"trades.update","params":{params}}}'
        assert [text.decode() for text in encode([(offset, trade)])] == [expected]


def test_gaps_keep_their_place_among_the_updates() -> None:
    """Trade, gap, trade: three texts in that order."""
    gap, trade = Gap(8, 11, "source_gap"), RECORDED.trade
    made = JSONRPC.encoder(trades("BTC-USD"), 5)([(7, trade), (11, gap), (12, trade)])
    assert [told(text)["method"] for text in made] == ["trades.update", "stream.gap", "trades.update"]
    assert made[1] == JSONRPC.gap(trades("BTC-USD"), 5, gap)
