"""A stand-in for a TLS socket that crosses directions: a read must write first, or a write must read."""

from __future__ import annotations

import socket
from typing import Any

from dataflow.net.tls import CrossedError


class Crossed:
    """A socket that needs the other direction first, so many times."""

    def __init__(self, sock: socket.socket, times: int) -> None:
        self.asked = 0
        self._times = times
        self._sock = sock

    def send(self, data: bytes) -> int:
        self._cross()
        return self._sock.send(data)

    def recv(self, limit: int) -> bytes:
        self._cross()
        return self._sock.recv(limit)

    def _cross(self) -> None:
        self.asked += 1
        if self.asked <= self._times:
            raise CrossedError

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)
