"""The client as a package of its own: its examples run, and its wheel runs where no daemon can."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
import venv
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import distribution
from pathlib import Path
from shutil import copy2
from zipfile import ZipFile

import pytest
import trio
from attrs import define
from packaging.requirements import Requirement

from simulators import open_binance
from tests.support.waiting import until
from tests.system.daemon import daemon, from_binance
from tests.system.process import Home
from tests.system.test_feed import SYMBOL, THEIRS, publish, show_out, stage


@asynccontextmanager
async def program(*words: str | Path) -> AsyncIterator[trio.Process]:
    """A program in a process of its own, killed at the end."""
    async with trio.open_nursery() as nursery:
        run = partial(trio.run_process, [str(word) for word in words], stdout=subprocess.PIPE, check=False)
        process: trio.Process = await nursery.start(run)
        yield process
        if process.returncode is None:
            process.kill()


@define
class Lines:
    """What a program prints."""

    process: trio.Process
    _rest: bytes = b""

    async def until(self, wanted: str) -> list[str]:
        """The lines up to one that matches."""
        seen: list[str] = []
        while not seen or not re.search(wanted, seen[-1]):
            while b"\n" not in self._rest:
                assert self.process.stdout is not None
                more = await self.process.stdout.receive_some()
                assert more, seen
                self._rest += more
            line, self._rest = self._rest.split(b"\n", 1)
            seen.append(line.decode())
        return seen


class TestExamples:
    async def test_resume(self, checkout: Path, tmp_path: Path) -> None:
        """Over a kill of the program, and a kill of the daemon: no trade is left out, none comes in a wrong order."""
        example = checkout / "dataflow/client/examples/resume.py"
        seen: list[str] = []
        async with open_binance() as exchange:
            home = Home(tmp_path, exchange.url)
            async with home.living() as life:
                command = (sys.executable, example, life.http, SYMBOL, tmp_path / "positions.json")
                await exchange.wait_subscribed([THEIRS])
                await publish(exchange, 1, 2)
                async with program(*command) as first:
                    seen += await Lines(first).until("^2 buy")
                await publish(exchange, 3, 4)
                await life.until_recorded(4)
                async with program(*command) as second:
                    told = Lines(second)
                    seen += await told.until("^4 buy")
                    await life.kill()
                    async with home.living():
                        await exchange.wait_subscribed([THEIRS])
                        await publish(exchange, 5)
                        seen += await told.until("^5 buy")
        places = [int(line.split()[0]) for line in seen if re.match(r"\d+ buy", line)]
        assert list(dict.fromkeys(places)) == [1, 2, 3, 4, 5]
        assert len(places) <= 6, "only the one that was in the hands of the killed program"
        assert any(line.startswith("lost") for line in seen)

    async def test_notebook(self, checkout: Path) -> None:
        """Candles of the past and of now, in a data frame."""
        example = checkout / "dataflow/client/examples/notebook.py"
        async with (
            stage() as (_exchange, d),
            program(sys.executable, example, d.http, SYMBOL, "1m") as process,
        ):
            (*_frame, last) = await Lines(process).until("^highest")
            assert last == "highest 3.5 lowest 1.5 volume 0.375"
            assert await process.wait() == 0

    async def test_alert(self, checkout: Path) -> None:
        """A source that is cut is an alert, its return the end of it. So is the daemon itself."""
        example = checkout / "dataflow/client/examples/alert.py"
        async with open_binance() as exchange:
            sources = from_binance(exchange.url, SYMBOL, eager=True)
            async with (
                daemon(sources=sources) as d,
                program(sys.executable, example, d.http, SYMBOL) as process,
            ):
                told = Lines(process)
                await told.until("the daemon is there")
                await exchange.wait_subscribed([THEIRS])
                await publish(exchange, 1)
                await until(lambda: d.core.history(SYMBOL).last == 1)
                await exchange.disconnect("refuse")
                await told.until(f"^ALERT {SYMBOL} lost at binance")
                await exchange.disconnect("accept")
                await told.until(f"^{SYMBOL} is good again, at binance")
                await show_out(d)
                await told.until("^ALERT the daemon is away: ended by the operator")


ALONE = f"""
import asyncio, sys
from importlib.util import find_spec
assert not any(map(find_spec, ("trio", "quart", "hypercorn", "httpx"))), "the environment is not empty"
from dataflow.client import Trade, connect
async def main():
    async with connect(sys.argv[1]) as feed:
        async for event in feed.trades("{SYMBOL}", snapshot=3):
            if isinstance(event, Trade):
                print(event.trade_id, event.price, flush=True)
asyncio.run(main())
"""


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("client-wheel")
    build = [sys.executable, "-P", "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=checkout / "dataflow/client", check=True, capture_output=True)
    (file,) = folder.glob("dataflow_client-*.whl")
    return file


class TestWheel:
    def test_it_has_the_modules_and_the_version_of_the_daemon(self, checkout: Path, wheel: Path) -> None:
        """One tree, two wheels."""
        room = checkout / "dataflow/client"
        with ZipFile(wheel) as archive:
            found = {name for name in archive.namelist() if name.startswith("dataflow/")}
        assert found == {f"dataflow/client/{file.name}" for file in [*room.glob("*.py"), room / "py.typed"]}
        versions = [
            tomllib.loads((folder / "pyproject.toml").read_text())["project"]["version"]
            for folder in (checkout, room)
        ]
        assert versions[0] == versions[1]

    def test_its_licence_is_inside(self, checkout: Path, wheel: Path) -> None:
        """Who gets the client alone gets the licence, which asks for that; it is the one of the whole."""
        with ZipFile(wheel) as archive:
            told = archive.read("dataflow_client-0.1.0.dist-info/licenses/LICENSE")
        assert told == (checkout / "LICENSE").read_bytes()

    async def test_it_follows_a_daemon_where_no_daemon_could_run(self, wheel: Path, tmp_path: Path) -> None:
        """In an empty environment with its own dependencies alone, on asyncio."""
        home = tmp_path / "env"
        venv.create(home, symlinks=True)
        (site,) = home.glob("lib/python*/site-packages")
        with ZipFile(wheel) as archive:
            archive.extractall(site)
            (metadata,) = [name for name in archive.namelist() if name.endswith("METADATA")]
            told = archive.read(metadata).decode()
        install(re.findall(r"^Requires-Dist: (.+)$", told, re.MULTILINE), site, set())
        command = (home / "bin/python", "-I", "-c", ALONE)
        async with stage() as (exchange, d), program(*command, d.http) as process:
            shown = Lines(process)
            assert await shown.until("^3 ") == [f"{n} {n}.50000000" for n in (1, 2, 3)]
            await publish(exchange, 4)
            assert await shown.until("^4 ") == ["4 4.50000000"]


def install(requirements: list[str], site: Path, done: set[str]) -> None:
    """What these need, without extras: copied from this environment, since a test has no network."""
    for requirement in map(Requirement, requirements):
        if requirement.name in done or (
            requirement.marker and not requirement.marker.evaluate({"extra": ""})
        ):
            continue
        done.add(requirement.name)
        found = distribution(requirement.name)
        for file in found.files or ():
            if not file.parts[0].startswith("..") and "__pycache__" not in file.parts:
                (site / file).parent.mkdir(parents=True, exist_ok=True)
                copy2(file.locate(), site / file)
        install(found.requires or [], site, done)


def test_the_import_is_light() -> None:
    """Neither the libraries of the daemon nor those of an extra come in, and nothing else of dataflow."""
    code = "import dataflow.client, sys, json; print(json.dumps(list(sys.modules)))"
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    modules = set(json.loads(told.stdout))
    unwanted = {"trio", "quart", "hypercorn", "httpx", "wsproto", "pandas", "pyarrow", "asyncio"}
    assert not modules & unwanted
    assert not [
        name for name in modules if name.startswith("dataflow.") and not name.startswith("dataflow.client")
    ]
