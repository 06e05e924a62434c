"""The bar of the UTC day: of every trade, whatever the history still has, one state a trade for who keeps up."""

from __future__ import annotations

import gc
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow.cache.archive import Archive
from dataflow.cache.history import History
from dataflow.cache.recorder import finish, warm
from dataflow.cache.recording import Recording
from dataflow.cache.store import Store
from dataflow.cache.tiers import Tiers
from dataflow.domain import Missed, Topic, Trade
from dataflow.domain.aggregate import Aggregate
from dataflow.domain.topic import DAYS
from dataflow.topics import days as module
from dataflow.topics.candles import DAY, SECOND
from dataflow.topics.channel import Ground
from dataflow.topics.days import FORGOTTEN, FUTURE, LATE, QUIET, AggregateLog, Days
from dataflow.topics.trades import TradeLog
from tests.support.memory_archive import MemoryArchive

HOUR = 3600 * SECOND
MIDNIGHT = 20_000 * DAY
AT_ONCE = 4


class Scene:
    """One known symbol, or none, and its history, which is small."""

    def __init__(
        self, *symbols: str, max_trades: int = 1000, archive: Archive | None = None, number: int = 7
    ) -> None:
        self.carriers: dict[str, list[object]] = {symbol: [] for symbol in symbols}
        self.recording = Recording(self.history, archive, number)
        streams = self.recording.streams
        self.store = Store(self.recording.epoch, max_trades, 1e9, streams=streams)
        self.now = (MIDNIGHT + 12 * HOUR) / 1e9
        tiers = Tiers(archive, self.history)
        self.recording.connect(lambda _symbol: None, tiers.stored_from)
        ground = Ground(
            self.carriers,  # type: ignore[arg-type]
            self.history,
            number,
            lambda: self.now,
            lambda _topic: None,
            AT_ONCE,
            tiers,
            self.recording,
        )
        self.days = Days(ground)
        self.awake: list[str] = []
        self.days.follow(lambda: self.awake.append("now"))

    def history(self, symbol: str) -> History:
        return self.store.history(symbol)

    async def begin(self) -> None:
        """What a start does."""
        await warm(self.recording, self.history)
        await self.days.restore()

    def staged(self) -> None:
        """From now on fills wait for the disk."""
        self.store.staged = self.recording.fills

    def write(self) -> None:
        """All that waits is on disk when this returns."""
        archive = self.recording.archive
        assert archive is not None
        while self.recording.waits:
            batch = self.recording.batch(self.recording.runs())
            archive.append(batch)
            self.recording.written(batch)

    def one_by_one(self, moments: Iterable[int]) -> None:
        """Trades that are all recorded and counted, however few memory keeps."""
        for moment in moments:
            self.many(1, first=moment)
            self.days.advance()
            self.write()

    def trade(
        self, moment: int, price: str = "1", quantity: str = "1", *, symbol: str = "A-B", source: str = "a"
    ) -> None:
        """Admitted, of this moment of the day."""
        self.trades((moment, price, quantity), symbol=symbol, source=source)

    def trades(self, *some: tuple[int, str, str], symbol: str = "A-B", source: str = "a") -> None:
        """Admitted as one batch, and told."""
        made = [
            Trade(source, symbol, None, None, Decimal(price), Decimal(quantity), MIDNIGHT + moment)
            for moment, price, quantity in some
        ]
        self.store.admit(made, 0.0)
        self.recording.news(symbol)
        self.days.news(symbol)

    def numbered(self, *some: tuple[int, int], told: bool = True) -> None:
        """Admitted as one batch: trades with a sequence, which is their price, and a moment of the day."""
        made = [
            Trade("a", "A-B", str(n), "buy", Decimal(n), Decimal(1), MIDNIGHT + moment, n)
            for n, moment in some
        ]
        self.store.admit(made, 0.0)
        if told:
            self.recording.news("A-B")
            self.days.news("A-B")

    def many(self, count: int, *, first: int = 0) -> None:
        self.trades(*((n, str(n + 1), "1") for n in range(first, first + count)))

    def log(self, symbol: str = "A-B") -> AggregateLog:
        return self.days.log_of(Topic(DAYS, symbol))

    def state(self, symbol: str = "A-B") -> Aggregate:
        found = self.days.aggregate(symbol)
        assert found is not None
        return found


def told(state: Aggregate) -> tuple[str, str, str, str, str, int]:
    figures = (state.open, state.high, state.low, state.close, state.volume)
    return *map(str, figures), state.count  # type: ignore[return-value]


def test_the_state_is_that_of_all_trades_so_far() -> None:
    """Exact, with the place and the time of the last one."""
    s = Scene("A-B")
    assert s.days.aggregate("A-B") is None, "no trade yet"
    s.trade(HOUR, "150.25", "10")
    s.trade(3 * HOUR, "152.1", "0.5")
    s.trade(2 * HOUR, "149.8", "0.25")  # late
    state = s.state()
    assert told(state) == ("150.25", "152.1", "149.8", "152.1", "10.75", 3)
    assert state == Aggregate(
        symbol="A-B",
        start=MIDNIGHT,
        open=Decimal("150.25"),
        high=Decimal("152.1"),
        low=Decimal("149.8"),
        close=Decimal("152.1"),
        volume=Decimal("10.75"),
        count=3,
        timestamp=MIDNIGHT + 3 * HOUR,
        offset=3,
    )


def test_all_sources_count() -> None:
    s = Scene("A-B")
    s.trade(1, source="a")
    s.trade(2, source="b")
    assert s.state().count == 2


def test_an_unknown_symbol_has_no_state_and_leaves_nothing() -> None:
    """Neither do trades of a symbol that is not configured: an upstream may send them."""
    s = Scene()
    assert s.days.aggregate("A-B") is None
    assert s.store.symbols() == []
    s.trade(1)
    assert s.days.aggregate("A-B") is None
    assert not s.days.advance()


def test_a_day_lasts_until_a_trade_of_the_next_one() -> None:
    """A late trade of the day that is over does not touch the new one. It is counted."""
    s = Scene("A-B")
    s.trade(HOUR, "5")
    s.now += 86_400
    assert s.state().start == MIDNIGHT, "midnight alone changes nothing"
    s.trade(DAY - 1, "6")
    assert told(s.state()) == ("5", "6", "5", "6", "2", 2)
    s.trade(DAY, "7")
    assert (s.state().start, *told(s.state())) == (MIDNIGHT + DAY, "7", "7", "7", "7", "1", 1)
    s.trade(DAY - 2, "1")
    s.trade(DAY + 1, "8")
    assert told(s.state()) == ("7", "8", "7", "8", "2", 2)
    assert s.days.left_out == {LATE: 1}


def test_a_late_trade_is_not_news() -> None:
    """No state is shown twice."""
    s = Scene("A-B")
    s.now += 86_400
    log = s.log()
    s.trade(DAY)
    s.trade(1)
    update = log.read(0)
    assert update is not None
    assert [place for place, _ in update.places] == [1]
    assert log.last == 1
    assert log.read(1) is None


def test_one_wrong_date_does_not_end_the_day(lines: list[str]) -> None:
    """A trade that is dated more than an hour ahead counts nowhere, and the log says so, once a minute."""
    s = Scene("A-B")
    s.trade(12 * HOUR)
    for ahead in (HOUR, 2 * HOUR, 40 * DAY):
        s.trade(12 * HOUR + ahead, "99")
    s.trade(13 * HOUR - 1, "3")
    assert told(s.state()) == ("1", "3", "1", "3", "2", 2)
    assert s.days.left_out == {FUTURE: 3}
    assert len(lines) == 1
    assert lines[0].startswith("WARNING followers/days: 1 trade of A-B is dated more than an hour ahead")
    s.now += QUIET
    s.trade(30 * HOUR)
    s.state()
    assert len(lines) == 2


def test_gaps_are_no_trades() -> None:
    """They take places, and the next state stands behind them."""
    s = Scene("A-B")
    log = s.log()
    s.trade(1)
    s.store.admit([Missed("a", "A-B", "source_gap")], 0.0)
    s.trade(2)
    assert log.last == 3
    update = log.read(1)
    assert update is not None
    assert (update.first, [place for place, _ in update.places]) == (2, [3])
    assert s.state().count == 2
    assert s.days.left_out == {}


# Fills.


def test_a_trade_that_fills_a_gap_counts_once() -> None:
    """It is a state of its own. Trades of the same time stand in the order of their places."""
    s = Scene("A-B")
    log = s.log()
    s.numbered((1, 1), (4, 4))
    assert told(s.state()) == ("1", "4", "1", "4", "2", 2)
    s.numbered((3, 4), (2, 1))
    assert told(s.state()) == ("1", "4", "1", "4", "4", 4)
    update = log.read(4)
    assert update is not None
    assert [(place, entry.count) for place, entry in update.places] == [(5, 3), (6, 4)]
    s.numbered((3, 4), (2, 1), (5, 5))
    assert s.state().count == 5
    assert [entry.count for _, entry in (log.read(6) or pytest.fail("nothing")).places] == [5]
    assert s.days.left_out == {}


def test_a_fill_of_the_same_time_stands_at_its_place() -> None:
    """And not where it came, though the trade behind it is another source's."""
    s = Scene("A-B")
    s.numbered((1, 1), (3, 5))
    s.trade(5, "9", source="b")
    s.state()
    s.numbered((2, 5))
    assert told(s.state()) == ("1", "9", "1", "9", "4", 4)


def test_a_fill_of_places_that_are_not_read_is_read_as_a_trade() -> None:
    """Whether the day came before the fill, after it, or between two parts of the gap."""
    s = Scene("A-B")
    s.numbered((1, 1), (4, 4), told=False)
    s.numbered((2, 2), told=False)
    assert s.state().count == 3
    s.numbered((3, 3), (7, 7), told=False)
    s.numbered((6, 6), told=False)
    assert s.state().count == 6
    assert s.days.left_out == {}


def test_a_fill_of_yesterday_is_late() -> None:
    """As a trade would be."""
    s = Scene("A-B")
    s.now += 86_400
    s.numbered((1, 1), (3, DAY + 1))
    s.state()
    s.numbered((2, 2))
    assert s.state().count == 1
    assert s.days.left_out == {LATE: 1}


def test_a_fill_may_begin_the_day() -> None:
    """The one trade behind it was not credible."""
    s = Scene("A-B")
    s.now -= 12 * 3600
    s.numbered((1, -HOUR), (3, 20 * HOUR))
    assert s.state().start == MIDNIGHT - DAY
    s.numbered((2, 1))
    assert (s.state().start, s.state().count) == (MIDNIGHT, 1)
    assert s.days.left_out == {FUTURE: 1}


def test_gaps_that_were_forgotten_are_counted_when_they_are_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest ones are remembered."""
    monkeypatch.setattr(module, "GAPS", 2)
    s = Scene("A-B")
    s.numbered(*((n, n) for n in range(1, 12, 2)))
    s.state()
    s.numbered((2, 2), (10, 10))
    assert s.state().count == 7
    assert s.days.left_out == {FORGOTTEN: 1}


def test_fills_that_were_forgotten_unread_are_counted() -> None:
    """The history remembers as many as it has trades."""
    s = Scene("A-B", max_trades=1)
    s.numbered((1, 1), (1000, 1000))
    s.state()
    s.numbered(*((n, n) for n in range(2, 802)))
    assert s.state().count + s.days.left_out[FORGOTTEN] >= 205
    assert s.days.left_out[FORGOTTEN] > 0


# What the follower does.


def test_every_trade_counts_though_the_history_forgets() -> None:
    """The follower reads each before it is forgotten, and a question is answered from the whole day."""
    s = Scene("A-B", max_trades=40)
    for n in range(0, 1000, 8):
        s.many(8, first=n)
        while s.awake:
            s.awake.clear()
            s.days.advance()
    assert told(s.state()) == ("1", "1000", "1", "1000", "1000", 1000)
    assert s.days.left_out == {}


def test_a_burst_before_the_follower_has_its_turn_is_read_at_once() -> None:
    """Before the next batch can push trades out of the history."""
    s = Scene("A-B", max_trades=40)
    for n in range(0, 400, 20):
        s.many(20, first=n)
    assert s.state().count == 400
    assert s.days.left_out == {}


def test_an_error_is_the_followers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who brings the news goes on: a shard must not lose a batch for it."""
    s = Scene("A-B", max_trades=40)
    day = s.days.day("A-B")
    assert day is not None
    monkeypatch.setattr(day, "_clock", lambda: 1 / 0)
    s.many(30)
    with pytest.raises(ZeroDivisionError):
        s.days.advance()


def test_what_was_forgotten_unread_is_counted_and_logged(lines: list[str]) -> None:
    """Never silently."""
    s = Scene("A-B", max_trades=40)
    s.many(100)
    assert told(s.state()) == ("61", "100", "61", "100", "40", 40)
    assert s.days.left_out == {FORGOTTEN: 60}
    (line,) = lines
    assert line.startswith("WARNING followers/days: 60 places of A-B were forgotten before they were read")


@pytest.mark.parametrize("followed", [False, True])
def test_trades_may_be_forgotten_for_their_age(lines: list[str], followed: bool) -> None:
    """All of them, before anybody read one: counted like others, and the next trade begins the bar."""
    s = Scene("A-B")
    log = s.log() if followed else None
    s.many(3)
    s.store.history("A-B").expire(2e9)
    assert s.days.aggregate("A-B") is None
    assert s.days.left_out == {FORGOTTEN: 3}
    s.many(1, first=3)
    assert told(s.state()) == ("4", "4", "4", "4", "1", 1)
    assert log is None or [place for place, _ in (log.read(0) or pytest.fail("nothing")).places] == [4]
    assert s.days.left_out == {FORGOTTEN: 3}
    assert len(lines) == 1


@pytest.mark.parametrize(("max_trades", "unread"), [(10_000, 1000), (400, 100), (8, 2)])
def test_the_follower_is_woken_before_the_history_forgets(max_trades: int, unread: int) -> None:
    """And not for less: long runs cost least."""
    s = Scene("A-B", max_trades=max_trades)
    s.many(unread - 1)
    assert not s.awake
    s.many(1, first=unread)
    assert s.awake


def test_the_follower_reads_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others get their turn between two of them; what comes meanwhile is not forgotten."""
    monkeypatch.setattr(module, "AT_ONCE", 10)
    s = Scene("A-B", "C-D", "E-F")
    for symbol in s.carriers:
        s.trades(*((n, "1", "1") for n in range(8)), symbol=symbol)
    read = []
    while True:
        more = s.days.advance()
        read.append([day.position for day in s.days._days.values()])
        if not more:
            break
    assert read == [[8, 8, 0], [8, 8, 8]]
    assert not s.days.advance()


def test_one_symbol_that_fails_keeps_no_other_from_being_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error ends the follower; its next incarnation reads the others first, and the symbol again."""
    s = Scene("A-B", "C-D")
    s.trade(1)
    s.trade(1, symbol="C-D")
    s.trade(2)
    day = s.days.day("A-B")
    assert day is not None
    monkeypatch.setattr(s.days, "_ground", None)
    monkeypatch.setattr(day, "_clock", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        s.days.advance()
    assert day.position == 0
    with pytest.raises(ZeroDivisionError):
        s.days.advance()
    assert s.state("C-D").count == 1
    monkeypatch.setattr(day, "_clock", lambda: s.now)
    s.days.advance()
    assert s.state().count == 2


# What a reader sees.


def test_one_state_a_trade_while_the_reader_keeps_up() -> None:
    """Also when several trades came at once, and when a question or the follower was faster."""
    s = Scene("A-B")
    log = s.log()
    s.many(3)
    s.days.advance()
    s.many(1, first=3)
    s.state()
    update = log.read(0)
    assert update is not None
    assert [(place, state.count, str(state.close)) for place, state in update.places] == [
        (1, 1, "1"),
        (2, 2, "2"),
        (3, 3, "3"),
        (4, 4, "4"),
    ]
    assert [state.offset for _, state in update.places] == [1, 2, 3, 4]


def test_a_reader_that_is_behind_gets_the_newest_state() -> None:
    """Of too many trades at once, and of states that are not kept any more; and it goes on from there."""
    s = Scene("A-B")
    log = s.log()
    s.many(AT_ONCE + 1)
    update = log.read(0)
    assert update is not None
    assert (update.first, [place for place, _ in update.places]) == (1, [5])
    s.many(1, first=5)
    assert [place for place, _ in (log.read(5) or update).places] == [6]
    assert [place for place, _ in (log.read(3) or update).places] == [6]
    for n in range(6, 12):
        s.many(1, first=n)
        assert log.last == n + 1
    assert [place for place, _ in (log.read(7) or update).places] == [12]
    assert [place for place, _ in (log.read(8) or update).places] == [9, 10, 11, 12]


def test_states_never_go_back_and_only_the_newest_counts() -> None:
    """A newer update replaces an older one that a slow client has not read."""
    s = Scene("A-B")
    log = s.log()
    s.many(2)
    older = log.read(0)
    s.many(2, first=2)
    newer = log.read(2)
    assert older is not None
    assert newer is not None
    merged = older.superseded_by(newer)
    assert (merged.first, [place for place, _ in merged.places]) == (1, [4])


def test_the_present_state_for_a_new_subscriber() -> None:
    """There is no past: neither behind a position nor in pieces."""
    s = Scene("A-B")
    log = s.log()
    assert (log.last, list(log.newest(1)), log.read(0)) == (0, [], None)
    s.many(3)
    (newest,) = log.newest(1)
    assert newest == (3, s.state())
    assert list(log.newest(0)) == []
    assert log.resume(7, 1, 100)[:2] == (False, 3)
    assert log.behind(0, 100) == ()


def test_the_age_of_a_state_is_that_of_its_trade() -> None:
    """From the admission on, as for trades."""
    s = Scene("A-B")
    log = s.log()
    s.many(2)
    trades = TradeLog(Topic("trades", "A-B"), s.store.history("A-B"), AT_ONCE)
    aggregates, plain = log.read(0), trades.read(0)
    assert aggregates is not None
    assert plain is not None
    assert aggregates.since == plain.since


def test_a_symbol_that_comes_into_being() -> None:
    """Its topic was open before: the first trade is its first state."""
    s = Scene()
    log = s.log()
    assert (log.last, log.read(0), list(log.newest(1))) == (0, None, [])
    s.carriers["A-B"] = []
    assert (log.last, log.read(0)) == (0, None)
    s.many(2)
    update = log.read(0)
    assert update is not None
    assert [place for place, _ in update.places] == [1, 2]


def test_nothing_is_kept_of_the_topic_of_a_symbol_that_never_was() -> None:
    """Clients can name a million of them."""
    s = Scene("A-B")
    for n in range(1000):
        log = s.log(f"X{n}")
        assert s.log(f"X{n}") is log, "as long as somebody has it"
        assert log.read(0) is None
    del log
    gc.collect()
    assert s.store.symbols() == []
    assert (len(s.days._logs), len(s.days._days), len(s.days._news)) == (0, 0, 0)


def test_states_are_kept_only_while_the_topic_is_open() -> None:
    """The log goes with its last reader; the bar stays."""
    s = Scene("A-B")
    log = s.log()
    s.many(3)
    assert log.last == 3
    del log
    gc.collect()
    assert len(s.days._logs) == 0
    assert s.state().count == 3
    log = s.log()
    assert [place for place, _ in (log.read(0) or pytest.fail("nothing")).places] == [3]


steps = st.lists(
    st.one_of(
        st.lists(st.integers(0, 3 * DAY).map(lambda n: n // HOUR * HOUR), min_size=1, max_size=2 * AT_ONCE),
        st.sampled_from(["read", "read late", "ask", "follow", "reopen"]),
    ),
    max_size=30,
)


@settings(max_examples=200, deadline=None)
@given(steps)
def test_every_state_that_is_told_is_the_true_one(steps: list[Any]) -> None:
    """Whoever reads, asks or follows, and however often: a state at a place is that of the trades up to it, places
    only grow, and the newest comes."""
    s = Scene("A-B", max_trades=100)
    s.now += 3 * 86_400
    log, heard = s.log(), {"early": [0], "late": [0]}
    truth: dict[int, Any] = {0: None}
    state: list[Any] | None = None  # day, open, high, low, close, their times, count

    def read(who: str) -> None:
        while (update := log.read(heard[who][-1])) is not None:
            for place, entry in update.places:
                assert place > heard[who][-1]
                heard[who].append(place)
                assert truth[place] == told(entry)

    for step in steps:
        if step == "read":
            read("early")
        elif step == "read late":
            read("late")
        elif step == "ask":
            found = s.days.aggregate("A-B")
            assert (None if found is None else told(found)) == list(truth.values())[-1]
        elif step == "follow":
            s.days.advance()
        elif step == "reopen":
            del log
            log = s.log()
        else:
            s.trades(*((moment, str(moment % 7 + 1), "1") for moment in step))
            place = s.store.history("A-B").last - len(step)
            for moment in step:
                place += 1
                price, day = Decimal(moment % 7 + 1), moment // DAY
                if state is None or day > state[0]:
                    state = [day, price, price, price, price, moment, moment, 1]
                elif day < state[0]:
                    continue
                else:
                    if moment < state[5]:
                        state[1], state[5] = price, moment
                    if moment >= state[6]:
                        state[4], state[6] = price, moment
                    state[2], state[3], state[7] = max(state[2], price), min(state[3], price), state[7] + 1
                truth[place] = (*map(str, (*state[1:5], state[7])), state[7])
    for who in heard:
        read(who)
        assert heard[who][-1] == list(truth)[-1]


class TestRestart:
    """A bar survives the process, whether it ended in order or was killed."""

    def scene(self, archive: MemoryArchive, *symbols: str, number: int = 7, kept: int = 1000) -> Scene:
        """The next life of a daemon, warm."""
        made = Scene(*symbols, max_trades=kept, archive=archive, number=number)
        trio.run(made.begin)
        return made

    @pytest.mark.parametrize("is_killed", [False, True])
    @pytest.mark.parametrize("kept", [3, 1000])
    def test_it_goes_on_exactly(self, is_killed: bool, kept: int) -> None:
        """Also from a checkpoint that is older than what is in memory: the rest comes from disk."""
        archive = MemoryArchive()
        first = self.scene(archive, "A-B", kept=kept)
        first.one_by_one(range(20))
        for point in first.days.checkpoints():
            first.recording.checkpoint(point)
        first.write()
        first.one_by_one(range(20, 50))
        expected = first.days.aggregate("A-B")
        if is_killed:
            archive.close(clean=False)
        else:
            finish(first.recording)
        second = self.scene(archive, "A-B", number=8, kept=kept)
        assert second.days.aggregate("A-B") == expected
        assert not second.days.left_out
        second.trade(100, "7")
        assert second.days.aggregate("A-B").count == 51  # type: ignore[union-attr]

    def test_a_symbol_that_does_not_exist_any_more_is_answered_by_nobody(self) -> None:
        """Until it comes back."""
        archive = MemoryArchive()
        first = self.scene(archive, "A-B")
        first.many(5)
        finish(first.recording)
        second = self.scene(archive)
        assert second.days.aggregate("A-B") is None
        second.carriers["A-B"] = []
        assert second.days.aggregate("A-B").count == 5  # type: ignore[union-attr]

    def test_without_a_checkpoint_the_day_is_read_from_disk(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As when nobody asked for bars before. What is too much for a start is counted as forgotten."""
        archive = MemoryArchive()
        first = self.scene(archive, "A-B", kept=3)
        first.one_by_one(range(20))
        archive.close(clean=True)
        assert self.scene(archive, "A-B", kept=3).days.aggregate("A-B").count == 20  # type: ignore[union-attr]
        archive.close(clean=True)
        monkeypatch.setattr(module, "REPLAYED", 7)
        third = self.scene(archive, "A-B", kept=3)
        assert third.days.aggregate("A-B").count == 10  # type: ignore[union-attr]
        assert third.days.left_out[FORGOTTEN] == 10

    @pytest.mark.parametrize("is_counted", [False, True])
    @pytest.mark.parametrize("is_killed", [False, True])
    @pytest.mark.parametrize("kept", [3, 1000])
    def test_a_fill_counts_once_across_a_restart(self, kept: int, is_killed: bool, is_counted: bool) -> None:
        """Whether the newest checkpoint has it or only its gap, and whether its gap is in memory."""
        archive = MemoryArchive()
        first = self.scene(archive, "A-B", kept=kept)
        first.staged()
        first.numbered((1, 1), (5, 5))
        first.numbered((2, 2))
        first.write()
        first.days.advance()
        points = list(first.days.checkpoints())
        first.numbered((3, 3), (6, 6))
        first.write()
        first.one_by_one(range(10, 20))
        if is_counted:
            first.days.advance()
            points = list(first.days.checkpoints())
        for point in points:
            first.recording.checkpoint(point)
        first.write()
        archive.close(clean=not is_killed)
        second = self.scene(archive, "A-B", number=8, kept=kept)
        assert second.days.aggregate("A-B").count == 15  # type: ignore[union-attr]
        second.staged()
        second.numbered((4, 4))
        second.write()
        assert not second.days.left_out
        assert second.days.aggregate("A-B").count == 15 + (kept == 1000)  # type: ignore[union-attr]

    @pytest.mark.parametrize("days_later", [1, 400])
    def test_without_a_checkpoint_a_day_that_is_over_is_whole(self, days_later: int) -> None:
        """A crash behind midnight, or in a recording of last year: the day is that of the trades, not of the clock."""
        archive = MemoryArchive()
        first = self.scene(archive, "A-B", kept=3)
        first.one_by_one(range(-5, 20))
        archive.close(clean=False)
        second = Scene("A-B", max_trades=3, archive=archive, number=8)
        second.now += days_later * DAY / 1e9
        trio.run(second.begin)
        assert second.days.aggregate("A-B") == first.days.aggregate("A-B")
        assert second.days.aggregate("A-B").count == 20  # type: ignore[union-attr]
