"""An archive in memory: the simplest thing that keeps the promises of `dataflow.cache.archive`."""

from __future__ import annotations

from collections.abc import Mapping

from dataflow.cache.archive import (
    ArchiveFailed,
    BarRow,
    Batch,
    Checkpoint,
    Contents,
    Keep,
    Places,
    Run,
    Stream,
    Usage,
)
from dataflow.domain import Gap, Recorded, Trade
from dataflow.domain.entries import unpack


class MemoryArchive:
    """What is written survives `crash` and `close`. `broken`: every method fails with these words."""

    def __init__(self) -> None:
        self.broken: str | None = None
        self.commits = 0
        self.damaged = 0
        self.lost: list[str] = []
        self.guess = 3  # places by which `skip` stays below what it has found: a store only knows its blocks
        self._is_closed = False
        self._epoch = 0
        self._is_clean = True
        self._chains: dict[str, list[tuple[int, int]]] = {}
        self._entries: dict[str, list[tuple[int, Trade | Gap]]] = {}
        self._bars: dict[tuple[str, int, int], BarRow] = {}
        self._checkpoints: dict[tuple[str, str], Checkpoint] = {}

    def open(self) -> Contents:
        self._is_closed = False
        self._check()
        return Contents(
            self._epoch,
            self._is_clean,
            {
                symbol: Stream(self._first(symbol), self._last(symbol), tuple(chain))
                for symbol, chain in self._chains.items()
            },
        )

    def begin(self, epoch: int) -> None:
        self._check()
        assert epoch >= self._epoch
        if epoch > self._epoch:
            for symbol, chain in self._chains.items():
                chain.append((epoch, self._last(symbol) + 1))
        self._epoch, self._is_clean = epoch, False

    def append(self, batch: Batch) -> None:
        self._check()
        for run in batch.runs:
            self._put(run)
        for bar in batch.bars:
            known = self._bars.get((bar.symbol, bar.width, bar.start))
            if known is None or known.rev < bar.rev:
                self._bars[bar.symbol, bar.width, bar.start] = bar
        for point in batch.checkpoints:
            self._checkpoints[point.name, point.symbol] = point
        self.commits += 1

    def _put(self, run: Run) -> None:
        written = unpack(run.data, run.count, run.first)
        chain = self._chains.setdefault(run.symbol, [(self._epoch, 1)])
        assert chain[-1][0] == self._epoch
        entries = self._entries.setdefault(run.symbol, [])
        if not run.is_fill:
            last = self._last(run.symbol)
            for place, entry in written:
                is_cut = isinstance(entry, Gap) and entry.first <= last < place
                if place > last:
                    entries.append((place, entry.part(last + 1, place) if is_cut else entry))  # type: ignore[union-attr]
            return
        made: list[tuple[int, Trade | Gap]] = []
        for last, entry in entries:
            if not isinstance(entry, Gap) or last < run.first or entry.first > run.last:
                made.append((last, entry))
                continue
            if entry.first < run.first:
                made.append((run.first - 1, entry.part(entry.first, run.first - 1)))
            made += [place for place in written if entry.first <= place[0] <= last]
            if last > run.last:
                made.append((last, entry.part(run.last + 1, last)))
        self._entries[run.symbol] = made

    def behind(self, symbol: str, after: int, limit: int) -> Places:
        self._check()
        return [place for place in self._entries.get(symbol, ()) if place[0] > after][:limit]

    def newest(self, symbol: str, count: int, below: int) -> Places:
        found: list[tuple[int, Trade | Gap]] = []
        for place in reversed(self.behind(symbol, 0, 1 << 60)):
            if place[0] < below and count:
                found.append(place)
                count -= isinstance(place[1], Trade)
        while found and isinstance(found[-1][1], Gap):
            found.pop()
        return found[::-1]

    def gaps(self, symbol: str, below: int, limit: int) -> list[Gap]:
        entries = [entry for last, entry in reversed(self.behind(symbol, 0, 1 << 60)) if last < below]
        return [e for e in entries if isinstance(e, Gap) and e.exact and e.sequence is not None][:limit]

    def skip(self, symbol: str, after: int, start: int, end: int) -> int:
        places = self.behind(symbol, after, 1 << 60)
        for last, entry in places:
            if isinstance(entry, Trade) and start <= entry.timestamp < end:
                return max(after, last - self.guess)
        return max(after, self._last(symbol))

    def ascending(self, symbol: str, after: int, count: int, below: int) -> list[Recorded]:
        return _page([each for each in self._in_time(symbol, below) if _us(each) > after // 1000], count)

    def descending(self, symbol: str, before: int | None, count: int, below: int) -> list[Recorded]:
        trades = reversed(self._in_time(symbol, below))
        return _page([each for each in trades if before is None or _us(each) < before // 1000], count)

    def latest(self, symbol: str, below: int) -> int | None:
        return max([each.trade.timestamp for each in self._in_time(symbol, below)], default=None)

    def bars(self, symbol: str, width: int, start: int, end: int, limit: int) -> list[BarRow]:
        self._check()
        bars = [
            bar for key, bar in self._bars.items() if key[:2] == (symbol, width) and start <= key[2] < end
        ]
        return sorted(bars, key=lambda bar: bar.start)[:limit]

    def checkpoints(self, name: str) -> dict[str, Checkpoint]:
        self._check()
        return {symbol: point for (whose, symbol), point in self._checkpoints.items() if whose == name}

    def retain(self, keep: Keep, today: str) -> Mapping[str, int]:
        self._check()
        changed: dict[str, int] = {}
        for symbol, entries in self._entries.items():
            trades = [at for at, (_, entry) in enumerate(entries) if isinstance(entry, Trade)]
            if 0 < keep.trades < len(trades):
                del entries[: trades[-keep.trades]]
                changed[symbol] = self._first(symbol)
        return changed

    def make_room(self, today: str) -> Mapping[str, int] | None:
        self._check()
        return None

    def usage(self) -> Usage:
        self._check()
        return Usage(sum(map(len, self._entries.values())), None, None)

    def verify(self) -> list[str]:
        self._check()
        return []

    def close(self, clean: bool) -> None:
        if not self._is_closed:
            self._is_clean, self._is_closed = clean, True

    def lose(self, symbol: str, first: int, last: int) -> None:
        """Damage: these places are gone."""
        self.damaged += 1
        self._entries[symbol] = [place for place in self._entries[symbol] if not first <= place[0] <= last]

    def _check(self) -> None:
        if self.broken is not None:
            raise ArchiveFailed(self.broken)
        if self._is_closed:
            raise ArchiveFailed("it is closed")

    def _in_time(self, symbol: str, below: int) -> list[Recorded]:
        places = self.behind(symbol, 0, 1 << 60)
        trades = [Recorded(n, each) for n, each in places if isinstance(each, Trade) and n < below]
        return sorted(trades, key=lambda each: (_us(each), each.offset))

    def _first(self, symbol: str) -> int:
        for last, entry in self._entries.get(symbol, ()):
            return entry.first if isinstance(entry, Gap) else last
        return self._last(symbol) + 1

    def _last(self, symbol: str) -> int:
        entries = self._entries.get(symbol)
        return entries[-1][0] if entries else 0


def _us(recorded: Recorded) -> int:
    return recorded.trade.timestamp // 1000


def _page(trades: list[Recorded], count: int) -> list[Recorded]:
    while count < len(trades) and count and _us(trades[count]) == _us(trades[count - 1]):
        count += 1
    return trades[:count]
