"""A question that is asked again and again while somebody watches."""

from __future__ import annotations

from threading import Event

import pytest

from dataflow.cli import watching
from dataflow.cli.ends import Failure, Mistake
from dataflow.cli.watching import Said, Watched


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for an answer at all."""
    monkeypatch.setattr(watching, "PATIENCE", 0.0)


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every answer is waited for."""
    monkeypatch.setattr(watching, "PATIENCE", None)


def test_a_late_answer_counts(patience: None) -> None:
    """Until it comes the old one stays, with its time, and with the time since when there is no newer one. Nothing else
    is asked meanwhile."""
    goes_on, asked = Event(), list[str]()

    def ask() -> str:
        asked.append("once")
        assert goes_on.wait(60)
        return "new"

    watched = Watched(ask, Said("old"))
    first = watched.said
    late = watched.look()
    assert (late.answer, late.at) == ("old", first.at)
    assert late.trouble is not None
    assert late.trouble.endswith("Z: no answer")
    assert late.old == f"{late.trouble}; below is what it said at {watching.moment(first.at)}"
    assert watched.look() == late
    goes_on.set()
    while watched.said.trouble:
        watched.look()
    assert (watched.said.answer, watched.said.old, asked) == ("new", "", ["once"])


@pytest.mark.parametrize("error", [Mistake("nothing answers"), Failure("gone away\x1b[2J")])
def test_what_cannot_be_asked_is_asked_again(endless: None, error: Exception) -> None:
    """The reason is said, as text; since when is the time of the first question without an answer."""
    prepared: list[str | Exception] = [error, error, "new"]

    def ask() -> str:
        each = prepared.pop(0)
        if isinstance(each, Exception):
            raise each
        return each

    watched = Watched(ask, Said("old"))
    first, second, third = watched.look(), watched.look(), watched.look()
    assert (first.answer, first.trouble) == ("old", second.trouble)
    assert first.trouble is not None
    assert first.trouble.partition("Z: ")[2] in ("nothing answers", "gone away\\x1b[2J")
    assert (third.answer, third.trouble) == ("new", None)


def test_a_defect_ends_the_command(endless: None) -> None:
    """What is no failure of the daemon is not hidden, not even an error that looks like a long wait."""

    def ask() -> str:
        raise TimeoutError("ours")

    with pytest.raises(TimeoutError, match="ours"):
        Watched(ask, Said("old")).look()
