"""A listening socket that can be shut and opened again without losing its port.

Rule 1: while shut, the port is bound and nobody listens, so the system refuses clients as when a server is
down, and no other program can take the port.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import partial

import trio
from attrs import define, field

BACKLOG = 128


@define(eq=False)
class Door:
    """Accepts connections whenever `shut_until` is past, and gives each to `handle` in a nursery of its own.

    `handle` must not raise. `shut_until` is a time of Trio's clock; `set` changes it.
    """

    handle: Callable[[trio.abc.Stream], Awaitable[None]]
    shut_until: float = -1.0
    _open: bool = False
    _running: bool = False
    _changed: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot)

    @property
    def shut(self) -> bool:
        """Whether it is to be shut now."""
        return trio.current_time() < self.shut_until

    async def set(self, shut_until: float) -> None:
        """Shut it until then; return when it has happened (or was never running)."""
        self.shut_until = shut_until
        self._changed.unpark_all()
        await trio.lowlevel.checkpoint()
        while self._running and self._open == self.shut:
            await self._changed.park()

    async def wait_open(self) -> None:
        """Wait until it accepts connections."""
        while not self._open:
            await self._changed.park()

    async def run(
        self,
        host: str,
        port: int,
        *,
        task_status: trio.TaskStatus[tuple[str, int]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Listen until cancelled; reports ``(host, port)`` as bound. May raise OSError."""
        listeners = await trio.open_tcp_listeners(port, host=host)
        bound_host, bound_port = listeners[0].socket.getsockname()[:2]
        self._running = True
        task_status.started((bound_host, bound_port))
        try:
            async with trio.open_nursery() as clients:
                while True:
                    listeners = await self._turn(listeners, clients)
        finally:
            self._running = False

    async def _turn(
        self, listeners: list[trio.SocketListener], clients: trio.Nursery
    ) -> list[trio.SocketListener]:
        names = [(each.socket.family, each.socket.getsockname()) for each in listeners]
        async with trio.open_nursery() as nursery:
            serve = partial(trio.serve_listeners, self.handle, listeners, handler_nursery=clients)
            nursery.start_soon(serve)
            await self._wait_for(shut=True)
            nursery.cancel_scope.cancel()
        with ExitStack() as kept:
            bound = [kept.enter_context(_bind(family, name)) for family, name in names]
            await self._wait_for(shut=False)
            kept.pop_all()
        return [_listener(each) for each in bound]

    async def _wait_for(self, *, shut: bool) -> None:
        self._open = shut
        self._changed.unpark_all()
        while self.shut is not shut:
            with trio.CancelScope(deadline=float("inf") if shut else self.shut_until):
                await self._changed.park()


def _bind(family: int, name: tuple[str, int]) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    bound.bind(name)
    return bound


def _listener(bound: socket.socket) -> trio.SocketListener:
    bound.listen(BACKLOG)
    return trio.SocketListener(trio.socket.from_stdlib_socket(bound))
