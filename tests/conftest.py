"""What every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The root of the project."""
    return CHECKOUT


@pytest.fixture(scope="session")
def recordings() -> Path:
    """The folder that holds `recordings/` and `trades/`; skips the test where it is not at hand.

    DATAFLOW_RECORDINGS names it; without that, `shared` beside the checkout is tried.
    """
    folder = Path(os.environ.get("DATAFLOW_RECORDINGS") or CHECKOUT.parent / "shared")
    if not (folder / "recordings").is_dir():
        pytest.skip("needs the recordings: set DATAFLOW_RECORDINGS to their folder")
    return folder
