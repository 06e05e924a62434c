"""The READMEs are true: their links lead somewhere, and the map of the house is the house."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from dataflow.cli import app

ROOT = Path(__file__).parent.parent
FETCHED = {"node_modules", ".build"}  # what others wrote, brought by a test or a bench
READMES = sorted(
    str(page.relative_to(ROOT))
    for package in ("", "actors", "config", "dataflow", "simulators", "supervisors", "tests")
    for page in (ROOT / package).glob("**/README.md" if package else "README.md")
    if not FETCHED & set(page.relative_to(ROOT).parts)
)


@pytest.mark.parametrize("readme", READMES)
def test_files_that_a_readme_names_exist(readme: str) -> None:
    """No link leads nowhere."""
    page = ROOT / readme
    links = re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_map_has_the_floors_that_are_held() -> None:
    """In the order of the contract of imports."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (floors,) = [each["layers"] for each in contracts if each.get("containers") == ["dataflow"]]
    page = (ROOT / "dataflow" / "README.md").read_text()
    told = re.search(r"The floors, from the top: (.*?)\.\n", page, re.DOTALL)
    assert told is not None
    assert re.findall(r"`([^`]+)`", told[1]) == floors


def test_the_map_has_every_room() -> None:
    """A room that nobody can find would be built a second time."""
    page = (ROOT / "dataflow" / "README.md").read_text()
    table = page[page.index("## The rooms") : page.index("## One trade")]
    rooms = {path.name for path in (ROOT / "dataflow").iterdir() if (path / "__init__.py").exists()}
    assert set(re.findall(r"`(\w+)/`", table)) == rooms


@pytest.mark.parametrize("readme", READMES)
def test_a_command_that_a_readme_shows_is_one_of_ours(readme: str) -> None:
    """Each line of a block of shell commands: the command exists, and takes these words."""
    blocks = re.findall(
        r"^```(?:sh|bash|console)\n(.*?)^```", (ROOT / readme).read_text(), re.DOTALL | re.MULTILINE
    )
    for line in "".join(blocks).replace("\\\n", " ").splitlines():
        if (called := re.search(r"(?:^|\s|/)dataflow ([a-z].*)$", line)) is None:
            continue
        words = shlex.split(called[1], comments=True)
        words = words[: next((at for at, word in enumerate(words) if word in ("|", ">", "&")), len(words))]
        app(words[0]).parse_args(
            words, exit_on_error=False, print_error=False
        )  # raises, and says what is wrong
