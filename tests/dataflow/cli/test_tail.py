"""`dataflow tail`: live trades, across every way in which a connection can end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any

import attrs
import msgspec
import pytest
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest, serve_websocket

from dataflow.cli.ends import Failure, Mistake
from dataflow.cli.tail import Raw, Screen, Tail, follow, refusal
from dataflow.client import Quality, Refused, Subscribed, Topic, Trade
from dataflow.sources.vitals import UNHEARD

EPOCH = 1700000000000


def trade(offset: int, side: str = "buy", price: str = "8501.1", **other: Any) -> str:
    fields = {"seqnum": offset, "event": "updated", "channel": "trades", "symbol": "BTC-USD"} | other
    head = json.dumps(fields)[:-1]
    return (
        f'{head}, "timestamp": "2020-05-10T18:33:36.696315Z", "side": "{side}", "qty": 5.892E-4, '
        f'"price": {price}, "tradeId": "t{offset}", "source": "blockchain", "offset": {offset}}}'
    )


def update(offset: int, **other: Any) -> str:
    return f'{{"jsonrpc": "2.0", "method": "trades.update", "params": {trade(offset, **other)}}}'


def notice(method: str, **params: Any) -> str:
    return json.dumps({"jsonrpc": "2.0", "method": method, "params": params})


def answer(offset: int, symbol: str = "BTC-USD", epoch: int = EPOCH, trades: str = "", **more: Any) -> str:
    result = {
        "channel": "trades",
        "symbol": symbol,
        "event": "subscribed",
        "epoch": epoch,
        "offset": offset,
    } | more
    text = json.dumps({"jsonrpc": "2.0", "id": f"trades:{symbol}", "result": result})
    return text.replace('"event"', f'"trades": [{trades}], "event"') if trades else text


Script = Callable[["Server", WebSocketConnection], Awaitable[None]]


@attrs.define
class Server:
    """A gateway that follows a script, one step for each connection; None refuses the handshake."""

    script: list[Script | None]
    asked: list[list[Any]] = attrs.Factory(list)
    url: str = ""

    async def serve(self, request: WebSocketRequest) -> None:
        step = self.script.pop(0)
        if step is None:
            await request.reject(503)
            return
        self.asked.append([])
        socket = await request.accept()
        try:
            await step(self, socket)
        except ConnectionClosed:
            pass
        finally:
            await socket.aclose()

    async def hear(self, socket: WebSocketConnection) -> Any:
        call = json.loads(await socket.get_message())
        self.asked[-1].append(call)
        return call


@asynccontextmanager
async def gateway(*script: Script | None) -> AsyncIterator[Server]:
    server = Server(list(script))
    async with trio.open_nursery() as nursery:
        bound = await nursery.start(partial(serve_websocket, server.serve, "127.0.0.1", 0, None))
        server.url = f"ws://127.0.0.1:{bound.port}/ws"
        yield server
        nursery.cancel_scope.cancel()


def says(*messages: str, then: str = "wait", calls: int = 1) -> Script:
    """Receive `calls` calls and send `messages`. Then take all further calls until the client leaves, cut the
    connection, or close it with reason `then`."""

    async def step(server: Server, socket: WebSocketConnection) -> None:
        for _ in range(calls):
            await server.hear(socket)
        for message in messages:
            await socket.send_message(message)
        if then == "wait":
            while True:
                await socket.get_message()
        elif then == "cut":
            await socket._stream.aclose()
        else:
            await socket.aclose(1001, then)

    return step


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reconnect without delay."""
    monkeypatch.setattr("dataflow.cli.tail.RETRY_FIRST", 0.0)


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[[], list[str]]:
    return lambda: capsys.readouterr().out.splitlines()


def tail_of(*symbols: str, count: int | None = None, snapshot: int | None = None) -> Tail:
    return Tail(symbols or ("BTC-USD",), snapshot, count)


PLAIN = Screen(7, coloured=False)
LINE = "18:33:36.696 BTC-USD {side:<4} {whole:>8}.{decimals:<8}       0.0005892  blockchain #{offset}"
NOTHING = "-- BTC-USD: no trade so far, waiting for the first one"


def show(screen: Screen, text: str) -> None:
    screen.trade(msgspec.json.decode(text, type=Trade), text.encode())


def line(offset: int, side: str = "buy", price: str = "8501.1") -> str:
    whole, decimals = price.split(".")
    return LINE.format(side=side, whole=whole, decimals=decimals, offset=offset)


class TestShowing:
    def test_nothing_is_obeyed(self, said: Any) -> None:
        """Escape codes in texts from the daemon do not reach the terminal."""
        show(PLAIN, trade(7, symbol="\x1b[2J").replace("blockchain", "\\u001b]0;x\\u0007"))
        PLAIN.notice("connection.lost", json.dumps({"source": "\x1b[2J", "reason": "a\nb"}).encode())
        assert "\x1b" not in "".join(lines := said())
        assert lines[1:] == [r"-- \x1b[2J: connection lost (a", "    b)"]

    @pytest.mark.parametrize(
        ("error", "told"),
        [
            (
                {"code": -32602, "message": "Invalid params", "data": {"param": "symbol", "problem": "unknown symbol", "nearest": ["BTC-USD", "BTC-EUR"]}},
                "X-Y: unknown symbol; did you mean BTC-USD or BTC-EUR?",
            ),
            (
                {"code": -32602, "message": "Invalid params", "data": {"param": "snapshot", "value": 9999, "problem": "must be 0 to 1000"}},
                "snapshot 9999: must be 0 to 1000",
            ),
            ({"code": -32000, "message": "upstream unavailable"}, "X-Y: upstream unavailable"),
        ],
    )  # fmt: skip
    def test_a_refusal_says_what_would_be_right(self, error: dict[str, Any], told: str) -> None:
        """The message for a refused symbol names the nearest symbols."""
        assert refusal(Refused(topic=Topic("trades", "X-Y"), **error)) == told


SINCE = datetime(2020, 5, 10, tzinfo=UTC)


def quality(state: str, reason: str | None) -> dict[str, Any]:
    source = {"state": state, "since": "2020-05-10T18:33:36.696315Z", "reason": reason}
    return {"state": state, "sources": {"blockchain": source}}


class TestFollowing:
    async def test_a_source_that_is_down_from_the_start_is_said(self, said: Any) -> None:
        """Its `connection.lost` came before this client. It is said once for each connection, not per symbol."""
        down = quality("lost", "connection refused")
        script = says(answer(0, quality=down), answer(0, "A-B", quality=down), update(1), then="bye", calls=2)
        again = says(answer(1, quality=down, recovered=True), update(2), calls=2)
        async with gateway(script, again) as server:
            await follow(server.url, tail_of("BTC-USD", "A-B", count=2), PLAIN)
        told = "-- blockchain: no connection (connection refused), the daemon tries again"
        bye = ["-- disconnected (bye), coming back", "-- connected again"]
        assert said() == [told, line(1), *bye, told, line(2)]

    @pytest.mark.parametrize("comes_first", ["notice", "state"])
    async def test_a_source_that_goes_down_is_said_once(self, said: Any, comes_first: str) -> None:
        """Its `connection.lost` says it; the states of its symbols are no news then. So each time."""
        lost = notice("connection.lost", source="blockchain", reason="bye", symbols=["BTC-USD", "A-B"])
        [(source, state)] = quality("lost", "bye")["sources"].items()
        states = [
            notice("quality.update", symbol=each, source=source, **state) for each in ("BTC-USD", "A-B")
        ]
        down = [lost, *states] if comes_first == "notice" else [*states, lost]
        back = notice("connection.restored", source="blockchain", symbols=["BTC-USD"], action="resubscribe")
        well = quality("live", None)
        answers = answer(0, quality=well), answer(0, "A-B", quality=well)
        async with gateway(says(*answers, *down, back, *down, back, update(1), calls=2)) as server:
            await follow(server.url, tail_of("BTC-USD", "A-B", count=1), PLAIN)
        told = ["-- blockchain: connection lost (bye)", "-- blockchain: connection restored"]
        assert said() == [NOTHING, NOTHING.replace("BTC-USD", "A-B"), *told, *told, line(1)]

    @pytest.mark.parametrize(
        "state",
        [
            ("live", None),
            ("idle", None),
            ("lost", "connecting"),
            ("lost", "subscribing"),
            ("quiet", UNHEARD),
        ],
    )
    async def test_a_source_that_is_there_or_on_its_way_is_not_said(
        self, said: Any, state: tuple[str, str | None]
    ) -> None:
        """A subscription that takes its first second is no news; that nothing has traded is."""
        async with gateway(says(answer(0, quality=quality(*state)), update(1))) as server:
            await follow(server.url, tail_of(count=1), PLAIN)
        assert said() == [NOTHING, line(1)]

    async def test_gaps_of_an_answer_stand_in_their_place_and_say_their_symbol(self, said: Any) -> None:
        """A gap stands once between its neighbours, in the words of a live gap, also if its size is unknown."""
        gaps = [{"from": 7, "to": None, "reason": "source_gap"}]
        script = says(answer(8, trades=f"{trade(6)}, {trade(8)}", gaps=gaps), update(9))
        async with gateway(script) as server:
            await follow(server.url, tail_of(count=3, snapshot=3), PLAIN)
        assert said() == [line(6), "-- BTC-USD: #7 to ? did not come (source_gap)", line(8), line(9)]

    async def test_a_gap_of_unknown_size_is_not_asked_for_again(self, said: Any) -> None:
        """It is one place: after a reconnection `since` lies behind it."""
        gap = notice(
            "stream.gap",
            symbol="BTC-USD",
            channel="trades",
            epoch=EPOCH,
            reason="x",
            **{"from": 8, "to": None},
        )
        async with gateway(says(answer(7), gap, then="bye"), says(answer(9), update(10))) as server:
            await follow(server.url, tail_of(count=1), PLAIN)
        assert server.asked[1][0]["params"]["since"] == {"epoch": EPOCH, "offset": 8}

    async def test_trades_and_notices_in_their_order(self, said: Any) -> None:
        """Snapshot, live trades, batches and notices are shown in the order of their arrival."""
        script = says(
            answer(7, trades=f"{trade(6)}, {trade(7)}"),
            update(8, side="sell"),
            f"[{update(9)}, {notice('connection.lost', source='blockchain', reason='silent', symbols=[])}, {update(10)}]",
            notice("stream.gap", symbol="BTC-USD", channel="trades", epoch=EPOCH, **{"from": 11, "to": 12}, reason="slow_client"),
            update(13),
        )  # fmt: skip
        async with gateway(script) as server:
            await follow(server.url, tail_of(count=6, snapshot=2), PLAIN)
        assert said() == [
            *(line(6), line(7), line(8, "sell"), line(9)),
            "-- blockchain: connection lost (silent)",
            line(10),
            "-- BTC-USD: #11 to 12 did not come (slow_client)",
            line(13),
        ]
        assert server.asked[0][0] == {
            "jsonrpc": "2.0",
            "id": "trades:BTC-USD",
            "method": "subscribe",
            "params": {"channel": "trades", "symbol": "BTC-USD", "batch": True, "snapshot": 2},
        }

    async def test_every_symbol_is_asked_for(self) -> None:
        """Several symbols make several subscriptions on one connection."""
        script = says(answer(0, "A-B"), answer(0, "C-D"), update(1, symbol="C-D"), calls=2)
        async with gateway(script) as server:
            await follow(server.url, tail_of("A-B", "C-D", count=1), PLAIN)
        trades = [call["params"] for call in server.asked[0] if call["params"]["channel"] == "trades"]
        assert [params["symbol"] for params in trades] == ["A-B", "C-D"]

    async def test_how_a_symbol_fares_is_said_when_it_changes(self, said: Any) -> None:
        """A silence, a stall and their like, with the reason; the end of a silence is the trade itself."""

        def state(state: str, reason: str | None = None) -> str:
            since = "2020-05-10T18:33:36.696315Z"
            about = {"symbol": "BTC-USD", "source": "acme", "state": state, "since": since, "reason": reason}
            return notice("quality.update", **about, missing=0, lag=None)

        script = says(
            *(answer(0), state("live"), state("quiet"), state("live"), update(1)),
            *(
                state("stalled", "it sends less"),
                state("lost", "subscribing"),
                state("stalled", "it sends less"),
            ),
            *(state("live"), update(2)),
            *(state("stalled", "it sends less; best is preferred"), state("standby", "best is preferred")),
            update(3),
        )
        async with gateway(script) as server:
            await follow(server.url, tail_of(count=3), PLAIN)
        assert said() == [
            NOTHING,
            "-- BTC-USD: quiet at acme",
            line(1),
            "-- BTC-USD: stalled at acme (it sends less)",
            "-- BTC-USD: live at acme",
            line(2),
            "-- BTC-USD: stalled at acme (it sends less; best is preferred)",
            "-- BTC-USD: standby at acme (best is preferred)",
            line(3),
        ]

    def test_what_is_the_same_of_many_symbols_is_one_line(self, said: Any) -> None:
        """Of a few each has its own. Nothing changes its place: neither a line among those of its symbol, nor before
        a trade that came later."""
        tail, names = tail_of("*"), [f"S{number}" for number in range(1_000)]

        def fares(symbol: str, state: str) -> None:
            reason = "silent" if state == "quiet" else None
            event = Quality(symbol=symbol, source="acme", state=state, since=SINCE, reason=reason)
            tail.take(event, b"", PLAIN)

        for symbol in names:
            tail.take(Subscribed(topic=Topic("trades", symbol), epoch=1, offset=0, newest=0), b"", PLAIN)
            fares(symbol, "quiet")
        fares("S7", "stalled")
        assert said() == [
            "-- S0, S1, S2 and 997 more: no trade so far, waiting for the first one",
            "-- S0, S1, S2 and 997 more: quiet at acme (silent)",
        ]
        for symbol in names[10:15]:
            fares(symbol, "gapped")
        tail.take(msgspec.json.decode(trade(7), type=Trade), b"", PLAIN)
        assert said() == [
            "-- S7: stalled at acme",
            *(f"-- {symbol}: gapped at acme" for symbol in names[10:15]),
            line(7),
        ]

    @pytest.mark.parametrize("count", [1, 2, 3, 4])
    async def test_count_is_exact(self, said: Any, count: int) -> None:
        """--count ends after exactly this number of trades, also inside a snapshot or a batch."""
        script = says(answer(2, trades=f"{trade(1)}, {trade(2)}"), f"[{update(3)}, {update(4)}, {update(5)}]")
        async with gateway(script) as server:
            await follow(server.url, tail_of(count=count, snapshot=2), PLAIN)
        assert said() == [line(offset) for offset in range(1, count + 1)]

    async def test_raw(self, said: Any) -> None:
        """--json passes the params on unchanged, one per line, with all digits."""
        told = notice("connection.restored", source="blockchain", action="resubscribe", symbols=[])
        async with gateway(says(answer(1, trades=trade(1)), told, update(2, price="8501.100"))) as server:
            await follow(server.url, tail_of(count=2, snapshot=1), Raw())
        assert said() == [
            trade(1),
            '{"source": "blockchain", "action": "resubscribe", "symbols": []}',
            trade(2, price="8501.100"),
        ]

    async def test_a_restart_is_survived(self, said: Any) -> None:
        """After a restart of the daemon the missed trades are requested with `since` and shown once."""
        before = says(answer(7), update(8), then="server going away")
        after = says(answer(10, recovered=True, trades=f"{trade(9)}, {trade(10)}"), update(11))
        async with gateway(before, after) as server:
            await follow(server.url, tail_of(count=4, snapshot=0), PLAIN)
        assert [calls[0]["params"] for calls in server.asked] == [
            {"channel": "trades", "symbol": "BTC-USD", "batch": True, "snapshot": 0},
            {"channel": "trades", "symbol": "BTC-USD", "batch": True, "since": {"epoch": EPOCH, "offset": 8}},
        ]
        assert said() == [
            line(8),
            "-- disconnected (server going away), coming back",
            "-- connected again",
            *(line(9), line(10), line(11)),
        ]

    async def test_a_connection_that_breaks_is_told_in_words(self, said: Any) -> None:
        """As a killed daemon leaves it: no close code, no reason."""
        killed = says(answer(7), update(8), then="cut", calls=2)  # a call that nobody reads would be a reset
        async with gateway(killed, says(answer(8, recovered=True), update(9))) as server:
            await follow(server.url, tail_of(count=2), PLAIN)
        assert said() == [
            line(8),
            "-- disconnected (without a word), coming back",
            "-- connected again",
            line(9),
        ]

    async def test_a_refused_client_returns_after_the_told_time(self, said: Any) -> None:
        """Also before the first answer, and also if no daemon answers at that time."""
        refused = notice("connection.refused", reason="too many sessions", retryAfter=0.0)
        waiting = notice("connection.waiting", ahead=7, seconds=1.2)
        away = says(refused, then="too many sessions, try again in 0 s")
        async with gateway(away, None, says(waiting, answer(7), update(8))) as server:
            await follow(server.url, tail_of(count=1), PLAIN)
        assert said() == [
            "-- no room: too many sessions",
            "-- disconnected (too many sessions, try again in 0 s), coming back",
            "-- waiting for 1.2 s, 7 others go first",
            line(8),
        ]

    async def test_a_failed_recovery_is_said(self, said: Any) -> None:
        """After a restart that lost the cache, tail names the hole, shows what is left, takes the new epoch and goes on."""
        before = says(answer(7), then="bye")
        unknown = [{"from": 0, "to": None, "reason": "overrun"}]
        left = answer(2, epoch=EPOCH + 1, recovered=False, trades=f"{trade(1)}, {trade(2)}", gaps=unknown)
        forgot = says(left, update(3), then="bye")
        later = says(answer(3, epoch=EPOCH + 1, recovered=True), update(4))
        async with gateway(before, forgot, later) as server:
            await follow(server.url, tail_of(count=4), PLAIN)
        assert said()[:6] == [
            "-- disconnected (bye), coming back",
            "-- connected again",
            "-- BTC-USD: trades are missing here, the daemon no longer has them",
            line(1),
            line(2),
            line(3),
        ]
        assert server.asked[2][0]["params"]["since"] == {"epoch": EPOCH + 1, "offset": 3}

    async def test_gaps_in_an_answer_are_said(self, said: Any) -> None:
        """Gaps among the missed trades are shown, too."""
        gaps = [{"from": 8, "to": 9, "reason": "source_gap"}]
        before, after = says(answer(7), then="bye"), says(answer(9, recovered=True, gaps=gaps), update(10))
        async with gateway(before, after) as server:
            await follow(server.url, tail_of(count=1), PLAIN)
        assert "-- BTC-USD: #8 to 9 did not come (source_gap)" in said()

    async def test_a_gap_moves_the_position(self) -> None:
        """Announced gaps are not requested again after a reconnection."""
        gap = notice(
            "stream.gap",
            symbol="BTC-USD",
            channel="trades",
            epoch=EPOCH,
            **{"from": 8, "to": 9},
            reason="slow_client",
        )
        before, after = says(answer(7), gap, then="bye"), says(answer(9, recovered=True), update(10))
        async with gateway(before, after) as server:
            await follow(server.url, tail_of(count=1), PLAIN)
        assert server.asked[1][0]["params"]["since"]["offset"] == 9

    async def test_a_crash_and_a_fill_are_said(self, said: Any) -> None:
        """What a crash took back is said, then what stands there now. What came after all is said and shown."""
        gaps = [{"from": 7, "to": 8, "reason": "source_gap"}]
        before = says(answer(9, trades=f"{trade(6)}, {trade(9)}", gaps=gaps), update(10), then="bye")
        told = answer(
            10,
            epoch=EPOCH + 1,
            recovered=False,
            trades=trade(10, side="sell"),
            rewound={"epoch": EPOCH + 1, "offset": 9},
        )
        late = f'"filled": [{{"from": 7, "to": 7, "trades": [{trade(7)}]}}], "rewound"'
        after = says(told.replace('"rewound"', late), update(11))
        async with gateway(before, after) as server:
            await follow(server.url, tail_of(count=5, snapshot=3), PLAIN)
        assert server.asked[1][0]["params"]["since"] == {"epoch": EPOCH, "offset": 10, "gaps": [[7, 8]]}
        assert said()[-6:] == [
            "-- connected again",
            "-- BTC-USD: forget all behind #9, the daemon crashed before it was kept",
            "-- BTC-USD: #7 came after all",
            *(line(7), line(10, "sell"), line(11)),
        ]

    async def test_a_fault_of_the_daemon_is_said_and_survived(self, said: Any) -> None:
        """A hole that is not told: both places are named, and the next connection goes on before it."""
        script = says(answer(7), update(9)), says(answer(9, recovered=True, trades=f"{trade(8)}, {trade(9)}"))
        async with gateway(*script) as server:
            await follow(server.url, tail_of(count=2), PLAIN)
        fault = "-- a fault of the daemon (BTC-USD: a hole: place 9 came, 8 was next), coming back"
        assert said() == [fault, "-- connected again", line(8), line(9)]

    async def test_a_daemon_that_is_away_is_waited_for(self, said: Any) -> None:
        """Tail tries again until the next daemon answers."""
        before, after = says(answer(7), then="bye"), says(answer(7, recovered=True), update(8))
        async with gateway(before, None, None, None, after) as server:
            await follow(server.url, tail_of(count=1), PLAIN)
        assert said() == ["-- disconnected (bye), coming back", "-- connected again", line(8)]

    async def test_a_refused_symbol_is_the_users_mistake(self) -> None:
        """An unknown symbol ends tail with the reason."""
        data = {"param": "symbol", "problem": "unknown symbol", "nearest": ["BTC-USD"]}
        error = {
            "jsonrpc": "2.0",
            "id": "trades:BTC-USX",
            "error": {"code": -32602, "message": "Invalid params", "data": data},
        }
        async with gateway(says(json.dumps(error))) as server:
            with pytest.raises(Mistake, match=r"^BTC-USX: unknown symbol; did you mean BTC-USD\?$"):
                await follow(server.url, tail_of("BTC-USX"), PLAIN)

    @pytest.mark.parametrize("nonsense", ["", "{", "[1]", '"x"', '{"id": "BTC-USD", "result": {}}'])
    async def test_nonsense_is_a_failure(self, nonsense: str) -> None:
        """A message that cannot be understood ends tail with a clear line; tail does not guess."""
        async with gateway(says(nonsense)) as server:
            with pytest.raises(Failure, match="says what this client does not understand"):
                await follow(server.url, tail_of(), PLAIN)

    async def test_another_server_is_named_as_such(self) -> None:
        """Another server on the port is the user's mistake and no reason to retry for ever."""

        async def not_found(stream: trio.SocketStream) -> None:
            await stream.receive_some()
            await stream.send_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            await stream.aclose()

        async with trio.open_nursery() as nursery:
            (listener,) = await nursery.start(partial(trio.serve_tcp, not_found, 0, host="127.0.0.1"))
            port = listener.socket.getsockname()[1]
            with pytest.raises(Mistake, match="answers with status 404, it is not a dataflow daemon"):
                await follow(f"ws://127.0.0.1:{port}/ws", tail_of(), PLAIN)
            nursery.cancel_scope.cancel()


async def _endless(server: Server, socket: WebSocketConnection) -> None:
    await server.hear(socket)
    await socket.send_message(answer(0))
    for offset in range(1, 1_000_000):
        await socket.send_message(update(offset))


async def first_line(stream: trio.abc.ReceiveStream) -> str:
    text = ""
    while "\n" not in text and (more := await stream.receive_some()):
        text += more.decode()
    return text.partition("\n")[0]


class TestProcess:
    """The command in a process of its own."""

    @staticmethod
    def command(server: Server, *options: str) -> list[str]:
        url = server.url.replace("ws://", "http://").removesuffix("/ws")
        return [sys.executable, "-m", "dataflow", "tail", "btc-usd", "--url", url, *options]

    async def test_a_closed_pipe_is_the_end(self) -> None:
        """`dataflow tail | head` ends quietly with 0 after `head` has ended."""
        reading, writing = os.pipe()
        async with gateway(_endless) as server, trio.open_nursery() as nursery:
            process = await nursery.start(
                partial(
                    trio.run_process,
                    self.command(server),
                    stdout=writing,
                    stderr=subprocess.PIPE,
                    check=False,
                )
            )
            os.close(writing)
            stream = trio.lowlevel.FdStream(reading)
            assert (await stream.receive_some(1)).startswith(b"-")
            await stream.aclose()
            assert await process.wait() == 0

    @pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
    async def test_an_interrupt_is_the_end(self, sent: signal.Signals) -> None:
        """Ctrl-C and SIGTERM end it quietly with 0. A pipe gets no colours and no tracebacks."""
        async with gateway(says(answer(5), update(6))) as server:
            process = await trio.lowlevel.open_process(
                self.command(server), stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            assert process.stdout is not None
            assert process.stderr is not None
            assert await first_line(process.stdout) == line(6)
            process.send_signal(sent)
            assert await process.stderr.receive_some() == b""
            assert await process.wait() == 0
            await process.stdout.aclose()
            await process.stderr.aclose()
