"""Readiness: is every static actor running, and is every source connected?

Rules of this file: `readiness` is pure; `ready` asks it about a daemon. A source that is down makes the
daemon degraded, not unready, because the cache is still served; unless at least one source is needed, and
none is connected. So does a history that is not written, because live data does not wait for it; and a symbol
that is connected, but not as it should be. Dynamic actors (the children of a pool) come and go and do not
count.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

import trio
from attrs import frozen

from dataflow import paths
from dataflow.domain.quality import Grade
from dataflow.gateway.hall import Hall
from dataflow.sources.state import LinkState
from supervisors import Node

UNWELL: Final = (Grade.REJECTED, Grade.STALLED, Grade.REFILLING, Grade.GAPPED)
NAMED: Final = 3  # symbols of a source in one such state
BEHIND: Final = 2.0  # seconds, beyond the interval between two writes, that the history may be behind


@frozen
class Readiness:
    """The paths of static actors that do not run (`not_ready`). `degraded`: the paths of sources that are
    down, and what is wrong with the history and with symbols, in words."""

    not_ready: tuple[str, ...]
    degraded: tuple[str, ...]

    @property
    def status(self) -> str:
        if self.not_ready:
            return "not ready"
        return "degraded" if self.degraded else "ready"


def ready(hall: Hall) -> Readiness:
    """The readiness of a daemon, now."""
    sources = hall.core.sources
    down = tuple(name for name, source in sources.items() if source.link is not LinkState.CONNECTED)
    needed = sources if hall.settings.gateway.ready_needs_sources else None
    troubles = hall.core.recording.troubles(trio.current_time(), hall.settings.history.interval + BEHIND)
    of_symbols = unwell(hall.core.symbols_by_state())
    return readiness(hall.tree(dynamic=False), down, needed, (*troubles, *of_symbols))


def readiness(
    tree: Node,
    disconnected: tuple[str, ...],
    needed: Collection[str] | None = None,
    troubles: Collection[str] = (),
) -> Readiness:
    """The readiness of `tree`. `disconnected`: names of sources without a connection. `needed`: one of these
    sources must be up; None: none must. `troubles`: words for what is served with less than it should be."""
    idle = [node.path for node in static_nodes(tree) if node.state != "running"]
    down = {paths.source(name) for name in disconnected}
    down.update(path for path in idle if paths.below(paths.SOURCES, path))
    down.update(path for path in idle if path == paths.RECORDER)
    lacking = needed is not None and down.issuperset(map(paths.source, needed))
    return Readiness(
        (*(path for path in idle if path not in down), *((paths.SOURCES,) if lacking else ())),
        (*sorted(down), *troubles),
    )


def unwell(states: Mapping[str, Mapping[Grade, Sequence[str]]]) -> Iterator[str]:
    """Words for the symbols of each source that are connected, and lack trades."""
    for source, symbols in states.items():
        for grade in UNWELL:
            if named := symbols.get(grade):
                more = f" and {len(named) - NAMED} more" if len(named) > NAMED else ""
                yield f"{source}: {', '.join(sorted(named)[:NAMED])}{more} {grade}"


def static_nodes(node: Node) -> Iterator[Node]:
    """`node` and all static nodes below it, parents first."""
    yield node
    if node.kind != "pool":
        for child in node.children:
            yield from static_nodes(child)
