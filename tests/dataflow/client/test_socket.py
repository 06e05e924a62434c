"""The frames of a server: read in any pieces, and whatever is no frame ends the connection and nothing else."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.client.socket import Inbound, Lost, frame


def served(payload: bytes, first: int = 0x81) -> bytes:
    """A frame of a server: without a mask."""
    length = len(payload)
    if length < 126:
        return bytes((first, length)) + payload
    if length < 1 << 16:
        return bytes((first, 126)) + length.to_bytes(2) + payload
    return bytes((first, 127)) + length.to_bytes(8) + payload


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in pairwise(places)]


@given(
    texts=st.lists(st.one_of(st.text(max_size=300), st.just("x" * 70_000)), max_size=8),
    cuts=st.lists(st.integers(0, 1 << 20), max_size=20),
    parts=st.integers(1, 3),
)
def test_messages_come_whole_however_they_are_cut(texts: list[str], cuts: list[int], parts: int) -> None:
    """In one frame or in several, with a ping between the frames of a message; each ping gets its pong."""
    wanted = [text.encode() for text in texts]
    stream = b""
    for message in wanted:
        step = max(1, -(-len(message) // parts))
        frames = [message[at : at + step] for at in range(0, len(message), step)] or [b""]
        for number, part in enumerate(frames):
            first = (0x1 if number == 0 else 0) | (
                0x80 if part is frames[-1] and number == len(frames) - 1 else 0
            )
            stream += served(part, first) + (served(b"!", 0x89) if len(frames) > 1 else b"")
    inbound = Inbound()
    got = [message for piece in pieces(stream, cuts) for message in inbound.take(piece)]
    assert got == wanted
    assert all(reply[0] == 0x8A for reply in inbound.replies)


@given(data=st.binary(max_size=400), cuts=st.lists(st.integers(0, 400), max_size=5))
def test_any_bytes_are_messages_or_the_end(data: bytes, cuts: list[int]) -> None:
    """Never another error, and what is held is bounded."""
    inbound = Inbound(largest=64)
    with suppress(Lost):
        for piece in pieces(data, cuts):
            for message in inbound.take(piece):
                assert len(message) <= 64


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(served(b"x", 0x82), 1003, id="bytes"),
        pytest.param(served(b"x", 0xC1), 1002, id="a reserved bit"),
        pytest.param(served(b"x", 0x80), 1002, id="a continuation of nothing"),
        pytest.param(served(b"x", 0x01) + served(b"x", 0x81), 1002, id="a message within another"),
        pytest.param(served(b"x" * 126, 0x89), 1002, id="a long ping"),
        pytest.param(frame(0x1, b"masked"), 1002, id="a mask"),  # it is random: no name of a test
        pytest.param(served(b"x" * 201), 1009, id="a long message"),
        pytest.param(b"\x01\x00" + b"\x00\x00" * 210, 1009, id="many empty parts"),
    ],
)
def test_what_no_server_sends(data: bytes, code: int) -> None:
    """Each is named, with the code that RFC 6455 has for it."""
    with pytest.raises(Lost) as lost:
        Inbound(largest=200).take(data)
    assert lost.value.code == code


@pytest.mark.parametrize(
    ("payload", "code", "reason"),
    [((1001).to_bytes(2) + b"bye", 1001, "bye"), (b"", 1005, "closed with 1005"), ((1013).to_bytes(2), 1013, "closed with 1013")],
)  # fmt: skip
def test_a_close_says_why(payload: bytes, code: int, reason: str) -> None:
    """What came before it is given out first."""
    inbound = Inbound()
    assert inbound.take(served(b"last") + served(payload, 0x88)) == [b"last"]
    assert inbound.closed is not None
    assert (inbound.closed.code, inbound.closed.reason) == (code, reason)
