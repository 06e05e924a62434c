"""The service of marketdata.proto on grpcio's own server: no checks, no cache. It ends with its standard input."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from dataflow.protobuf import marketdata_pb2 as pb


def stream_ticks(ticks: Iterator[pb.Tick], _call: Any) -> pb.Ack:
    return pb.Ack(success=True, message=f"Received {sum(1 for _ in ticks)} ticks")


def stream_aggregates(request: pb.AggregateRequest, _call: Any) -> Iterator[pb.Aggregate]:
    number = 0
    while True:
        number += 1
        yield pb.Aggregate(
            symbol=request.symbol,
            open=61837.63,
            high=61840.5,
            low=61711.4,
            close=61712.95,
            volume=number,
            timestamp=1_767_323_045_678_000_000 + number,
            volume_exact=f"{number}.25",
        )


server = grpc.server(ThreadPoolExecutor(32))
methods = {
    "StreamTicks": grpc.stream_unary_rpc_method_handler(
        stream_ticks, pb.Tick.FromString, pb.Ack.SerializeToString
    ),
    "StreamAggregates": grpc.unary_stream_rpc_method_handler(
        stream_aggregates, pb.AggregateRequest.FromString, pb.Aggregate.SerializeToString
    ),
}
server.add_generic_rpc_handlers(
    (grpc.method_handlers_generic_handler("marketdata.MarketDataService", methods),)
)
port = server.add_insecure_port("127.0.0.1:0")
server.start()
print(json.dumps({"port": port}), flush=True)
sys.stdin.read()
server.stop(None)
