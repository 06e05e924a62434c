"""Promises of domain.notice."""

from __future__ import annotations

from typing import get_args

import attrs
import pytest

from dataflow.domain.notice import (
    Draining,
    Notice,
    Refused,
    SourceLost,
    SourceRestored,
    StreamSwitched,
    SymbolsChanged,
    Waiting,
)

EXAMPLES: list[Notice] = [
    SourceLost("a", "cut", ("X-Y",)),
    SourceRestored("a", ("X-Y",)),
    StreamSwitched("X-Y", "trades", 1, 7, "a", "b", "a is lost"),
    SymbolsChanged(("X-Y",), ()),
    Waiting(3, 1.5),
    Refused("full", 5.0),
    Draining(),
]


def test_every_notice_has_an_example_here() -> None:
    """`Notice` names all classes of notices."""
    assert set(get_args(Notice)) == {type(notice) for notice in EXAMPLES}


@pytest.mark.parametrize("notice", EXAMPLES, ids=lambda notice: type(notice).__name__)
def test_a_notice_is_a_value(notice: Notice) -> None:
    """Equal, hashable and immutable: formats keep the text of a notice under the notice itself."""
    copy = attrs.evolve(notice)
    assert copy is not notice
    assert {notice: 1}[copy] == 1
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        notice.reason = "another"  # type: ignore[misc, union-attr]


def test_notices_of_different_kinds_differ() -> None:
    """Also with the same fields."""
    assert len(set(EXAMPLES)) == len(EXAMPLES)
    assert Draining().reason == "server going away"
