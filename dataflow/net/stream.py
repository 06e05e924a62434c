"""The bytes of one connection, to an upstream or from a client, plain or over TLS.

Rules of this file. The socket is the standard library's, non-blocking; Trio only says when it is ready. So
the server can hand the socket on as it is, and nothing of the stream stays behind. One task receives, and one
at a time sends. The class of the socket decides about TLS; the loops here respect what `net.tls` adds to the
manners of a plain socket.

Why not `trio.SocketStream`: it tries before it waits. A reader that has just taken everything would make one
failing system call a message, before the message that it has brought can be used.
Why not `trio.SSLStream`: it gives one record a read, and each read costs a turn of the scheduler. An upstream
that writes every message by itself puts every message into a record of its own.
"""

from __future__ import annotations

import socket
import ssl

import trio

from .tls import CROSSED_SECONDS, CrossedError, ReadAheadSocket, shake_hands, wrap


class SocketStream:
    """One connection. A cancelled `receive_some` loses nothing.

    A lost connection raises BrokenResourceError, `close` in another task ClosedResourceError. A send that is
    cut off, by a cancellation too, is the last one: half a frame, or half a record, fits nothing else.
    """

    __slots__ = ("_ahead", "_drained", "_torn", "socket")

    def __init__(self, sock: socket.socket) -> None:
        """Owns `sock` from now on."""
        sock.setblocking(False)
        self.socket = sock
        self._ahead: ReadAheadSocket | None = None  # the socket, if it is one
        self._drained = False  # the last read took everything: a further one would be in vain
        self._torn = False  # a send was cut off

    @property
    def is_encrypted(self) -> bool:
        return isinstance(self.socket, ssl.SSLSocket | ReadAheadSocket)

    async def encrypt(self, context: ssl.SSLContext, server_name: str | None = None) -> str | None:
        """Shake hands over TLS with the server of that name; without a name, as the server.

        Returns the protocol agreed on, such as "h2". Raises BrokenResourceError, caused by the SSLError.
        """
        try:
            self.socket = sock = wrap(context, self.socket, server_name)
            await shake_hands(sock)
        except OSError as error:
            raise trio.BrokenResourceError from error
        self._ahead = sock if isinstance(sock, ReadAheadSocket) else None
        return sock.selected_alpn_protocol()

    async def receive_some(self, limit: int = 65536) -> bytes:
        """The bytes that have come, at most `limit`; b"" at the end. Raises BrokenResourceError."""
        if not self._drained:
            await trio.lowlevel.checkpoint()
        while True:
            if self._drained:
                await trio.lowlevel.wait_readable(self.socket)
            try:
                data = self.socket.recv(limit)
            except CrossedError:
                self._drained = False
                await trio.sleep(CROSSED_SECONDS)
            except BlockingIOError:
                self._drained = True
            except OSError as error:
                raise trio.BrokenResourceError from error
            else:
                ahead = self._ahead
                self._drained = 0 < len(data) < limit and (ahead is None or not ahead.has_more)
                return data

    async def send_all(self, data: bytes) -> None:
        """Send all of it. Raises BrokenResourceError, also after a send that was cut off."""
        await trio.lowlevel.checkpoint()
        if self._torn:
            raise trio.BrokenResourceError("a send was cut off")
        self._torn = True
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
        self._torn = False

    def close(self) -> None:
        """Close now. A task that waits on the connection gets ClosedResourceError."""
        if self.socket.fileno() != -1:
            trio.lowlevel.notify_closing(self.socket)
            self.socket.close()
            self._drained = False  # a closed socket can be read, to find that out, but not waited for


async def connect(
    host: str, port: int, context: ssl.SSLContext | None = None, server_name: str | None = None
) -> SocketStream:
    """A connection to the first address of `host` that answers, over TLS when there is a context.

    `server_name`: of the certificate, when it is not `host`. Raises OSError without a connection, and
    BrokenResourceError, caused by the SSLError, without TLS.
    """
    raw = await trio.open_tcp_stream(host, port)
    stream = SocketStream(socket.socket(fileno=raw.socket.detach()))
    if context is not None:
        try:
            await stream.encrypt(context, server_name or host)
        except BaseException:
            stream.close()
            raise
    return stream
