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
    point: Literal["start", "ready", "receive", "stop", "message"] | None = None,
    seconds: float | None = None,
    probability: float | None = None,
    times: int | None = None,
    list_: Annotated[bool, Parameter(name="--list", negative="")] = False,
    withdraw: int | None = None,
    url: Url = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """Break something on purpose, to see it heal. The daemon must be configured with [chaos] enabled = true.

    A crash is an error raised in the actor; in a hang it waits until the fault is withdrawn, or until
    somebody notices; in a delay, for some seconds. A drop throws a raw message of a source away, a disconnect
    cuts the connection of a source or a session. What comes of it is seen with `dataflow status --watch`.

    Parameters
    ----------
    path
        Of an actor, as `dataflow status` shows it; gateway/sessions is any one session.
    kind
        What happens to it.
    point
        When. Unless told: at its next message if it takes any, else at its next start.
    seconds
        How long a delay (default: 1) or a hang (default: endless) lasts.
    probability
        Between 0 and 1, of happening at each occasion. Unless told: 1.
    times
        How often, before it is over. Unless told: once.
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
    if answer is None:
        return "withdrawn"
    if isinstance(answer, list):
        return "\n".join(map(_line, answer)) or "no faults in force"
    return _line(answer)


def _line(fault: dict[str, Any]) -> str:
    """One line, such as "fault 3: delay of 0.5 s at receive of cache/shard-0, struck 1 of 2 times"."""
    lasting = "" if fault["seconds"] is None else f" of {fault['seconds']:g} s"
    chance = "" if fault["probability"] == 1 else f", with probability {fault['probability']:g}"
    return (
        f"fault {fault['id']}: {fault['kind']}{lasting} at {fault['point']} of {fault['path']}{chance}, "
        f"struck {fault['struck']} of {fault['times']} times"
    )
