"""One topic: counts its subscribers, holds the upstream subscription, fans out.

Rules of this file. A `Topic` is the state (who subscribes, how far the fan-out came) and outlives the
`Subscription`, the actor that works on it. The actor *reads* the topic's log from its own position
when it is told that there is news, so that neither a crash nor a lost wake-up can make a hole: the
next read begins where the last one ended. Every subscriber keeps its own position too, and takes
from an update only what lies behind it: nobody gets an item twice.

A pass over the subscribers is what a server's capacity depends on: a subscriber who is where the pass
begins and whose connection is free has the payload written right here, through its `Lane`; everybody
else is offered the update and sees to it by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

import trio
from attrs import define

from supervisors import Context

from .update import Update

P = TypeVar("P")

SUBSCRIBERS_AT_ONCE = 300  # between two checkpoints of a fan-out
MESSAGES_A_SEND = 4  # encoding so many costs what a send does: with few subscribers a pass is mostly that


@define(eq=False)
class Lane(Generic[P]):
    """How far one subscriber is in one topic, and the short way to it.

    `pack` makes a payload of texts, the same for all subscribers of a kind. `write` sends what is taken
    without waiting and returns what is left, None when nothing is; it is None while something has to be sent
    before, and after the subscriber has left. A subscriber has one lane in a topic, from coming to going.
    """

    position: int
    pack: Callable[[Sequence[bytes]], P]
    write: Callable[[P], P | None] | None
    sent: int = 0


class Subscriber(Protocol):
    """Who receives updates of topics."""

    @property
    def lanes(self) -> Mapping[str, Lane[Any]]:
        """By topic; a subscriber without one has joined and is not to be served yet."""

    def offer(self, update: Update) -> None:
        """Take what is behind the own position. Never waits, never raises."""

    def finish(self, rest: Any) -> None:
        """Send what a write through a lane left over, before anything else. Never waits, never raises."""


Crowd: TypeAlias = tuple[Sequence[Subscriber], Sequence[Lane[Any]]]


class Log(Protocol):
    """The topic's stream, already admitted, ordered and encoded on demand."""

    @property
    def last(self) -> int:
        """The last place of the stream; 0 while it is empty."""

    def read(self, after: int) -> Update | None:
        """The next run behind `after`, bounded in length, gaps included; None when there is nothing."""


class Topic:
    """One topic's subscribers and the place up to which they were served."""

    def __init__(self, name: str, log: Log) -> None:
        self.name = name
        self.log = log
        self.position = log.last
        self.subscribers: dict[Subscriber, None] = {}
        self._crowd: Crowd | None = None  # what `crowd` gives, until somebody joins or leaves
        self._idle_since = float("inf")  # not idle before somebody has come and gone
        self.open = True  # False once the actor decided to end: a newcomer has to start another one

    def join(self, subscriber: Subscriber) -> None:
        """Idempotent. Whoever joins must know everything up to its own position already."""
        self.subscribers[subscriber] = None
        self._crowd = None

    def leave(self, subscriber: Subscriber) -> None:
        """Idempotent."""
        self.subscribers.pop(subscriber, None)
        self._crowd = None
        if not self.subscribers:
            self._idle_since = trio.current_time()

    def crowd(self) -> Crowd:
        """The subscribers that are live, and their lanes.

        Looking for the lane of each costs a tenth of a send, in memory that the sends have driven from the
        processor's caches. So they are looked for again only when somebody has come or gone.
        """
        if self._crowd is not None:
            return self._crowd
        live = [(one, lane) for one in self.subscribers if (lane := one.lanes.get(self.name)) is not None]
        crowd = [one for one, _ in live], [lane for _, lane in live]
        if len(live) == len(self.subscribers):  # otherwise somebody's answer is about to be said
            self._crowd = crowd
        return crowd

    def deserted_at(self, linger: float) -> float:
        """When the topic will have been without subscribers for `linger` seconds."""
        return float("inf") if self.subscribers else self._idle_since + linger


class Upstream(Protocol):
    """Where the items come from, as far as a topic is concerned."""

    def want(self, topic: str) -> None: ...
    def release(self, topic: str) -> None: ...


class Subscription:
    """The actor of one topic. Any message is a wake-up: look for news, look for subscribers.

    It ends by itself `linger` seconds after the last subscriber left, so that a client that comes
    back, or a page that reloads, does not cost an upstream subscription each time. Passes begin at least
    `interval` seconds apart: with 0 at once, and what came during a pass leaves together in the next one.
    """

    def __init__(self, topic: Topic, upstream: Upstream, linger: float, interval: float = 0.0) -> None:
        self._topic = topic
        self._upstream = upstream
        self._linger = linger
        self._interval = interval

    async def run(self, ctx: Context) -> None:
        self._upstream.want(self._topic.name)
        ctx.ready()
        # The first look is unasked: news may have come while no incarnation was there to be woken.
        await self._fan_out(ctx)
        while await self._wanted(ctx):
            await self._fan_out(ctx)
        # No checkpoint between the decision and these two lines: nobody can join in between. A stop
        # or a crash does not come here: the next incarnation wants the same, without a break upstream.
        self._topic.open = False
        self._upstream.release(self._topic.name)

    async def _wanted(self, ctx: Context) -> bool:
        """Wait for a wake-up; False when the topic has been deserted for long enough, or was closed."""
        topic = self._topic
        if topic.subscribers:  # the last one to leave wakes us: no timer is needed while there is one
            await ctx.receive()
        else:
            with trio.move_on_at(topic.deserted_at(self._linger)):
                await ctx.receive()
        return topic.open and (
            bool(topic.subscribers) or trio.current_time() < topic.deserted_at(self._linger)
        )

    async def _fan_out(self, ctx: Context) -> None:
        topic, work = self._topic, 0
        while (update := topic.log.read(topic.position)) is not None:
            begun = trio.current_time()
            await self._pass(update)
            topic.position = update.last
            ctx.beat()
            work += len(topic.subscribers) + len(update.messages) // MESSAGES_A_SEND
            if self._interval or work >= SUBSCRIBERS_AT_ONCE:
                await self._pause(ctx, begun)
                work = 0

    async def _pause(self, ctx: Context, begun: float) -> None:
        if not self._interval:
            await trio.lowlevel.checkpoint()
            return
        with trio.move_on_at(begun + self._interval):
            await ctx.stopping.wait()

    async def _pass(self, update: Update) -> None:
        subscribers, lanes = self._topic.crowd()
        for start in range(0, len(subscribers), SUBSCRIBERS_AT_ONCE):
            if start:
                await trio.lowlevel.checkpoint()
            some = slice(start, start + SUBSCRIBERS_AT_ONCE)
            _serve(subscribers[some], lanes[some], update)


def _serve(subscribers: Sequence[Subscriber], lanes: Sequence[Lane[Any]], update: Update) -> None:
    """Bring `update` to everyone. No call but the write, and no look at anything but the lane before it: here
    every tenth of a microsecond counts."""
    before, last, count = update.first - 1, update.last, len(update.messages)
    pack: Any = None
    payload: Any = None
    for lane, subscriber in zip(lanes, subscribers, strict=True):
        write = lane.write
        if write is None or lane.position != before:
            subscriber.offer(update)
            continue
        if lane.pack is not pack:
            pack, payload = lane.pack, update.packed(lane.pack)
        rest = write(payload)
        lane.position = last
        lane.sent += count
        if rest is not None:
            subscriber.finish(rest)
