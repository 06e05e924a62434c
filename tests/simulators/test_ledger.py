"""The ledger finds every gap, duplicate and disorder, and reports nothing else."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from simulators.ledger import Ledger


def update(offset: int, trade_id: int | None = None, symbol: str = "X") -> dict[str, Any]:
    return {"symbol": symbol, "offset": offset, "tradeId": str(trade_id or offset), "source": "s"}


def answer(offset: int | None, **fields: Any) -> dict[str, Any]:
    return {"symbol": "X", "channel": "trades", "epoch": "e1", "offset": offset, **fields}


def test_a_stream_without_holes_has_no_findings() -> None:
    """Snapshot, live, resume: every offset once."""
    ledger = Ledger()
    assert ledger.subscribed(answer(3, trades=[update(2), update(3)])) == []
    assert ledger.trade(update(4)) == []
    assert ledger.since("X") == {"epoch": "e1", "offset": 4}
    assert ledger.subscribed(answer(6, recovered=True, trades=[update(5), update(6)])) == []
    assert ledger.trade(update(7)) == []
    assert not ledger.findings
    assert ledger.trades == 6


@given(st.lists(st.integers(1, 40), unique=True, min_size=2))
def test_every_departure_from_the_next_offset_is_found(offsets: list[int]) -> None:
    """One finding for each offset that is not one above the highest offset so far."""
    ledger = Ledger()
    for offset in offsets:
        ledger.trade(update(offset))
    highest = [max(offsets[: i + 1]) for i in range(len(offsets))]
    odd = sum(offset != top + 1 for offset, top in zip(offsets[1:], highest, strict=False))
    assert ledger.findings["gap"] + ledger.findings["disorder"] == odd


def test_the_same_trade_under_another_offset_is_a_duplicate() -> None:
    """Source and id identify a trade, not its offset."""
    ledger = Ledger()
    ledger.trade(update(1, trade_id=9))
    assert ledger.trade(update(2, trade_id=9)) == ["DUPLICATE X: trade 9 of s again"]


def test_symbols_do_not_disturb_each_other() -> None:
    """Each has its own offsets and ids."""
    ledger = Ledger()
    for offset in (1, 2):
        assert ledger.trade(update(offset, symbol="X")) == ledger.trade(update(offset, symbol="Y")) == []


def test_an_announced_gap_is_not_a_silent_gap() -> None:
    """After `stream.gap` the stream continues behind it; offsets outside the notice are still a gap."""
    ledger = Ledger()
    ledger.trade(update(1))
    ledger.gap({"symbol": "X", "epoch": "e1", "from": 2, "to": 5, "reason": "slow_client"})
    assert ledger.trade(update(6)) == []
    assert dict(ledger.findings) == {"announced_gap": 1}
    ledger.gap({"symbol": "X", "epoch": "e1", "from": 9, "to": None, "reason": "source_gap"})
    assert ledger.findings["gap"] == 1
    assert ledger.trade(update(20)) == []


def test_a_resume_that_stops_short_is_a_gap() -> None:
    """Trades are missing when those of the answer end before its offset."""
    ledger = Ledger()
    ledger.subscribed(answer(3))
    assert ledger.subscribed(answer(6, recovered=True, trades=[update(4), update(5)])) == [
        "GAP X: the answer stops at 5, its offset is 6"
    ]


def test_a_resume_that_is_not_recovered_is_one_finding() -> None:
    """The client knows of the gap, and continues from the offset of the answer."""
    ledger = Ledger()
    ledger.subscribed(answer(3))
    ledger.subscribed(answer(9, recovered=False))
    assert ledger.trade(update(10)) == []
    assert dict(ledger.findings) == {"announced_gap": 1}


def test_a_new_epoch_starts_afresh() -> None:
    """Offsets of another epoch are not compared."""
    ledger = Ledger()
    ledger.subscribed(answer(3))
    lines = ledger.subscribed({**answer(0), "epoch": "e2", "recovered": False})
    assert lines == ["NEW_EPOCH X: epoch e2 after e1"]
    assert ledger.trade(update(1)) == []
    assert ledger.since("X") == {"epoch": "e2", "offset": 1}
