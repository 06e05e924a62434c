"""The guide at /docs/guide/: served as it was built, searched in a browser, and its tutorial does what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from dataflow.faces import guide
from dataflow.settings.schema import Gateway
from tests.support.browser import Heard, browse
from tests.support.guide import built
from tests.system.daemon import daemon, http_client


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small guide, where the daemon looks for it."""
    folder = tmp_path / "site"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text("<title>the guide</title>")
    (folder / "assets" / "own.js").write_text("start()")
    (tmp_path / "secret.txt").write_text("not for you")
    monkeypatch.setattr(guide, "SITE", folder)
    return folder


async def test_it_is_served_as_it_was_built(site: Path) -> None:
    """Each file under its name and by its kind; a browser that has it is told so. Nothing outside is served."""
    async with daemon(sources={}) as d, http_client(d.http) as http:
        page = await http.get("/docs/guide/")
        assert (page.status_code, page.text) == (200, "<title>the guide</title>")
        assert page.headers["content-type"].startswith("text/html")
        assert "unsafe" not in page.headers["content-security-policy"]
        script = await http.get("/docs/guide/assets/own.js")
        assert (script.text, script.headers["content-type"]) == ("start()", "text/javascript; charset=utf-8")
        again = await http.get("/docs/guide/", headers={"If-None-Match": page.headers["etag"]})
        assert again.status_code == 304
        moved = await http.get("/docs/guide")
        assert (moved.status_code, moved.headers["location"]) == (302, "guide/")
        for name in (
            "no.html",
            "assets",
            "../secret.txt",
            "..%2fsecret.txt",
            "%2e%2e/secret.txt",
            "a%00b",
        ):
            answer = await http.get(f"/docs/guide/{name}")
            assert answer.status_code == 404, name
            assert "not for you" not in answer.text


async def test_a_new_one_is_served_at_once(site: Path) -> None:
    """Without a guide the page says what to do; after `make docs` the next request gets it."""
    page = (site / "index.html").read_text()
    (site / "index.html").unlink()
    async with daemon(sources={}) as d, http_client(d.http) as http:
        answer = await http.get("/docs/guide/")
        assert answer.status_code == 200
        assert "make docs" in answer.text
        (site / "index.html").write_text(page)
        assert (await http.get("/docs/guide/")).text == page


async def test_it_is_read_in_a_browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below a prefix, wide and narrow: it finds a word, asks nobody else, and its policy hinders nothing."""
    monkeypatch.setattr(guide, "SITE", built(tmp_path / "site"))

    def visit(page: Any, heard: Heard) -> tuple[str, int, Heard]:
        page.goto(f"{http}/feed/docs/guide/")
        page.locator(".md-search__input").fill("overrun")
        found = page.locator(".md-search-result__link", has_text="overrun").first
        found.wait_for()
        said = found.inner_text()
        found.click()
        page.locator("h1", has_text="The client protocol").wait_for()
        page.set_viewport_size({"width": 390, "height": 800})
        page.goto(f"{http}/feed/docs/guide/config.html")
        return said, page.evaluate("document.documentElement.scrollWidth"), heard

    async with daemon(sources={}, gateway=Gateway(port=0, root_path="/feed")) as d:
        http = d.http
        said, wide, heard = await browse(visit)
        assert "overrun" in said
        assert wide <= 390
        assert heard.complaints == []
        hosts = {urlsplit(url).netloc for url in heard.urls if not url.startswith("data:")}
        assert hosts == {urlsplit(http).netloc}
