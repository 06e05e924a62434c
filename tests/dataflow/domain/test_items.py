"""Promises of domain.items."""

from __future__ import annotations

import gc
from decimal import Decimal

import pytest

from dataflow.domain import Gap, Recorded, Trade

TRADE = Trade("a", "BTC-USD", "1", "buy", Decimal("1.10"), Decimal(1), 5)


def test_trades_are_immutable() -> None:
    """They are shared between actors."""
    with pytest.raises(AttributeError):
        TRADE.price = Decimal(2)  # type: ignore[misc]
    with pytest.raises(AttributeError):
        Recorded(1, TRADE).offset = 2  # type: ignore[misc]


def test_the_garbage_collector_does_not_visit_trades() -> None:
    """There are hundreds of thousands of them."""
    assert not gc.is_tracked(TRADE)
    assert not gc.is_tracked(Recorded(1, TRADE))


def test_entries_know_their_places() -> None:
    """A trade has one place, a gap has one or more."""
    assert (Recorded(7, TRADE).first, Recorded(7, TRADE).last) == (7, 7)
    gap = Gap(3, 5, "source_gap")
    assert (gap.first, gap.last, gap.exact) == (3, 5, True)
