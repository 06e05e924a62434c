"""The place of an attack: a daemon as a process, a good exchange that feeds it, and a bystander.

Rules of this file: all is on the loopback, and each attack gets a daemon of its own. The bystander and the
exchange share this process; attackers have a process of their own, with a lower priority, so that the
bystander waits for the daemon and not for the attacker's Python.
"""

from __future__ import annotations

import fcntl
import json
import os
import resource
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio
from attrs import Factory, define, field
from trio_websocket import ConnectionClosed, wrap_client_stream

from simulators import Exchange, Trade, open_binance
from tests.support.certificates import Certificate
from tests.support.ports import own_port

SYMBOL: Final = "BTC-USDT"
FACES: Final = ("docs", "graphql", "marketdata", "pricehub", "signalr", "stomp")  # off unless switched on
START_WITHIN: Final = 60.0  # seconds; only a daemon that hangs takes so long
ANSWER_WITHIN: Final = 30.0
SETTLE_WITHIN: Final = 15.0  # until what attackers held is given back
HISTORY: Final = 1000  # trades before the attack, so that an answer can be long
TRADE_EVERY: Final = 0.02
PING_EVERY: Final = 0.025
LOOK_EVERY: Final = 0.1
SMALLEST_PIPE: Final = 4096  # bytes
F_SETPIPE_SZ: Final = 1031


class Broken(Exception):
    """A promise did not hold. The text says which."""


@define
class Waits:
    """How long answers took: by the wall, and in the CPU time that the daemon spent meanwhile. Milliseconds."""

    wall: list[float] = field(factory=list)
    cpu: list[float] = field(factory=list)


@define
class Process:
    """The daemon, seen from outside."""

    pid: int
    port: int
    grpc_port: int = 0
    ticks_port: int = 0
    most_memory: float = 0.0
    most_files: int = 0

    def cpu(self) -> float:
        """CPU seconds since its start. This and the others raise Broken when it has ended."""
        with self._while_it_lives():
            return time.clock_gettime((~self.pid << 3) | 2)  # Linux: the clock of another process

    def memory(self) -> float:
        """Resident MiB."""
        with self._while_it_lives():
            status = Path(f"/proc/{self.pid}/status").read_text()
            return float(status.partition("VmRSS:")[2].split(maxsplit=1)[0]) / 1024

    def files(self) -> int:
        """Open descriptors."""
        with self._while_it_lives():
            return len(os.listdir(f"/proc/{self.pid}/fd"))

    @contextmanager
    def _while_it_lives(self) -> Iterator[None]:
        try:
            yield
        except (OSError, IndexError):
            raise Broken("the daemon has ended") from None

    async def watch(self, stop: trio.Event) -> None:
        """Keep the highest figures."""
        while not stop.is_set():
            self.most_memory = max(self.most_memory, self.memory())
            self.most_files = max(self.most_files, self.files())
            await trio.sleep(LOOK_EVERY)


@define
class Feed:
    """A good exchange with a trade every `TRADE_EVERY` seconds. `published` counts them."""

    exchange: Exchange
    published: int = 0

    async def publish(self) -> None:
        self.published += 1
        await self.exchange.publish(
            Trade(
                id=self.published,
                symbol="BTCUSDT",
                side="buy",
                price="2.5",
                qty="0.5",
                timestamp_us=time.time_ns() // 1000,
            )
        )

    async def run(self, stop: trio.Event) -> None:
        while not stop.is_set():
            await self.publish()
            await trio.sleep(TRADE_EVERY)


@define
class Bystander:
    """A client that behaves: it subscribes and pings, and asks for /health on a new connection each time."""

    process: Process
    context: ssl.SSLContext | None
    pings: Waits = field(factory=Waits)
    health: Waits = field(factory=Waits)
    trades: list[int] = field(factory=list)  # their places
    gaps: int = 0
    refused: list[str] = field(factory=list)
    closed: str = ""
    _socket: Any = None
    _answered: trio.Event = field(factory=trio.Event)
    _subscribed: trio.Event = field(factory=trio.Event)

    async def stream(self) -> trio.SocketStream | trio.SSLStream[trio.SocketStream]:
        plain = await trio.open_tcp_stream("127.0.0.1", self.process.port)
        if self.context is None:
            return plain
        secure = trio.SSLStream(plain, self.context, server_hostname="localhost", https_compatible=True)
        await secure.do_handshake()
        return secure

    async def live(self, nursery: trio.Nursery) -> None:
        """Subscribe, and listen until the nursery is cancelled. Raises TooSlowError when it gets no answer."""
        stream = await self.stream()
        self._socket = await wrap_client_stream(nursery, stream, "localhost", "/ws")
        nursery.start_soon(self._listen, stream)
        with trio.fail_after(START_WITHIN):
            await self._socket.send_message(_call(0, "subscribe", symbol=SYMBOL))
            await self._subscribed.wait()

    async def _listen(self, stream: trio.abc.AsyncResource) -> None:
        try:
            while True:
                message = json.loads(await self._socket.get_message())
                for each in message if isinstance(message, list) else [message]:
                    self._hear(each)
        except ConnectionClosed as error:
            self.closed = str(error.reason and f"{error.reason.code} {error.reason.reason or ''}")
            self._answered.set()
        finally:
            await trio.aclose_forcefully(stream)

    def _hear(self, message: dict[str, Any]) -> None:
        method = message.get("method")
        if method == "trades.update":
            self.trades.append(int(message["params"]["offset"]))
        elif method == "stream.gap":
            self.gaps += 1
        elif "error" in message:
            self.refused.append(message["error"]["message"])
            self._answered.set()
        elif message.get("id") == 0:
            self._subscribed.set()
        elif "id" in message:
            self._answered.set()

    async def ping(self, stop: trio.Event) -> None:
        """One question after the other. At fixed times they would pile up where the daemon gets little CPU time."""
        with suppress(ConnectionClosed):
            while not stop.is_set():
                begun = (time.perf_counter(), self.process.cpu())
                self._answered = trio.Event()
                await self._socket.send_message(_call(1, "ping"))
                with trio.move_on_after(ANSWER_WITHIN):
                    await self._answered.wait()
                if not self._answered.is_set():
                    self.refused.append(f"ping: no answer within {ANSWER_WITHIN:.0f} s")
                self._note(self.pings, *begun)
                await trio.sleep(PING_EVERY)

    async def ask_for_health(self, stop: trio.Event) -> None:
        while not stop.is_set():
            begun = (time.perf_counter(), self.process.cpu())
            answer = await self.ask_once()
            self._note(self.health, *begun)
            if not answer.startswith(b"HTTP/1.1 200"):
                self.refused.append(f"/health: {answer[:40]!r}")
            await trio.sleep(LOOK_EVERY)

    async def ask_once(self) -> bytes:
        """What /health says; empty when nothing came within `ANSWER_WITHIN` seconds."""
        answer = b""
        with trio.move_on_after(ANSWER_WITHIN), suppress(OSError, trio.BrokenResourceError):
            async with await self.stream() as stream:
                await stream.send_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                while chunk := await stream.receive_some():
                    answer += chunk
        return answer

    def _note(self, waits: Waits, wall: float, cpu: float) -> None:
        waits.wall.append((time.perf_counter() - wall) * 1000)
        waits.cpu.append((self.process.cpu() - cpu) * 1000)


def _call(serial: int, method: str, **params: Any) -> str:
    return json.dumps({"jsonrpc": "2.0", "id": serial, "method": method, "params": params})


@define
class Arena:
    """A daemon that is ready, with its bystander."""

    process: Process
    feed: Feed
    bystander: Bystander
    end: Callable[[], int | None] = field(repr=False)  # the exit code, None while it runs
    stop: trio.Event = field(factory=trio.Event)
    stopped: trio.Event = field(factory=trio.Event)

    async def work(self) -> None:
        """Trades, questions and figures, until `stop`. Not cancelled: what has begun is ended in order."""
        async with trio.open_nursery() as nursery:
            for each in (
                self.feed.run,
                self.process.watch,
                self.bystander.ping,
                self.bystander.ask_for_health,
            ):
                nursery.start_soon(each, self.stop)
        self.stopped.set()

    async def settle(self) -> None:
        """Wait for the last answer and the last trade. Raises Broken when the bystander or the daemon has ended."""
        self.stop.set()
        await self.stopped.wait()
        await self.feed.publish()
        await _until(
            lambda: self.bystander.closed or self.bystander.trades[-1:] == [self.feed.published],
            ANSWER_WITHIN,
        )
        if self.bystander.closed:
            raise Broken(f"the bystander was closed: {self.bystander.closed}")
        if (code := self.end()) is not None:
            raise Broken(f"the daemon ended with {code}")

    async def given_back(self, files: int) -> int:
        """Descriptors beyond `files`, once there are none or after `SETTLE_WITHIN` seconds."""
        await _until(lambda: self.process.files() <= files, SETTLE_WITHIN)
        return max(0, self.process.files() - files)


async def _until(condition: Callable[[], object], within: float) -> None:
    """Wait until `condition()` holds, at most `within` seconds. It is about another process, so it has no event."""
    with trio.move_on_after(within):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.01)


@define(kw_only=True)
class Setting:
    """What the daemon of an attack has besides the defaults. `upstreams`: symbol and address of hostile ones.

    `reads_bodies`: /faults is open, and reads a body. `all_faces`: every face is on, and ticks come in.
    """

    folder: Path
    certificate: Certificate | None = None
    max_files: int | None = None
    reads_log: bool = True
    reads_bodies: bool = False
    all_faces: bool = False
    upstreams: dict[str, str] = Factory(dict)

    def config(self, process: Process, good: str) -> str:
        lines = [f"[gateway]\nport = {process.port}\ndrain_seconds = 1.0"]
        if self.certificate is not None:
            lines.append(f'tls_certificate = "{self.certificate.certificate}"')
            lines.append(f'tls_key = "{self.certificate.key}"')
        lines.append(f"[limits]\nloopback = true\n[chaos]\nenabled = {str(self.reads_bodies).lower()}")
        for name, (symbol, url) in enumerate([(SYMBOL, good), *self.upstreams.items()]):
            lines.append(f'[sources.source-{name}]\nconnector = "binance"\nurl = "{url}"')
            lines.append(f'symbols = ["{symbol}"]\neager = true')
        if self.all_faces:
            lines += [f"[faces.{name}]\nenabled = true" for name in FACES]
            lines.append(f"[faces.grpc]\nenabled = true\nport = {process.grpc_port}")
            lines.append(f'[sources.ticks]\nconnector = "ticks_protobuf"\nport = {process.ticks_port}')
        return "\n".join(lines) + "\n"


@asynccontextmanager
async def arena(setting: Setting) -> AsyncIterator[Arena]:
    """The daemon of `setting`, ready. It is ended by SIGTERM; raises Broken when that does not end it with 0."""
    async with open_binance() as exchange, trio.open_nursery() as nursery:
        process = Process(0, own_port(), own_port(), own_port())
        config = setting.folder / "arena.toml"
        config.write_text(setting.config(process, exchange.url))
        with _log(setting) as log:
            started: trio.Process = await nursery.start(
                partial(
                    trio.run_process,
                    [sys.executable, "-m", "dataflow", "run", "--config", str(config)],
                    stderr=log,
                    stdout=subprocess.DEVNULL,
                    check=False,
                    preexec_fn=partial(_bound_files, setting.max_files),
                )
            )
            process.pid = started.pid
            context = setting.certificate.client_context() if setting.certificate else None
            made = Arena(process, Feed(exchange), Bystander(process, context), lambda: started.returncode)
            with trio.fail_after(START_WITHIN):
                await _until_ready(made)
            for _ in range(HISTORY):
                await made.feed.publish()
            await made.bystander.live(nursery)
            nursery.start_soon(made.work)
            yield made
            started.terminate()
            with trio.move_on_after(ANSWER_WITHIN):
                await started.wait()
            code = started.returncode
            nursery.cancel_scope.cancel()
    if code != 0:
        raise Broken(f"SIGTERM ended the daemon with {'nothing' if code is None else code}")


async def _until_ready(made: Arena) -> None:
    while not (await made.bystander.ask_once()).startswith(b"HTTP/1.1 200"):
        if (code := made.end()) is not None:
            raise Broken(f"the daemon did not start: exit code {code}")
        await trio.sleep(0.05)
    await made.feed.exchange.wait_subscribed(["BTCUSDT"])


@contextmanager
def _log(setting: Setting) -> Iterator[int]:
    """Where the daemon logs to: a file, or a small pipe that nobody reads."""
    unread, fd = -1, -1
    if setting.reads_log:
        fd = os.open(setting.folder / "daemon.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    else:
        unread, fd = os.pipe()
        fcntl.fcntl(fd, F_SETPIPE_SZ, SMALLEST_PIPE)
    try:
        yield fd
    finally:
        os.close(fd)
        if unread != -1:
            os.close(unread)


def _bound_files(most: int | None) -> None:
    """In the child: as few descriptors as the setting allows. The hard bound too, or it would be raised."""
    if most is not None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
