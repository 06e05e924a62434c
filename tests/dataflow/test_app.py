"""How the daemon is run."""

from __future__ import annotations

import decimal
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from dataflow import app
from dataflow.connectors import binance
from dataflow.core import Core
from dataflow.domain import Trade
from dataflow.settings.schema import Settings
from dataflow.topics.candles import DIGITS
from supervisors import Child, Supervisor, open_supervisor


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


async def test_nobody_asks_for_what_another_line_has_brought(mock_clock: MockClock) -> None:
    """Trade 2 was lost on one line, and came on the other before the question had its turn."""
    keys = binance.Settings(
        connector="binance", url="ws://x", symbols=("BTC-USDT",), refill_url="http://127.0.0.1:1"
    )
    core = Core(Settings(sources={"bn": keys}), epoch=1)
    core.missing = core.want

    def come(number: int) -> None:
        trade = Trade("bn", "BTC-USDT", str(number), "buy", Decimal(1), Decimal(1), number, number)
        for store in core.stores:
            if store.history("BTC-USDT") is core.history("BTC-USDT"):
                store.admit([trade], trio.current_time())

    for number in (1, 3):
        come(number)
    refills = core.refills("bn")
    assert refills.open == 1
    come(2)
    make = partial(app.refiller, core, core.sources["bn"], keys, binance.Filler("bn", keys))
    async with open_supervisor(
        Supervisor(children=(Child("refill", make, stop_within=0),)), on_event=lambda _event: None
    ):
        await wait_all_tasks_blocked()
    assert (refills.open, refills.asked, refills.failed) == (0, 0, {})
