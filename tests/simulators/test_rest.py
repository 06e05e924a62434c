"""The REST of a simulated exchange: the answers of Binance, its weight, and every fault of a question."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
import trio

from simulators import Exchange, Trade, binance_dialect, blockchain_dialect, open_binance
from simulators.faults import ON_QUESTIONS

Make = Callable[..., Trade]
Connect = Callable[..., Any]
OLD, AGGREGATES, TICKER = "/api/v3/historicalTrades", "/api/v3/aggTrades", "/api/v3/ticker/24hr"
ASKED = {"symbol": "BTCUSDT", "fromId": 3, "limit": 3}


def client(exchange: Exchange) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=exchange.rest_url, verify=False, timeout=None)


async def published(
    exchange: Exchange, make: Make, numbers: range, symbol: str = "BTCUSDT", **more: Any
) -> None:
    await exchange.publish_all([make(number, symbol, **more) for number in numbers])


async def test_old_trades_are_told_from_an_id_on(make: Make) -> None:
    """With the fields and the notation of the real exchange; without an id the newest ones come."""
    async with open_binance() as exchange, client(exchange) as rest:
        await published(exchange, make, range(1, 9), price="8501.1")
        answer = await rest.get(OLD, params=ASKED)
        assert [row["id"] for row in answer.json()] == [3, 4, 5]
        assert answer.text.startswith(
            '[{"id":3,"price":"8501.10000000","qty":"0.0005892","quoteQty":"5.00884812",'.replace(
                '"0.0005892"', '"0.00058920"'
            )
        )
        newest = await rest.get(OLD, params={"symbol": "BTCUSDT", "limit": 2})
        assert [row["id"] for row in newest.json()] == [7, 8]
        assert (await rest.get(OLD, params={"symbol": "ETHUSDT"})).json() == []
        assert exchange.rest.asked == 3


async def test_aggregates_have_numbers_of_their_own(make: Make) -> None:
    """Single trades are no aggregates of the recording, and aggregates are no single trades."""
    async with open_binance() as exchange, client(exchange) as rest:
        await exchange.publish(make(5, "BTCUSDT", aggregate=(50, 53)))
        (row,) = (await rest.get(AGGREGATES, params={"symbol": "BTCUSDT", "fromId": 5})).json()
        assert (row["a"], row["f"], row["l"]) == (5, 50, 53)
        assert (await rest.get(OLD, params={"symbol": "BTCUSDT"})).json() == []


async def test_the_ticker_tells_the_last_id_of_each_symbol(make: Make) -> None:
    """In one request; -1 where there is none, as on the real exchange."""
    async with open_binance() as exchange, client(exchange) as rest:
        await published(exchange, make, range(1, 4))
        answer = await rest.get(TICKER, params={"symbols": '["BTCUSDT","ETHUSDT"]', "type": "MINI"})
        assert {each["symbol"]: each["lastId"] for each in answer.json()} == {"BTCUSDT": 3, "ETHUSDT": -1}
        assert (await rest.get(TICKER, params={"symbol": "BTCUSDT"})).json()["firstId"] == 1


@pytest.mark.parametrize(
    ("path", "params", "status"),
    [
        (OLD, {}, 400),
        (OLD, {"symbol": "BTCUSDT", "fromId": "x"}, 400),
        (TICKER, {"symbols": "BTCUSDT"}, 400),
        ("/api/v3/nothing", {}, 404),
    ],
)
async def test_a_wrong_question_gets_an_error(path: str, params: dict[str, str], status: int) -> None:
    """And the connection stays."""
    async with open_binance() as exchange, client(exchange) as rest:
        assert (await rest.get(path, params=params)).status_code == status
        assert (await rest.get(OLD, params={"symbol": "BTCUSDT"})).status_code == 200


async def test_weight_is_counted_and_bounded() -> None:
    """The header tells what is used of the minute; what is beyond the bound gets 429 and a time to wait."""
    async with open_binance() as exchange, client(exchange) as rest:
        seen = [await rest.get(OLD, params={"symbol": "BTCUSDT"}) for _ in range(2)]
        told = [int(answer.headers["X-MBX-USED-WEIGHT-1M"]) for answer in seen]
        assert told[1] in (50, 25)  # a minute of the clock may end between them
        exchange.rest._used = 6000
        exchange.rest._minute = int(trio.current_time() // 60)
        refused = await rest.get(OLD, params={"symbol": "BTCUSDT"})
        if exchange.rest.refused:
            assert refused.status_code == 429
            assert 1 <= int(refused.headers["retry-after"]) <= 60


async def test_streams_are_served_on_the_same_port(connect: Connect, make: Make) -> None:
    """As before: the first request tells which of the two it is."""
    async with open_binance() as exchange, client(exchange) as rest, connect(exchange.url) as raw:
        await raw.subscribe(exchange, "BTCUSDT")
        await exchange.publish(make(7, "BTCUSDT"))
        assert (await raw.get())["data"]["t"] == 7
        assert [row["id"] for row in (await rest.get(OLD, params={"symbol": "BTCUSDT"})).json()] == [7]


async def test_an_exchange_without_rest_refuses_faults_of_it() -> None:
    """The error tells why."""
    with pytest.raises(ValueError, match="no questions"):
        Exchange(blockchain_dialect()).fault("rest_error")


async def ask(exchange: Exchange) -> Any:
    async with client(exchange) as rest:
        return await rest.get(OLD, params=ASKED)


async def test_errors_limits_and_redirects_are_told_by_status(make: Make) -> None:
    """Each strikes one question, and the next one gets its answer."""
    async with open_binance() as exchange:
        await published(exchange, make, range(1, 9))
        exchange.fault("rest_error")
        assert (await ask(exchange)).status_code == 503
        exchange.fault("rest_limit", seconds=7)
        limited = await ask(exchange)
        assert (limited.status_code, limited.headers["retry-after"]) == (429, "7")
        exchange.fault("rest_redirect", symbol="BTCUSDT")
        assert (await ask(exchange)).headers["location"].startswith("http://elsewhere.invalid/")
        exchange.fault("rest_error", symbol="ETHUSDT")
        assert [row["id"] for row in (await ask(exchange)).json()] == [3, 4, 5]


async def test_answers_that_are_half_huge_or_endless(make: Make) -> None:
    """Half an answer breaks off; the others go on for as long as the client reads."""
    async with open_binance() as exchange, client(exchange) as rest:
        await published(exchange, make, range(1, 9))
        exchange.fault("rest_half")
        with pytest.raises(httpx.RemoteProtocolError):
            await ask(exchange)
        for kind, most in (("rest_huge", 1 << 20), ("rest_endless", 3)):
            exchange.fault(kind)  # type: ignore[arg-type]
            async with rest.stream("GET", OLD, params=ASKED) as answer:
                size = 0
                with trio.CancelScope() as enough:
                    async for piece in answer.aiter_raw():
                        size += len(piece)
                        if size > most:
                            enough.cancel()
        assert len((await ask(exchange)).json()) == 3


async def test_a_slow_answer_comes_late(make: Make, mock_clock: trio.testing.MockClock) -> None:
    """And it is the honest one."""
    with pytest.raises(ValueError, match="seconds"):
        Exchange(binance_dialect()).fault("rest_slow")
    async with open_binance() as exchange:
        await published(exchange, make, range(1, 9))
        exchange.fault("rest_slow", seconds=30.0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, exchange)
            while not exchange.faults.struck.get("rest_slow"):
                await trio.lowlevel.checkpoint()
            mock_clock.jump(30.0)


async def test_four_lies_in_turn(make: Make) -> None:
    """Wrong prices; two prices for an id; another symbol's trades; trades that nobody asked for."""
    async with open_binance() as exchange:
        await published(exchange, make, range(1, 9), price="100")
        await published(exchange, make, range(1, 3), symbol="ETHUSDT", price="7")
        exchange.fault("rest_lie", times=4)
        prices, twice, other, outside = [(await ask(exchange)).json() for _ in range(4)]
        assert {row["price"] for row in prices} == {"101.00000000"}
        assert [(row["id"], row["price"]) for row in twice[:2]] == [(3, "100.00000000"), (3, "101.00000000")]
        assert {row["price"] for row in other} == {"7.00000000"}
        assert [row["id"] for row in outside] == list(range(1, 9))
        assert {row["price"] for row in (await ask(exchange)).json()} == {"100.00000000"}


def test_every_kind_is_tested_here() -> None:
    """A kind of fault without a test is a defect."""
    tested = {"error", "limit", "slow", "endless", "huge", "redirect", "half", "lie"}
    assert set(ON_QUESTIONS) == {f"rest_{kind}" for kind in tested}
