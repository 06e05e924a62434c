"""What is kept of a stream, page by page."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

import msgspec

from .events import Gap, Position, Trade

P = TypeVar("P")


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a stream. `next`: where the next page begins, None at the end of a range.

    `rewound`: the position that was asked for is on a branch that was lost; drop what you hold behind this
    place.
    """

    symbol: str
    epoch: int
    trades: tuple[Trade, ...] = ()
    gaps: tuple[Gap, ...] = ()
    next: Position | None = None
    rewound: Position | None = None

    @property
    def entries(self) -> list[Trade | Gap]:
        """Trades and gaps in the order of the stream."""
        return sorted([*self.trades, *self.gaps], key=lambda entry: entry.first)


class Pages(Generic[P]):
    """Asks for one page after the other, as they are taken. A failed question can be repeated: by the next
    `anext`."""

    def __init__(self, ask: Callable[[Any], Awaitable[tuple[P | None, Any]]], first: Any) -> None:
        self._ask = ask
        self._next = first
        self._is_over = False

    def __aiter__(self) -> Pages[P]:
        return self

    async def __anext__(self) -> P:
        while not self._is_over:
            page, self._next = await self._ask(self._next)
            self._is_over = self._next is None
            if page is not None:
                return page
        raise StopAsyncIteration
