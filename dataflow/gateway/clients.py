"""The connected clients, and the totals of all sessions since the start."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final, TypeAlias

import trio
from attrs import define, evolve, field, frozen

from actors.session import Backlog, Ended, Ending, Session
from dataflow.domain.notice import SWITCHES_AT_ONCE, Notice, StreamSwitched, SymbolsChanged
from dataflow.events import Events
from supervisors import Put, Ref

from .guestbook import Guest, Guestbook
from .limits import Account

AnySession: TypeAlias = Session[Any, Any]


@define
class Totals:
    """Totals of all sessions since the start."""

    opened: int = 0
    sent: int = 0  # updates; in `Clients` those of ended sessions only, for living sessions have counters
    dropped: int = 0  # updates dropped because a client was slow, announced as gaps; likewise
    ended: Counter[Ending] = field(factory=lambda: Counter(dict.fromkeys(Ending, 0)))  # by the reason

    @property
    def slow(self) -> int:
        """Clients disconnected because they were slow."""
        return self.ended[Ending.SLOW]


@frozen
class Departure:
    """A client that left at `left_at`, on Trio's clock, and what it had got."""

    guest: Guest
    ended: Ended
    left_at: float
    sent: int
    dropped: int


NEWS: Final = SymbolsChanged((), ())  # for the herald: there are some that wait
SWITCHES: Final = 10_000  # that wait to be told; of more the oldest are not told, and counted
LEFT: Final = 50  # departures that are kept, the newest ones
_UNKNOWN = Ended(Ending.FAILED, "never ran")


class Clients:
    """The living sessions, oldest first. `events`: where a client that takes nothing is told."""

    def __init__(self, events: Events | None = None) -> None:
        self._sessions: dict[AnySession, Guest] = {}
        self.guestbook = Guestbook(self._sessions, events or Events())
        self.left: deque[Departure] = deque(maxlen=LEFT)  # the newest one last
        self._totals = Totals()
        self._herald: Ref | None = None
        self._symbols: dict[str, bool] = {}  # that have come (True) or gone, and nobody was told so far
        self._switches: deque[StreamSwitched] = deque()  # nobody was told of these so far
        self.switches_untold = 0
        self._is_asked = False  # the herald has these on its list

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[AnySession]:
        return iter(list(self._sessions))

    @property
    def next_number(self) -> int:
        """The number of the next session that enters."""
        return self._totals.opened + 1

    def enter(
        self,
        session: AnySession,
        protocol: str = "unknown",
        agent: str | None = None,
        address: str | None = None,
        account: Account | None = None,
    ) -> int:
        """Add `session`; returns its number, which no other session ever had.

        `address`: where the client is, if its peer does not say it. `account` counts its sessions.
        """
        number = self._totals.opened = self.next_number
        guest = Guest(number, address or session.peer, protocol, agent, trio.current_time(), account)
        if account is not None:
            account.sessions += 1
        self._sessions[session] = guest
        self.guestbook.came(guest)
        return number

    @property
    def guests(self) -> Mapping[AnySession, Guest]:
        """The living sessions and how they came in, the oldest first."""
        return self._sessions

    def leave(self, session: AnySession) -> None:
        """Remove `session` and keep its totals. Idempotent."""
        guest = self._sessions.pop(session, None)
        if guest is not None:
            ended = session.ended or _UNKNOWN
            if guest.account is not None:
                guest.account.sessions -= 1
            self._totals.sent += session.sent
            self._totals.dropped += session.dropped
            self._totals.ended[ended.why] += 1
            known = evolve(guest, account=None)
            self.left.append(Departure(known, ended, trio.current_time(), session.sent, session.dropped))
            self.guestbook.went(guest, session, ended)

    def attach(self, herald: Ref) -> None:
        """Set the actor that tells notices to all clients: a `herald.Herald`."""
        self._herald = herald
        self._is_asked = False
        self._ask()

    def broadcast(self, notice: Notice) -> None:
        """Tell `notice` to every client, soon. Without a herald there are no clients either."""
        if self._herald is not None:
            self._herald.put(notice)

    def symbols_changed(self, added: Collection[str], removed: Collection[str]) -> None:
        """Tell every client, soon, and then all that has come until then together."""
        for symbols, have_come in ((removed, False), (added, True)):
            for symbol in symbols:
                if self._symbols.pop(symbol, have_come) is have_come:  # else it was never away
                    self._symbols[symbol] = have_come
        self._ask()

    def switched(self, notice: StreamSwitched) -> None:
        """Tell who follows the symbol, soon. A lost source may be that of thousands of symbols."""
        if self._herald is None:
            return
        if len(self._switches) >= SWITCHES:
            self._switches.popleft()
            self.switches_untold += 1
        self._switches.append(notice)
        self._ask()

    def take_news(self) -> list[SymbolsChanged | StreamSwitched]:
        """What must be told now; the rest is asked for again."""
        symbols, self._symbols, self._is_asked = self._symbols, {}, False
        added, removed = ([s for s, come in symbols.items() if come is which] for which in (True, False))
        news: list[SymbolsChanged | StreamSwitched] = []
        if symbols:
            news.append(SymbolsChanged(tuple(sorted(added)), tuple(sorted(removed))))
        news += [self._switches.popleft() for _ in range(min(len(self._switches), SWITCHES_AT_ONCE))]
        self._ask()
        return news

    def _ask(self) -> None:
        if (self._symbols or self._switches) and not self._is_asked and self._herald is not None:
            self._is_asked = self._herald.put(NEWS) is not Put.DROPPED

    @property
    def ended(self) -> Mapping[Ending, int]:
        """How many sessions ended, by the reason."""
        return self._totals.ended

    def backlog(self) -> Backlog | None:
        """What waits for all clients together; None when nothing does."""
        waiting = [backlog for session in self._sessions if (backlog := session.backlog) is not None]
        if not waiting:
            return None
        return Backlog(
            sum(each.messages for each in waiting),
            sum(each.bytes for each in waiting),
            min(each.since for each in waiting),
        )

    def totals(self) -> Totals:
        """The totals, living sessions included."""
        living = list(self._sessions)
        return Totals(
            opened=self._totals.opened,
            sent=self._totals.sent + sum(s.sent for s in living),
            dropped=self._totals.dropped + sum(s.dropped for s in living),
            ended=self._totals.ended,
        )
