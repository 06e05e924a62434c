"""A listening socket that can refuse clients for a while without losing its port.

While it refuses, the port stays bound and nobody listens on it. So the system refuses clients as if the
server were down, and no other program can take the port.
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
class Listener:
    """Accepts connections unless `refusing`, and gives each to `handle`, in one nursery for all.

    `handle` must not raise. `refusing_until` is a time of Trio's clock; change it with `refuse_until` or
    `accept`.
    """

    handle: Callable[[trio.abc.Stream], Awaitable[None]]
    refusing_until: float = -1.0
    _listening: bool = False
    _running: bool = False
    _changed: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot)

    @property
    def refusing(self) -> bool:
        """Whether it has to refuse clients now."""
        return trio.current_time() < self.refusing_until

    async def refuse_until(self, time: float) -> None:
        """Refuse clients until `time` (infinity: until `accept`).

        Returns when the socket has changed its state, or at once when `run` is not running.
        """
        self.refusing_until = time
        self._changed.unpark_all()
        await trio.lowlevel.checkpoint()
        while self._running and self._listening == self.refusing:
            await self._changed.park()

    async def accept(self) -> None:
        """Accept clients from now on; returns like `refuse_until`."""
        await self.refuse_until(-1.0)

    async def wait_accepting(self) -> None:
        """Wait until it accepts connections."""
        while not self._listening:
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
                    listeners = await self._accept_then_refuse(listeners, clients)
        finally:
            self._running = False

    async def _accept_then_refuse(
        self, listeners: list[trio.SocketListener], clients: trio.Nursery
    ) -> list[trio.SocketListener]:
        names = [(each.socket.family, each.socket.getsockname()) for each in listeners]
        async with trio.open_nursery() as nursery:
            serve = partial(trio.serve_listeners, self.handle, listeners, handler_nursery=clients)
            nursery.start_soon(serve)
            await self._wait_for(refusing=True)
            nursery.cancel_scope.cancel()
        with ExitStack() as kept:
            bound = [kept.enter_context(_bind(family, name)) for family, name in names]
            await self._wait_for(refusing=False)
            kept.pop_all()
        return [_listen(each) for each in bound]

    async def _wait_for(self, *, refusing: bool) -> None:
        self._listening = refusing  # it listens while it waits to refuse
        self._changed.unpark_all()
        while self.refusing is not refusing:
            with trio.CancelScope(deadline=float("inf") if refusing else self.refusing_until):
                await self._changed.park()


def _bind(family: int, name: tuple[str, int]) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    bound.bind(name)
    return bound


def _listen(bound: socket.socket) -> trio.SocketListener:
    bound.listen(BACKLOG)
    return trio.SocketListener(trio.socket.from_stdlib_socket(bound))
