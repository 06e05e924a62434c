"""Promises of domain.timestamps."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dataflow.domain.timestamps import from_rfc3339, to_rfc3339

EARLIEST = from_rfc3339("0001-01-01T00:00:00Z")
LATEST = from_rfc3339("9999-12-31T23:59:59.999999999Z")


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2020-05-10T18:33:36.696315Z", 1_589_135_616_696_315_000),
        ("2020-05-10T20:33:36.696315+02:00", 1_589_135_616_696_315_000),
        ("2020-05-10T13:03:36.696315-05:30", 1_589_135_616_696_315_000),
        ("1970-01-01T00:00:00-00:00", 0),
        ("1970-01-01t00:00:00z", 0),
        ("1970-01-01T00:00:00.000000001Z", 1),
        ("1970-01-01T00:00:00.1Z", 100_000_000),
        ("1969-12-31T23:59:59.999999999Z", -1),
        ("2024-02-29T00:00:00Z", 1_709_164_800_000_000_000),
    ],
)
def test_every_form_of_rfc3339_is_read_exactly(text: str, nanoseconds: int) -> None:
    """Offsets, lower case and 0 to 9 fractional digits give the exact nanosecond."""
    assert from_rfc3339(text) == nanoseconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2020-05-10",
        "2020-05-10T18:33:36",
        "2020-05-10 18:33:36Z",
        "2020-05-10T18:33:36.Z",
        "2020-05-10T18:33:36.1234567890Z",
        "2020-05-10T18:33:36,5Z",
        "2020-05-10T18:33Z",
        "2020-5-10T18:33:36Z",
        "2020-05-10T24:00:00Z",
        "2016-12-31T23:59:60Z",
        "2023-02-29T00:00:00Z",
        "0000-01-01T00:00:00Z",
        "2020-05-10T18:33:36+24:00",
        "2020-05-10T18:33:36+02:60",
        "2020-05-10T18:33:36+0200",
        "2020-05-10T18:33:36Z ",
        "2020-05-10T18:33:36Z\n",
        " 2020-05-10T18:33:36Z",
        "٢٠٢٠-05-10T18:33:36Z",
        "2020-05-10T18:33:36.٢Z",
        "0001-01-01T00:00:00+00:01",
        "9999-12-31T23:59:59-00:01",
        "1589135616",
    ],
)
def test_other_text_than_rfc3339_is_refused(text: str) -> None:
    """Nothing is repaired: the declared error is raised."""
    with pytest.raises(ValueError, match=r".+"):
        from_rfc3339(text)


@given(st.text(alphabet="0123456789-:.TZtz+ ", max_size=40) | st.text(max_size=40))
def test_no_text_raises_anything_but_the_declared_error(text: str) -> None:
    """Fuzz: a number or ValueError."""
    try:
        from_rfc3339(text)
    except ValueError:
        return


@given(st.integers(EARLIEST, LATEST))
@example(EARLIEST)
@example(LATEST)
@example(-1)
def test_formatting_loses_only_what_is_finer_than_a_microsecond(nanoseconds: int) -> None:
    """The text reads back as the same microsecond, cut and not rounded."""
    text = to_rfc3339(nanoseconds)
    assert from_rfc3339(text) == nanoseconds // 1000 * 1000
    assert len(text) == len("2020-05-10T18:33:36.696315Z")


@given(st.datetimes(timezones=st.just(UTC)), st.integers(-23 * 60 - 59, 23 * 60 + 59))
def test_reading_agrees_with_datetime(moment: datetime, minutes: int) -> None:
    """An independent implementation reads the same instant, for any offset."""
    shown = moment.replace(tzinfo=None)
    sign = "-" if minutes < 0 else "+"
    text = f"{shown.isoformat(timespec='microseconds')}{sign}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"
    since_epoch = (shown - datetime(1970, 1, 1)) - timedelta(minutes=minutes)
    expected = since_epoch // timedelta(microseconds=1) * 1000
    if EARLIEST <= expected <= LATEST:
        assert from_rfc3339(text) == expected
    else:
        with pytest.raises(ValueError, match="outside the years"):
            from_rfc3339(text)


@pytest.mark.parametrize("nanoseconds", [EARLIEST - 1, LATEST + 1, 10**30])
def test_a_year_that_has_no_four_digits_is_refused(nanoseconds: int) -> None:
    """The declared error, not an overflow."""
    with pytest.raises(ValueError, match="outside the years"):
        to_rfc3339(nanoseconds)
