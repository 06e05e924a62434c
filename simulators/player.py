"""Plays a feed to an exchange, at a pace that can be changed while it plays.

Rule 1: `Pace` is pure: it maps the time of the feed to the time of the clock, and does not wait.
Rule 2: the clock is Trio's, so that a test can control it.
Rule 3: time in which the exchange holds an item does not count. The feed continues from there, without a
burst.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal, TypeAlias, get_args

import trio
from attrs import define, field

from .exchange import Exchange
from .feed import Feed, Tick

Start: TypeAlias = Literal["now", "told", "first_subscriber", "all_subscribed"]
STARTS: tuple[str, ...] = get_args(Start)


@define
class Pace:
    """When the items of a feed are due: `speed` times as fast as they happened, unless `paused`.

    An infinite speed plays as fast as the clients read. Times are in seconds. ValueError unless `speed` is
    greater than 0.
    """

    speed: float = 1.0
    paused: bool = False
    _feed: float = 0.0
    _clock: float = 0.0

    def __attrs_post_init__(self) -> None:
        _check(self.speed)

    def due(self, at: float) -> float:
        """The time on the clock at which the feed's time `at` is due; infinity while paused."""
        if self.paused:
            return math.inf
        return -math.inf if math.isinf(self.speed) else self._clock + (at - self._feed) / self.speed

    def anchor(self, at: float, now: float) -> None:
        """Set the clock's time `now` and the feed's time `at` equal."""
        self._feed, self._clock = at, now

    def change(self, speed: float, now: float) -> None:
        """Continue at another speed. ValueError unless it is greater than 0."""
        _check(speed)
        self._settle(now)
        self.speed = speed

    def pause(self, now: float) -> None:
        """Stop the feed's time."""
        self._settle(now)
        self.paused = True

    def resume(self, now: float) -> None:
        """Continue from where it paused."""
        self._settle(now)
        self.paused = False

    def _settle(self, now: float) -> None:
        moving = not self.paused and not math.isinf(self.speed)
        self.anchor(self._feed + (now - self._clock) * self.speed if moving else self._feed, now)


def _check(speed: float) -> None:
    if not speed > 0:
        raise ValueError(f"speed must be greater than 0 (infinite: as fast as possible), not {speed}")


@define(eq=False)
class Player:
    """Plays a feed to an exchange; `finished` is set at its end (a looped feed has none).

    `start` is when it begins. ``now``: at once. ``told``: when `begin` is called. ``first_subscriber``: when
    any symbol has a subscriber. ``all_subscribed``: when every symbol of the feed has one, so that a client
    that is still subscribing misses nothing. `played` counts items.
    """

    exchange: Exchange
    feed: Feed
    pace: Pace = field(factory=Pace)
    start: Start = field(default="now")
    played: int = 0
    finished: trio.Event = field(factory=trio.Event)
    _told: trio.Event = field(factory=trio.Event)
    _changed: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot)

    @start.validator
    def _is_start(self, attribute: object, value: str) -> None:
        if value not in STARTS:
            raise ValueError(f"start must be one of {', '.join(STARTS)}, not {value!r}")

    def begin(self) -> None:
        """Start, when `start` is ``told``."""
        self._told.set()

    def pause(self) -> None:
        """Pause until `resume`."""
        self.pace.pause(trio.current_time())
        self._changed.unpark_all()

    def resume(self) -> None:
        """Continue from where it paused."""
        self.pace.resume(trio.current_time())
        self._changed.unpark_all()

    def set_speed(self, speed: float) -> None:
        """Continue at another speed (``math.inf``: as fast as possible). ValueError unless greater than 0."""
        self.pace.change(speed, trio.current_time())
        self._changed.unpark_all()

    async def run(self) -> None:
        """Play to the end."""
        await self._wait_for_start()
        self.pace.anchor(0.0, trio.current_time())
        first_ns: int | None = None
        for tick in self.feed.open(self.exchange.now_us()):
            first_ns = tick.at_ns if first_ns is None else first_ns
            await self._play(tick, (tick.at_ns - first_ns) / 1e9)
        self.finished.set()

    async def _wait_for_start(self) -> None:
        match self.start:
            case "told":
                await self._told.wait()
            case "first_subscriber":
                await self.exchange.wait_subscribed()
            case "all_subscribed":
                await self.exchange.wait_subscribed(self.feed.symbols)

    async def _play(self, tick: Tick, at: float) -> None:
        while trio.current_time() < (due := self.pace.due(at)):
            with trio.CancelScope(deadline=due):
                await self._changed.park()
        await self.exchange.publish(tick.item)
        self.played += 1
        if math.isinf(self.pace.speed) or self.exchange.absent == "held":
            self.pace.anchor(at, trio.current_time())


@asynccontextmanager
async def playing(
    exchange: Exchange, feed: Feed, *, speed: float = 1.0, start: Start = "now"
) -> AsyncIterator[Player]:
    """Play a feed inside an ``async with``; playing stops at its end."""
    player = Player(exchange, feed, Pace(speed), start)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(player.run)
        yield player
        nursery.cancel_scope.cancel()
