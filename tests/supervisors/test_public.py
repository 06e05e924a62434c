"""The public names: everything is imported from `supervisors`, and an actor needs no more than Protocols."""

from __future__ import annotations

from typing import Any

import supervisors
from supervisors import Context, Supervisor, leaves, open_supervisor
from tests.supervisors.helpers import Boom, scripted


def test_every_exported_name_exists() -> None:
    """`from supervisors import *` works, and no name is listed twice."""
    assert [name for name in supervisors.__all__ if not hasattr(supervisors, name)] == []
    assert len(set(supervisors.__all__)) == len(supervisors.__all__)


async def test_the_context_and_the_handle_of_a_tree_stay_small() -> None:
    """Every living actor holds a Context: a dictionary in each would grow the memory of a child."""
    found: list[Any] = []

    async def life(ctx: Context) -> None:
        found.append(ctx)
        ctx.ready()
        await ctx.receive()

    async with open_supervisor(Supervisor([scripted("a", life)])) as handle:
        assert [each for each in (found[0], handle) if hasattr(each, "__dict__")] == []


async def test_an_actor_runs_with_a_context_of_a_test() -> None:
    """Context and Handle are Protocols: a test of an actor may bring its own and start no tree."""
    said: list[Any] = []

    class Fake:
        path, epoch = "a", 7

        def ready(self, value: Any = None) -> None:
            said.append(value)

    async def life(ctx: Context) -> None:
        ctx.ready((ctx.path, ctx.epoch))

    await scripted("a", life).make().run(Fake())  # type: ignore[union-attr,arg-type]
    assert said == [("a", 7)]


def test_leaves_are_the_exceptions_inside_nested_groups() -> None:
    """In order; a single exception is its own leaf, and None has none."""
    one, two, three = Boom("1"), ValueError("2"), KeyboardInterrupt()
    inner = BaseExceptionGroup("inner", [two, three])
    assert list(leaves(BaseExceptionGroup("outer", [one, inner]))) == [one, two, three]
    assert list(leaves(one)) == [one]
    assert list(leaves(None)) == []
