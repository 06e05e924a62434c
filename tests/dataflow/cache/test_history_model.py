"""dataflow.cache.history against a model that remembers everything and sorts on every question."""

from __future__ import annotations

from decimal import Decimal

from attrs import define, evolve, field
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from dataflow.cache.feed import ANEW, LASTING, LONG
from dataflow.cache.history import AHEAD, History
from dataflow.cache.ordered import ByTime
from dataflow.cache.verdict import JUMP, Verdict
from dataflow.domain import Entry, Gap, Item, Missed, Recorded, Trade

MAX_TRADES = 4
MAX_AGE = 6.0
LONGER = 12  # trades that a log keeps whose order by time is made late


@define
class Model:
    """The rules in their most naive form: lists, and nothing is ever removed from them."""

    log: list[tuple[Entry, float]] = field(factory=list)
    given_ids: list[Trade] = field(factory=list)  # of trades that have one
    newest: dict[str, Trade] = field(factory=dict)
    floors: dict[str, int] = field(factory=dict)
    sequences: dict[str, int] = field(factory=dict)
    pending: dict[str, Missed] = field(factory=dict)
    strays: dict[str, list[int]] = field(factory=dict)  # refused in a row: sequences, or times ...
    why: dict[str, str] = field(factory=dict)  # ... for this; ...
    younger_at: dict[str, list[float]] = field(factory=dict)  # ... when the last ones that are younger came
    missing: dict[tuple[str, int], tuple[int, int, int]] = field(factory=dict)  # place, and its times
    now: float = 0.0

    @property
    def last(self) -> int:
        return self.log[-1][0].last if self.log else 0

    def put(self, entry: Entry) -> None:
        self.log.append((entry, self.now))

    def verdict(self, trade: Trade) -> str:
        previous = self.sequences.get(trade.source)
        step = None if trade.sequence is None or previous is None else trade.sequence - previous
        remembered = self.given_ids[-2 * MAX_TRADES :]
        known = [t for t in remembered if (t.source, t.trade_id) == (trade.source, trade.trade_id)]
        unnamed = trade.trade_id is None
        if known and known[-1].timestamp == trade.timestamp:
            return "duplicate"
        if known and step is None:
            return "reused"
        if step is not None and step > JUMP:
            return "implausible"
        if step is not None and step > 0:
            return "admitted"
        if step is not None and not known and self.is_missing(trade):
            return "filled"
        if step is not None and self.is_younger(trade):
            return "late"
        if not unnamed and trade.timestamp <= self.floors.get(trade.source, -1):
            return "too_old"
        return "admitted" if step is None else "late"

    def is_younger(self, trade: Trade) -> bool:
        return trade.source in self.newest and trade.timestamp > self.newest[trade.source].timestamp

    def is_missing(self, trade: Trade) -> bool:
        assert trade.sequence is not None
        _, earliest, latest = self.missing.get((trade.source, trade.sequence), (0, 1, 0))
        return earliest <= trade.timestamp <= latest

    def fill(self, trade: Trade) -> None:
        """The place has the trade now, as if it had come in time. The places beside it are gaps still."""
        assert trade.sequence is not None
        key = trade.source, trade.sequence
        place, _, _ = self.missing.pop(key)
        at = next(at for at, (entry, _) in enumerate(self.log) if entry.first <= place <= entry.last)
        gap, since = self.log[at]
        assert isinstance(gap, Gap)
        parts: list[Entry] = [Recorded(place, trade)]
        if gap.first < place:
            parts.insert(0, gap.part(gap.first, place - 1))
        if place < gap.last:
            parts.append(gap.part(place + 1, gap.last))
        self.log[at : at + 1] = [(part, since) for part in parts]
        for other, (where, earliest, latest) in self.missing.items():
            if gap.first <= where < place:
                self.missing[other] = where, earliest, min(latest, trade.timestamp)
            elif place < where <= gap.last:
                self.missing[other] = where, max(earliest, trade.timestamp), latest
        if trade.trade_id is not None:
            self.given_ids.append(trade)
            self.forget_an_id()

    def admit(self, item: Item, now: float) -> str:
        self.now = now
        if isinstance(item, Missed):
            if item.source in self.newest:
                reason = self.pending.get(item.source, item).reason
                self.pending[item.source] = evolve(item, reason=reason)
            return "noted"
        verdict = self.verdict(item)
        if self.becomes_a_stream(item, verdict):
            event(f"anew: {verdict}")
            self.sequences.pop(item.source, None)
            if item.sequence is None:
                remembered = self.given_ids[-2 * MAX_TRADES :]
                self.given_ids = [each for each in remembered if each.source != item.source]
                self.floors[item.source] = self.strays[item.source][0] - 1
            self.missing = {key: each for key, each in self.missing.items() if key[0] != item.source}
            self.pending[item.source] = Missed(item.source, item.symbol, "source_gap")
            self.strays[item.source] = []
            verdict = "admitted"
        if verdict == "duplicate":
            newest = self.newest[item.source]
            mark = self.pending.get(item.source)
            if newest.trade_id == item.trade_id and mark and mark.resubscribed:
                del self.pending[item.source]
            if item.sequence is not None and self.sequences.get(item.source) == item.sequence - 1:
                self.sequences[item.source] += 1
        if verdict == "admitted":
            self.place(item)
        if verdict == "filled":
            self.fill(item)
        return verdict

    def becomes_a_stream(self, trade: Trade, verdict: str) -> bool:
        strays = self.strays.setdefault(trade.source, [])
        number = trade.timestamp if trade.sequence is None else trade.sequence
        is_younger = self.is_younger(trade) and verdict != "implausible"
        is_other = verdict != self.why.get(trade.source)
        self.why[trade.source] = verdict if verdict in ROWS else ""
        is_repetition = verdict in ("too_old", "reused") and not is_younger
        if is_other or is_repetition or (strays and number < strays[0]):
            strays.clear()
            self.younger_at[trade.source] = []
        if verdict not in ROWS or is_repetition or number in strays:
            return False
        if verdict == "implausible":
            goes_on = strays == [number - 1]
            strays[:] = [number]
            return goes_on
        strays[:] = sorted([*strays, number])
        del strays[1 : -2 * LONG]
        came = self.younger_at[trade.source] = (
            [*self.younger_at[trade.source], self.now] if is_younger else []
        )
        is_run = (
            trade.sequence is not None
            and trade.sequence <= self.sequences.get(trade.source, -1)
            and len(came) >= ANEW
            and strays[-ANEW:] == [*range(number - ANEW + 1, number + 1)]
            and (trade.source, trade.sequence) not in self.missing
        )
        lasts = len(came) >= LONG and self.now - came[0] >= LASTING
        return is_run or lasts or (verdict == "late" and len(strays) >= LONG)

    def place(self, trade: Trade) -> None:
        mark = self.pending.pop(trade.source, None)
        previous = self.sequences.get(trade.source)
        if trade.sequence is not None and previous is not None:
            missing = trade.sequence - previous - 1
            if missing:
                before = self.newest[trade.source].timestamp if trade.source in self.newest else -1
                times = min(before, trade.timestamp), max(before, trade.timestamp)
                for at in range(missing):
                    self.missing[trade.source, previous + 1 + at] = self.last + 1 + at, *times
                self.put(
                    Gap(self.last + 1, self.last + missing, "source_gap", True, trade.source, previous + 1)
                )
        elif mark is not None:
            self.put(Gap(self.last + 1, self.last + 1, mark.reason, exact=False))
        self.put(Recorded(self.last + 1, trade))
        self.newest[trade.source] = trade
        if trade.sequence is not None:
            self.sequences[trade.source] = trade.sequence
        if trade.trade_id is not None:
            self.given_ids.append(trade)
            self.forget_an_id()

    def forget_an_id(self) -> None:
        if len(self.given_ids) <= 2 * MAX_TRADES:
            return
        forgotten, *later = self.given_ids[-2 * MAX_TRADES - 1 :]
        newest = self.newest[forgotten.source]
        witness = later[-1] if newest is forgotten else newest
        if forgotten.timestamp <= witness.timestamp + AHEAD:
            floor = self.floors.get(forgotten.source, forgotten.timestamp)
            self.floors[forgotten.source] = max(floor, forgotten.timestamp)

    def lost(self, item: Item, now: float) -> None:
        if isinstance(item, Missed):
            self.admit(item, now)
        elif item.sequence is not None:
            self.sequences.setdefault(item.source, item.sequence - 1)
        elif self.verdict(item) == "admitted":
            newest = self.kept(now)[-1:]
            if not (newest and isinstance(newest[0], Gap) and newest[0].reason == "shard_restart"):
                self.now = now
                self.put(Gap(self.last + 1, self.last + 1, "shard_restart", exact=False))

    def kept(self, now: float) -> list[Entry]:
        trades = [n for n, (entry, _) in enumerate(self.log) if isinstance(entry, Recorded)]
        start = trades[-MAX_TRADES - 1] + 1 if len(trades) > MAX_TRADES else 0
        return [entry for entry, since in self.log[start:] if since >= now - MAX_AGE]

    def by_time(self, now: float) -> list[Recorded]:
        trades = [entry for entry in self.kept(now) if isinstance(entry, Recorded)]
        return sorted(trades, key=lambda recorded: (recorded.trade.timestamp // 1000, recorded.offset))


ROWS = ("late", "too_old", "reused", "implausible")
WILD = AHEAD // 500 + 30


def build(source: str, number: int, moment: int, jump: int) -> Trade:
    """Source "s" has sequences and source "u" has none, "m" sometimes forgets them. "n" has no ids, "o" some, and
    "p" sequences alone."""
    sequence = number + jump if source in "sp" or (source == "m" and number % 3) else None
    name = None if source in "np" or (source == "o" and number % 2) else str(number + jump)
    price = Decimal(number + 1)
    return Trade(source, "B-U", name, "buy", price, Decimal(1), moment * 500, sequence)


def run(source: str, first: int, count: int, moment: int) -> list[Trade]:
    """A new numbering, or a long replay."""
    return [build(source, number, moment, 0) for number in range(first, first + count)]


def walk(source: str, first: int, count: int, moment: int) -> list[Trade]:
    """The same, each trade at its own time."""
    return [build(source, first + at, moment + at, 0) for at in range(count)]


jumps = st.sampled_from([0] * 9 + [2 * JUMP])
moments = st.integers(0, 20) | st.sampled_from([WILD])
trades = st.builds(build, st.sampled_from("sumnop"), st.integers(0, 25), moments, jumps)
runs = st.builds(run, st.sampled_from("sunp"), st.integers(0, 9), st.integers(15, 30), st.integers(0, 30))
walks = st.builds(walk, st.sampled_from("su"), st.integers(0, 9), st.integers(3, 30), st.integers(0, 60))
in_time = st.builds(
    lambda source, number: build(source, number, number, 0), st.sampled_from("sp"), st.integers(0, 25)
)  # what comes late is missing, mostly
marks = st.builds(
    Missed, st.sampled_from("umno"), st.just("B-U"), st.sampled_from(["source_gap", "other"]), st.booleans()
)
one = (trades | in_time | marks).map(lambda item: [item])
steps = st.lists(
    st.tuples(
        st.sampled_from(["admit", "admit", "admit", "slowly", "lost"]),
        one | one | one | runs | walks,
        st.integers(0, 3),
    ),
    max_size=60,
)


BEHIND_ITS_AGE = [  # a wild time is forgotten, and all that comes then seems older
    ("admit", [build("u", 1, WILD, 0)], 0),
    ("admit", walk("u", 2, 9, 30), 0),
    ("slowly", walk("u", 40, 30, 60), 0),
]
WITH_KNOWN_IDS = [
    ("admit", walk("u", 0, 8, 0), 0),
    ("slowly", [build("u", at % 8, 30 + at, 0) for at in range(30)], 0),
]


@settings(max_examples=300, deadline=None)
@example(BEHIND_ITS_AGE, 0, 1, 0)
@example(WITH_KNOWN_IDS, 0, 1, 0)
@given(steps, st.integers(0, 60), st.integers(1, 6), st.integers(0, 12_000))
def test_it_does_what_the_model_does(
    steps: list[tuple[str, list[Item], int]], place: int, count: int, timestamp: int
) -> None:
    """Verdicts, places, gaps, forgetting, and every way of reading."""
    log, model, now = History(1, MAX_TRADES, MAX_AGE), Model(), 0.0
    for what, items, pause in steps:
        now += pause
        log.expire(now)
        for item in items:
            now += what == "slowly"
            if what == "lost":
                log.lost(item, now)
                model.lost(item, now)
            else:
                verdict = log.admit(item, now)
                if verdict is Verdict.FILLED:
                    event("filled")
                    log.settle()
                assert verdict.value == model.admit(item, now)
        assert log.last == model.last
        assert log.read(log.first - 1, 1000) == model.kept(now)
    check_reading(log, model.kept(now), min(place, log.last), count)
    check_queries(log, model.by_time(now), timestamp, count)


def check_reading(log: History, kept: list[Entry], place: int, count: int) -> None:
    entries = log.read(place, count)
    covered = [offset for entry in entries for offset in range(entry.first, entry.last + 1)]
    assert covered == list(range(place + 1, place + 1 + len(covered))), "no hole and no repetition"
    assert len(entries) <= count
    assert entries or place == log.last
    rest = log.read(place, 1000)
    assert rest[: len(entries)] == entries
    assert [entry for entry in rest if isinstance(entry, Recorded)] == [
        entry for entry in kept if isinstance(entry, Recorded) and entry.offset > place
    ]
    assert log.newest(count) == newest(kept, count)
    known, start, _ = log.resume(1, place, count)
    assert known == (place >= log.first - 1 and len(rest) <= count)
    begun = log.read(start, 1000)
    assert begun == (rest if known else log.read(log.first - 1, 1000)[-count:])


def newest(kept: list[Entry], count: int) -> list[Entry]:
    first = [n for n, entry in enumerate(kept) if isinstance(entry, Recorded)][-count:]
    return kept[first[0] :] if first else []


def check_queries(log: History, by_time: list[Recorded], timestamp: int, count: int) -> None:
    assert log.latest(count) == by_time[::-1][:count]
    earlier = [r for r in by_time if r.trade.timestamp // 1000 < timestamp // 1000]
    later = [r for r in by_time if r.trade.timestamp // 1000 > timestamp // 1000]
    assert all_pages(lambda at: log.after(at, count), timestamp) == later
    assert all_pages(lambda at: log.before(at, count), timestamp) == earlier[::-1]
    page = log.after(timestamp, count)
    assert len(page) <= count or len({r.trade.timestamp // 1000 for r in page}) == 1


def all_pages(ask: object, timestamp: int) -> list[Recorded]:
    """All pages for a client that asks again from its last timestamp, at its resolution."""
    found: list[Recorded] = []
    while page := ask(timestamp):  # type: ignore[operator]
        found += page
        timestamp = page[-1].trade.timestamp // 1000 * 1000
    return found


@settings(max_examples=30, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(0, 3000))
def test_the_order_by_time_survives_any_order_of_arrival(random: object, spread: int) -> None:
    """Also with many short lists, and when the removed value is not the oldest."""
    order: ByTime[int] = ByTime()
    times = {place: place + random.randrange(spread + 1) for place in range(1, 1500)}  # type: ignore[attr-defined]
    for place, time in times.items():
        order.add(time, place, place)
        if place > 600:
            order.remove(times[place - 600], place - 600)
    kept = sorted(range(900, 1500), key=lambda place: (times[place], place))
    assert list(order.descending()) == kept[::-1]
    for time in (0, 900, 1100, 1499, 1500 + spread):
        assert list(order.ascending(time)) == [place for place in kept if times[place] >= time]
        assert list(order.descending(time)) == [place for place in reversed(kept) if times[place] < time]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9), st.booleans()), max_size=30), st.integers(0, 40))
def test_the_order_by_time_is_right_at_any_demand(steps: list[tuple[int, bool]], spread: int) -> None:
    """Made late, made again, kept up to date: always the order of the kept trades."""
    log, number = History(1, LONGER, MAX_AGE), 0
    for count, asked in steps:
        for _ in range(count):
            number += 1
            moment = 1000 * (number + number * 7919 % (spread + 1))
            log.admit(Trade("u", "B-U", str(number), "buy", Decimal(1), Decimal(1), moment), 0.0)
        if asked:
            kept = [entry for entry in log.read(log.first - 1, 1000) if isinstance(entry, Recorded)]
            check_queries(log, sorted(kept, key=lambda r: (r.trade.timestamp // 1000, r.offset)), 5000, 3)
