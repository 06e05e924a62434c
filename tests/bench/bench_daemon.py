"""The daemon as a user meets it: start, memory, throughput and latency of the whole way of a trade.

Run by hand: `python tests/bench/bench_daemon.py`. The daemon is a process of its own; the source and the
client live in this one. The source writes frames that were made beforehand, so that it is not what is measured.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trio
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, Message, Request, TextMessage

THROUGHPUT_TRADES = 200_000
LATENCY_RATE = 100
LATENCY_SECONDS = 10
ROUNDS = 3


def trade(id_: int) -> bytes:
    now = time.time_ns() // 1_000_000
    return (
        f'{{"stream":"btcusdt@trade","data":{{"e":"trade","E":{now},"s":"BTCUSDT","t":{id_},'
        f'"p":"61837.63000000","q":"0.02000000","T":{now},"m":true,"M":true}}}}'
    ).encode()


def frame(text: bytes) -> bytes:
    assert 126 <= len(text) < 65536
    return b"\x81\x7e" + len(text).to_bytes(2, "big") + text


class Source:
    """A Binance that says what it is given, to whoever is connected."""

    def __init__(self) -> None:
        self.stream: trio.SocketStream
        self.subscribed = trio.Event()

    async def serve(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        ws = WSConnection(ConnectionType.SERVER)
        async for data in stream:
            ws.receive_data(data)
            for event in ws.events():
                if isinstance(event, Request):
                    await stream.send_all(ws.send(AcceptConnection()))
                elif isinstance(event, Message):
                    call = json.loads(str(event.data))
                    await stream.send_all(
                        ws.send(TextMessage(json.dumps({"result": None, "id": call["id"]})))
                    )
                    self.subscribed.set()


class Client:
    """Subscribes, and hands out raw bytes."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream

    async def subscribe(self) -> None:
        ws = WSConnection(ConnectionType.CLIENT)
        await self.stream.send_all(ws.send(Request(host="localhost", target="/ws")))
        ws.receive_data(await self.stream.receive_some())
        list(ws.events())
        call = {"jsonrpc": "2.0", "id": 1, "method": "subscribe", "params": {"symbol": "BTC-USDT"}}
        await self.stream.send_all(ws.send(TextMessage(json.dumps(call))))
        answer = b""
        while b'"subscribed"' not in answer:
            answer += await self.stream.receive_some()


@contextmanager
def daemon(source_port: int) -> Iterator[tuple[subprocess.Popen[bytes], int, float]]:
    """The process, its port, and the seconds from its start to its first `/ready`."""
    port = free_port()
    text = f"""
    [gateway]
    port = {port}
    [session]
    outbox = {THROUGHPUT_TRADES + 1}
    [sources.binance]
    connector = "binance"
    url = "ws://127.0.0.1:{source_port}/stream"
    symbols = ["BTC-USDT"]
    """
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "bench.toml")
        config.write_text(text)
        begun = time.perf_counter()
        command = [sys.executable, "-m", "dataflow", "run", "--config", str(config), "--log-level", "error"]
        process = subprocess.Popen(command)
        try:
            wait_ready(port, process)
            yield process, port, time.perf_counter() - begun
        finally:
            process.terminate()
            process.wait(20)


def wait_ready(port: int, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=1).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.002)
    raise SystemExit("the daemon did not start")


def free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def resident_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


async def throughput(source: Source, client: Client, first_id: int) -> float:
    """Trades per second from the source's socket to the client's."""
    frames = [frame(trade(first_id + n)) for n in range(THROUGHPUT_TRADES)]
    chunks = [b"".join(frames[n : n + 256]) for n in range(0, len(frames), 256)]

    async def blast() -> None:
        for chunk in chunks:
            await source.stream.send_all(chunk)

    last = f'"tradeId":"{first_id + THROUGHPUT_TRADES - 1}"'.encode()
    begun = time.perf_counter()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(blast)
        tail = b""
        while last not in tail:
            tail = tail[-64:] + await client.stream.receive_some(1 << 20)
    return THROUGHPUT_TRADES / (time.perf_counter() - begun)


async def latency(source: Source, client: Client, first_id: int) -> list[float]:
    """Milliseconds from the source's send to the client's receive, one sample a trade."""
    count = LATENCY_RATE * LATENCY_SECONDS
    sent: list[float] = []
    samples: list[float] = []

    async def steadily() -> None:
        begun = trio.current_time()
        for n in range(count):
            await trio.sleep_until(begun + n / LATENCY_RATE)
            text = frame(trade(first_id + n))
            sent.append(time.perf_counter())
            await source.stream.send_all(text)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(steadily)
        while len(samples) < count:
            data = await client.stream.receive_some(1 << 16)
            now = time.perf_counter()
            for _ in range(data.count(b'"tradeId"')):
                samples.append((now - sent[len(samples)]) * 1000)
    return samples


async def measure() -> None:
    source = Source()
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, source.serve, 0)
        port = listeners[0].socket.getsockname()[1]
        starts = []
        for _ in range(ROUNDS):
            with daemon(port) as (_process, _port, seconds):
                starts.append(seconds)
        source.subscribed = trio.Event()
        with daemon(port) as (process, gateway, _seconds):
            await trio.sleep(2)
            idle = resident_mib(process.pid)
            client = Client(await trio.open_tcp_stream("127.0.0.1", gateway))
            await client.subscribe()
            await source.subscribed.wait()
            delays = await latency(source, client, 1)
            rates = [
                await throughput(source, client, 1_000_000 + n * THROUGHPUT_TRADES) for n in range(ROUNDS)
            ]
            busy = resident_mib(process.pid)
        nursery.cancel_scope.cancel()
    report(starts, idle, busy, delays, rates)


def report(starts: list[float], idle: float, busy: float, delays: list[float], rates: list[float]) -> None:
    cuts = statistics.quantiles(delays, n=100)
    print(f"start to ready      {spread(starts, 's', 2)}")
    print(f"resident, idle      {idle:.1f} MiB; after {ROUNDS * THROUGHPUT_TRADES:,} trades {busy:.1f} MiB")
    print(f"source to client    {spread(rates, 'trades/s', 0)}")
    print(
        f"latency at {LATENCY_RATE}/s    p50 {cuts[49]:.2f} ms, p99 {cuts[98]:.2f} ms, max {max(delays):.2f} ms"
    )


def spread(figures: list[float], unit: str, digits: int) -> str:
    low, middle, high = min(figures), statistics.median(figures), max(figures)
    return f"{middle:,.{digits}f} {unit} (median of {len(figures)}; {low:,.{digits}f} to {high:,.{digits}f})"


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    trio.run(measure)
