"""Which connections a source should have: its lines.

Rules of this file: pure; the caller tells the time. Each share of the symbols has `lines` of them; the second
comes when the first carries its symbols. A line that is old, or whose upstream announced its end, is not
closed first: another one is made for its share, and only when that one is proven is the old one over. If it
cannot be had, the old one stays. One line of a source is renewed for its age at a time; an announcement waits
for nobody.
"""

from __future__ import annotations

from itertools import count
from math import inf

from .port import SourceSettings
from .state import Line, LinkState, SourceState


def settle(source: SourceState, now: float) -> float:
    """Bring the lines of `source` in accordance with its shares and with their state at `now` (steady clock).

    Returns when to look again although nothing has changed.
    """
    for line in source.standing:
        if line.share not in source.interest.parts:
            line.is_over = True
    for line in source.standing:
        _take_over(line, now)
    for share in source.interest.parts:
        _complete(source, share)
    for line in source.standing:
        if line.is_due(now) and _successor(line) is None and (line.announced or not _is_renewing(source)):
            _add(source, line.share, line)
    coming = (line.rotate_at for line in source.standing if line.rotate_at > now)
    return min(coming, default=inf)


def _successor(line: Line) -> Line | None:
    return next((each for each in line.source.standing if each.replaces is line), None)


def _is_renewing(source: SourceState) -> bool:
    return any(line.replaces is not None for line in source.standing)


def _take_over(new: Line, now: float) -> None:
    """Decide between a line and the one that it replaces."""
    old = new.replaces
    if old is None:
        return
    is_lost = old.link is LinkState.LOST
    if old.is_over or new.is_proven or (is_lost and old.announced is not None):
        old.is_over = True
        new.replaces = None
    elif not is_lost and not old.is_due(now):  # it was renewed by itself
        new.is_over = True
        new.replaces = None


def _complete(source: SourceState, share: int) -> None:
    settings = source.settings
    wanted = settings.lines if isinstance(settings, SourceSettings) else 1
    lines = [line for line in source.standing if line.share == share and line.replaces is None]
    for surplus in lines[wanted:]:
        surplus.is_over = True
    if not lines:
        _add(source, share)
    elif len(lines) < wanted and any(line.link is LinkState.CONNECTED for line in lines):
        for _ in range(wanted - len(lines)):
            _add(source, share)


def _add(source: SourceState, share: int, replaces: Line | None = None) -> None:
    number = next(number for number in count(1) if number not in source.lines)
    source.lines[number] = Line(source, number, share, replaces)
