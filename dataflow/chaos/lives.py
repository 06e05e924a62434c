"""The verdict over many lives of one daemon: what was told, what was on disk, and what is left in the end.

Rules of this file. Pure. The record is the stream as the daemon serves it in the end. Every client must hold
the record, place by place, from its first place on. What was on disk after a death must be in the record, at
its place. A client that held more than the disk must be told to go back to where the disk ended, and no other
client may be told so. What an exchange has sent must be in the record, or a gap must stand for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any, ClassVar, TypeAlias

from attrs import asdict, define, field

from .check import Account, Admitted, Findings, Seen, SourceAccount, quantiles

Disk: TypeAlias = Mapping[str, Mapping[int, Seen]]  # by symbol and place


@define
class Forks:
    """How far one client must go back: it is told at the first answer after a death."""

    _due: dict[str, int] = field(factory=dict)
    _told: Counter[str] = field(factory=Counter)  # rewinds that were looked at, by symbol

    def died(self, held: Mapping[str, int | None], on_disk: Mapping[str, int]) -> None:
        """The daemon is dead. `held`: the client's positions; `on_disk`: the last places of the record."""
        for symbol, last in on_disk.items():
            position = held[symbol]
            if position is not None and min(position, self._due.get(symbol, position)) > last:
                self._due[symbol] = last

    def served(self, symbols: Collection[str], rewinds: Mapping[str, list[int]]) -> Iterator[str]:
        """The client has the answers for these symbols. `rewinds`: all that it was ever told.

        Yields what is wrong with them.
        """
        for symbol in symbols:
            told = rewinds.get(symbol, [])[self._told[symbol] :]
            self._told[symbol] += len(told)
            due = [self._due.pop(symbol)] if symbol in self._due else []
            if told != due:
                yield f"{symbol}: told to go back to {told}, the disk ended at {due}"


@define
class Lives(Findings):
    """All results of a rehearsal of deaths."""

    WORDS: ClassVar = ("lost", "untold", "differing", "unsettled", "left_behind", "broken")

    ends: Counter[str] = field(factory=Counter)  # of lives: kill, stop
    early: int = 0  # deaths before all were served
    starts: list[float] = field(factory=list)  # seconds from a start until all clients were served
    sources: dict[str, SourceAccount] = field(factory=dict)
    gaps: Counter[str] = field(factory=Counter)  # of the record, by reason
    clients: dict[str, Account] = field(factory=dict)
    connections: dict[str, int] = field(factory=dict)
    made: dict[str, str] = field(factory=dict)  # of what, in words, by client that speaks JSON-RPC
    rewinds: Counter[str] = field(factory=Counter)  # by client
    filled: Counter[str] = field(factory=Counter)  # trades that came after all, by client
    on_disk: int = 0  # places that were found there after deaths
    lost: list[str] = field(factory=list)  # were on disk, and are not in the record
    untold: list[str] = field(factory=list)  # rewinds that were not told, or without need, or wrong
    differing: list[str] = field(factory=list)  # ways to read the record that differ
    unsettled: list[str] = field(factory=list)
    left_behind: list[str] = field(factory=list)
    broken: list[str] = field(factory=list)

    def found_on_disk(self, disk: Disk, record: Mapping[str, Admitted]) -> None:
        """Judge what was seen on disk after a death, by the record of the end."""
        for symbol, places in disk.items():
            self.on_disk += len(places)
            wrong = [at for at, trade in places.items() if record[symbol].trades.get(at) != trade]
            if wrong:
                self.lost.append(f"{symbol}: {len(wrong)} trades, the first at {min(wrong)}")

    def compare(self, how: str, record: Mapping[str, Admitted], other: Mapping[str, Admitted]) -> None:
        """Judge another way to read the record."""
        for symbol, one in record.items():
            two = other.get(symbol, Admitted())
            places = {*one.trades, *two.trades}
            wrong = [at for at in places if one.trades.get(at) != two.trades.get(at)]
            wrong += one.gap_places ^ two.gap_places
            if wrong:
                self.differing.append(f"{how}: {symbol} at {len(wrong)} places, the first {min(wrong)}")

    def to_dict(self) -> dict[str, Any]:
        """All results as plain values, ready for JSON."""
        plain = asdict(self) | {"starts": quantiles(self.starts)}
        return {"held": self.held, "violations": dict(self.violations), "evidence": self.evidence, **plain}
