"""A real browser for tests: the system's Chromium, driven from a thread of its own."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
import trio
from attrs import define, field
from playwright.sync_api import Page, sync_playwright

T = TypeVar("T")

FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage")


@define
class Heard:
    """What a page asked for, and what it complained about."""

    urls: list[str] = field(factory=list)
    complaints: list[str] = field(factory=list)


async def browse(visit: Callable[[Page, Heard], T], **context: Any) -> T:
    """Call `visit(page, heard)` in a thread with a fresh page. `context`: options of the browser's context.

    Skips the test where there is no Chromium.
    """
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("needs a browser: apt install chromium")

    def run() -> T:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
            try:
                page = browser.new_context(**context).new_page()
                heard = Heard()
                page.on("request", lambda request: heard.urls.append(request.url))
                page.on("pageerror", lambda error: heard.complaints.append(str(error)))
                page.on("console", lambda line: line.type == "error" and heard.complaints.append(line.text))
                return visit(page, heard)
            finally:
                browser.close()

    return await trio.to_thread.run_sync(run)
