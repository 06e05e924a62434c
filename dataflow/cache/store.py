"""The memory of one shard: the logs of its symbols, and what it did with all items.

Rules of this file: pure, like `history`. Items of a symbol stay in order. A run of trades that needs no
judgement is admitted as a whole; any other is halved until the rest is judged one by one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, TypeGuard

from attrs import define, field

from dataflow.domain import Item, Missed, Refilled, Switched, Trade

from .history import History, Stored
from .holding import Holds
from .verdict import Verdict

_FEW: Final = 4  # trades that cost less one by one than as a run
_RARE: Final = (Refilled, Switched)
_USED: Final = frozenset({Verdict.ADMITTED, Verdict.DUPLICATE, Verdict.FILLED, Verdict.HELD})


@define(repr=False)
class Store:
    """The histories of the symbols of one shard. Each is made when its symbol is first named.

    `counts`: the number of trades and marks by (source, verdict). A trade that waits counts twice: as held,
    and as admitted when it has gone on. `refused` is called with each trade that is not used, and is no
    duplicate. It must not raise. `streams`: what is stored of each symbol; its log goes on. `staged(symbol)`
    is called when fills are staged, for whoever writes and settles them. None: there is no disk, and they are
    settled at once.

    `holds`: whether trades wait for missing ones, and who is told.
    """

    epoch: int
    max_trades: int
    max_age: float
    refused: Callable[[Trade, Verdict], None] | None = None
    staged: Callable[[str], object] | None = field(default=None, kw_only=True)
    streams: Mapping[str, Stored] = field(factory=dict, kw_only=True)
    holds: Holds = field(factory=Holds, kw_only=True)
    counts: Counter[tuple[str, str]] = field(init=False)
    _histories: dict[str, History] = field(init=False, factory=dict)
    _filled: set[str] = field(init=False, factory=set)  # by the batch in hand
    _now: float = field(init=False, default=float("-inf"))  # of the last batch, for items of it that are lost

    def __attrs_post_init__(self) -> None:
        self.counts = self.holds.counts

    def history(self, symbol: str, now: float | None = None) -> History:
        """The history of `symbol`. With `now`, trades that are too old are forgotten first.

        It is made when there is none, so the caller must know that the symbol exists.
        """
        found = self._histories.get(symbol)
        if found is None:
            found = self._histories[symbol] = self._begun(symbol)
        if now is not None:
            found.expire(now)
        return found

    def _begun(self, symbol: str) -> History:
        stored = self.streams.get(symbol)
        bounds = self.epoch, self.max_trades, self.max_age
        if stored is None:
            return History(*bounds, holds=self.holds)
        return History.going_on(*bounds, stored.last, stored.epochs, self.holds)

    def symbols(self) -> list[str]:
        """The symbols that have a history."""
        return list(self._histories)

    def came(self) -> dict[str, int]:
        """How many trades of each symbol took a place of their own since this process began."""
        return {symbol: log.came for symbol, log in self._histories.items()}

    def admit(self, items: Sequence[Item], now: float) -> set[str]:
        """Offer items; those of one symbol stay in order. Returns the symbols whose logs have news."""
        self._now = now
        grown = self._offer(items, now)
        if self._filled:
            self._settle()
        return grown

    def _settle(self) -> None:
        """At the end of a batch, so that what comes together is told together."""
        filled, self._filled = self._filled, set()
        for symbol in filled:
            if self.staged is None:
                self.history(symbol).settle()
            else:
                self.staged(symbol)

    def _offer(self, items: Sequence[Item], now: float) -> set[str]:
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
        """Offer trades of one source. A run that must be judged is halved: few trades go one by one.

        Trades that another connection brought before are passed over at once: the later of two lines
        brings nothing else.
        """
        if len(trades) < _FEW:
            return self._offer_each(log, trades, now)
        if log.admit_run(trades, now):
            self.counts[trades[0].source, Verdict.ADMITTED.value] += len(trades)
            return True
        if repeated := log.repeated(trades):
            self.counts[trades[0].source, Verdict.DUPLICATE.value] += repeated
            return repeated < len(trades) and self._offer_run(log, trades[repeated:], now)
        middle = len(trades) // 2
        grown = self._offer_run(log, trades[:middle], now)
        return self._offer_run(log, trades[middle:], now) or grown

    def _offer_each(self, log: History, items: Iterable[Item], now: float) -> bool:
        last, filled = log.last, False
        for item in items:
            if isinstance(item, _RARE):
                filled = self._offer_rare(log, item, now) or filled
                continue
            verdict = log.admit(item, now)
            self.counts[item.source, verdict.value] += 1
            if verdict is not Verdict.ADMITTED:
                filled = self._judged(item, verdict) or filled
        return filled or log.last > last

    def _offer_rare(self, log: History, item: Refilled | Switched, now: float) -> bool:
        """Offer what is no trade by itself. Returns whether a gap is filled."""
        if isinstance(item, Switched):
            log.switch(item, now)
            self.counts[item.source, Verdict.NOTED.value] += 1
            return False
        filled = False
        for trade, verdict in log.refill(item, now):
            self.counts[trade.source, verdict.value] += 1
            filled = self._judged(trade, verdict) or filled
        return filled

    def _judged(self, item: Trade | Missed, verdict: Verdict) -> bool:
        """Tell of what was not admitted. Returns whether a gap is filled."""
        if verdict is Verdict.FILLED:
            self._filled.add(item.symbol)
            return True
        if self.refused and isinstance(item, Trade) and verdict not in _USED:
            self.refused(item, verdict)
        return False

    @property
    def waiting(self) -> int:
        """The number of trades that wait for missing ones."""
        return sum(log.waiting for log in self._histories.values())

    def release(self, is_due: Callable[[str], bool] = lambda _source: True) -> set[str]:
        """What waits of these sources goes on, behind its gaps. Returns the symbols whose logs have grown."""
        grown = set()
        for symbol, log in self._histories.items():
            last = log.last
            log.release(self._now, is_due)
            if log.last > last:
                grown.add(symbol)
        return grown

    def lost(self, items: Iterable[Item]) -> set[str]:
        """A batch was lost in a crash, perhaps after a part of it was admitted.

        Returns the symbols of all its items: readers have not been told of the admitted part.
        """
        touched = set()
        for item in items:
            log = self.history(item.symbol)
            if isinstance(item, Switched):
                self._offer_each(log, (item,), self._now)  # a mark loses nothing by coming late, or twice
            else:
                log.lost(item, self._now)
            touched.add(item.symbol)
        if self._filled:
            self._settle()
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
