"""Our frames are understood by wsproto, as the client, and we understand the frames of wsproto, in any pieces."""

from __future__ import annotations

import sys
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Message, Pong, TextMessage
from wsproto.events import Ping as PingEvent

from dataflow.net.allowance import A_SECOND, AT_ONCE
from dataflow.net.websocket.frames import (
    ControlQueue,
    Opcode,
    binary_frames,
    close_frame,
    control_frame,
    text_frame,
    text_frames,
)
from dataflow.net.websocket.parser import SMALL, FromPeer, Goodbye, Parser, Ping

texts = (
    st.text(max_size=40)
    | st.integers(120, 130).map("x".__mul__)
    | st.sampled_from([65535, 65536]).map("x".__mul__)
)
CLOSE_CODES = [1000, 1001, 1008, 1009, 1011, 1013, 3000, 4999]


def client_events(data: bytes) -> list[Event]:
    client = Connection(ConnectionType.CLIENT)
    client.receive_data(data)
    return list(client.events())


def reader_of(max_message_bytes: int = 1 << 20, *, binary: bool = False) -> Parser:
    """Of a client's bytes."""
    return Parser(masked=True, max_message_bytes=max_message_bytes, binary=binary)


def read(data: list[bytes], max_message_bytes: int = 1 << 20, *, binary: bool = False) -> list[FromPeer]:
    reader, seen = reader_of(max_message_bytes, binary=binary), list[FromPeer]()
    for piece in data:
        seen.extend(reader.feed(piece, 0))
        if seen and isinstance(seen[-1], Goodbye):
            break
    return seen


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in pairwise(edges) if a < b]


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 2047, 2048, 65535, 65536])
def test_every_length_is_framed_as_the_protocol_writes_it(length: int) -> None:
    """Short, medium and long headers, at their edges, alone and among others."""
    text = b"x" * length
    events = client_events(text_frames([b"a", text, b"b"]))
    assert "".join(event.data for event in events if isinstance(event, TextMessage)) == f"a{text.decode()}b"
    assert text_frames([text]) == text_frame(text)


@given(st.lists(texts, min_size=1, max_size=5))
def test_joined_frames_are_the_messages_in_order(messages: list[str]) -> None:
    """k texts leave as k whole messages, whatever their lengths, each as if framed alone."""
    encoded = [message.encode() for message in messages]
    joined = text_frames(encoded)
    assert joined == b"".join(map(text_frame, encoded))
    events = client_events(joined)
    assert all(isinstance(event, TextMessage) and event.message_finished for event in events)
    assert [event.data for event in events if isinstance(event, Message)] == messages


@given(st.binary(max_size=125))
def test_control_frames_carry_their_payload(payload: bytes) -> None:
    """Pings and pongs arrive with their payload."""
    frames = control_frame(Opcode.PING, payload) + control_frame(Opcode.PONG, payload)
    assert client_events(frames) == [PingEvent(payload=payload), Pong(payload=payload)]


def test_control_frame_that_is_too_long_is_refused() -> None:
    """A control frame holds 125 bytes; no client accepts a longer one."""
    with pytest.raises(ValueError, match="126 bytes"):
        control_frame(Opcode.PONG, bytes(126))


@given(st.sampled_from(CLOSE_CODES), st.text(max_size=200))
def test_close_frame_holds_the_code_and_as_much_of_the_reason_as_fits(code: int, reason: str) -> None:
    """The reason is cut between characters: a beginning of it arrives, in proper UTF-8."""
    [event] = client_events(close_frame(code, reason))
    assert isinstance(event, CloseConnection)
    assert event.code == code
    said = event.reason or ""
    assert reason.startswith(said)
    assert len(said.encode()) > 119 or said == reason


@pytest.mark.parametrize(("code", "said"), [(1005, 1005), (1006, 1011), (1015, 1011)])
def test_close_codes_that_must_not_be_sent_are_not(code: int, said: int) -> None:
    """1005 becomes a frame without a code; codes that can only be observed become an internal error."""
    [event] = client_events(close_frame(code, "why"))
    assert isinstance(event, CloseConnection)
    assert event.code == said


@st.composite
def conversations(draw: st.DrawFn) -> tuple[bytes, list[FromPeer]]:
    """The bytes of a client, fragmented and with pings in between, and their meaning."""
    client, data, meaning = Connection(ConnectionType.CLIENT), b"", list[FromPeer]()
    for fragments in draw(st.lists(st.lists(st.text(max_size=20), min_size=1, max_size=4), max_size=5)):
        for number, fragment in enumerate(fragments, 1):
            if draw(st.booleans()):
                payload = draw(st.binary(max_size=125))
                data += client.send(PingEvent(payload=payload))
                meaning.append(Ping(payload))
            data += client.send(TextMessage(data=fragment, message_finished=number == len(fragments)))
        meaning.append("".join(fragments))
    if draw(st.booleans()):
        data += client.send(CloseConnection(code=1000, reason="bye"))
        meaning.append(Goodbye(1000, "bye"))
    return data, meaning


@given(conversations(), st.lists(st.integers(min_value=0), max_size=8))
def test_client_is_understood_however_its_bytes_are_cut(
    conversation: tuple[bytes, list[FromPeer]], places: list[int]
) -> None:
    """Messages are whole and in order, pings in their places, in whichever pieces the bytes arrive."""
    data, meaning = conversation
    assert read(cut(data, places)) == meaning


@given(st.binary(max_size=300), st.lists(st.integers(min_value=0), max_size=5))
def test_garbage_ends_with_a_goodbye_or_waits_for_more(data: bytes, places: list[int]) -> None:
    """No bytes raise. Garbage gives one goodbye, the last thing read, with a code that may be sent."""
    seen = read(cut(data, places))
    assert not any(isinstance(each, Goodbye) for each in seen[:-1])
    if seen and isinstance(seen[-1], Goodbye) and seen[-1].fault:
        assert seen[-1].code in (1002, 1003, 1007)


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """One frame of a client, plain or with anything about it that may be wrong."""
    first = draw(st.sampled_from([0x81, 0x82, 0x88, 0x89, 0x8A]) | st.integers(0, 255))
    payload = draw(
        st.text(max_size=9).map(str.encode)
        | st.binary(max_size=9)
        | st.integers(120, 130).map(bytes)
        | st.sampled_from([b"", b"\x03\xe8", b"\x03\xe9", b"\x03\xedbye", b"\x0b\xb8"])
    )
    masked = 0 if draw(st.integers(0, 9)) == 0 else 0x80
    form = draw(st.sampled_from([0, 0, 0, 2, 8]))
    length = len(payload)
    if form == 0 and length < 126:
        header = bytes((first, masked | length))
    elif form == 8:
        header = bytes((first, masked | 127)) + length.to_bytes(8, "big")
    else:
        header = bytes((first, masked | 126)) + length.to_bytes(2, "big")
    mask = draw(st.binary(min_size=4, max_size=4))
    body = bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))
    return header + mask + body if masked else header + payload


def by_wsproto(data: bytes, binary: bool) -> list[FromPeer]:
    """What wsproto alone understands. A fault has the words "fault"."""
    server, seen, parts = Connection(ConnectionType.SERVER), list[FromPeer](), list[Any]()
    server.receive_data(data)
    for event in server.events():
        if isinstance(event, PingEvent):
            seen.append(Ping(bytes(event.payload)))
        elif isinstance(event, BytesMessage) and not binary:
            return [*seen, Goodbye(1003, "fault", fault=True)]
        elif isinstance(event, Message):
            parts.append(event.data)
            if event.message_finished:
                seen.append(parts[0][:0].join(parts))
                parts.clear()
        elif isinstance(event, CloseConnection):
            if server.state is ConnectionState.OPEN:  # it closes by itself
                return [*seen, Goodbye(int(event.code), "fault", fault=True)]
            return [*seen, Goodbye(int(event.code), event.reason or "")]
    return seen


def without_words(seen: list[FromPeer]) -> list[FromPeer]:
    """Faults with the words "fault"."""
    return [
        Goodbye(each.code, "fault", fault=True) if isinstance(each, Goodbye) and each.fault else each
        for each in seen
    ]


@settings(max_examples=400, deadline=None)
@given(st.lists(frames(), max_size=6), st.lists(st.integers(min_value=0), max_size=4), st.booleans())
def test_frames_mean_what_wsproto_says(sent: list[bytes], places: list[int], binary: bool) -> None:
    """Any frames, cut anywhere: the same result as if wsproto had parsed all of them."""
    data = b"".join(sent)
    assert without_words(read(cut(data, places), binary=binary)) == by_wsproto(data, binary)


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(["x", "é", "€", "😀"]) | st.just(""), min_size=1, max_size=8),
    st.integers(1, 12),
    st.lists(st.integers(min_value=0), max_size=8),
)
def test_bound_is_the_same_however_a_message_comes(parts: list[str], limit: int, places: list[int]) -> None:
    """In fragments that end inside a character, in pieces that end inside a frame: only its bytes count."""
    whole = "".join(parts).encode()
    edges = [0, *sorted(place % (len(whole) + 1) for place in places), len(whole)]
    client = Connection(ConnectionType.CLIENT)
    sent = b"".join(
        client.send(BytesMessage(data=whole[a:b], message_finished=number == len(edges) - 1))
        for number, (a, b) in enumerate(pairwise(edges), 1)
    )
    sent = bytes((sent[0] - 1,)) + sent[1:]  # a text
    [result] = read(cut(sent, places), limit)
    if len(whole) <= limit:
        assert result == whole.decode()
    else:
        assert isinstance(result, Goodbye)
        assert (result.code, result.fault) == (1009, True)


def test_binary_messages_where_they_are_spoken() -> None:
    """Whole or in fragments, they come as bytes beside texts; where only text is spoken they are a fault, 1003."""
    client, reader = Connection(ConnectionType.CLIENT), reader_of(70_000, binary=True)
    sent = [
        BytesMessage(data=b"\x00" * 200),
        TextMessage(data="text"),
        BytesMessage(data=b"a", message_finished=False),
        BytesMessage(data=b"b"),
    ]
    assert list(reader.feed(b"".join(map(client.send, sent)), 0)) == [b"\x00" * 200, "text", b"ab"]
    other = Connection(ConnectionType.CLIENT)
    assert read([other.send(BytesMessage(data=b"x"))]) == [Goodbye(1003, "text messages only", fault=True)]
    assert binary_frames([b"\x01", b"y" * 300]) == b"\x82\x01\x01\x82\x7e\x01\x2c" + b"y" * 300


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x81\x05hello", 1002),  # a client's frame that is not masked
        (b"\x83\x80aaaa", 1002),  # an opcode that does not exist
        (b"\xc1\x80aaaa", 1002),  # a reserved bit
        (b"\x09\x80aaaa", 1002),  # a fragmented ping
        (b"\x80\x80aaaa", 1002),  # the continuation of nothing
        (b"\x89\xfe\0\x7eaaaa" + bytes(126), 1002),  # a ping with more than it may hold
        (b"\x81\x81\0\0\0\0\xff", 1007),  # not UTF-8
        (b"\x88\x82\0\0\0\0\x03\xed", 1002),  # a close code that must not be sent
    ],
)
def test_each_broken_rule_has_its_code(data: bytes, code: int) -> None:
    """A peer that breaks the protocol is told which kind of rule it broke."""
    [goodbye] = read([data])
    assert isinstance(goodbye, Goodbye)
    assert (goodbye.code, goodbye.fault) == (code, True)


def test_binary_message_is_a_fault() -> None:
    """The service speaks text: 1003."""
    [goodbye] = read([bytes(Connection(ConnectionType.CLIENT).send(BytesMessage(data=b"x")))])
    assert goodbye == Goodbye(1003, "text messages only", fault=True)


@given(st.integers(1, 40), st.integers(1, 4), st.sampled_from("xé€"))
def test_bound_counts_the_bytes_of_the_whole_message(limit: int, fragments: int, character: str) -> None:
    """Exactly the limit passes, in any number of fragments; one byte more is 1009."""
    client = Connection(ConnectionType.CLIENT)
    data = b"".join(
        client.send(TextMessage(data=character, message_finished=number == fragments))
        for number in range(1, fragments + 1)
    )
    [result] = read([data], limit)
    if len(character.encode()) * fragments <= limit:
        assert result == character * fragments
    else:
        assert isinstance(result, Goodbye)
        assert (result.code, result.fault) == (1009, True)


COSTLY = {
    "pings": b"\x89\x80aaaa",
    "pongs": b"\x8a\x80aaaa",
    "empty fragments": b"\x00\x80aaaa",
    "fragments of a byte": b"\x00\x81aaaa" + b"a",
}


@pytest.mark.parametrize("costly", COSTLY)
def test_costly_frames_have_an_allowance(costly: str) -> None:
    """A thousand at once and a hundred a second are welcome. One more is a fault, 1008, with plain words."""
    reader, frame = reader_of(), COSTLY[costly]
    begun = b"\x01\xc0aaaa" + b"a" * SMALL  # a message, for the fragments

    def faults(count: int, now: float) -> list[FromPeer]:
        return [each for each in reader.feed(frame * count, now) if isinstance(each, Goodbye)]

    assert list(reader.feed(begun, 10)) == []
    assert faults(AT_ONCE, 10) == []
    for second in range(11, 40):
        assert faults(A_SECOND, second) == []
    assert faults(1, 39) == [
        Goodbye(
            1008,
            "too many control frames and small fragments: 1000 at once and 100 a second are welcome",
            fault=True,
        )
    ]


def test_fragments_that_are_not_small_are_free() -> None:
    """However many: their bytes are their price. So is the end of a message, of any size."""
    client, reader = Connection(ConnectionType.CLIENT), reader_of(1 << 20)
    fragment = client.send(TextMessage(data="x" * SMALL, message_finished=False))
    middle = client.send(TextMessage(data="x" * SMALL, message_finished=False))
    end = client.send(TextMessage(data=""))
    assert list(reader.feed(fragment + middle * 3 * AT_ONCE + end, 0)) == ["x" * SMALL * (3 * AT_ONCE + 1)]
    assert list(reader.feed((fragment + end) * 3 * AT_ONCE, 0)) == ["x" * SMALL] * 3 * AT_ONCE


def test_a_message_that_comes_costs_the_memory_of_its_bytes() -> None:
    """Also in the smallest fragments, and characters of several bytes: nothing is kept for each of them."""
    reader = reader_of(1 << 20)
    list(reader.feed(b"\x01\x81\0\0\0\0\xc3", 0))
    for second in range(1, 101):
        list(reader.feed((b"\x00\x80\0\0\0\0" + b"\x00\x82\0\0\0\0\xa9\xc3") * 50, second))
    assert reader._joined is not None
    assert sys.getsizeof(reader._joined) < 2 * 10_001
    assert list(reader.feed(b"\x80\x81\0\0\0\0\xa9", 101)) == ["é" * 5001]


def test_bound_is_for_each_message_alone() -> None:
    """Many short messages are not one long one."""
    client = Connection(ConnectionType.CLIENT)
    data = b"".join(client.send(TextMessage(data="12345")) for _ in range(10))
    assert read([data], 5) == ["12345"] * 10


puts = st.tuples(st.sampled_from([Opcode.PING, Opcode.PONG]), st.binary(max_size=5))


@given(st.lists(puts | st.integers(0, 12), max_size=30))
@example([(Opcode.PONG, b"12345"), 1] * 10)
def test_control_frames_are_never_cut_short_or_mixed(steps: list[tuple[Opcode, bytes] | int]) -> None:
    """However little is taken at a time, whole frames leave, and the last ping put is answered."""
    queue, out, last = ControlQueue(), b"", dict[Opcode, bytes]()
    for step in steps:
        if isinstance(step, int):
            count = min(step, len(queue.waiting()))
            out += queue.waiting()[:count]
            queue.sent(count)
        else:
            opcode, payload = step
            queue.put(opcode, control_frame(opcode, payload))
            last[opcode] = payload
        assert len(queue.waiting()) <= 2 * 7
    while queue:
        out += queue.waiting()
        queue.sent(len(queue.waiting()))
    seen = {
        Opcode.PING if isinstance(e, PingEvent) else Opcode.PONG: bytes(e.payload) for e in _controls(out)
    }
    assert seen == last


def _controls(data: bytes) -> list[PingEvent | Pong]:
    events = client_events(data)
    controls = [event for event in events if isinstance(event, PingEvent | Pong)]
    assert len(controls) == len(events)
    return controls


def test_nothing_follows_a_close_frame() -> None:
    """A pong put behind a close frame is not sent: the peer must see nothing after it."""
    queue = ControlQueue()
    queue.put(Opcode.CLOSE, close_frame(1000, ""))
    queue.put(Opcode.PONG, control_frame(Opcode.PONG))
    assert queue.waiting() == close_frame(1000, "")
