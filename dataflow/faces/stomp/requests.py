"""SockJS by HTTP alone: a client receives by the responses to its polls, and sends by requests beside them.

Rules of this file: words of HTTP only; the conversation is the same as by WebSocket. A client is known by the
name that it gave itself in the path. It is gone when it has no response open for a while: then nothing of it
is left here either.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from typing import Final
from weakref import WeakValueDictionary

from attrs import evolve
from quart import Response, request

from actors.session import WireClosed
from dataflow.gateway.application import HttpProblem, asker, json_response
from dataflow.gateway.clients import AnySession
from dataflow.gateway.hall import Hall
from dataflow.gateway.responses import UNBUFFERED, endless, hear, open_session
from dataflow.server.polling_wire import PollingWire

from . import sockjs
from .conversation import Service, Xhr

GONE_AFTER: Final = 5.0  # seconds without an open response
POLL_WITHIN: Final = 60.0  # seconds: there is a heart-beat before
STREAM_BYTES: Final = 128 * 1024  # of one streaming response: browsers keep all of it in memory
PRELUDE: Final = b"h" * 2048 + b"\n"  # what some browsers want before they hand anything on
CONTENT_TYPE: Final = "application/javascript; charset=UTF-8"
_OCCUPIED: Final = sockjs.closed(sockjs.OCCUPIED, "Another connection still open")
_HEADERS: Final = {"Cache-Control": "no-store, no-cache, must-revalidate, max-age=0", **UNBUFFERED}


class Requests:
    """The clients of a face that come by HTTP."""

    def __init__(self, hall: Hall, service: Service) -> None:
        self._hall = hall
        self._service = service
        self._wires: WeakValueDictionary[str, PollingWire] = WeakValueDictionary()

    async def info(self) -> Response:
        """What a client wants to know before it chooses a transport."""
        told = {
            "entropy": random.getrandbits(32),
            "origins": ["*:*"],
            "cookie_needed": False,
            "websocket": True,
        }
        return _complete(json_response(told))

    async def xhr(self, server: str, client: str) -> Response:
        """One batch of frames, as soon as there is one."""
        wire = await self._wire(client)
        return _complete(Response(await _frames(wire), content_type=CONTENT_TYPE))

    async def xhr_streaming(self, server: str, client: str) -> Response:
        """Frames as they come, up to a length."""
        wire = await self._wire(client)
        return _complete(endless(_stream(wire), CONTENT_TYPE))

    async def xhr_send(self, server: str, client: str) -> Response:
        """What the client says."""
        wire = self._wires.get(client)
        sent = await request.get_data()
        try:
            sockjs.messages(sent)
            if wire is None:
                raise WireClosed
            hear(self._hall, wire, sent)
        except sockjs.BrokenFraming as error:
            raise HttpProblem(400, "Bad Request", str(error)) from None
        except WireClosed:
            raise HttpProblem(404, "Not Found", "there is no such client: poll first") from None
        return _complete(Response(b"", 204))

    async def _wire(self, client: str) -> PollingWire:
        """The wire of this client; a new client gets one, if there is room. Raises HttpProblem."""
        wire = self._wires.get(client)
        if wire is not None:
            return wire
        wire = self._wires[client] = PollingWire(peer=asker().peer, gone_after=GONE_AFTER)
        await open_session(self._hall, wire, self._converse, evolve(self._hall.manners, ping_timeout=None))
        return wire

    def _converse(self, session: AnySession) -> Xhr:
        return Xhr(session, self._hall, self._service)


def _complete(answer: Response) -> Response:
    answer.headers.update(_HEADERS)
    return answer


async def _frames(wire: PollingWire) -> bytes:
    """What waits for a client, or comes. The last word, if there is nothing more, or another one took it."""
    frames = await wire.poll(POLL_WITHIN)
    if frames is not None:
        return frames
    return (sockjs.closed() if wire.over else _OCCUPIED) + b"\n"


async def _stream(wire: PollingWire) -> AsyncIterator[bytes]:
    yield PRELUDE
    sent = 0
    while sent < STREAM_BYTES:
        frames = await wire.poll(POLL_WITHIN)
        if frames is None:
            if not wire.over:  # else the last word was said
                yield _OCCUPIED + b"\n"
            return
        sent += len(frames)
        yield frames
