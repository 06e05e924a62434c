"""The methods of the JSON-RPC interface.

Rules of this file: translation only. `Desk` answers questions, and `Subscriptions` joins live and past. This
file turns their values into JSON and their problems into errors. Calls are answered in turns (see
`gateway.admission`). The README beside it describes every method; a test compares the two.
"""

from __future__ import annotations

from typing import Any

import msgspec
from attrs import frozen
from loguru import logger

from dataflow.domain.quality import best
from dataflow.domain.timestamps import from_rfc3339, to_rfc3339
from dataflow.domain.topic import QUALITY, TRADES
from dataflow.gateway import spelling
from dataflow.gateway.answers import SymbolInfo
from dataflow.gateway.desk import MAX_COUNT, check_range
from dataflow.gateway.face import Conversation
from dataflow.gateway.past import Part
from dataflow.gateway.problems import InvalidValue, Problem
from dataflow.gateway.spelling import symbol_quality
from dataflow.gateway.subscriptions import Position

from . import protocol
from .format import JSONRPC


@frozen(kw_only=True)
class Subscribe:
    symbol: str
    channel: str = TRADES
    snapshot: int | None = None
    since: Position | None = None
    batch: bool = False


@frozen(kw_only=True)
class Unsubscribe:
    symbol: str
    channel: str = TRADES


@frozen(kw_only=True)
class RecentTrades:
    symbol: str
    count: int = 50
    beforeTimestamp: str | None = None  # noqa: N815 - the public contract's spelling
    afterTimestamp: str | None = None  # noqa: N815


class Calls(Conversation):
    """One client's calls."""

    __slots__ = ()

    format = JSONRPC

    async def answer(self, message: str) -> bytes | None:
        pause = self.subscriptions.turns.pause
        return await protocol.dispatch(message, _METHODS, _report, pause=pause, owner=(self,))

    def refusal(self, problem: Problem) -> bytes | None:
        raise AssertionError("every call answers for its own problem")

    def resumes(self, message: str) -> bool:
        return '"since"' in message  # a cheap guess: decoding is work for the turn

    # The methods.

    async def subscribe(self, params: Subscribe) -> dict[str, Any]:
        topic = self.hall.desk.topic(params.channel, params.symbol)
        self.hall.desk.check_available(topic)
        if params.snapshot is not None:
            check_range("snapshot", params.snapshot, 0, MAX_COUNT)
        kind = self.rendering(_as_array if params.batch else None)
        joined = await self.subscriptions.subscribe(topic, kind, since=params.since, snapshot=params.snapshot)
        answer = _event(params, "subscribed") | {"epoch": joined.epoch, "offset": joined.offset}
        if joined.recovered is not None:
            answer["recovered"] = joined.recovered
        if joined.past is not None and params.channel != QUALITY:  # whose states stand in `quality`
            answer |= _past(params.channel, joined.past)
        return answer | {"quality": self._quality(params.symbol)}

    async def unsubscribe(self, params: Unsubscribe) -> dict[str, Any]:
        self.subscriptions.unsubscribe(self.hall.desk.topic(params.channel, params.symbol))
        return _event(params, "unsubscribed")

    async def recent_trades(self, params: RecentTrades) -> list[msgspec.Raw]:
        topic = self.hall.desk.topic(TRADES, params.symbol)
        before = _moment("beforeTimestamp", params.beforeTimestamp)
        after = _moment("afterTimestamp", params.afterTimestamp)
        trades = self.hall.desk.recent_trades(params.symbol, params.count, before, after)
        return [msgspec.Raw(JSONRPC.item(topic, 0, each.offset, each.trade)) for each in trades]

    async def symbols(self) -> list[dict[str, Any]]:
        return [self._symbol(info) for info in self.hall.desk.symbols()]

    async def status(self) -> dict[str, Any]:
        return spelling.status(self.hall.desk.status())

    async def ping(self) -> str:
        return "pong"

    def _symbol(self, info: SymbolInfo) -> dict[str, Any]:
        trade = info.newest.trade if info.newest else None
        return {
            "symbol": info.symbol,
            "channels": info.channels,
            "sources": info.sources,
            "status": info.status,
            "lastPrice": trade.price if trade else None,
            "lastTimestamp": to_rfc3339(trade.timestamp) if trade else None,
            "quality": self._quality(info.symbol),
        }

    def _quality(self, symbol: str) -> dict[str, Any] | None:
        states = self.hall.desk.quality(symbol)
        foremost = best(states)
        return None if foremost is None else symbol_quality(states, foremost)


# One table for all clients: a table each would be most of the cost of a client.
_METHODS = protocol.Methods(
    subscribe=(Subscribe, Calls.subscribe),
    unsubscribe=(Unsubscribe, Calls.unsubscribe),
    getRecentTrades=(RecentTrades, Calls.recent_trades),
    getSymbols=(None, Calls.symbols),
    getStatus=(None, Calls.status),
    ping=(None, Calls.ping),
)


def _as_array(texts: Any) -> Any:
    """Several updates as one JSON array, one update as it is."""
    return texts if len(texts) <= 1 else [b"[" + b",".join(texts) + b"]"]


def _past(channel: str, part: Part) -> dict[str, Any]:
    told = {channel: _array(part.items)}
    return told | {"gaps": _array(part.gaps)} if part.gaps else told


def _array(texts: list[bytes]) -> msgspec.Raw:
    return msgspec.Raw(b"[" + b",".join(texts) + b"]")


def _event(params: Subscribe | Unsubscribe, event: str) -> dict[str, Any]:
    return {"channel": params.channel, "symbol": params.symbol, "event": event}


def _moment(name: str, text: str | None) -> int | None:
    try:
        return None if text is None else from_rfc3339(text)
    except ValueError as error:
        raise InvalidValue(name, text, str(error), example="2020-05-10T18:33:36.696315Z") from None


def _report(method: str, error: BaseException) -> None:
    logger.opt(exception=error).error("gateway: {} failed", method)
