"""Observations during a rehearsal, and the inventory of tasks and sockets after it.

Rules of this file. It only observes: it changes nothing but the figures. Times are on Trio's clock.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Final

import trio
from attrs import define, field

from dataflow import paths
from dataflow.core import Core
from dataflow.domain import Gap, Trade
from dataflow.sources.state import Audience
from supervisors import Event, Handle

from .check import Admitted, Figures, Seen, unbalanced

LOOK_EVERY: Final = 0.05  # seconds between two looks
ENOUGH: Final = 100  # unbalanced mailboxes; after so many the checks stop
READ_AT_ONCE: Final = 10_000
ENDS_WITHIN: Final = 2.0  # seconds for tasks and sockets to end after the rehearsal


@define(eq=False)
class Watch:
    """Counts crashes and restarts, and measures the time until a lost actor or source is back."""

    figures: Figures
    _lost: dict[str, float] = field(factory=dict)

    def __call__(self, event: Event) -> None:
        """Take one event of the tree."""
        path = event.path
        if paths.below(paths.SESSIONS, path):
            return
        if event.kind in ("crash", "start_failed"):
            self.figures.crashes[path] += 1
        if event.kind in ("crash", "start_failed", "stopped") and not paths.below(paths.SOURCES, path):
            self._lost.setdefault(path, event.at)
        if event.kind == "ready":
            if event.epoch > 1:
                self.figures.restarts[path] += 1
            if not paths.below(paths.SOURCES, path):  # epoch 1 too: a topic of a pool that was restarted
                self.back(path)

    def lost(self, path: str) -> None:
        """The actor or source at `path` is away from now on."""
        self._lost.setdefault(path, trio.current_time())

    def back(self, path: str) -> None:
        """The actor or source at `path` is back."""
        if path in self._lost:
            self.figures.recovery.append((path, trio.current_time() - self._lost.pop(path)))


@define(eq=False)
class Books:
    """Checks that the counters of all mailboxes add up: periodically, and after every event of the tree."""

    figures: Figures
    root: Handle | None = None

    def look(self) -> None:
        """Check all mailboxes once."""
        if self.root is not None and len(self.figures.unbalanced) < ENOUGH:
            self.figures.balances += 1
            self.figures.unbalanced += unbalanced(self.root.tree().to_dict())


@define(eq=False)
class Overheard(Audience):
    """Observes the connections of sources. A source is back with its connection, not with its actor."""

    audience: Audience
    watch: Watch

    def lost(self, source: str, reason: str, symbols: Collection[str]) -> None:
        self.watch.lost(paths.source(source))
        self.audience.lost(source, reason, symbols)

    def restored(self, source: str, symbols: Collection[str], away: float) -> None:
        self.watch.back(paths.source(source))
        self.audience.restored(source, symbols, away)

    def connected(self, source: str, address: str, symbols: Collection[str]) -> None:
        self.audience.connected(source, address, symbols)

    def refused(self, source: str, symbol: str, reason: str) -> None:
        self.audience.refused(source, symbol, reason)

    def accepted(self, source: str, symbol: str) -> None:
        self.audience.accepted(source, symbol)

    def stalled(self, source: str, symbol: str, reason: str) -> None:
        self.audience.stalled(source, symbol, reason)

    def recovered(self, source: str, symbol: str) -> None:
        self.audience.recovered(source, symbol)

    def renumbered(self, source: str, symbol: str) -> None:
        self.audience.renumbered(source, symbol)

    def problem(self, source: str, reason: str, excerpt: str) -> None:
        self.audience.problem(source, reason, excerpt)

    def given_rest(self, source: str, failures: int, seconds: float) -> None:
        self.audience.given_rest(source, failures, seconds)

    def switched(self, symbol: str, epoch: int, offset: int, before: str, source: str, reason: str) -> None:
        self.audience.switched(symbol, epoch, offset, before, source, reason)

    def symbols_changed(self, added: Collection[str], removed: Collection[str]) -> None:
        self.audience.symbols_changed(added, removed)


@define(eq=False)
class Records:
    """The admitted trades and gaps, read from the daemon's histories before the histories forget them."""

    core: Core
    admitted: dict[str, Admitted] = field(factory=dict)
    closed: bool = False

    def close(self) -> None:
        """Read to the end. Later trades do not count, because the clients are compared now."""
        self.read()
        self.closed = True

    def read(self) -> int:
        """Read the new entries. Returns the number of all trades so far."""
        if not self.closed:
            for symbol in self.core.symbols:
                self._read(symbol, self.admitted.setdefault(symbol, Admitted()))
        return sum(len(each.trades) for each in self.admitted.values())

    def _read(self, symbol: str, into: Admitted) -> None:
        history = self.core.history(symbol)
        while entries := history.read(into.last, READ_AT_ONCE):
            for entry in entries:
                if isinstance(entry, Gap):
                    into.gap(entry.first, entry.last, entry.reason)
                else:
                    into.trade(entry.offset, seen(entry.trade), entry.trade.timestamp)
        for number, places in history.fills_behind(into.fills):
            into.fills = number
            for offset, trade in places:
                into.fill(offset, seen(trade), trade.timestamp)


def seen(trade: Trade) -> Seen:
    """A trade of the daemon in the form that the verdict compares."""
    return Seen(trade.source, trade.trade_id, trade.side, trade.price, trade.quantity)


def inventory() -> dict[str, int]:
    """The number of living tasks, and of open sockets where the system shows them (Linux)."""
    counted = {"tasks": trio.lowlevel.current_statistics().tasks_living}
    descriptors = Path("/proc/self/fd")
    if descriptors.is_dir():
        counted["sockets"] = sum(_is_socket(each) for each in descriptors.iterdir())
    return counted


def _is_socket(descriptor: Path) -> bool:
    try:
        return os.readlink(descriptor).startswith("socket:")
    except OSError:  # closed meanwhile: it was the descriptor of the listing itself
        return False


async def look_for_the_rest(before: dict[str, int], figures: Figures) -> None:
    """Wait until the inventory is that of `before`. After ENDS_WITHIN the differences are a finding."""
    with trio.move_on_after(ENDS_WITHIN):
        while inventory() != before:  # noqa: ASYNC110 - there is no event for this
            await trio.sleep(LOOK_EVERY)
        return
    after = inventory()
    figures.left_behind += (
        f"{after[what]} {what}, {count} before" for what, count in before.items() if after[what] != count
    )
