"""The probe of the event loop: what holds the loop up is seen."""

from __future__ import annotations

from typing import Any

import trio
from trio.testing import MockClock

from dataflow.figures import Lag
from dataflow.ops.lag import LOOK_EVERY, LagProbe


class Context:
    """All that the probe asks of its context."""

    def ready(self) -> None:
        pass


async def test_who_blocks_the_loop_is_seen_in_the_histogram_and_in_the_maximum(mock_clock: MockClock) -> None:
    """A loop that stands still for 0.7 s is late by that for whoever is due just then; an idle loop is not late."""
    lag, context = Lag(), Context()
    probe: Any = LagProbe(lag)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(probe.run, context)
        await trio.testing.wait_all_tasks_blocked()
        for late in (0.0, 0.7, 0.0):
            mock_clock.jump(LOOK_EVERY + late)
            await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    counts = dict(lag.histogram.cumulative())
    assert (counts[0.0005], counts[0.5], counts[1.0]) == (2, 2, 3)
    assert round(lag.recent.value(trio.current_time()), 6) == 0.7
