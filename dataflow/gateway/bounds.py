"""What may be asked of an upstream, and how much of it is used now.

Rules of this file: it reads what others keep to. A bound that does not exist for a source is left out.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Final

import trio

from dataflow.core import Core
from dataflow.net.budget import MINUTE
from dataflow.sources.port import SourceSettings, can_be_asked
from dataflow.sources.state import SourceState, room

from .answers import BoundInfo

_SECOND: Final = 1.0


def bounds(core: Core, source: SourceState) -> Iterator[BoundInfo]:
    """The bounds of `source`; none where producers connect to us."""
    settings, lines, now = source.settings, source.lines.values(), trio.current_time()
    if not isinstance(settings, SourceSettings):
        return
    if settings.transport == "rest" or can_be_asked(settings):
        budget = core.budget(source.name)
        yield BoundInfo("weight", budget.used(now), budget.most, MINUTE)
    most, seconds = settings.connections_in
    if most:
        yield BoundInfo("connections", core.attempts(settings).used(source.steady()), most, seconds)
    if (most := room(settings)) < sys.maxsize:
        yield BoundInfo("symbols", max((len(line.symbols) for line in lines), default=0), most, None)
    if settings.transport == "websocket" and settings.requests_per_second:
        used = (line.pace.used(now) for line in lines if line.pace is not None)
        yield BoundInfo("requests", max(used, default=0), settings.requests_per_second, _SECOND)
