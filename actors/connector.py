"""Keeps one source connected: connect, subscribe, watch, resubscribe.

Rules of this file. There is no retry loop and no sleep: a connection that is lost ends the actor
with `LinkLost`, and its supervisor starts a new incarnation after the backoff. What the topics want
is not a message but a state (`Interest`), compared with what the upstream has acknowledged, so that
no crash can forget a subscription. The source is anything that satisfies `Source`; an exchange's
name does not occur here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Generic, Protocol, TypeVar

import trio
from attrs import Factory, define

from supervisors import Context

T = TypeVar("T")


STOPPED = "stopped"  # the reason when nothing was wrong: the connector was asked to end


class LinkLost(Exception):
    """The connection to the upstream is gone or worthless; reconnecting is what helps."""


@define
class Received(Generic[T]):
    """What one read of a link brought, in the order in which it came.

    `subscribed`, `unsubscribed` and `refused` answer our requests; `problems` are (reason, excerpt)
    of messages that could not be used; `lost` is why this connection must be given up after this.
    """

    items: list[T] = Factory(list)
    subscribed: list[str] = Factory(list)
    unsubscribed: list[str] = Factory(list)
    refused: list[tuple[str, str]] = Factory(list)
    problems: list[tuple[str, str]] = Factory(list)
    lost: str | None = None


class Link(Protocol[T]):
    """One live connection to an upstream."""

    async def receive(self) -> Received[T]:
        """Everything that is waiting, at least one message. Cancelling it loses nothing. Raises LinkLost."""

    async def subscribe(self, topics: Collection[str]) -> None:
        """Ask for topics; the answer comes through `receive`. Raises LinkLost."""

    async def unsubscribe(self, topics: Collection[str]) -> None:
        """Ask for their end. Raises LinkLost."""

    async def probe(self) -> None:
        """Provoke a sign of life where the upstream sends none by itself. Raises LinkLost."""


class Source(Protocol[T]):
    """An upstream that can be connected to, again and again."""

    def connect(self) -> AbstractAsyncContextManager[Link[T]]:
        """A fresh connection; entering raises LinkLost when there is none to be had."""


class Observer(Protocol):
    """Who is told how the source fares. Called synchronously; must not raise."""

    def connecting(self) -> None: ...
    def up(self, topics: Collection[str]) -> None:
        """Connected, and every wanted topic was answered."""

    def down(self, reason: str) -> None: ...
    def subscribed(self, topic: str) -> None: ...
    def unsubscribed(self, topic: str) -> None: ...
    def refused(self, topic: str, reason: str) -> None: ...
    def problem(self, reason: str, excerpt: str) -> None: ...


class Interest:
    """The topics that somebody wants from one source: state that outlives every actor.

    Several parties may want one topic; it is wanted until the last of them let go.
    """

    def __init__(self, always: Iterable[str] = ()) -> None:
        self._holders: dict[str, set[object]] = {topic: {self} for topic in always}
        self._changed = trio.Event()

    @property
    def topics(self) -> frozenset[str]:
        return frozenset(self._holders)

    def want(self, topic: str, holder: object) -> None:
        self._holders.setdefault(topic, set()).add(holder)
        self.touch()

    def release(self, topic: str, holder: object) -> None:
        """`holder` no longer wants `topic`; harmless when it never did."""
        holders = self._holders.get(topic, set())
        holders.discard(holder)
        if not holders:
            self._holders.pop(topic, None)
            self.touch()

    def changed(self) -> trio.Event:
        """An event that is set at the next change after this call."""
        return self._changed

    def touch(self) -> None:
        """Have whoever follows this interest compare again."""
        self._changed.set()
        self._changed = trio.Event()


@define
class Patience:
    """How long a connection may be silent or owe an answer, in seconds."""

    stale_after: float
    subscribe_within: float


class Connector(Generic[T]):
    """The actor that keeps one source connected. `deliver` takes items in order and never waits;
    `missed(topic)` makes the item that marks a possible hole in a topic that was just subscribed."""

    def __init__(
        self,
        source: Source[T],
        interest: Interest,
        deliver: Callable[[Sequence[T]], None],
        missed: Callable[[str], T | None],
        observer: Observer,
        patience: Patience,
    ) -> None:
        self._source = source
        self._interest = interest
        self._deliver = deliver
        self._missed = missed
        self._observer = observer
        self._patience = patience

    async def run(self, ctx: Context) -> None:
        # Ready before connected: an upstream that is down must not keep the tree from starting.
        ctx.ready()
        self._observer.connecting()
        reason = STOPPED
        try:
            async with self._source.connect() as link:
                await _Conversation(self, link, ctx).hold()
        except BaseException as error:
            reason = _reason(error)
            raise
        finally:
            self._observer.down(reason)


def _reason(error: BaseException) -> str:
    if isinstance(error, LinkLost):
        return str(error)
    if isinstance(error, trio.Cancelled):
        return STOPPED
    return f"internal error: {type(error).__name__}"


class _Conversation(Generic[T]):
    """What is known about one connection: which topics are asked for, and which are answered."""

    def __init__(self, connector: Connector[T], link: Link[T], ctx: Context) -> None:
        self._connector = connector
        self._observer = connector._observer
        self._interest = connector._interest
        self._patience = connector._patience
        self._link = link
        self._ctx = ctx
        self._asked: dict[str, float] = {}  # topic -> when its answer is overdue
        self._held: set[str] = set()  # acknowledged
        self._refused: set[str] = set()  # asking again on this connection would not help
        self._up = False

    async def hold(self) -> None:
        """Until the connection is lost (LinkLost) or the actor is asked to stop (returns)."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._stop_when_asked, nursery.cancel_scope)
                await self._reconcile()
                nursery.start_soon(self._follow_interest)
                await self._listen()
        except BaseExceptionGroup as group:
            raise _foremost(group) from group

    async def _stop_when_asked(self, scope: trio.CancelScope) -> None:
        await self._ctx.stopping.wait()
        scope.cancel()

    async def _follow_interest(self) -> None:
        while True:
            changed = self._interest.changed()
            await self._reconcile()
            await changed.wait()

    async def _reconcile(self) -> None:
        wanted = self._interest.topics
        self._refused &= wanted
        known = self._held | self._refused | self._asked.keys()
        if more := sorted(wanted - known):
            overdue = trio.current_time() + self._patience.subscribe_within
            self._asked.update(dict.fromkeys(more, overdue))
            await self._link.subscribe(more)
        # What is asked for but unanswered is let go of once its answer has come.
        if fewer := sorted(self._held - wanted):
            self._held.difference_update(fewer)
            await self._link.unsubscribe(fewer)
        self._report_up()

    async def _listen(self) -> None:
        while True:
            received = await self._receive()
            self._ctx.beat()
            self._take_answers(received)
            if received.items:
                self._connector._deliver(received.items)
            for reason, excerpt in received.problems:
                self._observer.problem(reason, excerpt)
            if received.lost is not None:
                raise LinkLost(received.lost)

    async def _receive(self) -> Received[T]:
        """The next read; half-way through a silence the upstream is asked for a sign of life."""
        silent_since = trio.current_time()
        with trio.move_on_at(min(silent_since + self._patience.stale_after / 2, self._next_overdue())):
            return await self._link.receive()
        self._check_overdue()
        await self._link.probe()
        with trio.move_on_at(min(silent_since + self._patience.stale_after, self._next_overdue())):
            return await self._link.receive()
        self._check_overdue()
        raise LinkLost(f"stale: no message for {self._patience.stale_after:g} s")

    def _next_overdue(self) -> float:
        return min(self._asked.values(), default=float("inf"))

    def _check_overdue(self) -> None:
        now = trio.current_time()
        late = sorted(topic for topic, overdue in self._asked.items() if overdue <= now)
        if late:
            raise LinkLost(f"no answer to the subscription of {', '.join(late)}")

    def _take_answers(self, received: Received[T]) -> None:
        for topic in received.subscribed:
            self._asked.pop(topic, None)
            self._held.add(topic)
            if (mark := self._connector._missed(topic)) is not None:
                self._connector._deliver([mark])
            self._observer.subscribed(topic)
        for topic, reason in received.refused:
            self._asked.pop(topic, None)
            self._refused.add(topic)
            self._observer.refused(topic, reason)
        for topic in received.unsubscribed:
            self._observer.unsubscribed(topic)
        if received.subscribed or received.refused:
            self._report_up()
            if self._held - self._interest.topics:
                self._interest.touch()

    def _report_up(self) -> None:
        if not self._up and not self._asked:
            self._up = True
            self._observer.up(sorted(self._held))


def _foremost(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one failure that a reader of the log wants: anything unexpected before a lost link."""
    leaves = list(_leaves(group))
    unexpected = [e for e in leaves if not isinstance(e, LinkLost | trio.Cancelled)]
    return (unexpected or [e for e in leaves if isinstance(e, LinkLost)] or leaves)[0]


def _leaves(error: BaseException) -> Iterable[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
