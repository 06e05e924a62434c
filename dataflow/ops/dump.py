"""The actor that writes the tree, and where every task waits, to the log.

Rules of this file. Tasks that wait at the same place are told together, so ten thousand sessions are one
stack. Each record of the log is bounded, and so is their number. Between the pieces others have their turn.
No variable of a task is shown.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Final, TypeAlias

import trio
from attrs import define, field
from loguru import logger
from trio.lowlevel import Task

from dataflow import paths
from supervisors import Context, Handle, Node

from .readiness import static_nodes

TASKS_AT_ONCE: Final = 100  # between two checkpoints
MOST_STACKS: Final = 200
MOST_NODES: Final = 500
NODES_AT_ONCE: Final = 20  # in one record
LONGEST: Final = 8000  # characters of a stack
NAMED: Final = 3  # tasks with the same stack that are named

_Place: TypeAlias = tuple[tuple[object, int], ...]  # the code and the line of each frame


@define
class _Together:
    """The tasks that wait at one place."""

    stack: str
    count: int = 0
    names: list[str] = field(factory=list)


class Dump:
    """Any message is a request to write once."""

    async def run(self, ctx: Context) -> None:
        ctx.ready()
        while True:
            await ctx.receive()
            root = ctx.supervisor("")
            nodes = list(static_nodes(root.tree(dynamic=False)))
            await _tell_tree(root, nodes)
            await _tell_tasks({node.path for node in nodes})


async def _tell_tree(root: Handle, nodes: Sequence[Node]) -> None:
    shown = [_line(root, node) for node in nodes[:MOST_NODES]]
    for start in range(0, len(shown), NODES_AT_ONCE):
        _log.warning("the tree:\n{}", "\n".join(shown[start : start + NODES_AT_ONCE]))
        await trio.lowlevel.checkpoint()
    if len(nodes) > MOST_NODES:
        _log.warning("the tree: {:,} more actors", len(nodes) - MOST_NODES)


def _line(root: Handle, node: Node) -> str:
    words = [f"  {node.path or 'root'}: {node.state} for {trio.current_time() - node.since:.1f} s"]
    if node.restarts:
        words.append(f"{node.restarts} restarts")
    if node.kind == "pool":
        counts = root.supervisor(node.path).counts()
        words.append(", ".join(f"{count:,} {state}" for state, count in counts.items() if count) or "empty")
    if node.mailbox is not None and node.mailbox.queued:
        words.append(f"{node.mailbox.queued:,} of {node.mailbox.size:,} messages wait")
    if node.last_error:
        words.append(f"last error: {node.last_error[:200]}")
    return ", ".join(words)


async def _tell_tasks(known: set[str]) -> None:
    root = trio.lowlevel.current_root_task()
    tasks = list(_below(root, "", known)) if root is not None else []
    places: dict[_Place, _Together] = {}
    left_out = 0
    for number, (name, task) in enumerate(tasks, start=1):
        if number % TASKS_AT_ONCE == 0:
            await trio.lowlevel.checkpoint()
        if getattr(task.coro, "cr_frame", None) is None:  # it has ended meanwhile
            continue
        frames = _ours(list(task.iter_await_frames()))
        place = tuple((frame.f_code, line) for frame, line in frames)
        if place not in places:
            if len(places) == MOST_STACKS:
                left_out += 1
                continue
            places[place] = _Together(_stack(frames))
        together = places[place]
        together.count += 1
        if len(together.names) < NAMED:
            together.names.append(name)
    for together in sorted(places.values(), key=lambda each: each.count):
        more = together.count - len(together.names)
        names = ", ".join(together.names) + (f" and {more:,} more" if more else "")
        _log.warning("{} at:\n{}", f"{together.count:,} tasks ({names})" if more else names, together.stack)
        await trio.lowlevel.checkpoint()
    _log.warning("{:,} tasks, at {:,} places; {:,} more are not shown", len(tasks), len(places), left_out)


def _below(task: Task, owner: str, known: set[str]) -> Iterator[tuple[str, Task]]:
    """`task` and the tasks that it waits for, each with its name and the actor to which it belongs."""
    todo = [(task, owner)]
    while todo:
        task, owner = todo.pop()
        is_actor = task.name in known or any(
            task.name.startswith(f"{pool}/") for pool in (paths.SESSIONS, paths.TOPICS, paths.SOURCES)
        )
        owner = task.name if is_actor else owner
        yield (task.name if is_actor or not owner else f"{owner}, {task.name}"), task
        todo += [(inner, owner) for nursery in task.child_nurseries for inner in nursery.child_tasks]


def _ours(frames: list[tuple[FrameType, int]]) -> list[tuple[FrameType, int]]:
    """Without the inside of Trio, which is the same in every wait. All of them if nothing else is left."""
    ours = len(frames)
    while ours and str(frames[ours - 1][0].f_globals.get("__name__")).startswith("trio."):
        ours -= 1
    return frames[:ours] if ours else frames


def _stack(frames: Sequence[tuple[FrameType, int]]) -> str:
    text = "".join(traceback.StackSummary.extract(iter(frames)).format()).rstrip()
    return text if len(text) <= LONGEST else f"...{text[-LONGEST:]}"


_log = logger.bind(path=paths.DUMP)
