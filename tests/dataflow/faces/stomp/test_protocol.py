"""Promises of faces.stomp.protocol: the specification's frames are read, and nothing else is."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.faces.stomp import protocol
from dataflow.faces.stomp.protocol import (
    END,
    MAX_HEADERS,
    V10,
    V11,
    V12,
    VERSIONS,
    Frame,
    HeartBeats,
    Malformed,
    Reader,
    UnknownVersion,
    agreed,
    head,
    negotiated,
)

LIMIT = 300


def read(data: bytes, version: str = V12, most: int = LIMIT) -> list[Frame]:
    """All frames in `data`, fed at once."""
    reader = Reader(most, version)
    reader.feed(data)
    return drained(reader)


def drained(reader: Reader) -> list[Frame]:
    frames = []
    while (frame := reader.next()) is not None:
        frames.append(frame)
    return frames


@pytest.mark.parametrize(
    ("data", "frame"),
    [
        (b"DISCONNECT\n\n\0", Frame("DISCONNECT", {})),
        (
            b"CONNECT\naccept-version:1.2\nhost:a\n\n\0",
            Frame("CONNECT", {"accept-version": "1.2", "host": "a"}),
        ),
        (b"SEND\ndestination:/a\n\nhello\0", Frame("SEND", {"destination": "/a"}, b"hello")),
        (b"SEND\r\ndestination:/a\r\n\r\nx\r\n\0", Frame("SEND", {"destination": "/a"}, b"x\r\n")),
        (b"SEND\na:1\na:2\n\n\0", Frame("SEND", {"a": "1"})),
        (b"SEND\na:\nb: c \n\n\0", Frame("SEND", {"a": "", "b": " c "})),
        (b"SEND\na:b:c\n\n\0", Frame("SEND", {"a": "b:c"})),
        (b"\n\r\n\nSEND\n\n\0\n\n", Frame("SEND", {})),
        (b"SEND\ncontent-length:3\n\na\0b\0", Frame("SEND", {"content-length": "3"}, b"a\0b")),
        (b"SEND\ncontent-length:2\n\n\xc3\xa9\0", Frame("SEND", {"content-length": "2"}, "é".encode())),
        (b"SEND\n\nfirst\n\nsecond\0", Frame("SEND", {}, b"first\n\nsecond")),
        ("SEND\nä:ö\n\n\0".encode(), Frame("SEND", {"ä": "ö"})),
    ],
)
def test_a_frame_is_read_as_the_specification_has_it(data: bytes, frame: Frame) -> None:
    """Line ends of both kinds, empty values, repeated headers, bodies with a NUL or an empty line inside."""
    assert read(data) == [frame]


@pytest.mark.parametrize(
    ("version", "written", "value"),
    [
        (V10, rb"a\nb\cc", r"a\nb\cc"),
        (V11, rb"a\nb\cc\\d", "a\nb:c\\d"),
        (V12, rb"a\nb\cc\\d\re", "a\nb:c\\d\re"),
    ],
)
def test_escapes_are_those_of_the_version(version: str, written: bytes, value: str) -> None:
    r"""1.0 has none, 1.1 has \n \c \\, 1.2 has \r besides; they count in names, too."""
    data = b"SEND\n%b:%b\n\n\0" % (written.replace(b"\\c", b"c") if version == V10 else written, written)
    [frame] = read(data, version)
    assert frame.headers == {value.replace("\\c", "c") if version == V10 else value: value}


@pytest.mark.parametrize("command", ["CONNECT", "STOMP"])
def test_the_first_frame_has_no_escapes(command: str) -> None:
    """A client of 1.0 does not know them, and a passcode may hold a backslash."""
    [frame] = read(rb"%b" % command.encode() + b"\npasscode:a\\tb\n\n\0")
    assert frame.headers == {"passcode": r"a\tb"}


@pytest.mark.parametrize(
    ("version", "escape"), [(V11, rb"\r"), (V11, rb"\t"), (V12, rb"\t"), (V12, rb"\N"), (V12, b"\\")]
)
def test_an_unknown_escape_is_refused(version: str, escape: bytes) -> None:
    """Nothing is guessed: the frame is an error."""
    with pytest.raises(Malformed, match="escape"):
        read(b"SEND\na:x%b\n\n\0" % escape, version)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"SEND\nno colon\n\n\0", "NAME:VALUE"),
        (b"SEND\n:no name\n\n\0", "NAME:VALUE"),
        (b"SEND\na:b\0", "empty line"),
        (b"SEND\0", "empty line"),
        (b"SE\0ND\n\n\0", "empty line"),
        (b"SEND\na:b\xff\n\n\0", "UTF-8"),
        (b"SEND\ncontent-length:3\n\nabcd\0", "no NUL behind"),
        (b"SEND\ncontent-length:-1\n\n\0", "number of bytes"),
        (b"SEND\ncontent-length:1e1\n\n\0", "number of bytes"),
        ("SEND\ncontent-length:٣\n\nabc\0".encode(), "number of bytes"),
        (b"SEND\ncontent-length:9999999999\n\n", "may have 300 bytes"),
        (b"SEND\n" + b"a:b\n" * (MAX_HEADERS + 1) + b"\n\0", "100 headers"),
        (b"x" * (LIMIT + 1), "may have 300 bytes"),
        (b"SEND\n\n" + b"x" * (LIMIT - 6) + b"\0", "may have 300 bytes"),
    ],
)
def test_what_is_no_frame_is_refused_in_plain_words(data: bytes, words: str) -> None:
    """One error for all of it; a frame that is too long is refused before its end has come."""
    with pytest.raises(Malformed, match=words):
        read(data, most=LIMIT if b"a:b\n" * 9 not in data else 65536)


def test_a_frame_may_have_the_whole_length() -> None:
    """The limit itself is fine: command, headers, body and NUL together."""
    data = b"SEND\n\n" + b"x" * (LIMIT - 7) + b"\0"
    assert [len(frame.body) for frame in read(data)] == [LIMIT - 7]


def test_an_idle_client_holds_no_memory() -> None:
    """What was read is let go; of a frame that is not whole yet its beginning is kept, and no more."""
    reader = Reader()
    reader.feed(b"SEND\n\n" + b"x" * 60_000 + b"\0SEND\n")
    assert len(drained(reader)) == 1
    assert reader._data == b"SEND\n"


def test_the_version_counts_from_the_next_frame_on() -> None:
    """A message may hold the CONNECT and what follows it."""
    reader = Reader()
    reader.feed(b"CONNECT\n\n\0SEND\na:\\c\n\n\0")
    assert reader.next() == Frame("CONNECT", {})
    reader.version = V12
    assert reader.next() == Frame("SEND", {"a": ":"})


FRAMES = (
    b"\nCONNECT\naccept-version:1.2\n\n\0\n\n"
    b"SEND\r\ncontent-length:5\r\n\r\na\0b\n\n\0SUBSCRIBE\nid:\\c\n\n\0\n"
)


@given(st.lists(st.integers(0, len(FRAMES)), max_size=8))
def test_frames_do_not_depend_on_the_messages_that_carry_them(cuts: list[int]) -> None:
    """Several in one message, one in several: some clients cut long frames, and put heart-beats between."""
    reader, found, at = Reader(LIMIT, V12), [], 0
    for cut in [*sorted(cuts), len(FRAMES)]:
        reader.feed(FRAMES[at:cut])
        found += drained(reader)
        at = cut
    assert found == read(FRAMES)
    assert [frame.command for frame in found] == ["CONNECT", "SEND", "SUBSCRIBE"]


pieces = st.one_of(
    st.sampled_from([b"SEND\n", b"a:b\n", b"\n", b"\r\n", b"\0", b"\\", b":", b"content-length:", b"3"]),
    st.binary(max_size=5),
)


@given(st.lists(pieces, max_size=12), st.sampled_from(VERSIONS))
def test_bytes_are_frames_or_malformed(parts: list[bytes], version: str) -> None:
    """Whatever comes is accepted, or refused by the one declared error; what waits is bounded."""
    reader = Reader(20, version)
    with suppress(Malformed):
        for part in parts:
            reader.feed(part)
            for frame in drained(reader):
                assert len(frame.body) < 20


words = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


@given(words, st.sampled_from([V11, V12]))
def test_what_is_written_is_read_back(value: str, version: str) -> None:
    """Any id or receipt comes back as it was, whatever it is made of."""
    if version == V11:  # it cannot say a CR at the end of a line
        value = value.replace("\r", "")
    [frame] = read(head("MESSAGE", [("id", value)], version) + b"\n" + END, version)
    assert frame.headers == {"id": value}


@given(words)
def test_a_text_that_cannot_be_escaped_adds_no_line(text: str) -> None:
    """In 1.0 there are no escapes: a line end in a text of ours becomes a blank."""
    assert head("ERROR", [("message", text)], V10).count(b"\n") == 2


def test_connected_is_not_escaped() -> None:
    """So that a client of 1.0 can read it."""
    assert head("CONNECTED", [("server", "a:b")], V12) == b"CONNECTED\nserver:a:b\n"


@pytest.mark.parametrize(
    ("accepted", "version"),
    [(None, V10), ("1.0", V10), ("1.1,1.0", V11), ("1.0,1.1,1.2", V12), ("1.2", V12), (" 1.3 , 1.1 ", V11)],
)
def test_the_highest_version_in_common_is_chosen(accepted: str | None, version: str) -> None:
    """Whatever the order; without the header it is 1.0."""
    assert negotiated(accepted) == version


@pytest.mark.parametrize("accepted", ["", "1.3", "2.0,3.0", "1"])
def test_no_version_in_common_is_an_error(accepted: str) -> None:
    """The words have those that there are."""
    with pytest.raises(UnknownVersion, match=r"1\.0,1\.1,1\.2"):
        negotiated(accepted)


@pytest.mark.parametrize(
    ("header", "beats"),
    [
        (None, HeartBeats(0, 0)),
        ("0,0", HeartBeats(0, 0)),
        ("1000,0", HeartBeats(0, 10_000)),
        ("0,1000", HeartBeats(10_000, 0)),
        ("20000,30000", HeartBeats(30_000, 20_000)),
    ],
)
def test_heart_beats_are_agreed_on(header: str | None, beats: HeartBeats) -> None:
    """The slower side decides in each direction; who cannot or does not want, need not."""
    assert agreed(header, 10_000) == beats
    assert str(beats) == f"{beats.ours},{beats.theirs}"


@pytest.mark.parametrize(
    "header", ["", "1", "1,", "a,b", "-1,0", "1,2,3", "1.5,0", "1" * 11 + ",0", "\u0661,1"]
)
def test_heart_beats_must_be_two_numbers(header: str) -> None:
    """Else the client means something that nobody knows."""
    with pytest.raises(Malformed, match="heart-beat"):
        agreed(header, 10_000)


def test_a_mistake_is_shown_on_one_line() -> None:
    """It goes into a header and into the log."""
    assert protocol.shown("a\nb" + "x" * 100) == ascii("a\nb" + "x" * 57 + "...")
