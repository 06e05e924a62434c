"""A reader of the tutorial: does what a page says, in its order, with real processes at free ports.

Each block of code must be taken once, so no command of a page stays untried. Blocks of `text` show what a
reader sees, and are not taken.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from attrs import define, field

from tests.support.guide import GUIDE

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@define
class Running:
    """A command that goes on, and what it has said so far."""

    output: IO[str]
    said: str = ""
    _after: int = 0

    def hear(self, until: str) -> re.Match[str]:
        """The next match of a pattern in what it says."""
        while not (found := re.compile(until).search(self.said, self._after)):
            line = self.output.readline()
            assert line, f"it ended without {until!r}:\n{self.said}"
            self.said += line
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
    blocks: list[tuple[str, str]] = field(init=False)

    def __attrs_post_init__(self) -> None:
        text = (GUIDE / "pages" / f"{self.page}.md").read_text(encoding="utf-8")
        self.blocks = [found.groups() for found in _BLOCK.finditer(text) if found[1] != "text"]  # type: ignore[misc]

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
        """Run the next block, of shell commands. Returns what they said. Raises if one failed."""
        done = subprocess.run(
            ["sh", "-e", "-c", self.next("sh", begins)],
            cwd=self.folder,
            env=self.environ(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

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
            assert process.stdout is not None
            try:
                running = Running(process.stdout)
                running.hear(until)
                yield running
            finally:
                process.terminate()
                said.write(process.communicate()[0])

    def environ(self) -> dict[str, str]:
        """With `dataflow` on the path, which finds the daemon; without the settings of this machine."""
        own = {name: value for name, value in os.environ.items() if not name.startswith("DATAFLOW__")}
        own["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{own['PATH']}"
        return own | {"DATAFLOW__GATEWAY__PORT": str(self.ports.get("8080", 0)), "COLUMNS": "120"}
