"""How the daemon is run."""

from __future__ import annotations

import decimal
from collections.abc import Callable
from typing import Any

import pytest
import trio

from dataflow import app
from dataflow.settings.schema import Settings
from dataflow.topics.candles import DIGITS


def test_no_sum_is_rounded_in_the_whole_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tasks and threads inherit a decimal context with room for every digit that connectors accept."""
    seen: list[int] = []

    async def look() -> None:
        seen.append(decimal.getcontext().prec)
        seen.append(await trio.to_thread.run_sync(lambda: decimal.getcontext().prec))

    def run(*_tree: Any, **_more: Any) -> int:
        trio.run(look)
        return 0

    monkeypatch.setattr(app, "run_supervisor", run)
    monkeypatch.setattr("gc.freeze", lambda: None)
    monkeypatch.setattr("gc.set_threshold", lambda *_: None)
    with decimal.localcontext():
        assert app.run(Settings()) == 0
    assert seen == [DIGITS, DIGITS]


@pytest.mark.parametrize(("is_sound", "code"), [(True, 0), (False, 2)])
def test_a_fault_in_the_last_write_ends_the_daemon_with_two(
    monkeypatch: pytest.MonkeyPatch, is_sound: bool, code: int
) -> None:
    """Though the tree itself has ended in order."""

    def run(*_tree: Any, finish: Callable[[], object], **_more: Any) -> int:
        finish()
        return 0

    monkeypatch.setattr(app, "run_supervisor", run)
    monkeypatch.setattr(app.Core, "finish", lambda _core: is_sound)
    monkeypatch.setattr("gc.freeze", lambda: None)
    monkeypatch.setattr("gc.set_threshold", lambda *_: None)
    with decimal.localcontext():
        assert app.run(Settings()) == code
