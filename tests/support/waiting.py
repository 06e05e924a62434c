"""Waits for tests: for a condition, never for a length of time."""

from __future__ import annotations

import socket
from collections.abc import Callable
from fcntl import ioctl
from termios import TIOCOUTQ

import trio
from trio.testing import wait_all_tasks_blocked

_LOOK_AGAIN = 0.001  # s; not shorter, so that a wait leaves the processor to others


async def until(condition: Callable[[], object]) -> None:
    """Returns once `condition()` holds and every task waits. The timeout of the test is the bound."""
    await wait_all_tasks_blocked()
    while not condition():
        await wait_all_tasks_blocked(_LOOK_AGAIN)


async def until_deadline_within(seconds: float) -> None:
    """Returns once a task has set itself a deadline at most `seconds` away: a MockClock may jump beyond it now.

    A jump that comes before the deadline is set would be lost, and the test would wait for ever.
    """
    await until(lambda: trio.lowlevel.current_statistics().seconds_to_next_deadline <= seconds)


async def until_delivered(sender: trio.socket.SocketType | socket.socket) -> None:
    """Returns once the kernel of the other end has acknowledged the last byte that was sent, and every task waits.

    Even on the loopback that is not certain when `send` returns: a busy kernel delivers later.
    """
    await until(lambda: not any(ioctl(sender.fileno(), TIOCOUTQ, bytes(4))))
    await wait_all_tasks_blocked()
