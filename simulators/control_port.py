"""The controls over HTTP, for scripts: `GET /status`, `POST /disconnect {"mode": "drop", "seconds": 5}`, ...

Rule 1: a request that makes no sense changes nothing. The answer is a problem (RFC 9457) that says what would
make sense.
Rule 2: a connection or a request that fails does not stop the port from answering others.
Rule 3: it has no authentication, so it listens on the host of the exchange: the loopback unless told
otherwise.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import h11
import msgspec
import trio
from attrs import define, frozen

from .controls import Controls, Speed
from .exchange import MODES, Mode
from .faults import KINDS, Kind

MAX_BODY = 65_536
IDLE = 30.0


class _Disconnect(msgspec.Struct, forbid_unknown_fields=True):
    mode: Mode
    seconds: float | None = None


class _Fault(msgspec.Struct, forbid_unknown_fields=True):
    kind: Kind
    times: int | None = 1
    probability: float = 1.0
    symbol: str | None = None
    seconds: float | None = None


class _Stall(msgspec.Struct, forbid_unknown_fields=True):
    seconds: float | None = None


class _Speed(msgspec.Struct, forbid_unknown_fields=True):
    speed: Speed | str


@frozen
class Reply:
    """An HTTP response: its status, and the data of its JSON body."""

    status: int
    body: Any


async def _status(controls: Controls, body: bytes) -> Any:
    return controls.status()


async def _disconnect(controls: Controls, body: bytes) -> Any:
    asked = msgspec.json.decode(body, type=_Disconnect)
    await controls.disconnect(asked.mode, asked.seconds)
    return controls.status()


async def _list_faults(controls: Controls, body: bytes) -> Any:
    return controls.status()["faults"]


async def _add_fault(controls: Controls, body: bytes) -> Any:
    asked = msgspec.json.decode(body, type=_Fault)
    return controls.fault(
        asked.kind,
        times=asked.times,
        probability=asked.probability,
        symbol=asked.symbol,
        seconds=asked.seconds,
    )


async def _withdraw_all(controls: Controls, body: bytes) -> Any:
    return {"withdrawn": controls.withdraw()}


async def _stall(controls: Controls, body: bytes) -> Any:
    controls.stall(msgspec.json.decode(body or b"{}", type=_Stall).seconds)
    return controls.status()


async def _begin(controls: Controls, body: bytes) -> Any:
    controls.begin()
    return controls.status()


async def _pause(controls: Controls, body: bytes) -> Any:
    controls.pause()
    return controls.status()


async def _resume(controls: Controls, body: bytes) -> Any:
    controls.resume()
    return controls.status()


async def _set_speed(controls: Controls, body: bytes) -> Any:
    speed: Any = msgspec.json.decode(body, type=_Speed).speed
    controls.speed(speed)
    return controls.status()


_ROUTES: dict[str, dict[str, Callable[[Controls, bytes], Awaitable[Any]]]] = {
    "/status": {"GET": _status},
    "/disconnect": {"POST": _disconnect},
    "/faults": {"GET": _list_faults, "POST": _add_fault, "DELETE": _withdraw_all},
    "/stall": {"POST": _stall},
    "/begin": {"POST": _begin},
    "/pause": {"POST": _pause},
    "/resume": {"POST": _resume},
    "/speed": {"POST": _set_speed},
}


async def answer(controls: Controls, method: str, path: str, body: bytes) -> Reply:
    """Do what one request asks. Never raises for a wrong request: that gets a problem."""
    methods = _ROUTES.get(path)
    if methods is None:
        return _problem(404, f"no such path; there are {', '.join(_ROUTES)}")
    if method not in methods:
        return _problem(405, f"{path} takes {', '.join(methods)}")
    try:
        return Reply(200, await methods[method](controls, body))
    except (ValueError, msgspec.MsgspecError) as wrong:
        return _problem(400, f"{wrong}{_HINTS.get(path, '')}")


_HINTS = {"/disconnect": f" (modes: {', '.join(MODES)})", "/faults": f" (kinds: {', '.join(KINDS)})"}


def _problem(status: int, detail: str) -> Reply:
    return Reply(status, {"type": "about:blank", "status": status, "detail": detail})


@define
class ControlPort:
    """Serves the controls. `failed` counts connections that ended with an error of the simulator."""

    controls: Controls
    host: str = ""
    port: int = 0
    failed: int = 0

    @property
    def url(self) -> str:
        """The URL for requests."""
        return f"http://{self.host}:{self.port}"

    async def serve(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        task_status: trio.TaskStatus[tuple[str, int]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Listen until cancelled; reports ``(host, port)`` as bound. May raise OSError."""
        listeners = await trio.open_tcp_listeners(port, host=host)
        self.host, self.port = listeners[0].socket.getsockname()[:2]
        task_status.started((self.host, self.port))
        await trio.serve_listeners(self.handle, listeners)

    async def handle(self, stream: trio.abc.Stream) -> None:
        """Answer the requests of one connection, then close it."""
        try:
            async with stream:
                await self._converse(stream)
        except (h11.LocalProtocolError, trio.BrokenResourceError, trio.ClosedResourceError):
            return  # the client left before the end
        except Exception:
            self.failed += 1

    async def _converse(self, stream: trio.abc.Stream) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=16_384)
        while connection.states == {h11.CLIENT: h11.IDLE, h11.SERVER: h11.IDLE}:
            try:
                with trio.fail_after(IDLE):
                    request, body = await _request(stream, connection)
            except trio.TooSlowError:
                return
            except (h11.RemoteProtocolError, _TooBig) as wrong:
                await _respond(stream, connection, _problem(400, str(wrong)))
                return
            if request is None:
                return
            path = request.target.decode("ascii", "replace").partition("?")[0]
            reply = await answer(self.controls, request.method.decode(), path, body)
            await _respond(stream, connection, reply)
            if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                return
            connection.start_next_cycle()


class _TooBig(Exception):
    """A request has a larger body than any command needs."""


async def _request(stream: trio.abc.Stream, connection: h11.Connection) -> tuple[h11.Request | None, bytes]:
    request, body = None, b""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(bytes(await stream.receive_some(16_384)))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > MAX_BODY:
                raise _TooBig(f"a body of more than {MAX_BODY} bytes")
        else:
            return request, body


async def _respond(stream: trio.abc.Stream, connection: h11.Connection, reply: Reply) -> None:
    kind = "application/json" if reply.status < 400 else "application/problem+json"
    body = msgspec.json.encode(reply.body)
    headers = [("content-type", kind), ("content-length", str(len(body)))]
    head = connection.send(h11.Response(status_code=reply.status, headers=headers)) or b""
    rest = connection.send(h11.Data(data=body)) or b""
    await stream.send_all(head + rest + (connection.send(h11.EndOfMessage()) or b""))
