"""Two ways to read the record: as the daemon serves it, and from the disk.

Rules of this file: reading only. What a daemon may have open is read in a copy.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec
from attrs import define, field

from dataflow import domain, plugs
from dataflow.cache.archive import Archive
from dataflow.client import Gap, Trade
from dataflow.settings.schema import History

from .check import Admitted, Seen
from .speakers import as_seen
from .witness import seen

PAGE: Final = 10_000  # entries


async def served(http: httpx.AsyncClient, symbol: str) -> Admitted:
    """The stream of a symbol as the daemon serves it, from its first place on. Raises RuntimeError."""
    found = Admitted()
    after: dict[str, int] | None = None
    while True:
        params: dict[str, Any] = {"symbol": symbol, "limit": PAGE} | ({"after": after} if after else {})
        call = {"jsonrpc": "2.0", "id": 1, "method": "getTrades", "params": params}
        answer = msgspec.json.decode(
            (await http.post("/api/v1/rpc", json=call, timeout=60)).content, type=_Answer
        )
        if answer.error is not None or answer.result is None:
            raise RuntimeError(f"no record of {symbol}: {answer.error}")
        page = answer.result
        entries: list[Trade | Gap] = [*page.trades, *page.gaps]
        for entry in sorted(entries, key=lambda each: each.first):
            if isinstance(entry, Trade):
                found.trade(entry.offset, as_seen(entry))
            elif entry.first:
                found.gap(entry.first, entry.last, entry.reason)
        if page.next is None or not (page.trades or page.gaps):
            return found
        after = page.next


class _Page(msgspec.Struct):
    trades: list[Trade]
    gaps: list[Gap]
    next: dict[str, int] | None


class _Answer(msgspec.Struct):
    result: _Page | None = None
    error: Any = None


@define(eq=False)
class Disk:
    """The history in `directory`, read from a copy while no daemon runs.

    `found`: the trades that were new at each look, by symbol and place. `damage`: complaints of the store.
    """

    directory: Path
    found: list[dict[str, dict[int, Seen]]] = field(factory=list)
    damage: list[str] = field(factory=list)
    _last: dict[str, int] = field(factory=dict)

    def look(self) -> dict[str, int]:
        """Read what is new. Returns the last place of each symbol. Blocks."""
        new: dict[str, dict[int, Seen]] = {}
        with self._copy() as archive:
            contents = archive.open()
            self.damage += contents.damage
            for symbol, stream in contents.streams.items():
                entries = _entries(archive, symbol, self._last.get(symbol, 0))
                new[symbol] = {
                    last: seen(entry) for last, entry in entries if not isinstance(entry, domain.Gap)
                }
                self._last[symbol] = stream.last
        self.found.append(new)
        return dict(self._last)

    def read(self) -> dict[str, Admitted]:
        """All that is there. Blocks."""
        found: dict[str, Admitted] = {}
        with self._copy() as archive:
            for symbol in archive.open().streams:
                found[symbol] = Admitted()
                for last, entry in _entries(archive, symbol, 0):
                    if isinstance(entry, domain.Gap):
                        found[symbol].gap(entry.first, last, entry.reason)
                    else:
                        found[symbol].trade(last, seen(entry))
        return found

    @contextmanager
    def _copy(self) -> Iterator[Archive]:
        with tempfile.TemporaryDirectory(prefix="dataflow-copy-") as folder:
            copy = Path(folder) / "data"
            if self.directory.is_dir():
                shutil.copytree(self.directory, copy)
            store: Archive = plugs.find("stores", "sqlite").Store(History(directory=str(copy)))
            try:
                yield store
            finally:
                store.close(clean=False)


def _entries(archive: Archive, symbol: str, after: int) -> Iterator[tuple[int, domain.Trade | domain.Gap]]:
    while places := archive.behind(symbol, after, PAGE):
        yield from places
        after = places[-1][0]
