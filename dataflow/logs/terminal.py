"""Text for terminals: colours, and control characters made harmless.

Rules of this file: pure, and cheap to import.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TextIO

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")


def wants_colour(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Colours are for terminals, unless NO_COLOR is set or the terminal is dumb."""
    return stream.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


def painted(text: str, code: str, coloured: bool) -> str:
    """`text` in the colour of the ANSI `code`; unchanged without colours."""
    return f"\x1b[{code}m{text}\x1b[0m" if coloured else text


def disarmed(text: str) -> str:
    """Control characters become visible text, and all lines but the first are indented. So text from outside
    cannot move the cursor or forge a line."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text).replace("\n", "\n    ")
