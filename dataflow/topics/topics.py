"""The topics that somebody listens to: one Subscription actor each, started and found by symbol.

Rules of this file. A topic is opened by its first subscriber and ends by itself some time after the
last one left. Looking a topic up and joining it happen without a checkpoint in between, so that
nobody joins a topic that has decided to end.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Protocol

import trio
from attrs import define, field

from actors.subscription import Log, Subscriber, Subscription, Topic
from dataflow.sources.state import SourceState, sources_of
from supervisors import Child, Mailbox, Overflow, Ref, Restart

BEAT_WITHIN = 10.0  # seconds at work without progress: hung; a pass over all that waits takes milliseconds
NEWS = "news"  # the one message of a subscription: it says that, not what
_LATEST = Mailbox(size=1, overflow=Overflow.CONFLATE, key=lambda _message: None)


class Starter(Protocol):
    """The pool that runs the subscriptions."""

    async def start(self, child: Child) -> Ref: ...


@define(eq=False)
class _Opened:
    topic: Topic
    ref: Ref | None = None  # None until it has started
    settled: trio.Event = field(factory=trio.Event)  # it has started, or failed to


class Topics:
    """Opens, joins, wakes and leaves topics. `log_of(symbol)` gives a topic's stream; `interval` (seconds) is
    that of its `Subscription`."""

    def __init__(
        self, states: Mapping[str, SourceState], log_of: Callable[[str], Log], interval: float = 0.0
    ) -> None:
        self._states = states
        self._log_of = log_of
        self._interval = interval
        self._opened: dict[str, _Opened] = {}

    @property
    def subscribers(self) -> dict[str, int]:
        """How many subscribers every open topic has."""
        return {symbol: len(self._opened[symbol].topic.subscribers) for symbol in self.open_symbols}

    async def open(self, symbol: str, pool: Starter) -> Topic:
        """The topic of `symbol`, started if need be. Join it before the next checkpoint.

        Raises what `pool.start` raises: Stopping, PoolFull, or the failure of the start.
        """
        while True:
            opened = self._opened.get(symbol)
            if opened is None or not opened.topic.open:
                await self._start(symbol, opened, pool)
            elif opened.ref is None:
                await opened.settled.wait()
            else:
                return opened.topic

    def opened(self, symbol: str) -> Topic | None:
        """The topic of `symbol` where it is open already: what `open` would return without waiting."""
        opened = self._opened.get(symbol)
        return opened.topic if opened is not None and opened.ref is not None and opened.topic.open else None

    def leave(self, symbol: str, subscriber: Subscriber) -> None:
        """Idempotent; the subscription is woken to count its linger from now."""
        opened = self._opened.get(symbol)
        if opened is not None and subscriber in opened.topic.subscribers:
            opened.topic.leave(subscriber)
            self.news(symbol)

    def news(self, symbol: str) -> None:
        """Wake the subscription of `symbol`, if there is one: its log has grown."""
        opened = self._opened.get(symbol)
        if opened is not None and opened.ref is not None and opened.topic.open:
            opened.ref.put(NEWS)

    @property
    def open_symbols(self) -> list[str]:
        """The symbols that have a subscription now."""
        return [symbol for symbol, opened in self._opened.items() if opened.topic.open]

    def abandon(self, symbol: str) -> Collection[Subscriber]:
        """The subscription is gone: close the topic, and say who listened to it."""
        opened = self._opened.get(symbol)
        if opened is None or not opened.topic.open:
            return ()
        opened.topic.open = False
        self.release(symbol)
        if opened.ref is not None:
            opened.ref.put(NEWS)  # should it live after all, it ends
        return opened.topic.subscribers

    # What a subscription wants of its upstream: all the sources that carry the symbol.

    def want(self, symbol: str) -> None:
        for state in sources_of(symbol, self._states):
            state.interest.want(symbol, self)

    def release(self, symbol: str) -> None:
        for state in sources_of(symbol, self._states):
            state.interest.release(symbol, self)

    async def _start(self, symbol: str, before: _Opened | None, pool: Starter) -> None:
        # Registered before it runs, so that a second subscriber waits for it instead of starting another.
        opened = self._opened[symbol] = _Opened(Topic(symbol, self._log_of(symbol)))
        # A client that leaves meanwhile must not leave a half-started topic to the others.
        with trio.CancelScope(shield=True):
            try:
                if before is not None and before.ref is not None:
                    await before.ref.watch()  # two incarnations of one name never overlap
                opened.ref = await pool.start(self._child(opened.topic))
            except BaseException:
                opened.topic.open = False
                raise
            finally:
                opened.settled.set()

    def _child(self, topic: Topic) -> Child:
        linger = max((s.settings.linger for s in sources_of(topic.name, self._states)), default=0.0)
        return Child(
            id=topic.name,
            make=lambda: Subscription(topic, self, linger, self._interval),
            restart=Restart.TRANSIENT,
            mailbox=_LATEST,
            beat_within=BEAT_WITHIN,
        )
