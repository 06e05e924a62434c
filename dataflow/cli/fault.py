"""`fault`: break something on purpose."""

from __future__ import annotations

import json as json_
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from .common import Json, Token, Url, call, daemon_url
from .ends import Mistake

Kind = Literal["crash", "hang", "delay", "drop", "disconnect"]


def fault(
    path: str | None = None,
    kind: Kind | None = None,
    /,
    *,
    point: str | None = None,
    seconds: float | None = None,
    probability: float | None = None,
    times: int | None = None,
    list_: Annotated[bool, Parameter(name="--list")] = False,
    withdraw: str | None = None,
    url: Url = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """Break something on purpose, to see it heal. The daemon must be configured with [chaos] enabled = true.

    Parameters
    ----------
    path
        Of an actor, as `dataflow status` shows it.
    kind
        What happens to it.
    point
        When: at start, ready, receive or stop.
    seconds
        How long a delay or hang lasts.
    probability
        Between 0 and 1, of happening at each occasion.
    times
        How often, before it is over.
    list_
        Show the faults in force.
    withdraw
        Take back the fault of this id.
    """
    faults = f"{daemon_url(url)}/faults"
    if list_:
        answer = call("GET", faults, token)
    elif withdraw is not None:
        answer = call("DELETE", f"{faults}/{withdraw}", token)
    elif path is None or kind is None:
        raise Mistake("fault needs a path and a kind, such as `dataflow fault sources/binance disconnect`")
    else:
        options = {"point": point, "seconds": seconds, "probability": probability, "times": times}
        order = {"path": path, "kind": kind} | {k: v for k, v in options.items() if v is not None}
        answer = call("POST", faults, token, order)
    print(json_.dumps(answer, ensure_ascii=False) if json else _told(answer))


def _told(answer: Any) -> str:
    if isinstance(answer, list):
        return "\n".join(map(_told, answer)) or "no faults in force"
    if isinstance(answer, dict):
        return "  ".join(f"{key} {value}" for key, value in answer.items() if value is not None)
    return "done" if answer is None else str(answer)
