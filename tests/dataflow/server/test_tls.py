"""The server over TLS, and the messages for a certificate that cannot be used."""

from __future__ import annotations

import socket
import ssl
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from dataflow.domain.errors import ConfigError
from dataflow.gateway.certificates import certified_context
from dataflow.net.tls import CROSSED_SECONDS
from dataflow.server.connection import HEAD_SECONDS
from dataflow.server.serve import serve
from dataflow.server.socket_wire import SocketWire
from tests.dataflow.server.wires_client import connect, get, read_to_end, serving, websocket_app
from tests.support.certificates import Certificate, make_certificate
from tests.support.crossing import Crossed
from tests.support.waiting import until_deadline_within


async def _page() -> None:
    raise AssertionError


async def test_crossed_socket_is_asked_again_and_not_without_pause(autojump_clock: MockClock) -> None:
    """A wire goes on once the crossing is over, and sleeps meanwhile instead of spinning."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.send(b"\x81\x80aaaa")
        for use in (_receive_by_wire, _write_by_wire):
            crossed: Any = Crossed(ours, 3)
            crossed.setblocking(False)
            start = trio.current_time()
            await use(crossed)
            assert crossed.asked == 4
            assert trio.current_time() - start == pytest.approx(3 * CROSSED_SECONDS)


async def _receive_by_wire(sock: Any) -> None:
    assert await SocketWire(sock, peer="test").receive() == ""


async def _write_by_wire(sock: Any) -> None:
    wire = SocketWire(sock, peer="test")
    await wire.write([wire.pack([b"x"])])


async def test_clients_without_proper_tls_are_sent_away_and_do_no_harm(certificate: Certificate) -> None:
    """Plain HTTP, a half handshake, a client that does not trust us: none is reported as an error of ours."""
    context = certified_context(certificate.certificate, certificate.key)
    with trio.fail_after(120):
        async with serving(websocket_app(_page), tls=context) as running:
            for data in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02"):
                async with await connect(running.port) as stream:
                    await stream.send_all(data)
                    with suppress(trio.BrokenResourceError):  # it may be over already
                        await stream.send_eof()
                    await read_to_end(stream)
            distrustful = trio.SSLStream(
                await connect(running.port), ssl.create_default_context(), server_hostname="localhost"
            )
            with pytest.raises(trio.BrokenResourceError):
                await distrustful.do_handshake()
            await trio.aclose_forcefully(distrustful)
            assert await get(running.port, tls=certificate.client_context()) == b"here"
            assert not running.reports


async def test_endless_handshake_is_ended(certificate: Certificate, mock_clock: MockClock) -> None:
    """A client that never finishes its TLS handshake is disconnected after five seconds."""
    context = certified_context(certificate.certificate, certificate.key)
    async with serving(websocket_app(_page), tls=context) as running, await connect(running.port) as stream:
        await until_deadline_within(HEAD_SECONDS)
        mock_clock.jump(HEAD_SECONDS + 0.1)
        assert await read_to_end(stream) == b""


async def test_address_says_https_and_other_contexts_are_refused(certificate: Certificate) -> None:
    """The logged address can be clicked on. A context with a blocking socket class would freeze the process."""
    context = certified_context(certificate.certificate, certificate.key)
    with trio.fail_after(120):
        async with serving(websocket_app(_page), tls=context) as running:
            assert running.address == f"https://127.0.0.1:{running.port}"
        with pytest.raises(ValueError, match="net\\.tls"):
            await serve(
                websocket_app(_page), host="127.0.0.1", port=0, tls=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            )


def test_every_fault_of_the_files_is_told_by_its_name(certificate: Certificate, tmp_path: Path) -> None:
    """Missing, unreadable, no PEM, another certificate's key, a password: one line that says which and why."""
    missing, text = tmp_path / "missing.pem", tmp_path / "text.pem"
    text.write_text("not PEM")
    other = make_certificate(tmp_path)
    secret = tmp_path / "secret.pem"
    command = [
        "openssl",
        "ec",
        "-aes128",
        "-passout",
        "pass:abcd",
        "-in",
        str(other.key),
        "-out",
        str(secret),
    ]
    subprocess.run(command, check=True, capture_output=True)
    ours = certificate.certificate
    assert _problems(missing, missing) == [
        f"[gateway] tls_certificate: {missing}: no such file",
        f"[gateway] tls_key: {missing}: no such file",
    ]
    assert _problems(ours, tmp_path) == [f"[gateway] tls_key: {tmp_path}: cannot be read: Is a directory"]
    assert _problems(text, certificate.key) == [
        f"[gateway] tls_certificate, tls_key: {text}, {certificate.key}: no PEM certificate with a private key"
    ]
    assert _problems(ours, other.key) == [f"[gateway] tls_key: {other.key}: is not the key of {ours}"]
    assert _problems(other.certificate, secret) == [
        f"[gateway] tls_certificate, tls_key: {other.certificate}, {secret}: the key is protected by a password, "
        "which nobody is there to give"
    ]


def _problems(certificate: Path, key: Path) -> list[str]:
    with pytest.raises(ConfigError) as error:
        certified_context(certificate, key)
    return error.value.problems
