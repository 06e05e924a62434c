"""One client of STOMP: what its frames mean.

Rules of this file: translation only. `Subscriptions` joins the state of a topic and its updates, `Rooms`
carry signals, `protocol` knows frames. Every frame of a message is answered on its own, in order. Every
mistake is told in an ERROR, and the connection ends with it: STOMP has no other way.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import ClassVar, Final

import trio
from attrs import define, field, frozen

from actors.session import Ending
from dataflow.domain import Topic
from dataflow.domain.notice import Draining, Notice, Refused
from dataflow.gateway.admission import goodbye
from dataflow.gateway.clients import AnySession
from dataflow.gateway.face import Conversation
from dataflow.gateway.hall import Hall
from dataflow.gateway.problems import InvalidValue, Problem, TooManySubscriptions
from dataflow.gateway.spelling import encode

from . import protocol, signalling, sockjs
from .format import BODIES, SOCKJS_BODIES, Bodies
from .protocol import Frame, Malformed, Reader, UnknownVersion
from .signalling import Rooms, Signal

MARKET_DATA: Final = "/topic/market-data/"
SIGNALS: Final = "/topic/signaling"  # spelt as the clients have it; a room's name may follow
SIGNAL: Final = "/app/signal"  # likewise
CONNECT_WITHIN: Final = 15.0  # seconds for the first frame
SILENCE: Final = 3  # heart-beats left out, after which a client counts as gone
MAX_NAME: Final = 256  # characters of a destination and an id: they come back in every MESSAGE
SERVER: Final = f"dataflow/{version('dataflow')}"


@define
class Service:
    """What all clients of the face share. `heartbeat` is in seconds; without `rooms` nothing is signalled."""

    heartbeat: float
    rooms: Rooms | None


@frozen
class Subscription:
    """Of one id. `source` is a topic, or the name of a room."""

    destination: str  # as it was written
    source: Topic | str
    around: tuple[bytes, bytes]  # what stands before and behind each of its messages


@define
class Pulse:
    """When we send a heart-beat, and when the client counts as silent; times on Trio's clock."""

    every: float
    patience: float
    due: float = field(init=False)
    silent_at: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        now = trio.current_time()
        self.due, self.silent_at = now + self.every, now + self.patience


class Stomp(Conversation):
    """One client, each of whose frames goes out in a message of its own."""

    __slots__ = ("_connected", "_pulse", "_reader", "_service", "_subscribed", "alarm")

    format: Bodies = BODIES
    opening: ClassVar[bytes] = b""  # around each frame
    closing: ClassVar[bytes] = b""

    def __init__(self, session: AnySession, hall: Hall, service: Service) -> None:
        super().__init__(session, hall)
        self._service = service
        self._reader = Reader(min(protocol.MAX_FRAME_BYTES, hall.settings.gateway.max_message_bytes))
        self._connected = False
        self._pulse = Pulse(math.inf, CONNECT_WITHIN)
        self._subscribed: dict[str, Subscription] = {}  # by id
        self.alarm = self._pulse.silent_at

    # Hearing.

    async def hear(self, message: str | bytes) -> None:
        if self._connected:
            self._pulse.silent_at = math.inf  # what it says from now on waits behind this
        await super().hear(message)
        if self._connected:
            self._pulse.silent_at = trio.current_time() + self._pulse.patience
        self._set_alarm()

    async def answer(self, message: str | bytes) -> None:
        try:
            self.account.call()
            self._feed(message)
            heard = 0
            while self.session.ended is None and (frame := self._reader.next()) is not None:
                if heard:  # a message may hold thousands of frames
                    await self.subscriptions.turns.pause()
                    self.account.call()
                heard += 1
                await self._obey(frame)
                self.subscriptions.answered()
        except (Malformed, Problem) as error:
            await self._refuse(error, None)

    def _feed(self, message: str | bytes) -> None:
        self._reader.feed(message.encode() if isinstance(message, str) else message)

    async def _obey(self, frame: Frame) -> None:
        try:
            if self._connected:
                await _command(frame)(self, frame)
            else:
                self._connect(frame)
        except (Malformed, Problem) as error:
            await self._refuse(error, frame)

    def refusal(self, problem: Problem) -> bytes | None:
        raise AssertionError("every frame answers for its own problem")

    # Saying.

    def _say(self, command: str, *headers: tuple[str, str], body: bytes = b"") -> None:
        text = self._wrapped(self._frame(command, headers, body))
        self.account.pay(len(text))
        self.session.say(text)

    def _frame(self, command: str, headers: Iterable[tuple[str, str]], body: bytes = b"") -> bytes:
        if body:
            headers = (
                *headers,
                ("content-type", "application/json"),
                ("content-length", str(len(body))),
            )
        return protocol.head(command, headers, self._reader.version) + b"\n" + body + protocol.END

    def _wrapped(self, frame: bytes) -> bytes:
        """A frame as it is sent: a message of its own."""
        return self.opening + self.format.escaped(frame) + self.closing

    def _receipt(self, frame: Frame) -> None:
        receipt = frame.headers.get("receipt")
        if receipt is not None:
            self._say("RECEIPT", ("receipt-id", receipt))

    async def _refuse(self, error: Malformed | Problem, frame: Frame | None) -> None:
        headers = [("message", str(error))]
        if frame is not None and "receipt" in frame.headers:
            headers.append(("receipt-id", frame.headers["receipt"]))
        if isinstance(error, UnknownVersion):
            headers.append(("version", protocol.ALL_VERSIONS))
        body = encode(error.data) if isinstance(error, Problem) else b""
        self._say("ERROR", *headers, body=body)
        fault = isinstance(error, Malformed | InvalidValue)
        await self._part(Ending.VIOLATION if fault else Ending.REFUSED, str(error))

    async def _part(self, why: Ending, words: str) -> None:
        """End the session behind all that was said."""
        self._say_goodbye()
        if self.session.flushing:
            self.subscriptions.turns.leave()  # it can take seconds: nobody else shall wait for that
            await self.session.room()
        self.session.end(why, words)

    def _say_goodbye(self) -> None:
        """The last word below STOMP, if there is one."""

    # The commands.

    def _connect(self, frame: Frame) -> None:
        if frame.command not in ("CONNECT", "STOMP"):
            raise Malformed(f"the first frame must be CONNECT or STOMP, not {protocol.shown(frame.command)}")
        agreed = protocol.negotiated(frame.headers.get("accept-version"))
        ours = round(self._service.heartbeat * 1000)
        beats = protocol.agreed(frame.headers.get("heart-beat"), ours)
        number = self.hall.lobby.clients.guests[self.session].number
        self._say(
            "CONNECTED",
            ("version", agreed),
            ("heart-beat", str(beats)),
            ("server", SERVER),
            ("session", f"{self.hall.core.number}-{number}"),
        )
        self._reader.version = agreed
        self._pulse = Pulse(beats.ours / 1000 or math.inf, SILENCE * beats.theirs / 1000 or math.inf)
        self._connected = True
        self._receipt(frame)

    async def _subscribe(self, frame: Frame) -> None:
        destination, id_ = _needed(frame, "destination"), self._id(frame)
        for name, value in (("destination", destination), ("id", id_)):
            if len(value) > MAX_NAME:
                raise InvalidValue(name, protocol.shown(value), f"may have {MAX_NAME} characters")
        if id_ in self._subscribed:
            raise InvalidValue("id", protocol.shown(id_), "is in use")
        most = self.hall.settings.session.max_subscriptions
        if len(self._subscribed) >= most:
            raise TooManySubscriptions(most)
        source = self._source(destination)
        subscription = Subscription(destination, source, self._around(id_, destination))
        if isinstance(source, str):
            self._enter(source, id_, subscription)
            self._receipt(frame)
        else:
            await self._follow(source, id_, subscription, frame)

    def _enter(self, room: str, id_: str, subscription: Subscription) -> None:
        assert self._service.rooms is not None
        self.account.subscribe()
        try:
            self._service.rooms.enter(room, self)
        except Problem:
            self.account.subscriptions -= 1
            raise
        self._subscribed[id_] = subscription

    async def _follow(self, topic: Topic, id_: str, subscription: Subscription, frame: Frame) -> None:
        """The state of `topic`, and then its updates, under one more id."""
        before = list(self._of(topic))
        if before:  # the first one of a topic is counted with the topic
            self.account.subscribe()
        self._subscribed[id_] = subscription
        heads = [each.around for each in (*before, subscription)]
        joined = await self.subscriptions.subscribe(topic, self.personal(*heads), snapshot=1)
        # From here to `answered` without a checkpoint.
        self._receipt(frame)
        head, tail = subscription.around
        for text in joined.past.texts if joined.past is not None else ():
            self.account.pay(len(text))
            self.session.say(head + text + tail)

    async def _unsubscribe(self, frame: Frame) -> None:
        subscription = self._subscribed.pop(self._id(frame), None)
        if subscription is not None:
            await self._leave(subscription.source)
        self._receipt(frame)

    async def _leave(self, source: Topic | str) -> None:
        others = list(self._of(source))
        if isinstance(source, str):
            self.account.subscriptions -= 1
            if self._service.rooms is not None:
                self._service.rooms.leave(source, self)
        elif others:
            self.account.subscriptions -= 1
            await self.subscriptions.subscribe(source, self.personal(*[each.around for each in others]))
        else:
            self.subscriptions.unsubscribe(source)

    async def _send(self, frame: Frame) -> None:
        destination = _needed(frame, "destination")
        room = _room(SIGNAL, destination)
        if room is None or self._service.rooms is None:
            if destination.startswith("/topic/"):
                raise InvalidValue("destination", protocol.shown(destination), "a topic is for subscriptions")
            raise self._unknown(destination)
        text = signalling.read(frame.body)
        said = self._service.rooms.tell(room, text)
        self.account.pay(said * len(text))
        self._receipt(frame)

    async def _acknowledge(self, frame: Frame) -> None:
        self._receipt(frame)  # delivery is `auto`: there is nothing else to do

    async def _disconnect(self, frame: Frame) -> None:
        self._receipt(frame)
        await self._part(Ending.GONE, "disconnected")

    async def _transact(self, frame: Frame) -> None:
        raise InvalidValue("command", frame.command, "there are no transactions here")

    async def _connect_again(self, frame: Frame) -> None:
        raise Malformed("this client is connected already")

    # Subscriptions.

    def _id(self, frame: Frame) -> str:
        if self._reader.version == protocol.V10 and "id" not in frame.headers:
            return _needed(frame, "destination")
        return _needed(frame, "id")

    def _source(self, destination: str) -> Topic | str:
        if destination.startswith(MARKET_DATA):
            return self.hall.desk.day_topic(self.hall.desk.canonical(destination.removeprefix(MARKET_DATA)))
        room = _room(SIGNALS, destination)
        if room is None or self._service.rooms is None:
            raise self._unknown(destination)
        return room

    def _unknown(self, destination: str) -> InvalidValue:
        valid = [f"{MARKET_DATA}SYMBOL"]
        if self._service.rooms is not None:
            valid += [SIGNALS, f"{SIGNALS}/ROOM", SIGNAL, f"{SIGNAL}/ROOM"]
        shown = protocol.shown(destination)
        return InvalidValue("destination", shown, f"unknown destination {shown}", valid=valid)

    def _around(self, id_: str, destination: str) -> tuple[bytes, bytes]:
        headers = (
            ("subscription", id_),
            ("destination", destination),
            ("content-type", "application/json"),
        )
        head = protocol.head("MESSAGE", headers, self._reader.version)
        return self.opening + self.format.escaped(head), self.format.escaped(protocol.END) + self.closing

    def _of(self, source: Topic | str) -> Iterator[Subscription]:
        return (each for each in self._subscribed.values() if each.source == source)

    # For the rooms.

    def signalled(self, room: str, signal: Signal) -> int:
        text = signal.written(self.format.message)
        heads = [each.around for each in self._of(room)]
        for head, tail in heads:
            self.session.say(head + text + tail)
        return len(heads)

    # For the session.

    def on_alarm(self) -> None:
        now, pulse = trio.current_time(), self._pulse
        if now >= pulse.silent_at:
            self._give_up(f"no {'heart-beat' if self._connected else 'CONNECT'} for {pulse.patience:g} s")
        elif now >= pulse.due:
            pulse.due = now + pulse.every
            self._give_sign(self._wrapped(protocol.HEART_BEAT))
        self._set_alarm()

    def _set_alarm(self) -> None:
        self.alarm = min(self._pulse.due, self._pulse.silent_at)

    def _give_sign(self, text: bytes) -> None:
        if not self.session.flushing:  # behind messages that wait it would add nothing
            self.session.say(text)

    def _give_up(self, words: str) -> None:
        self._say("ERROR", ("message", words))
        self._say_goodbye()
        self.session.end(Ending.SILENT, words)

    def notice(self, notice: Notice) -> bytes | None:
        """STOMP has no word for an outage: the state stays as it is."""
        if isinstance(notice, Refused):
            return self._parting(goodbye(notice.reason, notice.retry_after))
        return self._parting(notice.reason) if isinstance(notice, Draining) else None

    def _parting(self, words: str) -> bytes:
        return self._wrapped(self._frame("ERROR", (("message", words),)))

    def farewell(self) -> bytes | None:
        return self._parting(Draining().reason)

    def reproach(self, words: str) -> Sequence[bytes]:
        return (self._parting(words),)

    def closed(self) -> None:
        rooms, self._subscribed = self._subscribed, {}
        followed = set()
        for each in rooms.values():
            if isinstance(each.source, str) and self._service.rooms is not None:
                self._service.rooms.leave(each.source, self)
            if isinstance(each.source, str) or each.source in followed:
                self.account.subscriptions -= 1
            followed.add(each.source)  # the first one of a topic is counted with the topic
        super().closed()


class SockJs(Stomp):
    """One client whose frames come and go in SockJS messages."""

    __slots__ = ("_opened", "_sign_at")

    format = SOCKJS_BODIES
    opening = b'a["'
    closing = b'"]'
    line_end: ClassVar[bytes] = b""  # of each SockJS frame

    def __init__(self, session: AnySession, hall: Hall, service: Service) -> None:
        super().__init__(session, hall, service)
        self._opened = False
        self._sign_at = self.alarm = trio.current_time()

    def _feed(self, message: str | bytes) -> None:
        try:
            parts = sockjs.messages(message) if message else []  # SockJS ignores empty ones
        except sockjs.BrokenFraming as error:
            self._say_goodbye()
            self.session.end(Ending.VIOLATION, str(error))
            return
        self._reader.feed("".join(parts).encode())

    def on_alarm(self) -> None:
        now = trio.current_time()
        if now >= self._sign_at:
            self._sign_at = now + sockjs.HEART_BEAT_INTERVAL
            self._give_sign((sockjs.HEART_BEAT if self._opened else sockjs.OPENED) + self.line_end)
            self._opened = True
        super().on_alarm()

    def _set_alarm(self) -> None:
        super()._set_alarm()
        self.alarm = min(self.alarm, self._sign_at)

    def _say_goodbye(self) -> None:
        self.session.say(sockjs.closed() + self.line_end)

    def notice(self, notice: Notice) -> bytes | None:
        if isinstance(notice, Refused):  # it may not be open yet: then it knows no other word
            return sockjs.closed(sockjs.NO_ROOM, goodbye(notice.reason, notice.retry_after)) + self.line_end
        return super().notice(notice)

    def farewell(self) -> bytes | None:
        self.session.say(self._parting(Draining().reason))
        return sockjs.closed() + self.line_end

    def reproach(self, words: str) -> Sequence[bytes]:
        return (self._parting(words), sockjs.closed() + self.line_end)


class Xhr(SockJs):
    """The same by HTTP: each SockJS frame is a line of a response."""

    __slots__ = ()

    closing = b'"]\n'
    line_end = b"\n"


_COMMANDS: Final[Mapping[str, Callable[[Stomp, Frame], Awaitable[None]]]] = {
    "SUBSCRIBE": Stomp._subscribe,
    "UNSUBSCRIBE": Stomp._unsubscribe,
    "SEND": Stomp._send,
    "ACK": Stomp._acknowledge,
    "NACK": Stomp._acknowledge,
    "DISCONNECT": Stomp._disconnect,
    **dict.fromkeys(("BEGIN", "COMMIT", "ABORT"), Stomp._transact),
    **dict.fromkeys(("CONNECT", "STOMP"), Stomp._connect_again),
}


def _command(frame: Frame) -> Callable[[Stomp, Frame], Awaitable[None]]:
    command = _COMMANDS.get(frame.command)
    if command is None:
        shown = protocol.shown(frame.command)
        raise InvalidValue("command", shown, f"unknown command {shown}", valid=list(_COMMANDS))
    return Stomp._transact if "transaction" in frame.headers else command


def _needed(frame: Frame, name: str) -> str:
    value = frame.headers.get(name)
    if value is None:
        raise InvalidValue(name, None, f"{frame.command} needs this header")
    return value


def _room(prefix: str, destination: str) -> str | None:
    """The room of a destination: "" for the one without a name, None when it is none."""
    if destination == prefix:
        return ""
    start, _, name = destination.rpartition("/")
    return name if start == prefix and name else None
