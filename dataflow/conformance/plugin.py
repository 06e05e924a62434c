"""A plugin of pytest: each check of a connector is a test.

    pytest --connector my_feeds.acme --connector-symbols BTC-USD --connector-recording session.jsonl.gz

Rules of this file: without `--connector` it does nothing. What the recording does not show is skipped, with
the words what would show it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of the checks."""
    group = parser.getgroup("dataflow", "the checks of a connector of dataflow")
    group.addoption("--connector", metavar="NAME", help="check this connector: a dotted module")
    group.addoption("--connector-symbols", metavar="A-B,C-D", default="", help="its symbols")
    group.addoption("--connector-url", metavar="URL", help="its address, if that matters")
    group.addoption("--connector-recording", metavar="FILE", help="what its upstream said, as JSON lines")
    group.addoption(
        "--connector-accept",
        metavar="REASON",
        action="append",
        default=[],
        help="a problem that the recording may have",
    )


def pytest_collection_modifyitems(
    session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Add the checks to the tests."""
    connector = config.getoption("--connector")
    if connector:
        made = Checks.from_parent(session, name=str(connector), nodeid=str(connector))
        items.extend(made.collect())


class Checks(pytest.Collector):
    """All checks of one connector."""

    def collect(self) -> Iterator[pytest.Item]:
        from .checks import CHECKS
        from .recording import BadRecording, Recording, load
        from .subject import BadSubject, subject

        option = self.config.getoption
        try:
            file = option("--connector-recording")
            recording = load(Path(file)) if file else Recording()
            symbols = [each.strip() for each in option("--connector-symbols").split(",") if each.strip()]
            accepted, url = option("--connector-accept"), option("--connector-url")
            about = subject(option("--connector"), symbols, recording, accepted, url=url)
        except (BadSubject, BadRecording) as error:
            raise pytest.UsageError(str(error)) from None
        for check in CHECKS:
            yield CheckItem.from_parent(self, name=check.__name__, check=check, about=about)


class CheckItem(pytest.Item):
    """One check."""

    def __init__(self, *, check: Any, about: Any, **rest: Any) -> None:
        super().__init__(**rest)
        self._check = check
        self._about = about

    def runtest(self) -> None:
        """Run it."""
        from .report import Verdict, result

        found = result(self._check, self._about)
        if found.verdict is Verdict.NOT_SHOWN:
            pytest.skip(found.reason or "")
        if found.verdict is Verdict.BROKEN:
            pytest.fail(f"{found.promise}\n{found.reason}", pytrace=False)

    def reportinfo(self) -> tuple[str, None, str]:
        """Its name in a report."""
        return self.nodeid, None, f"{self.parent.name if self.parent else ''} {self.name}"
