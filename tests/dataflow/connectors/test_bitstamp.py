"""Promises of dataflow.connectors.bitstamp."""

from __future__ import annotations

import json
from contextlib import suppress
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.connector import Received, Refused, Subscribed, Unsubscribed
from dataflow.connectors.bitstamp import Codec, Filler, Settings
from dataflow.domain import Missed, Missing, Trade
from dataflow.sources.port import RATE_LIMITED, Newest, Page, Request
from dataflow.sources.reading import Unusable
from simulators import Trade as Published
from simulators.exchanges.bitstamp import bitstamp_dialect, farewell
from simulators.exchanges.bitstamp import told as written
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
    '{"data":{"id":216000477,"timestamp":"1641343699","amount":0.0792,"amount_str":"0.07920000","price":3805.44,'
    '"price_str":"3805.44","type":0,"microtimestamp":"1641343699596000","buy_order_id":1443875737346049,'
    '"sell_order_id":1443875731320832},"channel":"live_trades_ethusd","event":"trade"}'
)
TRADE = Trade(
    source="bs",
    symbol="ETH-USD",
    trade_id="216000477",
    side="buy",
    price=Decimal("3805.44"),
    quantity=Decimal("0.07920000"),
    timestamp=1641343699_596_000_000,
)
RECORDED = (
    *("SGB-EUR", "ETH-USD", "XRP-EUR", "BAT-EUR", "USDT-EUR"),
    *("USDT-USD", "XLM-GBP", "ADA-EUR", "BAT-BTC", "GALA-EUR"),
)
LOST = [Missed("bs", symbol, "source_gap") for symbol in ("ETH-USD", "BTC-USD")]


def settings(*symbols: str, **more: Any) -> Settings:
    return Settings(
        connector="bitstamp", url="ws://exchange", symbols=symbols or ("ETH-USD", "BTC-USD"), **more
    )


def codec(*symbols: str, subscribed: bool = False, **more: Any) -> Codec:
    made = Codec("bs", settings(*symbols, **more))
    if subscribed:
        decode(made, answer(), answer(channel="live_trades_btcusd"))
    return made


def changed(**fields: Any) -> str:
    said = json.loads(MESSAGE)
    return json.dumps({**said, "data": {**said["data"], **fields}})


def answer(
    event: Any = "bts:subscription_succeeded", channel: Any = "live_trades_ethusd", data: Any = ()
) -> str:
    return json.dumps({"event": event, "channel": channel, "data": data or {}})


def error(channel: Any = "", words: Any = "Bad subscription string.") -> str:
    return answer("bts:error", channel, {"code": None, "message": words})


def read_alone(message: str) -> tuple[Any, ...]:
    """A recorded trade, read by other code."""
    said = json.loads(message)
    pair, data = said["channel"].removeprefix("live_trades_"), said["data"]
    symbol = next(each for each in RECORDED if each.replace("-", "").lower() == pair)
    side = "sell" if data["type"] else "buy"
    moment = int(data["microtimestamp"])
    return (symbol, str(data["id"]), side, data["price_str"], data["amount_str"], moment)


@pytest.mark.parametrize("whole", [False, True])
def test_a_recorded_session_is_understood(traffic: Any, whole: bool) -> None:
    """No problem in it, each trade is read exactly, and every subscription is confirmed."""
    name = "BITSTAMP.jsonl.gz" if whole else "bitstamp_trades_20220105.jsonl"
    messages = traffic.recording(name) if whole else traffic.excerpt(name)
    into = decode(codec(*RECORDED), *messages)
    assert into.problems == []
    expected = [read_alone(each) for each in messages if '"event":"trade"' in each]
    assert [told(trade) for trade in trades(into)] == expected
    assert len(expected) == len(into.items) == 10
    assert trades(into)[0] == TRADE
    assert {answer for _, answer in into.answers} == {Subscribed(symbol) for symbol in RECORDED}


def test_requests_are_written_as_bitstamp_expects() -> None:
    """One for each channel; a heartbeat is asked for as the probe."""
    speaker = codec(names={"BTC-USD": "xbtusd"})
    assert (list(speaker.headers()), list(speaker.opening())) == ([], [])
    assert sent(speaker.subscribe(["BTC-USD", "ETH-USD"])) == [
        {"event": "bts:subscribe", "data": {"channel": "live_trades_xbtusd"}},
        {"event": "bts:subscribe", "data": {"channel": "live_trades_ethusd"}},
    ]
    assert sent(speaker.unsubscribe(["ETH-USD"])) == [
        {"event": "bts:unsubscribe", "data": {"channel": "live_trades_ethusd"}}
    ]
    assert sent(speaker.probe()) == [{"event": "bts:heartbeat"}]
    assert speaker.missed("ETH-USD") == Missed("bs", "ETH-USD", "source_gap", resubscribed=True)


def test_answers_name_their_channel() -> None:
    """Accepted, refused, ended; those of other channels do not count, nor does a heartbeat."""
    speaker = codec()
    speaker.subscribe(["ETH-USD", "BTC-USD"])
    into = decode(
        speaker,
        answer(channel="diff_order_book_ethusd"),
        answer("bts:heartbeat", "", {"status": "success"}),
        answer(),
        error("live_trades_btcusd"),
        MESSAGE,
        answer("bts:unsubscription_succeeded"),
    )
    assert into == Received(
        items=[TRADE],
        answers=[
            (0, Subscribed("ETH-USD")),
            (0, Refused(("BTC-USD",), "Bad subscription string.")),
            (1, Unsubscribed("ETH-USD")),
        ],
    )


def test_a_refusal_without_a_channel_is_of_everything_without_an_answer() -> None:
    """Once; what was answered before it is not refused."""
    speaker = codec("ETH-USD", "BTC-USD", "X-Y")
    speaker.subscribe(["ETH-USD", "BTC-USD", "X-Y"])
    into = decode(speaker, answer(), error(words=7), error())
    assert [answer for _, answer in into.answers] == [
        Subscribed("ETH-USD"),
        Refused(("BTC-USD", "X-Y"), "refused without a reason"),
    ]
    assert reasons(into) == ["rejected"]


def test_an_announced_end_is_told() -> None:
    """The next connection is made at once."""
    into = decode(codec(), farewell(0))
    assert into == Received(leaving="the upstream announced its end (bts:request_reconnect)")


@pytest.mark.parametrize(
    ("text", "reason", "marked"),
    [
        ("", "malformed_json", 2),
        ("[]", "unexpected_json", 2),
        ("[" * 100_000, "unexpected_json", 2),
        ("\ud800", "malformed_json", 2),
        ("{}", "missing_field", 2),
        (answer(event=["trade"]), "unknown_event", 1),
        (answer(event=None, channel=None), "missing_field", 2),
        (answer(event="trade", data=[1]), "unexpected_json", 1),
        ('{"event":"trade","channel":"live_trades_ethusd"}', "missing_field", 1),
        ('{"event":"trade"}', "missing_field", 2),
        (answer("trade", ["live_trades_ethusd"]), "unknown_channel", 2),
        (answer("trade", "live_trades_xy"), "unknown_symbol", 0),
        (answer("trade", "live_orders_ethusd"), "unknown_channel", 0),
        (answer("trade", "trades"), "unknown_channel", 0),
        (answer("traded"), "unknown_event", 0),
        (answer("data"), "unknown_event", 0),
        (answer(channel="live_trades_xy"), "unknown_symbol", 0),
        (answer(channel="trades"), "unknown_channel", 0),
        (answer(channel=None), "missing_field", 0),
        (answer(channel=1), "unknown_channel", 0),
        (error(), "rejected", 0),
        (error("live_trades_ethusd"), "rejected", 0),
        (error("live_trades_xy"), "unknown_symbol", 0),
        ('{"event":"bts:error"}', "rejected", 0),
    ],
)
def test_what_may_have_been_a_trade_is_a_loss(text: str, reason: str, marked: int) -> None:
    """Nothing else would show it: the symbol is marked, or all if none is named. Anything else is counted."""
    into = decode(codec(subscribed=True), text)
    assert into == Received(items=LOST[:marked], problems=into.problems)
    assert reasons(into) == [reason]


@pytest.mark.parametrize("event", ["data", "order_created", "order_changed", "order_deleted"])
def test_messages_of_other_channels_are_left_out(event: str) -> None:
    """Known by their channel, whatever else they hold."""
    assert decode(codec(), answer(event, "live_orders_ethusd", {"id": "x", "price_str": 1})) == Received()


WRONG: list[tuple[str, Any, str]] = [
    ("id", None, "missing_field"),
    ("id", 0, "bad_trade_id"),
    ("id", "007", "bad_trade_id"),
    ("id", 1.0, "bad_trade_id"),
    ("id", True, "bad_trade_id"),
    ("id", 2**64, "bad_trade_id"),
    ("type", None, "missing_field"),
    ("type", 2, "bad_side"),
    ("type", True, "bad_side"),
    ("type", "0", "bad_side"),
    ("price_str", None, "missing_field"),
    ("price_str", 3805.44, "bad_price"),
    ("price_str", "-1", "bad_price"),
    ("amount_str", None, "missing_field"),
    ("amount_str", "0.00", "bad_quantity"),
    ("microtimestamp", None, "missing_field"),
    ("microtimestamp", "now", "bad_timestamp"),
    ("microtimestamp", "0", "bad_timestamp"),
    ("microtimestamp", 2**53, "bad_timestamp"),
]


@pytest.mark.parametrize(("field", "value", "reason"), WRONG)
def test_nothing_is_guessed(field: str, value: Any, reason: str) -> None:
    """A field that is missing or wrong makes a problem under its name, and a mark instead of the trade."""
    into = decode(codec(subscribed=True), changed(**{field: value}))
    assert (into.items, reasons(into)) == (LOST[:1], [reason])


def test_a_binary_message_is_a_problem() -> None:
    """Bitstamp speaks text."""
    assert reasons(decode(codec(), MESSAGE.encode())) == ["not_text"]


@given(st.lists(st.binary(max_size=200) | st.text(max_size=200), max_size=5))
def test_any_bytes_make_problems_only(messages: list[str | bytes]) -> None:
    """Fuzz: never an exception, never a trade."""
    into = decode(codec(), *messages)
    assert into == Received(problems=into.problems)
    assert len(into.problems) == len(messages)


@given(
    st.dictionaries(
        st.sampled_from(["event", "channel", "data"]),
        json_values
        | st.sampled_from(["trade", "bts:error", "bts:subscription_succeeded", "live_trades_ethusd"]),
    )
)
def test_an_object_of_any_fields_is_survived(fields: dict[str, Any]) -> None:
    """Fuzz of answers."""
    speaker = codec()
    speaker.subscribe(["ETH-USD"])
    assert trades(decode(speaker, json.dumps(fields))) == []


@given(st.sampled_from(["id", "type", "price_str", "amount_str", "microtimestamp"]), json_values)
def test_a_field_of_any_value_is_taken_as_it_is_or_is_a_problem(field: str, value: Any) -> None:
    """Fuzz of one field of a real trade: it is as it was but for that field, or there is none."""
    into = decode(codec(), changed(**{field: value}))
    assert len(trades(into)) + len(into.problems) == 1
    for trade in trades(into):
        assert trade.price == (Decimal(value) if field == "price_str" else TRADE.price)
        assert trade.quantity == (Decimal(value) if field == "amount_str" else TRADE.quantity)
        assert trade.trade_id == (str(value) if field == "id" else TRADE.trade_id)


@given(st.integers(0, len(MESSAGE)), st.integers(0, len(MESSAGE)), st.text(max_size=3))
def test_a_damaged_message_never_raises(start: int, end: int, inserted: str) -> None:
    """Fuzz: a part is cut out or replaced; a trade that is left is complete."""
    into = decode(codec(), MESSAGE[:start] + inserted + MESSAGE[end:])
    assert all(trade.price > 0 < trade.quantity for trade in trades(into))


def test_symbols_that_cannot_be_told_apart_are_refused() -> None:
    """AB-C and A-BC are one name on Bitstamp: the way back would be a guess."""
    with pytest.raises(ValueError, match="have the same name there"):
        settings("AB-C", "A-BC")


def published(id: int, **fields: Any) -> Published:
    usual = {
        "side": "buy",
        "price": "3805.4",
        "qty": "0.1",
        "timestamp_us": 1_700_000_000_000_000 + id * 100_000,
    }
    return Published(id=id, symbol="ethusd", **(usual | fields))


@given(
    st.builds(
        published,
        id=st.integers(1, 2**63),
        side=st.sampled_from(["buy", "sell"]),
        price=st.from_regex(r"[1-9][0-9]{0,8}(\.[0-9]{1,10})?", fullmatch=True),
        qty=st.from_regex(r"0\.[0-9]{0,12}[1-9]", fullmatch=True),
        timestamp_us=st.integers(1, 2**52),
    )
)
def test_what_is_decoded_is_what_was_encoded(trade: Published) -> None:
    """Every field of any trade; amounts have eight decimals at least."""
    (read,) = trades(decode(codec(), written(trade)))
    amount = trade.qty if len(trade.qty) >= 10 else f"{trade.qty:0<10}"
    assert told(read) == ("ETH-USD", str(trade.id), trade.side, trade.price, amount, trade.timestamp_us)
    assert read.sequence is None


# -- refill -----------------------------------------------------------------------------------------------

REST = bitstamp_dialect(symbols=["ethusd"]).rest
TAPE = [published(id) for id in range(7, 700_000, 70)]  # one every 7 s: 19 hours
ASK = tape_of({"ethusd": TAPE})
NOW = len(TAPE) - 1


def heard(at: int) -> Trade:
    """A trade of the tape, as the stream would have brought it."""
    (trade,) = trades(decode(codec(), written(TAPE[at])))
    return trade


def missing(after: int | None, before: int | None) -> Missing:
    ends = [None if at is None else heard(at) for at in (after, before)]
    return Missing("bs", "ETH-USD", ends[0], ends[1])


def filler() -> Filler:
    return Filler("bs", settings("ETH-USD"))


@pytest.mark.parametrize(
    ("after", "before", "questions"),
    [
        (NOW - 5, NOW, 1),  # within the last minute
        (NOW - 5, NOW - 1, 1),
        (NOW - 5, None, 1),
        (NOW - 400, NOW, 1),  # the length of the loss tells that a minute is too short
        (NOW - 400, NOW - 395, 2),  # a short loss, but not a recent one
        (NOW - 400, None, 2),
        (NOW - 5000, NOW - 4995, 3),
        (NOW - 5000, NOW - 1000, 1),
    ],
)
def test_a_loss_is_filled_between_the_trades_around_it(
    after: int, before: int | None, questions: int
) -> None:
    """These two as they were heard, which proves that nothing is missing, and nothing beside them."""
    assert REST is not None
    found, count = refill(filler(), missing(after, before), REST, ASK)
    last = NOW if before is None else before
    assert [trade.trade_id for trade in found] == [str(each.id) for each in TAPE[after : last + 1]]
    assert found[0] == heard(after)
    assert before is None or found[-1] == heard(before)
    assert count == questions


def test_without_a_beginning_the_newest_trades_are_asked_for() -> None:
    """Those of the last hour."""
    assert REST is not None
    found, questions = refill(filler(), missing(None, None), REST, ASK)
    assert (len(found), questions) == (3600 // 7 + 1, 1)


def row(id: Any = 8, **fields: Any) -> dict[str, Any]:
    return {
        "amount": "0.10000000",
        "date": "1700000000",
        "price": "3805.4",
        "tid": str(id),
        "type": "0",
    } | fields


def answered(*rows: Any) -> bytes:
    return json.dumps(rows[::-1]).encode()


def test_a_time_of_a_second_is_no_earlier_than_the_trade_before() -> None:
    """REST tells the second. What happened behind a trade of the same second did not happen before it."""
    after = msgspec.structs.replace(heard(0), timestamp=1_700_000_000_700_000_000)
    wanted = Missing("bs", "ETH-USD", after, None)
    said = answered(row(7), row(8), row(9, date="1700000001"), row(10, price="1"))
    page = filler().filled(wanted, Request("/api/v2/transactions/ethusd/?time=minute"), said)
    assert page.trades[0] is after
    assert [trade.timestamp for trade in page.trades[1:]] == [
        1_700_000_000_700_000_000,
        1_700_000_001_000_000_000,
        1_700_000_000_700_000_000,
    ]


def test_a_row_that_is_not_what_was_heard_stays_as_it_is() -> None:
    """Two values of one id are for whoever asked to see."""
    wanted = missing(0, None)
    said = answered(row(7, price="1"))
    (trade,) = filler().filled(wanted, Request("/api/v2/transactions/ethusd/?time=day"), said).trades
    assert trade.price == 1


def test_an_exchange_that_has_nothing_ends_the_questions() -> None:
    """After the longest span, and not before."""
    wanted = missing(NOW - 5, NOW)
    request, spans = filler().fill(wanted), []
    while request is not None:
        spans.append(request.path)
        page = filler().filled(wanted, request, b"[]")
        assert page.trades == []
        request = page.following
    assert spans == [f"/api/v2/transactions/ethusd/?time={span}" for span in ("minute", "hour", "day")]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"", "malformed_json"),
        (b"\xff", "malformed_json"),
        (b"1", "unexpected_json"),
        (b"[1]", "unexpected_json"),
        (b"{}", "missing_field"),
        (b'{"code":"404.002","reason":"Market not found."}', "refused"),
        (b'{"code":"400.002","reason":"Too many requests."}', RATE_LIMITED),
        (answered(row("x")), "bad_trade_id"),
        (answered(row(None)), "bad_trade_id"),
        (answered(row(type=0)), "bad_side"),
        (answered(row(price=1.5)), "bad_price"),
        (answered(row(amount="")), "bad_quantity"),
        (answered(row(date=1700000000)), "bad_timestamp"),
        (answered(row(date=None)), "missing_field"),
    ],
)
def test_an_answer_that_cannot_be_used_is_named(said: bytes, reason: str) -> None:
    """And none of it is used."""
    with pytest.raises(Unusable) as caught:
        filler().filled(missing(0, None), Request("/api/v2/transactions/ethusd/?time=day"), said)
    assert caught.value.reason == reason


@given(st.binary(max_size=100) | json_values.map(lambda value: json.dumps([value]).encode()))
def test_any_answer_is_read_or_refused(said: bytes) -> None:
    """Fuzz: nothing but Unusable is raised."""
    with suppress(Unusable):
        filler().filled(missing(0, 1), Request("/api/v2/transactions/ethusd/?time=day"), said)
    with suppress(Unusable):
        filler().newest(["ETH-USD"], said)


def test_the_newest_trade_is_asked_for() -> None:
    """By one question for one symbol; one that did not trade for an hour is left out."""
    assert REST is not None
    request = filler().latest(["ETH-USD", "BTC-USD"])
    assert request == Request("/api/v2/transactions/ethusd/?time=hour")
    second = TAPE[-1].timestamp_us // 1_000_000 * 1_000_000_000
    newest = {"ETH-USD": Newest(None, str(TAPE[-1].id), second)}
    assert filler().newest(["ETH-USD", "BTC-USD"], asked(REST, request.path, ASK)) == newest
    assert filler().newest(["ETH-USD"], b"[]") == {}
    assert filler().filled(missing(0, None), Request("/x?time=day"), b"[]") == Page([])
