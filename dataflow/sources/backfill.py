"""The actor that asks an upstream by HTTP for missing trades, and delivers them.

Rules of this file. What is missing is no message but a state, `Refills`, so a crash loses nothing. The most
urgent question goes first: that for which live trades wait. They wait as long as `hold` says, or shorter if
nothing can be asked in that time; then they go on behind a gap, and the question goes on until
`refill_within` is over. An answer is judged as a whole before any of it is delivered (`judging`). It is
delivered in pieces, by the same way as live trades, and waits for room there. All that an upstream says is
bounded: pages, trades, bytes and time.

What fails is asked again later; what cannot be believed is counted as a problem of the source, and `LIES` of
it in a row open the circuit for a minute.

When symbols are subscribed again, the first trade of each shows what was missed. One that stays quiet shows
nothing. So after a while its newest trade is asked for, and what is missing up to now.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final

import trio
from attrs import evolve
from loguru import logger

from dataflow import paths
from dataflow.domain import Item, Missing, Refilled, Trade
from dataflow.domain.secrets import concealed
from dataflow.logs import Burst, often
from dataflow.net.budget import AT_ONCE, LIMITED_FOR, Asks, Budget, Priority, RestFailed
from supervisors import Context

from .cadence import Compared, compare
from .judging import Judged, judge
from .port import RATE_LIMITED, Filler, Newest, SourceSettings
from .reading import Unusable, in_short
from .state import LinkState, SourceState
from .wanted import FIRST_AGAIN, Ask, Refills

PART: Final = 5_000  # missing trades that one question is for
PIECE: Final = 500  # trades that are delivered together
PAGES: Final = 50  # of one answer
TRADES: Final = 20_000  # of one answer
LOOK_EVERY: Final = 1.0  # seconds between two looks at what is subscribed
QUIET_FOR: Final = 5.0  # seconds after a subscription: then a symbol without a trade is asked for
NO_TURN: Final = frozenset({"busy", "no_turn"})  # failures that the upstream does not know of
OTHER_LINES: Final = 0.1  # of half of the hold: what one line has lost, another one may bring at once
LONGEST_PAUSE: Final = 30.0  # seconds after questions that failed one after the other

Put = Callable[[Sequence[Item]], Awaitable[None]]


class Refiller:
    """Fills what is missing of one source.

    `reach()` is entered to ask. `put` delivers and waits for room. `newest(symbol)`: the newest trade that
    this source has given of it. `is_missing(missing)`: whether any of these trades is missing still, from a
    source with sequences.
    """

    def __init__(
        self,
        source: SourceState,
        settings: SourceSettings,
        filler: Filler,
        reach: Callable[[], AbstractAsyncContextManager[Asks]],
        budget: Budget,
        refills: Refills,
        put: Put,
        newest: Callable[[str], Trade | None],
        is_missing: Callable[[Missing], bool],
    ) -> None:
        self._source = source
        self._settings = settings
        self._filler = filler
        self._reach = reach
        self._budget = budget
        self._refills = refills
        self._put = put
        self._newest = newest
        self._is_missing = is_missing
        self._failures = 0  # questions in a row
        self._weight = 1  # of the last question
        self._pause_until = float("-inf")
        self._burst = Burst()

    async def run(self, ctx: Context) -> None:
        ctx.ready()
        async with self._reach() as client, trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_ends)
            nursery.start_soon(self._watch_subscriptions, client)
            for _ in range(AT_ONCE):
                nursery.start_soon(self._work, client)
            await ctx.stopping.wait()
            nursery.cancel_scope.cancel()

    # -- ends of holds, and of patience

    async def _watch_ends(self) -> None:
        refills, within = self._refills, self._settings.refill_within
        while True:
            changed = refills.changed()
            now = trio.current_time()
            for missing in refills.released(now, self._in_vain_until(now)):
                await self._put((Refilled(missing.source, missing.symbol, before=missing.before),))
            for ask in refills.expired(now, within):
                refills.give_up(ask, now)
                self._source.problem("refill_given_up", f"{ask.missing.symbol}: {ask.count} trades")
            with trio.CancelScope(deadline=refills.next_end(within)):
                await changed.wait()

    def _in_vain_until(self, now: float) -> float:
        """Nothing can be asked before this time."""
        budget = self._budget
        return max(
            now + self._refills.breaker.wait(now),
            now + budget.closed_for(now),
            budget.free_at(self._weight, now),  # until then questions can still be joined
            self._pause_until,
        )

    # -- questions

    async def _work(self, client: Asks) -> None:
        refills = self._refills
        while True:
            changed = refills.changed()
            now = trio.current_time()
            ask = None
            if self._in_vain_until(now) <= now and refills.breaker.attempt(now):
                ask = refills.take(now, self._used(now))
                if ask is None:
                    refills.breaker.given_up()
            if ask is None:
                at = max(self._in_vain_until(now), refills.next_try(self._used(now)))
                with trio.CancelScope(deadline=at if at > now else float("inf")):
                    await changed.wait()
                continue
            was_tried = True
            try:
                was_tried = await self._try(client, ask)
            finally:
                refills.breaker.given_up()
                refills.put_back(ask, was_tried)

    def _used(self, now: float) -> float:
        used = min(self._budget.used(now) / self._budget.most, 1.0)
        return max(used, OTHER_LINES) if self._settings.lines > 1 else used

    async def _try(self, client: Asks, ask: Ask) -> bool:
        """Whether it was asked: only its turn may have come."""
        missing = _part(ask)
        if ask.left and not self._is_missing(ask.missing):
            self._refills.done(ask, trio.current_time())  # another connection brought it
            return True
        try:
            trades = await self._answer(client, ask, missing)
            if trades is None:
                self._cannot(ask)
                return True
            judged = judge(missing, trades)
        except Unusable as error:
            self._refused(error.reason, missing)
        except RestFailed as error:
            self._failed(error)
            return error.reason not in NO_TURN
        else:
            self._failures = 0
            self._refills.breaker.succeeded()
            await self._deliver(ask, missing, judged)
        return True

    async def _answer(self, client: Asks, ask: Ask, missing: Missing) -> list[Trade] | None:
        """All pages of the answer, oldest first; None if there is no such question.

        Raises RestFailed, and Unusable for what is not even readable, or more than any answer may be.
        """
        request = self._filler.fill(missing)
        if request is None:
            return None
        trades: list[Trade] = []
        for _ in range(PAGES):
            self._refills.asked += 1
            self._weight = request.weight
            priority = Priority.FILL if ask.hold_until is None else Priority.HOLD
            answer = await client.get(request.path, request.weight, priority)
            page = self._filler.filled(missing, request, answer)
            older = page.trades and trades and page.trades[0].timestamp < trades[0].timestamp
            trades = [*page.trades, *trades] if older else [*trades, *page.trades]
            if len(trades) > TRADES:
                raise Unusable("too_long")
            if page.following is None:
                break
            request = page.following
        return trades

    def _cannot(self, ask: Ask) -> None:
        """The upstream cannot be asked for this."""
        now = trio.current_time()
        self._refills.release(ask, now)
        self._refills.give_up(ask, now)

    def _refused(self, reason: str, missing: Missing) -> None:
        """The answer is not believed."""
        now = trio.current_time()
        if reason == RATE_LIMITED:
            self._budget.close_until(now + LIMITED_FOR)
            self._failed(RestFailed(reason, "the upstream says that it is asked too often", LIMITED_FOR))
            return
        self._refills.refused[reason] += 1
        self._refills.breaker.failed(now)
        self._tell(reason, f"{missing.symbol}: the answer for missing trades is refused")

    def _failed(self, error: RestFailed) -> None:
        """There is no answer. Others are asked for as late as this one."""
        self._refills.failed[error.reason] += 1
        if error.reason in NO_TURN:
            self._tell(error.reason, str(error))
            return
        self._failures = min(self._failures + 1, 30)
        pause = min(FIRST_AGAIN * 2 ** (self._failures - 1), LONGEST_PAUSE)
        self._pause_until = trio.current_time() + max(pause, error.wait)
        self._tell(error.reason, str(error))

    def _tell(self, reason: str, words: str) -> None:
        name = reason if reason.startswith("refill_") else f"refill_{reason}"
        self._source.problem(name, in_short(concealed(words)))

    # -- answers

    async def _deliver(self, ask: Ask, missing: Missing, judged: Judged) -> None:
        refills = self._refills
        trades = tuple(trade for trade in judged.trades if _is_left(ask, trade))
        for begin in range(0, len(trades), PIECE):
            piece = trades[begin : begin + PIECE]
            before = trades[begin - 1] if begin else missing.after
            await self._put((_piece(missing, piece, before, is_end=False),))
            refills.came(ask, piece)
        is_done = not ask.left if ask.missing.last is not None else judged.is_whole
        if is_done and (missing.until is not None or (missing.first is None and missing.before is not None)):
            await self._put((_piece(missing, (), None, is_end=True),))  # sequences show it by themselves
        if is_done:
            refills.done(ask, trio.current_time())
        if trades and (times := self._burst.occurred((missing.symbol, "refilled"), trio.current_time())):
            log = logger.bind(path=paths.source(self._source.name))
            log.info("{}: {} missing trades came by HTTP{}", missing.symbol, len(trades), often(times))

    # -- symbols that came back, and are quiet

    async def _watch_subscriptions(self, client: Asks) -> None:
        source = self._source
        seen: frozenset[str] = frozenset()
        since = source.since
        back: dict[str, tuple[float, Trade]] = {}  # symbol: when to ask, and its newest trade then
        while True:
            is_up = source.link is LinkState.CONNECTED
            if since != source.since:
                since, seen = source.since, frozenset()
            live = frozenset(source.subscribed_symbols) if is_up else frozenset()
            now = trio.current_time()
            for symbol in live - seen:
                newest = self._newest(symbol)
                if newest is not None:
                    back[symbol] = (now + QUIET_FOR, newest)
            seen = live
            back = {
                symbol: (at, newest)
                for symbol, (at, newest) in back.items()
                if symbol in live and self._newest(symbol) is newest
            }
            due = {symbol: newest for symbol, (at, newest) in back.items() if at <= now}
            if due and self._in_vain_until(now) <= now:
                left = await self._complete(client, due)
                back = {symbol: each for symbol, each in back.items() if symbol not in due or symbol in left}
            await trio.sleep(LOOK_EVERY)

    async def _complete(self, client: Asks, symbols: Mapping[str, Trade]) -> Collection[str]:
        """Ask for what is missing up to now of each of these, which have their newest trades. Returns those
        that could not be asked about."""
        left = sorted(symbols)
        while left:
            try:
                found = await self._newest_there(client, left)
            except RestFailed as error:
                self._failed(error)
                return left
            for symbol in left[:1] if found is None else found:
                newest = symbols.get(symbol)
                if newest is not None and (found is None or _is_newer(found[symbol], newest)):
                    first = None if newest.sequence is None else newest.sequence + 1
                    missing = Missing(self._source.name, symbol, newest, None, first)
                    self._refills.add(missing)
            left = [symbol for symbol in left[1:] if symbol not in (found or ())]
        return ()

    async def _newest_there(self, client: Asks, symbols: Sequence[str]) -> Mapping[str, Newest] | None:
        """The newest trades of the first symbol, if it has any, and perhaps of others; None if nothing can be
        said. Raises RestFailed."""
        request = self._filler.latest(symbols)
        if request is None:
            return None
        try:
            return self._filler.newest(symbols, await client.get(request.path, request.weight, Priority.LIFE))
        except Unusable as error:
            self._tell(error.reason, "the answer for the newest trades cannot be used")
        return None


def _is_newer(told: Newest, ours: Trade) -> bool:
    """Whether the upstream has a newer trade, however long ago ours came."""
    return compare(told, Newest.of(ours), float("inf")) is Compared.NEWER


def _part(ask: Ask) -> Missing:
    """So much of a question as is asked at once."""
    if not ask.left:
        return ask.missing
    first, _ = ask.left[0]
    end = first + PART - 1
    return evolve(
        ask.missing, first=first, last=max(min(last, end) for begin, last in ask.left if begin <= end)
    )


def _is_left(ask: Ask, trade: Trade) -> bool:
    """Whether this trade is missing still: a question for several losses has others between them."""
    number = trade.sequence
    return not ask.left or number is None or any(first <= number <= last for first, last in ask.left)


def _piece(missing: Missing, trades: tuple[Trade, ...], previous: Trade | None, *, is_end: bool) -> Refilled:
    """A part of an answer. The trade before it shows to what it connects, where no sequence does."""
    if missing.first is None and previous is not None:
        trades = (previous, *trades)
    return Refilled(
        missing.source, missing.symbol, trades, is_whole=is_end, is_last=is_end, before=missing.before
    )
