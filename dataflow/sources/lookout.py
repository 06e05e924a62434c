"""The actor that looks after the symbols of one source: do they live, how late are they, what is missing?

Rules of this file. It looks every `LOOK_EVERY` seconds at what the histories show. It asks the upstream about
symbols that are silent for too long, if its connector has the question (`Filler.latest`): one question at a
time, within the weight that is left for this. What was learned is in `Vitals`, which outlives this actor, and
decides. This actor carries out: the wish for a new subscription or connection goes to the interest, and what
is missing to the list of wanted trades. An answer that cannot be used is counted as a problem of the source,
and nothing follows from it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from enum import Enum
from typing import Final, Protocol

import trio
from loguru import logger

from dataflow import paths
from dataflow.domain import Missing, Trade
from dataflow.domain.secrets import concealed
from dataflow.logs import Burst, often
from dataflow.net.budget import Asks, Priority, RestFailed
from supervisors import Context

from .port import Filler, SourceSettings
from .reading import Unusable, excerpt, in_short
from .state import LinkState, SourceState
from .vitals import NEWER, Pulse, Remedy, Seen, Vitals

LOOK_EVERY: Final = 1.0  # seconds
COUNT_EVERY: Final = 10.0  # seconds between two counts of missing places, while memory forgets some of them
_DONE: Final = {
    Remedy.RESUBSCRIBE: "it is subscribed anew",
    Remedy.RECONNECT: "the connection is made anew",
}
AT_ONCE: Final = 128  # symbols between two checkpoints: some 0.8 ms


class Refused(Protocol):
    """See `cache.feed.Refused`."""

    @property
    def trades(self) -> int: ...
    @property
    def since(self) -> float: ...
    @property
    def at(self) -> float: ...
    @property
    def why(self) -> Enum: ...


class Log(Protocol):
    """What is read of the log of a symbol: see `cache.history.History`."""

    @property
    def last(self) -> int: ...
    @property
    def holes(self) -> int: ...
    @property
    def newest_trade(self) -> Trade | None: ...
    def newest_of(self, source: str) -> Trade | None: ...
    def is_answer(self, source: str) -> bool: ...
    def refused_of(self, source: str) -> Refused | None: ...
    def missing_of(self, source: str) -> tuple[int, float]: ...
    def since_when(self, after: int) -> float | None: ...


class Lookout:
    """Of one source. `history_of(symbol)`: its log. `clock`: wall time, seconds since the epoch.

    `filler`: None where nothing can be asked; else `reach()` is entered to ask. `wanted()`: see
    `Refills.symbols`. `want(missing)`: these trades shall be asked for; None: nobody does.
    `is_standby(symbol)`: another source is preferred, so its trades do not reach the history; then
    `left_out(symbol)` is the last of them.
    """

    def __init__(
        self,
        source: SourceState,
        history_of: Callable[[str], Log],
        clock: Callable[[], float],
        *,
        filler: Filler | None = None,
        reach: Callable[[], AbstractAsyncContextManager[Asks]] | None = None,
        wanted: Callable[[], Mapping[str, bool]] = dict,
        want: Callable[[Missing], None] | None = None,
        is_standby: Callable[[str], bool] = lambda _symbol: False,
        left_out: Callable[[str], Trade | None] = lambda _symbol: None,
    ) -> None:
        assert isinstance(source.settings, SourceSettings)
        self._source = source
        self._stall_after = source.settings.stall_after
        self._history_of = history_of
        self._clock = clock
        self._filler = filler
        self._reach = reach
        self._wanted = wanted
        self._want = want
        self._is_standby = is_standby
        self._left_out = left_out
        self._burst = Burst()
        self._log = logger.bind(path=paths.source(source.name))

    @property
    def _vitals(self) -> Vitals:
        return self._source.vitals

    async def run(self, ctx: Context) -> None:
        ctx.ready()
        self._source.changed(tuple(self._source.subscribed_symbols))  # an earlier one may not have told all
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_asking)
            while True:
                await self._look()
                ctx.beat()
                await trio.sleep(LOOK_EVERY)

    async def _look(self) -> None:
        changed, wanted = [], self._wanted()
        for number, symbol in enumerate(tuple(self._source.subscribed_symbols)):
            if number % AT_ONCE == AT_ONCE - 1:
                await trio.lowlevel.checkpoint()
            if self._look_at(symbol, wanted.get(symbol, False)):
                changed.append(symbol)
        if changed:
            self._source.changed(changed)

    def _look_at(self, symbol: str, lacks: bool) -> bool:
        """Returns whether its state has changed."""
        if symbol not in self._source.subscribed_symbols:
            return False  # any more
        now, log, pulse = trio.current_time(), self._history_of(symbol), self._vitals.pulse(symbol)
        before, seen = pulse.shown, self._seen(symbol, log, now, lacks)
        remedy = self._vitals.look(symbol, now, seen, self._stall_after)
        self._count(pulse, log, now)
        if pulse.refused and not before.refused and (times := self._burst.occurred("refused", now)):
            self._log.warning("{} is stalled{}: {}", symbol, often(times), pulse.refused)
        self._source.stalls(symbol, pulse.stalled)
        if remedy is not None:
            self._help(symbol, remedy)
        return pulse.shown != before

    def _seen(self, symbol: str, log: Log, now: float, lacks: bool) -> Seen:
        if self._is_standby(symbol):
            return Seen(self._left_out(symbol), lacks=lacks, stands_by=True)
        ours, pulse = log.newest_of(self._source.name), self._vitals.pulse(symbol)
        lag = None
        if ours is not None and ours is log.newest_trade and ours is not pulse.ours:
            came = log.since_when(log.last - 1)
            if came is not None:
                lag = self._clock() - (now - came) - ours.timestamp / 1e9
        name, refused = self._source.name, None
        if (some := log.refused_of(name)) is not None:
            refused = some.trades, some.at - some.since, str(some.why.value)
        return Seen(ours, lag, log.is_answer(name), lacks, refused)

    def _count(self, pulse: Pulse, log: Log, now: float) -> None:
        forgotten = pulse.missing and now >= pulse.counted_at + COUNT_EVERY
        if pulse.holes != log.holes or forgotten:
            pulse.holes, pulse.counted_at = log.holes, now
            pulse.missing, pulse.gapped_at = log.missing_of(self._source.name)
        pulse.is_gapped = self._vitals.is_gapped(pulse, now)

    def _help(self, symbol: str, remedy: Remedy) -> None:
        interest = self._source.interest
        if remedy is not Remedy.REFILL:
            self._log.warning("{} is stalled: {}; {}", symbol, NEWER, _DONE[remedy])
        if remedy is Remedy.RESUBSCRIBE:
            interest.renew(symbol)
        elif remedy is Remedy.RECONNECT:
            interest.renew(symbol, f"{symbol} is stalled: {NEWER}")
        if self._want is not None and (after := self._history_of(symbol).newest_of(self._source.name)):
            first = None if after.sequence is None else after.sequence + 1
            self._want(Missing(self._source.name, symbol, after, None, first, None))

    # -- asking ----------------------------------------------------------------------------------

    async def _keep_asking(self) -> None:
        if self._filler is None or self._reach is None:
            while True:
                await trio.sleep(LOOK_EVERY)
                if due := self._due():
                    self._vitals.cannot_ask(due, trio.current_time())
                    self._source.changed(due)
        async with self._reach() as client:
            while True:
                await trio.sleep(LOOK_EVERY)
                if due := self._due():
                    self._source.changed(await self._ask_about(due, client, self._filler))

    def _due(self) -> Sequence[str]:
        if self._source.link is not LinkState.CONNECTED:
            return ()
        return self._vitals.due(trio.current_time())

    async def _ask_about(self, due: Sequence[str], client: Asks, filler: Filler) -> Sequence[str]:
        """Returns the symbols whose state this may have changed."""
        request = filler.latest(due)
        if request is None:
            self._vitals.cannot_ask(due, trio.current_time())
            return due
        self._vitals.asked += 1
        try:
            answer = await client.get(request.path, request.weight, Priority.LIFE)
        except RestFailed as error:
            self._fail(due, error.reason, concealed(in_short(str(error))))
            return due
        try:
            told = filler.newest(due, answer)
        except Unusable as error:
            self._source.problem(f"lookout_{error.reason}", excerpt(answer))
            self._fail(due, error.reason, error.reason)
            return due
        # Whom the answer leaves out was not asked about, or never traded: it is the next question's first.
        answered = [symbol for symbol in due if symbol in told or symbol == due[0]]
        for symbol in answered:
            remedy = self._vitals.answered(symbol, trio.current_time(), told.get(symbol))
            if remedy is not None:
                self._help(symbol, remedy)
        return answered

    def _fail(self, due: Sequence[str], reason: str, words: str) -> None:
        """Told once until it can be asked again."""
        if self._vitals.refused(due, trio.current_time(), reason):
            self._log.warning("cannot ask whether silent symbols are stalled: {}", words)
