"""The simulated Coinbase, Kraken and Bitstamp write the messages of recorded sessions, byte for byte."""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from simulators import Trade
from simulators.exchanges.bitstamp import BitstampSession, told
from simulators.exchanges.coinbase import CoinbaseSession, match
from simulators.exchanges.kraken import OldKrakenSession, old_message

ORDERS = re.compile(r'"(?:maker|taker)_order_id":"[^"]*",|"sequence":\d+,|"(?:buy|sell)_order_id":\d+,?')


def messages(checkout: Path, name: str) -> list[dict[str, Any]]:
    lines = (checkout / "tests" / "data" / name).read_text().splitlines()
    return [each for each in map(json.loads, lines) if each["dir"] != "connect"]


def without_orders(text: str) -> str:
    """Orders are not simulated, so their ids are not compared; nor is what counts messages of all channels."""
    return ORDERS.sub("", text)


def microseconds(text: str) -> int:
    """Of a time with six decimals, seconds since the epoch."""
    return int(text.replace(".", ""))


def test_coinbase(checkout: Path) -> None:
    """Every match and every `last_match`."""
    said = [each["msg"] for each in messages(checkout, "coinbase_matches_20210417.jsonl")]
    recorded = [text for text in said if "match" in json.loads(text)["type"]]
    assert len(recorded) == 107
    for text in recorded:
        fields = json.loads(text)
        moment = datetime.fromisoformat(fields["time"].replace("Z", "+00:00"))
        at = int(moment.timestamp()) * 1_000_000 + moment.microsecond
        side: Any = "buy" if fields["side"] == "sell" else "sell"
        trade = Trade(fields["trade_id"], fields["product_id"], side, fields["price"], fields["size"], at)
        assert without_orders(match(trade, fields["type"])) == without_orders(text)


def test_coinbase_answers(checkout: Path) -> None:
    """With all that is subscribed, in the recorded form."""
    said = [each["msg"] for each in messages(checkout, "coinbase_matches_20210417.jsonl")]
    recorded = json.loads([text for text in said if '"subscriptions"' in text][-1])
    products = next(each["product_ids"] for each in recorded["channels"] if each["name"] == "matches")
    session = CoinbaseSession(frozenset(products), lambda symbol: False)
    call = {"type": "subscribe", "product_ids": products, "channels": ["matches"]}
    (answer,) = session.receive(json.dumps(call))
    assert json.loads(answer) == {
        "type": "subscriptions",
        "channels": [{"name": "matches", "product_ids": products}],
    }


def test_kraken(checkout: Path) -> None:
    """Every trade of version 1 and every answer, but for the order of the fields of an answer."""
    said = [each["msg"] for each in messages(checkout, "kraken_trades_20210417.jsonl") if each["dir"] == "in"]
    (asked,) = [
        each["msg"] for each in messages(checkout, "kraken_trades_20210417.jsonl") if each["dir"] == "out"
    ]
    pairs = json.loads(asked)["pair"]
    session = OldKrakenSession({pair: pair for pair in pairs}, lambda symbol: False)
    answers = [json.loads(text) | {"channelID": 0} for text in said if '"subscriptionStatus"' in text]
    assert [json.loads(text) | {"channelID": 0} for text in session.receive(asked)] == answers
    assert set(session.beat(0)) == {text for text in said if text == '{"event":"heartbeat"}'}
    recorded = [text for text in said if text[0] == "["]
    assert len(recorded) == 8
    for text in recorded:
        number, rows, _, pair = json.loads(text)
        sides: dict[str, Any] = {"b": "buy", "s": "sell"}
        trades = [
            Trade(0, pair, sides[side], price, volume, microseconds(at))
            for price, volume, at, side, _, _ in rows
        ]
        assert old_message(trades, number) == text.replace('"l"', '"m"')  # limit orders are not simulated


@pytest.mark.parametrize("event", ["bts:subscribe", "trade"])
def test_bitstamp(checkout: Path, event: str) -> None:
    """Every trade, and the answer to every subscription."""
    lines = messages(checkout, "bitstamp_trades_20220105.jsonl")
    if event == "trade":
        recorded = [each["msg"] for each in lines if '"event":"trade"' in each["msg"]]
        assert len(recorded) == 10
        for text in recorded:
            data = json.loads(text)["data"]
            side: Any = "sell" if data["type"] else "buy"
            at = int(data["microtimestamp"])
            trade = Trade(data["id"], "ethusd", side, data["price_str"], data["amount_str"], at)
            assert without_orders(told(trade)) == without_orders(text)
        return
    asked = [each["msg"] for each in lines if each["dir"] == "out" and event in each["msg"]]
    answers = {each["msg"] for each in lines if "succeeded" in each["msg"] and "live_trades" in each["msg"]}
    known = frozenset(json.loads(text)["data"]["channel"].removeprefix("live_trades_") for text in asked)
    session = BitstampSession(known, lambda symbol: False)
    assert {answer for text in asked for answer in session.receive(text)} == answers
