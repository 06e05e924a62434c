"""Promises of net.websocket.inbound, held against wsproto reading the same bytes alone."""

from __future__ import annotations

import struct
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wsproto import ConnectionType
from wsproto.connection import Connection
from wsproto.events import BytesMessage, CloseConnection, Message, Ping, Pong, TextMessage

from dataflow.net.allowance import AT_ONCE
from dataflow.net.websocket.inbound import UpstreamReader

MAX = 1 << 20


def inbound(max_bytes: int = MAX) -> UpstreamReader:
    return UpstreamReader(Connection(ConnectionType.CLIENT), max_bytes)


def frame(first: int, payload: bytes, *, form: int = 0, mask: bool = False) -> bytes:
    """A frame by hand; `form` forces a longer way of writing the length than is needed."""
    length = len(payload)
    flag = 0x80 if mask else 0
    form = max(form, 0 if length < 126 else 1 if length < 1 << 16 else 2)
    written = [bytes([flag | length]) if form == 0 else b"", bytes([flag | 126]), bytes([flag | 127])][form]
    written += [b"", struct.pack("!H", length & 0xFFFF), struct.pack("!Q", length)][form]
    return bytes([first]) + written + (b"\0\0\0\0" if mask else b"") + payload


def by_wsproto(stream: bytes) -> tuple[list[str | bytes], bool]:
    """The messages in a stream, and whether it has ended, as wsproto alone reads it."""
    connection = Connection(ConnectionType.CLIENT)
    connection.receive_data(stream)
    messages: list[str | bytes] = []
    parts: list[Any] = []
    for event in connection.events():
        if isinstance(event, CloseConnection):
            return messages, True
        if isinstance(event, Message):
            parts.append(event.data)
            if event.message_finished:
                empty: Any = "" if isinstance(event, TextMessage) else b""
                messages.append(empty.join(parts))
                parts = []
    return messages, False


def by_us(stream: bytes, cuts: list[int]) -> UpstreamReader:
    reader = inbound()
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    for start, end in pairwise(edges):
        reader.feed(stream[start:end], 0)
    return reader


texts = st.text(max_size=200).map(str.encode) | st.integers(120, 70_000).map(lambda size: b"x" * size)
legal = st.one_of(
    texts.map(lambda payload: frame(0x81, payload)),
    st.binary(max_size=200).map(lambda payload: frame(0x82, payload)),
    st.tuples(texts, texts, texts).map(
        lambda three: (
            frame(0x01, three[0]) + frame(0x89, b"p") + frame(0x00, three[1]) + frame(0x80, three[2])
        )
    ),
    st.binary(max_size=125).map(lambda payload: frame(0x89, payload)),
    st.binary(max_size=125).map(lambda payload: frame(0x8A, payload)),
)
illegal = st.one_of(
    st.just(frame(0x88, struct.pack("!H", 1001) + b"bye")),
    st.just(frame(0x88, b"")),
    st.binary(min_size=1, max_size=30).map(lambda payload: frame(0x81, payload)),
    st.tuples(texts, st.integers(1, 2)).map(lambda two: frame(0x81, two[0], form=two[1])),
    st.binary(max_size=30).map(lambda payload: frame(0x80, payload)),
    st.binary(max_size=30).map(lambda payload: frame(0x01, payload)),
    st.tuples(st.integers(0, 255), st.binary(max_size=200)).map(lambda two: frame(*two)),
    st.tuples(st.integers(0, 255), st.binary(max_size=200), st.integers(0, 2), st.booleans()).map(
        lambda four: frame(four[0], four[1], form=four[2], mask=four[3])
    ),
)
cuts = st.lists(st.integers(0, 200_000), max_size=12)


@settings(deadline=None)
@given(st.lists(legal, max_size=8), cuts)
def test_a_legal_stream_gives_the_same_messages_however_it_is_cut(
    frames: list[bytes], cuts: list[int]
) -> None:
    """Text, binary, fragments with a ping between them; and the newest ping is owed its pong."""
    stream = b"".join(frames)
    reader = by_us(stream, cuts)
    assert (list(reader.messages), reader.ended) == (by_wsproto(stream)[0], None)
    pings = [event for event in _events(stream) if isinstance(event, Ping)]
    assert _answers(reader) == [Pong(payload=ping.payload) for ping in pings[-1:]]


@settings(deadline=None, max_examples=300)
@given(st.lists(legal | illegal, max_size=8), cuts)
def test_an_illegal_stream_ends_where_wsproto_says(frames: list[bytes], cuts: list[int]) -> None:
    """The same messages before the end, and an end when there is one."""
    stream = b"".join(frames)
    reader = by_us(stream, cuts)
    messages, ended = by_wsproto(stream)
    assert list(reader.messages) == messages
    assert (reader.ended is not None) == ended


@settings(deadline=None)
@given(st.binary(max_size=300), cuts)
def test_garbage_never_raises(stream: bytes, cuts: list[int]) -> None:
    """Fuzz: wsproto understands the same messages; the reader waits for a whole frame."""
    reader = by_us(stream, cuts)
    messages, ended = by_wsproto(stream)
    assert list(reader.messages) == messages
    assert ended or reader.ended is None or "more than" in reader.ended


@pytest.mark.parametrize("pieces", [1, 3])
def test_a_message_is_bounded(pieces: int) -> None:
    """Whole or in fragments: exactly the limit is welcome, one byte more is the end."""

    def message(size: int) -> bytes:
        if pieces == 1:
            return frame(0x81, b"x" * size)
        return frame(0x01, b"x" * 10) + frame(0x00, b"x" * 10) + frame(0x80, b"x" * (size - 20))

    reader = inbound(max_bytes=100)
    reader.feed(message(100), 0)
    assert list(reader.messages) == ["x" * 100]
    reader.feed(message(101), 0)
    assert reader.ended == "a message of more than 100 bytes"
    assert [answer.code for answer in _answers(reader)] == [1009]
    assert len(reader.messages) == 1


def test_a_length_that_is_written_longer_than_it_must_be_is_illegal() -> None:
    """Also if the bytes behind it look like the rest of a message: they are a frame of their own."""
    reader = inbound()
    reader.feed(frame(0x81, b"x" * 5, form=1) + frame(0x01, b"x" * 120) + frame(0x80, b""), 0)
    assert reader.ended is not None
    assert not reader.messages


def test_a_length_is_refused_before_its_payload_comes() -> None:
    """No peer makes us wait for, or store, a message that we will not take."""
    reader = inbound(max_bytes=100)
    reader.feed(bytes([0x81, 127]) + b"\xff" * 8, 0)
    assert reader.ended == "a message of more than 100 bytes"


@pytest.mark.parametrize("costly", [frame(0x00, b""), frame(0x00, b"x"), frame(0x89, b""), frame(0x8A, b"")])
def test_an_upstream_that_floods_is_lost_with_a_plain_reason(costly: bytes) -> None:
    """More small fragments or control frames than any exchange needs: the end, before they cost much."""
    reader = inbound()
    reader.feed(frame(0x01, b"x" * 64) + costly * AT_ONCE, 0)
    assert reader.ended is None
    reader.feed(costly * 60_000, 0)
    assert reader.ended == (
        "too many control frames and small fragments: 1000 at once and 100 a second are welcome"
    )
    assert [answer.code for answer in _answers(reader) if isinstance(answer, CloseConnection)] == [1008]


def test_pings_of_an_upstream_that_behaves_are_never_too_many() -> None:
    """A ping a second, for a day, with a trade in two fragments each millisecond."""
    reader = inbound()
    fragments = frame(0x01, b"x" * 100) + frame(0x80, b"")
    for second in range(86_400):
        reader.feed(frame(0x89, b"") + fragments * (1000 if second % 8640 == 0 else 1), second)
    assert reader.ended is None


def test_only_the_newest_ping_is_owed_a_pong() -> None:
    """In one read or in several, with the goodbye behind it: answers do not pile up while sending is slow."""
    reader = inbound()
    reader.feed(frame(0x89, b"1") + frame(0x89, b"2"), 0)
    reader.feed(frame(0x89, b"3") + frame(0x88, struct.pack("!H", 1000)), 0)
    first, last = _answers(reader)
    assert first == Pong(payload=b"3")
    assert last.code == 1000


def test_a_long_frame_in_small_pieces_is_copied_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not once for each piece: the price of a message is that of its bytes."""
    reader, looked, whole = inbound(), 0, UpstreamReader._whole_texts

    def look(reader: UpstreamReader, buffer: bytes, characters: str, position: int) -> int:
        nonlocal looked
        looked += len(buffer)
        return whole(reader, buffer, characters, position)

    monkeypatch.setattr(UpstreamReader, "_whole_texts", look)
    sent = frame(0x81, b"x" * 60_000) + frame(0x81, b"y")
    for at in range(0, len(sent), 10):
        reader.feed(sent[at : at + 10], 0)
    assert list(reader.messages) == ["x" * 60_000, "y"]
    assert looked < 3 * len(sent)


def test_a_close_is_answered_and_told() -> None:
    """With the peer's code; later bytes are ignored."""
    reader = inbound()
    reader.feed(frame(0x88, struct.pack("!H", 1001) + b"bye") + frame(0x81, b"late"), 0)
    reader.feed(frame(0x81, b"later"), 0)
    assert reader.ended == "closed with 1001: bye"
    assert [answer.code for answer in _answers(reader)] == [1001]
    assert not reader.messages


@pytest.mark.parametrize(
    ("payload", "code", "words"),
    [
        (b"", 1005, "closed with 1005: no status rcvd"),
        (struct.pack("!H", 1000), 1000, "closed with 1000: normal closure"),
        (struct.pack("!H", 4000), 4000, "closed with 4000: no reason"),
    ],
)
def test_a_close_without_a_reason_is_named_and_answered_alike(payload: bytes, code: int, words: str) -> None:
    """By the name of its code; one without a code gets an answer without a code."""
    reader = inbound()
    reader.feed(frame(0x88, payload), 0)
    assert reader.ended == words
    assert [answer.code for answer in _answers(reader)] == [code]


def test_a_broken_protocol_is_told_to_the_peer() -> None:
    """Not taken for a close of the peer's."""
    reader = inbound()
    reader.feed(frame(0x81, b"\xff"), 0)
    assert reader.ended is not None
    assert reader.ended.startswith("the protocol was broken: ")
    assert [answer.code for answer in _answers(reader)] == [1007]


def test_a_ping_that_meets_our_goodbye_is_let_go() -> None:
    """Nothing may be sent behind a close frame: the rest of the stream is understood as before."""
    reader = inbound()
    reader._connection.send(CloseConnection(1000))
    reader.feed(frame(0x89, b"p") + frame(0x81, b"late") + frame(0x88, struct.pack("!H", 1000)), 0)
    assert reader.owed == []
    assert list(reader.messages) == ["late"]
    assert reader.ended is not None


def _events(stream: bytes) -> list[Any]:
    connection = Connection(ConnectionType.CLIENT)
    connection.receive_data(stream)
    return list(connection.events())


def _answers(reader: UpstreamReader) -> list[Any]:
    """The frames owed, as the peer reads them."""
    server = Connection(ConnectionType.SERVER)
    server.receive_data(b"".join(reader.owed))
    return [event for event in server.events() if not isinstance(event, BytesMessage)]
