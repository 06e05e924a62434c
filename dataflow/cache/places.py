"""Entries in their order, each with the last place that it takes: parts of such a sequence.

Rules of this file: pure. A gap that lies across a border is cut there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from dataflow.domain import Gap, Trade

Places: TypeAlias = Sequence[tuple[int, Trade | Gap]]
Part: TypeAlias = list[tuple[int, Trade | Gap]]


def first_place(last: int, entry: Trade | Gap) -> int:
    """The first place of an entry whose last one is `last`."""
    return entry.first if isinstance(entry, Gap) else last


def above(places: Places, after: int) -> Part:
    """The part behind place `after`."""
    part = [place for place in places if place[0] > after]
    if part and isinstance(entry := part[0][1], Gap) and entry.first <= after:
        part[0] = entry.last, entry.part(after + 1, entry.last)
    return part


def below(places: Places, before: int) -> Part:
    """The part before place `before`."""
    part = [place for place in places if first_place(*place) < before]
    if part and isinstance(entry := part[-1][1], Gap) and entry.last >= before:
        part[-1] = before - 1, entry.part(entry.first, before - 1)
    return part


def newest(places: Places, count: int) -> Places:
    """The part that begins with the last but `count` item: so many items, and the gaps between and behind
    them."""
    items = [at for at, (_, entry) in enumerate(places) if not isinstance(entry, Gap)]
    if not count:
        return ()
    return places[items[-count] :] if len(items) > count else places


def whole(places: Places, after: int, end: int | None = None) -> Part:
    """`places` behind `after` (and up to `end`), with a gap "overrun" for each part that is not there."""
    made: Part = []
    for last, entry in above(places, after):
        first = first_place(last, entry)
        if first > after + 1:
            made.append((first - 1, Gap(after + 1, first - 1, "overrun")))
        made.append((last, entry))
        after = last
    if end is not None and end > after:
        made.append((end, Gap(after + 1, end, "overrun")))
    return made


def runs(places: Places) -> list[Places]:
    """The items among them, in runs without a hole."""
    found: list[Part] = []
    for place, entry in places:
        if isinstance(entry, Gap):
            continue
        if found and found[-1][-1][0] == place - 1:
            found[-1].append((place, entry))
        else:
            found.append([(place, entry)])
    return [*found]
