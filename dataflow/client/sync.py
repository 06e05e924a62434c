"""The feed for scripts and notebooks: the same, without `async`.

Rules of this file. A thread of its own runs the feed; the caller's thread takes events from it in portions.
Each position is still that of the last event which the caller has got. A cell of a notebook may run again:
the newest iterator of a symbol takes the place of the one before, which a variable or a traceback may still
hold, and a feed that nobody has any more is closed.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from datetime import datetime
from functools import partial
from typing import Any, Generic, TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal

from .events import Candle, Connection, Notice, Position, Quality, Trade
from .feed import Feed, Following, Since, TradeEvent, connect
from .pages import Page, Pages

E = TypeVar("E")


class SyncFollowing(Generic[E]):
    """The events of what is followed, in order: iterate by `for`. Close it, or drop it, to leave it."""

    def __init__(self, owner: SyncFeed, following: Following[E]) -> None:
        self._owner = owner  # open as long as this one is held
        self._portal = owner._portal
        self._feed = owner._feed
        self._following = following
        self._taken = following._inbox.taken
        self._asked: Future[None] | None = None  # a wait that was interrupted goes on

    def __iter__(self) -> SyncFollowing[E]:
        return self

    def __next__(self) -> E:
        """Raises what the feed raises: CallError, ServerFault, Unreachable."""
        while True:
            while self._taken:
                event = self._taken.popleft()
                if self._feed._places.give(event):
                    return event  # type: ignore[no-any-return]
            if not self._feed.is_open:
                raise StopIteration
            try:
                # It puts them into `_taken` itself: an interrupt may lose the task, but not its events.
                self._asked = self._asked or self._portal.start_task_soon(
                    self._following._several, self._taken
                )
                self._asked.result()
                self._asked = None
            except StopAsyncIteration:
                raise StopIteration from None

    def close(self) -> None:
        """Follow it no more."""
        if self._feed.is_open:
            self._portal.call(self._following.aclose)


class SyncFeed:
    """As `Feed`, for callers without an event loop. One thread may use it. Made by `connect_sync`.

    It is open. Use it by `with`, or call `close`; one that nobody holds any more is closed, too.
    """

    def __init__(self, portal: BlockingPortal, feed: Feed, opened: ExitStack) -> None:
        self._portal = portal
        self._feed = feed
        self._close = weakref.finalize(self, _close, feed._thread, opened)

    def __enter__(self) -> SyncFeed:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection and all iterators. Closing it again is no error."""
        self._close()

    @property
    def positions(self) -> dict[str, dict[str, Any]]:
        """As `Feed.positions`."""
        return self._feed.positions

    @property
    def connection(self) -> Connection:
        """As `Feed.connection`."""
        return self._feed.connection

    @property
    def waited(self) -> int:
        """As `Feed.waited`."""
        return self._feed.waited

    def trades(
        self,
        symbols: str | Iterable[str],
        *,
        snapshot: int | None = None,
        since: Since | None = None,
        quality: bool = False,
        room: int | None = None,
    ) -> SyncFollowing[TradeEvent]:
        """As `Feed.trades`."""
        asked = partial(
            self._feed.trades, symbols, snapshot=snapshot, since=since, quality=quality, room=room
        )
        return self._follow(asked)

    def candles(
        self,
        symbols: str | Iterable[str],
        interval: str,
        *,
        snapshot: int | None = None,
        room: int | None = None,
    ) -> SyncFollowing[Candle | Connection]:
        """As `Feed.candles`."""
        return self._follow(partial(self._feed.candles, symbols, interval, snapshot=snapshot, room=room))

    def quality(
        self, symbols: str | Iterable[str], *, room: int | None = None
    ) -> SyncFollowing[Quality | Connection]:
        """As `Feed.quality`."""
        return self._follow(partial(self._feed.quality, symbols, room=room))

    def events(self, *, room: int | None = None) -> SyncFollowing[Connection | Notice]:
        """As `Feed.events`."""
        return self._follow(partial(self._feed.events, room=room))

    def recent(self, symbol: str, count: int = 50) -> list[Trade]:
        """As `Feed.recent`."""
        return self._running.call(self._feed.recent, symbol, count)

    def history(
        self,
        symbol: str,
        *,
        after: Position | None = None,
        start: datetime | str | None = None,
        end: datetime | str | None = None,
        limit: int = 1_000,
    ) -> Iterator[Page]:
        """As `Feed.history`."""
        return self._pages(self._feed.history(symbol, after=after, start=start, end=end, limit=limit))

    def candle_history(
        self,
        symbol: str,
        interval: str,
        *,
        start: datetime | str | None = None,
        end: datetime | str | None = None,
        limit: int = 1_000,
    ) -> Iterator[list[Candle]]:
        """As `Feed.candle_history`."""
        return self._pages(self._feed.candle_history(symbol, interval, start=start, end=end, limit=limit))

    def symbols(self) -> list[dict[str, Any]]:
        """As `Feed.symbols`."""
        return self._running.call(self._feed.symbols)

    def status(self) -> dict[str, Any]:
        """As `Feed.status`."""
        return self._running.call(self._feed.status)

    def call(self, method: str, **params: Any) -> Any:
        """As `Feed.call`."""
        return self._running.call(partial(self._feed.call, method, **params))

    def _follow(self, asked: Callable[[], Following[E]]) -> SyncFollowing[E]:
        return SyncFollowing(self, self._running.call(asked))

    @property
    def _running(self) -> BlockingPortal:
        if not self._feed.is_open:
            raise RuntimeError("the feed is closed: call `connect_sync` again")
        return self._portal

    def _pages(self, pages: Pages[E]) -> Iterator[E]:
        while True:
            try:
                yield self._running.call(pages.__anext__)
            except StopAsyncIteration:
                return


def connect_sync(url: str, **options: Any) -> SyncFeed:
    """An open feed. Options, and what it raises, are those of `connect`."""
    feed = connect(url, **options)
    feed._newest_wins = True
    with ExitStack() as opening:
        portal = opening.enter_context(start_blocking_portal("asyncio"))
        opening.callback(portal.call, portal.stop, True)  # a call that was interrupted may still run
        opening.enter_context(portal.wrap_async_context_manager(feed))
        return SyncFeed(portal, feed, opening.pop_all())


def _close(thread: int | None, opened: ExitStack) -> None:
    if threading.get_ident() != thread:
        opened.close()
    else:  # the collector of garbage runs where it likes, and this thread cannot wait for itself
        threading.Thread(target=opened.close, daemon=True).start()
