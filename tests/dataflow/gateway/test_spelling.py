"""Numbers as other systems write them."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.gateway.spelling import amount, milliseconds


@pytest.mark.parametrize(
    ("number", "text"),
    [
        ("15", "15"),
        ("15.00000000", "15"),
        ("3.02510000", "3.0251"),
        ("100", "100"),
        ("1E+3", "1000"),
        ("1E-9", "0.000000001"),
        ("0.000", "0"),
        ("12345678901234567890123456789.10", "12345678901234567890123456789.1"),
    ],
)
def test_an_amount_is_written_as_a_person_writes_it(number: str, text: str) -> None:
    """Without an exponent; who reads a whole one as an integer can."""
    assert amount(Decimal(number)) == text


@given(st.decimals(allow_nan=False, allow_infinity=False))
def test_an_amount_is_exact(number: Decimal) -> None:
    """All that it is worth."""
    assert Decimal(amount(number)) == number


def test_milliseconds_are_cut_off() -> None:
    """A time is never later than it was."""
    assert milliseconds(1_735_201_234_567_999_999) == 1_735_201_234_567
