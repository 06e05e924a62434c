"""The bytes of one connection while HTTP is spoken on it, over TLS or not.

Rules of this file: the socket is the standard library's, non-blocking; Trio only says when it is ready. So
it can be handed on as it is, to a session that goes its own way, and nothing of this stays behind.
"""

from __future__ import annotations

import socket
import ssl

import trio

from dataflow.net.tls_server import CROSSED_SECONDS, CrossedError, shake_hands, wrap


class Stream:
    """One connection. One task may send and one receive; both get BrokenResourceError once it is lost.

    A send that was cancelled has cut something off: only `close` is of use then.
    """

    __slots__ = ("socket",)

    def __init__(self, sock: socket.socket) -> None:
        """Owns `sock`, which must not block."""
        self.socket = sock

    @property
    def is_encrypted(self) -> bool:
        return isinstance(self.socket, ssl.SSLSocket)

    async def encrypt(self, context: ssl.SSLContext) -> str | None:
        """Shake hands over TLS; returns the protocol agreed on, as "h2". Raises BrokenResourceError."""
        try:
            self.socket = sock = wrap(context, self.socket)
            await shake_hands(sock)
        except OSError as error:
            raise trio.BrokenResourceError from error
        return sock.selected_alpn_protocol()

    async def receive_some(self, limit: int) -> bytes:
        """What has come, at most `limit` bytes; empty at the end."""
        await trio.lowlevel.checkpoint()
        while True:
            try:
                return self.socket.recv(limit)
            except CrossedError:
                await trio.sleep(CROSSED_SECONDS)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self.socket)
            except OSError as error:
                raise trio.BrokenResourceError from error

    async def send_all(self, data: bytes) -> None:
        """Send all of it."""
        await trio.lowlevel.checkpoint()
        view, sent = memoryview(data), 0
        while sent < len(data):
            try:
                taken = self.socket.send(view[sent:])
            except CrossedError:
                await trio.sleep(CROSSED_SECONDS)
                continue
            except BlockingIOError:
                taken = 0
            except OSError as error:
                raise trio.BrokenResourceError from error
            sent += taken
            if not taken:
                await trio.lowlevel.wait_writable(self.socket)

    def close(self) -> None:
        """Close now; who waits on the connection gets ClosedResourceError."""
        if self.socket.fileno() != -1:
            trio.lowlevel.notify_closing(self.socket)
            self.socket.close()
