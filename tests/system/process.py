"""`dataflow run` as processes: started, killed, and started again at the same port and with the same history."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import httpx
import trio
from attrs import define, field

from tests.support.ports import own_port

from .daemon import http_client


@define
class Home:
    """Where a daemon lives: its configuration, with one Binance at `upstream`, and the folder of its history.

    `more`: further TOML. All lives have the same port.
    """

    folder: Path
    upstream: str
    symbols: tuple[str, ...] = ("BTC-USDT",)
    more: str = ""
    port: int = field(factory=own_port)

    @property
    def history(self) -> Path:
        return self.folder / "history"

    def write(self) -> Path:
        config = self.folder / "mine.toml"
        symbols = ", ".join(f'"{symbol}"' for symbol in self.symbols)
        config.write_text(
            f'[gateway]\nport = {self.port}\n[history]\ndirectory = "{self.history}"\n{self.more}\n'
            f'[sources.binance]\nconnector = "binance"\neager = true\n'
            f'url = "{self.upstream}"\nsymbols = [{symbols}]\n[backoff]\ninitial_delay = 0.1\n'
        )
        return config

    @asynccontextmanager
    async def living(self) -> AsyncIterator[Life]:
        """One life, from when it listens. It is killed at the end, if it still lives."""
        command = [sys.executable, "-m", "dataflow", "run", "--config", str(self.write())]
        async with trio.open_nursery() as nursery:
            run = partial(trio.run_process, command, stderr=subprocess.PIPE, check=False)
            life = Life(self, await nursery.start(run))
            nursery.start_soon(life.read_log)
            try:
                await life.news(lambda: life.port or life.log_ended)
                assert life.port, life.log
                yield life
            finally:
                if life.process.returncode is None:
                    life.process.kill()


@define
class Life:
    """A daemon as a process."""

    home: Home
    process: trio.Process
    port: int = 0
    log: list[str] = field(factory=list)
    log_ended: bool = False
    _news: trio.Event = field(factory=trio.Event)

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    async def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        await self.process.wait()

    async def stop(self) -> int:
        """SIGTERM. Returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return await self.process.wait()

    async def metric(self, name: str) -> float:
        """The value of a metric without labels."""
        async with http_client(self.http) as http:
            text = (await http.get("/metrics")).text
        return float(next(line.split()[1] for line in text.splitlines() if line.startswith(f"{name} ")))

    async def until_recorded(self, entries: int) -> None:
        """Returns once so many entries were written in this life."""
        while await self.metric("dataflow_history_entries_total") < entries:
            await trio.lowlevel.checkpoint()

    async def until_on_disk(self) -> None:
        """Returns once all that came is written. Clients of the daemon may hear of a trade earlier."""
        while await self.metric("dataflow_history_behind_seconds"):
            await trio.lowlevel.checkpoint()

    async def until_ready(self) -> httpx.Response:
        """Returns once /ready answers with anything."""
        async with http_client(self.http) as http:
            return await http.get("/ready")

    async def news(self, condition: object) -> None:
        """Returns when `condition()` holds, looked at after each line of the log."""
        assert callable(condition)
        while not condition():
            await self._news.wait()

    async def read_log(self) -> None:
        assert self.process.stderr is not None
        rest = b""
        async for chunk in self.process.stderr:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self.log.append(line.decode())
                if found := re.search(r"listening on http://127\.0\.0\.1:(\d+)/", self.log[-1]):
                    self.port = int(found[1])
            self._wake()
        self.log_ended = True
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = trio.Event()
