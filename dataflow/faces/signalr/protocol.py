"""What SignalR's hub protocols have in common: the handshake, and the records behind it.

Rules of this file. Bytes in, values out; no socket, no clock. A connection begins with a handshake in JSON,
which chooses the hub protocol for all that follows: see `json_hub` and `messagepack_hub`. Whatever a client
sends, it is read, or the one declared error (`BadRecord`) is raised; then nothing more can be read.

The specification: https://github.com/dotnet/aspnetcore/blob/main/src/SignalR/docs/specs/HubProtocol.md
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, TypeAlias

import msgspec
from attrs import frozen

from dataflow.domain.errors import DataflowError
from dataflow.faces.jsonrpc.protocol import Gathering, Write

END: Final = b"\x1e"  # behind each record in JSON, the handshake included
VERSIONS: Final = range(3)  # of the hub protocols. 0: some clients say so after a negotiation in version 0
TARGET: Final = "ReceiveMessage"  # the method of a client that gets everything
_SHOWN: Final = 40  # characters of a wrong name that the client gets back


class BadRecord(DataflowError):
    """The client broke the protocol. Its text is for the client."""


@frozen
class Invocation:
    """The client calls the method `target`. Without an `id` it wants no completion.

    `streaming`: it wants a stream of results. `size` in bytes.
    """

    id: str | None
    target: str
    arguments: Sequence[Any]
    streaming: bool
    size: int

    def __len__(self) -> int:
        return self.size


class Ping:
    """A sign of life."""


class Close:
    """The client leaves."""


class Ignored:
    """A record that has no meaning here: an item of a stream, an acknowledgement, or a type to come."""


Record: TypeAlias = Invocation | Ping | Close | Ignored
PING: Final = Ping()
CLOSE: Final = Close()
IGNORED: Final = Ignored()


Cut: TypeAlias = Callable[[bytearray, int, int], "tuple[bytes, int] | None"]


class HubProtocol(Protocol):
    """A way to write records."""

    name: str  # in the handshake
    binary: bool

    def cut(self, received: bytearray, seen: int, most: int) -> tuple[bytes, int] | None:
        """The first record of `received`, and how many bytes it took; None while it is not whole.

        The first `seen` bytes were looked at before. Raises BadRecord when it is longer than `most` bytes.
        """

    def read(self, record: bytes) -> Record:
        """Raises BadRecord."""

    def message(self, text: bytes) -> bytes:
        """The invocation that gives a client this one text."""

    def joined(self, texts: Sequence[bytes]) -> Sequence[bytes]:
        """The messages for several texts as one: an envelope of `actors.update`."""

    def answers(self, begin: Write) -> Gathering:
        """For the answers to an invocation, each a message. `begin` sends what of a long one is made."""

    def completion(self, invocation: str, error: str | None = None) -> bytes:
        """The end of an invocation: without a result, or with an error."""

    def close(self, error: str | None, allow_reconnect: bool) -> bytes:
        """The last record."""

    ping: bytes


@frozen
class Handshake:
    """The first record of a client."""

    protocol: str
    version: int


class Inbound:
    """What a client has sent, cut into records. A record has at most `most` bytes."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._received = bytearray()
        self._seen = 0  # bytes of it without the end of a record

    def feed(self, data: str | bytes) -> None:
        """More of it: a part of a record, one, or several."""
        self._received += data.encode() if isinstance(data, str) else data

    def handshake(self) -> Handshake | None:
        """The handshake; None while it is not whole. Raises BadRecord."""
        record = self._cut(until_end)
        return None if record is None else _read_handshake(record)

    def next(self, protocol: HubProtocol) -> Record | None:
        """The next record; None while it is not whole. Raises BadRecord."""
        record = self._cut(protocol.cut)
        return None if record is None else protocol.read(record)

    def _cut(self, cut: Cut) -> bytes | None:
        if not self._received:
            return None
        found = cut(self._received, self._seen, self._most)
        if found is None:
            self._seen = len(self._received)
            return None
        record, taken = found
        del self._received[:taken]
        self._seen = 0
        return record


def chosen(handshake: Handshake, protocols: Sequence[HubProtocol]) -> HubProtocol:
    """The protocol that the client wants. Raises BadRecord."""
    for each in protocols:
        if each.name == handshake.protocol:
            if handshake.version not in VERSIONS:
                raise BadRecord(
                    f"The server does not support version {handshake.version} of the '{each.name}' protocol."
                )
            return each
    raise BadRecord(f"The protocol '{handshake.protocol[:_SHOWN]}' is not supported.")


def welcome(error: str | None = None) -> bytes:
    """The answer to the handshake. With an `error` it is the last one."""
    return (b"{}" if error is None else msgspec.json.encode({"error": error})) + END


def until_end(received: bytearray, seen: int, most: int) -> tuple[bytes, int] | None:
    """A record up to its 0x1e. Raises BadRecord."""
    end = received.find(END, seen)
    if (len(received) if end < 0 else end) > most:
        raise BadRecord(f"a record may have {most} bytes")
    return None if end < 0 else (bytes(received[:end]), end + 1)


class _Handshake(msgspec.Struct):
    protocol: str
    version: int


_handshake: Final = msgspec.json.Decoder(_Handshake)


def _read_handshake(record: bytes) -> Handshake:
    try:
        written = _handshake.decode(record)
    except (ValueError, RecursionError) as error:
        raise BadRecord(f"The handshake is not understood: {plain(error)}.") from None
    return Handshake(written.protocol, written.version)


def plain(error: Exception) -> str:
    """The words of a decoder, without its own marks."""
    return str(error).replace("`", "").rstrip(".")
