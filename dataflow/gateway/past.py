"""What came before, as it stands in an answer: encoded once for all who ask.

Rules of this file: no I/O, no clock. A trade never changes and its offset is never used again, so its text is
kept for whoever asks next: those who come back at once have all missed the same. What is kept is bounded;
beyond that all of it is dropped, and encoded anew when somebody asks.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from attrs import define, field

from dataflow.domain import Entry, Gap
from dataflow.faces.jsonrpc import format as wire

KEPT_TEXTS = 50_000  # trades, of all symbols together: some 15 MB


class Past:
    """Texts of trades that were asked for lately. `most`: how many are kept."""

    def __init__(self, most: int = KEPT_TEXTS) -> None:
        self._most = most
        self._texts: dict[str, dict[int, bytes]] = {}  # by symbol and offset

    def part(self, symbol: str, after: int = 0) -> Part:
        """A part of the past of `symbol`, empty as yet, that begins behind offset `after`."""
        if sum(map(len, self._texts.values())) > self._most:
            self._texts.clear()
        return Part(after, self._texts.setdefault(symbol, {}))


@define
class Part:
    """A part of one symbol's past on its way into an answer; it reaches up to offset `last`."""

    last: int
    _texts: dict[int, bytes]
    _trades: list[bytes] = field(factory=list)
    _gaps: list[bytes] = field(factory=list)

    def add(self, entries: Iterable[Entry]) -> None:
        """Encode `entries`, which follow those before: about 2 us for each that nobody asked for yet."""
        for entry in entries:
            if isinstance(entry, Gap):
                self._gaps.append(bytes(wire.gap(entry)))
                self.last = entry.last
                continue
            self.last = offset = entry.offset
            text = self._texts.get(offset)
            if text is None:
                text = self._texts[offset] = bytes(wire.trade(entry))
            self._trades.append(text)

    def members(self) -> dict[str, Any]:
        """`trades`, and `gaps` where there are any, as members of an answer."""
        trades = {"trades": _array(self._trades)}
        return trades | {"gaps": _array(self._gaps)} if self._gaps else trades


def _array(texts: list[bytes]) -> msgspec.Raw:
    return msgspec.Raw(b"[" + b",".join(texts) + b"]")
