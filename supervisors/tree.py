"""A whole tree: the state that its supervisors share, its start and its end.

Rules of this file
- `open_supervisor` raises the error that ended it bare: the exception of the body, or the escalation. Only
  when there are both, it raises both in a group. An auto-shutdown of the root ends the block without an
  error.
- A cancellation from outside cancels everything at once, as everywhere in Trio. There is a polite stop only
  when the block ends by itself.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
from attrs import define, field

from .actor import Child, Handle, Supervisor
from .engine import Engine
from .errors import BadSpec, is_real, leaves
from .events import Event, Fault, Hook, Reporter
from .handle import TreeHandle
from .promise import Promise
from .record import Record
from .watchdog import LoopWatch


@define(eq=False, repr=False)
class Tree:
    """The state that all supervisors of a tree share."""

    spec: Supervisor
    rng: random.Random
    reporter: Reporter
    faults: Fault | None
    on_closing: Callable[[], None] = lambda: None
    root: Record = field(init=False)
    engine: Engine = field(init=False)
    handle: Handle = field(init=False)
    up: Promise[None] = field(factory=Promise)  # the start has succeeded or failed
    body: trio.CancelScope = field(factory=trio.CancelScope)
    _nursery: trio.Nursery = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.root = Record("", Child("root", lambda: None))
        self.handle = TreeHandle(self, self.root)
        self.engine = Engine(self, self.root, self.spec)

    @property
    def closes(self) -> Promise[None]:
        """Done once the root begins to end."""
        return self.engine.over

    @property
    def closing(self) -> bool:
        """True once the root has begun to end."""
        return self.engine.closing

    def emit(
        self,
        kind: str,
        record: Record,
        errors: tuple[BaseException, ...] = (),
        delay: float | None = None,
        detail: Any = None,
    ) -> None:
        """Report an event of a child."""
        if self.reporter.hook is None:
            return
        now = trio.current_time()
        if self.reporter.emit(
            Event(kind, record.path, record.epoch, now, errors, record.restarts, delay, detail)
        ):
            self._nursery.start_soon(self._summarise)

    def die(self, error: BaseException) -> None:
        """End the tree with `error`, a KeyboardInterrupt or SystemExit of an actor."""
        self.engine.fail(error)

    async def run(self, nursery: trio.Nursery) -> None:
        """The life of the root."""
        self._nursery = nursery
        self.root.epoch = 1
        self.root.enter("starting")
        try:
            await self.engine.run(self._root_up)
        except BaseException as error:
            if error is not self.engine.failure:
                raise
        finally:
            self.root.enter("done")
            self.root.bury()
            self.up.resolve(None)

    async def cancel_body(self) -> None:
        """Cancel the body when the tree begins to end."""
        await self.closes.wait()
        self.on_closing()
        self.body.cancel()

    def _root_up(self) -> None:
        self.root.enter("running")
        self.up.resolve(None)

    async def _summarise(self) -> None:
        await trio.sleep(1)
        self.reporter.summarise(trio.current_time())


@asynccontextmanager
async def open_supervisor(
    sup: Supervisor,
    rng: random.Random | None = None,
    on_event: Hook | None = None,
    faults: Fault | None = None,
    blocked_after: float | None = 1.0,
) -> AsyncIterator[Handle]:
    """Run a supervision tree around the body of an `async with`, which gets the root's handle.

    rng            the source of backoff jitter; a seeded one makes a test repeatable
    on_event       called with every Event; its exceptions go to standard error and harm nobody
    faults         called at every Point of every incarnation, for chaos tests
    blocked_after  real seconds; an event loop that is blocked for longer is reported; None: never

    Raises StartFailed when a child does not start, RestartLimitReached when the root gives up, both bare.
    """
    if not isinstance(sup, Supervisor):
        raise BadSpec(f"a Supervisor is needed, not {sup!r}")
    tree = Tree(sup, rng or random.Random(), Reporter(on_event), faults)
    async with running(tree, blocked_after):
        yield tree.handle


@asynccontextmanager
async def running(tree: Tree, blocked_after: float | None) -> AsyncIterator[None]:
    """Run `tree` around a body. `open_supervisor` and `run` use it."""
    watch = _loop_watch(tree.reporter, blocked_after)
    of_body: BaseException | None = None
    of_tree: BaseException | None = None
    try:
        async with trio.open_nursery(strict_exception_groups=True) as nursery:
            nursery.start_soon(tree.run, nursery)
            nursery.start_soon(tree.cancel_body)
            await tree.up.wait()
            try:
                with tree.body:
                    if tree.engine.failure is None:
                        yield
            except BaseException as error:
                of_body = error
            tree.engine.stop()
            await tree.root.ended.wait()
            nursery.cancel_scope.cancel()  # only the summary of crash reports can still run
    except BaseException as error:
        of_tree = error
    finally:
        watch()
        tree.reporter.summarise(trio.current_time())
    _raise(tree.engine.failure, of_body, of_tree)


def _loop_watch(reporter: Reporter, blocked_after: float | None) -> Callable[[], None]:
    if blocked_after is None or reporter.hook is None:
        return lambda: None
    watch = LoopWatch(blocked_after, reporter.emit)
    watch.start()
    return watch.stop


def _raise(
    failure: BaseException | None, of_body: BaseException | None, of_tree: BaseException | None
) -> None:
    """Raise the most telling errors, a single one bare; a cancellation only if there is no other."""
    real = [] if failure is None else [failure]
    if of_body is not None and any(map(is_real, leaves(of_body))):
        real.append(of_body)
    real += filter(is_real, leaves(of_tree))
    if len(real) > 1:
        raise BaseExceptionGroup("the supervision tree and its body failed", real)
    for error in (*real, of_tree, of_body):
        if error is not None:
            raise error
