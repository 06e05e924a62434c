"""The cost of supervision, beside raw Trio in the same run. By hand: python tests/bench/bench_supervisors.py"""

from __future__ import annotations

import gc
import resource
import statistics
import time
from collections.abc import Awaitable, Callable

import trio

from supervisors import Backoff, Child, Context, Limit, Mailbox, Pool, Supervisor, open_supervisor

CROWD = 10_000
NOW = Backoff(first=0.0)


def show(name: str, value: str, aim: str = "") -> None:
    print(f"{name:42} {value:>24}   {aim}")


def percentiles(samples: list[float]) -> str:
    cuts = statistics.quantiles(samples, n=100)
    return f"p50 {cuts[49] * 1e6:.1f} p99 {cuts[98] * 1e6:.1f} us"


class Parked:
    """Ready, then waits in `receive`."""

    async def run(self, ctx: Context) -> None:
        ctx.ready()
        await ctx.receive()


async def raw_restart(n: int) -> list[float]:
    samples, fell = [], 0.0

    async def life() -> None:
        nonlocal fell
        if fell:
            samples.append(time.perf_counter() - fell)
        await trio.lowlevel.checkpoint()
        fell = time.perf_counter()
        raise ValueError

    for _ in range(n):
        with trio.CancelScope():
            try:  # noqa: SIM105
                await life()
            except ValueError:
                pass
    return samples


async def restart(n: int) -> list[float]:
    samples: list[float] = []
    fell = 0.0
    done = trio.Event()

    class Crashing:
        async def run(self, ctx: Context) -> None:
            nonlocal fell
            ctx.ready()
            if fell:
                samples.append(time.perf_counter() - fell)
            if len(samples) == n:
                done.set()
                await ctx.receive()
            await trio.lowlevel.checkpoint()
            fell = time.perf_counter()
            raise ValueError

    spec = Supervisor([Child("a", Crashing, backoff=NOW)], limit=Limit(restarts=None))
    async with open_supervisor(spec):
        await done.wait()
    return samples


async def raw_send(n: int) -> float:
    send, receive = trio.open_memory_channel[int](1024)

    async def consume() -> None:
        for _ in range(n):
            await receive.receive()

    begin = time.perf_counter()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(consume)
        for i in range(n):
            await send.send(i)
    return n / (time.perf_counter() - begin)


async def send(n: int) -> float:
    done = trio.Event()

    class Consumer:
        async def run(self, ctx: Context) -> None:
            ctx.ready()
            for _ in range(n):
                await ctx.receive()
            done.set()
            await ctx.receive()

    async with open_supervisor(Supervisor([Child("a", Consumer)])) as s:
        ref = s.find("a")
        begin = time.perf_counter()
        for i in range(n):
            await ref.send(i)
        await done.wait()
        return n / (time.perf_counter() - begin)


async def raw_batches(n: int) -> float:
    send, receive = trio.open_memory_channel[int](1024)
    begin = time.perf_counter()
    for _ in range(n // 1000):
        for i in range(1000):
            send.send_nowait(i)
        for _ in range(1000):
            receive.receive_nowait()
    return n / (time.perf_counter() - begin)


async def batches(n: int) -> tuple[float, float]:
    done = trio.Event()
    drain_time = 0.0

    class Consumer:
        async def run(self, ctx: Context) -> None:
            nonlocal drain_time
            ctx.ready()
            left = n
            while left:
                await ctx.receive()
                begin = time.perf_counter()
                left -= 1 + len(ctx.receive_nowait_batch(1000))
                drain_time += time.perf_counter() - begin
            done.set()
            await ctx.receive()

    async with open_supervisor(Supervisor([Child("a", Consumer)])) as s:
        put = s.find("a").put
        begin = time.perf_counter()
        for _ in range(n // 1000):
            for i in range(1000):
                put(i)
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
        await done.wait()
        return n / (time.perf_counter() - begin), n / drain_time


async def ask(n: int) -> list[float]:
    class Echo:
        async def run(self, ctx: Context) -> None:
            ctx.ready()
            while True:
                (await ctx.receive()).reply(None)

    samples = []
    async with open_supervisor(Supervisor([Child("a", Echo)])) as s:
        ref = s.find("a")
        for _ in range(n):
            begin = time.perf_counter()
            await ref.ask(None)
            samples.append(time.perf_counter() - begin)
    return samples


async def worst_stall(work: Callable[[], Awaitable[None]]) -> tuple[float, float]:
    """Seconds of `work`, and the longest wait of another task meanwhile."""
    worst = 0.0

    async def tick() -> None:
        nonlocal worst
        while True:
            begin = time.perf_counter()
            await trio.lowlevel.checkpoint()
            worst = max(worst, time.perf_counter() - begin)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tick)
        await trio.lowlevel.checkpoint()
        begin = time.perf_counter()
        await work()
        took = time.perf_counter() - begin
        nursery.cancel_scope.cancel()
    return took, worst


def memory() -> float:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


async def crowd() -> None:
    async with open_supervisor(Supervisor([Child("pool", Pool)])) as s:
        pool = s.supervisor("pool")

        async def start() -> None:
            for i in range(CROWD):
                await pool.start(Child(i, Parked, mailbox=Mailbox(size=64)))

        gc.collect()
        before = memory()
        begin = time.perf_counter()
        await start()
        show("start 10,000 children, one by one", f"{time.perf_counter() - begin:.2f} s", "<= 1 s")
        await trio.lowlevel.checkpoint()
        show("memory of each", f"{(memory() - before) / CROWD / 1024:.1f} KiB", "<= 8 KB")
        begin = time.perf_counter()
        for _ in range(1000):
            pool.counts()
        show("counts()", f"{(time.perf_counter() - begin) * 1e3:.2f} us", "<= 5 us")
        begin = time.perf_counter()
        s.tree()
        show("tree() of 10,000", f"{(time.perf_counter() - begin) * 1e3:.0f} ms")

        async def stop() -> None:
            await s.stop("pool")

        took, worst = await worst_stall(stop)
        show("stop 10,000 children", f"{took:.2f} s", "<= 1 s")
        show("  worst stall of the event loop", f"{worst * 1e3:.1f} ms", "<= 20 ms")


async def raw_crowd() -> None:
    async def park(receive: trio.MemoryReceiveChannel[None]) -> None:
        with trio.CancelScope():
            await receive.receive()

    async with trio.open_nursery() as nursery:
        begin = time.perf_counter()
        ends = [trio.open_memory_channel[None](64) for _ in range(CROWD)]
        for _, receive in ends:
            nursery.start_soon(park, receive)
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
        show("raw: start 10,000 tasks with channels", f"{time.perf_counter() - begin:.2f} s")
        nursery.cancel_scope.cancel()


async def idle_watchdogs(seconds: float) -> float:
    """CPU of the thread that watches the loop and of 100 watched idle actors, as a share of one core."""
    children = [Child(n, Parked, beat_within=1.0) for n in range(100)]
    async with open_supervisor(Supervisor(children=children), blocked_after=1.0):
        await trio.sleep(0.5)
        begin = time.process_time()
        await trio.sleep(seconds)
        return (time.process_time() - begin) / seconds


async def main() -> None:
    show("raw: restart in one task", percentiles(await raw_restart(5000)))
    show("restart", percentiles(await restart(5000)), "p50 <= 40, p99 <= 150 us")
    raw, ours = max([await raw_send(50_000) for _ in range(3)]), max([await send(50_000) for _ in range(3)])
    show("raw: send and receive", f"{raw / 1e3:.0f} k/s")
    show("send and receive", f"{ours / 1e3:.0f} k/s", f"{raw / ours:.2f} x raw, aim <= 1.3")
    show("raw: nowait, drained", f"{await raw_batches(1_000_000) / 1e6:.2f} M/s")
    through, drained = await batches(1_000_000)
    show("put and drain in batches of 1000", f"{through / 1e6:.2f} M/s", ">= 1 M/s")
    show("  the drain alone", f"{drained / 1e6:.1f} M/s")
    show("ask", percentiles(await ask(20_000)))
    show("idle watchdogs", f"{await idle_watchdogs(5) * 100:.2f} % CPU", "<= 2 %")
    await crowd()
    await raw_crowd()


if __name__ == "__main__":
    trio.run(main)
