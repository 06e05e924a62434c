"""The queue of one slow client, and what happens when it is full.

Rules of this file: no I/O; the clock is an argument. The bound counts entries. Answers are never dropped (a
session stops reading requests while answers wait, so they bound themselves); updates are, by the policy.
Every dropped place is owed to the client as a gap, announced before the next update of that topic. Of a topic
where only the newest entries count (`Stream.newest_by`) the older ones are replaced while they wait: nothing
of it is owed or dropped.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Generic, TypeVar

from attrs import define, field

from .update import Update

P = TypeVar("P")


class SlowClient(Enum):
    """The fate of a client with a full outbox."""

    DISCONNECT = "disconnect"
    DROP_OLDEST = "drop_oldest"
    CONFLATE = "conflate"


class OutboxFull(Exception):
    """The outbox is full and the policy is to disconnect."""


@define
class _Queued(Generic[P]):
    payload: P
    update: Update | None = None  # None: an answer or a notice, which is never dropped
    answer_bytes: int = 0
    since: float = 0.0  # the time at which it began to wait
    bytes: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.bytes = _length(self.payload)

    @property
    def size(self) -> int:
        return len(self.update.places) if self.update else 1

    @property
    def sheddable(self) -> bool:
        """Whether the policy may drop of it."""
        return self.update is not None and self.update.stream.newest_by is None


def _length(payload: Any) -> int:
    """The bytes of a payload: bytes, or texts that a server sends one by one."""
    return len(payload) if isinstance(payload, bytes) else sum(map(len, payload))


class Outbox(Generic[P]):
    """A bounded queue of payloads in the order in which they will leave.

    `pack` turns an update into a payload, `announce` a dropped range: its topic, its first and last place,
    and how many items were in it. `bytes` is the length of all that waits.
    """

    def __init__(
        self,
        limit: int,
        policy: SlowClient,
        pack: Callable[[Update], P],
        announce: Callable[[Any, int, int, int], P],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limit = limit
        self.policy = policy
        self.dropped = 0
        self._pack = pack
        self._announce = announce
        self._clock = clock
        self.bytes = 0
        self._queue: deque[_Queued[P]] = deque()
        self._messages = 0
        self._owed: dict[Any, tuple[int, int, int]] = {}
        self._newest: dict[Any, _Queued[P]] = {}  # of topics where only the newest entries count

    def __len__(self) -> int:
        return self._messages

    def __bool__(self) -> bool:
        return bool(self._queue or self._owed)

    @property
    def oldest(self) -> float | None:
        """Since when the next payload to leave has waited, on the clock; None when none waits."""
        return self._queue[0].since if self._queue else None

    @property
    def answers(self) -> int:
        """How many answers and notices wait."""
        return sum(queued.update is None for queued in self._queue)

    @property
    def answer_bytes(self) -> int:
        """How long they are together."""
        return sum(queued.answer_bytes for queued in self._queue)

    def put(self, payload: P, length: int = 0) -> None:
        """Queue an answer or a notice of `length` bytes. Raises OutboxFull when even these pile up."""
        if self._messages >= self.limit:
            self._make_room(1)
        if self._messages >= 2 * self.limit:
            raise OutboxFull
        self._append(_Queued(payload, answer_bytes=length))
        self._newest.clear()  # a later state must not overtake this answer, which may tell of an earlier one

    def put_update(self, update: Update) -> None:
        """Queue an update, dropping as the policy says. Raises OutboxFull under DISCONNECT."""
        if update.stream.newest_by is not None:
            self._replace_older(update)
        else:
            self._append(_Queued(self._pack(update), update))
        if self._messages > self.limit:
            self._make_room()

    def take(self) -> P | None:
        """The next payload to leave; None when nothing waits."""
        if not self._queue:
            return self._settle(next(iter(self._owed), None))
        head = self._queue[0]
        if head.update is not None and head.update.topic in self._owed:
            return self._settle(head.update.topic)
        self._queue.popleft()
        self._messages -= head.size
        self.bytes -= head.bytes
        if head.update is not None and self._newest.get(head.update.topic) is head:
            del self._newest[head.update.topic]
        return head.payload

    def clear(self) -> None:
        """Nothing more will leave."""
        self._replace(())
        self._owed.clear()
        self._newest.clear()

    def forget(self, topic: Any) -> None:
        """The client left the topic: nothing of it waits or is owed any more."""
        self._owed.pop(topic, None)
        self._newest.pop(topic, None)
        self._replace([q for q in self._queue if q.update is None or q.update.topic != topic])

    def _replace_older(self, update: Update) -> None:
        waiting = self._newest.get(update.topic)
        if waiting is None:
            self._newest[update.topic] = queued = _Queued(self._pack(update), update)
            self._append(queued)
            return
        assert waiting.update is not None
        self._messages -= waiting.size
        self.bytes -= waiting.bytes
        waiting.update = waiting.update.superseded_by(update)
        waiting.payload = self._pack(waiting.update)
        waiting.bytes = _length(waiting.payload)
        self._messages += waiting.size
        self.bytes += waiting.bytes

    def _append(self, queued: _Queued[P]) -> None:
        queued.since = self._clock()
        self._queue.append(queued)
        self._messages += queued.size
        self.bytes += queued.bytes

    def _replace(self, queue: Sequence[_Queued[P]]) -> None:
        self._queue = deque(queue)
        self._messages = sum(q.size for q in queue)
        self.bytes = sum(q.bytes for q in queue)

    def _settle(self, topic: Any) -> P | None:
        if topic is None:
            return None
        return self._announce(topic, *self._owed.pop(topic))

    def _make_room(self, wanted: int = 0) -> None:
        """Drop what the policy says, for `wanted` more to fit. Costs what is dropped, not what waits."""
        if self.policy is SlowClient.DISCONNECT:
            raise OutboxFull
        if self.policy is SlowClient.CONFLATE:
            self._keep_newest_of_each_topic()
        else:
            self._drop_oldest(self._messages + wanted - self.limit)

    def _drop_oldest(self, excess: int) -> None:
        spared: list[_Queued[P]] = []
        while excess > 0 and self._queue:
            queued = self._queue.popleft()
            if queued.update is None or not queued.sheddable:
                spared.append(queued)
                continue
            rest = self._drop(queued, queued.update, min(excess, queued.size))
            excess -= queued.size - (rest.size if rest else 0)
            if rest:
                self._queue.appendleft(rest)
        self._queue.extendleft(reversed(spared))

    def _keep_newest_of_each_topic(self) -> None:
        newest = {q.update.topic: q.update for q in self._queue if q.update is not None and q.sheddable}
        waiting, self._queue = self._queue, deque()
        for queued in waiting:
            kept: _Queued[P] | None = queued
            if (
                queued.update is not None
                and queued.sheddable
                and (excess := queued.size - (newest[queued.update.topic] is queued.update))
            ):
                kept = self._drop(queued, queued.update, excess)
            if kept:
                self._queue.append(kept)

    def _drop(self, queued: _Queued[P], update: Update, count: int) -> _Queued[P] | None:
        """The rest of `queued`, which is `update`, without its first `count` entries, which become owed."""
        dropped = update.upto(count)
        last, items = dropped.last, dropped.items
        owed = self._owed.get(update.topic)
        self._owed[update.topic] = (owed[0], last, owed[2] + items) if owed else (update.first, last, items)
        self.dropped += items
        self._messages -= count
        self.bytes -= queued.bytes
        rest = update.after(last)
        if rest is None:
            return None
        kept = _Queued(self._pack(rest), rest, since=queued.since)
        self.bytes += kept.bytes
        return kept
