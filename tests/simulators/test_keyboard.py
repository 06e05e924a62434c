"""A simulator gets single keys from a terminal, and restores the terminal."""

from __future__ import annotations

import os
import termios
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trio

from simulators import Exchange, Trade, binance_dialect, open_blockchain, playing, recorded
from simulators.controls import Controls
from simulators.feed import Tick
from simulators.keyboard import each_key, exchange_keys, help_line, presser

Connect = Callable[..., Any]


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """A pseudo-terminal: the end for the person, and the end for the program."""
    person, program = os.openpty()
    yield person, program
    for fd in (person, program):
        os.close(fd)


async def test_keys_arrive_singly_and_the_loop_goes_on(terminal: tuple[int, int]) -> None:
    """No return key is needed, other tasks run on, and the terminal is restored."""
    person, program = terminal
    before = termios.tcgetattr(program)
    keys: list[str] = []
    done = trio.Event()

    async def press(key: str) -> None:
        keys.append(key)
        if key == "q":
            done.set()
        await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(each_key, press, program)
        await trio.testing.wait_all_tasks_blocked()
        assert not termios.tcgetattr(program)[3] & termios.ICANON
        os.write(person, b"ga")
        os.write(person, b"q")
        await done.wait()
        nursery.cancel_scope.cancel()
    assert keys == ["g", "a", "q"]
    assert termios.tcgetattr(program) == before


async def test_a_pipe_has_no_keys() -> None:
    """Nothing is read from a pipe, so a simulator can run in the background."""
    reading, writing = os.pipe()
    os.write(writing, b"q")

    async def press(key: str) -> None:
        raise AssertionError(key)

    await each_key(press, reading)
    assert os.read(reading, 1) == b"q"
    os.close(reading)
    os.close(writing)


async def test_the_keys_do_what_they_say(connect: Connect) -> None:
    """Disconnects, faults, the pace, the status, the end."""
    said: list[str] = []
    feed = recorded([Tick(0, Trade(1, "BTC-USD", "buy", "1", "1", 1))])
    async with open_blockchain() as exchange, playing(exchange, feed, start="told") as player:
        controls = Controls(exchange, player)
        quits: list[bool] = []
        press = presser(exchange_keys(controls, said.append, lambda: quits.append(True)), said.append)
        for key, code in (("g", 1001), ("a", 1006), ("r", 1012), ("x", 1006)):
            async with connect(exchange.url) as raw:
                await raw.subscribe(exchange, "BTC-USD")
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(press, key)
                    assert (await raw.until_closed())[1] == code
        assert exchange.refusing
        await press("o")
        assert not exchange.refusing
        for key in ("d", "u", "n"):
            await press(key)
        assert [each["kind"] for each in exchange.faults.active()] == ["drop", "duplicate", "reorder"]
        await press("p")
        assert player.pace.paused
        await press("p")
        await press("+")
        assert (player.pace.paused, player.pace.speed) == (False, 2.0)
        await press("s")
        assert said[-1].startswith("blockchain: 0 connected")
        await press("q")
        assert quits == [True]


async def test_an_unknown_key_gets_help_and_a_refused_one_a_reason() -> None:
    """No key ends a simulator with a traceback."""
    said: list[str] = []
    keys = exchange_keys(Controls(Exchange(binance_dialect())), said.append, lambda: None)
    press = presser(keys, said.append)
    await press("?")
    assert said[-1] == help_line(keys)
    for key in ("p", "+"):
        await press(key)
        assert "feed" in said[-1]
