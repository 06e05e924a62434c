"""The actor that keeps the connections of one source: its lines.

Rules of this file. Which lines there are is state of the core, not of this actor: the pool of the lines makes
them from there, also when it restarts. The actor compares the two, so no crash of it loses a line, or leaves
one that nobody wants.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from supervisors import Child, Context, Handle, StartFailed, SupervisionError


class Keeper:
    """`pool`: the path of the supervisor of the lines. `wanted()`: their numbers. `child_of(number)`: the
    child of the pool that is this line."""

    def __init__(
        self, pool: str, wanted: Callable[[], Collection[int]], child_of: Callable[[int], Child]
    ) -> None:
        self._pool = pool
        self._wanted = wanted
        self._child_of = child_of

    async def run(self, ctx: Context) -> None:
        ctx.ready()
        await self._align(ctx.supervisor(self._pool))
        await ctx.stopping.wait()

    async def _align(self, pool: Handle) -> None:
        present = {node.path.rpartition("/")[2] for node in pool.tree().children}
        for number in self._wanted():
            if str(number) not in present:
                try:
                    await pool.start(self._child_of(number))
                except StartFailed:
                    continue  # told, and tried again, by its supervisor
                except SupervisionError:
                    return  # the pool is down, and comes back with all lines
