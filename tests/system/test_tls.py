"""The daemon over TLS: what is configured is served, and the commands find their way in."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import trio

from dataflow.cli.common import call
from dataflow.cli.ends import Mistake
from dataflow.client import Unreachable
from dataflow.client.address import address_of
from dataflow.client.socket import open_socket
from dataflow.server.socket_wire import SocketWire
from dataflow.settings.schema import Gateway
from tests.support.certificates import make_certificate
from tests.system.daemon import daemon


async def test_commands_reach_a_daemon_over_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the authority in SSL_CERT_FILE, requests and sessions get through, detached as plain ones are."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command to make a certificate")
    made = make_certificate(tmp_path)
    gateway = Gateway(port=0, tls_certificate=str(made.certificate), tls_key=str(made.key))
    with trio.fail_after(120):
        async with daemon(sources={}, gateway=gateway) as running:
            assert running.http.startswith("https://127.0.0.1:")
            with pytest.raises(Mistake, match="SSL_CERT_FILE"):
                await trio.to_thread.run_sync(call, "GET", f"{running.http}/health")
            with pytest.raises(Unreachable, match="self-signed certificate"):
                await open_socket(address_of(running.url))
            monkeypatch.setenv("SSL_CERT_FILE", str(made.certificate))
            answer = await trio.to_thread.run_sync(call, "GET", f"{running.http}/health")
            assert answer == {"status": "ok"}
            client = await open_socket(address_of(running.url))
            try:
                await client.send('{"jsonrpc": "2.0", "id": 7, "method": "no such"}')
                while not any(b'"id":7' in text for text in await client.receive()):
                    pass
                assert [type(session._wire) for session in running.lobby.clients] == [SocketWire]
            finally:
                await client.aclose()
