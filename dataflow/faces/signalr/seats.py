"""The ids of connections: given out by a negotiation, taken by the client that connects, forgotten with it.

Rules of this file: no I/O. An id is a secret, for whoever knows it speaks for the client. An id that nobody
uses expires. The number of those is bounded, together and for each address; what is beyond gets none.
"""

from __future__ import annotations

import secrets
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Final, Generic, TypeVar
from weakref import WeakValueDictionary

import trio
from attrs import frozen

T = TypeVar("T")

EXPIRE_AFTER: Final = 15.0  # seconds
MOST_UNUSED: Final = 10_000  # ids that wait for their clients, all together: some 5 MB
_BYTES: Final = 16  # of chance in an id


class NoSeat(Exception):
    """Too many ids wait for their clients. `of_one`: too many of this address."""

    def __init__(self, of_one: bool) -> None:
        super().__init__("too many negotiations")
        self.of_one = of_one


@frozen
class _Unused:
    account: Hashable
    until: float


class Seats(Generic[T]):
    """Ids without a client yet, and the living clients of the others. `clock`: seconds.

    A client is kept by its session alone: when that has ended, its id is unknown again.
    """

    def __init__(self, clock: Callable[[], float] = trio.current_time) -> None:
        self._clock = clock
        self._unused: OrderedDict[str, _Unused] = OrderedDict()  # in the order in which they expire
        self._waiting: Counter[Hashable] = Counter()  # of them, by account
        self._taken: WeakValueDictionary[str, Any] = WeakValueDictionary()

    def __len__(self) -> int:
        """The ids that are known."""
        self._expire()
        return len(self._unused) + len(self._taken)

    def reserve(self, account: Hashable, most: float) -> tuple[str, str]:
        """A new id for a client of `account`, which may have `most`: its public name, and the secret.

        Raises NoSeat.
        """
        self._expire()
        if len(self._unused) >= MOST_UNUSED:
            raise NoSeat(of_one=False)
        if self._waiting[account] >= most:
            raise NoSeat(of_one=True)
        name, secret = secrets.token_urlsafe(_BYTES), secrets.token_urlsafe(_BYTES)
        self._unused[secret] = _Unused(account, self._clock() + EXPIRE_AFTER)
        self._waiting[account] += 1
        return name, secret

    def is_free(self, id: str) -> bool:
        """Whether a client may take it."""
        self._expire()
        return id in self._unused

    def take(self, id: str, client: T) -> bool:
        """Give it to `client`; False when it is not free."""
        if not self.is_free(id):
            return False
        self._forget(self._unused.pop(id))
        self._taken[id] = client
        return True

    def client(self, id: str) -> T | None:
        """The living client with this id."""
        return self._taken.get(id)

    def _expire(self) -> None:
        now = self._clock()
        while self._unused and next(iter(self._unused.values())).until <= now:
            self._forget(self._unused.popitem(last=False)[1])

    def _forget(self, unused: _Unused) -> None:
        self._waiting[unused.account] -= 1
        if not self._waiting[unused.account]:
            del self._waiting[unused.account]
