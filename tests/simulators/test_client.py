"""The interactive client resumes where it was, disconnects in every way, and finds a gateway's mistakes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio
from attrs import define, field
from trio.testing import MockClock
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest, serve_websocket

from simulators.client import Client, client_keys, run_client
from simulators.keyboard import presser
from tests.support.waiting import until, until_deadline_within


@define
class Gateway:
    """A minimal gateway: it has one stream of offsets, and answers `subscribe` with `since`."""

    url: str = ""
    offset: int = 0
    calls: list[dict[str, Any]] = field(factory=list)
    codes: list[int] = field(factory=list)
    socket: WebSocketConnection | None = None

    async def handle(self, request: WebSocketRequest) -> None:
        self.socket = await request.accept()
        try:
            while True:
                call = json.loads(await self.socket.get_message())
                self.calls.append(call)
                await self.send(jsonrpc="2.0", id=call["id"], result=self.answer(call["params"]))
        except ConnectionClosed as closed:
            self.codes.append(closed.reason.code if closed.reason else 0)

    def answer(self, params: dict[str, Any]) -> dict[str, Any]:
        base = {"channel": "trades", "symbol": params["symbol"], "event": "subscribed", "epoch": "e"}
        if since := params.get("since"):
            missed = [self.trade(n) for n in range(since["offset"] + 1, self.offset + 1)]
            return {**base, "offset": self.offset, "recovered": True, "trades": missed}
        return {**base, "offset": self.offset}

    def trade(self, offset: int) -> dict[str, Any]:
        return {
            "seqnum": offset,
            "event": "updated",
            "channel": "trades",
            "symbol": "BTC-USD",
            "timestamp": "2020-05-10T18:33:36.696315Z",
            "side": "buy",
            "qty": 0.0005892,
            "price": 8501.1,
            "tradeId": str(offset),
            "source": "s",
            "offset": offset,
        }

    async def send(self, **message: Any) -> None:
        assert self.socket is not None
        await self.socket.send_message(json.dumps(message))

    async def update(self) -> None:
        self.offset += 1
        await self.send(jsonrpc="2.0", method="trades.update", params=self.trade(self.offset))


@asynccontextmanager
async def running() -> AsyncIterator[tuple[Gateway, Client, list[str]]]:
    gateway, said = Gateway(), list[str]()
    async with trio.open_nursery() as nursery:
        serve = partial(serve_websocket, gateway.handle, "127.0.0.1", 0, None)
        server = await nursery.start(serve)
        gateway.url = f"ws://127.0.0.1:{server.port}/ws"
        client = Client(symbols=("BTC-USD",), url=gateway.url, say=said.append, retry_after=0.0)
        nursery.start_soon(client.run)
        await client.wait_until(lambda it: it.subscribed == {"BTC-USD"})
        yield gateway, client, said
        nursery.cancel_scope.cancel()


async def test_trades_become_lines() -> None:
    """One line for each trade, with exact numbers and its offset; also from a batch."""
    async with running() as (gateway, client, said):
        await gateway.update()
        assert gateway.socket is not None
        batch = [{"jsonrpc": "2.0", "method": "trades.update", "params": gateway.trade(n)} for n in (2, 3)]
        await gateway.socket.send_message(json.dumps(batch))
        await client.wait_until(lambda it: it.ledger.trades == 3)
        assert "2020-05-10T18:33:36.696315Z BTC-USD buy 8501.1 0.0005892 s #1" in said
        assert client.status()["findings"] == {}


async def test_a_temporary_drop_resumes_without_a_hole() -> None:
    """It reconnects by itself, asks by epoch and offset for the missed trades, and finds no mistake."""
    async with running() as (gateway, client, _):
        await gateway.update()
        await client.wait_until(lambda it: it.ledger.trades == 1)
        await client.drop(0.0)
        gateway.offset += 2
        await client.wait_until(lambda it: it.connections == 2 and it.subscribed == {"BTC-USD"})
        assert gateway.calls[-1]["params"]["since"] == {"epoch": "e", "offset": 1}
        await gateway.update()
        await client.wait_until(lambda it: it.ledger.trades == 4)
        assert client.status()["findings"] == {}
        await until(lambda: gateway.codes)  # the old connection, which may end later than the new one works
        assert gateway.codes == [1006]


async def test_leaving_stays_away_until_told_to_come_back(mock_clock: MockClock) -> None:
    """Graceful: the gateway gets a close frame. Abrupt: it gets none. Neither reconnects by itself.

    The clock does not move, so a close handshake that needs its deadline would never end.
    """
    async with running() as (gateway, client, _):
        for count, how, code in ((2, "graceful", 1000), (3, "abrupt", 1006)):
            leave: Any = how
            await client.leave(leave)
            assert not client.connected
            await until(lambda n=count: len(gateway.codes) == n - 1)
            assert (gateway.codes[-1], client.connections) == (code, count - 1)
            client.come_back()
            await client.wait_until(lambda it, n=count: it.connections == n and bool(it.subscribed))


async def test_a_gateway_that_goes_away_is_reconnected_to() -> None:
    """By itself, and it resumes."""
    async with running() as (gateway, client, said):
        assert gateway.socket is not None
        await gateway.socket.aclose(1001, "draining")
        await client.wait_until(lambda it: it.connections == 2 and bool(it.subscribed))
        assert any("1001" in line for line in said)


async def test_a_gateway_without_room_says_how_long_to_wait(mock_clock: MockClock) -> None:
    """The client does not come earlier, although its own pause is shorter; and it resumes."""
    async with running() as (gateway, client, _):
        await gateway.send(
            jsonrpc="2.0", method="connection.refused", params={"reason": "x", "retryAfter": 30.0}
        )
        assert gateway.socket is not None
        await client.wait_until(lambda it: it.notices == 1)
        await gateway.socket.aclose(1013, "x, try again in 30 s")
        await client.wait_until(lambda it: not it.connected)
        await until_deadline_within(30)
        mock_clock.jump(29.0)
        await trio.testing.wait_all_tasks_blocked()
        assert client.connections == 1
        mock_clock.jump(2.0)
        await client.wait_until(lambda it: it.connections == 2 and bool(it.subscribed))


async def test_gaps_duplicates_and_notices_are_shown() -> None:
    """A gap and a duplicate are findings; notices of the gateway are shown."""
    async with running() as (gateway, client, said):
        for offset in (1, 4, 4):
            await gateway.send(jsonrpc="2.0", method="trades.update", params=gateway.trade(offset))
        await gateway.send(jsonrpc="2.0", method="connection.lost", params={"source": "s", "reason": "r"})
        await client.wait_until(lambda it: it.notices == 1)
        assert client.status()["findings"] == {"gap": 1, "disorder": 1, "duplicate": 1}
        assert "GAP BTC-USD: offset 2 to 3 never came" in said
        assert "connection.lost source s, reason r" in said


async def test_an_error_is_shown() -> None:
    """An error answer is a line, not a crash; so is unreadable text."""
    async with running() as (gateway, client, said):
        data = {"param": "symbol", "problem": "unknown symbol", "nearest": ["BTC-USD", "BTC-EUR"]}
        error = {"code": -32602, "message": "Invalid params", "data": data}
        await gateway.send(jsonrpc="2.0", id=1, error=error)
        assert gateway.socket is not None
        await gateway.socket.send_message("{")
        await gateway.update()
        await client.wait_until(lambda it: it.ledger.trades == 1)
        assert "refused: a call: unknown symbol; did you mean BTC-USD or BTC-EUR?" in said
        assert any(line.startswith("UNREADABLE") for line in said)


async def test_a_missing_gateway_is_shown_and_tried_again() -> None:
    """The line names the address."""
    said: list[str] = []
    silent = trio.socket.socket()  # bound, so that nobody else gets the port, and not listening
    await silent.bind(("127.0.0.1", 0))
    port = silent.getsockname()[1]
    tried = trio.Event()

    def say(line: str) -> None:
        said.append(line)
        tried.set()

    with silent:
        client = Client(symbols=(), url=f"ws://127.0.0.1:{port}/ws", say=say)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.run)
            await tried.wait()
            client.quit()
    assert said[0] == f"cannot connect to ws://127.0.0.1:{port}/ws: Connection refused; trying again"


async def test_the_keys_of_the_client() -> None:
    """g and a disconnect, c connects again, s shows the status, q ends `run_client`."""
    async with running() as (gateway, client, said):
        press = presser(client_keys(client), said.append)
        await press("g")
        assert not client.connected
        await press("c")
        await client.wait_until(lambda it: it.connections == 2)
        await press("a")
        assert not client.connected
        await press("s")
        assert said[-1] == (
            f"not connected to {gateway.url}, connection 2; 0 trades, 0 notices; found: nothing wrong; "
            "BTC-USD at e:0"
        )
        async with trio.open_nursery() as nursery:
            start = partial(run_client, ["BTC-USD"], url=gateway.url, keyboard=False, say=said.append)
            other = await nursery.start(start)
            await other.wait_until(lambda it: it.connections == 1)
            await presser(client_keys(other), said.append)("q")
