"""The client in JavaScript in Chromium, and the examples: below a path prefix, and in a page of another origin."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import trio
from playwright.sync_api import expect

from actors.session import Ending
from dataflow.settings.schema import Gateway, History
from simulators import Exchange, open_binance
from tests.support.browser import Heard, browse, in_the_test
from tests.support.node import NODE
from tests.support.waiting import until
from tests.system.daemon import Daemon, daemon, from_binance, http_client
from tests.system.test_javascript import PRICES, SYMBOL, publish

EXAMPLES = Path("dataflow") / "client" / "examples"


@asynccontextmanager
async def trading(**tables: Any) -> AsyncIterator[tuple[Exchange, Daemon]]:
    async with (
        open_binance() as exchange,
        daemon(sources=from_binance(exchange.url, SYMBOL, eager=True), **tables) as d,
    ):
        await exchange.wait_subscribed(["BTCUSDT"])
        await publish(exchange, 1, 5)
        await until(lambda: d.core.history(SYMBOL).last == 5)
        yield exchange, d


async def test_the_files_are_served() -> None:
    """With their types, and 304 while they are the same; also HEAD, and to an invited page."""
    async with (
        trading(gateway=Gateway(port=0, origins=("http://a.example",))) as (_, d),
        http_client(d.http) as http,
    ):
        for path, kind in (("/client.js", "text/javascript"), ("/client.d.ts", "text/plain")):
            answer = await http.get(path, headers={"Origin": "http://a.example"})
            assert answer.status_code == 200
            assert answer.headers["Content-Type"].startswith(kind)
            assert answer.headers["Cache-Control"] == "no-cache"
            assert answer.headers["Access-Control-Allow-Origin"] == "http://a.example"
            assert "export" in answer.text
            again = await http.get(path, headers={"If-None-Match": answer.headers["ETag"]})
            assert again.status_code == 304
            assert (await http.head(path)).headers["ETag"] == answer.headers["ETag"]


FOLLOW = """async ([module, daemon, symbol]) => {
  const { connect } = await import(module);
  const feed = connect(daemon);
  const found = [];
  for await (const event of feed.trades(symbol, { snapshot: 5 })) {
    found.push([event.offset, event.price]);
    if (found.length === 5) break;
  }
  const recent = await feed.recent(symbol, 2);
  feed.close();
  return [found, recent.map(each => each.price), feed.connection.state];
}"""


async def test_below_a_path_prefix() -> None:
    """The module and its WebSocket are found there, and every digit arrives."""
    async with trading(gateway=Gateway(port=0, root_path="/feed")) as (_, d):

        def visit(page: Any, heard: Heard) -> tuple[Any, list[str]]:
            page.goto(f"{d.http}/feed/faces")
            return page.evaluate(
                FOLLOW, [f"{d.http}/feed/client.js", f"{d.http}/feed", SYMBOL]
            ), heard.complaints

        (found, recent, state), complaints = await browse(visit)
        assert [offset for offset, _ in found] == [1, 2, 3, 4, 5]
        assert found[0][1].startswith("0.00000001") or found[0][1] == "1E-8"
        assert [float(price) for price in recent] == [float(PRICES[5 % 5]), float(PRICES[4])]
        assert (state, complaints) == ("closed", [])


@asynccontextmanager
async def elsewhere(folder: Path) -> AsyncIterator[str]:
    """Another server, with the files of a folder."""
    command = ["python3", "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(folder)]
    async with trio.open_nursery() as nursery:
        run = partial(
            trio.run_process, command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False
        )
        process: trio.Process = await nursery.start(run)
        assert process.stdout is not None
        told = b""
        while b") ..." not in told:
            told += await process.stdout.receive_some()
        yield told.split(b"(")[1].split(b"/)")[0].decode()
        process.kill()


async def test_the_dashboard_is_a_page_of_another_origin(checkout: Path) -> None:
    """Invited, it shows prices, candles and trades, and says when the daemon is away, or never was there."""
    async with elsewhere(checkout / EXAMPLES) as origin:
        async with trading(gateway=Gateway(port=0, origins=(origin,))) as (_, d):
            visit = partial(
                look,
                url=f"{origin}/dashboard.html?daemon={d.http}",
                cut=partial(in_the_test, end_all, d),
            )
            price, tape, colours, complaints = await browse(visit)
        assert float(price) == float(PRICES[0])
        assert len(tape) == 5
        assert price in tape[0]
        assert colours > 1
        assert complaints == []


def end_all(d: Daemon) -> None:
    for session in d.lobby.clients:
        session.end(Ending.SLOW, "cut")


def look(
    page: Any, heard: Heard, *, url: str, cut: Callable[[], None]
) -> tuple[str, list[str], int, list[str]]:
    page.goto(url)
    page.get_by_role("button", name=SYMBOL).click()
    page.locator("#tape li").nth(4).wait_for()
    page.wait_for_function(
        "document.querySelector('#chart').getContext('2d').getImageData(0, 0, 2000, 999).data.some(byte => byte)"
    )
    colours = page.evaluate(
        "new Set(new Uint32Array(document.querySelector('#chart').getContext('2d').getImageData(0, 0, 2000, 600).data.buffer)).size"
    )
    page.evaluate(
        "new MutationObserver(() => document.body.classList.contains('away') && (window.wasAway = true))"
        ".observe(document.body, { attributes: true })"
    )
    cut()
    page.wait_for_function("window.wasAway && !document.body.classList.contains('away')")
    expect(page.locator("#symbols td.number")).not_to_be_empty()
    price, tape = page.locator("#symbols td.number").inner_text(), page.locator("#tape li").all_inner_texts()
    complaints = list(heard.complaints)
    page.goto(f"{url.partition('=')[0]}=http://127.0.0.1:1")
    page.get_by_text(
        "nothing answers at http://127.0.0.1:1, or its [gateway] origins does not name"
    ).wait_for()
    return price, tape, colours, complaints


async def test_the_example_resumes_after_a_restart_of_its_own(checkout: Path, tmp_path: Path) -> None:
    """The position is kept in a file: what was traded meanwhile comes, and nothing twice."""
    file = tmp_path / "position.json"
    async with trading(history=History(directory=str(tmp_path / "data"))) as (exchange, d):

        async def lines(last: int) -> list[list[str]]:
            command = [str(NODE), "resume.mjs", d.http, SYMBOL, str(file)]
            found = b""
            async with trio.open_nursery() as nursery:
                run = partial(
                    trio.run_process,
                    command,
                    cwd=checkout / EXAMPLES,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    check=False,
                )
                process: trio.Process = await nursery.start(run)
                assert process.stdout is not None
                while (
                    not found.endswith(b"\n")
                    or not file.exists()
                    or json.loads(file.read_text())["offset"] < last
                ):
                    with trio.move_on_after(0.2):
                        found += await process.stdout.receive_some()
                process.kill()
                while more := await process.stdout.receive_some():  # it was said before the place was kept
                    found += more
            return [line.split() for line in found.decode().splitlines()]

        first = await lines(5)
        await publish(exchange, 7, 9)  # the place of 6 is a gap
        second = await lines(9)
        await publish(exchange, 6, 6)
        await publish(exchange, 10, 11)
        third = await lines(11)
        assert [line[0] for line in first] == ["1", "2", "3", "4", "5"]
        assert [line[0] for line in second] == ["6", "7", "8", "9"]
        assert "missing:" in second[0]
        assert [(line[0], line[-1] == "(late)") for line in third] == [
            ("6", True),
            ("10", False),
            ("11", False),
        ]


async def test_the_first_lines_of_the_readme(checkout: Path, tmp_path: Path) -> None:
    """They print trades."""
    room = checkout / "dataflow" / "client" / "javascript"
    [program] = re.findall(r"```js\n(.*?)```", (room / "README.md").read_text(), re.S)
    shutil.copy(room / "client.js", tmp_path)
    async with trading() as (_, d):
        (tmp_path / "first.mjs").write_text(program.replace("http://127.0.0.1:8080", d.http))
        async with trio.open_nursery() as nursery:
            run = partial(
                trio.run_process, [str(NODE), "first.mjs"], cwd=tmp_path, stdout=subprocess.PIPE, check=False
            )
            process: trio.Process = await nursery.start(run)
            assert process.stdout is not None
            told = b""
            while told.count(b"\n") < 5:
                told += await process.stdout.receive_some()
            process.kill()
        assert [line.split()[:3] for line in told.decode().splitlines()][:2] == [
            ["trade", "1", "sell"],
            ["trade", "2", "buy"],
        ]


def test_links_lead_somewhere(checkout: Path) -> None:
    """Every file that the README links to exists."""
    room = checkout / "dataflow" / "client" / "javascript"
    links = re.findall(r"\]\((?!http)([^)#]+)\)", (room / "README.md").read_text())
    assert links
    assert [link for link in links if not (room / link).exists()] == []
