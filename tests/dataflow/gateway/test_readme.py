"""The README of the gateway is true: its map has every module, and its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path


def test_the_map_has_every_module(checkout: Path) -> None:
    """Each once, and none that does not exist."""
    folder = checkout / "dataflow" / "gateway"
    readme = (folder / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(\w+)\.py` \|", readme, re.M)
    assert sorted(listed) == sorted(file.stem for file in folder.glob("*.py") if file.stem != "__init__")
    assert [link for link in re.findall(r"\]\(([^)#]+)\)", readme) if not (folder / link).exists()] == []
