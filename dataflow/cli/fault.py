"""`fault`: inject, list and withdraw faults of a running daemon."""

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
    """Inject a fault, to see the daemon recover.

    The daemon needs [chaos] enabled = true. A crash raises an error in the
    actor. A hang makes it wait until the fault is withdrawn or a watchdog
    notices; a delay makes it wait for some seconds. A drop throws away a raw
    message of a source. A disconnect cuts the connection of a source or a
    session. `dataflow status --watch` shows the effects.

    Parameters
    ----------
    path
        Path of an actor, as in `dataflow status`; gateway/sessions means any one session.
    kind
        Kind of fault.
    point
        Point at which it strikes. [default: its next message if it gets any, else its next start]
    seconds
        Duration of a delay (default: 1) or a hang (default: endless).
    probability
        Probability at each visit of the point, from 0 to 1. [default: 1]
    times
        Number of strikes, then the fault is over. [default: 1]
    list_
        List the faults in force.
    withdraw
        Withdraw the fault with this id.
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
        wanted = {"path": path, "kind": kind} | {k: v for k, v in options.items() if v is not None}
        answer = call("POST", faults, token, wanted)
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
