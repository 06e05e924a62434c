"""The feed without `async`, for scripts and notebooks."""

from __future__ import annotations

import gc
from contextlib import suppress
from typing import Any

import pytest
import trio

from dataflow.client import Trade, connect_sync
from tests.support.lying import HONEST, PLACE, lying

ROW = '[[0,%d,1,"buy",1.5,2,"x",0]]'


async def test_what_a_loop_has_left_can_be_followed_again_at_once() -> None:
    """As when a cell of a notebook is run again: what was dropped is left before the same is followed."""

    def notebook(url: str) -> list[int]:
        places = []
        with connect_sync(url) as feed:
            for _ in range(3):
                for event in feed.trades("A"):
                    assert isinstance(event, Trade)
                    places.append(event.offset)
                    break
                gc.collect()
        return places

    async with lying(HONEST, ROW % (PLACE + 1)) as liar:
        assert await trio.to_thread.run_sync(notebook, liar.url) == [PLACE + 1] * 3


async def test_the_same_cell_of_a_notebook_may_run_twice() -> None:
    """A variable still holds the iterator of before: the newest one wins, and the other one says so."""

    def notebook(url: str) -> list[int]:
        places, feed = [], connect_sync(url)
        before = trades = feed.trades("A")
        for _ in range(2):
            before, trades = trades, feed.trades("A")
            places.append(next(trades).offset)  # type: ignore[union-attr]
        with pytest.raises(
            RuntimeError, match=r"^a newer iterator follows trades:A now: this one has ended$"
        ):
            next(before)
        assert feed.positions["A"]["offset"] == PLACE + 1
        feed.close()
        feed.close()
        assert list(trades) == []
        return places

    async with lying(HONEST, ROW % (PLACE + 1)) as liar:
        assert await trio.to_thread.run_sync(notebook, liar.url) == [PLACE + 1] * 2


async def test_a_feed_that_nobody_holds_is_closed() -> None:
    """Else each run of a cell would leave a connection behind. An iterator holds its feed."""

    def notebook(url: str) -> None:
        trades = connect_sync(url).trades("A")
        gc.collect()
        inner = trades._feed
        assert next(trades).offset == PLACE + 1  # type: ignore[union-attr]
        assert inner.is_open
        del trades
        gc.collect()
        assert not inner.is_open

    async with lying(HONEST, ROW % (PLACE + 1)) as liar:
        await trio.to_thread.run_sync(notebook, liar.url)


async def test_after_the_end_a_feed_says_so() -> None:
    """A loop ends, closing is no error, and whatever is asked names the mistake."""

    def script(url: str) -> None:
        with connect_sync(url) as feed:
            trades = feed.trades("A")
            next(trades)
        assert list(trades) == []
        trades.close()
        for asked in (feed.symbols, feed.events, lambda: next(feed.history("A"))):
            with pytest.raises(RuntimeError, match="the feed is closed: call `connect_sync` again"):
                asked()

    async with lying(HONEST, ROW % (PLACE + 1)) as liar:
        await trio.to_thread.run_sync(script, liar.url)


async def test_an_interrupt_loses_nothing_and_takes_nothing_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may come while a task to wait for events is begun: nobody has that task then, and it goes on."""

    def script(url: str) -> list[int]:
        with connect_sync(url) as feed:
            trades = feed.trades("A")
            portal, begin = trades._portal, trades._portal.start_task_soon

            def interrupted(*task: Any) -> Any:
                begin(*task)
                raise KeyboardInterrupt

            got: list[Any] = []
            monkeypatch.setattr(portal, "start_task_soon", interrupted)
            for _ in range(3):
                with suppress(KeyboardInterrupt):
                    got.append(next(trades))
            monkeypatch.setattr(portal, "start_task_soon", begin)
            while len(got) < 4:
                got.append(next(trades))
            return [event.offset for event in got]

    rows = [ROW % (PLACE + number) for number in range(1, 5)]
    async with lying(HONEST, *rows) as liar:
        places = await trio.to_thread.run_sync(script, liar.url)
        assert places == [PLACE + number for number in range(1, 5)]
