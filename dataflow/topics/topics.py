"""The open topics. Each has one Subscription actor, which is started and found by its topic.

Rules of this file. The first subscriber opens a topic. The topic ends by itself some time after the last
subscriber left. There is no checkpoint between looking up a topic and joining it, so no subscriber can join a
topic that has decided to end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Protocol
from weakref import WeakValueDictionary

import trio
from attrs import define, field

from actors.subscription import NEWS, Fanout, Subscriber, Subscription
from dataflow.domain import Topic
from dataflow.domain.symbols import ANY
from dataflow.sources.state import SourceState
from supervisors import Child, Mailbox, Overflow, Ref, Restart

from .channel import Channel, TopicLog
from .every import EveryLog
from .trades import Readers

SYMBOLS_AT_ONCE = 50  # that are wanted or released without a checkpoint: a millisecond of work
BEAT_WITHIN = 10.0  # seconds of work without progress: the actor hangs; one pass takes milliseconds
_LATEST = Mailbox(size=1, overflow=Overflow.CONFLATE, key=lambda _message: None)


class Starter(Protocol):
    """The pool that runs the subscriptions."""

    async def start(self, child: Child) -> Ref: ...


@define(eq=False)
class _Opened:
    fanout: Fanout
    ref: Ref | None = None  # None until the actor has started
    settled: trio.Event = field(factory=trio.Event)  # the actor has started, or its start has failed


async def _nothing(_topic: Topic) -> None:
    pass


def _idle() -> None:
    pass


class Topics:
    """Opens, joins, wakes and leaves topics.

    `channels`: all channels by name. `carriers`: the sources of each symbol. `interval`: seconds between two
    passes of a `Subscription`. `interest(symbol)` is called when a topic begins or stops to want the symbol,
    `served(seconds)` after each pass over subscribers, with the age of the oldest entry that it brought.
    `prepare(topic)` is awaited before a topic is opened, for a log that begins on disk.
    `epoch` and `at_once` are for topics of all symbols: see `EveryLog`. `unwoken`: channels whose topics need
    not be woken by each batch of trades, because they tell of their news themselves.
    """

    def __init__(
        self,
        carriers: Mapping[str, Sequence[SourceState]],
        channels: Mapping[str, Channel],
        interval: float = 0.0,
        interest: Callable[[str], None] = lambda _symbol: None,
        served: Callable[[float], None] = lambda _seconds: None,
        prepare: Callable[[Topic], Awaitable[None]] = _nothing,
        epoch: int = 0,
        at_once: int = 256,
        unwoken: Collection[str] = (),
    ) -> None:
        self.channels = channels
        self.readers = Readers()
        self.forgotten_fills = 0  # before they could be brought to subscribers
        self._carriers = carriers
        self._interval = interval
        self._interest = interest
        self._served = served
        self._prepare = prepare
        self._epoch = epoch
        self._at_once = at_once
        self._unwoken = unwoken
        self._every: WeakValueDictionary[Topic, EveryLog] = WeakValueDictionary()  # of the open topics
        self._opened: dict[Topic, _Opened] = {}
        self._by_name: dict[str, Topic] = {}  # of the same topics, by their names in paths

    @property
    def subscribers(self) -> dict[Topic, int]:
        """The number of subscribers of each open topic."""
        return {topic: len(self._opened[topic].fanout.subscribers) for topic in self.open_topics}

    async def open(self, topic: Topic, pool: Starter) -> Fanout:
        """The fan-out of `topic`; its actor is started if there is none. Join it before the next checkpoint.

        Raises the errors of `pool.start`: Stopping, PoolFull, or the failure of the start.
        """
        while True:
            opened = self._opened.get(topic)
            if opened is None or not opened.fanout.open:
                await self._prepare(topic)
                if self._opened.get(topic) is opened:  # nobody else was faster
                    await self._start(topic, opened, pool)
            elif opened.ref is None:
                await opened.settled.wait()
            else:
                return opened.fanout

    def opened(self, topic: Topic) -> Fanout | None:
        """The fan-out of `topic` if the topic is open already, else None. Never waits."""
        opened = self._running(topic)
        return None if opened is None else opened.fanout

    def leave(self, topic: Topic, subscriber: Subscriber) -> None:
        """Idempotent. Wakes the subscription, which counts its linger from now."""
        opened = self._opened.get(topic)
        if opened is not None and subscriber in opened.fanout.subscribers:
            opened.fanout.leave(subscriber)
            self.news(topic)

    def news(self, topic: Topic) -> None:
        """The log of `topic` has grown: wake its subscription, if there is one. For trades see `readers`."""
        self._wake(topic)
        if (every := self._every.get(topic.of(ANY))) is not None and topic.symbol != ANY:
            every.touch(topic.symbol)
            self._wake(every.stream.topic)

    def appear(self, symbols: Iterable[str]) -> None:
        """These symbols are known from now on, if they were not already."""
        for every in list(self._every.values()):
            if every.appear(symbols):
                self._wake(every.stream.topic)

    def log_of(self, topic: Topic) -> TopicLog | EveryLog:
        """The log of `topic`: the same object as long as somebody has it.

        Of a topic with the symbol `ANY` it is an `EveryLog`, unless the channel has one of its own.
        """
        channel = self.channels[topic.channel]
        if topic.symbol != ANY or not channel.offered:
            return channel.log_of(topic)
        log = self._every.get(topic)
        if log is None:
            log = EveryLog(topic, self._carriers, channel.log_of, self._epoch, self._at_once)
            self._every[topic] = log
        return log

    @property
    def open_topics(self) -> list[Topic]:
        """The topics that have a subscription actor now."""
        return [topic for topic, opened in self._opened.items() if opened.fanout.open]

    @property
    def open_fanouts(self) -> list[tuple[Topic, Fanout]]:
        """The same, each with its fan-out."""
        return [(topic, opened.fanout) for topic, opened in self._opened.items() if opened.fanout.open]

    def named(self, name: str) -> Topic | None:
        """The open topic with this name in paths, None when there is none."""
        topic = self._by_name.get(name)
        return topic if topic is not None and self._opened[topic].fanout.open else None

    def over(self, name: str) -> None:
        """The actor of the topic with this name in paths has ended for good: nothing of the topic is kept.

        Clients can name topics that will never have an entry. They must not fill the memory with them.
        """
        topic = self._by_name.get(name)
        if topic is not None and not self._opened[topic].fanout.open:
            del self._by_name[name], self._opened[topic]

    def abandon(self, topic: Topic) -> Collection[Subscriber]:
        """The subscription is gone. Closes the topic and returns its subscribers."""
        opened = self._opened.get(topic)
        if opened is None or not opened.fanout.open:
            return ()
        opened.fanout.open = False
        deque(self._releasing(topic), maxlen=0)  # at once: nobody is left to do it in turns
        if opened.ref is not None:
            opened.ref.put(NEWS)  # if it lives after all, it ends now
        return opened.fanout.subscribers

    # For a subscription these are its upstream: all sources that carry the symbols of its topic.

    async def want(self, topic: Topic, wake: Callable[[], object]) -> None:
        wanted = self.channels[topic.channel].wants(topic)
        log = self._every.get(topic)
        if log is not None:
            log.touch_all()
        for symbol in wanted:
            if symbol == ANY:
                self.readers.add_of_all(_teller(log, wake), topic)
            else:
                self.readers.add(symbol, topic, _idle if topic.channel in self._unwoken else wake)
        for number, symbol in enumerate(self._known(wanted), start=1):
            for state in self._carriers.get(symbol, ()):
                state.interest.want(symbol, topic)
            self._interest(symbol)
            if number % SYMBOLS_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()

    async def release(self, topic: Topic) -> None:
        for _ in self._releasing(topic):
            await trio.lowlevel.checkpoint()

    def _releasing(self, topic: Topic) -> Iterator[None]:
        """Release a topic in pieces: thousands of symbols take a tenth of a second."""
        wanted = self.channels[topic.channel].wants(topic)
        for symbol in wanted:
            self.readers.remove(symbol, topic)
        for number, symbol in enumerate(self._known(wanted), start=1):
            for state in self._carriers.get(symbol, ()):
                state.interest.release(symbol, topic)
            self._interest(symbol)
            if number % SYMBOLS_AT_ONCE == 0:
                yield

    def want_again(self, symbols: Iterable[str]) -> None:
        """The carriers of `symbols` have changed: what is wanted of them is wanted from those of now."""
        for symbol in symbols:
            for topic in self.readers.topics(symbol):
                for state in self._carriers.get(symbol, ()):
                    state.interest.want(symbol, topic)

    def _known(self, wanted: Collection[str]) -> Collection[str]:
        """These symbols; all that there are where `ANY` is among them."""
        return list(self._carriers) if ANY in wanted else wanted

    def _forgot(self, fills: int) -> None:
        self.forgotten_fills += fills

    def _wake(self, topic: Topic) -> None:
        opened = self._running(topic)
        if opened is not None and opened.ref is not None:
            opened.ref.put(NEWS)

    def _running(self, topic: Topic) -> _Opened | None:
        opened = self._opened.get(topic)
        return opened if opened is not None and opened.ref is not None and opened.fanout.open else None

    async def _start(self, topic: Topic, before: _Opened | None, pool: Starter) -> None:
        # Registered before the start, so that a second subscriber waits for it and starts no other.
        log = self.log_of(topic)
        opened = self._opened[topic] = _Opened(Fanout(topic, log, log.stream))
        self._by_name[str(topic)] = topic
        # If this client leaves meanwhile, the others must not be left with a half-started topic.
        with trio.CancelScope(shield=True):
            try:
                if before is not None and before.ref is not None:
                    await before.ref.watch()  # two actors of one name never overlap
                opened.ref = await pool.start(self._child(topic, opened.fanout))
                if not opened.fanout.open:  # abandoned meanwhile: it ends now
                    opened.ref.put(NEWS)
            except BaseException:
                opened.fanout.open = False
                self.over(str(topic))
                raise
            finally:
                opened.settled.set()

    def _child(self, topic: Topic, fanout: Fanout) -> Child:
        wanted = self.channels[topic.channel].wants(topic)
        sources = [state for symbol in self._known(wanted) for state in self._carriers.get(symbol, ())]
        linger = max((state.settings.linger for state in sources), default=0.0)
        return Child(
            id=str(topic),
            make=lambda: Subscription(fanout, self, linger, self._interval, self._served, self._forgot),
            restart=Restart.TRANSIENT,
            mailbox=_LATEST,
            beat_within=BEAT_WITHIN,
        )


def _teller(log: EveryLog | None, wake: Callable[[], object]) -> Callable[[str], object]:
    """What news of a symbol do with a topic of all. `log`: its log, if that has to be told."""

    def tell(symbol: str) -> None:
        if log is not None:
            log.touch(symbol)
        wake()

    return tell
