"""Gives a feed its time: plays it to an exchange at a pace that can be changed while it plays.

Rule 1: `Pace` is pure: it maps the feed's time to the clock's and waits for nobody.
Rule 2: the clock is Trio's, so a test's clock rules it.
Rule 3: time in which an exchange held an item back does not count: the feed goes on from there, without a
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
    """`speed` times the feed's own pace (infinite: as fast as it is taken), unless paused. Seconds."""

    speed: float = 1.0
    paused: bool = False
    _feed: float = 0.0
    _clock: float = 0.0

    def __attrs_post_init__(self) -> None:
        _check(self.speed)

    def due(self, at: float) -> float:
        """When, on the clock, what stands at `at` in the feed is due; infinity while paused."""
        if self.paused:
            return math.inf
        return -math.inf if math.isinf(self.speed) else self._clock + (at - self._feed) / self.speed

    def anchor(self, at: float, now: float) -> None:
        """From `now` on, count from `at` in the feed."""
        self._feed, self._clock = at, now

    def change(self, speed: float, now: float) -> None:
        """Go on at another speed. ValueError unless it is greater than 0."""
        _check(speed)
        self._settle(now)
        self.speed = speed

    def pause(self, now: float) -> None:
        """Stand still."""
        self._settle(now)
        self.paused = True

    def resume(self, now: float) -> None:
        """Go on from where it stands."""
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

    `start`: ``now``; ``told`` (by `begin`); ``first_subscriber``; or ``all_subscribed``, when somebody is
    subscribed to every symbol of the feed, so that nothing is played past a client that is still subscribing.
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
        """Stand still until `resume`."""
        self.pace.pause(trio.current_time())
        self._changed.unpark_all()

    def resume(self) -> None:
        """Go on from where it stands."""
        self.pace.resume(trio.current_time())
        self._changed.unpark_all()

    def set_speed(self, speed: float) -> None:
        """Go on at another speed (``math.inf``: as fast as possible). ValueError unless greater than 0."""
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
    """Play a feed for the length of an ``async with``; what is not yet played at its end is left."""
    player = Player(exchange, feed, Pace(speed), start)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(player.run)
        yield player
        nursery.cancel_scope.cancel()
