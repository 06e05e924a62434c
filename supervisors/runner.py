"""`run`: a supervision tree as a process, with signals and a deadline that holds.

Rules of this file
- The first SIGINT or SIGTERM stops the tree politely; the second cancels it. The exit code is 0 after the
  first, and 128 + the number of the signal after the second.
- Once the tree has begun to end, the process is gone after `deadline` seconds, even if the tree hangs: a
  thread writes the guilty stacks and exits with code 124. If that thread cannot get the interpreter, the
  kernel ends the process by SIGALRM.
- Every other signal in `signals` is handed to its handler in the event loop. It ends nothing. What came
  before the loop runs is handed over when it does; several of one number may count once.
- A bound method as a signal handler must be of an object with a short repr: `signal.signal` writes the repr
  of the earlier handler, in vain. So nothing that holds a tree shows its content.
- The exit code is 1 after an escalation or a failed start. A KeyboardInterrupt or SystemExit of an actor is
  raised.
"""

from __future__ import annotations

import faulthandler
import os
import random
import select
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType, MappingProxyType
from typing import Any

import trio
from attrs import define, field

from .actor import Handle, Supervisor
from .errors import BadSpec, SupervisionError
from .events import Fault, Hook, Reporter
from .last_words import STANDARD_ERROR, say_at_once
from .record import Record
from .tree import Tree, running

DEADLINE_PASSED = 124  # the exit code of timeout(1)
LAST_RESORT = 0.5  # seconds after the deadline, for an interpreter that can no longer switch threads


def run(
    sup: Supervisor,
    *,
    deadline: float = 10.0,
    on_event: Hook | None = None,
    faults: Fault | None = None,
    blocked_after: float | None = 1.0,
    on_failure: Callable[[SupervisionError], object] = traceback.print_exception,
    signals: Mapping[int, Callable[[Handle], object]] = MappingProxyType({}),
    finish: Callable[[], object] = lambda: None,
) -> int:
    """Run a tree until a signal or its own end, and return the exit code for the process.

    deadline: seconds from the first signal, or from the moment when the tree gives up; then the process is
    ended by force. on_failure: called with the error of a tree that did not start or has given up; by
    default it is printed. signals: by number, what is called with the root's handle soon after a signal,
    between two steps of the tasks; it must not wait, and its errors are printed and harm nobody. finish:
    called after the tree has ended, however it did, within the same deadline. Call `run` from the main
    thread. The other parameters are those of `open_supervisor`.
    """
    if not isinstance(sup, Supervisor):
        raise BadSpec(f"a Supervisor is needed, not {sup!r}")
    process = _Process(_Deadline(deadline), signals)
    with process.deadline.watching(), process.signals():
        try:
            trio.run(process.main, sup, Reporter(on_event), faults, blocked_after)
        except SupervisionError as error:
            on_failure(error)
            return 1
        finally:
            process.deadline.arm()
            finish()
    return 128 + process.received[1] if len(process.received) > 1 else 0


@define(eq=False, repr=False)
class _Process:
    """The tree, as the signal handlers see it."""

    deadline: _Deadline
    handlers: Mapping[int, Callable[[Handle], object]]
    received: list[int] = field(factory=list)
    _asked: set[int] = field(factory=set)  # signals for the handlers
    _tree: Tree | None = None
    _token: trio.lowlevel.TrioToken | None = None
    _everything: trio.CancelScope = field(factory=trio.CancelScope)

    async def main(
        self, sup: Supervisor, reporter: Reporter, faults: Fault | None, blocked_after: float | None
    ) -> None:
        self._tree = self.deadline.tree = Tree(sup, random.Random(), reporter, faults, self.deadline.arm)
        self._token = trio.lowlevel.current_trio_token()
        self._apply()
        with self._everything:
            async with running(self._tree, blocked_after):
                await trio.sleep_forever()

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Handle SIGINT, SIGTERM and those with a handler during the block."""
        before = {number: signal.signal(number, self._on_request) for number in self.handlers}
        before |= {
            number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.received.append(number)
        self.deadline.arm()
        self._apply_soon()

    def _on_request(self, number: int, frame: FrameType | None) -> None:
        self._asked.add(number)
        self._apply_soon()

    def _apply_soon(self) -> None:
        if self._token is not None:
            try:
                self._token.run_sync_soon(self._apply, idempotent=True)
            except trio.RunFinishedError:
                return

    def _apply(self) -> None:
        assert self._tree is not None
        if self.received:
            self._tree.engine.stop()
        if len(self.received) > 1:
            self._everything.cancel()
        while self._asked:
            try:
                self.handlers[self._asked.pop()](self._tree.handle)
            except Exception as error:
                traceback.print_exception(error)


@define(eq=False, repr=False)
class _Deadline:
    """Ends the process by force. Its thread waits on a pipe, because a signal handler may write to a pipe."""

    seconds: float
    tree: Tree | None = None
    _main_thread: int = field(factory=threading.get_ident)
    _armed: bool = False
    _alarm: Any = None  # the earlier handler of SIGALRM
    _pipe: tuple[int, int] = field(factory=os.pipe)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Run the thread during the block, and disarm it at the end."""
        thread = threading.Thread(target=self._watch, name="supervisors deadline", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._disarm(thread)

    def arm(self) -> None:
        """Start the deadline now. Safe in a signal handler; only the first call counts."""
        if not self._armed:
            self._armed = True
            os.write(self._pipe[1], b"!")
            faulthandler.dump_traceback_later(self.seconds + LAST_RESORT / 2, file=STANDARD_ERROR)
            self._alarm = signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, self.seconds + LAST_RESORT)

    def _disarm(self, thread: threading.Thread) -> None:
        if self._armed:
            faulthandler.cancel_dump_traceback_later()  # waits for its thread: only the alarm bounds that
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._alarm)
        os.close(self._pipe[1])
        thread.join()
        os.close(self._pipe[0])

    def _watch(self) -> None:
        armed = os.read(self._pipe[0], 1)
        if armed and not select.select([self._pipe[0]], [], [], self.seconds)[0]:
            _write_stacks(self._main_thread, self.tree)
            os._exit(DEADLINE_PASSED)


def _write_stacks(loop_thread: int, tree: Tree | None) -> None:
    """Write the guilty stacks: of the thread of the event loop, and of each child that is still alive."""
    frame = sys._current_frames().get(loop_thread)
    say_at_once("the tree did not end in time; its thread is at:\n")
    say_at_once("".join(traceback.format_stack(frame)) if frame else "gone\n")
    if tree is not None:
        for record in _living(tree.root):
            _write_task(record)


def _living(record: Record) -> Iterator[Record]:
    for child in tuple(record.children.values()):
        if child.incarnation is not None and child.kind == "actor":
            yield child
        yield from _living(child)


def _write_task(record: Record) -> None:
    life = record.incarnation
    if life is None or life.task is None:
        return
    tasks = [life.task]
    for task in tasks:
        say_at_once(f"child {record.path!r} ({record.state}), task {task.name}, waits at:\n")
        summary = traceback.StackSummary.extract(task.iter_await_frames())
        say_at_once("".join(summary.format()))
        tasks.extend(inner for nursery in task.child_nurseries for inner in nursery.child_tasks)
