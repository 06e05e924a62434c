"""Opens the files of a directory: what they hold, what is damaged, and where the streams go on.

Rules of this file. The newest sound file has the present epoch, the chain of epochs and the last places. A
file with a damaged table of contents is set aside, and what it held is told as far as its neighbours know.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing, suppress

from attrs import frozen

from . import day as files
from .day import Day, Held
from .folder import Folder
from .parts import Damaged
from .writer import Fill, State, Writer

_NAMED = 3  # symbols in a line


@frozen
class Found:
    """`is_clean`: the last daemon stopped in order. `damage`: a line for each damaged part, for people."""

    is_clean: bool
    damage: Sequence[str]


def load(folder: Folder, state: State, writer: Writer, *, is_again: bool = False) -> Found:
    """Fill `state`, and let `writer` go on in the newest file, if there is one.

    `is_again`: after a failure. What the writer knows is believed then, and must be that of these files.
    Raises ConfigError, sqlite3.Error and OSError.
    """
    folder.tidy()
    sound, broken = _scan(folder, state)
    damage = [f"{_loss(day, why, sound)}. It is {folder.set_aside(day)} now" for day, why in broken]
    if not sound:
        writer.drop()
        return Found(not broken, damage)
    newest, held = sound[-1]
    if is_again and held.epoch not in writer.epochs:
        raise FileNotFoundError(2, "another history is in the directory")
    writer.epochs.update([each.epoch for _, each in sound])
    torn = writer.resume(newest, held)
    for day in state.days[:-1]:
        with suppress(sqlite3.Error):  # a reader from outside may be in it
            files.finish(day.path)
    is_newest_broken = bool(broken) and broken[-1][0].name > newest.name
    return Found(held.is_clean and not torn and not is_newest_broken, [*damage, *torn])


def look(folder: Folder, state: State, writer: Writer) -> Found:
    """The same without a change of any file, beside a daemon or not. `writer` does not write."""
    sound, broken = _scan(folder, state)
    damage = [_loss(day, why, sound) for day, why in broken]
    if not sound:
        return Found(not broken, damage)
    newest, held = sound[-1]
    torn = writer.look(newest, held)
    return Found(held.is_clean, [*damage, *torn])


def _scan(folder: Folder, state: State) -> tuple[list[tuple[Day, Held]], list[tuple[Day, str]]]:
    """The sound files and the damaged ones, the oldest first."""
    sound: list[tuple[Day, Held]] = []
    broken: list[tuple[Day, str]] = []
    for day in folder.days():
        held = _held(day, broken)
        if held is not None:
            day.symbols = held.symbols
            sound.append((day, held))
    state.days, state.open, state.fills = tuple([day for day, _ in sound]), {}, {}
    for day, held in sound:
        _load_fills(state, day, held)
    if sound:
        sound[-1][0].symbols = None
    return sound, broken


def _held(day: Day, broken: list[tuple[Day, str]]) -> Held | None:
    try:
        with closing(files.read_only(day.path)) as connection:
            return files.held(connection, day.path.name)
    except (Damaged, UnicodeError) as error:
        broken.append((day, str(error)))
    except sqlite3.Error as error:
        if not files.is_damage(error):
            raise
        broken.append((day, str(error)))
    return None


def _loss(day: Day, why: str, sound: Sequence[tuple[Day, Held]]) -> str:
    """What a damaged file held, as far as the files before and behind it know."""
    before = next((held.symbols for each, held in reversed(sound) if each.name < day.name), {})
    behind = next((held.symbols for each, held in sound if each.name > day.name), None)
    lost = []
    for symbol in sorted(before if behind is None else behind):
        first = before[symbol].end + 1 if symbol in before else 1
        last = None if behind is None else behind[symbol].before
        if last is None or first <= last:
            lost.append(f"{symbol} from {first} on" if last is None else f"{symbol} {first} to {last}")
    more = f" and {len(lost) - _NAMED} more symbols" if len(lost) > _NAMED else ""
    places = f": places {', '.join(lost[:_NAMED])}{more}" if lost else ""
    return f"{day.path.name} is damaged ({why}), and what it held is lost{places}"


def _load_fills(state: State, day: Day, held: Held) -> None:
    names = {summary.id: symbol for symbol, summary in held.symbols.items()}
    query = "SELECT symbol, first, last, earliest, latest, trades FROM fills ORDER BY rowid"
    try:
        with closing(files.read_only(day.path)) as connection:
            rows = connection.execute(query).fetchall()
    except sqlite3.DatabaseError as error:
        if not files.is_damage(error):
            raise
        return  # the gaps stay gaps
    for symbol, *values in rows:
        if symbol in names:
            fills = state.fills.get(names[symbol], ())
            state.fills[names[symbol]] = (*fills, Fill(day, *values))
