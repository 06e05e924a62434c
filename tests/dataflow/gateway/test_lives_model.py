"""The same stream for everybody, whatever dies: history, disk, subscriptions and clients in any order of events.

The daemon is real, but for its sources, its sockets and its recorder, which is driven step by step. The clients keep
logs by the rules of the protocol, with the core that is made for it: it refuses what does not follow.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from decimal import Decimal
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias
from unittest.mock import patch

import trio
from attrs import define, field
from hypothesis import Phase, event, given, settings
from hypothesis import strategies as st
from loguru import logger
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.outbox import SlowClient
from actors.session import WireClosed
from dataflow.app import hall
from dataflow.cache.archive import Archive, Keep
from dataflow.cache.recorder import warm
from dataflow.cache.tiers import Tiers
from dataflow.client import Client, Filled, Gap, Rewound, Topic, Trade
from dataflow.domain import Gap as Hole
from dataflow.domain import Trade as Admitted
from dataflow.faces.jsonrpc.methods import Calls
from dataflow.gateway import recovery
from dataflow.gateway.hall import Hall
from dataflow.server.handshake import Handshake
from dataflow.settings.schema import Cache, History, Session, Settings
from dataflow.stores.sqlite import Store
from supervisors import Pool, open_supervisor
from tests.actors.fakes import FakeWire
from tests.support.memory_archive import MemoryArchive
from tests.system.daemon import from_binance

SYMBOL, SOURCE = "BTC-USDT", "binance"
TRADES = Topic("trades", SYMBOL)
NOBODY = Handshake("/", "", (), "192.0.2.1:1", encrypted=False)
KEPT = 8  # trades in memory
ALL = 1 << 40  # bytes: as much as there is
TODAY, NOW = "2024-10-04", 1_728_043_200.0
Lives: TypeAlias = list[tuple[list[tuple[str, int]], str]]  # of each what happens, and its end


def traded(number: int) -> Admitted:
    """What the exchange traded under this number, whenever it says so."""
    return Admitted(
        SOURCE, SYMBOL, str(number), "buy", Decimal(number), Decimal(1), number * 1000, sequence=number
    )


@define
class Listener:
    """A client over all its connections."""

    core: Client = field(factory=lambda: Client(keep=None))
    wire: FakeWire | None = None
    heard: int = 0

    def hear(self) -> None:
        """Take all whole messages that have come."""
        if self.wire is None:
            return
        texts = b"".join(self.wire.sent).split(b"\n")[:-1]
        for text in texts[self.heard :]:
            for happened in self.core.hear(text):
                if isinstance(happened, Filled | Rewound):
                    event(type(happened).__name__)
        self.heard = len(texts)


@define
class World:
    """One daemon after another over the same disk, one exchange, and some clients."""

    make: Callable[[], Archive]  # the same disk for each daemon
    archive: Archive = field(init=False)
    listeners: list[Listener] = field(factory=lambda: [Listener() for _ in range(3)])
    number: int = 0  # the last trade of the exchange
    hall: Hall | None = None

    @property
    def core(self) -> Any:
        assert self.hall is not None
        return self.hall.core

    @asynccontextmanager
    async def life(self) -> AsyncIterator[None]:
        """A daemon. Whoever was connected to the last one is not."""
        tables = {
            "cache": Cache(trades_per_symbol=KEPT, shards=1),
            "session": Session(outbox=6, slow_client=SlowClient.DROP_OLDEST),
        }
        self.archive = self.make()
        self.hall = hall(
            Settings(sources=from_binance("ws://127.0.0.1:9", SYMBOL), **tables),  # type: ignore[arg-type]
            archive=self.archive,
        )
        self.core.topics.readers.add_of_all(self.core.recording.news)
        await warm(self.core.recording, self.core.history)
        async with open_supervisor(Pool()) as topics, open_supervisor(Pool()) as sessions:
            self.hall.pool = topics
            self.hall._sessions = sessions
            yield
            for each in self.listeners:
                self.leave(each)

    # What can happen. `n` is any number.

    async def trade(self, n: int) -> None:
        self.admit(range(self.number + 1, self.number + 2 + n % 5))
        self.number += 1 + n % 5

    async def skip(self, n: int) -> None:
        self.number += 1 + n % 4

    async def repeat(self, n: int) -> None:
        """As an exchange does after a break: in order, with all that was missed."""
        self.admit(range(max(1, self.number - n), self.number + 1))

    async def straggler(self, n: int) -> None:
        if self.number:
            self.admit([1 + n % self.number])

    def admit(self, numbers: Any) -> None:
        for symbol in self.core.stores[0].admit([traded(each) for each in numbers], trio.current_time()):
            self.core.news(symbol)

    async def commit(self, _n: int) -> None:
        recording = self.core.recording
        batch = recording.batch(recording.runs())
        self.archive.append(batch)
        recording.written(batch)

    async def lost_commit(self, _n: int) -> None:
        """It is on disk, but the recorder died before it knew."""
        recording = self.core.recording
        self.archive.append(recording.batch(recording.runs()))

    async def retain(self, n: int) -> None:
        removed = self.archive.retain(Keep(days=9, trades=10 + n, min_free=0), TODAY)
        self.core.recording.removed(removed)

    async def connect(self, n: int) -> None:
        assert self.hall is not None
        listener = self.listeners[n % len(self.listeners)]
        self.leave(listener)
        listener.wire = FakeWire(ALL)
        await self.hall.open_session(listener.wire, lambda session: Calls(session, self.hall), NOBODY)  # type: ignore[arg-type]
        listener.core.follow(SYMBOL, snapshot=n % 20)
        for call in listener.core.connect():
            await listener.wire.says(call)

    async def stall(self, n: int) -> None:
        listener = self.listeners[n % len(self.listeners)]
        if listener.wire is not None:
            listener.wire.room = n * 40

    async def reads(self, n: int) -> None:
        listener = self.listeners[n % len(self.listeners)]
        if listener.wire is not None:
            listener.wire.reads(ALL)

    async def hang_up(self, n: int) -> None:
        self.leave(self.listeners[n % len(self.listeners)])

    async def settle(self, _n: int = 0) -> None:
        """All that is under way arrives."""
        await wait_all_tasks_blocked()
        for each in self.listeners:
            each.hear()

    def leave(self, listener: Listener) -> None:
        if listener.wire is not None:
            listener.wire._send.send_nowait(WireClosed("bye"))
        listener.wire, listener.heard = None, 0
        listener.core.lost()

    # The end.

    async def places(self) -> dict[int, str | None]:
        """By place: the number of the trade, None for a missing one. What cannot be had is not there."""
        found: dict[int, str | None] = {}
        after = 0
        while after < self.core.history(SYMBOL).last:
            for last, entry in await self.core.tiers.behind(SYMBOL, after, 1000):
                if not isinstance(entry, Hole):
                    found[last] = entry.trade_id
                elif entry.reason not in ("overrun", "not_recorded"):
                    found |= dict.fromkeys(range(entry.first, last + 1))
                after = last
        return found

    async def check(self) -> None:
        """After all have come back once more, each has what the server has."""
        for n in range(3 * len(self.listeners)):  # an answer has a bounded number of fills
            await self.connect(n)
            await self.settle()
        truth = await self.places()
        for listener in self.listeners:
            stream = listener.core.streams[TRADES]
            assert (stream.epoch, stream.offset) == (
                self.core.history(SYMBOL).epoch,
                self.core.history(SYMBOL).last,
            )
            for entry in stream.log:
                if isinstance(entry, Trade):
                    assert truth.get(entry.offset, entry.trade_id) == entry.trade_id, (
                        "it lost what it was told"
                    )
                elif isinstance(entry, Gap) and entry.first:
                    for place in range(entry.first, entry.last + 1):
                        assert truth.get(place) is None, f"place {place} is known, and {entry} hides it"


KINDS = ["trade"] * 4 + [
    "skip",
    "skip",
    "repeat",
    "straggler",
    "straggler",
    "commit",
    "commit",
    "lost_commit",
    "retain",
    "connect",
    "connect",
    "connect",
    "stall",
    "reads",
    "hang_up",
    "settle",
    "settle",
]
steps = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 30)), min_size=10, max_size=30)
ends = st.sampled_from(["crash", "crash after all was heard", "stop"])
lives = st.lists(st.tuples(steps, ends), min_size=2, max_size=4)


async def inline(self: Tiers, read: Callable[..., Any], *args: Any) -> Any:
    """A disk without threads: so that a run of the loop is the same each time."""
    await trio.lowlevel.checkpoint()
    return read(*args)


@contextmanager
def short() -> Iterator[None]:
    """So that a few trades are many."""
    logger.disable("dataflow")
    with (
        patch.object(Tiers, "_read", inline),
        patch.object(recovery, "RECOVERY_SLICE", 3),
        patch.object(recovery, "DISK_SLICE", 4),
        patch.object(recovery, "RECOVERY_LIMIT", 60),
    ):
        try:
            yield
        finally:
            logger.enable("dataflow")


async def run(make: Callable[[], Archive], lives: Lives) -> None:
    world = World(make)
    for happenings, end in [*lives, ([], "check")]:
        async with world.life():
            for what, n in happenings:
                await getattr(world, what)(n)
            if end == "crash after all was heard":
                await world.settle()
            elif end == "stop":
                while not world.core.recording.is_complete or world.core.history(SYMBOL).has_staged:
                    await world.commit(0)
            elif end == "check":
                await world.trade(0)
                await world.repeat(world.number)
                await world.commit(0)
                await world.check()
        world.archive.close(clean=end == "stop")


# To shrink an example would take minutes: a failure is told as it was found.
@settings(max_examples=40, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(lives)
def test_every_client_ends_with_the_log_of_the_server(lives: Lives) -> None:
    """No duplicate, no hole without a name, no place that changed its trade; what was lost is taken back."""
    archive = MemoryArchive()
    with short():
        trio.run(run, lambda: archive, lives, clock=MockClock(autojump_threshold=0))


@settings(max_examples=12, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(lives)
def test_the_same_with_files(lives: Lives) -> None:
    """With the store that a daemon has by default, opened anew in each life."""
    with short(), TemporaryDirectory() as folder:
        clock = MockClock(autojump_threshold=0)
        trio.run(run, lambda: Store(History(directory=folder), lambda: NOW), lives, clock=clock)
