"""Memory and disk as one log: nobody can tell where one ends and the other begins."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from dataflow.cache.archive import ArchiveFailed, Batch, Run
from dataflow.cache.history import History
from dataflow.cache.tiers import Tiers
from dataflow.domain import Gap, Trade
from tests.support.memory_archive import MemoryArchive

from .items import US, missed, trade

SYMBOL = "BTC-USD"


class Pair:
    """The same items in a large memory, and in a small one with a disk behind it."""

    def __init__(self, items: list[Any], kept: int, recorded: int | None = None) -> None:
        self.whole, self.small = History(7, 10_000, 1e9), History(7, kept, 1e9)
        for item in items:
            for history in (self.whole, self.small):
                history.admit(item, 0.0)
        self.archive = MemoryArchive()
        self.archive.begin(7)
        places = self.whole.places(0, 10_000)[:recorded]
        if places:
            self.archive.append(Batch([Run.of(SYMBOL, places)]))
        self.tiers = Tiers(self.archive, lambda _symbol: self.small)
        self.tiers.stored_from({symbol: each.first for symbol, each in self.archive.open().streams.items()})

    async def places(self, after: int, limit: int) -> list[tuple[int, Trade | Gap]]:
        """All behind `after`, read in parts."""
        found: list[tuple[int, Trade | Gap]] = []
        while part := await self.tiers.behind(SYMBOL, after, limit):
            assert len(part) <= limit
            found += part
            after = part[-1][0]
        return found


# Without ids, so that both memories admit all of them.
items = st.lists(
    st.one_of(
        st.builds(lambda at: trade(None, at * US), st.integers(1, 30)),
        st.just(missed(reason="lost")),
    ),
    max_size=40,
)


@given(items, st.integers(1, 20), st.integers(1, 9), st.integers(0, 40))
def test_by_place(some: list[Any], kept: int, limit: int, after: int) -> None:
    """From any place, in parts of any size: every entry once, in order."""

    async def main() -> None:
        pair = Pair(some, kept)
        after_ = min(after, pair.whole.last)
        assert await pair.places(after_, limit) == pair.whole.places(after_, 10_000)
        assert list(await pair.tiers.newest(SYMBOL, limit)) == pair.whole.newest_places(limit)

    trio.run(main)


@given(
    items, st.integers(1, 20), st.integers(1, 9), st.integers(0, 32 * US), st.none() | st.integers(0, 32 * US)
)
def test_by_time(some: list[Any], kept: int, count: int, moment: int, end: int | None) -> None:
    """Pages by time are those of one memory: also where late trades are on disk, and never torn."""

    async def main() -> None:
        pair = Pair(some, kept)
        whole, tiers = pair.whole, pair.tiers
        assert await tiers.latest(SYMBOL, count) == whole.latest(count)
        assert await tiers.before(SYMBOL, moment, count) == whole.before(moment, count)
        assert await tiers.after(SYMBOL, moment, count, end) == whole.after(moment, count, end)

    trio.run(main)


@given(items, st.integers(1, 20), st.integers(1, 31), st.integers(0, 20))
def test_a_jump_to_a_time_passes_no_trade_of_it(some: list[Any], kept: int, first: int, width: int) -> None:
    """Whatever lies between is outside of the range."""

    async def main() -> None:
        pair = Pair(some, kept)
        start, end = first * US, (first + width) * US
        to = await pair.tiers.skip(SYMBOL, 0, start, end)
        passed = [entry for last, entry in pair.whole.places(0, 10_000) if last <= to]
        assert not [each for each in passed if isinstance(each, Trade) and start <= each.timestamp < end]

    trio.run(main)


async def test_what_is_not_on_disk_any_more_is_a_gap() -> None:
    """In the midst, before all, and between the disk and the memory: places never just end."""
    pair = Pair([trade(str(n), n * US) for n in range(1, 21)], kept=5, recorded=12)
    pair.archive.lose(SYMBOL, 1, 2)
    pair.archive.lose(SYMBOL, 7, 8)
    found = await pair.places(0, 100)
    gaps = [entry for _, entry in found if isinstance(entry, Gap)]
    assert gaps == [Gap(1, 2, "overrun"), Gap(7, 8, "overrun"), Gap(13, 15, "overrun")]
    assert [last for last, entry in found if isinstance(entry, Trade)] == [
        3,
        4,
        5,
        6,
        9,
        10,
        11,
        12,
        *range(16, 21),
    ]


async def test_memory_answers_for_a_disk_that_fails() -> None:
    """As long as it has enough; whoever needs the disk is told."""
    pair = Pair([trade(str(n), n * US) for n in range(1, 21)], kept=5)
    pair.archive.broken = "the disk is gone"
    assert await pair.tiers.latest(SYMBOL, 5) == pair.whole.latest(5)
    assert await pair.tiers.behind(SYMBOL, 17, 5) == pair.whole.places(17, 5)
    for ask in (lambda: pair.tiers.latest(SYMBOL, 6), lambda: pair.tiers.behind(SYMBOL, 3, 5)):
        with pytest.raises(ArchiveFailed, match="the disk is gone"):
            await ask()


async def test_without_an_archive_memory_is_all() -> None:
    """Everything works, and what is forgotten is a gap."""
    history = History(7, 3, 1e9)
    for n in range(1, 6):
        history.admit(trade(str(n), n * US), 0.0)
    tiers = Tiers(None, lambda _symbol: history)
    assert await tiers.behind(SYMBOL, 0, 9) == history.places(0, 9)
    assert await tiers.latest(SYMBOL, 9) == history.latest(9)
    assert await tiers.newest(SYMBOL, 9) == history.newest_places(9)
    assert (tiers.first(SYMBOL), await tiers.skip(SYMBOL, 0, 0, 9), await tiers.ask(len)) == (3, 0, None)  # type: ignore[arg-type]
