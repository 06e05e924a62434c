"""The actor that keeps the connections of one source: its lines.

Rules of this file. Which lines there are is state of the core, and `lines` decides it. The pool of the lines
makes them from there, also when it restarts. This actor compares the two, so no crash of it loses a line, or
leaves one that nobody wants.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

import trio
from loguru import logger

from supervisors import Child, Context, Handle, StartFailed, SupervisionError

from .lines import settle
from .state import Line, SourceState

if TYPE_CHECKING:
    from loguru import Logger

AGAIN: Final = 1.0  # seconds, when the pool of the lines is down


class Keeper:
    """`pool`: the path of the supervisor of the lines. `child_of(line)`: the child of the pool that is it."""

    def __init__(self, source: SourceState, pool: str, child_of: Callable[[Line], Child]) -> None:
        self._source = source
        self._pool = pool
        self._child_of = child_of
        self._busy: set[Line] = set()  # those that are being started or stopped

    async def run(self, ctx: Context) -> None:
        ctx.ready()
        source, pool, log = self._source, ctx.supervisor(self._pool), logger.bind(path=ctx.path)
        async with trio.open_nursery() as nursery:
            while True:
                news, before = source.news_of_lines(), _replacing(source)
                look_at = settle(source, source.steady())
                _tell(log, before, _replacing(source))
                self._align(pool, nursery)
                with trio.move_on_after(max(0.0, look_at - source.steady())):
                    await news.wait()

    def _align(self, pool: Handle, nursery: trio.Nursery) -> None:
        present = {node.path.rpartition("/")[2] for node in pool.tree().children}
        for line in [line for line in self._source.lines.values() if line not in self._busy]:
            is_present = str(line.number) in present
            if line.is_over and not is_present:
                self._source.forget(line)
            elif line.is_over is is_present:
                self._busy.add(line)
                nursery.start_soon(self._end if line.is_over else self._begin, pool, line)

    async def _begin(self, pool: Handle, line: Line) -> None:
        try:
            await pool.start(self._child_of(line))
        except StartFailed:
            pass  # told, and tried again, by its supervisor
        except SupervisionError:  # the pool is down, and comes back with all lines
            await trio.sleep(AGAIN)
        self._done(line)

    async def _end(self, pool: Handle, line: Line) -> None:
        try:
            await pool.stop(line.number)
        except SupervisionError:
            await trio.sleep(AGAIN)
        self._done(line)

    def _done(self, line: Line) -> None:
        self._busy.discard(line)
        self._source.look_at_lines()


def _replacing(source: SourceState) -> dict[Line, Line | None]:
    return {line: line.replaces for line in source.standing}


def _tell(log: Logger, before: Mapping[Line, Line | None], after: Mapping[Line, Line | None]) -> None:
    for line, old in after.items():
        if line not in before and old is not None:
            why = old.announced or "it is old"
            log.info("line {} is made to take the place of line {}: {}", line.number, old.number, why)
    for line in before:
        if line not in after:
            log.info("line {} is not needed any more, and parts", line.number)
