"""The topics that somebody listens to: one Subscription actor each, started and found by topic.

Rules of this file. The first subscriber opens a topic; it ends by itself some time after the last one left.
To look a topic up and to join it takes no checkpoint, so that nobody joins a topic that has decided to end.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

import trio
from attrs import define, field

from actors.subscription import Fanout, Subscriber, Subscription
from dataflow.domain import Topic
from dataflow.sources.state import SourceState
from supervisors import Child, Mailbox, Overflow, Ref, Restart

from .channel import Channel

BEAT_WITHIN = 10.0  # seconds at work without progress: hung; a pass over all that waits takes milliseconds
NEWS = "news"  # the one message of a subscription: there is news, look for it
_LATEST = Mailbox(size=1, overflow=Overflow.CONFLATE, key=lambda _message: None)


class Starter(Protocol):
    """The pool that runs the subscriptions."""

    async def start(self, child: Child) -> Ref: ...


@define(eq=False)
class _Opened:
    fanout: Fanout
    ref: Ref | None = None  # None until it has started
    settled: trio.Event = field(factory=trio.Event)  # it has started, or failed to


class Topics:
    """Opens, joins, wakes and leaves topics of `channels`, by their names.

    `carriers` are the sources of each symbol, `interval` (seconds) is that of a `Subscription`.
    `interest(symbol)` is told when the interest of a topic in a symbol has begun or ended.
    """

    def __init__(
        self,
        carriers: Mapping[str, Sequence[SourceState]],
        channels: Mapping[str, Channel],
        interval: float = 0.0,
        interest: Callable[[str], None] = lambda _symbol: None,
    ) -> None:
        self.channels = channels
        self._carriers = carriers
        self._interval = interval
        self._interest = interest
        self._opened: dict[Topic, _Opened] = {}

    @property
    def subscribers(self) -> dict[Topic, int]:
        """How many subscribers every open topic has."""
        return {topic: len(self._opened[topic].fanout.subscribers) for topic in self.open_topics}

    async def open(self, topic: Topic, pool: Starter) -> Fanout:
        """The fan-out of `topic`, started if need be. Join it before the next checkpoint.

        Raises what `pool.start` raises: Stopping, PoolFull, or the failure of the start.
        """
        while True:
            opened = self._opened.get(topic)
            if opened is None or not opened.fanout.open:
                await self._start(topic, opened, pool)
            elif opened.ref is None:
                await opened.settled.wait()
            else:
                return opened.fanout

    def opened(self, topic: Topic) -> Fanout | None:
        """The fan-out of `topic` where it is open already: what `open` would return without waiting."""
        opened = self._running(topic)
        return None if opened is None else opened.fanout

    def leave(self, topic: Topic, subscriber: Subscriber) -> None:
        """Idempotent; the subscription is woken to count its linger from now."""
        opened = self._opened.get(topic)
        if opened is not None and subscriber in opened.fanout.subscribers:
            opened.fanout.leave(subscriber)
            self.news(topic)

    def news(self, topic: Topic) -> None:
        """Wake the subscription of `topic`, if there is one: its log has grown."""
        opened = self._running(topic)
        if opened is not None and opened.ref is not None:
            opened.ref.put(NEWS)

    @property
    def open_topics(self) -> list[Topic]:
        """The topics that have a subscription now."""
        return [topic for topic, opened in self._opened.items() if opened.fanout.open]

    def named(self, name: str) -> Topic | None:
        """The open topic that has this name in paths."""
        return next((topic for topic in self.open_topics if str(topic) == name), None)

    def abandon(self, topic: Topic) -> Collection[Subscriber]:
        """The subscription is gone: close the topic, and give its subscribers."""
        opened = self._opened.get(topic)
        if opened is None or not opened.fanout.open:
            return ()
        opened.fanout.open = False
        self.release(topic)
        if opened.ref is not None:
            opened.ref.put(NEWS)  # should it live after all, it ends
        return opened.fanout.subscribers

    # What a subscription wants of its upstream: all the sources that carry the symbols.

    def want(self, topic: Topic) -> None:
        for symbol in self.channels[topic.channel].wants(topic):
            for state in self._carriers[symbol]:
                state.interest.want(symbol, topic)
            self._interest(symbol)

    def release(self, topic: Topic) -> None:
        for symbol in self.channels[topic.channel].wants(topic):
            for state in self._carriers[symbol]:
                state.interest.release(symbol, topic)
            self._interest(symbol)

    def _running(self, topic: Topic) -> _Opened | None:
        opened = self._opened.get(topic)
        return opened if opened is not None and opened.ref is not None and opened.fanout.open else None

    async def _start(self, topic: Topic, before: _Opened | None, pool: Starter) -> None:
        # Registered before it runs, so that a second subscriber waits for it instead of starting another.
        log = self.channels[topic.channel].log_of(topic)
        opened = self._opened[topic] = _Opened(Fanout(topic, log))
        # A client that leaves meanwhile must not leave a half-started topic to the others.
        with trio.CancelScope(shield=True):
            try:
                if before is not None and before.ref is not None:
                    await before.ref.watch()  # two incarnations of one name never overlap
                opened.ref = await pool.start(self._child(topic, opened.fanout))
            except BaseException:
                opened.fanout.open = False
                raise
            finally:
                opened.settled.set()

    def _child(self, topic: Topic, fanout: Fanout) -> Child:
        wanted = self.channels[topic.channel].wants(topic)
        sources = [state for symbol in wanted for state in self._carriers[symbol]]
        linger = max((state.settings.linger for state in sources), default=0.0)
        return Child(
            id=str(topic),
            make=lambda: Subscription(fanout, self, linger, self._interval),
            restart=Restart.TRANSIENT,
            mailbox=_LATEST,
            beat_within=BEAT_WITHIN,
        )
