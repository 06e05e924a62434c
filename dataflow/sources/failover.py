"""Which of several sources a symbol's stream comes from.

Rules of this file. A symbol in mode `failover` has one active source; the others stand by: connected and
subscribed, so that a switch takes no time, but no part of the stream. The rank of a source decides about the
switch (`health`). Of equal ranks the source that the configuration names first is preferred.

A switch is forced when the active source is out and another one delivers. It never waits. Any other switch is
voluntary: to a source that has been better for `return_after` seconds without a break, and not within a
minute after the last voluntary one. So a source that comes and goes costs two switches a minute. A source
that has only begun (it connects for the first time, or waits for the answer to its subscription) is no reason
for a forced switch, and never the aim of one: else each first subscription would begin with two switches. A
source of which nobody knows whether it would deliver is taken only by force, and only if none is known to.

What is decided here outlives every actor. The actor only looks, and has marks put into the streams
(`Switched`). While it is down nothing is switched; when it comes back it looks at everything.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final, Protocol

import trio
from attrs import Factory, define, field, frozen

from dataflow.domain import Switched
from supervisors import Context

from .health import Health, Rank, health
from .state import SourceState

VOLUNTARY_EVERY: Final = 60.0  # seconds between two voluntary switches
IDLE: Final = 5.0  # seconds between two signs of life while there is nothing to watch
LOOK_EVERY: Final = 1.0  # seconds between two looks at what tells of no change: lag and errors
SYMBOLS_AT_ONCE: Final = 100  # between two checkpoints: a millisecond of work
_SAMPLE_EVERY: Final = 5.0  # seconds between two samples of the counted errors
_SAMPLES: Final = 12  # of a minute


@frozen
class Turn:
    """A switch that is due."""

    source: str
    reason: str
    is_forced: bool


@define
class Standing:
    """What is decided for one symbol, and since when. `sources`: the preferred one first.

    Times are seconds of a monotonic clock.
    """

    symbol: str
    sources: Sequence[str]
    return_after: float
    active: str
    since: float
    switches: int = 0  # that were told
    healths: Mapping[str, Health] = Factory(dict)  # at the last look
    parted: set[str] = field(factory=set, init=False)  # sources that may have been left out of the stream
    _better: str | None = field(default=None, init=False)
    _better_since: float = field(default=0.0, init=False)
    _voluntary_at: float = field(default=float("-inf"), init=False)

    def weigh(self, healths: Mapping[str, Health], now: float) -> Turn | None:
        """The switch that is due now. Who gets one must `turn`. `healths`: of all `sources`."""
        self.healths = healths
        ranks = {name: healths[name].rank_in_standby for name in self.sources}
        mine = ranks[self.active] = healths[self.active].rank
        best = min(self.sources, key=lambda name: (ranks[name], self.sources.index(name)))
        its = ranks[best]
        if best == self.active or its > (Rank.UNSURE if mine is Rank.OUT else Rank.POOR):
            self._better = None
            return None
        if best != self._better:
            self._better, self._better_since = best, now
        if mine is Rank.OUT:
            return Turn(best, f"{self.active} is {healths[self.active].state}", is_forced=True)
        if now < self.due:
            return None
        why = "is preferred" if its == mine else f"is better: {healths[best].score} points"
        return Turn(best, f"{best} {why}", is_forced=False)

    @property
    def due(self) -> float:
        """When the next voluntary switch may come; infinity while no source is better."""
        if self._better is None:
            return float("inf")
        return max(self._better_since + self.return_after, self._voluntary_at + VOLUNTARY_EVERY)

    def turn(self, turn: Turn, now: float) -> None:
        """The switch is made."""
        self.active, self.since, self._better = turn.source, now, None
        if not turn.is_forced:
            self._voluntary_at = now


@frozen
class Plan:
    """How a symbol in mode `failover` is configured. `sources`: the preferred one first, at least one."""

    sources: Sequence[str]
    return_after: float


class Gate(Protocol):
    """Where the trades of sources that stand by are left out: a `cache.delivery.Delivery`."""

    def stand_by(self, source: str, symbol: str) -> None:
        """Its trades are left out from now on. Idempotent."""

    def join(self, source: str, symbol: str) -> int | None:
        """Its trades pass from now on. Returns the sequence of the last one that was left out. Idempotent."""

    def __call__(self, items: Sequence[Switched]) -> None:
        """Put marks into the streams."""


class Board:
    """The standings of all symbols in mode `failover`. It outlives every actor.

    `sources`: all that there are at any time. `state_of(source, symbol)`: the state of the quality, whether
    the source is connected for it, the lag if that is measured, and whether that state is known to be so.
    `newest_of(symbol)`: the source of the newest trade of the stream; None before the first.
    `settle(symbol, source)`: the stream of `symbol` is that of `source` (None: of all) already.
    `changed(symbols)`: these have another active source.
    """

    def __init__(
        self,
        sources: Callable[[], Mapping[str, SourceState]],
        gate: Gate,
        state_of: Callable[[SourceState, str], tuple[str, bool, float | None, bool]],
        newest_of: Callable[[str], str | None],
        settle: Callable[[str, str | None], None],
        changed: Callable[[Collection[str]], object],
        clock: Callable[[], float],
        steady: Callable[[], float],
    ) -> None:
        self._sources = sources
        self._gate = gate
        self._state_of = state_of
        self._newest_of = newest_of
        self._settle = settle
        self._tell = changed
        self._clock = clock
        self._steady = steady
        self._standings: dict[str, Standing] = {}
        self.switches = 0  # of all symbols that there ever were
        self._errors = _Errors()
        self._is_recalled = False
        self._touched: set[str] = set()
        self._changed = trio.Event()

    @property
    def standings(self) -> Mapping[str, Standing]:
        """By symbol."""
        return self._standings

    def active(self, symbol: str) -> str | None:
        """The source whose trades are the stream of `symbol`; None: those of all of its sources are."""
        standing = self._standings.get(symbol)
        return None if standing is None else standing.active

    def age(self, standing: Standing) -> float:
        """Seconds since its last switch, or since its symbol has one source at a time."""
        return self._steady() - standing.since

    def adopt(self, plans: Mapping[str, Plan]) -> None:
        """These symbols are in mode `failover` from now on, and no others."""
        for symbol in self._standings.keys() - plans.keys():
            self._all_join(self._standings.pop(symbol))
        for symbol, plan in plans.items():
            known = self._standings.get(symbol)
            if known is None:
                self._begin(symbol, plan)
            elif (known.sources, known.return_after) != (plan.sources, plan.return_after):
                self._follow(known, plan)
        self.touch(plans)

    def recall(self) -> None:
        """The streams are loaded from disk, before any source delivers: each goes on with its source.

        The first call alone does so: later the standings know better.
        """
        if self._is_recalled:
            return
        self._is_recalled = True
        for symbol, standing in self._standings.items():
            newest = self._newest_of(symbol)
            if newest is not None and newest in standing.sources and newest != standing.active:
                standing.active = newest
                self._start(standing)

    def touch(self, symbols: Iterable[str]) -> None:
        """Something has changed about these symbols. Never waits."""
        if not self._standings:
            return
        touched = self._standings.keys() & symbols
        if touched:
            self._touched |= touched
            self._changed.set()

    def told(self, symbol: str) -> None:
        """Clients were told of a switch."""
        if symbol in self._standings:
            self._standings[symbol].switches += 1
            self.switches += 1

    async def changed(self, within: float) -> None:
        """Returns when something was touched, or after so many seconds."""
        if self._touched:
            return
        self._changed = trio.Event()
        with trio.move_on_after(max(0.0, within)):
            await self._changed.wait()

    def take_touched(self) -> list[str]:
        """The symbols that were touched since the last call."""
        touched, self._touched = self._touched, set()
        return [symbol for symbol in touched if symbol in self._standings]

    def sample(self) -> None:
        """Remember how many errors were counted so far: now and then, for those of the last minute."""
        self._errors.sample(self._sources(), self._steady())

    def look(self, symbols: Iterable[str]) -> float:
        """Switch what must be switched among `symbols`. Returns the seconds until it may be time again."""
        now, marks, due = self._steady(), list[Switched](), float("inf")
        for symbol in symbols:
            standing = self._standings[symbol]
            turn = standing.weigh({name: self.health(name, symbol) for name in standing.sources}, now)
            if turn is not None:
                marks.append(self._switch(standing, turn, now))
            due = min(due, standing.due)
        if marks:
            self._gate(marks)
            self._tell([mark.symbol for mark in marks])
        return max(0.0, due - now)

    def health(self, name: str, symbol: str) -> Health:
        """How the source `name` fares with `symbol`, in any mode."""
        source = self._sources()[name]
        state, is_connected, lag, is_known = self._state_of(source, symbol)
        return health(state, is_connected, lag, self._errors.recent(source), is_known=is_known)

    def _switch(self, standing: Standing, turn: Turn, now: float) -> Switched:
        before = standing.active
        known = standing.healths.get(before)
        is_whole = known is not None and known.rank < Rank.BEGINNING
        standing.turn(turn, now)
        self._part(standing, before)
        sequence = self._gate.join(turn.source, standing.symbol)
        return Switched(
            turn.source,
            standing.symbol,
            before,
            turn.reason,
            int(self._clock() * 1e9),
            is_whole,
            sequence,
        )

    def _begin(self, symbol: str, plan: Plan) -> None:
        newest = self._newest_of(symbol)
        active = newest if newest is not None and newest in plan.sources else plan.sources[0]
        standing = Standing(symbol, plan.sources, plan.return_after, active, self._steady())
        self._standings[symbol] = standing
        self._start(standing)

    def _start(self, standing: Standing) -> None:
        """The stream is that of its active source, and no switch has to be told."""
        self._part(standing, *standing.sources)
        self._gate.join(standing.active, standing.symbol)
        self._settle(standing.symbol, standing.active)

    def _part(self, standing: Standing, *sources: str) -> None:
        standing.parted.update(sources)
        for name in sources:
            self._gate.stand_by(name, standing.symbol)

    def _follow(self, standing: Standing, plan: Plan) -> None:
        """Other sources, or another time. One that is no source of the symbol any more stays left out."""
        standing.sources, standing.return_after = plan.sources, plan.return_after
        self._part(standing, *(name for name in plan.sources if name != standing.active))
        if standing.active not in plan.sources:
            turn = Turn(plan.sources[0], f"{standing.active} is no source of it any more", is_forced=True)
            self._gate([self._switch(standing, turn, self._steady())])

    def _all_join(self, standing: Standing) -> None:
        """The mode is another one: all are in the stream from here on, and nothing is missing of them."""
        marks, at = list[Switched](), int(self._clock() * 1e9)
        for name in sorted(standing.parted - {standing.active}):
            sequence = self._gate.join(name, standing.symbol)
            marks.append(Switched(name, standing.symbol, None, "", at, True, sequence))
        self._settle(standing.symbol, None)
        if marks:
            self._gate(marks)


class _Errors:
    """The unusable messages of the last minute, by source."""

    def __init__(self) -> None:
        self._totals: dict[str, deque[int]] = {}
        self._sampled_at = float("-inf")

    def sample(self, sources: Mapping[str, SourceState], now: float) -> None:
        if now < self._sampled_at + _SAMPLE_EVERY:
            return
        self._sampled_at = now
        for name in self._totals.keys() - sources.keys():
            del self._totals[name]
        for name, source in sources.items():
            totals = self._totals.setdefault(name, deque(maxlen=_SAMPLES))
            totals.append(_total(source.problems))

    def recent(self, source: SourceState) -> int:
        totals = self._totals.get(source.name)
        return _total(source.problems) - totals[0] if totals else 0


def _total(problems: Counter[str]) -> int:
    return sum(count for reason, count in problems.items() if reason not in _NO_ERRORS)


_NO_ERRORS: Final[Collection[str]] = ("rejected",)  # that of one symbol says nothing about the others


class Watch:
    """The actor: looks at what was touched at once, and at all symbols in mode `failover` every second."""

    def __init__(self, board: Board) -> None:
        self._board = board

    async def run(self, ctx: Context) -> None:
        board = self._board
        ctx.ready()
        due = trio.current_time()  # when all must be looked at
        while True:
            await board.changed(due - trio.current_time() if board.standings else IDLE)
            ctx.beat()
            touched = board.take_touched()
            if trio.current_time() < due:
                due = min(due, await self._look(touched, ctx))
            else:
                board.sample()
                due = trio.current_time() + LOOK_EVERY
                due = min(due, await self._look(list(board.standings), ctx))

    async def _look(self, symbols: Sequence[str], ctx: Context) -> float:
        """Returns when it may be time for a switch."""
        due = float("inf")
        for at in range(0, len(symbols), SYMBOLS_AT_ONCE):
            some = [each for each in symbols[at : at + SYMBOLS_AT_ONCE] if each in self._board.standings]
            due = min(due, trio.current_time() + self._board.look(some))
            ctx.beat()
            await trio.lowlevel.checkpoint()
        ctx.beat()
        return due
