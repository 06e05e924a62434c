"""Everything that can be done to a running simulator. The keyboard, the control port and tests use it.

Rule 1: a control either does what it says, or raises ValueError with a message that says what would be right.
Rule 2: `status` is plain data, ready for JSON.
"""

from __future__ import annotations

import math
from typing import Any, Literal, TypeAlias

from attrs import asdict, define

from .connection import Connection
from .exchange import Exchange, Mode
from .faults import Kind
from .player import Player

Speed: TypeAlias = float | Literal["max"]


def speed_of(text: Speed | str) -> float:
    """A speed from the command line or a request: ``max`` is infinite. ValueError unless greater than 0."""
    if text == "max":
        return math.inf
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not speed > 0:
        raise ValueError(f"speed must be a number greater than 0, or 'max', not {text!r}")
    return speed


@define
class Controls:
    """One exchange and, when it has a feed, its player."""

    exchange: Exchange
    player: Player | None = None

    async def disconnect(self, mode: Mode, seconds: float | None = None) -> None:
        """See `Exchange.disconnect`."""
        await self.exchange.disconnect(mode, seconds)

    def stall(self, seconds: float | None = None) -> None:
        """See `Exchange.stall`."""
        self.exchange.stall(seconds)

    def fault(
        self,
        kind: Kind,
        *,
        times: int | None = 1,
        probability: float = 1.0,
        symbol: str | None = None,
        seconds: float | None = None,
    ) -> dict[str, Any]:
        """See `Exchange.fault`."""
        fault = self.exchange.fault(
            kind, times=times, probability=probability, symbol=symbol, seconds=seconds
        )
        return asdict(fault)

    def withdraw(self, number: int | None = None) -> int:
        """Remove one fault, or all of them; returns how many were removed."""
        return self.exchange.faults.withdraw(number)

    def begin(self) -> None:
        """Start a feed whose `start` is ``told``."""
        self._playing().begin()

    def pause(self) -> None:
        """Pause the feed."""
        self._playing().pause()

    def resume(self) -> None:
        """Continue the feed."""
        self._playing().resume()

    def speed(self, speed: Speed) -> None:
        """Play the feed so many times as fast as it happened; ``max``: as fast as the clients read."""
        self._playing().set_speed(speed_of(speed))

    def status(self) -> dict[str, Any]:
        """The exchange's counters, faults, feed and connections."""
        exchange = self.exchange
        counters = ("published", "accepted", "refused", "slow_clients_cut", "failed")
        return {
            "exchange": exchange.dialect.name,
            "url": exchange.url,
            "refusing": exchange.refusing,
            "subscribed": sorted(exchange.subscribed),
            **{name: getattr(exchange, name) for name in counters},
            "faults": exchange.faults.active(),
            "struck": dict(exchange.faults.struck),
            "rest": self._rest(),
            "feed": self._feed(),
            "connections": [_connection(each) for each in exchange.connections],
        }

    def _rest(self) -> dict[str, Any] | None:
        exchange, rest = self.exchange, self.exchange.rest
        if exchange.dialect.rest is None:
            return None
        return {"url": exchange.rest_url, "asked": rest.asked, "refused": rest.refused, "used": rest.used}

    def _feed(self) -> dict[str, Any] | None:
        if self.player is None:
            return None
        pace = self.player.pace
        speed = "max" if math.isinf(pace.speed) else pace.speed
        finished = self.player.finished.is_set()
        return {"played": self.player.played, "speed": speed, "paused": pace.paused, "finished": finished}

    def _playing(self) -> Player:
        if self.player is None:
            raise ValueError("this exchange has no feed: trades are published by hand")
        return self.player


def _connection(connection: Connection) -> dict[str, Any]:
    return {
        "number": connection.number,
        "subscribed": sorted(connection.session.symbols),
        "sent": connection.sent,
        "queued": connection.queued,
        "swallowed": connection.swallowed,
        "silent": connection.silent,
    }
