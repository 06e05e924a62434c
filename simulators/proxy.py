"""A TCP proxy that makes trouble between a client and a server: it passes bytes on late, slowly, damaged, one
way only, or not at all.

Rule 1: a setting takes effect at once, for open and for future connections, until it is withdrawn.
Rule 2: bytes keep their order. Only `cut` and `reset` lose bytes, and only `corrupt` changes them.
Rule 3: one direction of a connection holds `HELD` bytes. Then the proxy stops reading, and TCP slows the
sender down.
Rule 4: an end or a reset on one side is passed on to the other side.
Rule 5: the clock is Trio's, and the random numbers are seeded.

It does not know what the bytes mean. For faults of messages see `faults`.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Literal, TypeAlias

import trio
from attrs import define, field, frozen

from .connection import reset
from .listener import Listener

Direction: TypeAlias = Literal["up", "down"]
Dial: TypeAlias = Callable[[], Awaitable[trio.abc.HalfCloseableStream]]
HELD = 65_536  # bytes that one direction of one connection holds at most
CHUNK = 16_384
_SLICE = 0.05  # with a limit, one write holds the bytes of so many seconds
_BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError)


@define(eq=False)
class Way:
    """One direction of all connections: its trouble, and its counters.

    Times are in seconds. `limit` is in bytes per second for each connection. `to_corrupt` chunks will be
    damaged. `passed` counts bytes, `corrupted` counts chunks.
    """

    latency: float = 0.0
    jitter: float = 0.0
    limit: float | None = None
    held: bool = False
    closes_late: float = 0.0
    to_corrupt: int = 0
    passed: int = 0
    corrupted: int = 0
    changed: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot, repr=False)

    def set(self, **conditions: Any) -> None:
        """Change some of the settings, and wake the tasks that wait because of the old ones."""
        for name, value in conditions.items():
            setattr(self, name, value)
        self.changed.unpark_all()

    def heal(self) -> None:
        """Withdraw all trouble."""
        self.set(latency=0.0, jitter=0.0, limit=None, held=False, closes_late=0.0, to_corrupt=0)

    def status(self) -> dict[str, Any]:
        """Settings and counters, as plain data."""
        names = ("latency", "jitter", "limit", "held", "closes_late", "to_corrupt", "passed", "corrupted")
        return {name: getattr(self, name) for name in names}


@frozen
class _Chunk:
    data: bytes  # empty: the end
    came: float
    luck: float  # its share of the jitter, 0 to 1


@define(eq=False)
class _Pump:
    """Carries the bytes of one direction of one connection."""

    way: Way
    dice: random.Random
    source: trio.abc.HalfCloseableStream
    sink: trio.abc.HalfCloseableStream
    _chunks: deque[_Chunk] = field(factory=deque)
    _queued: int = 0
    _sent: int = 0  # bytes of the last write; `_sent_at` is its time
    _sent_at: float = float("-inf")
    _moved: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot)

    async def take(self) -> None:
        """Read until the end. Raises BrokenResourceError."""
        data = b"more"
        while data:
            while self._queued >= HELD:
                await self._moved.park()
            data = bytes(await self.source.receive_some(CHUNK))
            self._chunks.append(_Chunk(data, trio.current_time(), self.dice.random()))
            self._queued += len(data)
            self._moved.unpark_all()

    async def give(self) -> None:
        """Write each chunk when it is due, until the end. Raises BrokenResourceError."""
        while True:
            while not self._chunks:
                await self._moved.park()
            chunk = self._chunks[0]
            await self._until_due(chunk)
            if not chunk.data:
                return await self.sink.send_eof()
            await self._pass_on(chunk)

    async def _until_due(self, chunk: _Chunk) -> None:
        while trio.current_time() < (due := self._due(chunk)):
            with trio.CancelScope(deadline=due):
                await self.way.changed.park()

    def _due(self, chunk: _Chunk) -> float:
        way = self.way
        if way.held:
            return float("inf")
        due = chunk.came + way.latency + chunk.luck * way.jitter
        if way.limit is not None:
            due = max(due, self._sent_at + self._sent / way.limit)
        return due if chunk.data else due + way.closes_late

    async def _pass_on(self, chunk: _Chunk) -> None:
        most = CHUNK if self.way.limit is None else max(1, int(self.way.limit * _SLICE))
        now, rest = chunk.data[:most], chunk.data[most:]
        # Write first, then count it as gone: `_queued` is the bound, also while the receiver reads nothing.
        await self.sink.send_all(self._perhaps_corrupted(now))
        self._sent, self._sent_at = len(now), trio.current_time()
        self.way.passed += len(now)
        self._queued -= len(now)
        self._chunks.popleft()
        if rest:
            self._chunks.appendleft(_Chunk(rest, chunk.came, chunk.luck))
        self._moved.unpark_all()

    def _perhaps_corrupted(self, data: bytes) -> bytes:
        if not self.way.to_corrupt:
            return data
        self.way.to_corrupt -= 1
        self.way.corrupted += 1
        damaged = bytearray(data)
        damaged[self.dice.randrange(len(data))] ^= self.dice.randint(1, 255)
        return bytes(damaged)


@define(eq=False)
class _Tunnel:
    """One connection through the proxy: the client's socket and, once it is open, the server's."""

    streams: list[trio.abc.HalfCloseableStream]
    hard: bool = False  # end with a reset
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    gone: trio.Event = field(factory=trio.Event)

    def end(self, *, hard: bool) -> None:
        self.hard = hard
        self.scope.cancel()

    async def close(self) -> None:
        with trio.CancelScope(shield=True):
            for stream in self.streams:
                if self.hard:
                    await reset(stream)
                else:
                    await trio.aclose_forcefully(stream)
        self.gone.set()


@define(eq=False)
class Proxy:
    """Passes connections on to a server; `dial` connects to it. `open_proxy` serves a proxy.

    The way `up` is from the client to the server, `down` is the way back. A method without a `way` concerns
    both. `accepted`, `refused` and `unreachable` (`dial` failed) count connections. A value that makes no
    sense is a ValueError.
    """

    dial: Dial
    seed: int = 0
    up: Way = field(factory=Way)
    down: Way = field(factory=Way)
    host: str = ""
    port: int = 0
    accepted: int = 0
    refused: int = 0
    unreachable: int = 0
    _tunnels: dict[_Tunnel, None] = field(factory=dict)
    _dice: random.Random = field(init=False)
    _listener: Listener = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._dice = random.Random(self.seed)
        self._listener = Listener(self.handle)

    @property
    def open(self) -> int:
        """How many connections are open now."""
        return len(self._tunnels)

    # Trouble on demand

    def delay(self, latency: float, jitter: float = 0.0, way: Direction | None = None) -> None:
        """Delay all bytes by `latency` seconds and a random part of `jitter` seconds; 0 withdraws it."""
        _check(latency=latency, jitter=jitter)
        self._set(way, latency=latency, jitter=jitter)

    def limit(self, bytes_per_second: float | None, way: Direction | None = None) -> None:
        """Limit the bytes per second of each connection; None withdraws it."""
        if bytes_per_second is not None and not bytes_per_second > 0:
            raise ValueError(f"a limit must be greater than 0, or None, not {bytes_per_second}")
        self._set(way, limit=bytes_per_second)

    def hold(self, way: Direction | None = None) -> None:
        """Pass nothing on, and keep the sockets open. With one `way` the connections are half open."""
        self._set(way, held=True)

    def release(self, way: Direction | None = None) -> None:
        """Withdraw `hold`; the bytes that waited come first."""
        self._set(way, held=False)

    def corrupt(self, count: int, way: Direction | None = None) -> None:
        """Damage one byte in each of the next `count` chunks that are written; 0 withdraws it."""
        _check(count=count)
        self._set(way, to_corrupt=count)

    def close_slowly(self, seconds: float, way: Direction | None = None) -> None:
        """Pass the end of a connection on `seconds` later; 0 withdraws it."""
        _check(seconds=seconds)
        self._set(way, closes_late=seconds)

    async def cut(self, most: int | None = None) -> int:
        """Close both sides of the `most` oldest connections (None: of every one).

        Returns how many, when all of these are closed.
        """
        return await self._end(most, hard=False)

    async def reset(self, most: int | None = None) -> int:
        """Like `cut`, with a TCP reset to both sides."""
        return await self._end(most, hard=True)

    async def refuse(self, seconds: float = float("inf")) -> None:
        """Refuse new connections for so many seconds; open connections stay."""
        await self._listener.refuse_until(trio.current_time() + seconds)

    async def accept(self) -> None:
        """Withdraw `refuse`."""
        await self._listener.accept()

    async def heal(self) -> None:
        """Withdraw all trouble. Connections that were cut stay closed."""
        self.up.heal()
        self.down.heal()
        await self.accept()

    def status(self) -> dict[str, Any]:
        """Counters, and the settings of both ways, as plain data."""
        counters = ("accepted", "refused", "unreachable", "open")
        counted = {name: getattr(self, name) for name in counters}
        ways = {"up": self.up.status(), "down": self.down.status()}
        return {**counted, "refusing": self._listener.refusing, **ways}

    def _set(self, direction: Direction | None, **conditions: Any) -> None:
        for way in self._ways(direction):
            way.set(**conditions)

    def _ways(self, direction: Direction | None) -> Iterator[Way]:
        if direction not in (None, "up", "down"):
            raise ValueError(f"a way is 'up' or 'down', not {direction!r}")
        if direction != "down":
            yield self.up
        if direction != "up":
            yield self.down

    async def _end(self, most: int | None, *, hard: bool) -> int:
        tunnels = tuple(self._tunnels)[:most]
        for tunnel in tunnels:
            tunnel.end(hard=hard)
        for tunnel in tunnels:
            await tunnel.gone.wait()
        await trio.lowlevel.checkpoint()
        return len(tunnels)

    # Connections

    async def handle(self, stream: trio.abc.Stream) -> None:
        """Pass on one client's connection until it ends. Raises only cancellation."""
        assert isinstance(stream, trio.abc.HalfCloseableStream)
        if self._listener.refusing:
            self.refused += 1
            await reset(stream)
            return
        tunnel = _Tunnel([stream])
        self._tunnels[tunnel] = None
        try:
            with tunnel.scope:
                await self._carry(tunnel)
        finally:
            del self._tunnels[tunnel]
            await tunnel.close()

    async def _carry(self, tunnel: _Tunnel) -> None:
        try:
            tunnel.streams.append(await self.dial())
        except OSError:
            self.unreachable += 1
            tunnel.hard = True
            return
        self.accepted += 1
        near, far = tunnel.streams
        pumps = _Pump(self.up, self._dice, near, far), _Pump(self.down, self._dice, far, near)
        try:
            async with trio.open_nursery() as nursery:
                for pump in pumps:
                    nursery.start_soon(pump.take)
                    nursery.start_soon(pump.give)
        except* _BROKEN:
            tunnel.hard = True

    async def serve(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        task_status: trio.TaskStatus[tuple[str, int]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Listen until cancelled; reports ``(host, port)`` as bound (0: any free port). May raise OSError."""
        async with trio.open_nursery() as nursery:
            self.host, self.port = await nursery.start(self._listener.run, host, port)
            task_status.started((self.host, self.port))


def _check(**values: float) -> None:
    for name, value in values.items():
        if not value >= 0:
            raise ValueError(f"{name} must be at least 0, not {value}")


@asynccontextmanager
async def open_proxy(
    to_host: str, to_port: int, *, host: str = "127.0.0.1", port: int = 0, seed: int = 0
) -> AsyncIterator[Proxy]:
    """Serve a proxy to `to_host`:`to_port` inside an ``async with`` (`port` 0: any free port).

    May raise OSError.
    """
    proxy = Proxy(partial(trio.open_tcp_stream, to_host, to_port), seed)
    async with trio.open_nursery() as nursery:
        await nursery.start(proxy.serve, host, port)
        yield proxy
        nursery.cancel_scope.cancel()
