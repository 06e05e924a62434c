"""Live data for the programs of users: iterators over events, across everything that a daemon can do.

Rules of this file. Each iterator has its own queue, and the queue a bound. While one is full nothing is read
from the socket: the other iterators of this feed wait as well, and the server decides what becomes of a slow
client. What was left out then comes as a gap, or is fetched by the position. Order is kept: of each symbol,
and of what becomes of the connection between its trades. A position is that of the last event which was
taken, never of one that waits.
"""

from __future__ import annotations

import json
import ssl
import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, Generic, TypeAlias, TypeVar

import anyio
import anyio.lowlevel
import msgspec
from anyio.abc import TaskGroup, TaskStatus
from msgspec.structs import replace

from .address import address_of
from .calls import call
from .client import CANDLES, EVERY, QUALITY, TRADES, Client, pause_of
from .events import (
    Candle,
    Connection,
    Event,
    Filled,
    Gap,
    Notice,
    Position,
    Quality,
    Refused,
    Rewound,
    Subscribed,
    Topic,
    Trade,
)
from .faults import CallError, ServerFault, Unreachable, Unreadable
from .inbox import Inbox, Places
from .link import RETRY_FIRST, RETRY_MOST, Link
from .pages import Page, Pages

ROOM: Final = 10_000  # entries that wait for their reader
KEEP: Final = 100  # entries of each stream that the core holds: there may be thousands of streams
TURN: Final = 256  # events that a reader takes before it lets others have a turn
ASK_AGAIN: Final = 1.0  # seconds, after a refusal for a while
FOR_A_WHILE: Final = (-32000, -32002, -32603)  # codes of refusals that may be over soon

E = TypeVar("E")
T = TypeVar("T")
Since: TypeAlias = Mapping[str, Mapping[str, Any]]
TradeEvent: TypeAlias = Trade | Gap | Filled | Rewound | Quality | Connection


class Following(Generic[E]):
    """The events of what is followed, in order: iterate by `async for`. It ends with the feed.

    Raises CallError when the daemon refuses what was asked for. To leave it, drop it (as `break` out of the
    loop does), or close it: by `aclose`, or by `async with`. A cancelled `anext` loses nothing.
    """

    def __init__(self, feed: Feed, inbox: Inbox) -> None:
        self._feed = feed
        self._places = feed._places
        self._inbox = inbox
        self._turn = TURN

    @property
    def waiting(self) -> int:
        """Events that wait for being taken."""
        return len(self._inbox.queue)

    def __aiter__(self) -> Following[E]:
        return self

    async def __anext__(self) -> E:
        inbox, queue = self._inbox, self._inbox.queue
        while True:
            if not queue:
                await self._until_something()
            elif not self._turn:
                self._turn = TURN
                await anyio.lowlevel.checkpoint()
            self._turn -= 1
            event = queue.popleft()
            if inbox.crowded is not None:
                inbox.relieve()
            if self._places.give(event):
                return event  # type: ignore[no-any-return]

    async def _several(self, into: deque[Any]) -> None:
        """Move what waits to `into`, unless that has something: at least one event, not noted as given so
        far. Raises what `anext` raises."""
        inbox, queue = self._inbox, self._inbox.queue
        while not into and not queue and not inbox.ended:
            await inbox.until_woken()
        if not into:
            await self._until_something()
            into.extend(queue.popleft() for _ in range(min(len(queue), TURN)))
            inbox.relieve()

    async def _until_something(self) -> None:
        self._turn = TURN
        if not self._inbox.queue:
            await self._inbox.until_something()
        if not self._inbox.queue:
            self._leave()
            if self._inbox.error is not None:
                raise self._inbox.error
            raise StopAsyncIteration

    async def aclose(self) -> None:
        """Follow it no more."""
        self._leave()
        await anyio.lowlevel.checkpoint()

    async def __aenter__(self) -> Following[E]:
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._leave()

    def _leave(self) -> None:
        self._feed._leave(self._inbox)

    def __del__(self) -> None:
        self._feed._drop(self._inbox)


class _Candles(msgspec.Struct):
    candles: list[Candle]
    next: datetime | None = None


_trades: Final = msgspec.json.Decoder(list[Trade])
_page: Final = msgspec.json.Decoder(Page)
_candles: Final = msgspec.json.Decoder(_Candles)


class Feed:
    """A connection to a daemon that lasts, whatever happens to it. Made by `connect`; use it by `async with`.

    `connection`: its newest state. `waited`: how often the socket was not read, because a reader did not take
    its events.
    """

    def __init__(
        self,
        url: str,
        core: Client,
        *,
        wait: bool,
        room: int,
        retry: tuple[float, float],
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._address = address_of(url)
        self._context = ssl_context
        self._core = core
        self._link = Link(
            self._address,
            self._core,
            self._core.hear,
            wait=wait,
            context=ssl_context,
            retry_first=retry[0],
            retry_most=retry[1],
        )
        self._wait = wait
        self._room = room
        self._traders: dict[str, Inbox] = {}  # by symbol; what comes most
        self._inboxes: dict[Topic, Inbox] = {}
        self._listeners: list[Inbox] = []  # of connections and notices alone
        self._left: deque[Inbox] = deque()  # in another thread, by the collector of garbage
        self._places = Places()
        self._asking: set[Topic] = set()  # again, after a refusal for a while
        self._newest_wins = False  # over an older iterator of the same topic; else it is refused
        self._tasks: TaskGroup
        self._thread: int | None = None  # while it is open
        self._error: Exception | None = None
        self.waited = 0
        self.connection = Connection(state="connecting")

    async def __aenter__(self) -> Feed:
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._thread = threading.get_ident()
        try:
            await self._tasks.start(self._run)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_error: object) -> None:
        # The errors of the body are not given to the group: it would wrap them.
        self._thread = None
        self._tasks.cancel_scope.cancel()
        try:
            await self._tasks.__aexit__(None, None, None)
        finally:  # also when cancelled: nobody shall wait for what will not come
            self._end(None)

    @property
    def is_open(self) -> bool:
        """Whether it is within its `async with`."""
        return self._thread is not None

    @property
    def positions(self) -> dict[str, dict[str, Any]]:
        """By symbol, in the trades: behind the last event that was taken from its iterator. They are for
        JSON, and for `since` of a later life. The gaps that may still be filled are in them."""
        return self._places.positions

    # What is followed.

    def trades(
        self,
        symbols: str | Iterable[str],
        *,
        snapshot: int | None = None,
        since: Since | None = None,
        quality: bool = False,
        room: int | None = None,
    ) -> Following[TradeEvent]:
        """The trades of a symbol, of several, or of all (`"*"`); what is missing, came after all, or was
        taken back.

        `snapshot`: begin with so many of the newest entries, at most 1,000. `since`: go on behind the
        positions of an earlier life. With `quality`, also how the symbols fare at their sources. `room`:
        events that may wait.
        """
        wanted = _several(symbols)
        topics = [Topic(TRADES, symbol) for symbol in wanted]
        topics += [Topic(QUALITY, symbol) for symbol in wanted if quality]
        self._check(topics)
        held = {s: position for s, position in (since or {}).items() if s in wanted or EVERY in wanted}
        for symbol in {*wanted, *held} - {EVERY}:
            self._places.begin(symbol, held.get(symbol))
        for symbol, position in held.items():
            self._core.hold(symbol, position)
        return self._follow(topics, snapshot, room)

    def candles(
        self,
        symbols: str | Iterable[str],
        interval: str,
        *,
        snapshot: int | None = None,
        room: int | None = None,
    ) -> Following[Candle | Connection]:
        """The candles of some symbols. A later one with the same start and a higher `rev` replaces the one
        before.

        `snapshot`: begin with so many of the newest ones.
        """
        topics = [Topic(CANDLES, symbol, interval) for symbol in _several(symbols)]
        self._check(topics)
        return self._follow(topics, snapshot, room)

    def quality(
        self, symbols: str | Iterable[str], *, room: int | None = None
    ) -> Following[Quality | Connection]:
        """How some symbols fare, or all (`"*"`), at each of their sources: the state now, and each change."""
        topics = [Topic(QUALITY, symbol) for symbol in _several(symbols)]
        self._check(topics)
        return self._follow(topics, None, room)

    def events(self, *, room: int | None = None) -> Following[Connection | Notice]:
        """What becomes of the connection, its present state first, and what the daemon tells besides its
        streams."""
        self._check(())
        inbox = Inbox((), room or self._room)
        inbox.put(self.connection)
        self._listeners.append(inbox)
        return Following(self, inbox)

    def _check(self, topics: Iterable[Topic]) -> None:
        if self._error is not None:
            raise self._error
        if not self.is_open:
            raise RuntimeError("the feed is not open: use it inside `async with connect(...)`")
        self._leave_dropped()  # one of these topics may be among them
        for topic in topics:
            for other in [each for each in self._inboxes if _overlap(each, topic)]:
                if not self._newest_wins:
                    raise ValueError(
                        f"{other} is followed by another iterator already: leave it, or use a second feed"
                    )
                if other in self._inboxes:  # else it was left with the one before
                    self._inboxes[other].replace(other)
                    self._leave(self._inboxes[other])

    def _follow(self, topics: Sequence[Topic], snapshot: int | None, room: int | None) -> Following[Any]:
        inbox = Inbox(topics, room or self._room)
        for topic in topics:
            self._inboxes[topic] = inbox
            if topic.channel == TRADES:
                self._traders[topic.symbol] = inbox
            past = None if topic.channel == QUALITY else snapshot
            calls = self._core.follow(topic.symbol, topic.channel, interval=topic.interval, snapshot=past)
            self._link.say(*calls)
        return Following(self, inbox)

    def _leave(self, inbox: Inbox) -> None:
        inbox.end()
        if inbox in self._listeners:
            self._listeners.remove(inbox)
        for topic in inbox.topics:
            if self._inboxes.get(topic) is inbox:
                del self._inboxes[topic]
                if topic.channel == TRADES:
                    del self._traders[topic.symbol]
                self._link.say(self._core.leave(topic.symbol, topic.channel, interval=topic.interval))

    def _drop(self, inbox: Inbox) -> None:
        """Nobody has the iterator any more. This may be any thread."""
        if self._thread == threading.get_ident():
            self._leave(inbox)
        elif self._thread is not None:
            self._left.append(inbox)

    def _leave_dropped(self) -> None:
        while self._left:
            self._leave(self._left.popleft())

    # What comes.

    async def _run(self, *, task_status: TaskStatus[None]) -> None:
        is_begun = self._wait
        if is_begun:
            task_status.started()
        try:
            async with self._link:
                async for news in self._link:
                    self._leave_dropped()
                    if not isinstance(news, Connection):
                        await self._deliver(news)
                        continue
                    await self._tell(news)
                    if not is_begun and news.state != "connecting":
                        is_begun = True
                        task_status.started()
        except (Unreachable, ServerFault) as error:
            if not is_begun:
                raise
            self._end(error)

    async def _deliver(self, events: Iterable[Event]) -> None:
        inbox: Inbox | None
        symbol, inbox = "", None  # of the trade before: they come in runs
        for event in events:
            if type(event) is not Trade:
                symbol, inbox = "", await self._inbox_of(event)
            elif event.symbol != symbol:
                symbol = event.symbol
                inbox = self._traders.get(symbol) or self._traders.get(EVERY)
            if inbox is None or inbox.ended:
                continue
            if len(inbox.queue) >= inbox.room:
                await self._until_room(inbox)
                symbol = ""
                if inbox.ended:
                    continue
            inbox.put(event)

    async def _inbox_of(self, event: Event) -> Inbox | None:
        """Whose an event is. Some are for all, and delivered here."""
        match event:
            case Trade() | Gap() | Filled() | Rewound():
                return self._of(TRADES, event.symbol)
            case Quality():
                return self._of(QUALITY, event.symbol)
            case Candle():
                return self._of(CANDLES, event.symbol, event.interval)
            case Subscribed():
                if self.connection.state == "waiting":
                    await self._tell(Connection(state="connected"))
                return self._of(*event.topic)
            case Refused():
                await self._refused(event)
            case Notice():
                connection = _connection(event)
                if connection is not None:
                    await self._tell(connection)
                else:
                    await self._tell_all(list(self._listeners), event)
        return None

    def _of(self, channel: str, symbol: str, interval: str | None = None) -> Inbox | None:
        found = self._inboxes.get(Topic(channel, symbol, interval))
        return found or self._inboxes.get(Topic(channel, EVERY, interval))

    async def _tell(self, connection: Connection) -> None:
        if connection == self.connection:
            return
        self.connection = connection
        await self._tell_all([*dict.fromkeys(self._inboxes.values()), *self._listeners], connection)

    async def _tell_all(self, inboxes: Iterable[Inbox], event: Connection | Notice) -> None:
        for inbox in inboxes:
            await self._until_room(inbox)
            if not inbox.ended:
                inbox.put(event)

    async def _until_room(self, inbox: Inbox) -> None:
        if len(inbox.queue) >= inbox.room and not inbox.ended:
            self.waited += 1
            await inbox.until_room()

    async def _refused(self, refused: Refused) -> None:
        topic = refused.topic
        inbox = None if topic is None else self._inboxes.get(topic)
        data = refused.data if isinstance(refused.data, dict) else {}
        if topic is not None and inbox is None:
            return  # it is left already
        if topic is not None and inbox is not None and not _is_for_a_while(refused.code, data):
            inbox.end(CallError(refused.code, refused.message, refused.data, topic.symbol))
            self._leave(inbox)
            return
        about = {} if topic is None else _given(**topic._asdict())
        told = about | {"code": refused.code, "message": refused.message, "data": refused.data}
        await self._tell_all(list(self._listeners), Notice(method="client.refused", params=told))
        if topic is not None and topic not in self._asking:
            self._asking.add(topic)
            self._tasks.start_soon(self._ask_again, topic, pause_of(data.get("retryAfter")) or ASK_AGAIN)

    async def _ask_again(self, topic: Topic, seconds: float) -> None:
        made = self._link.made
        await anyio.sleep(max(seconds, self._link.retry_first))
        self._asking.remove(topic)
        if made == self._link.made:  # else the next connection has asked
            self._link.say(*self._core.again(topic))

    def _end(self, error: Exception | None) -> None:
        self._error = error
        self.connection = Connection(state="closed", reason=None if error is None else str(error))
        for inbox in {id(each): each for each in [*self._inboxes.values(), *self._listeners]}.values():
            if not inbox.ended:
                inbox.put(self.connection)
                inbox.end(error)

    # What is asked.

    async def call(self, method: str, **params: Any) -> Any:
        """The result of any method but `subscribe`. Numbers with a fraction are Decimal.

        Raises CallError when the daemon refuses, Unreachable when it does not answer, Unreadable when what it
        answers is no answer.
        """
        said = await self._call(method, params)
        try:
            return json.loads(said, parse_float=Decimal)
        except (ValueError, RecursionError) as error:
            raise Unreadable(f"the answer to {method}: {error}") from error

    async def symbols(self) -> list[dict[str, Any]]:
        """Every symbol: channels, sources, status, last price and time, quality. Raises as `call`."""
        return _as(list[dict[str, Any]], await self.call("getSymbols"))

    async def status(self) -> dict[str, Any]:
        """How the daemon and its sources fare. Raises as `call`."""
        return _as(dict[str, Any], await self.call("getStatus"))

    async def recent(self, symbol: str, count: int = 50) -> list[Trade]:
        """The newest trades, the newest first; at most 1,000. Raises as `call`."""
        return _read(_trades, await self._call("getRecentTrades", {"symbol": symbol, "count": count}))

    def history(
        self,
        symbol: str,
        *,
        after: Position | Mapping[str, Any] | None = None,
        start: datetime | str | None = None,
        end: datetime | str | None = None,
        limit: int = 1_000,
    ) -> Pages[Page]:
        """All that is kept of a stream, or the part behind `after`, page by page up to now. Raises as `call`.

        `start` (inclusive) and `end` (exclusive) leave trades of other times out; a `datetime` without a zone
        is UTC. `limit`: entries in a page, at most 10,000.
        """
        params = _given(symbol=symbol, limit=limit, **{"from": _time(start), "to": _time(end)})

        async def page_behind(place: Position | None) -> tuple[Page | None, Position | None]:
            asked = params if place is None else params | {"after": _plain(place)}
            page = _read(_page, await self._call("getTrades", asked))
            page = replace(page, gaps=tuple(replace(gap, symbol=symbol) for gap in page.gaps))
            has_news = page.trades or page.gaps or page.rewound is not None
            return (page if has_news else None), (page.next if page.next != place else None)

        return Pages(page_behind, None if after is None else msgspec.convert(_plain(after), Position))

    def candle_history(
        self,
        symbol: str,
        interval: str,
        *,
        start: datetime | str | None = None,
        end: datetime | str | None = None,
        limit: int = 1_000,
    ) -> Pages[list[Candle]]:
        """The candles of a range, page by page, oldest first. Without `start` only the newest `limit` ones.

        The last one may be open, and change. Raises as `call`.
        """
        params = _given(symbol=symbol, interval=interval, limit=limit, to=_time(end))

        async def page_from(begin: str | None) -> tuple[list[Candle] | None, str | None]:
            page = _read(_candles, await self._call("getCandles", params | _given(**{"from": begin})))
            if begin is None or page.next is None or not page.candles or page.candles[-1].start >= page.next:
                return (page.candles or None), None  # the next one would begin with a candle that is open now
            return page.candles, _time(page.next)

        return Pages(page_from, _time(start))

    async def _call(self, method: str, params: Mapping[str, Any]) -> bytes:
        return await call(self._address, method, params, self._context)


def connect(
    url: str,
    *,
    wait: bool = False,
    room: int = ROOM,
    retry_first: float = RETRY_FIRST,
    retry_most: float = RETRY_MOST,
    ssl_context: ssl.SSLContext | None = None,
) -> Feed:
    """A feed from the daemon at `url`: `http://HOST:PORT`, or `ws://HOST:PORT/ws`; https and wss as well.

    Use it by `async with`. That raises Unreachable when no daemon answers there, unless `wait` is set; later
    on each lost connection is followed by another one, after `retry_first` to `retry_most` seconds. `room`:
    events that may wait for the reader of one iterator.

    Raises ValueError for an address that cannot be one.
    """
    if room < 1:
        raise ValueError(f"room is {room}: it must be at least 1")
    if not 0 < retry_first <= retry_most:
        raise ValueError(f"retry_first is {retry_first}: it must be more than 0, and at most {retry_most}")
    core = Client(format="compact", batch=True, keep=KEEP)
    return Feed(url, core, wait=wait, room=room, retry=(retry_first, retry_most), ssl_context=ssl_context)


def _several(symbols: str | Iterable[str]) -> tuple[str, ...]:
    several = (symbols,) if isinstance(symbols, str) else tuple(dict.fromkeys(symbols))
    if not several:
        raise ValueError('no symbol to follow: name at least one, or "*" for all')
    if EVERY in several and len(several) > 1:
        raise ValueError('"*" means all symbols: it stands alone')
    return several


def _overlap(one: Topic, other: Topic) -> bool:
    same = one.channel == other.channel and one.interval == other.interval
    return same and (one.symbol == other.symbol or EVERY in (one.symbol, other.symbol))


def _is_for_a_while(code: int, data: Mapping[str, Any]) -> bool:
    return code in FOR_A_WHILE and "rejected" not in data


def _connection(notice: Notice) -> Connection | None:
    """What a notice says of this client's connection; None: it is about something else."""
    told = notice.params
    match notice.method:
        case "connection.waiting":
            reason = f"for {told.get('seconds')} s, {told.get('ahead')} others go first"
            return Connection(state="waiting", reason=reason)
        case "connection.refused":
            retry_in = pause_of(told.get("retryAfter"))
            return Connection(state="refused", reason=str(told.get("reason")), retry_in=retry_in)
        case "connection.draining":
            return Connection(state="draining", reason=str(told.get("reason")))
    return None


def _read(decoder: msgspec.json.Decoder[T], said: bytes) -> T:
    try:
        return decoder.decode(said)
    except msgspec.DecodeError as error:
        raise Unreadable(str(error)) from error


def _as(kind: type[T], said: Any) -> T:
    try:
        return msgspec.convert(said, kind)
    except msgspec.ValidationError as error:
        raise Unreadable(str(error)) from error


def _given(**params: Any) -> dict[str, Any]:
    return {name: value for name, value in params.items() if value is not None}


def _plain(position: Position | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(position, Position):
        return {"epoch": position.epoch, "offset": position.offset}
    return {"epoch": position["epoch"], "offset": position["offset"]}


def _time(told: datetime | str | None) -> str | None:
    if not isinstance(told, datetime):
        return told
    zoned = told.replace(tzinfo=UTC) if told.tzinfo is None else told.astimezone(UTC)
    return zoned.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
