"""The actor that serves HTTP and lets WebSocket clients in.

Rules of this file: it owns the listening socket and nothing else. A client's session is a child of
the pool beside it, so that a session that fails takes only its client with it.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import trio
from loguru import logger

from actors.outbox import SlowClient
from actors.session import Manners, Session, Wire, WireClosed
from dataflow.core import State
from dataflow.faces.admin import create_app
from dataflow.faces.jsonrpc.format import connection_refused
from dataflow.faces.jsonrpc.methods import Client
from dataflow.faults.registry import SESSIONS
from dataflow.gateway.faulty import FaultyWire
from dataflow.server.serve import serve
from dataflow.server.take_over import take_over
from dataflow.settings.schema import Gateway
from supervisors import Child, Context, Mailbox, Restart, SupervisionError
from supervisors.handle import Handle

from .admission import TOO_MANY_SESSIONS, goodbye
from .certificates import configured_context
from .clients import AnySession
from .past import Past

GOING_AWAY = "going away"
REFUSE_WITHIN = 1.0  # seconds for the notice that there is no room
CLOSE_GRACE = 3.0  # seconds beyond `drain_seconds` before a session that cannot close is reported ...
CLOSE_GRACE_EACH = 0.001  # ... and for every session that may close beside it: some four times what it takes


def closed_within(settings: Gateway) -> float:
    """Seconds in which even the last of all sessions has said farewell."""
    return settings.drain_seconds + CLOSE_GRACE + settings.max_sessions * CLOSE_GRACE_EACH


class HttpServer:
    """The gateway's server. Its ready value is the list of addresses it is bound to."""

    def __init__(self, state: State) -> None:
        self.state = state
        self._past = Past()
        self._manners = self._configured_manners()

    async def run(self, ctx: Context) -> None:
        self.root = ctx.supervisor("")
        self._sessions = ctx.supervisor("gateway/sessions")
        self._topics = ctx.supervisor("topics")
        settings = self.state.settings.gateway
        shutdown = trio.Event()
        async with trio.open_nursery() as serving:
            addresses = await serving.start(
                partial(
                    serve,
                    create_app(self),
                    host=settings.host,
                    port=self.state.port,
                    max_message_bytes=settings.max_message_bytes,
                    graceful_seconds=settings.drain_seconds,
                    tls=configured_context(settings),  # read anew with every start: certificates are renewed
                    on_websocket=self._admit,
                    shutdown=shutdown,
                    report=_report,
                )
            )
            self.state.port = urlsplit(addresses[0]).port or self.state.port
            async with trio.open_nursery() as self._nursery:
                self._nursery.start_soon(self.state.admission.give_signs)
                ctx.ready(addresses)
                logger.bind(path=ctx.path).info("listening on {}/ (page, HTTP, WebSockets)", addresses[0])
                await ctx.stopping.wait()
                # A restart of this very server must not wait for itself; whoever carries it out goes on.
                self._nursery.cancel_scope.cancel()
            shutdown.set()

    def restart(self, path: str) -> None:
        """Have the actor at `path` restarted by its supervisor; nobody waits for it here."""
        parent, _, name = path.rpartition("/")
        handle = self.root.supervisor(parent)
        self._nursery.start_soon(_restart, handle, name)

    async def attend(self, connection: Any) -> None:
        """Make `connection` a session, or say why not."""
        with suppress(WireClosed):
            limit = self.state.settings.gateway.max_message_bytes
            async with take_over(connection, max_message_bytes=limit) as wire:
                await self._admit(wire)

    async def _admit(self, wire: Wire[Any]) -> None:
        if len(self.state.clients) >= self.state.settings.gateway.max_sessions:
            await self._send_away(wire, TOO_MANY_SESSIONS)
            return
        session = self._session(self._exposed(wire))
        try:
            await self._sessions.start(self._child(session))
        except SupervisionError:
            self.state.clients.leave(session)
            session.let_go()
            await self._send_away(wire, GOING_AWAY)

    async def _send_away(self, wire: Wire[Any], reason: str) -> None:
        delay = self.state.admission.turn_away(reason)
        with suppress(WireClosed), trio.move_on_after(REFUSE_WITHIN):
            await wire.write([wire.pack([connection_refused(reason, delay)])])
        await wire.close(1013, goodbye(reason, delay))

    def _session(self, wire: Wire[Any]) -> AnySession:
        session: AnySession = Session(wire, self._manners)
        session.speak(Client(session, self.state, self._topics, self._past))
        return session

    def _exposed(self, wire: Wire[Any]) -> Wire[Any]:
        """`wire`, within reach of faults where there can be any."""
        if self.state.faults is None:
            return wire
        return FaultyWire(wire, self.state.faults, f"{SESSIONS}/{self.state.clients.next_number}")

    def _configured_manners(self) -> Manners:
        settings = self.state.settings.session
        return Manners(
            outbox=settings.outbox,
            slow_client=SlowClient(settings.slow_client),
            ping_interval=settings.ping_interval,
            ping_timeout=settings.ping_timeout,
            drain_seconds=self.state.settings.gateway.drain_seconds,
        )

    def _child(self, session: AnySession) -> Child:
        # Cancelled rather than asked: a session says farewell by itself, without a second task to wait.
        return Child(
            id=self.state.clients.enter(session),
            make=session.myself,
            restart=Restart.TEMPORARY,
            mailbox=Mailbox(size=1),
            stop_within=0,
            cleanup_within=closed_within(self.state.settings.gateway),
        )


async def _restart(handle: Handle, name: str) -> None:
    with suppress(SupervisionError):  # what came of it is reported and retried there: no reason to die here
        await handle.restart(name)


def _report(where: str, error: BaseException) -> None:
    logger.debug("gateway: contained in {}: {!r}", where, error)
