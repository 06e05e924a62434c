"""The actor, its Context, and the spec that keeps it alive: Actor, Context, Handle, Child, Supervisor, Pool.

These types name each other: an Actor gets a Context, a Context gives a Handle, a Handle starts a Child, and a
Child makes an Actor. So they share a file. Context and Handle are Protocols here, so that an actor and its
tests do not depend on the machine; the classes behind them are in context.py and handle.py.

Rules of this file
- A Child or a Supervisor that contradicts itself raises BadSpec in its constructor, hence before anything
  starts.
- Nothing here runs, waits or reads a clock.
- All times are seconds; `math.inf` means "no limit" wherever a duration may be unlimited.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Iterable
from typing import Any, Literal, Protocol, TypeAlias

import trio
from attrs import field, frozen

from .events import Node
from .refs import Ref
from .specs import Backoff, Limit, Mailbox, Restart, Strategy, require, require_duration

AutoShutdown: TypeAlias = Literal["any_significant", "all_significant"]


class Actor(Protocol):
    """The object that a Child's `make` returns. It calls `ctx.ready()` once it works, and returns to end."""

    async def run(self, ctx: Context, /) -> None:
        """The life of the actor."""


class Context(Protocol):
    """The means of one incarnation of an actor. Once it has ended, every method raises ActorGone."""

    __slots__ = ()  # else each instance of the class behind it would carry a dictionary

    path: str  # ids from the root, joined by "/"
    epoch: int  # the number of this incarnation, from 1

    @property
    def stopping(self) -> trio.Event:
        """Set when the actor should end by itself: it finishes the work in hand, then returns."""

    @property
    def ref(self) -> Ref:
        """The actor's own address."""

    def ready(self, value: Any = None) -> None:
        """The actor works from now on; `value` becomes `ref.value`. A second call only changes the value."""

    def beat(self) -> None:
        """The actor makes progress, see `Child.beat_within`."""

    def start_helper(self, help_: Callable[[], Awaitable[None]]) -> None:
        """Run `help_()` in a task beside the actor. Unlike a nursery, it costs nothing while no helper runs.

        An exception in it is a crash of the actor. The helper is cancelled when the actor has ended, not
        before: an actor that needs its result waits for it.
        """

    async def receive(self) -> Any:
        """Return the next message. Raises Stopping once a stop was requested; queued messages stay queued.

        The message is in hand until the next receive or until the actor returns. If the actor crashes before,
        the message counts as lost.
        """

    def receive_nowait_batch(self, limit: int) -> list[Any]:
        """Return up to `limit` waiting messages without yielding; empty when none waits. Also while stopping.

        Right after a `receive` the batch joins its message in hand. Otherwise the messages in hand so far
        count as handled.
        """

    def find(self, path: str) -> Ref:
        """The address of any actor of the tree, by its path from the root. Raises UnknownChild."""

    def supervisor(self, path: str) -> Handle:
        """The handle of any supervisor of the tree, by its path from the root. Raises UnknownChild."""


class Handle(Protocol):
    """A supervisor as an operator or an actor uses it. It survives the restarts of that supervisor.

    Paths are relative to the supervisor: ids joined by "/"; the empty path is the supervisor itself.

    While the supervisor is down, `start`, `stop`, `restart`, `remove` and `replace` raise ActorGone, or
    Stopping when the tree ends. An accepted call is carried out even if its caller is cancelled.
    """

    __slots__ = ()

    async def start(self, child: Child) -> Ref:
        """Add a child and return its address once it is ready, or has declined.

        Raises StartFailed (nothing is kept then; a child that is not `needed` is kept and retried),
        AlreadyRunning, AlreadyPresent, PoolFull, BadSpec, Stopping, and ActorGone when a `stop` overtakes.
        """

    async def stop(self, id: Hashable) -> None:
        """Stop a child and keep its spec as done; a temporary or a Pool's child leaves none. Idempotent.

        Returns when the child has ended or was reported as unstopped. Never raises the child's errors. Raises
        UnknownChild.
        """

    async def restart(self, id: Hashable) -> Ref:
        """Stop a child if it runs, start it without delay or charge, return its address once it is ready.

        A child that is already starting is not started twice. Raises StartFailed (the supervisor then retries
        a child that was up), UnknownChild, Stopping, and ActorGone when a later `stop` overtakes.
        """

    def remove(self, id: Hashable) -> None:
        """Forget a child that is done or idle. Raises AlreadyRunning in any other state, and UnknownChild."""

    def replace(self, child: Child) -> None:
        """Use this spec from the next incarnation of the child with its id. Raises UnknownChild, BadSpec."""

    def tree(self, *, dynamic: bool = True) -> Node:
        """This supervisor and everything below it, as plain data.

        `dynamic=False` leaves out the children of pools: as quick with 10,000 of them as with none.
        """

    def counts(self) -> dict[str, int]:
        """The number of direct children in each of the six states, and the `total`. O(1)."""

    def find(self, path: str) -> Ref:
        """The address of the child at `path`. Raises UnknownChild."""

    def supervisor(self, path: str) -> Handle:
        """The handle of the supervisor at `path`. Raises UnknownChild."""


@frozen
class Child:
    """One child: an id, a factory that makes a fresh actor for every incarnation, and how to keep it alive.

    `make` may also return a Supervisor (the tree nests) or None (it declines to start: no error, no charge).
    """

    id: Hashable  # its text is the name in paths, hence not empty and without "/"
    make: Callable[[], Actor | Supervisor | None]
    restart: Restart = Restart.PERMANENT
    backoff: Backoff = Backoff()  # noqa: RUF009 - frozen, so all may share one
    mailbox: Mailbox = Mailbox()  # noqa: RUF009
    ready_within: float | None = None  # None: 10 s for an actor, unlimited for a supervisor
    stop_within: float | None = (
        None  # None: 5 s for an actor, unlimited for a supervisor; 0: cancel without a polite stop
    )
    cleanup_within: float = 1.0  # after the cancel; then the child is reported as unstopped
    beat_within: float | None = None  # progress watchdog, counted from ready; None: off
    significant: bool = False  # its own end may end its supervisor, see `auto_shutdown`
    needed: bool = True  # False: its first start is like a restart: nobody waits for it, a failure is retried

    def __attrs_post_init__(self) -> None:
        text = str(self.id)
        require(bool(text) and "/" not in text, f"Child.id {self.id!r} must have a text without '/'")
        require(
            callable(self.make), f"Child {text!r}: make must be callable, not a {type(self.make).__name__}"
        )
        require(isinstance(self.restart, Restart), f"Child {text!r}: restart must be a Restart")
        for name in ("ready_within", "stop_within", "cleanup_within"):
            require_duration(f"Child {text!r}: {name}", getattr(self, name))
        require(self.beat_within is None or self.beat_within > 0, f"Child {text!r}: beat_within must be > 0")
        permanent = self.restart is Restart.PERMANENT
        require(
            not (self.significant and permanent), f"Child {text!r}: a permanent child never ends by itself"
        )


def _as_tuple(children: Iterable[Child]) -> tuple[Child, ...]:
    return tuple(children)


@frozen
class Supervisor:
    """Keeps its children alive. `children` start in this order and stop in reverse."""

    children: tuple[Child, ...] = field(default=(), converter=_as_tuple)
    strategy: Strategy = Strategy.ONE_FOR_ONE
    limit: Limit = Limit()  # noqa: RUF009 - frozen, so all may share one
    auto_shutdown: AutoShutdown | None = None

    def __attrs_post_init__(self) -> None:
        require(isinstance(self.strategy, Strategy), f"strategy must be a Strategy, not {self.strategy!r}")
        known = (None, "any_significant", "all_significant")
        require(
            self.auto_shutdown in known, f"auto_shutdown must be one of {known}, not {self.auto_shutdown!r}"
        )
        require(all(isinstance(c, Child) for c in self.children), "children must be Child specifications")
        repeated = _first_repeated(str(child.id) for child in self.children)
        require(repeated is None, f"two children are called {repeated!r}")
        for child in self.children:
            self.check(child)

    def check(self, child: Child) -> None:
        """Raise BadSpec when `child` cannot live under this supervisor."""
        lost = child.significant and self.auto_shutdown is None
        require(not lost, f"Child {str(child.id)!r} is significant, but its supervisor has no auto_shutdown")


@frozen
class Pool(Supervisor):
    """Children that come and go: stopped in parallel, each with a restart budget of its own."""

    max_children: int | None = None  # children in backoff count; None: no bound

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        require(self.strategy is Strategy.ONE_FOR_ONE, "a Pool is always ONE_FOR_ONE")
        require(self.max_children is None or self.max_children >= 0, "Pool.max_children must be >= 0 or None")
        room = self.max_children is None or len(self.children) <= self.max_children
        require(room, "a Pool starts with more children than max_children")


def _first_repeated(names: Iterable[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None
