"""Promises of server.metering: pure, with frames written by hand."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow.net.allowance import A_SECOND, AT_ONCE
from dataflow.server.metering import COST_AT_ONCE, REQUEST_COST, SMALL, Meter

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RESET, SETTINGS, PING, GOAWAY, WINDOW, CONTINUATION = 0, 1, 2, 3, 4, 6, 7, 8, 9
END_STREAM = 1


def frame(kind: int, payload: bytes = b"", flags: int = 0, stream: int = 0) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


COSTLY = {
    "settings": frame(SETTINGS),
    "pings": frame(PING, bytes(8)),
    "windows": frame(WINDOW, b"\0\0\0\1"),
    "resets": frame(RESET, bytes(4), stream=1),
    "priorities": frame(PRIORITY, bytes(5), stream=1),
    "continuations": frame(CONTINUATION, b"x", stream=1),
    "empty data": frame(DATA, stream=1),
    "data of a byte": frame(DATA, b"x", stream=1),
    "goodbyes": frame(GOAWAY, bytes(8)),
    "an unknown kind": frame(200),
}


def begun() -> Meter:
    meter = Meter()
    assert list(meter.pieces(PREFACE, 0)) == [PREFACE]
    return meter


def exceeds(meter: Meter, data: bytes, now: float) -> bool:
    for _ in meter.pieces(data, now):
        pass
    return meter.exceeded


@pytest.mark.parametrize("costly", COSTLY)
def test_costly_frames_have_an_allowance(costly: str) -> None:
    """A thousand at once and a hundred a second are welcome; one more is not."""
    meter = begun()
    assert not exceeds(meter, COSTLY[costly] * AT_ONCE, 10)
    for second in range(11, 40):
        assert not exceeds(meter, COSTLY[costly] * A_SECOND, second)
    assert exceeds(meter, COSTLY[costly], 39)


def test_nothing_behind_the_allowance_is_passed_on() -> None:
    """Up to the frame that was too many, the library gets all."""
    meter = begun()
    assert b"".join(meter.pieces(COSTLY["pings"] * 5 * AT_ONCE, 0)) == COSTLY["pings"] * AT_ONCE


def test_what_a_client_does_because_we_sent_is_free() -> None:
    """A busy download: for each of our sends it opens the window of the stream, and of the connection."""
    meter = begun()
    for _ in range(100 * AT_ONCE):
        meter.sent()
        assert not exceeds(meter, COSTLY["windows"] * 2, 0)


def test_an_upload_and_requests_are_free() -> None:
    """Data has its price in bytes, an end comes once a request, and requests have other bounds."""
    meter = begun()
    request = frame(HEADERS, bytes(30)) + frame(DATA, bytes(SMALL)) * 3 + frame(DATA, b"", END_STREAM)
    assert not exceeds(meter, request * 2 * AT_ONCE, 0)


def test_a_piece_costs_little() -> None:
    """Whatever the frames, the loop has a turn after a few of them."""
    meter = begun()
    assert {len(piece) for piece in meter.pieces(COSTLY["settings"] * 320, 0)} == {9 * COST_AT_ONCE}
    request = frame(HEADERS, bytes(20))
    pieces = list(meter.pieces(request * 40, 0))
    assert sum(map(len, pieces)) == 40 * len(request)
    assert max(map(len, pieces)) <= len(request) * COST_AT_ONCE // REQUEST_COST


frames = st.builds(frame, st.sampled_from([DATA, HEADERS, SETTINGS, PING]), st.binary(max_size=60))


@settings(deadline=None)
@given(st.lists(frames, max_size=200), st.lists(st.integers(min_value=0), max_size=12))
def test_bytes_pass_as_they_are_however_they_are_cut(sent: list[bytes], places: list[int]) -> None:
    """All of them, in order; and every frame is counted once."""
    data = PREFACE + b"".join(sent)
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    meter, whole = Meter(), Meter()
    passed = [piece for a, b in pairwise(edges) if a < b for piece in meter.pieces(data[a:b], 0)]
    assert b"".join(passed) == data
    assert list(whole.pieces(data, 0))
    assert meter._allowance._taken == whole._allowance._taken


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_http_1_passes_whole(first: bytes, second: bytes) -> None:
    """Also when it begins like the preface of HTTP/2, and at the end of the connection."""
    meter = Meter()
    assert list(meter.pieces(b"POST " + first, 0)) == [b"POST " + first]
    assert list(meter.pieces(second, 0)) == [second]
    assert list(meter.pieces(COSTLY["settings"] * 2 * AT_ONCE, 0)) == [COSTLY["settings"] * 2 * AT_ONCE]
    assert list(meter.pieces(b"", 0)) == [b""]
    assert not meter.exceeded
