"""The way to a daemon: one connection after the other, for one core, for as long as somebody listens.

Rules of this file. It keeps no message: the socket is read when the next news are asked for, so who does not
ask stops the server. A lost connection is followed by another one, after a pause that grows with each
failure, has a random part, and is short again once a connection has brought something. A server may ask for a
longer pause, within bounds, but never for less than `retry_first`. Calls that wait are bounded; a server
that does not take them loses the connection.
"""

from __future__ import annotations

import random
import ssl
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, Generic, TypeVar

import anyio
from anyio.abc import TaskGroup
from attrs import define, field

from .address import Address
from .client import Client, pause_of
from .events import Connection
from .faults import ServerFault, Unreachable, Unreadable
from .socket import BROKEN, Lost, Rejected, Socket, open_socket

RETRY_FIRST: Final = 0.5  # seconds until the second attempt; random, up to twice as long
RETRY_MOST: Final = 15.0
UNSAID_MOST: Final = 10_000  # calls, besides one for each topic
FAULT: Final = "a fault of the daemon"
FULL: Final = (429, 503)  # statuses of a server that may be there later

T = TypeVar("T")


@define(eq=False)
class Link(Generic[T]):
    """Use it by `async with`, and iterate over it: what becomes of the connection, and what is heard, all
    that came together. `hear` is what makes events of a message: `core.hear` or `core.read`.

    `wait`: keep trying also before anything has answered. `made`: connections so far.
    """

    address: Address
    core: Client
    hear: Callable[[bytes], Iterable[T]]
    wait: bool = False
    context: ssl.SSLContext | None = None
    retry_first: float = RETRY_FIRST
    retry_most: float = RETRY_MOST
    made: int = 0
    _delay: float = RETRY_FIRST
    _pause: float = 0.0  # before the next attempt
    _is_told: bool = False  # that it connects
    _understood: bool = False  # at least one message, ever
    _heard: bool = False  # at least one message on the present connection
    _fault: ServerFault | None = None  # behind what was heard last
    _socket: Socket | None = None
    _unsaid: deque[str] = field(factory=deque)
    _news: anyio.Event = field(init=False)  # there is something to say
    _speaker: anyio.CancelScope = field(init=False)
    _tasks: TaskGroup = field(init=False)

    async def __aenter__(self) -> Link[T]:
        self._delay = self.retry_first
        self._news = anyio.Event()
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        return self

    async def __aexit__(self, *_error: object) -> None:
        # The errors of the body are not given to the group: it would wrap them.
        self._tasks.cancel_scope.cancel()
        await self._hang_up()
        await self._tasks.__aexit__(None, None, None)

    def __aiter__(self) -> Link[T]:
        return self

    async def __anext__(self) -> Connection | list[T]:
        """Raises Unreachable when nothing has ever answered and `wait` is not set, Unreadable when nothing
        that came was ever understood. Any other fault of the server is told, and followed by another
        connection."""
        if self._socket is not None:
            return await self._listen(self._socket)
        await anyio.sleep(self._pause)
        self._pause = 0.0
        if not self._is_told:
            self._is_told = True
            return Connection(state="connecting")
        return await self._connect()

    def say(self, *calls: str) -> None:
        """Send calls on the present connection. Without one they are not needed: the next begins with all."""
        if self._socket is not None:
            self._unsaid.extend(calls)
            self._news.set()

    async def _connect(self) -> Connection:
        self._is_told = False
        try:
            self._socket = socket = await open_socket(self.address, self.context)
        except Unreachable as error:
            if not self._may_come(error):
                raise
            return self._lost(str(error), None, pause_of(getattr(error, "retry_after", None)))
        self.made += 1
        self._heard = False
        self._unsaid = deque(self.core.connect())
        self._speaker = anyio.CancelScope()
        self._tasks.start_soon(self._speak, socket, self._speaker)
        return Connection(state="connected")

    async def _listen(self, socket: Socket) -> Connection | list[T]:
        told: tuple[str, int | None, float | None]
        try:
            while True:
                if self._fault is not None:
                    raise self._fault
                if len(self._unsaid) > UNSAID_MOST + len(self.core.wishes):
                    raise Lost(BROKEN, f"the daemon does not take {len(self._unsaid):,} calls")
                if heard := self._take(await socket.receive()):
                    return heard
        except Lost as lost:
            told = lost.reason, lost.code, self.core.retry_after
            if self._heard:
                self._delay = self.retry_first
        except ServerFault as fault:
            if isinstance(fault, Unreadable) and not self._understood:
                raise
            told = f"{FAULT} ({fault})", None, None
        await self._hang_up()
        return self._lost(*told)

    def _take(self, messages: Iterable[bytes]) -> list[T]:
        """What came before a fault counts."""
        heard: list[T] = []
        try:
            for message in messages:
                events = self.hear(message)
                if isinstance(events, list):
                    heard += events
                else:
                    for event in events:
                        heard.append(event)  # not at once: a fault may follow it
                self._heard = self._understood = True
        except ServerFault as fault:
            self._fault = fault
        return heard

    async def _speak(self, socket: Socket, scope: anyio.CancelScope) -> None:
        with scope:
            while True:
                while self._unsaid:
                    try:
                        await socket.send(self._unsaid.popleft())
                    except Lost:
                        return  # who receives hears of it, too
                await self._news.wait()
                self._news = anyio.Event()

    async def _hang_up(self) -> None:
        socket, self._socket, self._fault = self._socket, None, None
        self.core.lost()
        if socket is not None:
            self._speaker.cancel()
            await socket.aclose()

    def _may_come(self, error: Unreachable) -> bool:
        return self.wait or self.made > 0 or (isinstance(error, Rejected) and error.status in FULL)

    def _lost(self, reason: str, code: int | None, told: float | None) -> Connection:
        """Decide how long to wait, and say it."""
        if told is None:
            self._pause = self._delay * random.uniform(1.0, 2.0)
        else:
            self._pause = max(told, self.retry_first)
        self._delay = min(self._delay * 2, self.retry_most)
        return Connection(state="lost", reason=reason, code=code, retry_in=round(self._pause, 3))
