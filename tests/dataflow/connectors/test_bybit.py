"""Promises of dataflow.connectors.bybit."""

from __future__ import annotations

import json
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.connector import Received, Refused, Subscribed, Unsubscribed
from dataflow.connectors.bybit import Codec, Filler, Settings
from dataflow.domain import Item, Missed, Missing, Trade
from dataflow.domain.errors import ConfigError
from dataflow.settings.load import load
from dataflow.sources.port import RATE_LIMITED, Newest, Request
from dataflow.sources.reading import Unusable
from simulators import Trade as Published
from simulators.exchanges.bybit import bybit_dialect, name_of, public_trade
from tests.dataflow.connectors.talk import (
    asked,
    decode,
    json_values,
    reasons,
    sent,
    tape_of,
    told,
    trades,
)

SPOT = "wss://stream.bybit.com/v5/public/spot"
LINEAR = "wss://stream.bybit.com/v5/public/linear"
UUID = "20f43950-d8dd-5b31-9112-a178eb6023af"
ONE = {
    "T": 1672304486865,
    "s": "BTCUSDT",
    "S": "Buy",
    "v": "0.0010",
    "p": "16578.50",
    "L": "PlusTick",
    "i": UUID,
    "BT": False,
    "RPI": False,
    "seq": 1783284617,
}
TRADE = Trade(
    source="by",
    symbol="BTC-USDT-PERP",
    trade_id=UUID,
    side="buy",
    price=Decimal("16578.50"),
    quantity=Decimal("0.0010"),
    timestamp=1_672_304_486_865_000_000,
)
MARK = Missed("by", "BTC-USDT-PERP", "source_gap")


def settings(
    symbols: tuple[str, ...] = ("BTC-USDT-PERP", "ETH-USDT-PERP"), url: str = LINEAR, **more: Any
) -> Settings:
    return Settings(connector="bybit", url=url, symbols=symbols, **more)


def codec(
    symbols: tuple[str, ...] = ("BTC-USDT-PERP", "ETH-USDT-PERP"), url: str = LINEAR, **more: Any
) -> Codec:
    return Codec("by", settings(symbols, url, **more))


def subscribed(*symbols: str) -> Codec:
    speaker = codec()
    speaker.subscribe(symbols)
    decode(speaker, answer("1"))
    return speaker


def message(*changes: dict[str, Any], topic: str = "publicTrade.BTCUSDT") -> str:
    rows = [{**ONE, **change} for change in changes or ({},)]
    return json.dumps({"topic": topic, "type": "snapshot", "ts": 1672304486868, "data": rows})


def answer(number: Any, op: str = "subscribe", success: Any = True, words: Any = "", **more: Any) -> str:
    return json.dumps(
        {"success": success, "ret_msg": words, "conn_id": "c", "req_id": number, "op": op, **more}
    )


def published(number: int, side: Any = "buy") -> Published:
    return Published(number, "BTCUSDT", side, "1.5", "2", 1_700_000_000_000_000 + 1000 * number)


def as_trade(each: Published) -> Trade:
    (found,) = trades(decode(codec(), public_trade(each, "linear")))
    return found


def test_a_trade_is_read_exactly() -> None:
    """With the very digits that were sent. It has no sequence: nothing counts the trades of one symbol."""
    into = decode(codec(), message())
    assert into == Received(items=[TRADE])
    assert (str(trades(into)[0].price), str(trades(into)[0].quantity)) == ("16578.50", "0.0010")


def test_many_trades_of_one_message_keep_their_order() -> None:
    """One that cannot be read leaves a mark in its place: nothing else would show that it is missing."""
    into = decode(codec(), message({"i": "1"}, {"i": "2", "p": "0"}, {"i": "3", "S": "Sell"}))
    shown = [(item.trade_id, item.side) if isinstance(item, Trade) else item for item in into.items]
    assert shown == [("1", "buy"), MARK, ("3", "sell")]
    assert reasons(into) == ["bad_price"]


def test_an_unreadable_message_marks_all_that_is_subscribed() -> None:
    """It may have had trades of any symbol. One mark is enough until a trade comes."""
    speaker = subscribed("BTC-USDT-PERP", "ETH-USDT-PERP")
    both: list[Item] = [MARK, Missed("by", "ETH-USDT-PERP", "source_gap")]
    assert decode(speaker, '{"topic":"publ', "\x7f", message(), "x").items == [*both, TRADE, *both]
    assert decode(codec(), "x").items == []


def test_the_address_decides_what_a_name_means() -> None:
    """BTCUSDT is spot at one address, and the perpetual at the other."""
    spot = codec(symbols=("BTC-USDT",), url=SPOT)
    assert [trade.symbol for trade in trades(decode(spot, message()))] == ["BTC-USDT"]
    assert [trade.symbol for trade in trades(decode(codec(), message()))] == ["BTC-USDT-PERP"]


@pytest.mark.parametrize(
    ("symbol", "name"),
    [
        ("BTC-USDT", "BTCUSDT"),
        ("BTC-USDT-PERP", "BTCUSDT"),
        ("BTC-USDC-PERP", "BTCPERP"),
        ("BTC-USDT-251226", "BTCUSDT-26DEC25"),
        ("BTC-USDC-260102", "BTC-2JAN26"),
        ("BTC-USDT-259926", "BTCUSDT-259926"),
        ("ODD-USDT", "EVENUSDT"),
    ],
)
def test_names(symbol: str, name: str) -> None:
    """As Bybit writes them; `names` go first."""
    assert settings(names={"ODD-USDT": "EVENUSDT"}).exchange_name(symbol) == name


def test_requests_are_written_as_bybit_expects() -> None:
    """With an id each; the probe is a ping; nothing at the opening."""
    speaker = codec()
    assert (list(speaker.headers()), list(speaker.opening())) == ([], [])
    assert sent(speaker.probe()) == [{"op": "ping"}]
    topics = ["publicTrade.BTCUSDT", "publicTrade.ETHUSDT"]
    symbols = ["BTC-USDT-PERP", "ETH-USDT-PERP"]
    assert sent(speaker.subscribe(symbols)) == [{"req_id": "1", "op": "subscribe", "args": topics}]
    assert sent(speaker.unsubscribe(symbols[:1])) == [
        {"req_id": "2", "op": "unsubscribe", "args": topics[:1]}
    ]


def test_a_subscription_leaves_a_mark() -> None:
    """Nothing tells what came before it."""
    assert codec().missed("BTC-USDT-PERP") == Missed("by", "BTC-USDT-PERP", "source_gap", resubscribed=True)


def test_a_request_is_answered_as_a_whole() -> None:
    """A refusal is one for all of its symbols. An answer counts once."""
    speaker = codec()
    speaker.subscribe(["BTC-USDT-PERP", "ETH-USDT-PERP"])
    speaker.subscribe(["BTC-USDT-PERP"])
    speaker.unsubscribe(["BTC-USDT-PERP"])
    words = "error:handler not found,topic:publicTrade.X"
    into = decode(
        speaker, answer("1", success=False, words=words), message(), answer("2"), answer("3", "unsubscribe")
    )
    assert into.answers == [
        (0, Refused(("BTC-USDT-PERP", "ETH-USDT-PERP"), words)),
        (1, Subscribed("BTC-USDT-PERP")),
        (1, Unsubscribed("BTC-USDT-PERP")),
    ]
    assert reasons(decode(speaker, answer("2"))) == ["unknown_answer"]
    assert decode(speaker, "x").items == []  # nothing is subscribed any more


def test_what_is_subscribed_already_is_subscribed() -> None:
    """For one symbol this refusal is the answer. For several nobody knows of the others."""
    speaker = codec()
    speaker.subscribe(["BTC-USDT-PERP"])
    speaker.subscribe(["BTC-USDT-PERP", "ETH-USDT-PERP"])
    words = "error:already subscribed,topic:publicTrade.BTCUSDT"
    into = decode(speaker, answer("1", success=False, words=words), answer("2", success=False, words=words))
    assert [each for _, each in into.answers] == [
        Subscribed("BTC-USDT-PERP"),
        Refused(("BTC-USDT-PERP", "ETH-USDT-PERP"), words),
    ]


@pytest.mark.parametrize("op", ["ping", "pong"])
def test_a_pong_is_a_sign_of_life_and_nothing_else(op: str) -> None:
    """Bybit writes it in two ways."""
    assert decode(codec(), answer("", op, words="pong")) == Received()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (answer("9"), "unknown_answer"),
        (answer(1), "unknown_answer"),
        (answer(["1"]), "unknown_answer"),
        (answer("9", success=False), "rejected"),
        (answer("1", "unsubscribe", success=False), "rejected"),
        (answer("1", "auth"), "unknown_message"),
        ("{}", "unknown_message"),
        ('{"topic":"tickers.BTCUSDT","data":[]}', "unknown_topic"),
        ('{"topic":7,"data":[]}', "unknown_topic"),
        ('{"topic":"publicTrade.DOGEUSDT","data":[{}]}', "unknown_symbol"),
        ('{"topic":"publicTrade.BTCUSDT"}', "missing_field"),
        ('{"topic":"tickers.BTCUSDT","data":{}}', "unexpected_json"),
        ("[]", "unexpected_json"),
        ("", "malformed_json"),
        ("[" * 100_000, "unexpected_json"),
        ("\ud800", "malformed_json"),
    ],
)
def test_a_message_that_is_no_trade_and_no_answer_is_counted(text: str, reason: str) -> None:
    """Under a name of its own. An answer to an unsubscription refuses nothing."""
    speaker = codec()
    speaker.unsubscribe(["BTC-USDT-PERP"])
    into = decode(speaker, text)
    assert into == Received(problems=into.problems)
    assert reasons(into) == [reason]


def test_a_binary_message_is_a_problem() -> None:
    """Bybit speaks text here."""
    assert reasons(decode(codec(), message().encode())) == ["not_text"]


WRONG: list[tuple[str, Any, str]] = [
    ("s", None, "missing_field"),
    ("s", "ETHUSDT", "unknown_symbol"),  # of another topic
    ("s", "DOGEUSDT", "unknown_symbol"),
    ("i", None, "missing_field"),
    ("i", "", "bad_trade_id"),
    ("i", 7, "bad_trade_id"),
    ("i", "a b", "bad_trade_id"),
    ("i", "a" * 65, "bad_trade_id"),
    ("p", None, "missing_field"),
    ("p", "0.0", "bad_price"),
    ("p", 16578.5, "bad_price"),
    ("v", None, "missing_field"),
    ("v", "-1", "bad_quantity"),
    ("S", None, "missing_field"),
    ("S", "buy", "bad_side"),
    ("S", {}, "bad_side"),
    ("T", None, "missing_field"),
    ("T", 0, "bad_timestamp"),
    ("T", 1672304486865.0, "bad_timestamp"),
]


@pytest.mark.parametrize(("field", "value", "reason"), WRONG)
def test_nothing_is_guessed(field: str, value: Any, reason: str) -> None:
    """A field that is missing or wrong makes a problem under its name, and a mark instead of the trade."""
    into = decode(codec(), message({field: value}))
    assert (into.items, reasons(into)) == ([MARK], [reason])


@given(st.lists(st.binary(max_size=200) | st.text(max_size=200), max_size=5))
def test_any_bytes_make_problems_only(messages: list[str | bytes]) -> None:
    """Fuzz: never an exception, never a trade."""
    into = decode(codec(), *messages)
    assert into == Received(problems=into.problems)


@given(st.sampled_from(list(ONE)), json_values)
def test_a_field_of_any_value_is_taken_as_it_is_or_is_a_problem(field: str, value: Any) -> None:
    """Fuzz of one field of a real message: the other fields are untouched."""
    into = decode(codec(), message({field: value}))
    assert len(trades(into)) + len(into.problems) == 1
    for item in trades(into):
        assert item.price == (Decimal(value) if field == "p" else TRADE.price)
        assert item.trade_id == (value if field == "i" else UUID)


@given(json_values, json_values, json_values)
def test_answers_of_any_content_never_raise(number: Any, success: Any, words: Any) -> None:
    """Fuzz of what is around trades."""
    speaker = codec()
    for _ in range(2):
        speaker.subscribe(["BTC-USDT-PERP"])
    for op in ("subscribe", "unsubscribe", "pong", number):
        decode(speaker, answer(number, op, success, words), answer("1", op, success, words))


TEXT = message()


@given(st.integers(0, len(TEXT) - 1), st.integers(0, len(TEXT)), st.text(max_size=3))
def test_a_damaged_message_never_raises(start: int, end: int, inserted: str) -> None:
    """Fuzz: a part is cut out or replaced; a trade that is left is complete."""
    for item in trades(decode(codec(), TEXT[:start] + inserted + TEXT[end:])):
        assert item.symbol == "BTC-USDT-PERP"
        assert item.price > 0


numbers = st.decimals("0.000001", "99999999", allow_nan=False, places=6).map(lambda value: f"{value:f}")


@given(st.integers(1, 2**47), st.sampled_from(["buy", "sell"]), numbers, numbers)
def test_what_was_said_is_what_is_read(number: int, side: Any, price: str, qty: str) -> None:
    """Every field, at both addresses, as another implementation writes it."""
    trade = Published(number, "BTCUSDT", side, price, qty, 1_700_000_000_123_000)
    for url, symbol in ((SPOT, "BTC-USDT"), (LINEAR, "BTC-USDT-PERP")):
        category = url.rpartition("/")[2]
        into = decode(codec(symbols=(symbol,), url=url), public_trade(trade, category))
        expected = (symbol, name_of(trade, category), side, price, qty, trade.timestamp_us)
        assert [told(each) for each in trades(into)] == [expected]
        assert into.problems == []


# -- refill -------------------------------------------------------------------------------------------

REST = bybit_dialect(symbols=["BTCUSDT"]).rest
assert REST is not None
PUBLISHED = [published(number) for number in range(1, 1501)]
TAPE = tape_of({"BTCUSDT": PUBLISHED})


def filled(after: int | None, before: int | None) -> list[str | None]:
    assert REST is not None
    ends = [None if number is None else as_trade(PUBLISHED[number - 1]) for number in (after, before)]
    missing, filler = Missing("by", "BTC-USDT-PERP", *ends), Filler("by", settings())
    request = filler.fill(missing)
    assert request == Request("/v5/market/recent-trade?category=linear&symbol=BTCUSDT&limit=1000")
    page = filler.filled(missing, request, asked(REST, request.path, TAPE))
    assert page.following is None
    return [trade.trade_id for trade in page.trades]


def ids(first: int, last: int) -> list[str]:
    return [name_of(each, "linear") for each in PUBLISHED[first - 1 : last]]


def test_missing_trades_are_in_the_newest_ones() -> None:
    """Oldest first, and with the two that were received: that they are there proves that all are."""
    assert filled(1400, 1410) == ids(1400, 1410)
    assert filled(1400, None) == ids(1400, 1500)


def test_what_is_too_old_is_not_there() -> None:
    """Bybit has no other question. The trade before is not among them, so nobody can think this is all."""
    assert filled(400, 510) == ids(501, 510)
    assert filled(1, 100) == []


def test_without_a_beginning_all_newest_trades_are_taken() -> None:
    """As many as Bybit gives."""
    assert filled(None, None) == ids(501, 1500)


def test_the_newest_trade_is_told() -> None:
    """Of the first symbol, under our name; and by the category of the address."""
    assert REST is not None
    filler = Filler("by", settings())
    request = filler.latest(["BTC-USDT-PERP", "ETH-USDT-PERP"])
    assert request == Request("/v5/market/recent-trade?category=linear&symbol=BTCUSDT&limit=1")
    newest = Newest(trade_id=ids(1500, 1500)[0], timestamp=PUBLISHED[-1].timestamp_us * 1000)
    assert filler.newest(["BTC-USDT-PERP"], asked(REST, request.path, TAPE)) == {"BTC-USDT-PERP": newest}
    spot = Filler("by", settings(symbols=("BTC-USDT",), url=SPOT)).latest(["BTC-USDT"])
    assert spot == Request("/v5/market/recent-trade?category=spot&symbol=BTCUSDT&limit=1")
    assert filler.newest(["BTC-USDT-PERP"], b'{"retCode":0,"result":{"list":[]}}') == {}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "malformed_json"),
        (b"\xff", "malformed_json"),
        (b"[]", "unexpected_json"),
        (b"{}", "missing_field"),
        (b'{"retCode":0}', "missing_field"),
        (b'{"retCode":0,"result":{}}', "missing_field"),
        (b'{"retCode":10001,"retMsg":"params error: Symbol Invalid","result":{}}', "refused"),
        (b'{"retCode":[0],"result":{}}', "refused"),
        (b'{"retCode":10006,"retMsg":"Too many visits!","result":{}}', RATE_LIMITED),
        (b'{"retCode":0,"result":{"list":[{"symbol":"ETHUSDT"}]}}', "unknown_symbol"),
        (b'{"retCode":0,"result":{"list":[{"symbol":"BTCUSDT"}]}}', "missing_field"),
    ],
)
def test_an_answer_that_cannot_be_used_has_a_name(body: bytes, reason: str) -> None:
    """Whatever it is. None of it is taken."""
    filler, about = Filler("by", settings()), Missing("by", "BTC-USDT-PERP", None, None)
    for read in (
        lambda: filler.filled(about, Request("/"), body),
        lambda: filler.newest(["BTC-USDT-PERP"], body),
    ):
        with pytest.raises(Unusable) as caught:
            read()
        assert caught.value.reason == reason


@given(
    st.binary(max_size=300)
    | json_values.map(lambda value: json.dumps({"retCode": 0, "result": {"list": value}}).encode())
)
def test_any_answer_is_read_or_named(body: bytes) -> None:
    """Fuzz: trades, or Unusable."""
    with suppress(Unusable):
        assert (
            not Filler("by", settings())
            .filled(Missing("by", "BTC-USDT-PERP", None, None), Request("/"), body)
            .trades
        )


# -- settings -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["wss://stream.bybit.com", "wss://stream.bybit.com/v5/public/option"])
def test_the_address_has_a_category(url: str) -> None:
    """The error tells both."""
    with pytest.raises(ValueError, match="/v5/public/spot or /v5/public/linear"):
        settings(url=url)


@pytest.mark.parametrize(
    ("symbol", "url"), [("BTC-USDT", LINEAR), ("BTC-USDT-PERP", SPOT), ("BTC-USDT-251226", SPOT)]
)
def test_a_symbol_of_the_other_category_is_refused(symbol: str, url: str) -> None:
    """It has the same name there, and would be something else."""
    with pytest.raises(ValueError, match="must be BASE-QUOTE"):
        settings(symbols=(symbol,), url=url)


def test_symbols_that_cannot_be_told_apart_are_refused() -> None:
    """AB-C and A-BC are one name on Bybit: the way back would be a guess."""
    with pytest.raises(ValueError, match="AB-C and A-BC: both have the same name there, ABC"):
        settings(symbols=("AB-C", "A-BC"), url=SPOT)


@pytest.mark.parametrize("url", ["ws://[x", "x", ""])
def test_an_address_that_is_none_is_not_judged(url: str) -> None:
    """The check of the configuration tells it, and once is enough."""
    assert settings(symbols=(), url=url).url == url


@pytest.mark.parametrize(
    ("symbols", "why"),
    [
        (["BTC-USDT"], "must be BASE-QUOTE-PERP or BASE-QUOTE-YYMMDD at an address that ends in /linear"),
        (
            ["AB-C-PERP", "A-BC-PERP"],
            "must not hold AB-C-PERP and A-BC-PERP: both have the same name there, ABC",
        ),
    ],
)
def test_the_check_names_key_and_value(symbols: list[str], why: str, tmp_path: Path) -> None:
    """Also where the rule asks other keys, and methods of the settings."""
    file, shown = tmp_path / "my.toml", json.dumps(symbols)
    file.write_text(
        f'[sources.a]\nconnector = "bybit"\nurl = "wss://example.com/v5/public/linear"\nsymbols = {shown}\n'
    )
    with pytest.raises(ConfigError) as found:
        load([file], {})
    assert found.value.problems == [f"{file}: [sources.a] symbols: found {shown}; {why}"]
