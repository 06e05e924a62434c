"""Is the daemon ready? Decided from the tree alone.

Rules of this file: pure. Static actors must run. A source that is down does not make the daemon
useless, for what is remembered is still served: that is degraded, not unready. Dynamic actors (the
children of a pool) come and go and do not count.
"""

from __future__ import annotations

from collections.abc import Iterator

from attrs import frozen

from dataflow import paths
from supervisors import Node


@frozen
class Readiness:
    """What stands in the way (`not_ready`), and which sources are down (`degraded`): paths."""

    not_ready: tuple[str, ...]
    degraded: tuple[str, ...]

    @property
    def status(self) -> str:
        if self.not_ready:
            return "not ready"
        return "degraded" if self.degraded else "ready"


def readiness(tree: Node, disconnected: tuple[str, ...]) -> Readiness:
    """Judge `tree`; `disconnected` are the names of sources without a connection."""
    idle = [node.path for node in static_nodes(tree) if node.state != "running"]
    down = {paths.source(name) for name in disconnected}
    down.update(path for path in idle if paths.below(paths.SOURCES, path))
    return Readiness(tuple(path for path in idle if path not in down), tuple(sorted(down)))


def static_nodes(node: Node) -> Iterator[Node]:
    """`node` and everything below it that is there for good, parents first."""
    yield node
    if node.kind != "pool":
        for child in node.children:
            yield from static_nodes(child)
