"""Promises of dataflow.connectors.blockchain."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.connector import Answer, Received, Refused, Subscribed, Unsubscribed
from dataflow.connectors.blockchain import Codec, Settings
from dataflow.domain import Item, Missed, Trade
from tests.dataflow.connectors.numerals import numerals

SYMBOLS = ("BTC-USD", "ETH-USD")
UPDATE = (
    '{"seqnum":6,"event":"updated","channel":"trades","symbol":"BTC-USD",'
    '"timestamp":"2020-05-10T18:33:36.696315Z","side":"buy","qty":5.892E-4,"price":8501.1,"trade_id":"12886314421"}'
)
TRADE = Trade(
    source="bc",
    symbol="BTC-USD",
    trade_id="12886314421",
    side="buy",
    price=Decimal("8501.1"),
    quantity=Decimal("0.0005892"),
    timestamp=1_589_135_616_696_315_000,
    sequence=None,
)


def codec(**settings: Any) -> Codec:
    fields = {"connector": "blockchain", "url": "ws://exchange", "symbols": SYMBOLS, **settings}
    return Codec("bc", Settings(**fields))


def decode(speaker: Codec, *messages: str | bytes) -> Received[Item]:
    into: Received[Item] = Received()
    for message in messages:
        speaker.decode(message, into)
    return into


def message(seqnum: int, /, **fields: Any) -> str:
    return json.dumps({"seqnum": seqnum, **fields})


def subscribed(seqnum: int, symbol: str = "BTC-USD") -> str:
    return message(seqnum, event="subscribed", channel="trades", symbol=symbol)


def update(seqnum: int, /, **fields: Any) -> str:
    return json.dumps({**json.loads(UPDATE), "seqnum": seqnum, **fields})


def heartbeat(seqnum: int) -> str:
    return message(seqnum, event="updated", channel="heartbeat", timestamp="2020-05-10T18:33:40.673134Z")


def mark(symbol: str = "BTC-USD") -> Missed:
    return Missed("bc", symbol, "source_gap")


def test_a_trade_is_read_exactly() -> None:
    """Every field of a real message, the decimals to the last digit."""
    into = decode(codec(), UPDATE)
    assert into == Received(items=[TRADE])
    assert str(into.items[0].quantity) == "0.0005892"  # type: ignore[union-attr]


def test_the_documented_session_explains_itself(traffic: Any) -> None:
    """One trade, its acknowledgement, and the hole at seqnum 11: nothing else, no problem."""
    into = decode(codec(), *traffic.excerpt("blockchain_trades_20200510.jsonl"))
    assert into.problems == []
    assert into.answers == [(0, Subscribed("BTC-USD"))]
    assert into.items == [TRADE, mark()]
    assert into.lost == "seqnum 12 where 11 was due"


@pytest.mark.parametrize("whole", [False, True])
def test_a_recorded_session_decodes_without_an_unexplained_message(traffic: Any, whole: bool) -> None:
    """Other channels are known and ignored, and a seqnum without holes is no alarm."""
    read = traffic.recording if whole else traffic.excerpt
    messages = read("BLOCKCHAIN.jsonl.gz" if whole else "blockchain_l2_20210722.jsonl")
    symbols = sorted({json.loads(text)["symbol"] for text in messages})
    into = decode(codec(symbols=tuple(symbols)), *messages)
    assert len(messages) > 30
    assert sorted(answer.topic for _, answer in into.answers if isinstance(answer, Subscribed)) == symbols
    into.answers = [each for each in into.answers if not isinstance(each[1], Subscribed)]
    assert into == Received()


def test_requests_are_written_as_the_exchange_expects() -> None:
    """The handshake's origin, the heartbeat first, one request a symbol; no probe beside the heartbeat."""
    speaker = codec()
    assert list(speaker.headers()) == [("Origin", "https://exchange.blockchain.com")]
    assert [json.loads(text) for text in speaker.opening()] == [
        {"action": "subscribe", "channel": "heartbeat"}
    ]
    assert [json.loads(text) for text in speaker.subscribe(["BTC-USD", "ETH-USD"])] == [
        {"action": "subscribe", "channel": "trades", "symbol": "BTC-USD"},
        {"action": "subscribe", "channel": "trades", "symbol": "ETH-USD"},
    ]
    assert [json.loads(text) for text in speaker.unsubscribe(["BTC-USD"])] == [
        {"action": "unsubscribe", "channel": "trades", "symbol": "BTC-USD"}
    ]
    assert list(speaker.probe()) == []
    assert speaker.missed("ETH-USD") == Missed("bc", "ETH-USD", "source_gap", resubscribed=True)


def test_a_token_authenticates_first_and_is_never_shown() -> None:
    """Only when there is one; and it does not get into a log by way of the settings."""
    token = "5ecret"
    assert json.loads(codec(api_token=token).opening()[0]) == {
        "token": token,
        "action": "subscribe",
        "channel": "auth",
    }
    assert token not in repr(Settings(connector="blockchain", url="ws://x", api_token=token))


def test_answers_are_told_by_symbol() -> None:
    """Acknowledged, ended, refused with the words of the exchange; also for symbols that only `subscribe` named."""
    speaker = codec(symbols=())
    speaker.subscribe(SYMBOLS)
    into = decode(
        speaker,
        subscribed(0),
        message(1, event="rejected", channel="trades", symbol="ETH-USD", text="invalid symbol identifier"),
        message(2, event="unsubscribed", channel="trades", symbol="BTC-USD"),
        message(3, event="rejected", channel="trades", symbol="ETH-USD"),
    )
    assert into == Received(
        answers=[
            (0, Subscribed("BTC-USD")),
            (0, Refused(("ETH-USD",), "invalid symbol identifier")),
            (0, Unsubscribed("BTC-USD")),
            (0, Refused(("ETH-USD",), "refused without a reason")),
        ]
    )


def test_an_answer_keeps_its_place_among_the_trades() -> None:
    """The last trade of an ended subscription stands before the end, the first of the next one behind."""
    ended = message(7, event="unsubscribed", channel="trades", symbol="BTC-USD")
    into = decode(codec(), UPDATE, ended, subscribed(8), update(9))
    assert into == Received(
        items=[TRADE, TRADE], answers=[(1, Unsubscribed("BTC-USD")), (1, Subscribed("BTC-USD"))]
    )


def nameless(seqnum: int, text: str = "no") -> str:
    return message(seqnum, event="rejected", channel="trades", text=text)


def answers(into: Received[Item]) -> list[Answer]:
    return [answer for _, answer in into.answers]


def test_a_rejection_without_a_symbol_answers_the_only_request_that_is_out() -> None:
    """There is no doubt about its symbol; and it answers once."""
    speaker = codec()
    speaker.subscribe(["BTC-USD"])
    into = decode(speaker, nameless(0))
    assert into == Received(answers=[(0, Refused(("BTC-USD",), "no"))])
    into = decode(speaker, nameless(1))
    assert (into.answers, [reason for reason, _ in into.problems]) == ([], ["rejected"])
    speaker.subscribe(SYMBOLS)
    assert answers(decode(speaker, subscribed(2))) == [Subscribed("BTC-USD")]


def test_a_rejection_without_a_symbol_waits_until_the_others_are_answered() -> None:
    """No symbol is suspected while there is a choice: a problem at once, and an answer when one request is left."""
    speaker = codec()
    speaker.unsubscribe(["LTC-USD"])
    speaker.subscribe([*SYMBOLS, "LTC-USD"])
    into = decode(speaker, nameless(0), subscribed(1))
    assert [reason for reason, _ in into.problems] == ["rejected"]
    assert answers(into) == [Subscribed("BTC-USD")]
    into = decode(speaker, message(2, event="unsubscribed", channel="trades", symbol="LTC-USD"))
    assert answers(into) == [Unsubscribed("LTC-USD")]
    assert answers(decode(speaker, subscribed(3, "LTC-USD"))) == [
        Subscribed("LTC-USD"),
        Refused(("ETH-USD",), "no"),
    ]
    assert answers(decode(speaker, subscribed(4))) == [Subscribed("BTC-USD")]


def test_as_many_rejections_without_a_symbol_as_requests_answer_them_all() -> None:
    """Each symbol by itself, with all texts: it is unknown which text belongs to which symbol."""
    speaker = codec()
    speaker.subscribe(SYMBOLS)
    into = decode(speaker, nameless(0, "busy"), nameless(1, "closed"))
    assert answers(into) == [Refused(("BTC-USD",), "busy; closed"), Refused(("ETH-USD",), "busy; closed")]


def test_a_named_rejection_leaves_the_nameless_one_to_the_others() -> None:
    """By name first, by elimination then."""
    speaker = codec()
    speaker.subscribe(SYMBOLS)
    named = message(1, event="rejected", channel="trades", symbol="BTC-USD", text="unknown")
    assert answers(decode(speaker, nameless(0), named)) == [
        Refused(("BTC-USD",), "unknown"),
        Refused(("ETH-USD",), "no"),
    ]


def test_a_rejected_end_of_a_subscription_refuses_nothing() -> None:
    """With a symbol or without: it is counted, and the next subscription is not touched."""
    speaker = codec()
    speaker.unsubscribe(["BTC-USD"])
    speaker.subscribe(["BTC-USD"])
    late = message(0, event="rejected", channel="trades", symbol="BTC-USD", text="Not subscribed")
    into = decode(speaker, late, subscribed(1))
    assert answers(into) == [Subscribed("BTC-USD")]
    assert [reason for reason, _ in into.problems] == ["rejected"]
    speaker.unsubscribe(["BTC-USD"])
    into = decode(speaker, nameless(2))
    assert (into.answers, [reason for reason, _ in into.problems]) == ([], ["rejected"])


@pytest.mark.parametrize("wrong", [5, 7, 0, 100])
def test_a_skipped_or_repeated_seqnum_marks_every_acknowledged_symbol_and_ends_the_connection(
    wrong: int,
) -> None:
    """The marks come before the message's own content, which is not lost."""
    speaker = codec()
    decode(speaker, subscribed(4), subscribed(5, "ETH-USD"))
    into = decode(speaker, update(wrong))
    assert into.items == [mark("BTC-USD"), mark("ETH-USD"), TRADE]
    assert into.lost == f"seqnum {wrong} where 6 was due"


def test_a_symbol_that_is_not_acknowledged_is_not_marked() -> None:
    """Nothing is promised for it, before the answer and after the end."""
    speaker = codec()
    decode(speaker, subscribed(0), message(1, event="unsubscribed", channel="trades", symbol="BTC-USD"))
    into = decode(speaker, heartbeat(9))
    assert into.items == []
    assert into.lost == "seqnum 9 where 2 was due"


def test_the_first_seqnum_may_be_any_and_a_new_connection_starts_anew() -> None:
    """Before the first message nothing is acknowledged, so nothing can be missed."""
    assert decode(codec(), heartbeat(5), heartbeat(6)).lost is None
    assert decode(codec(), heartbeat(0)).lost is None


def test_garbage_spoils_only_itself() -> None:
    """Noise without a number changes nothing; where it had one, its trades may be missing: marked, not reconnected."""
    speaker = codec()
    into = decode(speaker, subscribed(0), "garbage", "{}", heartbeat(1))
    assert (into.items, into.lost) == ([], None)
    assert [reason for reason, _ in into.problems] == ["malformed_json", "missing_field"]
    into = decode(speaker, "garbage", b"\x00", update(4))
    assert (into.items, into.lost) == ([mark(), TRADE], None)
    into = decode(speaker, "garbage", heartbeat(7))
    assert (into.items, into.lost) == ([mark()], "seqnum 7 where 5 was due")


def test_an_unusable_trade_leaves_a_mark_where_it_was() -> None:
    """A trade came and is lost: that is a possible hole in its symbol, or in all when it names none."""
    speaker = codec()
    decode(speaker, subscribed(0), subscribed(1, "ETH-USD"))
    assert decode(speaker, update(2, price="x")).items == [mark("BTC-USD")]
    assert decode(speaker, update(3, symbol=None)).items == [mark("BTC-USD"), mark("ETH-USD")]
    assert decode(speaker, update(4, symbol="DOGE-USD")).items == []


WRONG: list[tuple[str, Any, str]] = [
    ("seqnum", None, "missing_field"),
    ("seqnum", "6", "bad_seqnum"),
    ("seqnum", 6.0, "bad_seqnum"),
    ("seqnum", True, "bad_seqnum"),
    ("seqnum", -1, "bad_seqnum"),
    ("event", None, "missing_field"),
    ("event", "exploded", "unknown_event"),
    ("event", 1, "unknown_event"),
    ("channel", None, "missing_field"),
    ("channel", "trade", "unknown_channel"),
    ("channel", ["trades"], "unknown_channel"),
    ("symbol", None, "missing_field"),
    ("symbol", "", "unknown_symbol"),
    ("symbol", "btc-usd", "unknown_symbol"),
    ("symbol", ["BTC-USD"], "unknown_symbol"),
    ("timestamp", None, "missing_field"),
    ("timestamp", "2020-05-10 18:33:36Z", "bad_timestamp"),
    ("timestamp", 1589135616, "bad_timestamp"),
    (
        "timestamp",
        "9999-12-31T23:59:59.999999Z",
        "bad_timestamp",
    ),  # what no store can hold is no time of a trade
    ("timestamp", "2300-01-01T00:00:00.000000Z", "bad_timestamp"),
    ("timestamp", "0001-01-01T00:00:00.000000Z", "bad_timestamp"),
    ("side", None, "missing_field"),
    ("side", "Buy", "bad_side"),
    ("side", {}, "bad_side"),
    ("qty", None, "missing_field"),
    ("qty", 0, "bad_quantity"),
    ("qty", "0.5", "bad_quantity"),
    ("qty", -1, "bad_quantity"),
    ("qty", 10**50, "bad_quantity"),
    ("price", None, "missing_field"),
    ("price", 0.0, "bad_price"),
    ("price", -0.5, "bad_price"),
    ("price", "NaN", "bad_price"),
    ("price", [1], "bad_price"),
    ("trade_id", None, "missing_field"),
    ("trade_id", "", "bad_trade_id"),
    ("trade_id", 12886314421, "bad_trade_id"),
]


@pytest.mark.parametrize(("field", "value", "reason"), WRONG)
def test_nothing_is_guessed(field: str, value: Any, reason: str) -> None:
    """A field that is missing or wrong makes a problem under its name, and no trade."""
    text = update(6, **{field: value})
    into = decode(codec(), text)
    assert into.items == []
    assert [found for found, _ in into.problems] == [reason]
    assert all(len(shown) <= 120 for _, shown in into.problems)


@pytest.mark.parametrize("numeral", ["NaN", "Infinity", "-Infinity", "1e999999999", "0e5", "1_0"])
def test_a_price_that_is_no_finite_positive_number_is_a_problem(numeral: str) -> None:
    """Neither infinities nor numbers too long to be a price."""
    into = decode(codec(), UPDATE.replace("8501.1", numeral))
    assert into.items == []
    assert into.problems[0][0] in {"malformed_json", "bad_price"}


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{", '{"seqnum":', "[" * 100_000, '{"a":' * 100_000, "\ud800", '"x"', "1e400"]
)
def test_a_text_that_is_no_object_is_a_problem(text: str) -> None:
    """Also very deep or broken JSON."""
    into = decode(codec(), text)
    assert [reason for reason, _ in into.problems] in (["malformed_json"], ["unexpected_json"])


def test_a_binary_message_is_a_problem() -> None:
    """The exchange speaks text."""
    assert decode(codec(), UPDATE.encode()).problems[0][0] == "not_text"


def test_a_rejection_of_anything_else_is_a_problem() -> None:
    """Of a channel we did not name, of an account's channel, or of a request that could not be read."""
    rejections = [{"channel": ""}, {"channel": "auth"}, {"channel": "trades"}, {}]
    into = decode(
        codec(), *(message(n, event="rejected", text="no", **fields) for n, fields in enumerate(rejections))
    )
    assert [reason for reason, _ in into.problems] == ["rejected"] * 4


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.lists(st.binary(max_size=200) | st.text(max_size=200), max_size=5))
def test_any_bytes_make_problems_only(messages: list[str | bytes]) -> None:
    """Fuzz: never an exception, never a trade."""
    into = decode(codec(), *messages)
    assert into == Received(problems=into.problems)
    assert len(into.problems) == len(messages)


@given(st.sampled_from(sorted(json.loads(UPDATE))), json_values)
def test_a_field_of_any_value_is_taken_as_it_is_or_is_a_problem(field: str, value: Any) -> None:
    """Fuzz of one field of a real message: the other fields are untouched, and the field was legal."""
    into = decode(codec(), update(6, **{field: value}))
    if into.items:
        (item,) = into.items
        assert isinstance(item, Trade)
        assert (item.source, item.symbol, item.side) == ("bc", "BTC-USD", value if field == "side" else "buy")
        assert item.trade_id == (value if field == "trade_id" else TRADE.trade_id)
        assert item.price == (Decimal(json.dumps(value)) if field == "price" else TRADE.price)
        assert item.quantity == (Decimal(json.dumps(value)) if field == "qty" else TRADE.quantity)
    else:
        assert len(into.problems) == 1 or field in {"channel", "event"}


@given(st.integers(0, len(UPDATE) - 1), st.integers(0, len(UPDATE)), st.text(max_size=3))
def test_a_damaged_message_never_raises(start: int, end: int, inserted: str) -> None:
    """Fuzz: a part is cut out or replaced; a trade that is left is complete."""
    into = decode(codec(), UPDATE[:start] + inserted + UPDATE[end:])
    for item in into.items:
        assert isinstance(item, Trade)
        assert item.symbol == "BTC-USD"
        assert item.price > 0
        assert item.quantity > 0
        assert item.trade_id


def by_the_careful_way(speaker: Codec, *messages: str | bytes) -> Received[Item]:
    speaker._trade_in_turn = lambda _message: None  # type: ignore[method-assign]
    return decode(speaker, *messages)


moments = st.sampled_from(
    [
        *("2020-05-10T18:33:36.696315Z", "2020-05-10t18:33:36.696315Z", "2020-02-30T18:33:36.696315Z"),
        *("2020-05-10T18:33:60.696315Z", "2020-05-10T18:33:36.696Z", "2020-05-10T18:33:36.696315z"),
        *(
            "2020-05-10T18:33:36.696315+01:00",
            "2020-05-10 18:33:36.696315Z",
            "2020-05-1\u0660T18:33:36.696315Z",
        ),
        *("0000-05-10T18:33:36.696315Z", "9999-12-31T23:59:59.999999Z", "2020-05-10T18:33:36.69631\u0665Z"),
    ]
)
values = {
    "seqnum": st.sampled_from(["6", "5", "7", "06", "6.0", "-6", '"6"', "true", "1" * 25]),
    "symbol": st.sampled_from(
        ['"BTC-USD"', '"ETH-USD"', '"BTC-EUR"', '"btc-usd"', '"BTC\\u002dUSD"', "null"]
    ),
    "timestamp": moments.map(json.dumps),
    "side": st.sampled_from(['"buy"', '"sell"', '"Buy"', "null"]),
    "qty": numerals,
    "price": numerals,
    "trade_id": st.sampled_from(['"7"', '""', '"\\u0041"', "7", '"\\""', '"\u00e9"', json.dumps("\x00")]),
    "text": st.just('"x"'),
}
parts = st.lists(
    st.sampled_from(sorted(values)).flatmap(lambda name: st.tuples(st.just(name), values[name])), max_size=2
).map(dict)


@given(parts, st.sampled_from([",", ", "]), st.integers(0, 3), st.sampled_from([7, 8]))
def test_the_usual_way_and_the_careful_one_agree(
    parts: dict[str, str], comma: str, unread: int, following: int
) -> None:
    """For any message: the same trade to the last digit, problem, mark, and count of the following messages."""
    fields = {name: json.dumps(value) for name, value in json.loads(UPDATE).items()}
    fields |= {"qty": "5.892E-4", **parts}
    text = "{" + comma.join(f'"{name}":{value}' for name, value in fields.items()) + "}"
    messages = [subscribed(5), *["garbage"] * unread, text, update(following)]
    usual, careful = codec(), codec()
    into, expected = decode(usual, *messages), by_the_careful_way(careful, *messages)
    assert into == expected
    assert repr(into.items) == repr(expected.items)
    assert usual._next_seqnum == careful._next_seqnum
    assert usual._unread == careful._unread


@given(st.integers(0, len(UPDATE)), st.integers(0, len(UPDATE)), st.text(max_size=3))
def test_both_ways_agree_on_damage(start: int, end: int, inserted: str) -> None:
    """Also if it is no JSON any more, or JSON of another shape."""
    messages = [subscribed(5), UPDATE[:start] + inserted + UPDATE[end:], update(7)]
    assert decode(codec(), *messages) == by_the_careful_way(codec(), *messages)


def test_the_documented_trade_is_read_the_usual_way(traffic: Any) -> None:
    """The documented trade, once a number was seen: it does not fall back to the careful way unnoticed."""
    (text,) = [
        t for t in traffic.excerpt("blockchain_trades_20200510.jsonl") if '"trades"' in t and '"updated"' in t
    ]
    speaker = codec()
    assert speaker._trade_in_turn(text) is None, "any first number will do, and is the careful way's to take"
    decode(speaker, heartbeat(5))
    assert speaker._trade_in_turn(text) == TRADE
    assert speaker._trade_in_turn(text) is None, "it was counted"
