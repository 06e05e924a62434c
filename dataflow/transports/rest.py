"""A source by questions: the REST of an upstream is asked for new trades, every `poll_interval` seconds.

Rules of this file. It knows no exchange: the connector's `Filler` asks and reads, as it does for missing
trades. Each read of the link is one question about one symbol, the longest due first. Questions are spread
over the minute, and take three quarters of the weight, so that missing trades can be asked for beside them.
The first question about a symbol is for the newest trades, a later one for those behind the newest that came.
What came before is left out. Where that newest trade should be in the answer and is not, trades may be
missing, and a mark says so; where trades have a sequence, it shows that by itself. A question that is cut off
has changed nothing.

A symbol counts as subscribed with its first answer. It is refused by a client error (4xx) to the first
question, or when three first answers cannot be used: some upstreams tell errors with the status 200. A
failure is forgiven, and told with the next answer, for half of `stale_after`; then the link is lost, and so
it is at once by a failure of its first question, or when the upstream asks us to wait.

Problems: those of `net.rest` and of the connector, poll_symbol, poll_conflict (two values for one id),
poll_nameless (a trade with neither id nor sequence could not be told from its repetition).
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Final

import trio
from attrs import define, evolve

from actors.connector import LinkLost, Received, Refused
from dataflow.domain import Item, Missed, Missing, Trade
from dataflow.net.budget import MINUTE, Priority, RestFailed
from dataflow.net.rest import RestClient
from dataflow.sources.port import RATE_LIMITED, Codec, Filler, Request, SourceSettings, filler_of
from dataflow.sources.reading import Unusable, excerpt, in_short

PAGES: Final = 20  # of one answer; what is behind them is the answer to the next question
SHARE: Final = 0.75  # of the weight
TRIES: Final = 3  # first answers that cannot be used; then the symbol is refused
SLOWEST: Final = 5.0  # seconds between two tries
_KEPT: Final = 64  # failures that are told with the next answer


class RestSource:
    """An upstream at `settings.refill_url`. `ask` makes a client for its questions.

    Raises ValueError for a connector that has no questions: the check of a configuration refuses it.
    """

    def __init__(
        self,
        name: str,
        settings: SourceSettings,
        make_codec: Callable[[], Codec],
        *,
        ask: Callable[[], RestClient],
    ) -> None:
        filler = filler_of(name, settings)
        if filler is None:
            raise ValueError(f"the connector {settings.connector} has no questions for past trades")
        self._name = name
        self._settings = settings
        self._filler = filler
        self._make_codec = make_codec
        self._ask = ask

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[RestLink]:
        """A client that is kept open. Whether the upstream answers shows its first question."""
        async with self._ask() as client:
            yield RestLink(self._name, self._settings, self._filler, self._make_codec().missed, client)


Source = RestSource  # the name by which a transport is found


@define
class _Symbol:
    """What is known of one symbol. `due`: when to ask again; `ids`: of the newest answer."""

    due: float
    is_subscribed: bool = False
    unusable: int = 0  # answers in a row
    newest: Trade | None = None
    ids: frozenset[str] = frozenset()
    path: str = ""
    tag: str = ""  # of the answer to `path`


@define
class _Answer:
    """The trades of one question, oldest first; None: the same as before."""

    trades: list[Trade] | None
    size: int
    path: str
    tag: str


class RestLink:
    """`actors.connector.Link` for trades. `missed(symbol)`: the codec's mark, None with a sequence."""

    def __init__(
        self,
        name: str,
        settings: SourceSettings,
        filler: Filler,
        missed: Callable[[str], Missed | None],
        client: RestClient,
    ) -> None:
        self._name = name
        self._filler = filler
        self._missed = missed
        self._client = client
        self._every = settings.poll_interval
        # Seconds for which a question keeps the next one waiting, for each unit of its weight.
        self._pace = MINUTE * settings.lines / (settings.refill_weight * SHARE)
        self._free_at = float("-inf")
        self._patience = settings.stale_after / 2
        self._symbols: dict[str, _Symbol] = {}
        self._let_go: list[str] = []  # to be acknowledged
        self._has_parted = False
        self._changed = trio.Event()
        self._failures: list[tuple[str, str]] = []
        self._failed_since: float | None = None
        self._wait = settings.poll_interval
        self._has_answered = False
        self._has_parted = False

    async def turn(self) -> int:
        """At once, and any number: a subscription is a question, and these have a pace of their own."""
        await trio.lowlevel.checkpoint()
        return sys.maxsize

    async def subscribe(self, topics: Collection[str]) -> None:
        """Ask for these symbols from now on."""
        now = trio.current_time()
        self._symbols.update((topic, _Symbol(now)) for topic in topics)
        await self._wake()

    async def unsubscribe(self, topics: Collection[str]) -> None:
        """Ask for them no more."""
        for topic in topics:
            self._symbols.pop(topic, None)
        self._let_go += topics
        await self._wake()

    async def probe(self) -> None:
        """Nothing: the next question is a sign of life anyway."""
        await trio.lowlevel.checkpoint()

    async def part(self) -> None:
        """Ask no more. There is nothing on its way to us: a question that is under way ends by itself."""
        self._has_parted = True
        await self._wake()

    async def receive(self) -> Received[Item]:
        """What the next question brings, perhaps nothing. Raises LinkLost."""
        await trio.lowlevel.checkpoint()
        while True:
            if self._has_parted:
                raise LinkLost("no more questions")
            if self._let_go:
                into = Received[Item]()
                into.unsubscribed(*self._let_go)
                self._let_go.clear()
                return into
            changed = self._changed
            symbol = min(self._symbols, key=lambda each: self._symbols[each].due, default=None)
            due = float("inf") if symbol is None else max(self._symbols[symbol].due, self._free_at)
            with trio.CancelScope(deadline=due):
                await changed.wait()
                continue
            assert symbol is not None
            received = await self._poll(symbol, self._symbols[symbol])
            if received is not None:
                return received

    async def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
        await trio.lowlevel.checkpoint()

    async def _poll(self, symbol: str, about: _Symbol) -> Received[Item] | None:
        """Ask about one symbol. None: a failure that is forgiven for now."""
        into = Received[Item]()
        try:
            answer = await self._question(symbol, about)
        except RestFailed as failure:
            if failure.reason != "client_error" or about.is_subscribed:
                self._forgive(failure, about)
                return None
            into.refused(in_short(str(failure)), symbol)
        except Unusable as problem:
            if problem.reason == RATE_LIMITED:
                self._forgive(RestFailed(RATE_LIMITED, "the upstream is asked too often"), about)
                return None
            into.problems.append((problem.reason, excerpt(symbol)))
            about.unusable += 1
            if not about.is_subscribed and about.unusable >= TRIES:
                into.refused(f"its answers cannot be used: {problem.reason}", symbol)
        else:
            self._take(symbol, about, answer, into)
        if self._symbols.get(symbol) is not about:  # let go of, or asked for anew, in the meantime
            return None
        self._answered(into)
        about.due = trio.current_time() + self._every
        if any(isinstance(answer, Refused) for _, answer in into.answers):
            del self._symbols[symbol]
        return into

    def _answered(self, into: Received[Item]) -> None:
        self._has_answered, self._failed_since, self._wait = True, None, self._every
        into.problems[:0] = self._failures
        self._failures.clear()

    def _forgive(self, failure: RestFailed, about: _Symbol) -> None:
        now = trio.current_time()
        self._failed_since = now if self._failed_since is None else self._failed_since
        lasted = now - self._failed_since
        if failure.wait or not self._has_answered or lasted >= self._patience:
            raise LinkLost(f"{failure.reason}: {in_short(str(failure))}", at_least=failure.wait)
        self._failures.append((failure.reason, in_short(str(failure))))
        del self._failures[:-_KEPT]
        self._wait = min(2 * self._wait, max(SLOWEST, self._every))
        about.due = now + self._wait

    # -- one question ---------------------------------------------------------------------------------

    async def _asked(self, request: Request, tag: str = "") -> tuple[bytes | None, str]:
        self._free_at = max(self._free_at, trio.current_time()) + request.weight * self._pace
        return await self._client.get_changed(request.path, tag, request.weight, Priority.HOLD)

    async def _question(self, symbol: str, about: _Symbol) -> _Answer:
        """All pages of the answer. Raises RestFailed and Unusable."""
        newest = about.newest
        first = None if newest is None or newest.sequence is None else newest.sequence + 1
        missing = Missing(self._name, symbol, newest, None, first)
        request = self._filler.fill(missing)
        if request is None:
            raise Unusable("poll_symbol")
        tag = about.tag if request.path == about.path else ""
        body, tag = await self._asked(request, tag)
        if body is None:
            return _Answer(None, 0, request.path, tag)
        path, size = request.path, len(body)
        page = self._filler.filled(missing, request, body)
        trades, following = list(page.trades), page.following
        for _ in range(PAGES - 1):
            if following is None:
                break
            body, _ = await self._asked(following)
            assert body is not None  # it was asked for without a tag
            size += len(body)
            page = self._filler.filled(missing, following, body)
            trades += page.trades
            following = page.following
        return _Answer(self._once(symbol, trades), size, path, tag)

    def _once(self, symbol: str, trades: Iterable[Trade]) -> list[Trade]:
        """The trades in order, each once. Raises Unusable for an answer that contradicts itself."""
        found: dict[object, Trade] = {}
        for trade in trades:
            if (trade.source, trade.symbol) != (self._name, symbol):
                raise Unusable("poll_symbol")
            key = trade.trade_id if trade.sequence is None else trade.sequence
            if key is None:
                raise Unusable("poll_nameless")
            if found.setdefault(key, trade) != trade:
                raise Unusable("poll_conflict")
        return sorted(found.values(), key=_place)

    def _take(self, symbol: str, about: _Symbol, answer: _Answer, into: Received[Item]) -> None:
        about.unusable = 0
        into.size, about.path, about.tag = answer.size, answer.path, answer.tag
        if not about.is_subscribed:
            about.is_subscribed = True
            into.subscribed(symbol)
        if answer.trades:
            into.items.extend(self._new(symbol, about, answer.trades))
            about.newest = max([*answer.trades, about.newest or answer.trades[-1]], key=_place)
            about.ids = frozenset(str(trade.trade_id) for trade in answer.trades)

    def _new(self, symbol: str, about: _Symbol, trades: Sequence[Trade]) -> Iterable[Item]:
        """The trades that did not come before, behind a mark if some may be missing."""
        newest, mark = about.newest, self._missed(symbol)
        if newest is not None and newest.sequence is not None:
            return [trade for trade in trades if trade.sequence is None or trade.sequence > newest.sequence]
        if mark is None:
            return trades
        if newest is None:  # what was known before this connection proves that nothing is missing
            return [evolve(mark, resubscribed=True), *trades]
        new = [trade for trade in trades if str(trade.trade_id) not in about.ids]
        overlaps = len(new) < len(trades)
        return new if overlaps or not new else [evolve(mark, resubscribed=False), *new]


def _place(trade: Trade) -> tuple[int, int]:
    """The order of trades: by sequence where there is one, else by time."""
    return (0, trade.timestamp) if trade.sequence is None else (trade.sequence, 0)
