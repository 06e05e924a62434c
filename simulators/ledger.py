"""Checks that one client gets from each symbol's stream what dataflow promises. Pure.

Rule 1: offsets grow by one within an epoch. Anything else is a finding, and findings are counted by kind.
Rule 2: a gap that the server announces (`stream.gap`) is counted apart from a silent gap.
Rule 3: source and id identify a trade. The same trade at another offset is a duplicate too.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import Any

from attrs import define, field

REMEMBERED_IDS = 10_000


@define
class _Position:
    epoch: Any
    offset: int | None
    ids: OrderedDict[tuple[str, str], None] = field(factory=OrderedDict)


@define
class Ledger:
    """The position in each symbol's stream. `trades` counts trades.

    `findings` counts by kind: gap, duplicate, disorder, announced_gap, new_epoch.
    """

    findings: Counter[str] = field(factory=Counter)
    trades: int = 0
    _positions: dict[str, _Position] = field(factory=dict)

    def since(self, symbol: str) -> dict[str, Any] | None:
        """The position to resume from, `{epoch, offset}`, or None when it is not known."""
        at = self._positions.get(symbol)
        return None if at is None or at.offset is None else {"epoch": at.epoch, "offset": at.offset}

    def subscribed(self, answer: dict[str, Any]) -> list[str]:
        """Check the answer to `subscribe`, with its trades if it has any; returns a line for each finding."""
        symbol, epoch, last = answer["symbol"], answer.get("epoch"), answer.get("offset")
        at = self._positions.get(symbol)
        if at is None:
            self._positions[symbol] = at = _Position(epoch, None)
        lines = self._adopt(symbol, at, epoch, resumed=answer.get("recovered"))
        for trade in answer.get("trades") or []:
            lines += self.trade({"symbol": symbol, **trade})
        if at.offset is None or answer.get("recovered") is False:
            at.offset = last
        elif last is not None and at.offset < last:
            told = f"{symbol}: the answer stops at {at.offset}, its offset is {last}"
            lines.append(self._found("gap", told))
            at.offset = last
        return lines

    def _adopt(self, symbol: str, at: _Position, epoch: Any, *, resumed: bool | None) -> list[str]:
        lines = []
        if at.offset is not None and at.epoch != epoch:
            lines.append(self._found("new_epoch", f"{symbol}: epoch {epoch} after {at.epoch}"))
            at.offset = None
        elif resumed is False:
            lines.append(self._found("announced_gap", f"{symbol}: not recovered from offset {at.offset}"))
            at.offset = None
        at.epoch = epoch
        return lines

    def trade(self, update: dict[str, Any]) -> list[str]:
        """Check one trade; returns a line for each finding."""
        symbol, offset = update["symbol"], update["offset"]
        self.trades += 1
        at = self._positions.setdefault(symbol, _Position(None, None))
        lines = self._check_offset(symbol, at, offset) + self._check_id(symbol, at, update)
        at.offset = offset if at.offset is None else max(at.offset, offset)
        return lines

    def _check_offset(self, symbol: str, at: _Position, offset: int) -> list[str]:
        if at.offset is None or offset == at.offset + 1:
            return []
        if offset > at.offset:
            missing = f"{at.offset + 1} to {offset - 1}" if offset > at.offset + 2 else f"{offset - 1}"
            return [self._found("gap", f"{symbol}: offset {missing} never came")]
        return [self._found("disorder", f"{symbol}: offset {offset} after {at.offset}")]

    def _check_id(self, symbol: str, at: _Position, update: dict[str, Any]) -> list[str]:
        key = str(update.get("source")), str(update.get("tradeId"))
        known = key in at.ids
        at.ids[key] = None
        while len(at.ids) > REMEMBERED_IDS:
            at.ids.popitem(last=False)
        return [self._found("duplicate", f"{symbol}: trade {key[1]} of {key[0]} again")] if known else []

    def gap(self, notice: dict[str, Any]) -> list[str]:
        """Take a `stream.gap` notice, and expect the offset behind it next; returns findings as lines."""
        symbol, end = notice["symbol"], notice.get("to")
        at = self._positions.setdefault(symbol, _Position(None, None))
        lines = self._check_offset(symbol, at, notice["from"])
        at.epoch, at.offset = notice.get("epoch", at.epoch), end
        told = f"{symbol}: offsets {notice['from']} to {end} will not come ({notice.get('reason')})"
        return [*lines, self._found("announced_gap", told)]

    def _found(self, kind: str, text: str) -> str:
        self.findings[kind] += 1
        return f"{kind.upper()} {text}"
