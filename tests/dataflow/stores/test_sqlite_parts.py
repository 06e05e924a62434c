"""Blocks as bytes: what is read is what was written, or nothing."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.cache.archive import Run
from dataflow.stores.sqlite.parts import Damaged, Part, Press, joined, laid

from .shelf import gap, run, trade


def test_no_wrong_bit_goes_unnoticed() -> None:
    """Wherever it is: in the header of the frame, in what is compressed, in the checksum."""
    press = Press()
    written = [Part.of(run(5, 30))]
    frame = press.frame(written)
    for bit in range(len(frame) * 8):
        harmed = bytearray(frame)
        harmed[bit // 8] ^= 1 << bit % 8
        with suppress(Damaged):
            assert press.parts(bytes(harmed)) == written, "some bits of the header mean nothing"


@pytest.mark.parametrize("frame", [b"", b"\x00" * 99, b"(\xb5/\xfd" + b"\xff" * 30, "text", None, 5])
def test_what_is_no_frame_is_damaged(frame: object) -> None:
    """Whatever a damaged row holds, and however much memory it asks for."""
    with pytest.raises(Damaged):
        Press().parts(frame)


def test_a_cut_frame_is_damaged() -> None:
    """At any byte; and so is one with more bytes behind it."""
    press = Press()
    frame = press.frame([Part.of(run(1, 9))])
    for harmed in [*(frame[:at] for at in range(len(frame))), frame + b"\x00"]:
        with pytest.raises(Damaged):
            press.parts(harmed)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=9))
def test_parts_are_joined_without_being_read(sizes: list[int]) -> None:
    """The whole is that of one run."""
    parts, first = [], 1
    for size in sizes:
        parts.append(Part.of(run(first, first + size - 1)))
        first += size
    assert joined(parts) == Part.of(run(1, first - 1))


@given(st.sets(st.integers(1, 12)))
def test_fills_are_laid_over_gaps_only(places: set[int]) -> None:
    """What is not filled stays a gap, with its sequence; a trade stays what it is."""
    before = [(1, trade(1)), (5, gap(2, 5)), (6, trade(6)), (10, gap(7, 10))]
    fill = [(place, trade(place, 99_000 + place)) for place in sorted(places)]
    found = list(laid(before, fill))
    at = 0
    for last, entry in found:
        if last in (1, 6):
            assert entry == trade(last)
        elif last in places:
            assert entry == trade(last, 99_000 + last)
        else:
            assert entry == gap(at + 1, last)
        at = last
    assert at == 10
    assert Run.of("BTC-USD", found).first == 1
