"""The names of Hypercorn that the server uses and that are not public, checked once, at start-up."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from typing import Any

import h11
from hypercorn.config import Config
from hypercorn.protocol import ProtocolWrapper
from hypercorn.protocol.h2 import H2Protocol, StreamBuffer
from hypercorn.protocol.h11 import H11WSConnection
from hypercorn.protocol.ws_stream import ASGIWebsocketState, Handshake, WSStream
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState

HYPERCORN = "0.18.0"


class ServerSeamError(Exception):
    """Hypercorn is not the version that this server was written for. Install the pinned one."""


def check_seam() -> None:
    """Raises ServerSeamError, with every difference, unless Hypercorn is as this server knows it."""
    problems = list(_misfits())
    if problems:
        raise ServerSeamError(f"hypercorn {HYPERCORN} is needed: " + "; ".join(problems))


def _misfits() -> Iterator[str]:
    version = importlib.metadata.version("hypercorn")
    if version != HYPERCORN:
        yield f"version {version} is installed"
    try:
        wanted = _leaned_on()
    except Exception as error:
        yield f"its parts cannot be made: {error!r}"
        return
    for thing, names in wanted:
        for name in names:
            if not hasattr(thing, name):
                yield f"{type(thing).__name__}.{name} is missing"


def _leaned_on() -> Iterator[tuple[object, tuple[str, ...]]]:
    config, context = Config(), WorkerContext(None)
    unused: Any = None
    wrapper = ProtocolWrapper(
        unused, config, context, unused, ConnectionState({}), False, None, None, unused, "http/1.1"
    )
    http2 = H2Protocol(unused, config, context, unused, ConnectionState({}), True, None, None, unused)
    stream = WSStream(unused, config, context, unused, False, None, None, unused, 1)
    return iter(
        (
            (wrapper, ("initiate", "handle", "protocol")),
            (wrapper.protocol, ("connection", "_send_error_response", "_send_h11_event")),
            (http2, ("streams", "stream_buffers", "connection", "priority", "has_data", "closed")),
            (http2, ("_flush", "_close_stream", "_create_stream")),
            (http2.connection, ("acknowledge_received_data", "streams", "_prepare_for_sending")),
            (StreamBuffer(context.event_class), ("buffer", "pop", "close")),
            (H11WSConnection(h11.Connection(h11.SERVER)), ("buffer",)),
            (stream, ("app_send", "closed", "state", "send", "stream_id", "_send_wsproto_event")),
            (Handshake([], "1.1"), ("extensions", "accept")),
            (ASGIWebsocketState, ("CONNECTED",)),
            (context, ("terminated",)),
        )
    )
