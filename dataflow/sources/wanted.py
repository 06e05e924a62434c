"""What is missing at the sources, and what came of asking for it. This state outlives every actor.

Rules of this file: no I/O, nothing waits. The history tells what is missing, and may hold live trades back
until it comes. Someone else asks for it, and tells here what came. Memory is bounded: of one source `ASKS`
questions are open at most; one more pushes out the least urgent, which is counted, and whose trades stay
missing. What overlaps in one symbol is one question, and so is what lies near to each other, as long as it is
not asked for. The more of the weight is used, the longer a new question waits for others near to it.

A crash of who asks loses nothing: a question stays open until it is answered or given up, and a hold has its
end here. Times are seconds of Trio's clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import trio
from attrs import define, evolve, field

from dataflow.domain import Missing, Trade
from dataflow.figures import Histogram

from .breaker import Breaker

ASKS: Final = 4000  # open questions of one source: more than the symbols that any has
REMEMBERED: Final = 1000  # symbols whose gaps were given up
LIES: Final = 3  # answers in a row that cannot be believed open the circuit
OPEN_FOR: Final = 60.0  # seconds
NEAR: Final = 500  # sequences between two losses that are asked for together
RANGES: Final = 200  # losses in one question: each that is new costs a look at all of them
PATIENCE: Final = (
    5.0  # seconds that a question may wait for others near to it, if nobody waits for its answer
)
FIRST_AGAIN: Final = 0.25  # seconds until a question is asked again; doubled each time
LAST_AGAIN: Final = 60.0
LOSS_TO_FILL: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0)


@define(eq=False)
class Ask:
    """An open question. `left`: the ranges of sequences that did not come yet, none without sequences.

    `holds`: until when live trades wait, and for what; the first end first. `at`: the time from which it may
    be asked again.
    """

    missing: Missing
    told_at: float
    at: float
    holds: list[tuple[float, Missing]] = field(factory=list)
    left: list[tuple[int, int]] = field(factory=list)
    tries: int = 0
    is_in_hand: bool = False

    @property
    def hold_until(self) -> float | None:
        """When the first of those that wait for it have waited long enough; None: nobody waits."""
        return self.holds[0][0] if self.holds else None

    @property
    def fills(self) -> bool:
        """Whether an answer is of use when nobody waits: for an exact gap, or for the end of the stream."""
        return self.missing.first is not None or self.missing.before is None

    @property
    def count(self) -> int:
        """The trades that are known to be missing still."""
        return sum(last - first + 1 for first, last in self.left)

    def due(self, used: float) -> float:
        """When it shall be asked. `used`: the part of the weight that is used, from 0 to 1."""
        if self.tries:
            return self.at
        until = self.hold_until
        return self.at + used * (PATIENCE if until is None else (until - self.told_at) / 2)


@define(eq=False)
class Refills:
    """The open questions of one source, and its figures.

    `breaker`: open after answers that could not be believed.

    `asked` counts questions by HTTP, `filled` trades that were delivered, `told` gaps that were told because
    the hold was over, `given_up` questions whose time was over, `pushed_out` those without room. `failed`:
    questions without an answer, by reason; `refused`: answers that were not believed, by reason. `seconds`:
    from the loss until all was there. `gapped`: symbols with trades that were given up, and when.
    """

    breaker: Breaker = field(factory=lambda: Breaker(LIES, OPEN_FOR))
    asked: int = 0
    filled: int = 0
    told: int = 0
    given_up: int = 0
    pushed_out: int = 0
    failed: Counter[str] = field(factory=Counter)
    refused: Counter[str] = field(factory=Counter)
    seconds: Histogram = field(factory=lambda: Histogram(bounds=LOSS_TO_FILL))
    gapped: dict[str, float] = field(factory=dict)
    _asks: dict[Ask, None] = field(factory=dict)
    _of: dict[str, list[Ask]] = field(factory=dict)  # the same by symbol: all symbols may lose at once
    _let_go: list[Missing] = field(factory=list)  # trades wait for these, and nobody asks for them any more
    _symbols: Mapping[str, bool] | None = field(factory=dict)  # None: to be made anew
    _changed: trio.Event = field(factory=trio.Event)

    # -- what is missing

    def add(self, missing: Missing, hold: float = 0.0, now: float | None = None) -> None:
        """These trades are missing. `hold`: seconds for which those behind them wait; 0: they do not."""
        now = trio.current_time() if now is None else now
        waits = missing.before is not None or missing.until is not None
        holds = [(now + hold, missing)] if hold > 0 and waits else []
        ask = Ask(missing, now, now, holds, _whole(missing))
        for other in [each for each in self._of.get(missing.symbol, ()) if _belongs(each, missing)]:
            ask = _joined(other, ask)
            self._remove(other)
        self._asks[ask] = None
        self._of.setdefault(missing.symbol, []).append(ask)
        if len(self._asks) > ASKS:
            self._push_out()
        self._wake()

    def _push_out(self) -> None:
        victim = min(self._asks, key=lambda each: (each.hold_until is not None, each.told_at))
        self._remove(victim)
        self.pushed_out += 1
        self._missed(victim, victim.told_at)
        self._let_go += [missing for _, missing in victim.holds]

    def _remove(self, ask: Ask) -> None:
        del self._asks[ask]
        of_symbol = self._of[ask.missing.symbol]
        of_symbol.remove(ask)
        if not of_symbol:
            del self._of[ask.missing.symbol]

    def missing(self, symbol: str) -> int:
        """The trades of `symbol` that are known to be missing, and are asked for."""
        return sum(ask.count for ask in self._of.get(symbol, ()))

    @property
    def symbols(self) -> Mapping[str, bool]:
        """The symbols with an open question; and whether trades are known to be missing. If they are not, the
        question only looks whether there are newer ones."""
        if self._symbols is None:
            self._symbols = {
                symbol: any(ask.missing.before is not None for ask in asks)
                for symbol, asks in self._of.items()
            }
        return self._symbols

    @property
    def missing_now(self) -> int:
        """All trades that are known to be missing, and are asked for."""
        return sum(ask.count for ask in self._asks)

    @property
    def open(self) -> int:
        """Open questions."""
        return len(self._asks)

    # -- for who asks

    def take(self, now: float, used: float = 0.0) -> Ask | None:
        """The most urgent question that shall be asked now. It is in hand until `put_back` or `done`. `used`:
        the part of the weight that is used, from 0 to 1."""
        first: dict[str, float] = {}  # trades without sequences go on in the order in which they wait
        for ask in self._asks:
            if ask.missing.first is None:
                symbol = ask.missing.symbol
                first[symbol] = min(ask.told_at, first.get(symbol, ask.told_at))
        due = [
            ask
            for ask in self._asks
            if not ask.is_in_hand
            and ask.due(used) <= now
            and (ask.missing.first is not None or ask.told_at <= first[ask.missing.symbol])
        ]
        if not due:
            return None
        ask = min(due, key=_urgency)
        ask.is_in_hand = True
        # Before it is tried: whatever happens then, others have their turn before it is tried again.
        ask.at = now + min(FIRST_AGAIN * 2**ask.tries, LAST_AGAIN)
        ask.tries = min(ask.tries + 1, 30)
        return ask

    def put_back(self, ask: Ask, was_tried: bool = True) -> None:
        """It stays open. One that found no turn to be asked was not tried, and its time does not end."""
        ask.is_in_hand = False
        if not was_tried:
            ask.tries = 0
        self._wake()

    def came(self, ask: Ask, trades: Sequence[Trade]) -> None:
        """These of its trades were delivered, at least one."""
        self.filled += len(trades)
        numbers = {trade.sequence for trade in trades if trade.sequence is not None}
        if not numbers:
            return
        ask.left = list(_without(ask.left, numbers))
        if ask.missing.last is None:
            ask.missing = evolve(ask.missing, after=trades[-1], first=max(numbers) + 1)
        ask.tries, ask.at = 0, ask.told_at  # it leads on: the rest is asked for at once

    def done(self, ask: Ask, now: float) -> None:
        """Nothing of it is missing any more, whoever brought it."""
        if ask in self._asks:
            self._remove(ask)
            self.seconds.add(now - ask.told_at)
        self._wake()

    def give_up(self, ask: Ask, now: float) -> None:
        """What is still missing stays missing."""
        if ask in self._asks:
            self._remove(ask)
            self.given_up += 1
            self._missed(ask, now)
        self._wake()

    def forget(self, symbol: str, now: float | None = None) -> None:
        """The source numbers `symbol` anew: nothing that was missing before can be asked for any more."""
        now = trio.current_time() if now is None else now
        for ask in self._of.get(symbol, []).copy():
            self._let_go += [missing for _, missing in ask.holds]
            self.give_up(ask, now)

    def released(self, now: float, in_vain_until: float = float("-inf")) -> list[Missing]:
        """That for which live trades need not wait any longer: their hold is over, or it ends before anything
        can be asked again, at `in_vain_until`. Each is given once."""
        for ask in [each for each in self._asks if each.holds]:
            until = now if ask.is_in_hand else max(now, in_vain_until)
            self.release(ask, now, until)
        found, self._let_go = self._let_go, []
        return found

    def release(self, ask: Ask, now: float, until: float = float("inf")) -> None:
        """Live trades that would wait for it until then go on, behind a gap. Of trades without sequences
        nothing can be filled afterwards."""
        over = [missing for each, missing in ask.holds if each <= until]
        if not over:
            return
        ask.holds = [each for each in ask.holds if each[0] > until]
        self.told += len(over)
        self._let_go += over
        if not ask.holds and (not ask.fills or ask.missing.until is not None):
            self.give_up(ask, now)
        self._wake()

    def expired(self, now: float, within: float) -> list[Ask]:
        """The questions that are older than `within` seconds, and wait for nothing in hand."""
        return [
            ask for ask in self._asks if ask.told_at + within <= now and not ask.holds and not ask.is_in_hand
        ]

    def next_try(self, used: float = 0.0) -> float:
        """The next time at which `take` may give a question, unless something changes before."""
        return min((ask.due(used) for ask in self._asks if not ask.is_in_hand), default=float("inf"))

    def next_end(self, within: float) -> float:
        """The next time at which a hold is over, or a question is older than `within`."""
        if self._let_go:
            return float("-inf")
        ends = [
            ask.told_at + within if until is None else until
            for ask in self._asks
            if (until := ask.hold_until) is not None or (ask.tries and not ask.is_in_hand)
        ]
        return min(ends, default=float("inf"))

    def changed(self) -> trio.Event:
        """An event that the next change after this call sets."""
        return self._changed

    def _missed(self, ask: Ask, now: float) -> None:
        if ask.missing.before is None and not ask.count:
            return  # it was only a look whether there is more
        self.gapped.pop(ask.missing.symbol, None)
        self.gapped[ask.missing.symbol] = now
        if len(self.gapped) > REMEMBERED:
            del self.gapped[next(iter(self.gapped))]

    def _wake(self) -> None:
        self._symbols = None
        self._changed.set()
        self._changed = trio.Event()


def _urgency(ask: Ask) -> tuple[bool, int, float]:
    """Those for which live trades wait, by their end. Then the others, those that only look last. Of these
    the one that was tried less often: one that nobody can answer must not be the first try again and again
    when the circuit is open, or all others are never asked for."""
    if ask.hold_until is not None:
        return False, 0, ask.hold_until
    return True, ask.tries, ask.told_at + (LAST_AGAIN if ask.missing.before is None else 0.0)


def _whole(missing: Missing) -> list[tuple[int, int]]:
    if missing.first is None or missing.last is None:
        return []
    return [(missing.first, missing.last)]


def _belongs(ask: Ask, new: Missing) -> bool:
    """Whether what is new is a part of the same question."""
    old = ask.missing
    if old.symbol != new.symbol or (old.first is None) != (new.first is None):
        return False
    if old.first is None or new.first is None:
        return _same(old.after, new.after) or old.before is None or new.before is None
    end = float("inf")
    old_last, new_last = (end if each.last is None else each.last for each in (old, new))
    # While the answer is on its way, only what was asked for may be told again.
    is_closed = ask.is_in_hand or len(ask.left) >= RANGES
    near = 0 if is_closed or end in (old_last, new_last) else NEAR
    return old.first <= new_last + near and new.first <= old_last + near


def _same(one: Trade | None, other: Trade | None) -> bool:
    return one is not None and other is not None and one.trade_id == other.trade_id


def _joined(old: Ask, new: Ask) -> Ask:
    """One question for both. One without an end gets the end of the other."""
    low, high = (
        (old.missing, new.missing) if _begins(old.missing, new.missing) else (new.missing, old.missing)
    )
    ends = high if high.before is not None or low.before is None else low
    if low.last is not None and high.last is not None and low.last > high.last:
        ends = low
    # Who waits for the last word of the old source must get it, whatever question that one was joined to.
    until = max((each.until for each in (low, high) if each.until is not None), default=None)
    missing = evolve(low, before=ends.before, last=ends.last, until=until)
    left = sorted({*old.left, *new.left}) if missing.last is not None else []
    return evolve(
        new,
        missing=missing,
        told_at=min(old.told_at, new.told_at),
        at=min(old.at, new.at),
        holds=sorted([*old.holds, *new.holds], key=lambda each: each[0]),
        left=list(_united(left)),
        tries=min(old.tries, new.tries),
    )


def _united(ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Ranges without overlaps. They come in the order of their beginnings."""
    begin, end = 0, -1
    for first, last in ranges:
        if first > end + 1:
            if begin <= end:
                yield begin, end
            begin = first
        end = max(end, last)
    if begin <= end:
        yield begin, end


def _begins(one: Missing, other: Missing) -> bool:
    if one.first is None or other.first is None:
        moments = [0 if each.after is None else each.after.timestamp for each in (one, other)]
        return moments[0] <= moments[1]
    return one.first <= other.first


def _without(ranges: Iterable[tuple[int, int]], numbers: set[int]) -> Iterator[tuple[int, int]]:
    """What is left of ranges. `numbers` are few beside what the ranges may hold."""
    for first, last in ranges:
        begin = first
        for number in sorted(each for each in numbers if first <= each <= last):
            if begin < number:
                yield begin, number - 1
            begin = number + 1
        if begin <= last:
            yield begin, last
