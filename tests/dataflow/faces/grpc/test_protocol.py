"""The words of gRPC, from its specification ("gRPC over HTTP2")."""

from __future__ import annotations

from contextlib import suppress
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.faces.grpc.protocol import (
    MAX_MESSAGE_BYTES,
    CallFailed,
    Messages,
    Status,
    percent_encoded,
    prefixed,
    speaks_grpc,
    timeout,
    trailers,
)


def test_a_message_has_a_flag_and_its_length_in_front() -> None:
    """One byte 0 and four bytes of length, the highest first."""
    assert prefixed(b"") == b"\0\0\0\0\0"
    assert prefixed(b"abc") == b"\0\0\0\0\x03abc"
    assert prefixed(b"x" * 0x010203)[:5] == b"\0\0\x01\x02\x03"


@given(st.lists(st.binary(max_size=40)), st.lists(st.integers(1, 30)))
def test_messages_come_whole_however_they_are_cut(sent: list[bytes], cuts: list[int]) -> None:
    """Every message, in order, and nothing else: many in a piece, a piece of one, an empty one."""
    data, cutter = b"".join(map(prefixed, sent)), Messages()
    got: list[bytes] = []
    for size in cuts:
        got += cutter.take(data[:size])
        data = data[size:]
    got += cutter.take(data)
    cutter.end()
    assert got == sent
    assert not cutter.begun


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x01\0\0\0\x01a", Status.UNIMPLEMENTED),  # compressed
        (b"\x02\0\0\0\x01a", Status.INTERNAL),
        (b"\xff\0\0\0\0", Status.INTERNAL),
        (b"\0" + (MAX_MESSAGE_BYTES + 1).to_bytes(4, "big"), Status.RESOURCE_EXHAUSTED),
        (b"\0\xff\xff\xff\xff", Status.RESOURCE_EXHAUSTED),
    ],
)
def test_what_cannot_be_taken_ends_the_call_before_its_bytes_come(sent: bytes, status: Status) -> None:
    """An announced length alone is enough to refuse it, so nothing of it stands in memory."""
    cutter = Messages()
    assert cutter.take(prefixed(b"good") + sent) == [b"good"]  # what came before is not lost
    with pytest.raises(CallFailed) as failed:
        cutter.take(b"")
    assert failed.value.status is status


def test_the_longest_message_is_taken() -> None:
    """4 MiB are within the bound, one byte more is not."""
    whole = prefixed(b"x" * MAX_MESSAGE_BYTES)
    cutter = Messages()
    assert cutter.take(whole[:100]) == []
    assert cutter.begun
    assert [len(message) for message in cutter.take(whole[100:])] == [MAX_MESSAGE_BYTES]


@pytest.mark.parametrize("sent", [b"\0", b"\0\0\0\0", b"\0\0\0\0\x02", b"\0\0\0\0\x02a"])
def test_an_end_in_the_middle_of_a_message_is_a_failure(sent: bytes) -> None:
    """Half a message is never taken for one."""
    cutter = Messages()
    assert cutter.take(sent) == []
    with pytest.raises(CallFailed) as failed:
        cutter.end()
    assert failed.value.status is Status.INTERNAL


@given(st.lists(st.binary()))
def test_bytes_are_taken_or_refused_with_a_status(pieces: list[bytes]) -> None:
    """No bytes of a client raise anything but CallFailed."""
    cutter = Messages(most=64)
    with suppress(CallFailed):
        for piece in pieces:
            cutter.take(piece)
        cutter.end()


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        (b"1H", 3600.0),
        (b"2M", 120.0),
        (b"3S", 3.0),
        (b"250m", 0.25),
        (b"1000u", 0.001),
        (b"99999999n", 0.099999999),
        (b"0S", 0.0),
    ],
)
def test_a_deadline_is_read_in_every_unit(written: bytes, seconds: float) -> None:
    """grpc-timeout: at most eight digits and a unit."""
    assert timeout(written) == pytest.approx(seconds)


@given(st.binary())
def test_a_deadline_without_sense_is_refused(written: bytes) -> None:
    """It is never taken for no deadline."""
    with suppress(CallFailed):
        assert 0 <= timeout(written) < 4e11


@pytest.mark.parametrize("written", [b"", b"S", b"1", b"1s", b"-1S", b"1.5S", b"123456789S", b"1S ", b"1S\n"])
def test_deadlines_that_are_refused(written: bytes) -> None:
    """Small letters mean other units; nothing is guessed."""
    with pytest.raises(CallFailed):
        timeout(written)


@given(st.text())
def test_words_of_a_status_come_back(words: str) -> None:
    """Percent-encoding of UTF-8, printable ASCII but for the percent sign as it is."""
    encoded = percent_encoded(words[:1000])
    assert all(0x20 <= byte <= 0x7E for byte in encoded)
    assert unquote(encoded.decode(), errors="strict") == words[:1000].encode("utf-8", "replace").decode()


def test_trailers_are_those_of_the_specification() -> None:
    """Status, message, and the pushback of clients that try again, in milliseconds."""
    assert trailers(Status.OK) == [(b"grpc-status", b"0")]
    assert trailers(Status.NOT_FOUND, "Symbol not found: 100% \u00e9\n") == [
        (b"grpc-status", b"5"),
        (b"grpc-message", b"Symbol not found: 100%25 %C3%A9%0A"),
    ]
    assert trailers(Status.UNAVAILABLE, "full", 1.5) == [
        (b"grpc-status", b"14"),
        (b"grpc-message", b"full"),
        (b"grpc-retry-pushback-ms", b"1500"),
    ]
    assert len(percent_encoded("x" * 5000)) == 1003


@pytest.mark.parametrize(
    ("content_type", "ours"),
    [
        (b"application/grpc", True),
        (b"application/grpc+proto", True),
        (b"Application/gRPC; charset=utf-8", True),
        (b"application/grpc+json", False),
        (b"application/grpc-web", False),
        (b"application/grpcx", False),
        (b"application/json", False),
        (b"", False),
    ],
)
def test_content_types(content_type: bytes, ours: bool) -> None:
    """Messages of protobuf are all that is understood."""
    assert speaks_grpc(content_type) is ours
