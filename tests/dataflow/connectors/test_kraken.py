"""Promises of dataflow.connectors.kraken."""

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
from dataflow.connectors.kraken import Codec, Filler, Settings, Version1, Version2
from dataflow.domain import Missed, Missing, Trade
from dataflow.sources.port import RATE_LIMITED, Newest, Page, Request
from dataflow.sources.reading import Unusable
from simulators import Trade as Published
from simulators.exchanges.kraken import kraken_dialect, message, old_message
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

DEAL = (
    '{"symbol":"BTC/USD","side":"sell","price":30243.30000,"qty":40.0,"ord_type":"market",'
    '"trade_id":4665906,"timestamp":"2023-09-25T07:49:37.708706Z"}'
)
TRADE = Trade(
    source="kr",
    symbol="BTC-USD",
    trade_id="4665906",
    side="sell",
    price=Decimal("30243.30000"),
    quantity=Decimal("40.0"),
    timestamp=1695628177_708_706_000,
    sequence=4665906,
)
ROW = ["354.11000000", "0.89594024", "1618678142.557535", "s", "l", ""]
OLD_TRADE = Trade(
    source="kr",
    symbol="XMR-USD",
    trade_id=None,
    side="sell",
    price=Decimal("354.11000000"),
    quantity=Decimal("0.89594024"),
    timestamp=1618678142_557_535_000,
)
LOST = Missed("kr", "XMR-USD", "source_gap")
RECORDED = (
    *("WAVES-EUR", "XMR-USD", "KSM-BTC", "GRT-ETH", "SC-EUR"),
    *("ETH-CHF", "OCEAN-BTC", "OMG-USD", "BTC-CHF", "ADA-BTC"),
)


def settings(*symbols: str, version: Any = 2, **more: Any) -> Settings:
    named = symbols or (("BTC-USD", "ETH-USD") if version == 2 else RECORDED)
    return Settings(connector="kraken", url="ws://exchange", symbols=named, version=version, **more)


def codec(*symbols: str, **more: Any) -> Version1 | Version2:
    return Codec("kr", settings(*symbols, **more))


def update(*deals: str, kind: str = "update") -> str:
    return f'{{"channel":"trade","type":"{kind}","data":[{",".join(deals or [DEAL])}]}}'


def deal(**fields: Any) -> str:
    return json.dumps({**json.loads(DEAL), **fields})


def ack(method: str = "subscribe", symbol: Any = "BTC/USD", channel: str = "trade", **more: Any) -> str:
    result = {"channel": channel, "snapshot": True, "symbol": symbol}
    return json.dumps({"method": method, "result": result, "success": True, **more})


def failed(words: Any = "Currency pair not supported X/Y", method: str = "subscribe", **more: Any) -> str:
    return json.dumps({"error": words, "method": method, "success": False, **more})


def old_update(*rows: Any, pair: str = "XMR/USD", channel: str = "trade") -> str:
    return json.dumps([993, list(rows) or [ROW], channel, pair])


def old_status(status: Any = "subscribed", pair: Any = "XMR/USD", channel: str = "trade", **more: Any) -> str:
    about = {"channelName": channel, "event": "subscriptionStatus", "pair": pair, "status": status}
    return json.dumps(about | {"subscription": {"name": channel.partition("-")[0]}} | more)


# -- version 2 ------------------------------------------------------------------------------------------


def test_a_trade_is_read_exactly() -> None:
    """The decimals with the very digits of the JSON numbers, several trades of a message in their order."""
    into = decode(codec(), update(), update(DEAL, deal(trade_id=4665907)))
    assert trades(into)[:2] == [TRADE, TRADE]
    assert [trade.sequence for trade in trades(into)] == [4665906, 4665906, 4665907]
    assert told(trades(into)[0])[3:5] == ("30243.30000", "40.0")


def test_a_snapshot_is_read_in_the_order_of_its_ids() -> None:
    """Whatever its own order is."""
    deals = [deal(trade_id=number) for number in (9, 7, 8)]
    into = decode(codec(), update(*deals, kind="snapshot"), update(*deals))
    assert [trade.sequence for trade in trades(into)] == [7, 8, 9, 9, 7, 8]


def test_one_bad_trade_leaves_the_others_of_its_message() -> None:
    """The sequence shows that one is missing."""
    into = decode(codec(), update(deal(trade_id=1), deal(side="up"), deal(trade_id=3)))
    assert [trade.sequence for trade in trades(into)] == [1, 3]
    assert reasons(into) == ["bad_side"]


def test_requests_are_written_as_kraken_expects() -> None:
    """With a number of their own, and the snapshot asked for."""
    speaker = codec(names={"ETH-USD": "ETH.X/USD"})
    assert isinstance(speaker, Version2)
    assert (list(speaker.headers()), list(speaker.opening())) == ([], [])
    assert sent(speaker.subscribe(["BTC-USD", "ETH-USD"])) == [
        {
            "method": "subscribe",
            "params": {"channel": "trade", "symbol": ["BTC/USD", "ETH.X/USD"], "snapshot": True},
            "req_id": 1,
        }
    ]
    assert sent(speaker.unsubscribe(["ETH-USD"])) == [
        {"method": "unsubscribe", "params": {"channel": "trade", "symbol": ["ETH.X/USD"]}, "req_id": 2}
    ]
    assert sent(speaker.probe()) == [{"method": "ping", "req_id": 3}]
    assert speaker.missed("BTC-USD") is None


def test_each_symbol_is_answered_by_itself() -> None:
    """Accepted or refused by name; answers of other channels do not count."""
    speaker = codec()
    speaker.subscribe(["BTC-USD", "ETH-USD"])
    speaker.unsubscribe(["BTC-USD"])
    into = decode(
        speaker,
        ack(channel="book"),
        failed(symbol="ETH/USD", req_id=1),
        ack(req_id=1),
        ack("unsubscribe"),
        '{"method":"pong","req_id":9}',
    )
    assert into == Received(
        answers=[
            (0, Refused(("ETH-USD",), "Currency pair not supported X/Y")),
            (0, Subscribed("BTC-USD")),
            (0, Unsubscribed("BTC-USD")),
        ]
    )


def test_a_refusal_without_a_symbol_is_of_what_waits() -> None:
    """By the number of the request: what of it has an answer already is not refused."""
    speaker = codec()
    speaker.subscribe(["BTC-USD", "ETH-USD"])
    speaker.subscribe(["BTC-USD"])
    into = decode(
        speaker, ack(), failed("Exceeded msg rate", req_id=1), failed("", req_id=2), failed(req_id=1)
    )
    assert [answer for _, answer in into.answers] == [
        Subscribed("BTC-USD"),
        Refused(("ETH-USD",), "Exceeded msg rate"),
        Refused(("BTC-USD",), "refused without a reason"),
    ]
    assert reasons(into) == ["rejected"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (failed("Malformed request", "error"), "rejected"),
        (failed(method="unsubscribe", symbol="BTC/USD"), "rejected"),
        (failed(symbol="BTC/USD"), "rejected"),
        (failed(symbol="X/Y"), "unknown_symbol"),
        (failed(symbol=["X/Y"]), "unknown_symbol"),
        (failed(req_id=[1]), "rejected"),
        (ack(symbol="X/Y"), "unknown_symbol"),
        (ack(symbol=None), "missing_field"),
        (ack("subscribed"), "unknown_message"),
        ('{"method":"subscribe","result":{"channel":"trade","symbol":"BTC/USD"}}', "unknown_message"),
        ("{}", "unknown_message"),
        ('{"channel":"trades"}', "unknown_channel"),
        ('{"channel":["trade"]}', "unknown_channel"),
        ('{"channel":"trade"}', "missing_field"),
        ('{"channel":"trade","type":"update"}', "missing_field"),
        ('{"channel":"trade","type":"update","data":null}', "missing_field"),
        ('{"channel":"trade","type":"update","data":{}}', "unexpected_json"),
        ('{"channel":"trade","type":"update","data":[1]}', "unexpected_json"),
        ('{"channel":"trade","type":"delete","data":[]}', "unknown_type"),
        ("[]", "unexpected_json"),
        ("", "malformed_json"),
        ("[" * 100_000, "unexpected_json"),
        ('{"result":' * 100_000, "malformed_json"),
        ("\ud800", "malformed_json"),
    ],
)
def test_a_message_that_is_no_trade_and_no_answer_is_counted(text: str, reason: str) -> None:
    """Under a name of its own."""
    into = decode(codec(), text)
    assert into == Received(problems=into.problems)
    assert reasons(into) == [reason]


@pytest.mark.parametrize("channel", ["heartbeat", "status", "ticker", "book", "ohlc", "instrument", "level3"])
def test_messages_of_other_channels_are_left_out(channel: str) -> None:
    """Known by their name, whatever else they hold."""
    assert decode(codec(), json.dumps({"channel": channel, "data": {"a": 1}, "type": 7})) == Received()


WRONG: list[tuple[str, Any, str]] = [
    ("symbol", None, "missing_field"),
    ("symbol", "X/Y", "unknown_symbol"),
    ("trade_id", None, "missing_field"),
    ("trade_id", "4665906", "bad_trade_id"),
    ("trade_id", 1.0, "bad_trade_id"),
    ("trade_id", True, "bad_trade_id"),
    ("trade_id", -1, "bad_trade_id"),
    ("trade_id", 2**53 + 1, "bad_trade_id"),
    ("side", None, "missing_field"),
    ("side", "b", "bad_side"),
    ("price", None, "missing_field"),
    ("price", "1.5", "bad_price"),
    ("price", 0, "bad_price"),
    ("price", -1, "bad_price"),
    ("price", True, "bad_price"),
    ("qty", None, "missing_field"),
    ("qty", [1], "bad_quantity"),
    ("timestamp", None, "missing_field"),
    ("timestamp", 1695628177, "bad_timestamp"),
    ("timestamp", "2023-09-25 07:49:37", "bad_timestamp"),
]


@pytest.mark.parametrize(("field", "value", "reason"), WRONG)
def test_nothing_is_guessed(field: str, value: Any, reason: str) -> None:
    """A field that is missing or wrong makes a problem under its name, and no trade."""
    into = decode(codec(), update(deal(**{field: value})))
    assert (into.items, reasons(into)) == ([], [reason])


@given(st.sampled_from(["symbol", "trade_id", "side", "price", "qty", "timestamp"]), json_values)
def test_a_field_of_any_value_is_taken_as_it_is_or_is_a_problem(field: str, value: Any) -> None:
    """Fuzz of one field of a real trade: it is as it was but for that field, or there is none."""
    into = decode(codec(), update(deal(**{field: value})))
    assert len(into.items) + len(into.problems) == 1
    for trade in trades(into):
        assert trade.price == (Decimal(json.dumps(value)) if field == "price" else TRADE.price)
        assert trade.quantity == (Decimal(json.dumps(value)) if field == "qty" else TRADE.quantity)
        assert trade.sequence == (value if field == "trade_id" else TRADE.sequence)
        assert (trade.symbol, trade.side) == (
            "BTC-USD",
            value if field == "side" else "sell",
        ) or field == "symbol"


# -- version 1 ------------------------------------------------------------------------------------------


def read_alone(text: str) -> list[tuple[Any, ...]]:
    """The trades of a recorded message, read by other code."""
    _, rows, _, pair = json.loads(text)
    symbol = pair.replace("XBT", "BTC").replace("/", "-")
    return [
        (symbol, None, {"b": "buy", "s": "sell"}[side], price, volume, int(moment.replace(".", "")))
        for price, volume, moment, side, _, _ in rows
    ]


@pytest.mark.parametrize("whole", [False, True])
def test_a_recorded_session_is_understood(traffic: Any, whole: bool) -> None:
    """No problem in it, each trade is read exactly, and every subscription is confirmed."""
    messages = (
        traffic.recording("KRAKEN.jsonl.gz") if whole else traffic.excerpt("kraken_trades_20210417.jsonl")
    )
    into = decode(codec(version=1), *messages)
    assert into.problems == []
    expected = [row for each in messages if '"trade",' in each and each[0] == "[" for row in read_alone(each)]
    assert [told(trade) for trade in trades(into)] == expected
    assert len(expected) == 10
    assert {answer for _, answer in into.answers} == {Subscribed(symbol) for symbol in RECORDED}


def test_requests_of_version_1_are_written_as_kraken_expects() -> None:
    """By the old names of the currencies."""
    speaker = codec("BTC-USD", "DOGE-BTC", version=1)
    assert isinstance(speaker, Version1)
    assert sent(speaker.subscribe(["BTC-USD", "DOGE-BTC"])) == [
        {"event": "subscribe", "pair": ["XBT/USD", "XDG/XBT"], "subscription": {"name": "trade"}, "reqid": 1}
    ]
    assert sent(speaker.unsubscribe(["BTC-USD"])) == [
        {"event": "unsubscribe", "pair": ["XBT/USD"], "subscription": {"name": "trade"}, "reqid": 2}
    ]
    assert sent(speaker.probe()) == [{"event": "ping", "reqid": 3}]
    assert speaker.missed("BTC-USD") == Missed("kr", "BTC-USD", "source_gap")


def test_a_snapshot_of_version_1_is_left_out() -> None:
    """Its trades have no ids, so they would come twice. Only the first message of a pair can be one."""
    speaker = codec(version=1)
    snapshot = old_update(*[ROW] * 50)
    into = decode(
        speaker, old_status(), snapshot, snapshot, old_status("unsubscribed"), old_status(), snapshot
    )
    assert len(trades(into)) == 50
    into = decode(codec(version=1), old_status(), old_update(), snapshot)
    assert len(trades(into)) == 51
    assert trades(into)[0] == OLD_TRADE


def test_answers_of_version_1_name_their_pair() -> None:
    """Accepted, refused, and ended by the exchange itself."""
    speaker = codec(version=1)
    speaker.subscribe(["XMR-USD", "SC-EUR"])
    speaker.subscribe(["ETH-CHF"])
    into = decode(
        speaker,
        old_status(),
        old_status("error", "SC/EUR", errorMessage="Currency pair not supported SC/EUR"),
        '{"event":"error","errorMessage":"Exceeded msg rate","reqid":2}',
        old_status("unsubscribed"),
        old_status(channel="book-1000"),
        '{"event":"pong","reqid":1}',
    )
    assert into == Received(
        answers=[
            (0, Subscribed("XMR-USD")),
            (0, Refused(("SC-EUR",), "Currency pair not supported SC/EUR")),
            (0, Refused(("ETH-CHF",), "Exceeded msg rate")),
            (0, Unsubscribed("XMR-USD")),
        ]
    )


@pytest.mark.parametrize(
    ("text", "reason", "is_marked"),
    [
        (old_update([*ROW[:3], "x"]), "bad_side", True),
        (old_update([None, *ROW[1:]]), "missing_field", True),
        (old_update([354.11, *ROW[1:]]), "bad_price", True),
        (old_update([ROW[0], "0", *ROW[2:]]), "bad_quantity", True),
        (old_update([*ROW[:2], "soon", *ROW[3:]]), "bad_timestamp", True),
        (old_update([*ROW[:2], "16186781425.5", *ROW[3:]]), "bad_timestamp", True),
        (old_update([*ROW[:2], {}, *ROW[3:]]), "bad_timestamp", True),
        (old_update([]), "missing_field", True),
        (old_update(1), "unexpected_json", True),
        (old_update(pair="X/Y"), "unknown_symbol", False),
        ("[993]", "unknown_message", True),
        ("[]", "unknown_message", True),
        ('[993,[],7,"XMR/USD"]', "unknown_message", True),
        ('[993,[],"trade",7]', "unknown_symbol", False),
        ("[", "malformed_json", True),
        ("7", "unexpected_json", True),
        ("", "malformed_json", True),
        ('[0,{},"trades","XMR/USD"]', "unknown_channel", False),
        ("{}", "unknown_message", False),
        ('{"event":"subscribed"}', "unknown_type", False),
        ('{"event":["x"]}', "unknown_type", False),
        ('{"event":"error","errorMessage":"Malformed request"}', "rejected", False),
        (old_status("error", "SC/EUR"), "rejected", False),
        (old_status("paused"), "unknown_type", False),
        (old_status(None), "missing_field", False),
        (old_status(pair=None), "missing_field", False),
        (old_status(pair="X/Y"), "unknown_symbol", False),
        (old_status(channel="news"), "unknown_channel", False),
        ('{"event":"subscriptionStatus"}', "missing_field", False),
    ],
)
def test_what_may_have_been_a_trade_of_version_1_is_a_loss(text: str, reason: str, is_marked: bool) -> None:
    """Nothing else would show it: the symbol is marked, or all if none is named."""
    speaker = codec(version=1)
    decode(speaker, old_status())
    into = decode(speaker, text)
    assert into.items == ([LOST] if is_marked else [])
    assert reasons(into) == [reason]


def test_a_mark_stands_at_the_place_of_its_trade() -> None:
    """Between the trades of the message."""
    speaker = codec(version=1)
    assert decode(speaker, old_update(ROW, [*ROW[:3], "x"], ROW)).items == [OLD_TRADE, LOST, OLD_TRADE]


# -- both ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [1, 2])
def test_a_binary_message_is_a_problem(version: int) -> None:
    """Kraken speaks text."""
    assert reasons(decode(codec(version=version), b"{}")) == ["not_text"]


@given(st.lists(st.binary(max_size=200) | st.text(max_size=200), max_size=5), st.sampled_from([1, 2]))
def test_any_bytes_make_problems_only(messages: list[str | bytes], version: int) -> None:
    """Fuzz: never an exception, never a trade."""
    into = decode(codec(version=version), *messages)
    assert trades(into) == []
    assert len(into.problems) == len(messages)


@given(st.sampled_from([1, 2]), st.dictionaries(st.sampled_from(sorted(
    {"channel", "type", "data", "method", "success", "error", "symbol", "result", "req_id",
     "event", "status", "pair", "reqid", "channelName", "subscription", "errorMessage"}
)), json_values | st.sampled_from(["trade", "subscribe", "subscriptionStatus", "error", True, "BTC/USD"])))  # fmt: skip
def test_an_object_of_any_fields_is_survived(version: int, fields: dict[str, Any]) -> None:
    """Fuzz of answers."""
    speaker = codec(version=version)
    speaker.subscribe(["BTC-USD"])
    decode(speaker, json.dumps(fields), json.dumps([fields, "trade", "XMR/USD"]))


@given(st.data())
def test_a_damaged_message_never_raises(data: st.DataObject) -> None:
    """Fuzz: a part is cut out or replaced; a trade that is left is complete."""
    version, text = data.draw(st.sampled_from([(2, update()), (1, old_update())]))
    start, end = data.draw(st.integers(0, len(text))), data.draw(st.integers(0, len(text)))
    into = decode(codec(version=version), text[:start] + data.draw(st.text(max_size=3)) + text[end:])
    assert all(trade.price > 0 < trade.quantity for trade in trades(into))


def test_symbols_that_cannot_be_told_apart_are_refused() -> None:
    """In version 1 both BTC and XBT are XBT: the way back would be a guess."""
    with pytest.raises(ValueError, match="have the same name there"):
        settings("BTC-USD", "XBT-USD", version=1)
    assert settings("BTC-USD", "XBT-USD").exchange_name("XBT-USD") == "XBT/USD"


def test_version_1_has_one_connection_at_a_time() -> None:
    """Two would bring each trade twice, and nothing could tell."""
    for keys in ({"lines": 2}, {"rotate_after": 3600.0}):
        assert settings(**keys).version == 2
        with pytest.raises(ValueError, match="no ids"):
            settings(version=1, **keys)
    with pytest.raises(ValueError, match="version"):
        settings(version=3)


def published(id: int, symbol: str = "BTC/USD", **fields: Any) -> Published:
    usual = {"side": "buy", "price": "61837.6", "qty": "0.1", "timestamp_us": 1_700_000_000_000_000 + id // 3}
    return Published(id=id, symbol=symbol, **(usual | fields))


any_trade = st.builds(
    published,
    id=st.integers(0, 2**53),
    side=st.sampled_from(["buy", "sell"]),
    price=st.from_regex(r"[1-9][0-9]{0,8}(\.[0-9]{1,10})?", fullmatch=True),
    qty=st.from_regex(r"0\.[0-9]{0,12}[1-9]", fullmatch=True),
    timestamp_us=st.integers(1, 2**60 // 1000),
)


@given(any_trade)
def test_what_is_decoded_is_what_was_encoded(trade: Published) -> None:
    """Every field of any trade, in both versions; version 2 writes whole numbers with ".0"."""
    price = trade.price if "." in trade.price else f"{trade.price}.0"
    (read,) = trades(decode(codec(), message([trade])))
    assert told(read) == ("BTC-USD", str(trade.id), trade.side, price, trade.qty, trade.timestamp_us)
    assert read.sequence == trade.id
    (read,) = trades(decode(codec("BTC-USD", version=1), old_message([trade])))
    assert told(read) == ("BTC-USD", None, trade.side, trade.price, trade.qty, trade.timestamp_us)


# -- refill -----------------------------------------------------------------------------------------------

REST = kraken_dialect(symbols=["BTC/USD"]).rest
TAPE = [published(number) for number in range(1, 5001)]  # three in a microsecond
ASK = tape_of({"BTC/USD": TAPE})


def whole(number: int) -> Trade:
    """The trade of the tape, as the stream would have brought it."""
    (trade,) = trades(decode(codec(), message([TAPE[number - 1]])))
    return trade


def missing(
    first: int | None, last: int | None, *, after: int | None = None, before: int | None = None
) -> Missing:
    ends = [None if each is None else whole(each) for each in (after, before)]
    return Missing("kr", "BTC-USD", ends[0], ends[1], first, last)


def filler(**more: Any) -> Filler:
    return Filler("kr", settings("BTC-USD", **more))


@hypothesis(max_examples=20)
@given(st.integers(2, 4990), st.integers(1, 3000))
def test_a_gap_is_filled_exactly(first: int, size: int) -> None:
    """Whatever its size: each missing trade once, as the stream would have told it, and the two around them."""
    assert REST is not None
    last = min(first + size - 1, 4999)
    found, questions = refill(filler(), missing(first, last, after=first - 1, before=last + 1), REST, ASK)
    assert [trade.sequence for trade in found] == list(range(first - 1, last + 2))
    assert (found[0], found[-1]) == (whole(first - 1), whole(last + 1))
    assert questions <= size // 1000 + 2


@hypothesis(max_examples=10)
@given(st.integers(2, 5000))
def test_a_gap_without_an_end_is_filled_up_to_now(first: int) -> None:
    """After a restart: everything from the stored position on, and nothing from before it."""
    assert REST is not None
    found, _ = refill(filler(), missing(first, None, after=first - 1), REST, ASK)
    assert [trade.sequence for trade in found] == list(range(first - 1, 5001))


def test_without_a_beginning_the_newest_trades_are_asked_for() -> None:
    """One page of them; with an end, those of it before that."""
    assert REST is not None
    found, questions = refill(filler(), missing(None, None), REST, ASK)
    assert ([trade.sequence for trade in found], questions) == (list(range(4001, 5001)), 1)
    found, questions = refill(filler(), missing(None, None, before=4501), REST, ASK)
    assert ([trade.sequence for trade in found], questions) == (list(range(4001, 4502)), 1)


def test_version_1_cannot_be_refilled() -> None:
    """Its trades have no ids. The time of the newest one can be asked for."""
    assert REST is not None
    assert filler(version=1).fill(missing(2, 3, after=1, before=4)) is None
    request = filler(version=1).latest(["BTC-USD"])
    assert request is not None
    newest = filler(version=1).newest(["BTC-USD"], asked(REST, request.path, ASK))
    assert newest == {"BTC-USD": Newest(timestamp=TAPE[-1].timestamp_us * 1000)}


def test_the_newest_trade_is_asked_for() -> None:
    """By one question for one symbol, under the old names; one without trades is left out."""
    assert REST is not None
    request = filler().latest(["BTC-USD", "ETH-USD"])
    assert request == Request("/0/public/Trades?pair=XBTUSD&count=1")
    newest = filler().newest(["BTC-USD", "ETH-USD"], asked(REST, request.path, ASK))
    assert newest == {"BTC-USD": Newest(5000, "5000", TAPE[-1].timestamp_us * 1000)}
    assert filler().newest(["BTC-USD"], asked(REST, request.path, tape_of({}))) == {}


WANTED = missing(10, 20, after=9, before=21)
REQUEST = Request("/0/public/Trades?pair=XBTUSD&count=1000&since=1700000000000002000")


def answer(*rows: Any, last: Any = "1700000000000009000", error: Any = (), pair: str = "XXBTZUSD") -> bytes:
    return json.dumps({"error": error, "result": {pair: rows, "last": last}}).encode()


GOOD = ["30243.4", "0.1", 1700000000.0000031, "b", "m", "", 11]


def test_an_exchange_that_has_nothing_ends_the_questions() -> None:
    """No trades, and no further question. A name of the pair that nobody asked for is the exchange's own."""
    assert filler().fill(WANTED) == REQUEST
    assert filler().filled(WANTED, REQUEST, answer()) == Page([], None)
    assert len(filler().filled(WANTED, REQUEST, answer(GOOD)).trades) == 1


def test_a_page_that_does_not_go_on_ends_the_questions() -> None:
    """An exchange that names the same time again would be asked for ever."""
    full = answer(*[GOOD] * 1000, last="1700000000000002000")
    assert filler().filled(WANTED, REQUEST, full).following is None
    assert filler().filled(WANTED, REQUEST, answer(*[GOOD] * 1000)).following is not None


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"", "malformed_json"),
        (b"\xff", "malformed_json"),
        (b"[]", "unexpected_json"),
        (b"{}", "unexpected_json"),
        (b'{"error":[]}', "missing_field"),
        (b'{"error":[],"result":{"last":"1"}}', "missing_field"),
        (b'{"error":[],"result":{"A":[],"B":[],"last":"1"}}', "unknown_symbol"),
        (b'{"error":[],"result":{"A":[]}}', "missing_field"),
        (b'{"error":[],"result":{"A":{},"last":"1"}}', "unexpected_json"),
        (answer(last="soon"), "bad_timestamp"),
        (answer(error=["EQuery:Unknown asset pair"]), "refused"),
        (answer(error=["EAPI:Rate limit exceeded"]), RATE_LIMITED),
        (answer(error=["EGeneral:Too many requests"]), RATE_LIMITED),
        (answer(GOOD[:6]), "missing_field"),
        (answer([*GOOD[:6], "11"]), "bad_trade_id"),
        (answer([*GOOD[:2], "soon", *GOOD[3:]]), "bad_timestamp"),
        (answer([*GOOD[:3], "buy", *GOOD[4:]]), "bad_side"),
        (answer([1.5, *GOOD[1:]]), "bad_price"),
        (answer(1), "unexpected_json"),
    ],
)
def test_an_answer_that_cannot_be_used_is_named(said: bytes, reason: str) -> None:
    """And none of it is used."""
    with pytest.raises(Unusable) as caught:
        filler().filled(WANTED, REQUEST, said)
    assert caught.value.reason == reason


@given(
    st.binary(max_size=100)
    | st.dictionaries(st.sampled_from(["error", "result", "last"]), json_values).map(
        lambda v: json.dumps(v).encode()
    )
    | json_values.map(lambda value: answer(value))
)
def test_any_answer_is_read_or_refused(said: bytes) -> None:
    """Fuzz: nothing but Unusable is raised."""
    with suppress(Unusable):
        filler().filled(WANTED, REQUEST, said)
    with suppress(Unusable):
        filler().newest(["BTC-USD"], said)
