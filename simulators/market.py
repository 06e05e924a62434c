"""A generated market: seeded random walks that look like trading. Pure: a seed always gives the same trades.

Rule 1: prices are whole increments and quantities are whole lots, so both are exact decimals.
Rule 2: every symbol has its own random numbers, so a further symbol changes no other.
Rule 3: the trades are no more realistic than that. For real trades there are recordings.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Any, Literal, TypeAlias

from attrs import Attribute, field, frozen

from .feed import Feed, Tick
from .trade import Trade

Ids: TypeAlias = Literal["contiguous", "gappy"]


def _positive(instrument: object, attribute: Attribute[Any], value: Any) -> None:
    if not value > 0:
        raise ValueError(f"{attribute.name} must be greater than 0, not {value}")


@frozen
class Instrument:
    """One symbol: its first price, the price `increment`, the `lot`, the mean quantity in `lots`, and the
    `rate` in trades per second. ValueError unless all of them are greater than 0."""

    symbol: str
    price: Decimal = field(validator=_positive)
    increment: Decimal = field(default=Decimal("0.01"), validator=_positive)
    lot: Decimal = field(default=Decimal("0.00001"), validator=_positive)
    lots: float = field(default=2000.0, validator=_positive)
    rate: float = field(default=5.0, validator=_positive)
    first_id: int = 1


BINANCE_MARKET = (
    Instrument("BTCUSDT", Decimal("61837.63"), rate=25.0, first_id=3_735_683_259),
    Instrument("ETHUSDT", Decimal("2683.80"), lot=Decimal("0.0001"), rate=18.0, first_id=1_520_538_925),
)
BLOCKCHAIN_MARKET = (
    Instrument("BTC-USD", Decimal("61837.6"), increment=Decimal("0.1"), rate=3.0, first_id=12_886_314_421),
    Instrument("ETH-USD", Decimal("2683.80"), lot=Decimal("0.0001"), rate=2.0, first_id=12_886_314_430),
)


def walk(instrument: Instrument, *, seed: int, start_us: int, ids: Ids = "contiguous") -> Iterator[Trade]:
    """The endless trades of one symbol. Ids grow by 1, or by 1 to 40 when `ids` is ``gappy``."""
    dice = random.Random(f"{seed}/{instrument.symbol}")
    steps, number, at = round(instrument.price / instrument.increment), instrument.first_id, float(start_us)
    while True:
        at += dice.expovariate(instrument.rate) * 1e6
        side: Literal["buy", "sell"] = dice.choice(("buy", "sell"))
        steps = max(1, steps + _move(dice, side))
        lots = max(1, round(dice.lognormvariate(0.0, 1.2) * instrument.lots / 2))
        price, qty = _exact(steps, instrument.increment), _exact(lots, instrument.lot)
        yield Trade(number, instrument.symbol, side, price, qty, int(at))
        number += 1 if ids == "contiguous" else dice.randint(1, 40)


def _move(dice: random.Random, side: str) -> int:
    """By how many increments a trade moves the price: mostly none, else mostly in the taker's direction."""
    if dice.random() < 0.6:
        return 0
    distance = min(50, int(dice.expovariate(0.4)) + 1)
    return distance if (side == "buy") == (dice.random() < 0.75) else -distance


def _exact(units: int, unit: Decimal) -> str:
    return f"{units * unit:f}"


def market(
    instruments: Iterable[Instrument], *, seed: int, start_us: int, ids: Ids = "contiguous"
) -> Iterator[Trade]:
    """The endless trades of several symbols, in the order of time."""
    walks = [walk(each, seed=seed, start_us=start_us, ids=ids) for each in instruments]
    return heapq.merge(*walks, key=lambda trade: trade.timestamp_us)


def generated(
    instruments: Sequence[Instrument] = BINANCE_MARKET, *, seed: int = 0, ids: Ids = "contiguous"
) -> Feed:
    """A feed of generated trades; the first happens when the feed is opened, because it is played at once."""
    first_us = min((next(walk(each, seed=seed, start_us=0)).timestamp_us for each in instruments), default=0)

    def begin(now_us: int) -> Iterator[Tick]:
        trades = market(instruments, seed=seed, start_us=now_us - first_us - 1, ids=ids)
        return (Tick(trade.timestamp_us * 1000, trade) for trade in trades)

    return Feed(frozenset(each.symbol for each in instruments), begin)
