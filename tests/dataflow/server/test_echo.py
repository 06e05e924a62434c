"""The echo server for conformance suites starts as its help says, and echoes."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from wsproto.events import BytesMessage

from tests.dataflow.server.wires_client import open_client

COMMAND = [sys.executable, "-m", "tests.support.echo"]


@asynccontextmanager
async def echo_server(checkout: Path, *arguments: str) -> AsyncIterator[list[str]]:
    """Its first line; and its second one, when it has a certificate."""
    process = await trio.lowlevel.open_process(
        [*COMMAND, "--port", "0", *arguments], cwd=checkout, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    said = b""
    try:
        while said.count(b"\n") < (2 if "--tls" in arguments else 1):
            more = await process.stdout.receive_some()
            assert more, "it ended"
            said += more
        yield said.decode().splitlines()
    finally:
        process.terminate()
        with trio.CancelScope(shield=True):
            await process.wait()
            await process.stdout.aclose()


@pytest.mark.parametrize("scheme", ["ws", "wss"])
async def test_echo_on_every_way_in(checkout: Path, scheme: str) -> None:
    """Text and binary come back, plain and over TLS; behind /text binary is refused with 1003, as --help says."""
    if scheme == "wss" and shutil.which("openssl") is None:
        pytest.skip("needs the openssl command to make a certificate")
    with trio.fail_after(120):
        async with echo_server(checkout, *(["--tls"] if scheme == "wss" else [])) as said:
            address = said[0]
            assert address.startswith(f"{scheme}://127.0.0.1:")
            tls = None
            if scheme == "wss":
                tls = ssl.create_default_context(cafile=said[1].removeprefix("trust "))
            port = int(address.rpartition(":")[2])
            for path in ("/", "/ws", "/asgi"):
                client = await open_client(port, path, tls=tls)
                await client.say("hello", "again")
                assert [await client.text(), await client.text()] == ["hello", "again"]
                await client.send(
                    BytesMessage(data=b"\xff\0", message_finished=False), BytesMessage(data=b"\xfe")
                )
                assert await client.event() == BytesMessage(data=b"\xff\0\xfe")
                await client.say("and text")
                assert await client.text() == "and text"
                client.vanish()
            for path in ("/text/", "/text/ws", "/text/asgi"):
                client = await open_client(port, path, tls=tls)
                await client.say("hello")
                assert await client.text() == "hello"
                await client.send(BytesMessage(data=b"x"))
                close = await client.leave()
                assert (close.code, close.reason) == (1003, "text messages only")


def test_help_says_what_it_refuses(checkout: Path) -> None:
    """So the runner of a suite knows where binary is refused."""
    told = subprocess.run(
        [*COMMAND, "--help"], cwd=checkout, capture_output=True, text=True, check=True
    ).stdout
    assert "1003" in told
    assert "--tls" in told
