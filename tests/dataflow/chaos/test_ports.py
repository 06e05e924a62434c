"""A rehearsal keeps the ports of its daemon."""

from __future__ import annotations

import socket

import pytest
import trio

from dataflow.chaos.ports import HOST, kept_port


async def test_a_port_is_kept_between_two_lives() -> None:
    """The daemon listens there again and again. Meanwhile connections are refused, and no other program gets it."""
    with kept_port() as port:
        for _life in range(2):
            with pytest.raises(OSError, match="connect"):
                await trio.open_tcp_stream(HOST, port)
            with socket.socket() as other, pytest.raises(OSError, match="in use"):
                other.bind((HOST, port))
            [listener] = await trio.open_tcp_listeners(port, host=HOST)
            async with (
                listener,
                await trio.open_tcp_stream(HOST, port),
                await listener.accept() as accepted,
            ):
                assert accepted.socket.getsockname() == (HOST, port)
