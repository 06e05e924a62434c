"""The words of gRPC over HTTP/2: messages with a prefix of five bytes, statuses, deadlines, metadata.

Rules of this file: pure, no socket, no clock. Bytes come cut anyhow. What a client sends is taken, or ends
its call with a `CallFailed`; nothing else is raised.
"""

from __future__ import annotations

import re
import struct
from enum import IntEnum
from typing import Final, TypeAlias

MAX_MESSAGE_BYTES: Final = 4 << 20  # of one message, as in the libraries of gRPC
MAX_TOLD: Final = 1000  # characters of a status message: clients take some KB of metadata
GOING_AWAY: Final = "server going away"
CONTENT_TYPE: Final = b"application/grpc"
METADATA: Final = ((b"content-type", CONTENT_TYPE), (b"grpc-accept-encoding", b"identity"))

Metadata: TypeAlias = list[tuple[bytes, bytes]]

_PREFIX: Final = struct.Struct(">BI")
_OURS: Final = re.compile(rb"application/grpc(\+proto)?[ \t]*(;.*)?", re.IGNORECASE)
_TIMEOUT: Final = re.compile(rb"([0-9]{1,8})([HMSmun])")
_SECONDS: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_UNSAFE: Final = re.compile(rb"[^ -$&-~]|^ | $")  # on their way, headers lose the blanks at their ends


class Status(IntEnum):
    """How a call ends. The numbers are gRPC's."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class CallFailed(Exception):
    """A call ends with this status. `retry_after`: seconds, if the client may then try again."""

    def __init__(self, status: Status, words: str, retry_after: float | None = None) -> None:
        super().__init__(words)
        self.status = status
        self.words = words
        self.retry_after = retry_after


def prefixed(message: bytes) -> bytes:
    """A message as it is sent."""
    return _PREFIX.pack(0, len(message)) + message


class Messages:
    """Cuts what a client sends into messages, in whatever pieces it comes."""

    def __init__(self, most: int = MAX_MESSAGE_BYTES) -> None:
        self._most = most
        self._rest = bytearray()

    @property
    def begun(self) -> int:
        """The bytes of a message that has come in part."""
        return len(self._rest)

    def take(self, data: bytes) -> list[bytes]:
        """The messages that are whole now, in order. Raises CallFailed; then nothing more can be understood.

        What came whole before a failure is returned, and the next call raises. So take until nothing comes.
        """
        whole: bytes | bytearray = data
        if self._rest:
            self._rest += data
            whole = self._rest
        found: list[bytes] = []
        at, end = 0, len(whole)
        while end - at >= 5:
            flag, size = _PREFIX.unpack_from(whole, at)
            if flag or size > self._most:
                if found:
                    break
                raise self._unacceptable(flag, size)
            if end - at < 5 + size:
                break
            found.append(bytes(whole[at + 5 : at + 5 + size]))
            at += 5 + size
        if whole is self._rest:
            del self._rest[:at]
        else:
            self._rest += data[at:]
        return found

    def end(self) -> None:
        """The client has said all. Raises CallFailed in the middle of a message."""
        if self._rest:
            raise CallFailed(Status.INTERNAL, "the request ends in the middle of a message")

    def _unacceptable(self, flag: int, size: int) -> CallFailed:
        if flag == 1:
            return CallFailed(
                Status.UNIMPLEMENTED, "compressed messages are not understood here: grpc-accept-encoding"
            )
        if flag:
            return CallFailed(Status.INTERNAL, f"a message begins with {flag}: it must be 0")
        return CallFailed(
            Status.RESOURCE_EXHAUSTED, f"a message of {size} bytes: {self._most} bytes are the most"
        )


def speaks_grpc(content_type: bytes) -> bool:
    """Whether a request of this content type holds messages of protobuf."""
    return _OURS.fullmatch(content_type) is not None


def timeout(written: bytes) -> float:
    """Seconds of a header grpc-timeout, such as b"100m". Raises CallFailed."""
    found = _TIMEOUT.fullmatch(written)
    if found is None:
        told = written[:40].decode("latin-1")
        raise CallFailed(Status.INTERNAL, f"grpc-timeout: {told!r} is not 1 to 8 digits and one of HMSmun")
    return int(found[1]) * _SECONDS[found[2]]


def trailers(status: Status, words: str = "", retry_after: float | None = None) -> Metadata:
    """The end of a response. `retry_after`: seconds, told as milliseconds."""
    said: Metadata = [(b"grpc-status", b"%d" % status)]
    if words:
        said.append((b"grpc-message", percent_encoded(words)))
    if retry_after is not None:
        said.append((b"grpc-retry-pushback-ms", b"%d" % max(0, round(retry_after * 1000))))
    return said


def percent_encoded(words: str) -> bytes:
    """`words` for a header, as gRPC has it: UTF-8, and %XX for all but printable ASCII. Long ones are cut."""
    if len(words) > MAX_TOLD:
        words = f"{words[:MAX_TOLD]}..."
    return _UNSAFE.sub(lambda found: b"%%%02X" % found[0][0], words.encode("utf-8", "replace"))
