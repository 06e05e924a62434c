"""One incarnation of a supervisor: it starts its children, keeps them alive, and stops them.

Rules of this file
- Every decision is made in one place and without waiting: when an incarnation ends, `_ended` judges it, asks
  the policy, and acts. A slow step (a stop ladder, a backoff, a group restart) is a task in the engine's own
  nursery. So the engine answers every call meanwhile, and an accepted call is carried out even if nobody
  waits for it.
- The newest command wins: a stop overtakes a restart and the other way round. A group restart acts only on
  children that still belong to it when their turn comes.
- Two incarnations of one child never overlap: only `launch` makes one, and only the end of its task clears
  it.
- Children run in the context variables of the engine's own task, never in those of the caller of `start`.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from contextvars import Context as ContextVars
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any

import trio
from attrs import define, field

from .actor import Child, Pool, Supervisor
from .context import ActorContext
from .errors import (
    ActorGone,
    AlreadyPresent,
    AlreadyRunning,
    BadSpec,
    PoolFull,
    RestartLimitReached,
    StartFailed,
    Stopping,
    SupervisionError,
    UnknownChild,
    bounded,
)
from .groups import Groups
from .ladder import Ladder
from .policy import Ended, Fate, Rules, State, next_step
from .promise import Promise
from .record import Incarnation, Intent, Origin, Outcome, Record, judge
from .specs import Point, Restart, Strategy
from .watchdog import Starts, watch_beats

if TYPE_CHECKING:
    from .tree import Tree


@define(eq=False, repr=False)
class Engine:
    """A supervisor at work."""

    tree: Tree
    record: Record
    spec: Supervisor
    failure: BaseException | None = None
    closing: bool = False
    over: Promise[None] = field(factory=Promise)  # done once it begins to end
    _up: bool = False
    _charged: tuple[float, ...] = ()
    _groups: Groups = field(init=False)
    # Failures during the initial start: their group restarts follow after it.
    _postponed: list[tuple[Record, float]] = field(factory=list)
    _starts: Starts = field(factory=Starts)
    _nursery: trio.Nursery = field(init=False)
    _context: ContextVars = field(init=False)

    def __attrs_post_init__(self) -> None:
        old = self.record.children
        self.record.become_supervisor("pool" if self._is_pool else "supervisor")
        self.record.engine = self
        self._groups = Groups(self, self.spec.strategy)
        for child in self.spec.children:
            self._adopt(child, old.pop(str(child.id), None))
        for dropped in old.values():
            dropped.forget()

    # -- the life of a supervisor

    async def run(self, announce: Callable[[], None]) -> None:
        """Start the children, announce it, keep them alive until `stop`, stop them. Raises the failure."""
        try:
            async with trio.open_nursery(strict_exception_groups=True) as self._nursery:
                self._context = copy_context()
                await self._start_children()
                if not self.closing:
                    self._now_up(announce)
                await self.over.wait()
                await self._stop_children()
                self._starts.close()
        finally:
            self._wind_up()
        if self.failure is not None:
            raise self.failure

    def stop(self) -> None:
        """Begin to end: from now on nothing starts or restarts."""
        if self.closing:
            return
        self.closing = True
        self.record.enter("stopping")
        self._groups.drop()
        for record in tuple(self._children.values()):
            self._doom(record)
        self.over.resolve(None)

    def fail(self, error: BaseException) -> None:
        """Begin to end with an error."""
        if self.failure is None:
            self.failure = error
        self.stop()

    # -- administration, called by the handle; each method accepts or refuses at once

    def start_child(self, child: Child) -> Promise[None]:
        """Add a child, last in the order, and start it."""
        self._check_open()
        if not isinstance(child, Child):
            raise BadSpec(f"a Child is needed, not {child!r}")
        self.spec.check(child)
        self._check_free(str(child.id))
        record = self._adopt(child, None, dynamic=True)
        self.launch(record, Origin.DYNAMIC if child.needed else Origin.AUTO)
        return record.ready

    def stop_child(self, name: str) -> Incarnation | None:
        """Stop a child and keep its spec. Return the life to wait for, or None."""
        record = self.get(name)
        life = record.incarnation
        self._groups.leave(record)
        if life is None:
            self._stop_resting(record)
        elif life.intent is not Intent.SHUTDOWN:
            self._bring_down(life, Intent.STOP)
        return life

    def restart_child(self, name: str) -> Promise[None]:
        """Start a child again, in any state and without a charge."""
        self._check_open()
        record = self.get(name)
        promise = record.expect()
        if record.incarnation is not None:
            self._restart_living(record.incarnation)
        elif self._groups.holds(record):
            self._groups.hurry()
        elif self._up or record.state != "idle":
            origin = Origin.REVIVAL if record.resting else Origin.HAND
            self._cancel_pause(record)
            self.launch(record, origin)
        return promise

    def remove_child(self, name: str) -> None:
        """Forget the spec of a child that does not run."""
        record = self.get(name)
        if not record.resting:
            raise AlreadyRunning(f"{record.path!r} is {record.state}: stop it before removing it")
        self._remove(record)

    def replace_child(self, child: Child) -> None:
        """Use another spec from the next incarnation on."""
        if not isinstance(child, Child):
            raise BadSpec(f"a Child is needed, not {child!r}")
        self.spec.check(child)
        self.get(str(child.id)).spec = child

    def get(self, name: str) -> Record:
        """The record of a child. Raises UnknownChild."""
        record = self._children.get(name)
        if record is None:
            raise UnknownChild(f"{self.record.path!r} has no child {name!r}")
        return record

    # -- reports of a life

    def said_ready(self, life: Incarnation, value: Any) -> None:
        """The actor called `ready`."""
        if life.claims_ready:
            life.record.value = value
            return
        life.claims_ready = True
        if self.tree.faults is None:
            self._now_ready(life, value)
        else:
            life.record.value = value
            life.aside = trio.CancelScope()
            self.spawn(self._ready_unless_faulty, life, value)

    async def _ready_unless_faulty(self, life: Incarnation, value: Any) -> None:
        assert self.tree.faults is not None
        assert life.aside is not None
        with life.aside:
            try:
                await self.tree.faults(Point.READY, life.record.path, life.epoch)
            except Exception as error:
                life.condemn(error)
            else:
                self._now_ready(life, value)

    def _now_ready(self, life: Incarnation, value: Any) -> None:
        if life.over or life.scope.cancel_called:
            return
        record = life.record
        life.ready_at = life.beat_at = trio.current_time()
        self._starts.end(life)
        record.value = value
        if life.intent is None:
            record.enter("running")
        record.became_ready()
        self.tree.emit("ready", record)
        if life.spec.beat_within is not None:
            life.aside = trio.CancelScope()
            self.spawn(watch_beats, life, self._report)

    async def _live(self, life: Incarnation) -> None:
        """The whole life of one incarnation, in a task of its own.

        It awaits the actor directly: each coroutine in between would cost a quarter of a KiB per child.
        """
        life.task = trio.lowlevel.current_task()
        error: BaseException | None = None
        faults, record = self.tree.faults, life.record
        with life.scope:
            try:
                if faults is not None:
                    await faults(Point.START, record.path, life.epoch)
                if (playing := self._play(life)) is not None:
                    try:
                        await playing
                    except Stopping:
                        if not life.polite:
                            raise
                if faults is not None and life.polite:
                    await faults(Point.STOP, record.path, life.epoch)
            except BaseException as raised:  # an old Cancelled, raised again, must not pass for a cancel
                error = raised
        from_outside = trio.current_effective_deadline() == -math.inf
        self._ended(life, error, from_outside)
        del error
        if from_outside:
            await trio.lowlevel.checkpoint_if_cancelled()

    def _play(self, life: Incarnation) -> Awaitable[None] | None:
        """Make the actor or supervisor and return its awaitable; None when `make` declined."""
        made = life.spec.make()
        if made is None:
            life.declined = True
            return None
        if isinstance(made, Supervisor):
            return self._play_supervisor(life, made)
        life.record.become_actor()
        return made.run(ActorContext(life))

    def _play_supervisor(self, life: Incarnation, spec: Supervisor) -> Awaitable[None]:
        if life.spec.beat_within is not None:
            raise BadSpec(f"{life.record.path!r} is a supervisor: it has no beat")
        life.engine = engine = Engine(self.tree, life.record, spec)
        if life.spec.ready_within is None:
            self._starts.end(life)
        if life.intent is not None:
            engine.stop()
        return engine.run(partial(self.said_ready, life, None))

    def start_helper(self, life: Incarnation, help_: Callable[[], Awaitable[None]]) -> None:
        """Run `help_()` beside the actor, see `Context.start_helper`."""
        self.spawn(self._help, life, help_, name=f"{life.record.path} (helper)")

    async def _help(self, life: Incarnation, help_: Callable[[], Awaitable[None]]) -> None:
        if life.over:
            return
        with trio.CancelScope() as scope:
            life.helpers = (*life.helpers, scope)
            try:
                await help_()
            except Exception as error:
                life.condemn(error)
        life.helpers = tuple(each for each in life.helpers if each is not scope)

    # -- the end of a life, and its consequences

    def _ended(self, life: Incarnation, error: BaseException | None, from_outside: bool) -> None:
        record = life.record
        if from_outside and life.intent is None:
            life.intent = Intent.SHUTDOWN
        if error is None and life.intent is None and life.claims_ready and life.ready_at is None:
            assert life.aside is not None
            life.aside.cancel()
            self._now_ready(life, record.value)  # it has done all its work before a fault could strike
        outcome = judge(life, error)
        self._close_life(life, clean=error is None)
        record.note(_EXIT_KINDS.get(outcome.kind, outcome.kind), outcome.errors)
        if fatal := [leaf for leaf in outcome.errors if isinstance(leaf, KeyboardInterrupt | SystemExit)]:
            life.intent = Intent.SHUTDOWN
            self.tree.die(fatal[0])
        if life.intent is not None or self.closing:
            self._obey(life, outcome)
        elif outcome.kind == "declined":
            self._declined(record, life)
        elif outcome.kind == "start_failed" and life.origin in _STARTERS:
            self._start_failed(life, outcome)
        else:
            self.decide(life, outcome)

    def _close_life(self, life: Incarnation, clean: bool) -> None:
        record = life.record
        life.over = True
        self._starts.end(life)
        record.incarnation = record.engine = None
        # A task that outlives its incarnation must not take the messages of the next one.
        record.box.wake_reader()
        if life.aside is not None:
            life.aside.cancel()
        for helper in life.helpers:
            helper.cancel()
        if clean:
            record.box.settle()
        elif lost := record.box.lose(trio.current_time()):
            self.tree.emit("dead_letter", record, detail=lost)
        record.box.fail_asks(ActorGone(f"{record.path!r} ended before it replied"))
        life.down.resolve(None)
        if life.ladder is not None:
            life.ladder.one_is_down()

    def _obey(self, life: Incarnation, outcome: Outcome) -> None:
        """It ended on request: take the next step that the intent names. Its errors restart nothing."""
        record = life.record
        self.tree.emit("stopped", record)
        if outcome.errors:
            self.tree.emit("cleanup_error", record, errors=outcome.errors)
        if life.intent is Intent.RESTART:
            self.launch(record, Origin.HAND)
        elif life.intent is Intent.GROUP:
            self._rest_for_group(life)
        elif life.intent is Intent.STOP:
            record.dismiss(ActorGone, "was stopped")
            self._finish(life)
        else:
            self._shut_down(record)

    def _rest_for_group(self, life: Incarnation) -> None:
        if self._groups.holds(life.record):
            life.record.enter("backoff")
        else:  # a temporary bystander
            self._finish(life)

    def _shut_down(self, record: Record) -> None:
        record.dismiss(Stopping, "is not started: its supervisor ends")
        record.enter("done")
        if record.dynamic:  # a restarted supervisor does not get it back
            self._remove(record)

    def _declined(self, record: Record, life: Incarnation) -> None:
        self.tree.emit("declined", record)
        record.became_ready()
        record.enter("idle")
        if self._leaves_no_spec(life):
            self._remove(record)

    def _start_failed(self, life: Incarnation, outcome: Outcome) -> None:
        record = life.record
        self.tree.emit("start_failed", record, errors=outcome.errors)
        error = StartFailed(record.path, outcome.cause)
        record.ready.fail(error)
        self._finish(life)
        if life.origin is Origin.INITIAL:
            self.fail(error)
        elif life.origin is Origin.DYNAMIC and record.name in self._children:
            self._remove(record)

    def decide(self, life: Incarnation, outcome: Outcome) -> None:
        """It ended although nobody asked for it: follow the policy."""
        record = life.record
        if outcome.kind == "start_failed":
            record.ready.fail(StartFailed(record.path, outcome.cause))
        charge = life.origin is not Origin.HAND or life.ready_at is not None
        action = next_step(
            self._state_of(life), Ended(outcome.kind != "exit", life.ready_at, charge), trio.current_time()
        )
        self._remember(record, action.state)
        if action.fate is Fate.RESTART:
            self._retry(life, outcome)
        else:
            self.tree.emit(outcome.kind, record, errors=outcome.errors)
            self._give_up(life, outcome, action.fate)

    def _give_up(self, life: Incarnation, outcome: Outcome, fate: Fate) -> None:
        record = life.record
        if fate is Fate.ESCALATE:
            record.enter("done")
            self._escalate(record, outcome)
            return
        if fate is Fate.GIVE_UP:
            record.note("given_up", outcome.errors)
            self.tree.emit("given_up", record, errors=outcome.errors)
        self._finish(life)
        if life.spec.significant and (outcome.kind == "exit" or life.spec.restart is Restart.TEMPORARY):
            self._significant_end()

    def _escalate(self, record: Record, outcome: Outcome) -> None:
        error = RestartLimitReached(self.record.path, record.path, outcome.cause)
        self.tree.emit("escalated", self.record, errors=(error,))
        self.fail(error)

    def _significant_end(self) -> None:
        rest = (
            record for record in self._children.values() if record.spec.significant and not record.resting
        )
        if self.spec.auto_shutdown == "any_significant" or next(rest, None) is None:
            self.tree.emit("auto_shutdown", self.record)
            self.stop()

    def _finish(self, life: Incarnation) -> None:
        """It has ended for good, unless it is restarted by hand later."""
        if self._leaves_no_spec(life):
            self._remove(life.record)
        else:
            life.record.enter("done")
            life.record.bury()

    # -- restarts

    def _retry(self, life: Incarnation, outcome: Outcome) -> None:
        record = life.record
        delay = bounded(life.spec.backoff.delay(record.failures, self.tree.rng), outcome.errors)
        record.restarts += 1
        record.enter("backoff")
        self.tree.emit(outcome.kind, record, errors=outcome.errors, delay=delay)
        if self.spec.strategy is Strategy.ONE_FOR_ONE:
            self._restart_after(record, delay)
        elif self._up:
            self._groups.begin(record, delay)
        else:
            self._postponed.append((record, delay))

    def _restart_after(self, record: Record, delay: float) -> None:
        if delay <= 0:
            self.launch(record, Origin.AUTO)
        else:
            record.pause = trio.CancelScope()
            self.spawn(self._pause, record, record.pause, delay)

    async def _pause(self, record: Record, scope: trio.CancelScope, delay: float) -> None:
        with scope:
            await trio.sleep(delay)
        if record.pause is scope:
            record.pause = None
            self.launch(record, Origin.AUTO)

    def _restart_living(self, life: Incarnation) -> None:
        if life.intent is Intent.GROUP:
            self._groups.hurry()
        elif life.intent is Intent.STOP or (life.intent is None and life.ready_at is not None):
            self._bring_down(life, Intent.RESTART)

    # -- starting and stopping

    async def _start_children(self) -> None:
        for record in tuple(self._children.values()):
            if record.dynamic or record.state != "idle" or self.closing:
                continue
            if record.spec.needed:
                self.launch(record, Origin.INITIAL)
                await self.started(record, record.ready)
            else:
                self.launch(record, Origin.AUTO)

    async def started(self, record: Record, promise: Promise[None]) -> None:
        """Wait until the start that `promise` stands for has ended. Bounded, even if it ignores a cancel."""
        while not promise.done:
            life = record.incarnation
            with trio.CancelScope(deadline=math.inf if life is None else _cleaned_up_by(life)):
                await promise.wait()
            if life is None or life.over or promise.done or not life.scope.cancel_called:
                continue
            if trio.current_time() >= _cleaned_up_by(life):
                self._stuck_in_start(life, promise)

    def _stuck_in_start(self, life: Incarnation, promise: Promise[None]) -> None:
        self._report("unstopped", life)
        late = trio.TooSlowError(f"not ready within {life.ready_within} s, and not to be cancelled")
        error = StartFailed(life.record.path, late)
        promise.fail(error)
        if life.origin is Origin.INITIAL:
            self.fail(error)

    def _now_up(self, announce: Callable[[], None]) -> None:
        self._up = True
        announce()
        for record, delay in self._postponed:
            if record.state == "backoff":
                self._groups.begin(record, delay)
        self._postponed.clear()

    async def _stop_children(self) -> None:
        lives = [r.incarnation for r in reversed(self._children.values()) if r.incarnation is not None]
        if self._is_pool:
            await self.take_down(lives)
        else:
            for life in lives:
                await self.take_down([life])

    def launch(self, record: Record, origin: Origin) -> None:
        """Begin an incarnation. Nothing else makes one."""
        assert record.incarnation is None, "two incarnations of one child must not overlap"
        record.exhume()
        record.epoch += 1
        life = Incarnation(record, record.spec, record.epoch, origin, self)
        life.due = trio.current_time() + life.ready_within
        record.incarnation = life
        record.enter("starting")
        self.spawn(self._live, life, name=record.path)
        if self._starts.begin(life):
            self.spawn(self._starts.watch, name=f"{self.record.path} (starts)")

    def _bring_down(self, life: Incarnation, intent: Intent) -> None:
        life.intent = intent
        if life.ladder is None:
            self.spawn(self.take_down, [life])

    async def take_down(self, lives: list[Incarnation]) -> None:
        """Stop lives by the ladder. Return when each has ended or was left behind."""
        await Ladder(self._report).descend(lives)
        for life in lives:
            if not life.over:
                await life.down.wait()

    def _report(self, kind: str, life: Incarnation) -> None:
        self.tree.emit(kind, life.record)
        if kind == "unstopped" and life.intent is Intent.RESTART:
            error = SupervisionError(
                f"incarnation {life.epoch} has not stopped; the restart follows when it does"
            )
            life.record.ready.fail(StartFailed(life.record.path, error))

    def _doom(self, record: Record) -> None:
        life = record.incarnation
        self._cancel_pause(record)
        record.dismiss(Stopping, "is not started: its supervisor ends")
        if life is None:
            record.enter("done")
        else:
            life.intent = Intent.SHUTDOWN
            # Thousands in a pool are left to the ladder, which cancels them in chunks. Cancelled all at once,
            # they would block the event loop until all of them have ended.
            if life.at_once and not (self._is_pool and life.ready_at is not None):
                life.scope.cancel()

    def _stop_resting(self, record: Record) -> None:
        if record.state == "done":
            return
        self._cancel_pause(record)
        record.dismiss(ActorGone, "was stopped")
        record.note("stopped")
        if self._is_pool or record.spec.restart is Restart.TEMPORARY:
            self._remove(record)
        else:
            record.enter("done")
            record.bury()

    def _cancel_pause(self, record: Record) -> None:
        if record.pause is not None:
            record.pause.cancel()
            record.pause = None

    def _wind_up(self) -> None:
        self.stop()
        for record in tuple(self._children.values()):
            self._shut_down(record)
        self.record.engine = None

    # -- the children

    @property
    def _children(self) -> dict[str, Record]:
        return self.record.children

    @property
    def _is_pool(self) -> bool:
        return isinstance(self.spec, Pool)

    def _adopt(self, child: Child, known: Record | None, dynamic: bool = False) -> Record:
        """A record for `child`: the one from the earlier incarnation of the supervisor, or a new one."""
        name = str(child.id)
        path = f"{self.record.path}/{name}" if self.record.path else name
        record = known or Record(path, child, self.record, dynamic=dynamic)
        record.spec, record.dynamic = child, dynamic
        record.failures, record.charged, record.ready = 0, (), Promise()
        record.state, record.since = "idle", trio.current_time()
        assert self.record.branch is not None
        assert self.record.tally is not None
        self.record.branch[name] = record
        self.record.tally["idle"] += 1
        return record

    def _remove(self, record: Record) -> None:
        assert self.record.tally is not None
        del self._children[record.name]
        self.record.tally[record.state] -= 1
        record.parent = None
        record.enter("done")
        record.forget()

    def _leaves_no_spec(self, life: Incarnation) -> bool:
        return self._is_pool or life.spec.restart is Restart.TEMPORARY

    def _check_open(self) -> None:
        if self.closing:
            raise Stopping(f"supervisor {self.record.path!r} ends")

    def _check_free(self, name: str) -> None:
        record = self._children.get(name)
        if record is not None and record.incarnation is not None:
            raise AlreadyRunning(f"{record.path!r} is {record.state}")
        if record is not None:
            raise AlreadyPresent(f"{record.path!r} is {record.state}: restart it, or remove it first")
        if isinstance(self.spec, Pool) and len(self._children) == self.spec.max_children:
            raise PoolFull(f"{self.record.path!r} has {self.spec.max_children} children")

    # -- the budget

    def _state_of(self, life: Incarnation) -> State:
        spec, record = life.spec, life.record
        rules = Rules(spec.restart, spec.backoff, self.spec.limit, alone=self._is_pool)
        return State(rules, record.failures, record.charged if rules.alone else self._charged)

    def _remember(self, record: Record, state: State) -> None:
        record.failures = state.failures
        if state.rules.alone:
            record.charged = state.charged
        else:
            self._charged = state.charged

    def spawn(self, act: Callable[..., Awaitable[Any]], *args: Any, name: object = None) -> None:
        """Run a task in the nursery and the context variables of the supervisor."""
        self._context.run(partial(self._nursery.start_soon, act, *args, name=name))


def _cleaned_up_by(life: Incarnation) -> float:
    """The time at which a start that is cancelled for being late must have ended."""
    return life.due + life.spec.cleanup_within


_EXIT_KINDS = {"exit": "normal", "start_failed": "crash"}
_STARTERS = (Origin.INITIAL, Origin.DYNAMIC, Origin.REVIVAL)
