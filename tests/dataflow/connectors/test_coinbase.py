"""Promises of dataflow.connectors.coinbase."""

from __future__ import annotations

import json
from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from actors.connector import Received, Refused, Subscribed, Unsubscribed
from dataflow.connectors.coinbase import Codec, Filler, Settings
from dataflow.domain import Missing, Trade
from dataflow.domain.timestamps import from_rfc3339
from dataflow.sources.port import Newest, Page, Request
from dataflow.sources.reading import Unusable
from simulators import Trade as Published
from simulators.exchanges.coinbase import coinbase_dialect, match
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

MATCH = (
    '{"type":"match","trade_id":280232,"maker_order_id":"2a0da34e-61f7-4c36-88e5-c9dd15927b16",'
    '"taker_order_id":"3c82abaa-c01e-4608-be59-6a1e69742891","side":"sell","size":"985","price":"0.00001305",'
    '"product_id":"SKL-BTC","sequence":177100030,"time":"2021-04-17T16:43:37.089723Z"}'
)
TRADE = Trade(
    source="cb",
    symbol="SKL-BTC",
    trade_id="280232",
    side="buy",
    price=Decimal("0.00001305"),
    quantity=Decimal(985),
    timestamp=1618677817_089_723_000,
    sequence=280232,
)
RECORDED = (
    *("BAND-BTC", "BAND-GBP", "CRV-EUR", "DASH-BTC", "NMR-EUR"),
    *("NU-GBP", "SKL-BTC", "SKL-GBP", "SKL-USD", "YFI-BTC"),
)


def settings(*symbols: str, **more: Any) -> Settings:
    return Settings(connector="coinbase", url="ws://exchange", symbols=symbols or RECORDED, **more)


def codec(*symbols: str, **more: Any) -> Codec:
    return Codec("cb", settings(*symbols, **more))


def changed(**fields: Any) -> str:
    return json.dumps({**json.loads(MATCH), **fields})


def subscriptions(**channels: list[str]) -> str:
    listed = [{"name": name, "product_ids": products} for name, products in channels.items()]
    return json.dumps({"type": "subscriptions", "channels": listed})


def error(message: str = "Failed to subscribe", reason: str | None = "X-Y is not a valid product") -> str:
    return json.dumps({"type": "error", "message": message, "reason": reason})


def read_alone(message: str) -> tuple[Any, ...]:
    """A recorded match, read by other code."""
    said = json.loads(message)
    taker = "buy" if said["side"] == "sell" else "sell"
    moment = from_rfc3339(said["time"]) // 1000
    return (said["product_id"], str(said["trade_id"]), taker, said["price"], said["size"], moment)


@pytest.mark.parametrize("whole", [False, True])
def test_a_recorded_session_is_understood(traffic: Any, whole: bool) -> None:
    """No problem in it, each trade is read exactly, and the ids of each product are contiguous."""
    name = "COINBASE.jsonl.gz" if whole else "coinbase_matches_20210417.jsonl"
    messages = traffic.recording(name) if whole else traffic.excerpt(name)
    into = decode(codec(), *messages)
    assert into.problems == []
    expected = [read_alone(each) for each in messages if '"match"' in each or '"last_match"' in each]
    assert [told(trade) for trade in trades(into)] == expected
    assert len(expected) == 107
    assert {answer for _, answer in into.answers} == {Subscribed(symbol) for symbol in RECORDED}
    for symbol in RECORDED:
        ids = [trade.sequence for trade in trades(into) if trade.symbol == symbol]
        assert ids == list(range(ids[0], ids[0] + len(ids)))  # type: ignore[arg-type, operator]


def test_a_match_and_a_last_match_are_the_same_trade() -> None:
    """The newest trade from before a subscription is one that was missed, or a duplicate."""
    assert decode(codec(), MATCH, changed(type="last_match")) == Received(items=[TRADE, TRADE])


def test_the_maker_is_told_and_the_taker_is_kept() -> None:
    """`side` is the maker's: the taker has the other one."""
    into = decode(codec(), changed(side="buy"), changed(side="sell"))
    assert [trade.side for trade in trades(into)] == ["sell", "buy"]


def test_requests_are_written_as_coinbase_expects() -> None:
    """The heartbeat of one product at the opening and as the probe; the products of others by name."""
    speaker = codec(names={"BTC-USD": "XBT-USD"})
    assert list(speaker.headers()) == []
    pulse = {"type": "subscribe", "product_ids": ["BTC-USD"], "channels": ["heartbeat"]}
    assert sent(speaker.opening()) == sent(speaker.probe()) == [pulse]
    assert sent(speaker.subscribe(["BTC-USD", "ETH-USD"])) == [
        {"type": "subscribe", "product_ids": ["XBT-USD", "ETH-USD"], "channels": ["matches"]}
    ]
    assert sent(speaker.unsubscribe(["ETH-USD"])) == [
        {"type": "unsubscribe", "product_ids": ["ETH-USD"], "channels": ["matches"]}
    ]
    assert speaker.missed("BTC-USD") is None
    assert trades(decode(speaker, changed(product_id="XBT-USD")))[0].symbol == "BTC-USD"


def test_answers_tell_what_is_new() -> None:
    """Each lists all that is subscribed; only the difference is reported, and other channels do not count."""
    speaker = codec("BTC-USD", "ETH-USD")
    speaker.subscribe(["BTC-USD", "ETH-USD"])
    into = decode(
        speaker,
        subscriptions(heartbeat=["BTC-USD"]),
        subscriptions(heartbeat=["BTC-USD"], matches=["BTC-USD"], level2=["ETH-USD"]),
        subscriptions(matches=["ETH-USD", "BTC-USD"]),
        subscriptions(matches=["ETH-USD"]),
        subscriptions(),
    )
    assert into == Received(
        answers=[
            (0, Subscribed("BTC-USD")),
            (0, Subscribed("ETH-USD")),
            (0, Unsubscribed("BTC-USD")),
            (0, Unsubscribed("ETH-USD")),
        ]
    )


def test_a_refusal_is_of_everything_without_an_answer() -> None:
    """It names no request. What was answered before it is not refused, and nothing is refused twice."""
    speaker = codec("BTC-USD", "ETH-USD", "X-Y")
    decode(speaker, subscriptions(heartbeat=["BTC-USD"]))
    speaker.subscribe(["BTC-USD"])
    speaker.subscribe(["ETH-USD", "X-Y"])
    into = decode(speaker, subscriptions(matches=["BTC-USD"]), error(), error())
    assert [answer for _, answer in into.answers] == [
        Subscribed("BTC-USD"),
        Refused(("ETH-USD", "X-Y"), "Failed to subscribe: X-Y is not a valid product"),
    ]
    assert reasons(into) == ["rejected"]


def test_a_refused_heartbeat_refuses_no_symbol() -> None:
    """It was asked for first, so the first refusal is its own."""
    speaker = codec("BTC-USD")
    speaker.opening()
    speaker.subscribe(["BTC-USD"])
    into = decode(speaker, error(), subscriptions(matches=["BTC-USD"]))
    assert into.answers == [(0, Subscribed("BTC-USD"))]
    assert reasons(into) == ["rejected"]


def test_a_refusal_without_words_is_one() -> None:
    """The words are shown, as far as there are any, and not more than fits."""
    for fields, words in (
        ({}, "refused without a reason"),
        ({"message": 1, "reason": []}, "refused without a reason"),
        ({"message": "m" * 500}, "m" * 120),
    ):
        speaker = codec("BTC-USD")
        decode(speaker, subscriptions(heartbeat=["BTC-USD"]))
        speaker.subscribe(["BTC-USD"])
        into = decode(speaker, json.dumps({"type": "error", **fields}))
        assert into.answers == [(0, Refused(("BTC-USD",), words))]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (error(), "rejected"),
        ("{}", "missing_field"),
        ('{"type":null}', "missing_field"),
        ('{"type":"Match"}', "unknown_type"),
        ('{"type":["match"]}', "unknown_type"),
        ('{"type":"subscriptions"}', "unexpected_json"),
        ('{"type":"subscriptions","channels":{}}', "unexpected_json"),
        ('{"type":"subscriptions","channels":[1]}', "unexpected_json"),
        ('{"type":"subscriptions","channels":[{"name":"matches","product_ids":[1]}]}', "unexpected_json"),
        ('{"type":"subscriptions","channels":[{"name":[]}]}', "unexpected_json"),
        (
            '{"type":"subscriptions","channels":[{"name":"matches","product_ids":["DOGE-USD"]}]}',
            "unknown_symbol",
        ),
        ("[]", "unexpected_json"),
        ("", "malformed_json"),
        ("[" * 100_000, "unexpected_json"),
        ('{"channels":' * 100_000, "malformed_json"),
        ("\ud800", "malformed_json"),
    ],
)
def test_a_message_that_is_no_trade_and_no_answer_is_counted(text: str, reason: str) -> None:
    """Under a name of its own."""
    into = decode(codec(), text)
    assert into == Received(problems=into.problems)
    assert reasons(into) == [reason]


@pytest.mark.parametrize("kind", ["ticker", "l2update", "snapshot", "heartbeat", "status", "done", "open"])
def test_messages_of_other_channels_are_left_out(kind: str) -> None:
    """Known by their type, whatever else they hold."""
    assert decode(codec(), json.dumps({"type": kind, "trade_id": {}, "channels": 1})) == Received()


WRONG: list[tuple[str, Any, str]] = [
    ("product_id", None, "missing_field"),
    ("product_id", "DOGE-USD", "unknown_symbol"),
    ("product_id", ["SKL-BTC"], "unknown_symbol"),
    ("trade_id", None, "missing_field"),
    ("trade_id", "280232", "bad_trade_id"),
    ("trade_id", 1.0, "bad_trade_id"),
    ("trade_id", True, "bad_trade_id"),
    ("trade_id", -1, "bad_trade_id"),
    ("trade_id", 2**53 + 1, "bad_trade_id"),
    ("side", None, "missing_field"),
    ("side", "SELL", "bad_side"),
    ("side", ["sell"], "bad_side"),
    ("price", None, "missing_field"),
    ("price", "", "bad_price"),
    ("price", "0", "bad_price"),
    ("price", "-1", "bad_price"),
    ("price", "NaN", "bad_price"),
    ("price", 1.5, "bad_price"),
    ("size", None, "missing_field"),
    ("size", "0.0", "bad_quantity"),
    ("size", [], "bad_quantity"),
    ("time", None, "missing_field"),
    ("time", 1618677817, "bad_timestamp"),
    ("time", "2021-04-17", "bad_timestamp"),
    ("time", "2021-04-17T25:43:37.089723Z", "bad_timestamp"),
    ("time", "2400-04-17T16:43:37.089723Z", "bad_timestamp"),
]


@pytest.mark.parametrize(("field", "value", "reason"), WRONG)
def test_nothing_is_guessed(field: str, value: Any, reason: str) -> None:
    """A field that is missing or wrong makes a problem under its name, and no trade."""
    into = decode(codec(), changed(**{field: value}))
    assert (into.items, reasons(into)) == ([], [reason])


def test_a_binary_message_is_a_problem() -> None:
    """Coinbase speaks text."""
    assert reasons(decode(codec(), MATCH.encode())) == ["not_text"]


@given(st.lists(st.binary(max_size=200) | st.text(max_size=200), max_size=5))
def test_any_bytes_make_problems_only(messages: list[str | bytes]) -> None:
    """Fuzz: never an exception, never a trade."""
    into = decode(codec(), *messages)
    assert into == Received(problems=into.problems)
    assert len(into.problems) == len(messages)


@given(st.sampled_from(["type", "product_id", "trade_id", "side", "size", "price", "time"]), json_values)
def test_a_field_of_any_value_is_taken_as_it_is_or_is_a_problem(field: str, value: Any) -> None:
    """Fuzz of one field of a real message: the trade is as it was but for that field, or there is none."""
    into = decode(codec(), changed(**{field: value}))
    assert len(into.items) + len(into.problems) <= 1
    for trade in trades(into):
        assert trade.price == (Decimal(value) if field == "price" else TRADE.price)
        assert trade.quantity == (Decimal(value) if field == "size" else TRADE.quantity)
        assert trade.sequence == (value if field == "trade_id" else TRADE.sequence)
        assert (trade.symbol, trade.side) == (
            "SKL-BTC",
            "buy" if field != "side" or value == "sell" else "sell",
        )


@given(st.sampled_from(["subscriptions", "error"]), json_values, json_values)
def test_an_answer_of_any_content_is_survived(kind: str, channels: Any, words: Any) -> None:
    """Fuzz of what is no trade."""
    speaker = codec()
    speaker.subscribe(["SKL-BTC"])
    text = json.dumps({"type": kind, "channels": channels, "message": words, "reason": words})
    assert trades(decode(speaker, text, text)) == []


@given(st.integers(0, len(MATCH)), st.integers(0, len(MATCH)), st.text(max_size=3))
def test_a_damaged_message_never_raises(start: int, end: int, inserted: str) -> None:
    """Fuzz: a part is cut out or replaced; a trade that is left is complete."""
    into = decode(codec(), MATCH[:start] + inserted + MATCH[end:])
    assert len(into.items) + len(into.problems) <= 1
    for trade in trades(into):
        assert trade.symbol in RECORDED
        assert trade.price > 0 < trade.quantity


# -- the simulated exchange writes what the codec reads ---------------------------------------------------

published = st.builds(
    Published,
    id=st.integers(0, 2**53),
    symbol=st.sampled_from(RECORDED),
    side=st.sampled_from(["buy", "sell"]),
    price=st.from_regex(r"[1-9][0-9]{0,8}(\.[0-9]{1,10})?", fullmatch=True),
    qty=st.from_regex(r"0\.[0-9]{0,12}[1-9]", fullmatch=True),
    timestamp_us=st.integers(1, 2**60 // 1000),
)


@given(published)
def test_what_is_decoded_is_what_was_encoded(trade: Published) -> None:
    """Every field of any trade, to the last digit."""
    (read,) = trades(decode(codec(), match(trade)))
    expected = (trade.symbol, str(trade.id), trade.side, trade.price, trade.qty, trade.timestamp_us)
    assert told(read) == expected
    assert read.sequence == trade.id


# -- refill -----------------------------------------------------------------------------------------------

REST = coinbase_dialect(symbols=["BTC-USD"]).rest
TAPE = [
    Published(
        id=number,
        symbol="BTC-USD",
        side="buy" if number % 3 else "sell",
        price="61837.63",
        qty="0.1",
        timestamp_us=1_700_000_000_000_000 + number,
    )
    for number in range(1, 5001)
]


def whole(number: int) -> Trade:
    """The trade of the tape, as the stream would have brought it."""
    (trade,) = trades(decode(codec("BTC-USD"), match(TAPE[number - 1])))
    return Trade("cb", *(getattr(trade, name) for name in trade.__struct_fields__[1:]))


def missing(
    first: int | None, last: int | None, *, after: int | None = None, before: int | None = None
) -> Missing:
    ends = [None if each is None else whole(each) for each in (after, before)]
    return Missing("cb", "BTC-USD", ends[0], ends[1], first, last)


def filler() -> Filler:
    return Filler("cb", settings("BTC-USD"))


@hypothesis(max_examples=20)
@given(st.integers(2, 4990), st.integers(1, 3000))
def test_a_gap_is_asked_for_exactly(first: int, size: int) -> None:
    """Whatever its size: each missing trade once and the two around them, and no more questions than pages."""
    assert REST is not None
    last = min(first + size - 1, 4999)
    wanted = missing(first, last, after=first - 1, before=last + 1)
    found, questions = refill(filler(), wanted, REST, tape_of({"BTC-USD": TAPE}))
    assert [trade.sequence for trade in found] == list(range(first - 1, last + 2))
    assert (found[0], found[-1]) == (whole(first - 1), whole(last + 1))
    assert questions == -(-(last + 3 - first) // 1000)


@hypothesis(max_examples=20)
@given(st.integers(2, 5000))
def test_a_gap_without_an_end_is_asked_for_up_to_now(first: int) -> None:
    """After a restart: everything from the stored position on, and nothing from before it."""
    assert REST is not None
    found, _ = refill(filler(), missing(first, None, after=first - 1), REST, tape_of({"BTC-USD": TAPE}))
    assert [trade.sequence for trade in found] == list(range(first - 1, 5001))


def test_without_a_beginning_the_newest_trades_are_asked_for() -> None:
    """One page of them; with an end, those before it."""
    assert REST is not None
    tape = tape_of({"BTC-USD": TAPE})
    found, questions = refill(filler(), missing(None, None), REST, tape)
    assert ([trade.sequence for trade in found], questions) == (list(range(4001, 5001)), 1)
    found, questions = refill(filler(), missing(None, None, before=3001), REST, tape)
    assert ([trade.sequence for trade in found], questions) == (list(range(2002, 3002)), 1)


def test_an_exchange_that_has_nothing_ends_the_questions() -> None:
    """No trades, and no further question."""
    wanted = missing(10, 20, after=9, before=21)
    request = filler().fill(wanted)
    assert request == Request("/products/BTC-USD/trades?limit=13&after=22")
    assert filler().filled(wanted, request, b"[]") == Page([], None)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "malformed_json"),
        (b"[{", "malformed_json"),
        (b"\xff", "malformed_json"),
        (b'{"message":"NotFound"}', "unexpected_json"),
        (b"[1]", "unexpected_json"),
        (b"[{}]", "missing_field"),
        (b'[{"trade_id":15,"side":"up","size":"1","price":"1","time":"2021-04-17T16:43:37Z"}]', "bad_side"),
        (
            b'[{"trade_id":22,"side":"buy","size":"1","price":"1","time":"2021-04-17T16:43:37Z"}]',
            "outside_question",
        ),
    ],
)
def test_an_answer_that_cannot_be_used_is_named(answer: bytes, reason: str) -> None:
    """And none of it is used. One that repeats a page could be asked for endlessly, so it is refused too."""
    wanted = missing(10, 20, after=9, before=21)
    with pytest.raises(Unusable) as caught:
        filler().filled(wanted, Request("/products/BTC-USD/trades?limit=13&after=22"), answer)
    assert caught.value.reason == reason


@given(st.binary(max_size=100) | json_values.map(lambda value: json.dumps([value]).encode()))
def test_any_answer_is_read_or_refused(answer: bytes) -> None:
    """Fuzz: nothing but Unusable is raised."""
    wanted = missing(10, 20, after=9, before=21)
    with suppress(Unusable):
        filler().filled(wanted, Request("/products/BTC-USD/trades?limit=13&after=22"), answer)
    with suppress(Unusable):
        filler().newest(["BTC-USD"], answer)


def test_the_newest_trade_is_asked_for() -> None:
    """By one question for one symbol; one without trades is left out."""
    assert REST is not None
    request = filler().latest(["BTC-USD", "ETH-USD"])
    assert request == Request("/products/BTC-USD/trades?limit=1")
    answer = asked(REST, request.path, tape_of({"BTC-USD": TAPE}))
    newest = Newest(5000, "5000", TAPE[-1].timestamp_us * 1000)
    assert filler().newest(["BTC-USD", "ETH-USD"], answer) == {"BTC-USD": newest}
    assert filler().newest(["BTC-USD"], b"[]") == {}
