"""A reader of the tutorial: does what a page says, in its order, with real daemons at free ports.

Each block of code must be taken once, so no command of a page stays untried. Blocks of `text` show what a
reader sees, and are not taken.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from attrs import define, field

from dataflow.cli import main
from tests.support.guide import GUIDE
from tests.support.node import NODE

PATIENCE = 200.0  # seconds for one word of a process; reached only by one that hangs
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@define
class Running:
    """A command that goes on, and what it has said so far."""

    process: subprocess.Popen[str]
    said: str = ""
    _after: int = 0

    def hear(self, until: str) -> re.Match[str]:
        """The next match of a pattern in what it says."""
        patience = threading.Timer(PATIENCE, self.process.kill)
        patience.start()
        try:
            while not (found := re.compile(until).search(self.said, self._after)):
                line = self.process.stdout.readline()  # type: ignore[union-attr]
                assert line, f"it ended without {until!r}:\n{self.said}"
                self.said += line
        finally:
            patience.cancel()
        self._after = found.end()
        return found

    def heard(self, pattern: str) -> re.Match[str]:
        """The first match of a pattern in what it has said."""
        found = re.search(pattern, self.said)
        assert found, self.said
        return found


@define
class Reader:
    """Reads one page in the folder `folder`. `ports`: what stands in the page, and the real one."""

    page: str
    folder: Path
    ports: dict[str, int] = field(factory=dict)
    exported: dict[str, str] = field(factory=dict)
    text: str = field(init=False)
    blocks: list[tuple[str, str]] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.text = (GUIDE / "pages" / f"{self.page}.md").read_text(encoding="utf-8")
        self.blocks = [found.groups() for found in _BLOCK.finditer(self.text) if found[1] != "text"]  # type: ignore[misc]

    def next(self, language: str, begins: str = "") -> str:
        """The next block, which must be in `language` and begin so. Ports in it are the real ones."""
        found, body = self.blocks.pop(0)
        assert found == language, body
        assert body.startswith(begins), body
        for written, real in self.ports.items():
            body = re.sub(rf"\b{written}\b", str(real), body)
        return body

    def write(self, name: str, language: str, begins: str = "") -> None:
        """Write the next block to a file."""
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(self.next(language, begins), encoding="utf-8")

    def run(self, begins: str = "") -> str:
        """Do what the next block says, line by line. Returns what was said. Raises if a line failed.

        A command of ours runs in this process: a fresh interpreter for each would cost most of a test's time.
        """
        said = io.StringIO()
        for line in self.next("sh", begins).splitlines():
            first, *words = shlex.split(line)
            if first == "export":
                self.exported |= dict(word.split("=", 1) for word in words)
            elif first == "dataflow":
                with self._here(), redirect_stdout(said), redirect_stderr(said):
                    assert main(words) == 0, said.getvalue()
            else:
                command = ["sh", "-e", "-c", line]
                done = subprocess.run(
                    command, cwd=self.folder, env=self.environ(), capture_output=True, text=True, check=False
                )
                assert done.returncode == 0, done.stderr
                said.write(done.stdout + "\n")
        return said.getvalue()

    @contextmanager
    def _here(self) -> Iterator[None]:
        """This process in the reader's folder, with the reader's environment and path of imports."""
        with pytest.MonkeyPatch.context() as patch, chdir(self.folder):
            for name, value in self.environ().items():
                patch.setenv(name, value)
            for folder in self.exported.get("PYTHONPATH", "").split(os.pathsep):
                patch.syspath_prepend(str(self.folder / folder))
            before = set(sys.modules)
            try:
                yield
            finally:
                for name in [
                    name for name in set(sys.modules) - before if name.partition(".")[0] == "my_feeds"
                ]:
                    del sys.modules[name]

    @contextmanager
    def running(self, command: str, until: str) -> Iterator[Running]:
        """A command that goes on, from when it has said `until`, a pattern."""
        with open(self.folder / "said.txt", "a", encoding="utf-8") as said:
            process = subprocess.Popen(
                ["sh", "-c", f"exec {command}"],
                cwd=self.folder,
                env=self.environ(),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            try:
                running = Running(process)
                running.hear(until)
                yield running
            finally:
                process.terminate()
                said.write(process.communicate()[0])

    def environ(self) -> dict[str, str]:
        """`dataflow` finds the daemon; `python` and `node` are those of the tests. No settings of this machine."""
        own = {name: value for name, value in os.environ.items() if not name.startswith("DATAFLOW__")}
        own["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), str(NODE.parent), own["PATH"]))
        port = str(self.ports.get("8080", 0))
        return own | self.exported | {"DATAFLOW__GATEWAY__PORT": port, "COLUMNS": "120"}
