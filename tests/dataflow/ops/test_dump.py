"""What SIGUSR1 writes: everything that waits, in a bounded number of bounded pieces."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import trio
from loguru import logger

from dataflow.ops import dump
from dataflow.ops.dump import Dump
from supervisors import Child, Context, Handle, Mailbox, Pool, Restart, Supervisor, open_supervisor
from tests.support.waiting import until


class Waiter:
    async def run(self, ctx: Context) -> None:
        ctx.ready()
        secret = "not-to-be-shown"
        await self.wait_for_a_message(ctx, secret)

    async def wait_for_a_message(self, ctx: Context, _secret: str) -> None:
        await ctx.receive()


class Parent:
    async def run(self, ctx: Context) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.sleep)
            ctx.ready()

    async def sleep(self) -> None:
        await trio.sleep_forever()


@pytest.fixture
def lines() -> Iterator[list[str]]:
    said: list[str] = []
    number = logger.add(lambda message: said.append(message.record["message"]), level="WARNING")
    yield said
    logger.remove(number)


@asynccontextmanager
async def tree(sessions: int) -> AsyncIterator[Handle]:
    branches = (
        Child("ops", lambda: Supervisor(children=[Child("dump", Dump, mailbox=Mailbox(size=1))])),
        Child("parent", Parent, stop_within=0),
        Child(
            "gateway",
            lambda: Supervisor(children=[Child("sessions", lambda: Pool(max_children=10_000))]),
        ),
    )
    async with open_supervisor(Supervisor(children=branches)) as root:
        pool = root.supervisor("gateway/sessions")
        for number in range(sessions):
            await pool.start(Child(number, Waiter, restart=Restart.TEMPORARY))
        yield root


async def dumped(root: Handle, lines: list[str]) -> str:
    root.find("ops/dump").put("SIGUSR1")
    await until(lambda: any("more are not shown" in line for line in lines))
    return "\n".join(lines)


async def test_it_tells_the_tree_and_where_each_task_waits(lines: list[str]) -> None:
    """Actors by their paths, and the tasks inside an actor with its path before their names."""
    async with tree(1) as root:
        text = await dumped(root, lines)
    assert "  gateway/sessions: running for" in text
    assert "1 running" in text
    assert "\ngateway/sessions/0 at:\n" in text
    assert "in wait_for_a_message" in text
    assert f"\nparent, {__name__}.Parent.sleep at:\n" in text


async def test_tasks_at_one_place_are_one_stack(lines: list[str]) -> None:
    """A thousand sessions cost one record. No variable is shown."""
    async with tree(1000) as root:
        text = await dumped(root, lines)
    assert text.count("in wait_for_a_message") == 1
    assert "1,000 tasks (" in text
    assert " and 997 more) at:" in text
    assert "not-to-be-shown" not in text
    assert len(lines) < 30


async def test_what_does_not_fit_is_counted(lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """There are bounds for stacks, nodes and characters, and the rest has its number."""
    monkeypatch.setattr(dump, "MOST_STACKS", 2)
    monkeypatch.setattr(dump, "MOST_NODES", 3)
    monkeypatch.setattr(dump, "LONGEST", 100)
    async with tree(3) as root:
        text = await dumped(root, lines)
    assert "the tree: 3 more actors" in text
    assert ", at 2 places; " in lines[-1]
    assert not lines[-1].endswith(" 0 more are not shown")
    assert max(map(len, lines)) < 500
