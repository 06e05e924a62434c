"""The client in JavaScript on Node: what it is told is what the daemon has, whatever happens in between."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

from attrs import define, field

from actors.session import Ending
from dataflow.settings.schema import Admission, Gateway, Session
from simulators import Exchange, Trade, open_binance
from tests.support.node import Program, program
from tests.support.ports import own_port
from tests.support.waiting import until
from tests.system.daemon import Daemon, client, daemon, from_binance, http_client
from tests.system.test_comeback import running

SYMBOL = "BTC-USDT"
PRICES = ("61837.630000001234", "0.00000001", "0.0005892000", "8501", "12345678901234567890.5")


def trade(number: int, symbol: str = SYMBOL) -> Trade:
    price = PRICES[number % len(PRICES)]
    at = 1_700_000_000_000_000 + 1_000 * number
    return Trade(number, symbol.replace("-", ""), ("buy", "sell")[number % 2], price, f"{number}.50", at)


@define
class Told:
    """What a subscription was told: each place with its trade, or the reason why there is none."""

    symbol: str = SYMBOL
    places: dict[int, Any] = field(factory=dict)
    kinds: set[str] = field(factory=set)

    def take(self, event: dict[str, Any]) -> None:
        assert event["symbol"] == self.symbol
        kind = event["type"]
        self.kinds.add(kind)
        if kind == "trade":
            self._put(event["offset"], event)
        elif kind == "gap" and event["from"] == 0:
            self.places.clear()
        elif kind == "gap":
            for place in range(event["from"], (event["to"] or event["from"]) + 1):
                self._put(place, event["reason"])
        elif kind == "filled":
            for each in event["trades"]:
                assert isinstance(self.places.pop(each["offset"]), str)
                self._put(each["offset"], each)
        else:
            self.places = {at: held for at, held in self.places.items() if at <= event["offset"]}

    def _put(self, place: int, what: Any) -> None:
        assert place not in self.places
        assert not self.places or place == max(self.places) + 1 or place < max(self.places)
        self.places[place] = what

    @property
    def ids(self) -> list[int | None]:
        """In the order of the places; None for a missing one."""
        return [
            int(held["tradeId"]) if isinstance(held, dict) else None
            for _, held in sorted(self.places.items())
        ]

    def check_digits(self) -> None:
        """Each trade is the one that the exchange sent."""
        for held in self.places.values():
            if isinstance(held, dict):
                sent = trade(int(held["tradeId"]), self.symbol)
                assert (held["side"], held["source"]) == (sent.side, "binance")
                assert isinstance(held["price"], str)
                assert (Decimal(held["price"]), Decimal(held["qty"])) == (
                    Decimal(sent.price),
                    Decimal(sent.qty),
                )


@define
class User:
    """A program that uses the library. `told`: by the name of the subscription and the symbol."""

    program: Program
    told: dict[tuple[str, str], Told] = field(factory=dict)
    failed: dict[str, dict[str, Any]] = field(factory=dict)
    states: list[dict[str, Any]] = field(factory=list)  # candles and qualities
    connections: list[dict[str, Any]] = field(factory=list)
    notices: list[str] = field(factory=list)
    answers: list[dict[str, Any]] = field(factory=list)

    async def do(self, deed: str, name: str = "", **more: Any) -> None:
        await self.program.tell({"do": deed, "name": name, **more})

    async def follow(self, symbols: Any = SYMBOL, name: str = "t", **options: Any) -> Told:
        """Returns what will be told of the symbol, if it is one."""
        await self.do("trades", name, symbols=symbols, options=options)
        return self.of(name, str(symbols))

    async def close(self, name: str) -> None:
        """Returns when the program has closed it: orders and trades come to it by different ways."""
        self.answers.clear()
        await self.do("close", name)
        await self.until(lambda: {"name": name, "closed": True} in self.answers)

    def of(self, name: str = "t", symbol: str = SYMBOL) -> Told:
        return self.told.setdefault((name, symbol), Told(symbol))

    async def until(self, condition: Callable[[], Any]) -> None:
        while not condition():
            self._hear(await self.program.hear())

    async def until_state(self, state: str) -> dict[str, Any]:
        """Returns the next change of the connection to this state."""
        before = len(self.connections)
        await self.until(lambda: state in [each["state"] for each in self.connections[before:]])
        return next(each for each in self.connections[before:] if each["state"] == state)

    def _hear(self, line: dict[str, Any]) -> None:
        match line:
            case {"event": {"type": "connection"} as event}:
                self.connections.append(event)
            case {"event": {"type": "notice", "method": method}}:
                self.notices.append(method)
            case {"event": {"type": "candle" | "quality"} as event}:
                self.states.append(event)
            case {"name": name, "event": event}:
                self.of(name, event["symbol"]).take(event)
            case {"name": name, "failed": error}:
                self.failed[name] = error
            case _:
                self.answers.append(line)

    async def ask(self, deed: str, **more: Any) -> dict[str, Any]:
        """What a deed answers, or the error."""
        self.answers.clear()
        self.failed.pop("asked", None)
        await self.do(deed, "asked", **more)
        await self.until(lambda: self.answers or "asked" in self.failed)
        return self.answers[0] if self.answers else self.failed["asked"]

    async def stored(self, symbol: str = SYMBOL) -> dict[int, Any]:
        """All that the daemon has, read by `history`."""
        self.answers.clear()
        await self.do("history", symbol=symbol, options={"limit": 17})
        await self.until(lambda: self.answers and "done" in self.answers[-1])
        found = Told(symbol)
        for line in self.answers[:-1]:
            page = line["page"]
            for event in sorted(
                page["trades"] + page["gaps"], key=lambda each: each.get("offset") or each["from"]
            ):
                found.take(event)
        return found.places


@asynccontextmanager
async def user(url: str) -> AsyncIterator[User]:
    async with program("client.mjs", url) as running:
        yield User(running)


async def publish(exchange: Exchange, first: int, last: int, *symbols: str) -> None:
    for number in range(first, last + 1):
        for symbol in symbols or (SYMBOL,):
            await exchange.publish(trade(number, symbol))


async def test_through_a_kill_a_cut_and_losses(tmp_path: Path) -> None:
    """A killed daemon may have told trades that it has not kept: they are taken back, and come again from the exchange. A
    cut source and lost messages beside that: in the end the user has what the daemon has, each trade once."""
    port = own_port()
    config = tmp_path / "mine.toml"
    async with open_binance() as exchange, user(f"http://127.0.0.1:{port}") as u:
        config.write_text(
            f"[gateway]\nport = {port}\n[history]\ndirectory = '{tmp_path / 'data'}'\ninterval = 60.0\n"
            f"[backoff]\ninitial_delay = 0.05\n"
            f"[sources.binance]\nconnector = 'binance'\nurl = '{exchange.url}'\nsymbols = ['{SYMBOL}']\n"
            f"refill_url = '{exchange.rest_url}'\neager = true\nhold = 60.0\n"
        )
        told = await u.follow(snapshot=10)
        async with running(config):
            await exchange.wait_subscribed(["BTCUSDT"])
            await publish(exchange, 1, 20)
            await u.until(lambda: told.ids[-1:] == [20])
        await publish(exchange, 21, 25)  # nobody hears it
        async with running(config):
            await exchange.wait_subscribed(["BTCUSDT"])
            await publish(exchange, 26, 40)
            await u.until(lambda: told.ids[-1:] == [40])
            await exchange.disconnect("abrupt")
            await exchange.wait_subscribed(["BTCUSDT"])
            exchange.fault("drop", times=3)
            await publish(exchange, 41, 60)
            await u.until(lambda: told.ids[-1:] == [60])
            told.check_digits()
            assert told.ids == list(range(told.ids[0] or 0, 61))
            stored = await u.stored()
            assert {at: held for at, held in stored.items() if at >= min(told.places)} == told.places


@define
class Stage:
    exchange: Exchange
    daemon: Daemon
    user: User

    async def publish(self, first: int, last: int, *symbols: str) -> None:
        """Returns when the daemon has the last trade of each symbol: a snapshot holds it from now on."""
        await publish(self.exchange, first, last, *symbols)
        history = self.daemon.core.history
        await until(lambda: all(history(each).last >= last for each in symbols or (SYMBOL,)))

    def cut(self) -> None:
        """The daemon ends the connections of all clients: it takes them for slow."""
        for session in self.daemon.lobby.clients:
            session.end(Ending.SLOW, "cut")

    async def followed(self) -> list[str]:
        async with http_client(self.daemon.http) as http:
            return [
                topic
                for each in (await http.get("/api/v1/clients")).json()["clients"]
                for topic in each["follows"]
            ]


@asynccontextmanager
async def stage(*symbols: str, **tables: Any) -> AsyncIterator[Stage]:
    symbols = symbols or (SYMBOL,)
    async with (
        open_binance() as exchange,
        daemon(sources=from_binance(exchange.url, *symbols, eager=True), **tables) as d,
        user(d.http) as u,
    ):
        await exchange.wait_subscribed(each.replace("-", "") for each in symbols)
        yield Stage(exchange, d, u)


ETH = "ETH-USDT"


async def test_a_symbol_that_is_followed_in_three_ways() -> None:
    """Alone, once more with a longer snapshot, and among all: each tells each place once, also after lost connections, and
    goes on when the others have ended."""
    async with stage(SYMBOL, ETH) as s:
        u = s.user
        await s.publish(1, 10, SYMBOL, ETH)
        one = await u.follow(snapshot=3)
        await u.until(lambda: one.ids == [8, 9, 10])
        await s.publish(12, 15, SYMBOL, ETH)  # 11 is missing
        await u.until(lambda: one.ids[-1:] == [15])
        longer = await u.follow(name="longer", snapshot=13)
        every = u.of("every")
        await u.follow("*", "every", snapshot=2)
        await u.until(lambda: len(longer.ids) == 14 and len(every.ids) == 2)
        s.cut()
        await s.publish(16, 20, SYMBOL, ETH)
        await s.publish(11, 11, SYMBOL, ETH)  # after all
        all_of = [one, longer, every, u.of("every", ETH)]
        await u.until(
            lambda: all(each.ids[-1:] == [20] for each in all_of) and None not in longer.ids + one.ids
        )
        assert one.ids == [*range(8, 21)]
        assert longer.ids == [*range(2, 21)]
        assert every.ids == u.of("every", ETH).ids == [*range(14, 21)]
        await u.close("t")
        await s.publish(21, 22, SYMBOL, ETH)
        await u.until(lambda: all(each.ids[-1:] == [22] for each in all_of[1:]))
        await u.close("every")
        again = await u.follow(name="again", snapshot=5)
        await s.publish(23, 24, SYMBOL, ETH)
        await u.until(lambda: longer.ids[-1:] == again.ids[-1:] == [24])
        assert longer.ids == [*range(2, 25)]
        assert one.ids[-1:] == [20]
        assert u.of("every", ETH).ids[-1:] == [22]
        assert again.ids == [*range(again.ids[0], 25)]
        assert [each["reason"] for each in u.connections if each["state"] == "lost"] != []
        assert not any("fault" in (each["reason"] or "") for each in u.connections)


async def test_a_refusal_ends_a_subscription_and_says_why() -> None:
    """The server's limit, and an unknown symbol. Nothing of a refused subscription stays behind, others go on."""
    symbols = [f"C{n}-USDT" for n in range(5)]
    async with stage(SYMBOL, *symbols, session=Session(max_subscriptions=3)) as s:
        u = s.user
        told = await u.follow(snapshot=5)
        await u.follow(symbols, "many")
        await u.follow("BTC-USDX", "typo")
        await u.until(lambda: u.failed.keys() == {"many", "typo"})
        assert (u.failed["many"]["code"], u.failed["many"]["data"]["limit"]) == (-32003, 3)
        assert (u.failed["typo"]["code"], u.failed["typo"]["data"]["nearest"][0]) == (-32602, SYMBOL)
        assert "BTC-USDX" in u.failed["typo"]["message"]
        await u.ask("call", method="ping")
        assert len(await s.followed()) == 1
        await s.publish(1, 3)
        await u.until(lambda: told.ids == [1, 2, 3])


async def test_a_client_without_room_comes_back_when_it_is_told_to() -> None:
    """`refused`, with the server's own time; then it is served."""
    async with (
        open_binance() as exchange,
        daemon(
            sources=from_binance(exchange.url, SYMBOL, eager=True),
            gateway=Gateway(port=0, max_sessions=1),
            admission=Admission(retry_after=0.1),
        ) as d,
        client(d.url) as first,
        user(d.http) as u,
    ):
        await first.call("ping")
        told = await u.follow(snapshot=5)
        await u.until(lambda: [each for each in u.connections if each["code"] == 1013])
        refused = next(each for each in u.connections if each["code"] == 1013)
        assert refused["state"] == "refused"
        assert refused["retryIn"] > 0
        assert "connection.refused" in u.notices
        await first.socket.aclose()
        await exchange.wait_subscribed(["BTCUSDT"])
        await publish(exchange, 1, 3)
        await u.until(lambda: told.ids == [1, 2, 3])


async def test_a_program_that_is_stopped_for_a_while() -> None:
    """The daemon ends its connection, since it answers no ping; it comes back to where it was."""
    async with stage(session=Session(ping_interval=0.1, ping_timeout=0.5)) as s:
        u = s.user
        told = await u.follow(snapshot=5)
        await s.publish(1, 5)
        await u.until(lambda: told.ids == [1, 2, 3, 4, 5])
        silent = s.daemon.lobby.clients.ended[Ending.SILENT]
        u.program.process.send_signal(signal.SIGSTOP)
        await s.publish(6, 300)
        await until(lambda: s.daemon.lobby.clients.ended[Ending.SILENT] > silent)
        await s.publish(301, 600)
        u.program.process.send_signal(signal.SIGCONT)
        await u.until(lambda: told.ids[-1:] == [600])
        assert told.ids == [*range(1, 601)]
        told.check_digits()


async def test_hundreds_of_symbols_in_one_subscription() -> None:
    """In batches, at first and after a lost connection."""
    symbols = [f"C{n}-USDT" for n in range(230)]
    async with stage(*symbols, session=Session(max_subscriptions=300)) as s:
        u = s.user
        await u.follow(symbols, "many", snapshot=1)
        await s.publish(1, 2, *symbols)
        await u.until(lambda: all(u.of("many", each).ids[-1:] == [2] for each in symbols))
        s.cut()
        await s.publish(3, 4, *symbols)
        await u.until(lambda: all(u.of("many", each).ids[-1:] == [4] for each in symbols))
        for each in symbols:
            told = u.of("many", each)
            assert told.ids == [*range(told.ids[0], 5)]
            told.check_digits()


async def test_calls() -> None:
    """Decimals of answers are texts; an error has the server's words; without a connection a call fails."""
    port = own_port()
    async with open_binance() as exchange, user(f"http://127.0.0.1:{port}/") as u:
        assert (await u.ask("call", method="ping"))["code"] == 0
        sources = from_binance(exchange.url, SYMBOL, eager=True)
        async with daemon(sources=sources, gateway=Gateway(port=port)) as d:
            await exchange.wait_subscribed(["BTCUSDT"])
            await publish(exchange, 1, 7)
            await until(lambda: d.core.history(SYMBOL).last == 7)
            await u.until_state("connected")
            [symbol] = (await u.ask("call", method="getSymbols"))["result"]
            assert Decimal(symbol["lastPrice"]) == Decimal(PRICES[7 % 5])
            told = Told()
            for each in reversed((await u.ask("recent", symbol=SYMBOL, count=5))["trades"]):
                told.take(each)
            assert told.ids == [3, 4, 5, 6, 7]
            told.check_digits()
            error = await u.ask("call", method="getTrades", params={"symbol": "BTC"})
            assert (error["code"], error["data"]["param"]) == (-32602, "symbol")
            assert (await u.ask("call", method="subscribe", params={"symbol": SYMBOL}))["code"] == 0
            candles = (await u.ask("call", method="getCandles", params={"symbol": SYMBOL, "interval": "1s"}))[
                "result"
            ]
            assert {
                type(candles["candles"][0][name]) for name in ("open", "high", "low", "close", "volume")
            } == {str}


def candles(u: User, volume: Decimal) -> list[dict[str, Any]]:
    """The candles of this volume that the program has told."""
    return [each for each in u.states if each["type"] == "candle" and Decimal(each["volume"]) == volume]


async def test_candles_and_quality_over_two_lives() -> None:
    """Each candle in its newest revision, each state; a daemon that was started anew counts revisions anew."""
    port = own_port()
    async with open_binance() as exchange, user(f"http://127.0.0.1:{port}/") as u:
        await u.do("candles", "c", symbols=SYMBOL, interval="1s", options={"snapshot": 5})
        await u.do("quality", "q", symbols="*")
        for life in (1, 2):
            u.states.clear()
            sources = from_binance(exchange.url, SYMBOL, eager=True)
            async with daemon(sources=sources, gateway=Gateway(port=port)):
                await exchange.wait_subscribed(["BTCUSDT"])
                await publish(exchange, life * 10, life * 10 + 5)
                volume = sum((Decimal(f"{n}.50") for n in range(life * 10, life * 10 + 6)), Decimal())
                await u.until(partial(candles, u, volume))  # not one of the life before, told late
                candle = candles(u, volume)[0]
                assert (candle["count"], type(candle["volume"])) == (6, str)
                await u.until(lambda: [each for each in u.states if each.get("state") in ("live", "quiet")])
