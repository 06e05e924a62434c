"""Reads trades out of a message by the paths of a mapping.

Rules of this file: pure. A trade is complete, or it is a problem with a name. What the mapping does not name
(an id, a side) is None in every trade, never made up.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any, Final

from dataflow.domain import Side, Trade
from dataflow.domain.timestamps import LATEST, from_rfc3339
from dataflow.sources.fields import PositiveDecimals
from dataflow.sources.reading import Unusable

from .paths import ABSENT, Find, Numeral, all_finder, filled, finder, names_several
from .tables import Fields, spellings

LAST_SEQUENCE: Final = 2**53  # a greater number is noise, and would make a gap that no client can count
LONGEST_ID: Final = 200  # characters
_DIGITS: Final = re.compile(r"[0-9]{1,16}")
_NUMBER: Final = re.compile(r"[0-9]{1,20}(?:\.[0-9]{1,20})?")
_NANOSECONDS: Final = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}


class Names:
    """The symbols, by the text in which their names stand in a message."""

    def __init__(self, form: str, exchange_name: Callable[[str], str], symbols: Iterable[str]) -> None:
        self._form = form
        self._exchange_name = exchange_name
        self._symbols: dict[str, str] = {}
        for symbol in symbols:
            self.add(symbol)

    def add(self, symbol: str) -> None:
        """Know `symbol` from now on."""
        self._symbols[filled(self._form, spellings(self._exchange_name(symbol)))] = symbol

    def symbol(self, written: Any) -> str:
        """The symbol of that name. Raises Unusable."""
        if written is ABSENT:
            raise Unusable("missing_field")
        found = self._symbols.get(text) if (text := _text(written)) is not None else None
        if found is None:
            raise Unusable("unknown_symbol")
        return found


class Reader:
    """Makes trades of what stands in a message. `names`: None if every trade is of the symbol in hand."""

    def __init__(self, source: str, fields: Fields, names: Names | None) -> None:
        self._source = source
        self._names = names
        self._places = all_finder(fields.at) if names_several(fields.at) else None
        self._place = finder(fields.at) if fields.at else None
        self._newest_first = fields.newest_first
        self._find_symbol = finder(fields.symbol)
        self._find_price, self._find_quantity = finder(fields.price), finder(fields.quantity)
        self._find_time = finder(fields.time)
        self._moment = _moment(fields.time_unit)
        self._find_side, self._sides = _optional(fields.side), fields.sides
        self._is_signed = fields.is_signed
        self._find_id, self._find_sequence = _optional(fields.id), _optional(fields.sequence)
        self._decimals = PositiveDecimals()

    def parts(self, message: Any) -> list[Any]:
        """What must be a trade each, in the order of time. Raises Unusable if there is no such place."""
        if self._places is not None:
            found = self._places(message)
            return found[::-1] if self._newest_first else found
        if self._place is None:
            return [message]
        part = self._place(message, message)
        if part is ABSENT:
            raise Unusable("missing_field")
        return [part]

    def symbol(self, message: Any, part: Any) -> str | None:
        """The symbol that `part` names; None if it names none. Raises Unusable for one that is not known."""
        written = self._find_symbol(message, part)
        return None if self._names is None or _text(written) is None else self._names.symbol(written)

    def trade(self, message: Any, part: Any, symbol: str = "") -> Trade:
        """The trade that `part` tells. `symbol`: the one in hand, without `names`. Raises Unusable."""
        side: Side | None = None
        quantity = self._find_quantity(message, part)
        if self._is_signed:
            quantity, side = _unsigned(quantity)
        elif self._find_side is not None:
            side = _side(self._find_side(message, part), self._sides)
        return Trade(
            self._source,
            self._names.symbol(self._find_symbol(message, part)) if self._names else symbol,
            None if self._find_id is None else _identifier(self._find_id(message, part)),
            side,
            self._decimal(self._find_price(message, part), "bad_price"),
            self._decimal(quantity, "bad_quantity"),
            self._moment(self._find_time(message, part)),
            None if self._find_sequence is None else _sequence(self._find_sequence(message, part)),
        )

    def _decimal(self, value: Any, otherwise: str) -> Decimal:
        text = _present(_text(value), value, otherwise)
        try:
            return self._decimals[text]
        except Unusable:
            raise Unusable(otherwise) from None


def _optional(path: str) -> Find | None:
    return finder(path) if path else None


def _text(value: Any) -> str | None:
    """A text, or a number as it is written; None for anything else."""
    kind = type(value)
    if kind is str:
        return str(value)
    if kind is int:
        return str(value) if abs(value) < 10**40 else None
    return str(value) if kind is Numeral else None


def _present(text: str | None, value: Any, otherwise: str) -> str:
    if value is ABSENT:
        raise Unusable("missing_field")
    if text is None:
        raise Unusable(otherwise)
    return text


def _side(value: Any, sides: Mapping[str, Side]) -> Side:
    text = {True: "true", False: "false"}[value] if type(value) is bool else _text(value)
    side = sides.get(_present(text, value, "bad_side"))
    if side is None:
        raise Unusable("bad_side")
    return side


def _unsigned(value: Any) -> tuple[Any, Side]:
    text = _present(_text(value), value, "bad_quantity")
    return (text[1:], "sell") if text.startswith("-") else (text, "buy")


def _identifier(value: Any) -> str:
    text = None if type(value) is Numeral else _text(value)
    text = _present(text, value, "bad_trade_id")
    if not 0 < len(text) <= LONGEST_ID or not text.isprintable():
        raise Unusable("bad_trade_id")
    return text


def _sequence(value: Any) -> int:
    text = None if type(value) is Numeral else _text(value)
    text = _present(text, value, "bad_sequence")
    if _DIGITS.fullmatch(text) is None or int(text) > LAST_SEQUENCE:
        raise Unusable("bad_sequence")
    return int(text)


def _moment(unit: str) -> Callable[[Any], int]:
    if unit == "rfc3339":
        return _from_rfc3339
    factor = _NANOSECONDS[unit]

    def moment(value: Any) -> int:
        if type(value) is int:
            nanoseconds = value * factor
        else:
            text = _present(_text(value), value, "bad_timestamp")
            if _NUMBER.fullmatch(text) is None:
                raise Unusable("bad_timestamp")
            whole, _, fraction = text.partition(".")
            nanoseconds = int(whole) * factor + int(fraction.ljust(20, "0")) * factor // 10**20
        if not 0 < nanoseconds < LATEST:
            raise Unusable("bad_timestamp")
        return nanoseconds

    return moment


def _from_rfc3339(value: Any) -> int:
    text = value if type(value) is str else None
    try:
        nanoseconds = from_rfc3339(_present(text, value, "bad_timestamp"))
    except Unusable:
        raise
    except ValueError:
        raise Unusable("bad_timestamp") from None
    if not 0 < nanoseconds < LATEST:
        raise Unusable("bad_timestamp")
    return nanoseconds
