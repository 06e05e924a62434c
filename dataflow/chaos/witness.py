"""What is seen of a rehearsal while it runs, and what is left of it.

Rules of this file. It looks and counts, and changes nothing but the figures. Times are Trio's.
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
from supervisors import Event
from supervisors.handle import Handle

from .check import Admitted, Figures, Seen, unbalanced

LOOK_EVERY: Final = 0.05  # seconds between two looks
ENOUGH: Final = 100  # mailboxes that did not balance: no more are looked for
READ_AT_ONCE: Final = 10_000
ENDS_WITHIN: Final = 2.0  # seconds for tasks and sockets to end behind the rehearsal


@define(eq=False)
class Watch:
    """Counts crashes and restarts, and how long whoever was lost was away."""

    figures: Figures
    _lost: dict[str, float] = field(factory=dict)

    def __call__(self, event: Event) -> None:
        """One thing that happened in the tree."""
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

    def lost(self, who: str) -> None:
        """Somebody is away from now on."""
        self._lost.setdefault(who, trio.current_time())

    def back(self, who: str) -> None:
        """Somebody is back."""
        if who in self._lost:
            self.figures.recovery.append((who, trio.current_time() - self._lost.pop(who)))


@define(eq=False)
class Books:
    """Looks at the mailboxes: now and then, and whenever something has just happened."""

    figures: Figures
    root: Handle | None = None

    def look(self) -> None:
        """Do they add up?"""
        if self.root is not None and len(self.figures.unbalanced) < ENOUGH:
            self.figures.balances += 1
            self.figures.unbalanced += unbalanced(self.root.tree().to_dict())


@define(eq=False)
class Overheard(Audience):
    """A source is back when its connection is, not when its connector runs again."""

    audience: Audience
    watch: Watch

    def lost(self, source: str, reason: str, symbols: Collection[str]) -> None:
        self.watch.lost(paths.source(source))
        self.audience.lost(source, reason, symbols)

    def restored(self, source: str, symbols: Collection[str]) -> None:
        self.watch.back(paths.source(source))
        self.audience.restored(source, symbols)

    def problem(self, source: str, reason: str, excerpt: str) -> None:
        self.audience.problem(source, reason, excerpt)


@define(eq=False)
class Records:
    """What the daemon admitted, read from its histories before they can forget it."""

    core: Core
    admitted: dict[str, Admitted] = field(factory=dict)
    closed: bool = False

    def close(self) -> None:
        """Read to the end; what comes now comes after the clients were asked."""
        self.read()
        self.closed = True

    def read(self) -> int:
        """Read on; how many trades there are by now."""
        if not self.closed:
            for symbol in self.core.symbols:
                self._read(symbol, self.admitted.setdefault(symbol, Admitted()))
        return sum(len(each.trades) for each in self.admitted.values())

    def _read(self, symbol: str, into: Admitted) -> None:
        while entries := self.core.history(symbol).read(into.last, READ_AT_ONCE):
            for entry in entries:
                if isinstance(entry, Gap):
                    into.gap(entry.first, entry.last, entry.reason)
                else:
                    into.trade(entry.offset, seen(entry.trade))


def seen(trade: Trade) -> Seen:
    """A trade of the daemon as the verdict compares it."""
    return Seen(trade.source, trade.trade_id, trade.side, trade.price, trade.quantity)


def inventory() -> dict[str, int]:
    """Living tasks, and open sockets where the system tells (Linux)."""
    counted = {"tasks": trio.lowlevel.current_statistics().tasks_living}
    descriptors = Path("/proc/self/fd")
    if descriptors.is_dir():
        counted["sockets"] = sum(_is_socket(each) for each in descriptors.iterdir())
    return counted


def _is_socket(descriptor: Path) -> bool:
    try:
        return os.readlink(descriptor).startswith("socket:")
    except OSError:  # closed meanwhile: the listing's own
        return False


async def look_for_the_rest(before: dict[str, int], figures: Figures) -> None:
    """Compare the inventory with that of `before`, once everything has had its time to end."""
    with trio.move_on_after(ENDS_WITHIN):
        while inventory() != before:  # noqa: ASYNC110 - nobody tells
            await trio.sleep(LOOK_EVERY)
        return
    after = inventory()
    figures.left_behind += (
        f"{after[what]} {what}, {count} before" for what, count in before.items() if after[what] != count
    )
