"""One call of gRPC: its messages, its deadline, its answers, and how it ends.

Rules of this file. A call ends exactly once, with one status. Its answers wait in bounded buffers of the
server, its requests in the window of its stream: the client gets room for more when they are taken. Nothing
here knows what a message means.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from typing import Any, Final

import trio
from attrs import define, frozen
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from actors.session import Ending
from dataflow.gateway.admission import TOO_MANY_OF_ONE, TOO_MANY_SESSIONS
from dataflow.gateway.limits import Account
from dataflow.gateway.problems import (
    Forbidden,
    InvalidValue,
    Problem,
    TooManyRequests,
    TooManySubscriptions,
    Unauthorised,
    Unavailable,
)
from dataflow.server.handshake import Handshake
from dataflow.server.streaming_wire import StreamingWire

from .protocol import METADATA, CallFailed, Messages, Status, prefixed, trailers

AT_ONCE: Final = 256  # messages of a stream, before others have their turn: some two milliseconds
WHOLE_SECONDS: Final = 10.0  # in which a message that has begun must end, and a request of one message
LARGE_BYTES: Final = 65536  # a message that is half here, and longer, is a large one ...
LARGE_AT_ONCE: Final = 8  # ... of which all clients together may have so many

_STATUS: Final[Mapping[type[Problem], Status]] = {
    InvalidValue: Status.INVALID_ARGUMENT,
    Unauthorised: Status.UNAUTHENTICATED,
    Forbidden: Status.PERMISSION_DENIED,
    TooManySubscriptions: Status.RESOURCE_EXHAUSTED,
    TooManyRequests: Status.RESOURCE_EXHAUSTED,
    Unavailable: Status.UNAVAILABLE,
}
_ENDINGS: Final[Mapping[Ending, Status]] = {
    Ending.SLOW: Status.RESOURCE_EXHAUSTED,
    Ending.FAILED: Status.INTERNAL,
    Ending.VIOLATION: Status.INTERNAL,
}  # of others: UNAVAILABLE, so that the client comes again


def failure_of(problem: Problem) -> CallFailed:
    """How a call ends that the hall has refused."""
    status = next(_STATUS[each] for each in type(problem).__mro__ if each in _STATUS)
    words = problem.data.get("problem", problem.summary) if status is Status.UNAVAILABLE else problem.summary
    wait = problem.retry_after if isinstance(problem, TooManyRequests) else None
    return CallFailed(status, str(words), wait)


@frozen
class Method:
    """A method that can be called."""

    descriptor: MethodDescriptor
    handle: Callable[[Call], Awaitable[None]]


@define
class Room:
    """What all calls have together. `lasting`: calls without an end of their own that are no sessions."""

    most: int  # lasting calls
    lasting: int = 0
    large: int = 0  # messages that are half here


class CallWire(StreamingWire):
    """The wire of a session in a call. `failure`: how the call ends, once the session has ended."""

    room = 8192  # what waits in front of a slow client should not be old

    def __init__(self, request: Any, *, peer: str) -> None:
        super().__init__(request, peer=peer)
        self.failure: CallFailed | None = None

    async def close(self, why: Ending, words: str, code: int | None = None) -> None:
        if self.failure is None:
            self.failure = CallFailed(_ENDINGS.get(why, Status.UNAVAILABLE), words)
        await super().close(why, words, code)


class Call:
    """One call. `told`: what its client should know about it, however it ends."""

    def __init__(
        self, method: Method | None, client: Handshake, account: Account, room: Room, receive: Any, send: Any
    ) -> None:
        self.client = client
        self.account = account
        self.told = ""
        self.failure: CallFailed | None = None  # why it was cancelled
        self.scope = trio.CancelScope()
        self._method = method
        self._room = room
        self._receive = receive
        self._send = send
        self._messages = Messages()
        self._found: list[bytes] = []  # messages that nobody has asked for yet
        self._more = True  # will come
        self._begun = False  # the answer
        self._is_large = False

    @property
    def is_unknown(self) -> bool:
        """Whether there is no such method."""
        return self._method is None

    async def run(self) -> None:
        """Do what the method does. Raises CallFailed or a Problem."""
        assert self._method is not None
        await self._method.handle(self)

    @contextmanager
    def lasting(self) -> Iterator[None]:
        """For a call without an end of its own: it has a place like a session. Raises CallFailed."""
        if self._room.lasting >= self._room.most:
            raise CallFailed(Status.UNAVAILABLE, TOO_MANY_SESSIONS)
        if not self.account.has_room_for_session():
            raise CallFailed(Status.RESOURCE_EXHAUSTED, TOO_MANY_OF_ONE)
        self._room.lasting += 1
        self.account.sessions += 1
        try:
            yield
        finally:
            self._room.lasting -= 1
            self.account.sessions -= 1

    # Of the client.

    async def request(self) -> Any:
        """The only message of the client's. Raises CallFailed."""
        found: list[bytes] = []
        with trio.move_on_after(WHOLE_SECONDS) as within:
            while len(found) < 2 and (some := await self.some()):
                found += some
        if within.cancelled_caught:
            raise CallFailed(Status.DEADLINE_EXCEEDED, f"no whole request within {WHOLE_SECONDS:g} s")
        if len(found) != 1:
            raise CallFailed(Status.INTERNAL, "this method takes exactly one message")
        return self.parsed(found[0])

    def parsed(self, message: bytes) -> Any:
        """A message of the client's. Raises CallFailed."""
        assert self._method is not None
        kind = self._method.descriptor.input_type
        try:
            return GetMessageClass(kind).FromString(message)
        except DecodeError:
            raise CallFailed(Status.INTERNAL, f"a message is no {kind.full_name}") from None

    async def some(self) -> list[bytes]:
        """The next messages of the client's, at least one; none at the end. Raises CallFailed.

        The client gets room for more when these are asked for.
        """
        while not self._found:
            self._found = self._messages.take(b"")  # it raises for what came behind the last ones
            if not self._more:
                self._messages.end()
                return []
            await self._wait_for_quota()
            data, self._more = await self._next()
            self.account.pay(len(data))
            self._found = self._messages.take(data)
            self._count_large(self._messages.begun > LARGE_BYTES)
        some, self._found = self._found[:AT_ONCE], self._found[AT_ONCE:]
        return some

    async def _next(self) -> tuple[bytes, bool]:
        """The next bytes of the request, and whether more will come."""
        within = WHOLE_SECONDS if self._messages.begun else math.inf
        with trio.move_on_after(within):
            event = await self._receive()
            if event["type"] == "http.disconnect":
                raise CallFailed(Status.CANCELLED, "the client has left")
            return event["body"], event["more_body"]
        raise CallFailed(Status.DEADLINE_EXCEEDED, f"a message that begins must end within {within:g} s")

    def _count_large(self, is_large: bool) -> None:
        if is_large and not self._is_large and self._room.large >= LARGE_AT_ONCE:
            raise CallFailed(Status.RESOURCE_EXHAUSTED, "too many large messages at once", 1.0)
        self._room.large += is_large - self._is_large
        self._is_large = is_large

    async def _wait_for_quota(self) -> None:
        """What a client streams beyond its quota has to wait."""
        assert self._method is not None
        while self._method.descriptor.client_streaming:
            try:
                self.account.call()
            except TooManyRequests as problem:
                await trio.sleep(problem.retry_after)
            else:
                return

    async def until_gone(self) -> None:
        """Returns when the client has left. For calls whose request has ended."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    # For the client.

    async def say(self, *answers: Message) -> None:
        """Send these messages. Waits while the client does not read."""
        await self.send(b"".join([prefixed(each.SerializeToString()) for each in answers]))

    async def send(self, data: bytes) -> None:
        """Send messages that have their prefixes."""
        await self.begin()
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def begin(self) -> None:
        """Send the head of the answer: the client learns that the call has come in."""
        if not self._begun:
            self._begun = True
            start = {"type": "http.response.start", "status": 200, "headers": list(METADATA)}
            await self._send(start | {"trailers": True})

    async def stream(self, wire: CallWire) -> None:
        """Send what a session writes, until it ends. Raises CallFailed."""
        await self.begin()
        async with trio.open_nursery() as nursery, aclosing(wire.body()) as body:
            nursery.start_soon(self._see_it_leave, wire)
            async for piece in body:
                await self.send(piece)
            nursery.cancel_scope.cancel()
        if wire.failure is not None:
            raise wire.failure

    async def _see_it_leave(self, wire: CallWire) -> None:
        await self.until_gone()
        wire.abort()

    async def end(self, status: Status, words: str = "", retry_after: float | None = None) -> None:
        """Send the trailers."""
        await self.begin()
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        headers = trailers(status, words, retry_after)
        await self._send({"type": "http.response.trailers", "headers": headers})

    def close(self) -> None:
        """It is over."""
        self._count_large(False)
