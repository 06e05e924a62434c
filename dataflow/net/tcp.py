"""A TCP connection to an upstream, read without a look that is known to be in vain.

Rules of this file. The socket is the standard library's, non-blocking; Trio only says when it is ready. One
task reads, and one at a time sends. A read that is cancelled loses nothing.

Why not `trio.SocketStream`: it tries before it waits. A reader that has just taken all there was would pay
for one failing system call a message, before anybody may go on with the message that it has brought.
"""

from __future__ import annotations

import socket

import trio


class TcpStream(trio.abc.Stream):
    """A connected socket as a stream. Owns it from now on."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._empty = False  # the last read took all there was

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """What has come, at most `max_bytes`; b"" at the end. Raises BrokenResourceError."""
        limit = 65536 if max_bytes is None else max_bytes
        if not self._empty:
            await trio.lowlevel.checkpoint()
        while True:
            if self._empty:
                await trio.lowlevel.wait_readable(self._socket)
            try:
                data = self._socket.recv(limit)
            except BlockingIOError:
                self._empty = True
            except OSError as error:
                raise trio.BrokenResourceError from error
            else:
                self._empty = len(data) < limit
                return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Raises BrokenResourceError."""
        await trio.lowlevel.checkpoint()
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self._socket.send(rest) :]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._socket)
            except OSError as error:
                raise trio.BrokenResourceError from error

    async def wait_send_all_might_not_block(self) -> None:
        """Until there is room."""
        await trio.lowlevel.wait_writable(self._socket)

    async def aclose(self) -> None:
        """Close at once. Who waits for the connection gets ClosedResourceError."""
        if self._socket.fileno() != -1:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()
        await trio.lowlevel.checkpoint()


async def connect(host: str, port: int) -> TcpStream:
    """The first address of `host` that answers. Raises OSError."""
    stream = await trio.open_tcp_stream(host, port)
    return TcpStream(socket.socket(fileno=stream.socket.detach()))
