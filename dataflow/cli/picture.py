"""A tree in a terminal, whole or cut to the height of a screen.

Rules of this file: no I/O. Where a screen is too small for the tree, its lines stand below each other with
their whole paths, the most urgent first, and the last row counts the lines that found no room.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from attrs import field, frozen
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from .words import several

# by the state of the connection of a source
LINK_COLOURS: Final = {"connected": "green", "listening": "green", "connecting": "cyan", "lost": "red"}


def can_redraw(console: Console) -> bool:
    """Whether a new picture can take the place of an older one. A pipe and a dumb terminal only go on."""
    return console.is_terminal and not console.is_dumb_terminal


@frozen
class Line:
    """One node. `about`: what stands behind its name, in one row or more. `urgency`: 0 comes first."""

    name: str
    path: str
    about: Text
    urgency: int
    guides: str = ""  # in front of its first row ...
    below: str = ""  # ... and in front of the others


@frozen
class Picture:
    """`head`, and `lines` below it, for a console of `rich`. `height`: rows of the screen; None: no bound."""

    head: Text
    lines: Sequence[Line] = field(factory=tuple)
    height: int | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Called by rich. Without wrapping (`no_wrap`), as for a pipe, every row keeps its whole text."""
        width = None if options.no_wrap else options.max_width
        rows = [*self._head(console, width), *self._tree(console, width)]
        if self.height is not None and len(rows) > self.height:
            rows = self._cut(console, options.max_width, self.height)
        yield from rows

    def _head(self, console: Console, width: int | None) -> list[Text]:
        return list(_wrapped(self.head, console, width))

    def _tree(self, console: Console, width: int | None) -> Iterator[Text]:
        for line in self.lines:
            room = None if width is None else max(10, width - len(line.guides))
            guides = line.guides
            for row in _wrapped(Text.assemble((line.name, "bold"), line.about), console, room):
                yield Text.assemble((guides, "dim"), row)
                guides = line.below

    def _cut(self, console: Console, width: int, height: int) -> list[Text]:
        rows = self._head(console, width)
        room = height - len(rows) - 1  # the last row counts
        told = 0
        for line in sorted(self.lines, key=lambda line: line.urgency):
            own = Text.assemble((line.path, "bold"), line.about).split("\n")
            if len(own) > room:
                break
            for row in own:
                row.truncate(width, overflow="ellipsis")
                rows.append(row)
            told, room = told + 1, room - len(own)
        more = len(self.lines) - told
        return [*rows[: height - 1], Text(f"and {several(more, 'more line')}", "dim")]


def _wrapped(text: Text, console: Console, width: int | None) -> Iterator[Text]:
    for row in text.split("\n"):
        yield from [row] if width is None else row.wrap(console, width)
