"""The calls of gRPC as an ASGI application over HTTP/2: finds the method, and ends each call with a status.

Rules of this file. What goes wrong in a call, a failure of ours too, ends that call alone. The `Host` of a
request is not looked at: no page in a browser can speak HTTP/2 without TLS, and over HTTP/1.1 nothing is
answered here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Final, Protocol

import trio
from google.protobuf.descriptor import ServiceDescriptor
from loguru import logger

from dataflow.gateway.hall import Hall
from dataflow.gateway.problems import Problem
from dataflow.server.handshake import handshake_in

from .call import Call, Method, Room, failure_of
from .protocol import GOING_AWAY, CallFailed, Status, speaks_grpc, timeout

TAKEN_SECONDS: Final = 10.0  # in which a client takes the end of an answer


class Service(Protocol):
    """One or more services with the same methods, each a method of this object, with the same name."""

    @property
    def descriptors(self) -> Sequence[ServiceDescriptor]:
        """As the `.proto` files have them."""


class Calls:
    """The application."""

    def __init__(self, hall: Hall, services: Iterable[Service]) -> None:
        self.room = Room(hall.lobby.room.sessions)
        self._hall = hall
        self._methods: dict[str, Method] = {}
        self._services: set[str] = set()
        self._open: set[Call] = set()
        for service in services:
            for descriptor in service.descriptors:
                self._services.add(descriptor.full_name)
                for method in descriptor.methods:
                    handle = getattr(service, method.name)
                    self._methods[f"/{descriptor.full_name}/{method.name}"] = Method(method, handle)

    def __len__(self) -> int:
        """The calls that have not ended."""
        return len(self._open)

    def stop(self) -> None:
        """End all calls: the server is going away."""
        for call in self._open:
            call.failure = CallFailed(Status.UNAVAILABLE, GOING_AWAY)
            call.scope.cancel()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError("there is nothing to start or to stop")  # as ASGI has it
        if scope["type"] != "http":
            await send({"type": "websocket.close"})
            return
        refusal = _refusal(scope)
        if refusal is not None:
            status, words = refusal
            headers = [(b"content-type", b"text/plain; charset=utf-8")]
            headers += [(b"allow", b"POST")] if status == 405 else []
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": f"{words}\n".encode()})
            return
        method, client = self._methods.get(scope["path"]), handshake_in(scope, scope["path"])
        call = Call(method, client, self._hall.account(client), self.room, receive, send)
        self._open.add(call)
        try:
            await self._run(call)
            await _end(call, Status.OK)
        except CallFailed as failed:
            words = "; ".join(filter(None, (failed.words, call.told)))
            await _end(call, failed.status, words, failed.retry_after)
        finally:
            self._open.discard(call)
            call.close()

    async def _run(self, call: Call) -> None:
        """Raises CallFailed, whatever goes wrong."""
        client = call.client
        try:
            call.account.call()
            if call.is_unknown:
                raise self._unknown(client.path)
            deadline = client.header("grpc-timeout")
            within = math.inf if deadline is None else timeout(deadline.encode("latin-1"))
            with trio.move_on_after(within) as in_time, call.scope:
                await call.run()
        except Problem as problem:
            raise failure_of(problem) from None
        except CallFailed:
            raise
        except Exception as error:
            logger.opt(exception=error).error("grpc: {} failed", client.path)
            raise CallFailed(Status.INTERNAL, "a failure inside; the log has it") from None
        if call.failure is not None:
            raise call.failure
        if in_time.cancelled_caught:
            raise CallFailed(Status.DEADLINE_EXCEEDED, f"not done within {within:g} s")

    def _unknown(self, path: str) -> CallFailed:
        service, _, method = path[1:].rpartition("/")
        if service in self._services:
            return CallFailed(Status.UNIMPLEMENTED, f"unknown method {method} of {service}")
        return CallFailed(Status.UNIMPLEMENTED, f"unknown service {service or path}")


async def _end(call: Call, status: Status, words: str = "", retry_after: float | None = None) -> None:
    """Send the rest of the answer. A client that does not take it sees a reset: the call is no session any
    more, or never was one, so nothing else bounds how many wait."""
    with trio.move_on_after(TAKEN_SECONDS):
        await call.end(status, words, retry_after)


def _refusal(scope: Any) -> tuple[int, str] | None:
    """Why a request is no call of gRPC: the status of HTTP, and words. None: it is one."""
    headers = dict(scope["headers"])
    if scope["http_version"] != "2":
        return 505, "this is gRPC: it needs HTTP/2, and a client of gRPC"
    if scope["method"] != "POST":
        return 405, "this is gRPC: calls are POST"
    if not speaks_grpc(headers.get(b"content-type", b"")):
        return 415, "this is gRPC: content-type must be application/grpc or application/grpc+proto"
    if headers.get(b"te") != b"trailers":
        return 400, "this is gRPC: a call must have the header te: trailers, for its status comes in them"
    return None
