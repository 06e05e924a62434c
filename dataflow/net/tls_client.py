"""TLS as its client speaks it, over any stream: a reader gets all that has come, however it was cut up.

Rules of this file. One task reads, and one at a time sends. What has been received and decrypted stays in
hand until it was given: a read that is cancelled loses nothing. A send that is cut off leaves the stream
unfit for sending. Renegotiation, which TLS 1.3 has done away with, is refused, so that sending never waits
for something to be received.

Why not `trio.SSLStream`: it gives one record a read, for a turn of the scheduler each, and an upstream that
writes every message by itself puts every message into a record of its own.
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import Final

import trio

_RECEIVE_BYTES: Final = 1 << 16
_RECORD_BYTES: Final = 1 << 14  # the most that one read of an SSL object gives


class EncryptedStream(trio.abc.Stream):
    """A client's end of TLS with `host`, once `do_handshake` has returned. Narrows the options of `context`.

    The end of the transport is the end of the stream, as it is in https: messages tell their own end.
    """

    def __init__(self, transport: trio.abc.Stream, context: ssl.SSLContext, host: str) -> None:
        context.options |= ssl.OP_NO_RENEGOTIATION
        self._transport = transport
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._flushing = trio.Lock()
        self._torn = False
        self._ready = b""
        self._ended = False
        self._broken: ssl.SSLError | None = None

    async def do_handshake(self) -> None:
        """Raises BrokenResourceError, caused by the SSLError, when there is no agreement."""
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
            except ssl.SSLError as error:
                raise trio.BrokenResourceError from error
        await self._flush()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Raises BrokenResourceError, also after a send that was cut off."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if data:
            try:
                self._tls.write(data)
            except ssl.SSLError as error:
                raise trio.BrokenResourceError from error
        await self._flush()

    async def wait_send_all_might_not_block(self) -> None:
        """As the transport has it."""
        await self._transport.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Everything that has come, at least one byte, at most `max_bytes`; b"" at the end.

        Raises BrokenResourceError when what came is not TLS, after all that was.
        """
        if self._ready:
            await trio.lowlevel.checkpoint()
        while not self._ready:
            if self._broken is not None:
                raise trio.BrokenResourceError from self._broken
            if self._ended:
                await trio.lowlevel.checkpoint()
                return b""
            await self._fill()
            self._decrypt()
        if self._outgoing.pending:  # the peer asked for new keys; when it is gone, reading will tell
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await self._flush()
        given = self._ready[:max_bytes]
        self._ready = self._ready[len(given) :]
        return given

    async def aclose(self) -> None:
        """Close the transport. There is no goodbye: messages tell their own end."""
        await self._transport.aclose()

    async def _fill(self) -> None:
        data = await self._transport.receive_some(_RECEIVE_BYTES)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

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
            self._broken = error
        self._ready = b"".join(records)

    async def _flush(self) -> None:
        async with self._flushing:
            if self._torn:
                raise trio.BrokenResourceError("a send was cut off")
            if self._outgoing.pending:
                self._torn = True
                await self._transport.send_all(self._outgoing.read())
                self._torn = False
