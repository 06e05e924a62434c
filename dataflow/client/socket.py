"""A WebSocket over a stream of anyio, as a client of a daemon needs it: texts in, texts out.

Rules of this file. What a server may send is bounded (`LARGEST`) and checked; what it may not send ends the
connection (`Lost`). One `receive` gives all messages that have come, so that a burst costs one turn of the
event loop. The frames are read here and not by a library: at 300 bytes a message that takes a twentieth of
the time.
"""

from __future__ import annotations

import base64
import os
import ssl
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha1
from typing import Final

import anyio
import h11
from anyio.abc import ByteStream
from attrs import define, field

from .address import Address
from .faults import Unreachable

OPEN_WITHIN: Final = 10.0  # seconds, for the connection and for the handshake
SILENT_FOR: Final = 60.0  # seconds: the server pings three times as often
DEAF_FOR: Final = 60.0  # seconds in which the server takes nothing of what it is sent
CLOSE_WITHIN: Final = 1.0  # seconds for the goodbye
LARGEST: Final = 64 << 20  # bytes of a message: the answer after a long absence has all missed trades
CHUNK: Final = 1 << 18  # bytes
PART: Final = 64  # bytes that each frame of a message costs besides its payload
_ACCEPT: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455
_TEXT, _MORE, _CLOSE, _PING, _PONG = 0x1, 0x0, 0x8, 0x9, 0xA
BROKEN: Final = 1006  # never sent: the connection ended without a close


class Lost(Exception):
    """The connection has ended. `code`: of the close, `BROKEN` without one."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Rejected(Unreachable):
    """The server answered the handshake with an HTTP status. `retry_after`: seconds, if it said so."""

    def __init__(self, problem: str, status: int, retry_after: float | None) -> None:
        super().__init__(problem, status)
        self.retry_after = retry_after


@define(eq=False)
class Inbound:
    """Bytes of a server to messages. Pure. `replies`: frames that are due; `closed`: what the server said
    last."""

    largest: int = LARGEST
    replies: list[bytes] = field(factory=list)
    closed: Lost | None = None
    _unread: bytearray = field(factory=bytearray)
    _parts: list[bytes] = field(factory=list)
    _held: int = 0  # bytes in `_parts`

    def take(self, data: bytes) -> list[bytes]:
        """The messages that are complete now. Raises Lost when the server breaks the protocol."""
        self._unread += data
        return list(self._messages())

    def _messages(self) -> Iterator[bytes]:
        unread, at, end = self._unread, 0, len(self._unread)
        while end - at >= 2 and self.closed is None:
            first, length, start = unread[at], unread[at + 1], at + 2
            if length == 126:
                start += 2
                length = int.from_bytes(unread[at + 2 : start])
            elif length == 127:
                start += 8
                length = int.from_bytes(unread[at + 2 : start])
            elif length > 127:
                raise Lost(1002, "the server masks its frames, which only clients do")
            if start > end:
                break
            if length + self._held > self.largest:
                raise Lost(1009, f"a message of more than {self.largest >> 20} MiB")
            if start + length > end:
                break
            payload = bytes(unread[start : start + length])
            at = start + length
            if first == 0x81 and not self._parts:
                yield payload
            else:
                yield from self._frame(first, payload)
        del unread[:at]

    def _frame(self, first: int, payload: bytes) -> Iterator[bytes]:
        """Any frame but a whole text."""
        is_last, kind = bool(first & 0x80), first & 0x0F
        if first & 0x70 or (kind >= _CLOSE and (not is_last or len(payload) > 125)):
            raise Lost(1002, f"the server sends a frame that no client knows, {first:#04x}")
        if kind == _PING:
            self.replies.append(frame(_PONG, payload))
        elif kind == _CLOSE:
            code = int.from_bytes(payload[:2]) if len(payload) > 1 else 1005
            self.closed = Lost(code, payload[2:].decode(errors="replace") or f"closed with {code}")
        elif kind in (_TEXT, _MORE) and (kind == _MORE) == bool(self._parts):
            self._parts.append(payload)
            self._held += len(payload) + PART  # so that empty frames are bounded as well
            if is_last:
                yield b"".join(self._parts)
                self._parts, self._held = [], 0
        elif kind != _PONG:
            raise Lost(1003 if kind == 2 else 1002, f"the server sends a frame out of turn, {first:#04x}")


@define(eq=False)
class Socket:
    """An open WebSocket. One task may receive while others send."""

    _stream: ByteStream
    _inbound: Inbound = field(factory=Inbound)
    _sending: anyio.Lock = field(factory=anyio.Lock)
    _early: bytes = b""

    async def receive(self) -> list[bytes]:
        """All messages that have come, at least one. Raises Lost."""
        while True:
            data, self._early = self._early or await self._more(), b""
            messages = self._inbound.take(data)
            if self._inbound.replies:
                replies, self._inbound.replies = self._inbound.replies, []
                await self._send(b"".join(replies))
            if messages:
                return messages
            if self._inbound.closed is not None:
                raise self._inbound.closed

    async def send(self, text: str) -> None:
        """Send a text. Raises Lost."""
        await self._send(frame(_TEXT, text.encode()))

    async def aclose(self) -> None:
        """Say goodbye and close. It never raises, and never waits for long."""
        with anyio.move_on_after(CLOSE_WITHIN, shield=True):
            with suppress(Lost):
                await self._send(frame(_CLOSE, (1000).to_bytes(2)))
        with anyio.move_on_after(CLOSE_WITHIN, shield=True):
            await _close(self._stream)

    async def _more(self) -> bytes:
        if self._inbound.closed is not None:
            raise self._inbound.closed
        try:
            with anyio.fail_after(SILENT_FOR):
                return await self._stream.receive(CHUNK)
        except TimeoutError:
            raise Lost(BROKEN, f"not a word for {SILENT_FOR:.0f} s") from None
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            raise Lost(BROKEN, "without a word") from None

    async def _send(self, data: bytes) -> None:
        try:
            async with self._sending:
                with anyio.fail_after(DEAF_FOR):
                    await self._stream.send(data)
        except TimeoutError:
            await _close(self._stream)  # who receives hears of it, too
            raise Lost(BROKEN, f"it takes nothing for {DEAF_FOR:.0f} s") from None
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            raise Lost(BROKEN, "without a word") from None


def frame(kind: int, payload: bytes) -> bytes:
    """A whole message of a client, masked as RFC 6455 wants it."""
    length = len(payload)
    if length < 126:
        head = bytes((0x80 | kind, 0x80 | length))
    elif length < 1 << 16:
        head = bytes((0x80 | kind, 0x80 | 126)) + length.to_bytes(2)
    else:
        head = bytes((0x80 | kind, 0x80 | 127)) + length.to_bytes(8)
    mask = os.urandom(4)
    pad = mask * (length // 4 + 1)
    masked = int.from_bytes(payload) ^ int.from_bytes(pad[:length])
    return head + mask + masked.to_bytes(length)


async def open_socket(address: Address, context: ssl.SSLContext | None = None) -> Socket:
    """Connect, and shake hands. Raises Unreachable; Rejected when an HTTP answer came instead."""
    try:
        with anyio.fail_after(OPEN_WITHIN):
            stream = await dial(address, context)
            try:
                return await _shake_hands(stream, address)
            except BaseException:
                with anyio.CancelScope(shield=True):
                    await _close(stream)
                raise
    except TimeoutError:
        raise Unreachable(f"{address.url} does not answer within {OPEN_WITHIN:.0f} s") from None


async def dial(address: Address, context: ssl.SSLContext | None) -> ByteStream:
    """A connection to the daemon. Raises Unreachable."""
    host, port = address.host, address.port
    try:
        with anyio.fail_after(OPEN_WITHIN):
            if not address.secure:
                return await anyio.connect_tcp(host, port)
            return await anyio.connect_tcp(
                host, port, tls=True, ssl_context=context, tls_standard_compatible=False
            )
    except TimeoutError:
        raise Unreachable(f"{address.url} does not answer within {OPEN_WITHIN:.0f} s") from None
    except (OSError, UnicodeError, anyio.BrokenResourceError, anyio.EndOfStream) as error:
        raise Unreachable(f"no daemon answers at {address.url} ({reason_of(error)})") from error


def reason_of(error: BaseException) -> str:
    """Why a connection was not possible, in the words of the system."""
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, anyio.EndOfStream):
        return "without a word"
    if isinstance(error, ssl.SSLError):
        return str(getattr(error, "verify_message", None) or error.reason or error)
    number = getattr(error, "errno", None)
    if isinstance(error, OSError) and isinstance(number, int) and number > 0:
        return os.strerror(number).lower()
    return str(getattr(error, "strerror", None) or error or type(error).__name__)


async def _shake_hands(stream: ByteStream, address: Address) -> Socket:
    key = base64.b64encode(os.urandom(16))
    machine = h11.Connection(h11.CLIENT)
    headers = [
        ("Host", address.authority),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", key.decode()),
        ("Sec-WebSocket-Version", "13"),
        ("User-Agent", "dataflow-client"),
    ]
    request = h11.Request(method="GET", target=address.socket, headers=headers)
    try:
        await stream.send((machine.send(request) or b"") + (machine.send(h11.EndOfMessage()) or b""))
        answer = await next_event(stream, machine)
        if isinstance(answer, h11.InformationalResponse):
            assert answer.status_code == 101, "an answer that asks to go on"
            told = b""
        else:
            assert isinstance(answer, h11.Response)
            told = await _beginning(stream, machine)
    except (h11.RemoteProtocolError, AssertionError) as error:
        raise Unreachable(f"what answers at {address.url} is no dataflow daemon ({error})") from error
    except (OSError, anyio.BrokenResourceError, anyio.EndOfStream) as error:
        raise Unreachable(f"{address.url} breaks off the handshake ({reason_of(error)})") from error
    if isinstance(answer, h11.Response):
        raise _rejected(address, answer, told)
    _check_accepted(address, answer, key)
    return Socket(stream, early=machine.trailing_data[0])


async def _beginning(stream: ByteStream, machine: h11.Connection) -> bytes:
    """Of what an answer has to say: enough for an error."""
    told = bytearray()
    while len(told) < 2_000 and isinstance(part := await next_event(stream, machine), h11.Data):
        told += part.data
    return bytes(told)


def in_short(told: bytes | bytearray) -> str:
    """The beginning of an answer, in one line for an error."""
    return " ".join(told.decode(errors="replace").split())[:300]


def _check_accepted(address: Address, answer: h11.InformationalResponse, key: bytes) -> None:
    accept = base64.b64encode(sha1(key + _ACCEPT, usedforsecurity=False).digest())
    if dict(answer.headers).get(b"sec-websocket-accept") != accept:
        raise Unreachable(f"what answers at {address.url} is no WebSocket: it did not take the handshake")


def _rejected(address: Address, answer: h11.Response, told: bytes) -> Rejected:
    status = answer.status_code
    retry_after = dict(answer.headers).get(b"retry-after", b"")
    if status in (404, 405, 200):
        problem = f"{address.url} answers with status {status}, it is not a dataflow daemon"
    else:
        text = in_short(told)
        problem = f"{address.url} answers with status {status}" + (f": {text}" if text else "")
    return Rejected(problem, status, float(retry_after) if retry_after.isdigit() else None)


async def next_event(stream: ByteStream, machine: h11.Connection) -> object:
    """The next event of an HTTP answer. Raises what h11 and anyio raise; EndOfStream if nothing came."""
    while (event := machine.next_event()) is h11.NEED_DATA:
        try:
            machine.receive_data(await stream.receive(CHUNK))
        except anyio.EndOfStream:
            if machine.their_state is h11.SEND_RESPONSE and not machine.trailing_data[0]:
                raise
            machine.receive_data(b"")
    return event


async def _close(stream: ByteStream) -> None:
    with suppress(OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
        await anyio.aclose_forcefully(stream)
