"""What to copy for clients of gRPC, on the page `/faces`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from dataflow.gateway.about import Sample

_GRPCURL: Final = (
    """grpcurl -plaintext -d '{"symbol":"{symbol}"}' ADDRESS marketdata.MarketDataService/CALL"""
)
_GET: Final = """\
# pip install grpcio "dataflow[protobuf]"
import grpc
from dataflow.protobuf.marketdata_pb2 import Aggregate, AggregateRequest

with grpc.insecure_channel("ADDRESS") as channel:
    get = channel.unary_unary(
        "/marketdata.MarketDataService/GetAggregate", AggregateRequest.SerializeToString, Aggregate.FromString
    )
    print(get(AggregateRequest(symbol="{symbol}")))
"""
_STREAM: Final = """\
# pip install grpcio "dataflow[protobuf]"
import grpc
from dataflow.protobuf.marketdata_pb2 import Aggregate, AggregateRequest

with grpc.insecure_channel("ADDRESS") as channel:
    follow = channel.unary_stream(
        "/marketdata.MarketDataService/StreamAggregates",
        AggregateRequest.SerializeToString,
        Aggregate.FromString,
    )
    for aggregate in follow(AggregateRequest(symbol="{symbol}")):
        print(aggregate, flush=True)
"""
_TICKS: Final = """\
# pip install grpcio "dataflow[protobuf]"
import time

import grpc
from dataflow.protobuf.marketdata_pb2 import Ack, Tick

with grpc.insecure_channel("ADDRESS") as channel:
    push = channel.stream_unary(
        "/marketdata.MarketDataService/StreamTicks", Tick.SerializeToString, Ack.FromString
    )
    tick = Tick(symbol="AAPL", price=150.25, volume=10, exchange_timestamp=time.time_ns())
    print(push(iter([tick])))
"""
_CPP: Final = """\
// protoc --cpp_out=. --grpc_out=. --plugin=protoc-gen-grpc=`which grpc_cpp_plugin` marketdata.proto
#include <grpcpp/grpcpp.h>
#include <iostream>
#include "marketdata.grpc.pb.h"

int main() {
  auto channel = grpc::CreateChannel("ADDRESS", grpc::InsecureChannelCredentials());
  auto stub = marketdata::MarketDataService::NewStub(channel);
  grpc::ClientContext context;
  marketdata::AggregateRequest request;
  request.set_symbol("{symbol}");
  marketdata::Aggregate aggregate;
  auto stream = stub->StreamAggregates(&context, request);
  while (stream->Read(&aggregate)) std::cout << aggregate.ShortDebugString() << std::endl;
}
"""


def samples(address: str, ticks: bool) -> Iterable[Sample]:
    """What is served at `address`. `ticks`: whether there is a source for them."""

    def sample(call: str, name: str, words: str, lines: Mapping[str, str]) -> Sample:
        at = {kind: line.replace("ADDRESS", address).replace("CALL", call) for kind, line in lines.items()}
        return Sample(name, address, words, lines=at)

    yield sample(
        "StreamAggregates",
        "gRPC: the day of a symbol, live",
        "The bar of the day: the state first, then a message with each trade. For stubs:"
        " `dataflow/protobuf/marketdata.proto`, and reflection.",
        {"grpcurl": _GRPCURL, "Python": _STREAM, "C++": _CPP},
    )
    yield sample(
        "GetAggregate",
        "gRPC: the day of a symbol",
        "The bar of the day so far; NOT_FOUND before the first trade.",
        {"grpcurl": _GRPCURL, "Python": _GET},
    )
    if ticks:
        yield sample(
            "StreamTicks",
            "gRPC: ticks",
            "A producer pushes a stream of ticks, which is answered at its end.",
            {"Python": _TICKS},
        )
