"""The accessibility of a page, judged by axe-core: names, roles, contrast, headings, landmarks, focus."""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

from playwright.sync_api import Page

from tests.support import node

Scheme = Literal["light", "dark"]
SCHEMES: tuple[Scheme, Scheme] = ("light", "dark")


@cache
def _axe() -> str:
    node.install()
    return (node.MODULES / "axe-core" / "axe.min.js").read_text()


def barriers(page: Page, *schemes: Scheme) -> list[str]:
    """What keeps people out of the page as it is now, in light and dark colours, one line each. No rule is left out.

    `schemes`: in these colours alone. A second one is looked at for its contrast: nothing else can differ.
    """
    if not page.evaluate("'axe' in window"):
        page.evaluate(_axe())
    found = []
    for n, scheme in enumerate(schemes or SCHEMES):
        page.emulate_media(color_scheme=scheme)
        how = {"resultTypes": ["violations"], "preload": False} | (
            {"runOnly": ["color-contrast"]} if n else {}
        )
        told: list[dict[str, Any]] = page.evaluate("how => axe.run(how).then(told => told.violations)", how)
        for rule in told:
            for each in rule["nodes"]:
                found.append(f"{scheme}: {rule['help']}: {each['target']} {each['failureSummary']}")
    return found
