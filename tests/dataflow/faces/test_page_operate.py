"""The parts of the operator's views that need no browser: the lines of figures, and lists under a pointer."""

from __future__ import annotations

from tests.dataflow.faces.test_page import evaluate


def test_a_missing_sample_is_a_hole_in_the_line() -> None:
    """Each sample is a point, at its place and height; a line never crosses a hole; a lone sample is a dot."""
    series = [[0, 2, None, 1, None, 2], 2, 6], [[1, 2], 2, 5], [[], 2, 5], [[None], 0, 5], [[0], 0, 2]
    assert evaluate("plot.js", "given.map(each => m.line(...each))", list(series)) == [
        "M0.0 100.0h0L200.0 0.0M600.0 50.0h0M1000.0 0.0h0",
        "M750.0 50.0h0L1000.0 0.0",
        "",
        "",
        "M1000.0 100.0h0",
    ]


def test_a_list_under_the_pointer_keeps_its_rows() -> None:
    """Rows keep their places and get their news; who left is null, who is new waits, and both are counted."""
    before, after = [["a", 1], ["b", 2], ["c", 3]], [["c", 5], ["d", 6], ["a", 4]]
    given = [[{"held": True}, before, after], [{"held": False}, before, after], [{"held": True}, [], after]]
    told = evaluate("steady.js", "given.map(each => m.settled(...each))", given)
    fresh = {"items": after, "late": 0}
    assert told == [{"items": [["a", 4], ["b", None], ["c", 5]], "late": 2}, fresh, fresh]
