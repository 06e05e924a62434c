"""Trades that producers push by HTTP: exact, taken once, at the pace of the shards, and from nobody else."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from dataflow.connectors import push
from dataflow.domain import Gap, Trade
from dataflow.faces.rest import ingest
from dataflow.settings.schema import History, Operator
from dataflow.sources.intake import BATCHES_AT_ONCE
from tests.support.waiting import until, until_deadline_within
from tests.system.daemon import Daemon, client, daemon, from_binance, http_client

PATH = "/api/v1/ingest/own"
TOKEN = "a token of sixteen or more"
LINES = {"Content-Type": "application/x-ndjson"}


def pushed(**keys: Any) -> dict[str, Any]:
    return {"own": push.Settings(connector="push", **keys)}


def trade(number: int = 1, **changed: Any) -> dict[str, Any]:
    whole = {
        "symbol": "AAPL",
        "timestamp": f"2026-01-02T15:04:05.{number:09d}Z",
        "price": "150.2500",
        "qty": 10,
        "side": "buy",
        "tradeId": str(number),
    }
    return {name: value for name, value in (whole | changed).items() if value is not None}


def lines(*trades: dict[str, Any] | str) -> str:
    return "\n".join(each if isinstance(each, str) else json.dumps(each) for each in trades)


def told(accepted: int = 0, repeated: int = 0, **refused: int) -> dict[str, Any]:
    return {"accepted": accepted, "repeated": repeated, "refused": refused}


async def push_lines(http: httpx.AsyncClient, *trades: dict[str, Any] | str) -> dict[str, Any]:
    """The answer, without its examples."""
    answer = await http.post(PATH, content=lines(*trades), headers=LINES)
    assert answer.status_code == 202, answer.text
    return {name: value for name, value in answer.json().items() if name != "examples"}


async def opened(d: Daemon) -> None:
    await until(lambda: d.core.sources["own"].link.value == "connected")


def admitted(d: Daemon, symbol: str = "AAPL") -> list[Trade | Gap]:
    return [entry for _, entry in d.core.history(symbol).places(0, 1_000_000)]


async def until_admitted(d: Daemon, count: int, symbol: str = "AAPL") -> list[Trade | Gap]:
    await until(lambda: d.core.history(symbol).last >= count)
    return admitted(d, symbol)


async def test_a_subscriber_gets_what_was_pushed() -> None:
    """With id and side, and every digit, as text or as a number; what the producer does not know is not made up."""
    async with (
        daemon(sources=pushed(symbols=("AAPL",))) as d,
        http_client(d.http) as http,
        client(d.url) as c,
    ):
        await opened(d)
        await c.call("subscribe", symbol="AAPL")
        answer = await http.post(
            PATH, content=json.dumps(trade(), indent=2), headers={"Content-Type": "application/json"}
        )
        assert (answer.status_code, answer.json()) == (202, told(1) | {"examples": {}})
        bare = '{"symbol": " aapl ", "timestamp": "2026-01-02T15:04:06Z", "price": 0.10000000000000000001, "qty": 1e-7}'
        assert await push_lines(http, bare) == told(1)
        await c.until(lambda: len(c.trades()) == 2)
        first, second = admitted(d)
        assert first == Trade(
            *("own", "AAPL", "1", "buy", Decimal("150.2500"), Decimal(10)), 1767366245000000001, None
        )
        assert isinstance(second, Trade)
        assert (second.trade_id, second.side, str(second.price)) == (None, None, "0.10000000000000000001")
        assert second.quantity == Decimal("1e-7")
        assert c.trades()[0]["tradeId"] == "1"


async def test_a_producer_that_repeats_doubles_nothing() -> None:
    """Within a request, in the next one, and while the first are still on their way; another trade with an old id is
    refused, not dropped in silence."""
    async with daemon(sources=pushed()) as d, http_client(d.http) as http:
        await opened(d)
        assert await push_lines(http, *(trade(n) for n in (1, 1, 2, 2))) == told(2, 2)
        assert await push_lines(http, *(trade(n) for n in (1, 2, 3))) == told(1, 2)
        assert await push_lines(http, trade(3, price="1")) == told(id_reused=1)
        assert await push_lines(http, trade(3, symbol="GOOG")) == told(1)
        ids = [each.trade_id for each in await until_admitted(d, 3) if isinstance(each, Trade)]
        assert ids == ["1", "2", "3"]


async def test_a_repetition_is_known_after_a_restart(tmp_path: Path) -> None:
    """The history on disk knows the ids: a producer may repeat across the daemon's death."""
    history = History(directory=str(tmp_path))
    async with daemon(sources=pushed(), history=history) as d, http_client(d.http) as http:
        await opened(d)
        assert await push_lines(http, trade(1), trade(2)) == told(2)
        await until_admitted(d, 2)
    async with daemon(sources=pushed(), history=history) as d, http_client(d.http) as http:
        await opened(d)
        await until(lambda: d.core.history("AAPL").newest_trade is not None)
        assert await push_lines(http, trade(1), trade(2), trade(3)) == told(1, 2)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "malformed_json"),
        ("[]", "unexpected_json"),
        (json.dumps(trade(sied="buy")), "unknown_field"),
        *((json.dumps(trade(**{name: None})), "missing_field") for name in ("symbol", "timestamp", "price", "qty")),
        (json.dumps(trade(symbol="A B")), "bad_symbol"),
        *((json.dumps(trade(price=value)), "bad_price") for value in (0, "-1", True, "NaN", "1" * 99)),
        (json.dumps(trade(qty={})), "bad_quantity"),
        *((json.dumps(trade(timestamp=value)), "bad_timestamp") for value in (1, "now", "1700-01-01T00:00:00Z")),
        *((json.dumps(trade(side=value)), "bad_side") for value in ("BUY", 1, "")),
        *((json.dumps(trade(tradeId=value)), "bad_trade_id") for value in (1, "", "x" * 201, "\n")),
        *((json.dumps(trade(sequence=value)), "bad_sequence") for value in ("1", -1, 1.5, 2**60)),
        *((json.dumps(trade(symbol="x" * size)), "too_long") for size in (70_000, 300_000)),
        (b'{"symbol": "\xff"}'.decode("latin-1"), "missing_field"),
        (json.dumps(trade(symbol="BTC-USDT")), "symbol_taken"),
    ],
)  # fmt: skip
async def test_what_cannot_be_used_has_a_name_and_harms_nothing_else(line: str, reason: str) -> None:
    """It is counted by reason, with an example; the lines before and behind it are taken."""
    sources = pushed() | from_binance("ws://127.0.0.1:1", "BTC-USDT")
    async with daemon(sources=sources) as d, http_client(d.http) as http:
        await opened(d)
        body = lines(trade(1), line, "", trade(2)) + "\n"
        answer = await http.post(PATH, content=body, headers=LINES)
        said = answer.json()
        assert len(said.pop("examples").pop(reason)) <= 120
        assert said == told(2, **{reason: 1})
        assert d.core.sources["own"].problems == {reason: 1}


async def test_a_sequence_shows_what_was_never_pushed() -> None:
    """A skipped number is a gap, as from an exchange; the missing trade fills it."""
    async with daemon(sources=pushed()) as d, http_client(d.http) as http:
        await opened(d)
        assert await push_lines(http, trade(1, sequence=1), trade(3, sequence=3)) == told(2)
        places = await until_admitted(d, 3)
        assert [type(each) for each in places] == [Trade, Gap, Trade]
        assert await push_lines(http, trade(2, sequence=2)) == told(1)
        await until(lambda: all(isinstance(each, Trade) for each in admitted(d)))


@given(st.lists(st.sampled_from([b"\n", b"{}\n", b"x" * 100, b"y" * 5000 + b"\n"]), max_size=600))
def test_lines_are_read_in_small_parts_however_short_they_are(parts: list[bytes]) -> None:
    """A producer of nonsense takes no longer turns than others, and no byte is left out."""
    data = b"".join(parts)
    found = list(ingest.batches(data))
    assert b"".join(found) == data
    assert all(0 < len(each) <= ingest.AT_ONCE for each in found)
    assert all(each.count(b"\n") <= ingest.LINES_AT_ONCE for each in found)


async def test_only_who_has_the_token_may_push() -> None:
    """The source's own token; the operator's is another one."""
    sources = pushed(token=TOKEN)
    async with (
        daemon(sources=sources, operator=Operator(token="of the operator")) as d,
        http_client(d.http) as http,
    ):
        await opened(d)
        for given in ({}, {"Authorization": "Bearer of the operator"}, {"Authorization": TOKEN}):
            answer = await http.post(PATH, content="{}", headers=LINES | given)
            assert answer.status_code == 401
            assert "[sources.own] token" in answer.json()["detail"]
        given = {"Authorization": f"Bearer {TOKEN}", "X-Forwarded-For": "192.0.2.1"}
        answer = await http.post(PATH, content=lines(trade()), headers=LINES | given)
        assert answer.json()["accepted"] == 1


async def test_without_a_token_only_this_machine_may_push() -> None:
    """Not through a proxy, and not from a page of somebody else."""
    async with daemon(sources=pushed()) as d, http_client(d.http) as http:
        await opened(d)
        for foreign in ({"X-Forwarded-For": "192.0.2.1"}, {"Origin": "https://example.com"}):
            answer = await http.post(PATH, content=lines(trade()), headers=LINES | foreign)
            assert answer.status_code == 403
        assert admitted(d) == []


async def test_no_other_way_leads_around_the_token() -> None:
    """What clients push by gRPC, without a token, goes to no source of this kind."""
    async with daemon(sources=pushed(token=TOKEN)) as d:
        await opened(d)
        assert d.hall.intake("own") is None


async def test_requests_that_mean_nothing_are_refused() -> None:
    """Each with its status and a problem document."""
    sources = pushed() | from_binance("ws://127.0.0.1:1", "BTC-USDT")
    async with daemon(sources=sources) as d, http_client(d.http) as http:
        await opened(d)
        for path in ("/api/v1/ingest/other", "/api/v1/ingest/binance"):
            answer = await http.post(path, content="", headers=LINES)
            assert (answer.status_code, answer.json()["valid"]) == (404, ["own"])
        assert (await http.get(PATH)).status_code == 405
        for headers in ({"Content-Type": "text/csv"}, LINES | {"Content-Encoding": "gzip"}):
            assert (await http.post(PATH, content="", headers=headers)).status_code == 415
        answer = await http.post(PATH, json={"symbol": "x" * 70_000})
        assert (answer.status_code, answer.headers["Content-Type"]) == (413, "application/problem+json")
        assert await push_lines(http) == told()


async def test_one_producer_cannot_take_all_the_room() -> None:
    """One address gets half of the requests at once; further ones are told when to come again."""
    async with daemon(sources=pushed(max_requests=3)) as d, http_client(d.http) as http:
        await opened(d)
        release = trio.Event()

        async def slow(number: int) -> AsyncIterator[bytes]:
            yield f"{lines(trade(number))}\n".encode()
            await release.wait()

        async def send(number: int) -> None:
            answer = await http.post(PATH, content=slow(number), headers=LINES)
            assert answer.json()["accepted"] == 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, 1)
            nursery.start_soon(send, 2)
            await until_admitted(d, 2)
            answer = await http.post(PATH, content="", headers=LINES)
            assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")
            release.set()
        assert await push_lines(http, trade(3)) == told(1)
        assert d.core.sources["own"].problems == {"too_many_requests": 1}


async def test_nothing_is_read_ahead_of_the_shards() -> None:
    """A producer that is faster than the daemon waits in its own socket: no body fills the memory."""
    async with daemon(sources=pushed()) as d, AsyncExitStack() as held:
        await opened(d)
        intake = d.core.intake("own")
        assert intake is not None
        for _ in range(BATCHES_AT_ONCE):
            await held.enter_async_context(intake._turns)
        host, _, port = d.http.removeprefix("http://").rpartition(":")
        stream = await trio.open_tcp_stream(host, int(port))
        async with stream:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
            head = f"POST {PATH} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {LINES['Content-Type']}\r\n"
            await stream.send_all(f"{head}Content-Length: {1 << 30}\r\n\r\n".encode())
            sent = 0
            piece = f"{lines(trade())}\n".encode() * 500
            with trio.move_on_after(0.5):
                while True:
                    await stream.send_all(piece)
                    sent += len(piece)
            assert sent < 16 << 20
            await held.aclose()
            await until_admitted(d, 1)


async def test_what_came_before_a_disconnection_is_not_lost() -> None:
    """The producer sends all of it again, and each trade stands there once."""
    async with daemon(sources=pushed()) as d, http_client(d.http) as http:
        await opened(d)
        host, _, port = d.http.removeprefix("http://").rpartition(":")
        stream = await trio.open_tcp_stream(host, int(port))
        body = f"{lines(trade(1), trade(2))}\n" + lines(trade(3))[:20]
        head = f"POST {PATH} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {LINES['Content-Type']}\r\n"
        await stream.send_all(f"{head}Content-Length: 10000\r\n\r\n{body}".encode())
        await until_admitted(d, 2)
        await stream.aclose()
        assert await push_lines(http, *(trade(n) for n in range(1, 5))) == told(2, 2)
        ids = [each.trade_id for each in await until_admitted(d, 4) if isinstance(each, Trade)]
        assert ids == ["1", "2", "3", "4"]


async def test_a_producer_that_stops_in_the_middle_is_told(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came before is taken, and the answer says so."""
    monkeypatch.setattr(ingest, "BODY_SECONDS", 0.05)  # sooner than any other deadline
    async with daemon(sources=pushed()) as d:
        await opened(d)
        host, _, port = d.http.removeprefix("http://").rpartition(":")
        head = f"POST {PATH} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {LINES['Content-Type']}\r\n"
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            await stream.send_all(f"{head}Content-Length: 9999\r\n\r\n{lines(trade(1))}\n".encode())
            await until_admitted(d, 1)
            await until_deadline_within(ingest.BODY_SECONDS)
            mock_clock.jump(ingest.BODY_SECONDS)
            said = b""
            while b'"examples":' not in said:
                said += await stream.receive_some()
        assert said.startswith(b"HTTP/1.1 408")
        assert b'"accepted":1' in said


async def _forever(_trades: object) -> None:
    await trio.sleep_forever()


async def test_shards_that_take_nothing_are_no_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """The producer is told to come again, and its repetition is taken."""
    async with daemon(sources=pushed()) as d, http_client(d.http) as http:
        await opened(d)
        intake = d.core.intake("own")
        assert intake is not None
        with monkeypatch.context() as patch:
            patch.setattr(ingest, "TAKEN_WITHIN", 0.05)
            patch.setattr(intake, "_deliver", _forever)
            answer = await http.post(PATH, content=lines(trade(1)), headers=LINES)
        assert (answer.status_code, answer.json()["accepted"]) == (503, 0)
        assert await push_lines(http, trade(1)) == told(1)


async def test_a_source_that_is_down_takes_nothing() -> None:
    """Its actor stands in the tree like any other; while it is stopped, producers are told to come again."""
    async with daemon(sources=pushed()) as d, http_client(d.http) as http:
        await opened(d)
        await d.root.supervisor("sources").stop("own")
        answer = await http.post(PATH, content=lines(trade()), headers=LINES)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")


async def test_a_large_push_arrives_whole() -> None:
    """Twenty thousand trades in one request, in order, none missing."""
    count = 20_000
    async with daemon(sources=pushed()) as d, http_client(d.http) as http:
        await opened(d)

        async def body() -> AsyncIterator[bytes]:
            for at in range(0, count, 1000):
                yield f"{lines(*(trade(n) for n in range(at, at + 1000)))}\n".encode()

        answer = await http.post(PATH, content=body(), headers=LINES)
        assert answer.json()["accepted"] == count
        places: Iterable[Any] = (await until_admitted(d, count))[-1000:]
        assert [each.trade_id for each in places] == [str(n) for n in range(count - 1000, count)]
