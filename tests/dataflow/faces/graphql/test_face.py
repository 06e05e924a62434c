"""The face as a plug: without its library, its page and the files of others, and lines to copy."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from dataflow.app import hall
from dataflow.faces.graphql import Settings
from dataflow.faces.graphql.documents import checked
from dataflow.faces.graphql.samples import samples
from dataflow.settings.schema import Settings as All
from tests.support.lacking import without
from tests.support.vendor import GRAPHIQL, sums

SOURCE = '[sources.binance]\nconnector = "binance"\nurl = "ws://127.0.0.1:9/stream"\nsymbols = ["BTC-USDT"]\n'


def test_without_its_library(tmp_path: Path) -> None:
    """One line that tells the remedy; the face's own table can be read before."""
    config = tmp_path / "my.toml"
    config.write_text(f"{SOURCE}[faces.graphql]\nenabled = true\n[gateway]\nport = 0\n")
    ran = without("graphql", "run", "--config", str(config))
    assert ran.stderr.splitlines() == ['[faces.graphql]: needs a library: pip install "dataflow[graphql]"']
    assert ran.returncode == 1


@pytest.mark.parametrize(
    "settings", [{"path": "graphql"}, {"path": "/graphql/"}, {"path": "/a<b>"}, {"max_depth": 0}]
)
def test_settings_that_cannot_be(settings: dict[str, object]) -> None:
    """A path that no route can have, a depth that no document has."""
    with pytest.raises(ValueError, match=r"must begin with|max_depth"):
        Settings(**settings)  # type: ignore[arg-type]


def test_the_files_of_others_are_as_they_were_published() -> None:
    """Nobody has changed them by hand, and each has its licence beside it."""
    assert sums(GRAPHIQL) == (GRAPHIQL / "SHA256SUMS").read_text()
    assert len(list(GRAPHIQL.glob("LICENSE.*"))) == 4


def test_the_page_names_only_files_that_are_there() -> None:
    """And none of another host."""
    folder = GRAPHIQL.parent
    named = re.findall(r'(?:src|href)="([^"]+)"', (folder / "page.html").read_text())
    there = {f"graphiql/{each.name}" for each in folder.glob("**/*")}
    assert {each for each in named if each != "data:,"} <= there
    assert "//" not in "".join(named)


def test_lines_to_copy_hold_documents_that_run() -> None:
    """With a symbol in the place of the word for it."""
    built = hall(All(faces={"graphql": Settings(enabled=True)}))
    query, pages, subscription = samples("/graphql", "/graphiql")
    (face,) = [each for each in built.faces if each.name == "graphql"]
    assert [each.name for each in face.about(built)] == [query.name, pages.name, subscription.name]
    assert subscription.trial is not None
    said = json.loads(subscription.trial.say[1].replace("{symbol}", "BTC-USDT"))
    checked(said["payload"]["query"], 15)
    for sample in (query, pages):
        (body,) = re.findall(r"--json '(.*)'", sample.lines["curl"])
        checked(json.loads(body.replace("{symbol}", "BTC-USDT"))["query"], 15)
