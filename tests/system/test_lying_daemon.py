"""A daemon that breaks its contract, or asks for what is absurd: no client is ended by that, or ends its host."""

from __future__ import annotations

from functools import partial
from typing import Any

import anyio
import pytest
import trio

from dataflow.client import Connection, Notice, connect
from tests.support.lying import HONEST, PLACE, Lie, lying, refusal, told
from tests.system.following import BACKENDS, following
from tests.system.test_javascript import user

backends = pytest.mark.parametrize("backend", BACKENDS)
ROW = '[[0,%d,1,"buy",1.5,2,"x",0]]'
REFUSED, UNAVAILABLE = "connection.refused", -32000
GAP = partial(told, "stream.gap", symbol="A", channel="trades", epoch=1, reason="source_gap")

LIES: dict[str, tuple[Lie, ...]] = {
    "garbage": ("\0",),
    "another place": (ROW % (PLACE + 2),),
    "params that are none": ('{"method": "connection.refused", "params": null}',),
    "arrays without end": (ROW[:-2] % (PLACE + 1) + "," + "[" * 100_000,),
    "a fill of all there is": (told("stream.filled", symbol="A", **{"from": 1, "to": 10**15}, trades=[]),),
    "a gap without end": (GAP(**{"from": PLACE + 1, "to": 1 << 70}),),
    "gaps that overlap": (GAP(**{"from": 6, "to": 9}), GAP(**{"from": 8, "to": 12})),
    "a place before all": (told("stream.rewind", symbol="A", epoch=1, offset=-5),),
    "an answer to nothing": ('{"id": 99, "result": {}}',),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
@backends
async def test_a_lie_costs_the_connection_and_no_more(backend: str, lie: str) -> None:
    """It is told by name, and the next connection goes on behind the last right place."""
    async with lying(HONEST, *LIES[lie]) as liar, following(liar.url, backend, "A") as program:
        await liar.until_asked(2)
        await program.until(lambda: "connected" in program.states)
        [lost] = program.of("lost")
        assert str(lost.reason).startswith("a fault of the daemon")
        gap_ends = 9 if lie == "gaps that overlap" else PLACE
        assert liar.asked[1]["params"]["since"]["offset"] == gap_ends


@pytest.mark.parametrize("pause", [0, -1, 10**400])
@backends
async def test_a_refused_subscription_is_asked_for_again_after_a_pause(backend: str, pause: int) -> None:
    """A real one, whatever pause the daemon wants. That it refuses is told, to who listens to events."""
    lies = refusal(UNAVAILABLE, retryAfter=pause)

    async def main(url: str) -> tuple[list[Any], int]:
        async with connect(url, retry_first=0.2, retry_most=0.2) as feed:
            trades, events = feed.trades("A"), feed.events()
            heard = [await anext(events) for _ in range(2)]
            with anyio.move_on_after(0.1):
                heard.append(await anext(trades))
            return heard, len(feed._asking)

    async with lying(lies, lies, lies) as liar:
        heard, asking = await trio.to_thread.run_sync(partial(anyio.run, main, liar.url, backend=backend))
        assert heard[0] == Connection(state="connected")
        assert isinstance(heard[1], Notice)
        assert (heard[1].method, heard[1].params["symbol"]) == ("client.refused", "A")
        assert (len(heard), asking, len(liar.asked)) == (2, 1, 1)


@backends
async def test_no_connection_follows_another_at_once(backend: str) -> None:
    """Though the daemon says that it may."""
    async with (
        lying(told(REFUSED, reason="full", retryAfter=0), 1013) as liar,
        following(liar.url, backend, "A") as program,
    ):
        await liar.until_asked(2)
        [lost] = program.of("lost")
        assert lost.retry_in == pytest.approx(0.05)


@backends
async def test_the_end_of_waiting_is_told(backend: str) -> None:
    """With the answer that comes then."""
    waiting = told("connection.waiting", ahead=1, seconds=1)
    async with lying(waiting, HONEST) as liar, following(liar.url, backend, "A") as program:
        await program.until(lambda: program.states == ["waiting", "connected"])


@pytest.mark.parametrize("lie", LIES)
async def test_javascript_tells_a_lie_and_goes_on(lie: str) -> None:
    """As the client in Python does. What it can understand in another way it may."""
    async with lying(HONEST, *LIES[lie], 4000) as liar, user(liar.url) as u:
        await u.follow("A")
        await liar.until_asked(2)
        await u.until(lambda: {each["state"] for each in u.connections} & {"lost", "refused"})
        assert liar.asked[1]["params"]["since"]["offset"] in (PLACE, 9)


async def test_javascript_asks_again_after_a_bounded_pause() -> None:
    """A timer of more than 25 days would fire at once, for ever."""
    async with lying(refusal(UNAVAILABLE, retryAfter=1e9)) as liar, user(liar.url) as u:
        await u.follow("A", "asked")
        await u.until(lambda: "client.refused" in u.notices)
        for _ in range(20):
            await u.ask("positions")
        assert len(liar.asked) == 1


async def test_javascript_waits_before_it_connects_again() -> None:
    """Though the daemon says that it need not."""
    async with lying(told(REFUSED, reason="full", retryAfter=0), 1013) as liar, user(liar.url) as u:
        await u.follow("A")
        assert (await u.until_state("refused"))["retryIn"] >= 0.05
        assert (await u.until_state("refused"))["retryIn"] >= 0.05
        await liar.until_asked(2)
