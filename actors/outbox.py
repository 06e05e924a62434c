"""The queue of one slow client, and what happens when it is full.

Rules of this file: no I/O; the clock is an argument. Two bounds hold, with the same policy: one counts
entries, the other bytes. Answers are never dropped (a session stops reading requests while answers wait, so
they bound themselves); updates are, by the policy. What came last is not dropped for its length: a single
payload may be longer than the bound when nothing waits before it. Every dropped place is owed to the client
as a gap, announced before the next update of that topic. A fill counts as a notice: it is not dropped, and
what is owed of its topic is announced before it. Of a topic where only the newest entries count
(`Stream.newest_by`) the older ones are replaced while they wait: nothing of it is owed or dropped. So there
are no more of them than things to have a state, and only their bytes are bounded: thousands of symbols that
change at once make no client slow.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Generic, TypeVar

from attrs import define

from .update import Update

P = TypeVar("P")


class SlowClient(Enum):
    """The fate of a client with a full outbox."""

    DISCONNECT = "disconnect"
    DROP_OLDEST = "drop_oldest"
    CONFLATE = "conflate"


class OutboxFull(Exception):
    """The outbox is full and the policy is to disconnect. Its text names the bound that was met."""


@define
class _Queued(Generic[P]):
    payload: P
    bytes: int
    update: Update | None = None  # None: an answer or a notice, which is never dropped
    since: float = 0.0  # the time at which it began to wait
    fill: tuple[Any, int] | None = None  # the topic and number of the fill of which this is the notice

    @property
    def topic(self) -> Any:
        """What it belongs to; None for an answer, and any other notice."""
        if self.update is not None:
            return self.update.topic
        return None if self.fill is None else self.fill[0]

    @property
    def size(self) -> int:
        return len(self.update.places) if self.update else 1

    @property
    def is_state(self) -> bool:
        """Whether only the newest of its topic counts."""
        return self.update is not None and self.update.stream.newest_by is not None

    @property
    def sheddable(self) -> bool:
        """Whether the policy may drop of it."""
        return self.update is not None and not self.is_state


class Outbox(Generic[P]):
    """A bounded queue of payloads in the order in which they will leave.

    `limit` entries and `most_bytes` bytes may wait. `pack` turns an update into a payload, `announce` a
    dropped range: its topic, its first and last place, and how many items were in it. `size` tells the bytes
    of a payload.
    """

    def __init__(
        self,
        limit: int,
        policy: SlowClient,
        pack: Callable[[Update], P],
        announce: Callable[[Any, int, int, int], P],
        most_bytes: int = 1 << 20,
        size: Callable[[P], int] = len,  # type: ignore[assignment]
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limit = limit
        self.most_bytes = most_bytes
        self.policy = policy
        self.dropped = 0
        self.bytes = 0  # of everything that waits
        self._pack = pack
        self._announce = announce
        self._size = size
        self._clock = clock
        self._queue: deque[_Queued[P]] = deque()
        self._messages = 0
        self._states = 0  # of these messages, those of topics where only the newest entries count
        self._owed: dict[Any, tuple[int, int, int]] = {}
        self._newest: dict[Any, _Queued[P]] = {}  # of topics where only the newest entries count
        self._mark: _Queued[P] | None = None

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
        return sum(queued.bytes for queued in self._queue if queued.update is None)

    @property
    def at_mark(self) -> bool:
        """Whether the place of a long message is the next one: see `mark`."""
        return self._mark is not None and self._queue[0] is self._mark

    def before(self) -> dict[Any, int]:
        """The place before the first one that waits or is owed, of each topic where there is one."""
        waiting = [(q.update.topic, q.update.first) for q in reversed(self._queue) if q.update is not None]
        owed = [(topic, first) for topic, (first, _, _) in self._owed.items()]
        return {topic: first - 1 for topic, first in waiting + owed}

    def first_fills(self) -> dict[Any, int]:
        """The number of the first fill that waits, of each topic where there is one."""
        return dict([queued.fill for queued in reversed(self._queue) if queued.fill is not None])

    def mark(self) -> None:
        """Keep a place in the order for a long message. Its pieces do not wait here; nothing passes it."""
        nothing: Any = None
        self._mark = _Queued(nothing, 0, since=self._clock())
        self._append(self._mark)
        self._newest.clear()  # as in `put`

    def unmark(self) -> None:
        """The long message has left."""
        assert self.at_mark
        self._queue.popleft()
        self._messages -= 1
        self._mark = None

    def put(self, payload: P, fill: tuple[Any, int] | None = None) -> None:
        """Queue an answer or a notice, that of a `fill` perhaps. Raises OutboxFull if even these pile up."""
        queued = _Queued(payload, self._size(payload), since=self._clock(), fill=fill)
        if self._queue:
            self._make_room(1, queued.bytes)
        if self._bounded >= 2 * self.limit:
            raise OutboxFull(f"{2 * self.limit} messages")
        if self._queue and self.bytes + queued.bytes > 2 * self.most_bytes:
            raise OutboxFull(f"{2 * self.most_bytes} bytes")
        self._append(queued)
        self._newest.clear()  # a later state must not overtake this answer, which may tell of an earlier one

    def put_update(self, update: Update) -> None:
        """Queue an update, dropping as the policy says. Raises OutboxFull under DISCONNECT."""
        if update.stream.newest_by is not None:
            self._replace_older(update)
        else:
            self._append(self._packed(update, self._clock()))
        if self._bounded > self.limit or self.bytes > self.most_bytes:
            self._make_room()

    def take(self) -> P | None:
        """The next payload to leave; None when nothing waits, or a long message comes first."""
        if not self._queue:
            return self._settle(next(iter(self._owed), None))
        head = self._queue[0]
        if head is self._mark:
            return None
        if head.topic is not None and head.topic in self._owed:
            return self._settle(head.topic)
        self._queue.popleft()
        self._count(head, -1)
        if head.update is not None and self._newest.get(head.update.topic) is head:
            del self._newest[head.update.topic]
        return head.payload

    def clear(self) -> None:
        """Nothing more will leave."""
        self._replace(())
        self._owed.clear()
        self._newest.clear()
        self._mark = None

    def forget(self, is_left: Callable[[Any], bool]) -> None:
        """The client left the topics of which this holds: nothing of them waits or is owed any more."""
        self._owed = {topic: owed for topic, owed in self._owed.items() if not is_left(topic)}
        self._newest = {topic: queued for topic, queued in self._newest.items() if not is_left(topic)}
        self._replace([q for q in self._queue if q.topic is None or not is_left(q.topic)])

    def _replace_older(self, update: Update) -> None:
        waiting = self._newest.get(update.topic)
        if waiting is None:
            self._newest[update.topic] = queued = self._packed(update.newest(), self._clock())
            self._append(queued)
            return
        assert waiting.update is not None
        self._count(waiting, -1)
        waiting.update = waiting.update.superseded_by(update)
        waiting.payload = self._pack(waiting.update)
        waiting.bytes = self._size(waiting.payload)
        self._count(waiting)

    def _packed(self, update: Update, since: float) -> _Queued[P]:
        payload = self._pack(update)
        return _Queued(payload, self._size(payload), update, since)

    def _append(self, queued: _Queued[P]) -> None:
        self._queue.append(queued)
        self._count(queued)

    def _replace(self, queue: Sequence[_Queued[P]]) -> None:
        self._queue = deque(queue)
        self._messages = self._states = self.bytes = 0
        for queued in queue:
            self._count(queued)

    def _count(self, queued: _Queued[P], sign: int = 1) -> None:
        """It waits now, or does no longer."""
        self._messages += sign * queued.size
        self._states += sign * queued.size * queued.is_state
        self.bytes += sign * queued.bytes

    @property
    def _bounded(self) -> int:
        """How many messages wait that `limit` is for."""
        return self._messages - self._states

    def _settle(self, topic: Any) -> P | None:
        if topic is None:
            return None
        return self._announce(topic, *self._owed.pop(topic))

    def _make_room(self, wanted: int = 0, wanted_bytes: int = 0) -> None:
        """Drop what the policy says, for so much more to fit. Costs what is dropped, not what waits."""
        many = self._bounded + wanted - self.limit
        waits = len(self._queue) if wanted else len(self._queue) - 1  # before what comes
        long = self.bytes + wanted_bytes - self.most_bytes if waits else 0
        if many <= 0 and long <= 0:
            return
        if self.policy is SlowClient.DISCONNECT:
            raise OutboxFull(f"{self.limit} messages" if many > 0 else f"{self.most_bytes} bytes")
        if self.policy is SlowClient.CONFLATE:
            self._keep_newest_of_each_topic()
        else:
            self._drop_oldest(many, long)

    def _drop_oldest(self, many: int, long: int) -> None:
        """Drop `many` entries, or more, so that `long` bytes are gone. Length alone costs no newest entry."""
        spared: list[_Queued[P]] = []
        while (many > 0 or long > 0) and self._queue:
            queued = self._queue.popleft()
            if queued.update is None or not queued.sheddable:
                spared.append(queued)
                continue
            share = -(-long * queued.size // max(queued.bytes, 1))  # rounded up
            count = min(max(many, min(share, queued.size - (not self._queue))), queued.size)
            if count <= 0:
                spared.append(queued)
                break
            rest = self._drop(queued, queued.update, count)
            many -= queued.size - (rest.size if rest else 0)
            long -= queued.bytes - (rest.bytes if rest else 0)
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
        rest = update.after(last)
        kept = self._packed(rest, queued.since) if rest else None
        self._messages -= count
        self.bytes -= queued.bytes - (kept.bytes if kept else 0)
        return kept
