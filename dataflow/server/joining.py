"""Frames of data of HTTP/2 that follow each other in one stream, made one: the library takes long for each.

Rules of this file: pure. The stream of bytes means the same before and after, flow control included. Clients
that stream small messages write each into a frame of its own; then one of ours stands for hundreds of theirs.
"""

from __future__ import annotations

from typing import Final

MOST: Final = 16384  # bytes of data in a frame: more is allowed to nobody, unless he is told so
_PREFACE_BYTES: Final = 24
_HEAD_BYTES: Final = 9


class Joiner:
    """Of one connection. Frames with less than `least` bytes stay alone: `metering` counts them.

    Joined are frames without flags that have come whole; all other bytes are passed on as they are.
    """

    def __init__(self, least: int) -> None:
        self._least = least
        self._head = b""  # of a frame, while it has not come whole
        self._payload = _PREFACE_BYTES  # bytes to come that are no head

    def join(self, data: bytes) -> bytes:
        """The next bytes."""
        out: list[bytes] = []
        begin, at, end = 0, 0, len(data)  # what lies between `begin` and `at` is passed on as it is
        while at < end:
            if self._payload:
                step = min(self._payload, end - at)
                self._payload -= step
                at += step
            elif self._head or end - at < _HEAD_BYTES:
                taken = data[at : at + _HEAD_BYTES - len(self._head)]
                self._head += taken
                at += len(taken)
                if len(self._head) == _HEAD_BYTES:
                    self._payload, self._head = int.from_bytes(self._head[:3], "big"), b""
            else:
                behind, pieces = self._run(data, at)
                if len(pieces) > 1:
                    size = sum(map(len, pieces))
                    out += [data[begin:at], size.to_bytes(3, "big"), data[at + 3 : at + 9], *pieces]
                    begin = at = behind
                else:
                    self._payload = int.from_bytes(data[at : at + 3], "big")
                    at += _HEAD_BYTES
        return b"".join([*out, data[begin:]]) if out else data

    def _run(self, data: bytes, at: int) -> tuple[int, list[bytes]]:
        """The data of the frames from `at` on that can be one, and where the next frame begins."""
        alike = data[at + 3 : at + 9]  # kind, flags and stream
        pieces: list[bytes] = []
        if alike[:2] != b"\0\0":  # no data, or more than data: an end, say
            return at, pieces
        room, end = MOST, len(data)
        while data[at + 3 : at + 9] == alike:
            size = data[at] << 16 | data[at + 1] << 8 | data[at + 2]
            behind = at + _HEAD_BYTES + size
            if not self._least <= size <= room or behind > end:
                break
            pieces.append(data[at + _HEAD_BYTES : behind])
            room -= size
            at = behind
        return at, pieces
