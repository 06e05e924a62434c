"""The actor that writes clients into the log: a line when one comes, and a line when one goes.

Rules of this file. A storm costs few lines: the first clients have a line each, the others are counted, and
the count is told. Nothing here is kept of a client that has gone; `Clients` counts for the metrics.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import trio
from attrs import frozen
from loguru import logger

from actors.session import Ended, Ending
from dataflow import paths
from dataflow.logs import Burst
from supervisors import Context

if TYPE_CHECKING:
    from .clients import AnySession
    from .limits import Account

QUIET: Final = 1.0  # seconds without a client after which the next ones have a line each again
FREELY: Final = 20  # clients with a line of their own in a burst ...
EVERY: Final = 10.0  # ... and seconds between two counts of the others
TOPICS_TOLD: Final = 10  # of one client; of more only the number is told
_TROUBLE: Final = frozenset({Ending.SLOW, Ending.FAILED, Ending.VIOLATION})


@frozen
class Guest:
    """A client as it came in. `came_at`: `trio.current_time()`. `agent`: its own word about its program.
    `account`: where its session counts."""

    number: int
    address: str
    protocol: str
    agent: str | None
    came_at: float
    account: Account | None = None

    def __str__(self) -> str:
        return f"{self.address}, {self.protocol}" + (f", {self.agent}" if self.agent else "")


class Guestbook:
    """Its methods may be called while no actor runs: then only counts that are due stay untold."""

    def __init__(self) -> None:
        self._burst = Burst(quiet=QUIET, every=EVERY, freely=FREELY)

    def came(self, guest: Guest) -> None:
        """A client has a session now."""
        if count := self._due("came", "INFO"):
            self._write("INFO", paths.session(guest.number), count, f"client came: {guest}")

    def refused(self, address: str, reason: str) -> None:
        """A client found no room."""
        if count := self._due(f"refused ({reason})", "WARNING"):
            self._write("WARNING", paths.SESSIONS, count, f"client refused: {address}: {reason}")

    def went(self, guest: Guest, session: AnySession, ended: Ended) -> None:
        """The session of a client is over."""
        why, level = ended.why.value, "WARNING" if ended.why in _TROUBLE else "INFO"
        if count := self._due(f"went ({why})", level):
            told = ended.words if ended.words.startswith(why) else f"{why}: {ended.words}".removesuffix(": ")
            stayed = trio.current_time() - guest.came_at
            line = (
                f"client went after {stayed:.1f} s ({told}): {guest}; followed {_topics(session)}; "
                f"{session.sent:,} sent, {session.dropped:,} dropped"
            )
            self._write(level, paths.session(guest.number), count, line)

    async def run(self, ctx: Context) -> None:
        """Tell the counts of bursts that are over."""
        ctx.ready()
        try:
            while True:
                await trio.sleep(QUIET)
                self._tell_rest(trio.current_time())
        finally:
            self._tell_rest(math.inf)  # nobody tells it later

    def _due(self, kind: str, level: str) -> int:
        """How many clients the next line is about; 0: none now. In a storm nothing else is done for each."""
        return self._burst.occurred((kind, level), trio.current_time())

    def _write(self, level: str, path: str, count: int, line: str) -> None:
        others = f" (and {count - 1:,} more before)" if count > 1 else ""
        logger.bind(path=path).log(level, "{}{}", line, others)

    def _tell_rest(self, now: float) -> None:
        for (kind, level), count in self._burst.settle(now):
            logger.bind(path=paths.SESSIONS).log(level, "{:,} more clients {}", count, kind)


def _topics(session: AnySession) -> str:
    topics = [str(topic) for topic in session.lanes]
    more = f" and {len(topics) - TOPICS_TOLD} more" if len(topics) > TOPICS_TOLD else ""
    return ", ".join(topics[:TOPICS_TOLD]) + more or "nothing"
