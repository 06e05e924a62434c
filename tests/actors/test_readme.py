"""The names in actors/README.md exist in the modules that it links to."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from actors.subscription import SUBSCRIBERS_AT_ONCE

README = (Path(__file__).parents[2] / "actors" / "README.md").read_text()
MODULES = [
    importlib.import_module(f"actors.{name}")
    for name in ("connector", "cache_shard", "update", "subscription", "follower", "outbox", "session")
]


def test_every_module_is_on_the_map() -> None:
    """And none that does not exist."""
    linked = set(re.findall(r"\]\((\w+)\.py\)", README))
    assert linked == {module.__name__.removeprefix("actors.") for module in MODULES}
    folder = Path(str(MODULES[0].__file__)).parent
    assert linked == {path.stem for path in folder.glob("*.py") if path.stem != "__init__"}


# Names in code marks that begin with a capital letter, perhaps with an attribute behind.
NAMES = sorted(set(re.findall(r"`([A-Z]\w*[a-z]\w*(?:\.\w+)?)`", README)))
ELSEWHERE = {"SourceState", "Topics", "Conversation", "Days"}  # of dataflow


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ELSEWHERE])
def test_a_name_exists(name: str) -> None:
    """A class, and its attribute where one is named."""
    owner, _, attribute = name.partition(".")
    found = [getattr(module, owner) for module in MODULES if hasattr(module, owner)]
    assert found
    assert not attribute or hasattr(found[0], attribute)


def test_the_checkpoint_of_a_pass_is_told_right() -> None:
    """The figure is the one of the code."""
    assert f"After {SUBSCRIBERS_AT_ONCE} subscribers" in README
