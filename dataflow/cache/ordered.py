"""Two orders of the same few thousand values: by place, and by time.

Rules of this file: it knows nothing of trades. Adding at the end and removing at the front cost the same for
any number of stored values (amortised). Finding costs a binary search. Only `ByTime.update` sorts all values,
and only when it adds as many as there were.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Sequence
from itertools import chain, takewhile
from typing import Any, Final, Generic, TypeVar

from attrs import Factory, define

V = TypeVar("V")

_CHUNK: Final = 256  # the most keys that one insertion or removal in the middle moves
_SLACK: Final = 64  # so few forgotten places are not worth a compaction


def _places() -> array[int]:
    return array("q")


def _moments() -> array[float]:
    return array("d")


@define(repr=False)
class ByPlace(Generic[V]):
    """Values in the order of their appending. Each ends at a greater place than the one before.

    They come back as (end, value). Places are below 2**63, times are seconds; each takes 8 bytes.
    """

    _values: list[V] = Factory(list)
    _ends: array[int] = Factory(_places)
    _since: array[float] = Factory(_moments)
    _head: int = 0  # values before it are forgotten; a quarter of all is freed at once

    def __len__(self) -> int:
        return len(self._values) - self._head

    def append(self, value: V, end: int, now: float) -> None:
        """Add a value that ends at place `end`, at time `now`."""
        self._values.append(value)
        self._ends.append(end)
        self._since.append(now)

    def extend(self, values: Sequence[V], first: int, now: float) -> None:
        """Add values of one place each at time `now`. The first one gets place `first`."""
        self._values.extend(values)
        self._ends.extend(array("q", range(first, first + len(values))))
        self._since.extend(array("d", (now,)) * len(values))

    def oldest(self) -> tuple[int, V] | None:
        """The first value."""
        return (self._ends[self._head], self._values[self._head]) if len(self) else None

    def older_than(self, moment: float) -> bool:
        """Whether there is a first value, and it was added before `moment`."""
        return self._head < len(self._values) and self._since[self._head] < moment

    def newest(self) -> V | None:
        """The last value."""
        return self._values[-1] if len(self) else None

    def descending(self) -> Iterator[tuple[int, V]]:
        """The values from the last to the first."""
        indices = range(len(self._values) - 1, self._head - 1, -1)
        return ((self._ends[index], self._values[index]) for index in indices)

    def forget_oldest(self) -> tuple[int, V]:
        """Remove the first value. Raises IndexError when there is none."""
        removed = self._ends[self._head], self._values[self._head]
        self.forget(1)
        return removed

    def forget(self, count: int) -> None:
        """Remove the first `count` values. There must be so many."""
        self._head += count
        if self._head > _SLACK + len(self._values) // 4:
            del self._values[: self._head], self._ends[: self._head], self._since[: self._head]
            self._head = 0

    def at(self, place: int) -> V | None:
        """The value that takes `place` or, where that is forgotten, the first one; None behind the last."""
        index = bisect_left(self._ends, place, lo=self._head)
        return self._values[index] if index < len(self._values) else None

    def replace(self, values: Sequence[tuple[int, V]]) -> None:
        """Put these values, each with its last place, in the stead of the one that ends where they end.

        They count as old as that. Costs a move of all values behind it.
        """
        index = bisect_left(self._ends, values[-1][0], lo=self._head)
        some = slice(index, index + 1)
        self._values[some] = [value for _, value in values]
        self._ends[some] = array("q", [end for end, _ in values])
        self._since[some] = array("d", (self._since[index],)) * len(values)

    def since_when(self, place: int) -> float | None:
        """When the first value that ends after `place` was added; None when there is none."""
        index = bisect_right(self._ends, place, lo=self._head)
        return self._since[index] if index < len(self._since) else None

    def since(self, moment: float) -> Iterator[V]:
        """The values that were added at `moment` or later, newest first."""
        indices = range(len(self._values) - 1, self._head - 1, -1)
        return (self._values[at] for at in takewhile(lambda at: self._since[at] >= moment, indices))

    def of_type(self, kind: type) -> Iterator[tuple[V, V | None, float]]:
        """The values of exactly this class, each with the one behind it and the time of its adding."""
        values, head = self._values, self._head
        for index in [at for at, value in enumerate(values) if type(value) is kind and at >= head]:
            behind = values[index + 1] if index + 1 < len(values) else None
            yield values[index], behind, self._since[index]

    def after(self, place: int, limit: int | None = None) -> Iterator[tuple[int, V]]:
        """At most `limit` values that end after `place`, in order."""
        start = bisect_right(self._ends, place, lo=self._head)
        end = None if limit is None else start + limit
        return zip(self._ends[start:end], self._values[start:end], strict=True)

    def before(self, place: int, limit: int) -> Iterator[tuple[int, V]]:
        """The last `limit` values that end before `place`, in order."""
        end = bisect_left(self._ends, place, lo=self._head)
        start = max(self._head, end - limit)
        return zip(self._ends[start:end], self._values[start:end], strict=True)

    def count_after(self, place: int) -> int:
        """The number of values that end after `place`."""
        return len(self._ends) - bisect_right(self._ends, place, lo=self._head)

    def before_newest(self, count: int) -> int:
        """The end of the value before the `count` newest ones; 0 when there are no more than these."""
        return self._ends[-count - 1] if len(self) > count else 0


@define(repr=False)
class ByTime(Generic[V]):
    """Values sorted by (time, place). The place is unique and at least 1.

    This is a list of short sorted lists: nearly all values are added at the end and removed at the front, and
    any other value moves at most one short list.
    """

    _chunks: list[list[tuple[Any, ...]]] = Factory(list)  # (time, place, value): the value is never compared
    _maxima: list[tuple[int, int]] = Factory(list)

    def update(self, values: Sequence[tuple[int, int, V]]) -> None:
        """Add several (time, place, value). If they are as many as the old ones, all are sorted again."""
        if len(values) < sum(map(len, self._chunks)):
            for time, place, value in values:
                self.add(time, place, value)
            return
        whole = sorted(chain(*self._chunks, values))
        self._chunks = [whole[start : start + _CHUNK] for start in range(0, len(whole), _CHUNK)]
        self._maxima = [chunk[-1][:2] for chunk in self._chunks]

    def add(self, time: int, place: int, value: V) -> None:
        """Add one value."""
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
        """Remove the value with this time and place."""
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
        # The last chunk stays full: the next values belong behind it.
        middle = _CHUNK if at == len(self._chunks) - 1 else _CHUNK // 2
        self._chunks[at : at + 1] = [chunk[:middle], chunk[middle:]]
        self._maxima[at : at + 1] = [chunk[middle - 1][:2], chunk[-1][:2]]
