"""The past in an answer: the same text as for everybody, encoded once, and bounded in what is kept."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from dataflow.domain import Gap, Recorded, Trade
from dataflow.faces.jsonrpc import format as wire
from dataflow.gateway import past
from dataflow.gateway.past import Past


def recorded(offset: int) -> Recorded:
    trade = Trade(
        source="binance",
        symbol="BTC-USDT",
        trade_id=str(offset),
        side="buy",
        price=Decimal("2.5"),
        quantity=Decimal("0.5"),
        timestamp=1_700_000_000_000_000_000 + offset,
        sequence=offset,
    )
    return Recorded(offset, trade)


def members(part: past.Part) -> Any:
    return msgspec.json.decode(msgspec.json.encode(part.members()))


def test_trades_and_gaps_in_order() -> None:
    """What stands in an answer is what `wire` makes of each entry, and the part ends where the last one does."""
    part = Past().part("BTC-USDT", 4)
    assert part.last == 4
    assert members(part) == {"trades": []}
    part.add([recorded(5), Gap(6, 8, "source_gap")])
    assert part.last == 8
    part.add([recorded(9)])
    assert part.last == 9
    assert members(part) == {
        "trades": [msgspec.json.decode(wire.trade(recorded(offset))) for offset in (5, 9)],
        "gaps": [msgspec.json.decode(wire.gap(Gap(6, 8, "source_gap")))],
    }


def test_a_trade_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many ask; each symbol for itself; and after more than the bound, anew."""
    encoded: list[int] = []
    encode = wire.trade

    def counted(trade: Recorded) -> msgspec.Raw:
        encoded.append(trade.offset)
        return encode(trade)

    monkeypatch.setattr(wire, "trade", counted)
    kept = Past(3)
    for _ in range(3):
        kept.part("BTC-USDT").add([recorded(1), recorded(2)])
    assert encoded == [1, 2]
    kept.part("ETH-USDT").add([recorded(1), recorded(2)])
    assert encoded == [1, 2, 1, 2]
    kept.part("BTC-USDT").add([recorded(1)])
    assert encoded == [1, 2, 1, 2, 1]
