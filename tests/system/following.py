"""A user's program that follows a daemon through the feed, on asyncio or on Trio, beside the test's own Trio loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import trio
from attrs import define, field

from dataflow.client import Connection, Feed, Filled, Gap, Rewound, Trade, connect

BACKENDS = ("asyncio", "trio")
RETRY = 0.05  # seconds


@define(eq=False)
class Program:
    """What it has got so far. `paused` holds it between two events."""

    symbols: str | list[str]
    options: Mapping[str, Any]
    events: list[Any] = field(factory=list)
    positions: Mapping[str, Any] = field(factory=dict)
    _token: trio.lowlevel.TrioToken = field(factory=trio.lowlevel.current_trio_token)
    _news: trio.Event = field(factory=trio.Event)
    _resumed: anyio.Event | None = None
    paused: bool = False
    begun: bool = False
    feed: Feed | None = None
    _soon: Any = None  # runs a function in the loop of the program
    _scope: anyio.CancelScope = field(init=False)

    def run(self, url: str, backend: str) -> None:
        """In a loop of its own, until `stop`. Blocks: for a thread."""
        anyio.run(self._main, url, backend, backend=backend)

    def stop(self) -> None:
        self._soon(self._scope.cancel)

    async def _main(self, url: str, backend: str) -> None:
        is_trio = backend == "trio"
        current = trio.lowlevel.current_trio_token if is_trio else asyncio.get_running_loop
        self._soon = getattr(current(), "run_sync_soon" if is_trio else "call_soon_threadsafe")
        with anyio.CancelScope() as self._scope:
            async with connect(url, retry_first=RETRY, retry_most=RETRY) as feed:
                self.begun = True
                self._tell()
                await self._follow(feed)

    async def _follow(self, feed: Feed) -> None:
        self.feed = feed
        async for event in feed.trades(self.symbols, **self.options):
            self._token.run_sync_soon(self._take, event, feed.positions)
            while self.paused:
                self._resumed = anyio.Event()
                self._tell()
                await self._resumed.wait()

    async def until(self, condition: Callable[[], object]) -> None:
        """Returns once `condition()` holds, looked at after each event."""
        while not condition():
            await self._news.wait()

    async def until_place(self, place: int, symbol: str = "BTC-USDT") -> None:
        """Returns once it is at this place."""
        await self.until(lambda: self.positions.get(symbol, {}).get("offset", 0) >= place)

    @property
    def is_held(self) -> bool:
        """Whether it stands between two events, because it is `paused`."""
        return self._resumed is not None

    def resume(self) -> None:
        self.paused = False
        self._soon(self._go_on)

    @property
    def states(self) -> list[str]:
        """What became of its connection, in order."""
        return [event.state for event in self.events if isinstance(event, Connection)]

    def of(self, state: str) -> list[Connection]:
        """How often its connection came into this state."""
        return [each for each in self.events if isinstance(each, Connection) and each.state == state]

    def _go_on(self) -> None:
        if self._resumed is not None:
            self._resumed.set()
            self._resumed = None  # it is held no more, whatever the next pause waits for

    def _take(self, event: Any, positions: Mapping[str, Any]) -> None:
        """In the test's loop: an event and its place are seen together."""
        self.events.append(event)
        self.positions = positions
        self._wake()

    def _tell(self) -> None:
        self._token.run_sync_soon(self._wake)

    def _wake(self) -> None:
        self._news.set()
        self._news = trio.Event()


@asynccontextmanager
async def following(
    url: str, backend: str, symbols: str | list[str] = "BTC-USDT", **options: Any
) -> AsyncIterator[Program]:
    """The program runs until the end of the block. Its errors are those of the block."""
    program = Program(symbols, options)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, program.run, url, backend)
        await program.until(lambda: program.begun)
        try:
            yield program
        finally:
            program.stop()


def replayed(events: Iterable[Any], symbol: str = "BTC-USDT") -> dict[int, str | None]:
    """What a reader holds who does as it is told: the id of each place, None in a gap. Each place comes once, in order;
    what comes twice, out of turn, or twice filled fails. So does a count that begins anew."""
    held: dict[int, str | None] = {}
    for event in events:
        if getattr(event, "symbol", None) != symbol:
            continue
        match event:
            case Trade():
                assert not held or event.offset == max(held) + 1, (event, max(held))
                held[event.offset] = event.trade_id
            case Gap(first=0):
                raise AssertionError("the count began anew, though nothing was forgotten")
            case Gap():
                assert not held or event.first == max(held) + 1, (event, max(held))
                held |= dict.fromkeys(range(event.first, event.last + 1))
            case Filled():
                for trade in event.trades:
                    assert held[trade.offset] is None
                    held[trade.offset] = trade.trade_id
            case Rewound():
                dropped = [place for place in held if place > event.offset]
                assert event.dropped == sum(held.pop(place) is not None for place in dropped)
    return held
