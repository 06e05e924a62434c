"""The cost of a crash-looping actor for its siblings: the delay of their messages, with and without it.

Run by hand: `python tests/bench/bench_siblings.py`. Each sibling gets a message every 5 ms. The delay is the time from
the send until the sibling has the message. Three rounds of each kind, in turn.
"""

from __future__ import annotations

import statistics
import time

import trio

from supervisors import Backoff, Child, Context, Event, Limit, Ref, Supervisor, open_supervisor

SIBLINGS = 10
SECONDS = 4.0
PERIOD = 0.005


class Sibling:
    def __init__(self, delays: list[float]) -> None:
        self.delays = delays

    async def run(self, ctx: Context) -> None:
        ctx.ready()
        while True:
            sent: float = await ctx.receive()
            self.delays.append((time.perf_counter() - sent) * 1000)


class Crasher:
    async def run(self, ctx: Context) -> None:
        ctx.ready()
        raise RuntimeError("again")


async def steadily(ref: Ref, phase: float) -> None:
    begun = trio.current_time() + phase
    for n in range(int(SECONDS / PERIOD)):
        await trio.sleep_until(begun + n * PERIOD)
        ref.put(time.perf_counter())


async def measure(backoff: Backoff | None) -> tuple[list[float], int]:
    """The delays in ms, and the number of restarts. Without `backoff` there is no crasher."""
    delays: list[float] = []
    crashes = 0

    def count(event: Event) -> None:
        nonlocal crashes
        crashes += event.kind == "crash"

    children = [Child(f"sibling-{n}", lambda: Sibling(delays)) for n in range(SIBLINGS)]
    if backoff is not None:
        children.append(Child("crasher", Crasher, backoff=backoff))
    spec = Supervisor(children=children, limit=Limit(restarts=None))
    async with (
        open_supervisor(spec, on_event=count, blocked_after=None) as handle,
        trio.open_nursery() as nursery,
    ):
        for n in range(SIBLINGS):
            nursery.start_soon(steadily, handle.find(f"sibling-{n}"), n * PERIOD / SIBLINGS)
        await trio.sleep(SECONDS)
        restarts = next((c.restarts for c in handle.tree().children if c.path == "crasher"), 0)
    return delays, restarts


async def main() -> None:
    kinds = {
        "no crasher": None,
        "crash loop, 10 ms backoff": Backoff(first=0.01, factor=1, cap=0.01, jitter=0),
        "crash loop, no backoff": Backoff(first=0, jitter=0),
    }
    p99: dict[str, list[float]] = {kind: [] for kind in kinds}
    restarts = dict.fromkeys(kinds, 0)
    for _round in range(3):
        for kind, backoff in kinds.items():
            delays, restarts[kind] = await measure(backoff)
            p99[kind].append(statistics.quantiles(delays, n=100)[98])
    base = statistics.median(p99["no crasher"])
    for kind, figures in p99.items():
        middle = statistics.median(figures)
        print(
            f"{kind:<26} p99 {middle:.2f} ms ({min(figures):.2f} to {max(figures):.2f}), "
            f"lost {middle - base:+.2f} ms, aim <= 2; {restarts[kind]:,} restarts in {SECONDS:g} s"
        )


if __name__ == "__main__":
    trio.run(main)
