"""How much there is to do: rates of the last seconds, and series of the last minutes.

Rules of this file: nothing is counted here. Once a second `look` reads counters that others keep, and a rate
is the difference of two looks; so it costs no trade anything, and falls to 0 when nothing comes. A gap is no
trade. All that is kept has a bound: some looks, and `KEPT` samples.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

import trio
from attrs import frozen

from dataflow.core import Core
from dataflow.domain import Topic
from dataflow.domain.symbols import ANY
from dataflow.domain.topic import TRADES
from dataflow.topics.every import EveryLog

from .answers import Sample
from .clients import Clients
from .memory import resident_bytes

EVERY: Final = 1.0  # seconds between two looks
WINDOW: Final = 10.0  # seconds of a rate
KEPT: Final = 900  # samples: a quarter of an hour, some 100 KB
_AT_ONCE: Final = 1000  # topics between two checkpoints: less than a millisecond

K = TypeVar("K")


@frozen
class _Look:
    at: float
    cpu: float
    trades: int
    sent: int
    symbols: Mapping[str, int]
    sources: Mapping[str, int]
    topics: Mapping[Topic, int]  # those of trades are as their symbols are


class Load:
    """The figures of one daemon. `cpu()`: seconds that the process has computed; `resident()`: its bytes."""

    def __init__(
        self,
        core: Core,
        clients: Clients,
        cpu: Callable[[], float] = time.process_time,
        resident: Callable[[], int | None] = resident_bytes,
    ) -> None:
        self._core = core
        self._clients = clients
        self._cpu = cpu
        self._resident = resident
        self._looks: deque[_Look] = deque(maxlen=int(WINDOW / EVERY) + 1)
        self._samples: deque[Sample | None] = deque(maxlen=KEPT)

    @property
    def due(self) -> float:
        """When the next look is due, on the clock of the event loop: at once before the first one."""
        return self._looks[-1].at + EVERY if self._looks else trio.current_time()

    async def look(self) -> None:
        """Read all counters, in pieces. A second in which nobody looked leaves a hole in the series."""
        topics = await self._topics()
        symbols: dict[str, int] = {}
        for store in self._core.stores:
            symbols |= store.came()
        look = _Look(
            trio.current_time(),
            self._cpu(),
            sum(symbols.values()),
            self._clients.totals().sent,
            symbols,
            {name: source.delivered.trades for name, source in self._core.sources.items()},
            topics,
        )
        if self._looks:
            self._add_sample(self._looks[-1], look)
        self._looks.append(look)
        while len(self._looks) > 2 and self._looks[1].at <= look.at - WINDOW:
            self._looks.popleft()

    def _add_sample(self, before: _Look, now: _Look) -> None:
        seconds = now.at - before.at
        self._samples.extend([None] * min(KEPT, round(seconds / EVERY) - 1))
        self._samples.append(
            Sample(
                cpu=_share(now.cpu - before.cpu, seconds),
                memory=self._resident(),
                loop_lag=round(self._core.lag.take_peak(), 4),
                trades=_share(now.trades - before.trades, seconds),
                sent=_share(now.sent - before.sent, seconds),
                sessions=len(self._clients),
            )
        )

    async def _topics(self) -> Mapping[Topic, int]:
        places = {}
        for number, (topic, fanout) in enumerate(self._core.topics.open_fanouts, start=1):
            log = fanout.log
            if topic.channel != TRADES:
                places[topic] = sum(log.places.values()) if isinstance(log, EveryLog) else log.last
            if number % _AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
        return places

    @property
    def trades(self) -> float:
        """Trades that were admitted, a second."""
        return self._total(lambda look: look.trades)

    @property
    def sent(self) -> float:
        """Entries that were sent to clients, a second; one that goes to two clients counts twice."""
        return self._total(lambda look: look.sent)

    @property
    def cpu(self) -> float:
        """What the process computes, as a share of one core."""
        return self._total(lambda look: look.cpu, digits=4)

    @property
    def memory(self) -> int | None:
        """Bytes resident now; None where nobody knows."""
        return self._resident()

    def of_symbol(self, symbol: str) -> float:
        """Trades of `symbol` that were admitted, a second. A symbol that nobody looked at has had none."""
        return self._total(lambda look: look.symbols.get(symbol, 0))

    def of_source(self, name: str) -> float:
        """Trades that this source delivered, a second."""
        return self._since_known(name, lambda look: look.sources)

    def of_topic(self, topic: Topic) -> float:
        """Entries of an open topic, a second: of trades as many as there are trades."""
        if topic.channel == TRADES:
            return self.trades if topic.symbol == ANY else self.of_symbol(topic.symbol)
        return self._since_known(topic, lambda look: look.topics)

    def samples(self, last: int) -> Sequence[Sample | None]:
        """The newest `last` samples, one a second, the oldest first; None where nobody looked."""
        return list(self._samples)[-last:]

    @property
    def age(self) -> float:
        """Seconds since the newest look; 0 before the first."""
        return trio.current_time() - self._looks[-1].at if self._looks else 0.0

    def _total(self, of: Callable[[_Look], float], digits: int = 2) -> float:
        if len(self._looks) < 2:
            return 0.0
        first, last = self._looks[0], self._looks[-1]
        return _share(of(last) - of(first), last.at - first.at, digits)

    def _since_known(self, key: K, of: Callable[[_Look], Mapping[K, int]]) -> float:
        """Of what was not there all the time: its counter may have begun long before it came back."""
        if not self._looks or (now := of(last := self._looks[-1]).get(key)) is None:
            return 0.0
        for look in self._looks:
            if (before := of(look).get(key)) is not None:
                return _share(now - before, last.at - look.at)
        raise AssertionError("the newest look has it")


def _share(of: float, seconds: float, digits: int = 2) -> float:
    """`of` a second; never below 0, for a counter may have begun anew."""
    return round(max(0.0, of / seconds), digits) if seconds > 0 else 0.0
