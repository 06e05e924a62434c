"""The interest in a source, divided into shares: what one connection can carry.

Rules of this file: pure, no clock. A symbol stays in its share for as long as it is wanted. A new one goes
into the first share with room. A share without symbols is gone, but for the last one: a source is connected
although nobody wants anything of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import count

from actors.connector import Interest


class Division(Interest):
    """The interest in a source whose connections carry `room` symbols each.

    `reshaped()` is called when there is another share, or one less. It must not raise.
    """

    def __init__(
        self, room: int, always: Iterable[str] = (), reshaped: Callable[[], object] = lambda: None
    ) -> None:
        self._room = room
        self._reshaped = reshaped
        self._sizes: Counter[int] = Counter()
        self._parts = {1: Interest()}
        self._part_of: dict[str, int] = {}
        super().__init__(always)

    @property
    def parts(self) -> Mapping[int, Interest]:
        """The shares by number, never none: what is wanted of each."""
        return self._parts

    def part_of(self, topic: str) -> int | None:
        """The number of the share of a wanted topic; None when nobody wants it."""
        return self._part_of.get(topic)

    def divide(self, room: int) -> None:
        """From now on a share has room for `room` symbols. If that is news, all are dealt out anew."""
        if room != self._room:
            self._room = room
            self._parts, self._part_of = {1: Interest()}, {}
            self._sizes.clear()
            for topic in sorted(self.topics):
                self._place(topic)
            self._reshaped()
            self.touch()

    def want(self, topic: str, holder: object) -> None:
        self._place(topic)
        super().want(topic, holder)

    def release(self, topic: str, holder: object) -> None:
        super().release(topic, holder)
        if self.term(topic) is None:
            self._displace(topic)

    def renew(self, topic: str, reconnect: str | None = None) -> None:
        super().renew(topic, reconnect)
        if (number := self._part_of.get(topic)) is not None:
            self._parts[number].renew(topic, reconnect)

    def confine(self, possible: Collection[str], always: Iterable[str] = ()) -> None:
        for topic in self.topics.difference(possible):
            self._displace(topic)
        super().confine(possible, always)

    def _place(self, topic: str) -> None:
        if topic in self._part_of:
            return
        roomy = (number for number in sorted(self._parts) if self._sizes[number] < self._room)
        number = next(roomy, None) or next(number for number in count(1) if number not in self._parts)
        is_new = number not in self._parts
        self._part_of[topic] = number
        self._sizes[number] += 1
        self._parts.setdefault(number, Interest()).want(topic, self)
        if is_new:
            self._reshaped()

    def _displace(self, topic: str) -> None:
        number = self._part_of.pop(topic, None)
        if number is None:
            return
        self._sizes[number] -= 1
        self._parts[number].release(topic, self)
        if not self._sizes[number] and len(self._parts) > 1:
            del self._parts[number]
            self._reshaped()
