"""The mailbox: a bounded queue that belongs to the record of a child and survives the child's restarts.

Rules of this file
- At every moment: accepted = handled + queued + dropped (by reason) + lost_in_flight. The message in the
  actor's hand counts as queued. A refused `put` counts as accepted and dropped. A waiting `send` counts only
  once it is admitted.
- One reader at a time. A message handed out stays in hand until the next receive or the clean return of the
  actor: then it counts as handled. A batch drained right after a single receive joins the hand.
- A message in hand at a crash is lost: it is counted, shown, and never delivered again.
- A mailbox closes when its child is stopped or has ended for good; then everything is refused.
It refuses to be a general channel: no cloning, no closing by the sender, no iteration.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from enum import Enum
from typing import Any, Final, Protocol

import trio
from attrs import define, field, frozen
from trio.lowlevel import Abort, RaiseCancelT, Task, current_task, reschedule, wait_task_rescheduled

from .errors import ActorGone
from .promise import Promise
from .specs import Mailbox, Overflow


class Put(Enum):
    """The fate of a message: taken or refused."""

    OK = "ok"
    DROPPED = "dropped"


@frozen
class MailboxNode:
    """The counters of a mailbox: accepted = handled + queued + sum(dropped.values()) + lost_in_flight.

    `lost_at`: trio.current_time() of the newest loss in flight; None: there was none.
    """

    size: int
    overflow: str  # what a full mailbox does: block, drop_oldest, drop_newest, conflate
    accepted: int
    handled: int
    queued: int
    dropped: dict[str, int]  # by reason: full, oldest, conflated, closed, asker_gone, gone
    lost_in_flight: int
    lost_at: float | None = None


@define(eq=False)
class Ask:
    """An asked message as it arrives: `item`, and the one `reply` for which the asker waits."""

    item: Any
    _answer: Promise[Any] = field(factory=Promise, repr=False)

    def reply(self, value: Any) -> None:
        """Answer. A late answer (the asker has given up) is no error; a second one raises RuntimeError."""
        if self._answer.done and not self._answer.failed:
            raise RuntimeError("this message has already been answered")
        self._answer.resolve(value)

    def withdraw(self, error: BaseException) -> None:
        """No answer will come: the asker gets `error`, unless it has an answer already."""
        self._answer.fail(error)

    @property
    def settled(self) -> bool:
        """True when nobody waits for the answer any more."""
        return self._answer.done

    async def answer(self) -> Any:
        """Wait for the reply, or raise the error of the withdrawal."""
        return await self._answer.get()


class _Queue(Protocol):
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Any]: ...
    def append(self, item: Any) -> None: ...
    def popleft(self) -> Any: ...
    def clear(self) -> None: ...


_NO_QUEUE: Final[_Queue] = deque(maxlen=0)  # shared by all boxes that never got a message


@define(eq=False)
class _Sender:
    """A message that waits for room, outside the counters."""

    item: Any
    admitted: bool = False


@define(eq=False)
class Box:
    """A mailbox at work."""

    spec: Mailbox
    accepted: int = 0
    handled: int = 0
    in_hand: int = 0
    lost_in_flight: int = 0
    lost_at: float | None = None
    closed: bool = False
    _reader: Task | None = None
    # The following are made on first use: 10,000 boxes must stay small, and a deque takes 0.6 KiB.
    _queue: _Queue = field(default=_NO_QUEUE, init=False)
    _room: int = field(
        default=0, init=False
    )  # 0 while closed or without a queue, so that `put` compares only once
    _dropped: dict[str, int] | None = None
    _senders: OrderedDict[Task, _Sender] | None = None
    _asks: set[Ask] | None = None
    _hand: tuple[Any, ...] = ()
    _joins: bool = False  # a batch drained now belongs to the message received just before

    # -- for senders

    def put(self, item: Any) -> Put:
        """Take a message without waiting."""
        self.accepted += 1
        if len(self._queue) >= self._room:
            return self._overflow(item)
        self._queue.append(item)
        if self._reader is not None:
            self.wake_reader()
        return Put.OK

    async def send(self, item: Any) -> Put:
        """Take a message; under BLOCK wait for room, which does not include the reserved places.

        Raises ActorGone when closed.
        """
        if self.closed:
            raise ActorGone("its mailbox is closed")
        room = self.spec.size - self.spec.reserved
        if self.spec.overflow is Overflow.BLOCK and len(self._queue) >= room:
            await self._wait_for_room(item)
            return Put.OK
        return self.put(item)

    async def ask(self, item: Any, within: float) -> Any:
        """Send an Ask and wait for its reply. Raises trio.TooSlowError after `within` seconds altogether."""
        ask = Ask(item)
        self._asks = self._asks if self._asks is not None else set()
        self._asks.add(ask)
        try:
            with trio.fail_after(within):
                if await self.send(ask) is Put.DROPPED:
                    raise trio.TooSlowError("the mailbox is full")
                return await ask.answer()
        finally:
            self._asks.discard(ask)
            self._forget(ask)

    # -- for the actor

    async def park(self) -> None:
        """Wait for a message, or for `wake_reader`."""
        if self._reader is not None:
            raise trio.BusyResourceError("this actor is already receiving in another task")
        self._reader = current_task()

        def abort(_: RaiseCancelT) -> Abort:
            self._reader = None
            return Abort.SUCCEEDED

        await wait_task_rescheduled(abort)

    @property
    def pending(self) -> bool:
        """True when a message is waiting."""
        return len(self._queue) > 0

    def take(self) -> Any:
        """Hand out the oldest message."""
        item = self._queue.popleft()
        self._hand = (item,)
        self.in_hand = 1
        self._joins = True
        if self._senders:
            self._admit()
        return item

    def drain(self, limit: int) -> list[Any]:
        """Hand out up to `limit` messages without yielding."""
        if not self._joins:
            self.settle()
        self._joins = False
        batch = self._pop(limit)
        self._hand = (*self._hand, *batch)
        self.in_hand = len(self._hand)
        if self._senders:
            self._admit()
        return batch

    def settle(self) -> None:
        """The messages in hand have been handled."""
        self.handled += self.in_hand
        self._empty_hand()

    # -- for the supervisor

    def wake_reader(self) -> None:
        """Let a parked reader look again."""
        if self._reader is not None:
            reader, self._reader = self._reader, None
            reschedule(reader)

    def lose(self, now: float) -> tuple[Any, ...]:
        """The actor crashed: count the messages in hand as lost, and return them."""
        lost = self._hand
        if self.in_hand:
            self.lost_in_flight += self.in_hand
            self.lost_at = now
        self._empty_hand()
        return lost

    def fail_asks(self, error: BaseException) -> None:
        """The actor has ended: give every asker `error` now, and drop the questions still queued."""
        if self._asks:
            for ask in self._asks:
                ask.withdraw(error)
            self._discard(lambda item: isinstance(item, Ask) and item.settled, "asker_gone")

    def close(self) -> None:
        """Refuse every message from now on; queued messages stay."""
        self.closed = True
        self._room = 0
        senders, self._senders = self._senders, None
        for task in senders or ():
            reschedule(task)

    def reopen(self) -> None:
        """Accept messages again, after a close."""
        self.closed = False
        if self._queue is not _NO_QUEUE:
            self._room = self.spec.size

    def discard(self) -> None:
        """Drop the queued messages: nobody will ever read them."""
        self._discard(lambda _: True, "gone")

    def respecified(self, spec: Mailbox) -> Box:
        """The mailbox for a new `spec`: this one, or a new one with the same messages and counters."""
        if spec == self.spec:
            return self
        box = make_box(spec)
        for name in ("accepted", "handled", "lost_in_flight", "lost_at", "_dropped", "_senders", "_asks"):
            setattr(box, name, getattr(self, name))
        box._adopt(self._queue)
        box._admit()
        return box

    def node(self) -> MailboxNode:
        """The counters, as plain data."""
        dropped = dict(self._dropped or {})
        return MailboxNode(
            self.spec.size,
            self.spec.overflow.value,
            self.accepted,
            self.handled,
            self.queued,
            dropped,
            self.lost_in_flight,
            self.lost_at,
        )

    @property
    def queued(self) -> int:
        """The number of messages that wait or are in hand."""
        return len(self._queue) + self.in_hand

    # -- inside

    def _pop(self, limit: int) -> list[Any]:
        queue = self._queue
        if len(queue) > limit:
            return [queue.popleft() for _ in range(limit)]
        batch = list(queue)
        queue.clear()
        return batch

    def _empty_hand(self) -> None:
        self.in_hand = 0
        self._hand = ()
        self._joins = False

    def _overflow(self, item: Any) -> Put:
        if self.closed:
            return self._drop("closed", Put.DROPPED)
        if self._queue is _NO_QUEUE:
            self._make_queue()
            self._queue.append(item)
            self.wake_reader()
            return Put.OK
        if self.spec.overflow is not Overflow.DROP_OLDEST:
            return self._drop("full", Put.DROPPED)
        self._evict_oldest()
        self._queue.append(item)
        return Put.OK

    def _evict_oldest(self) -> None:
        self._drop("oldest", Put.OK)
        item = self._queue.popleft()
        if isinstance(item, Ask):
            item.withdraw(trio.TooSlowError("the question was dropped from a full mailbox"))

    def _drop(self, reason: str, outcome: Put, count: int = 1) -> Put:
        if self._dropped is None:
            self._dropped = {}
        self._dropped[reason] = self._dropped.get(reason, 0) + count
        return outcome

    def _discard(self, unwanted: Callable[[Any], bool], reason: str) -> None:
        items = list(self._queue)
        self._queue.clear()
        for item in items:
            if not unwanted(item):
                self._queue.append(item)
        if gone := len(items) - len(self._queue):
            self._drop(reason, Put.DROPPED, gone)
            self._admit()

    def _forget(self, ask: Ask) -> None:
        if not ask.settled:
            ask.withdraw(trio.TooSlowError("the asker has given up"))
            self._discard(lambda item: item is ask, "asker_gone")

    def _admit(self) -> None:
        while self._senders and len(self._queue) < self._room - self.spec.reserved:
            task, sender = self._senders.popitem(last=False)
            sender.admitted = True
            self.accepted += 1
            self._queue.append(sender.item)
            reschedule(task)
        if self._queue:
            self.wake_reader()

    def _make_queue(self) -> None:
        self._queue = deque()
        self._room = self.spec.size

    def _adopt(self, items: Iterable[Any]) -> None:
        self._make_queue()
        for item in items:  # they may exceed a smaller size: a new spec drops no accepted message
            self._queue.append(item)

    async def _wait_for_room(self, item: Any) -> None:
        task, sender = current_task(), _Sender(item)
        senders = self._senders = self._senders if self._senders is not None else OrderedDict()
        senders[task] = sender

        def abort(_: RaiseCancelT) -> Abort:
            del senders[task]
            return Abort.SUCCEEDED

        await wait_task_rescheduled(abort)
        if not sender.admitted:
            raise ActorGone("it ended while a message waited for room in its mailbox")


class _Latest:
    """A queue of the newest item of each key, in the order of arrival of the keys."""

    def __init__(self, key: Callable[[Any], Hashable]) -> None:
        self._items: OrderedDict[Hashable, Any] = OrderedDict()
        self._key = key

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items.values())

    def key(self, item: Any) -> Hashable:
        return item if isinstance(item, Ask) else self._key(item)  # a question is never replaced by another

    def __contains__(self, key: Hashable) -> bool:
        return key in self._items

    def append(self, item: Any) -> None:
        self._items[self.key(item)] = item

    def popleft(self) -> Any:
        return self._items.popitem(last=False)[1]

    def clear(self) -> None:
        self._items.clear()


@define(eq=False)
class ConflatingBox(Box):
    """A mailbox in which a newer message takes the place of an older one with the same key."""

    _latest: _Latest = field(init=False)

    def __attrs_post_init__(self) -> None:
        assert self.spec.key is not None
        self._queue = self._latest = _Latest(self.spec.key)
        self.reopen()

    def put(self, item: Any) -> Put:
        """Take a message without waiting. An exception in `key` goes to the sender."""
        key = self._latest.key(item)
        self.accepted += 1
        if self.closed:
            return self._drop("closed", Put.DROPPED)
        self._make_place(key)
        self._queue.append(item)
        self.wake_reader()
        return Put.OK

    def _make_place(self, key: Hashable) -> None:
        if key in self._latest:
            self._drop("conflated", Put.OK)
        elif len(self._queue) >= self._room:
            self._evict_oldest()

    def _adopt(self, items: Iterable[Any]) -> None:
        for item in items:
            if self._latest.key(item) in self._latest:
                self._drop("conflated", Put.OK)
            self._queue.append(item)


def make_box(spec: Mailbox) -> Box:
    """An empty mailbox of the kind that `spec` describes."""
    if spec.key is None:
        return Box(spec)
    return ConflatingBox(spec)
