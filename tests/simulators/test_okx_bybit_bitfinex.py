"""Promises of the simulated OKX, Bybit and Bitfinex: the bytes of the documentation, and no way to break them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulators.dialect import Dialect, HandshakeRefused, Session
from simulators.exchanges.binance import FUTURES_PATH, binance_dialect, futures_payload
from simulators.exchanges.bitfinex import BitfinexSession, bitfinex_dialect
from simulators.exchanges.bybit import bybit_dialect, public_trade
from simulators.exchanges.okx import OkxSession, aggregate, every_trade, okx_dialect
from simulators.trade import Trade

BTC = Trade(130639474, "BTC-USDT", "buy", "42219.9", "0.12060306", 1_630_048_897_897_000)
DIALECTS: Mapping[str, Dialect] = {
    "okx": okx_dialect(),
    "bybit": bybit_dialect(),
    "bitfinex": bitfinex_dialect(),
    "futures": binance_dialect(path=FUTURES_PATH),
}
EACH = pytest.mark.parametrize("name", DIALECTS)


def session(name: str, refuse: Callable[[str], bool] = lambda symbol: False) -> Session:
    return DIALECTS[name].open(DIALECTS[name].path, {}, refuse)


def test_a_trade_of_okx_is_written_as_documented() -> None:
    """Alone, and as an aggregate of three."""
    assert every_trade(BTC) == (
        '{"arg":{"channel":"trades-all","instId":"BTC-USDT"},"data":[{"instId":"BTC-USDT","tradeId":"130639474",'
        '"px":"42219.9","sz":"0.12060306","side":"buy","source":"0","ts":"1630048897897"}]}'
    )
    three = Trade(7, "BTC-USDT", "buy", "42219.9", "0.12060306", BTC.timestamp_us, aggregate=(121, 123))
    assert aggregate(three) == (
        '{"arg":{"channel":"trades","instId":"BTC-USDT"},"data":[{"instId":"BTC-USDT","tradeId":"123",'
        '"px":"42219.9","sz":"0.12060306","side":"buy","ts":"1630048897897","count":"3","source":"0","seqId":123}]}'
    )


def test_a_trade_of_bybit_is_written_as_documented() -> None:
    """The fields of linear stand in another order than those of spot, and its ids are UUIDs."""
    trade = Trade(7, "BTCUSDT", "sell", "16578.50", "0.001", 1_672_304_486_865_000)
    assert public_trade(trade, "linear") == (
        '{"topic":"publicTrade.BTCUSDT","type":"snapshot","ts":1672304486865,"data":[{"T":1672304486865,'
        '"s":"BTCUSDT","S":"Sell","v":"0.001","p":"16578.50","L":"PlusTick",'
        '"i":"00000000-0000-5000-8000-000000000007","BT":false,"RPI":false,"seq":7}]}'
    )
    assert public_trade(trade, "spot") == (
        '{"topic":"publicTrade.BTCUSDT","ts":1672304486865,"type":"snapshot","data":[{"i":"7",'
        '"T":1672304486865,"p":"16578.50","v":"0.001","S":"Sell","s":"BTCUSDT","BT":false,"RPI":false,"seq":7}]}'
    )


def test_an_aggregate_of_binance_futures_is_written_as_documented() -> None:
    """Without the field `M` of spot, and with the digits as they are."""
    trade = Trade(
        5933014, "BTCUSDT", "sell", "0.001", "100", 123_456_785_000, 123_456_789_000, aggregate=(100, 105)
    )
    assert futures_payload(trade) == (
        '{"e":"aggTrade","E":123456789,"s":"BTCUSDT","a":5933014,"p":"0.001","q":"100","nq":"100","f":100,'
        '"l":105,"T":123456785,"m":true}'
    )


def test_bitfinex_greets_numbers_and_tells_each_trade_twice() -> None:
    """The order of a whole conversation."""
    about = session("bitfinex")
    assert isinstance(about, BitfinexSession)
    greeting, conf = map(json.loads, about.receive('{"event":"conf","flags":65536}'))
    assert (greeting["version"], conf["status"]) == (2, "OK")
    (answer,) = map(json.loads, about.receive('{"event":"subscribe","channel":"trades","symbol":"tBTCUSD"}'))
    assert list(answer) == ["event", "channel", "chanId", "symbol", "pair"]
    channel = answer["chanId"]
    trades = [Trade(n, "tBTCUSD", "sell", "7244.90", "0.0000005", 1_574_694_475_039_000) for n in (1, 2)]
    assert about.snapshot("tBTCUSD", trades) == [
        f"[{channel},[[2,1574694475039,-5e-7,7244.9],[1,1574694475039,-5e-7,7244.9]],1]"
    ]
    assert about.encode(trades[1]) == [
        f'[{channel},"te",[2,1574694475039,-5e-7,7244.9],2]',
        f'[{channel},"tu",[2,1574694475039,-5e-7,7244.9],3]',
    ]
    about.skip()
    assert about.beat(0) == [f'[{channel},"hb",5]']
    assert json.loads(about.receive(f'{{"event":"unsubscribe","chanId":{channel}}}')[0])["status"] == "OK"
    assert about.encode(trades[0]) == []


def test_bybit_refuses_a_request_as_a_whole() -> None:
    """An unknown topic, one that is subscribed already, and more than ten."""
    about = session("bybit")

    def said(*symbols: str) -> tuple[bool, str]:
        topics = [f"publicTrade.{symbol}" for symbol in symbols]
        answer = json.loads(about.receive(json.dumps({"req_id": "1", "op": "subscribe", "args": topics}))[0])
        return answer["success"], answer["ret_msg"]

    assert said("BTCUSDT", "NOPE") == (False, "error:handler not found,topic:publicTrade.NOPE")
    assert about.symbols == frozenset()
    assert said("BTCUSDT") == (True, "subscribe")
    assert said("ETHUSDT", "BTCUSDT") == (False, "error:already subscribed,topic:publicTrade.BTCUSDT")
    assert said(*["ETHUSDT"] * 11) == (False, "args size >10")
    assert about.symbols == frozenset({"BTCUSDT"})


def test_okx_answers_each_symbol() -> None:
    """One is unknown, one has the channel of the other path."""
    about = session("okx")
    assert isinstance(about, OkxSession)
    named = [("trades-all", "BTC-USDT"), ("trades-all", "NO-PE"), ("trades", "ETH-USDT-SWAP")]
    arguments = [{"channel": channel, "instId": name} for channel, name in named]
    answers = map(json.loads, about.receive(json.dumps({"id": "1", "op": "subscribe", "args": arguments})))
    assert [(each["event"], each["id"], each.get("code")) for each in answers] == [
        ("subscribe", "1", None),
        ("error", "1", "60018"),
        ("error", "1", "60018"),
    ]
    assert about.symbols == frozenset({"BTC-USDT"})
    assert about.receive("ping") == ["pong"]


@EACH
def test_an_exchange_has_no_other_paths(name: str) -> None:
    """Another one is refused with 404."""
    with pytest.raises(HandshakeRefused) as caught:
        DIALECTS[name].open("/other", {}, lambda symbol: False)
    assert caught.value.status == 404


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
words = st.sampled_from(
    ["op", "args", "event", "channel", "symbol", "chanId", "flags", "instId", "id", "req_id"]
)
said = st.sampled_from(
    ["subscribe", "unsubscribe", "conf", "ping", "trades", "trades-all", "tBTCUSD", "BTC-USDT"]
)
calls = st.dictionaries(
    words, said | values | st.lists(said | values | st.dictionaries(words, said | values))
)


@EACH
@given(st.lists(st.text(max_size=50) | st.binary(max_size=50) | calls.map(json.dumps), max_size=4))
def test_no_message_breaks_a_session(name: str, messages: list[str | bytes]) -> None:
    """Each has an answer."""
    about = session(name)
    assert all(about.receive(message) for message in messages)


paths = st.sampled_from(
    ["/api/v5/market/trades", "/api/v5/market/history-trades", "/v5/market/recent-trade", "/v2/trades/tBTCUSD/hist",
     "/v2/trades//hist", "/fapi/v1/aggTrades", "/", ""]
)  # fmt: skip
keys = st.sampled_from(
    ["instId", "symbol", "category", "limit", "after", "before", "start", "end", "sort", "fromId"]
)
texts = st.sampled_from(["BTC-USDT", "BTCUSDT", "spot", "1", "-1", "0", "1e5", "\u0661", ""]) | st.text(
    max_size=5
)


@EACH
@given(paths, st.dictionaries(keys, texts))
def test_no_question_breaks_the_rest(name: str, path: str, query: dict[str, Any]) -> None:
    """Each has an answer, with a body that is JSON or none."""
    rest = DIALECTS[name].rest
    assert rest is not None
    answer = rest(path, query, lambda symbol: (BTC,))
    assert answer.status in (200, 400, 404, 500)
