"""What MkDocs calls while it builds the guide. No module of the daemon imports it.

Rules of this file. The pages are those of `nav`, under their names in the repository, so a link means the
same here and there. A link to a file without a page loses its target and keeps its text. A page has neither a
script nor a style of its own, because the content security policy allows none. Two builds of one checkout are
equal.
"""

from __future__ import annotations

import io
import logging
import posixpath
import re
from collections.abc import Iterable, Iterator
from hashlib import sha256
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).resolve().parents[4]
HERE: Final = "dataflow/faces/guide/"
COMMANDS: Final = "commands.md"  # made of the commands' own help
# Of the theme: maps of its sources, other languages than English, a list of addresses.
UNUSED: Final = re.compile(r"\.map$|/lunr/|^sitemap")
# Of the theme and of the icons that it shows.
LICENCES: Final = re.compile(r"(dist-info/licenses|\.icons/material|\.icons/fontawesome)/LICENSE")

_FENCE: Final = re.compile(r"^( *)(`{3,}|~{3,}).*?^\1\2`*[ ]*$", re.DOTALL | re.MULTILINE)
_LINK: Final = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^()\s]+)\)")
_ELSEWHERE: Final = re.compile(r"[a-z]+:|#")
_SCRIPT: Final = re.compile(r"<script>(.*?)</script>", re.DOTALL)
_STYLE: Final = re.compile(r'(<[a-z]+\b[^<>]*?) style="([^"]*)"')
_CLASS: Final = re.compile(r'^(<[^<>]*?\bclass=")')


# -- the pages -----------------------------------------------------------------------------------------


def on_config(config: MkDocsConfig) -> None:
    """No page for errors and no list of addresses: both need to know where the guide will stand.

    Nothing is said but warnings. MkDocs' own `--quiet` would hide these too, and then `--strict` misses them.
    """
    logging.getLogger("mkdocs").setLevel(logging.WARNING)
    config.theme.static_templates.clear()


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The pages of `nav` take the place of what MkDocs found; of the theme remains what is used."""
    for file in [each for each in files if each.src_uri.endswith(".md") or UNUSED.search(each.src_uri)]:
        files.remove(file)
    for name in pages(config.nav):
        content = text(name)
        files.append(_made(name, content, config))
        for image in images(name, content):
            files.append(_copied(image, config))
    files.append(_copied(f"{HERE}building/look.css", config, "look.css"))
    files.append(File.generated(config, "assets/LICENSE.txt", content=licences()))
    return files


def licences() -> str:
    """The licences of the theme and of its icons, which both stand in the site: they ask to go with them."""
    found = [file for file in distribution("mkdocs-material").files or () if LICENCES.search(file.as_posix())]
    return "\n\n".join(f"== {file} ==\n\n{file.read_text(encoding='utf-8')}" for file in sorted(found))


def pages(nav: Any) -> Iterator[str]:
    """The names of all pages, in the order of `nav`."""
    if isinstance(nav, str):
        if nav.endswith(".md"):
            yield nav
    elif nav:
        for each in nav.values() if isinstance(nav, dict) else nav:
            yield from pages(each)


def text(name: str) -> str:
    """The Markdown of a page; of a file that is no Markdown, a page that shows it. Raises PluginError."""
    if name == COMMANDS:
        return commands()
    file = ROOT / name
    if file.exists():
        return file.read_text(encoding="utf-8")
    shown = file.with_suffix("")
    if not shown.exists():
        raise PluginError(f"`nav` in building/mkdocs.yml names {name}, and there is no such file")
    return f"# {shown.name}\n\n```{shown.suffix[1:]}\n{shown.read_text(encoding='utf-8')}```\n"


def destination(name: str) -> str:
    """Where a page stands in the site."""
    if name == "README.md":
        return "index.html"
    short = name.removeprefix(f"{HERE}pages/").removesuffix(".md").removesuffix("/README")
    return f"{short.lower() if '/' not in short else short}.html"


def _made(name: str, content: str, config: MkDocsConfig) -> File:
    file = File.generated(config, name, content=content, inclusion=InclusionLevel.INCLUDED)
    file.dest_uri = destination(name)
    return file


def _copied(name: str, config: MkDocsConfig, to: str | None = None) -> File:
    return File.generated(config, to or name, abs_src_path=str(ROOT / name))


# -- links ---------------------------------------------------------------------------------------------


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The text of a page whose links lead to pages."""
    return linked(markdown, page.file.src_uri, {each.src_uri for each in files})


def linked(markdown: str, name: str, known: Iterable[str]) -> str:
    """The text of the page `name`, for a site that has the files `known`.

    A link to a folder leads to its README, a link to a shown file to the page that shows it. A link to any
    other file of the repository becomes its text. One that leads nowhere stays: MkDocs complains of it.
    """
    known = set(known)

    def mended(found: re.Match[str]) -> str:
        mark, words, target = found.groups()
        if _ELSEWHERE.match(target):
            return found[0]
        path, hash_, anchor = target.partition("#")
        there = _joined(name, path)
        for shown, suffix in ((there, ""), (f"{there}/README.md", "/README.md"), (f"{there}.md", ".md")):
            if shown in known:
                return f"{mark}[{words}]({path.rstrip('/') if suffix else path}{suffix}{hash_}{anchor})"
        return words if (ROOT / there).exists() else found[0]

    return "".join(part if code else _LINK.sub(mended, part) for part, code in _split(markdown))


def images(name: str, markdown: str) -> list[str]:
    """The images that a page shows, as they are called in the repository."""
    prose = "".join(part for part, code in _split(markdown) if not code)
    return [_joined(name, target) for mark, _, target in _LINK.findall(prose) if mark]


def _joined(name: str, path: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(name), path))


def _split(markdown: str) -> Iterator[tuple[str, bool]]:
    """The text in parts, and of each whether it is a block of code."""
    at = 0
    for block in _FENCE.finditer(markdown):
        yield markdown[at : block.start()], False
        yield block[0], True
        at = block.end()
    yield markdown[at:], False


# -- commands ------------------------------------------------------------------------------------------


def commands() -> str:
    """The page of all commands, each with its own help."""
    from dataflow.cli import app

    parts = ["# Commands", "What `dataflow COMMAND --help` says of each command.", _help()]
    for name in _names(app()):
        parts += [f"## dataflow {name}", _help(name)]
        for inner in _names(app(name)[name]):
            parts += [f"### dataflow {name} {inner}", _help(name, inner)]
    return "\n\n".join(parts)


def _names(command: Any) -> list[str]:
    return [name for name in command if not name.startswith("-")]


def _help(*words: str) -> str:
    from rich.console import Console

    from dataflow.cli import app

    written = io.StringIO()
    console = Console(file=written, width=100, color_system=None)
    app(words[0] if words else None).help_print(list(words), console=console)
    lines = "\n".join(line.rstrip() for line in written.getvalue().strip().splitlines())
    return f"```text\n{lines}\n```"


# -- the policy ----------------------------------------------------------------------------------------


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """A page without scripts and styles of its own: they stand in files beside it."""
    folder = posixpath.dirname(page.file.dest_uri)
    up = posixpath.relpath(".", folder or ".")

    def script(found: re.Match[str]) -> str:
        name = f"assets/own/{sha256(found[1].encode()).hexdigest()[:12]}.js"
        file = Path(config.site_dir, name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(found[1], encoding="utf-8")
        return f'<script src="{posixpath.normpath(posixpath.join(up, name))}"></script>'

    return _STYLE.sub(_as_class, _SCRIPT.sub(script, output))


def _as_class(found: re.Match[str]) -> str:
    """`style="text-align: right;"` as the class `text-align-right`, which look.css knows."""
    name = re.sub(r"\W+", "-", found[2]).strip("-")
    classed = _CLASS.sub(rf"\1{name} ", found[1])
    return classed if classed != found[1] else f'{found[1]} class="{name}"'
