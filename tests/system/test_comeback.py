"""A daemon that is killed or stopped, and started again: the libraries of its clients come back by themselves."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import grpc
import pytest
import trio

from dataflow.protobuf import marketdata_pb2 as pb
from simulators.ticks import push_ticks
from tests.support.grpc_client import Stub, connected, in_thread
from tests.support.node import program
from tests.support.ports import own_port

FACES = ("graphql", "signalr", "stomp")
CLIENTS = ("graphql", "signalr", "sse", "stomp")  # those of the program on Node


@asynccontextmanager
async def running(config: Path) -> AsyncIterator[trio.Process]:
    """`dataflow run`, once all of its ports listen: that of HTTP is the last."""
    command = [sys.executable, "-m", "dataflow", "run", "--config", str(config)]
    async with trio.open_nursery() as nursery:
        run = partial(trio.run_process, command, stderr=subprocess.PIPE, check=False)
        process: trio.Process = await nursery.start(run)
        assert process.stderr is not None
        log = b""
        while b"gateway/http: listening" not in log:
            chunk = await process.stderr.receive_some()
            assert chunk, log.decode()
            log += chunk
        yield process
        if process.returncode is None:
            process.kill()


async def shown_by_grpc(stub: Stub) -> int:
    """The volume in the first message of a new call, over whatever connection the channel has by then."""
    call = stub.stream_aggregates(pb.AggregateRequest(symbol="AAPL"), wait_for_ready=True)
    try:
        return int((await in_thread(next, call)).volume)
    finally:
        call.cancel()


async def test_clients_come_back_after_a_kill_and_after_a_stop(tmp_path: Path) -> None:
    """SignalR's automatic reconnect, stompjs, graphql-ws, EventSource, and a channel of grpcio.

    Each sees what the new daemon has got, and nobody has to tell it that there is a new one.
    """
    port, grpc_port, ticks_port = own_port(), own_port(), own_port()
    config = tmp_path / "mine.toml"
    config.write_text(
        f"[gateway]\nport = {port}\n"
        + "".join(f"[faces.{face}]\nenabled = true\n" for face in FACES)
        + f"[faces.grpc]\nenabled = true\nport = {grpc_port}\n"
        + f'[sources.ticks]\nconnector = "ticks_protobuf"\nport = {ticks_port}\nsymbols = ["AAPL"]\n'
    )
    backoff = [(f"grpc.{name}_reconnect_backoff_ms", 100) for name in ("initial", "min", "max")]

    async def tick(volume: int) -> None:
        await push_ticks(port=ticks_port, symbol="AAPL", volume=volume, every=0, count=1)

    async with running(config) as first, program("comeback.mjs", f"http://127.0.0.1:{port}") as node:

        async def all_see(volume: int) -> None:
            waiting = {*CLIENTS}
            while waiting:
                event = await node.hear()
                if event["shown"] == volume:
                    waiting.discard(event["who"])

        await tick(1)
        await all_see(1)
        async with connected(f"127.0.0.1:{grpc_port}", *backoff) as stub:
            assert await shown_by_grpc(stub) == 1
            call = stub.stream_aggregates(pb.AggregateRequest(symbol="AAPL"))
            await in_thread(next, call)
            first.kill()
            with pytest.raises(grpc.RpcError) as cut:
                await in_thread(next, call)
            assert cut.value.code() is grpc.StatusCode.UNAVAILABLE
            await first.wait()
            async with running(config) as second:
                await tick(2)
                await all_see(2)
                assert await shown_by_grpc(stub) == 2
                second.send_signal(signal.SIGTERM)
                assert await second.wait() == 0
            async with running(config):
                await tick(3)
                await all_see(3)
                assert await shown_by_grpc(stub) == 3
