"""A WebSocket echo server on the daemon's own server, for conformance suites.

Its clients meet the same server, ways in, wires and frames as the daemon's clients.

Known deviations from the expectations of suites:
- A message that announces more than the limit is refused when that much of it has come, not at its header.
- The answer to a client's close frame repeats the code, not the reason.
- /asgi drops answers that are under way when the client closes.
- 1,000 control frames and small fragments at once, and 100 a second, are welcome; more close with 1008.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import trio
from quart import websocket
from quart_trio import QuartTrio

from actors.session import WireClosed
from dataflow.gateway.certificates import certified_context
from dataflow.server.handshake import Messages, Socket
from dataflow.server.serve import serve
from dataflow.server.socket_wire import BinarySocketWire, SocketWire
from dataflow.server.take_over import take_over
from tests.support.certificates import Certificate, make_certificate

ABOUT = """A WebSocket echo server made of the gateway's own parts, for conformance suites: every message comes
back, text as text and binary as binary. No extension is ever negotiated. Ways in: / and /ws detach at once, as
the daemon's clients do; /asgi stays with the HTTP server, the way of clients over HTTP/2. Behind /text the same
three (/text/, /text/ws, /text/asgi) are text only: a binary message is answered with a close frame, code 1003,
as the daemon does. The address is printed once the server listens."""

SOCKETS = (Socket("/ws", messages=Messages.BINARY), Socket("/text/ws"))


def application(max_message_bytes: int) -> QuartTrio:
    """The ways in that are not the server's short one."""
    app = QuartTrio(__name__)

    async def detached(socket: Socket) -> None:
        async with take_over(websocket, socket, max_message_bytes=max_message_bytes) as wire:
            await echo(wire)

    async def asgi(socket: Socket) -> None:
        await websocket.accept()
        await detached(socket)

    for socket in SOCKETS:
        above = socket.path.removesuffix("ws")
        app.websocket(above, endpoint=above)(partial(detached, socket))
        app.websocket(socket.path, endpoint=socket.path)(partial(detached, socket))
        app.websocket(f"{above}asgi", endpoint=f"{above}asgi")(partial(asgi, socket))
    return app


async def echo(wire: Any) -> None:
    """Every message comes back, in order, until the wire ends."""
    with suppress(WireClosed):
        while True:
            await send(wire, await wire.receive())


async def send(wire: Any, message: str | bytes) -> None:
    """Write like a session: first without waiting, then the rest. Raises WireClosed."""
    rest = wire.write_nowait(framed(wire, message))
    if rest is not None:
        await wire.write([rest])


def framed(wire: Any, message: str | bytes) -> Any:
    """A payload of the message's own kind. A wire's `pack` knows one kind only: a protocol sends one."""
    if not isinstance(wire, SocketWire):
        return (message,)
    return (
        SocketWire.pack([message.encode()]) if isinstance(message, str) else BinarySocketWire.pack([message])
    )


async def run(port: int, max_message_bytes: int, certificate: Certificate | None) -> None:
    """Serve until cancelled; prints the address, and where the certificate is."""
    tls = certificate and certified_context(certificate.certificate, certificate.key)
    server = partial(
        serve,
        application(max_message_bytes),
        host="127.0.0.1",
        port=port,
        max_message_bytes=max_message_bytes,
        tls=tls,
        sockets=dict.fromkeys(SOCKETS, lambda wire, _client: echo(wire)),
    )
    async with trio.open_nursery() as nursery:
        [address] = await nursery.start(server)
        print(address.replace("http", "ws", 1), flush=True)
        if certificate is not None:
            print(f"trust {certificate.certificate}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.echo", description=ABOUT)
    parser.add_argument("--port", type=int, default=9001, help="0: any that is free (default: %(default)s)")
    parser.add_argument(
        "--tls", action="store_true", help="with a certificate of localhost, made for the run"
    )
    parser.add_argument(
        "--max-message-bytes",
        type=int,
        default=65536,
        help="a longer one closes with 1009 (default: %(default)s)",
    )
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        certificate = make_certificate(Path(folder)) if options.tls else None
        try:
            trio.run(run, options.port, options.max_message_bytes, certificate)
        except* KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main()
