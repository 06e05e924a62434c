"""The daemon as a process, as an operator sees it: start, stop, log, exit codes."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import httpx
import pytest
import trio
from attrs import define, field
from httpx_sse import EventSource

from simulators import Exchange, Trade, open_binance
from tests.support.ports import own_port
from tests.system.daemon import client, http_client


@define
class Running:
    process: trio.Process
    exchange: Exchange
    port: int = 0
    listens: trio.Event = field(factory=trio.Event)
    log: list[str] = field(factory=list)
    log_ended: trio.Event = field(factory=trio.Event)

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    async def ended(self) -> int:
        """Wait for the end of the process and its log. Returns the exit code."""
        await self.log_ended.wait()
        return await self.process.wait()

    async def read_log(self) -> None:
        assert self.process.stderr is not None
        rest = b""
        async for chunk in self.process.stderr:
            *lines, rest = (rest + chunk).split(b"\n")
            self.log.extend(line.decode() for line in lines)
            self._look_for_the_port()
        self.log_ended.set()

    def _look_for_the_port(self) -> None:
        for line in self.log if not self.port else ():
            if found := re.search(r"listening on http://127\.0\.0\.1:(\d+)/", line):
                self.port = int(found[1])
                self.listens.set()


@asynccontextmanager
async def running(folder: Path, *options: str) -> AsyncIterator[Running]:
    """`dataflow run` connected to a simulated Binance, once it is ready."""
    async with open_binance() as exchange, trio.open_nursery() as nursery:
        config = folder / "mine.toml"
        config.write_text(
            f'[gateway]\nport = 0\n[sources.binance]\nconnector = "binance"\n'
            f'url = "{exchange.url}"\nsymbols = ["BTC-USDT"]\n'
        )
        command = [sys.executable, "-m", "dataflow", "run", "--config", str(config), *options]
        process = await nursery.start(partial(trio.run_process, command, stderr=subprocess.PIPE, check=False))
        made = Running(process, exchange)
        nursery.start_soon(made.read_log)
        await exchange.wait_connected()
        await made.listens.wait()
        await until_ready(made.port)
        yield made
        if process.returncode is None:
            process.kill()


async def until_ready(port: int) -> None:
    async with http_client(f"http://127.0.0.1:{port}") as http:
        while True:
            try:
                if (await http.get("/ready")).status_code == 200:
                    return
            except httpx.TransportError:
                await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_and_exits_with_0(number: signal.Signals, tmp_path: Path) -> None:
    """Clients get `connection.draining` and close code 1001, the exchange a closing handshake. Exit code 0."""
    async with running(tmp_path) as d, client(d.url) as listener:
        await listener.call("subscribe", symbol="BTC-USDT")
        d.process.send_signal(number)
        await listener.until(lambda: listener.closed)
        assert listener.closed is not None
        assert listener.closed[0] == 1001
        assert listener.notices[-1]["method"] == "connection.draining"
        assert await d.ended() == 0
        await d.exchange.wait_disconnected()
        assert not [line for line in d.log if "Traceback" in line]


async def test_a_signal_ends_event_streams_in_order(tmp_path: Path) -> None:
    """The response is complete, and its last event is the farewell: nothing is cut off."""
    async with (
        running(tmp_path) as d,
        http_client(f"http://127.0.0.1:{d.port}") as http,
        http.stream("GET", "/api/v1/stream/BTC-USDT", timeout=None) as response,
    ):
        d.process.send_signal(signal.SIGTERM)
        events = [event async for event in EventSource(response).aiter_sse()]
        assert [(event.event, json.loads(event.data)["kind"]) for event in events] == [
            ("notice", "connection.draining")
        ]
        assert await d.ended() == 0
        assert not [line for line in d.log if "Traceback" in line]


@asynccontextmanager
async def unread(folder: Path, *options: str) -> AsyncIterator[tuple[trio.Process, int, int]]:
    """`dataflow run` with a full pipe as its standard error. Gives process, port and the read end."""
    port = own_port()
    config = folder / "mine.toml"
    config.write_text(f"[gateway]\nport = {port}\n")
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, b"." * 4096)
    os.set_blocking(writer, True)
    command = [sys.executable, "-m", "dataflow", "run", "--config", str(config), *options]
    async with trio.open_nursery() as nursery:
        run = partial(trio.run_process, command, stderr=writer, check=False)
        process = await nursery.start(run)
        os.close(writer)
        await until_ready(port)
        yield process, port, reader
        if process.returncode is None:
            process.kill()
    os.close(reader)


async def test_a_log_that_nobody_reads_stops_nothing(tmp_path: Path) -> None:
    """Without a reader of the log every request is answered and every actor restarts. A SIGTERM ends with 0."""
    async with unread(tmp_path) as (process, port, _reader), http_client(f"http://127.0.0.1:{port}") as http:
        for _ in range(100):
            assert (await http.post("/actors/cache/shard-0/restart")).status_code == 202
            assert (await http.get("/health")).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0


async def test_a_log_that_is_read_late_is_whole(tmp_path: Path) -> None:
    """What waited for its reader comes when it reads again."""
    async with unread(tmp_path) as (process, _port, reader):
        text = b""
        while b"listening on" not in text:
            text += await trio.to_thread.run_sync(os.read, reader, 65536)
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0


@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&- >&- 2>&-", ">/dev/full 2>/dev/full"])
async def test_a_daemon_without_standard_streams(tmp_path: Path, closed: str) -> None:
    """It runs, logs nowhere, and ends with the code that it would have with them."""
    port = own_port()
    config = tmp_path / "mine.toml"
    config.write_text(f"[gateway]\nport = {port}\n")
    script = f'exec "$0" -m dataflow run --config "$1" {closed}'
    command = ["sh", "-c", script, sys.executable, str(config)]
    async with trio.open_nursery() as nursery:
        process = await nursery.start(partial(trio.run_process, command, check=False))
        await until_ready(port)
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0


async def test_a_log_file_takes_the_place_of_standard_error(tmp_path: Path) -> None:
    """The log is appended to the file, and standard error is silent."""
    file = tmp_path / "log"
    file.write_text("before\n")
    port = own_port()
    config = tmp_path / "mine.toml"
    config.write_text(f"[gateway]\nport = {port}\n")
    command = [sys.executable, "-m", "dataflow", "run", "--config", str(config), "--log-file", str(file)]
    async with trio.open_nursery() as nursery:
        run = partial(trio.run_process, command, stderr=subprocess.PIPE, check=False)
        process = await nursery.start(run)
        await until_ready(port)
        process.send_signal(signal.SIGTERM)
        assert await process.stderr.receive_some() == b""
        assert await process.wait() == 0
    before, *lines = file.read_text().splitlines()
    assert before == "before"
    assert any("listening on" in line for line in lines)


async def test_json_logs_are_json_and_say_where_it_listens(tmp_path: Path) -> None:
    """Every line is a JSON object, and one of them names the address."""
    async with running(tmp_path, "--log-format", "json") as d:
        d.process.send_signal(signal.SIGTERM)
        assert await d.ended() == 0
        lines = [json.loads(line) for line in d.log]
        assert all({"time", "level", "message"} <= set(line) for line in lines)
        assert any(f"http://127.0.0.1:{d.port}" in line["message"] for line in lines)


async def test_no_log_line_per_trade(tmp_path: Path) -> None:
    """While a thousand trades come, at most one line is logged."""
    async with running(tmp_path, "--log-format", "json") as d, client(d.url) as listener:
        await listener.call("subscribe", symbol="BTC-USDT")
        await d.exchange.wait_subscribed(["BTCUSDT"])
        for n in range(1, 1001):
            await d.exchange.publish(
                Trade(id=n, symbol="BTCUSDT", side="buy", price="1.0", qty="1", timestamp_us=n * 1000)
            )
        await listener.until(lambda: listener.traded.total() == 1000)
        d.process.send_signal(signal.SIGTERM)
        assert await d.ended() == 0  # before that some of the log may still be under way
        lines = [json.loads(line) for line in d.log]
        # A machine without a turn for the daemon blocks its loop: that is told, whatever comes.
        told = [line["message"] for line in lines if line.get("event") != "blocked"]
        came, went = (
            next(n for n, message in enumerate(told) if message.startswith(f"client {word}"))
            for word in ("came", "went")
        )
        assert len(told[came + 1 : went]) <= 1


async def test_a_taken_port_is_the_users_mistake(tmp_path: Path) -> None:
    """A taken port gives exit code 1 and one clear line without a traceback."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = tmp_path / "mine.toml"
        config.write_text(f"[gateway]\nport = {port}\n")
        command = [sys.executable, "-m", "dataflow", "run", "--config", str(config)]
        done = await trio.run_process(command, capture_stderr=True, check=False)
    assert done.returncode == 1
    text = done.stderr.decode()
    assert str(port) in text
    assert "Traceback" not in text
    assert len(text.strip().splitlines()) == 1
