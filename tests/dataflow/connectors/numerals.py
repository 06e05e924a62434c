"""Texts that are, or look like, or are nearly the number of a trade."""

from __future__ import annotations

from hypothesis import strategies as st

_EDGES = (
    *("1", "0", "0.0", "-1", "+1", "01", "00.5", ".5", "1.", "1_0", " 1", "1 ", "\u0661"),
    *("1e5", "1E-7", "5.892E-4", "1e400", "0e5", "1e007"),
    *("NaN", "sNaN", "Infinity", "", "null", '"1"', "0x1"),
    *("1" * 40, "1" * 41, f"1.{'0' * 40}", f"1.{'0' * 41}", "9" * 10**6),
)
numerals = st.sampled_from(_EDGES) | st.from_regex(
    r"-?[0-9]{0,42}\.?[0-9]{0,42}([eE][+-]?[0-9]{1,4})?", fullmatch=True
)
