"""The page at `/faces` in a real browser, and the lines that it offers to copy: each does what it says."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from typing import Any
from urllib.parse import urlsplit

import pytest
import trio

from dataflow.connectors import ticks_protobuf
from dataflow.settings.schema import Gateway
from simulators import Trade, open_binance
from tests.support import node
from tests.support.axe import barriers
from tests.support.browser import Heard, browse
from tests.support.ports import own_port
from tests.support.waiting import until
from tests.system.daemon import Daemon, daemon, from_binance, http_client
from tests.system.test_docs import everything

OPERATORS = {"admin", "docs", "guide", "page"}  # no streams
SYMBOL = "BTC-USDT"


@asynccontextmanager
async def trading(**tables: Any) -> AsyncIterator[Daemon]:
    """A daemon with one symbol, which has traded and trades all the time, and a source for producers."""
    ticks = ticks_protobuf.Settings(connector="ticks_protobuf", port=own_port())
    async with (
        open_binance() as exchange,
        daemon(sources={**from_binance(exchange.url, SYMBOL, eager=True), "ticks": ticks}, **tables) as d,
        trio.open_nursery() as nursery,
    ):
        await exchange.wait_subscribed(["BTCUSDT"])

        async def trade() -> None:
            for n in count(1):
                await exchange.publish(
                    Trade(n, "BTCUSDT", "buy", "61711.4", "0.5", 1_700_000_000_000_000 + n)
                )
                await trio.sleep(0.05)  # the pace of a market

        nursery.start_soon(trade)
        await until(lambda: d.core.history(SYMBOL).last)  # else there is no price and no day
        yield d
        nursery.cancel_scope.cancel()


async def described(d: Daemon) -> list[dict[str, Any]]:
    async with http_client(d.http) as http:
        told = (await http.get("/api/v1/faces")).json()
    assert told["symbols"] == [SYMBOL]
    return [*told["faces"], *told["sources"]]


def try_all(url: str, ours: str) -> Any:
    """A visit that tries every sample until it has an answer: [(title, state, log)]. Nobody is kept out."""

    def visit(page: Any, heard: Heard) -> tuple[Heard, list[tuple[str, str, str]], list[str]]:
        page.goto(url)
        page.locator(".sample").first.wait_for()
        samples = page.locator(".sample").filter(has=page.locator(".go:visible"))
        seen = []
        for number in range(samples.count()):
            sample = samples.nth(number)
            sample.locator(".go").click()
            sample.locator(".state.good").filter(has_text=re.compile("[0-9]")).wait_for()
            seen.append(
                (
                    sample.locator(".title").inner_text(),
                    sample.locator(".state").inner_text(),
                    sample.locator(".log").inner_text(),
                )
            )
            if sample.locator(".go[aria-pressed=true]").count():
                sample.locator(".go").click()
        page.set_viewport_size({"width": 380, "height": 800})
        page.wait_for_function("() => document.documentElement.scrollWidth <= 380")
        assert barriers(page) == []
        return heard, seen, page.locator("#disabled .key").all_inner_texts()

    return visit


async def test_everything_that_a_browser_speaks_can_be_tried() -> None:
    """Each sample with a try gets an answer in the page; the page asks nobody else, and fits a telephone."""
    async with trading(faces=everything()) as d:
        faces = await described(d)
        tries = [sample["name"] for face in faces for sample in face["samples"] if sample["trial"]]
        assert [face["name"] for face in faces if not face["samples"]] == []
        heard, seen, disabled = await browse(try_all(f"{d.http}/faces", d.http))
        assert sorted(title for title, _, _ in seen) == sorted(tries)
        assert [title for title, _, log in seen if not log] == []
        assert heard.complaints == []
        assert {urlsplit(url).netloc for url in heard.urls if not url.startswith("data:")} == {
            urlsplit(d.http).netloc
        }
        assert disabled == []
        await until(lambda: not len(d.lobby.clients))
        assert d.crashes() == []


async def test_a_face_that_is_off_is_named_with_its_key() -> None:
    """Below a prefix, too: the page finds its files and its daemon there."""
    async with trading(gateway=Gateway(port=0, root_path="/feed")) as d:
        off = [face["key"] for face in await described(d) if not face["enabled"]]
        assert off
        heard, seen, disabled = await browse(try_all(f"{d.http}/feed/faces", d.http))
        assert disabled == off
        assert {urlsplit(url).path.split("/")[1] for url in heard.urls if url.startswith("http")} == {"feed"}
        assert "JSON-RPC 2.0" in [title for title, _, _ in seen]
        assert heard.complaints == []


async def test_lines_to_copy_do_what_they_say() -> None:
    """Each line for curl, each program in Python or JavaScript, each command of ours prints something right."""
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    async with trading(faces=everything()) as d:
        words = {
            "{http}": d.http,
            "{ws}": d.http.replace("http", "ws"),
            "{host}": "127.0.0.1",
            "{symbol}": SYMBOL,
            "{compact}": SYMBOL.replace("-", ""),
        }
        lines: dict[str, dict[str, str]] = {}
        for face in await described(d):
            for sample in face["samples"]:
                for kind, line in sample["lines"].items():
                    for word, value in words.items():
                        line = line.replace(word, value)
                    lines.setdefault(kind, {})[f"{face['name']}, {sample['name']}"] = line
        async with trio.open_nursery() as nursery:
            for what, line in lines["curl"].items():
                assert "?" not in re.sub(r"'[^']*'", "", line), f"{what}: zsh takes a bare ? for a pattern"
                run = ["sh", "-c", f"exec {line.replace('curl ', 'curl -sS ', 1)}"]
                nursery.start_soon(_print, run, what, {"": what})
            for what, line in lines["dataflow"].items():
                run = [sys.executable, "-m", *shlex.split(line)]
                nursery.start_soon(_print, run, what, {"": what})
            await trio.to_thread.run_sync(node.install)
            for what, line in lines["JavaScript"].items():
                run = [str(node.NODE), "--experimental-eventsource", "--input-type=module", "-e", line]
                nursery.start_soon(_print, run, what, {"": what})
            programs = lines["Python"]
            run = [sys.executable, "-c", TOGETHER, json.dumps(programs)]
            nursery.start_soon(_print, run, "Python", {f"{what}: ": what for what in programs})
        await until(lambda: d.core.sources["ticks"].delivered.trades >= 2)  # both producers were heard


# Runs programs in threads of one interpreter: each of its own would cost a second. Each says its name before its words.
# `sys.stdout` loses lines that several threads write at once, before Python 3.12; a pipe takes short ones whole, and
# lays others into each other. Libraries that load their parts late are imported by one thread alone. They wait as long
# as it takes: all programs of the test start at once.
TOGETHER = """
import ast, inspect, json, os, sys, threading
import httpx, websockets

def run(name, program):
    def say(*words, **how):
        os.write(1, f"{name}: {' '.join(map(str, words))}"[:1000].encode() + b"\\n")
    exec(compile(program, name, "exec"), {"print": say, "__name__": "__main__"})

programs = json.loads(sys.argv[1])
for program in programs.values():
    imports = [each for each in ast.parse(program).body if isinstance(each, (ast.Import, ast.ImportFrom))]
    exec(compile(ast.Module(imports, []), "imports", "exec"), {})
for ask in (httpx.get, httpx.post, httpx.stream):
    inspect.unwrap(ask).__kwdefaults__["timeout"] = None
websockets.connect.__init__.__kwdefaults__["open_timeout"] = None
for named in programs.items():
    threading.Thread(target=run, args=named).start()
"""


async def _print(command: list[str], what: str, beginnings: dict[str, str]) -> None:
    """Runs `command`, beside the packages of Node, until it has said a line with each beginning."""
    environ = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    run = partial(
        trio.run_process,
        cwd=node.FOLDER,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        check=False,
    )
    said, wrong = b"", b""
    async with trio.open_nursery() as nursery:
        process: trio.Process = await nursery.start(run, command)
        assert process.stdout is not None
        assert process.stderr is not None
        missing = dict(beginnings)
        with trio.move_on_after(200):  # reached only by a program that hangs: all of them start at once
            while missing and (more := await process.stdout.receive_some()):
                said += more
                told = said.decode(errors="replace").splitlines()
                missing = {each: name for each, name in missing.items() if not _begins(told, each)}
        if missing:
            with trio.move_on_after(1):
                wrong = await process.stderr.receive_some()
        nursery.cancel_scope.cancel()
    assert list(missing.values()) == [], f"{what}: {wrong.decode()}"
    assert b'{"type":"about:blank"' not in said, f"{what}: {said.decode()}"


def _begins(lines: list[str], beginning: str) -> bool:
    return any(line.startswith(beginning) and len(line) > len(beginning) for line in lines)
