"""Stores under test, and what to put in them."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

from attrs import define, field
from hypothesis import strategies as st

from dataflow.cache.archive import Archive, Contents, Places, Run
from dataflow.domain import Gap, Trade

US = 1000  # ns
SECOND = 10**9
DAY = 86_400
NOON = 20_000 * DAY + DAY // 2  # seconds since the epoch: 2024-10-04


@define
class Shelf:
    """A place for one store, which can be opened again and again. `now`: seconds since the epoch."""

    make: Callable[[Shelf], Archive]
    now: float = NOON
    archive: Archive = field(init=False)
    contents: Contents = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.open()

    def open(self) -> Contents:
        self.archive = self.make(self)
        self.contents = self.archive.open()
        return self.contents

    def reopen(self, *, clean: bool = True) -> Contents:
        self.archive.close(clean)
        return self.open()


def trade(place: int, time: int | None = None, symbol: str = "BTC-USD") -> Trade:
    """A trade that can be told from all others by its place. `time`: us since the epoch."""
    moment = (place if time is None else time) * US + place % US
    price = Decimal(place) / 100 + Decimal("60000.10")
    return Trade(
        "a", symbol, str(place), "buy" if place % 2 else "sell", price, Decimal("0.50"), moment, place
    )


def run(first: int, last: int, symbol: str = "BTC-USD", **other: bool) -> Run:
    """Trades in all of these places."""
    places = [(place, trade(place, symbol=symbol)) for place in range(first, last + 1)]
    return Run.of(symbol, places, **other)


def gap(first: int, last: int) -> Gap:
    """An exact one, as it stands for trades of `trade`."""
    return Gap(first, last, "source_gap", True, "a", first)


@st.composite
def entries(draw: st.DrawFn, first: int, symbol: str, most: int = 30) -> Places:
    """Trades, also late ones, and gaps, from place `first` on."""
    places: list[tuple[int, Trade | Gap]] = []
    for size in draw(st.lists(st.integers(-12, 4), min_size=1, max_size=most)):
        last = first + max(size, 1) - 1
        if size > 0:
            places.append((last, gap(first, last)))
        else:
            places.append((last, trade(last, 1_000 + last + size, symbol)))
        first = last + 1
    return places
