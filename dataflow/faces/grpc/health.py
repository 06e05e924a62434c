"""The standard health service: SERVING while the daemon is ready, for the server and for its service.

Rules of this file: readiness is decided elsewhere (`ops.readiness`). One task looks for all who watch, and
only while somebody does.
"""

from __future__ import annotations

from typing import Final

import trio

from dataflow.gateway.hall import Hall
from dataflow.ops.readiness import ready
from dataflow.protobuf import marketdata_pb2
from dataflow.protobuf.grpc.health.v1 import health_pb2 as pb

from .call import Call
from .protocol import GOING_AWAY, CallFailed, Status

LOOK_SECONDS: Final = 1.0
FAREWELL_SECONDS: Final = 1.0
NAMES: Final = ("", marketdata_pb2.DESCRIPTOR.services_by_name["MarketDataService"].full_name)

_Answer = pb.HealthCheckResponse


class Health:
    """`grpc.health.v1.Health`."""

    descriptors = (pb.DESCRIPTOR.services_by_name["Health"],)

    def __init__(self, hall: Hall) -> None:
        self._hall = hall
        self._stopping = False
        self._watchers = 0
        self._told = _Answer.SERVING
        self._changed = trio.Event()
        self._watched = trio.Event()
        self._left = trio.Event()

    async def Check(self, call: Call) -> None:  # noqa: N802
        request = await call.request()
        if request.service not in NAMES:
            raise CallFailed(Status.NOT_FOUND, f"unknown service {request.service}")
        await call.say(_Answer(status=self._status()))

    async def List(self, call: Call) -> None:  # noqa: N802
        await call.request()
        await call.say(pb.HealthListResponse(statuses=dict.fromkeys(NAMES, _Answer(status=self._status()))))

    async def Watch(self, call: Call) -> None:  # noqa: N802
        request = await call.request()
        with call.lasting():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_see_it_leave, call, nursery.cancel_scope)
                await self._tell(call, request.service in NAMES)
                nursery.cancel_scope.cancel()
        if self._stopping:
            raise CallFailed(Status.UNAVAILABLE, GOING_AWAY)

    async def watch(self) -> None:
        """Look for changes while somebody wants to know. Runs until cancelled."""
        while True:
            if not self._watchers:
                self._watched = trio.Event()
                await self._watched.wait()
            self._look()
            await trio.sleep(LOOK_SECONDS)

    async def stop(self) -> None:
        """Tell everybody that nothing is served any more, and wait for those who take it at once."""
        self._stopping = True
        self._look()
        with trio.move_on_after(FAREWELL_SECONDS):
            while self._watchers:
                await self._left.wait()

    async def _tell(self, call: Call, known: bool) -> None:
        """Returns when the server stops."""
        self._watchers += 1
        self._watched.set()
        try:
            if not known:
                await call.say(_Answer(status=_Answer.SERVICE_UNKNOWN))
            self._look()
            while not self._stopping:
                told, changed = self._told, self._changed
                if known:
                    await call.say(_Answer(status=told))
                if told == self._told:
                    await changed.wait()
            if known:
                await call.say(_Answer(status=_Answer.NOT_SERVING))
        finally:
            self._watchers -= 1
            self._left.set()
            self._left = trio.Event()

    def _look(self) -> None:
        status = self._status()
        if status != self._told:
            self._told = status
            self._changed.set()
            self._changed = trio.Event()

    def _status(self) -> pb.HealthCheckResponse.ServingStatus:
        serving = not self._stopping and not ready(self._hall).not_ready
        return _Answer.SERVING if serving else _Answer.NOT_SERVING


async def _see_it_leave(call: Call, scope: trio.CancelScope) -> None:
    await call.until_gone()
    scope.cancel()
