"""Promises of dataflow.connectors.okx."""

from __future__ import annotations

import json
from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.connector import Received, Refused, Subscribed, Unsubscribed
from dataflow.connectors.okx import Codec, Filler, Settings
from dataflow.domain import Missed, Missing, Trade
from dataflow.sources.port import RATE_LIMITED, Newest, Request
from dataflow.sources.reading import Unusable
from simulators import Trade as Published
from simulators.exchanges.okx import aggregate, every_trade, okx_dialect
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

BUSINESS = "wss://ws.okx.com:8443/ws/v5/business"
PUBLIC = "wss://ws.okx.com:8443/ws/v5/public"
NAME = "BTC-USDT"
ONE = {
    "instId": NAME,
    "tradeId": "130639474",
    "px": "42219.90",
    "sz": "0.12060306",
    "side": "buy",
    "source": "0",
    "ts": "1630048897897",
}
TRADE = Trade(
    source="ok",
    symbol=NAME,
    trade_id="130639474",
    side="buy",
    price=Decimal("42219.90"),
    quantity=Decimal("0.12060306"),
    timestamp=1_630_048_897_897_000_000,
    sequence=130639474,
)


def settings(
    symbols: tuple[str, ...] = (NAME, "ETH-USDT-PERP"), url: str = BUSINESS, **more: Any
) -> Settings:
    return Settings(connector="okx", url=url, symbols=symbols, **more)


def codec(symbols: tuple[str, ...] = (NAME, "ETH-USDT-PERP"), url: str = BUSINESS, **more: Any) -> Codec:
    return Codec("ok", settings(symbols, url, **more))


def message(*changes: dict[str, Any], channel: str = "trades-all") -> str:
    rows = [{**ONE, **change} for change in changes or ({},)]
    return json.dumps({"arg": {"channel": channel, "instId": NAME}, "data": rows})


def published(
    number: int, symbol: str = NAME, side: Any = "buy", price: str = "1.5", qty: str = "2"
) -> Published:
    return Published(number, symbol, side, price, qty, 1_700_000_000_000_000 + 1000 * number)


def missing(first: int | None, last: int | None) -> Missing:
    return Missing("ok", NAME, None, None, first, last)


def test_a_trade_is_read_exactly() -> None:
    """With the very digits that were sent; the id is the sequence."""
    into = decode(codec(), message())
    assert into == Received(items=[TRADE])
    assert str(trades(into)[0].price) == "42219.90"


def test_trades_of_one_message_keep_their_order() -> None:
    """One that cannot be read leaves the others as they are; the sequence will show it."""
    into = decode(
        codec(), message({"tradeId": "7"}, {"tradeId": "8", "px": "-1"}, {"tradeId": "9", "side": "sell"})
    )
    assert [(trade.sequence, trade.side) for trade in trades(into)] == [(7, "buy"), (9, "sell")]
    assert reasons(into) == ["bad_price"]


def test_a_perpetual_ends_in_swap() -> None:
    """Its name there and back; spot and dated futures are called as we call them."""
    shown = decode(codec(), message({"instId": "ETH-USDT-SWAP"}))
    assert trades(shown)[0].symbol == "ETH-USDT-PERP"
    names = settings(names={"LUNA-USDT": "LUNC-USDT"})
    derived = [names.exchange_name(each) for each in ("A-B", "A-B-PERP", "A-B-251226", "LUNA-USDT")]
    assert derived == ["A-B", "A-B-SWAP", "A-B-251226", "LUNC-USDT"]


def test_an_aggregate_has_no_sequence() -> None:
    """Its id is the last of several, so it grows by more than one."""
    into = decode(codec(url=PUBLIC), message({"count": "3"}, channel="trades"))
    assert trades(into)[0].trade_id == "130639474"
    assert trades(into)[0].sequence is None


def test_an_aggregate_that_does_not_follow_leaves_a_mark() -> None:
    """5 (3..5), 6, then 10 (9..10): 7 and 8 are missing. A repetition proves nothing."""
    parts = [
        {"tradeId": str(last), "count": str(size)}
        for last, size in ((5, 3), (6, 1), (10, 2), (10, 2), (11, 1))
    ]
    into = decode(codec(url=PUBLIC), message(*parts, channel="trades"))
    shown = [item.trade_id if isinstance(item, Trade) else "missed" for item in into.items]
    assert shown == ["5", "6", "missed", "10", "10", "11"]


def test_a_subscription_to_aggregates_begins_anew() -> None:
    """Nothing is known of what came before it, and it leaves a mark. Single trades need none."""
    speaker = codec(url=PUBLIC)
    decode(speaker, message({"tradeId": "5", "count": "1"}, channel="trades"))
    speaker.unsubscribe([NAME])
    into = decode(speaker, message({"tradeId": "9", "count": "1"}, channel="trades"))
    assert len(into.items) == 1
    assert speaker.missed(NAME) == Missed("ok", NAME, "source_gap", resubscribed=True)
    assert codec().missed(NAME) is None


def test_requests_are_written_as_okx_expects() -> None:
    """With an id each; the probe is a text; nothing at the opening."""
    speaker = codec()
    assert (list(speaker.headers()), list(speaker.opening()), list(speaker.probe())) == ([], [], ["ping"])
    names = [NAME, "ETH-USDT-SWAP"]
    arguments = [{"channel": "trades-all", "instId": name} for name in names]
    assert sent(speaker.subscribe([NAME, "ETH-USDT-PERP"])) == [
        {"id": "1", "op": "subscribe", "args": arguments}
    ]
    assert sent(speaker.unsubscribe([NAME])) == [{"id": "2", "op": "unsubscribe", "args": arguments[:1]}]
    assert sent(codec(url=PUBLIC).subscribe([NAME]))[0]["args"][0]["channel"] == "trades"


def test_a_request_is_not_longer_than_okx_takes() -> None:
    """Also with as many symbols as there may be, whose names are as long as they may be."""
    symbols = [f"{n:032}-{n:032}-PERP" for n in range(Settings.symbols_a_request)]
    (request,) = codec(symbols=()).subscribe(symbols)
    assert [each["instId"][:65] for each in json.loads(request)["args"]] == [each[:65] for each in symbols]
    assert len(request) < 64 * 1024


def answer(event: str, name: str = NAME, **more: Any) -> str:
    return json.dumps(
        {"event": event, "arg": {"channel": "trades-all", "instId": name}, "connId": "a", **more}
    )


def test_each_symbol_is_answered_by_itself() -> None:
    """In any order, among trades. What has no answer yet is what a refusal concerns."""
    speaker = codec()
    speaker.subscribe([NAME, "ETH-USDT-PERP"])
    speaker.unsubscribe([NAME])
    refusal = '{"event":"error","id":"1","code":"60018","msg":"no such","connId":"a"}'
    into = decode(speaker, message(), answer("subscribe", id="1"), refusal, answer("unsubscribe", id="2"))
    assert into.answers == [
        (1, Subscribed(NAME)),
        (1, Refused(("ETH-USDT-PERP",), "no such")),
        (1, Unsubscribed(NAME)),
    ]
    assert into.problems == []


def test_a_pong_is_a_sign_of_life_and_nothing_else() -> None:
    """It is no JSON."""
    assert decode(codec(), "pong") == Received()


def test_a_service_upgrade_is_announced() -> None:
    """Then the next connection is made at once. Other notices are counted."""
    notice = {"event": "notice", "code": "64008", "msg": "The connection will soon be closed", "connId": "a"}
    assert decode(codec(), json.dumps(notice)).leaving == "The connection will soon be closed"
    assert "(64008)" in (decode(codec(), json.dumps(notice | {"msg": ""})).leaving or "")
    into = decode(codec(), json.dumps({**notice, "code": "64000"}))
    assert (into.leaving, reasons(into)) == (None, ["unknown_notice"])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"event":"error","code":"60012","msg":"Invalid request","connId":"a"}', "rejected"),
        ('{"event":"error","id":"1","code":"60012","msg":"no","connId":"a"}', "rejected"),
        ('{"event":"error","id":["1"],"code":"60012"}', "rejected"),
        ('{"event":"login","code":"0"}', "unknown_event"),
        ('{"event":["subscribe"]}', "unknown_event"),
        ('{"event":"subscribe","arg":{"channel":"tickers","instId":"BTC-USDT"}}', "unknown_channel"),
        ('{"event":"subscribe"}', "unknown_channel"),
        ('{"event":"subscribe","arg":{"channel":"trades-all","instId":"X-Y"}}', "unknown_symbol"),
        ('{"event":"subscribe","arg":{"channel":"trades-all"}}', "missing_field"),
        ('{"arg":{"channel":"trades","instId":"BTC-USDT"},"data":[{}]}', "unknown_channel"),
        ('{"data":[{}]}', "unknown_channel"),
        ('{"arg":{"channel":"trades-all"},"data":{}}', "unexpected_json"),
        ("{}", "unknown_message"),
        ("[]", "unexpected_json"),
        ("ping", "malformed_json"),
        ("", "malformed_json"),
        ("[" * 100_000, "unexpected_json"),
        ('{"data":' * 100_000, "unexpected_json"),
        ("\ud800", "malformed_json"),
    ],
)
def test_a_message_that_is_no_trade_and_no_answer_is_counted(text: str, reason: str) -> None:
    """Under a name of its own. An answer to an unsubscription refuses nothing."""
    speaker = codec()
    speaker.unsubscribe([NAME])
    into = decode(speaker, text)
    assert into == Received(problems=into.problems)
    assert reasons(into) == [reason]


def test_a_binary_message_is_a_problem() -> None:
    """OKX speaks text."""
    assert reasons(decode(codec(), message().encode())) == ["not_text"]


WRONG: list[tuple[str, Any, str]] = [
    ("instId", None, "missing_field"),
    ("instId", "DOGE-USDT", "unknown_symbol"),
    ("instId", [NAME], "unknown_symbol"),
    ("tradeId", None, "missing_field"),
    ("tradeId", "", "bad_trade_id"),
    ("tradeId", "-1", "bad_trade_id"),
    ("tradeId", "007", "bad_trade_id"),
    ("tradeId", 1.0, "bad_trade_id"),
    ("tradeId", str(2**53 + 1), "bad_trade_id"),
    ("px", None, "missing_field"),
    ("px", "0", "bad_price"),
    ("px", "NaN", "bad_price"),
    ("px", 42219.9, "bad_price"),
    ("sz", None, "missing_field"),
    ("sz", "-1", "bad_quantity"),
    ("side", None, "missing_field"),
    ("side", "Buy", "bad_side"),
    ("side", ["buy"], "bad_side"),
    ("ts", None, "missing_field"),
    ("ts", "0", "bad_timestamp"),
    ("ts", "1630048897.897", "bad_timestamp"),
    ("ts", str(2**53), "bad_timestamp"),
]


@pytest.mark.parametrize(("field", "value", "reason"), WRONG)
def test_nothing_is_guessed(field: str, value: Any, reason: str) -> None:
    """A field that is missing or wrong makes a problem under its name, and no trade."""
    into = decode(codec(), message({field: value}))
    assert (into.items, reasons(into)) == ([], [reason])


@pytest.mark.parametrize(
    ("value", "reason"), [(None, "missing_field"), ("0", "bad_count"), ("99999999999", "bad_count")]
)
def test_the_size_of_an_aggregate_is_not_guessed(value: Any, reason: str) -> None:
    """Without it nobody can tell whether it follows."""
    into = decode(codec(url=PUBLIC), message({"count": value}, channel="trades"))
    assert (into.items, reasons(into)) == ([], [reason])


@given(st.lists(st.binary(max_size=200) | st.text(max_size=200), max_size=5))
def test_any_bytes_make_problems_only(messages: list[str | bytes]) -> None:
    """Fuzz: never an exception, never a trade."""
    into = decode(codec(), *messages)
    assert into == Received(problems=into.problems)


@given(st.sampled_from([*ONE, "count"]), json_values, st.sampled_from([BUSINESS, PUBLIC]))
def test_a_field_of_any_value_is_taken_as_it_is_or_is_a_problem(field: str, value: Any, url: str) -> None:
    """Fuzz of one field of a real message: the other fields are untouched."""
    channel = "trades-all" if url == BUSINESS else "trades"
    into = decode(codec(url=url), message({"count": "1", field: value}, channel=channel))
    assert len(into.items) + len(into.problems) == 1
    for item in trades(into):
        assert item.price == (Decimal(value) if field == "px" else TRADE.price)
        assert item.side == (value if field == "side" else "buy")


@given(json_values, json_values, json_values)
def test_answers_of_any_content_never_raise(about: Any, number: Any, words: Any) -> None:
    """Fuzz of what is around trades."""
    speaker = codec()
    speaker.subscribe([NAME])
    for event in ("subscribe", "unsubscribe", "error", "notice", None):
        text = json.dumps({"event": event, "arg": about, "id": number, "code": number, "msg": words})
        decode(speaker, text)


TEXT = message()


@given(st.integers(0, len(TEXT) - 1), st.integers(0, len(TEXT)), st.text(max_size=3))
def test_a_damaged_message_never_raises(start: int, end: int, inserted: str) -> None:
    """Fuzz: a part is cut out or replaced; a trade that is left is complete."""
    for item in trades(decode(codec(), TEXT[:start] + inserted + TEXT[end:])):
        assert item.symbol == NAME
        assert item.price > 0


numbers = st.decimals("0.000001", "99999999", allow_nan=False, places=6).map(lambda value: f"{value:f}")


@given(
    st.integers(1, 2**50),
    st.sampled_from([NAME, "ETH-USDT-SWAP"]),
    st.sampled_from(["buy", "sell"]),
    numbers,
    numbers,
    st.integers(1, 50),
)
def test_what_was_said_is_what_is_read(
    number: int, name: str, side: Any, price: str, qty: str, size: int
) -> None:
    """Every field, on both channels, as another implementation writes it."""
    trade = Published(
        number + size, name, side, price, qty, 1_700_000_000_123_000, aggregate=(number + 1, number + size)
    )
    symbol = name.replace("-SWAP", "-PERP")
    expected = (symbol, str(number + size), side, price, qty, trade.timestamp_us)
    for url, write in ((BUSINESS, every_trade), (PUBLIC, aggregate)):
        into = decode(codec(url=url), write(trade))
        assert [told(each) for each in trades(into)] == [expected]
        assert into.problems == []


# -- refill -------------------------------------------------------------------------------------------

REST = okx_dialect(symbols=[NAME, "ETH-USDT-SWAP"]).rest
assert REST is not None
TAPE = tape_of({NAME: [published(number) for number in range(1, 1001)]})


@pytest.mark.parametrize(
    ("first", "last", "pages"),
    [(5, 5, 1), (5, 102, 1), (5, 103, 2), (990, 1000, 1), (1, 1000, 10), (2, 2, 1)],
)
def test_missing_trades_are_asked_for_exactly(first: int, last: int, pages: int) -> None:
    """All of them, with those around them, and no other, in as few questions as there are pages of 100."""
    assert REST is not None
    found, questions = refill(Filler("ok", settings()), missing(first, last), REST, TAPE)
    assert [trade.sequence for trade in found] == list(range(max(first - 1, 1), min(last + 1, 1000) + 1))
    assert questions == pages


def test_an_answer_is_read_from_its_end() -> None:
    """OKX gives the newest trade first; a page is oldest first."""
    assert REST is not None
    filler, about = Filler("ok", settings()), missing(6, 8)
    request = filler.fill(about)
    assert request == Request("/api/v5/market/history-trades?instId=BTC-USDT&type=1&after=10&limit=5")
    page = filler.filled(about, request, asked(REST, request.path, TAPE))
    assert [trade.sequence for trade in page.trades] == [5, 6, 7, 8, 9]
    assert page.following is None


def test_skipped_ids_bring_nothing_that_was_not_asked_for() -> None:
    """A page is so many trades. If some ids do not exist, it goes on to older ones: they are left out."""
    assert REST is not None
    tape = tape_of({NAME: [published(number) for number in range(1, 1001) if number % 7]})
    found, _ = refill(Filler("ok", settings()), missing(300, 500), REST, tape)
    assert [trade.sequence for trade in found] == [number for number in range(299, 502) if number % 7]


def test_trades_up_to_now_are_asked_for() -> None:
    """Nothing came since, so nobody knows the last one."""
    assert REST is not None
    found, questions = refill(Filler("ok", settings()), missing(751, None), REST, TAPE)
    assert [trade.sequence for trade in found] == list(range(750, 1001))
    assert questions == 3


def test_without_a_beginning_the_newest_trades_are_asked_for() -> None:
    """One page."""
    assert REST is not None
    found, questions = refill(Filler("ok", settings()), missing(None, None), REST, TAPE)
    assert [trade.sequence for trade in found] == list(range(901, 1001))
    assert questions == 1


def test_aggregates_are_not_refilled() -> None:
    """Single trades would count twice beside them."""
    assert Filler("ok", settings(url=PUBLIC)).fill(missing(1, 2)) is None


def test_the_newest_trade_is_told() -> None:
    """Of the first symbol, under our name."""
    assert REST is not None
    filler, tape = Filler("ok", settings()), tape_of({"ETH-USDT-SWAP": [published(8, "ETH-USDT-SWAP")]})
    request = filler.latest(["ETH-USDT-PERP", NAME])
    assert request == Request("/api/v5/market/trades?instId=ETH-USDT-SWAP&limit=1")
    answer = asked(REST, request.path, tape)
    newest = {"ETH-USDT-PERP": Newest(8, "8", 1_700_000_000_008_000_000)}
    assert filler.newest(["ETH-USDT-PERP", NAME], answer) == newest
    assert filler.newest([NAME], b'{"code":"0","msg":"","data":[]}') == {}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "malformed_json"),
        (b"\xff", "malformed_json"),
        (b"<html>", "malformed_json"),
        (b"[]", "unexpected_json"),
        (b"{}", "missing_field"),
        (b'{"code":"0"}', "missing_field"),
        (b'{"code":"51001","data":[],"msg":"Instrument ID does not exist"}', "refused"),
        (b'{"code":["0"],"data":[]}', "refused"),
        (b'{"code":"50011","data":[],"msg":"Too Many Requests"}', RATE_LIMITED),
        (b'{"code":"0","data":[{"instId":"DOGE-USDT"}]}', "unknown_symbol"),
        (b'{"code":"0","data":[{"instId":"BTC-USDT","tradeId":"1"}]}', "missing_field"),
    ],
)
def test_an_answer_that_cannot_be_used_has_a_name(body: bytes, reason: str) -> None:
    """Whatever it is. None of it is taken."""
    filler, about = Filler("ok", settings()), missing(1, 2)
    for read in (lambda: filler.filled(about, Request("/"), body), lambda: filler.newest([NAME], body)):
        with pytest.raises(Unusable) as caught:
            read()
        assert caught.value.reason == reason


@given(
    st.binary(max_size=300) | json_values.map(lambda value: json.dumps({"code": "0", "data": value}).encode())
)
def test_any_answer_is_read_or_named(body: bytes) -> None:
    """Fuzz: trades, or Unusable."""
    with suppress(Unusable):
        assert not Filler("ok", settings()).filled(missing(1, 2), Request("/"), body).trades


# -- settings -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["wss://ws.okx.com", "wss://ws.okx.com/ws/v5/private", "wss://ws.okx.com/business/"]
)
def test_the_address_has_a_channel(url: str) -> None:
    """The error tells both."""
    with pytest.raises(ValueError, match=r"/ws/v5/business .* or /ws/v5/public"):
        settings(url=url)


def test_symbols_that_cannot_be_told_apart_are_refused() -> None:
    """The way back would be a guess."""
    with pytest.raises(ValueError, match="same name there, A-B"):
        settings(symbols=("A-B", "C-D"), names={"C-D": "A-B"})


@pytest.mark.parametrize("url", ["ws://[x", "x", ""])
def test_an_address_that_is_none_is_not_judged(url: str) -> None:
    """The check of the configuration tells it, and once is enough."""
    assert settings(symbols=(), url=url).url == url
