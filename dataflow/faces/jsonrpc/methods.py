"""What a client can ask for: the methods of the JSON-RPC interface.

Rules of this file. A client's answer and its live updates join without a hole: the position of the
answer is read, and the updates behind it are taken, without a checkpoint in between; if a batch of
calls takes longer, what came meanwhile is caught up from the history. A wrong name or value is
answered with what would have been right. Calls are answered in turns (see `admission`), and what takes
longer than a moment in slices, with a turn for each.
"""

from __future__ import annotations

import difflib
from importlib.metadata import version
from typing import Any

import msgspec
import trio
from attrs import define, frozen
from loguru import logger

from actors.subscription import Topic
from dataflow.cache.history import History
from dataflow.core import State
from dataflow.domain import Entry, Gap
from dataflow.domain.errors import CallError
from dataflow.domain.timestamps import from_rfc3339, to_rfc3339
from dataflow.gateway.admission import Turns
from dataflow.gateway.clients import AnySession
from dataflow.gateway.past import Part, Past
from dataflow.sources.state import SourceState
from dataflow.topics.topics import Starter
from supervisors import SupervisionError

from . import format as wire
from . import protocol as jsonrpc

RECOVERY_LIMIT = 20_000  # entries in the answer to `since`: some 40 ms of encoding, and 4 MB
RECOVERY_SLICE = 500  # of them in one turn: a millisecond
RECOVERY_ROUNDS = 5  # through what came during the last one: after so many the rest is told in one go
MAX_COUNT = 1000


@frozen
class Position:
    """A place in the stream of a symbol."""

    epoch: int
    offset: int


@frozen(kw_only=True)
class Subscribe:
    symbol: str
    channel: str = "trades"
    snapshot: int | None = None
    since: Position | None = None
    batch: bool = False


@frozen(kw_only=True)
class Unsubscribe:
    symbol: str
    channel: str = "trades"


@frozen(kw_only=True)
class RecentTrades:
    symbol: str
    count: int = 50
    beforeTimestamp: str | None = None  # noqa: N815 - the public contract's spelling
    afterTimestamp: str | None = None  # noqa: N815


@define
class _Joining:
    """A subscription whose answer is not said yet."""

    position: int
    batch: bool


class Client:
    """One client's side of the conversation: an `actors.session.Dialogue`."""

    __slots__ = ("_joined", "_joining", "_past", "_pool", "_session", "_state", "_turns")

    def __init__(self, session: AnySession, state: State, pool: Starter, past: Past) -> None:
        self._session = session
        self._state = state
        self._pool = pool
        self._past = past
        self._turns = Turns(state.admission, session)
        self._joined: dict[str, Topic] = {}
        self._joining: dict[str, _Joining] | None = None  # while a request is heard

    # The dialogue.

    async def hear(self, text: str) -> None:
        await self._turns.take(resuming='"since"' in text)  # cheaper than to decode before one's turn
        try:
            answer = await jsonrpc.dispatch(text, _METHODS, _report, pause=self._turns.pause, owner=(self,))
            if answer is not None:
                self._session.say(answer)
            self._catch_up()
            await trio.lowlevel.checkpoint()
        finally:
            self._turns.leave()

    def gap(self, topic: str, first: int, last: int, items: int) -> bytes:
        return wire.stream_gap(topic, self._state.epoch, Gap(first, last, "slow_client"), items)

    def farewell(self) -> bytes:
        return wire.connection_draining()

    def closed(self) -> None:
        for symbol in self._joined:
            self._state.topics.leave(symbol, self._session)
        self._state.clients.leave(self._session)

    # The methods.

    async def subscribe(self, params: Subscribe) -> dict[str, Any]:
        _check_channel(params.channel)
        self._check_symbol(params.symbol)
        self._check_upstream(params.symbol)
        if params.snapshot is not None:
            _check_range("snapshot", params.snapshot, 0, MAX_COUNT)
        if params.symbol not in self._joined:
            await self._join(params.symbol)
        history = self._history(params.symbol)
        recovered = await self._recover(history, params.symbol, params.since)
        # From here to the end of the answer without a checkpoint.
        self._follow(params, history.last)
        answer = {**_event(params.symbol, "subscribed"), "epoch": history.epoch, "offset": history.last}
        return answer | self._told(history, params, recovered)

    async def unsubscribe(self, params: Unsubscribe) -> dict[str, Any]:
        _check_channel(params.channel)
        self._check_symbol(params.symbol)
        if self._joining is not None:
            self._joining.pop(params.symbol, None)
        self._session.unfollow(params.symbol)
        self._joined.pop(params.symbol, None)
        self._state.topics.leave(params.symbol, self._session)
        return _event(params.symbol, "unsubscribed")

    async def recent_trades(self, params: RecentTrades) -> list[msgspec.Raw]:
        self._check_symbol(params.symbol)
        _check_range("count", params.count, 1, MAX_COUNT)
        before = _moment("beforeTimestamp", params.beforeTimestamp)
        after = _moment("afterTimestamp", params.afterTimestamp)
        history = self._history(params.symbol)
        if after is not None:
            trades = history.after(after, params.count, before)
        elif before is not None:
            trades = history.before(before, params.count)
        else:
            trades = history.latest(params.count)
        return [wire.trade(recorded) for recorded in trades]

    async def symbols(self) -> list[dict[str, Any]]:
        return [self._symbol(symbol) for symbol in self._state.symbols]

    async def status(self) -> dict[str, Any]:
        sources = {name: _source(source) for name, source in self._state.sources.items()}
        return {
            "sources": sources,
            "sessions": len(self._state.clients),
            "waiting": self._state.admission.waiting,
            "uptime": round(self._state.clock() - self._state.started, 3),
            "epoch": self._state.epoch,
            "version": version("dataflow"),
        }

    async def ping(self) -> str:
        return "pong"

    # Joining: what is answered and what is live meet at one position.

    async def _join(self, symbol: str) -> None:
        most = self._state.settings.session.max_subscriptions
        if len(self._joined) >= most:
            raise CallError(
                jsonrpc.TOO_MANY_SUBSCRIPTIONS,
                "too many subscriptions",
                {"limit": most, "advice": "unsubscribe from a symbol first, or open another connection"},
            )
        # Joined at once, which keeps the topic open; nothing is offered before the session follows.
        topic = self._state.topics.opened(symbol)
        if topic is not None:
            self._enter(topic)
        else:
            await self._open(symbol)

    def _enter(self, topic: Topic) -> None:
        topic.join(self._session)
        self._joined[topic.name] = topic  # the topic's own name: of the clients' there would be thousands

    async def _open(self, symbol: str) -> None:
        self._turns.leave()  # it can take seconds to start a topic: nobody else shall wait for that
        try:
            topic = await self._state.topics.open(symbol, self._pool)
        except SupervisionError as error:  # going away, or just being restarted: reported where it happened
            told = {"symbol": symbol, "problem": str(error), "advice": "try again in a moment"}
            raise CallError(jsonrpc.UPSTREAM_UNAVAILABLE, "temporarily unavailable", told) from None
        self._enter(topic)
        await self._turns.take(resuming=False)

    def _follow(self, params: Subscribe, last: int) -> None:
        self._joining = self._joining or {}
        if params.symbol in self._joining or params.symbol in self._session.lanes:
            self._follow_again(params)
        else:
            self._joining[self._joined[params.symbol].name] = _Joining(last, params.batch)

    def _follow_again(self, params: Subscribe) -> None:
        """A second subscription to the same symbol: what is due is sent before the answer, nothing twice."""
        self._catch_up()
        position = self._session.position(params.symbol)
        self._session.follow(params.symbol, position, params.batch)
        self._bring_up(params.symbol)

    def _catch_up(self) -> None:
        """The answers are said: from here on the subscriptions in them are live."""
        joining_, self._joining = self._joining or {}, None
        for symbol, joining in joining_.items():
            self._session.follow(symbol, joining.position, joining.batch)
            self._bring_up(symbol)

    def _bring_up(self, symbol: str) -> None:
        log = self._joined[symbol].log
        while self._session.ending is None:
            update = log.read(self._session.position(symbol))
            if update is None:
                return
            self._session.offer(update)

    # The past, encoded in slices where there is much of it.

    async def _recover(self, history: History, symbol: str, since: Position | None) -> Part | None:
        """What came since, all but the newest slice; None when nothing was asked for or it is not known."""
        if since is None:
            return None
        known, entries = history.since(since.epoch, since.offset, RECOVERY_LIMIT)
        if not known:
            return None
        part = self._past.part(symbol, since.offset)
        for _ in range(RECOVERY_ROUNDS):
            if len(entries) <= RECOVERY_SLICE:
                break
            for start in range(0, len(entries), RECOVERY_SLICE):
                part.add(entries[start : start + RECOVERY_SLICE])
                await self._turns.pause()
            entries = _behind(history, part)
        return part

    def _told(self, history: History, params: Subscribe, recovered: Part | None) -> dict[str, Any]:
        """What a subscriber asked to be given of the past, in the order of the stream."""
        told: dict[str, Any] = {} if params.since is None else {"recovered": recovered is not None}
        if recovered is not None:
            recovered.add(_behind(history, recovered))
            return told | recovered.members()
        if params.since is None and params.snapshot is None:
            return told
        part = self._past.part(params.symbol)
        part.add(history.newest(params.snapshot or 0))
        return told | part.members()

    # What is asked for must exist.

    def _check_symbol(self, symbol: str) -> None:
        known = self._state.symbols
        if symbol not in known:
            nearest = difflib.get_close_matches(symbol.upper(), known, n=5, cutoff=0.3)
            raise _invalid("symbol", symbol, "unknown symbol", nearest=nearest or known[:5])

    def _check_upstream(self, symbol: str) -> None:
        """Raises CallError when every source of `symbol` has refused it."""
        sources = self._state.sources_of(symbol)
        refusals = {s.name: reason for s in sources if (reason := s.refusal(symbol)) is not None}
        if len(refusals) == len(sources):
            raise CallError(
                jsonrpc.UPSTREAM_UNAVAILABLE, "upstream unavailable", {"symbol": symbol, "rejected": refusals}
            )

    def _history(self, symbol: str) -> History:
        history = self._state.history(symbol)
        history.expire(trio.current_time())
        return history

    def _symbol(self, symbol: str) -> dict[str, Any]:
        newest = self._history(symbol).latest(1)
        sources = self._state.sources_of(symbol)
        return {
            "symbol": symbol,
            "channels": ["trades"],
            "sources": [source.name for source in sources],
            "status": _best([source.status(symbol) for source in sources]),
            "lastPrice": newest[0].trade.price if newest else None,
            "lastTimestamp": to_rfc3339(newest[0].trade.timestamp) if newest else None,
        }


# One table for all clients: each of them made its own, this would be most of what it costs to have one.
_METHODS = jsonrpc.Methods(
    subscribe=(Subscribe, Client.subscribe),
    unsubscribe=(Unsubscribe, Client.unsubscribe),
    getRecentTrades=(RecentTrades, Client.recent_trades),
    getSymbols=(None, Client.symbols),
    getStatus=(None, Client.status),
    ping=(None, Client.ping),
)

_BEST_FIRST = ("live", "subscribing", "idle", "connecting", "lost", "rejected")


def _best(statuses: list[str]) -> str:
    return min(statuses, key=_BEST_FIRST.index)


def _source(source: SourceState) -> dict[str, Any]:
    return {
        "state": source.link.value,
        "since": to_rfc3339(int(source.since * 1e9)),
        "reason": source.reason,
        "connector": source.settings.connector,
        "symbols": sorted(source.subscribed_symbols),
        "rejected": source.refused_symbols,
        "problems": source.problems,
    }


def _event(symbol: str, event: str) -> dict[str, Any]:
    return {"channel": "trades", "symbol": symbol, "event": event}


def _behind(history: History, part: Part) -> list[Entry]:
    """Everything behind `part`; what was forgotten meanwhile is a gap of its own."""
    return history.read(part.last, history.last - part.last + 1)


def _check_channel(channel: str) -> None:
    if channel != "trades":
        raise _invalid("channel", channel, "unknown channel", valid=["trades"])


def _check_range(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise _invalid(name, value, f"must be {least} to {most}")


def _moment(name: str, text: str | None) -> int | None:
    try:
        return None if text is None else from_rfc3339(text)
    except ValueError as error:
        raise _invalid(name, text, str(error), example="2020-05-10T18:33:36.696315Z") from None


def _invalid(param: str, value: object, problem: str, **help_: object) -> CallError:
    return CallError(
        jsonrpc.INVALID_PARAMS,
        "Invalid params",
        {"param": param, "value": value, "problem": problem, **help_},
    )


def _report(method: str, error: BaseException) -> None:
    logger.opt(exception=error).error("gateway: {} failed", method)
