"""What a request asks for: its parameters and the media that its client takes.

Rules of this file: nothing is guessed. An unknown parameter, one that is given twice, and a value that means
nothing are mistakes, and are told what would be right.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import urlencode

from quart import request

from dataflow.gateway.application import HttpProblem
from dataflow.gateway.desk import Desk
from dataflow.gateway.problems import InvalidValue

_NUMBER: Final = re.compile(r"[0-9]{1,18}")


def parameters(*valid: str) -> Mapping[str, str]:
    """The parameters of the query. Raises InvalidValue."""
    for name, values in request.args.lists():
        if name not in valid:
            nearest = difflib.get_close_matches(name[:80], valid, n=3, cutoff=0.5)
            raise InvalidValue(
                name[:80], values[0][:80], "unknown parameter", nearest=nearest, valid=list(valid)
            )
        if len(values) > 1:
            raise InvalidValue(name, values[0], "is given more than once")
    return request.args


def whole(name: str, text: str | None, default: int | None) -> int | None:
    """A whole number. Raises InvalidValue."""
    if text is None:
        return default
    if not _NUMBER.fullmatch(text):
        raise InvalidValue(name, text, "must be a whole number")
    return int(text)


def one_of(name: str, text: str, valid: Sequence[str]) -> str:
    """One of these words. Raises InvalidValue."""
    if text not in valid:
        raise InvalidValue(name, text, f"must be {' or '.join(valid)}", valid=list(valid))
    return text


def check_symbol(desk: Desk, symbol: str) -> None:
    """Raises HttpProblem, 404, when no source carries `symbol`."""
    try:
        desk.check_symbol(symbol)
    except InvalidValue as problem:
        detail = f"there is no symbol {symbol[:80]!r}"
        raise HttpProblem(404, "Not Found", detail, nearest=problem.data["nearest"]) from None


def next_link(**changed: str) -> str:
    """A `Link` to the next page: the same question with other values. Relative to its own address, so that it
    holds behind any proxy."""
    return f'<?{urlencode({**request.args.to_dict(), **changed})}>; rel="next"'
