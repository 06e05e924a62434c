"""grpcio's client of marketdata.proto, on one connection: `push COUNT` ticks in one stream, or `follow SECONDS` a symbol
in several streams.

It answers each line with one of JSON: how many messages passed, and in how many seconds.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

import grpc

from dataflow.protobuf import marketdata_pb2 as pb

SERVICE = "/marketdata.MarketDataService"
STREAMS = 16  # for `follow`
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
    counts, begun = [0] * STREAMS, time.perf_counter()
    readers = [threading.Thread(target=_read, args=(counts, n, begun + seconds)) for n in range(STREAMS)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    return {"count": sum(counts), "seconds": time.perf_counter() - begun}


def _read(counts: list[int], number: int, until: float) -> None:
    call = channel.unary_stream(
        f"{SERVICE}/StreamAggregates", pb.AggregateRequest.SerializeToString, pb.Aggregate.FromString
    )(pb.AggregateRequest(symbol=symbol))
    for _ in call:
        counts[number] += 1
        if time.perf_counter() > until:
            break
    call.cancel()


print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    what, amount = line.split()
    print(json.dumps(push(int(amount)) if what == "push" else follow(float(amount))), flush=True)
