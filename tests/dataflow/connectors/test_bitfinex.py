"""Promises of dataflow.connectors.bitfinex."""

from __future__ import annotations

import json
from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.connector import Received, Refused, Subscribed, Unsubscribed
from dataflow.connectors import bitfinex
from dataflow.connectors.bitfinex import Codec, Filler, Settings
from dataflow.domain import Missed, Missing, Trade
from dataflow.sources.port import RATE_LIMITED, Newest, Request
from dataflow.sources.reading import Unusable
from simulators import Trade as Published
from simulators.exchanges.bitfinex import BitfinexSession, bitfinex_dialect, number, row
from tests.dataflow.connectors.talk import (
    asked,
    decode,
    json_values,
    reasons,
    refill,
    sent,
    tape_of,
    trades,
)

ROW = "[401597393,1574694475039,0.0050,7244.90]"
TRADE = Trade(
    source="bf",
    symbol="BTC-USD",
    trade_id="401597393",
    side="buy",
    price=Decimal("7244.90"),
    quantity=Decimal("0.0050"),
    timestamp=1_574_694_475_039_000_000,
)
MARK = Missed("bf", "BTC-USD", "source_gap")
OTHER = Missed("bf", "ETH-USDT", "source_gap")
CONF = '{"event":"conf","status":"OK","flags":65536}'
SYMBOLS = ("BTC-USD", "ETH-USDT")
NAMES = {"BTC-USD": "tBTCUSD", "ETH-USDT": "tETHUST"}


def settings(symbols: tuple[str, ...] = SYMBOLS, **more: Any) -> Settings:
    return Settings(connector="bitfinex", url="wss://api-pub.bitfinex.com/ws/2", symbols=symbols, **more)


def codec(**more: Any) -> Codec:
    return Codec("bf", settings(**more))


def subscribed(channel: int = 7, name: str = "tBTCUSD") -> str:
    return json.dumps(
        {"event": "subscribed", "channel": "trades", "chanId": channel, "symbol": name, "pair": name[1:]}
    )


def numbered() -> Codec:
    """A conversation with channels 7 and 8, whose next number is 3."""
    speaker = codec()
    decode(speaker, CONF, subscribed(), subscribed(8, "tETHUST"), '[7,"hb",1]', '[8,"hb",2]')
    return speaker


def published(identifier: int, side: Any = "buy", price: str = "1.5", qty: str = "2") -> Published:
    return Published(identifier, "tBTCUSD", side, price, qty, 1_700_000_000_000_000 + 1000 * identifier)


def test_a_trade_is_read_exactly() -> None:
    """With the very digits that were sent. It has no sequence: its id belongs to the whole exchange."""
    into = decode(numbered(), f'[7,"te",{ROW},3]')
    assert into == Received(items=[TRADE])
    assert (str(trades(into)[0].price), str(trades(into)[0].quantity)) == ("7244.90", "0.0050")


@pytest.mark.parametrize(
    ("written", "price", "quantity", "side"),
    [
        ("[1,1574694475039,-0.5,30205]", "30205", "0.5", "sell"),
        ("[1,1574694475039,2,1.5e-7]", "1.5E-7", "2", "buy"),
        ("[1,1574694475039,-1e2,12345678901234567890.5,null]", "12345678901234567890.5", "1E+2", "sell"),
    ],
)
def test_numbers_are_those_of_json(written: str, price: str, quantity: str, side: str) -> None:
    """Whole, with an exponent, long; what is appended to a trade does not matter. Less than zero is sold."""
    (trade,) = trades(decode(numbered(), f'[7,"te",{written},3]'))
    assert (str(trade.price), str(trade.quantity), trade.side) == (price, quantity, side)


def test_a_trade_that_comes_twice_is_read_once() -> None:
    """`te` comes first; `tu` is the same trade again."""
    assert decode(numbered(), f'[7,"te",{ROW},3]', f'[7,"tu",{ROW},4]').items == [TRADE]


def test_a_snapshot_is_read_from_its_end() -> None:
    """It has the newest trade first. What cannot be read leaves a mark in its place."""
    snapshot = f'[7,[[3,1574694475041,1,1],["2",1574694475040,1,1],{ROW}],3]'
    into = decode(numbered(), snapshot)
    assert [item.trade_id if isinstance(item, Trade) else item for item in into.items] == [
        "401597393",
        MARK,
        "3",
    ]
    assert reasons(into) == ["bad_trade_id"]


def test_a_skipped_number_is_a_loss() -> None:
    """Of any symbol, so the connection is given up. Nothing more is read from it: it may be out of order."""
    into = decode(numbered(), f'[7,"te",{ROW},3]', f'[7,"te",{ROW},5]', f'[7,"te",{ROW},4]', subscribed(9))
    assert into == Received(items=[TRADE], lost="message 5 where 4 was due")


@pytest.mark.parametrize("text", ['[7,"hb",2]', '[7,"hb",1]'])
def test_a_number_that_comes_again_is_a_loss(text: str) -> None:
    """Nobody knows what else is wrong."""
    assert decode(numbered(), text).lost == f"message {text[-2]} where 3 was due"


def test_an_unreadable_message_may_have_had_a_number() -> None:
    """Or not. As many may be skipped as there were such messages: all is marked, but the connection stays."""
    had, had_none = decode(numbered(), "x", '[7,"hb",4]'), decode(numbered(), "x", '[7,"hb",3]')
    assert (had.items, had.lost) == ([MARK, OTHER], None)
    assert (had_none.items, had_none.lost) == ([], None)
    assert decode(numbered(), "x", '[7,"hb",5]').lost == "message 5 where 3 was due"


def test_without_numbers_nothing_is_counted() -> None:
    """An upstream that has none says so; its trades are read, and that is told."""
    speaker = codec()
    into = decode(speaker, '{"event":"conf","status":"FAILED"}', subscribed(), f'[7,"te",{ROW}]', '[7,"hb"]')
    assert (into.items, into.lost, reasons(into)) == ([TRADE], None, ["not_numbered"])


def test_requests_are_written_as_bitfinex_expects() -> None:
    """Numbers are asked for at the opening, and each symbol by itself; unsubscribed is by channel."""
    speaker = codec()
    assert list(speaker.headers()) == []
    assert sent(speaker.opening()) == [{"event": "conf", "flags": 65536}]
    assert sent(speaker.probe()) == [{"event": "ping"}]
    assert sent(speaker.subscribe(SYMBOLS)) == [
        {"event": "subscribe", "channel": "trades", "symbol": name} for name in NAMES.values()
    ]
    assert list(speaker.unsubscribe(["BTC-USD"])) == []
    assert sent(numbered().unsubscribe(["ETH-USDT"])) == [{"event": "unsubscribe", "chanId": 8}]


def test_a_subscription_leaves_a_mark() -> None:
    """The snapshot may take it back."""
    assert codec().missed("BTC-USD") == Missed("bf", "BTC-USD", "source_gap", resubscribed=True)


def test_answers_are_reported() -> None:
    """Each names its symbol or its channel. After the end of a channel its messages mean nothing."""
    speaker = codec()
    refusal = '{"channel":"trades","symbol":"tETHUST","event":"error","msg":"symbol: invalid","code":10300}'
    end = '{"event":"unsubscribed","status":"OK","chanId":7}'
    into = decode(speaker, subscribed(), f'[7,"te",{ROW}]', refusal, end, f'[7,"te",{ROW}]', end)
    assert into.answers == [
        (0, Subscribed("BTC-USD")),
        (1, Refused(("ETH-USDT",), "symbol: invalid")),
        (1, Unsubscribed("BTC-USD")),
    ]
    assert reasons(into) == ["unknown_channel", "unknown_channel"]


def test_what_is_subscribed_already_is_subscribed() -> None:
    """If its channel is known; else it is refused like any other."""
    again = '{"channel":"trades","symbol":"tBTCUSD","event":"error","msg":"subscribe: dup","code":10301}'
    assert decode(numbered(), again).answers == [(0, Subscribed("BTC-USD"))]
    assert decode(codec(), again).answers == [(0, Refused(("BTC-USD",), "subscribe: dup"))]


def test_a_restart_is_announced() -> None:
    """Then the next connection is made at once; after a maintenance too, as Bitfinex advises."""
    said = decode(codec(), '{"event":"info","code":20051,"msg":"Stopping. Please try to reconnect"}')
    assert said == Received(leaving="Stopping. Please try to reconnect")
    assert decode(codec(), '{"event":"info","code":20061,"msg":""}').leaving is not None
    assert "(20051)" in (decode(codec(), '{"event":"info","code":20051}').leaving or "")


def test_a_greeting_is_nothing_new() -> None:
    """With the platform at work. Pongs and confirmations are signs of life and nothing else."""
    greeting = '{"event":"info","version":2,"serverId":"5d","platform":{"status":1}}'
    assert (
        decode(codec(), greeting, CONF, '{"event":"pong","ts":1,"cid":2}', '{"event":"info"}') == Received()
    )


def test_another_version_is_another_language() -> None:
    """Nothing that follows can be understood."""
    into = decode(codec(), '{"event":"info","version":3,"platform":{"status":1}}')
    assert into.lost == "the upstream speaks version '3' of its language, not 2"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"event":"info","version":2,"platform":{"status":0}}', "maintenance"),
        ('{"event":"info","code":20060,"msg":"maintenance"}', "maintenance"),
        ('{"event":"info","code":1}', "unknown_message"),
        ('{"event":"auth"}', "unknown_event"),
        ('{"event":["info"]}', "unknown_event"),
        ("{}", "unknown_message"),
        ('{"event":"error","msg":"unsubscribe: invalid","code":10400}', "rejected"),
        ('{"event":"error","symbol":"tDOGE:USD","code":10300}', "unknown_symbol"),
        ('{"event":"subscribed","channel":"ticker","chanId":9,"symbol":"tBTCUSD"}', "unknown_channel"),
        ('{"event":"subscribed","channel":"trades","chanId":9,"symbol":"tDOGE:USD"}', "unknown_symbol"),
        ('{"event":"subscribed","channel":"trades","chanId":"9","symbol":"tBTCUSD"}', "unknown_channel"),
        ('{"event":"unsubscribed","chanId":[9]}', "unknown_channel"),
        ("[]", "missing_field"),
        ("[7]", "missing_field"),
        ('[7,"te",[1,2,3,4]]', "missing_field"),
        ('[7,"te",[1,2,3,4],"3"]', "bad_sequence"),
        ('[9,"hb",3]', "unknown_channel"),
        ('["7","hb",3]', "unknown_channel"),
        ('[7,"fte",[],3]', "unknown_message"),
        ("[7,null,[],3]", "unknown_message"),
        ('"x"', "unexpected_json"),
        ("", "malformed_json"),
        ("[" * 100_000, "malformed_json"),
        ("\ud800", "malformed_json"),
    ],
)
def test_a_message_that_is_no_trade_and_no_answer_is_counted(text: str, reason: str) -> None:
    """Under a name of its own."""
    into = decode(numbered(), text)
    assert into == Received(problems=into.problems)
    assert reasons(into) == [reason]


def test_a_binary_message_is_a_problem() -> None:
    """Bitfinex speaks text."""
    assert reasons(decode(codec(), b"[]")) == ["not_text"]


WRONG: list[tuple[int, str, str]] = [
    (0, "null", "missing_field"),
    (0, '"1"', "bad_trade_id"),
    (0, "1.0", "bad_trade_id"),
    (0, "-1", "bad_trade_id"),
    (0, str(2**53 + 1), "bad_trade_id"),
    (1, "null", "missing_field"),
    (1, "0", "bad_timestamp"),
    (1, "1574694475039.0", "bad_timestamp"),
    (1, '"1574694475039"', "bad_timestamp"),
    (2, "null", "missing_field"),
    (2, "0", "bad_quantity"),
    (2, "-0.0", "bad_quantity"),
    (2, '"1"', "bad_quantity"),
    (2, "true", "bad_quantity"),
    (2, "1" * 41, "bad_quantity"),
    (3, "null", "missing_field"),
    (3, "-1.5", "bad_price"),
    (3, "0.0", "bad_price"),
    (3, "1e400", "bad_price"),
    (3, '"7244.9"', "bad_price"),
    (3, "[]", "bad_price"),
]


@pytest.mark.parametrize(("place", "value", "reason"), WRONG)
def test_nothing_is_guessed(place: int, value: str, reason: str) -> None:
    """A field that is missing or wrong makes a problem under its name, and a mark instead of the trade."""
    fields = ROW[1:-1].split(",")
    fields[place] = value
    into = decode(numbered(), f'[7,"te",[{",".join(fields)}],3]')
    assert (into.items, reasons(into)) == ([MARK], [reason])


@pytest.mark.parametrize(
    ("said", "reason"), [("[1,2]", "missing_field"), ("7", "unexpected_json"), ("{}", "unexpected_json")]
)
def test_a_trade_is_a_list_of_four(said: str, reason: str) -> None:
    """Anything else is none."""
    into = decode(numbered(), f'[7,"te",{said},3]')
    assert (into.items, reasons(into)) == ([MARK], [reason])


@given(st.lists(st.binary(max_size=200) | st.text(max_size=200), max_size=5))
def test_any_bytes_make_problems_only(messages: list[str | bytes]) -> None:
    """Fuzz: never an exception, never a trade."""
    assert not trades(decode(numbered(), *messages))


@given(json_values, json_values, json_values)
def test_answers_of_any_content_never_raise(one: Any, two: Any, three: Any) -> None:
    """Fuzz of what is around trades."""
    for event in ("subscribed", "unsubscribed", "error", "info", "conf", "pong", one):
        about = {"event": event, "symbol": one, "chanId": two, "code": three, "version": two, "platform": one}
        decode(numbered(), json.dumps({**about, "channel": "trades", "status": two, "msg": one}))
    decode(numbered(), json.dumps([one, two, three]), json.dumps([7, one, two, three]))


TEXT = f'[7,"te",{ROW},3]'


@given(st.integers(0, len(TEXT) - 1), st.integers(0, len(TEXT)), st.text(max_size=3))
def test_a_damaged_message_never_raises(start: int, end: int, inserted: str) -> None:
    """Fuzz: a part is cut out or replaced; a trade that is left is complete."""
    for item in trades(decode(numbered(), TEXT[:start] + inserted + TEXT[end:])):
        assert item.symbol in SYMBOLS
        assert item.price > 0


numbers = st.decimals("0.00000001", "99999999", allow_nan=False, places=8).map(lambda value: f"{value:f}")
sales = st.tuples(st.sampled_from(["buy", "sell"]), numbers, numbers)


@given(st.lists(sales, max_size=5), st.lists(sales, max_size=5))
def test_what_was_said_is_what_is_read(before: list[Any], after: list[Any]) -> None:
    """A whole conversation as another implementation has it: greeting, numbers, snapshot, trades, heartbeat."""
    speaker, session = codec(), BitfinexSession(frozenset(NAMES.values()), lambda symbol: False)
    told = [published(at, *sale) for at, sale in enumerate([*before, *after], start=1)]
    texts = [text for request in speaker.opening() for text in session.receive(request)]
    texts += [text for request in speaker.subscribe(["BTC-USD"]) for text in session.receive(request)]
    texts += session.snapshot("tBTCUSD", told[: len(before)])
    for each in told[len(before) :]:
        texts += [*session.encode(each), *session.beat(0)]
    into = decode(speaker, *texts)
    assert (into.problems, into.lost, into.answers) == ([], None, [(0, Subscribed("BTC-USD"))])
    assert [(t.trade_id, t.side, t.price, t.quantity, t.timestamp) for t in trades(into)] == [
        (str(t.id), t.side, Decimal(t.price), Decimal(t.qty), t.timestamp_us * 1000) for t in told
    ]
    assert len(into.items) == len(told)


@given(numbers)
def test_the_simulator_writes_numbers_as_javascript(text: str) -> None:
    """The same number, without an end of zeros, as JSON."""
    assert Decimal(number(text)) == Decimal(text)
    assert json.loads(number(text)) == float(text)
    assert not ("." in number(text) and number(text).endswith("0"))


# -- refill -------------------------------------------------------------------------------------------

REST = bitfinex_dialect(symbols=["tBTCUSD"]).rest
assert REST is not None
PUBLISHED = [published(7 * at) for at in range(1, 101)]
TAPE = tape_of({"tBTCUSD": PUBLISHED})


def missing(after: int | None, before: int | None) -> Missing:
    ends = [None if at is None else as_trade(PUBLISHED[at]) for at in (after, before)]
    return Missing("bf", "BTC-USD", *ends)


def as_trade(each: Published) -> Trade:
    (found,) = trades(decode(numbered(), f'[7,"te",{row(each)},3]'))
    return found


def found(about: Missing) -> tuple[list[int], int]:
    assert REST is not None
    got, questions = refill(Filler("bf", settings()), about, REST, TAPE)
    return [int(trade.trade_id or 0) // 7 - 1 for trade in got], questions


def test_missing_trades_are_asked_for_by_time() -> None:
    """With the two that were received: that they are there proves that all are."""
    assert found(missing(10, 20)) == (list(range(10, 21)), 1)
    assert found(missing(90, None)) == (list(range(90, 100)), 1)


def test_a_long_answer_goes_on_in_its_last_millisecond(monkeypatch: pytest.MonkeyPatch) -> None:
    """There may be more trades in it. One that has no end makes no question for ever."""
    monkeypatch.setattr(bitfinex, "_PAGE", 4)
    assert found(missing(10, 20)) == (list(range(10, 21)), 4)
    same = tape_of(
        {"tBTCUSD": [Published(at, "tBTCUSD", "buy", "1", "1", 1_700_000_000_007_000) for at in range(1, 9)]}
    )
    assert REST is not None
    assert refill(Filler("bf", settings()), missing(0, None), REST, same)[1] == 1


def test_without_a_beginning_the_newest_trades_are_asked_for() -> None:
    """One answer, oldest first."""
    filler, about = Filler("bf", settings()), missing(None, 3)
    request = filler.fill(about)
    assert request is not None
    assert REST is not None
    page = filler.filled(about, request, asked(REST, request.path, TAPE))
    assert [int(trade.trade_id or 0) // 7 - 1 for trade in page.trades] == [0, 1, 2, 3]
    assert page.following is None


def test_the_newest_trade_is_told() -> None:
    """Of the first symbol, under our name."""
    assert REST is not None
    filler = Filler("bf", settings())
    request = filler.latest(["BTC-USD", "ETH-USDT"])
    assert request == Request("/v2/trades/tBTCUSD/hist?limit=1")
    newest = Newest(trade_id="700", timestamp=PUBLISHED[-1].timestamp_us * 1000)
    assert filler.newest(["BTC-USD"], asked(REST, request.path, TAPE)) == {"BTC-USD": newest}
    assert filler.newest(["BTC-USD"], b"[]") == {}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "malformed_json"),
        (b"\xff", "malformed_json"),
        (b"7", "unexpected_json"),
        (b"[7]", "unexpected_json"),
        (b"[[1,2]]", "missing_field"),
        (b'["error",10020,"limit: invalid"]', "refused"),
        (b'["error"]', "refused"),
        (b"{}", "refused"),
        (b'["error",11010,"ratelimit: error"]', RATE_LIMITED),
        (b'{"error":"ERR_RATE_LIMIT"}', RATE_LIMITED),
        (b'[[1,1574694475039,1,"x"]]', "bad_price"),
    ],
)
def test_an_answer_that_cannot_be_used_has_a_name(body: bytes, reason: str) -> None:
    """Whatever it is. None of it is taken."""
    filler = Filler("bf", settings())
    for read in (
        lambda: filler.filled(missing(1, 2), Request("/"), body),
        lambda: filler.newest(["BTC-USD"], body),
    ):
        with pytest.raises(Unusable) as caught:
            read()
        assert caught.value.reason == reason


@given(st.binary(max_size=300) | json_values.map(lambda value: json.dumps([value]).encode()))
def test_any_answer_is_read_or_named(body: bytes) -> None:
    """Fuzz: trades, or Unusable."""
    with suppress(Unusable):
        assert not Filler("bf", settings()).filled(missing(1, 2), Request("/"), body).trades


# -- settings -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("symbol", "name"),
    [
        ("BTC-USD", "tBTCUSD"),
        ("BTC-USDT", "tBTCUST"),
        ("DOGE-USD", "tDOGE:USD"),
        ("DOGE-USDT", "tDOGE:UST"),
        ("USDC-USD", "tUDCUSD"),
        ("BTC-USDT-PERP", "tBTCF0:USTF0"),
        ("BTC-USDT-251226", "tBTC-USDT-251226"),  # no such thing there, and nothing else either
        ("IOTA-USD", "tIOTUSD"),
    ],
)
def test_names(symbol: str, name: str) -> None:
    """As Bitfinex writes them; `names` go first."""
    assert settings(names={"IOTA-USD": "tIOTUSD"}).exchange_name(symbol) == name


def test_symbols_that_cannot_be_told_apart_are_refused() -> None:
    """The way back would be a guess."""
    with pytest.raises(ValueError, match="same name there, tBTCUST"):
        settings(symbols=("BTC-USDT", "BTC-UST"))
