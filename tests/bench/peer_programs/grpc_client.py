"""grpcio's client of marketdata.proto: `push COUNT` ticks, or `follow SECONDS` of a symbol; on one stream.

It answers each line with one of JSON: how many messages passed, and in how many seconds.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import grpc

from dataflow.protobuf import marketdata_pb2 as pb

SERVICE = "/marketdata.MarketDataService"
port, symbol = sys.argv[1:]
channel = grpc.insecure_channel(f"127.0.0.1:{port}")
grpc.channel_ready_future(channel).result(30)


def push(count: int) -> dict[str, Any]:
    call = channel.stream_unary(f"{SERVICE}/StreamTicks", pb.Tick.SerializeToString, pb.Ack.FromString)
    ticks = [
        pb.Tick(symbol="AAPL", price=100 + number % 7 / 4, volume=10, exchange_timestamp=10**18 + number)
        for number in range(count)
    ]
    begun = time.perf_counter()
    answer = call(iter(ticks))
    seconds = time.perf_counter() - begun
    assert answer.message == f"Received {count} ticks", answer
    return {"count": count, "seconds": seconds}


def follow(seconds: float) -> dict[str, Any]:
    call = channel.unary_stream(
        f"{SERVICE}/StreamAggregates", pb.AggregateRequest.SerializeToString, pb.Aggregate.FromString
    )(pb.AggregateRequest(symbol=symbol))
    count, begun, now = 0, time.perf_counter(), 0.0
    for _ in call:
        now = time.perf_counter()
        count += 1
        if now > begun + seconds:
            break
    call.cancel()
    return {"count": count, "seconds": now - begun}


print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    what, amount = line.split()
    print(json.dumps(push(int(amount)) if what == "push" else follow(float(amount))), flush=True)
