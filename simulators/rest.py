"""The REST of a simulated exchange: HTTP on the port of its WebSocket, and what can go wrong with it.

Rule 1: the dialect answers. Here is only the way of the bytes, the weight of the last minute, and faults.
Rule 2: a fault strikes one question. It never ends more than the connection of that question.
Rule 3: a client that leaves in the midst of an answer is no failure.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

import h11
import trio
from attrs import define, evolve, field

from .dialect import Answer, Dialect, Tape
from .faults import Fault, Faults
from .lies import LIES, Lie, told

MAX_HEAD: Final = 65_536
IDLE: Final = 60.0  # seconds without a request
ENDLESS_EVERY: Final = 0.05  # seconds between two bytes of an answer without end
HUGE: Final = 1 << 28  # bytes
MINUTE: Final = 60.0
_PIECE: Final = b" " * 65_536
_WORDS: Final = re.compile(r"[\w.:-]+")


async def head_of(stream: trio.abc.Stream) -> bytes:
    """What a client says first: the head of its request, and perhaps more; less when it leaves."""
    received = b""
    while b"\r\n\r\n" not in received and len(received) < MAX_HEAD:
        some = bytes(await stream.receive_some(16_384))
        if not some:
            break
        received += some
    return received


def is_question(head: bytes) -> bool:
    """Whether this is a GET that asks for no other protocol."""
    return head.startswith(b"GET ") and re.search(rb"\r\nupgrade *:", head, re.IGNORECASE) is None


class Rewound(trio.abc.Stream):
    """A stream whose first bytes were taken from it, and come again."""

    def __init__(self, stream: trio.abc.Stream, taken: bytes) -> None:
        self._stream = stream
        self._taken = taken

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if not self._taken:
            return bytes(await self._stream.receive_some(max_bytes))
        await trio.lowlevel.checkpoint()
        given = self._taken[:max_bytes]
        self._taken = self._taken[len(given) :]
        return given

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


@define(eq=False)
class RestPort:
    """Answers questions. `asked` counts them, `refused` those that cost too much.

    `symbols` gives the symbols that have trades, for lies.
    """

    dialect: Dialect
    faults: Faults
    tape: Tape
    symbols: Callable[[], Collection[str]]
    asked: int = 0
    refused: int = 0
    _minute: int = field(default=0, init=False)
    _used: int = field(default=0, init=False)

    @property
    def used(self) -> int:
        """The weight of the questions in this minute of the clock."""
        self._turn()
        return self._used

    async def converse(self, stream: trio.abc.Stream) -> None:
        """Answer the questions of one connection until it ends, or nobody asks for `IDLE` seconds."""
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        with suppress(h11.ProtocolError, trio.BrokenResourceError, trio.ClosedResourceError):
            while connection.states == {h11.CLIENT: h11.IDLE, h11.SERVER: h11.IDLE}:
                request = None
                with trio.move_on_after(IDLE):
                    request = await _request(stream, connection)
                if request is None:
                    return
                if not await self._respond(stream, connection, request):
                    return
                if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                    return
                connection.start_next_cycle()

    async def _respond(self, stream: trio.abc.Stream, connection: h11.Connection, asked: h11.Request) -> bool:
        """Whether the connection can go on."""
        if asked.method != b"GET":
            return await _send(stream, connection, Answer(405, b"", (("allow", "GET"),)))
        parts = urlsplit(asked.target.decode("ascii", "replace"))
        query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        self.asked += 1
        target = unquote(f"{parts.path}?{parts.query}")
        fault = self.faults.strike_question({*_WORDS.findall(target), *query.values()})
        if fault is not None and fault.kind == "rest_slow":
            await trio.sleep(fault.seconds or 0.0)
        answer = self._answer(fault, unquote(parts.path), query)
        match fault.kind if fault else None:
            case "rest_endless":
                return await _without_end(stream, connection)
            case "rest_huge":
                return await _huge(stream, connection)
            case "rest_half":
                return await _half(stream, connection, answer)
        return await _send(stream, connection, answer)

    def _answer(self, fault: Fault | None, path: str, query: Mapping[str, str]) -> Answer:
        match fault.kind if fault else None:
            case "rest_error":
                return Answer(503, b"<html><title>503</title>Service unavailable</html>")
            case "rest_limit":
                assert fault is not None
                return _too_many(fault.seconds or 1.0)
            case "rest_redirect":
                return Answer(302, b"", (("location", f"http://elsewhere.invalid{path}"),))
            case "rest_lie":
                assert fault is not None
                return self._weighed(self._lie(LIES[(fault.struck - 1) % len(LIES)], path, query))
        assert self.dialect.rest is not None
        return self._weighed(self.dialect.rest(path, query, self.tape))

    def _lie(self, lie: Lie, path: str, query: Mapping[str, str]) -> Answer:
        assert self.dialect.rest is not None
        about = {path, *query.values()}
        others = (symbol for symbol in sorted(self.symbols()) if not any(symbol in each for each in about))
        return told(lie, self.dialect.rest, path, query, self.tape, next(others, None))

    def _weighed(self, answer: Answer) -> Answer:
        self._turn()
        self._used += answer.weight
        most = self.dialect.weight_a_minute
        if most is not None and self._used > most:
            self.refused += 1
            answer = _too_many(MINUTE - trio.current_time() % MINUTE)
        if self.dialect.weight_header is not None:
            told_weight = (self.dialect.weight_header, str(self._used))
            answer = evolve(answer, headers=(*answer.headers, told_weight))
        return answer

    def _turn(self) -> None:
        minute = int(trio.current_time() // MINUTE)
        if minute != self._minute:
            self._minute, self._used = minute, 0


def _too_many(seconds: float) -> Answer:
    return Answer(
        429, b'{"code":-1003,"msg":"Too many requests"}', (("retry-after", str(math.ceil(seconds))),)
    )


async def _request(stream: trio.abc.Stream, connection: h11.Connection) -> h11.Request | None:
    request = None
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(bytes(await stream.receive_some(16_384)))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.EndOfMessage):
            return request
        elif not isinstance(event, h11.Data):
            return None


def _head(answer: Answer, *more: tuple[str, str]) -> h11.Response:
    kind = ("content-type", "application/json")
    return h11.Response(status_code=answer.status, headers=[kind, *answer.headers, *more])


async def _send(stream: trio.abc.Stream, connection: h11.Connection, answer: Answer) -> bool:
    head = connection.send(_head(answer, ("content-length", str(len(answer.body))))) or b""
    body = connection.send(h11.Data(data=answer.body)) or b""
    await stream.send_all(head + body + (connection.send(h11.EndOfMessage()) or b""))
    return True


async def _half(stream: trio.abc.Stream, connection: h11.Connection, answer: Answer) -> bool:
    head = connection.send(_head(answer, ("content-length", str(len(answer.body) + 1)))) or b""
    await stream.send_all(head + answer.body[: len(answer.body) // 2])
    return False


async def _without_end(stream: trio.abc.Stream, connection: h11.Connection) -> bool:
    await stream.send_all((connection.send(_head(Answer(200, b""))) or b"") + _data(connection, b"["))
    while True:
        await trio.sleep(ENDLESS_EVERY)
        await stream.send_all(_data(connection, b" "))


async def _huge(stream: trio.abc.Stream, connection: h11.Connection) -> bool:
    await stream.send_all((connection.send(_head(Answer(200, b""))) or b"") + _data(connection, b"["))
    for _ in range(HUGE // len(_PIECE)):
        await stream.send_all(_data(connection, _PIECE))
    await stream.send_all(_data(connection, b"]") + (connection.send(h11.EndOfMessage()) or b""))
    return True


def _data(connection: h11.Connection, data: bytes) -> bytes:
    return connection.send(h11.Data(data=data)) or b""
