"""Single keys from a terminal, without the return key and without blocking the event loop.

Rule 1: a file or a pipe has no keys: `each_key` reads nothing from it and returns at once. So a simulator can
run in the background.
Rule 2: at the end the terminal has its old settings, also after an error.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager

import trio
from attrs import frozen

from .controls import Controls
from .exchange import Mode
from .faults import Kind

try:
    import termios
    import tty
except ImportError:  # pragma: no cover - Windows has no such terminals
    termios = tty = None  # type: ignore[assignment]

DROP_SECONDS = 5.0


@frozen
class Key:
    """The effect of a key: a few words for the help line, and the function."""

    says: str
    press: Callable[[], Awaitable[None]]


async def each_key(press: Callable[[str], Awaitable[None]], fd: int = 0) -> None:
    """Await `press` with each key until the terminal is closed; return at once when `fd` is no terminal."""
    if termios is None or not os.isatty(fd):
        return
    with _single_keys(fd):
        while keys := await _read(fd):
            for key in keys:
                await press(key)


async def _read(fd: int) -> str:
    await trio.lowlevel.wait_readable(fd)
    try:
        return os.read(fd, 64).decode(errors="ignore")
    except OSError:  # the other end of the terminal is closed
        return ""


@contextmanager
def _single_keys(fd: int) -> Iterator[None]:
    before = termios.tcgetattr(fd)
    tty.setcbreak(fd)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def help_line(keys: Mapping[str, Key]) -> str:
    """The keys and what they do, on one line."""
    return "keys: " + "  ".join(f"{key} {what.says}" for key, what in keys.items())


def exchange_keys(
    controls: Controls, say: Callable[[str], None], quit_: Callable[[], None]
) -> dict[str, Key]:
    """The keys of a simulated exchange."""

    def disconnect(mode: Mode, seconds: float | None = None) -> Callable[[], Awaitable[None]]:
        async def press() -> None:
            await controls.disconnect(mode, seconds)

        return press

    def fault_next(kind: Kind) -> Callable[[], Awaitable[None]]:
        return _sync(lambda: say(f"next message: {controls.fault(kind)['kind']}"))

    return {
        "g": Key("graceful disconnect", disconnect("graceful")),
        "a": Key("abrupt disconnect", disconnect("abrupt")),
        "t": Key(f"drop for {DROP_SECONDS:g} s", disconnect("drop", DROP_SECONDS)),
        "x": Key("refuse", disconnect("refuse")),
        "o": Key("accept again", disconnect("accept")),
        "r": Key("restart", disconnect("restart")),
        "w": Key("stall", _sync(controls.stall)),
        "d": Key("drop the next message", fault_next("drop")),
        "u": Key("duplicate it", fault_next("duplicate")),
        "n": Key("swap it with the one after", fault_next("reorder")),
        "p": Key("pause or go on", _sync(lambda: _toggle(controls))),
        "+": Key("twice as fast", _sync(lambda: _scale(controls, 2.0))),
        "-": Key("half as fast", _sync(lambda: _scale(controls, 0.5))),
        "s": Key("status", _sync(lambda: say(summary(controls)))),
        "q": Key("quit", _sync(quit_)),
    }


def presser(keys: Mapping[str, Key], say: Callable[[str], None]) -> Callable[[str], Awaitable[None]]:
    """The function for `each_key`: does what the key says, and shows the help line for an unknown key.

    A ValueError of the key's function becomes a line.
    """

    async def press(key: str) -> None:
        try:
            if key in keys:
                await keys[key].press()
            elif key.isprintable():
                say(help_line(keys))
        except ValueError as wrong:
            say(str(wrong))

    return press


def summary(controls: Controls) -> str:
    """The status on one line."""
    status = controls.status()
    feed = status["feed"] or {"played": 0, "speed": "-", "paused": False}
    pace = "paused" if feed["paused"] else f"at {feed['speed']}x"
    return (
        f"{status['exchange']}: {len(status['connections'])} connected, {len(status['subscribed'])} symbols, "
        f"{status['published']} published {pace}, {len(status['faults'])} faults in force"
        f"{', refusing' if status['refusing'] else ''}"
    )


def _sync(action: Callable[[], object]) -> Callable[[], Awaitable[None]]:
    async def press() -> None:
        action()
        await trio.lowlevel.checkpoint()

    return press


def _toggle(controls: Controls) -> None:
    feed = controls.status()["feed"]
    controls.resume() if feed and feed["paused"] else controls.pause()


def _scale(controls: Controls, factor: float) -> None:
    feed = controls.status()["feed"]
    if feed is None or feed["speed"] == "max":
        raise ValueError("the feed has no speed to scale")
    controls.speed(feed["speed"] * factor)
