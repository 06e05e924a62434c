"""The guide is whole: every README is a page, every link leads somewhere, and nothing comes from elsewhere."""

from __future__ import annotations

import importlib.util
import os
import posixpath
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote

import pytest
import yaml
from attrs import define, field

from dataflow import client, sources
from dataflow.cli import app
from tests.support.guide import BUILDING, ROOT, built, shared

LOADED = {("script", "src"), ("img", "src"), ("link", "href"), ("iframe", "src"), ("source", "srcset")}
FETCHED = {"node_modules", ".build", ".venv"}  # what others wrote


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    """`hooks.py`, as MkDocs loads it."""
    spec = importlib.util.spec_from_file_location("guide_hooks", BUILDING / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shared(tmp_path_factory)


@define
class Outline(HTMLParser):
    """What a page loads, links to and names; and what its policy would not let it do."""

    loads: list[str] = field(factory=list)
    links: list[str] = field(factory=list)
    names: set[str] = field(factory=set)
    inline: list[str] = field(factory=list)

    def __attrs_pre_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        for name, value in attrs:
            if (tag, name) in LOADED:
                self.loads.append(value or "")
            if name.startswith("on") or name == "style":
                self.inline.append(f"{tag} {name}={value}")
        if tag == "a" and "href" in given:
            self.links.append(given["href"] or "")
        if "id" in given:
            self.names.add(given["id"] or "")
        if tag == "style" or (tag == "script" and "src" not in given and "type" not in given):
            self.inline.append(tag)


@pytest.fixture(scope="module")
def outlines(site: Path) -> dict[str, Outline]:
    """By the name of the page in the site."""
    told = {}
    for file in site.rglob("*.html"):
        outline = told[file.relative_to(site).as_posix()] = Outline()
        outline.feed(file.read_text(encoding="utf-8"))
    return told


def readmes() -> Iterator[str]:
    for folder, inside, files in os.walk(ROOT):
        # What is left out is not looked into: another test may just be installing it.
        inside[:] = [name for name in inside if name not in FETCHED and not name.startswith(".")]
        if "README.md" in files:
            yield (Path(folder) / "README.md").relative_to(ROOT).as_posix()


def test_every_readme_and_every_written_page_is_in_the_guide(hooks: ModuleType) -> None:
    """A text that cannot be found there would be as good as unwritten; none stands twice."""
    pages = list(hooks.pages(yaml.safe_load((BUILDING / "mkdocs.yml").read_text())["nav"]))
    written = {file.relative_to(ROOT).as_posix() for file in BUILDING.parent.joinpath("pages").rglob("*.md")}
    lacking = {*readmes(), *written, "CHANGELOG.md"} - set(pages)
    assert lacking == set(), "a line for each in `nav` of dataflow/faces/guide/building/mkdocs.yml"
    assert len(set(pages)) == len(pages)
    assert len({hooks.destination(page) for page in pages}) == len(pages)


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("[a](../README.md)", "[a](../README.md)"),
        ("[a](../README.md#b)", "[a](../README.md#b)"),
        ("[a](#b), [c](https://example.com/d)", "[a](#b), [c](https://example.com/d)"),
        ("[the room](../cache#b)", "[the room](../cache/README.md#b)"),
        ("[keys](../../config/server.toml)", "[keys](../../config/server.toml.md)"),
        ("[`app.py`](../app.py)", "`app.py`"),
        ("[`a`\nb](../app.py) and [c](../core.py)", "`a`\nb and c"),
        ("[a](../never_written.py)", "[a](../never_written.py)"),
        ("```md\n[`app.py`](../app.py)\n```", "```md\n[`app.py`](../app.py)\n```"),
        ("- a\n\n  ```\n  [b](../app.py)\n  ```\n", "- a\n\n  ```\n  [b](../app.py)\n  ```\n"),
        ("![picture](page/page.png)", "![picture](page/page.png)"),
    ],
)
def test_a_link_means_the_same_here_and_there(hooks: ModuleType, written: str, shown: str) -> None:
    """To a page: as it is. To a folder or a shown file: to its page. To another file: its text alone.

    Blocks of code stay as they are, and so does a link to nothing, which ends a strict build.
    """
    known = {
        "README.md",
        "dataflow/README.md",
        "dataflow/cache/README.md",
        "config/server.toml.md",
        "dataflow/faces/page/page.png",
    }
    assert hooks.linked(written, "dataflow/faces/README.md", known) == shown


def test_every_link_leads_somewhere(outlines: dict[str, Outline], site: Path) -> None:
    """In the navigation and in the texts, to the very heading; and every file that a page loads is there."""
    astray = []
    for name, outline in outlines.items():
        for link in {*outline.links, *outline.loads}:
            if re.match(r"[a-z]+:", link):
                continue
            path, _, anchor = link.partition("#")
            there = (
                posixpath.normpath(posixpath.join(posixpath.dirname(name), unquote(path))) if path else name
            )
            there = "index.html" if there == "." else there
            found = (site / there).is_file()
            if not found or (anchor and there in outlines and unquote(anchor) not in outlines[there].names):
                astray.append(f"{name}: {link}")
    assert astray == []


def test_nothing_comes_from_elsewhere(outlines: dict[str, Outline], site: Path) -> None:
    """No script, style, image or font of another host, and neither script nor style inside a page."""
    assert {name: each.inline for name, each in outlines.items() if each.inline} == {}
    loads = {load for each in outlines.values() for load in each.loads}
    assert [load for load in loads if re.match(r"[a-z]+:|//", load)] == []
    for sheet in site.rglob("*.css"):
        assert re.findall(r"@import|url\(\s*[\"']?(?!data:)(?:[a-z]+:|//)", sheet.read_text()) == [], sheet


def test_it_has_no_place_and_no_day(site: Path, tmp_path: Path) -> None:
    """Built twice it is the same, to the byte; no path of this machine is in it."""
    again = built(tmp_path / "again")
    files = {file.relative_to(site): file.read_bytes() for file in site.rglob("*") if file.is_file()}
    assert {
        file.relative_to(again): file.read_bytes() for file in again.rglob("*") if file.is_file()
    } == files
    for place in (ROOT, site.parent):
        assert [name for name, content in files.items() if str(place).encode() in content] == []


def test_each_command_explains_itself_in_the_guide(site: Path) -> None:
    """The page of commands has what `--help` says, of commands inside commands too."""
    page = (site / "commands.html").read_text(encoding="utf-8")
    for name in (name for name in app() if not name.startswith("-")):
        assert f">dataflow {name}" in page
    assert ">dataflow history export" in page
    assert "Usage: dataflow history export" in page
    assert "--faults-per-minute" in page


def test_the_shown_files_are_the_files(site: Path, hooks: ModuleType) -> None:
    """The page of all keys has each line of the file."""
    name = "config/server.toml"
    assert hooks.text(f"{name}.md").split("```toml\n")[1] == (ROOT / name).read_text() + "```\n"


@pytest.mark.parametrize(("page", "package"), [("python", client), ("connectors", sources)])
def test_every_public_name_is_explained(outlines: dict[str, Outline], page: str, package: ModuleType) -> None:
    """Those of clients, and those of authors of connectors."""
    missing = {f"{package.__name__}.{name}" for name in package.__all__} - outlines[f"{page}.html"].names
    assert missing == set(), f"a line for each in dataflow/faces/guide/pages/{page}.md"


def test_the_licences_of_the_theme_are_in_the_site(site: Path) -> None:
    """A wheel with the guide hands on the theme and its icons: their licences go with them."""
    told = (site / "assets" / "LICENSE.txt").read_text(encoding="utf-8")
    assert "Martin Donath" in told
    assert "Pictogrammers" in told
    assert "Font Awesome" in told
