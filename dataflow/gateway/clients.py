"""The connected clients, and the totals of all sessions since the start."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

from attrs import define

from actors.session import Ending, Session
from dataflow.domain.notice import Notice
from supervisors import Ref

AnySession: TypeAlias = Session[Any, Any]


@define
class Totals:
    """Totals of all sessions since the start."""

    opened: int = 0
    sent: int = 0  # updates; in `Clients` those of ended sessions only, for living sessions have counters
    dropped: int = 0  # updates dropped because a client was slow, announced as gaps; likewise
    slow: int = 0  # clients disconnected because they were slow


class Clients:
    """The living sessions, oldest first."""

    def __init__(self) -> None:
        self._sessions: dict[AnySession, int] = {}  # and their numbers
        self._totals = Totals()
        self._herald: Ref | None = None

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[AnySession]:
        return iter(list(self._sessions))

    @property
    def next_number(self) -> int:
        """The number of the next session that enters."""
        return self._totals.opened + 1

    def enter(self, session: AnySession) -> int:
        """Add `session`; returns its number, which no other session ever had."""
        self._totals.opened = self.next_number
        self._sessions[session] = self._totals.opened
        return self._totals.opened

    def numbered(self) -> list[tuple[int, AnySession]]:
        """The living sessions with their numbers, the oldest first."""
        return [(number, session) for session, number in self._sessions.items()]

    def leave(self, session: AnySession) -> None:
        """Remove `session` and keep its totals. Idempotent."""
        if session in self._sessions:
            del self._sessions[session]
            self._totals.sent += session.sent
            self._totals.dropped += session.dropped
            self._totals.slow += session.ended is not None and session.ended.why is Ending.SLOW

    def attach(self, herald: Ref) -> None:
        """Set the actor that tells notices to all clients: a `herald.Herald`."""
        self._herald = herald

    def broadcast(self, notice: Notice) -> None:
        """Tell `notice` to every client, soon. Without a herald there are no clients either."""
        if self._herald is not None:
            self._herald.put(notice)

    def totals(self) -> Totals:
        """The totals, living sessions included."""
        living = list(self._sessions)
        return Totals(
            opened=self._totals.opened,
            sent=self._totals.sent + sum(s.sent for s in living),
            dropped=self._totals.dropped + sum(s.dropped for s in living),
            slow=self._totals.slow,
        )
