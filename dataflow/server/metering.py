"""The frames of HTTP/2, counted before the library sees them: it takes a turn of the loop for all it gets.

Rules of this file: pure, the caller tells the time. The bytes are passed on as they are, in pieces; only the
headers of the frames are looked at. HTTP/1.1 passes whole. What costs more than its bytes has an allowance;
what our own sends make a client do does not count: it opens its window again for what it has taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from dataflow.net.allowance import A_SECOND, AT_ONCE, Allowance

TOO_MANY_WORDS: Final = (
    f"too many control frames of HTTP/2: {AT_ONCE} at once and {A_SECOND} a second are welcome"
)
COST_AT_ONCE: Final = 32  # of the frames in one piece: some two milliseconds
REQUEST_COST: Final = 8  # a request costs as much as so many other frames
ANSWERS: Final = 2  # frames that one send of ours may make the client send: for its stream, and for all
SMALL: Final = 32  # bytes of data; the shortest call of a client has more

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEAD_BYTES: Final = 9
_DATA, _HEADERS = 0, 1
_END_STREAM: Final = 1


class Meter:
    """Of one connection. `exceeded`: the client has gone beyond its allowance, and must be let go.

    Pieces of data with fewer bytes than `small` need the allowance.
    """

    def __init__(self, small: int = SMALL) -> None:
        self.exceeded = False
        self._small = small
        self._preface = _PREFACE  # what must come next, or it is not HTTP/2
        self._is_http2 = True  # as far as we know
        self._head = b""  # of a frame, while it has not come whole
        self._payload = 0  # bytes to come of the frame
        self._allowance = Allowance()

    def sent(self) -> None:
        """We have sent something."""
        self._allowance.give(ANSWERS)

    def pieces(self, data: bytes, now: float) -> Iterator[bytes]:
        """`data`, in pieces that cost little time each, up to where the allowance ends. `now`: seconds."""
        at = self._pass_preface(data)
        if not self._is_http2 or not data:
            yield data
            return
        begin = cost = 0
        while at < len(data):
            if self._payload:
                step = min(self._payload, len(data) - at)
                self._payload -= step
                at += step
                continue
            taken = data[at : at + _HEAD_BYTES - len(self._head)]
            self._head += taken
            if len(self._head) < _HEAD_BYTES:
                break
            if not self._may_come(now):
                self.exceeded = True
                break
            cost += REQUEST_COST if self._head[3] == _HEADERS else 1
            at += len(taken)
            self._payload, self._head = int.from_bytes(self._head[:3], "big"), b""
            if cost >= COST_AT_ONCE:
                yield data[begin:at]
                begin, cost = at, 0
        rest = data[begin:at] if self.exceeded else data[begin:]
        if rest:
            yield rest

    def _pass_preface(self, data: bytes) -> int:
        count = min(len(data), len(self._preface))
        if data[:count] != self._preface[:count]:
            self._is_http2 = False
        self._preface = self._preface[count:]
        return count

    def _may_come(self, now: float) -> bool:
        """The frame with this head: one that costs more than its bytes needs the allowance."""
        kind = self._head[3]
        if kind == _HEADERS:
            return True
        if kind == _DATA:
            size = int.from_bytes(self._head[:3], "big")
            if size >= self._small or self._head[4] & _END_STREAM:
                return True
        return self._allowance.take(now)
