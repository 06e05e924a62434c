"""Lies of an exchange that is asked by REST. Pure: a lie is an honest answer to another question.

Rule 1: no lie knows a format. It changes the tape, or the query, and the dialect writes the answer.
Rule 2: each can be noticed by who knows the trades around the missing ones, or what was asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import cycle
from typing import Literal, TypeAlias, get_args

from attrs import evolve

from .dialect import Answer, Rest, Tape
from .trade import Trade

Lie: TypeAlias = Literal["value", "twice", "symbol", "outside"]
LIES: tuple[Lie, ...] = get_args(Lie)
_NEWEST = 10_000  # trades that a lie is made of


def told(lie: Lie, rest: Rest, path: str, query: Mapping[str, str], tape: Tape, other: str | None) -> Answer:
    """The answer to one question, with this lie.

    ``value``: every price is wrong. ``twice``: each id comes twice, with two prices. ``symbol``: prices,
    quantities and times of the symbol `other`, under the ids that were asked for (None: under a made-up name,
    with wrong prices). ``outside``: as if only the symbol had been asked for, without any numbers.
    """
    match lie:
        case "value":
            return rest(path, query, _altered(tape, lambda trade: [_dearer(trade)]))
        case "twice":
            return rest(path, query, _altered(tape, lambda trade: [trade, _dearer(trade)]))
        case "symbol":
            return rest(path, query, _borrowed(tape, other))
    return rest(path, {name: value for name, value in query.items() if not value.isdecimal()}, tape)


def _altered(tape: Tape, change: Callable[[Trade], Sequence[Trade]]) -> Tape:
    return lambda symbol: [each for trade in tape(symbol)[-_NEWEST:] for each in change(trade)]


def _dearer(trade: Trade) -> Trade:
    return evolve(trade, price=format(Decimal(trade.price) + 1, "f"))


def _borrowed(tape: Tape, other: str | None) -> Tape:
    foreign = tape(other)[-_NEWEST:] if other is not None else ()

    def lent(symbol: str) -> list[Trade]:
        own = tape(symbol)[-_NEWEST:]
        lenders: Iterator[Trade] = cycle(foreign) if foreign else map(_dearer, own)
        name = other or f"X{symbol}"
        return [
            evolve(lender, id=trade.id, symbol=name, aggregate=trade.aggregate)
            for trade, lender in zip(own, lenders, strict=False)
        ]

    return lent
