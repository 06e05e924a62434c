"""Symbols: which texts can name one, and how a name is found that a client writes in its own way.

Rules of this file: pure. A symbol has one canonical name, which is what the core calls it: "BTC-USD", "AAPL".
Nothing is cut or put together by guess. A client may leave the dashes out, if that names one symbol only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from attrs import frozen

ANY: Final = "*"  # in the symbols of a source that brings its own: no symbol
LONGEST: Final = 64  # characters of a symbol
WELL_FORMED: Final = f'1 to {LONGEST} printable characters without blanks and "/", and not "." or ".."'


@frozen
class Form:
    """What the symbols of a source must look like. `words` tell it in an error."""

    pattern: str
    words: str

    def fits(self, symbol: str) -> bool:
        """Whether a configuration may name `symbol`. It is also `well_formed`, or `ANY`."""
        return re.fullmatch(self.pattern, symbol) is not None and (symbol == ANY or well_formed(symbol))


# Of an exchange: also perpetual contracts, and those that end on a day (YYMMDD).
BASE_QUOTE: Final = Form(r"[^:-]+-[^:-]+(-PERP|-[0-9]{6})?", 'BASE-QUOTE in capitals, such as "BTC-USD"')
_contract: Final = re.compile(r"([^:-]+-[^:-]+)-(PERP|[0-9]{6})").fullmatch


def contract(symbol: str) -> tuple[str, str] | None:
    """The pair of a perpetual or a future, and "PERP" or the day on which it ends; None for a pair."""
    found = _contract(symbol)
    return None if found is None else (found[1], found[2])


def well_formed(symbol: str) -> bool:
    """Whether the core can take `symbol`: printable, without blanks and "/", in capitals. Not "." and "..",
    which no path can name: browsers resolve them, even in percent-encoding."""
    return (
        0 < len(symbol) <= LONGEST
        and symbol.isprintable()
        and " " not in symbol
        and "/" not in symbol
        and symbol == symbol.upper()
        and symbol not in (ANY, ".", "..")
    )


def compact(symbol: str) -> str:
    """The name without its dashes."""
    return symbol.replace("-", "")


class Names:
    """The known symbols, found by what clients write."""

    def __init__(self, symbols: Iterable[str] = ()) -> None:
        self._by_compact: dict[str, list[str]] = {}
        self._symbols: set[str] = set()
        for symbol in symbols:
            self.add(symbol)

    def add(self, symbol: str) -> None:
        """Idempotent."""
        if symbol not in self._symbols:
            self._symbols.add(symbol)
            self._by_compact.setdefault(compact(symbol), []).append(symbol)

    def find(self, written: str) -> str | None:
        """The symbol with this canonical name, else the only one with this compact name; None without one.

        Blanks around the name and small letters do not count.
        """
        name = written.strip().upper()
        if name in self._symbols:
            return name
        found = self._by_compact.get(name, ())
        return found[0] if len(found) == 1 else None

    def alike(self, symbol: str) -> Sequence[str]:
        """The symbols that have the compact name of `symbol`; it may be one of them."""
        return self._by_compact.get(compact(symbol), ())

    def ambiguous(self) -> Sequence[Sequence[str]]:
        """The symbols that have one compact name, together."""
        return [found for found in self._by_compact.values() if len(found) > 1]
