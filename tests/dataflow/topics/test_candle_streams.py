"""The channel `candles`: told once in a throttle, closed by the clock only when that is safe, and never wrong."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest
import trio
from attrs import evolve
from trio.testing import MockClock

from dataflow.cache.archive import Batch, Checkpoint, Run
from dataflow.cache.recording import Recording
from dataflow.cache.store import Store
from dataflow.cache.tiers import Tiers
from dataflow.domain import Gap, Missed, Topic, Trade
from dataflow.domain.candle import DAY, HOUR, SECOND, Candle, CandleRules
from dataflow.domain.topic import CANDLES
from dataflow.sources.port import SourceSettings
from dataflow.sources.state import Audience, SourceState
from dataflow.topics import candle_streams as module
from dataflow.topics.candle_streams import CandleLog, Candles
from dataflow.topics.channel import Ground
from dataflow.topics.coverage import NEVER
from tests.support.memory_archive import MemoryArchive

SYMBOL = "A-B"
T0 = 20_000 * DAY
RULES = CandleRules(intervals=("1s", "5s", "1m", "5m", "1h", "1d", "2t"))


class Scene:
    """One symbol of two live sources, and its history. `now`: the wall clock, in seconds behind T0."""

    def __init__(
        self,
        steady: MockClock,
        rules: CandleRules = RULES,
        max_trades: int = 1000,
        archive: MemoryArchive | None = None,
    ) -> None:
        self.now = 0.0
        self.steady = steady
        self.store = Store(7, max_trades, 1e9)
        settings = SourceSettings(connector="x", url="ws://x/", symbols=(SYMBOL,))
        self.sources = [SourceState(name, settings, Audience(), self.clock) for name in "ab"]
        for source in self.sources:
            source.up([])
            source.subscribed(SYMBOL)
        self.news: list[Topic] = []
        self.awake: list[str] = []
        tiers, recording = Tiers(archive, self.store.history), Recording(self.store.history, archive, 7)
        self.candles = Candles(
            Ground(
                {SYMBOL: self.sources}, self.store.history, 7, self.clock, self.news.append, 100, tiers, recording, rules
            )
        )  # fmt: skip
        self.candles.follow(lambda: self.awake.append("now"))
        self._number = 0

    def clock(self) -> float:
        return T0 / 1e9 + self.now

    def trade(self, second: float, price: int = 1, source: str = "a", now: float | None = None) -> None:
        """A trade of this time comes `now`; by default at that time."""
        self.now = second if now is None else now
        self._number += 1
        moment = T0 + int(second * SECOND)
        trade = Trade(source, SYMBOL, str(self._number), None, Decimal(price), Decimal(1), moment)
        self.store.admit([trade], trio.current_time())
        self.candles._ground.recording.news(SYMBOL)
        self.candles.news(SYMBOL)

    def miss(self, source: str = "a") -> None:
        self.store.admit([Missed(source, SYMBOL, "source_gap")], trio.current_time())

    def log(self, interval: str) -> CandleLog:
        return self.candles.log_of(Topic(CANDLES, SYMBOL, interval))

    def follow(self, seconds: float = 1.0) -> None:
        """So much time passes, and the follower has its turns."""
        self.now += seconds
        self.steady.jump(seconds)
        while self.candles.advance():
            pass


def told(log: CandleLog, after: int = 0) -> list[tuple[int, int, bool]]:
    """The candles behind a place: start in seconds, count, closed."""
    update = log.read(after)
    return [] if update is None else [_told(candle) for _, candle in update.places]


def _told(candle: Candle) -> tuple[int, int, bool]:
    return (candle.start - T0) // SECOND, candle.count, candle.closed


async def test_an_open_bar_is_told_once_in_a_throttle(mock_clock: MockClock) -> None:
    """However many trades there are; and nothing is told when nothing has changed."""
    s = Scene(mock_clock)
    log = s.log("1m")
    for n in range(5):
        s.trade(n / 10)
    s.follow()
    assert told(log) == [(0, 5, False)]
    assert s.news == [log.stream.topic]
    s.trade(1.5)
    s.follow(0.5)
    assert log.last == 1, "half a second has passed"
    s.follow(0.5)
    assert told(log, 1) == [(0, 6, False)]
    s.follow()
    assert log.last == 2
    assert len(s.news) == 2


async def test_a_reader_that_is_behind_gets_of_each_bar_the_newest(mock_clock: MockClock) -> None:
    """Once, in the order of the changes."""
    s = Scene(mock_clock)
    log = s.log("1s")
    for second in (0.5, 1.5, 2.5, 3.5):
        s.trade(second)
        s.follow()
    assert told(log) == [(0, 1, True), (2, 1, False), (1, 1, True), (3, 1, False)]
    assert [_told(candle)[0] for _, candle in log.newest(2)] == [2, 3]
    assert told(log, log.last - 1) == [(3, 1, False)]


async def test_a_correction_of_an_old_bar_is_told(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though more newer bars than a topic remembers have been told since."""
    monkeypatch.setattr(module, "KEPT", 10)
    s = Scene(mock_clock)
    log = s.log("1s")
    for second in range(60):
        s.trade(second + 0.5)
        s.follow()
    before = log.last
    s.trade(5.6, now=s.now)
    s.follow()
    assert (5, 2, True) in told(log, before)
    assert len(log.newest(99)) == 20
    assert [_told(candle)[0] for _, candle in log.newest(9)] == list(range(51, 60))


async def test_a_quiet_market_closes_its_bars_by_the_clock(mock_clock: MockClock) -> None:
    """Once the lateness has passed on the wall clock, too."""
    s = Scene(mock_clock)
    log = s.log("1s")
    s.trade(0.5, now=0.6)
    s.follow(2.4)
    assert told(log) == [(0, 1, False)], "now is 3.0, and not behind the end of the window and the lateness"
    s.follow(1)
    assert told(log, 1) == [(0, 1, True)]


@pytest.mark.parametrize(
    "what", ["a source is away", "the newest trade came late", "nobody carries the symbol"]
)
async def test_when_the_clock_closes_nothing(mock_clock: MockClock, what: str) -> None:
    """A trade of the window may be on its way: only the next trades can tell that it is over."""
    s = Scene(mock_clock)
    log = s.log("1s")
    s.trade(0.5, now=7.5 if what == "the newest trade came late" else 0.6)
    if what == "a source is away":
        s.sources[1].down("gone")
    if what == "nobody carries the symbol":
        s.candles._ground.carriers.clear()  # type: ignore[attr-defined]
    s.follow(1000)
    assert told(log) == [(0, 1, False)]
    s.trade(3.5, now=s.now)
    s.follow()
    assert (0, 1, True) in told(log)


async def test_a_source_that_goes_away_makes_the_newest_bars_incomplete(mock_clock: MockClock) -> None:
    """Until its next trade shows that nothing was missed, or a gap what was."""
    s = Scene(mock_clock)
    log = s.log("1s")
    s.trade(0.5, source="a")
    s.trade(0.6, source="b")
    s.follow()
    s.sources[0].down("gone")
    s.trade(1.5, source="b")
    s.follow()
    complete = {_told(candle)[0]: candle.complete for _, candle in log.newest(9)}
    assert complete == {0: False, 1: False}
    (gap,) = log.newest(1)[0][1].gaps
    assert (gap.first, gap.exact, gap.reason) == (4, False, "source_gap")
    s.sources[0].up([])
    s.sources[0].subscribed(SYMBOL)
    s.follow()
    assert not log.newest(1)[0][1].complete, "connected again, and not yet proven"
    s.trade(1.6, source="a")
    s.follow()
    assert {candle.complete for _, candle in log.newest(9)} == {True}
    s.sources[0].down("gone")
    s.follow()
    s.miss("a")
    s.trade(2.5, source="a")
    s.follow()
    assert {_told(candle)[0]: candle.complete for _, candle in log.newest(9)} == {0: True, 1: False, 2: False}


async def test_what_memory_forgot_is_a_gap(mock_clock: MockClock) -> None:
    """Never a bar that looks whole. A follower that is nearly late reads at once."""
    s = Scene(mock_clock, max_trades=20)
    log = s.log("1m")
    for n in range(9):
        s.trade(n / 10)
    assert s.awake, "it is woken"
    s.trade(1)
    series = s.candles._series[SYMBOL]
    assert series.position == 10, "and read without it, before anything is forgotten"
    series.position = 0
    series.levels["1m"].bars.clear()
    for n in range(30):
        s.store.admit(
            [Trade("a", SYMBOL, f"x{n}", None, Decimal(1), Decimal(1), T0 + 2 * SECOND)], trio.current_time()
        )
    s.candles.news(SYMBOL)
    s.follow()
    ((_, candle),) = log.newest(1)
    assert candle.count == 20
    assert candle.gaps == (Gap(1, 20, "overrun"),)


async def test_what_only_the_disk_has_is_no_gap(mock_clock: MockClock) -> None:
    """Memory has the present window, and the disk all before it: neither the new topic nor a page, of whatever
    interval, calls a trade missing."""
    archive = MemoryArchive()
    archive.begin(7)
    s = Scene(mock_clock, RULES, max_trades=20, archive=archive)
    recording = s.candles._ground.recording
    s.candles._ground.recording.connect(lambda _symbol: None, s.candles._ground.tiers.stored_from)
    for second in range(1, 101):
        s.trade(second)
        batch = recording.batch(recording.runs())
        archive.append(batch)
        recording.written(batch)
        s.follow(0)
    topic = Topic(CANDLES, SYMBOL, "1s")
    await s.candles.prepare(topic)
    candles = [candle for _, candle in s.candles.log_of(topic).newest(1000)]
    assert [_told(candle)[:2] for candle in candles] == [(second, 1) for second in range(82, 101)]
    assert all(candle.complete for candle in candles)
    for name, counts in (("1s", [1] * 100), ("5s", [4, *[5] * 19, 1]), ("1m", [59, 41]), ("1h", [100])):
        page = await s.candles.page(SYMBOL, s.candles.intervals[name], None, None, 1000)
        assert [candle.count for candle in page.candles] == counts, name
        assert [candle.gaps for candle in page.candles] == [()] * len(counts), name


async def test_a_topic_that_is_opened_later_has_the_bars_so_far(mock_clock: MockClock) -> None:
    """Of all trades that memory has, or of finer bars; nothing twice when it goes on."""
    s = Scene(mock_clock)
    kept = s.log("1m")
    for second in (10, 70, 130, 370):
        s.trade(second)
    s.miss()
    s.trade(371)
    s.follow()
    for interval, expected in (
        ("5m", [(0, 3, True), (300, 2, False)]),
        ("1d", [(0, 5, False)]),
        ("1s", [(10, 1, True), (70, 1, True), (130, 1, True), (370, 1, True), (371, 1, False)]),
    ):
        log = s.log(interval)
        assert [_told(candle) for _, candle in log.newest(99)] == expected
        assert not log.newest(1)[0][1].complete
        before = log.last
        s.follow()
        assert told(log, before) == ([(371, 1, True)] if interval == "1s" else []), "nothing else is news"
    s.trade(372)
    s.follow()
    assert kept.newest(1)[0][1].count == 3
    assert s.log("1h").newest(1)[0][1].count == 6
    assert s.log("2t").last == 3


async def test_nothing_is_kept_of_what_nobody_follows(mock_clock: MockClock) -> None:
    """The counts of what was left out are."""
    s = Scene(mock_clock, evolve(RULES, revise_within=0))
    log = s.log("1s")
    s.trade(0.5)
    s.trade(100)
    s.trade(0.6, now=s.now)
    s.trade(100 + 2 * 3600, now=100)
    s.follow()
    assert s.candles.too_late["1s"] == 1
    assert s.candles.in_future == 1
    del log
    s.follow()
    assert s.candles._series == {}
    s.trade(101)
    assert s.candles._news == {}
    assert s.candles.too_late["1s"] == 1
    assert s.candles.in_future == 1


async def test_a_symbol_that_cannot_be_read_keeps_no_other_from_being_read(
    mock_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The failure is raised, for the supervisor; nothing is skipped when it is over."""
    s = Scene(mock_clock)
    log = s.log("1s")
    s.trade(0.5)
    with monkeypatch.context() as patched:
        patched.setattr(module.Series, "fold", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            s.follow()
    s.follow()
    assert told(log) == [(0, 1, False)]


async def test_recorded_bars_go_on_where_they_were(mock_clock: MockClock) -> None:
    """What is written is closed, and of trades that are written. The rest is made of the checkpoint and the trades behind it."""
    archive = MemoryArchive()
    s = Scene(mock_clock, archive=archive)
    s.trade(10, 5)
    s.trade(70, 7)
    s.trade(71, 8)
    s.follow()
    recording = s.candles._ground.recording
    assert list(recording.batch(()).bars) == [], "the trades are not written yet"
    batch = recording.batch(recording.runs())
    assert [(row.width, row.start) for row in batch.bars] == [(60 * SECOND, T0)]
    archive.append(batch)
    recording.written(batch)
    s.trade(72, 9)
    s.trade(11, 4)  # late
    s.trade(200, 1)
    late = recording.batch(recording.runs())
    archive.append(evolve(late, bars=(), checkpoints=()))  # and then it died
    again = Scene(mock_clock, archive=archive)
    again.store = s.store
    again.candles._ground = evolve(again.candles._ground, history_of=s.store.history)  # a warm start
    await again.candles.restore()
    again.follow()
    series = again.candles.series(SYMBOL)
    assert series is not None
    bars = {(start - T0) // SECOND: bar for start, bar in series.levels["1m"].bars.items()}
    assert {start: (bar.count, bar.closed, bar.low, bar.high) for start, bar in bars.items()} == {
        0: (2, True, 4, 5),
        60: (3, True, 7, 9),
        180: (1, False, 1, 1),
    }
    assert bars[0].rev > 2
    ((start, bar),) = series.levels["1h"].bars.items()
    assert (start, bar.count, bar.first.price, bar.last.price) == (T0 // HOUR * HOUR, 6, 5, 1)


async def test_what_lies_between_the_checkpoint_and_memory_is_read_from_disk(mock_clock: MockClock) -> None:
    """Once, at the start: a follower that comes back after a failure goes on where it was."""
    archive = MemoryArchive()
    archive.begin(7)
    trades = [
        Trade("a", SYMBOL, str(n), "buy", Decimal(n), Decimal(1), T0 + n * SECOND, n) for n in range(1, 101)
    ]
    s = Scene(mock_clock, archive=archive)
    series = s.candles._record(SYMBOL)
    series.fold(list(enumerate(trades[:30], 1)), NEVER)
    point = module._checkpoint(SYMBOL, series)
    archive.append(Batch((Run.of(SYMBOL, list(enumerate(trades, 1))),), (), (point,)))
    again = Scene(mock_clock, max_trades=20, archive=archive)
    again.now = 100
    again.store.admit(trades, 0.0)
    await again.candles.restore()
    log = again.log("5m")
    again.follow()
    assert [_told(candle) for _, candle in log.newest(9)] == [(0, 100, False)]
    assert log.newest(1)[0][1].complete
    restored = again.candles.series(SYMBOL)
    await again.candles.restore()
    assert again.candles.series(SYMBOL) is restored
    again.trade(101)
    again.follow()
    assert [_told(candle) for _, candle in log.newest(9)] == [(0, 101, False)]


async def test_a_gap_that_was_filled_on_disk_behind_the_checkpoint(mock_clock: MockClock) -> None:
    """The daemon died between the two: the start takes the fill into the bars."""
    archive = MemoryArchive()
    archive.begin(7)
    missing = Gap(2, 3, "source_gap", source="a", sequence=2)
    first, *filling, last = (
        Trade("a", SYMBOL, str(n), "buy", Decimal(n), Decimal(1), T0 + n * SECOND, n) for n in range(1, 5)
    )
    archive.append(Batch((Run.of(SYMBOL, [(1, first), (3, missing), (4, last)]),)))
    s = Scene(mock_clock, archive=archive)
    series = s.candles._record(SYMBOL)
    series.fold([(1, first), (3, missing), (4, last)], NEVER)
    archive.append(Batch((), (), (module._checkpoint(SYMBOL, series),)))
    archive.append(Batch((Run.of(SYMBOL, list(enumerate(filling, 2)), is_fill=True),)))
    again = Scene(mock_clock, archive=archive)
    again.candles._ground.history_of(SYMBOL).last = 4  # a warm start without anything to load
    await again.candles.restore()
    restored = again.candles.series(SYMBOL)
    assert restored is not None
    (bar,) = restored.levels["1m"].bars.values()
    assert (bar.count, bar.high, bar.gaps) == (4, 4, ())


async def test_a_checkpoint_that_cannot_be_read_costs_no_start(mock_clock: MockClock) -> None:
    """Neither does a disk that does not answer. The bars begin with what memory has."""
    archive = MemoryArchive()
    s = Scene(mock_clock, archive=archive)
    s.trade(10)
    archive.append(Batch((), (), (Checkpoint(CANDLES, SYMBOL, 1, b"\xc1"),)))
    s.candles._series.clear()
    await s.candles.restore()
    archive.broken = "gone"
    await s.candles.restore()
    archive.broken = None
    s.trade(11)
    s.follow()
    series = s.candles.series(SYMBOL)
    assert series is not None
    assert series.levels["1m"].bars[T0].count == 2


async def test_a_checkpoint_of_places_that_are_lost_is_not_used(mock_clock: MockClock) -> None:
    """Their numbers belong to other trades by now: its bars would hold trades that are no part of the stream."""
    archive = MemoryArchive()
    s = Scene(mock_clock, archive=archive)
    for second in (10, 11, 12):
        s.trade(second)
    s.follow()
    (point,) = s.candles._checkpoints()
    assert point.position == 3
    again = Scene(mock_clock, archive=archive)
    archive.append(Batch((), (), (point,)))
    again.trade(20)
    await again.candles.restore()
    again.trade(21)
    again.follow()
    series = again.candles.series(SYMBOL)
    assert series is not None
    assert series.levels["1m"].bars[T0].count == 2


async def test_a_page_ends_where_no_candle_can_be_new(mock_clock: MockClock) -> None:
    """`next` is None only if `end` was given and every window before it is over."""
    s = Scene(mock_clock)
    for second in (1, 6, 13):
        s.trade(second)
    for end, following in ((None, 10), (16, 10), (14, 10), (11, None), (10, None), (5, None)):
        bound = None if end is None else T0 + end * SECOND
        page = await s.candles.page(SYMBOL, s.candles.intervals["5s"], T0, bound, 10)
        assert page.next == (None if following is None else T0 + following * SECOND), end


@pytest.mark.parametrize("how", ["asked", "followed", "either"])
async def test_a_candle_that_is_made_anew_has_a_higher_rev_if_it_has_changed(
    mock_clock: MockClock, how: str
) -> None:
    """So whoever held it sees that: though nobody followed it when its gap was filled, and though the filled
    trade may lie in the next window. A page that has not changed has the same `rev`."""
    s = Scene(mock_clock)
    wanted = s.candles.intervals["5s"]

    def give(number: int, second: float) -> None:
        s.now = max(s.now, second)
        moment = T0 + int(second * SECOND)
        trade = Trade("a", SYMBOL, str(number), "buy", Decimal(1), Decimal(1), moment, number)
        s.store.admit([trade], trio.current_time())
        s.candles.news(SYMBOL)

    def goes() -> None:
        s.sources[0].down("away")

    def comes() -> None:
        s.sources[0].up([])
        s.sources[0].subscribed(SYMBOL)

    async def asked() -> list[Candle]:
        page = (await s.candles.page(SYMBOL, wanted, T0, None, 10)).candles
        assert page == (await s.candles.page(SYMBOL, wanted, T0, None, 10)).candles
        return page

    async def followed() -> list[Candle]:
        log = s.log("5s")
        s.follow()
        found = [candle for _, candle in log.newest(10)]
        del log
        s.follow()
        assert s.candles._series == {}, "it is made anew the next time"
        return found

    for number, second in ((1, 0.5), (3, 1.5), (6, 9), (7, 20)):
        give(number, second)
    ways = (followed if how == "followed" else asked, asked if how == "asked" else followed)
    changes = (lambda: give(2, 1), goes, lambda: give(4, 6), comes, lambda: give(5, 7))
    for number, change in enumerate(changes):
        held = {candle.start: candle for candle in await ways[number % 2]()}
        change()
        for candle in await ways[1 - number % 2]():
            before = held[candle.start]
            is_same = msgspec.structs.replace(candle, rev=before.rev, closed=before.closed) == before
            assert is_same or candle.rev > before.rev, f"{before} became {candle}"
    assert all(candle.complete for candle in await asked())


async def test_a_candle_that_is_made_anew_has_no_lower_rev_than_it_was_told_with(
    mock_clock: MockClock,
) -> None:
    """Though its source went and came while somebody followed, and nobody asked how often: a client that comes
    back would take it for an older one."""
    s = Scene(mock_clock)
    log = s.log("1s")
    for second in (0.5, 1.5, 2.5):
        s.trade(second, source="a")
        s.follow()
        s.sources[0].down("gone")
        s.follow()
        s.sources[0].up([])
        s.sources[0].subscribed(SYMBOL)
        s.follow()
    s.trade(3.5, source="a")
    s.follow()
    told = {candle.start: candle.rev for _, candle in log.newest(9)}
    del log
    s.follow()
    assert s.candles._series == {}, "it is made anew the next time"
    log = s.log("1s")
    s.follow()
    anew = {candle.start: candle.rev for _, candle in log.newest(9)}
    assert told.keys() == anew.keys()
    assert all(anew[start] >= rev for start, rev in told.items()), (told, anew)
