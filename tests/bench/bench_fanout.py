"""The lanes of fan-out alone, without sessions and supervision: updates a second to N clients by each lane.

Run by hand: python tests/bench/bench_fanout.py [--clients N] [--joined K]...
The server is a process on the first core; the readers are on the second. The readers are Python, and the bottleneck for
the fast lane: look at the figure per CPU second. `make bench` measures the whole daemon. A pass skips a client that has
not taken its last payload, so only delivered updates count. Idle memory is the growth of the server's resident set with
all clients connected and silent.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import trio
from attrs import define
from quart import websocket
from quart_trio import QuartTrio

from actors.session import WireClosed
from dataflow.net.websocket.frames import text_frame
from dataflow.server.serve import serve
from dataflow.server.take_over import take_over

UPDATE = b'{"seqnum":1,"event":"updated","channel":"trades","symbol":"BTC-USD",'.ljust(204, b" ") + b"}"
LANES = ("asgi", "socket")
SOCKETS_BETWEEN_CHECKPOINTS = 256
Wire = Any


# The server.


@define
class Receiver:
    """A session with an outbox of one payload."""

    wire: Wire
    busy: bool = False

    def offer(self, nursery: trio.Nursery, payload: Any) -> None:
        if self.busy:
            return
        rest = self.wire.write_nowait(payload)
        if rest is not None:
            self.busy = True
            nursery.start_soon(self._finish, rest)

    async def _finish(self, rest: Any) -> None:
        with contextlib.suppress(WireClosed):
            await self.wire.write([rest])
            self.busy = False


async def run_server(lane: str, clients: int, joined: int) -> None:
    """Serve until killed. With `joined` 0 the server stays idle."""
    receivers: list[Receiver] = []
    handed_over, taken = trio.open_memory_channel[Wire](clients)
    app = QuartTrio(__name__)

    @app.websocket("/ws")
    async def session() -> None:
        if lane == "asgi":
            await websocket.accept()  # too late to detach
        async with take_over(websocket) as wire:
            # No task starts from here: it would keep the context of its starter, which holds all of Quart's objects.
            await handed_over.send(wire)

    async with trio.open_nursery() as nursery:
        serving = await nursery.start(
            lambda task_status: serve(app, host="127.0.0.1", port=0, task_status=task_status)
        )
        print(serving[0].rpartition(":")[2], flush=True)
        while len(receivers) < clients:
            receivers.append(Receiver(await taken.receive()))
            nursery.start_soon(listen, receivers[-1].wire)
        if joined:
            await broadcast(nursery, receivers, joined)


async def listen(wire: Wire) -> None:
    with contextlib.suppress(WireClosed):
        while True:
            await wire.receive()


async def broadcast(nursery: trio.Nursery, receivers: list[Receiver], joined: int) -> None:
    """Pass after pass, without end."""
    while True:
        payload = receivers[0].wire.pack([UPDATE] * joined)
        for start in range(0, len(receivers), SOCKETS_BETWEEN_CHECKPOINTS):
            for receiver in receivers[start : start + SOCKETS_BETWEEN_CHECKPOINTS]:
                receiver.offer(nursery, payload)
            await trio.lowlevel.checkpoint()


# The clients.


@define
class Figures:
    """The figures of one run."""

    per_second: float
    server_cpu: float
    growth_kib: float
    connect_seconds: float


def with_readers(server: subprocess.Popen[str], port: int, clients: int, seconds: float) -> Figures:
    before, start = resident(server.pid), time.monotonic()
    with contextlib.ExitStack() as stack, selectors.DefaultSelector() as selector:
        for _ in range(clients):
            selector.register(stack.enter_context(shake_hands(port)), selectors.EVENT_READ)
        connected = time.monotonic() - start
        drain(selector, 1.0)
        growth, cpu, began = resident(server.pid) - before, cpu_seconds(server.pid), time.monotonic()
        received = drain(selector, seconds)
        elapsed = time.monotonic() - began
        share = (cpu_seconds(server.pid) - cpu) / elapsed
    return Figures(received / len(text_frame(UPDATE)) / elapsed, share, growth, connected)


def shake_hands(port: int) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port))
    client.sendall(
        b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    head = b""
    while b"\r\n\r\n" not in head:
        head += client.recv(1)
    client.setblocking(False)
    return client


def drain(selector: selectors.BaseSelector, seconds: float) -> int:
    received, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        for key, _ in selector.select(0.1):
            assert isinstance(key.fileobj, socket.socket)
            received += len(key.fileobj.recv(1 << 18))
    return received


def resident(pid: int) -> float:
    """KiB."""
    [line] = [
        line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS")
    ]
    return float(line.split()[1])


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# Both.


@contextlib.contextmanager
def server_process(lane: str, clients: int, joined: int) -> Iterator[tuple[subprocess.Popen[str], int]]:
    command = [sys.executable, __file__, "--serve", lane, "--clients", str(clients), "--joined", str(joined)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server, int(server.stdout.readline())
        finally:
            server.kill()


def measure(lane: str, clients: int, joined: int, seconds: float) -> Figures:
    with server_process(lane, clients, joined) as (server, port):
        return with_readers(server, port, clients, seconds)


def report(arguments: argparse.Namespace) -> None:
    clients = arguments.clients
    for lane in LANES:
        idle = measure(lane, clients, 0, 0.5)
        opened = f"opened in {idle.connect_seconds:.2f} s"
        print(f"{lane:7} idle      {idle.growth_kib / clients:8.1f} KiB a session, {opened}", flush=True)
        for joined in arguments.joined or [1, 4, 16]:
            run = measure(lane, clients, joined, arguments.seconds)
            rate = f"{run.per_second / 1000:10,.1f} k deliveries/s"
            share = f"{run.per_second / run.server_cpu / 1000:,.1f} k per CPU second of the server"
            print(f"{lane:7} k = {joined:<4} {rate}, {share} (CPU {run.server_cpu:.0%})", flush=True)


def pin(core: int) -> None:
    with contextlib.suppress(AttributeError, OSError):
        os.sched_setaffinity(0, {core})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--joined", type=int, action="append")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--serve", choices=LANES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        pin(0)
        trio.run(run_server, arguments.serve, arguments.clients, arguments.joined[0])
        return
    pin(1)
    report(arguments)


if __name__ == "__main__":
    main()
