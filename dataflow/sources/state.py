"""The state of each source, for notices to clients, for operators and for metrics.

Rules of this file. A source is lost once and restored once, however often its connector tries in between:
notices follow the state, not the attempts. A source that has never connected is no special case. This state
outlives the incarnations of the connector. A refusal concerns the subscribers of the symbol at that time. It
is announced once, and forgotten when the last of them is gone.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from enum import Enum
from types import MappingProxyType

from attrs import define, field

from actors.connector import Interest
from dataflow.domain.secrets import concealed
from dataflow.domain.symbols import ANY

from .port import AnySourceSettings, SourceSettings
from .vitals import Vitals

REMOVED = "removed from the configuration"  # reasons of an end that the operator wants
CHANGED = "configured anew"


class LinkState(Enum):
    """The state of the connection to a source."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    LOST = "lost"


class Audience:
    """Receives the changes. Every method is called synchronously and must not raise."""

    def connected(self, source: str, address: str, symbols: Collection[str]) -> None:
        """For the first time, and it was not lost before."""

    def lost(self, source: str, reason: str, symbols: Collection[str]) -> None: ...
    def restored(self, source: str, symbols: Collection[str]) -> None: ...
    def problem(self, source: str, reason: str, excerpt: str) -> None: ...
    def switched(self, symbol: str, epoch: int, offset: int, before: str, source: str, reason: str) -> None:
        """Behind place `offset` the stream of `symbol` is that of `source`, and no more of `before`."""

    def symbols_changed(self, added: Collection[str], removed: Collection[str]) -> None:
        """Symbols have come, or gone: a source carries them, or none does any more."""


@define
class Delivered:
    """What a source delivered since the start.

    `batches`: the reads that brought trades. `bytes`: all that came. `last_at`: when the newest trade came,
    on the steady clock.
    """

    trades: int = 0
    batches: int = 0
    bytes: int = 0
    last_at: float | None = None


@define(eq=False)
class SourceState:
    """One source: its settings, its wanted symbols and its state. An `actors.connector.Observer`.

    `clock`: wall time, seconds since the epoch. `steady`: seconds of a clock that never jumps, for ages. The
    `reason` of the newest failure stays until the source is connected again. `changed(symbols)` is called
    after each event that may change the status of these symbols. It must not raise, like the audience.
    """

    name: str
    settings: AnySourceSettings
    audience: Audience
    clock: Callable[[], float]
    changed: Callable[[Collection[str]], None] = lambda _symbols: None
    link: LinkState = LinkState.CONNECTING
    since: float = field(init=False)
    reason: str | None = None
    delivered: Delivered = field(factory=Delivered)
    problems: Counter[str] = field(factory=Counter)
    vitals: Vitals = field(factory=Vitals)
    subscribed_symbols: set[str] = field(factory=set)
    # Terms of the interest. Refused: on this connection, with the reason. Told: announced as lost.
    _refused: dict[str, tuple[int | None, str]] = field(factory=dict)
    _told: dict[str, int] = field(factory=dict)
    interest: Interest = field(init=False)
    used: AnySourceSettings | None = None  # by the newest incarnation of the connector
    left_out: frozenset[str] = frozenset()  # symbols that it has, and that are taken from other sources
    steady: Callable[[], float] = time.monotonic
    _discovered: dict[str, None] = field(factory=dict, init=False)  # in the order of their discovery
    _turned_at: float = field(init=False)  # on the steady clock, as the next
    _failed_at: float | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self.since, self._turned_at = self.clock(), self.steady()
        self.interest = Interest(self.symbols if self.settings.eager else ())

    @property
    def symbols(self) -> Sequence[str]:
        """The symbols that it carries: those of its settings, and those that it brought by itself."""
        named = [symbol for symbol in self.settings.symbols if symbol != ANY]
        if len(named) < len(self.settings.symbols):
            named += self._discovered
        return [symbol for symbol in named if symbol not in self.left_out] if self.left_out else named

    def discover(self, symbol: str) -> bool:
        """It brings `symbol`, as its settings allow it to. Returns whether that is news."""
        if symbol in self._discovered or symbol in self.settings.symbols:
            return False
        self._discovered[symbol] = None
        return ANY in self.settings.symbols

    def forget_discovered(self) -> None:
        """It carries what its settings name, and nothing else until that is discovered again."""
        self._discovered.clear()
        self.interest.confine(self.symbols, self.symbols if self.settings.eager else ())

    def connecting(self) -> None:
        """A new attempt begins. Only its result decides whether the source is lost."""
        self.used = self.settings

    def become(self, settings: AnySourceSettings) -> None:
        """Other settings, for the next incarnation of the connector. What happened so far stays."""
        self.settings = settings
        self.interest.confine(self.symbols, self.symbols if settings.eager else ())

    def leave_out(self, symbols: Collection[str]) -> None:
        """These of its symbols are taken from other sources. Idempotent."""
        if self.left_out != frozenset(symbols):
            self.left_out = frozenset(symbols)
            self.interest.confine(self.symbols, self.symbols if self.settings.eager else ())

    def retire(self, reason: str) -> None:
        """It is taken out of service. Its subscribers are told, also if it was lost before."""
        was_lost = self.link is LinkState.LOST
        self.down(reason)
        if was_lost:
            self.audience.lost(self.name, reason, sorted(self.interest.topics))

    @property
    def age(self) -> float:
        """Seconds in its present state."""
        return self.steady() - self._turned_at

    @property
    def failed_ago(self) -> float | None:
        """Seconds since the failure that `reason` tells; None without one."""
        return None if self.reason is None or self._failed_at is None else self.steady() - self._failed_at

    @property
    def silent_for(self) -> float | None:
        """Seconds since its newest trade came; None before the first."""
        last_at = self.delivered.last_at
        return None if last_at is None else self.steady() - last_at

    def received(self, items: int, size: int) -> None:
        delivered = self.delivered
        delivered.bytes += size
        if items:
            delivered.trades += items
            delivered.batches += 1
            delivered.last_at = self.steady()

    def up(self, topics: Collection[str]) -> None:
        before = self.link
        self._turn(LinkState.CONNECTED, None)
        self.changed(self.symbols)
        if before is LinkState.LOST:
            self.audience.restored(self.name, topics)
        elif before is LinkState.CONNECTING and isinstance(self.settings, SourceSettings):
            self.audience.connected(self.name, concealed(self.settings.address), topics)

    def down(self, reason: str) -> None:
        reason = concealed(reason)  # clients are told, and an upstream may repeat what we sent to it
        self.vitals.ended(self.subscribed_symbols)
        self.subscribed_symbols.clear()
        self._refused.clear()
        self.reason, self._failed_at = reason, self.steady()
        if self.link is not LinkState.LOST:
            self._turn(LinkState.LOST, reason)
            self.audience.lost(self.name, reason, sorted(self.interest.topics))
        self.changed(self.symbols)

    def subscribed(self, topic: str) -> None:
        self.subscribed_symbols.add(topic)
        self.vitals.subscribed(topic)
        self._refused.pop(topic, None)
        if self._wanted_since(topic, self._told.pop(topic, None)) and self.link is LinkState.CONNECTED:
            self.audience.restored(self.name, [topic])
        self.changed((topic,))

    def unsubscribed(self, topic: str) -> None:
        self.subscribed_symbols.discard(topic)
        self.vitals.ended((topic,))
        self.changed((topic,))

    def refused(self, topic: str, reason: str) -> None:
        reason = concealed(reason)
        self.problem("rejected", f"{topic}: {reason}")
        term = self.interest.term(topic)
        self._refused[topic] = (term, reason)
        if term is not None and self._told.get(topic) != term:
            self._told[topic] = term
            self.audience.lost(self.name, f"rejected: {reason}", [topic])
        self.changed((topic,))

    @property
    def refused_symbols(self) -> dict[str, str]:
        """The wanted symbols that this source refuses at present, with the reasons."""
        return {symbol: why for symbol in self._refused if (why := self.refusal(symbol)) is not None}

    def refusal(self, symbol: str) -> str | None:
        """Why this source refuses `symbol` at present. None if it does not, or if asking again may help."""
        term, reason = self._refused.get(symbol, (None, None))
        return reason if self._wanted_since(symbol, term) else None

    def _wanted_since(self, symbol: str, term: int | None) -> bool:
        """Whether `symbol` has been wanted without a break since `term`."""
        return term is not None and term == self.interest.term(symbol)

    def problem(self, reason: str, excerpt: str) -> None:
        self.problems[reason] += 1
        self.audience.problem(self.name, reason, excerpt)

    def status(self, symbol: str) -> str:
        """The status of `symbol` here.

        live, subscribing, idle (nobody wants it), rejected, or the state of the connection: connecting, lost.
        """
        if self.refusal(symbol) is not None:
            return "rejected"
        if self.link is not LinkState.CONNECTED:
            return str(self.link.value)
        if symbol in self.subscribed_symbols:
            return "live"
        return "subscribing" if symbol in self.interest.topics else "idle"

    def _turn(self, link: LinkState, reason: str | None) -> None:
        if link is not self.link:
            self.since, self._turned_at = self.clock(), self.steady()
        self.link, self.reason = link, reason


def carriers(
    states: Mapping[str, SourceState], chosen: Mapping[str, Sequence[str]] = MappingProxyType({})
) -> dict[str, list[SourceState]]:
    """Every known symbol with the sources that carry it, in the order of the configuration.

    `chosen`: of some symbols the names of these sources, in their own order.
    """
    found: dict[str, list[SourceState]] = {}
    for state in states.values():
        for symbol in state.symbols:
            found.setdefault(symbol, []).append(state)
    for symbol in chosen.keys() & found.keys():
        found[symbol].sort(key=lambda state: chosen[symbol].index(state.name))
    return found
