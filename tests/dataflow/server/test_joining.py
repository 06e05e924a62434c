"""Joined frames mean the same as those that came."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dataflow.server.joining import MOST, Joiner

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, WINDOW_UPDATE = 0, 1, 8
END_STREAM, PADDED = 1, 8
LEAST = 8

frames = st.lists(
    st.tuples(
        st.sampled_from([DATA, DATA, DATA, HEADERS, WINDOW_UPDATE]),
        st.sampled_from([0, 0, 0, END_STREAM, PADDED]),
        st.sampled_from([1, 3]),
        st.binary(max_size=40) | st.sampled_from([bytes(LEAST), b"x" * 9000, b"y" * MOST]),
    ),
    max_size=30,
)


def written(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def read(data: bytes) -> list[tuple[int, int, int, bytes]]:
    assert data.startswith(PREFACE)
    found, at = [], len(PREFACE)
    while at < len(data):
        size = int.from_bytes(data[at : at + 3], "big")
        stream = int.from_bytes(data[at + 5 : at + 9], "big")
        found.append((data[at + 3], data[at + 4], stream, data[at + 9 : at + 9 + size]))
        at += 9 + size
    return found


def run_together(each: list[tuple[int, int, int, bytes]]) -> list[tuple[int, int, int, bytes]]:
    """What the frames mean: data of one stream in a row is one piece of data."""
    found: list[tuple[int, int, int, bytes]] = []
    for kind, flags, stream, payload in each:
        if found and (kind, flags) == (DATA, 0) and found[-1][:3] == (DATA, 0, stream):
            found[-1] = (DATA, 0, stream, found[-1][3] + payload)
        else:
            found.append((kind, flags, stream, payload))
    return found


@given(frames, st.lists(st.integers(1, 60)))
def test_the_same_frames_come_out(sent: list[tuple[int, int, int, bytes]], cuts: list[int]) -> None:
    """Whatever comes, cut anyhow: other frames at their places, and the data of each stream byte for byte."""
    data, joiner, got = PREFACE + b"".join(written(*each) for each in sent), Joiner(LEAST), b""
    for size in cuts:
        got += joiner.join(data[:size])
        data = data[size:]
    got += joiner.join(data)
    assert run_together(read(got)) == run_together(sent)
    assert all(len(payload) <= MOST for *_, payload in read(got))


@given(st.binary(max_size=300))
def test_any_bytes_pass(data: bytes) -> None:
    """Nothing is raised, and nothing is lost or made up where there is nothing to join."""
    joined = Joiner(1 << 24).join(PREFACE + data)
    assert joined == PREFACE + data


def test_many_small_messages_become_few_frames() -> None:
    """A hundred of 32 bytes, one in a frame, are one frame; shorter ones stay as they are, for the meter."""
    joined = Joiner(29).join(PREFACE + written(DATA, 0, 1, bytes(32)) * 100)
    assert read(joined) == [(DATA, 0, 1, bytes(3200))]
    alone = PREFACE + written(DATA, 0, 1, bytes(28)) * 100
    assert Joiner(29).join(alone) == alone
    full = Joiner(29).join(PREFACE + written(DATA, 0, 1, bytes(9000)) * 2)
    assert [len(payload) for *_, payload in read(full)] == [9000, 9000]
