"""STOMP 1.0, 1.1 and 1.2 frames (https://stomp.github.io/stomp-specification-1.2.html): bytes in, bytes out.

Rules of this file. No socket, no clock, no destination. The one error is `Malformed`, and its text is for the
client. A client may send several frames in one message, and one frame in several. Line ends may be CRLF; ours
are LF, because clients look for the first empty line. Of a repeated header the first one counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from attrs import define, field, frozen

from dataflow.domain.errors import DataflowError

V10: Final = "1.0"
V11: Final = "1.1"
V12: Final = "1.2"
VERSIONS: Final = (V12, V11, V10)  # the best first
ALL_VERSIONS: Final = ",".join(reversed(VERSIONS))
SUBPROTOCOLS: Final = ("v12.stomp", "v11.stomp", "v10.stomp")  # of WebSocket, likewise

MAX_FRAME_BYTES: Final = 65536
MAX_HEADERS: Final = 100  # each of them costs time to read
HEART_BEAT: Final = b"\n"
END: Final = b"\0"  # of a frame

_SHOWN: Final = 60  # characters of a mistake that its client gets back
_LINE_ENDS: Final = re.compile(rb"[\r\n]*")
_HEAD_END: Final = re.compile(rb"\n\r?\n")
_COUNT: Final = re.compile(r"[0-9]{1,10}", re.ASCII)
_ESCAPE: Final = re.compile(r"\\(.?)", re.DOTALL)
_READ: Final[Mapping[str, Mapping[str, str]]] = {
    V10: {},
    V11: {"n": "\n", "c": ":", "\\": "\\"},
    V12: {"n": "\n", "c": ":", "\\": "\\", "r": "\r"},
}
_WRITTEN: Final = {
    version: str.maketrans({"\n": " "} | {each: f"\\{name}" for name, each in escapes.items()})
    for version, escapes in _READ.items()
}  # a line end that cannot be escaped becomes a blank
_UNESCAPED: Final = frozenset(("CONNECT", "STOMP", "CONNECTED"))  # for clients of 1.0, who know no escapes


class Malformed(DataflowError):
    """The client's message is not STOMP, for this reason."""


class UnknownVersion(Malformed):
    """The client speaks no version that we speak."""


@frozen
class Frame:
    """A frame of a client."""

    command: str
    headers: Mapping[str, str]
    body: bytes = b""


@define
class Reader:
    """Finds the frames in what a client sends. A frame may have `most` bytes.

    Set `version` as soon as it is agreed: it decides about the escapes in the frames behind.
    """

    most: int = MAX_FRAME_BYTES
    version: str = V10
    _data: bytes = field(default=b"", init=False)
    _at: int = field(default=0, init=False)

    def feed(self, data: bytes) -> None:
        """Add what the client sent."""
        self._data, self._at = self._data[self._at :] + data, 0

    def next(self) -> Frame | None:
        """The next whole frame; None when there is none. Heart-beats are no frames. Raises Malformed."""
        frame = self._found()
        if frame is None:
            self._data, self._at = self._data[self._at :], 0  # an idle client holds no memory
            self._check_length(len(self._data))
        return frame

    def _found(self) -> Frame | None:
        start = self._skip_line_ends()
        found = _HEAD_END.search(self._data, start)
        nul = self._data.find(END, start)
        if found is None or -1 < nul < found.start():
            if nul >= 0:
                raise Malformed("a frame needs an empty line behind its headers")
            return None
        lines = self._data[start : found.start()].split(b"\n")
        command = _text(lines[0].removesuffix(b"\r"))
        headers = self._headers(command, lines[1:])
        end = self._end_of_body(found.end(), headers.get("content-length"))
        if end < 0 or end >= len(self._data):
            return None
        self._check_length(end + 1 - start)
        if self._data[end] != 0:
            raise Malformed("content-length: there is no NUL behind so many bytes")
        self._at = end + 1
        return Frame(command, headers, self._data[found.end() : end])

    def _skip_line_ends(self) -> int:
        found = _LINE_ENDS.match(self._data, self._at)
        assert found is not None
        self._at = found.end()
        return self._at

    def _check_length(self, length: int) -> None:
        if length > self.most:
            raise Malformed(f"a frame may have {self.most} bytes")

    def _headers(self, command: str, lines: list[bytes]) -> dict[str, str]:
        if len(lines) > MAX_HEADERS:
            raise Malformed(f"a frame may have {MAX_HEADERS} headers")
        escapes = {} if command in _UNESCAPED else _READ[self.version]
        headers: dict[str, str] = {}
        for line in lines:
            name, colon, value = _text(line.removesuffix(b"\r")).partition(":")
            if not (name and colon):
                raise Malformed(f"a header is NAME:VALUE, not {shown(name)}")
            if escapes:
                name, value = _unescaped(name, escapes), _unescaped(value, escapes)
            headers.setdefault(name, value)
        return headers

    def _end_of_body(self, start: int, length: str | None) -> int:
        """Where the NUL is, or must be; -1 when it has not come yet."""
        if length is None:
            return self._data.find(END, start)
        if _COUNT.fullmatch(length) is None:
            raise Malformed(f"content-length: must be a number of bytes, not {shown(length)}")
        self._check_length(int(length))
        return start + int(length)


def negotiated(accepted: str | None) -> str:
    """The best version that both sides speak, by the client's `accept-version`. Raises UnknownVersion."""
    if accepted is None:  # the header is younger than 1.0
        return V10
    offered = [each.strip() for each in accepted.split(",")]
    for version in VERSIONS:
        if version in offered:
            return version
    raise UnknownVersion(f"no version in common: these are known: {ALL_VERSIONS}")


@frozen
class HeartBeats:
    """What both sides agreed on, in milliseconds: how often we send one, and how often the client does.
    0: never."""

    ours: int
    theirs: int

    def __str__(self) -> str:
        return f"{self.ours},{self.theirs}"


def agreed(header: str | None, interval: int) -> HeartBeats:
    """The answer to a client's `heart-beat`, where we send and want one every `interval` ms.

    Raises Malformed.
    """
    can, comma, wants = ("0,0" if header is None else header).partition(",")
    if _COUNT.fullmatch(can) is None or _COUNT.fullmatch(wants) is None:
        raise Malformed(f"heart-beat: must be two numbers of milliseconds, not {shown(can + comma + wants)}")
    return HeartBeats(
        ours=max(interval, int(wants)) if int(wants) else 0,
        theirs=max(interval, int(can)) if int(can) else 0,
    )


def head(command: str, headers: Iterable[tuple[str, str]], version: str) -> bytes:
    """A command and its headers, without the empty line: more headers may follow."""
    table = {} if command in _UNESCAPED else _WRITTEN[version]
    lines = [f"{name}:{value.translate(table)}\n" for name, value in headers]
    return f"{command}\n{''.join(lines)}".encode()


def shown(text: str) -> str:
    """A piece of a client's text that may stand in a header of any version, and in a log."""
    return ascii(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Malformed("commands and headers must be UTF-8") from None


def _unescaped(text: str, escapes: Mapping[str, str]) -> str:
    if "\\" not in text:
        return text

    def read(found: re.Match[str]) -> str:
        name = found[1]
        if name not in escapes:
            raise Malformed(f"a header has the escape {shown(found[0])}, which this version does not know")
        return escapes[name]

    return _ESCAPE.sub(read, text)
