"""Keeps one source connected: connect, subscribe, watch, resubscribe.

Rules of this file. There is no retry loop and no sleep: a connection that is lost ends the actor
with `LinkLost`, and its supervisor starts a new incarnation after the backoff. What the topics want
is not a message but a state (`Interest`), compared with what the upstream has acknowledged, so that
no crash can forget a subscription. The source is anything that satisfies `Source`; an exchange's
name does not occur here.

A refusal of several topics at once does not say which of them is meant: they are asked for again in
halves, one request every `Patience.ask_again_every` seconds whatever is refused, until those that are
refused stand alone. Only then is it final, and only for as long as somebody goes on wanting the topic.
What the upstream ends unasked is asked for again in the same way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from itertools import count
from typing import Generic, Protocol, TypeVar

import trio
from attrs import Factory, define, frozen

from supervisors import Context, leaves

T = TypeVar("T")


STOPPED = "stopped"  # the reason when nothing was wrong: the connector was asked to end


class LinkLost(Exception):
    """The connection to the upstream is gone or worthless; reconnecting is what helps."""


@frozen
class Subscribed:
    """The items of `topic` come from here on."""

    topic: str


@frozen
class Unsubscribed:
    """No more items of `topic` come."""

    topic: str


@frozen
class Refused:
    """A request for `topics` was refused; which of them is meant is only known when there is one."""

    topics: tuple[str, ...]
    reason: str


Answer = Subscribed | Unsubscribed | Refused


@define
class Received(Generic[T]):
    """What one read of a link brought, in the order in which it came.

    Items are appended to `items`; answers to our requests are added by the methods, and each remembers
    how many items came before it. `problems` are (reason, excerpt) of messages that could not be used;
    `lost` is why this connection must be given up after this.
    """

    items: list[T] = Factory(list)
    answers: list[tuple[int, Answer]] = Factory(list)
    problems: list[tuple[str, str]] = Factory(list)
    lost: str | None = None

    def subscribed(self, *topics: str) -> None:
        """From here on the upstream sends the items of `topics`."""
        self._answer(map(Subscribed, topics))

    def unsubscribed(self, *topics: str) -> None:
        """From here on it sends no more of them."""
        self._answer(map(Unsubscribed, topics))

    def refused(self, reason: str, *topics: str) -> None:
        """One request for `topics` was refused: none is subscribed, though perhaps only one was wrong."""
        self._answer([Refused(topics, reason)])

    def _answer(self, answers: Iterable[Answer]) -> None:
        self.answers.extend((len(self.items), answer) for answer in answers)


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
        self._holders: dict[str, set[object]] = {}
        self._terms: dict[str, int] = {}
        self._next_term = count()
        self._changed = trio.Event()
        for topic in always:
            self.want(topic, self)

    @property
    def topics(self) -> frozenset[str]:
        return frozenset(self._holders)

    def term(self, topic: str) -> int | None:
        """Which time it is that `topic` is wanted; None when it is not.

        What was learned about a topic in one term does not hold for those who want it in the next.
        """
        return self._terms.get(topic)

    def want(self, topic: str, holder: object) -> None:
        if topic not in self._holders:
            self._holders[topic] = set()
            self._terms[topic] = next(self._next_term)
        self._holders[topic].add(holder)
        self.touch()

    def release(self, topic: str, holder: object) -> None:
        """`holder` no longer wants `topic`; harmless when it never did."""
        holders = self._holders.get(topic, set())
        holders.discard(holder)
        if not holders:
            self._holders.pop(topic, None)
            self._terms.pop(topic, None)
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
    """How long a connection may be silent or owe an answer, and the least time between two requests
    that ask again. Seconds."""

    stale_after: float
    subscribe_within: float
    ask_again_every: float = 0.5


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
        self._leaving = trio.CancelScope()

    async def run(self, ctx: Context) -> None:
        # Ready before connected: an upstream that is down must not keep the tree from starting.
        ctx.ready()
        self._observer.connecting()
        reason = STOPPED
        try:
            await self._keep(ctx)
        except BaseException as error:
            reason = _reason(error)
            raise
        finally:
            self._observer.down(reason)

    async def _keep(self, ctx: Context) -> None:
        """One connection: until it is lost (LinkLost) or the actor is asked to stop (returns)."""
        try:
            async with trio.open_nursery() as nursery:
                # A stop cuts a connection in the making short, but parts from a made one politely.
                self._leaving = nursery.cancel_scope
                nursery.start_soon(self._leave_when_asked, ctx)
                async with self._source.connect() as link:
                    with trio.CancelScope() as self._leaving:
                        await _Conversation(self, link, ctx).hold()
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            raise _foremost(group) from group

    async def _leave_when_asked(self, ctx: Context) -> None:
        await ctx.stopping.wait()
        self._leaving.cancel()


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
        self._refused: dict[str, int | None] = {}  # in which term: asking again in it would not help
        self._again: deque[tuple[str, ...]] = deque()  # what to ask for again, a request each; disjoint
        self._some_again = trio.Event()
        self._up = False
        self._heard = trio.current_time()
        self._probed = float("-inf")
        self._alarm = trio.CancelScope()

    async def hold(self) -> None:
        """Until the connection is lost (LinkLost, in a group)."""
        async with trio.open_nursery() as nursery:
            await self._reconcile()
            nursery.start_soon(self._follow_interest)
            nursery.start_soon(self._ask_again)
            nursery.start_soon(self._watch)
            await self._listen()

    async def _follow_interest(self) -> None:
        while True:
            changed = self._interest.changed()
            await self._reconcile()
            await changed.wait()

    async def _reconcile(self) -> None:
        wanted = self._interest.topics
        for topic in [t for t, term in self._refused.items() if term != self._interest.term(t)]:
            del self._refused[topic]
        known = self._held.union(self._refused, self._asked, *self._again)
        if more := sorted(wanted - known):
            await self._ask(more)
        # What is asked for but unanswered is let go of once its answer has come.
        if fewer := sorted(self._held - wanted):
            self._held.difference_update(fewer)
            await self._link.unsubscribe(fewer)
        self._report_up()

    async def _ask(self, topics: Sequence[str]) -> None:
        overdue = trio.current_time() + self._patience.subscribe_within
        self._asked.update(dict.fromkeys(topics, overdue))
        self._alarm.deadline = min(self._alarm.deadline, overdue)
        await self._link.subscribe(topics)

    async def _ask_again(self) -> None:
        while True:
            await self._some_again.wait()
            missing = self._interest.topics - self._held
            topics = [topic for topic in self._again.popleft() if topic in missing]
            if not self._again:
                self._some_again = trio.Event()
            if topics:
                await self._ask(topics)
                await trio.sleep(self._patience.ask_again_every)
            self._report_up()

    def _put_again(self, *requests: tuple[str, ...]) -> None:
        self._again.extend(requests)
        self._some_again.set()

    async def _listen(self) -> None:
        while True:
            received = await self._link.receive()
            self._heard = trio.current_time()
            self._ctx.beat()
            self._take(received)
            for reason, excerpt in received.problems:
                self._observer.problem(reason, excerpt)
            if received.lost is not None:
                raise LinkLost(received.lost)

    async def _watch(self) -> None:
        """Half-way through a silence ask for a sign of life; at its end, or with an answer overdue, give up.

        Beside the listener and not around each of its reads, which would cost a timer a read.
        """
        while True:
            with trio.CancelScope(deadline=self._next_alarm()) as self._alarm:
                await trio.sleep_forever()
            if self._is_stale or self._late:
                await self._give_up_unless_heard()
            elif trio.current_time() >= self._heard + self._patience.stale_after / 2 > self._probed:
                self._probed = trio.current_time()
                await self._link.probe()

    async def _give_up_unless_heard(self) -> None:
        # After a pause of our own it is not the upstream that was silent: what has come meanwhile is seen by
        # the first checkpoint, and heard by the second.
        heard = self._heard
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
        if self._late:
            raise LinkLost(f"no answer to the subscription of {', '.join(self._late)}")
        if self._is_stale and self._heard == heard:
            raise LinkLost(f"stale: no message for {self._patience.stale_after:g} s")

    @property
    def _is_stale(self) -> bool:
        return trio.current_time() >= self._heard + self._patience.stale_after

    @property
    def _late(self) -> list[str]:
        """The topics whose answer is overdue."""
        now = trio.current_time()
        return sorted(topic for topic, overdue in self._asked.items() if overdue <= now)

    def _next_alarm(self) -> float:
        patience = self._patience.stale_after
        half = self._heard + patience / 2
        return min(self._heard + patience if self._probed >= half else half, self._next_overdue())

    def _next_overdue(self) -> float:
        return min(self._asked.values(), default=float("inf"))

    def _take(self, received: Received[T]) -> None:
        """Items and answers in the order in which they came."""
        taken = 0
        for place, answer in received.answers:
            self._deliver(received.items[taken:place])
            taken = place
            self._take_answer(answer)
        self._deliver(received.items[taken:] if taken else received.items)
        if received.answers:
            self._report_up()
            if self._held - self._interest.topics:
                self._interest.touch()

    def _deliver(self, items: Sequence[T]) -> None:
        if items:
            self._connector._deliver(items)

    def _take_answer(self, answer: Answer) -> None:
        if isinstance(answer, Subscribed):
            self._take_subscribed(answer.topic)
        elif isinstance(answer, Refused):
            self._take_refused(answer.topics, answer.reason)
        else:
            self._take_unsubscribed(answer.topic)

    def _take_subscribed(self, topic: str) -> None:
        self._asked.pop(topic, None)
        self._held.add(topic)
        if (mark := self._connector._missed(topic)) is not None:
            self._deliver([mark])
        self._observer.subscribed(topic)

    def _take_unsubscribed(self, topic: str) -> None:
        if topic in self._held:  # nobody asked for it: what we let go of is no longer held
            self._held.remove(topic)
            self._put_again((topic,))
        self._observer.unsubscribed(topic)

    def _take_refused(self, topics: tuple[str, ...], reason: str) -> None:
        for topic in topics:
            self._asked.pop(topic, None)
        if len(topics) > 1:
            half = len(topics) // 2
            self._put_again(topics[:half], topics[half:])
            return
        for topic in topics:
            self._refused[topic] = self._interest.term(topic)
            self._observer.refused(topic, reason)

    def _report_up(self) -> None:
        if not self._up and not self._asked and not self._again:
            self._up = True
            self._observer.up(sorted(self._held))


def _foremost(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one failure that a reader of the log wants: anything unexpected before a lost link."""
    errors = list(leaves(group))
    unexpected = [e for e in errors if not isinstance(e, LinkLost | trio.Cancelled)]
    return (unexpected or [e for e in errors if isinstance(e, LinkLost)] or errors)[0]
