"""The state of each source and of its lines, for notices to clients, for operators and for metrics.

Rules of this file. A source is lost once and restored once, however often its connectors try in between:
notices follow the state, not the attempts. A source that has never connected is no special case. This state
outlives the incarnations of the connectors. A refusal concerns the subscribers of the symbol at that time. It
is announced once, and forgotten when the last of them is gone.

A symbol is lost when no line carries it any more. A line that subscribes to what another one carries leaves
no mark: nothing can be missing, if that other line is alive. It proves that by the next message. If it is
lost before, the mark is delivered then.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from enum import Enum
from math import inf
from random import Random
from types import MappingProxyType
from typing import Final

import trio
from attrs import define, evolve, field

from actors.connector import STOPPED
from dataflow.domain import Item, Missed
from dataflow.domain.secrets import concealed
from dataflow.domain.symbols import ANY
from dataflow.net.pace import Pace

from .breaker import Breaker, Circuit
from .excerpts import Excerpts
from .port import AnySourceSettings, ProducerSettings, SourceSettings
from .shares import Division
from .vitals import Vitals

FAILURES: Final = 5  # attempts to connect in a row that open the circuit of a source
REMOVED = "removed from the configuration"  # reasons of an end that the operator wants
CHANGED = "configured anew"
LISTENING = "listening"

KEPT: Final = 50_000  # items that a new line keeps back at most; some seconds of a busy exchange
_PROOF: Final = 2  # reads: the first may be the one that brought the last answer
_STEADY: Final = 1.0  # seconds: of a connection that is no sooner told that it will end
_JITTER: Final = 0.1  # of `rotate_after`: connections that were made together are not renewed together


class LinkState(Enum):
    """The state of the connection to a source."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    LOST = "lost"


_WORST_FIRST: Final = (LinkState.LOST, LinkState.CONNECTED, LinkState.CONNECTING)


class Audience:
    """Receives the changes. Every method is called synchronously and must not raise."""

    def connected(self, source: str, address: str, symbols: Collection[str]) -> None:
        """For the first time, and it was not lost before."""

    def lost(self, source: str, reason: str, symbols: Collection[str]) -> None: ...
    def restored(self, source: str, symbols: Collection[str], away: float) -> None:
        """After `away` seconds."""

    def refused(self, source: str, symbol: str, reason: str) -> None:
        """The upstream does not give this symbol; the connection is as it was."""

    def accepted(self, source: str, symbol: str) -> None:
        """It gives this symbol after all."""

    def stalled(self, source: str, symbol: str, reason: str) -> None: ...
    def recovered(self, source: str, symbol: str) -> None:
        """A stalled symbol lives again."""

    def renumbered(self, source: str, symbol: str) -> None:
        """Its trades are numbered anew from now on: what was missing before cannot be had."""

    def problem(self, source: str, reason: str, excerpt: str) -> None: ...
    def given_rest(self, source: str, failures: int, seconds: float) -> None:
        """So many attempts to connect have failed in a row: one is made every so many seconds from now on."""

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
class Line:
    """One connection to a source: what it carries, and how it fares. An `actors.connector.Observer`.

    It carries the symbols of one share of the interest. `replaces`: the line whose place it takes once it is
    proven, and not before. `is_over`: nobody wants it any more, so it parts. `announced`: the words of an
    upstream that will hang up. `rotate_at`: when it is old, on the steady clock.
    """

    source: SourceState
    number: int
    share: int = 1
    replaces: Line | None = None
    is_over: bool = False
    link: LinkState = LinkState.CONNECTING
    reason: str | None = None
    symbols: set[str] = field(factory=set)  # acknowledged
    refused_in: dict[str, tuple[int | None, str]] = field(factory=dict)  # symbol -> term of the interest, why
    announced: str | None = None
    rotate_at: float = inf
    trades: int = 0  # that it brought
    pace: Pace | None = None  # of the messages to the upstream, on its newest connection
    _turned_at: float = field(init=False)
    _is_trying: bool = field(default=False, init=False)  # to connect
    # The marks that other lines left out, because this one carries the symbols without a break.
    vouched: dict[str, Missed] = field(factory=dict)
    _unproven: int = field(default=0, init=False)  # reads that must still come until it is proven
    # What it brought while the line whose place it takes goes on; None: nothing is kept back.
    _kept: list[Item] | None = field(default=None, init=False)
    _follows: Line | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._turned_at = self.source.steady()
        self._follows = self.replaces
        self._kept = None if self.replaces is None else []

    def bring(self, items: Sequence[Item]) -> None:
        """Deliver `items`; while the line whose place it takes goes on, keep them back, in order.

        Else it could be ahead of that one, and trades would seem to be missing.
        """
        if self._kept is None:
            self.source.deliver(items)
            return
        self._kept += items
        if len(self._kept) > KEPT:
            self._release()

    def _release(self) -> None:
        kept, self._kept, self._follows = self._kept, None, None
        if kept:
            self.source.deliver(kept)

    def paced(self, pace: Pace) -> None:
        """Its newest connection has this pace."""
        self.pace = pace

    @property
    def age(self) -> float:
        """Seconds in its present state."""
        return self.source.steady() - self._turned_at

    @property
    def is_proven(self) -> bool:
        """Whether it is connected, every request has its answer, and something has come since."""
        return self.link is LinkState.CONNECTED and not self._unproven

    def is_due(self, now: float) -> bool:
        """Whether another one should take its place: its end was announced, or it is old."""
        return self.link is LinkState.CONNECTED and (self.announced is not None or now >= self.rotate_at)

    def connecting(self) -> None:
        """A new attempt begins. Only its result decides whether the line is lost."""
        self.source.used = self.source.settings
        self._is_trying = True

    def waiting(self, seconds: float) -> None:
        """The attempt waits for its turn: the upstream takes only so many connections in a time.

        Where it waits because others have failed, their reason tells more.
        """
        if self.source.breaker.state(self.source.steady()) is not Circuit.CLOSED:
            return
        self.reason = f"waits {seconds:.0f} s for its turn: the upstream takes no more new connections"
        self.source.waits(self)

    def up(self, topics: Collection[str]) -> None:
        if self.link is not LinkState.CONNECTED:
            self._unproven, self.announced = _PROOF, None
            self.rotate_at = self.source.rotation()
        self._is_trying = False
        self.source.breaker.succeeded()
        self._turn(LinkState.CONNECTED, None)
        self.source.turned(self, topics)

    def down(self, reason: str) -> None:
        reason = concealed(reason)  # clients are told, and an upstream may repeat what we sent to it
        for topic in list(self.symbols):
            self._drop(topic)
        self.refused_in.clear()
        self.rotate_at = inf
        if self._is_trying:
            self._is_trying = False
            self.source.tried_in_vain(reason)
        self._turn(LinkState.LOST, reason)
        self.source.turned(self, ())
        vouched, self.vouched = self.vouched, {}
        self.source.unproven(vouched)
        if self._kept is not None:  # the line before it goes on, and brings the same
            self._kept.clear()
        for line in self.source.lines.values():
            if line._follows is self:
                line._release()

    def leaving(self, words: str) -> None:
        """The upstream announced that it will hang up. Sooner than that the usual backoff is right."""
        if self.link is LinkState.CONNECTED and self.age >= _STEADY:
            self.announced = words
            self.source.look_at_lines()

    def subscribed(self, topic: str) -> None:
        self.refused_in.pop(topic, None)
        if topic not in self.symbols:
            self.symbols.add(topic)
            self.source.carried[topic] += 1
        self.source.now_subscribed(topic)

    def unsubscribed(self, topic: str) -> None:
        self._drop(topic)
        self.source.changed((topic,))

    def refused(self, topic: str, reason: str) -> None:
        self._drop(topic)
        self.source.refused_by(self, topic, concealed(reason))

    def problem(self, reason: str, excerpt: str) -> None:
        self.source.problem(reason, excerpt)

    def received(self, items: int, size: int) -> None:
        self.trades += items
        self.source.received(items, size)
        if self._unproven or self.vouched:
            self._heard()

    def parted(self) -> None:
        self._heard()

    def mark(self, make: Callable[[str], Missed | None], topic: str) -> Missed | None:
        """The mark for a possible hole in a topic that was just subscribed here; `make` makes it.

        None if another line carries the topic, and has done so all the time. That is known when it is heard
        again; if it is lost before, the mark is delivered after all.
        """
        mark = make(topic)
        if mark is None:
            return None
        witnesses = [
            line for line in self.source.lines.values() if line is not self and topic in line.symbols
        ]
        for line in witnesses:
            line.vouched[topic] = mark
        return None if witnesses else mark

    def _heard(self) -> None:
        for topic in list(self.vouched):
            self.source.proven(topic)
        if self._unproven and self.link is LinkState.CONNECTED:
            self._unproven -= 1
            if not self._unproven:
                self.source.look_at_lines()

    def _drop(self, topic: str) -> None:
        if topic in self.symbols:
            self.symbols.discard(topic)
            self.source.carried[topic] -= 1
            if not self.source.carried[topic]:
                del self.source.carried[topic]
                self.source.vitals.ended((topic,))

    def _turn(self, link: LinkState, reason: str | None) -> None:
        if link is not self.link:
            self._turned_at = self.source.steady()
        self.link, self.reason = link, reason


@define(eq=False)
class SourceState:
    """One source: its settings, its wanted symbols, and the state of its lines together.

    `clock`: wall time, seconds since the epoch. `steady`: seconds of a clock that never jumps, for ages. The
    `reason` of the newest failure stays until the source is connected again. `changed(symbols)` is called
    after each event that may change the status of these symbols. It must not raise, like the audience.
    `deliver(items)` puts marks into the stream. `dice`: for the moments of rotation.

    A share of the symbols is connected while one of its lines is. The source is lost while a share is, else
    connected while one is. Its own `up`, `down`, `subscribed` and so on are for a source that has one
    connection, or none: of those that producers push to, line 1 stands for all.
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
    producers: int = 0  # that are there now
    renumbered: int = 0  # how often it has numbered a symbol anew
    problems: Counter[str] = field(factory=Counter)
    vitals: Vitals = field(factory=Vitals)
    unusable: Excerpts = field(factory=Excerpts)  # the newest ones
    carried: Counter[str] = field(factory=Counter)  # by how many lines
    interest: Division = field(init=False)
    used: AnySourceSettings | None = None  # by the newest incarnation of a connector
    breaker: Breaker = field(factory=lambda: Breaker(FAILURES, 16.0))  # of attempts to connect
    left_out: frozenset[str] = frozenset()  # symbols that it has, and that are taken from other sources
    steady: Callable[[], float] = time.monotonic
    deliver: Callable[[Sequence[Item]], None] = lambda _items: None
    dice: Random = field(factory=Random)
    lines: dict[int, Line] = field(init=False)
    _shares: dict[int, LinkState] = field(factory=dict, init=False)  # as they were told
    _lost_at: dict[int, float] = field(factory=dict, init=False)  # of shares that are lost, steady clock
    _stalled: set[str] = field(factory=set, init=False)  # symbols of which that was told
    _told: dict[str, int] = field(factory=dict, init=False)  # terms in which a refusal was announced
    _discovered: dict[str, None] = field(factory=dict, init=False)  # in the order of their discovery
    _turned_at: float = field(init=False)  # on the steady clock, as the next
    _failed_at: float | None = field(default=None, init=False)
    _news_of_lines: trio.Event = field(factory=trio.Event, init=False)

    def __attrs_post_init__(self) -> None:
        self.since, self._turned_at = self.clock(), self.steady()
        always = self.symbols if self.settings.eager else ()
        self.interest = Division(room(self.settings), always, self.look_at_lines)
        self.lines = {1: Line(self, 1)}

    @property
    def symbols(self) -> Sequence[str]:
        """The symbols that it carries: those of its settings, and those that it brought by itself."""
        named = [symbol for symbol in self.settings.symbols if symbol != ANY]
        if len(named) < len(self.settings.symbols):
            named += self._discovered
        return [symbol for symbol in named if symbol not in self.left_out] if self.left_out else named

    @property
    def subscribed_symbols(self) -> Set[str]:
        """The symbols that a line carries."""
        return self.carried.keys()

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

    def become(self, settings: AnySourceSettings) -> None:
        """Other settings, for the next incarnation of the connectors. What happened so far stays."""
        self.settings = settings
        self.interest.confine(self.symbols, self.symbols if settings.eager else ())
        self.interest.divide(room(settings))
        self.look_at_lines()

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
    def circuit(self) -> Circuit:
        """Whether it may be connected to: open after several attempts in a row that failed."""
        return self.breaker.state(self.steady())

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

    def connecting(self) -> None:
        self.lines[1].connecting()

    def up(self, topics: Collection[str]) -> None:
        self.lines[1].up(topics)

    def down(self, reason: str) -> None:
        """All of its lines are lost."""
        for line in self.lines.values():
            line.down(reason)

    def subscribed(self, topic: str) -> None:
        self.lines[1].subscribed(topic)

    def unsubscribed(self, topic: str) -> None:
        self.lines[1].unsubscribed(topic)

    def refused(self, topic: str, reason: str) -> None:
        self.lines[1].refused(topic, reason)

    @property
    def refused_symbols(self) -> dict[str, str]:
        """The wanted symbols that this source refuses at present, with the reasons."""
        refused = {symbol for line in self.lines.values() for symbol in line.refused_in}
        return {symbol: why for symbol in sorted(refused) if (why := self.refusal(symbol)) is not None}

    def refusal(self, symbol: str) -> str | None:
        """Why this source refuses `symbol` at present. None if it does not, or if asking again may help."""
        if symbol in self.carried:
            return None
        for line in self.lines.values():
            term, reason = line.refused_in.get(symbol, (None, None))
            if self._wanted_since(symbol, term):
                return reason
        return None

    def _wanted_since(self, symbol: str, term: int | None) -> bool:
        """Whether `symbol` has been wanted without a break since `term`."""
        return term is not None and term == self.interest.term(symbol)

    def problem(self, reason: str, excerpt: str) -> None:
        self.problems[reason] += 1
        self.unusable.add(reason, excerpt, self.clock())
        self.audience.problem(self.name, reason, excerpt)

    def renumbered_by(self, symbol: str) -> None:
        """It numbers `symbol` anew: that was proven."""
        self.renumbered += 1
        self.audience.renumbered(self.name, symbol)

    def stalls(self, symbol: str, reason: str | None) -> None:
        """`symbol` is stalled for this reason; None: it is not. Told when that is news."""
        if reason is not None and symbol not in self._stalled:
            self._stalled.add(symbol)
            self.audience.stalled(self.name, symbol, reason)
        elif reason is None and symbol in self._stalled:
            self._stalled.discard(symbol)
            self.audience.recovered(self.name, symbol)

    def attended(self, producers: int) -> None:
        """So many producers are there now."""
        was_deserted, self.producers = self.is_deserted, producers
        if self.is_deserted is not was_deserted:
            self.changed(self.symbols)

    @property
    def listens(self) -> bool:
        """Whether producers connect to us."""
        return isinstance(self.settings, ProducerSettings)

    @property
    def is_deserted(self) -> bool:
        """Whether it waits for producers, and none is there."""
        return self.listens and not self.producers

    @property
    def shown(self) -> str:
        """The state of its connection in a word: connecting, connected or lost; listening where producers
        connect to us, however many are there."""
        return LISTENING if self.listens and self.link is LinkState.CONNECTED else self.link.value

    def status(self, symbol: str) -> str:
        """The status of `symbol` here.

        live, subscribing, idle (nobody wants it), rejected, or the state of the connection: connecting, lost.
        """
        if self.refusal(symbol) is not None:
            return "rejected"
        link = self._link_of(symbol)
        if link is not LinkState.CONNECTED:
            return str(link.value)
        if symbol in self.carried:
            return "live"
        return "idle" if self.interest.term(symbol) is None else "subscribing"

    # -- what lines tell

    def turned(self, line: Line, topics: Collection[str]) -> None:
        """A line is up, with `topics`, or down. Clients are told of its share, not of the line."""
        if self.lines.get(line.number) is not line:
            return
        share = line.share
        if share not in self.interest.parts:  # nobody wants anything of it any more
            self._let_go_of(share)
            self.changed(self._turn(share))
            return
        before = self._shares.get(share, LinkState.CONNECTING)
        now = self._shares[share] = self._link_of_share(share, before)
        if LinkState.LOST is now is line.link:
            self.reason, self._failed_at = line.reason, self.steady()
        concerned = self._turn(share)
        if now is LinkState.LOST and before is not now:
            self._lost_at[share] = self.steady()
            self.audience.lost(self.name, line.reason or "", sorted(self._wanted_of(share)))
        self.changed(concerned)
        if now is LinkState.CONNECTED and before is LinkState.LOST:
            away = self.steady() - self._lost_at.pop(share, self.steady())
            self.audience.restored(self.name, topics, away)
        elif now is LinkState.CONNECTED is not before and isinstance(self.settings, SourceSettings):
            self.audience.connected(self.name, concealed(self.settings.address), topics)
        self.look_at_lines()

    def waits(self, line: Line) -> None:
        """A line waits for its turn to connect."""
        if self.lines.get(line.number) is line and self._shares.get(line.share) is not LinkState.CONNECTED:
            self.reason, self._failed_at = line.reason, self.steady()
            self.changed(self._wanted_of(line.share))

    def now_subscribed(self, topic: str) -> None:
        """A line carries `topic` from now on."""
        self.vitals.subscribed(topic)
        told = self._told.pop(topic, None)
        if self._wanted_since(topic, told) and self._link_of(topic) is LinkState.CONNECTED:
            self.audience.accepted(self.name, topic)
        self.changed((topic,))

    def refused_by(self, line: Line, topic: str, reason: str) -> None:
        """The upstream refused `topic` on a line."""
        self.problem("rejected", f"{topic}: {reason}")
        term = self.interest.term(topic)
        line.refused_in[topic] = (term, reason)
        if term is not None and self._told.get(topic) != term and topic not in self.carried:
            self._told[topic] = term
            self.audience.refused(self.name, topic, reason)
        self.changed((topic,))

    def proven(self, topic: str) -> None:
        """A line has carried `topic` all the time, and no mark is needed."""
        for line in self.lines.values():
            line.vouched.pop(topic, None)

    def unproven(self, vouched: Mapping[str, Missed]) -> None:
        """A line is lost before it was heard again: these marks are needed, unless another line vouches."""
        known = {topic for line in self.lines.values() for topic in line.vouched}
        # It comes behind what the new subscription began with, so nothing that was repeated takes it back.
        marks = [evolve(mark, resubscribed=False) for topic, mark in vouched.items() if topic not in known]
        if marks:
            self.deliver(marks)

    def tried_in_vain(self, reason: str) -> None:
        """An attempt to connect has ended before anything came of it."""
        breaker, now = self.breaker, self.steady()
        if reason in (STOPPED, REMOVED, CHANGED):
            breaker.given_up()
            return
        before = breaker.opened
        breaker.failed(now)
        if breaker.opened > before and breaker.failures == breaker.after:
            self.audience.given_rest(self.name, breaker.failures, breaker.seconds)

    # -- which lines there are; see `lines`

    @property
    def standing(self) -> list[Line]:
        """The lines that are not over."""
        return [line for line in self.lines.values() if not line.is_over]

    def news_of_lines(self) -> trio.Event:
        """An event that the next change after this call sets."""
        return self._news_of_lines

    def look_at_lines(self) -> None:
        """Wake the keeper of the lines."""
        self._news_of_lines.set()
        self._news_of_lines = trio.Event()

    def rotation(self) -> float:
        """When a line that connects now will be old, on the steady clock."""
        after = self.settings.rotate_after if isinstance(self.settings, SourceSettings) else 0
        return self.steady() + after * self.dice.uniform(1 - _JITTER, 1 + _JITTER) if after else inf

    def forget(self, line: Line) -> None:
        """A line that is over has ended."""
        line.down(STOPPED)
        if self.lines.get(line.number) is line:
            del self.lines[line.number]
        if all(each.share != line.share for each in self.lines.values()):
            self._let_go_of(line.share)
            self.changed(self._turn(line.share))
        self.look_at_lines()

    def _let_go_of(self, share: int) -> None:
        self._shares.pop(share, None)
        self._lost_at.pop(share, None)

    def _link_of(self, symbol: str) -> LinkState:
        share = self.interest.part_of(symbol)
        return self.link if share is None else self._shares.get(share, LinkState.CONNECTING)

    def _link_of_share(self, share: int, before: LinkState) -> LinkState:
        links = {line.link for line in self.lines.values() if line.share == share}
        if LinkState.CONNECTED in links:
            return LinkState.CONNECTED
        known = LinkState.LOST in links or before is not LinkState.CONNECTING
        return LinkState.LOST if known else LinkState.CONNECTING

    def _wanted_of(self, share: int) -> Collection[str]:
        part = self.interest.parts.get(share)
        return () if part is None else part.topics

    def _turn(self, share: int) -> Collection[str]:
        """Follow the shares, one of which may have changed. Returns the symbols that this may concern."""
        links = self._shares.values()
        link = next((link for link in _WORST_FIRST if link in links), LinkState.CONNECTING)
        has_turned = link is not self.link
        if has_turned:
            self.since, self._turned_at = self.clock(), self.steady()
        self.link = link
        if link is LinkState.CONNECTED:
            self.reason = None
        return self.symbols if has_turned or len(links) <= 1 else self._wanted_of(share)


def room(settings: AnySourceSettings) -> int:
    """The number of symbols that one line may carry. Questions by HTTP are about one symbol each: more lines
    would only ask more often than their pace allows."""
    if isinstance(settings, SourceSettings) and settings.transport == "websocket":
        return settings.symbols_a_connection
    return sys.maxsize


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
