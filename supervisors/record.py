"""A supervisor's knowledge of a child: the record outlives the incarnations, an incarnation is one life.

Rules of this file
- A record keeps the mailbox, the epoch, the history of failures and, for a supervisor, the records of its
  children. It keeps no strong reference that leads back to it. So the record of a child that came and went is
  freed at once, without the garbage collector. Its own `Ref` is kept weakly for the same reason.
- An incarnation has its own cancel scope and at most one intent: the next step that the author of a stop
  wants. The intent decides what an end means, not the type of the exception.
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
from .policy import forgives
from .promise import Promise
from .refs import Ref

if TYPE_CHECKING:
    from .engine import Engine
    from .ladder import Ladder

STATES = ("idle", "starting", "running", "backoff", "stopping", "done")


class Intent(Enum):
    """The reason of a stop, which decides the next step."""

    STOP = "stop"  # by hand: the spec stays, done
    RESTART = "restart"  # by hand: start again at once
    GROUP = "group"  # a sibling failed: the group restart goes on
    SHUTDOWN = "shutdown"  # the supervisor ends


class Origin(Enum):
    """The starter of an incarnation: it is told of a failed start."""

    INITIAL = "initial"  # the supervisor's own start: the supervisor fails as a whole
    DYNAMIC = "dynamic"  # `start`: only its caller is told, and the spec is not kept
    REVIVAL = "revival"  # `restart` of a child that was down: only its caller is told
    HAND = "hand"  # `restart` of a child that was up or in backoff: its caller is told, then it is retried
    AUTO = "auto"  # a restart by the supervisor: it is retried


_READY: Final[Promise[None]] = Promise(done=True)  # shared by all ready children: 10,000 must stay small


@define(eq=False, repr=False)
class Record:
    """The lasting part of one child, over all its incarnations."""

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
    charged: tuple[float, ...] = ()  # failures in the window, if the child has its own budget
    errors: tuple[BaseException, ...] = ()  # of the newest failure ...
    failed_at: float | None = None  # ... and its time
    value: Any = None
    box: Box = field(init=False)
    _ref: weakref.ref[Ref] | None = field(default=None, init=False)  # weak, because a Ref holds its record
    incarnation: Incarnation | None = None
    pause: trio.CancelScope | None = None  # around the wait for a restart
    engine: Engine | None = None  # of a supervisor, while it works
    branch: dict[str, Record] | None = None  # of a supervisor: its children by name, in order
    tally: dict[str, int] | None = None  # of a supervisor: the number of children in each state
    ready: Promise[None] = field(factory=Promise)  # of the start or restart under way
    last_exit: Exit | None = None  # of the newest incarnation
    _ended: Promise[Exit] | None = None  # made on first use

    def __attrs_post_init__(self) -> None:
        self.box = make_box(self.spec.mailbox)

    @property
    def ref(self) -> Ref:
        """Its one address, the same object for as long as somebody holds it."""
        ref = self._ref() if self._ref is not None else None
        if ref is None:
            ref = Ref(self)
            self._ref = weakref.ref(ref)
        return ref

    @property
    def ended(self) -> Promise[Exit]:
        """The promise of its end for good."""
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
        """The children of a supervisor; empty for an actor."""
        return self.branch or {}

    @property
    def resting(self) -> bool:
        """True when it does not run and is not about to."""
        return self.state in ("idle", "done")

    def become_supervisor(self, kind: str) -> None:
        """`make` returned a supervisor: it has children and no mailbox."""
        self.kind = kind
        self.branch, self.tally = {}, dict.fromkeys(STATES, 0)
        self.box.close()

    def become_actor(self) -> None:
        """`make` returned an actor; earlier it may have returned a supervisor."""
        self.kind, self.branch, self.tally = "actor", None, None

    def enter(self, state: str) -> None:
        """Change the state, and the parent's count of states."""
        if state == self.state:
            return
        if self.parent is not None and self.parent.tally is not None:
            self.parent.tally[self.state] -= 1
            self.parent.tally[state] += 1
        self.state = state
        self.since = trio.current_time()

    def expect(self) -> Promise[None]:
        """The promise that it becomes ready, shared by all present waiters."""
        if self.ready.done:
            self.ready = Promise()
        return self.ready

    def became_ready(self) -> None:
        """Tell the waiters that it is ready."""
        ready, self.ready = self.ready, _READY
        ready.resolve(None)

    def note(self, kind: str, errors: tuple[BaseException, ...] = ()) -> None:
        """Remember the end of the newest incarnation."""
        self.last_exit = Exit(kind, self.path, self.epoch, errors, trio.current_time())
        if errors:
            self.errors, self.failed_at = errors, self.last_exit.at

    def dismiss(self, kind: type[SupervisionError], text: str) -> None:
        """Tell the waiters for ready that they wait in vain."""
        if not self.ready.done:
            self.ready.fail(kind(f"{self.path!r} {text}"))

    def bury(self) -> None:
        """It and everything below it have ended for good: tell the watchers."""
        for child in self.children.values():
            child.bury()
        self.dismiss(ActorGone, "has ended")
        self.box.close()
        if self.last_exit is None:
            self.note("stopped")
        assert self.last_exit is not None
        self.ended.resolve(self.last_exit)

    def forget(self) -> None:
        """Bury it, and drop its messages: nobody will ever read them."""
        self.bury()
        self.box.discard()
        for child in self.children.values():
            child.box.discard()

    def exhume(self) -> None:
        """It starts, perhaps after it had ended for good: open its mailbox."""
        self.box = self.box.respecified(self.spec.mailbox)
        self.box.reopen()
        if self.gone:
            self._ended = None

    @property
    def forgiven(self) -> bool:
        """Whether its earlier failures are past: the rule that resets its backoff. See `policy.forgives`."""
        life = self.incarnation
        return life is not None and forgives(self.spec.backoff, life.ready_at, trio.current_time())

    def node(self, dynamic: bool = True) -> Node:
        """This child and everything below it, as plain data. The children of pools only if `dynamic`."""
        mailbox = self.box.node() if self.kind == "actor" else None
        errors = () if self.forgiven else self.errors
        last_error = "; ".join(describe(error) for error in errors) or None
        shown = self.children.values() if dynamic or self.kind != "pool" else ()
        children = tuple(child.node(dynamic) for child in shown)
        return Node(
            self.path,
            self.kind,
            self.state,
            self.epoch,
            self.restarts,
            last_error,
            self.failed_at if errors else None,
            self.since,
            mailbox,
            children,
        )


@define(eq=False, repr=False)
class Incarnation:
    """One life of a child."""

    record: Record
    spec: Child  # of the moment when this life began: `replace` concerns the next one
    epoch: int
    origin: Origin
    keeper: Engine
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    due: float = math.inf  # the time by which it must be ready
    task: Task | None = None
    engine: Engine | None = None  # when it is a supervisor
    intent: Intent | None = None
    polite: bool = False  # the actor was told to stop
    claims_ready: bool = False
    ready_at: float | None = None
    beat_at: float = 0.0
    idle: bool = False  # it waits in `receive`, under a progress watchdog
    declined: bool = False
    over: bool = False
    verdict: BaseException | None = None  # the library's reason to end it, when nobody asked for a stop
    ladder: Ladder | None = None
    aside: trio.CancelScope | None = None  # around the tasks beside it: the READY fault, the beat watchdog
    helpers: tuple[trio.CancelScope, ...] = ()  # one around each helper task of the actor
    _down: Promise[None] | None = None  # this and the next are made on first use
    _stopping: trio.Event | None = None

    @property
    def down(self) -> Promise[None]:
        """The promise that it has ended or was left behind as unstopped."""
        if self._down is None:
            self._down = Promise()
        return self._down

    @property
    def stopping(self) -> trio.Event:
        """Set once it was told to stop."""
        if self._stopping is None:
            self._stopping = trio.Event()
            if self.polite:
                self._stopping.set()
        return self._stopping

    @property
    def stop_within(self) -> float:
        """Seconds that the polite stop may take."""
        return self._duration(self.spec.stop_within, 5.0)

    @property
    def ready_within(self) -> float:
        """Seconds that the start may take."""
        return self._duration(self.spec.ready_within, 10.0)

    @property
    def at_once(self) -> bool:
        """True when a stop is a cancel at once: the actor is not ready, or `stop_within` is 0."""
        return (self.ready_at is None and self.engine is None) or self.stop_within == 0

    def _duration(self, given: float | None, of_an_actor: float) -> float:
        if given is not None:
            return given
        return math.inf if self.engine is not None else of_an_actor

    def condemn(self, verdict: BaseException) -> None:
        """End it as a crash, because of a failure that the library found."""
        if self.intent is None and self.verdict is None:
            self.verdict = verdict
            self.scope.cancel()

    def ask_to_stop(self) -> None:
        """Tell the actor or the supervisor to end by itself."""
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
    """The end of an incarnation. kind: stopped, declined, exit, start_failed or crash."""

    kind: str
    errors: tuple[BaseException, ...] = ()  # leaves
    cause: BaseException | None = None  # the exception as it was raised


def judge(life: Incarnation, error: BaseException | None) -> Outcome:
    """Decide by intent what the end of a life means; `error` is the exception that ended it, if any."""
    found = tuple(leaves(error))
    real = tuple(leaf for leaf in found if is_real(leaf))
    if life.intent is not None:
        return Outcome("stopped", tuple(leaf for leaf in real if not isinstance(leaf, Stopping)))
    failure = "crash" if life.ready_at is not None else "start_failed"
    if life.verdict is not None:
        return Outcome(failure, (life.verdict, *real), life.verdict)
    if error is not None:  # a Cancelled that nobody ordered is an old one, raised again by mistake
        return Outcome(failure, real or found, error)
    if life.declined:
        return Outcome("declined")
    if life.ready_at is None:
        early = SupervisionError("it returned before it was ready")
        return Outcome(failure, (early,), early)
    return Outcome("exit")
