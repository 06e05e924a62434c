"""The actor that writes clients into the log: a line when one comes, goes, or takes nothing for some seconds.

Rules of this file. A storm costs few lines: the first clients have a line each, the others are counted, and
the count is told. Nothing here is kept of a client that has gone; `Clients` counts for the metrics. A client
that does not read shows it in two ways: what is sent waits here, or, while the sockets take it, a ping has no
answer. It is told long before it is ended for that, once until it reads again, and kept as an event.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import trio
from attrs import frozen
from loguru import logger

from actors.session import Ended, Ending
from dataflow import paths
from dataflow.events import Events, Kind
from dataflow.logs import Burst
from dataflow.server.endings import CODES
from supervisors import Context

if TYPE_CHECKING:
    from .clients import AnySession
    from .limits import Account

QUIET: Final = 1.0  # seconds without a client after which the next ones have a line each again
FREELY: Final = 20  # clients with a line of their own in a burst ...
EVERY: Final = 10.0  # ... and seconds between two counts of the others
STALLED_AFTER: Final = 5.0  # seconds for which a client takes or answers nothing before it is told
LOOK_EVERY: Final = 2.0  # seconds between two looks for such clients
_AT_ONCE: Final = 1000  # clients that are looked at between two checkpoints: half a millisecond
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

    def __init__(self, living: Mapping[AnySession, Guest], events: Events) -> None:
        self.untold = 0  # comings and goings without a line of their own
        self._living = living
        self._events = events
        self._stalled: set[int] = set()  # the numbers of clients of which that was told
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
        self._stalled.discard(guest.number)
        why, level = ended.why.value, "WARNING" if ended.why in _TROUBLE else "INFO"
        if count := self._due(f"went ({why})", level):
            told, code = why_ended(ended), code_of(ended)
            told += "" if code is None else f", code {code}"
            stayed = trio.current_time() - guest.came_at
            line = (
                f"client went after {stayed:.1f} s ({told}): {guest}; followed {_topics(session)}; "
                f"{session.sent:,} sent, {session.dropped:,} dropped"
            )
            self._write(level, paths.session(guest.number), count, line)

    async def run(self, ctx: Context) -> None:
        """Tell the counts of bursts that are over, and the clients that take nothing."""
        ctx.ready()
        look_at = trio.current_time() + LOOK_EVERY
        try:
            while True:
                await trio.sleep(QUIET)
                self._tell_rest(trio.current_time())
                if trio.current_time() >= look_at:
                    look_at = trio.current_time() + LOOK_EVERY
                    await self._look()
        finally:
            self._tell_rest(math.inf)  # nobody tells it later

    async def _look(self) -> None:
        living = list(self._living.items())
        for start in range(0, len(living), _AT_ONCE):
            now = trio.current_time()
            for session, guest in living[start : start + _AT_ONCE]:
                since = session.stuck_since
                if since is not None and now - since >= STALLED_AFTER:
                    self._is_stuck(session, guest, now - since)
                elif self._stalled and guest.number in self._stalled and session.ended is None:
                    self._stalled.discard(guest.number)
                    self._tell(guest, "INFO", Kind.RECOVERED, "reads again")
            await trio.lowlevel.checkpoint()

    def _is_stuck(self, session: AnySession, guest: Guest, seconds: float) -> None:
        if guest.number not in self._stalled and session.ended is None:
            self._stalled.add(guest.number)
            self._tell(guest, "WARNING", Kind.STALLED, _how_stuck(session, seconds))

    def _tell(self, guest: Guest, level: str, kind: Kind, words: str) -> None:
        path, line = paths.session(guest.number), f"client {words}: {guest}"
        self._events.tell(kind, path, line, alike=paths.SESSIONS)
        if count := self._due(kind.value, level):
            self._write(level, path, count, line)

    def _due(self, kind: str, level: str) -> int:
        """How many clients the next line is about; 0: none now. In a storm nothing else is done for each."""
        count = self._burst.occurred((kind, level), trio.current_time())
        self.untold += not count
        return count

    def _write(self, level: str, path: str, count: int, line: str) -> None:
        others = f" (and {count - 1:,} more before)" if count > 1 else ""
        logger.bind(path=path).log(level, "{}{}", line, others)

    def _tell_rest(self, now: float) -> None:
        for (kind, level), count in self._burst.settle(now):
            logger.bind(path=paths.SESSIONS).log(level, "{:,} more clients {}", count, kind)


def why_ended(ended: Ended) -> str:
    """Why a session ended, in one line."""
    why, words = ended.why.value, ended.words
    if ended.heard is not None:
        words = words.removeprefix(str(ended.heard)).strip()
    return words if words.startswith(why) else f"{why}: {words}".removesuffix(": ")


def code_of(ended: Ended) -> int | None:
    """The number of an end in the close codes of WebSocket, ours or the client's. None: it just went."""
    if ended.code is not None or ended.heard is not None:
        return ended.heard if ended.code is None else ended.code
    return None if ended.why is Ending.GONE else CODES[ended.why]


def _how_stuck(session: AnySession, seconds: float) -> str:
    backlog, now = session.backlog, trio.current_time()
    if backlog is None or now - backlog.since < seconds:
        silent = now - session.heard
        return f"is silent: a ping has had no answer for {seconds:.1f} s, nothing came for {silent:.1f} s"
    waits = f"{backlog.messages:,} messages, {backlog.bytes:,} bytes"
    return f"takes nothing: the oldest of what it was sent has waited for {seconds:.1f} s ({waits} behind it)"


def _topics(session: AnySession) -> str:
    topics = [str(topic) for topic in session.lanes]
    more = f" and {len(topics) - TOPICS_TOLD} more" if len(topics) > TOPICS_TOLD else ""
    return ", ".join(topics[:TOPICS_TOLD]) + more or "nothing"
