"""Two orders over the same few thousand values: by place, and by time.

Rules of this file: it knows nothing of trades. Adding at the end and removing at the front cost the
same however much is stored (amortised), finding costs a binary search, and nothing is ever sorted
as a whole.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from typing import Any, Final, Generic, TypeVar

from attrs import Factory, define

V = TypeVar("V")

_CHUNK: Final = 256  # keys moved at worst by one insertion or removal in the middle
_SLACK: Final = 64  # forgotten places that are not worth a compaction


@define
class ByPlace(Generic[V]):
    """Values in the order in which they were appended, each ending at a place greater than the one before."""

    _values: list[V] = Factory(list)
    _ends: list[int] = Factory(list)
    _since: list[float] = Factory(list)
    _head: int = 0  # what stands before it is forgotten, and freed when it is a quarter of the whole

    def append(self, value: V, end: int, now: float) -> None:
        """Add a value that ends at place `end`, at time `now`."""
        self._values.append(value)
        self._ends.append(end)
        self._since.append(now)

    def oldest(self) -> V | None:
        """The first value."""
        return self._values[self._head] if self._head < len(self._values) else None

    def older_than(self, moment: float) -> bool:
        """Whether there is a first value and it came before `moment`."""
        return self._head < len(self._values) and self._since[self._head] < moment

    def newest(self) -> V | None:
        """The last value."""
        return self._values[-1] if self._head < len(self._values) else None

    def descending(self) -> Iterator[V]:
        """The values from the last to the first."""
        return (self._values[index] for index in range(len(self._values) - 1, self._head - 1, -1))

    def forget_oldest(self) -> None:
        """Remove the first value."""
        self._head += 1
        if self._head > _SLACK + len(self._values) // 4:
            del self._values[: self._head], self._ends[: self._head], self._since[: self._head]
            self._head = 0

    def after(self, place: int, limit: int) -> list[V]:
        """At most `limit` values that end after `place`, in order."""
        start = bisect_right(self._ends, place, lo=self._head)
        return self._values[start : start + limit]


@define
class ByTime(Generic[V]):
    """Values sorted by (time, place); the place is unique, at least 1, and breaks ties.

    A list of short sorted lists: values nearly always arrive at the end and leave from the front,
    and one that does not moves at most one short list.
    """

    _chunks: list[list[tuple[Any, ...]]] = Factory(list)  # (time, place, value): the value is never compared
    _maxima: list[tuple[int, int]] = Factory(list)

    def add(self, time: int, place: int, value: V) -> None:
        """Put a value where it belongs."""
        key = (time, place)
        if not self._chunks:
            self._chunks.append([])
            self._maxima.append(key)
        last = len(self._chunks) - 1
        at = last if key > self._maxima[last] else bisect_left(self._maxima, key)
        chunk = self._chunks[at]
        insort(chunk, (time, place, value))
        if len(chunk) > _CHUNK:
            self._split(at)
        elif key > self._maxima[at]:
            self._maxima[at] = key

    def remove(self, time: int, place: int) -> None:
        """Take out the value that was added with this time and place."""
        at = bisect_left(self._maxima, (time, place))
        chunk = self._chunks[at]
        del chunk[bisect_left(chunk, (time, place))]
        if chunk:
            self._maxima[at] = chunk[-1][:2]
        else:
            del self._chunks[at], self._maxima[at]

    def ascending(self, time: int) -> Iterator[V]:
        """Values at `time` or later, oldest first."""
        at = bisect_left(self._maxima, (time, 0))
        if at < len(self._chunks):
            chunk = self._chunks[at]
            yield from (value for _, _, value in chunk[bisect_left(chunk, (time, 0)) :])
        for index in range(at + 1, len(self._chunks)):
            yield from (value for _, _, value in self._chunks[index])

    def descending(self, time: int | None = None) -> Iterator[V]:
        """Values before `time` (all when it is None), newest first."""
        at = len(self._chunks) if time is None else bisect_left(self._maxima, (time, 0))
        if time is not None and at < len(self._chunks):
            chunk = self._chunks[at]
            yield from (value for _, _, value in reversed(chunk[: bisect_left(chunk, (time, 0))]))
        for index in range(at - 1, -1, -1):
            yield from (value for _, _, value in reversed(self._chunks[index]))

    def _split(self, at: int) -> None:
        chunk = self._chunks[at]
        # A chunk that overflows at the end keeps what it has: the next values belong behind it.
        middle = _CHUNK if at == len(self._chunks) - 1 else _CHUNK // 2
        self._chunks[at : at + 1] = [chunk[:middle], chunk[middle:]]
        self._maxima[at : at + 1] = [chunk[middle - 1][:2], chunk[-1][:2]]
