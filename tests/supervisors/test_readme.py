"""The README of the library is true: its examples run, and its map names every file."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import trio

import supervisors
from supervisors import Child, Point, Supervisor, open_supervisor
from tests.supervisors.helpers import NOW, Log, Worker, settle

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "supervisors"
README = (FOLDER / "README.md").read_text()


def block(language: str, containing: str) -> str:
    """The code block in `language` that contains a text."""
    blocks = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    (found,) = [each for each in blocks if containing in each]
    return str(found)


def test_the_greeter_prints_what_the_readme_shows() -> None:
    """Line by line, except for reports of a slow machine."""
    command = [sys.executable, "-c", block("python", "class Greeter")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = [line for line in done.stdout.splitlines() if not line.startswith("blocked")]
    assert lines == block("text", "hello Ada").splitlines()


async def test_the_fault_loses_the_first_message(autojump_clock: trio.testing.MockClock) -> None:
    """The second incarnation gets the rest, as the comment says."""
    names: dict[str, Any] = {"Point": Point}
    exec(block("python", "async def faults"), names)
    log = Log()
    spec = Supervisor([Child("greeter", lambda: Worker(log), backoff=NOW)])
    async with open_supervisor(spec, faults=names["faults"], on_event=log.hook) as s:
        for message in ("first", "second"):
            s.find("greeter").put(message)
        await settle()
        assert [event.detail for event in log.seen("dead_letter")] == [("first",)]
        node = s.tree().children[0]
        assert node.mailbox is not None
        assert (node.epoch, node.mailbox.handled, node.mailbox.lost_in_flight) == (2, 1, 1)


def the_map() -> list[str]:
    """The files of the module map, in reading order."""
    return re.findall(r"^\| \[`(\w+\.py)`\]\(\1\)", README, re.MULTILINE)


def test_the_map_names_every_file() -> None:
    """A new file must get its question, and no link leads nowhere."""
    assert sorted(the_map()) == sorted({file.name for file in FOLDER.glob("*.py")} - {"__init__.py"})


def test_the_first_eight_files_import_none_of_the_others() -> None:
    """Not even for types: so they are in no import circle with the machine."""
    first = {Path(name).stem for name in the_map()[:8]}
    for name in first:
        text = (FOLDER / f"{name}.py").read_text()
        assert set(re.findall(r"^\s*from \.(\w*) import", text, re.MULTILINE)) <= first


def test_files_of_the_tests_exist() -> None:
    """The README names some of them."""
    named = re.findall(r"`(tests/[\w/]+\.py)`", README)
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_names_in_the_readme_are_exported() -> None:
    """Each `Name` of the section on the parts is public."""
    parts = README.partition("## The parts")[2].partition("\n## ")[0]
    names = set(re.findall(r"`([A-Z][A-Za-z]+)`", parts))
    assert names >= {"Actor", "Context", "Handle", "Child", "Pool", "Ref"}
    assert [name for name in sorted(names) if name not in supervisors.__all__] == []
