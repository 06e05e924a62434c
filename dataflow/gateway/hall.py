"""All that a face needs, and where it gets it: one object for all faces.

Rules of this file: it holds parts and hands them on; decisions are theirs. It outlives the gateway's actors.
An actor that lets clients in attaches itself to the tree first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import trio
from attrs import evolve, frozen

from actors.outbox import SlowClient
from actors.session import Ending, Manners, Session, Wire, WireClosed
from dataflow.core import Core
from dataflow.domain.errors import ConfigError
from dataflow.domain.notice import Refused
from dataflow.logs import Burst
from dataflow.paths import SESSIONS, TOPICS
from dataflow.server.handshake import Handshake
from dataflow.settings.schema import Gateway, Settings
from dataflow.sources.intake import Intake
from dataflow.sources.port import PushSettings
from dataflow.topics.topics import Starter
from supervisors import Child, Context, Mailbox, Node, Restart, SupervisionError

from .admission import TOO_LITTLE_MEMORY, TOO_MANY_OF_ONE, TOO_MANY_SESSIONS, goodbye
from .certificates import Certificate
from .clients import AnySession
from .desk import Desk
from .faulty import FaultyWire
from .hops import client_address, networks
from .identity import Identify, Identity, Principal
from .limits import Account
from .load import Load
from .lobby import Lobby
from .pages import Pages
from .past import Past

if TYPE_CHECKING:
    from .face import Entrance, Face, Route

GOING_AWAY = "going away"
AGENT_TOLD = 200  # characters of a User-Agent that are kept ...
AGENTS_SHARED = 256  # ... once for all clients with the same one, if so many are in fashion at most
REFUSE_WITHIN = 1.0  # seconds for the notice that there is no room
CLOSE_GRACE = 3.0  # seconds beyond `drain_seconds` before a session that cannot close is reported ...
CLOSE_GRACE_EACH = 0.001  # ... and for every session that may close beside it: some four times what it takes

Converse = Callable[[AnySession], Any]  # gives a new session its conversation


def closed_within(settings: Gateway) -> float:
    """Seconds in which even the last of all sessions has said farewell."""
    return settings.drain_seconds + CLOSE_GRACE + settings.max_sessions * CLOSE_GRACE_EACH


@frozen
class SentAway:
    """A client found no room for this `reason`, and may come back after so many seconds."""

    reason: str
    retry_after: float

    @property
    def is_quota(self) -> bool:
        """Whether others would have found room."""
        return self.reason == TOO_MANY_OF_ONE


class Hall:
    """Built once. `core` and `lobby` are the state, `desk` answers questions, `load` has rates,
    `identity` knows operators, `pages` knows which page may ask. `faces` are the protocols that are
    switched on."""

    def __init__(self, core: Core, lobby: Lobby, faces: Sequence[Face] = ()) -> None:
        self.core = core
        self.lobby = lobby
        self.faces = faces
        self.settings: Settings = core.settings
        self.load = Load(core, lobby.clients)
        self.desk = Desk(core, lobby, self.load)
        self.identity = Identity(core.settings.operator_token, core.settings.operator.trust_local)
        self.identify: Identify = self.identity
        self.pages = Pages(_own_names(core.settings), core.settings.gateway.origins)
        self.quotas = lobby.quotas
        self.past = Past()
        self.disk_troubles = Burst()  # in answers, for the log
        self.manners = _manners(core.settings)
        self.pool: Starter  # of topics
        self._root: Any = None  # the handle of the whole tree, once an actor has attached itself
        self._sessions: Any = None
        self.closed = False  # see `close`
        self.restart: Callable[[str], None]  # have the actor at a path restarted, soon. Raises UnknownChild

    def adopt(self, settings: Settings, certificate: Certificate | None) -> None:
        """Follow other settings from now on, without a restart: those of `settings.changes.RELOADED`.

        `certificate`: the one for new connections, where there is TLS. Never waits.
        """
        trusted = networks(settings.gateway.trusted_proxies)
        if (settings.limits, trusted) != (self.quotas.settings, self.quotas.trusted):  # it fills the buckets
            self.quotas.use(settings.limits, trusted)
        self.settings = settings
        self.pages.adopt(_own_names(settings), settings.gateway.origins)
        if certificate is not None and self.lobby.certificate.certificate is not None:
            self.lobby.certificate.certificate = certificate
        self.core.adopt(settings)

    def routes(self) -> list[Route]:
        """The HTTP endpoints of all faces."""
        return [evolve(route, face=face.name) for face in self.faces for route in face.routes(self)]

    def entrances(self) -> list[Entrance]:
        """The WebSocket endpoints of all faces."""
        return [evolve(each, face=face.name) for face in self.faces for each in face.sockets(self)]

    @property
    def reached(self) -> tuple[int, str, bool]:
        """Where clients reach the daemon: its port, the prefix of all paths, and whether there is TLS."""
        gateway = self.settings.gateway
        return self.lobby.port, gateway.root_path, gateway.tls_certificate is not None

    def attach(self, ctx: Context) -> None:
        """For an actor that lets clients in: before its first one. Idempotent."""
        self._root = ctx.supervisor("")
        self._sessions = ctx.supervisor(SESSIONS)
        self.pool = ctx.supervisor(TOPICS)
        self.closed = False

    def close(self) -> None:
        """Let nobody in any more: the server stops. Who were told to leave would come back at once, for
        they may find it listening. Until the next `attach`."""
        self.closed = True

    def check_paths(self) -> None:
        """Raises ConfigError when two endpoints have one path: the paths of many faces can be chosen."""
        wanted: dict[str, list[str]] = {}
        for route in self.routes():
            for method in route.methods:
                wanted.setdefault(f"{method} {route.path}", []).append(route.face)
        for entrance in self.entrances():
            wanted.setdefault(f"the WebSocket {entrance.socket.path}", []).append(entrance.face)
        clashes: dict[str, str] = {}  # the first of each pair of faces tells enough
        for what, faces in wanted.items():
            if len(faces) > 1:
                clashes.setdefault(" and ".join(faces), what)
        if clashes:
            told = clashes.items()
            raise ConfigError(
                [f"[faces]: {faces} both want {what}; give one another path" for faces, what in told]
            )

    def client_address(self, client: Handshake) -> str:
        """The IP address of the client, without port and brackets, as far as it is believed.

        For limits and logs, never for privileges. See `hops.client_address`.
        """
        return client_address(client, self.quotas.trusted)

    def account(self, client: Handshake, principal: Principal | None = None) -> Account:
        """Whose quotas hold for `client`: those of its name, or of its address."""
        return self.quotas.account(principal or self.identify(client), self.client_address(client))

    def invite_pages(self, path: str, origins: Iterable[str]) -> None:
        """Accept pages of `origins` at `path` of a face and below, too. See `Pages.invite`."""
        for root in {"", self.settings.gateway.root_path}:
            self.pages.invite(root + path, origins)

    def intake(self, source: str) -> Intake | None:
        """The entry for all that clients push to `source`; None if no such source takes it.

        One that takes requests with a token of its own is open to nothing else.
        """
        known = self.core.sources.get(source)
        if known is not None and isinstance(known.settings, PushSettings):
            return None
        return self.core.intake(source)

    # Sessions.

    async def open_session(
        self,
        wire: Wire[Any, Any],
        converse: Converse,
        client: Handshake,
        manners: Manners | None = None,
    ) -> SentAway | None:
        """Make `wire` a session of `client` that lives on by itself. Owns the wire.

        A client without room is told so and closed; the result says why, and when it may come back.
        """
        session: AnySession = Session(self._exposed(wire), manners or self.manners)
        conversation = converse(session)
        conversation.principal = self.identify(client)
        conversation.subscriptions.account = account = self.account(client, conversation.principal)
        refusal = self._no_room_for(account)
        if refusal is not None:
            return await self._send_away(wire, conversation, client, refusal)
        session.speak(conversation)
        try:
            await self._sessions.start(self._child(session, conversation.protocol, client, account))
        except SupervisionError:
            session.end(Ending.GOING_AWAY, GOING_AWAY)
            self.lobby.clients.leave(session)
            session.let_go()
            return await self._send_away(wire, conversation, client, GOING_AWAY)
        return None

    async def part_with_guests(self, within: float) -> None:
        """End all sessions that live in requests of the HTTP server, each with its farewell. `within`
        seconds."""
        with trio.move_on_after(within):
            async with trio.open_nursery() as nursery:
                for session, guest in list(self.lobby.clients.guests.items()):
                    if session.stays:
                        nursery.start_soon(self._sessions.stop, guest.number)

    def show_out(self, session: AnySession, reason: str) -> None:
        """The operator ends a session. Its client is told so, for this reason, and when it may come back."""
        words = f"{Ending.OPERATOR.value}: {reason}" if reason else Ending.OPERATOR.value
        session.tell(Refused(words, self.lobby.admission.delay()))
        session.end(Ending.OPERATOR, words)

    def abandon(self, topic: Any) -> None:
        """Nothing of `topic` will be fanned out any more: its listeners must not wait for it in vain."""
        listeners = self.core.topics.abandon(topic)
        for session in self.lobby.clients:
            if session in listeners:
                session.end(Ending.FAILED, f"the subscription of {topic} failed")

    async def _send_away(
        self, wire: Wire[Any, Any], conversation: Any, client: Handshake, reason: str
    ) -> SentAway:
        delay = self.lobby.admission.turn_away(reason)
        self.lobby.clients.guestbook.refused(self._told_address(client), reason)
        text = conversation.notice(Refused(reason, delay))
        with suppress(WireClosed), trio.move_on_after(REFUSE_WITHIN):
            if text is not None:
                await wire.write([wire.pack([text])])
        await wire.close(Ending.REFUSED, goodbye(reason, delay))
        return SentAway(reason, delay)

    def _told_address(self, client: Handshake) -> str:
        """Where a client is, for people: with its port, or with the proxy that it comes through."""
        address, peer = self.client_address(client), client.peer
        return peer if address == client_address(client, ()) else f"{address} through {peer}"

    def _exposed(self, wire: Wire[Any, Any]) -> Wire[Any, Any]:
        """`wire`, within reach of faults where there can be any."""
        if self.core.faults is None:
            return wire
        return FaultyWire(wire, self.core.faults, f"{SESSIONS}/{self.lobby.clients.next_number}")

    def _no_room_for(self, account: Account) -> str | None:
        if self.closed:
            return GOING_AWAY
        if len(self.lobby.clients) >= self.lobby.room.sessions:
            return TOO_MANY_SESSIONS
        if self.lobby.short_of_memory:
            return TOO_LITTLE_MEMORY
        return None if account.has_room_for_session() else TOO_MANY_OF_ONE

    def _child(self, session: AnySession, protocol: str, client: Handshake, account: Account) -> Child:
        agent = client.header("user-agent")
        agent = agent and _shared(agent[:AGENT_TOLD])
        # Cancelled rather than asked: a session says farewell by itself, without a second task to wait.
        return Child(
            id=self.lobby.clients.enter(session, protocol, agent, self._told_address(client), account),
            make=session.myself,
            restart=Restart.TEMPORARY,
            mailbox=Mailbox(size=1),
            stop_within=0,
            cleanup_within=closed_within(self.settings.gateway),
        )

    # Operations, for faces that offer them.

    def tree(self, *, dynamic: bool = True) -> Node:
        """The supervision tree; without `dynamic` only what is there for good."""
        node: Node = self._root.tree(dynamic=dynamic)
        return node


@lru_cache(maxsize=AGENTS_SHARED)
def _shared(agent: str) -> str:
    """One object for all clients with this text. Not `sys.intern`: Python 3.12 would keep it for ever."""
    return agent


def _own_names(settings: Settings) -> Iterable[str]:
    """The names of the daemon that the configuration has; those of the machine come besides."""
    return (*settings.gateway.hosts, settings.gateway.host, settings.operator.host)


def _manners(settings: Settings) -> Manners:
    session = settings.session
    return Manners(
        outbox=session.outbox,
        outbox_bytes=session.outbox_bytes,
        slow_client=SlowClient(session.slow_client),
        ping_interval=session.ping_interval,
        ping_timeout=session.ping_timeout,
        drain_seconds=settings.gateway.drain_seconds,
    )
