"""What a source can prove of its completeness is said in one place, and agrees with what its codec does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from dataflow import plugs
from dataflow.sources.port import Proof

SOURCES: list[tuple[str, Mapping[str, Any], Proof]] = [
    ("binance", {"url": "wss://stream.binance.com:443/stream"}, Proof.NUMBERS),
    ("coinbase", {"url": "wss://ws-feed.exchange.coinbase.com"}, Proof.NUMBERS),
    ("kraken", {"url": "wss://ws.kraken.com/v2"}, Proof.NUMBERS),
    ("kraken", {"url": "wss://ws.kraken.com", "version": 1}, Proof.NOTHING),
    ("okx", {"url": "wss://ws.okx.com:8443/ws/v5/business"}, Proof.NUMBERS),
    ("okx", {"url": "wss://ws.okx.com:8443/ws/v5/public"}, Proof.MESSAGES),
    ("blockchain", {"url": "wss://ws.blockchain.info/mercury-gateway/v1/ws"}, Proof.MESSAGES),
    ("bitfinex", {"url": "wss://api-pub.bitfinex.com/ws/2"}, Proof.MESSAGES),
    ("bitstamp", {"url": "wss://ws.bitstamp.net"}, Proof.NOTHING),
    ("bitstamp", {"url": "wss://ws.bitstamp.net", "transport": "rest"}, Proof.OVERLAP),
    ("coinbase", {"url": "wss://ws-feed.exchange.coinbase.com", "transport": "rest"}, Proof.NUMBERS),
    ("gemini", {"url": "wss://api.gemini.com/v2/marketdata"}, Proof.NOTHING),
    ("bybit", {"url": "wss://stream.bybit.com/v5/public/spot"}, Proof.NOTHING),
]


@pytest.mark.parametrize(("connector", "keys", "proof"), SOURCES)
def test_numbers_prove_what_needs_no_mark(connector: str, keys: Mapping[str, Any], proof: Proof) -> None:
    """A subscription leaves no mark where, and only where, the trades themselves show what is missing."""
    module = plugs.find("connectors", connector)
    settings = module.Settings(connector=connector, symbols=("BTC-USD",), **keys)
    assert settings.proof is proof
    mark = module.Codec("x", settings).missed("BTC-USD")
    assert (mark is None) is (settings.numbered is Proof.NUMBERS)
    assert proof.is_complete is not proof.value.startswith("cannot prove")


@pytest.mark.parametrize("connector", ["push", "ticks_protobuf"])
def test_what_producers_do_not_push_is_not_known(connector: str) -> None:
    """Nobody else could tell."""
    assert plugs.find("connectors", connector).Settings(connector=connector).proof is Proof.PRODUCERS
