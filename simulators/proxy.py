"""A TCP proxy that makes trouble: it stands between any two parties and passes on what they say, late,
slowly, damaged, one way only, or not at all.

Rule 1: whatever is set holds at once, for open connections as for those to come, until it is withdrawn.
Rule 2: bytes keep their order whatever the delay, and none is lost but by `cut`, `reset` and `corrupt`.
Rule 3: a way holds `HELD` bytes; then it reads no further, and whoever sends is slowed down by TCP.
Rule 4: an end or a reset on one side is passed on to the other.
Rule 5: the clock is Trio's, and the dice are seeded.
It refuses to know what the bytes mean: faults of messages are the exchanges' own (`faults`).
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
HELD = 65_536  # bytes under way in one direction of one connection
CHUNK = 16_384
_SLICE = 0.05  # seconds of a limited way's time that one write may take
_BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError)


@define(eq=False)
class Way:
    """One direction: what is wrong with it (times in seconds, `limit` in bytes a second and connection) and
    how many bytes it has passed on."""

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
        """Change some of the conditions; whoever waits looks again."""
        for name, value in conditions.items():
            setattr(self, name, value)
        self.changed.unpark_all()

    def heal(self) -> None:
        """Withdraw everything."""
        self.set(latency=0.0, jitter=0.0, limit=None, held=False, closes_late=0.0, to_corrupt=0)

    def status(self) -> dict[str, Any]:
        """What there is to know, as plain data."""
        names = ("latency", "jitter", "limit", "held", "closes_late", "to_corrupt", "passed", "corrupted")
        return {name: getattr(self, name) for name in names}


@frozen
class _Chunk:
    data: bytes  # empty: the end
    came: float
    luck: float  # which part of the jitter is its own


@define(eq=False)
class _Pump:
    """Carries one direction of one connection."""

    way: Way
    dice: random.Random
    source: trio.abc.HalfCloseableStream
    sink: trio.abc.HalfCloseableStream
    _chunks: deque[_Chunk] = field(factory=deque)
    _queued: int = 0
    _sent: int = 0  # bytes of the last write, and when it was made
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
        """Pass on what was read, when it is due, until the end. Raises BrokenResourceError."""
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
        # Written before it is forgotten: `_queued` is what bounds the way, also while the peer takes nothing.
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
    """One connection through the proxy: both its sockets, as far as they are open."""

    streams: list[trio.abc.HalfCloseableStream]
    hard: bool = False  # it ends with a reset
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
    """Passes connections on to wherever `dial` leads; `open_proxy` serves one.

    `up` is the way from whoever connects to where `dial` leads, `down` the way back; methods without a
    direction concern both. `accepted`, `refused` and `unreachable` (`dial` failed) count connections.
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

    # What goes wrong on demand

    def delay(self, latency: float, jitter: float = 0.0, way: Direction | None = None) -> None:
        """Everything is `latency` seconds under way, and up to `jitter` more; 0 withdraws it."""
        _check(latency=latency, jitter=jitter)
        self._set(way, latency=latency, jitter=jitter)

    def limit(self, bytes_per_second: float | None, way: Direction | None = None) -> None:
        """No connection gets through more than that; None withdraws it."""
        if bytes_per_second is not None and not bytes_per_second > 0:
            raise ValueError(f"a limit must be greater than 0, or None, not {bytes_per_second}")
        self._set(way, limit=bytes_per_second)

    def hold(self, way: Direction | None = None) -> None:
        """Pass nothing on, while the sockets stay open: with one `way`, a connection that is half open."""
        self._set(way, held=True)

    def release(self, way: Direction | None = None) -> None:
        """Pass everything on again, beginning with what waited."""
        self._set(way, held=False)

    def corrupt(self, count: int, way: Direction | None = None) -> None:
        """Damage one byte in each of the next `count` pieces, whatever they are; 0 withdraws it."""
        _check(count=count)
        self._set(way, to_corrupt=count)

    def close_slowly(self, seconds: float, way: Direction | None = None) -> None:
        """An end of one side reaches the other only so much later; 0 withdraws it."""
        _check(seconds=seconds)
        self._set(way, closes_late=seconds)

    async def cut(self) -> int:
        """Close both sides of every connection; returns when they are gone, and how many there were."""
        return await self._end_all(hard=False)

    async def reset(self) -> int:
        """As `cut`, with a TCP reset to both sides."""
        return await self._end_all(hard=True)

    async def refuse(self, seconds: float = float("inf")) -> None:
        """Let nobody in for so long; open connections stay."""
        await self._listener.refuse_until(trio.current_time() + seconds)

    async def accept(self) -> None:
        """Let everybody in again."""
        await self._listener.accept()

    async def heal(self) -> None:
        """Withdraw everything; what was cut remains so."""
        self.up.heal()
        self.down.heal()
        await self.accept()

    def status(self) -> dict[str, Any]:
        """What there is to know, as plain data."""
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

    async def _end_all(self, *, hard: bool) -> int:
        tunnels = tuple(self._tunnels)
        for tunnel in tunnels:
            tunnel.end(hard=hard)
        for tunnel in tunnels:
            await tunnel.gone.wait()
        await trio.lowlevel.checkpoint()
        return len(tunnels)

    # Connections

    async def handle(self, stream: trio.abc.Stream) -> None:
        """Pass on one client's connection until it has ended. Raises nothing but cancellation."""
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
    """Serve a proxy to `to_host`:`to_port` for the length of an ``async with``."""
    proxy = Proxy(partial(trio.open_tcp_stream, to_host, to_port), seed)
    async with trio.open_nursery() as nursery:
        await nursery.start(proxy.serve, host, port)
        yield proxy
        nursery.cancel_scope.cancel()
