"""Three watchdogs: for starts that take too long, for an actor that awaits without progress, and for an event
loop that is blocked.

Rules of this file
- What had no processor time is not late. When a deadline is over, the loop goes round `TURNS` times more
  before anybody is condemned. In an idle loop that takes a few milliseconds. In a loop that others starve it
  takes as long as the work that waits there.
"""

from __future__ import annotations

import math
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Final

import trio
from attrs import define, field

from .events import Event
from .record import Incarnation

TURNS: Final = 100  # more than the steps of any start that does not wait for something outside


async def give_turns() -> None:
    """Let every task that can run have its turn, often enough."""
    for _ in range(TURNS):
        await trio.lowlevel.checkpoint()


@define(eq=False)
class Starts:
    """The starts under way in one supervisor. One task watches all: a timer for each would cost too much."""

    _lives: dict[Incarnation, None] = field(factory=dict)
    _alarm: trio.CancelScope = field(factory=trio.CancelScope)
    _watching: bool = False
    _over: bool = False

    def begin(self, life: Incarnation) -> bool:
        """Watch this start until `end`. True when the caller must run `watch`, because nobody does."""
        if life.due == math.inf:
            return False
        self._lives[life] = None
        self._alarm.deadline = min(self._alarm.deadline, life.due)
        must_watch, self._watching = not self._watching, True
        return must_watch

    def end(self, life: Incarnation) -> None:
        """It is ready, has ended, or may take as long as it likes."""
        self._lives.pop(life, None)
        life.due = math.inf

    def close(self) -> None:
        """Nothing starts any more."""
        self._over = True
        self._alarm.cancel()

    async def watch(self) -> None:
        """Condemn each start that is not ready in time. Returns when none is left, or after `close`."""
        while self._lives and not self._over:
            with trio.CancelScope(deadline=min(life.due for life in self._lives)) as self._alarm:
                await trio.sleep_forever()
            if not self._over:
                await give_turns()
                self._condemn()
        self._watching = False

    def _condemn(self) -> None:
        now = trio.current_time()
        for life in [life for life in self._lives if life.due <= now]:
            del self._lives[life]
            life.due = now  # the time to clean up counts from here
            life.condemn(trio.TooSlowError(f"not ready within {life.ready_within} s"))


async def watch_beats(life: Incarnation, report: Callable[[str, Incarnation], None]) -> None:
    """End an actor without a beat for `beat_within` seconds. Time idle in `receive` does not count."""
    assert life.aside is not None
    assert life.spec.beat_within is not None
    within = life.spec.beat_within
    with life.aside:
        while True:
            await trio.sleep_until(life.beat_at + within)
            if _is_hung(life, within):
                await give_turns()
                if _is_hung(life, within):
                    break
        report("hung", life)
        life.condemn(trio.TooSlowError(f"no beat within {within} s"))
        await trio.sleep(life.spec.cleanup_within)
        report("unstopped", life)


def _is_hung(life: Incarnation, within: float) -> bool:
    if life.idle:
        life.beat_at = trio.current_time()
    return life.beat_at + within <= trio.current_time()


@define(eq=False)
class LoopWatch:
    """A thread that asks the event loop for a sign of life, and reports its stack when none comes.

    It uses the real clock, because a blocked loop is a matter of real time. It uses no Trio timer, so a
    MockClock is not disturbed. There is one report for each time that the loop blocks.
    """

    blocked_after: float  # real seconds
    report: Callable[[Event], object]
    _token: trio.lowlevel.TrioToken = field(factory=trio.lowlevel.current_trio_token)
    _loop_thread: int = field(factory=threading.get_ident)
    _now: float = field(factory=trio.current_time)  # the clock of the loop, at its last sign of life
    _sign: threading.Event = field(factory=threading.Event)
    _done: threading.Event = field(factory=threading.Event)

    def start(self) -> None:
        """Watch until `stop`."""
        threading.Thread(target=self._watch, name="supervisors loop watch", daemon=True).start()

    def stop(self) -> None:
        """Let the thread end, without waiting for it."""
        self._done.set()
        self._sign.set()

    def _watch(self) -> None:
        while not self._done.wait(self.blocked_after / 2):
            self._sign.clear()
            try:
                self._token.run_sync_soon(self._alive)
            except trio.RunFinishedError:
                return
            if not self._sign.wait(self.blocked_after) and not self._done.is_set():
                self._report_blocked(time.monotonic() - self.blocked_after)
                self._sign.wait()

    def _alive(self) -> None:
        self._now = trio.current_time()
        self._sign.set()

    def _report_blocked(self, since: float) -> None:
        frame = sys._current_frames().get(self._loop_thread)
        at = self._now + time.monotonic() - since
        self.report(Event("blocked", "", 0, at, detail=_format(frame)))


def _format(frame: FrameType | None) -> str:
    return "".join(traceback.format_stack(frame)) if frame is not None else "the loop's thread is gone"
