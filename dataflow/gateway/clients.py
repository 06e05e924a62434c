"""The clients that are connected now, as far as everybody else needs to know them."""

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
    """What all sessions together did since the start."""

    opened: int = 0
    sent: int = 0  # updates of ended sessions; living ones count for themselves
    dropped: int = 0  # updates dropped for slowness and announced as gaps, likewise
    slow: int = 0  # disconnected for slowness


class Clients:
    """The living sessions, in the order in which they came."""

    def __init__(self) -> None:
        self._sessions: dict[AnySession, None] = {}
        self._totals = Totals()
        self._herald: Ref | None = None

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[AnySession]:
        return iter(list(self._sessions))

    @property
    def next_number(self) -> int:
        """The number that the next session to `enter` will get."""
        return self._totals.opened + 1

    def enter(self, session: AnySession) -> int:
        """Count `session` in; returns its number, never used before."""
        self._sessions[session] = None
        self._totals.opened = self.next_number
        return self._totals.opened

    def leave(self, session: AnySession) -> None:
        """Idempotent."""
        if session in self._sessions:
            del self._sessions[session]
            self._totals.sent += session.sent
            self._totals.dropped += session.dropped
            self._totals.slow += session.ended is not None and session.ended.why is Ending.SLOW

    def attach(self, herald: Ref) -> None:
        """The actor that tells all clients: `herald.Herald`."""
        self._herald = herald

    def broadcast(self, notice: Notice) -> None:
        """Have `notice` told to every client, soon. Without a herald there are no clients either."""
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
