"""One client of the hub: its handshake, its records, its signs of life.

Rules of this file. Every text for a client is JSON-RPC (`methods`), in a record of the protocol that the
client chose. Nothing but the handshake is answered before it, and only calls take turns. What a trade looks
like is written once for JSON-RPC and put into records once for all clients of a kind (`rendering`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import trio

from actors.session import Ending
from actors.update import Envelope, Rendering, rendering
from dataflow.domain.notice import Notice, Refused
from dataflow.faces.jsonrpc import protocol as jsonrpc
from dataflow.faces.jsonrpc.format import JSONRPC
from dataflow.faces.jsonrpc.methods import report
from dataflow.gateway.admission import goodbye
from dataflow.gateway.clients import AnySession
from dataflow.gateway.format import Format
from dataflow.gateway.hall import Hall

from .json_hub import JSON
from .messagepack_hub import MESSAGEPACK
from .methods import METHODS, HubCalls
from .protocol import BadRecord, Close, HubProtocol, Inbound, Invocation, Record, chosen, welcome
from .settings import Settings

METHOD: Final = "SendMessage"  # the one method of the hub
# To each client that comes: after a restart of the daemon it reconnects by itself, and follows nothing.
RESTORED: Final = b'{"jsonrpc":"2.0","method":"connection.restored","params":{"action":"resubscribe"}}'
TEXT: Final = (JSON,)
TEXT_OR_BINARY: Final = (JSON, MESSAGEPACK)
_SHOWN: Final = 40  # characters of a wrong name that the client gets back


class Hub(HubCalls):
    """One client. `protocols`: those that its transport can carry. `polls`: its polls are its signs of life,
    and the server's answers to them."""

    __slots__ = (
        "__weakref__",
        "_heard",
        "_inbound",
        "_ping_at",
        "_polls",
        "_protocol",
        "_protocols",
        "_settings",
        "alarm",
        "wire",
    )

    protocol = "signalr"

    def __init__(
        self,
        session: AnySession,
        hall: Hall,
        settings: Settings,
        *,
        protocols: Sequence[HubProtocol] = TEXT_OR_BINARY,
        polls: bool = False,
        wire: Any = None,
    ) -> None:
        super().__init__(session, hall)
        self.max_recent = settings.max_recent
        self.wire = wire  # of a client that sends its records by requests
        self.alarm = trio.current_time() + settings.handshake_timeout
        self._settings = settings
        self._protocols = protocols
        self._protocol: HubProtocol | None = None  # until the handshake
        self._polls = polls
        self._inbound = Inbound(hall.settings.gateway.max_message_bytes)
        self._heard = trio.current_time()
        self._ping_at = math.inf

    @property
    def binary(self) -> bool:
        """Whether its records are binary."""
        return self._protocol is not None and self._protocol.binary

    # For the session.

    async def hear(self, message: str | bytes) -> None:
        self._heard = math.inf  # while it is our turn it cannot be too silent
        self._inbound.feed(message)
        try:
            if self._protocol is None:
                self._shake_hands()
            while self._protocol is not None and self.session.ended is None:
                record = self._inbound.next(self._protocol)
                if record is None:
                    break
                await self._take(record)
        except BadRecord as error:
            self._part(Ending.VIOLATION, str(error))
        self._heard = trio.current_time()
        self._set_alarm()

    async def answer(self, message: Invocation) -> bytes | None:
        """The answers and, behind them, the completion."""
        assert self._protocol is not None
        mistake = _mistake(message)
        text = None
        if mistake is None:
            text = await jsonrpc.dispatch(
                message.arguments[0],
                METHODS,
                report,
                pause=self.subscriptions.turns.pause,
                charge=self.account.call,
                owner=(self,),
                write=self.begin,
                gather=self._protocol.answers,
            )
        if message.id is not None:
            text = (text or b"") + self._protocol.completion(message.id, mistake)
        return text or None

    def resumes(self, message: Invocation) -> bool:
        text = message.arguments[0] if message.arguments else None
        return isinstance(text, str) and ('"since"' in text or '"afterTimestamp"' in text)

    def rendering(self, envelope: Envelope | None = None, format: Format | None = None) -> Rendering[Any]:
        """Never an array towards the client, so the envelope is the hub's own."""
        assert self._protocol is not None
        return rendering(JSONRPC, self._protocol.joined, self.session.frame)

    def notice(self, notice: Notice) -> bytes | None:
        refused = goodbye(notice.reason, notice.retry_after) if isinstance(notice, Refused) else None
        if self._protocol is None:
            return None if refused is None else welcome(refused)
        text = self._protocol.message(JSONRPC.notice(notice))
        return text if refused is None else text + self._protocol.close(refused, True)

    def farewell(self) -> bytes | None:
        return None if self._protocol is None else self._protocol.close(None, True)

    def reproach(self, words: str) -> Sequence[bytes]:
        return (self._parting(words),)

    def on_alarm(self) -> None:
        """No handshake, no sign of life, or time for one of ours."""
        now = trio.current_time()
        if self._protocol is None:
            self._part(Ending.SILENT, f"no handshake for {self._settings.handshake_timeout:g} s")
        elif now >= self._heard + self._settings.client_timeout:
            self._part(Ending.SILENT, f"no sign of life for {self._settings.client_timeout:g} s")
        else:
            if not (self.session.flushing or self.session.reciting):  # behind what waits it would add nothing
                self.session.say(self._protocol.ping)
            self._ping_at = now + self._settings.keepalive
        self._set_alarm()

    # Inside.

    def _shake_hands(self) -> None:
        """Raises BadRecord."""
        handshake = self._inbound.handshake()
        if handshake is None:
            return
        protocol = chosen(handshake, self._protocols)
        if protocol.binary:
            self.session.turn_binary()
        self.session.say(welcome())
        self.session.say(protocol.message(RESTORED))
        self._protocol = protocol
        if not self._polls:
            self._ping_at = trio.current_time() + self._settings.keepalive

    async def _take(self, record: Record) -> None:
        if isinstance(record, Invocation):
            await super().hear(record)
        elif isinstance(record, Close):
            self.session.end(Ending.GONE, "the client has closed the connection")
        else:
            await trio.lowlevel.checkpoint()  # a flood of them shall not hold the others up

    def _set_alarm(self) -> None:
        if self._protocol is None:
            return
        self.alarm = (
            math.inf if self._polls else min(self._ping_at, self._heard + self._settings.client_timeout)
        )

    def _part(self, why: Ending, words: str) -> None:
        """Tell the client why, and end."""
        self.session.say(self._parting(words))
        self.session.end(why, words)

    def _parting(self, words: str) -> bytes:
        return welcome(words) if self._protocol is None else self._protocol.close(words, False)


def _mistake(call: Invocation) -> str | None:
    """Why it is no call of the hub's method; None if it is one."""
    if call.streaming:
        return "The hub has no streams."
    if call.target.casefold() != METHOD.casefold():
        return f"Unknown hub method '{call.target[:_SHOWN]}': the hub has {METHOD}."
    if len(call.arguments) != 1 or not isinstance(call.arguments[0], str):
        return f"{METHOD} takes exactly one string."
    return None
