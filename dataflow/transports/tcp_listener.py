"""Producers connect to us by TCP and push: an actor that accepts, and a temporary actor for each connection.

Rules of this file. I/O only: what is said is the codec's, and nothing is ever written. No bytes are read
before the shards have taken those that came before, so TCP itself slows a producer down; there is no queue. A
connection dies alone. An idle one may stay. A message that has begun must end within `WHOLE_WITHIN` seconds;
only those count in which we wait for the producer.

What keeps a connection out, or ends it, is a problem of the source: too_many_connections, too_many_of_one (of
one address), no_descriptor, too_slow, cut_off (the end came in the middle of a message), and what the codec
finds.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from contextlib import suppress
from math import inf
from typing import Any, Final, Protocol

import trio
from loguru import logger

from actors.connector import STOPPED, LinkLost, Received
from dataflow.domain import Item
from dataflow.faults.passage import Passage
from dataflow.net.address import with_port
from dataflow.net.listening import why_refused
from dataflow.sources.intake import Intake
from dataflow.sources.port import Intaker, ListenerSettings
from dataflow.sources.state import SourceState
from supervisors import Child, Context, Handle, PoolFull, SupervisionError, leaves

AT_ONCE: Final = 16_384  # bytes of one read, hence of one batch: some 400 ticks
WHOLE_WITHIN: Final = 10.0  # seconds
LAST_WITHIN: Final = 1.0  # seconds in which we still take what a producer has sent before our end
ACCEPTS_AT_ONCE: Final = 64
BACKLOG: Final = 128
NO_DESCRIPTOR_SECONDS: Final = 0.1
KEEPALIVE_SECONDS: Final = 60  # of silence; then the kernel asks whether the producer is still there
_NO_DESCRIPTOR: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)


class Share(Protocol):
    """What one address has."""

    sessions: int

    def has_room_for_session(self) -> bool:
        """Whether it may have one more; a refusal is counted."""


class Listener:
    """The actor that accepts. Its value is the address that it is bound to, such as "127.0.0.1:9000".

    `pool`: the path of the supervisor of the connections. `share_of(address)`: what that address has already.
    `child_of(sock, peer, share)`: the temporary child of a new connection, whose actor owns the socket.
    """

    def __init__(
        self,
        source: SourceState,
        settings: ListenerSettings,
        intake: Intake,
        pool: str,
        share_of: Callable[[str], Share],
        child_of: Callable[[socket.socket, str, Share], Child],
    ) -> None:
        self._source = source
        self._settings = settings
        self._intake = intake
        self._pool = pool
        self._share_of = share_of
        self._child_of = child_of

    async def run(self, ctx: Context) -> None:
        ctx.ready()  # before it listens: a port that is taken must not block the start of the tree
        self._source.connecting()
        reason = STOPPED
        try:
            await self._listen(ctx)
        except BaseException as error:
            reason = _reason(error)
            raise
        finally:
            self._source.down(reason)

    async def _listen(self, ctx: Context) -> None:
        listeners = await self._bound()
        try:
            address = _shown(listeners[0].getsockname())
            ctx.ready(address)
            logger.bind(path=ctx.path).info("listening on {} for producers", address)
            self._intake.up()
            pool = ctx.supervisor(self._pool)
            async with trio.open_nursery() as nursery:
                for each in listeners:
                    nursery.start_soon(self._accept, each, pool)
                await ctx.stopping.wait()
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            raise next(iter(leaves(group))) from group
        finally:
            for each in listeners:
                trio.lowlevel.notify_closing(each)
                each.close()

    async def _bound(self) -> list[socket.socket]:
        host, port = self._settings.host, self._settings.port
        try:
            bound = await trio.open_tcp_listeners(port, host=host, backlog=BACKLOG)
        except OSError as error:
            table = f"[sources.{self._source.name}]"
            why = why_refused(error, f"{table} host", f"{table} port")
            raise LinkLost(f"cannot listen on {_shown((host, port))}: {why}") from error
        return [socket.socket(fileno=each.socket.detach()) for each in bound]

    async def _accept(self, listener: socket.socket, pool: Handle) -> None:
        while True:
            await trio.lowlevel.wait_readable(listener)
            for _ in range(ACCEPTS_AT_ONCE):
                try:
                    sock, peer = listener.accept()
                except BlockingIOError:
                    break
                except OSError as error:  # a client that is gone already is no trouble
                    if error.errno in _NO_DESCRIPTOR:
                        self._source.problem("no_descriptor", str(error))
                        await trio.sleep(NO_DESCRIPTOR_SECONDS)
                    break
                await self._welcome(sock, peer, pool)

    async def _welcome(self, sock: socket.socket, peer: Any, pool: Handle) -> None:
        share = self._share_of(peer[0])
        if not share.has_room_for_session():
            self._refuse(sock, peer, "too_many_of_one")
            return
        try:
            await pool.start(self._child_of(sock, _shown(peer), share))
        except PoolFull:
            self._refuse(sock, peer, "too_many_connections")
        except SupervisionError:  # told by the pool; the producer sees the end, and may come again
            sock.close()
        except BaseException:
            sock.close()
            raise

    def _refuse(self, sock: socket.socket, peer: Any, reason: str) -> None:
        sock.close()
        self._source.problem(reason, _shown(peer))


class Connection:
    """The actor of one producer. Owns `sock`.

    `passage`: faults that strike here, where there can be any.
    """

    def __init__(
        self,
        sock: socket.socket,
        peer: str,
        share: Share,
        codec: Intaker,
        intake: Intake,
        passage: Passage | None = None,
    ) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._peer = peer
        self._share = share
        self._codec = codec
        self._intake = intake
        self._passage = passage
        self._left = inf  # seconds of waiting in which the message that has begun must end
        self._leave_at: float | None = None  # not asked to leave
        self._waiting = trio.CancelScope()

    async def run(self, ctx: Context) -> None:
        self._share.sessions += 1
        self._intake.came()
        log = logger.bind(path=ctx.path)
        try:
            ctx.ready()
            log.debug("producer came: {}", self._peer)
            _keep_alive(self._socket)
            ctx.start_helper(lambda: self._leave_when_asked(ctx))
            with suppress(LinkLost):  # on purpose, in a rehearsal
                await self._take_all()
            log.debug("producer went: {}", self._peer)
        finally:
            self._share.sessions -= 1
            self._intake.went()
            self._socket.close()
            if self._passage is not None:
                self._passage.free()

    async def _leave_when_asked(self, ctx: Context) -> None:
        await ctx.stopping.wait()
        self._leave_at = trio.current_time() + LAST_WITHIN
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)  # the producer learns that it should go, too
        self._waiting.cancel()

    async def _take_all(self) -> None:
        codec, intake = self._codec, self._intake
        while data := await self._receive():
            await intake.turn()
            if self._passage is not None:
                self._passage.visit()
                await self._passage.suffer()
            whole, received = codec.whole, Received[Item](size=len(data))
            codec.decode(data, received)
            if not codec.begun:
                self._left = inf
            elif self._left == inf or codec.whole != whole:
                self._left = WHOLE_WITHIN
            for reason, excerpt in received.problems:
                intake.refused(reason, excerpt)
            await intake.put(received.items, received.size)
            if received.lost is not None:
                return

    async def _receive(self) -> bytes:
        """The next bytes; none at the end, whatever the reason."""
        while self._leave_at is None or trio.current_time() < self._leave_at:
            data = self._read()
            if data is not None:
                if not data and self._codec.begun:
                    self._intake.refused("cut_off", self._peer)
                return data
            if self._leave_at is not None:
                break
            if self._left <= 0:
                self._intake.refused("too_slow", self._peer)
                break
            await self._wait()
        return b""

    def _read(self) -> bytes | None:
        """The bytes that have come: none at the end, None for not yet."""
        try:
            return self._socket.recv(AT_ONCE)
        except BlockingIOError:
            return None
        except OSError:  # reset by the producer
            return b""

    async def _wait(self) -> None:
        """Wait for bytes, for the end of their time, or until we are asked to leave."""
        begun = trio.current_time()
        with trio.CancelScope(deadline=begun + self._left) as self._waiting:
            await trio.lowlevel.wait_readable(self._socket)
        self._left -= trio.current_time() - begun


def _keep_alive(sock: socket.socket) -> None:
    with suppress(OSError):  # it is gone already
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_KEEPIDLE"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_SECONDS)


def _reason(error: BaseException) -> str:
    if isinstance(error, trio.Cancelled):
        return STOPPED
    return str(error) if isinstance(error, LinkLost) else f"internal error: {type(error).__name__}"


def _shown(address: Any) -> str:
    return with_port(*address[:2])
