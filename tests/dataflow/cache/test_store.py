"""Promises of the store of a shard, by example."""

from __future__ import annotations

from typing import Any

import pytest

from dataflow.cache.store import Store
from dataflow.cache.verdict import Verdict
from dataflow.domain import Gap, Recorded
from tests.dataflow.cache.items import Exploding, ids, missed, sequenced, trade


def test_a_store_keeps_symbols_apart_and_counts_what_it_did() -> None:
    """Symbols with news are named, and every verdict is counted by source."""
    store = Store(3, 10, 100.0)
    eth = trade("x", symbol="ETH-USD", source="b")
    assert store.admit([trade("x"), trade("x"), eth, missed()], 0.0) == {"BTC-USD", "ETH-USD"}
    assert store.admit([trade("x"), missed()], 0.0) == set()
    assert store.history("ETH-USD").read(0, 9) == [Recorded(1, eth)]
    assert store.history("ETH-USD").epoch == 3
    assert store.counts == {
        ("a", "admitted"): 1,
        ("a", "duplicate"): 2,
        ("a", "noted"): 2,
        ("b", "admitted"): 1,
    }
    assert store.symbols() == ["BTC-USD", "ETH-USD"]


def test_a_store_names_refused_trades() -> None:
    """Every trade that is neither admitted nor a duplicate is named, once each time."""
    told: list[tuple[str, Verdict]] = []
    store = Store(3, 10, 100.0, lambda trade, verdict: told.append((trade.trade_id, verdict)))
    store.admit([sequenced(10), sequenced(10), missed(), sequenced(9), sequenced(2**53)], 0.0)
    assert told == [("9", Verdict.LATE), (str(2**53), Verdict.IMPLAUSIBLE)]


def test_a_store_forgets_on_query() -> None:
    """A symbol that went quiet does not serve trades beyond their age."""
    store = Store(3, 10, 100.0)
    store.admit([trade("x")], 0.0)
    assert ids(store.history("BTC-USD", now=100.0).latest(9)) == ["x"]
    assert store.history("BTC-USD", now=100.5).latest(9) == []


def test_a_batch_lost_half_way_names_all_its_symbols() -> None:
    """No reader knows of the admitted part yet; the rest becomes a gap that keeps its reason."""
    store = Store(3, 10, 100.0)
    bad: Any = Exploding()
    batch = [trade("x"), bad, trade("y", symbol="ETH-USD")]
    with pytest.raises(TypeError):
        store.admit(batch, 5000.0)
    assert store.lost([batch[0], batch[2]]) == {"BTC-USD", "ETH-USD"}
    store.admit([trade("z", symbol="ETH-USD")], 5050.0)
    assert store.history("BTC-USD").read(0, 9) == [Recorded(1, trade("x"))]
    assert store.history("ETH-USD").read(0, 9)[0] == Gap(1, 1, "shard_restart", exact=False)
