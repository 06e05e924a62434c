"""How trades and notices look in a terminal: the same words and columns in `tail` and in `client`.

Rules of this file: no I/O. The decimal points of all prices stand below each other, and so do those of all
quantities. A number has as many decimals as the longest one of its symbol so far: zeros at its end come and
go, no other digit does. Text from outside is shown as text, never as an escape code.
"""

from __future__ import annotations

import json
from collections import defaultdict
from decimal import Decimal
from typing import Any, Final

from dataflow.client import Trade
from dataflow.logs.terminal import disarmed, painted

GREEN, RED, YELLOW, DIM = "32", "31", "33", "2"
COLOURS: Final = {"buy": GREEN, "sell": RED}
WIDTH: Final = 9  # characters of a symbol, when nobody knows which ones come
_PRICE, _QUANTITY, _DECIMALS = 8, 7, 8  # digits before the points, and behind them


class Columns:
    """The lines of one terminal. `symbol_width`: characters of the longest symbol."""

    def __init__(self, symbol_width: int = WIDTH, coloured: bool = False) -> None:
        self._width = symbol_width
        self._coloured = coloured
        self._prices: defaultdict[str, Digits] = defaultdict(lambda: Digits(_PRICE))
        self._quantities: defaultdict[str, Digits] = defaultdict(lambda: Digits(_QUANTITY))

    def trade(self, trade: Trade) -> str:
        """The line of a trade: time, symbol, side, price, quantity, source and place."""
        side = trade.side or "-"
        colour = COLOURS.get(side, YELLOW)
        columns = (
            self._painted(f"{trade.timestamp:%H:%M:%S.%f}"[:12], DIM),
            f"{disarmed(trade.symbol):<{self._width}}",
            self._painted(f"{disarmed(side):<4}", colour),
            self._painted(self._prices[trade.symbol].aligned(trade.price), colour),
            self._quantities[trade.symbol].aligned(trade.quantity),
            self._painted(f"{disarmed(trade.source)} #{trade.offset}", DIM),
        )
        return " ".join(columns)

    def news(self, text: str) -> str:
        """A line between the trades."""
        return self._painted(f"-- {disarmed(text)}", YELLOW)

    def _painted(self, text: str, colour: str) -> str:
        return painted(text, colour, self._coloured)


class Digits:
    """The numbers of one symbol. `whole`: columns before the decimal point."""

    def __init__(self, whole: int) -> None:
        self._whole = whole
        self._decimals = 0  # of the longest number so far

    def aligned(self, number: Decimal) -> str:
        """`number` with its decimal point in column `whole`, and blanks for up to eight decimals."""
        before, _, after = f"{number:f}".partition(".")
        after = after.rstrip("0")
        self._decimals = max(self._decimals, len(after))
        point = "." if self._decimals else " "
        return f"{before:>{self._whole}}{point}{after.ljust(self._decimals, '0'):<{_DECIMALS}}"


def in_words(method: str, told: dict[str, Any]) -> str:
    """A notification in a sentence."""
    match method:
        case "stream.gap":
            first, last = told.get("from"), told.get("to")
            if first == 0:  # no place of the stream: what lies before the first one that is left
                return f"{told.get('symbol')}: trades are missing here, the daemon no longer has them"
            return f"{told.get('symbol')}: #{_places(first, last)} did not come ({told.get('reason')})"
        case "stream.filled":
            return f"{told.get('symbol')}: #{_places(told.get('from'), told.get('to'))} came after all"
        case "stream.rewind":
            why = "the daemon crashed before it was kept"
            return f"{told.get('symbol')}: forget all behind #{told.get('offset')}, {why}"
        case "stream.started":
            return f"{told.get('symbol')}: new here"
        case "stream.switched":
            told_by, after = told.get("to"), told.get("offset")
            return f"{told.get('symbol')}: from {told_by} behind #{after} ({told.get('reason')})"
        case "symbols.changed":
            added, removed = told.get("added") or [], told.get("removed") or []
            return "symbols: " + ", ".join(
                [*(f"{s} is new" for s in added), *(f"{s} is gone" for s in removed)]
            )
        case "connection.lost":
            return f"{told.get('source')}: connection lost ({told.get('reason')})"
        case "connection.restored":
            return f"{told.get('source')}: connection restored"
        case "connection.draining":
            return "the daemon is going away"
        case "connection.waiting":
            return f"waiting for {told.get('seconds')} s, {told.get('ahead')} others go first"
        case "connection.refused":
            return f"no room: {told.get('reason')}"
        case _:
            return f"{method} {json.dumps(told, ensure_ascii=False, default=str)}"


def _places(first: Any, last: Any) -> str:
    return f"{first}" if first == last else f"{first} to {'?' if last is None else last}"
