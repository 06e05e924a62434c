"""Keeps one source connected: connect, subscribe, watch, resubscribe.

Rules of this file. There is no loop that reconnects, and no sleep before an attempt: a lost connection ends
the actor with `LinkLost`, and its supervisor starts a new incarnation after the backoff. The wanted topics
are not messages but a state, `Interest`. The actor compares it with the acknowledged subscriptions, so no
crash can forget one. The source is any object that satisfies `Source`. No exchange is named here.

One task says everything, one request at a time. It waits for the turn of a request first (`Link.turn`), and
only then looks at what is wanted. So wishes that come while it waits share one request, and a wish that was
taken back meanwhile is never sent. Time before its turn does not count for the answer of a request.

A refusal of several topics at once does not say which of them it means. The actor asks again for each half,
with one request every `Patience.ask_again_every` seconds, until each refusal concerns one topic. Only such a
refusal is final, and only while the topic stays wanted. If the upstream ends a subscription by itself, the
actor asks again in the same way.

A message that cannot be used is no sign of life. An upstream that announces its end is listened to until it
hangs up. An actor that must stop says goodbye, and takes what was sent before the answer to that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from itertools import count
from typing import Generic, Protocol, TypeVar

import trio
from attrs import Factory, define, frozen

from supervisors import Context, TryAgain, leaves

T = TypeVar("T")


STOPPED = "stopped"  # the reason of an orderly stop
_BUSY = 0.25  # of `subscribe_within`
_LONGEST = 6  # times `subscribe_within`
_STEADY = 1.0  # seconds: for an upstream that announces its end sooner, the usual backoff prevents a storm
_BEAT = 5.0  # seconds between two signs of progress in a long wait
_ANSWER_WITHIN = 3.0  # seconds for the last answer
_PART_WITHIN = 2.0  # seconds in which we read on after our goodbye ...
_PART_SILENCE = 0.5  # ... and without a message


class LinkLost(TryAgain):
    """The connection to the upstream is gone or useless. A new connection may help."""


@frozen
class Subscribed:
    """Items of `topic` come from here on."""

    topic: str


@frozen
class Unsubscribed:
    """No more items of `topic` come."""

    topic: str


@frozen
class Refused:
    """A request for `topics` was refused. With several topics, it is unknown which of them it means."""

    topics: tuple[str, ...]
    reason: str


Answer = Subscribed | Unsubscribed | Refused


@frozen
class Renewal:
    """A wish that `topic` be subscribed anew, or that its connection be made anew, for `reason`.

    `number` grows from wish to wish.
    """

    number: int
    topic: str
    reason: str | None


@define
class Received(Generic[T]):
    """The result of one read of a link, in the order of arrival.

    Append items to `items`. The methods add answers to our requests; each answer remembers the number of
    items before it. `problems`: (reason, excerpt) of unusable messages. `lost`: the reason why this
    connection must be given up after this read, else None. `leaving`: the words of an upstream that announces
    its end, else None. `size`: the bytes that came for it. `messages`: how many there were, if that is known.
    """

    items: list[T] = Factory(list)
    answers: list[tuple[int, Answer]] = Factory(list)
    problems: list[tuple[str, str]] = Factory(list)
    lost: str | None = None
    size: int = 0
    leaving: str | None = None
    messages: int = 0

    @property
    def makes_sense(self) -> bool:
        """Whether anything in it could be used."""
        return not self.problems or bool(self.items or self.answers) or self.messages > len(self.problems)

    def subscribed(self, *topics: str) -> None:
        """The upstream sends items of `topics` from here on."""
        self._answer(map(Subscribed, topics))

    def unsubscribed(self, *topics: str) -> None:
        """The upstream sends no more items of `topics`."""
        self._answer(map(Unsubscribed, topics))

    def refused(self, reason: str, *topics: str) -> None:
        """One request for `topics` was refused. None is subscribed, though perhaps only one was wrong."""
        self._answer([Refused(topics, reason)])

    def _answer(self, answers: Iterable[Answer]) -> None:
        self.answers.extend((len(self.items), answer) for answer in answers)


class Link(Protocol[T]):
    """One live connection to an upstream."""

    async def receive(self) -> Received[T]:
        """All waiting messages, at least one. Cancelling it loses nothing. Raises LinkLost."""

    async def turn(self) -> int:
        """Wait until the upstream takes one more request. Returns how many topics it may name."""

    async def subscribe(self, topics: Collection[str]) -> None:
        """Ask to subscribe to topics. The answer comes through `receive`. Raises LinkLost."""

    async def unsubscribe(self, topics: Collection[str]) -> None:
        """Ask to unsubscribe from topics. Raises LinkLost."""

    async def probe(self) -> None:
        """Provoke a sign of life, if the upstream sends none by itself. Raises LinkLost."""

    async def part(self) -> None:
        """Say goodbye. `receive` goes on until the other side has ended too. Raises LinkLost."""


class Source(Protocol[T]):
    """An upstream. It can be connected to any number of times."""

    def connect(self) -> AbstractAsyncContextManager[Link[T]]:
        """A fresh connection. Entering raises LinkLost if there is none."""


class Observer(Protocol):
    """Is told about the state of the source. Called synchronously; must not raise."""

    def connecting(self) -> None: ...
    def waiting(self, seconds: float) -> None:
        """The attempt waits for so long, because the upstream takes only so many in a time."""

    def up(self, topics: Collection[str]) -> None:
        """Connected, and every request has its answer. `topics` are subscribed."""

    def down(self, reason: str) -> None: ...
    def subscribed(self, topic: str) -> None: ...
    def unsubscribed(self, topic: str) -> None: ...
    def refused(self, topic: str, reason: str) -> None: ...
    def problem(self, reason: str, excerpt: str) -> None: ...
    def received(self, items: int, size: int) -> None:
        """A read brought so many items, perhaps none, in `size` bytes."""

    def leaving(self, words: str) -> None:
        """The upstream announced, in these words, that it will hang up."""

    def parted(self) -> None:
        """The upstream ended the connection after our goodbye: all that it sent before has come."""


class Interest:
    """The topics that are wanted from one source. This state outlives every actor.

    A topic may have several holders. It is wanted until the last of them has released it.
    """

    def __init__(self, always: Iterable[str] = ()) -> None:
        self._holders: dict[str, set[object]] = {}
        self._terms: dict[str, int] = {}
        self._next_term = count()
        self._renewals: dict[str, Renewal] = {}  # the newest of each topic
        self._next_renewal = count(1)
        self._changed = trio.Event()
        for topic in always:
            self.want(topic, self)

    @property
    def topics(self) -> frozenset[str]:
        return frozenset(self._holders)

    def term(self, topic: str) -> int | None:
        """The number of the term in which `topic` is wanted; None when it is not wanted.

        A term lasts from the first holder to the last one. A refusal in one term does not count in the next.
        """
        return self._terms.get(topic)

    def renew(self, topic: str, reconnect: str | None = None) -> None:
        """Whoever has subscribed to `topic` shall do so again; or, for the reason `reconnect`, begin a new
        connection. Nothing happens to a topic that is not wanted."""
        if topic in self._holders:
            self._renewals[topic] = Renewal(next(self._next_renewal), topic, reconnect)
            self.touch()

    def renewals(self, after: int) -> list[Renewal]:
        """The newest wish for each topic, behind the one with the number `after`."""
        return [each for each in self._renewals.values() if each.number > after]

    def want(self, topic: str, holder: object) -> None:
        if topic not in self._holders:
            self._holders[topic] = set()
            self._terms[topic] = next(self._next_term)
        self._holders[topic].add(holder)
        self.touch()

    def release(self, topic: str, holder: object) -> None:
        """`holder` no longer wants `topic`. Idempotent."""
        holders = self._holders.get(topic, set())
        holders.discard(holder)
        if not holders:
            self._holders.pop(topic, None)
            self._terms.pop(topic, None)
            self._renewals.pop(topic, None)
            self.touch()

    def confine(self, possible: Collection[str], always: Iterable[str] = ()) -> None:
        """Only `possible` topics stay wanted, and the interest itself wants those in `always`, no others."""
        for topic in self.topics:
            self.release(topic, self)
        for topic in self.topics.difference(possible):
            del self._holders[topic], self._terms[topic]
            self._renewals.pop(topic, None)
        for topic in always:
            self.want(topic, self)
        self.touch()

    def changed(self) -> trio.Event:
        """An event that the next change after this call sets."""
        return self._changed

    def touch(self) -> None:
        """Wake the followers of this interest, so that they compare again."""
        self._changed.set()
        self._changed = trio.Event()


@define
class Patience:
    """The bounds of waiting, in seconds.

    `stale_after`: silence of a connection. `subscribe_within`: time for an answer. `ask_again_every`: least
    time between two repeated requests.

    An answer stands behind everything that the upstream sent before it. So it may come later as long as the
    connection is busy: its last two reads came within a quarter of `subscribe_within`. An upstream that sends
    for ever and never answers is found out after six times `subscribe_within`.
    """

    stale_after: float
    subscribe_within: float
    ask_again_every: float = 0.5

    def overdue(self, asked: float, read_before_last: float) -> float:
        """The time at which the answer to a request of the time `asked` is overdue."""
        busy_until = read_before_last + self.subscribe_within * _BUSY
        usual, longest = asked + self.subscribe_within, asked + self.subscribe_within * _LONGEST
        return min(max(usual, busy_until), longest)


class Connector(Generic[T]):
    """The actor that keeps one source connected.

    `deliver` takes items in order and never waits. `missed(topic)` makes the mark for a possible hole in a
    topic that was just subscribed; None if there is no need. `turn()`: seconds until one more connection may
    be made; 0: now, and it is counted. `is_replaced()`: whether the actor must stop because another one has
    taken its place.
    """

    def __init__(
        self,
        source: Source[T],
        interest: Interest,
        deliver: Callable[[Sequence[T]], None],
        missed: Callable[[str], T | None],
        observer: Observer,
        patience: Patience,
        turn: Callable[[], float] = lambda: 0.0,
        is_replaced: Callable[[], bool] = lambda: False,
    ) -> None:
        self._source = source
        self._interest = interest
        self._deliver = deliver
        self._missed = missed
        self._observer = observer
        self._patience = patience
        self._turn = turn
        self._is_replaced = is_replaced
        self._attempt = trio.CancelScope()

    async def run(self, ctx: Context) -> None:
        # Ready before connected: an upstream that is down must not block the start of the tree.
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
        """Keep one connection. Raises LinkLost when it is lost; returns when the actor must stop."""
        try:
            async with trio.open_nursery() as nursery:
                self._attempt = nursery.cancel_scope
                nursery.start_soon(self._give_up_when_asked, ctx)
                await self._wait_for_turn(ctx)
                async with self._source.connect() as link:
                    self._attempt = trio.CancelScope()  # from now on a stop is a goodbye
                    await _Conversation(self, link, ctx).hold()
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            raise _foremost(group) from group

    async def _give_up_when_asked(self, ctx: Context) -> None:
        await ctx.stopping.wait()
        self._attempt.cancel()

    async def _wait_for_turn(self, ctx: Context) -> None:
        is_told = False
        while (wait := self._turn()) > 0:
            if not is_told:
                self._observer.waiting(wait)
            is_told = True
            await trio.sleep(min(wait, _BEAT))
            ctx.beat()


def _reason(error: BaseException) -> str:
    if isinstance(error, LinkLost):
        return str(error)
    if isinstance(error, trio.Cancelled):
        return STOPPED
    return f"internal error: {type(error).__name__}"


class _Conversation(Generic[T]):
    """The state of one connection: requested, acknowledged and refused topics."""

    def __init__(self, connector: Connector[T], link: Link[T], ctx: Context) -> None:
        self._connector = connector
        self._observer = connector._observer
        self._interest = connector._interest
        self._patience = connector._patience
        self._link = link
        self._ctx = ctx
        self._asked: dict[str, float] = {}  # topic -> the time at which its request left; before it: infinity
        self._held: set[str] = set()  # acknowledged
        self._renewed = 0  # wishes up to this number are fulfilled, or older than the connection
        self._stale: set[str] = set()  # of the held ones, to be subscribed anew
        self._refused: dict[str, int | None] = {}  # topic -> term; to ask again in this term would not help
        self._again: deque[tuple[str, ...]] = deque()  # requests to repeat; no topic is in two of them
        self._again_at = float("-inf")
        self._up = False
        self._began = self._heard = self._heard_before = trio.current_time()  # the last two reads
        self._understood = self._began  # the last read that made sense: nonsense is no sign of life
        self._announced: str | None = None
        self._parting: trio.CancelScope | None = None  # we shall part, or have said so
        self._awaited: tuple[str, trio.Event] | None = None  # the last answer that we need
        self._probed = float("-inf")
        self._must_probe = False
        self._alarm = trio.CancelScope()

    async def hold(self) -> None:
        """Runs until the connection is lost, or has ended because the actor must stop. Raises LinkLost in a
        group."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._speak)
            nursery.start_soon(self._watch)
            nursery.start_soon(self._part_when_asked, nursery)
            await self._listen()
            nursery.cancel_scope.cancel()

    async def _part_when_asked(self, nursery: trio.Nursery) -> None:
        """Messages from before our goodbye are still taken, as far as they come soon.

        It may throw away what waits on its side when it hears the goodbye. So a connection whose place is
        taken says that later: when an answer has come, which stands behind everything that was waiting.
        """
        await self._ctx.stopping.wait()
        self._parting = trio.CancelScope()
        with suppress(LinkLost):
            if self._held and self._connector._is_replaced():
                with trio.move_on_after(_ANSWER_WITHIN):
                    await self._last_answer(min(self._held))
            with self._parting, trio.move_on_after(_PART_WITHIN):
                self._parting.deadline = trio.current_time() + _PART_SILENCE
                await self._link.part()
                await trio.sleep_forever()
        nursery.cancel_scope.cancel()

    async def _last_answer(self, topic: str) -> None:
        self._awaited = topic, trio.Event()
        await self._link.turn()
        self._held.discard(topic)
        await self._link.unsubscribe([topic])
        await self._awaited[1].wait()

    async def _speak(self) -> None:
        while True:
            changed = self._interest.changed()
            if self._next_request(1) is not None:
                room = await self._link.turn()
                if (request := self._next_request(room)) is not None:
                    await request()
                continue
            self._report_up()
            with trio.CancelScope(deadline=self._again_at if self._again else float("inf")):
                await changed.wait()

    def _next_request(self, room: int) -> Callable[[], Awaitable[None]] | None:
        """What must be said next, for up to `room` topics; None if there is nothing to say now."""
        if self._parting is not None:
            return None
        wanted = self._interest.topics
        for topic in [t for t, term in self._refused.items() if term != self._interest.term(t)]:
            del self._refused[topic]
        self._renew()
        if self._must_probe:
            return self._probe
        if self._again and trio.current_time() >= self._again_at:
            return self._ask_again
        # A topic without an answer yet is unsubscribed after the answer has come.
        if fewer := sorted((self._held - wanted) | self._stale)[:room]:
            return partial(self._let_go, fewer)
        if more := sorted(self._missing())[:room]:
            return partial(self._ask, more)
        return None

    def _renew(self) -> None:
        """Take the newest wishes for topics that are held. Raises LinkLost if one needs a new connection."""
        for wish in self._interest.renewals(self._renewed):
            self._renewed = max(self._renewed, wish.number)
            if wish.topic in self._held:
                if wish.reason is not None:
                    raise LinkLost(wish.reason)
                self._stale.add(wish.topic)

    def _missing(self) -> Collection[str]:
        """The wanted topics that were neither asked for nor answered."""
        return self._interest.topics.difference(self._held, self._refused, self._asked, *self._again)

    async def _probe(self) -> None:
        self._must_probe = False
        await self._link.probe()

    async def _let_go(self, topics: Sequence[str]) -> None:
        self._held.difference_update(topics)
        self._stale.difference_update(topics)
        await self._link.unsubscribe(topics)

    async def _ask(self, topics: Sequence[str]) -> None:
        self._asked.update(dict.fromkeys(topics, float("inf")))
        await self._link.subscribe(topics)
        self._asked.update(dict.fromkeys(self._asked.keys() & topics, trio.current_time()))
        self._alarm.deadline = min(self._alarm.deadline, self._next_overdue())

    async def _ask_again(self) -> None:
        missing = self._interest.topics - self._held
        if topics := [topic for topic in self._again.popleft() if topic in missing]:
            self._again_at = trio.current_time() + self._patience.ask_again_every
            await self._ask(topics)

    def _put_again(self, *requests: tuple[str, ...]) -> None:
        self._again.extend(requests)
        self._interest.touch()

    async def _listen(self) -> None:
        while True:
            try:
                received = await self._link.receive()
            except LinkLost as lost:
                self._ended(lost)
                return
            self._heard_before, self._heard = self._heard, trio.current_time()
            if received.makes_sense:
                self._understood = self._heard
            if self._parting is not None:
                self._parting.deadline = self._heard + _PART_SILENCE
            self._ctx.beat()
            self._take(received)
            self._observer.received(len(received.items), received.size)
            for reason, excerpt in received.problems:
                self._observer.problem(reason, excerpt)
            if received.lost is not None:
                raise LinkLost(received.lost)
            if received.leaving is not None and self._announced is None:
                self._announced = received.leaving
                self._observer.leaving(received.leaving)

    def _ended(self, lost: LinkLost) -> None:
        """The connection has ended. Raises LinkLost, unless we said goodbye."""
        if self._parting is not None:
            self._observer.parted()
            return
        if self._announced is None:
            raise lost
        steady = self._heard >= self._began + _STEADY
        raise LinkLost(self._announced, at_most=0.0 if steady else float("inf")) from lost

    async def _watch(self) -> None:
        """After half of `stale_after` in silence, probe. After all of it, or with an overdue answer, give up.

        This is a task beside the listener. A timeout around each read would cost a timer per read.
        """
        while True:
            with trio.CancelScope(deadline=self._next_alarm()) as self._alarm:
                await trio.sleep_forever()
            if self._is_stale or self._late:
                await self._give_up_unless_heard()
            elif trio.current_time() >= self._understood + self._patience.stale_after / 2 > self._probed:
                self._probed = trio.current_time()
                self._must_probe = True
                self._interest.touch()

    async def _give_up_unless_heard(self) -> None:
        # If this process was paused, the upstream was not silent. The first checkpoint lets Trio see the data
        # that arrived meanwhile, and in the second one the listener reads it. As long as that brings more, an
        # answer may stand behind it.
        before, heard = self._understood, None
        while heard is None or (heard != self._heard and self._late and not self._is_hopeless):
            heard = self._heard
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
        if self._late:
            raise LinkLost(f"no answer to the subscription of {', '.join(self._late)}")
        if self._is_stale and self._understood == before:
            what = "no message" if self._heard == before else "nothing but messages that cannot be used"
            raise LinkLost(f"stale: {what} for {self._patience.stale_after:g} s")

    @property
    def _is_stale(self) -> bool:
        return trio.current_time() >= self._understood + self._patience.stale_after

    @property
    def _late(self) -> list[str]:
        """The topics with an overdue answer."""
        now, read = trio.current_time(), self._heard_before
        late = (topic for topic, asked in self._asked.items() if self._patience.overdue(asked, read) <= now)
        return sorted(late)

    @property
    def _is_hopeless(self) -> bool:
        """Whether an answer is overdue however busy the connection is."""
        oldest = min(self._asked.values(), default=float("inf"))
        return self._patience.overdue(oldest, float("inf")) <= trio.current_time()

    def _next_alarm(self) -> float:
        patience = self._patience.stale_after
        half = self._understood + patience / 2
        return min(self._understood + patience if self._probed >= half else half, self._next_overdue())

    def _next_overdue(self) -> float:
        asked = min(self._asked.values(), default=float("inf"))
        return self._patience.overdue(asked, self._heard_before)

    def _take(self, received: Received[T]) -> None:
        """Take items and answers in the order of their arrival."""
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
        if topic in self._held:  # not on our request: then it would not be held any more
            self._held.remove(topic)
            self._stale.discard(topic)
            self._put_again((topic,))
        self._observer.unsubscribed(topic)
        if self._awaited is not None and self._awaited[0] == topic:
            self._awaited[1].set()

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
        if not self._up and not (self._asked or self._again or self._missing()):
            self._up = True
            self._observer.up(sorted(self._held))


def _foremost(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The failure for the log: an unexpected error if there is one, else a lost link."""
    errors = list(leaves(group))
    unexpected = [e for e in errors if not isinstance(e, LinkLost | trio.Cancelled)]
    return (unexpected or [e for e in errors if isinstance(e, LinkLost)] or errors)[0]
