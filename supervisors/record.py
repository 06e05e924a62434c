"""What a supervisor knows of a child: the record outlives the incarnations, an incarnation is one life.

Rules of this file
- A record keeps the mailbox, the epoch, the history of failures and, for a supervisor, the records of its
  children. Nothing that it keeps leads back to it, so that the record of a child that came and went is freed
  at once, without the garbage collector; its own `Ref` is no exception, since that is kept weakly.
- An incarnation has its own cancel scope and at most one intent: what whoever asked it to stop wants to
  happen next. Its end is judged by that intent, not by the type of the exception that ended it.
"""

from __future__ import annotations

import math
import weakref
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

import trio
from attrs import define, field, frozen
from trio.lowlevel import Task

from .actor import Child
from .errors import ActorGone, Stopping, SupervisionError, describe, is_real, leaves
from .events import Exit, Node
from .mailbox import Box, make_box
from .promise import Promise
from .refs import Ref

if TYPE_CHECKING:
    from .engine import Engine
    from .ladder import Ladder

STATES = ("idle", "starting", "running", "backoff", "stopping", "done")


class Intent(Enum):
    """Why a stop was asked for, which is what happens afterwards."""

    STOP = "stop"  # by hand: the spec stays, done
    RESTART = "restart"  # by hand: start again at once
    GROUP = "group"  # a sibling failed: the group restart goes on
    SHUTDOWN = "shutdown"  # the supervisor ends


class Origin(Enum):
    """Who started an incarnation, which is who hears of its failing to start."""

    INITIAL = "initial"  # the supervisor's own start: it fails as a whole
    DYNAMIC = "dynamic"  # `start`: its caller alone, and the spec is not kept
    REVIVAL = "revival"  # `restart` of a child that was down: its caller alone
    HAND = "hand"  # `restart` of a child that was up or in backoff: its caller, and then it is retried
    AUTO = "auto"  # the supervisor: it is retried


_READY: Final[Promise[None]] = Promise(done=True)  # of all that have become ready: 10,000 must stay small


@define(eq=False)
class Record:
    """What outlives the incarnations of one child."""

    path: str
    spec: Child
    parent: Record | None = None
    dynamic: bool = False
    kind: str = "actor"
    state: str = "idle"
    since: float = field(factory=trio.current_time)
    epoch: int = 0
    restarts: int = 0
    failures: int = 0  # in a row
    charged: tuple[float, ...] = ()  # failures in the window, when the budget is the child's own
    errors: tuple[BaseException, ...] = ()  # the newest that there were
    value: Any = None
    box: Box = field(init=False)
    _ref: weakref.ref[Ref] | None = field(default=None, init=False)  # weak: it knows the record, see `ref`
    incarnation: Incarnation | None = None
    pause: trio.CancelScope | None = None  # around the wait for a restart
    engine: Engine | None = None  # while it is a supervisor at work
    branch: dict[str, Record] | None = None  # of a supervisor: its children by name, in order
    tally: dict[str, int] | None = None  # of a supervisor: how many of them are in each state
    ready: Promise[None] = field(factory=Promise)  # of the start or restart that is under way
    last_exit: Exit | None = None  # of the newest incarnation
    _ended: Promise[Exit] | None = None  # made by the first who asks

    def __attrs_post_init__(self) -> None:
        self.box = make_box(self.spec.mailbox)

    @property
    def ref(self) -> Ref:
        """The one address of it, for as long as somebody has that."""
        ref = self._ref() if self._ref is not None else None
        if ref is None:
            ref = Ref(self)
            self._ref = weakref.ref(ref)
        return ref

    @property
    def ended(self) -> Promise[Exit]:
        """Its end, for good."""
        if self._ended is None:
            self._ended = Promise()
        return self._ended

    @property
    def gone(self) -> bool:
        """True when it has ended for good."""
        return self._ended is not None and self._ended.done

    @property
    def name(self) -> str:
        """The id as it appears in paths."""
        return str(self.spec.id)

    @property
    def children(self) -> dict[str, Record]:
        """Of a supervisor, its children; of anything else, nothing."""
        return self.branch or {}

    @property
    def resting(self) -> bool:
        """True when nothing runs and nothing is about to."""
        return self.state in ("idle", "done")

    def become_supervisor(self, kind: str) -> None:
        """`make` gave a supervisor: it has children and no mailbox."""
        self.kind = kind
        self.branch, self.tally = {}, dict.fromkeys(STATES, 0)
        self.box.close()

    def become_actor(self) -> None:
        """`make` gave an actor; it may have given a supervisor before."""
        self.kind, self.branch, self.tally = "actor", None, None

    def enter(self, state: str) -> None:
        """Change the state, and the count of it."""
        if state == self.state:
            return
        if self.parent is not None and self.parent.tally is not None:
            self.parent.tally[self.state] -= 1
            self.parent.tally[state] += 1
        self.state = state
        self.since = trio.current_time()

    def expect(self) -> Promise[None]:
        """The promise of its becoming ready, shared by all who wait for it now."""
        if self.ready.done:
            self.ready = Promise()
        return self.ready

    def became_ready(self) -> None:
        """Tell those who wait for it."""
        ready, self.ready = self.ready, _READY
        ready.resolve(None)

    def note(self, kind: str, errors: tuple[BaseException, ...] = ()) -> None:
        """Remember how the newest incarnation ended."""
        self.last_exit = Exit(kind, self.path, self.epoch, errors, trio.current_time())
        if errors:
            self.errors = errors

    def dismiss(self, kind: type[SupervisionError], text: str) -> None:
        """Whoever waits for it to become ready waits in vain."""
        if not self.ready.done:
            self.ready.fail(kind(f"{self.path!r} {text}"))

    def bury(self) -> None:
        """It has ended for good, and so has everything below it: tell those who watch."""
        for child in self.children.values():
            child.bury()
        self.dismiss(ActorGone, "has ended")
        self.box.close()
        if self.last_exit is None:
            self.note("stopped")
        assert self.last_exit is not None
        self.ended.resolve(self.last_exit)

    def forget(self) -> None:
        """Buried, and nothing will ever read its mailbox."""
        self.bury()
        self.box.discard()
        for child in self.children.values():
            child.box.discard()

    def exhume(self) -> None:
        """It starts, perhaps again after all."""
        self.box = self.box.respecified(self.spec.mailbox)
        self.box.reopen()
        if self.gone:
            self._ended = None

    def node(self, dynamic: bool = True) -> Node:
        """This child and everything below it, as plain data; pools without children unless `dynamic`."""
        mailbox = self.box.node() if self.kind == "actor" else None
        last_error = "; ".join(describe(error) for error in self.errors) or None
        shown = self.children.values() if dynamic or self.kind != "pool" else ()
        children = tuple(child.node(dynamic) for child in shown)
        return Node(
            self.path,
            self.kind,
            self.state,
            self.epoch,
            self.restarts,
            last_error,
            self.since,
            mailbox,
            children,
        )


@define(eq=False)
class Incarnation:
    """One life of a child."""

    record: Record
    spec: Child  # as it was when this life began: `replace` concerns the next one
    epoch: int
    origin: Origin
    keeper: Engine
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    task: Task | None = None
    engine: Engine | None = None  # when it is a supervisor
    intent: Intent | None = None
    polite: bool = False  # the actor has been told to stop
    claims_ready: bool = False
    ready_at: float | None = None
    beat_at: float = 0.0
    idle: bool = False  # it waits in `receive`, under a progress watchdog
    declined: bool = False
    over: bool = False
    verdict: BaseException | None = None  # why the library ended it, when nobody asked
    ladder: Ladder | None = None
    aside: trio.CancelScope | None = None  # around what runs beside it: the READY fault, the beat watchdog
    helpers: tuple[trio.CancelScope, ...] = ()  # around the tasks that help the actor
    _down: Promise[None] | None = None  # this and the next are made by the first who asks
    _stopping: trio.Event | None = None

    @property
    def down(self) -> Promise[None]:
        """It has ended, or was left behind as unstopped."""
        if self._down is None:
            self._down = Promise()
        return self._down

    @property
    def stopping(self) -> trio.Event:
        """Set when it has been told to stop."""
        if self._stopping is None:
            self._stopping = trio.Event()
            if self.polite:
                self._stopping.set()
        return self._stopping

    @property
    def stop_within(self) -> float:
        """Seconds for the polite stop."""
        return self._duration(self.spec.stop_within, 5.0)

    @property
    def ready_within(self) -> float:
        """Seconds for the start."""
        return self._duration(self.spec.ready_within, 10.0)

    @property
    def at_once(self) -> bool:
        """True when it is stopped without asking: an actor not ready yet, or no time to be polite."""
        return (self.ready_at is None and self.engine is None) or self.stop_within == 0

    def _duration(self, given: float | None, of_an_actor: float) -> float:
        if given is not None:
            return given
        return math.inf if self.engine is not None else of_an_actor

    def condemn(self, verdict: BaseException) -> None:
        """End it because of what the library found, as a crash."""
        if self.intent is None and self.verdict is None:
            self.verdict = verdict
            self.scope.cancel()

    def ask_to_stop(self) -> None:
        """Tell the actor or the supervisor that it should end by itself."""
        self.polite = True
        if self._stopping is not None:
            self._stopping.set()
        self.record.box.wake_reader()
        if self.engine is not None:
            self.engine.stop()

    def check_alive(self) -> None:
        """Raise ActorGone when this life is over."""
        if self.over:
            raise ActorGone(f"incarnation {self.epoch} of {self.record.path!r} has ended")


@frozen
class Outcome:
    """How an incarnation ended. kind: stopped, declined, exit, start_failed or crash."""

    kind: str
    errors: tuple[BaseException, ...] = ()  # leaves
    cause: BaseException | None = None  # as raised


def judge(life: Incarnation, error: BaseException | None) -> Outcome:
    """Decide by intent what the end of a life means; `error` is whatever came out of it."""
    found = tuple(leaves(error))
    real = tuple(leaf for leaf in found if is_real(leaf))
    if life.intent is not None:
        return Outcome("stopped", tuple(leaf for leaf in real if not isinstance(leaf, Stopping)))
    failure = "crash" if life.ready_at is not None else "start_failed"
    if (verdict := life.verdict or _timeout(life)) is not None:
        return Outcome(failure, (verdict, *real), verdict)
    if error is not None:  # a Cancelled that nobody ordered is a stale one, raised again by mistake: a crash
        return Outcome(failure, real or found, error)
    if life.declined:
        return Outcome("declined")
    if life.ready_at is None:
        early = SupervisionError("it returned before it was ready")
        return Outcome(failure, (early,), early)
    return Outcome("exit")


def _timeout(life: Incarnation) -> BaseException | None:
    if life.ready_at is not None or not life.scope.cancel_called:
        return None
    return trio.TooSlowError(f"not ready within {life.ready_within} s")
