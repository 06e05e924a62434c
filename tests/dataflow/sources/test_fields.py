"""Promises of dataflow.sources.fields."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.domain.timestamps import LATEST, to_rfc3339
from dataflow.sources.fields import (
    PositiveDecimals,
    from_microseconds,
    from_seconds,
    from_text,
    identifier,
    json_number,
    one_of,
    whole,
)
from dataflow.sources.reading import Unusable

times = st.integers(1, LATEST - 1).map(lambda ns: ns % (2**53 * 1000) or 1)


@given(times)
def test_seconds_with_a_fraction_are_read_exactly(ns: int) -> None:
    """With all nine decimals, and with as many as are not zero."""
    text = f"{ns // 10**9}.{ns % 10**9:09d}"
    assert from_seconds(text) == from_seconds(text.rstrip("0").rstrip(".")) == ns
    assert from_seconds(f"{text}999") == ns  # what is finer is cut off


@given(times.map(lambda ns: ns // 1000 or 1))
def test_times_of_other_forms_are_read_exactly(us: int) -> None:
    """Numbers and texts of microseconds, and RFC 3339."""
    assert (
        from_microseconds(us) == from_microseconds(str(us)) == from_text(to_rfc3339(us * 1000)) == us * 1000
    )


@given(st.integers(1, 2**64 - 1))
def test_a_number_that_is_a_name_stays_the_same_text(number: int) -> None:
    """However large; as a number or as a text."""
    assert identifier(number) == identifier(str(number)) == str(number)


def test_a_number_of_json_keeps_its_digits() -> None:
    """Also its zeros."""
    number = json_number(msgspec.Raw(b"40.00"), PositiveDecimals(), "bad")
    assert (number, str(number)) == (Decimal(40), "40.00")


ALL: list[Callable[[Any], Any]] = [
    from_seconds,
    from_microseconds,
    from_text,
    identifier,
    lambda value: one_of(value, {"buy": 1, 0: 2}, "bad"),
    lambda value: whole(value, "bad"),
]


@pytest.mark.parametrize("read", ALL)
@given(
    value=st.booleans()
    | st.floats()
    | st.binary(max_size=5)
    | st.lists(st.text(max_size=3), max_size=2)
    | st.dictionaries(st.text(max_size=3), st.none(), max_size=2)
    | st.sampled_from(["", " 1", "1 ", "+1", "-1", "\u0661", "1_0", "1e3", "0x1", ".5", "5.", 2**64, -1])
)
def test_anything_else_is_refused_under_a_name(read: Callable[[Any], Any], value: Any) -> None:
    """No text is stripped, no number is rounded, and a truth is no number."""
    with pytest.raises(Unusable, match="bad"):
        read(value)


@pytest.mark.parametrize("read", ALL)
def test_nothing_is_a_missing_field(read: Callable[[Any], Any]) -> None:
    """Whatever should have been there."""
    with pytest.raises(Unusable, match="missing_field"):
        read(None)
