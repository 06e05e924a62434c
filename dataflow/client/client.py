"""The words of JSON-RPC, as a client says and hears them. The contract is `dataflow/faces/jsonrpc/README.md`.

Rules of this file. Texts in and out: no socket, no clock. One `Client` outlives its connections: for each new
one `connect` has the calls that go on where the last one ended. Every number of a trade is read as it was
written. What this client does not know is a `Notice`; what it cannot understand is `Unreadable`.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import chain, groupby
from operator import attrgetter
from typing import Any, Final, Literal, TypeAlias

import msgspec
from attrs import define, field, frozen
from msgspec.structs import asdict, replace

from .events import (
    Candle,
    Entry,
    Event,
    Filled,
    Gap,
    Moment,
    Notice,
    Place,
    Position,
    Quality,
    Refused,
    Rewound,
    Side,
    Subscribed,
    Topic,
    Trade,
)
from .faults import ServerFault, Unreadable
from .stream import MOST_GAPS, Bars, Qualities, Stream

Format: TypeAlias = Literal["json", "strings", "compact"]
Heard: TypeAlias = Iterator[tuple[Event, bytes]]

TRADES: Final = "trades"
QUALITY: Final = "quality"
CANDLES: Final = "candles"
EVERY: Final = "*"  # instead of a symbol: all there are and will be
COLUMNS: Final = ["topic", "offset", "timestamp", "side", "price", "qty", "tradeId", "source"]
PAUSE_MOST: Final = 300.0  # seconds: the longest wish that is obeyed
POSITIONS_AT_ONCE: Final = 59_000  # bytes of them in one call: the server takes 64 KiB in a message
MOST_GAPS_OF_ALL: Final = 20_000  # in the positions of one subscription: the server takes no more
_LEAVE: Final = "leave "  # begins the ids of calls that end a subscription
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_ZERO: Final = Decimal(0)  # to compare with an int takes four times as long
_ENDLESS: Final = Decimal("Infinity")
_BOTTOM: Final = -_ENDLESS


@frozen
class Wish:
    """What is followed. `snapshot`: how many of the newest entries it begins with."""

    topic: Topic
    snapshot: int | None = None


@frozen
class _Key:
    """What the arrays of a topic leave out."""

    symbol: str
    sources: Sequence[str]


@define(eq=False)
class Client:
    """Follows topics over any number of connections, one after the other.

    `format` is how trades are written, `batch` allows several in one message. `keep`: entries that each
    stream holds at least, None for all. `streams`: what is known of each trade topic so far.
    """

    format: Format = "json"
    batch: bool = True
    keep: int | None = 1_000
    wishes: dict[Topic, Wish] = field(factory=dict)
    streams: dict[Topic, Stream] = field(factory=dict)
    qualities: dict[Topic, Qualities] = field(factory=dict)
    bars: dict[Topic, Bars] = field(factory=dict)
    retry_after: float | None = None  # seconds: told by `connection.refused` on the present connection
    _compact: dict[int | str, _Key] = field(factory=dict)  # by what stands for a topic on this connection
    _calls: Counter[str] = field(factory=Counter)  # those of this connection without an answer so far, by id
    _topics: dict[str, Topic] = field(factory=dict)  # of the wishes, by the id of their calls
    _left: dict[Topic, Stream] = field(factory=dict)  # until the server has heard that they are left

    def follow(
        self,
        symbol: str,
        channel: str = TRADES,
        *,
        interval: str | None = None,
        snapshot: int | None = None,
    ) -> list[str]:
        """From now on follow this symbol, or `*`. Returns the calls, for a connection that is open already:
        several where one cannot name all positions."""
        topic = Topic(channel, symbol, interval)
        self.wishes[topic] = Wish(topic, snapshot)
        return self._subscribe(self.wishes[topic])

    def hold(self, symbol: str, since: Mapping[str, Any]) -> None:
        """Go on with the trades of `symbol` behind the position of an earlier life, as in `Stream.since`.

        Call it before `follow`. Raises ValueError.
        """
        topic = Topic(TRADES, symbol)
        stream = Stream(topic, self.keep)
        stream.hold(since)
        self.streams[topic] = stream

    def leave(self, symbol: str, channel: str = TRADES, *, interval: str | None = None) -> str:
        """From now on follow it no more, and forget it. Returns the call, as `follow` does."""
        topic = Topic(channel, symbol, interval)
        self.wishes.pop(topic, None)
        self._topics.pop(str(topic), None)
        for each in list(self.streams) if symbol == EVERY else [topic]:
            if each in self.streams and self._wish_of(each) is None:
                stream = self._left[each] = self.streams.pop(each)
                stream.left = True
        for kept in (self.qualities, self.bars):
            for each in [one for one in kept if self._wish_of(one) is None and one[::2] == topic[::2]]:
                del kept[each]
        params = {"channel": channel, "symbol": symbol} | ({"interval": interval} if interval else {})
        call = {"jsonrpc": "2.0", "id": f"{_LEAVE}{topic}", "method": "unsubscribe", "params": params}
        return self._said(call)

    def again(self, topic: Topic) -> list[str]:
        """The calls for a topic that was refused for a while; none when it is not followed any more."""
        wish = self.wishes.get(topic)
        return [] if wish is None else self._subscribe(wish)

    def connect(self) -> list[str]:
        """The calls of a new connection: they begin each topic, or go on behind what is held of it."""
        self.lost()
        return [call for wish in self.wishes.values() for call in self._subscribe(wish)]

    def lost(self) -> None:
        """The connection is lost. What is held stays."""
        for followed in (self.streams, self.qualities, self.bars):
            for each in followed.values():
                each.lost()
        self.retry_after = None
        self._compact.clear()
        self._calls.clear()
        self._left.clear()

    def hear(self, text: str | bytes) -> Iterable[Event]:
        """What a message says, in order. Iterate to the end: each event is taken as it is yielded, if not
        before.

        Raises ServerFault. What came before it in the message has been yielded, and stays.
        """
        rows = _rows_of(text)
        return self._take_rows(rows) if rows is not None else (event for event, _said in self.read(text))

    def read(self, text: str | bytes) -> Heard:
        """As `hear`; beside each event its JSON text, as the server wrote it."""
        try:
            for part in _parts(text.encode() if isinstance(text, str) else text):
                if part.startswith(b"["):
                    yield from self._array(part)
                else:
                    yield from self._message(_message.decode(part))
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise Unreadable(str(error)) from error

    # What is said.

    def _subscribe(self, wish: Wish) -> list[str]:
        topic = wish.topic
        params: dict[str, Any] = {"channel": topic.channel, "symbol": topic.symbol}
        if topic.interval is not None:
            params["interval"] = topic.interval
        if topic.channel == TRADES:
            params["batch"] = self.batch
            if self.format != "json":
                params["format"] = self.format
        parts = self._since(topic)
        if not parts and wish.snapshot is not None:
            params["snapshot"] = wish.snapshot
        self._topics[str(topic)] = topic
        calls = [params | {"since": since} for since in parts] or [params]
        for number, each in enumerate(calls, 1):
            if len(calls) > 1:
                each["part"] = [number, len(calls)]
        head = {"jsonrpc": "2.0", "id": str(topic), "method": "subscribe"}
        return [self._said(head | {"params": each}) for each in calls]

    def _said(self, call: dict[str, Any]) -> str:
        self._calls[call["id"]] += 1
        return msgspec.json.encode(call).decode()

    def _since(self, topic: Topic) -> list[dict[str, Any]]:
        """The positions behind which `topic` goes on, as much of them in each part as a call has room for."""
        if topic.symbol == EVERY:
            known = {each.symbol: stream.since for each, stream in self.streams.items()}
            return _parts_of({symbol: since for symbol, since in known.items() if since})
        stream = self.streams.get(topic)
        return [stream.since] if stream is not None and stream.since else []

    def _asked(self, call: Any) -> Topic | None:
        return self._topics.get(call) if isinstance(call, str) else None

    def _wish_of(self, topic: Topic) -> Wish | None:
        return self.wishes.get(topic) or self.wishes.get(Topic(topic.channel, EVERY, topic.interval))

    # What is heard.

    def _message(self, message: _Message) -> Heard:
        if message.method is not None:
            yield from self._notification(message.method, message.params)
            return
        known = self._answered(message.id)
        if message.error is not None:
            if bytes(message.result) not in (b"", b"null"):
                raise Unreadable("an answer with both result and error")
            if known is None or known:
                error, topic = message.error, self._asked(message.id)
                refused = Refused(topic=topic, code=error.code, message=error.message, data=error.data)
                yield refused, msgspec.json.encode(error)
        elif known is None:
            raise Unreadable(f"an answer to a call that was not made: {message.id}")
        elif isinstance(message.id, str) and message.id.startswith(_LEAVE):
            self._forget(message.id.removeprefix(f"{_LEAVE}{TRADES}:"))
        elif bytes(message.result).startswith(b"["):
            for each in _answers.decode(message.result):
                yield from self._answer(message.id, each, known)
        elif message.result:
            yield from self._answer(message.id, _answer.decode(message.result), known)
        else:
            raise Unreadable("a message without method, result and error")

    def _answered(self, call: Any) -> bool | None:
        """An answer came. Whether what it brings is wanted: not that of a subscription which was left
        meanwhile. None: no call of this connection."""
        if not isinstance(call, str) or not self._calls[call]:
            return None
        self._calls[call] -= 1
        return not self._calls[call] and self._asked(call) is not None

    def _forget(self, symbol: str) -> None:
        """The server has heard that its trades are left: none of them comes any more."""
        if symbol == EVERY:
            self._left.clear()
        else:
            self._left.pop(Topic(TRADES, symbol), None)

    def _notification(self, method: str, params: msgspec.Raw) -> Heard:
        said = bytes(params)
        match method:
            case "trades.update":
                trade = possible(_trade.decode(said))
                stream = self._stream(trade.symbol)
                stream.take(trade)
                if not stream.left:
                    yield trade, said
            case "stream.gap" if (of := _of.decode(said)).channel == TRADES:
                gap, stream = _gap.decode(said), self._stream_of(of)
                stream.take(gap)
                if not stream.left:
                    yield gap, said
            case "stream.filled" if (of := _of.decode(said)).channel == TRADES:
                fill, stream = _fill.decode(said), self._stream_of(of)
                for filled in stream.fill(self._filled(fill, of.symbol)):
                    if not stream.left:
                        yield filled, _spelled(filled, stream.epoch)
            case "stream.rewind":
                to = _place.decode(said)
                stream = self._stream(to.symbol)
                rewound = stream.rewind(Position(to.epoch, to.offset))
                if not stream.left:
                    yield rewound, said
            case "stream.started":
                yield from self._started(_place.decode(said))
                yield Notice(method=method, params=_params.decode(said)), said
            case "quality.update":
                state = _quality.decode(said)
                if self._wish_of(Topic(QUALITY, state.symbol)) is not None:
                    yield self._qualities(state.symbol).take(state), said
            case "candles.update":
                candle = _candle_of(said)
                topic = Topic(CANDLES, candle.symbol, candle.interval)
                if self._wish_of(topic) is not None:
                    for news in self._bars(topic).take(candle):
                        yield news, said
            case _:
                notice = Notice(method=method, params=_params.decode(said))
                if method == "connection.refused":
                    self.retry_after = pause_of(notice.params.get("retryAfter"))
                yield notice, said

    def _answer(self, call: str, answer: _Answer, is_wanted: bool) -> Heard:
        topic = Topic(answer.channel, answer.symbol, answer.interval)
        if call not in (str(topic), str(topic._replace(symbol=EVERY))):
            raise ServerFault(f"{topic}: came as the answer to {call}")
        if answer.quality is not None and is_wanted:
            yield from self._states(topic, answer.quality)
        if topic.channel == TRADES:
            yield from self._subscribed(topic, answer, is_wanted)
            return
        if not is_wanted:
            return
        begun = Subscribed(topic=topic, epoch=answer.epoch, offset=answer.offset, newest=answer.offset)
        yield begun, _encode(begun)
        if topic.channel == CANDLES:
            bars = self._bars(topic)
            bars.answered(answer.epoch)
            for raw in answer.candles:
                for news in bars.take(_candle_of(raw)):
                    yield news, bytes(raw)

    def _subscribed(self, topic: Topic, answer: _Answer, is_wanted: bool) -> Heard:
        key = None
        if answer.topic is not None:
            key = _key(topic, answer)
            if self._compact.setdefault(answer.topic, key).symbol != key.symbol:
                raise ServerFault(f"{topic}: its number {answer.topic} is that of another symbol")
            self._compact[answer.topic] = key
        said: dict[int, bytes] = {}
        entries: list[Entry] = []
        for raw in answer.trades:
            entries.append(self._told(raw, key, topic.symbol))
            said[entries[-1].first] = bytes(raw)
        entries += [replace(gap, symbol=topic.symbol) for gap in answer.gaps]
        for event in self._new(topic, is_wanted).answered(
            Position(answer.epoch, answer.offset),
            entries,
            recovered=answer.recovered,
            rewound=answer.rewound,
            filled=[self._filled(fill, topic.symbol) for fill in answer.filled],
        ):
            if not is_wanted:
                continue
            if isinstance(event, Trade):
                yield event, said[event.offset]
            elif isinstance(event, Subscribed):
                yield event, _encode(event)
            else:
                yield event, _spelled(event, answer.epoch)

    def _started(self, at: _Place) -> Heard:
        """A symbol has come, of all that are followed. It may be back: then its stream goes on if it can."""
        if at.channel == TRADES:
            topic, every = Topic(TRADES, at.symbol), Topic(TRADES, EVERY)
            is_wanted = every in self.wishes
            if not is_wanted and not self._calls[f"{_LEAVE}{every}"]:
                raise ServerFault(f"{topic}: started, though not all symbols are followed")
            stream = self._new(topic, is_wanted)
            position = Position(at.epoch, at.offset)
            for event in stream.answered(position, (), recovered=stream.offset == at.offset):
                if not is_wanted:
                    continue
                if isinstance(event, Subscribed):
                    yield event, _encode(event)
                elif not isinstance(event, Trade):
                    yield event, _spelled(event, at.epoch)

    def _states(self, topic: Topic, told: _Qualities) -> Heard:
        states = self._qualities(topic.symbol)
        states.live = states.live or topic.channel == QUALITY
        for name, state in told.sources.items():
            quality = Quality(symbol=topic.symbol, source=name, **asdict(state))
            yield states.take(quality), _encode(quality)

    def _stream(self, symbol: str) -> Stream:
        """The stream that an update belongs to. Raises ServerFault."""
        topic = Topic(TRADES, symbol)
        stream = self.streams.get(topic)
        if stream is None or not stream.live:
            stream = self._left.get(topic, stream)
        if stream is None:
            raise ServerFault(f"{topic}: came without a subscription")
        return stream

    def _stream_of(self, of: _Of) -> Stream:
        """The stream that a gap or a fill belongs to. Raises ServerFault."""
        stream = self._stream(of.symbol)
        if stream.live and of.epoch != stream.epoch:
            raise ServerFault(f"{stream.topic}: told of epoch {of.epoch} in epoch {stream.epoch}")
        return stream

    def _new(self, topic: Topic, is_wanted: bool) -> Stream:
        """The stream that an answer belongs to."""
        streams = self.streams if is_wanted else self._left
        stream = streams.get(topic)
        if stream is None:
            stream = streams[topic] = Stream(topic, self.keep, left=not is_wanted)
        return stream

    def _qualities(self, symbol: str) -> Qualities:
        topic = Topic(QUALITY, symbol)
        return self.qualities.setdefault(topic, Qualities(topic))

    def _bars(self, topic: Topic) -> Bars:
        return self.bars.setdefault(topic, Bars(topic, self.keep))

    # Trades in their formats.

    def _array(self, said: bytes) -> Heard:
        row = _row.decode(said)
        key = self._key(row.topic)
        stream, trade = self._stream(key.symbol), _of_row(row, key)
        stream.take(trade)
        if not stream.left:
            yield trade, said

    def _take_rows(self, rows: list[_Row]) -> Iterable[Trade]:
        """Trades as arrays, the most frequent message. Those of one topic are taken at once."""
        topic = rows[0].topic
        if all([row.topic == topic for row in rows]):  # noqa: C419 - a generator takes three times as long
            return self._take_run(topic, rows)
        runs = groupby(rows, attrgetter("topic"))
        return chain.from_iterable(self._take_run(topic, list(run)) for topic, run in runs)

    def _take_run(self, topic: int | str, rows: list[_Row]) -> Iterable[Trade]:
        key = self._key(topic)
        stream = self._stream(key.symbol)
        taken = stream.take_run(_of_rows(rows, key))
        if not stream.left:
            return taken
        deque(taken, maxlen=0)
        return ()

    def _key(self, topic: int | str) -> _Key:
        """Raises ServerFault."""
        key = self._compact.get(topic) or self._key_of_later(topic)
        if key is None:
            raise ServerFault(f"an array of topic {topic} came without a subscription")
        return key

    def _key_of_later(self, topic: int | str) -> _Key | None:
        """That of a symbol which came after the answer to `*`: it and its sources stand for themselves."""
        if not isinstance(topic, str) or not {Topic(TRADES, topic)} & (
            self.streams.keys() | self._left.keys()
        ):
            return None
        key = self._compact[topic] = _Key(topic, ())
        return key

    def _told(self, raw: msgspec.Raw, key: _Key | None, symbol: str) -> Trade:
        """A trade in an answer or a fill of `symbol`. Raises ServerFault."""
        said = bytes(raw)
        if said.startswith(b"["):
            row = _row.decode(said)
            key = key or self._key_of_later(row.topic)
            if key is None:
                raise Unreadable("an array in an answer without columns")
            trade = _of_row(row, key)
        else:
            trade = possible(_trade.decode(said))
        if trade.symbol != symbol:
            raise ServerFault(f"{symbol}: a trade of {trade.symbol} among its own")
        return trade

    def _filled(self, fill: _Fill, symbol: str) -> Filled:
        key = next((each for each in self._compact.values() if each.symbol == symbol), None)
        trades = tuple(self._told(raw, key, symbol) for raw in fill.trades)
        return Filled(symbol=symbol, first=fill.first, last=fill.last, trades=trades)


# -- messages as they are on the wire -------------------------------------------------------------------


class Error(msgspec.Struct):
    """An error of JSON-RPC."""

    code: int
    message: str
    data: Any = None


class _Message(msgspec.Struct):
    method: str | None = None
    params: msgspec.Raw = msgspec.Raw(b"{}")
    id: Any = None
    result: msgspec.Raw = msgspec.Raw()
    error: Error | None = None


class _State(msgspec.Struct):
    state: str
    since: Moment
    reason: str | None = None
    missing: int | None = None
    lag: float | None = None


class _Qualities(msgspec.Struct):
    sources: dict[str, _State] = {}


class _Fill(msgspec.Struct, kw_only=True):
    first: Place = msgspec.field(name="from")
    last: Place = msgspec.field(name="to")
    trades: list[msgspec.Raw]


class _Of(msgspec.Struct):
    """Whose a gap or a fill is."""

    symbol: str
    epoch: Place
    channel: str = TRADES


class _Place(msgspec.Struct):
    symbol: str
    epoch: Place
    offset: Place
    channel: str = TRADES


class _Row(msgspec.Struct, array_like=True):
    """A trade as an array: `COLUMNS`."""

    topic: int | str
    offset: int
    timestamp: int  # us
    side: Side | None
    price: Decimal
    qty: Decimal
    trade_id: str | None
    source: int | str


class _Answer(msgspec.Struct):
    channel: str
    symbol: str
    epoch: Place
    offset: Place
    interval: str | None = None
    recovered: bool | None = None
    rewound: Position | None = None
    trades: Sequence[msgspec.Raw] = ()
    gaps: Sequence[Gap] = ()
    filled: Sequence[_Fill] = ()
    candles: Sequence[msgspec.Raw] = ()
    quality: _Qualities | None = None
    columns: Sequence[str] = ()
    topic: int | str | None = None
    sources: Sequence[str] = ()


_message: Final = msgspec.json.Decoder(_Message)
_params: Final = msgspec.json.Decoder(dict[str, Any])
_answer: Final = msgspec.json.Decoder(_Answer)
_answers: Final = msgspec.json.Decoder(list[_Answer])
_trade: Final = msgspec.json.Decoder(Trade)
_gap: Final = msgspec.json.Decoder(Gap)
_of: Final = msgspec.json.Decoder(_Of)
_fill: Final = msgspec.json.Decoder(_Fill)
_place: Final = msgspec.json.Decoder(_Place)
_quality: Final = msgspec.json.Decoder(Quality)
_candle: Final = msgspec.json.Decoder(Candle)
_row: Final = msgspec.json.Decoder(_Row)
_rows: Final = msgspec.json.Decoder(list[_Row])
_several: Final = msgspec.json.Decoder(list[msgspec.Raw])
_encode: Final = msgspec.json.Encoder(decimal_format="number").encode


def _key(topic: Topic, answer: _Answer) -> _Key:
    if list(answer.columns[: len(COLUMNS)]) != COLUMNS:
        raise Unreadable(f"{topic}: columns {', '.join(answer.columns)}, not {', '.join(COLUMNS)}")
    return _Key(topic.symbol, answer.sources)


def _of_row(row: _Row, key: _Key) -> Trade:
    return _of_rows([row], key)[0]


def possible(trade: Trade) -> Trade:
    """The trade, if there can be one like it: a price may be below zero. Raises Unreadable."""
    if not _can_be(trade.price, trade.quantity):
        raise Unreadable(f"{trade.symbol}: {trade.quantity} for {trade.price} is no trade")
    return trade


def _candle_of(said: bytes | msgspec.Raw) -> Candle:
    candle = _candle.decode(said)
    if not all(map(Decimal.is_finite, (candle.open, candle.high, candle.low, candle.close, candle.volume))):
        raise Unreadable(f"{candle.symbol}: a candle of what is no number: {candle}")
    return candle


def _can_be(price: Decimal, quantity: Decimal) -> bool:
    try:
        return _BOTTOM < price < _ENDLESS and _ZERO < quantity < _ENDLESS
    except ArithmeticError:  # "NaN" is a decimal that cannot be compared
        return False


def _of_rows(rows: list[_Row], key: _Key) -> list[Trade]:
    symbol, names = key.symbol, key.sources
    of, moment = 0, _EPOCH
    trades = []
    for row in rows:
        source = row.source
        if isinstance(source, int):
            if not 0 <= source < len(names):
                raise Unreadable(f"{symbol}: source {source} of {len(names)}")
            source = names[source]
        if row.timestamp != of:  # trades often share one, and to make it is the dearest part of a trade
            of = row.timestamp
            moment = _moment(of)
        if not _can_be(row.price, row.qty):
            raise Unreadable(f"{symbol}: {row.qty} for {row.price} is no trade")
        trades.append(
            Trade(
                symbol=symbol,
                offset=row.offset,
                timestamp=moment,
                side=row.side,
                price=row.price,
                quantity=row.qty,
                trade_id=row.trade_id,
                source=source,
            )
        )
    return trades


def _moment(microseconds: int) -> datetime:
    try:
        return _EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:
        raise Unreadable(f"{microseconds} us since 1970 is no time") from None


def _rows_of(text: str | bytes) -> list[_Row] | None:
    """Trades as arrays, if the message has nothing else."""
    begins = text.startswith("[[") if isinstance(text, str) else text.startswith(b"[[")
    if not begins:
        return None
    try:
        return _rows.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None  # other things among them, or nonsense: part by part it will show


def _parts(text: bytes) -> Iterator[bytes]:
    """The messages in a text: one, or an array of them. A compact trade is an array of something else."""
    text = text.strip()
    members = _several.decode(text) if text.startswith(b"[") else []
    if members and bytes(members[0]).startswith((b"{", b"[")):
        yield from map(bytes, members)
    else:
        yield text


def _parts_of(positions: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Positions by symbol, in parts of a bounded size. Of too many gaps the newest of each stream stay."""
    most = MOST_GAPS
    while sum(min(most, len(each.get("gaps", ()))) for each in positions.values()) > MOST_GAPS_OF_ALL:
        most //= 2
    parts: list[dict[str, Any]] = []
    room = 0
    for symbol, since in positions.items():
        gaps = since.pop("gaps", [])
        if kept := gaps[max(0, len(gaps) - most) :]:
            since["gaps"] = kept
        size = len(msgspec.json.encode({symbol: since}))
        if size > room:
            parts.append({})
            room = POSITIONS_AT_ONCE
        parts[-1][symbol] = since
        room -= size
    return parts


def pause_of(told: Any) -> float | None:
    """Seconds that the server wants a client to wait, at most `PAUSE_MOST`; None if it names no time."""
    is_time = isinstance(told, int | float) and not isinstance(told, bool) and told >= 0
    return float(min(told, PAUSE_MOST)) if is_time else None


def _spelled(event: Gap | Filled | Rewound, epoch: int | None) -> bytes:
    """An event of an answer, as the notification of the same would have it."""
    told = msgspec.to_builtins(event, builtin_types=(Decimal, datetime))
    head = {"symbol": event.symbol, "channel": TRADES, "epoch": epoch}
    return _encode(head | {name: value for name, value in told.items() if value is not None or name == "to"})
