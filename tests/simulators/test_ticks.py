"""The producer of ticks: its bytes, and how it goes on."""

from __future__ import annotations

from functools import partial

import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from dataflow.protobuf.marketdata_pb2 import Tick
from simulators import push_ticks
from simulators.ticks import Report
from tests.support.ports import own_port
from tests.support.waiting import until, until_deadline_within

INT64 = st.integers(-(2**63), 2**63 - 1)


@given(symbol=st.text(max_size=200), price=st.floats(allow_nan=False), volume=INT64, timestamp=INT64)
def test_a_frame_says_what_was_meant(symbol: str, price: float, volume: int, timestamp: int) -> None:
    """Protobuf's own library reads every report back, from behind its length."""
    whole = Report(symbol, price, volume, timestamp).frame()
    assert int.from_bytes(whole[:4]) == len(whole) - 4
    assert Tick.FromString(whole[4:]) == Tick(
        symbol=symbol, price=price, volume=volume, exchange_timestamp=timestamp, ingest_timestamp=timestamp
    )


async def test_it_sends_as_many_as_asked_for() -> None:
    """Whole frames, then the end."""
    lines: list[str] = []
    came = bytearray()
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]

    async def serve() -> None:
        async with await listener.accept() as stream:
            async for data in stream:
                came.extend(data)

    async with listener, trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        await push_ticks(port=port, symbol="A", price=1.5, volume=2, every=0, count=3, say=lines.append)
    ticks = []
    while came:
        length = int.from_bytes(came[:4])
        ticks.append(Tick.FromString(bytes(came[4 : 4 + length])))
        del came[: 4 + length]
    assert [(tick.symbol, tick.price, tick.volume) for tick in ticks] == [("A", 1.5, 2)] * 3
    assert lines == [f"connected to 127.0.0.1:{port}", "3 ticks sent"]


async def test_nobody_listens(mock_clock: MockClock) -> None:
    """It says so, and tries again every second."""
    told: list[tuple[float, str]] = []
    port, begun = own_port(), trio.current_time()

    def say(line: str) -> None:
        told.append((trio.current_time() - begun, line))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(push_ticks, port=port, say=say))
        for count in (1, 2, 3):
            await until(lambda count=count: len(told) == count)  # type: ignore[misc]
            await until_deadline_within(1.0)
            mock_clock.jump(1.0)
        nursery.cancel_scope.cancel()
    assert [at for at, _ in told] == [0.0, 1.0, 2.0]
    assert all(line.startswith(f"cannot connect to 127.0.0.1:{port}: ") for _, line in told)
