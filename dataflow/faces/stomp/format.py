"""The bodies of MESSAGE frames, which all subscribers share.

Rules of this file: pure. A text begins with the headers that are the same for every subscriber, and ends with
the body. What stands before it, each subscriber's own id among it, is the conversation's.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

import msgspec

from dataflow.domain import Gap, Topic
from dataflow.gateway.format import Format
from dataflow.gateway.spelling import amount, encode, milliseconds

from . import sockjs


class _Body(msgspec.Struct):
    symbol: str
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: str
    timestamp: str


class Bodies(Format):
    """An aggregate; its id is its place."""

    name = "stomp"

    def item(self, topic: Topic, epoch: int, offset: int, value: Any) -> bytes:
        """The current state of a day's bar: an `Aggregate`. Milliseconds."""
        body = _Body(
            value.symbol,
            value.open,
            value.high,
            value.low,
            value.close,
            amount(value.volume),
            str(milliseconds(value.timestamp)),
        )
        return self.message(offset, encode(body))

    def hole(self, topic: Topic, epoch: int, gap: Gap) -> bytes:
        raise AssertionError("a state has no gaps")

    def message(self, number: int, body: bytes) -> bytes:
        """The end of a MESSAGE, from its id on and without the NUL, as it stands in what is sent."""
        return self.escaped(b"message-id:%d\ncontent-length:%d\n\n%b" % (number, len(body), body))

    @staticmethod
    def escaped(part: bytes) -> bytes:
        """A part of a frame, as it stands in what is sent."""
        return part


class SockJsBodies(Bodies):
    """The same inside a JSON string."""

    name = "sockjs"

    @staticmethod
    def escaped(part: bytes) -> bytes:
        return sockjs.escaped(part)


BODIES: Final = Bodies()
SOCKJS_BODIES: Final = SockJsBodies()
