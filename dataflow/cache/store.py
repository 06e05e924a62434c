"""The memory of one shard: the histories of its symbols.

Rules of this file. Pure: no clock, no I/O, no trio; `now` is given. The store only decides which items it
offers to a history together. `History` alone judges them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeGuard

from attrs import Factory, define, field

from dataflow.domain import Item, Trade

from .history import History, Verdict

_FEW: Final = 4  # trades that cost less one by one than as a run


@define
class Store:
    """The histories of the symbols of one shard. Each is made when its symbol is first named.

    `counts`: the number of items by (source, verdict). `refused` is called with each trade that is neither
    admitted nor a duplicate. It must not raise.
    """

    epoch: int
    max_trades: int
    max_age: float
    refused: Callable[[Trade, Verdict], None] | None = None
    counts: Counter[tuple[str, str]] = field(init=False, default=Factory(Counter))
    _histories: dict[str, History] = field(init=False, factory=dict)
    _now: float = field(init=False, default=float("-inf"))  # of the last batch, for items of it that are lost

    def history(self, symbol: str, now: float | None = None) -> History:
        """The history of `symbol`. With `now`, trades that are too old are forgotten first.

        It is made when there is none, so the caller must know that the symbol exists.
        """
        found = self._histories.get(symbol)
        if found is None:
            found = self._histories[symbol] = History(self.epoch, self.max_trades, self.max_age)
        if now is not None:
            found.expire(now)
        return found

    def symbols(self) -> list[str]:
        """The symbols that have a history."""
        return list(self._histories)

    def admit(self, items: Sequence[Item], now: float) -> set[str]:
        """Offer items; those of one symbol stay in order. Returns the symbols whose logs have grown."""
        self._now = now
        if len(items) < _FEW:
            return {
                item.symbol for item in items if self._offer_each(self.history(item.symbol), (item,), now)
            }
        grown = set()
        for symbol, some in _by_symbol(items).items():
            log = self.history(symbol)
            has_grown = self._offer_run(log, some, now) if _is_run(some) else self._offer_each(log, some, now)
            if has_grown:
                grown.add(symbol)
        return grown

    def _offer_run(self, log: History, trades: Sequence[Trade], now: float) -> bool:
        """Offer trades of one source. A run that must be judged is halved: few trades go one by one."""
        if len(trades) < _FEW:
            return self._offer_each(log, trades, now)
        if log.admit_run(trades, now):
            self.counts[trades[0].source, Verdict.ADMITTED.value] += len(trades)
            return True
        middle = len(trades) // 2
        grown = self._offer_run(log, trades[:middle], now)
        return self._offer_run(log, trades[middle:], now) or grown

    def _offer_each(self, log: History, items: Iterable[Item], now: float) -> bool:
        grown = False
        for item in items:
            verdict = log.admit(item, now)
            self.counts[item.source, verdict.value] += 1
            if verdict is Verdict.ADMITTED:
                grown = True
            elif self.refused and isinstance(item, Trade) and verdict is not Verdict.DUPLICATE:
                self.refused(item, verdict)
        return grown

    def lost(self, items: Iterable[Item]) -> set[str]:
        """A batch was lost in a crash, perhaps after a part of it was admitted.

        Returns the symbols of all its items: readers have not been told of the admitted part.
        """
        touched = set()
        for item in items:
            self.history(item.symbol).lost(item, self._now)
            touched.add(item.symbol)
        return touched


def _by_symbol(items: Sequence[Item]) -> dict[str, Sequence[Item]]:
    symbols = dict.fromkeys([item.symbol for item in items])
    if len(symbols) == 1:
        return dict.fromkeys(symbols, items)
    found: dict[str, list[Item]] = {symbol: [] for symbol in symbols}
    for item in items:
        found[item.symbol].append(item)
    return {**found}


def _is_run(items: Sequence[Item]) -> TypeGuard[Sequence[Trade]]:
    """Whether all items are trades of one source."""
    return set(map(type, items)) == {Trade} and len({item.source for item in items}) == 1
