"""The log: one line per event, to standard error or a file, for people or for machines.

Rules of this file: sinks are synchronous (a coroutine sink delivers nothing on Trio), and none waits for a
reader (see `outlet`). A lost connection is no defect: one line. A crash of our code is a defect: a line and
its traceback. Text from outside cannot forge a line, move the cursor or change a colour. No line holds a
secret (see `domain.secrets`). Repeated messages are counted and logged once per burst.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from collections.abc import Callable, Hashable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal, TextIO, TypeAlias

from attrs import define, field, frozen
from loguru import logger

from dataflow.domain.secrets import concealed, concealed_value

from .outlet import LogFile, Outlet, give_back, replaced
from .terminal import disarmed, painted, wants_colour

if TYPE_CHECKING:
    from loguru import Record

    from supervisors import Event

Format: TypeAlias = Literal["human", "json"]
Level: TypeAlias = Literal["debug", "info", "warning", "error"]


def configure(
    format: Format = "human", level: Level = "info", stream: TextIO | None = None, *, file: Path | None = None
) -> None:
    """Send all records, of loguru and of the standard library, to `file`, or else to `stream`.

    Default: standard error. Replaces the earlier configuration. Raises OSError if the file cannot be opened.
    """
    global _log
    out: Any = LogFile(file) if file is not None else stream or sys.stderr
    render = _json_line if format == "json" else partial(_human_line, wants_colour(out, os.environ))
    _log = _Log(out, render)
    if isinstance(out, Outlet):
        out.hole = lambda count: _own_line("WARNING", f"{count} lines are missing here: there was no room")
    if isinstance(out, LogFile):
        out.trouble = lambda why: _complain(f"{file}: {why}")
    logger.remove()
    # Otherwise loguru prints every variable near a crash: whole histories, which takes seconds.
    plain: dict[str, Any] = {"format": _bare, "backtrace": False, "diagnose": False}
    say = out.say if isinstance(out, Outlet) else partial(_write, out)
    logger.add(lambda message: say(render(message.record)), level=level.upper(), **plain)
    logging.basicConfig(handlers=[_Intercept()], level=logging.WARNING, force=True)
    logging.captureWarnings(True)


@frozen
class _Log:
    """Where the log goes, and how its lines look."""

    out: Any  # an Outlet or another TextIO
    render: Callable[[Any], str]


_log: _Log | None = None


def dropped() -> int:
    """The lines that found no room, of the log and of everything on the replaced standard streams."""
    return sum(outlet.dropped for outlet in _outlets())


def reopen() -> None:
    """Open the log file anew, as after a rotation. Without a file, nothing. Never waits, raises nothing.

    If it cannot be opened, the old file goes on, and standard error has one line about it.
    """
    if _log is not None and isinstance(_log.out, LogFile):
        _log.out.reopen()


def finish() -> None:
    """Let out what finds room, and give the standard streams back. The last call of a process."""
    for outlet in _outlets():
        outlet.finish()
    give_back()


def _outlets() -> set[Outlet]:
    return {*replaced(), *([_log.out] if _log is not None and isinstance(_log.out, Outlet) else [])}


def _complain(why: str) -> None:
    if sys.stderr is not None:
        print(_own_line("ERROR", f"the log lacks lines: {why}"), file=sys.stderr)


def _own_line(level: str, message: str, **extra: str) -> str:
    """A line of the log that does not pass through loguru and its locks."""
    assert _log is not None
    about = {"level": SimpleNamespace(name=level), "message": message, "extra": extra, "exception": None}
    return _log.render({**about, "time": datetime.now().astimezone()})


def _bare(_record: Record) -> str:
    return "{message}"  # a function, because loguru adds the traceback to a plain template


def _write(out: TextIO, line: str) -> None:
    out.write(line + "\n")
    out.flush()


_COLOURS = {"DEBUG": "2", "INFO": "32", "WARNING": "33", "ERROR": "31", "CRITICAL": "1;31"}


def _human_line(coloured: bool, record: Record) -> str:
    level = record["level"].name
    time = painted(f"{record['time']:%Y-%m-%d %H:%M:%S.%f}"[:-3], "2", coloured)
    path = record["extra"].get("path")
    place = painted(disarmed(str(path)), "36", coloured) + ": " if path else ""
    text = concealed(record["message"] + ("\n" + _traceback(record) if record["exception"] else ""))
    return f"{time} {painted(f'{level:<7}', _COLOURS.get(level, '0'), coloured)} {place}{disarmed(text)}"


def _json_line(record: Record) -> str:
    """One JSON object. Values bound to the record become keys beside `message`."""
    line: dict[str, Any] = {
        "time": record["time"].astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "level": record["level"].name.lower(),
        "message": concealed(record["message"]),
        **concealed_value(record["extra"]),
    }
    if record["exception"]:
        line["exception"] = concealed(_traceback(record))
    return json.dumps(line, ensure_ascii=False, default=str)


def _traceback(record: Record) -> str:
    return "".join(traceback.format_exception(record["exception"].value)).rstrip()  # type: ignore[union-attr]


class _Intercept(logging.Handler):
    """Hands the standard library's records to loguru."""

    def emit(self, record: logging.LogRecord) -> None:
        bound = logger.bind(logger=record.name).opt(exception=record.exc_info)
        try:
            level: str | int = logger.level(record.levelname).name
        except ValueError:
            level = record.levelno
        bound.log(level, "{}", record.getMessage())


# -- events of the supervision tree -------------------------------------------------------------------

# kind -> level and text; "{restart}" is the restart that follows
_LINES: dict[str, tuple[str, str]] = {
    "ready": ("DEBUG", "ready"),
    "crash": ("ERROR", "crashed: {errors}; {restart}"),
    "start_failed": ("ERROR", "did not start: {errors}; {restart}"),
    "exit": ("DEBUG", "ended by itself"),
    "declined": ("DEBUG", "declined to start"),
    "stopped": ("DEBUG", "stopped"),
    "stop_cancelled": ("WARNING", "did not stop when asked, and was cancelled"),
    "unstopped": ("ERROR", "did not stop when cancelled, and was left behind"),
    "cleanup_error": ("ERROR", "failed while stopping: {errors}"),
    "hung": ("ERROR", "made no progress, and was cancelled"),
    "dead_letter": ("ERROR", "{count} messages in hand were lost: {detail}"),
    "given_up": ("WARNING", "crashed too often, and was given up: {errors}"),
    "escalated": ("ERROR", "crashed too often, its supervisor gives up: {errors}"),
    "auto_shutdown": ("INFO", "ends, because its significant children have ended"),
    "suppressed": ("WARNING", "{detail} more crashes in the last second"),
}
_WITH_TRACEBACK = {"crash", "start_failed", "cleanup_error", "escalated"}


def log_event(event: Event) -> None:
    """Log one event of the supervision tree. An `on_event` hook for `supervisors`."""
    if event.kind == "blocked":
        _rescue(event)
        return
    level, _ = _line(event)
    error = None if is_link_lost(event) else failure(event)
    logger.bind(path=event.path or "root", event=event.kind).opt(exception=error).log(
        level, "{}", words(event)
    )


def words(event: Event) -> str:
    """What the log says of an event of the supervision tree."""
    return _line(event)[1].format(
        errors="; ".join(map(_told, event.errors)) or "unknown error",
        restart="no restart" if event.delay is None else f"restart {event.restarts} in {event.delay:.1f} s",
        count=len(event.detail) if isinstance(event.detail, tuple) else 1,
        detail=_cut(event.detail),
        epoch=event.epoch,
    )


def failure(event: Event) -> BaseException | None:
    """The error whose traceback belongs to an event; None where it tells nothing."""
    if event.kind not in _WITH_TRACEBACK or not event.errors:
        return None
    if len(event.errors) > 1:
        return BaseExceptionGroup(f"{len(event.errors)} errors", event.errors)
    return event.errors[0]


def is_link_lost(event: Event) -> bool:
    """Whether a connection ended, which is no defect."""
    # by name, so that this file does not import the classes of the actors
    lost = bool(event.errors) and all(type(error).__name__ == "LinkLost" for error in event.errors)
    return event.kind in ("crash", "start_failed") and lost


def _line(event: Event) -> tuple[str, str]:
    """The level of an event, and its words with names of what comes into them."""
    if is_link_lost(event):
        return "INFO", "link lost: {errors}; {restart}"
    if event.kind == "ready" and event.epoch > 1:
        return "INFO", "back, incarnation {epoch}"
    return _LINES.get(event.kind, ("WARNING", f"{event.kind}: {{detail}}"))


def _rescue(event: Event) -> None:
    """Say that the loop is blocked. What blocks it may hold the lock of the logger, or fill the outlet."""
    if _log is None:
        return
    line = _own_line(
        "ERROR",
        f"the event loop is blocked:\n{event.detail}",
        path=event.path or "root",
        event=event.kind,
    )
    if isinstance(_log.out, Outlet):
        _log.out.say_at_once(line)
    else:
        _write(_log.out, line)


def _told(error: BaseException) -> str:
    if type(error).__name__ == "LinkLost":
        return str(error)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _cut(value: object) -> str:
    text = str(value)
    return text if len(text) <= 300 else f"{text[:297]}..."


# -- repeated messages --------------------------------------------------------------------------------


def often(count: int) -> str:
    """What a line says of a burst behind its words; nothing of what occurred once."""
    return f" ({count:,} times)" if count > 1 else ""


@define
class _Repeated:
    last: float
    told_at: float
    untold: int = 0
    occurred: int = 0  # in the present burst


@define
class Burst:
    """Decides how often a repeated reason is logged. Pure: the caller brings the time and does the logging.

    The first `freely` occurrences are logged at once. Later ones that follow within `quiet` seconds are
    counted, and logged together every `every` seconds, with the first one of the next burst, or when the
    caller settles the bursts that are over. With more than `remembered`
    reasons the oldest is forgotten with its count, so that endless new reasons need no memory. This is for
    the log only: the metrics have the exact numbers.
    """

    quiet: float = 10.0
    every: float = 60.0
    remembered: int = 1000
    freely: int = 1
    _seen: dict[Hashable, _Repeated] = field(factory=dict, init=False)

    def occurred(self, reason: Hashable, now: float) -> int:
        """The number of occurrences to log now, this one included; 0 means none."""
        seen = self._seen.pop(reason, None)
        if seen is None:
            self._forget_oldest()
            seen = _Repeated(now, float("-inf"))
        if now - seen.last >= self.quiet:
            seen.occurred = 0
        seen.occurred += 1
        over = seen.occurred <= self.freely or now - seen.told_at >= self.every
        seen.last, seen.untold = now, seen.untold + 1
        self._seen[reason] = seen
        if not over:
            return 0
        told, seen.untold, seen.told_at = seen.untold, 0, now
        return told

    def settle(self, now: float) -> list[tuple[Any, int]]:
        """The reasons whose burst is over, with the number of occurrences to log now."""
        over = [
            (reason, seen)
            for reason, seen in self._seen.items()
            if seen.untold and now - seen.last >= self.quiet
        ]
        told = [(reason, seen.untold) for reason, seen in over]
        for _reason, seen in over:
            seen.untold = 0
        return told

    def _forget_oldest(self) -> None:
        if len(self._seen) >= self.remembered:
            del self._seen[next(iter(self._seen))]
