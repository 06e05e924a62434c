"""Sessions whose clients listen by HTTP responses, and speak by requests beside them.

Rules of this file: HTTP only, no word of any protocol. The wires are those of `server.response_wire`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

from quart import Response

from actors.session import Manners
from dataflow.server.response_wire import InboxFull, ResponseWire

from .application import HttpProblem, asker
from .hall import Converse, Hall
from .limits import MESSAGES
from .problems import TooManyRequests

UNBUFFERED: Final = {"X-Accel-Buffering": "no"}  # else nginx would collect pages of it
SAY_AGAIN_AFTER: Final = 1.0  # seconds, for a message that found no room


async def open_session(hall: Hall, wire: ResponseWire, converse: Converse, manners: Manners) -> None:
    """Make `wire` a session for the client of the request in hand. Raises HttpProblem without room for it."""
    away = await hall.open_session(wire, converse, asker(), manners)
    if away is not None:
        raise no_room(away.reason, away.retry_after, away.is_quota)


def no_room(reason: str, retry_after: float, is_quota: bool) -> HttpProblem:
    """The answer to a client without room, which may come back in so many seconds.

    `is_quota`: others would have found room.
    """
    status, title = (429, "Too Many Requests") if is_quota else (503, "Service Unavailable")
    return HttpProblem(status, title, f"{reason}, try again later", retry_after=retry_after)


def hear(hall: Hall, wire: ResponseWire, message: Any) -> None:
    """Give the session on `wire` what its client sent by a request.

    Raises WireClosed when it has ended, and TooManyRequests when it has not heard what came before.
    """
    try:
        wire.hear(message)
    except InboxFull:
        hall.quotas.refused[MESSAGES] += 1
        raise TooManyRequests(MESSAGES, SAY_AGAIN_AFTER) from None


def endless(body: AsyncIterator[bytes], content_type: str) -> Response:
    """A response that ends with its body: when the client or the server leaves."""
    answer = Response(body, content_type=content_type, headers=UNBUFFERED)
    answer.timeout = None
    return answer
