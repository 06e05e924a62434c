"""A real browser for tests: the system's Chromium, which one visit after the other shares.

A visit is a plain function, for playwright's simple interface. Its objects belong to one thread, so each browser has one,
and visits come to it. Rules:

1. A visit has a context of its own, and thereby cookies, cache and storage of its own. It waits for what it expects as long
   as a busy machine takes: `expect(...)` looks again, where one look would ask for luck.
2. A browser that is free is taken; where none is free, one is started. Two visits at once have two.
3. `pytest --strain SEED` makes its pages late, at random: see `strain`.
4. A visit that fails takes its browser with it, so a crash is the end of one test. One that hangs keeps its browser.
5. Free browsers end with the process. One that hangs does so too: its thread is no reason to go on.
"""

from __future__ import annotations

import atexit
import inspect
import shutil
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

import pytest
import trio
from attrs import define, field
from outcome import Error, Outcome, Value, capture
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.support import strain

T = TypeVar("T")

FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage")
PATIENT = 10.0  # s; reached only by a browser that does not close
WAIT = 60_000.0  # ms; reached only by a page that never shows what a visit waits for
_FREE: list[_Driver] = []
_OWN = threading.local()  # .driver: whose thread this is


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

    def made(browser: Browser) -> T:
        with browser.new_context(**context) as fresh:
            if strain.seed is not None:
                fresh.add_init_script(strain.script())
            fresh.set_default_timeout(WAIT)
            expect.set_options(timeout=WAIT)
            page = fresh.new_page()
            heard = Heard()
            page.on("request", lambda request: heard.urls.append(request.url))
            page.on("pageerror", lambda error: heard.complaints.append(str(error)))
            page.on("console", lambda line: line.type == "error" and heard.complaints.append(line.text))
            return visit(page, heard)

    driver = _FREE.pop() if _FREE else _Driver(program)
    return await trio.to_thread.run_sync(driver.make, made)


def in_the_test(call: Callable[..., Any], *args: Any) -> Any:
    """What `call(*args)` returns in the loop of the test, asked from its visit. Async functions are awaited.

    Raises what `call` raises, and `trio.Cancelled` where the test is.
    """
    driver: _Driver = _OWN.driver
    driver.told.put((call, args))
    return driver.answers.get().unwrap()


@define
class _Driver:
    """A browser and its thread. `make` is called by a thread of Trio, which stands for the test meanwhile."""

    program: str
    visits: SimpleQueue[Callable[[Browser], Any] | None] = field(init=False, factory=SimpleQueue)
    told: SimpleQueue[Outcome[Any] | tuple[Callable[..., Any], tuple[Any, ...]]] = field(
        init=False, factory=SimpleQueue
    )
    answers: SimpleQueue[Outcome[Any]] = field(init=False, factory=SimpleQueue)
    thread: threading.Thread = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.thread = threading.Thread(target=self._drive, name="browser", daemon=True)
        self.thread.start()

    def make(self, visit: Callable[[Browser], T]) -> T:
        """What `visit(browser)` returns; what it asks of the test is done meanwhile."""
        self.visits.put(visit)
        while True:
            match self.told.get():
                case Value() as done:
                    _FREE.append(self)
                    return done.unwrap()
                case Error() as failed:
                    self.end()
                    return failed.unwrap()
                case call, args:
                    self.answers.put(capture(trio.from_thread.run, _awaited, call, *args))

    def end(self) -> None:
        """Close the browser."""
        self.visits.put(None)
        self.thread.join(PATIENT)

    def _drive(self) -> None:
        _OWN.driver = self
        try:
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=self.program, args=list(FLAGS))
                while visit := self.visits.get():
                    self.told.put(capture(visit, browser))
                browser.close()
        except BaseException as failure:  # at the start it is the answer to the first visit
            self.told.put(Error(failure))


async def _awaited(call: Callable[..., Any], *args: Any) -> Any:
    result = call(*args)
    return await result if inspect.isawaitable(result) else result


@atexit.register
def _end_all() -> None:
    while _FREE:
        _FREE.pop().end()
