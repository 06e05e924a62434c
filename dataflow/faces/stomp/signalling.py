"""WebRTC signalling: what one client says to a room, all in the room hear, itself too.

Rules of this file: no I/O. The server understands nothing but the five keys, and routes by the room alone:
`targetId` is for the clients. Nothing is kept: who comes later hears what comes later. A room is there while
somebody is in it. It has no queue: a signal goes to every member at once, in its outbox where need be, so all
of them hear the same order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from dataflow.gateway.problems import InvalidValue, TooManySubscriptions

# Of one room, a client once for each of its ids: a long signal to so many takes some 80 ms.
MAX_MEMBERS: Final = 1000

Write = Callable[[int, bytes], bytes]  # a signal's number and its text, as one kind of client gets it


class _Signal(msgspec.Struct, rename="camel"):
    type: str
    sender_id: str | None = None
    target_id: str | None = None
    sdp: str | None = None
    candidate: str | None = None


_decoder: Final = msgspec.json.Decoder(_Signal)


def read(sent: bytes) -> bytes:
    """A signal as all get it: exactly these keys, in this order. Raises InvalidValue."""
    try:
        return msgspec.json.encode(_decoder.decode(sent))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidValue(
            "body",
            None,
            f"must be a JSON object with a type: {error}",
            example={"type": "OFFER", "senderId": "peer-1", "targetId": "peer-2", "sdp": "v=0\r\n..."},
        ) from None


class Signal:
    """A signal on its way. Each kind of client has its text made once."""

    def __init__(self, number: int, text: bytes) -> None:
        self._number = number
        self._text = text
        self._written: dict[Write, bytes] = {}

    def written(self, write: Write) -> bytes:
        """As a kind of client gets it."""
        if write not in self._written:
            self._written[write] = write(self._number, self._text)
        return self._written[write]


class Member(Protocol):
    """Somebody in a room."""

    def signalled(self, room: str, signal: Signal) -> int:
        """Hear a signal, under each of its ids in the room: so often. Never waits or raises."""


class Rooms:
    """Who is in which room."""

    def __init__(self) -> None:
        self._rooms: dict[str, Counter[Member]] = {}  # how often each is in it
        self._told = 0

    def __len__(self) -> int:
        return len(self._rooms)

    def enter(self, room: str, member: Member) -> None:
        """Once more. Raises TooManySubscriptions when the room is full."""
        members = self._rooms.get(room, Counter())
        if members.total() >= MAX_MEMBERS:
            raise TooManySubscriptions(MAX_MEMBERS, "this room is full: meet in another one")
        self._rooms[room] = members
        members[member] += 1

    def leave(self, room: str, member: Member) -> None:
        """As often as it entered."""
        members = self._rooms[room]
        members[member] -= 1
        if not members[member]:
            del members[member]
        if not members:
            del self._rooms[room]

    def tell(self, room: str, text: bytes) -> int:
        """Give a text from `read` to all members. Returns how often it was said."""
        self._told += 1
        signal = Signal(self._told, text)
        return sum([member.signalled(room, signal) for member in list(self._rooms.get(room, ()))])
