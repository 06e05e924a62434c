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

QUIET: Final = 1.0  # seconds without a client after which the next ones have a line each again
FREELY: Final = 20  # clients with a line of their own in a burst ...
EVERY: Final = 10.0  # ... and seconds between two counts of the others
TOPICS_TOLD: Final = 10  # of one client; of more only the number is told
_TROUBLE: Final = frozenset({Ending.SLOW, Ending.FAILED, Ending.VIOLATION})


@frozen
class Guest:
    """A client as it came in. `came_at`: `trio.current_time()`. `agent`: its own word about its program."""

    number: int
    address: str
    protocol: str
    agent: str | None
    came_at: float

    def __str__(self) -> str:
        return f"{self.address}, {self.protocol}" + (f", {self.agent}" if self.agent else "")


class Guestbook:
    """Its methods may be called while no actor runs: then only counts that are due stay untold."""

    def __init__(self) -> None:
        self._burst = Burst(quiet=QUIET, every=EVERY, freely=FREELY)

    def came(self, guest: Guest) -> None:
        """A client has a session now."""
        self._write("came", paths.session(guest.number), "INFO", f"client came: {guest}")

    def refused(self, address: str, reason: str) -> None:
        """A client found no room."""
        self._write(f"refused ({reason})", paths.SESSIONS, "WARNING", f"client refused: {address}: {reason}")

    def went(self, guest: Guest, session: AnySession, ended: Ended) -> None:
        """The session of a client is over."""
        why, words = ended.why.value, ended.words
        told = words if words.startswith(why) else f"{why}: {words}" if words else why
        stayed = trio.current_time() - guest.came_at
        self._write(
            f"went ({why})",
            paths.session(guest.number),
            "WARNING" if ended.why in _TROUBLE else "INFO",
            f"client went after {stayed:.1f} s ({told}): {guest}; followed {_topics(session)}; "
            f"{session.sent:,} sent, {session.dropped:,} dropped",
        )

    async def run(self, ctx: Context) -> None:
        """Tell the counts of bursts that are over."""
        ctx.ready()
        try:
            while True:
                await trio.sleep(QUIET)
                self._tell_rest(trio.current_time())
        finally:
            self._tell_rest(math.inf)  # nobody tells it later

    def _write(self, kind: str, path: str, level: str, line: str) -> None:
        if count := self._burst.occurred((kind, level), trio.current_time()):
            others = f" (and {count - 1:,} more before)" if count > 1 else ""
            logger.bind(path=path).log(level, "{}{}", line, others)

    def _tell_rest(self, now: float) -> None:
        for (kind, level), count in self._burst.settle(now):
            logger.bind(path=paths.SESSIONS).log(level, "{:,} more clients {}", count, kind)


def _topics(session: AnySession) -> str:
    topics = [str(topic) for topic in session.lanes]
    more = f" and {len(topics) - TOPICS_TOLD} more" if len(topics) > TOPICS_TOLD else ""
    return ", ".join(topics[:TOPICS_TOLD]) + more or "nothing"
