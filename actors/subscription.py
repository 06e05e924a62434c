"""One topic: counts its subscribers, holds the upstream subscription, fans out.

Rules of this file. `Fanout` is the state of a topic: its subscribers, and how far they were served. It
outlives `Subscription`, the actor that works on it. The actor is only told *that* there is news. It reads the
topic's log from its own position, so a crash or a lost wake-up makes no hole: the next read begins where the
last one ended. Every subscriber keeps a position too and takes from an update only the places behind it:
nobody gets an item twice.

Fills come before news: a fill is brought to all who were told of its hole before anything is read behind it.
What is read later has the items in their places already. So each lane keeps the number of the last fill, too.

A server's capacity depends on the pass over the subscribers. A subscriber at the beginning of the update,
with a free connection, has the payload written right here, through its `Lane`. All others are offered the
update and see to it themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

import trio
from attrs import define, field

from supervisors import Context

from .update import Bundle, Bundles, Fill, Rendering, Stream, Update

P = TypeVar("P")

NEWS = "news"  # the one message of a subscription: there is news, look for it
SUBSCRIBERS_AT_ONCE = 300  # between two checkpoints of a fan-out
ENTRIES_A_SEND = 4  # encoding so many costs what a send does: with few subscribers a pass is mostly that


@define(eq=False)
class Lane(Generic[P]):
    """How far one subscriber is in one topic, and the short way to it.

    `send` is that of a non-blocking socket: it takes a part of a payload and returns how much, or raises
    OSError. It is the socket's own, because every object that a pass looks at is a cache miss where
    subscribers are many. It is None while something has to be sent before, after the subscriber has left, for
    a personal rendering, and for a connection without such a way. A subscriber has one lane in a topic, from
    coming to going.
    """

    position: int
    rendering: Rendering[P]
    send: Callable[[P], int] | None
    sent: int = 0
    fills: int = 0  # the number of the last fill that the subscriber was told of, or need not be


@define(eq=False)
class WideLane(Lane[P]):
    """The lane of a topic whose updates are bundles; its position is that of a bundle.

    In each topic of the bundles the subscriber is as far as the bundles are, but further in those in `apart`:
    there these are its place, and the number of the last fill that it knows. Topics in which it has a lane of
    their own do not reach it this way.
    """

    log: Bundles = field(kw_only=True)
    apart: dict[Any, tuple[int, int]] = field(kw_only=True, factory=dict)

    def known(self, topic: Any) -> tuple[int, int]:
        """Its place in `topic`, and the number of the last fill, if it has the newest bundle."""
        log = self.log
        return self.apart.get(topic) or (log.places.get(topic, 0), log.fills.get(topic, 0))

    def behind(self, bundle: Bundle, lanes: Mapping[Any, Lane[Any]]) -> Sequence[Update | Fill]:
        """The parts of the newest bundle, as far as the subscriber lacks them. From now on it has them."""
        if not self.apart and not any(map(self.log.covers, lanes)):
            return bundle.own
        parts = [self._behind(bundle, part) for part in bundle.parts if part.topic not in lanes]
        for topic, (place, fills) in [*self.apart.items()]:
            if place <= self.log.places.get(topic, 0) and fills <= self.log.fills.get(topic, 0):
                del self.apart[topic]
        return [part for part in parts if part is not None]

    def _behind(self, bundle: Bundle, part: Update | Fill) -> Update | Fill | None:
        place, fills = self.apart.get(part.topic, (bundle.told.get(part.topic, -1), 0))
        if isinstance(part, Fill) and part.number <= fills:
            return None
        return bundle.part(part, place)


class Subscriber(Protocol):
    """Receives updates of topics."""

    @property
    def lanes(self) -> Mapping[Any, Lane[Any]]:
        """By topic; a subscriber without one has joined and is not to be served yet."""

    def offer(self, update: Update) -> None:
        """Take what is behind the own position. Never waits, never raises."""

    def amend(self, fill: Fill) -> None:
        """Take a fill of what was told as a hole. Never waits, never raises."""

    def finish(self, payload: Any, taken: int | None) -> None:
        """A send through a lane took only so much, or nothing (None): send the rest, before anything else.
        Never waits, never raises."""


Crowd: TypeAlias = tuple[Sequence[Subscriber], Sequence[Lane[Any]]]


class Log(Protocol):
    """The topic's stream, already admitted and ordered."""

    @property
    def last(self) -> int:
        """The last place of the stream; 0 while it is empty."""

    def read(self, after: int) -> Update | None:
        """The next run behind `after`, bounded in length, gaps included; None when there is nothing."""


class Fanout:
    """One topic's subscribers and the place up to which they were served. `stream`: that of the log, if its
    holes are filled."""

    def __init__(self, topic: Hashable, log: Log, stream: Stream | None = None) -> None:
        self.topic = topic
        self.log = log
        self.stream = stream or Stream(topic, 0)
        self.position = log.last
        self.fills = self.stream.filled  # the number of the last fill that was brought to the subscribers
        self.subscribers: dict[Subscriber, None] = {}
        self._crowd: Crowd | None = None  # the result of `crowd`, until somebody joins or leaves
        self._idle_since = float("inf")  # not idle before somebody has come and gone
        self.open = True  # False once the actor decided to end: a newcomer has to start another one

    def join(self, subscriber: Subscriber) -> None:
        """Idempotent. The subscriber must know everything up to its own position already."""
        self.subscribers[subscriber] = None
        self._crowd = None

    def leave(self, subscriber: Subscriber) -> None:
        """Idempotent."""
        self.subscribers.pop(subscriber, None)
        self._crowd = None
        if not self.subscribers:
            self._idle_since = trio.current_time()

    def crowd(self) -> Crowd:
        """The live subscribers and their lanes, equal renderings side by side.

        To look for the lane of each costs a tenth of a send, in memory that the sends have driven from the
        processor's caches. So it is done only when somebody has come or gone. The order spares a look for the
        payload at each change of the rendering.
        """
        if self._crowd is not None:
            return self._crowd
        live = [(one, lane) for one in self.subscribers if (lane := one.lanes.get(self.topic)) is not None]
        if len({id(lane.rendering) for _, lane in live}) > 1:
            live.sort(key=lambda pair: id(pair[1].rendering))
        crowd = [one for one, _ in live], [lane for _, lane in live]
        if len(live) == len(self.subscribers):  # otherwise somebody's answer is about to be said
            self._crowd = crowd
        return crowd

    def deserted_at(self, linger: float) -> float:
        """When the topic will have been without subscribers for `linger` seconds."""
        return float("inf") if self.subscribers else self._idle_since + linger


class Upstream(Protocol):
    """Where the items come from, as far as a topic is concerned."""

    async def want(self, topic: Any, wake: Callable[[], object]) -> None:
        """From now on the items of `topic` are wanted; `wake()` is called for news of them. Idempotent.

        Waits for nothing, but lets others have their turn.
        """

    async def release(self, topic: Any) -> None:
        """Nothing of `topic` is wanted any more. Waits as little."""


class Subscription:
    """The actor of one topic. Any message is a wake-up: look for news, look for subscribers.

    It ends by itself `linger` seconds after the last subscriber left, so that a client that comes
    back, or a page that reloads, does not cost an upstream subscription each time. Passes begin at least
    `interval` seconds apart: with 0 at once, and what came during a pass leaves together in the next one.
    `served(seconds)` is called after each pass over subscribers, with the age of the oldest entry in it;
    `forgotten(count)` for fills that the log forgot before they could be brought.
    """

    def __init__(
        self,
        fanout: Fanout,
        upstream: Upstream,
        linger: float,
        interval: float = 0.0,
        served: Callable[[float], None] = lambda _seconds: None,
        forgotten: Callable[[int], None] = lambda _fills: None,
    ) -> None:
        self._fanout = fanout
        self._upstream = upstream
        self._linger = linger
        self._interval = interval
        self._served = served
        self._forgotten = forgotten

    async def run(self, ctx: Context) -> None:
        await self._upstream.want(self._fanout.topic, partial(ctx.ref.put, NEWS))
        ctx.ready()
        # The first look is unasked: news may have come while no incarnation was there to be woken.
        await self._fan_out(ctx)
        while await self._wanted(ctx):
            await self._fan_out(ctx)
        # No checkpoint between the decision and this line: nobody can join in between. A stop or a crash
        # does not come here: the next incarnation wants the same, without a break upstream.
        self._fanout.open = False
        await self._upstream.release(self._fanout.topic)

    async def _wanted(self, ctx: Context) -> bool:
        """Wait for a wake-up; False when the topic has been deserted for long enough, or was closed."""
        fanout = self._fanout
        if fanout.subscribers:  # the last one to leave wakes us: no timer is needed while there is one
            await ctx.receive()
        else:
            with trio.move_on_at(fanout.deserted_at(self._linger)):
                await ctx.receive()
        return fanout.open and (
            bool(fanout.subscribers) or trio.current_time() < fanout.deserted_at(self._linger)
        )

    async def _fan_out(self, ctx: Context) -> None:
        fanout, work = self._fanout, 0
        while True:
            if fanout.stream.filled > fanout.fills:
                await self._amend(ctx)
            update = fanout.log.read(fanout.position)
            if update is None:
                return
            begun = trio.current_time()
            await self._pass(update)
            fanout.position = update.last
            ctx.beat()
            if update.since is not None and fanout.subscribers:
                self._served(trio.current_time() - update.since)
            work += len(fanout.subscribers) + len(update.places) // ENTRIES_A_SEND
            if self._interval or work >= SUBSCRIBERS_AT_ONCE:
                await self._pause(ctx, begun)
                work = 0

    async def _amend(self, ctx: Context) -> None:
        """Bring all fills. No checkpoint after the last look, so that what is read next has them."""
        fanout = self._fanout
        while fills := fanout.stream.fills(fanout.fills):
            for fill in fills:
                subscribers, _ = fanout.crowd()
                for start in range(0, len(subscribers), SUBSCRIBERS_AT_ONCE):
                    if start:
                        await trio.lowlevel.checkpoint()
                    for subscriber in subscribers[start : start + SUBSCRIBERS_AT_ONCE]:
                        subscriber.amend(fill)
                if missed := fill.number - fanout.fills - 1:
                    self._forgotten(missed)
                fanout.fills = fill.number
                ctx.beat()
                await trio.lowlevel.checkpoint()

    async def _pause(self, ctx: Context, begun: float) -> None:
        if not self._interval:
            await trio.lowlevel.checkpoint()
            return
        with trio.move_on_at(begun + self._interval):
            await ctx.stopping.wait()

    async def _pass(self, update: Update) -> None:
        subscribers, lanes = self._fanout.crowd()
        for start in range(0, len(subscribers), SUBSCRIBERS_AT_ONCE):
            if start:
                await trio.lowlevel.checkpoint()
            some = slice(start, start + SUBSCRIBERS_AT_ONCE)
            _serve(subscribers[some], lanes[some], update)


def _serve(subscribers: Sequence[Subscriber], lanes: Sequence[Lane[Any]], update: Update) -> None:
    """Bring `update` to everyone. No call but the write, and no look at anything but the lane before it: here
    every tenth of a microsecond counts."""
    before, last, count = update.first - 1, update.last, len(update.places)
    rendering: Any = None
    payload: Any = None
    size = 0
    for lane, subscriber in zip(lanes, subscribers, strict=True):
        send = lane.send
        if send is None or lane.position != before:
            subscriber.offer(update)
            continue
        if lane.rendering is not rendering:
            rendering = lane.rendering
            payload = rendering.payload(update)
            size = len(payload)
        taken: int | None
        try:
            taken = send(payload)
        except OSError:
            taken = None
        lane.position = last
        lane.sent += count
        if taken != size:
            subscriber.finish(payload, taken)
