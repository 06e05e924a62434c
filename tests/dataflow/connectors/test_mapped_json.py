"""Any JSON by configuration: what a mapping says is read, and nothing else is believed."""

from __future__ import annotations

import gzip
import json
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.connector import Received, Refused, Subscribed, Unsubscribed
from dataflow.connectors import binance, bitstamp, kraken
from dataflow.connectors.mapped_json import OPEN, Codec, Filler
from dataflow.domain import Item, Missed, Missing, Trade
from dataflow.domain.errors import ConfigError
from dataflow.sources.reading import Unusable

from .mappings import BINANCE, BITSTAMP, COINBASE, KRAKEN, acme, settings
from .test_bitstamp import RECORDED as BITSTAMPS
from .test_kraken import RECORDED as KRAKENS
from .test_readme import RECORDED, block, messages

SIMULATED = Path(__file__).parents[3] / "simulators" / "data"
DEAL = {"n": 7, "taker": "B", "px": "61000.10", "qty": 0.5, "ts": 1723161274123}
PAIR = ("BTC-USDT", "ETH-USDT")


def heard(codec: Any, *said: Any) -> Received[Item]:
    """What the codec makes of messages."""
    into: Received[Item] = Received()
    for message in said:
        codec.decode(message if isinstance(message, str | bytes) else json.dumps(message), into)
    return into


def trades(*deals: dict[str, Any], market: str = "BTC/USD") -> dict[str, Any]:
    return {"op": "trades", "market": market, "data": list(deals)}


def answers(into: Received[Item]) -> list[Any]:
    return [answer for _, answer in into.answers]


@pytest.fixture
def codec() -> Codec:
    return Codec("acme", settings(acme()))


# -- what real exchanges send -------------------------------------------------------------------------


def test_a_mapping_of_coinbase_reads_what_a_connector_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recorded session gives the same trades and answers as the connector of the README, in order."""
    (tmp_path / "written_coinbase.py").write_text(block("python", "Coinbase Exchange"))
    monkeypatch.syspath_prepend(str(tmp_path))
    import written_coinbase  # type: ignore[import-not-found]

    try:
        written = written_coinbase.Settings(connector="x", url="wss://x", symbols=RECORDED)
        by_hand = heard(written_coinbase.Codec("coinbase", written), *messages())
    finally:
        del sys.modules["written_coinbase"]
    mapped = heard(Codec("coinbase", settings(COINBASE, RECORDED)), *messages())
    assert len(mapped.items) == 107
    assert (mapped.items, mapped.answers, mapped.problems) == (by_hand.items, by_hand.answers, [])


@pytest.mark.parametrize("name", ["btcusdt", "ethusdt"])
def test_a_mapping_of_binance_reads_what_the_connector_reads(name: str) -> None:
    """Six recorded minutes of trades, each equal in every field."""
    with gzip.open(SIMULATED / f"binance_{name}_trades_20240808.jsonl.gz", "rt") as file:
        recorded = [json.loads(line)["msg"] for line in file]
    by_hand = binance.Codec("binance", binance.Settings(connector="binance", url="wss://x", symbols=PAIR))
    mapped = heard(Codec("binance", settings(BINANCE, PAIR)), *recorded)
    assert len(mapped.items) > 6000
    assert (mapped.items, mapped.problems) == (heard(by_hand, *recorded).items, [])


def test_a_mapping_of_bitstamp_reads_what_the_connector_reads(traffic: Any) -> None:
    """The names of the symbols are a part of the channels' names. A recorded session, the answers too."""
    written, symbols = bitstamp.Settings(connector="x", url="ws://x", symbols=BITSTAMPS), BITSTAMPS
    by_hand, mapped = bitstamp.Codec("bitstamp", written), Codec("bitstamp", settings(BITSTAMP, symbols))
    assert list(map(json.loads, mapped.subscribe(symbols))) == list(
        map(json.loads, by_hand.subscribe(symbols))
    )
    # The recorder had asked for books as well.
    recorded = [each for each in traffic.excerpt("bitstamp_trades_20220105.jsonl") if "_book_" not in each]
    said, expected = heard(mapped, *recorded), heard(by_hand, *recorded)
    assert len([item for item in said.items if isinstance(item, Trade)]) == 10
    assert (said.items, said.answers, said.problems) == (expected.items, expected.answers, [])


def test_what_cannot_be_read_is_marked_where_nothing_else_shows_it(traffic: Any) -> None:
    """The connector of Bitstamp marks the same: its ids prove nothing. Of the symbol, or of all."""
    written = bitstamp.Settings(connector="x", url="ws://x", symbols=BITSTAMPS)
    mapped, by_hand = Codec("bitstamp", settings(BITSTAMP, BITSTAMPS)), bitstamp.Codec("bitstamp", written)
    for codec in (mapped, by_hand):
        codec.subscribe(BITSTAMPS)
    channel, other = (f"live_trades_{written.exchange_name(symbol)}" for symbol in BITSTAMPS[:2])
    said = [{"event": "bts:subscription_succeeded", "channel": each, "data": {}} for each in (channel, other)]
    bad = {"event": "trade", "channel": channel, "data": {"id": 1, "type": 0}}
    for spoilt in (json.dumps(bad), json.dumps(bad | {"channel": None}), '{"event":"tra'):
        into = heard(mapped, *said, spoilt)
        assert into.items == heard(by_hand, *said, spoilt).items
        assert {each.symbol for each in into.items} == set(BITSTAMPS[: 1 if spoilt == json.dumps(bad) else 2])
        assert len(into.problems) >= 1
    unknown = bad | {"channel": "live_trades_xxxusd"}
    assert heard(mapped, {"event": "of another kind"}, unknown).items == []


def test_a_mapping_of_kraken_reads_what_the_connector_reads(traffic: Any) -> None:
    """Messages that are lists, several trades in one, times in seconds with a fraction; a recorded session."""
    written = kraken.Settings(connector="x", url="ws://x", symbols=KRAKENS, version=1)
    names = ", ".join(f'"{symbol}" = "{written.exchange_name(symbol)}"' for symbol in KRAKENS)
    mapping = KRAKEN.replace("form =", f"names = {{ {names} }}\nform =")
    by_hand, mapped = kraken.Codec("kraken", written), Codec("kraken", settings(mapping, KRAKENS))
    by_hand.subscribe(KRAKENS)
    mapped.subscribe(KRAKENS)
    recorded = traffic.excerpt("kraken_trades_20210417.jsonl")
    said, expected = heard(mapped, *recorded), heard(by_hand, *recorded)
    assert len([item for item in said.items if isinstance(item, Trade)]) == 10
    assert (said.items, said.answers, said.problems) == (expected.items, expected.answers, [])


def test_a_mapping_of_binance_talks_like_the_connector() -> None:
    """Requests, acknowledgements by number, a refusal, the answer to a probe, and an announced end."""
    mapped = Codec("binance", settings(BINANCE, PAIR))
    (request,) = mapped.subscribe(PAIR)
    assert json.loads(request) == {
        "method": "SUBSCRIBE",
        "id": 1,
        "params": ["btcusdt@trade", "ethusdt@trade"],
    }
    (other,) = mapped.unsubscribe(["ETH-USDT"])
    (probe,) = mapped.probe()
    refused = {"error": {"code": 2, "msg": "Invalid request"}, "id": 4}
    mapped.subscribe(["ETH-USDT"])
    into = heard(
        mapped,
        {"result": None, "id": 1},
        {"result": None, "id": json.loads(other)["id"]},
        {"result": ["btcusdt@trade"], "id": json.loads(probe)["id"]},
        refused,
        {"stream": "!", "data": {"e": "serverShutdown", "E": 1}},
    )
    assert answers(into) == [
        Subscribed("BTC-USDT"),
        Subscribed("ETH-USDT"),
        Unsubscribed("ETH-USDT"),
        Refused(("ETH-USDT",), "Invalid request"),
    ]
    assert into.problems == []
    assert into.leaving is not None


def test_a_mapping_of_arrays_reads_several_trades_of_one_message() -> None:
    """Kraken's messages are lists: places in them are paths. Times keep their fraction of a second."""
    mapped = Codec("kraken", settings(KRAKEN, ["XBT-USD"]))
    into = heard(
        mapped,
        {"connectionID": 1, "event": "systemStatus", "status": "online", "version": "1.8.3"},
        [
            337,
            [
                ["60000.10000", "0.00100000", "1618678132.368463", "b", "l", ""],
                ["60000.20000", "0.30000000", "1618678132.4", "s", "m", ""],
            ],
            "trade",
            "XBT/USD",
        ],
    )
    first, second = into.items
    assert isinstance(first, Trade)
    assert isinstance(second, Trade)
    assert (first.symbol, first.side, str(first.price), str(first.quantity)) == (
        *("XBT-USD", "buy"),
        *("60000.10000", "0.00100000"),
    )
    assert (first.timestamp, second.timestamp) == (1618678132368463000, 1618678132400000000)
    assert (first.trade_id, first.sequence, second.side) == (None, None, "sell")
    assert mapped.missed("XBT-USD") == Missed("kraken", "XBT-USD", "source_gap")
    assert into.problems == []


# -- trades -------------------------------------------------------------------------------------------


def test_the_example_reads_its_trades(codec: Codec) -> None:
    """Text or number, every digit is kept; what stands around a trade is found, too."""
    into = heard(codec, trades(DEAL, DEAL | {"n": "8", "taker": "S", "px": 61000.1}))
    first, second = into.items
    assert first == Trade(
        "acme", "BTC-USD", "7", "buy", Decimal("61000.10"), Decimal("0.5"), 1723161274123000000, 7
    )
    assert isinstance(second, Trade)
    assert (second.side, str(second.price), second.sequence) == ("sell", "61000.1", 8)
    assert codec.missed("BTC-USD") is None


def test_a_number_keeps_digits_that_no_float_has(codec: Codec) -> None:
    """No number becomes a float on its way."""
    text = json.dumps(trades(DEAL)).replace("0.5", "0.12345678901234567890").replace('"61000.10"', "6.10E4")
    (trade,) = heard(codec, text).items
    assert isinstance(trade, Trade)
    assert (str(trade.quantity), trade.price) == ("0.12345678901234567890", Decimal(61000))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        *(({key: None}, "missing_field") for key in DEAL),
        *(({"taker": value}, "bad_side") for value in ("b", True, 1, {}, ["B"])),
        *(({"px": value}, "bad_price") for value in ("0", "-1", "1,5", "", True, {}, [1], "1e999", 0)),
        *(({"qty": value}, "bad_quantity") for value in ("nan", "Infinity", -1, 0.0)),
        *(({"ts": value}, "bad_timestamp") for value in (0, -1, 10**18, "now", "1e9", True, {}, 2**63)),
        *(({"n": value}, "bad_trade_id") for value in ("", 1.5, True, {}, "x\n", "9" * 201)),
        *(({"n": value}, "bad_sequence") for value in ("seven", -1, 2**60)),
    ],
)
def test_a_trade_is_complete_or_a_problem(changed: dict[str, Any], reason: str, codec: Codec) -> None:
    """Each wrong or missing field has its name, and costs its own trade only."""
    into = heard(codec, trades(DEAL | changed, DEAL | {"n": 8}))
    assert [reason_ for reason_, _ in into.problems] == [reason]
    assert [item.trade_id for item in into.items if isinstance(item, Trade)] == ["8"]


@pytest.mark.parametrize("data", [None, {}, "x", [None]])
def test_a_message_without_its_trades_is_a_problem(data: Any, codec: Codec) -> None:
    """Nothing is left out in silence."""
    into = heard(codec, {"op": "trades", "market": "BTC/USD", "data": data})
    assert (into.items, [reason for reason, _ in into.problems]) == ([], ["missing_field"])


def test_another_market_is_no_symbol_of_ours(codec: Codec) -> None:
    """The name is looked up, not taken apart."""
    into = heard(codec, trades(DEAL, market="DOGE/USD"), trades(DEAL, market="btc/usd"))
    assert (into.items, [reason for reason, _ in into.problems]) == ([], ["unknown_symbol"] * 2)


def test_the_sign_of_a_quantity_can_be_the_side() -> None:
    """A sale is negative, and its size is positive; the newest of a message may stand first."""
    written = acme().replace('side = "taker"', "is_signed = true\nnewest_first = true")
    mapped = Codec("acme", settings(written.replace('sides = { B = "buy", S = "sell" }', "")))
    sold, bought = heard(mapped, trades(DEAL | {"n": 8}, DEAL | {"qty": -0.25})).items
    assert isinstance(sold, Trade)
    assert isinstance(bought, Trade)
    assert (sold.side, sold.quantity, bought.side, bought.trade_id) == ("sell", Decimal("0.25"), "buy", "8")


# -- answers ------------------------------------------------------------------------------------------


def test_an_answer_is_found_by_the_number_of_the_request(codec: Codec) -> None:
    """In any order; a number that nobody used is a problem."""
    (first,), (second,) = codec.subscribe(["BTC-USD"]), codec.subscribe(["ETH-USD"])
    assert json.loads(first) == {"id": 1, "op": "sub", "markets": ["BTC/USD"]}
    into = heard(
        codec,
        {"op": "sub", "ok": True, "id": str(json.loads(second)["id"])},
        {"op": "sub", "ok": False, "id": 1, "error": {"text": "no such market"}},
        {"op": "sub", "ok": True, "id": 1},
        {"op": "sub", "ok": False, "id": 9},
        {"op": "sub", "ok": True},
    )
    assert answers(into) == [Subscribed("ETH-USD"), Refused(("BTC-USD",), "no such market")]
    assert [reason for reason, _ in into.problems] == ["unknown_answer", "rejected", "unknown_answer"]


def test_an_answer_is_found_by_its_symbol_in_a_longer_text() -> None:
    """As Bitstamp does: the channel's name has the symbol in it."""
    written = acme().replace(
        'ok = true }, id = "id"', 'ok = true }, symbol = "channel", symbol_form = "t_{symbol:lower}"'
    )
    mapped = Codec("acme", settings(written))
    mapped.subscribe(["BTC-USD", "ETH-USD"])
    into = heard(
        mapped,
        {"op": "sub", "ok": True, "channel": "t_eth/usd"},
        {"op": "sub", "ok": True, "channel": "t_eth/usd"},
        {"op": "sub", "ok": True, "channel": "ETH/USD"},
    )
    assert answers(into) == [Subscribed("ETH-USD")]
    assert [reason for reason, _ in into.problems] == ["unknown_answer", "unknown_symbol"]


def test_an_answer_that_names_nothing_answers_the_oldest_request() -> None:
    """An upstream answers in order."""
    written = acme().replace(', id = "id"', "")
    mapped = Codec("acme", settings(written))
    mapped.subscribe(["BTC-USD"])
    mapped.unsubscribe(["BTC-USD"])
    mapped.subscribe(["ETH-USD"])
    into = heard(
        mapped, *[{"op": "sub", "ok": True}, {"op": "sub", "ok": False}, {"op": "unsub", "ok": True}] * 2
    )
    assert answers(into) == [
        Subscribed("BTC-USD"),
        Refused(("ETH-USD",), "refused without a reason"),
        Unsubscribed("BTC-USD"),
    ]
    assert [reason for reason, _ in into.problems] == ["unknown_answer", "rejected", "unknown_answer"]


def test_where_nothing_is_acknowledged_the_next_message_counts() -> None:
    """It stands before the trades of that message; a refusal is none; a probe is sent to get one."""
    written = acme().replace(
        'subscribed = { when = { op = "sub", ok = true }, id = "id" }', "assumed = true", 1
    )
    mapped = Codec("acme", settings(written))
    (one, probe) = mapped.subscribe(["BTC-USD"])
    assert (json.loads(one)["op"], json.loads(probe)) == ("sub", {"op": "ping"})
    mapped.subscribe(["ETH-USD"])
    into = heard(mapped, {"ok": False, "id": 1}, trades(DEAL, market="ETH/USD"), {"op": "pong"})
    assert into.answers == [
        (0, Refused(("BTC-USD",), "refused without a reason")),
        (0, Subscribed("ETH-USD")),
    ]
    assert len(into.items) == 1


def test_a_subscription_without_a_message_is_possible() -> None:
    """Where everything comes by itself, for instance because the address names it."""
    written = (
        acme()
        .replace("subscribe = '", "#", 1)
        .replace('subscribed = { when = { op = "sub", ok = true }, id = "id" }', "assumed = true", 1)
    )
    written = written.replace(', id = "id", reason', ", reason")
    mapped = Codec("acme", settings(written))
    assert [json.loads(each)["op"] for each in mapped.subscribe(["BTC-USD", "ETH-USD"])] == ["ping"]
    assert answers(heard(mapped, {"op": "pong"})) == [Subscribed("BTC-USD"), Subscribed("ETH-USD")]


def test_what_is_ignored_what_leaves_and_what_nobody_knows(codec: Codec) -> None:
    """Heartbeats mean nothing; an announced end is told; anything else is a problem with a name."""
    into = heard(codec, {"op": "pong"}, {"op": "bye"}, {"op": "news"}, [], 3, None, "{", b"{}", '{"op":')
    assert into.leaving == "the upstream announced its end"
    assert [reason for reason, _ in into.problems] == [
        *("unknown_message",) * 4,
        *("malformed_json", "not_text", "malformed_json"),
    ]


def test_true_is_not_one() -> None:
    """A condition compares kinds, too."""
    codec = Codec("acme", settings(acme().replace('when = { op = "trades" }', "when = { v = 1 }")))
    into = heard(codec, *(trades(DEAL) | {"v": value} for value in (1, True, "1", 1.0)))
    assert len(into.items) == 1


def test_a_template_cannot_be_broken_by_a_name() -> None:
    """What the configuration calls a symbol is data inside JSON, also with a quotation mark in it."""
    written = acme().replace("form =", 'names = { "BTC-USD" = \'B"T\\C\' }\nform =')
    mapped = Codec("acme", settings(written))
    (request,) = mapped.subscribe(["BTC-USD", "ETH-USD"])
    assert json.loads(request)["markets"] == ['B"T\\C', "ETH/USD"]


def test_the_bounds_of_the_upstream_are_those_of_the_mapping() -> None:
    """Symbols in a message and on a connection, and the header of the weight."""
    bound = BINANCE.replace("each =", "most = 3\nmost_of_connection = 7\neach =").replace(
        "weight = 25", 'weight = 25\nweight_header = "X-Used"'
    )
    made, usual = settings(bound, PAIR), settings(acme())
    assert (made.symbols_a_request, made.symbols_a_connection, made.weight_header) == (3, 7, "X-Used")
    assert (usual.symbols_a_request, usual.symbols_a_connection, usual.weight_header) == (
        50,
        sys.maxsize,
        None,
    )
    one = settings(acme().replace('"markets": {symbols}}', '"market": "{symbol}"}'))
    assert one.symbols_a_request == 1
    first, second = Codec("acme", one).subscribe(["BTC-USD", "ETH-USD"])
    assert (json.loads(first)["market"], json.loads(second)["market"]) == ("BTC/USD", "ETH/USD")


def test_the_memory_of_open_requests_is_bounded() -> None:
    """An upstream that never answers probes costs no more than `OPEN` of them."""
    mapped = Codec("binance", settings(BINANCE, PAIR))
    for _ in range(OPEN + 10):
        mapped.probe()
    into = heard(mapped, {"result": [], "id": 1}, {"result": [], "id": OPEN + 10})
    assert [reason for reason, _ in into.problems] == ["unknown_answer"]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["trades", "BTC/USD"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["op", "ok", "id", "data", "market", *DEAL]), inner, max_size=6)
    ),
    max_leaves=15,
)


@given(
    JSON
    | st.builds(trades, JSON)
    | st.builds(lambda deal: trades(DEAL | deal), st.dictionaries(st.sampled_from(list(DEAL)), JSON))
)
def test_any_json_gives_problems_or_complete_trades(message: Any) -> None:
    """Nothing makes it raise, and every trade is complete."""
    into = heard(_CODEC, message)
    for item in into.items:
        assert isinstance(item, Trade)
        assert item.symbol in ("BTC-USD", "ETH-USD")
        assert item.price > 0 < item.quantity
        assert item.side in ("buy", "sell")


@given(st.text() | st.binary())
def test_any_bytes_give_problems(message: str | bytes) -> None:
    """Nothing makes it raise."""
    assert heard(_CODEC, message).items == []


_CODEC = Codec("acme", settings(acme()))


# -- the check of a mapping ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "instead", "told"),
    [
        ('form = "{BASE}/{QUOTE}"', 'form = "{BAZE}"', "[sources.acme] form: found \"{BAZE}\"; must not have {BAZE}"),
        ('form = "{BASE}/{QUOTE}"', 'form = "X"', "form: found \"X\"; must have a symbol in it"),
        ('form = "{BASE}/{QUOTE}"', 'form = "{QUOTE}"', "both have the same name there, USD"),
        ('"ETH-USD"]', '"ETH-USD-PERP"]', "ETH-USD-PERP has more than a base and a quote: names must tell"),
        ("{symbols}", "{symbls}", "[sources.acme.requests] subscribe: found"),
        ("{symbols}", "{symbols} {symbol}", "must have either {symbol}, for one message each, or {symbols}"),
        ("{symbols}}", "{symbols}", "must be JSON, once its placeholders are filled"),
        ("probe = '", "each = '[\"{symbol}]'\nprobe = '", "[sources.acme.requests] each"),
        ("probe = '", "prob = '", "unknown key; did you mean \"probe\"?"),
        ('subscribed = {', 'subscribd = {', "unknown key; did you mean \"subscribed\"?"),
        ('{ op = "sub", ok = true }', "{}", "[sources.acme.answers.subscribed] when: found {}; must name at least one"),
        ('{ op = "sub", ok = true }', "{ op = 1.5 }", "must have text, a whole number, true, false"),
        ('{ op = "sub", ok = true }, id = "id"', '{ op = "sub" }, id = "id."', "id: found \"id.\"; must be keys"),
        ('{ op = "sub", ok = true }, id = "id"', '{ op = "sub" }, is_all = true', "must come with symbol"),
        ('subscribe = \'{"id": {id},', "subscribe = '{", "must not have id where the template subscribe has no {id}"),
        ("subscribe = '", "#", "must have assumed = true where [requests] has no subscribe"),
        ("subscribed =", "# ", "must tell how an acknowledgement looks"),
        ("leaving =", "assumed = true\nleaving =", "must not be true where subscribed tells"),
        ('leaving = { op', 'leaving = { "=op"', "must have paths on its left"),
        ('at = "data.*"', 'at = "data..x"', "[sources.acme.trades] at: found"),
        ('price = "px"', 'price = "*.px"', 'must name one value; "*" and "[name=text]" name several'),
        ('price = "px"', "", "[sources.acme.trades]: price is missing, must be text"),
        ('price = "px"', 'price = "x.$"', 'must have "$", the whole message, at its beginning only'),
        ('time_unit = "ms"', 'time_unit = "msec"', 'must be one of "s", "ms", "us", "ns", "rfc3339"'),
        ('B = "buy"', 'B = "bid"', 'must be a table, each value one of "buy", "sell"'),
        ('side = "taker"', "", "must come with side, the path of what it translates"),
        ("sides =", "#", 'must come with sides, such as { B = "buy", S = "sell" }'),
        ('side = "taker"', 'side = "taker"\nis_signed = true', "must not come with is_signed"),
        ('id = "n"\nsequence = "n"', "is_replayed = true", "must come with id or sequence"),
        ("form =", 'headers = { "a b" = "c" }\nform =', "must have names and values that HTTP can send"),
    ],
)  # fmt: skip
def test_every_mistake_of_a_mapping_is_told_at_the_check(written: str, instead: str, told: str) -> None:
    """With its table and key, and in one line."""
    changed = acme().replace(written, instead, 1)
    assert changed != acme()
    with pytest.raises(ConfigError) as found:
        settings(changed)
    (line,) = found.value.problems
    assert told in line


@pytest.mark.parametrize(
    ("written", "told"),
    [
        (BINANCE.replace("refill_url =", "# "), "must come with refill_url"),
        (
            BINANCE[: BINANCE.index("[sources.binance.rest]")],
            "[sources.binance]: rest is missing: refill_url says whom to ask",
        ),
    ],
)
def test_questions_need_an_address_and_words(written: str, told: str) -> None:
    """One without the other would be no refill, in silence."""
    with pytest.raises(ConfigError) as found:
        settings(written, PAIR)
    (line,) = found.value.problems
    assert told in line
    assert "[sources.binance" in line


def test_all_mistakes_are_told_at_once() -> None:
    """A line each, in the order of the file."""
    changed = acme().replace("{id}", "{od}").replace('"px"', '"p..x"').replace('"ms"', '"m"')
    with pytest.raises(ConfigError) as found:
        settings(changed)
    places = [line.split(": ")[1] for line in found.value.problems]
    assert places == [
        *("[sources.acme.requests] subscribe", "[sources.acme.requests] unsubscribe"),
        *("[sources.acme.trades] price", "[sources.acme.trades] time_unit"),
    ]


# -- past trades --------------------------------------------------------------------------------------


def deal(number: int) -> dict[str, Any]:
    return {"id": number, "price": "1.0", "qty": "2", "time": 1_000 * number, "isBuyerMaker": True}


def past(number: int) -> Trade:
    return Trade(
        "binance", "BTC-USDT", str(number), "sell", Decimal("1.0"), Decimal(2), number * 10**9, number
    )


def test_past_trades_are_asked_for_as_the_mapping_says() -> None:
    """Behind the last known trade, page after page, until the missing ones are there."""
    filler = Filler("binance", settings(BINANCE, PAIR))
    missing = Missing("binance", "BTC-USDT", past(10), past(15), 11, 14)
    asked = filler.fill(missing)
    assert asked is not None
    assert (asked.path, asked.weight) == ("/api/v3/historicalTrades?symbol=BTCUSDT&fromId=11&limit=1000", 25)
    page = filler.filled(missing, asked, json.dumps([deal(11), deal(12)]).encode())
    assert page.trades == [past(11), past(12)]
    assert page.following is not None
    assert "fromId=13" in page.following.path
    page = filler.filled(
        missing, page.following, json.dumps([deal(13), deal(14), deal(15), deal(16)]).encode()
    )
    assert (page.trades, page.following) == ([past(13), past(14), past(15)], None)


def test_the_newest_trades_are_asked_for_without_a_known_one() -> None:
    """The symbol is the one that was asked for, where the answer names none."""
    filler = Filler("binance", settings(BINANCE, PAIR))
    asked = filler.fill(Missing("binance", "BTC-USDT", None, None))
    assert asked is not None
    assert asked.path == "/api/v3/historicalTrades?symbol=BTCUSDT"
    newest = filler.newest(["BTC-USDT"], json.dumps([deal(1), deal(2)]).encode())
    assert newest["BTC-USDT"].sequence == 2
    assert filler.newest(["BTC-USDT"], b"[]") == {}


@pytest.mark.parametrize("answer", [b"", b"\xff", b'[{"id": 1}]', b"{"])
def test_an_answer_that_cannot_be_used_is_refused(answer: bytes) -> None:
    """Half of it is no answer."""
    filler = Filler("binance", settings(BINANCE, PAIR))
    missing = Missing("binance", "BTC-USDT", None, None)
    asked = filler.fill(missing)
    assert asked is not None
    with pytest.raises(Unusable):
        filler.filled(missing, asked, answer)


def test_without_rest_nothing_can_be_asked() -> None:
    """Then there is no request at all."""
    filler = Filler("acme", settings(acme()))
    assert filler.fill(Missing("acme", "BTC-USD", None, None)) is None
    assert filler.latest(["BTC-USD"]) is None
