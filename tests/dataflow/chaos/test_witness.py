"""The witness of a rehearsal hears what the clients hear, and takes nothing from them."""

from __future__ import annotations

import inspect
from unittest.mock import create_autospec

import pytest

from dataflow.chaos.witness import Overheard, Watch
from dataflow.sources.state import Audience

TOLD = sorted(name for name in vars(Audience) if not name.startswith("_"))


@pytest.mark.parametrize("name", TOLD)
def test_what_is_overheard_still_reaches_the_audience(name: str) -> None:
    """Every method of the port, with what was told: clients miss no notice because somebody watches."""
    audience = create_autospec(Audience, instance=True)
    overheard = Overheard(audience, create_autospec(Watch, instance=True))
    told = [f"the {each}" for each in list(inspect.signature(getattr(Audience, name)).parameters)[1:]]
    getattr(overheard, name)(*told)
    getattr(audience, name).assert_called_once_with(*told)
