"""A wire over the body of one HTTP response: the server streams, the client listens.

Rules of this file. What the client has to say is its request, given when the wire is made, or comes by
requests of their own (`hear`). A client is heard when it takes bytes, or says something. Buffer and inbox are
those of `response_wire`.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from typing import Any, Final

import trio

from .response_wire import ResponseWire

START_WITHIN: Final = 10.0  # seconds for the server to begin with the body: a client may have left before


class StreamingWire(ResponseWire):
    """One client's response. `request`: its first message, if it has one."""

    def __init__(self, request: Any = None, *, peer: str) -> None:
        super().__init__(peer=peer)
        if request is not None:
            self.hear(request)
        self._gone_at = trio.current_time() + START_WITHIN  # infinite once the body has begun
        self._gone_words = "the response was never begun"

    async def body(self) -> AsyncGenerator[bytes, None]:
        """The body, piece by piece, until the session is over. To be closed by the server when the client
        leaves."""
        self._gone_at = math.inf
        self._wake_session()
        try:
            while True:
                while not self._buffer and not self._ended:
                    await self._changed.wait()
                if not self._buffer:
                    return
                piece = self._take()
                yield piece
                self._taken(piece)  # only now: a piece that the client has not taken still counts
        finally:
            self.leave("the client has left")
