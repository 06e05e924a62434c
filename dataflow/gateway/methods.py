"""What a client can ask for: the methods of the JSON-RPC interface.

Rules of this file. A client's answer and its live updates join without a hole: the position of the
answer is read, and the updates behind it are taken, without a checkpoint in between; if a batch of
calls takes longer, what came meanwhile is caught up from the history. A wrong name or value is
answered with what would have been right.
"""

from __future__ import annotations

import difflib
from importlib.metadata import version
from typing import Any

import msgspec
import trio
from attrs import define, frozen
from loguru import logger

from actors.subscription import Log, Topic
from supervisors import SupervisionError

from ..domain import Entry, Gap, Recorded
from ..errors import CallError
from ..history import History
from ..sources import SourceState
from ..state import State
from ..timestamps import from_rfc3339, to_rfc3339
from ..topics import Starter
from . import jsonrpc, wire
from .clients import AnySession

RECOVERY_LIMIT = 20_000  # entries in the answer to `since`: some 40 ms of encoding
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

    topic: Topic
    position: int
    batch: bool


class Client:
    """One client's side of the conversation: an `actors.session.Dialogue`."""

    def __init__(self, session: AnySession, state: State, pool: Starter) -> None:
        self._session = session
        self._state = state
        self._pool = pool
        self._joined: set[str] = set()
        self._joining: dict[str, _Joining] = {}
        self._methods = jsonrpc.Methods(
            subscribe=(Subscribe, self.subscribe),
            unsubscribe=(Unsubscribe, self.unsubscribe),
            getRecentTrades=(RecentTrades, self.recent_trades),
            getSymbols=(None, self.symbols),
            getStatus=(None, self.status),
            ping=(None, self.ping),
        )

    # The dialogue.

    async def hear(self, text: str) -> None:
        answer = await jsonrpc.dispatch(text, self._methods, _report, pause=trio.lowlevel.checkpoint)
        if answer is not None:
            self._session.say(answer)
        self._catch_up()

    def gap(self, topic: str, first: int, last: int) -> bytes:
        return wire.stream_gap(topic, self._state.epoch, Gap(first, last, "slow_client"))

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
            await self._join(params)
        else:
            self._follow(params)
        history = self._history(params.symbol)
        answer = {**_event(params.symbol, "subscribed"), "epoch": history.epoch, "offset": history.last}
        return answer | _past(history, params)

    async def unsubscribe(self, params: Unsubscribe) -> dict[str, Any]:
        _check_channel(params.channel)
        self._check_symbol(params.symbol)
        self._joining.pop(params.symbol, None)
        self._session.unfollow(params.symbol)
        self._joined.discard(params.symbol)
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
            "uptime": round(self._state.clock() - self._state.started, 3),
            "epoch": self._state.epoch,
            "version": version("dataflow"),
        }

    async def ping(self) -> str:
        return "pong"

    # Joining: what is answered and what is live meet at one position.

    async def _join(self, params: Subscribe) -> None:
        most = self._state.settings.session.max_subscriptions
        if len(self._joined) >= most:
            raise CallError(
                jsonrpc.TOO_MANY_SUBSCRIPTIONS,
                "too many subscriptions",
                {"limit": most, "advice": "unsubscribe from a symbol first, or open another connection"},
            )
        try:
            topic = await self._state.topics.open(params.symbol, self._pool)
        except SupervisionError as error:  # going away, or just being restarted: reported where it happened
            told = {"symbol": params.symbol, "problem": str(error), "advice": "try again in a moment"}
            raise CallError(jsonrpc.UPSTREAM_UNAVAILABLE, "temporarily unavailable", told) from None
        # Joined at once, which keeps the topic open; nothing is offered before the session follows.
        topic.join(self._session)
        self._joined.add(params.symbol)
        self._joining[params.symbol] = _Joining(topic, self._history(params.symbol).last, params.batch)

    def _follow(self, params: Subscribe) -> None:
        """A second subscription to the same symbol: what is due is sent before the answer, nothing twice."""
        self._catch_up()
        position = self._session.position(params.symbol)
        self._session.follow(params.symbol, position, params.batch)
        self._bring_up(self._state.log_of(params.symbol), params.symbol)

    def _catch_up(self) -> None:
        """The answers are said: from here on the subscriptions in them are live."""
        for symbol, joining in self._joining.items():
            self._session.follow(symbol, joining.position, joining.batch)
            self._bring_up(joining.topic.log, symbol)
        self._joining.clear()

    def _bring_up(self, log: Log, symbol: str) -> None:
        while self._session.ending is None:
            update = log.read(self._session.position(symbol))
            if update is None:
                return
            self._session.offer(update)

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


def _past(history: History, params: Subscribe) -> dict[str, Any]:
    """What a subscriber asked to be given of the past, in the order of the stream."""
    past: dict[str, Any] = {}
    entries: list[Entry] = []
    if params.since is not None:
        past["recovered"], entries = history.since(params.since.epoch, params.since.offset, RECOVERY_LIMIT)
    if params.snapshot is not None and not past.get("recovered"):
        entries = history.newest(params.snapshot)
    if params.since is None and params.snapshot is None:
        return past
    past["trades"] = [wire.trade(entry) for entry in entries if isinstance(entry, Recorded)]
    if gaps := [wire.gap(entry) for entry in entries if isinstance(entry, Gap)]:
        past["gaps"] = gaps
    return past


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
