"""Items of one symbol, for the tests of the cache."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from dataflow.domain import Missed, Recorded, Trade

US = 1000  # nanoseconds


def trade(trade_id: str | None, timestamp: int = 0, **other: Any) -> Trade:
    fields: dict[str, Any] = {"source": "a", "symbol": "BTC-USD", "side": "sell", **other}
    return Trade(
        trade_id=trade_id, price=Decimal("8501.1"), quantity=Decimal("0.5"), timestamp=timestamp, **fields
    )


def sequenced(sequence: int, **other: Any) -> Trade:
    return trade(**{"trade_id": str(sequence), "timestamp": sequence * US, "sequence": sequence, **other})


def missed(source: str = "a", reason: str = "source_gap", resubscribed: bool = False) -> Missed:
    return Missed(source, "BTC-USD", reason, resubscribed)


def ids(page: list[Recorded]) -> list[str | None]:
    return [recorded.trade.trade_id for recorded in page]


class Exploding:
    """A trade whose timestamp cannot be used."""

    source, symbol, trade_id, sequence, timestamp = "a", "BTC-USD", "bad", None, "not a number"
