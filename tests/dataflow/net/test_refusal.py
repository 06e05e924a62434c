"""How long a refusal asks us to wait."""

from __future__ import annotations

import pytest

from dataflow.net.refusal import LONGEST, retry_after

NOW = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT


@pytest.mark.parametrize(
    ("status", "written", "wait"),
    [
        (429, "60", 60),
        (418, "120", 120),
        (503, "0", 0),
        (503, "Tue, 14 Nov 2023 22:14:20 GMT", 60),
        (429, "Tue, 14 Nov 2023 22:13:00 GMT", 0),
        (429, "Fri, 14 Nov 2098 22:13:00 GMT", LONGEST),
        (429, "9" * 5000, LONGEST),
        (429, "-5", 0),
        (429, "1.5", 0),
        (429, "soon", 0),
        (429, "\u0663", 0),
        (429, "Tue, 99 Nov 2023 22:14:20 GMT", 0),
        (301, "60", 0),
        (500, "60", 0),
    ],
)
def test_a_wait_is_understood(status: int, written: str, wait: float) -> None:
    """Seconds or a date, of the answers that ask for a wait; bounded; nonsense is ignored."""
    headers = [(b"Retry-After", written.encode("utf-8"))]
    assert retry_after(status, headers, NOW) == wait


def test_a_date_is_compared_with_the_clock_that_wrote_it() -> None:
    """An answer with a date of its own: a difference of the clocks does not count."""
    headers = [
        (b"date", b"Tue, 14 Nov 2023 10:00:00 GMT"),
        (b"retry-after", b"Tue, 14 Nov 2023 10:00:30 GMT"),
    ]
    assert retry_after(429, headers, NOW) == 30
