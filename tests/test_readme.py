"""The READMEs are true: their links lead somewhere, and the example of supervision runs as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
READMES = sorted(
    str(page.relative_to(ROOT))
    for package in ("", "actors", "dataflow", "simulators", "supervisors", "tests")
    for page in (ROOT / package).glob("**/README.md" if package else "README.md")
)


def block(language: str, containing: str) -> str:
    """The README's code block in `language` that contains a text."""
    blocks = re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (found,) = [each for each in blocks if containing in each]
    return str(found)


@pytest.mark.parametrize("readme", READMES)
def test_files_that_a_readme_names_exist(readme: str) -> None:
    """No link leads nowhere."""
    page = ROOT / readme
    links = re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_supervision_example_says_what_it_says() -> None:
    """The greeter crashes on a nameless message, is started again, and its mailbox was kept."""
    done = subprocess.run(
        [sys.executable, "-c", block("python", "class Greeter")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert "hello Ada, from incarnation 1" in lines
    assert "hello Grace, from incarnation 2" in lines
    assert lines.index("crash greeter") < lines.index("hello Grace, from incarnation 2")
