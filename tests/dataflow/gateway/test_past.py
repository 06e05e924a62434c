"""The past in answers: the same text for all clients, encoded once; the kept texts are bounded."""

from __future__ import annotations

from decimal import Decimal

from dataflow.domain import Gap, Topic, Trade
from dataflow.faces.jsonrpc.format import JSONRPC, JsonRpc
from dataflow.gateway.past import Past


def place(offset: int) -> tuple[int, Trade]:
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
    return offset, trade


BTC, ETH = Topic("trades", "BTC-USDT"), Topic("trades", "ETH-USDT")


def test_items_and_gaps_in_order() -> None:
    """An answer holds the format's text of each entry. The part ends at the last entry."""
    part = Past().part(JSONRPC, BTC, 1, 4)
    assert part.last == 4
    assert (part.items, part.gaps) == ([], [])
    gap = Gap(6, 8, "source_gap")
    part.add([place(5), (8, gap)])
    assert part.last == 8
    part.add([place(9)])
    assert part.last == 9
    assert part.items == [JSONRPC.item(BTC, 1, offset, place(offset)[1]) for offset in (5, 9)]
    assert part.gaps == [JSONRPC.hole(BTC, 1, gap)]
    assert part.texts == [part.items[0], *part.gaps, part.items[1]]


class Counting(JsonRpc):
    """A format that counts its work."""

    def __init__(self) -> None:
        self.written: list[int] = []

    def item(self, topic: Topic, epoch: int, offset: int, value: Trade) -> bytes:
        self.written.append(offset)
        return super().item(topic, epoch, offset, value)


def test_an_item_is_encoded_once_for_each_format() -> None:
    """For any number of clients, for each topic and each format. Above the bound, texts are made again."""
    one, other = Counting(), Counting()
    kept = Past(3)
    for _ in range(3):
        kept.part(one, BTC, 1).add([place(1), place(2)])
    assert one.written == [1, 2]
    kept.part(one, ETH, 1).add([place(1), place(2)])
    assert one.written == [1, 2, 1, 2]
    kept.part(one, BTC, 1).add([place(1)])
    assert one.written == [1, 2, 1, 2, 1]
    kept.part(other, BTC, 1).add([place(1)])
    assert other.written == [1]


def test_a_topic_without_entries_leaves_nothing() -> None:
    """Clients can name topics that never have one."""
    past = Past()
    for n in range(1000):
        past.part(JSONRPC, Topic("days", f"X{n}"), 1).add([])
    assert past._texts == {}
