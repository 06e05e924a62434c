"""The price hub over the real daemon, with clients as they exist: they only listen, and know one message."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest
import trio
from attrs import define, evolve, field
from trio_websocket import ConnectionClosed, ConnectionRejected, WebSocketConnection, wrap_client_stream

from actors.outbox import SlowClient
from actors.update import Encode, Places
from dataflow import domain
from dataflow.chaos.client import dial
from dataflow.faces import marketdata, pricehub
from dataflow.settings.schema import Gateway, Limits, Session
from simulators import Exchange, Trade, open_binance
from supervisors import Point
from tests.support.node import program
from tests.support.waiting import until
from tests.system.daemon import Daemon, connection, daemon, from_binance, how_it_ended, http_client
from tests.system.test_ticks import frames, from_producers, producer, tick

SYMBOLS = ("BTC-USDT", "ETH-USDT")
EVERY = "prices:*"


@define
class Stage:
    exchange: Exchange
    daemon: Daemon
    published: dict[str, int] = field(factory=dict)

    async def publish(self, price: str, instrument: str = "BTCUSDT") -> None:
        number = self.published[instrument] = self.published.get(instrument, 0) + 1
        at = 1_700_000_000_000_000 + number
        await self.exchange.publish(
            Trade(id=number, symbol=instrument, side="buy", price=price, qty="1", timestamp_us=at)
        )

    def deliver(self, first: int, last: int) -> None:
        """Trades of both instruments at once, past the exchange; the price of each is its number."""
        self.daemon.core.delivery(
            [
                domain.Trade("binance", symbol, str(n), "buy", Decimal(n), Decimal(1), n, n)
                for n in range(first, last + 1)
                for symbol in SYMBOLS
            ]
        )

    async def admitted(self) -> None:
        """Returns when all that was published has its place."""
        for instrument, number in self.published.items():
            symbol = instrument.removesuffix("USDT") + "-USDT"
            await until(lambda s=symbol, n=number: self.daemon.core.history(s).last >= n)

    def followers(self, topic: str = EVERY) -> int:
        return {str(t): n for t, n in self.daemon.core.topics.subscribers.items()}.get(topic, 0)

    @property
    def host(self) -> tuple[str, int]:
        name, _, port = self.daemon.http.removeprefix("http://").partition(":")
        return name, int(port)

    @property
    def address(self) -> str:
        return self.daemon.http.replace("http", "ws") + "/pricehub"


@asynccontextmanager
async def stage(**tables: Any) -> AsyncIterator[Stage]:
    tables.setdefault("faces", {"pricehub": pricehub.Settings(enabled=True)})
    async with (
        open_binance() as exchange,
        daemon(sources=from_binance(exchange.url, *SYMBOLS, linger=0.0), **tables) as d,
    ):
        yield Stage(exchange, d)


@define
class Listener:
    """A client that keeps what it reads."""

    socket: WebSocketConnection
    heard: list[str | bytes] = field(factory=list)
    closed: int | None = None

    async def listen(self) -> None:
        try:
            while True:
                self.heard.append(await self.socket.get_message())
        except ConnectionClosed as error:
            self.closed, _ = how_it_ended(error)

    def of(self, instrument: str) -> list[str]:
        told = [json.loads(text) for text in self.heard]
        return [each["Price"] for each in told if each["Instrument"] == instrument]


@define
class Deaf(Listener):
    """One that does not read before `reads` is set. `peer` is its own address."""

    peer: str = ""
    reads: trio.Event = field(factory=trio.Event)

    async def listen_later(self) -> None:
        await self.reads.wait()
        await self.listen()


@asynccontextmanager
async def listening(s: Stage, query: str = "", *, on: str = EVERY) -> AsyncIterator[Listener]:
    """A client that is served already."""
    before = s.followers(on)
    async with connection(s.address + query) as socket, trio.open_nursery() as nursery:
        listener = Listener(socket)
        nursery.start_soon(listener.listen)
        await until(lambda: s.followers(on) == before + 1)
        yield listener
        nursery.cancel_scope.cancel()


def living() -> Counter[str]:
    """The tasks of the daemon by name, but for those that start others: they stay for some seconds."""
    found, waiting = Counter[str](), [trio.lowlevel.current_root_task()]
    while waiting:
        task = waiting.pop()
        assert task is not None
        found[task.name] += 1
        waiting += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return Counter({name: count for name, count in found.items() if not name.endswith(" (starts)")})


@asynccontextmanager
async def deaf(s: Stage) -> AsyncIterator[Deaf]:
    """A client behind small buffers that reads nothing until it is told to."""
    before = s.followers()
    stream = await dial(*s.host)
    async with stream, trio.open_nursery() as nursery:
        socket = await wrap_client_stream(nursery, stream, "127.0.0.1", "/pricehub")
        listener = Deaf(socket, peer="{}:{}".format(*stream.socket.getsockname()))
        nursery.start_soon(listener.listen_later)
        await until(lambda: s.followers() == before + 1)
        yield listener
        nursery.cancel_scope.cancel()


def handshake(query: str = "", extra: str = "") -> bytes:
    """The request of a client that is no library."""
    return (
        f"GET /pricehub{query} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{extra}\r\n"
    ).encode()


async def rejected(url: str) -> ConnectionRejected:
    """The answer to a handshake that is refused."""
    with pytest.RaisesGroup(ConnectionRejected, flatten_subgroups=True) as refused:
        async with connection(url):
            raise AssertionError("it came in")
    [error] = refused.value.exceptions
    while isinstance(error, BaseExceptionGroup):
        [error] = error.exceptions
    return error


async def test_a_client_that_says_nothing_gets_every_price_of_every_instrument() -> None:
    """Exactly two keys, both texts; the price with the digits that the exchange sent, never an exponent."""
    prices = ["61837.63000000", "0.00000001", "0.00000010", "1.00000000", "1000000000.50000000"]
    async with stage() as s, listening(s) as listener:
        await s.exchange.wait_subscribed(["BTCUSDT", "ETHUSDT"])  # connecting is the interest in both
        for price in prices:
            await s.publish(price)
            await s.publish(price, "ETHUSDT")
        await until(lambda: len(listener.heard) >= 10)
        assert listener.heard[0] == '{"Instrument":"BTCUSDT","Price":"61837.63000000"}'
        assert listener.of("BTCUSDT") == listener.of("ETHUSDT") == prices
        assert all(list(json.loads(text)) == ["Instrument", "Price"] for text in listener.heard)


async def test_nothing_is_sent_before_the_next_trade() -> None:
    """A price has no time, so it must not be an old one: neither to the first client nor to one beside it."""
    async with stage() as s:
        async with listening(s) as first:
            await s.exchange.wait_subscribed(["BTCUSDT"])
            for price in ("1.0", "2.00000000"):
                await s.publish(price)
            await until(lambda: len(first.heard) == 2)
            async with listening(s) as second:
                await s.publish("3.00000000")
                await until(lambda: second.heard and len(first.heard) == 3)
                assert second.of("BTCUSDT") == ["3.00000000"]
        await until(lambda: s.followers() == 0 and not s.exchange.subscribed)
        async with listening(s) as third:
            await s.exchange.wait_subscribed(["BTCUSDT"])
            await s.publish("4.00000000")
            await until(lambda: third.heard)
            assert third.of("BTCUSDT") == ["4.00000000"]


async def test_a_selection_in_any_spelling() -> None:
    """Compact or canonical, in any case, blanks around it, twice: each price of the selected ones once."""
    async with (
        stage() as s,
        listening(s, "?instruments=btcusdt,%20BTC-USDT%20&other=1", on="prices:BTC-USDT") as listener,
    ):
        await s.exchange.wait_subscribed(["BTCUSDT"])
        assert s.daemon.core.sources["binance"].interest.topics == {"BTC-USDT"}
        await s.publish("1.00000000")
        await s.publish("2.00000000", "ETHUSDT")
        await s.publish("3.00000000")
        await until(lambda: len(listener.heard) >= 2)
        assert listener.of("BTCUSDT") == ["1.00000000", "3.00000000"]
        assert len(listener.heard) == 2


@pytest.mark.parametrize("below", ["", "/feed"])
async def test_what_is_wrong_is_told_before_the_upgrade(below: str) -> None:
    """By an HTTP answer that names the mistake, whichever way in, and costs no session; so is a GET without an upgrade."""
    few = Session(max_subscriptions=1)
    async with stage(gateway=Gateway(port=0, root_path=below), session=few) as s:
        base = s.daemon.http.replace("http", "ws") + below + "/pricehub"
        for query, status, word in (
            ("?instruments=DOGEUSDT", 400, "DOGEUSDT"),
            ("?instruments=BTCUSDT,", 400, "unknown instrument"),
            ("?instruments=", 400, "unknown instrument"),
            ("?instruments=BTCUSDT,ETHUSDT", 429, "too many subscriptions"),
        ):
            refused = await rejected(base + query)
            assert refused.status_code == status
            assert word in refused.body.decode()
        async with http_client(s.daemon.http) as http:
            answer = await http.get(below + "/pricehub")
            assert answer.status_code == 400
            assert answer.headers["content-type"] == "application/problem+json"
        assert s.daemon.lobby.clients.guestbook is not None
        assert len(s.daemon.lobby.clients) == 0


async def test_the_last_price_of_an_instrument() -> None:
    """A JSON number with the digits of the exchange under the compact name, however it was asked for; without a trade 404."""
    async with stage() as s, http_client(s.daemon.http) as http, listening(s):
        await s.exchange.wait_subscribed(["BTCUSDT", "ETHUSDT"])
        for path in ("/Instruments", "/instruments", "/INSTRUMENTS"):
            assert (await http.get(path)).text == '["BTCUSDT","ETHUSDT"]\n'
        await s.publish("61000.1")
        await s.publish("0.00000010")
        await s.admitted()
        for path in (
            "/Instruments/BTCUSDT/price",
            "/instruments/btc-usdt/PRICE",
            "/Instruments/%20BtcUsdt/Price",
        ):
            answer = await http.get(path)
            assert answer.status_code == 200
            assert answer.text == '{"instrument":"BTCUSDT","price":0.00000010}\n'
            assert answer.headers["content-type"] == "application/json"
        for name, word in (("ETHUSDT", "no trade yet"), ("DOGE", "unknown instrument")):
            answer = await http.get(f"/Instruments/{name}/price")
            assert answer.status_code == 404
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["detail"] == f"{name}: {word}"
        assert (await http.post("/Instruments")).status_code == 405
        assert (await http.get("/health")).status_code == 200


async def test_a_face_that_is_off_is_not_there() -> None:
    """Neither the WebSocket nor the questions; so it is unless somebody switches it on."""
    async with stage(faces={}) as s, http_client(s.daemon.http) as http:
        for path in ("/pricehub", "/Instruments", "/Instruments/BTCUSDT/price"):
            assert (await http.get(path)).status_code == 404
        assert (await rejected(s.address)).status_code == 404


async def test_what_clients_say_is_not_heard() -> None:
    """Text, bytes, JSON-RPC: the prices go on, nothing is answered. Too long a message ends its sender alone."""
    async with stage() as s, listening(s) as talker, listening(s) as other:
        await s.exchange.wait_subscribed(["BTCUSDT"])
        for said in ("hello", b"\x00\xff", '{"jsonrpc":"2.0","id":1,"method":"ping"}', ""):
            await talker.socket.send_message(said)
        await s.publish("1.00000000")
        await until(lambda: talker.heard and other.heard)
        await talker.socket.send_message("x" * 70_000)
        await until(lambda: talker.closed is not None)
        assert talker.closed == 1009
        await s.publish("2.00000000")
        await until(lambda: len(other.heard) == 2)
        assert talker.of("BTCUSDT") == ["1.00000000"]
        assert other.of("BTCUSDT") == ["1.00000000", "2.00000000"]


@pytest.mark.parametrize("policy", SlowClient)
async def test_a_client_that_does_not_read_gets_the_newest_price_of_each(policy: SlowClient) -> None:
    """Whatever the policy: what waits for it is bounded, it never goes back, and ends with the last prices. Another client
    gets each of them."""
    async with stage(session=Session(outbox=20, slow_client=policy)) as s, deaf(s) as slow:
        [session] = s.daemon.lobby.clients
        count = 0
        async with listening(s) as quick:
            while count < 4_000 or session.waiting == 0:
                s.deliver(count + 1, count + 100)
                count += 100
                await until(lambda: len(quick.heard) == 2 * count)  # noqa: B023
                assert session.ended is None
                assert session.waiting <= 2
            every = [str(n) for n in range(1, count + 1)]
            assert quick.of("BTCUSDT") == quick.of("ETHUSDT") == every
        slow.reads.set()
        await until(lambda: slow.of("ETHUSDT")[-1:] == slow.of("BTCUSDT")[-1:] == every[-1:])
        for instrument in ("BTCUSDT", "ETHUSDT"):
            told = list(map(int, slow.of(instrument)))
            assert told == sorted(set(told))
            assert len(told) < count
        assert session.dropped == 0


async def test_a_price_is_encoded_once_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many clients follow it, slow ones among them."""
    encoded, encoder = list[int](), pricehub.Prices.encoder

    def counting(self: pricehub.Prices, topic: domain.Topic, epoch: int) -> Encode:
        encode = encoder(self, topic, epoch)

        def counted(places: Places) -> list[bytes]:
            encoded.extend(place for place, _ in places)
            return encode(places)

        return counted

    monkeypatch.setattr(pricehub.Prices, "encoder", counting)
    async with stage() as s, listening(s) as one, listening(s) as two, deaf(s):
        deaf_one = list(s.daemon.lobby.clients)[-1]
        count = behind = 0
        while behind < 5:
            s.deliver(count + 1, count + 50)
            count, behind = count + 50, behind + (deaf_one.waiting > 0)
            await until(lambda: len(one.heard) == len(two.heard) == 2 * count)  # noqa: B023
        assert encoded == list(range(1, 2 * count + 1))


async def test_a_crash_costs_no_price_and_repeats_none() -> None:
    """The actor of the stream fails in the middle of it, and goes on where it was."""
    async with stage() as s, listening(s) as listener:
        await s.exchange.wait_subscribed(["BTCUSDT"])
        for number in range(1, 41):
            if number % 10 == 0:
                s.daemon.sabotage.arm(Point.RECEIVE, f"topics/{EVERY}")
            await s.publish(f"{number}.00000000")
            await s.admitted()
        await until(lambda: len(listener.heard) >= 40)
        assert listener.of("BTCUSDT") == [f"{number}.00000000" for number in range(1, 41)]
        assert len(s.daemon.crashes("topics")) >= 1


async def test_a_server_that_stops_says_so() -> None:
    """By the close code for it, behind the last price, and by no message."""
    async with stage() as s, listening(s) as listener:
        await s.exchange.wait_subscribed(["BTCUSDT"])
        await s.publish("1.00000000")
        await until(lambda: listener.heard)
        await s.daemon.root.supervisor("gateway").restart("sessions")
        await until(lambda: listener.closed is not None)
        assert listener.closed == 1001
        assert len(listener.heard) == 1


async def test_without_room_a_client_is_sent_away() -> None:
    """By a close code that says that it may come back, when there are too many clients or too many of one."""
    for tables in (
        {"gateway": Gateway(port=0, max_sessions=1)},
        {"limits": Limits(sessions=1, loopback=True)},
        {"limits": Limits(subscriptions=1, loopback=True)},
    ):
        async with stage(**tables) as s, listening(s), connection(s.address) as socket:
            with pytest.raises(ConnectionClosed) as refused:
                await socket.get_message()
            assert refused.value.reason.code == 1013
            assert s.followers() == 1


async def test_a_hundred_clients_leave_nothing_behind() -> None:
    """However they go: politely, without a word, in the midst of their handshake, refused."""
    async with stage() as s:
        async with listening(s):
            pass
        await until(lambda: not s.daemon.core.topics.open_topics)
        tasks = living()
        for number in range(25):
            for query in ("", "?instruments=BTCUSDT"):
                async with connection(s.address + query) as socket:
                    await socket.aclose()
            for request, answer in (
                (handshake(), b"HTTP/1.1 101"),
                (handshake("?instruments=X"), b"HTTP/1.1 400"),
                (handshake()[: number * 7], b""),
            ):
                stream = await trio.open_tcp_stream(*s.host)
                async with stream:
                    await stream.send_all(request)
                    if answer:
                        assert (await stream.receive_some()).startswith(answer)
        await until(lambda: not len(s.daemon.lobby.clients))
        await until(lambda: not s.daemon.core.topics.open_topics)
        await until(lambda: s.daemon.core.sources["binance"].interest.topics == set())
        await until(lambda: living() <= tasks)
        assert s.daemon.crashes() == []


async def test_an_instrument_that_comes_to_be_belongs_to_all() -> None:
    """A producer brings a symbol that nobody named: who follows all gets its prices, from the first one on."""
    faces = {
        "pricehub": pricehub.Settings(enabled=True),
        "marketdata": marketdata.Settings(enabled=True),
    }
    async with daemon(sources=from_producers(), faces=faces) as d, http_client(d.http) as http:
        s = Stage(None, d)  # type: ignore[arg-type]
        market = f"{d.http.replace('http', 'ws')}/ws/marketdata?symbol=AAPL"
        async with listening(s) as listener, connection(market) as day, producer(d) as p:
            await until(lambda: s.followers("days:AAPL") == 1)
            assert (await http.get("/Instruments")).text == "[]\n"
            await p.send_all(frames(tick(" aApL ", price) for price in (100.25, 0.1, 1e-7)))
            await p.send_all(frames([tick("GOOG", 1e21)]))
            await until(lambda: len(listener.heard) >= 4)
            assert listener.of("AAPL") == ["100.25", "0.1", "0.0000001"]
            assert listener.of("GOOG") == ["1000000000000000000000"]
            assert (await http.get("/Instruments")).text == '["AAPL","GOOG"]\n'
            price = await http.get("/Instruments/goog/price")
            assert price.text == '{"instrument":"GOOG","price":1000000000000000000000}\n'
            states = [json.loads(await day.get_message()) for _ in range(3)]
            assert [(state["close"], state["volume"]) for state in states] == [
                (100.25, 10),
                (0.1, 20),
                (1e-7, 30),
            ]


async def test_an_instrument_that_is_configured_later_belongs_to_all() -> None:
    """From a reload on it is wanted upstream and its prices come to who follows all; one that is taken out is a 404, and
    whoever selected it gets its prices again when it is back."""
    async with stage() as s, http_client(s.daemon.http) as http:

        async def reload(*symbols: str) -> None:
            sources = from_binance(s.exchange.url, *symbols, linger=0.0)
            await s.daemon.reload(evolve(s.daemon.hall.settings, sources=sources))

        await reload("BTC-USDT")
        async with listening(s) as every, listening(s, "?instruments=BTCUSDT", on="prices:BTC-USDT") as one:
            await s.exchange.wait_subscribed(["BTCUSDT"])
            await s.publish("1.00000000")
            await until(lambda: every.heard and one.heard)
            await reload("ETH-USDT")
            await until(lambda: s.exchange.subscribed == {"ETHUSDT"})
            assert (await http.get("/Instruments")).text == '["ETHUSDT"]\n'
            assert (await http.get("/Instruments/BTCUSDT/price")).status_code == 404
            await s.publish("2.00000000", "ETHUSDT")
            await until(lambda: every.of("ETHUSDT") == ["2.00000000"])
            await reload("ETH-USDT", "BTC-USDT")
            await s.exchange.wait_subscribed(["BTCUSDT", "ETHUSDT"])
            await s.publish("3.00000000")
            await until(lambda: every.of("BTCUSDT") == one.of("BTCUSDT") == ["1.00000000", "3.00000000"])
            assert (await http.get("/Instruments")).text == '["ETHUSDT","BTCUSDT"]\n'


async def test_each_price_is_one_whole_frame_that_a_small_buffer_holds() -> None:
    """Final, text, uncompressed, and under 1,024 bytes: some clients read that much and take it for a message."""
    async with stage() as s:
        stream = await trio.open_tcp_stream(*s.host)
        async with stream:
            await stream.send_all(handshake())
            head = await stream.receive_some()
            assert head.startswith(b"HTTP/1.1 101")
            assert b"extensions" not in head.lower()
            await until(lambda: s.followers() == 1)
            await s.exchange.wait_subscribed(["BTCUSDT"])
            for number in range(1, 4):
                await s.publish(f"{number}00.50000000")
            text = b'{"Instrument":"BTCUSDT","Price":"%d00.50000000"}'
            expected = b"".join(b"\x81" + bytes([len(text % n)]) + text % n for n in (1, 2, 3))
            heard = b""
            while len(heard) < len(expected):
                heard += await stream.receive_some()
            assert heard == expected


async def test_the_client_of_node() -> None:
    """`ws`, which speaks for browsers: text messages, in order, and the code of the end."""
    async with stage() as s, program("prices.mjs", s.address + "?instruments=BTC-USDT") as node:
        assert await node.hear() == {"open": ""}
        await until(lambda: s.followers("prices:BTC-USDT") == 1)
        await s.exchange.wait_subscribed(["BTCUSDT"])
        for number in (1, 2):
            await s.publish(f"{number}.00000000")
        for number in (1, 2):
            price = {"Instrument": "BTCUSDT", "Price": f"{number}.00000000"}
            assert await node.hear() == {"text": json.dumps(price, separators=(",", ":"))}
        await s.daemon.root.supervisor("gateway").restart("sessions")
        assert await node.hear() == {"closed": 1001}
