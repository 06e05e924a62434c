"""The newest unusable messages of a source, for operators.

Rules of this file: pure, `now` is given. It costs little however much garbage comes: of each kind a few are
kept in a second, the others are counted with the last one. Whoever shows a text looks for secrets in it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from attrs import define, field

KEPT: Final = 50
FREELY: Final = 5  # of one kind within a second
KINDS: Final = 100  # that are told apart


@define
class Excerpt:
    """`at`: when it came, ns since the epoch. `times`: for how many of its kind and second it stands."""

    at: int
    kind: str
    text: str
    times: int = 1


@define(eq=False)
class Excerpts:
    """The newest `KEPT` of them."""

    _kept: deque[Excerpt] = field(factory=lambda: deque(maxlen=KEPT), init=False)
    _series: dict[str, tuple[int, list[Excerpt]]] = field(factory=dict, init=False)  # since when, of a kind

    def add(self, kind: str, text: str, now: float) -> None:
        """One more has come, at `now`, seconds since the epoch."""
        at = int(now * 1e9)
        since, series = self._series.get(kind, (0, []))
        if not 0 <= at - since < 1_000_000_000:
            self._series.pop(kind, None)
            if len(self._series) >= KINDS:
                del self._series[next(iter(self._series))]
            since, series = self._series[kind] = at, []
        if len(series) >= FREELY:
            series[-1].times += 1
            return
        excerpt = Excerpt(at, kind, text)
        series.append(excerpt)
        self._kept.append(excerpt)

    def newest_first(self) -> Sequence[Excerpt]:
        """All that are kept."""
        return list(reversed(self._kept))
