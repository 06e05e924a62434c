"""The verdict. Compares the trades of each client with the trades that the daemon admitted, and those with
the trades that exchanges and producers sent.

Rules of this file. Pure: the caller brings the data, nothing is fetched. Every place of a symbol's stream
after the client's first one must reach the client as a trade or as an announced gap. A trade must come once,
in order and unaltered. Where a client is owed the newest state alone, each state that it sees must have been
true, in the order in which they were, and the last one must reach it. Every unexplained loss is a violation,
also when the guilty part is unknown. All data stays in memory until the end: about a kilobyte for each trade
and client.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from decimal import Decimal
from itertools import islice, pairwise, takewhile
from typing import Any, ClassVar, Final, TypeAlias

from attrs import asdict, define, field, frozen

EXAMPLES: Final = 5  # of each sort of violation, in words
DAY: Final = 86_400 * 10**9  # ns


@frozen
class Seen:
    """The identity and the values of a trade, in the same form for exchange, daemon and client."""

    source: str
    trade_id: str | None
    side: str | None
    price: Decimal
    quantity: Decimal

    @property
    def key(self) -> tuple[str, str | None]:
        """The identity of the trade, without its values. One without an id has nothing but its place."""
        return self.source, self.trade_id


State: TypeAlias = tuple[Decimal, ...]  # what a client is shown: a price, or the numbers of a day


@define
class Day:
    """The trades of one symbol on one UTC day, folded without any code of the daemon.

    `first` and `last`: time (ns) and place of a trade, and its price.
    """

    start: int
    first: tuple[int, int, Decimal]
    last: tuple[int, int, Decimal]
    high: Decimal
    low: Decimal
    volume: Decimal

    @property
    def state(self) -> State:
        """Open, high, low, close, volume, and the time of the last trade in milliseconds."""
        moment, _, close = self.last
        return self.first[2], self.high, self.low, close, self.volume, Decimal(moment // 1_000_000)


@define
class Admitted:
    """The stream of one symbol in the daemon: every place is a trade or a gap.

    `prices` and `days` are the states that it went through, one a trade that counts. A late trade that fills
    a gap (`fills`: the number of the last one) has its price at its place, for who came there later. The day
    has it from some moment on, so then the last of `days` alone is sure.
    """

    trades: dict[int, Seen] = field(factory=dict)
    days: list[State] = field(factory=list)
    gaps: Counter[str] = field(factory=Counter)  # by reason
    gap_places: set[int] = field(factory=set)
    last: int = 0
    fills: int = 0
    _day: Day | None = None

    def newest(self, count: int) -> set[tuple[str, str | None]]:
        """The identities of the newest trades."""
        return {trade.key for trade in islice(reversed(self.trades.values()), count)}

    @property
    def prices(self) -> list[State]:
        """The price of each trade, by place."""
        return [(self.trades[place].price,) for place in sorted(self.trades)]

    def trade(self, offset: int, trade: Seen, moment: int = 0) -> None:
        """The next place is a trade of this time, ns since the epoch."""
        self.trades[offset] = trade
        self.last = offset
        self._count(offset, trade, moment)

    def fill(self, offset: int, trade: Seen, moment: int = 0) -> None:
        """A place of a gap holds this trade now, or held it already when it was read."""
        if offset in self.gap_places:
            self._count(offset, trade, moment)
        self.trades[offset] = trade
        self.gap_places.discard(offset)

    def _count(self, offset: int, trade: Seen, moment: int) -> None:
        start, at, day = moment // DAY * DAY, (moment, offset, trade.price), self._day
        if day is None or start > day.start:
            day = self._day = Day(start, at, at, trade.price, trade.price, trade.quantity)
        elif start < day.start:
            return  # that day is over
        else:
            day.first, day.last = min(day.first, at), max(day.last, at)
            day.high, day.low = max(day.high, trade.price), min(day.low, trade.price)
            day.volume += trade.quantity
        self.days.append(day.state)

    def gap(self, first: int, last: int, reason: str) -> None:
        """The next places, `first` to `last`, are a gap."""
        self.gaps[reason] += 1
        self.gap_places.update(range(first, last + 1))
        self.last = last


@define
class Stream:
    """The trades and gaps of one symbol at one client. The client calls it for every message, in order.

    `findings` counts the errors that show at once: duplicated, reordered, unasked (outside of a
    subscription), unrecovered (the answer to `since` was `recovered: false`), new_epoch, changed (a fill of a
    place that held another trade).
    """

    epoch: int | None = None
    begin: int = 0
    position: int | None = None  # None before the first answer
    delivered: dict[int, Seen] = field(factory=dict)
    recovered: int = 0  # trades that came in answers to `since`
    gaps: Counter[str] = field(factory=Counter)
    gap_places: set[int] = field(factory=set)
    exact: set[int] = field(factory=set)  # places of gaps that stand for one trade each: they can be filled
    owed: set[int] = field(factory=set)  # those that the daemon fills for a client that asks
    findings: Counter[str] = field(factory=Counter)
    rewinds: list[int] = field(factory=list)  # the places that it was told to go back to
    outlives: bool = False  # the daemon may be another one after a reconnection, with a new epoch
    asks: bool = False  # for what fills its gaps, when it comes back
    live: bool = False
    _ids: dict[tuple[str, str | None], int] = field(factory=dict)

    @property
    def since(self) -> dict[str, int] | None:
        """The `since` of the next subscription; None before the first answer."""
        if self.position is None or self.epoch is None:
            return None
        return {"epoch": self.epoch, "offset": self.position}

    def lost(self) -> None:
        """The connection is lost: no trade may come before the next answer."""
        self.live = False

    def follow(self) -> None:
        """A protocol without an answer: the stream begins with its first place, or goes on where it was."""
        self.live = True
        if self.position is None:
            self.position = 0

    def of(self, epoch: int) -> None:
        """What comes now belongs to `epoch`."""
        if self.epoch not in (None, epoch) and not self.outlives:
            self.findings["new_epoch"] += 1
        self.epoch = epoch

    def subscribed(self, answer: Mapping[str, Any]) -> None:
        """The answer to `subscribe`."""
        epoch, offset = answer["epoch"], answer["offset"]
        self.live = True
        if self.position is None:
            self.begin = self.position = offset
        elif "rewound" in answer:
            self.rewind(answer["rewound"]["offset"])
        elif not answer.get("recovered"):
            self.findings["unrecovered"] += 1
        self.of(epoch)
        before = len(self.delivered)
        for entry in sorted((*answer.get("trades", ()), *answer.get("gaps", ())), key=_place):
            if "from" in entry:
                self.gap(entry)
            else:
                self.trade(entry)
        self.recovered += len(self.delivered) - before

    def rewind(self, offset: int) -> None:
        """What came behind this place is no part of the stream any more."""
        self.rewinds.append(offset)
        self.cut(offset)
        self.begin = min(self.begin, offset)

    def cut(self, offset: int) -> None:
        """Forget what came behind this place."""
        self.delivered = {at: trade for at, trade in self.delivered.items() if at <= offset}
        for places in (self.gap_places, self.exact, self.owed):
            places.difference_update([at for at in places if at > offset])
        self._ids = {key: at for key, at in self._ids.items() if at <= offset}
        self.position = offset

    def reopen(self, first: int, last: int) -> None:
        """Forget what filled these places of a gap: the daemon will bring it again."""
        places = range(first, last + 1)
        for at in places:
            if self.delivered.pop(at, None) is not None:
                self.owed.add(at)
        self.gap_places.update(places)
        self.exact.update(places)

    def filled(self, params: Mapping[str, Any]) -> None:
        """A `stream.filled`: places of a gap hold these trades now."""
        for each in params["trades"]:
            self.fill(each["offset"], _seen(each))

    def fill(self, offset: int, trade: Seen) -> None:
        """A place of a gap holds this trade now."""
        if offset > self.begin:
            self.findings["changed"] += self.delivered.setdefault(offset, trade) != trade
            self.findings["duplicated"] += self._place_of(trade, offset) != offset
            for places in (self.gap_places, self.exact, self.owed):
                places.discard(offset)

    def trade(self, params: Mapping[str, Any]) -> None:
        """A `trades.update`, or one of the trades of an answer."""
        self.seen(params["offset"], _seen(params))

    def seen(self, offset: int, trade: Seen) -> None:
        """The trade at this place came."""
        if self._place_of(trade, offset) != offset or offset in self.delivered:
            self.findings["duplicated"] += 1
        elif not self._in_order(offset):
            self.findings["reordered"] += 1
        self.delivered[offset] = trade
        self._arrived_at(offset)

    def gap(self, params: Mapping[str, Any]) -> None:
        """A `stream.gap`, or one of the gaps of an answer."""
        first = params["from"]
        if first == 0:  # before what is left: no place of the stream
            return
        last = first if params["to"] is None else params["to"]
        if not self._in_order(first):
            self.findings["reordered"] += 1
        self.gaps[params["reason"]] += 1
        places = range(first, last + 1)
        self.gap_places.update(places)
        if params["to"] is not None:
            self.exact.update(places)
            if params["reason"] != "slow_client":  # the daemon brings no fill of what it left out for him
                self.owed.update(places)
        self._arrived_at(last)

    def _place_of(self, trade: Seen, offset: int) -> int:
        """The place at which this trade came first; without an id each one is another."""
        return offset if trade.trade_id is None else self._ids.setdefault(trade.key, offset)

    def _in_order(self, offset: int) -> bool:
        return self.position is None or offset > self.position

    def _arrived_at(self, offset: int) -> None:
        if not self.live:
            self.findings["unasked"] += 1
        self.position = offset if self.position is None else max(self.position, offset)


@define
class Shown:
    """What one client was shown of a symbol of which only the newest state counts, in order."""

    states: list[State] = field(factory=list)
    live: bool = False
    _resumed: bool = False

    def lost(self) -> None:
        """The connection is lost."""
        self.live = False

    def begin(self) -> None:
        """A new connection may begin with the state that was the last one before."""
        self.live = self._resumed = True

    def show(self, state: State) -> None:
        """The next state."""
        if not (self._resumed and self.states[-1:] == [state]):
            self.states.append(state)
        self._resumed = False


@define
class Account:
    """The result for one client: of one symbol, or the sum of several (`add`)."""

    delivered: int = 0
    recovered: int = 0
    announced: int = 0  # admitted trades inside a gap that was announced to the client
    gaps: int = 0
    missing: int = 0  # admitted trades that were neither delivered nor announced as missing
    untold: int = 0  # places of gaps in the stream that were not announced to the client
    altered: int = 0  # delivered trades that differ from the admitted ones
    unfilled: int = 0  # admitted trades in gaps that the daemon should have filled for the client
    wrong: Counter[str] = field(factory=Counter)  # the findings of `Stream`
    examples: list[str] = field(factory=list)
    _wrong: ClassVar = ("missing", "untold", "altered", "unfilled")

    def add(self, other: Account) -> None:
        """Sum up."""
        for name in ("delivered", "recovered", "announced", "gaps", *self._wrong):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.wrong.update(other.wrong)
        self.examples.extend(other.examples)

    @property
    def violations(self) -> Counter[str]:
        """The number of violations of each sort."""
        counted = {name: getattr(self, name) for name in self._wrong}
        return +(Counter(counted) + self.wrong)


def account(symbol: str, stream: Stream, admitted: Admitted) -> Account:
    """Compare the stream of a client with the admitted stream of this symbol."""
    places = range(stream.begin + 1, admitted.last + 1)
    lacking = [at for at in places if at not in stream.delivered and at not in stream.gap_places]
    missing = [at for at in lacking if at in admitted.trades]
    altered = [at for at, trade in stream.delivered.items() if admitted.trades.get(at) != trade]
    unfilled = sorted(at for at in stream.owed if at in admitted.trades) if stream.asks else []
    told = [
        f"{symbol}: {what} at {_few(where)}"
        for what, where in (("missing", missing), ("altered", altered), ("unfilled", unfilled))
        if where
    ]
    told += (f"{symbol}: {count} {what}" for what, count in (+stream.findings).items())
    return Account(
        delivered=len(stream.delivered),
        recovered=stream.recovered,
        announced=sum(at in admitted.trades and at not in stream.delivered for at in stream.gap_places),
        gaps=stream.gaps.total(),
        missing=len(missing),
        untold=len(lacking) - len(missing),
        altered=len(altered),
        unfilled=len(unfilled),
        wrong=+stream.findings,
        examples=told,
    )


def shown_account(symbol: str, shown: Shown, truth: Sequence[State], *, only_last: bool = False) -> Account:
    """Compare the states that a client was shown with those that there were.

    Wrong are: `untrue`, a state that there was not, or not after the one before; `stale`, when the last state
    did not reach the client. `only_last`: of the others it is not known in which order they were.
    """
    at, untrue = 0, list[State]()
    for state in () if only_last else shown.states:
        try:
            at = truth.index(state, at) + 1
        except ValueError:
            untrue.append(state)
    stale = shown.states[-1:] != list(truth[-1:])
    told = [f"{symbol}: not true, or not any more: {_values(state)}" for state in untrue[:EXAMPLES]]
    if stale:
        seen, newest = ("nothing" if not each else _values(each[-1]) for each in (shown.states, truth))
        told.append(f"{symbol}: saw {seen} last, not {newest}")
    return Account(
        delivered=len(shown.states), wrong=+Counter(untrue=len(untrue), stale=stale), examples=told
    )


def _values(state: State) -> str:
    return " ".join(map(str, state))


@define
class SourceAccount:
    """The result for one exchange or producer: of one symbol, or the sum of several (`add`)."""

    sent: int = 0
    admitted: int = 0
    announced: int = 0  # never admitted, and the stream has a gap in their place
    unaccounted: int = 0  # never admitted, and the stream has no gap in their place
    altered: int = 0  # admitted with other values than sent
    invented: int = 0  # admitted, but never sent
    twice: int = 0  # admitted again
    disordered: int = 0  # admitted behind what one connection brought later
    denied: int = 0  # admitted, though the daemon told their producer that they were not
    examples: list[str] = field(factory=list)
    _wrong: ClassVar = ("unaccounted", "altered", "invented", "twice", "disordered", "denied")

    def add(self, other: SourceAccount) -> None:
        """Sum up."""
        for name in ("sent", "admitted", "announced", *self._wrong):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.examples.extend(other.examples)

    @property
    def violations(self) -> Counter[str]:
        """The number of violations of each sort."""
        return +Counter({name: getattr(self, name) for name in self._wrong})


def source_account(symbol: str, sent: Sequence[Seen], admitted: Admitted) -> SourceAccount:
    """Compare the admitted stream of one symbol with the trades that its exchange sent, in that order.

    Trades before the first admitted one do not count: the daemon had not subscribed yet and promised nothing.
    All have ids: those of an exchange do.
    """
    offsets = {trade.key: offset for offset, trade in admitted.trades.items()}
    known = {trade.key: trade for trade in admitted.trades.values()}
    begin = next((n for n, trade in enumerate(sent) if trade.key in offsets), len(sent))
    counted = sent[begin:]
    silent = list(_silent([offsets.get(trade.key) for trade in counted], admitted.gap_places))
    altered = [trade for trade in counted if known.get(trade.key, trade) != trade]
    lost = sum(trade.key not in offsets for trade in counted)
    made = SourceAccount(
        sent=len(counted),
        admitted=len(known),
        announced=lost - len(silent),
        unaccounted=len(silent),
        altered=len(altered),
        invented=len(known.keys() - {trade.key for trade in sent}),
        twice=len(admitted.trades) - len(known),
    )
    if silent:
        made.examples.append(
            f"{symbol}: never admitted, no gap: {_few([str(counted[n].trade_id) for n in silent])}"
        )
    if altered:
        made.examples.append(f"{symbol}: not as sent: {_few([str(trade.trade_id) for trade in altered])}")
    return made


@define
class Refill:
    """What became of the trades that did not come: asked for and delivered, or left as a named gap.

    `anew`: those of them that were missed when the exchange numbered anew, so that nobody could ask.
    `seconds`: from the loss until all was there, as (bound, how many took at most so long). `asked`:
    questions. `refused`: answers that were not believed, by reason.
    """

    refilled: int
    left: int
    seconds: list[tuple[float, int]]
    asked: int
    refused: Counter[str]
    anew: int = 0

    @property
    def missed(self) -> int:
        """All trades that did not come."""
        return self.refilled + self.left

    @property
    def share(self) -> float:
        """The share that was delivered after all, of those that could be asked for."""
        askable = self.missed - self.anew
        return self.refilled / askable if askable > 0 else 1.0

    def within(self, share: float) -> float:
        """Seconds within which this share of the questions was answered; 0 without any."""
        whole = self.seconds[-1][1] if self.seconds else 0
        return next((bound for bound, count in self.seconds if whole and count >= share * whole), 0.0)


def missed_anew(ids: Sequence[int], admitted: Set[int]) -> int:
    """How many trades were missed where the numbers of an exchange go back: the last ones before, and the
    first ones behind. `ids`: of one symbol, as they were sent."""
    found = 0
    for begin in (at for at in range(1, len(ids)) if ids[at] < ids[at - 1]):
        before, behind = reversed(ids[:begin]), ids[begin:]
        found += sum(1 for _ in takewhile(lambda id: id not in admitted, before))
        found += sum(1 for _ in takewhile(lambda id: id not in admitted, behind))
    return found


@define
class Push:
    """What a producer sent over one connection: ticks of one symbol, no two with the same volume.

    `over`: the connection has ended. `taken`: how many of them were taken, if the daemon said so then.
    """

    sent: list[Seen] = field(factory=list)
    over: bool = False
    taken: int | None = None


def pushed_account(
    symbol: str, pushes: Sequence[Push], admitted: Admitted, dropped: int = 0
) -> SourceAccount:
    """Compare the admitted stream of one symbol with what its only producer pushed, in that order.

    Of a connection that was cut, the ticks behind the last admitted one do not count: nobody knows whether
    they have arrived. All others must be there, but for as many as were `dropped` on purpose.
    """
    offsets = {trade.quantity: offset for offset, trade in admitted.trades.items()}
    sent = {trade.quantity: trade for push in pushes for trade in push.sent}
    counted, places = list[Seen](), list[int | None]()
    made = SourceAccount(admitted=len(offsets), twice=len(admitted.trades) - len(offsets))
    for push in pushes:
        found = [offsets.get(trade.quantity) for trade in push.sent]
        arrived = [offset for offset in found if offset is not None]
        end = push.taken
        if end is None:
            end = len(found) if not push.over else found.index(arrived[-1]) + 1 if arrived else 0
        made.denied += sum(offset is not None for offset in found[end:])
        made.disordered += sum(later < earlier for earlier, later in pairwise(arrived))
        counted += push.sent[:end]
        places += found[:end]
    silent = [str(counted[n].quantity) for n in _silent(places, admitted.gap_places)]
    altered = [
        str(number)
        for number, offset in offsets.items()
        if sent.get(number, admitted.trades[offset]) != admitted.trades[offset]
    ]
    made.sent = len(counted)
    made.unaccounted = max(0, len(silent) - dropped)
    made.announced = places.count(None) - made.unaccounted
    made.altered = len(altered)
    made.invented = len(offsets.keys() - sent.keys())
    if made.unaccounted:
        made.examples.append(
            f"{symbol}: never admitted, no gap: {_few(silent)}; {dropped} dropped on purpose"
        )
    if altered:
        made.examples.append(f"{symbol}: not as sent: {_few(altered)}")
    if made.denied or made.disordered:
        made.examples.append(f"{symbol}: {made.denied} denied, {made.disordered} disordered")
    return made


def _silent(offsets: Sequence[int | None], gap_places: set[int]) -> Iterator[int]:
    """Which trades were never admitted and have no gap. `offsets`: of all trades in the order of sending.

    A gap announces a run of them if it lies after some trade that was sent earlier, and before all trades
    that were sent later. ("Some" trade, not every one: a trade may be admitted late.)
    """
    gaps = sorted(gap_places)
    ahead = _lowest_of_the_rest(offsets)
    before: list[int] = []
    n = 0
    while n < len(offsets):
        offset = offsets[n]
        if offset is not None:
            insort(before, offset)
            n += 1
            continue
        end = n
        while end < len(offsets) and offsets[end] is None:
            end += 1
        if not _gap_between(before, gaps, ahead[end]):
            yield from range(n, end)
        n = end


def _lowest_of_the_rest(offsets: Sequence[int | None]) -> list[float]:
    """For every index the lowest offset from there on; infinity where there is none."""
    lowest = [float("inf")] * (len(offsets) + 1)
    for n in range(len(offsets) - 1, -1, -1):
        offset = offsets[n]
        lowest[n] = lowest[n + 1] if offset is None else min(lowest[n + 1], offset)
    return lowest


def _gap_between(before: Sequence[int], gaps: Sequence[int], ahead: float) -> bool:
    nearest = bisect_left(before, ahead)
    behind = before[nearest - 1] if nearest else 0
    first = bisect_left(gaps, behind)
    return first < len(gaps) and gaps[first] < ahead


class Findings:
    """Whether every invariant held. `WORDS`: the fields that have violations in words."""

    WORDS: ClassVar[tuple[str, ...]]
    sources: dict[str, SourceAccount]
    clients: dict[str, Account]

    @property
    def violations(self) -> Counter[str]:
        """The number of violations of each invariant. Empty if every invariant held."""
        found: Counter[str] = Counter()
        for _name, each in self._accounts():
            found.update(each.violations)
        for name in self.WORDS:
            found[name] += len(getattr(self, name))
        return +found

    @property
    def held(self) -> bool:
        """Whether every invariant held."""
        return not self.violations

    @property
    def evidence(self) -> list[str]:
        """Examples of violations, in words."""
        lines = [f"{name} {line}" for name, each in self._accounts() for line in each.examples[:EXAMPLES]]
        for name in self.WORDS:
            lines += (f"{name}: {line}" for line in getattr(self, name)[:EXAMPLES])
        return lines

    def _accounts(self) -> Iterator[tuple[str, Account | SourceAccount]]:
        yield from self.sources.items()
        yield from self.clients.items()


@define
class Figures(Findings):
    """All results of a rehearsal. `recovery` holds (path or client, seconds until it was back)."""

    WORDS: ClassVar = ("unbalanced", "unsettled", "left_behind", "broken")

    faults: Counter[str] = field(factory=Counter)  # carried out, by sort and kind
    impossible: Counter[str] = field(factory=Counter)  # steps without effect, because their target was down
    struck: Counter[str] = field(factory=Counter)  # strikes of injected faults
    restarts: Counter[str] = field(factory=Counter)
    crashes: Counter[str] = field(factory=Counter)
    recovery: list[tuple[str, float]] = field(factory=list)
    sources: dict[str, SourceAccount] = field(factory=dict)
    refills: dict[str, Refill] = field(factory=dict)  # by source
    verdicts: Counter[str] = field(factory=Counter)  # decisions of the shards: admitted, duplicate, ...
    gaps: Counter[str] = field(factory=Counter)  # of the streams, by reason
    clients: dict[str, Account] = field(factory=dict)
    connections: dict[str, int] = field(factory=dict)
    made: dict[str, str] = field(factory=dict)  # of what, in words, by client that speaks JSON-RPC
    closed: Counter[int] = field(factory=Counter)  # connections of clients, by close code
    balances: int = 0  # number of looks at the mailboxes
    unbalanced: list[str] = field(factory=list)
    unsettled: list[str] = field(factory=list)  # parts that had not recovered at the end
    left_behind: list[str] = field(factory=list)
    broken: list[str] = field(factory=list)  # unexpected failures of the daemon or of the rehearsal

    @property
    def slowest(self) -> str:
        """The path or client that was away for the longest time."""
        return max(self.recovery, key=lambda loss: loss[1], default=("nobody", 0.0))[0]

    def to_dict(self) -> dict[str, Any]:
        """All results as plain values, ready for JSON."""
        plain = asdict(self)
        plain["recovery"] = {
            **quantiles([seconds for _who, seconds in self.recovery]),
            "slowest": self.slowest,
        }
        return {"held": self.held, "violations": dict(self.violations), "evidence": self.evidence, **plain}


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """Count, median, 99th percentile and maximum: keys `count`, `p50`, `p99`, `max`."""
    ordered = sorted(values)
    if not ordered:
        return {"count": 0}
    named = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    picked = {
        name: ordered[min(len(ordered) - 1, int(share * len(ordered)))] for name, share in named.items()
    }
    return {"count": len(ordered), **{name: round(value, 3) for name, value in picked.items()}}


def unbalanced(node: Mapping[str, Any]) -> Iterator[str]:
    """Describes the mailboxes of a tree (`Node.to_dict`) with counters that do not add up."""
    box = node["mailbox"]
    if box is not None:
        known = box["handled"] + box["queued"] + sum(box["dropped"].values()) + box["lost_in_flight"]
        if known != box["accepted"]:
            yield f"{node['path']}: accepted {box['accepted']}, but {known} accounted for: {box}"
    for child in node["children"]:
        yield from unbalanced(child)


def _seen(params: Mapping[str, Any]) -> Seen:
    price, quantity = Decimal(params["price"]), Decimal(params["qty"])
    return Seen(params["source"], params["tradeId"], params["side"], price, quantity)


def _place(entry: Mapping[str, Any]) -> int:
    place: int = entry["from"] if "from" in entry else entry["offset"]
    return place


def _few(names: Sequence[str | int]) -> str:
    shown = ", ".join(map(str, names[:EXAMPLES]))
    return shown if len(names) <= EXAMPLES else f"{shown} and {len(names) - EXAMPLES} more"
