"""Promises of dataflow.connectors.gemini. The formats are those of the exchange's documentation."""

from __future__ import annotations

import json
from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.connector import Received, Refused, Subscribed, Unsubscribed
from dataflow.connectors.gemini import Codec, Filler, Settings
from dataflow.domain import Missed, Missing, Trade
from dataflow.sources.port import RATE_LIMITED, Newest, Page, Request
from dataflow.sources.reading import Unusable
from simulators import Trade as Published
from simulators.exchanges.gemini import book, gemini_dialect
from simulators.exchanges.gemini import told as written
from tests.dataflow.connectors.talk import (
    asked,
    decode,
    json_values,
    reasons,
    refill,
    sent,
    tape_of,
    told,
    trades,
)

MESSAGE = (
    '{"type":"trade","symbol":"BTCUSD","event_id":3575573053,"timestamp":1563225122157,"price":"9004.21000000",'
    '"quantity":"0.09110000","side":"buy","tid":2840140800042677}'
)
TRADE = Trade(
    source="gm",
    symbol="BTC-USD",
    trade_id="2840140800042677",
    side="buy",
    price=Decimal("9004.21000000"),
    quantity=Decimal("0.09110000"),
    timestamp=1563225122_157_000_000,
)
LOST = [Missed("gm", symbol, "source_gap") for symbol in ("BTC-USD", "ETH-USD")]


def settings(*symbols: str, **more: Any) -> Settings:
    return Settings(
        connector="gemini", url="ws://exchange", symbols=symbols or ("BTC-USD", "ETH-USD"), **more
    )


def codec(*symbols: str, subscribed: bool = False, **more: Any) -> Codec:
    made = Codec("gm", settings(*symbols, **more))
    if subscribed:
        made.subscribe(["BTC-USD", "ETH-USD"])
        decode(made, answer(), answer(symbol="ETHUSD"))
    return made


def changed(**fields: Any) -> str:
    return json.dumps({**json.loads(MESSAGE), **fields})


def answer(*deals: Any, symbol: Any = "BTCUSD", **more: Any) -> str:
    changes = [["buy", "9122.04", "0.00121425"], ["sell", "9122.07", "0.98942292"]]
    return json.dumps({"type": "l2_updates", "symbol": symbol, "changes": changes, "trades": deals, **more})


def deal(tid: Any, timestamp: Any = 1563225122157, **more: Any) -> dict[str, Any]:
    return {**json.loads(MESSAGE), "tid": tid, "timestamp": timestamp, "eventid": tid, **more}


def refusal(reason: Any = "InvalidSymbol", **more: Any) -> str:
    return json.dumps({"result": "error", "reason": reason, **more})


def test_a_trade_is_read_exactly() -> None:
    """The side is the taker's, the decimals have the very digits that were sent."""
    into = decode(codec(), MESSAGE, changed(side="sell"))
    assert trades(into)[0] == TRADE
    assert told(trades(into)[0])[3:5] == ("9004.21000000", "0.09110000")
    assert trades(into)[1].side == "sell"
    assert into.problems == []


def test_requests_are_written_as_gemini_expects() -> None:
    """By the names without dashes; there are heartbeats, so nothing is a probe."""
    speaker = codec(names={"ETH-USD": "XETH"})
    assert (list(speaker.headers()), list(speaker.opening()), list(speaker.probe())) == ([], [], [])
    assert sent(speaker.subscribe(["BTC-USD", "ETH-USD", "BTC-GUSD-PERP"])) == [
        {"type": "subscribe", "subscriptions": [{"name": "l2", "symbols": ["BTCUSD", "XETH", "BTCGUSDPERP"]}]}
    ]
    assert sent(speaker.unsubscribe(["ETH-USD"])) == [
        {"type": "unsubscribe", "subscriptions": [{"name": "l2", "symbols": ["XETH"]}]}
    ]
    assert speaker.missed("BTC-USD") == Missed("gm", "BTC-USD", "source_gap", resubscribed=True)


def test_the_order_book_answers_a_subscription() -> None:
    """The first one; its trades come behind the answer, by time and id. Later changes are left out."""
    speaker = codec()
    speaker.subscribe(["BTC-USD", "ETH-USD"])
    into = decode(
        speaker,
        answer(deal(9, 2000), deal(8, 1000), deal(7, 1000)),
        answer(symbol="ETHUSD"),
        answer(deal(10)),
        '{"type":"l2_updates","symbol":"BTCUSD","changes":[["sell","9160.20","0.1921229751"]]}',
    )
    assert [trade.trade_id for trade in trades(into)] == ["7", "8", "9"]
    assert into.answers == [(0, Subscribed("BTC-USD")), (3, Subscribed("ETH-USD"))]
    assert into.problems == []


def test_a_bad_trade_of_the_answer_is_a_loss() -> None:
    """The others are taken. No repeated trade can prove that nothing is missing."""
    speaker = codec()
    speaker.subscribe(["BTC-USD"])
    into = decode(speaker, answer(deal(9), deal(8, side="up")))
    assert into.items[0] == LOST[0]
    assert [trade.trade_id for trade in trades(into)] == ["9"]
    assert reasons(into) == ["bad_side"]


def test_an_unsubscription_is_done_with_the_next_message() -> None:
    """Gemini does not answer it. A subscription after it is answered as any other."""
    speaker = codec(subscribed=True)
    speaker.unsubscribe(["BTC-USD"])
    speaker.subscribe(["BTC-USD"])
    into = decode(speaker, '{"type":"heartbeat","timestamp":1563225122157}', answer())
    assert into.answers == [(0, Unsubscribed("BTC-USD")), (0, Subscribed("BTC-USD"))]


def test_a_refusal_is_of_everything_without_an_answer() -> None:
    """It names no symbol. It is one, once."""
    speaker = codec()
    speaker.subscribe(["BTC-USD", "ETH-USD"])
    into = decode(speaker, answer(), refusal(message="X is no symbol"), refusal())
    assert [answer for _, answer in into.answers] == [
        Subscribed("BTC-USD"),
        Refused(("ETH-USD",), "InvalidSymbol: X is no symbol"),
    ]
    assert (reasons(into), into.items) == (["rejected"], [])
    speaker.subscribe(["ETH-USD"])
    into = decode(speaker, '{"type":"error","reason":[]}')
    assert into.answers == [(0, Refused(("ETH-USD",), "refused without a reason"))]


@pytest.mark.parametrize(
    ("text", "reason", "marked"),
    [
        ("", "malformed_json", 2),
        ("[]", "unexpected_json", 2),
        ("[" * 100_000, "unexpected_json", 2),
        ("\ud800", "malformed_json", 2),
        ('{"trades":{}}', "unexpected_json", 2),
        ("{}", "missing_field", 2),
        ('{"symbol":"BTCUSD"}', "missing_field", 1),
        ('{"type":["trade"]}', "unknown_type", 2),
        ('{"type":"trade"}', "missing_field", 2),
        ('{"type":"trade","symbol":"XY"}', "unknown_symbol", 0),
        ('{"type":"trades","symbol":"BTCUSD"}', "unknown_type", 0),
        ('{"type":"l2_updates"}', "missing_field", 0),
        ('{"type":"l2_updates","symbol":"XY"}', "unknown_symbol", 0),
        ('{"type":"error"}', "rejected", 0),
        (refusal(), "rejected", 0),
    ],
)
def test_what_may_have_been_a_trade_is_a_loss(text: str, reason: str, marked: int) -> None:
    """Nothing else would show it: the symbol is marked, or all if none is named. Anything else is counted."""
    into = decode(codec(subscribed=True), text)
    assert into == Received(items=LOST[:marked], problems=into.problems)
    assert reasons(into) == [reason]


@pytest.mark.parametrize(
    "kind", ["heartbeat", "auction_result", "auction_open", "candles_1m_updates", "block_trade"]
)
def test_messages_of_other_kinds_are_left_out(kind: str) -> None:
    """Known by their type, whatever else they hold."""
    assert decode(codec(subscribed=True), changed(type=kind, changes=1)) == Received()


WRONG: list[tuple[str, Any, str]] = [
    ("tid", None, "missing_field"),
    ("tid", 0, "bad_trade_id"),
    ("tid", "007", "bad_trade_id"),
    ("tid", 1.0, "bad_trade_id"),
    ("tid", True, "bad_trade_id"),
    ("side", None, "missing_field"),
    ("side", "bid", "bad_side"),
    ("price", None, "missing_field"),
    ("price", 9004.21, "bad_price"),
    ("price", "0", "bad_price"),
    ("quantity", None, "missing_field"),
    ("quantity", "-0.1", "bad_quantity"),
    ("timestamp", None, "missing_field"),
    ("timestamp", 0, "bad_timestamp"),
    ("timestamp", 1.5, "bad_timestamp"),
    ("timestamp", 2**53, "bad_timestamp"),
]


@pytest.mark.parametrize(("field", "value", "reason"), WRONG)
def test_nothing_is_guessed(field: str, value: Any, reason: str) -> None:
    """A field that is missing or wrong makes a problem under its name, and a mark instead of the trade."""
    into = decode(codec(subscribed=True), changed(**{field: value}))
    assert (into.items, reasons(into)) == (LOST[:1], [reason])


def test_a_binary_message_is_a_problem() -> None:
    """Gemini speaks text."""
    assert reasons(decode(codec(), MESSAGE.encode())) == ["not_text"]


@given(st.lists(st.binary(max_size=200) | st.text(max_size=200), max_size=5))
def test_any_bytes_make_problems_only(messages: list[str | bytes]) -> None:
    """Fuzz: never an exception, never a trade."""
    into = decode(codec(), *messages)
    assert into == Received(problems=into.problems)
    assert len(into.problems) == len(messages)


@given(
    st.dictionaries(
        st.sampled_from(["type", "symbol", "trades", "result", "reason", "message", "changes"]),
        json_values | st.sampled_from(["l2_updates", "error", "BTCUSD", [{}], [{"tid": 1}]]),
    )
)
def test_an_object_of_any_fields_is_survived(fields: dict[str, Any]) -> None:
    """Fuzz of answers."""
    speaker = codec()
    speaker.subscribe(["BTC-USD"])
    assert trades(decode(speaker, json.dumps(fields))) == []


@given(st.sampled_from(["tid", "side", "price", "quantity", "timestamp"]), json_values)
def test_a_field_of_any_value_is_taken_as_it_is_or_is_a_problem(field: str, value: Any) -> None:
    """Fuzz of one field of a trade: it is as it was but for that field, or there is none."""
    into = decode(codec(), changed(**{field: value}))
    assert len(trades(into)) + len(into.problems) == 1
    for trade in trades(into):
        assert trade.price == (Decimal(value) if field == "price" else TRADE.price)
        assert trade.quantity == (Decimal(value) if field == "quantity" else TRADE.quantity)
        assert trade.trade_id == (str(value) if field == "tid" else TRADE.trade_id)


@given(st.integers(0, len(MESSAGE)), st.integers(0, len(MESSAGE)), st.text(max_size=3))
def test_a_damaged_message_never_raises(start: int, end: int, inserted: str) -> None:
    """Fuzz: a part is cut out or replaced; a trade that is left is complete."""
    into = decode(codec(), MESSAGE[:start] + inserted + MESSAGE[end:])
    assert all(trade.price > 0 < trade.quantity for trade in trades(into))


def test_symbols_that_cannot_be_told_apart_are_refused() -> None:
    """AB-C and A-BC are one name on Gemini: the way back would be a guess."""
    with pytest.raises(ValueError, match="have the same name there"):
        settings("AB-C", "A-BC")


def published(id: int, **fields: Any) -> Published:
    usual = {
        "side": "buy",
        "price": "9004.2",
        "qty": "0.1",
        "timestamp_us": (1_700_000_000_000 + id // 30) * 1000,
    }
    return Published(id=id, symbol="BTCUSD", **(usual | fields))


@given(
    st.builds(
        published,
        id=st.integers(1, 2**63),
        side=st.sampled_from(["buy", "sell"]),
        price=st.from_regex(r"[1-9][0-9]{0,8}(\.[0-9]{1,10})?", fullmatch=True),
        qty=st.from_regex(r"0\.[0-9]{0,12}[1-9]", fullmatch=True),
        timestamp_us=st.integers(1, 2**42).map(lambda ms: ms * 1000),
    )
)
def test_what_is_decoded_is_what_was_encoded(trade: Published) -> None:
    """Every field of any trade, live and in the answer to a subscription."""
    speaker = codec()
    speaker.subscribe(["BTC-USD"])
    live, before = trades(decode(speaker, written(trade), book("BTCUSD", [trade])))
    assert live == before
    assert told(live) == ("BTC-USD", str(trade.id), trade.side, trade.price, trade.qty, trade.timestamp_us)
    assert live.sequence is None


# -- refill -----------------------------------------------------------------------------------------------

REST = gemini_dialect(symbols=["BTCUSD"]).rest
TAPE = [published(id) for id in range(7, 7007, 7)]  # a thousand, four in a millisecond
ASK = tape_of({"BTCUSD": TAPE})


def heard(at: int) -> Trade:
    """A trade of the tape, as the stream would have brought it."""
    (trade,) = trades(decode(codec(), written(TAPE[at])))
    return trade


def missing(after: int | None, before: int | None) -> Missing:
    ends = [None if at is None else heard(at) for at in (after, before)]
    return Missing("gm", "BTC-USD", ends[0], ends[1])


def filler() -> Filler:
    return Filler("gm", settings("BTC-USD"))


@given(st.integers(505, 999), st.integers(0, 499))
def test_a_loss_is_filled_between_the_trades_around_it(after: int, size: int) -> None:
    """These two as they were heard, which proves that nothing is missing, and nothing beside them."""
    assert REST is not None
    before = min(after + size, 999)
    found, questions = refill(filler(), missing(after, before), REST, ASK)
    assert found == [heard(at) for at in range(after, before + 1)]
    assert questions == 1


def test_a_loss_up_to_now_is_filled() -> None:
    """From the trade before it on."""
    assert REST is not None
    found, _ = refill(filler(), missing(900, None), REST, ASK)
    assert [trade.trade_id for trade in found] == [str(each.id) for each in TAPE[900:]]


def test_a_loss_longer_than_an_answer_shows() -> None:
    """The trade before it is not in the answer, so nobody can take it for whole. There is no older page."""
    assert REST is not None
    found, questions = refill(filler(), missing(100, 900), REST, ASK)
    assert [trade.trade_id for trade in found] == [str(each.id) for each in TAPE[500:901]]
    assert questions == 1


def test_without_a_beginning_the_newest_trades_are_asked_for() -> None:
    """As many as one answer has; with an end, those before it."""
    assert REST is not None
    assert len(refill(filler(), missing(None, None), REST, ASK)[0]) == 500
    found, _ = refill(filler(), missing(None, 900), REST, ASK)
    assert found == [heard(at) for at in range(500, 901)]


def row(tid: Any = 8, **fields: Any) -> dict[str, Any]:
    usual = {
        "timestamp": 1700000000,
        "timestampms": 1700000000000,
        "price": "9004.2",
        "amount": "0.1",
        "type": "buy",
    }
    return {**usual, "tid": tid, **fields}


def answered(*rows: Any) -> bytes:
    return json.dumps(rows[::-1]).encode()


REQUEST = Request("/v1/trades/btcusd?limit_trades=500&timestamp=1699999999999")


def test_trades_apart_from_the_market_are_left_out() -> None:
    """The stream tells auctions and blocks as other events."""
    said = answered(row(7), row(8, type="auction"), row(9, type="block"), row(10, type="sell"))
    page = filler().filled(missing(0, None), REQUEST, said)
    assert [trade.trade_id for trade in page.trades] == ["7", "10"]


def test_trades_of_another_time_are_left_out_without_the_ends() -> None:
    """If the trades around the loss are not in the answer, their times are the bounds."""
    said = answered(row(3, timestampms=1699999999999), row(8), row(9, timestampms=1700000009999))
    page = filler().filled(missing(0, 9), REQUEST, said)
    assert [trade.trade_id for trade in page.trades] == ["8"]


def test_an_exchange_that_has_nothing_ends_the_questions() -> None:
    """No trades, and no further question."""
    assert filler().fill(missing(0, 9)) == REQUEST
    assert filler().filled(missing(0, 9), REQUEST, b"[]") == Page([], None)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"", "malformed_json"),
        (b"\xff", "malformed_json"),
        (b"1", "unexpected_json"),
        (b"[1]", "unexpected_json"),
        (b"{}", "unexpected_json"),
        (b'{"result":"error","reason":"InvalidSymbol"}', "refused"),
        (b'{"result":"error","reason":"RateLimit"}', RATE_LIMITED),
        (answered(row("x")), "bad_trade_id"),
        (answered(row(None)), "missing_field"),
        (answered(row(type="swap")), "bad_side"),
        (answered(row(type=["buy"])), "bad_side"),
        (answered(row(price=1.5)), "bad_price"),
        (answered(row(amount="")), "bad_quantity"),
        (answered(row(timestampms="soon")), "bad_timestamp"),
    ],
)
def test_an_answer_that_cannot_be_used_is_named(said: bytes, reason: str) -> None:
    """And none of it is used."""
    with pytest.raises(Unusable) as caught:
        filler().filled(missing(0, 9), REQUEST, said)
    assert caught.value.reason == reason


@given(st.binary(max_size=100) | json_values.map(lambda value: json.dumps([value]).encode()))
def test_any_answer_is_read_or_refused(said: bytes) -> None:
    """Fuzz: nothing but Unusable is raised."""
    with suppress(Unusable):
        filler().filled(missing(0, 9), REQUEST, said)
    with suppress(Unusable):
        filler().newest(["BTC-USD"], said)


def test_the_newest_trade_is_asked_for() -> None:
    """By one question for one symbol; one without trades is left out."""
    assert REST is not None
    request = filler().latest(["BTC-USD", "ETH-USD"])
    assert request == Request("/v1/trades/btcusd?limit_trades=1")
    newest = {"BTC-USD": Newest(None, str(TAPE[-1].id), TAPE[-1].timestamp_us * 1000)}
    assert filler().newest(["BTC-USD", "ETH-USD"], asked(REST, request.path, ASK)) == newest
    assert filler().newest(["BTC-USD"], b"[]") == {}
