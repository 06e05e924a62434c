"""The methods of the JSON-RPC interface.

Rules of this file: translation only. `Desk` answers questions, and `Subscriptions` joins live and past. This
file turns their values into JSON and their problems into errors. Calls are answered in turns (see
`gateway.admission`). The README beside it describes every method; a test compares the two.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeVar

import msgspec
from attrs import evolve
from loguru import logger

from actors.update import Rendering
from dataflow.domain import Recorded, Topic
from dataflow.domain.candle import Candle
from dataflow.domain.symbols import ANY
from dataflow.domain.topic import QUALITY, TRADES
from dataflow.gateway import spelled, spelling
from dataflow.gateway.answers import CandlePage, TradesPage
from dataflow.gateway.clients import AnySession
from dataflow.gateway.desk import MAX_COUNT, check_range
from dataflow.gateway.face import Conversation
from dataflow.gateway.format import Format
from dataflow.gateway.hall import Hall
from dataflow.gateway.limits import Account
from dataflow.gateway.past import Part
from dataflow.gateway.problems import InvalidValue, Problem
from dataflow.gateway.reading import Wanted
from dataflow.gateway.recovery import MOST_GAPS, Since
from dataflow.gateway.spelling import encode, moment
from dataflow.gateway.subscriptions import Subscribed

from . import protocol
from .compact import COLUMNS, Compact
from .describing import openrpc
from .format import JSONRPC
from .format import STRINGS as IN_STRINGS
from .messages import COMPACT, JSON, STRINGS, GetCandles, GetTrades, RecentTrades, Subscribe, Unsubscribe
from .parts import Parts
from .protocol import Long, Write

T = TypeVar("T")

SYMBOLS_AT_ONCE: Final = 16  # of an answer for all, told in one turn: half a millisecond
TRADES_AT_ONCE: Final = 200  # encoded in one turn: half a millisecond, and 45 KB
CANDLES_AT_ONCE: Final = 100  # candles cost more: a millisecond, and 40 KB
_PLAIN: Final[Mapping[str, Format]] = {JSON: JSONRPC}


class Questions:
    """The calls that follow nothing: whoever asks needs no session for them."""

    __slots__ = ()

    hall: Hall

    @property
    def account(self) -> Account:
        """Who pays."""
        raise NotImplementedError

    async def elsewhere(self, question: Awaitable[T]) -> T:
        """Wait for the disk, without a turn."""
        return await question

    async def recent_trades(self, params: RecentTrades) -> Long:
        topic = self.hall.desk.topic(TRADES, params.symbol)
        before = moment("beforeTimestamp", params.beforeTimestamp)
        after = moment("afterTimestamp", params.afterTimestamp)
        question = self.hall.desk.recent_trades(
            params.symbol, params.count, before, after, account=self.account
        )
        return Long(partial(_trades, topic, await self.elsewhere(question)))

    async def trades(self, params: GetTrades) -> Long:
        wanted = Wanted(params.after, None, moment("from", params.start), moment("to", params.end))
        question = self.hall.desk.trades(params.symbol, wanted, params.limit, account=self.account)
        return Long(partial(_page, await self.elsewhere(question)))

    async def candles(self, params: GetCandles) -> Long:
        start, end = moment("from", params.start), moment("to", params.end)
        question = self.hall.desk.candles(
            params.symbol, params.interval, start, end, params.limit, account=self.account
        )
        return Long(partial(_candles, params, await self.elsewhere(question)))

    async def symbols(self) -> list[spelled.Symbol]:
        return [spelling.symbol(info) async for info in self.hall.desk.symbols()]

    async def status(self) -> spelled.Status:
        return spelling.status(self.hall.desk.status())

    async def discover(self) -> msgspec.Raw:
        return openrpc(*self.hall.reached)

    async def ping(self) -> str:
        return "pong"


def formats(symbols: Sequence[str], sources: Sequence[str]) -> Mapping[str, Format]:
    """The formats that clients of one daemon may choose, by name. It starts with these names."""
    return {JSON: JSONRPC, COMPACT: Compact(symbols, sources), STRINGS: IN_STRINGS}


class Calls(Conversation, Questions):
    """One client's calls. `formats`: those that it may choose, by name."""

    __slots__ = ("_formats", "_parts")

    format = JSONRPC

    def __init__(self, session: AnySession, hall: Hall, formats: Mapping[str, Format] = _PLAIN) -> None:
        super().__init__(session, hall)
        self._formats = formats
        self._parts: Parts | None = None  # until the first

    async def answer(self, message: Any) -> bytes | None:
        pause = self.subscriptions.turns.pause
        charge = self.account.call
        return await protocol.dispatch(
            message, _METHODS, report, pause=pause, write=self.begin, charge=charge, owner=(self,)
        )

    def refusal(self, problem: Problem) -> bytes | None:
        raise AssertionError("every call answers for its own problem")

    def resumes(self, message: Any) -> bool:
        return '"since"' in message  # a cheap guess: decoding is work for the turn

    # The methods.

    async def subscribe(self, params: Subscribe) -> Long:
        if params.snapshot is not None:
            check_range("snapshot", params.snapshot, 0, MAX_COUNT)
        format = self._format(params)
        if params.symbol == ANY:
            every = self.hall.desk.every(params.channel, params.interval or "")
            positions = self._positions_of_all(every, params)
            if positions is None:
                return Long(_nothing)
            return Long(partial(self._subscribe_every, every, positions, params, format))
        if params.part is not None:
            raise InvalidValue("part", params.part, f'is for all symbols, "{ANY}", alone')
        if isinstance(params.symbol, str):
            topic = self._available(params, params.symbol)
            since = None if params.since is None else _since("since", params.since)
            return Long(partial(self._subscribe, topic, since, params, format))
        topics = [self._available(params, symbol) for symbol in _distinct(params.symbol)]
        return Long(
            partial(self._subscribe_all, topics, _positions(params.since, params.symbol), params, format)
        )

    def _positions_of_all(self, every: Topic, params: Subscribe) -> Mapping[str, Since] | None:
        """None while further parts of them are to come."""
        positions = _positions(params.since)
        if params.part is None:
            return positions
        self._parts = self._parts or Parts()
        return self._parts.add(every, *params.part, positions, self.hall.core.carriers)

    def _available(self, params: Subscribe, symbol: str) -> Topic:
        topic = self.hall.desk.topic(params.channel, symbol, params.interval or "")
        self.hall.desk.check_available(topic)
        return topic

    def _format(self, params: Subscribe) -> Format:
        """The format that a client has chosen. Raises InvalidValue."""
        valid = [name for name in self._formats if name != COMPACT or params.channel == TRADES]
        if params.format in valid:
            return self._formats[params.format]
        problem = "is for trades alone" if params.format == COMPACT in self._formats else "unknown format"
        raise InvalidValue("format", params.format, problem, valid=valid)

    async def _subscribe_all(
        self,
        topics: Sequence[Topic],
        since: Mapping[str, Since],
        params: Subscribe,
        format: Format,
        write: Write,
    ) -> bytes:
        """An array of the answers for all topics. Nothing is written unless all of them could be joined."""
        await self.subscriptions.join(topics)
        array = protocol.Array(write)
        for number, topic in enumerate(topics):
            if number:
                await self.subscriptions.turns.pause()
            answer = await self._subscribe(topic, since.get(topic.symbol), params, format, array.write)
            await array.end(answer)
        return array.rest() or b""

    async def _subscribe_every(
        self,
        every: Topic,
        since: Mapping[str, Since],
        params: Subscribe,
        format: Format,
        write: Write,
    ) -> bytes:
        """The same for all symbols of a channel, those included that come while the answer is made."""
        seat = await self.subscriptions.join_every(every, self._rendering(params, format))
        array, told = protocol.Array(write), 0
        while untold := seat.untold():
            for topic in untold:
                told += 1
                if told % SYMBOLS_AT_ONCE == 0:
                    await self.subscriptions.turns.pause()
                rendering, place = seat.rendering_of(topic), since.get(topic.symbol)
                answer = await self._answer_one(
                    seat.subscribe, topic, rendering, format, place, params.snapshot, array.write
                )
                await array.end(answer)
        seat.complete()
        return array.rest() or b"[]"

    async def _subscribe(
        self, topic: Topic, since: Since | None, params: Subscribe, format: Format, write: Write
    ) -> bytes:
        rendering = self._rendering(params, format)
        return await self._answer_one(
            self.subscriptions.subscribe, topic, rendering, format, since, params.snapshot, write
        )

    def _rendering(self, params: Subscribe, format: Format) -> Rendering[Any]:
        return self.rendering(_as_array if params.batch else None, format)

    async def _answer_one(
        self,
        subscribe: Callable[..., Awaitable[Subscribed]],
        topic: Topic,
        rendering: Rendering[Any],
        format: Format,
        since: Since | None,
        snapshot: int | None,
        write: Write,
    ) -> bytes:
        assert isinstance(rendering.format, Format)
        past = _Past(topic.channel, write)
        joined = await subscribe(topic, rendering, since=since, snapshot=snapshot, write=past.write)
        answer = _event(topic, "subscribed") | {"epoch": joined.epoch, "offset": joined.offset}
        if joined.recovered is not None:
            answer["recovered"] = joined.recovered
        if joined.rewound is not None:
            answer["rewound"] = {"epoch": joined.rewound.epoch, "offset": joined.rewound.offset}
        if joined.filled:
            fill = rendering.format.fill
            answer["filled"] = _array([fill(topic, joined.epoch, each) for each in joined.filled])
        if isinstance(format, Compact):  # a symbol of "*" that is followed alone besides may get to it later
            answer |= {"columns": COLUMNS, "topic": format.key(topic), "sources": format.sources}
        # Of the channel `quality` it is the answer.
        answer["quality"] = spelling.symbol_quality(self.hall.desk.quality(topic.symbol))
        return past.end(answer, joined.past if topic.channel != QUALITY else None)

    async def unsubscribe(self, params: Unsubscribe) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(params.symbol, str):
            return self._unsubscribe(self._followed(params, params.symbol))
        topics = [self._followed(params, symbol) for symbol in _distinct(params.symbol)]
        return [self._unsubscribe(topic) for topic in topics]

    def _followed(self, params: Unsubscribe, symbol: str) -> Topic:
        """A topic that exists, or is followed: its symbol may have left."""
        topic = Topic(params.channel, symbol, params.interval or "")
        if self.subscriptions.follows(topic):
            return topic
        desk = self.hall.desk
        return desk.every(topic.channel, topic.variant) if symbol == ANY else desk.topic(*topic)

    def _unsubscribe(self, topic: Topic) -> dict[str, Any]:
        self.subscriptions.unsubscribe(topic)
        return _event(topic, "unsubscribed")

    async def elsewhere(self, question: Awaitable[T]) -> T:
        return await self.subscriptions.turns.elsewhere(question)


QUESTIONS: Final[dict[str, tuple[type | None, protocol.Handler]]] = {
    "getRecentTrades": (RecentTrades, Questions.recent_trades),
    "getTrades": (GetTrades, Questions.trades),
    "getCandles": (GetCandles, Questions.candles),
    "getSymbols": (None, Questions.symbols),
    "getStatus": (None, Questions.status),
    "rpc.discover": (None, Questions.discover),
    "ping": (None, Questions.ping),
}
# One table for all clients: a table each would be most of the cost of a client.
_METHODS = protocol.Methods(
    subscribe=(Subscribe, Calls.subscribe),
    unsubscribe=(Unsubscribe, Calls.unsubscribe),
    **QUESTIONS,
)


def _as_array(texts: Any) -> Any:
    """Several updates as one JSON array, one update as it is."""
    return texts if len(texts) <= 1 else [b"[" + b",".join(texts) + b"]"]


class _Past:
    """The past in an answer. What is written slice by slice comes before all other members."""

    def __init__(self, channel: str, write: Write) -> None:
        self._channel = channel
        self._write = write
        self._begun = False
        self._comma = False  # an item is written already
        self._gaps: list[bytes] = []

    async def write(self, part: Part) -> None:
        """A slice, but not the last one."""
        self._gaps += part.gaps
        text = self._items(part)
        self._begun = True
        await self._write(text)

    def end(self, answer: dict[str, Any], part: Part | None) -> bytes:
        """The answer with the last slice, or the rest of it."""
        if part is None:
            return encode(answer)
        self._gaps += part.gaps
        gaps = {"gaps": _array(self._gaps)} if self._gaps else {}
        if self._begun:
            return self._items(part) + b"]," + encode(answer | gaps)[1:]
        return encode(answer | {self._channel: _array(part.items)} | gaps)

    def _items(self, part: Part) -> bytes:
        items = b",".join(part.items)
        opening = b"" if self._begun else b"{%b:[" % encode(self._channel)
        comma = b"," if self._comma and items else b""
        self._comma = self._comma or items != b""
        return opening + comma + items


async def _nothing(_write: Write) -> bytes:
    return b"[]"


async def _trades(topic: Topic, trades: Sequence[Recorded], write: Write) -> bytes:
    opening = b"["
    while len(trades) > TRADES_AT_ONCE:
        await write(opening + _items(topic, trades[:TRADES_AT_ONCE]))
        opening, trades = b",", trades[TRADES_AT_ONCE:]
    return opening + _items(topic, trades) + b"]"


async def _page(page: TradesPage, write: Write) -> bytes:
    """A page; as in every long answer, what there is most of comes first."""
    topic, trades = Topic(TRADES, page.symbol), page.trades
    opening = b'{"trades":['
    while len(trades) > TRADES_AT_ONCE:
        await write(opening + _items(topic, trades[:TRADES_AT_ONCE]))
        opening, trades = b",", trades[TRADES_AT_ONCE:]
    return opening + _items(topic, trades) + b"]," + encode(spelling.about_page(page))[1:]


async def _candles(params: GetCandles, page: CandlePage, write: Write) -> bytes:
    told = spelling.candle_page(params.symbol, params.interval, evolve(page, candles=()))
    candles = page.candles
    opening = b'{"candles":['
    while len(candles) > CANDLES_AT_ONCE:
        await write(opening + _candle_items(candles[:CANDLES_AT_ONCE]))
        opening, candles = b",", candles[CANDLES_AT_ONCE:]
    del told["candles"]  # type: ignore[misc]
    return opening + _candle_items(candles) + b"]," + encode(told)[1:]


def _items(topic: Topic, trades: Sequence[Recorded]) -> bytes:
    return b",".join([JSONRPC.item(topic, 0, each.offset, each.trade) for each in trades])


def _candle_items(candles: Sequence[Candle]) -> bytes:
    return b",".join([encode(spelling.candle(each)) for each in candles])


def _array(texts: list[bytes]) -> msgspec.Raw:
    return msgspec.Raw(b"[" + b",".join(texts) + b"]")


def _event(topic: Topic, event: str) -> dict[str, Any]:
    of = {"channel": topic.channel, "symbol": topic.symbol}
    if topic.variant:
        of["interval"] = topic.variant
    return of | {"event": event}


def _distinct(symbols: list[str]) -> list[str]:
    """A list of symbols. Raises InvalidValue when it is empty or names one twice."""
    if not symbols:
        raise InvalidValue("symbol", symbols, "must name at least one")
    twice = [symbol for symbol, count in Counter(symbols).items() if count > 1]
    if twice:
        raise InvalidValue("symbol", twice[0], "is named twice")
    if ANY in symbols:
        raise InvalidValue("symbol", ANY, "means all symbols: must stand alone, in no list")
    return symbols


def _since(name: str, value: Any) -> Since:
    """A position in one symbol. Raises InvalidValue or CallError."""
    since: Since = protocol.read(name, value, Since)
    if len(since.gaps) > MOST_GAPS:
        raise InvalidValue(f"{name}.gaps", len(since.gaps), f"at most {MOST_GAPS:,} gaps")
    return since


def _positions(since: dict[str, Any] | None, symbols: Collection[str] = ()) -> dict[str, Since]:
    """The positions in several symbols: in these, or in any. Raises InvalidValue or CallError."""
    positions = since or {}
    for symbol in positions:
        if symbol not in symbols if symbols else symbol in ("epoch", "offset"):
            problem = "of several symbols: must have a position for each, by its name"
            example = {"BTC-USD": {"epoch": 1763696936212, "offset": 612}}
            raise InvalidValue("since", symbol, problem, example=example)
    return {symbol: _since(f"since.{symbol}", each) for symbol, each in positions.items()}


def report(method: str, error: BaseException) -> None:
    """A method failed, and it is our fault."""
    logger.opt(exception=error).error("gateway: {} failed", method)
