"""Aggregates as messages of gRPC.

Rules of this file: pure. What does not fit a number of the message is rounded towards zero or cut off at its
bounds; `volume_exact` has all of it.
"""

from __future__ import annotations

from typing import Any, Final

from dataflow.domain import Gap, Topic
from dataflow.domain.aggregate import Aggregate
from dataflow.gateway.format import Format
from dataflow.gateway.spelling import amount
from dataflow.protobuf import marketdata_pb2 as pb

from .protocol import prefixed

MOST: Final = (1 << 63) - 1  # of an int64


def message(aggregate: Aggregate) -> pb.Aggregate:
    """An aggregate. Prices are the nearest doubles; `timestamp` is in ns."""
    return pb.Aggregate(
        symbol=aggregate.symbol,
        open=float(aggregate.open),
        high=float(aggregate.high),
        low=float(aggregate.low),
        close=float(aggregate.close),
        volume=min(int(aggregate.volume), MOST),
        timestamp=aggregate.timestamp,
        volume_exact=amount(aggregate.volume),
    )


class Prefixed(Format):
    """Each aggregate as a message with its prefix, ready for any stream of the symbol."""

    name = "grpc"

    def item(self, topic: Topic, epoch: int, offset: int, value: Any) -> bytes:
        return prefixed(message(value).SerializeToString())

    def hole(self, topic: Topic, epoch: int, gap: Gap) -> bytes:
        return b""  # state has none: the newest is all that counts
