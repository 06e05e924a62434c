"""Quotas: how much one address, or one named principal, may have and ask for.

Rules of this file: no I/O. Whoever has a name is counted under it; all others under their address, of which
a network of IPv6 (64 bits) is one. Sessions and subscriptions are counted while they last. Calls and bytes
are paid from buckets that fill again; a full one holds `BURST_SECONDS` of its rate, so that a client that
behaves never notices. Exempt addresses share one account without bounds: this machine and trusted proxies,
before which many clients stand.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import trio
from attrs import define, field

from dataflow.net.ip import is_loopback
from dataflow.server.accepting import holder
from dataflow.settings.schema import Limits

from .hops import Network, is_in
from .identity import ANONYMOUS, Principal
from .problems import TooManyRequests, TooManySubscriptions, Unavailable

BURST_SECONDS: Final = 10.0
REMEMBERED: Final = 10_000  # accounts; beyond it those without a session go, the longest unused first
FORGOTTEN_AT_ONCE: Final = 4
SESSIONS: Final = "sessions"  # reasons of a refusal
SUBSCRIPTIONS: Final = "subscriptions"
CALLS: Final = "calls"
BYTES: Final = "bytes"
MESSAGES: Final = "messages"  # of one client, faster than they are heard: that has a bound of its own
READS: Final = "reads"  # of the disk
DOWNLOADS: Final = "downloads"  # answers that are made while the client takes them
REFUSED: Final = (SESSIONS, SUBSCRIPTIONS, CALLS, BYTES, MESSAGES, READS, DOWNLOADS)

READS_AT_ONCE: Final = 2  # of one account; further ones wait ...
READS_WAITING: Final = 50  # ... and so many at most
DOWNLOADS_AT_ONCE: Final = 8  # of one account ...
DOWNLOADS_OF_ALL: Final = 64  # ... and of all: each holds some 2 MB
RETRY_AFTER: Final = 1.0  # seconds, for what ends nobody knows when


@define
class Bucket:
    """Holds what `rate` a second fills in `BURST_SECONDS`. May be in debt: a price can be known too late."""

    rate: float
    _level: float = field(init=False)
    _at: float

    def __attrs_post_init__(self) -> None:
        self._level = self._most

    def wait(self, now: float, amount: float = 0.0) -> float:
        """Seconds until it holds `amount`, at most 1, and has no debt."""
        self._fill(now)
        return max(0.0, (amount - self._level) / self.rate)

    @property
    def _most(self) -> float:
        return max(1.0, self.rate * BURST_SECONDS)

    def take(self, amount: float, now: float) -> None:
        """Take `amount`, whatever there is."""
        self._fill(now)
        self._level -= amount

    def _fill(self, now: float) -> None:
        self._level = min(self._most, self._level + (now - self._at) * self.rate)
        self._at = now


class Account:
    """What one address or principal has, and may still ask for. Made by `Quotas`."""

    __slots__ = ("_bytes", "_calls", "_quotas", "_reads", "downloads", "sessions", "subscriptions")

    def __init__(self, quotas: Quotas, now: float) -> None:
        self.sessions = 0
        self.subscriptions = 0
        self.downloads = 0
        self._reads: trio.Semaphore | None = None  # until the first
        self._quotas = quotas
        self.fill(now)

    def fill(self, now: float) -> None:
        """Full buckets, as the settings are now."""
        self._calls = Bucket(self._quotas.settings.calls_per_second, now)
        self._bytes = Bucket(self._quotas.settings.bytes_per_second, now)

    def has_room_for_session(self) -> bool:
        """Whether one more session is within the quota; a refusal is counted."""
        return self._is_within(SESSIONS, self.sessions, self._quotas.settings.sessions)

    def subscribe(self) -> None:
        """Count one more subscription. Raises TooManySubscriptions when that is beyond the quota."""
        most = self._quotas.settings.subscriptions
        if not self._is_within(SUBSCRIPTIONS, self.subscriptions, most):
            raise TooManySubscriptions(most, "all connections of your address or name count together")
        self.subscriptions += 1

    def call(self) -> None:
        """Pay for one call. Raises TooManyRequests; then nothing is paid."""
        if not self._is_bounded:
            return
        now = self._quotas.clock()
        for what, bucket, amount in ((CALLS, self._calls, 1), (BYTES, self._bytes, 0)):
            wait = bucket.wait(now, amount)
            if wait > 0:
                self._quotas.refused[what] += 1
                raise TooManyRequests(what, wait)
        self._calls.take(1, now)

    def pay(self, count: int) -> None:
        """Pay for `count` bytes of a request or its answer. What is missing delays the next call."""
        if self._is_bounded:
            self._bytes.take(count, self._quotas.clock())

    async def paid(self) -> None:
        """Wait until what was paid for is within the quota: for an answer that goes on for long."""
        if self._is_bounded and (wait := self._bytes.wait(self._quotas.clock())) > 0:
            await trio.sleep(wait)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        """Read from the disk. A few at a time; further ones wait. Raises TooManyRequests when too many do."""
        if not self._is_bounded:
            yield
            return
        self._reads = self._reads or trio.Semaphore(READS_AT_ONCE)
        waiting = self._reads.statistics().tasks_waiting
        if not self._is_within(READS, waiting, READS_WAITING):
            raise TooManyRequests(READS, RETRY_AFTER)
        async with self._reads:
            yield

    def check_download(self) -> None:
        """Raises TooManyRequests when one more download would be too many; Unavailable if others have all."""
        if not self._is_within(DOWNLOADS, self.downloads, DOWNLOADS_AT_ONCE):
            raise TooManyRequests(DOWNLOADS, RETRY_AFTER)
        if self._quotas.downloads >= DOWNLOADS_OF_ALL:
            self._quotas.refused[DOWNLOADS] += 1
            raise Unavailable("too many downloads at once, try again later", limit=DOWNLOADS_OF_ALL)

    @contextmanager
    def downloading(self) -> Iterator[None]:
        """While one lasts."""
        self.downloads += 1
        self._quotas.downloads += 1
        try:
            yield
        finally:
            self.downloads -= 1
            self._quotas.downloads -= 1

    @property
    def _is_bounded(self) -> bool:
        return self is not self._quotas.exempt

    def _is_within(self, what: str, count: int, most: int) -> bool:
        if count < most or not self._is_bounded:
            return True
        self._quotas.refused[what] += 1
        return False


class Quotas:
    """The accounts. `trusted`: the proxies. `refused` counts what there was too much of. `clock`: seconds."""

    def __init__(
        self,
        settings: Limits,
        trusted: Sequence[Network] = (),
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.trusted = trusted
        self.refused: Counter[str] = Counter(dict.fromkeys(REFUSED, 0))
        self.downloads = 0  # of all accounts
        self.exempt = Account(self, 0.0)
        self._accounts: OrderedDict[tuple[str, str], Account] = OrderedDict()

    def is_exempt(self, address: str) -> bool:
        """Whether it is this machine's, or a proxy's, which stands for many clients."""
        if self.settings.loopback:
            return False
        return is_loopback(address) or is_in(address, self.trusted)

    def has_reserve(self, address: str) -> bool:
        """Whether it finds room when clients have all: this machine, unless clients come in through it."""
        return self.is_exempt(address) and not is_in(address, self.trusted)

    def use(self, settings: Limits, trusted: Sequence[Network]) -> None:
        """From now on these settings hold, with full buckets. Who has more already keeps it."""
        self.settings, self.trusted = settings, trusted
        for account in self._accounts.values():
            account.fill(self.clock())

    def __len__(self) -> int:
        return len(self._accounts)

    def account(self, principal: Principal, address: str) -> Account:
        """The account of a client."""
        if self.is_exempt(address):
            return self.exempt
        unnamed = principal.name == ANONYMOUS.name
        key = ("address", holder(address)) if unnamed else ("name", principal.name)
        account = self._accounts.get(key)
        if account is None:
            self._forget()
            account = self._accounts[key] = Account(self, self.clock())
        self._accounts.move_to_end(key)
        return account

    def _forget(self) -> None:
        for _ in range(FORGOTTEN_AT_ONCE):
            if len(self._accounts) < REMEMBERED:
                return
            key, account = self._accounts.popitem(last=False)
            if account.sessions:
                self._accounts[key] = account
