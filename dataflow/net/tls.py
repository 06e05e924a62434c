"""TLS on a socket that never blocks. Two socket classes, with the manners of a plain socket.

- `TlsSocket` is our end as a server. OpenSSL works on the socket itself: a `send` makes no copy, and an idle
  connection holds no buffer of ours.
- `ReadAheadSocket` is our end as a client of an upstream. One system call takes many records.

Why two: OpenSSL on a socket makes two system calls a record, because Python cannot turn its read-ahead on.
An exchange writes every message in a record of its own, so ingest would pay for both. Our clients send
little, and there are thousands of them, so for the server short sends and small connections matter more.
README.md has the figures.

Rules of this file. Only public names of `ssl`. `send` and `recv` mean what they mean on a non-blocking
socket, with two additions:
1. `send` may return 0: TLS has begun with these bytes, and the next `send` must begin with the same bytes.
2. CrossedError: TLS must read before it can write, or write before it can read. Another task may wait for
   just that event, so the caller does not wait for it, but tries again after `CROSSED_SECONDS`.
   Renegotiation is refused here, so this is rare.
A poller cannot see decrypted bytes. So a `recv` that gives less than its limit leaves none behind, unless
`ReadAheadSocket.has_more` says so.
"""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from typing import Any, Final

import trio

CROSSED_SECONDS = 0.02
_READ_BYTES: Final = 1 << 16
_RECORD_BYTES: Final = 1 << 14  # of plain text, at most, in one record
_UNSENT_BYTES: Final = 1 << 16


class CrossedError(BlockingIOError):
    """TLS needs the other direction of the connection first."""


class TlsSocket(ssl.SSLSocket):
    """A context of `server_context` wraps sockets in this class. All errors are OSError, as of any socket."""

    def send(self, data: Any, flags: int = 0) -> int:
        """The number of bytes taken; 0: begun, and these bytes come next. Raises CrossedError."""
        try:
            return super().send(data, flags)
        except ssl.SSLWantWriteError:
            return 0
        except ssl.SSLWantReadError:
            raise CrossedError from None

    def recv(self, limit: int = 16384, flags: int = 0) -> bytes:
        """Bytes that have come, one record at most; b"" at the end. Raises BlockingIOError, CrossedError."""
        try:
            return super().recv(limit, flags)
        except ssl.SSLWantReadError:
            raise BlockingIOError from None
        except ssl.SSLWantWriteError:
            raise CrossedError from None

    def shutdown(self, how: int) -> None:
        """As of any socket. Tells the peer that nothing was cut off; what comes is not decrypted any more."""
        with suppress(OSError, ValueError):
            self.unwrap()
        super().shutdown(how)

    def close(self) -> None:
        """Close. Tells the peer that nothing was cut off, if that needs no waiting."""
        with suppress(OSError, ValueError):  # ValueError: there is no TLS to end
            self.unwrap()
        super().close()


class ReadAheadSocket(socket.socket):
    """A client's end of TLS with `server_name`. All errors are OSError, as of any socket.

    Takes `sock` over and narrows the options of `context`. The end of the TCP connection counts as the end of
    the stream, as in https: messages tell their own end. For the same reason `close` sends no goodbye.
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, server_name: str) -> None:
        context.options |= ssl.OP_NO_RENEGOTIATION  # so that a send never waits for the peer
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name)
        self._ready = b""  # decrypted, and not yet given to anybody
        self._ended = False
        self._fault: ssl.SSLError | None = None
        self._unsent = b""  # encrypted
        self._begun = 0  # bytes of the caller that are encrypted, but not all sent
        self.has_more = False  # the next `recv` need not wait for the poller: bytes, or the end, are there
        super().__init__(fileno=sock.detach())
        self.setblocking(False)

    def do_handshake(self) -> None:
        """One step. Raises SSLWantReadError or SSLWantWriteError: call again then; OSError: no agreement."""
        agreed = False
        while not agreed:
            try:
                self._tls.do_handshake()
                agreed = True
            except ssl.SSLWantReadError:
                pass
            if not self._flush():
                raise ssl.SSLWantWriteError
            if not agreed:
                try:
                    self._fill()
                except BlockingIOError:
                    raise ssl.SSLWantReadError from None
        self._decrypt()  # bytes behind the handshake may be here already, where no poller sees them

    def selected_alpn_protocol(self) -> str | None:
        return self._tls.selected_alpn_protocol()

    def send(self, data: Any, flags: int = 0) -> int:
        """The number of bytes taken; 0: begun, and these bytes come next. Raises CrossedError."""
        if not self._begun:
            try:
                self._begun = self._tls.write(memoryview(data)[:_RECORD_BYTES])
            except ssl.SSLWantReadError:
                raise CrossedError from None
        if not self._flush():
            return 0
        taken, self._begun = self._begun, 0
        return taken

    def recv(self, limit: int = _READ_BYTES, flags: int = 0) -> bytes:
        """The bytes that have come, up to 64 KiB; b"" at the end. Raises BlockingIOError, CrossedError.

        A peer that breaks TLS: raises SSLError, after all that came before was given.
        """
        asked = False
        while not self._ready:
            if self._fault is not None:
                raise self._fault
            if self._ended:
                return b""
            if asked and not self.has_more:
                raise BlockingIOError  # a part of a record came, or nothing for the caller
            # A peer that asks for new keys without end, and reads no answer, must not fill our memory.
            if len(self._unsent) > _UNSENT_BYTES and not self._flush():
                raise CrossedError
            self._fill()
            self._decrypt()
            asked = True
        if self._outgoing.pending:  # the peer asked for new keys
            with suppress(OSError):  # a lost connection is told by a later `recv`
                self._flush()
        given = self._ready[:limit]
        self._ready = self._ready[len(given) :]
        return given

    def _fill(self) -> None:
        """Take the bytes that have come, in one system call. Raises OSError."""
        data = super().recv(_READ_BYTES)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
        self.has_more = len(data) == _READ_BYTES

    def _decrypt(self) -> None:
        records = []
        try:
            while record := self._tls.read(_RECORD_BYTES):
                records.append(record)
            self._ended = True  # the peer said goodbye
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLEOFError:
            self._ended = True
        except ssl.SSLError as error:
            self._fault = error
        self._ready += b"".join(records)
        if self._ended or self._fault is not None:
            self.has_more = True

    def _flush(self) -> bool:
        """Send the encrypted bytes; False when there is no room for all of them. Raises OSError."""
        if self._outgoing.pending:
            self._unsent += self._outgoing.read()
        if self._unsent:
            with suppress(BlockingIOError):
                self._unsent = self._unsent[super().send(self._unsent) :]
        return not self._unsent


Wrapped = TlsSocket | ReadAheadSocket


def server_context() -> ssl.SSLContext:
    """TLS 1.2 or later with HTTP/2 and HTTP/1.1 on offer. The caller loads certificate and key into it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sslsocket_class = TlsSocket
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(["h2", "http/1.1"])
    # One ticket is enough to resume with, which spares both ends the costly part of a handshake.
    context.num_tickets = 1
    return context


def wrap(context: ssl.SSLContext, sock: socket.socket, server_name: str | None = None) -> Wrapped:
    """The client's end with `server_name`, or the server's end. No handshake yet. Raises OSError.

    `sock` must not be used any more. The server's end needs a context of `server_context`.
    """
    if server_name is not None:
        return ReadAheadSocket(sock, context, server_name)
    served = context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
    assert isinstance(served, TlsSocket)
    return served


async def shake_hands(sock: Wrapped) -> None:
    """Raises OSError when the peer does not agree, or leaves."""
    while True:
        try:
            sock.do_handshake()
        except ssl.SSLWantReadError:
            await trio.lowlevel.wait_readable(sock)
        except ssl.SSLWantWriteError:
            await trio.lowlevel.wait_writable(sock)
        else:
            return
