"""Fixtures for all tests."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from loguru import logger

from tests.support import postgres, strain

CHECKOUT = Path(__file__).parent.parent

# How long an example takes says how busy the machine is, nothing about the product. Where CI is set this lies over
# Hypothesis's own profile of that name, which also takes the same examples every time.
hypothesis.settings.register_profile(
    "unhurried",
    hypothesis.settings.default,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("unhurried")


def pytest_addoption(parser: pytest.Parser) -> None:
    """The strain for pages in browsers."""
    parser.addoption("--strain", type=int, metavar="SEED", help="pages in browsers are late, at random")


def pytest_configure(config: pytest.Config) -> None:
    """Tell the browsers of the strain."""
    strain.seed = config.option.strain


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The root of the project."""
    return CHECKOUT


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What is logged, as "LEVEL path: message"."""
    told: list[str] = []
    form = "{level} {extra[path]}: {message}"
    sink = logger.add(lambda message: told.append(message.rstrip("\n")), format=form, level="INFO")
    yield told
    logger.remove(sink)


@pytest.fixture(scope="session")
def server() -> Iterator[Any]:
    """A PostgreSQL server."""
    yield from postgres.served()


@pytest.fixture(scope="session")
def recordings() -> Path:
    """The folder that holds `recordings/` and `trades/`; skips the test where it is not at hand.

    DATAFLOW_RECORDINGS names it; without that, `shared` beside the checkout is tried.
    """
    folder = Path(os.environ.get("DATAFLOW_RECORDINGS") or CHECKOUT.parent / "shared")
    if not (folder / "recordings").is_dir():
        pytest.skip("needs the recordings: set DATAFLOW_RECORDINGS to their folder")
    return folder


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where CI is set a test that lacks something fails: a skip there would hide a promise."""
    report = yield
    if report.skipped and os.environ.get("CI"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not allow: {report.longrepr}"
    return report
