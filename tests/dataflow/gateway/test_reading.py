"""Parts of a stream, by place and by time, up and down: memory and disk alike, and nobody can tell which."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow.cache import tiers as tiers_module
from dataflow.cache.archive import Batch, Run
from dataflow.cache.history import History, shared
from dataflow.cache.tiers import Tiers
from dataflow.connectors import binance
from dataflow.core import Core
from dataflow.domain import Gap, Trade
from dataflow.gateway import walk as walk_module
from dataflow.gateway.answers import UNKNOWN, Position, TradesPage
from dataflow.gateway.desk import MAX_TRADES, Desk
from dataflow.gateway.identity import ANONYMOUS
from dataflow.gateway.load import Load
from dataflow.gateway.lobby import Lobby
from dataflow.gateway.problems import InvalidValue, TooManyRequests, Unavailable
from dataflow.gateway.reading import Wanted, located
from dataflow.gateway.walk import Bounds, Walk
from dataflow.settings.schema import Limits, Settings
from tests.dataflow.cache.items import US, missed, trade
from tests.support.memory_archive import MemoryArchive

SYMBOL = "BTC-USD"
E = 7

Places = list[tuple[int, Trade | Gap]]


class Pair:
    """The same items in a large memory, and in a small one with a disk behind it."""

    def __init__(self, items: list[Any], kept: int) -> None:
        self.whole, self.small = History(E, 10_000, 1e9), History(E, kept, 1e9)
        for item in items:
            for history in (self.whole, self.small):
                history.admit(item, 0.0)
        self.archive = MemoryArchive()
        self.archive.begin(E)
        self.places = self.whole.places(0, 10_000)
        if self.places:
            self.archive.append(Batch([Run.of(SYMBOL, self.places)]))
        self.tiers = Tiers(self.archive, lambda _symbol: self.small)
        self.tiers.stored_from({symbol: each.first for symbol, each in self.archive.open().streams.items()})

    async def walked(self, bounds: Bounds) -> Places:
        walk = Walk(self.tiers, SYMBOL, bounds)
        found: Places = []
        while not walk.over:
            found += await walk.part()
        return found


def within(places: Places, bounds: Bounds) -> Places:
    """What a walk must tell, the slow way: every place cut to the bounds, and every gap asked for the trades beside it."""
    told: Places = []
    for at, (last, entry) in enumerate(places):
        if isinstance(entry, Trade):
            if bounds.after < last < bounds.before and _in(entry, bounds):
                told.append((last, entry))
            continue
        first, end = max(entry.first, bounds.after + 1), min(last, bounds.before - 1)
        if first > end:
            continue
        earlier = [e.timestamp for _, e in places[:at] if isinstance(e, Trade)][-1:] or [-(1 << 62)]
        later = [e.timestamp for _, e in places[at:] if isinstance(e, Trade)][:1] or [1 << 62]
        low, high = sorted((earlier[0], later[0]))
        if (bounds.end is None or low < bounds.end) and (bounds.start is None or high >= bounds.start):
            told.append((end, entry.part(first, end)))
    return told[::-1] if bounds.descending else told


def _in(entry: Trade, bounds: Bounds) -> bool:
    return (bounds.start is None or entry.timestamp >= bounds.start) and (
        bounds.end is None or entry.timestamp < bounds.end
    )


some_items = st.lists(
    st.one_of(st.builds(lambda at: trade(None, at * US), st.integers(1, 30)), st.just(missed(reason="lost"))),
    max_size=40,
)
# A market's: in order of time, but for some that come a little late.
in_order = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.booleans()), max_size=15).map(
    lambda steps: _market(steps)
)


def _market(steps: list[tuple[int, int, bool]]) -> list[Any]:
    now, made = 1, []
    for step, late, gap in steps:
        now += step
        made.append(trade(None, max(1, now - late) * US))
        if gap:
            made.append(missed(reason="lost"))
    return made


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few entries are many parts."""
    monkeypatch.setattr(walk_module, "AT_ONCE", 3)
    monkeypatch.setattr(tiers_module, "AT_ONCE", 3)


@given(some_items, st.integers(1, 20), st.integers(0, 40), st.integers(0, 42), st.booleans())
def test_by_place(items: list[Any], kept: int, after: int, before: int, down: bool) -> None:
    """Every place between the bounds once, in order, whatever part of it is on disk."""

    async def main() -> None:
        pair = Pair(items, kept)
        bounds = Bounds(min(after, pair.whole.last), min(before, pair.whole.last + 1), descending=down)
        assert await pair.walked(bounds) == within(pair.places, bounds)

    trio.run(main)


@settings(max_examples=300)
@given(
    in_order,
    st.integers(1, 20),
    st.integers(0, 20),
    st.none() | st.integers(0, 16),
    st.none() | st.integers(0, 16),
    st.booleans(),
    st.integers(1, 3),
)
def test_by_time(
    items: list[Any], kept: int, after: int, start: int | None, end: int | None, down: bool, guess: int
) -> None:
    """Every trade of a range once, at its place; and the gaps that may hold trades of the range.

    With trades that come late: no trade of the range is left out, and no other is told.
    """

    async def main() -> None:
        pair = Pair(items, kept)
        pair.archive.guess = guess
        after_ = min(after, pair.whole.last)
        times = [None if each is None else each * US for each in (start, end)]
        bounds = Bounds(after_, pair.whole.last + 1, *times, descending=down)
        found, expected = await pair.walked(bounds), within(pair.places, bounds)
        assert [each for each in found if isinstance(each[1], Trade)] == [
            each for each in expected if isinstance(each[1], Trade)
        ]
        beside = [each for each in expected if _is_beside(each, pair.places, bounds)]
        assert [each for each in found if each in beside] == beside
        assert len({last for last, _ in found}) == len(found)

    trio.run(main)


def _is_beside(place: tuple[int, Trade | Gap], places: Places, bounds: Bounds) -> bool:
    """Whether it is a gap next to a trade of the range."""
    last, entry = place
    if isinstance(entry, Trade):
        return False
    above = [e for n, e in places if n > last and isinstance(e, Trade)][:1]
    below = [e for n, e in places if n < entry.first and isinstance(e, Trade)][-1:]
    return any(_in(each, bounds) for each in above + below if isinstance(each, Trade))


async def test_a_range_within_a_gap_tells_the_gap() -> None:
    """Its trades may be the missing ones: an empty answer would be a lie."""
    pair = Pair([trade("1", 1 * US), missed(reason="lost"), trade("2", 100 * US)], kept=10)
    for down in (False, True):
        found = await pair.walked(Bounds(0, 4, 50 * US, 60 * US, descending=down))
        assert [entry for _, entry in found] == [Gap(2, 2, "lost", exact=False)]
        assert await pair.walked(Bounds(0, 4, 200 * US, 300 * US, descending=down)) == []


async def test_a_gap_at_the_beginning_of_a_page() -> None:
    """It stands beside a trade of the range that the page before ended with, though only late ones follow."""
    pair = Pair([trade("1", 3 * US), missed(reason="lost"), trade("2", 2 * US), trade("3", 3 * US)], kept=1)
    pair.archive.guess = 1
    found = await pair.walked(Bounds(1, 5, 3 * US))
    assert [last for last, _ in found] == [2, 4]


@pytest.mark.parametrize("down", [False, True])
@pytest.mark.parametrize("gap", [False, True])
async def test_a_late_trade_behind_others_of_later_times(down: bool, gap: bool) -> None:
    """Belongs to the range of its time, and so does the gap before it; up and down, in parts, on the disk."""
    items = [trade(None, at * US) for at in (10, 20, 21, 22, 23, 24, 25, 26)]
    items += [missed(reason="lost")] * gap + [trade(None, at * US) for at in (11, 27, 28, 29, 30)]
    pair = Pair(items, kept=2)
    bounds = Bounds(0, pair.whole.last + 1, 5 * US, 12 * US, descending=down)
    found = await pair.walked(bounds)
    assert found == within(pair.places, bounds)
    assert len(found) == 2 + gap


async def test_a_jump_over_many_others_ends_before_the_gaps() -> None:
    """Those in front of the next trade of the range may hold trades of it."""
    times = [10, *[20] * 9, 11]
    items = [trade(None, at * US) for at in times[:-1]]
    items += [missed(reason="lost"), trade(None, 11 * US), *[trade(None, 30 * US) for _ in range(4)]]
    pair = Pair(items, kept=2)
    pair.archive.guess = 1
    found = await pair.walked(Bounds(0, pair.whole.last + 1, 5 * US, 12 * US))
    assert [last for last, _ in found] == [1, 11, 12]


async def test_what_was_pruned_comes_first() -> None:
    """As a gap; where a range of time reaches so far back, too, and nowhere else."""
    pair = Pair([trade(str(n), n * US) for n in range(1, 21)], kept=5)
    pair.archive.lose(SYMBOL, 1, 4)
    pair.tiers = Tiers(pair.archive, lambda _symbol: pair.small)
    pair.tiers.stored_from({SYMBOL: 5})
    for bounds in (Bounds(0, 21), Bounds(0, 21, 3 * US)):
        found = await pair.walked(bounds)
        assert found[0] == (4, Gap(1, 4, "overrun"))
        assert [last for last, _ in found[1:]] == list(range(5, 21))
    found = await pair.walked(Bounds(0, 21, descending=True))
    assert found[-1] == (4, Gap(1, 4, "overrun"))
    assert await pair.walked(Bounds(2, 21)) == [(4, Gap(3, 4, "overrun")), *pair.places[4:]]
    assert [last for last, _ in await pair.walked(Bounds(0, 21, 8 * US, 10 * US))] == [8, 9]


# The desk.


class Stage:
    """A desk, with a disk that holds all but the newest trades."""

    def __init__(self, count: int, kept: int = 10, **tables: Any) -> None:
        self.archive = MemoryArchive()
        sources = {
            "binance": binance.Settings(connector="binance", url="wss://a/stream", symbols=(SYMBOL,)),
        }
        settings = Settings(sources=sources, **tables)
        self.core = Core(settings, archive=self.archive, epoch=E, clock=lambda: 1000.0)
        self.lobby = Lobby(settings)
        self.desk = Desk(self.core, self.lobby, Load(self.core, self.lobby.clients))
        self.history = self.core.history(SYMBOL)
        whole = History(E, 10_000, 1e9)
        self.history.max_trades = kept
        for n in range(1, count + 1):
            for each in (whole, self.history):
                each.admit(trade(str(n), n * US), trio.current_time())
        self.archive.begin(E)
        self.archive.append(Batch([Run.of(SYMBOL, whole.places(0, count))]))
        self.core.tiers.stored_from({SYMBOL: 1})

    async def pages(self, wanted: Wanted, limit: int) -> list[TradesPage]:
        """Page by page, as a client goes on."""
        made = [await self.desk.trades(SYMBOL, wanted, limit)]
        while made[-1].next is not None and made[-1].more:
            go_on = {"before" if wanted.descending else "after": made[-1].next}
            more = Wanted(**{**_fields(wanted), **go_on})
            made.append(await self.desk.trades(SYMBOL, more, limit))
        return made


def _fields(wanted: Wanted) -> dict[str, Any]:
    return {
        "after": wanted.after,
        "before": wanted.before,
        "start": wanted.start,
        "end": wanted.end,
        "descending": wanted.descending,
    }


def offsets(pages: list[TradesPage]) -> list[int]:
    return [last for page in pages for last, _ in page.entries]


@pytest.mark.parametrize("limit", [1, 7, 10, 100])
@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Wanted(), range(1, 31)),
        (Wanted(Position(E, 4)), range(5, 31)),
        (Wanted(Position(E, 4), Position(E, 9)), range(5, 9)),
        (Wanted(descending=True), range(30, 0, -1)),
        (Wanted(before=Position(E, 12), descending=True), range(11, 0, -1)),
        (Wanted(start=5 * US, end=15 * US), range(5, 15)),
        (Wanted(start=5 * US, end=25 * US, descending=True), range(24, 4, -1)),
        (Wanted(Position(E, 8), start=5 * US, end=25 * US), range(9, 25)),
        (Wanted(start=5 * US, end=5 * US), range(0)),
    ],
)
async def test_pages_are_the_whole(limit: int, wanted: Wanted, expected: range) -> None:
    """Whatever their size: every place once, in order, over the seam between disk and memory."""
    pages = await Stage(30).pages(wanted, limit)
    assert offsets(pages) == list(expected)
    assert all(len(page.entries) <= limit for page in pages)


@pytest.mark.parametrize(
    ("wanted", "next_"),
    [
        (Wanted(), Position(E, 30)),
        (Wanted(start=5 * US), Position(E, 30)),
        (Wanted(before=Position(E, 31)), None),
        (Wanted(before=Position(E, 40)), Position(E, 30)),
        (Wanted(end=20 * US), None),
        (Wanted(end=990 * 10**9), None),
        (Wanted(end=999 * 10**9), Position(E, 30)),  # late trades may come for two seconds
        (Wanted(descending=True), None),
    ],
)
async def test_next_is_null_only_at_the_end_of_a_bounded_range(
    wanted: Wanted, next_: Position | None
) -> None:
    """Otherwise it is the position behind which what comes later will stand."""
    page = await Stage(30).desk.trades(SYMBOL, wanted, 1000)
    assert (page.next, page.more) == (next_, False)


async def test_an_empty_stream_has_a_position_to_go_on_from() -> None:
    """Place 0 of the epoch, which is never a trade's."""
    stage = Stage(1)
    stage.core.stores[0]._histories.clear()
    stage.core.stores[1]._histories.clear()
    stage.core.tiers._firsts.clear()
    page = await stage.desk.trades(SYMBOL, Wanted(), 10)
    assert (page.entries, page.next, page.more) == ([], Position(E, 0), False)


async def test_a_position_on_a_lost_branch() -> None:
    """Where the branch has left the stream, and what follows there; up and down."""
    stage = Stage(30)
    stage.history.shared = shared([(5, 1), (6, 10), (E, 21)])
    for position, begin, rewound in (
        (Position(6, 20), 21, None),
        (Position(6, 25), 21, Position(E, 20)),
        (Position(5, 12), 10, Position(E, 9)),
    ):
        page = await stage.desk.trades(SYMBOL, Wanted(position), 5)
        assert (page.rewound, offsets([page])) == (rewound, list(range(begin, begin + 5)))
        assert page.next == Position(E, begin + 4)
    page = await stage.desk.trades(SYMBOL, Wanted(before=Position(6, 25), descending=True), 3)
    assert (page.rewound, offsets([page])) == (Position(E, 20), [20, 19, 18])


@pytest.mark.parametrize("position", [Position(1, 5), Position(E, 31)])
async def test_an_unknown_position_is_answered_as_in_subscribe(position: Position) -> None:
    """The gap from place 0, and what there is: of another daemon, or of a place that never was."""
    stage = Stage(30)
    page = await stage.desk.trades(SYMBOL, Wanted(position), 5)
    assert page.entries[0] == (0, UNKNOWN)
    assert offsets([page]) == [0, 1, 2, 3, 4]
    assert page.rewound is None
    down = await stage.desk.trades(SYMBOL, Wanted(before=Position(1, 5), descending=True), 3)
    assert down.entries[0][1] == UNKNOWN
    assert offsets([down])[1:] == [30, 29]


@pytest.mark.parametrize(
    ("wanted", "param"),
    [
        (Wanted(before=Position(1, 5)), "before"),
        (Wanted(Position(1, 5), descending=True), "after"),
        (Wanted(Position(E, -1)), "after"),
        (Wanted(Position(E, 1 << 70)), "after"),
        (Wanted(start=2 * US, end=1 * US), "to"),
    ],
)
async def test_a_bound_that_means_nothing(wanted: Wanted, param: str) -> None:
    """Is the mistake of who asks."""
    with pytest.raises(InvalidValue) as caught:
        await Stage(30).desk.trades(SYMBOL, wanted, 5)
    assert caught.value.data["param"] == param


@pytest.mark.parametrize("limit", [0, MAX_TRADES + 1])
async def test_a_limit_out_of_range(limit: int) -> None:
    """Is told the range."""
    with pytest.raises(InvalidValue, match="limit: must be 1 to 10000"):
        await Stage(1).desk.trades(SYMBOL, Wanted(), limit)


async def test_recent_trades_come_from_the_disk_too() -> None:
    """Newest first, and after a time oldest first, over the seam."""
    stage = Stage(30)

    async def places(**question: int) -> list[int]:
        return [each.offset for each in await stage.desk.recent_trades(SYMBOL, 20, **question)]

    assert await places() == list(range(30, 10, -1))
    assert await places(before=15 * US) == list(range(14, 0, -1))
    assert await places(after=5 * US) == list(range(6, 26))
    assert await places(after=5 * US, before=9 * US) == [6, 7, 8]


async def test_a_disk_that_does_not_answer() -> None:
    """Is told in clear words; what is in memory is served all the same."""
    stage = Stage(30)
    stage.archive.broken = "the disk is gone"
    for question in (
        stage.desk.trades(SYMBOL, Wanted(), 5),
        stage.desk.recent_trades(SYMBOL, 20),
    ):
        with pytest.raises(Unavailable) as caught:
            await question
        assert caught.value.data == {"problem": "the disk is gone"}
    page = await stage.desk.trades(SYMBOL, Wanted(Position(E, 25)), 5)
    assert offsets([page]) == [26, 27, 28, 29, 30]


async def test_one_client_does_not_have_the_disk_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two reads at once of one address, fifty wait, the others are refused and counted."""
    stage = Stage(30, limits=Limits())
    quotas = stage.lobby.quotas
    account = quotas.account(ANONYMOUS, "192.0.2.1")
    most, now = [0], [0]
    go_on = trio.Event()

    async def slow(*_args: Any) -> Places:
        now[0] += 1
        most[0] = max(most[0], now[0])
        await go_on.wait()
        now[0] -= 1
        return [(30, trade("30", 30 * US))]

    monkeypatch.setattr(stage.core.tiers, "behind", slow)
    refused = []

    async def ask() -> None:
        try:
            await stage.desk.trades(SYMBOL, Wanted(), 5, account=account)
        except TooManyRequests as error:
            refused.append(error.data)

    async with trio.open_nursery() as nursery:
        for _ in range(60):
            nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        go_on.set()
    assert most == [2]
    assert refused == [{"limit": "reads", "retryAfter": 1.0}] * 8
    assert quotas.refused["reads"] == 8


async def test_a_walk_can_be_asked_again_after_a_failure() -> None:
    """No place is lost or told twice by it."""
    stage = Stage(30)
    walk = stage.desk.walk(SYMBOL, Wanted())
    found = [last for last, _ in await walk.part()]
    stage.archive.broken = "busy"
    with pytest.raises(Unavailable):
        await walk.part()
    stage.archive.broken = None
    async for part in walk:
        found += [last for last, _ in part]
    assert found == list(range(1, 31))


async def test_a_walk_ends_where_the_stream_ended_when_it_began() -> None:
    """However fast trades come meanwhile, so that it ends at all."""
    stage = Stage(30)
    walk = stage.desk.walk(SYMBOL, Wanted())
    found = []
    async for part in walk:
        found += [last for last, _ in part]
        stage.history.admit(trade(str(100 + len(found)), 100 * US), trio.current_time())
    assert found == list(range(1, 31))


def test_places_of_a_question() -> None:
    """A position in the direction of the walk, and one that bounds it."""
    history = History(E, 10, 1e9)
    assert located(Wanted(), history, 1, 0).bounds == Bounds(0, 1)
    assert located(Wanted(Position(E, 0)), history, 1, 0).goes_on
