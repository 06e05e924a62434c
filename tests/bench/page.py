"""What the page costs a browser: first paint, and CPU of all processes of Chromium while a market trades.

`python -m tests.bench.page [SYMBOLS] [RATE] [RUNS]`: a daemon in this process with so many symbols of one source, so
many trades a second in all. Prints one line of JSON a run. CPU is the share of one core of each kind of process, from
/proc. `note` has the rate that the page saw: a busy machine makes fewer trades than asked for.
"""

from __future__ import annotations

import json
import os
import random
import re
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, Literal

import trio
from loguru import logger
from playwright.sync_api import Page

from dataflow.settings.schema import Session
from simulators import Exchange, Trade, open_binance
from tests.support.browser import Heard, browse
from tests.system.daemon import daemon, from_binance

STEP = 0.02  # seconds between bursts of trades
SETTLE, WINDOW = 12.0, 20.0  # seconds
_TICKS = os.sysconf("SC_CLK_TCK")


def symbols(count: int) -> list[str]:
    """Names such as `AAB-USDT`."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    return [f"{letters[n // 676 % 26]}{letters[n // 26 % 26]}{letters[n % 26]}-USDT" for n in range(count)]


async def trade(exchange: Exchange, names: list[str], rate: float) -> None:
    """Random walks, `rate` trades a second in all, at random symbols, until cancelled."""
    dice = random.Random(1)
    prices = {name: 10 ** dice.uniform(-3, 5) for name in names}
    last = dict.fromkeys(names, 0)
    began, told = trio.current_time(), 0
    while True:
        burst = []
        for _ in range(int((trio.current_time() - began) * rate) - told):
            name = dice.choice(names)
            prices[name] *= 1 + dice.gauss(0, 0.0002)
            last[name] += 1
            price, qty = f"{prices[name]:.8f}", f"{dice.expovariate(1):.8f}"
            side: Literal["buy", "sell"] = "buy" if dice.random() < 0.5 else "sell"
            at = time.time_ns() // 1000
            burst.append(Trade(last[name], name.replace("-", ""), side, price, qty, at))
        told += len(burst)
        await exchange.publish_all(burst)
        await trio.sleep(STEP)


def browser_cpu() -> dict[str, float]:
    """CPU seconds of a browser's processes that descend from this one, by their type; `browser` is the first one."""
    parents, used, types = {}, {}, {}
    for each in Path("/proc").glob("[0-9]*"):
        try:
            name, _, fields = (each / "stat").read_text().partition(" ")[2].rpartition(") ")
            command = (each / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue  # it has ended
        told, pid = fields.split(), int(each.name)
        parents[pid], used[pid] = int(told[1]), (int(told[11]) + int(told[12])) / _TICKS
        if "chrom" in name:
            types[pid] = re.split(r"[\0 ]", command.partition("--type=")[2])[0] or "browser"
    found: dict[str, float] = defaultdict(float)
    for pid, kind in types.items():
        if _is_ours(pid, parents):
            found[kind] += used[pid]
    return found


def _is_ours(pid: int, parents: dict[int, int]) -> bool:
    while pid in parents and pid != os.getpid():
        pid = parents[pid]
    return pid == os.getpid()


def measured(page: Page, url: str) -> dict[str, Any]:
    """First paint in ms, and CPU as a share of one core over `WINDOW`."""
    page.goto(url)
    page.wait_for_timeout(1000 * SETTLE)
    paint = page.evaluate("performance.getEntriesByType('paint').map(each => each.startTime)")
    before, began = browser_cpu(), time.monotonic()
    page.wait_for_timeout(1000 * WINDOW)
    passed, after = time.monotonic() - began, browser_cpu()
    cpu = {kind: round((after[kind] - before[kind]) / passed, 3) for kind in after}
    note = page.locator(".note").text_content() if page.locator(".note").count() else ""
    return {"paint_ms": round(min(paint)), "cpu": cpu, "note": note}


async def main(count: int, rate: float, runs: int, at: str) -> None:
    names = symbols(count)
    async with (
        open_binance() as exchange,
        daemon(sources=from_binance(exchange.url, *names, eager=True), session=Session()) as d,
        trio.open_nursery() as nursery,
    ):
        await exchange.wait_subscribed([name.replace("-", "") for name in names])
        nursery.start_soon(trade, exchange, names, rate)

        def visit(page: Page, heard: Heard) -> dict[str, Any]:
            return measured(page, f"{d.http}/{at}") | {"complaints": heard.complaints}

        for _ in range(runs):
            row = await browse(visit, viewport={"width": 1440, "height": 900})
            print(json.dumps({"symbols": count, "rate": rate, "at": at, **row}), flush=True)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    logger.remove()
    told = [*sys.argv[1:], *("100", "1000", "3", "#/market")[len(sys.argv) - 1 :]]
    trio.run(main, int(told[0]), float(told[1]), int(told[2]), told[3])
