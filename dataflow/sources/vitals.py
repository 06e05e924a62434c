"""The signs of life of each symbol of a source: live, quiet or stalled; what is missing; how late it is.

Rules of this file. Pure: `now` is given, in seconds of a clock that never jumps. This state outlives every
actor. It is looked at about once a second, so it costs nothing per trade; what happens between two looks
counts as one sign.

A silence is judged by what the upstream tells of its newest trade. If it is the newest one that we have, the
symbol is `quiet`. If it is newer, and ours has not moved `GRACE` seconds after the answer, the symbol is
`stalled`. What was missed before the present subscription proves nothing: so an answer is compared with what
came since, and when nothing came, with the answer before it, or with our newest trade if that is newer.

Nobody knows how a symbol fares before its first sign of life: a trade, or an answer with nothing newer. Until
then it is `quiet`, and the reason says so. A trade that is there at the first look at a subscription is no
sign: it may be of the past, told with that.

A source that stands by is judged alike, by the trades of it that are left out. No history judges those, so
one that comes again is no sign, nor is the first one of a stalled symbol: it may be of the past, told with
the new subscription. An answer does not end its stall: another source delivers, and nothing hurries.

What the answer to a question for missing trades brings is no sign of life either: the subscription did not.
Nor is a trade that the history refuses. If some were refused since the newest admitted one, and not all at
once, as those of a replay are, the symbol is `stalled`, whatever the upstream tells: what it sends cannot be
told from what came before. Only an admitted trade ends that, or another source that is preferred.

A stalled symbol is subscribed anew. If that does not help, the connection is made anew. That hurts the other
symbols, so it happens rarer and rarer while it does not help: an upstream that lies about its newest trade
costs little. A quiet symbol is asked about less and less often.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from enum import Enum
from statistics import median
from typing import Final, NamedTuple

from attrs import Factory, define, field, frozen

from dataflow.domain import Trade
from dataflow.domain.quality import Grade

from .cadence import Cadence, Compared, compare
from .port import Newest

GRACE: Final = 2.0  # seconds: a trade may reach the REST of an upstream so much earlier than us
_WHY: Final = {
    "late": "their numbers lie behind its own",
    "too_old": "they are older than what is remembered",
    "reused": "their ids are those of other trades",
    "implausible": "their numbers are far too high",
}
REFUSED: Final = 3  # trades that the history has refused since the newest one: fewer are stragglers ...
REFUSED_FOR: Final = 2.0  # ... and seconds from the first of them to the last: a replay is over sooner
GAPPED_FOR: Final = 600.0  # seconds for which a gap that is not filled is shown
_RARELY: Final = 900.0  # seconds between two questions about a quiet symbol, at most
_FAILED: Final = (5.0, 300.0)  # seconds before the next question after one that failed: at first, at most
_RECONNECT: Final = (60.0, 3600.0)  # seconds between two new connections for a stall: at first, at most
_LAGS: Final = 15  # samples
_NEVER: Final = float("inf")
UNHEARD: Final = "whether its trades come is not known yet"
NOT_ASKED: Final = "silent; the source cannot be asked for newer trades"
NO_ANSWER: Final = "silent; the source did not answer whether it has newer trades"
UNCLEAR: Final = "silent; what the source tells of its newest trade does not fit to ours"
NEWER: Final = "the source has newer trades than it sends"


class Remedy(Enum):
    """What helps a symbol."""

    REFILL = "refill"  # ask for what was missed
    RESUBSCRIBE = "resubscribe"  # and for what was missed
    RECONNECT = "reconnect"  # likewise


@frozen
class Seen:
    """What one look shows of a symbol. `ours`: its newest admitted trade of this source; while that stands
    by, the last one that was left out. `lag`: a new sample, seconds. `is_answer`: it was brought by an
    answer, not by the stream. `lacks`: trades that are known to be missing are being asked for. `refused`: so
    many trades were refused since `ours` came, from the first to the last in so many seconds, and the last
    one for this."""

    ours: Trade | None
    lag: float | None = None
    is_answer: bool = False
    lacks: bool = False
    refused: tuple[int, float, str] | None = None
    stands_by: bool = False


class Shown(NamedTuple):
    """The parts of a pulse that make the state of its symbol. `refused`: see `Pulse`."""

    grade: Grade
    reason: str | None
    refused: str | None
    is_refilling: bool
    is_gapped: bool


@define(eq=False)
class Pulse:
    """The signs of life of one symbol.

    `missing`: places that are gaps now, the newest of which came at `gapped_at`. `holes`, `counted_at`: the
    state of its history when they were counted.
    """

    cadence: Cadence = Factory(Cadence)
    grade: Grade = Grade.QUIET  # LIVE, QUIET or STALLED
    reason: str | None = UNHEARD
    ours: Trade | None = None
    ask_at: float = _NEVER
    asked: int = 0  # questions in this silence
    stalls: int = 0  # proven in a row
    refused: str | None = None  # what it sends is refused: why that makes it stalled
    is_refilling: bool = False  # trades that are known to be missing are asked for
    is_gapped: bool = False  # places went missing lately, and still are
    missing: int | None = None
    gapped_at: float = float("-inf")
    holes: int = -1
    counted_at: float = float("-inf")
    lag: float | None = None  # seconds from a trade to its arrival: the median of late
    lags: deque[float] = field(factory=lambda: deque(maxlen=_LAGS))
    _heard_at: float = 0.0  # the newest sign, or the begin of the subscription
    _known: Newest | None = None  # the newest trade since that begin, as we or the upstream saw it
    _known_at: float = 0.0
    _suspect: Newest | None = None  # newer than ours
    _proven_at: float = float("inf")
    _stands_by: bool = False
    _may_be_past: bool = False  # the next trade: it may come with a new subscription

    @property
    def shown(self) -> Shown:
        return Shown(self.grade, self.reason, self.refused, self.is_refilling, self.is_gapped)

    @property
    def stalled(self) -> str | None:
        """Why it is stalled; None: it is not."""
        return self.refused or (self.reason if self.grade is Grade.STALLED else None)

    def begin(self, now: float, seen: Seen) -> None:
        """It is subscribed, perhaps anew: what came before proves nothing."""
        self.ours, self._heard_at = seen.ours, now
        self._stands_by, self._may_be_past = seen.stands_by, True
        self._known = self._suspect = None
        self.asked = 0
        self.ask_at = now + (GRACE if self.grade is Grade.STALLED else self.cadence.patience)

    def end(self) -> None:
        """It is not subscribed any more, so its silence means nothing."""
        self.ask_at, self._known, self._suspect = _NEVER, None, None
        self.is_refilling = False
        self._be_quiet(UNHEARD)

    def look(self, now: float, seen: Seen) -> Remedy | None:
        """Returns what is to be done when a stall is proven."""
        if seen.stands_by is not self._stands_by:
            self._stands_by, self.ours = seen.stands_by, seen.ours  # other trades than before, none is new
        self.is_refilling = seen.lacks
        self.refused = _refusal(seen)
        if seen.ours is not None and self._is_new(seen.ours):
            is_sign = not seen.is_answer and not self._is_in_doubt
            self.ours, self._known, self._known_at = seen.ours, Newest.of(seen.ours), now
            self._may_be_past = False
            if is_sign:
                self._suspect = None
                self._hear(now, seen.lag)
        if self._suspect is not None and now >= self._proven_at:
            return self._stall(now, self._suspect)
        return None

    def answered(self, now: float, told: Newest | None) -> Remedy | None:
        """The upstream has told its newest trade; None: it has none."""
        if self.ask_at == _NEVER:
            return None  # the subscription ended meanwhile
        self.asked += 1
        times = self.stalls if self.grade is Grade.STALLED else self.asked
        self.ask_at = now + min(self.cadence.patience * 2 ** min(times, 10), _RARELY)
        if told is None:
            self._be_quiet(None)
            return None
        if self._known is None:
            return self._since_before(told, now)
        compared = compare(told, self._known, now - self._known_at)
        if compared is Compared.NEWER:
            self._suspect, self._proven_at = told, now + GRACE
        elif compared is Compared.SAME:
            if not (self._stands_by and self.grade is Grade.STALLED):
                self._become(Grade.QUIET)
        else:
            self._be_quiet(UNCLEAR)
        return None

    def failed(self, why: str) -> None:
        """It could not be asked."""
        if self.ask_at != _NEVER:
            self._be_quiet(why)

    def _since_before(self, told: Newest, now: float) -> Remedy | None:
        """The first answer since the subscription, beside the newest trade from before it."""
        before = None if self.ours is None else Newest.of(self.ours)
        compared = None if before is None else compare(told, before, _NEVER)
        is_late = before is not None and compare(before, told, _NEVER) is Compared.NEWER
        self._known, self._known_at = before if is_late else told, now
        if compared is Compared.SAME:
            self._be_quiet(None)
        # A newer trade was missed before the subscription, or since: the next answer shows which.
        return Remedy.REFILL if compared is Compared.NEWER else None

    def _is_new(self, trade: Trade) -> bool:
        if trade is self.ours or self.ours is None or not self._stands_by:
            return trade is not self.ours
        return compare(Newest.of(trade), Newest.of(self.ours), _NEVER) is not Compared.SAME

    @property
    def _is_in_doubt(self) -> bool:
        """Whether the next trade proves nothing."""
        return self._may_be_past and self._stands_by and self.grade is Grade.STALLED

    def _hear(self, now: float, lag: float | None) -> None:
        if lag is not None:
            self.lags.append(lag)
            self.lag = round(median(self.lags), 3)  # here, for it is read far more often than it changes
        self.cadence.heard(now - self._heard_at)
        self._heard_at, self.asked, self.stalls = now, 0, 0
        self.ask_at = now + self.cadence.patience
        self._become(Grade.LIVE)

    def _stall(self, now: float, told: Newest) -> Remedy:
        self._suspect, self._may_be_past = None, True
        if self._known is None or compare(told, self._known, _NEVER) is Compared.NEWER:
            self._known, self._known_at = told, now
        self.stalls += 1
        self._become(Grade.STALLED, NEWER)
        return Remedy.RESUBSCRIBE if self.stalls == 1 else Remedy.RECONNECT

    def _be_quiet(self, reason: str | None) -> None:
        if self.grade is not Grade.STALLED:
            self._become(Grade.QUIET, reason)

    def _become(self, grade: Grade, reason: str | None = None) -> None:
        self.grade, self.reason = grade, reason


def _refusal(seen: Seen) -> str | None:
    """Why what is refused makes a symbol stalled; None: it does not. The number is told by its first digit,
    or the reason would change with every trade."""
    count, seconds, why = seen.refused or (0, 0.0, "")
    if count < REFUSED or seconds < REFUSED_FOR:
        return None
    least = max(REFUSED, 10 ** (len(str(count)) - 1))
    return f"at least {least:,} trades were refused since its newest one: {_WHY.get(why, why)}"


@define(eq=False)
class Vitals:
    """The pulses of the symbols that a source was ever subscribed to.

    `asked`, `failed`: questions, and those without a good answer, by reason. `stalls`: proven ones.
    `remedies`: what was done, by name.
    """

    pulses: dict[str, Pulse] = field(factory=dict)
    asked: int = 0
    failed: Counter[str] = field(factory=Counter)
    stalls: int = 0
    remedies: Counter[str] = field(factory=Counter)
    ask_at: float = float("-inf")  # not before, whoever is due
    began_at: float | None = None  # the first look
    _begun: set[str] = field(factory=set)  # subscribed since the last look
    _failures: int = 0  # in a row
    _reconnect_at: float = float("-inf")
    _reconnections: int = 0  # that did not help, in a row

    @property
    def missing(self) -> int:
        """Places in memory that are gaps now."""
        return sum(pulse.missing or 0 for pulse in self.pulses.values())

    @property
    def lag(self) -> float | None:
        """The middle one of the lags of all symbols, seconds."""
        lags = [lag for pulse in self.pulses.values() if (lag := pulse.lag) is not None]
        return round(median(lags), 3) if lags else None

    def lag_of(self, symbol: str) -> float:
        """The lag of one symbol; 0 while it is not known."""
        pulse = self.pulses.get(symbol)
        return 0.0 if pulse is None or pulse.lag is None else pulse.lag

    def subscribed(self, symbol: str) -> None:
        """From now on its trades come, or should."""
        self._begun.add(symbol)

    def ended(self, symbols: Iterable[str]) -> None:
        """They are not subscribed any more."""
        for symbol in symbols:
            self._begun.discard(symbol)
            if (pulse := self.pulses.get(symbol)) is not None:
                pulse.end()

    def pulse(self, symbol: str) -> Pulse:
        """That of a subscribed symbol."""
        if symbol not in self.pulses:
            self.pulses[symbol] = Pulse()
            self._begun.add(symbol)
        return self.pulses[symbol]

    def look(self, symbol: str, now: float, seen: Seen, stall_after: float) -> Remedy | None:
        """Take one look at a subscribed symbol. Returns what is to be done for it."""
        self.began_at = now if self.began_at is None else self.began_at
        pulse = self.pulse(symbol)
        pulse.cadence.fixed = stall_after
        if symbol in self._begun:
            self._begun.remove(symbol)
            pulse.begin(now, seen)
            return None
        was_stalled = pulse.grade is Grade.STALLED
        remedy = pulse.look(now, seen)
        if was_stalled and pulse.grade is Grade.LIVE:
            self._reconnections = 0
        return self._allowed(remedy, now)

    def is_gapped(self, pulse: Pulse, now: float) -> bool:
        """Whether places went missing lately, in this run, and still are."""
        since = now if self.began_at is None else max(now - GAPPED_FOR, self.began_at)
        return bool(pulse.missing) and pulse.gapped_at >= since

    def due(self, now: float) -> Sequence[str]:
        """The symbols that are to be asked about, the one that waits for longest first."""
        if now < self.ask_at:
            return ()
        due = [symbol for symbol, pulse in self.pulses.items() if pulse.ask_at <= now]
        return sorted(due, key=lambda symbol: self.pulses[symbol].ask_at)

    def answered(self, symbol: str, now: float, told: Newest | None) -> Remedy | None:
        """What the upstream told of its newest trade in `symbol`. Returns what is to be done for it."""
        self._failures = 0
        pulse = self.pulses.get(symbol)
        return None if pulse is None else pulse.answered(now, told)

    def refused(self, symbols: Iterable[str], now: float, why: str) -> bool:
        """The source was asked, and there is no good answer. `why`: for counting.

        Returns whether it is the first failure in a row.
        """
        is_first = not self._failures
        self.failed[why] += 1
        first, most = _FAILED
        self.ask_at = now + min(first * 2.0**self._failures, most)
        self._failures = min(self._failures + 1, 10)
        self._tell(symbols, NO_ANSWER)
        return is_first

    def cannot_ask(self, symbols: Iterable[str], now: float) -> None:
        """There is no such question."""
        symbols = list(symbols)
        self._tell(symbols, NOT_ASKED)
        for symbol in symbols:
            if (pulse := self.pulses.get(symbol)) is not None and pulse.ask_at <= now:
                pulse.ask_at = now + _RARELY

    def _tell(self, symbols: Iterable[str], why: str) -> None:
        for symbol in symbols:
            if (pulse := self.pulses.get(symbol)) is not None:
                pulse.failed(why)

    def _allowed(self, remedy: Remedy | None, now: float) -> Remedy | None:
        if remedy is None:
            return None
        self.stalls += 1
        if remedy is Remedy.RECONNECT:
            if now < self._reconnect_at:
                remedy = Remedy.RESUBSCRIBE
            else:
                first, most = _RECONNECT
                self._reconnect_at = now + min(first * 2.0**self._reconnections, most)
                self._reconnections = min(self._reconnections + 1, 10)
        self.remedies[remedy.value] += 1
        return remedy
