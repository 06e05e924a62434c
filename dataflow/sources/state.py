"""How every source fares: what is told to clients, shown to operators and counted.

Rules of this file. A source is lost once and restored once, however often its connector tries in
between: notices follow the change of state, not the attempts. A source that was never connected is
nothing special. This state outlives the connector's incarnations. A refusal concerns those who want
the symbol while it is refused: it is told to them once, and forgotten when nobody is left who wants it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from enum import Enum

from attrs import define, field

from actors.connector import Interest

from .port import SourceSettings


class LinkState(Enum):
    """The state of the connection to a source."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    LOST = "lost"


class Audience:
    """Hears of changes. Every method is called synchronously and must not raise."""

    def lost(self, source: str, reason: str, symbols: Collection[str]) -> None: ...
    def restored(self, source: str, symbols: Collection[str]) -> None: ...
    def problem(self, source: str, reason: str, excerpt: str) -> None: ...


@define(eq=False)
class SourceState:
    """One source: its settings, what is wanted of it, and how it fares. An `actors.connector.Observer`.

    `clock` gives the wall time of a change in seconds since the epoch. `changed(symbols)` is called after
    everything that may give these symbols another status; like the audience, it must not raise.
    """

    name: str
    settings: SourceSettings
    audience: Audience
    clock: Callable[[], float]
    changed: Callable[[Collection[str]], None] = lambda _symbols: None
    link: LinkState = LinkState.CONNECTING
    since: float = field(init=False)
    reason: str | None = None
    problems: Counter[str] = field(factory=Counter)
    subscribed_symbols: set[str] = field(factory=set)
    # In which term of the interest: on this connection, and why; and announced as lost, not yet as restored.
    _refused: dict[str, tuple[int | None, str]] = field(factory=dict)
    _told: dict[str, int] = field(factory=dict)
    interest: Interest = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.since = self.clock()
        self.interest = Interest(self.settings.symbols if self.settings.eager else ())

    def connecting(self) -> None:
        """A new attempt; whether the source is lost is decided by its outcome."""

    def up(self, topics: Collection[str]) -> None:
        was_lost = self.link is LinkState.LOST
        self._turn(LinkState.CONNECTED, None)
        self.changed(self.settings.symbols)
        if was_lost:
            self.audience.restored(self.name, topics)

    def down(self, reason: str) -> None:
        self.subscribed_symbols.clear()
        self._refused.clear()
        self.reason = reason
        if self.link is not LinkState.LOST:
            self._turn(LinkState.LOST, reason)
            self.audience.lost(self.name, reason, sorted(self.interest.topics))
        self.changed(self.settings.symbols)

    def subscribed(self, topic: str) -> None:
        self.subscribed_symbols.add(topic)
        self._refused.pop(topic, None)
        if self._wanted_since(topic, self._told.pop(topic, None)) and self.link is LinkState.CONNECTED:
            self.audience.restored(self.name, [topic])
        self.changed((topic,))

    def unsubscribed(self, topic: str) -> None:
        self.subscribed_symbols.discard(topic)
        self.changed((topic,))

    def refused(self, topic: str, reason: str) -> None:
        self.problem("rejected", f"{topic}: {reason}")
        term = self.interest.term(topic)
        self._refused[topic] = (term, reason)
        if term is not None and self._told.get(topic) != term:
            self._told[topic] = term
            self.audience.lost(self.name, f"rejected: {reason}", [topic])
        self.changed((topic,))

    @property
    def refused_symbols(self) -> dict[str, str]:
        """The wanted symbols that cannot be had here at present, and why."""
        return {symbol: why for symbol in self._refused if (why := self.refusal(symbol)) is not None}

    def refusal(self, symbol: str) -> str | None:
        """Why `symbol` cannot be had here at present; None when it can, or when asking again might help."""
        term, reason = self._refused.get(symbol, (None, None))
        return reason if self._wanted_since(symbol, term) else None

    def _wanted_since(self, symbol: str, term: int | None) -> bool:
        """Whether `symbol` has been wanted without a break since that term of the interest."""
        return term is not None and term == self.interest.term(symbol)

    def problem(self, reason: str, excerpt: str) -> None:
        self.problems[reason] += 1
        self.audience.problem(self.name, reason, excerpt)

    def status(self, symbol: str) -> str:
        """How `symbol` fares here: live, rejected, idle (nobody wants it), or as the connection does."""
        if self.refusal(symbol) is not None:
            return "rejected"
        if self.link is not LinkState.CONNECTED:
            return str(self.link.value)
        if symbol in self.subscribed_symbols:
            return "live"
        return "subscribing" if symbol in self.interest.topics else "idle"

    def _turn(self, link: LinkState, reason: str | None) -> None:
        if link is not self.link:
            self.since = self.clock()
        self.link, self.reason = link, reason


def carriers(states: Mapping[str, SourceState]) -> dict[str, list[SourceState]]:
    """Every configured symbol, in alphabetical order, with the sources that carry it, in that of the
    configuration."""
    found: dict[str, list[SourceState]] = {}
    for state in states.values():
        for symbol in state.settings.symbols:
            found.setdefault(symbol, []).append(state)
    return dict(sorted(found.items()))
