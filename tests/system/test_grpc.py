"""gRPC over the real daemon: grpcio's client, and a raw one for what no library does."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import grpc
import pytest
import trio
from attrs import define

from dataflow.connectors import ticks_protobuf
from dataflow.domain import Topic
from dataflow.domain.topic import DAYS
from dataflow.faces.grpc import Face, Settings
from dataflow.protobuf import marketdata_pb2 as pb
from dataflow.protobuf.grpc.health.v1 import health_pb2 as health
from dataflow.protobuf.grpc.reflection.v1 import reflection_pb2 as reflection
from dataflow.protobuf.grpc.reflection.v1alpha import reflection_pb2 as alpha
from dataflow.settings.schema import Gateway, Limits
from simulators import Exchange, Trade, open_binance
from tests.support.grpc_client import SERVICE, connected, following, in_thread, raw
from tests.support.lacking import without
from tests.support.waiting import until
from tests.system.daemon import Daemon, client, daemon, from_binance

MIDNIGHT = 1_700_006_400 * 10**9  # 2023-11-15, ns
ASK = pb.AggregateRequest(symbol="BTC-USDT").SerializeToString()
SERVING, NOT_SERVING = health.HealthCheckResponse.SERVING, health.HealthCheckResponse.NOT_SERVING


def tick(symbol: str = "AAPL", price: float = 100.25, volume: int = 10, at: int = 1) -> pb.Tick:
    return pb.Tick(symbol=symbol, price=price, volume=volume, exchange_timestamp=MIDNIGHT + at)


@define
class Stage:
    daemon: Daemon
    exchange: Exchange
    published: int = 0

    @property
    def address(self) -> str:
        return str(self.daemon.root.find("gateway/grpc").value)

    async def publish(self, price: str, qty: str, *, ms: int, symbol: str = "BTC-USDT") -> None:
        """One trade, so many milliseconds after midnight."""
        self.published += 1
        before = self.daemon.core.history(symbol).last
        await self.exchange.publish(
            Trade(
                id=self.published,
                symbol=symbol.replace("-", ""),
                side="sell",
                price=price,
                qty=qty,
                timestamp_us=MIDNIGHT // 1000 + ms * 1000,
            )
        )
        await until(lambda: self.daemon.core.history(symbol).last > before)

    def listeners(self, symbol: str = "BTC-USDT") -> int:
        return self.daemon.core.topics.subscribers.get(Topic(DAYS, symbol), 0)

    async def until_deserted(self) -> None:
        """Nothing of a client is left: no session, no place in a quota, no listener of a topic."""
        lobby = self.daemon.lobby
        await until(lambda: len(lobby.clients) == 0 and not any(self.daemon.core.topics.subscribers.values()))
        assert lobby.quotas.exempt.sessions == 0
        assert lobby.quotas.exempt.subscriptions == 0


@asynccontextmanager
async def stage(*, ticks: dict[str, Any] | None = None, **tables: Any) -> AsyncIterator[Stage]:
    tables.setdefault("faces", {"grpc": Settings(enabled=True, port=0)})
    async with open_binance() as exchange:
        sources: dict[str, Any] = from_binance(exchange.url, "BTC-USDT", "ETH-USDT", eager=True)
        if ticks is not None:
            sources["ticks"] = ticks_protobuf.Settings(connector="ticks_protobuf", port=0, **ticks)
        async with daemon(sources=sources, **tables) as d:
            await exchange.wait_subscribed(["BTCUSDT", "ETHUSDT"])
            yield Stage(d, exchange)


def failed(error: pytest.ExceptionInfo[grpc.RpcError]) -> tuple[grpc.StatusCode, str]:
    call: Any = error.value
    return call.code(), call.details()


def seen(messages: Sequence[pb.Aggregate]) -> list[tuple[Any, ...]]:
    return [
        (m.symbol, m.open, m.high, m.low, m.close, m.volume, m.volume_exact, m.timestamp - MIDNIGHT)
        for m in messages
    ]


async def test_aggregates_are_exact_in_order_and_in_their_types() -> None:
    """The state first, then one message a trade; doubles, whole units rounded down, all digits, nanoseconds.

    A name in small letters or without dashes finds the symbol; the answer has the canonical one.
    """
    async with stage() as s, connected(s.address) as stub:
        async with stub.aggregates("BTC-USDT") as early:
            await until(lambda: s.listeners() == 1)
            await s.publish("61711.40", "0.0004", ms=1)
            await s.publish("61712.95", "2.5", ms=5)
            async with stub.aggregates(" btcusdt ") as late:
                await late.until(lambda: late.messages)
                await s.publish("61700.1", "0.5247", ms=5)
                await early.until(lambda: len(early.messages) == 3)
                await late.until(lambda: len(late.messages) == 2)
        states = [
            ("BTC-USDT", 61711.4, 61711.4, 61711.4, 61711.4, 0, "0.0004", 1_000_000),
            ("BTC-USDT", 61711.4, 61712.95, 61711.4, 61712.95, 2, "2.5004", 5_000_000),
            ("BTC-USDT", 61711.4, 61712.95, 61700.1, 61700.1, 3, "3.0251", 5_000_000),
        ]
        assert seen(early.messages) == states
        assert seen(late.messages) == states[1:]
        for name in ("BTC-USDT", "btc-usdt", "\tBtcUsdt\n"):
            assert seen([await stub.aggregate(name)]) == states[-1:]
        await s.until_deserted()


async def test_without_a_trade_there_is_no_aggregate() -> None:
    """NOT_FOUND with the name as it was asked; never zeros. What can be no symbol is INVALID_ARGUMENT."""
    async with stage() as s, connected(s.address) as stub:
        for name in ("eth-usdt", "NONE", "no such thing", "", "\u00fc"):
            with pytest.raises(grpc.RpcError) as error:
                await stub.aggregate(name)
            assert failed(error) == (grpc.StatusCode.NOT_FOUND, f"Symbol not found: {name}")
        async with stub.aggregates("no such thing") as stream:
            await stream.until(lambda: stream.ended)
            assert stream.failure is not None
            assert stream.call.code() is grpc.StatusCode.INVALID_ARGUMENT
        await s.until_deserted()


async def test_a_stream_of_a_symbol_that_does_not_exist_yet_begins_with_its_first_tick() -> None:
    """It stays open, and says nothing before."""
    async with stage(ticks={}) as s, connected(s.address) as stub, stub.aggregates("new") as stream:
        await until(lambda: s.listeners("NEW") == 1)
        await stub.ticks([tick("NEW", 1.5, 3, 1), tick("NEW", 2.5, 1, 2)])
        await stream.until(lambda: len(stream.messages) == 2)
        assert seen(stream.messages) == [
            ("NEW", 1.5, 1.5, 1.5, 1.5, 3, "3", 1),
            ("NEW", 1.5, 2.5, 1.5, 2.5, 4, "4", 2),
        ]


async def test_a_hundred_streams_that_are_cancelled_leave_nothing() -> None:
    """On one connection, of a symbol that is traded and of one that does not exist; the next client is served."""
    async with stage() as s, connected(s.address) as stub:
        await s.publish("1.5", "1", ms=1)
        asked = [pb.AggregateRequest(symbol=("BTC-USDT", "NONE")[number % 2]) for number in range(100)]
        calls = [stub.stream_aggregates(each) for each in asked]
        await until(lambda: len(s.daemon.lobby.clients) == 100 and s.listeners() == 50 == s.listeners("NONE"))
        assert (await in_thread(next, calls[0])).close == 1.5
        for call in calls:
            call.cancel()
        await s.until_deserted()
        assert "NONE" not in s.daemon.core.carriers
        assert seen([await stub.aggregate("BTC-USDT")])
        assert not s.daemon.crashes()


async def test_a_client_that_vanishes_leaves_nothing() -> None:
    """A connection that breaks ends all of its streams."""
    async with stage() as s:
        async with raw(s.address) as one:
            for _ in range(10):
                await one.call(f"{SERVICE}/StreamAggregates", b"\0\0\0\0" + bytes([len(ASK)]) + ASK)
            await until(lambda: s.listeners() == 10)
        await s.until_deserted()


async def test_a_deadline_ends_a_stream() -> None:
    """DEADLINE_EXCEEDED, by the server itself, and nothing of the stream is left."""
    async with stage() as s, raw(s.address) as one:
        body = b"\0\0\0\0" + bytes([len(ASK)]) + ASK
        number = await one.call(f"{SERVICE}/StreamAggregates", body, grpc_timeout="50m")
        assert (await one.reply(number)).status == (4, "not done within 0.05 s")
        await s.until_deserted()


async def test_a_slow_reader_gets_the_newest_state_and_holds_nobody() -> None:
    """Its window is shut: what waits for it is bounded, and its neighbours on the connection get every state.

    When it reads again it never goes back, and the last state arrives.
    """
    body = b"\0\0\0\0" + bytes([len(ASK)]) + ASK
    async with stage() as s, raw(s.address, window=200) as one, connected(s.address) as other:
        slow = await one.call(f"{SERVICE}/StreamAggregates", body)
        quick = await one.call(f"{SERVICE}/StreamAggregates", body)
        await one.open_window(quick, 1 << 20)
        await until(lambda: s.listeners() == 2)
        count = 1500  # more than fits the buffers of the server
        async with other.aggregates("BTC-USDT") as neighbour, trio.open_nursery() as nursery:
            await until(lambda: s.listeners() == 3)
            nursery.start_soon(one.until, lambda: len(one.replies[quick].messages(pb.Aggregate)) == count)
            for number in range(1, count + 1):
                s.published += 1
                at = MIDNIGHT // 1000 + number * 1000
                trade = Trade(
                    id=number, symbol="BTCUSDT", side="buy", price=f"{number}.5", qty="1", timestamp_us=at
                )
                await s.exchange.publish(trade)
            await neighbour.until(lambda: neighbour.messages and neighbour.messages[-1].volume == count)
        assert [m.volume for m in neighbour.messages] == list(range(1, count + 1))
        assert [m.volume for m in one.replies[quick].messages(pb.Aggregate)] == list(range(1, count + 1))
        assert len(one.replies[slow].messages(pb.Aggregate)) < 4
        [waits] = [session for session in s.daemon.lobby.clients if session.backlog is not None]
        assert waits.waiting == 1  # the newest state alone
        await one.open_window(slow, 1 << 20)
        volumes: list[int] = []
        while not volumes or volumes[-1] < count:
            size = len(volumes)
            await one.until(lambda: len(one.replies[slow].messages(pb.Aggregate)) > size)  # noqa: B023
            volumes = [m.volume for m in one.replies[slow].messages(pb.Aggregate)]
        assert volumes == sorted(set(volumes))
        assert len(volumes) < count
        assert s.daemon.lobby.clients.totals().dropped == 0


async def test_a_stop_is_announced_and_ends_every_stream() -> None:
    """GOAWAY, then UNAVAILABLE as the status of each call that is open; health says NOT_SERVING before."""
    async with stage(ticks={}) as s, connected(s.address) as stub, raw(s.address) as one:
        call = await in_thread(stub.watch, health.HealthCheckRequest())
        async with stub.aggregates("BTC-USDT") as stream, following(call) as watch:
            body = b"\0\0\0\0" + bytes([len(ASK)]) + ASK
            mine = await one.call(f"{SERVICE}/StreamAggregates", body)
            sent = tick().SerializeToString()
            pushed = b"\0\0\0\0" + bytes([len(sent)]) + sent
            ticks = await one.call(f"{SERVICE}/StreamTicks", pushed, end=False)
            await until(lambda: s.listeners() == 2 and s.daemon.core.history("AAPL").last == 1)
            await watch.until(lambda: watch.messages)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(one.reply, mine)
                nursery.start_soon(s.daemon.root.stop, "gateway")
            assert one.replies[mine].status == (14, "server going away")
            assert (await one.reply(ticks)).status == (14, "server going away; Received 1 ticks")
            assert one.farewells[0] == 0
            await stream.until(lambda: stream.ended)
            await watch.until(lambda: watch.ended)
        assert stream.call.code() is watch.call.code() is grpc.StatusCode.UNAVAILABLE
        assert stream.call.details() == "server going away"
        assert [message.status for message in watch.messages] == [SERVING, NOT_SERVING]


async def test_places_are_counted_with_those_of_all_faces() -> None:
    """`max_sessions` and `[limits]`: one more stream is refused, with the time after which it may come."""
    async with stage(gateway=Gateway(port=0, max_sessions=2)) as s, connected(s.address) as stub:
        async with client(s.daemon.url), stub.aggregates("BTC-USDT"):
            await until(lambda: s.listeners() == 1 and len(s.daemon.lobby.clients) == 2)
            async with stub.aggregates("BTC-USDT") as refused:
                await refused.until(lambda: refused.ended)
                assert refused.call.code() is grpc.StatusCode.UNAVAILABLE
                assert refused.call.details() == "too many sessions, try again later"
                assert "grpc-retry-pushback-ms" in dict(refused.call.trailing_metadata())
        await s.until_deserted()
    for limits, words in (
        (Limits(loopback=True, sessions=1), "too many sessions of one address or name, try again later"),
        (Limits(loopback=True, subscriptions=1), "too many subscriptions"),
    ):
        async with stage(limits=limits) as s, connected(s.address) as stub, stub.aggregates("BTC-USDT"):
            await until(lambda: s.listeners() == 1)
            async with stub.aggregates("ETH-USDT") as refused:
                await refused.until(lambda: refused.ended)
                assert refused.call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                assert refused.call.details() == words


async def test_ticks_come_in_and_are_counted() -> None:
    """What is good is in, in order and with its exact values; what is not is refused by its reason.

    The server's clock is its own, blanks and small letters of a symbol do not count, a trade has no id and no
    side. A message that is no tick ends the stream; what came before it is in.
    """
    async with stage(ticks={}) as s, connected(s.address) as stub:
        good = [tick(" aApL ", 100.25 + number, 10, number + 1) for number in range(5)]
        assert await stub.ticks(good) == pb.Ack(success=True, message="Received 5 ticks")
        mixed = [tick("AAPL", 0.1, 3, 9), tick(price=-1), tick(at=-MIDNIGHT), *(tick("A1"),) * 3]
        assert await stub.ticks(mixed) == pb.Ack(
            success=False, message="Received 4 ticks, 2 refused: bad_price 1, bad_timestamp 1"
        )
        assert await stub.ticks([tick("BTCUSDT"), tick("BTC-USDT"), tick("  "), tick(volume=0)]) == pb.Ack(
            success=False, message="Received 0 ticks, 4 refused: bad_quantity 1, bad_symbol 1, symbol_taken 2"
        )
        assert await stub.ticks([]) == pb.Ack(success=True, message="Received 0 ticks")
        await until(lambda: s.daemon.core.history("AAPL").last == 6)
        trades = [recorded.trade for recorded in s.daemon.core.history("AAPL").latest(10)][::-1]
        assert [(t.source, t.trade_id, t.side, t.price, t.quantity, t.timestamp) for t in trades] == [
            *(("ticks", None, None, Decimal("100.25") + n, Decimal(10), MIDNIGHT + n + 1) for n in range(5)),
            ("ticks", None, None, Decimal("0.1"), Decimal(3), MIDNIGHT + 9),
        ]
        assert (await stub.aggregate("aapl")).volume_exact == "53"
        assert (await stub.aggregate("A1")).volume == 30  # equal ones are three
        problems = s.daemon.core.sources["ticks"].problems
        assert (problems["bad_price"], problems["symbol_taken"]) == (1, 2)
        async with raw(s.address) as one:
            written = tick("LAST").SerializeToString()
            body = (b"\0\0\0\0" + bytes([len(written)]) + written) * 2 + b"\0\0\0\0\2\xff\xff"
            number = await one.call(f"{SERVICE}/StreamTicks", body, end=False)
            told = "a message is no marketdata.Tick; Received 2 ticks"
            assert (await one.reply(number)).status == (13, told)
            await one.until(lambda: one.replies[number].reset == 0)  # so that the client stops sending
        await until(lambda: s.daemon.core.history("LAST").last == 2)
        assert s.daemon.core.sources["ticks"].problems["malformed_protobuf"] == 1


async def test_ticks_need_their_source() -> None:
    """UNIMPLEMENTED without `[sources.ticks]`, whatever the client sends."""
    async with stage() as s, connected(s.address) as stub:
        with pytest.raises(grpc.RpcError) as error:
            await stub.ticks(tick() for _ in range(10_000))
        assert failed(error) == (
            grpc.StatusCode.UNIMPLEMENTED,
            "ticks are not taken here: there is no [sources.ticks]",
        )


async def test_many_ticks_of_short_names_are_no_flood() -> None:
    """The shortest honest ticks, one in each frame: they need no allowance. All are in, in order."""
    async with stage(ticks={}) as s, connected(s.address) as stub:
        count = 3000
        sent = (tick("F", 1.5, 1, number) for number in range(1, count + 1))
        assert (await stub.ticks(sent)).message == f"Received {count} ticks"
        await until(lambda: s.daemon.core.history("F").last == count)
        trades = s.daemon.core.history("F").latest(count)
        assert [recorded.trade.timestamp - MIDNIGHT for recorded in trades[::-1]] == list(range(1, count + 1))


async def test_health() -> None:
    """SERVING for the server and its service; NOT_FOUND, and SERVICE_UNKNOWN in a stream, for others."""
    async with stage() as s, connected(s.address) as stub:
        for name in ("", "marketdata.MarketDataService"):
            answer = await in_thread(stub.check, health.HealthCheckRequest(service=name))
            assert answer.status == SERVING
        listed = (await in_thread(stub.list, health.HealthListRequest())).statuses
        assert {name: answer.status for name, answer in listed.items()} == {
            "": SERVING,
            "marketdata.MarketDataService": SERVING,
        }
        with pytest.raises(grpc.RpcError) as error:
            await in_thread(stub.check, health.HealthCheckRequest(service="nobody"))
        assert failed(error) == (grpc.StatusCode.NOT_FOUND, "unknown service nobody")
        for name, status in (("", SERVING), ("nobody", health.HealthCheckResponse.SERVICE_UNKNOWN)):
            call = await in_thread(stub.watch, health.HealthCheckRequest(service=name))
            async with following(call) as watch:
                await watch.until(lambda: watch.messages)
                assert watch.messages[0].status == status
        await s.until_deserted()


async def test_health_is_that_of_the_daemon() -> None:
    """As `/ready` has it, when asked and, to those who watch, with each change."""
    needy = Gateway(port=0, ready_needs_sources=True)
    async with stage(gateway=needy) as s, connected(s.address) as stub:
        call = await in_thread(stub.watch, health.HealthCheckRequest())
        async with following(call) as watch:
            for mode, status in (("accept", SERVING), ("refuse", NOT_SERVING), ("accept", SERVING)):
                await s.exchange.disconnect(mode)
                await watch.until(lambda: watch.messages and watch.messages[-1].status == status)  # noqa: B023
                assert (await in_thread(stub.check, health.HealthCheckRequest())).status == status


async def test_reflection_shows_what_can_be_called() -> None:
    """Both versions, as grpcurl asks: the services, the file of a symbol, a file by its name; no extensions."""
    async with stage() as s, connected(s.address) as stub:
        for module, version in ((reflection, "v1"), (alpha, "v1alpha")):
            ask = module.ServerReflectionRequest
            call = stub.channel.stream_stream(
                f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
                ask.SerializeToString,
                module.ServerReflectionResponse.FromString,
            )
            asked = [
                ask(list_services=""),
                ask(file_containing_symbol="marketdata.MarketDataService.GetAggregate"),
                ask(file_containing_symbol="marketdata.Aggregate"),
                ask(file_by_filename="marketdata.proto"),
                ask(file_containing_symbol="nothing"),
                ask(file_by_filename="google/protobuf/any.proto"),
            ]
            services, *files, unknown, hidden = await in_thread(lambda: list(call(iter(asked))))  # noqa: B023
            assert [each.name for each in services.list_services_response.service] == [
                "grpc.health.v1.Health",
                "grpc.reflection.v1.ServerReflection",
                "grpc.reflection.v1alpha.ServerReflection",
                "marketdata.MarketDataService",
            ]
            for file in files:
                assert file.file_descriptor_response.file_descriptor_proto == [pb.DESCRIPTOR.serialized_pb]
            assert unknown.error_response.error_code == hidden.error_response.error_code == 5
            assert unknown.original_request == asked[4]


async def test_the_listener_comes_back_at_its_port() -> None:
    """A crash of it takes the gateway with it, as any part of that; clients find it where it was."""
    async with stage() as s:
        address = s.address
        async with connected(address) as stub:
            await s.daemon.root.supervisor("gateway").restart("grpc")
            assert s.address == address
            answer = await in_thread(stub.check, health.HealthCheckRequest(), wait_for_ready=True, timeout=60)
            assert answer.status == SERVING


def test_an_enabled_face_needs_its_library(tmp_path: Path) -> None:
    """One line says how to get it, and the exit code is 1."""
    (tmp_path / "on.toml").write_text("[gateway]\nport = 0\n[faces.grpc]\nenabled = true\nport = 0\n")
    ended = without("google.protobuf", "run", "--config", str(tmp_path / "on.toml"))
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].endswith(
        '[faces.grpc]: needs a library: pip install "dataflow[protobuf]"'
    )
    assert "Traceback" not in ended.stderr


def test_a_disabled_face_needs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its settings are read without the library."""
    monkeypatch.setitem(sys.modules, "google.protobuf", None)
    assert not Settings().enabled
    assert Face.follows_days
