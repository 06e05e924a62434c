"""TLS on a socket that never waits: what OpenSSL wants, in the words of a plain socket.

Rules of this file: only public names of `ssl`. `send` and `recv` of a `TlsSocket` mean what they mean on a
non-blocking socket, with two additions that OpenSSL makes necessary.
1. `send` may return 0: OpenSSL has begun with these bytes, and what it is given next must begin with them.
2. CrossedError: it has to read before it can write, or the reverse. Another task may wait for just that, so
   whoever gets it looks again after `CROSSED_SECONDS`. With renegotiation refused, as here, it is rare.
What was decrypted and not yet read is invisible to a poller: read until BlockingIOError before you wait.
"""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from typing import Any

import trio

CROSSED_SECONDS = 0.02


class CrossedError(BlockingIOError):
    """OpenSSL needs the other direction of the connection first."""


class TlsSocket(ssl.SSLSocket):
    """What `server_context` wraps a socket in. All errors are OSError, as of any socket."""

    def send(self, data: Any, flags: int = 0) -> int:
        """How much was taken; 0: nothing yet, but these bytes come next. Raises CrossedError."""
        try:
            return super().send(data, flags)
        except ssl.SSLWantWriteError:
            return 0
        except ssl.SSLWantReadError:
            raise CrossedError from None

    def recv(self, limit: int = 16384, flags: int = 0) -> bytes:
        """What has come, empty at the end. Raises BlockingIOError when there is nothing, or CrossedError."""
        try:
            return super().recv(limit, flags)
        except ssl.SSLWantReadError:
            raise BlockingIOError from None
        except ssl.SSLWantWriteError:
            raise CrossedError from None

    def close(self) -> None:
        """Tell the peer that nothing was cut off, as far as that needs no waiting, and close."""
        with suppress(OSError, ValueError):  # ValueError: there is no TLS to end
            self.unwrap()
        super().close()


def server_context() -> ssl.SSLContext:
    """TLS 1.2 or later with HTTP/2 and HTTP/1.1 on offer; certificate and key are to be loaded into it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sslsocket_class = TlsSocket
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(["h2", "http/1.1"])
    # One ticket is enough to come back with, which spares both ends the costly part of a handshake.
    context.num_tickets = 1
    return context


def wrap(context: ssl.SSLContext, sock: socket.socket) -> ssl.SSLSocket:
    """`sock`, which is not to be used any more, as the server's end; no handshake yet. Raises OSError."""
    return context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)


async def shake_hands(sock: ssl.SSLSocket) -> None:
    """Raises OSError when the peer does not want what we offer, or leaves."""
    while True:
        try:
            sock.do_handshake()
        except ssl.SSLWantReadError:
            await trio.lowlevel.wait_readable(sock)
        except ssl.SSLWantWriteError:
            await trio.lowlevel.wait_writable(sock)
        else:
            return
