"""The waiting room: connections without a request in hand, new ones and those between two requests.

Rules of this file. Every connection is accepted at once; a silent one keeps nobody out. It waits here, with
a clock of its own (see `connection.py`). When room is needed, the one that waits longest goes, but not within
its first `GRACE` seconds: its request may be here, unread. An address, or a network of IPv6, may have
`per_address()` connections here. One more dismisses the longest-waiting one of them. A connection with a
request is not here, and is never dismissed for another.
"""

from __future__ import annotations

import ipaddress
from collections import Counter, OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

import trio

NO_ROOM: Final = "no room"  # reasons of a dismissal
SAME_ADDRESS: Final = "too many of one address"
GRACE: Final = 0.25  # seconds


def holder(address: str) -> str:
    """Whose share a client uses: its IPv4 address, or its whole network of IPv6, which costs it nothing."""
    if ":" not in address:
        return address
    with suppress(ValueError):
        return str(ipaddress.ip_network((address, 64), strict=False))
    return address


class Doorway:
    """Lets `at_once` connections pass in one turn of the event loop, first come, first served.

    For those whose request is here: what it costs to let them in is ours, and comes in storms. Everybody who
    is in already gets a turn in between.
    """

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._turns = trio.Semaphore(at_once)

    async def pass_through(self) -> None:
        """Wait for a turn. What the caller does before its next checkpoint is done in it."""
        async with self._turns:
            await trio.lowlevel.checkpoint()

    @property
    def is_crowded(self) -> bool:
        """Whether more stand here than pass in the next two turns: further ones may wait in the kernel."""
        return self._turns.statistics().tasks_waiting > 2 * self._at_once


class Waiter(Protocol):
    """A connection without a request in hand."""

    @property
    def address(self) -> str:
        """The IP address of the peer."""

    def dismiss(self) -> None:
        """Close at once. Never waits or raises."""


class WaitingRoom:
    """The connections that wait, the longest-waiting first. `dismissed` counts by reason, for all rooms that
    share it.

    `is_exempt(address)`: an address that may have any number of them, such as a proxy's. `clock`: seconds.
    """

    def __init__(
        self,
        per_address: Callable[[], int],
        is_exempt: Callable[[str], bool],
        dismissed: Counter[str] | None = None,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        self.dismissed: Counter[str] = Counter() if dismissed is None else dismissed
        self._is_exempt = is_exempt
        self._per_address = per_address
        self._clock = clock
        # Not plain dictionaries: after many removals at the front, finding their first key gets ever slower.
        self._waiting: OrderedDict[Waiter, float] = OrderedDict()  # and since when
        self._by_holder: dict[str, OrderedDict[Waiter, None]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, waiter: Waiter) -> bool:
        return waiter in self._waiting

    def enter(self, waiter: Waiter) -> None:
        """`waiter` has no request from now on. Not an error when it is here already."""
        if waiter in self._waiting:
            return
        self._waiting[waiter] = self._clock()
        if self._is_exempt(waiter.address):
            return
        own = self._by_holder.setdefault(holder(waiter.address), OrderedDict())
        own[waiter] = None
        if len(own) > self._per_address():
            self._dismiss(next(iter(own)), SAME_ADDRESS)

    def leave(self, waiter: Waiter) -> None:
        """`waiter` has a request, or has ended. Not an error when it is not here."""
        if waiter not in self._waiting:
            return
        del self._waiting[waiter]
        its = holder(waiter.address)
        own = self._by_holder.get(its)
        if own is not None:
            own.pop(waiter, None)
            if not own:
                del self._by_holder[its]

    def make_room(self) -> bool:
        """Dismiss the connection that waits longest. False: there is none that had its time."""
        longest = next(iter(self._waiting), None)
        if longest is None or self._waiting[longest] > self._clock() - GRACE:
            return False
        self._dismiss(longest, NO_ROOM)
        return True

    def _dismiss(self, waiter: Waiter, reason: str) -> None:
        self.dismissed[reason] += 1
        self.leave(waiter)
        waiter.dismiss()
