"""Stand-ins for what the actors drive: a client's connection, and an upstream."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager

import trio
from attrs import define, field

from actors.connector import LinkLost, Received
from actors.session import Ending, Watcher, WireClosed
from actors.update import Encode, Places, Rendering, Stream, Update


class Hole:
    """An entry that brings no item."""

    def __str__(self) -> str:
        return "hole"


class Words:
    """A format: each entry as its own text. Counts how often it was asked to encode."""

    encoded = 0

    def encoder(self, topic: object, epoch: int) -> Encode:
        def encode(places: Places) -> list[bytes]:
            self.encoded += 1
            return [str(entry).encode() for _, entry in places]

        return encode

    def filled(self, topic: object, epoch: int, places: Places) -> bytes | None:
        self.encoded += 1
        return b"filled " + b" ".join(str(entry).encode() for _, entry in places)


@define
class Filled:
    """A fill as a log has it."""

    number: int
    places: Places


@define
class Fillings:
    """The fills of a log, which has forgotten those up to number `forgotten`."""

    forgotten: int = 0
    all: list[Filled] = field(factory=list)

    @property
    def filled(self) -> int:
        return len(self.all)

    def fills_behind(self, number: int) -> Sequence[Filled]:
        return self.all[max(number, self.forgotten) :]

    def fill(self, topic: str, *places: int) -> None:
        self.all.append(Filled(self.filled + 1, [(place, f"{topic}{place}") for place in places]))


def joined(texts: Sequence[bytes]) -> Sequence[bytes]:
    """An envelope: several texts become one."""
    return texts if len(texts) == 1 else [b"[" + b",".join(texts) + b"]"]


def lines(texts: Sequence[bytes]) -> bytes:
    """A frame: a text a line."""
    return b"".join(text + b"\n" for text in texts)


WORDS = Words()
PLAIN = Rendering(WORDS, None, lines)
JOINED = Rendering(WORDS, joined, lines)
_streams: dict[str, Stream] = {}


def update(topic: str, first: int, count: int = 1, *, hole: int | None = None) -> Update:
    """Entries "a1", "a2" ... of topic "a", one place each; `hole` names a place that holds none."""
    stream = _streams.setdefault(topic, Stream(topic, 1, Hole))
    places = [(n, Hole() if n == hole else f"{topic}{n}") for n in range(first, first + count)]
    return Update(stream, first, places)


class FakeWire:
    """A connection in memory. `room` is how many payload bytes it takes before it blocks."""

    def __init__(self, room: int = 1 << 30) -> None:
        self.peer = "test:1"
        self.stays = False
        self.room = room
        self.direct = True
        self.watcher: Watcher | None = None
        self.sent: list[bytes] = []
        self.pings = 0
        self.closed: tuple[Ending, str] | None = None
        self.aborted = False
        self.heard = trio.current_time()
        self._torn = b""
        self._roomier = trio.Event()
        self._send, self._receive = trio.open_memory_channel[str | WireClosed](100)

    # For the client's side.

    async def says(self, text: str) -> None:
        self.heard = trio.current_time()
        await self._send.send(text)

    def says_now(self, text: str) -> None:
        """Without a checkpoint."""
        self.heard = trio.current_time()
        self._send.send_nowait(text)

    async def hangs_up(self, words: str = "bye") -> None:
        await self._send.send(WireClosed(words))

    def reads(self, bytes_: int) -> None:
        self.room += bytes_
        self._roomier.set()
        self._roomier = trio.Event()

    @property
    def texts(self) -> list[str]:
        """The whole messages that have left, in order."""
        assert self._torn == b"", "a message was cut"
        return b"".join(self.sent).decode().splitlines()

    # For the session.

    pack = staticmethod(lines)
    plain: Callable[[Sequence[bytes]], bytes] = staticmethod(lines)
    size = staticmethod(len)

    def piece(self, text: bytes, first: bool, last: bool) -> bytes:
        return text + b"\n" if last else text

    @property
    def way(self) -> Callable[[bytes], int] | None:
        return self.send if self.direct else None

    def watch(self, watcher: Watcher | None) -> None:
        self.watcher = watcher

    def cut(self, payload: bytes, taken: int) -> bytes:
        return payload[taken:]

    def send(self, payload: bytes) -> int:
        """As of a socket."""
        if not self.room:
            raise BlockingIOError
        rest = self.write_nowait(payload)
        return len(payload) - len(rest or b"")

    def turn(self, direct: bool) -> None:
        """Something else comes first from now on, or does no more."""
        self.direct = direct
        if self.watcher is not None:
            self.watcher.way_changed()

    def write_nowait(self, payload: bytes) -> bytes | None:
        taken = payload[: self.room]
        self.room -= len(taken)
        self.sent.append(taken)
        return payload[len(taken) :] or None

    async def write(self, payloads: Sequence[bytes]) -> None:
        rest: bytes | None = b"".join(payloads)
        while (rest := self.write_nowait(rest or b"")) is not None:
            await self._roomier.wait()
        await trio.lowlevel.checkpoint()

    async def receive(self) -> str:
        got = await self._receive.receive()
        if isinstance(got, WireClosed):
            raise got
        return got

    async def ping(self) -> None:
        self.pings += 1

    async def close(self, why: Ending, words: str, code: int | None = None) -> None:
        self.closed = (why, words)
        self.code = code

    def turn_binary(self) -> None:
        raise AssertionError("only some wires can")

    def abort(self) -> None:
        self.aborted = True


class FakeUpstream:
    """A source in memory. It answers requests unless `mute`; `cut()` loses the connection.

    `refuses` names topics and why; with `in_one` a request that holds one of them is refused as a whole.
    `room` is how many topics a request may name. While `turns` is a semaphore, each request takes one from it.
    """

    def __init__(self) -> None:
        self.up = True
        self.mute = False
        self.in_one = False
        self.room = 1000
        self.turns: trio.Semaphore | None = None
        self.refuses: dict[str, str] = {}
        self.attempts = 0
        self.probes = 0
        self.parted = False
        self.subscribed: set[str] = set()
        self.log: list[tuple[str, tuple[str, ...]]] = []
        self.send, self._receive = trio.open_memory_channel[Received[str] | LinkLost](1000)

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[FakeUpstream]:
        self.attempts += 1
        await trio.lowlevel.checkpoint()
        if not self.up:
            raise LinkLost("refused")
        self.send, self._receive = trio.open_memory_channel[Received[str] | LinkLost](1000)
        self.subscribed.clear()
        yield self

    def cut(self, reason: str = "cut") -> None:
        self.send.send_nowait(LinkLost(reason))

    def publish(self, *items: str) -> None:
        self.send.send_nowait(Received(items=list(items)))

    async def receive(self) -> Received[str]:
        got = await self._receive.receive()
        if isinstance(got, LinkLost):
            raise got
        return got

    async def turn(self) -> int:
        if self.turns is not None:
            await self.turns.acquire()
        await trio.lowlevel.checkpoint()
        return self.room

    async def subscribe(self, topics: Collection[str]) -> None:
        self.log.append(("subscribe", tuple(topics)))
        if self.mute:
            return
        answer: Received[str] = Received()
        refused = [topic for topic in topics if topic in self.refuses]
        accepted = [topic for topic in topics if topic not in self.refuses]
        if refused and self.in_one:
            accepted = []
            answer.refused(self.refuses[refused[0]], *topics)
        else:
            for topic in refused:
                answer.refused(self.refuses[topic], topic)
        self.subscribed.update(accepted)
        answer.subscribed(*accepted)
        self.send.send_nowait(answer)

    async def unsubscribe(self, topics: Collection[str]) -> None:
        self.log.append(("unsubscribe", tuple(topics)))
        self.subscribed.difference_update(topics)
        if self.mute:
            return
        answer: Received[str] = Received()
        answer.unsubscribed(*topics)
        self.send.send_nowait(answer)

    async def probe(self) -> None:
        self.probes += 1

    async def part(self) -> None:
        """It takes leave at once, behind all that it has sent."""
        self.parted = True
        self.cut("closed")


class Diary:
    """An observer that writes everything down."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.items = 0

    def connecting(self) -> None:
        self.lines.append("connecting")

    def up(self, topics: Collection[str]) -> None:
        self.lines.append(f"up {','.join(sorted(topics))}".strip())

    def waiting(self, seconds: float) -> None:
        self.lines.append(f"waiting {seconds:g}")

    def leaving(self, words: str) -> None:
        self.lines.append(f"leaving {words}")

    def parted(self) -> None:
        self.lines.append("parted")

    def down(self, reason: str) -> None:
        self.lines.append(f"down {reason}")

    def subscribed(self, topic: str) -> None:
        self.lines.append(f"subscribed {topic}")

    def unsubscribed(self, topic: str) -> None:
        self.lines.append(f"unsubscribed {topic}")

    def refused(self, topic: str, reason: str) -> None:
        self.lines.append(f"refused {topic}: {reason}")

    def problem(self, reason: str, excerpt: str) -> None:
        self.lines.append(f"problem {reason}: {excerpt}")

    def received(self, items: int, size: int) -> None:
        self.items += items
