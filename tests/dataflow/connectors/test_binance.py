"""Promises of dataflow.connectors.binance."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.connector import Received, Refused, Subscribed, Unsubscribed
from dataflow.connectors.binance import Codec, Filler, Settings
from dataflow.domain import Item, Missing, Trade
from dataflow.net.budget import MARGIN, MINUTE
from dataflow.sources.port import Page, Request
from simulators import Trade as Published
from simulators.exchanges.binance import binance_rest, futures_payload
from tests.dataflow.connectors.numerals import numerals

BARE = (
    '{"e":"trade","E":1723161255343,"s":"BTCUSDT","t":3735683259,"p":"61837.63000000","q":"0.02000000",'
    '"T":1723161255342,"m":true,"M":true}'
)
WRAPPED = f'{{"stream":"btcusdt@trade","data":{BARE}}}'
TRADE = Trade(
    source="bn",
    symbol="BTC-USDT",
    trade_id="3735683259",
    side="sell",
    price=Decimal("61837.63"),
    quantity=Decimal("0.02"),
    timestamp=1_723_161_255_342_000_000,
    sequence=3735683259,
)


def codec(symbols: tuple[str, ...] = ("BTC-USDT", "ETH-USDT"), **settings: Any) -> Codec:
    return Codec("bn", Settings(connector="binance", url="ws://exchange", symbols=symbols, **settings))


def decode(speaker: Codec, *messages: str | bytes) -> Received[Item]:
    into: Received[Item] = Received()
    for message in messages:
        speaker.decode(message, into)
    return into


def changed(**fields: Any) -> str:
    return json.dumps({**json.loads(BARE), **fields})


def as_row(item: Item) -> dict[str, str]:
    """A trade as the independent decoder writes it."""
    assert isinstance(item, Trade)
    assert item.source == "bn"
    assert item.sequence == int(item.trade_id)
    return {
        "trade_id": item.trade_id,
        "timestamp_us": str(item.timestamp // 1000),
        "symbol": item.symbol.replace("-", ""),
        "side": item.side,
        "price": str(item.price),
        "qty": str(item.quantity),
    }


@pytest.mark.parametrize("text", [BARE, WRAPPED])
def test_a_trade_is_read_exactly_from_both_endpoints(text: str) -> None:
    """Wrapped or bare: the same trade, the decimals with the very digits that were sent."""
    into = decode(codec(), text)
    assert into == Received(items=[TRADE])
    assert as_row(into.items[0])["price"] == "61837.63000000"


def test_the_taker_is_the_other_side_of_the_maker() -> None:
    """`m`: the buyer was the maker, so the taker sold."""
    sides = [item.side for item in decode(codec(), changed(m=True), changed(m=False)).items]  # type: ignore[union-attr]
    assert sides == ["sell", "buy"]


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("name", ["btcusdt", "ethusdt"])
def test_recorded_trades_equal_those_of_an_independent_decoder(traffic: Any, name: str, whole: bool) -> None:
    """Every field of every trade, in order, and a sequence without a hole."""
    if whole:
        messages, oracle = traffic.recording(f"spot_{name}_20240808.jsonl.gz"), traffic.oracle()
    else:
        messages, oracle = traffic.excerpt(f"binance_spot_{name}_20240808.jsonl"), traffic.excerpt_oracle()
    into = decode(codec(), *messages)
    rows = [as_row(item) for item in into.items]
    first, last = int(rows[0]["trade_id"]), int(rows[-1]["trade_id"])
    expected = [
        row for row in oracle if row["symbol"] == name.upper() and first <= int(row["trade_id"]) <= last
    ]
    assert len(rows) >= 200
    assert rows == expected
    assert [int(row["trade_id"]) for row in rows] == list(range(first, last + 1))
    assert {reason for reason, _ in into.problems} <= {"unknown_event", "unknown_message"}
    assert len(into.problems) + len(rows) == len(messages)


def test_recorded_aggregates_are_read(traffic: Any) -> None:
    """The aggregate's own number is id and sequence; single trades are not counted beside them."""
    speaker = codec(symbols=("NKN-USDT", "LRC-BTC", "BTC-USDT"), stream="aggTrade")
    into = decode(speaker, *traffic.excerpt("binance_aggtrade_20211012.jsonl"))
    assert into.problems == []
    assert into.items == [
        Trade(
            "bn", "NKN-USDT", "15683430", "buy", Decimal("0.3528"), Decimal(58), 1633998523963000000, 15683430
        ),
        Trade(
            "bn",
            "LRC-BTC",
            "9213679",
            "buy",
            Decimal("0.00000638"),
            Decimal(177),
            1633998534486000000,
            9213679,
        ),
    ]
    assert decode(speaker, WRAPPED).problems[0][0] == "unknown_event"
    aggregate = traffic.excerpt("binance_aggtrade_20211012.jsonl")[0]
    assert decode(codec(symbols=("NKN-USDT",)), aggregate).problems[0][0] == "unknown_event"


def test_microseconds_are_recognised() -> None:
    """A connection may send times in microseconds: the number itself shows it."""
    (item,) = decode(codec(), changed(T=1723161255342123)).items
    assert isinstance(item, Trade)
    assert item.timestamp == 1_723_161_255_342_123_000


def test_requests_are_written_as_binance_expects() -> None:
    """Requests carry their own ids; the probe asks for something harmless; nothing at the opening."""
    speaker = codec()
    assert (list(speaker.headers()), list(speaker.opening())) == ([], [])
    assert [json.loads(text) for text in speaker.subscribe(["BTC-USDT", "ETH-USDT"])] == [
        {"method": "SUBSCRIBE", "params": ["btcusdt@trade", "ethusdt@trade"], "id": 1}
    ]
    assert [json.loads(text) for text in speaker.unsubscribe(["ETH-USDT"])] == [
        {"method": "UNSUBSCRIBE", "params": ["ethusdt@trade"], "id": 2}
    ]
    assert [json.loads(text) for text in speaker.probe()] == [{"method": "LIST_SUBSCRIPTIONS", "id": 3}]
    assert json.loads(codec(stream="aggTrade").subscribe(["BTC-USDT"])[0])["params"] == ["btcusdt@aggTrade"]
    assert speaker.missed("BTC-USDT") is None


def test_answers_are_matched_to_their_requests() -> None:
    """By id, in any order; an answer counts once."""
    speaker = codec()
    speaker.subscribe(["BTC-USDT"])
    speaker.subscribe(["ETH-USDT"])
    speaker.unsubscribe(["BTC-USDT"])
    speaker.probe()
    into = decode(
        speaker,
        '{"result":null,"id":2}',
        '{"error":{"code":2,"msg":"Invalid request"},"id":1}',
        '{"result":null,"id":3}',
        '{"result":["ethusdt@trade"],"id":4}',
    )
    assert into == Received(
        answers=[
            (0, Subscribed("ETH-USDT")),
            (0, Refused(("BTC-USDT",), "Invalid request")),
            (0, Unsubscribed("BTC-USDT")),
        ]
    )
    assert decode(speaker, '{"result":null,"id":2}').problems[0][0] == "unknown_answer"


def test_every_form_of_a_refusal_is_one() -> None:
    """With an error object, with code and text at the top, or without a text."""
    speaker = codec()
    for _ in range(3):
        speaker.subscribe(["BTC-USDT"])
    into = decode(
        speaker,
        '{"code":2,"msg":"no","id":1}',
        '{"error":"broken","id":2}',
        '{"error":{"msg":"late"},"id":3}',
    )
    assert [answer for _, answer in into.answers] == [
        Refused(("BTC-USDT",), "no"),
        Refused(("BTC-USDT",), "refused without a reason"),
        Refused(("BTC-USDT",), "late"),
    ]


def test_a_refusal_is_of_the_whole_request() -> None:
    """It does not name a symbol, so it is reported as one refusal, and not for each symbol."""
    speaker = codec()
    speaker.subscribe(["BTC-USDT", "ETH-USDT"])
    into = decode(speaker, '{"error":{"code":2,"msg":"no"},"id":1}')
    assert into == Received(answers=[(0, Refused(("BTC-USDT", "ETH-USDT"), "no"))])


def test_an_answer_keeps_its_place_among_the_trades() -> None:
    """Trades before it and trades after it can be told apart."""
    speaker = codec()
    speaker.unsubscribe(["BTC-USDT"])
    speaker.subscribe(["BTC-USDT", "ETH-USDT"])
    into = decode(speaker, BARE, '{"result":null,"id":1}', '{"result":null,"id":2}', BARE)
    assert into == Received(
        items=[TRADE, TRADE],
        answers=[(1, Unsubscribed("BTC-USDT")), (1, Subscribed("BTC-USDT")), (1, Subscribed("ETH-USDT"))],
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"error":{"code":3,"msg":"Invalid JSON"},"id":null}', "rejected"),
        ('{"error":{"code":2,"msg":"no"},"id":1}', "rejected"),
        ('{"result":null,"id":99}', "unknown_answer"),
        ('{"result":null,"id":"1"}', "unknown_answer"),
        ('{"result":null,"id":true}', "unknown_answer"),
        ('{"result":null}', "unknown_answer"),
        ('{"e":"listenKeyExpired","E":1770123456789}', "unknown_event"),
        ('{"stream":"x","data":{"e":"24hrTicker"}}', "unknown_event"),
        ('{"stream":"btcusdt@bookTicker","data":{"u":1,"s":"BTCUSDT"}}', "unknown_message"),
        ('{"stream":"btcusdt@trade","data":[]}', "unexpected_json"),
        ("{}", "unknown_message"),
        ("[]", "unexpected_json"),
        ("", "malformed_json"),
        ("[" * 100_000, "unexpected_json"),
        ('{"data":' * 100_000, "malformed_json"),
        ("\ud800", "malformed_json"),
    ],
)
def test_a_message_that_is_no_trade_and_no_answer_is_counted(text: str, reason: str) -> None:
    """Under a name of its own; an answer to an unsubscription refuses nothing."""
    speaker = codec()
    speaker.unsubscribe(["BTC-USDT"])
    into = decode(speaker, text)
    assert into == Received(problems=into.problems)
    assert [found for found, _ in into.problems] == [reason]
    assert len(into.problems[0][1]) <= 120


WRONG: list[tuple[str, Any, str]] = [
    ("s", None, "missing_field"),
    ("s", "DOGEUSDT", "unknown_symbol"),
    ("s", "", "unknown_symbol"),
    ("s", ["BTCUSDT"], "unknown_symbol"),
    ("t", None, "missing_field"),
    ("t", "3735683259", "bad_trade_id"),
    ("t", 1.0, "bad_trade_id"),
    ("t", True, "bad_trade_id"),
    ("t", -1, "bad_trade_id"),
    ("t", 2**53 + 1, "bad_trade_id"),
    ("p", None, "missing_field"),
    ("p", "", "bad_price"),
    ("p", "0.00000000", "bad_price"),
    ("p", "-1", "bad_price"),
    ("p", "NaN", "bad_price"),
    ("p", "Infinity", "bad_price"),
    ("p", " 1", "bad_price"),
    ("p", "1_0", "bad_price"),
    ("p", "\u0661", "bad_price"),
    ("p", 61837.63, "bad_price"),
    ("q", None, "missing_field"),
    ("q", "0", "bad_quantity"),
    ("q", 1, "bad_quantity"),
    ("T", None, "missing_field"),
    ("T", 0, "bad_timestamp"),
    ("T", "1723161255342", "bad_timestamp"),
    ("T", 1723161255342.0, "bad_timestamp"),
    ("T", 10**18, "bad_timestamp"),
    ("T", 2**62 // 10**6 + 1, "bad_timestamp"),  # in 2116: what no store can hold is no time of a trade
    ("m", None, "missing_field"),
    ("m", 1, "bad_side"),
    ("m", "true", "bad_side"),
    ("e", None, "unknown_message"),
    ("e", "Trade", "unknown_event"),
    ("e", {}, "unknown_event"),
]


@pytest.mark.parametrize(("field", "value", "reason"), WRONG)
def test_nothing_is_guessed(field: str, value: Any, reason: str) -> None:
    """A field that is missing or wrong makes a problem under its name, and no trade."""
    into = decode(codec(), changed(**{field: value}))
    assert into.items == []
    assert [found for found, _ in into.problems] == [reason]


def test_a_binary_message_is_a_problem() -> None:
    """Binance speaks text."""
    assert decode(codec(), BARE.encode()).problems[0][0] == "not_text"


def test_symbols_that_cannot_be_told_apart_are_refused() -> None:
    """AB-C and A-BC are one name on Binance: the way back would be a guess."""
    with pytest.raises(ValueError, match="same name"):
        codec(symbols=("AB-C", "A-BC"))


@given(st.lists(st.binary(max_size=200) | st.text(max_size=200), max_size=5))
def test_any_bytes_make_problems_only(messages: list[str | bytes]) -> None:
    """Fuzz: never an exception, never a trade."""
    into = decode(codec(), *messages)
    assert into == Received(problems=into.problems)
    assert len(into.problems) == len(messages)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from("stpqTm"), json_values)
def test_a_field_of_any_value_is_taken_as_it_is_or_is_a_problem(field: str, value: Any) -> None:
    """Fuzz of one field of a real message: the other fields are untouched, and the field was legal."""
    into = decode(codec(), changed(**{field: value}))
    assert len(into.items) + len(into.problems) == 1
    for item in into.items:
        assert isinstance(item, Trade)
        assert item.sequence == (value if field == "t" else TRADE.sequence)
        assert item.price == (Decimal(value) if field == "p" else TRADE.price)
        assert item.quantity == (Decimal(value) if field == "q" else TRADE.quantity)
        assert item.side == (("sell" if value else "buy") if field == "m" else "sell")


@given(st.integers(0, len(WRAPPED) - 1), st.integers(0, len(WRAPPED)), st.text(max_size=3))
def test_a_damaged_message_never_raises(start: int, end: int, inserted: str) -> None:
    """Fuzz: a part is cut out or replaced; a trade that is left is complete."""
    into = decode(codec(), WRAPPED[:start] + inserted + WRAPPED[end:])
    assert len(into.items) + len(into.problems) == 1
    for item in into.items:
        assert isinstance(item, Trade)
        assert item.symbol == "BTC-USDT"
        assert item.price > 0
        assert item.quantity > 0


def by_the_careful_way(message: str | bytes, **settings: Any) -> Received[Item]:
    speaker = codec(**settings)
    speaker._usual_trade = lambda _message: None  # type: ignore[method-assign]
    return decode(speaker, message)


odd_values = (
    json_values
    | numerals
    | st.sampled_from([2**53, 2**53 + 1, 10**14, 10**14 + 1, 2**63, 2**64, 10**30, -0.0])
)
fields = st.dictionaries(st.sampled_from("estapqTm"), odd_values, max_size=3)


@given(fields, st.sampled_from(["trade", "aggTrade"]), st.booleans(), st.booleans())
def test_the_usual_way_and_the_careful_one_agree(
    fields: dict[str, Any], stream: Any, wrapped: bool, outside: bool
) -> None:
    """For any message: the same trade to the last digit, or the same problem."""
    about = {**json.loads(BARE), "e": stream, "a": 7}
    text = json.dumps({"data": about | fields} if wrapped else about | fields)
    if outside:  # the same names again where they mean nothing, or once more where they do
        text = f"{text[:-1]},{json.dumps(fields)[1:]}" if fields else text
    into = decode(codec(stream=stream), text)
    assert into == by_the_careful_way(text, stream=stream)
    assert repr(into.items) == repr(by_the_careful_way(text, stream=stream).items)


@given(
    st.integers(0, len(WRAPPED)),
    st.integers(0, len(WRAPPED)),
    st.text(max_size=5) | st.sampled_from(['"', "\\ud800", "1e999", "\x00"]),
)
def test_both_ways_agree_on_damage(start: int, end: int, inserted: str) -> None:
    """Also if it is no JSON any more, or JSON of another shape."""
    text = WRAPPED[:start] + inserted + WRAPPED[end:]
    assert decode(codec(), text) == by_the_careful_way(text)


@pytest.mark.parametrize("name", ["id", "result", "error", "code", "msg", "e", "t", "a", "other"])
@pytest.mark.parametrize("value", ['"\\ud800"', "1e999", "[" * 2000, "{}"])
def test_both_ways_look_at_the_same_fields(name: str, value: str) -> None:
    """A field that no trade needs may still be broken; then both ways report it."""
    text = f'{WRAPPED[:-1]},"{name}":{value}}}'
    assert decode(codec(), text) == by_the_careful_way(text)


def test_real_trades_are_read_the_usual_way(traffic: Any) -> None:
    """All trades of the excerpts: none falls back to the careful way unnoticed."""
    for name in ("btcusdt", "ethusdt"):
        speaker = codec()
        texts = traffic.excerpt(f"binance_spot_{name}_20240808.jsonl")
        trades = [trade for text in texts if (trade := speaker._usual_trade(text))]
        assert trades == decode(codec(), *texts).items


def test_prices_that_repeat_are_one_object() -> None:
    """Ten thousand trades at a hundred prices keep a hundred prices; the digits are those of each message."""
    into = decode(codec(), changed(p="1.0"), changed(p="1.00"), changed(p="1.0"))
    first, second, third = (item.price for item in into.items)  # type: ignore[union-attr]
    assert first is third
    assert (str(first), str(second)) == ("1.0", "1.00")


# -- other markets of Binance -------------------------------------------------------------------------

FUTURES = "wss://fstream.binance.com/market/stream"
AMERICAN = "wss://stream.binance.us:9443/stream"
PERPETUALS = ("BTC-USDT-PERP", "ETH-USDC-251226")


def settings(url: str, *symbols: str, **more: Any) -> Settings:
    return Settings(connector="binance", url=url, symbols=symbols, **more)


def test_the_address_decides_the_market() -> None:
    """What is asked for, and where; a key that is written goes first."""
    shown = [
        (each.stream, each.refill_url)
        for each in map(settings, ("wss://stream.binance.com/ws", AMERICAN, FUTURES))
    ]
    assert shown == [
        ("trade", "https://api.binance.com"),
        ("trade", "https://api.binance.us"),
        ("aggTrade", "https://fapi.binance.com"),
    ]
    assert settings(AMERICAN, stream="aggTrade", refill_url="http://here").refill_url == "http://here"
    assert settings("wss://binance.us.example.com/stream").refill_url == "https://api.binance.com"


def test_a_lost_second_of_all_symbols_of_a_connection_is_asked_for_in_time() -> None:
    """A question for each of them costs less than what may be used until they would be given up."""
    asking = settings("wss://stream.binance.com/stream", "BTC-USDT")
    request = Filler("bn", asking).fill(Missing("bn", "BTC-USDT", None, None, 3, 5))
    assert request is not None
    minutes = asking.refill_within / (MINUTE + MARGIN)
    assert request.weight * asking.symbols_a_connection < asking.refill_weight * minutes
    assert [settings(url).refill_weight for url in (FUTURES, AMERICAN)] == [1200, 1200]


@pytest.mark.parametrize(
    ("url", "symbol"), [(FUTURES, "BTC-USDT"), (AMERICAN, "BTC-USDT-PERP"), (AMERICAN, "A-B-251226")]
)
def test_a_symbol_of_the_other_market_is_refused(url: str, symbol: str) -> None:
    """It has the same name there, and would be something else."""
    with pytest.raises(ValueError, match="BASE-QUOTE-PERP or BASE-QUOTE-YYMMDD at an address of futures"):
        settings(url, symbol)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("wss://fstream.binance.com/stream", "must have the path /market/stream"),
        ("wss://fstream.binance.com/public/stream", "must have the path /market/stream"),
        ("wss://dstream.binance.com/stream", "futures in coins"),
    ],
)
def test_an_address_without_trades_is_refused(url: str, told: str) -> None:
    """Or one whose trades would be taken for something else."""
    with pytest.raises(ValueError, match=told):
        settings(url)


def test_single_trades_of_futures_are_not_documented() -> None:
    """So they cannot be asked for."""
    with pytest.raises(ValueError, match='must be "aggTrade" at an address of futures'):
        settings(FUTURES, stream="trade")


def test_futures_are_read_under_our_names() -> None:
    """A perpetual and a future that ends on a day, as another implementation writes them."""
    speaker = Codec("bn", settings(FUTURES, *PERPETUALS))
    (request,) = speaker.subscribe(PERPETUALS)
    assert json.loads(request)["params"] == ["btcusdt@aggTrade", "ethusdc_251226@aggTrade"]
    told = [
        Published(7, name, "sell", "61837.60", "0.005", 1_700_000_000_123_000, aggregate=(10, 12))
        for name in ("BTCUSDT", "ETHUSDC_251226")
    ]
    into = decode(speaker, *map(futures_payload, told))
    assert into == Received(
        items=[
            Trade(
                "bn", symbol, "7", "sell", Decimal("61837.60"), Decimal("0.005"), 1_700_000_000_123_000_000, 7
            )
            for symbol in PERPETUALS
        ]
    )
    assert str(into.items[0].price) == "61837.60"  # type: ignore[union-attr]


def test_missing_aggregates_of_futures_are_asked_for_there() -> None:
    """At the paths of the futures, at their weight, and read like those of the stream."""
    asking, name = settings(FUTURES, *PERPETUALS), PERPETUALS[0]
    filler, speaker = Filler("bn", asking), Codec("bn", asking)
    told = [
        Published(n, "BTCUSDT", "buy", f"{100 + n}.5", "0.25", 1_700_000_000_000_000 + n * 1000)
        for n in range(9)
    ]
    request = filler.fill(Missing("bn", name, None, None, 3, 5))
    assert request == Request("/fapi/v1/aggTrades?symbol=BTCUSDT&fromId=2&limit=5", 20)
    parts = urlsplit(request.path)
    answer = binance_rest(parts.path, dict(parse_qsl(parts.query)), lambda _: told)
    assert (answer.status, answer.weight) == (200, request.weight)
    page = filler.filled(Missing("bn", name, None, None, 3, 5), request, answer.body)
    assert page == Page(decode(speaker, *map(futures_payload, told[2:7])).items)
    latest = filler.latest(PERPETUALS)
    assert latest == Request("/fapi/v1/aggTrades?symbol=BTCUSDT&limit=1", 20)
