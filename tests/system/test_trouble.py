"""The daemon under trouble: each failure stays where it happened, is told once, and loses nothing silently."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
import trio
from attrs import define
from trio.testing import MockClock, wait_all_tasks_blocked
from wsproto import ConnectionType, WSConnection
from wsproto.connection import Connection
from wsproto.events import AcceptConnection, Request, TextMessage

from actors.outbox import SlowClient
from dataflow.domain import Topic
from dataflow.faces.jsonrpc import methods
from dataflow.settings.schema import BackoffSettings, Session
from dataflow.sources.port import SourceSettings
from simulators import Exchange, Trade, open_binance, open_blockchain
from supervisors import Point
from tests.support.waiting import until
from tests.system.daemon import Client, Daemon, client, daemon, from_binance, from_blockchain

SYMBOL = {"binance": "BTC-USDT", "blockchain": "BTC-USD"}
OPEN = {"binance": open_binance, "blockchain": open_blockchain}
BOTH = pytest.mark.parametrize("kind", ["binance", "blockchain"])


def sources(kind: str, url: str, **more: Any) -> dict[str, SourceSettings]:
    make = from_binance if kind == "binance" else from_blockchain
    return make(url, SYMBOL[kind], **more)


@define
class World:
    """An exchange, the daemon connected to it, and a client that listens to its one symbol."""

    kind: str
    exchange: Exchange
    daemon: Daemon
    listener: Client
    _published: int = 0

    @property
    def symbol(self) -> str:
        return SYMBOL[self.kind]

    async def subscribed(self) -> None:
        await self.exchange.wait_subscribed([self.upstream_symbol])

    @property
    def upstream_symbol(self) -> str:
        return self.symbol.replace("-", "") if self.kind == "binance" else self.symbol

    async def publish(self, count: int = 1) -> None:
        for _ in range(count):
            self._published += 1
            n = self._published
            # Blockchain.com's ids grow, but not by one.
            id_ = n if self.kind == "binance" else 7 * n
            await self.exchange.publish(
                Trade(id=id_, symbol=self.upstream_symbol, side="buy" if n % 2 else "sell", price=f"{100 + n}.5",
                      qty="0.25", timestamp_us=1_700_000_000_000_000 + 1000 * n)
            )  # fmt: skip

    async def heard(self, count: int) -> list[str]:
        """The ids that reached the client, once there are `count`."""
        await self.listener.until(lambda: self.listener.traded.total() >= count)
        return [trade["tradeId"] for trade in self.listener.trades()]

    def ids(self, *numbers: int) -> list[str]:
        return [str(n if self.kind == "binance" else 7 * n) for n in numbers]

    def assert_only_the_connector_restarted(self) -> None:
        restarted = {
            node.path: node.restarts for node in every_node(self.daemon.root.tree()) if node.restarts
        }
        assert set(restarted) <= {f"sources/{self.kind}/lines/1"}

    def assert_told_once(self) -> None:
        assert len(self.listener.of("connection.lost")) == 1
        assert len(self.listener.of("connection.restored")) == 1
        assert self.listener.of("connection.restored")[0]["symbols"] == [self.symbol]


def every_node(node: Any) -> list[Any]:
    return [node, *(inner for child in node.children for inner in every_node(child))]


@asynccontextmanager
async def world(kind: str, opened: dict[str, Any] | None = None, **source: Any) -> AsyncIterator[World]:
    async with (
        OPEN[kind](**(opened or {})) as exchange,
        daemon(sources=sources(kind, exchange.url, **source)) as d,
        client(d.url) as listener,
    ):
        made = World(kind, exchange, d, listener)
        await listener.call("subscribe", symbol=made.symbol)
        await made.subscribed()
        yield made


@BOTH
@pytest.mark.parametrize("mode", ["graceful", "abrupt"])
async def test_a_source_that_drops_is_lost_once_and_restored_once(kind: str, mode: str) -> None:
    """The subscription is back by itself, and the trades after it arrive."""
    async with world(kind) as w:
        await w.publish(3)
        await w.heard(3)
        await w.exchange.disconnect(mode)
        await w.listener.until(lambda: w.listener.of("connection.restored"))
        await w.subscribed()
        await w.publish(2)
        assert await w.heard(5) == w.ids(1, 2, 3, 4, 5)
        w.assert_told_once()
        w.assert_only_the_connector_restarted()


@BOTH
async def test_a_source_that_refuses_for_long_is_retried_until_it_is_back(kind: str) -> None:
    """Many failed attempts are one loss for the clients."""
    async with world(kind) as w:
        await w.exchange.disconnect("refuse")
        await w.daemon.until(lambda: len(w.daemon.crashes("sources/")) >= 6)
        await w.exchange.disconnect("accept")
        await w.listener.until(lambda: w.listener.of("connection.restored"))
        await w.subscribed()
        await w.publish(1)
        assert await w.heard(1) == w.ids(1)
        w.assert_told_once()
        w.assert_only_the_connector_restarted()


@BOTH
async def test_a_source_that_is_down_at_start_does_not_keep_the_daemon_from_starting(kind: str) -> None:
    """The gateway answers, the symbol can be subscribed, and its trades come once the source is there."""
    async with OPEN[kind]() as exchange:
        await exchange.disconnect("refuse")
        async with daemon(sources=sources(kind, exchange.url)) as d, client(d.url) as listener:
            w = World(kind, exchange, d, listener)
            assert await listener.call("ping") == "pong"
            await listener.call("subscribe", symbol=w.symbol)
            await exchange.disconnect("accept")
            await w.subscribed()
            await w.publish(2)
            assert await w.heard(2) == w.ids(1, 2)
            assert listener.of("stream.gap") == []


@BOTH
async def test_garbage_is_counted_and_harms_nothing(kind: str) -> None:
    """A message that cannot be understood is counted by its reason; the trades around it arrive."""
    async with world(kind) as w:
        w.exchange.fault("garbage", times=2)
        await w.publish(5)
        heard = await w.heard(5)
        assert heard == w.ids(1, 2, 3, 4, 5)
        assert w.daemon.core.sources[kind].problems.total() == 2
        assert w.daemon.crashes() == []


@BOTH
async def test_a_truncated_trade_is_counted_and_its_place_is_a_gap(kind: str) -> None:
    """Nobody can tell what it said: the trade is not guessed at, and the client is told that it is missing."""
    async with world(kind) as w:
        await w.publish(2)
        await w.heard(2)
        w.exchange.fault("truncate", times=1)
        await w.publish(3)
        assert await w.heard(4) == w.ids(1, 2, 4, 5)
        stream = w.listener.stream(w.symbol)
        assert [entry.get("reason") for entry in stream] == [None, None, "source_gap", None, None]
        assert w.daemon.core.sources[kind].problems.total() == 1
        assert w.daemon.crashes() == []


async def test_a_skipped_id_is_a_gap_of_known_size() -> None:
    """Binance's ids grow by one: the gap in the stream has exactly as many places as trades are missing."""
    async with world("binance") as w:
        await w.publish(1)
        w.exchange.fault("drop", times=3)
        await w.publish(5)
        await w.heard(3)
        stream = w.listener.stream(w.symbol)
        assert [entry.get("tradeId") for entry in stream] == ["1", None, "5", "6"]
        assert (stream[1]["from"], stream[1]["to"], stream[1]["reason"]) == (2, 4, "source_gap")
        assert [entry["offset"] for entry in stream if "offset" in entry] == [1, 5, 6]


async def test_a_skipped_seqnum_is_reported_and_ends_the_connection() -> None:
    """Blockchain.com's seqnum counts per connection: a skip means loss, so reconnect, and say so."""
    async with world("blockchain") as w:
        await w.publish(2)
        await w.heard(2)
        w.exchange.fault("skip", times=1)
        await w.publish(1)
        await w.listener.until(lambda: w.listener.of("connection.restored"))
        await w.subscribed()
        await w.publish(1)
        await w.heard(4)
        stream = w.listener.stream(w.symbol)
        assert stream[2]["reason"] == "source_gap"
        assert stream[2]["to"] is None
        assert "seqnum" in w.listener.of("connection.lost")[0]["reason"]


async def test_a_loss_during_a_disconnection_is_announced() -> None:
    """What Binance traded while nobody was connected is missing, and the client is told how much."""
    async with world("binance") as w:
        await w.publish(2)
        await w.heard(2)
        await w.exchange.disconnect("abrupt")
        await w.exchange.wait_disconnected()
        await w.publish(4)
        await w.subscribed()
        await w.publish(1)
        await w.heard(3)
        gap = w.listener.of("stream.gap")[0]
        assert (gap["from"], gap["to"]) == (3, 6)
        assert w.listener.trades()[-1]["offset"] == 7


async def test_duplicates_on_the_wire_are_dropped() -> None:
    """A source that repeats itself is heard once."""
    async with world("binance") as w:
        w.exchange.fault("duplicate", times=3)
        await w.publish(5)
        assert await w.heard(5) == w.ids(1, 2, 3, 4, 5)
        assert w.listener.of("stream.gap") == []


async def test_a_rejected_symbol_is_told_and_does_not_hurt_the_others() -> None:
    """Those who listen hear that the feed is lost; whoever subscribes later gets an error with the reason."""
    async with open_blockchain() as exchange:
        exchange.fault("refuse", times=1)
        async with daemon(sources=sources("blockchain", exchange.url)) as d, client(d.url) as listener:
            await listener.call("subscribe", symbol="BTC-USD")
            await listener.until(lambda: listener.of("connection.lost"))
            assert listener.of("connection.lost")[0]["symbols"] == ["BTC-USD"]
            answer = await listener.ask("subscribe", symbol="BTC-USD")
            assert answer["error"]["code"] == -32000
            assert "blockchain" in answer["error"]["data"]["rejected"]


async def test_a_rejected_symbol_refuses_the_whole_list() -> None:
    """Nothing of the list is subscribed, in whatever order it names them."""
    async with open_blockchain() as exchange:
        exchange.fault("refuse", times=1)
        symbols = ["BTC-USD", "ETH-USD"]
        carried = from_blockchain(exchange.url, *symbols)
        async with daemon(sources=carried) as d, client(d.url) as listener:
            await listener.call("subscribe", symbol="BTC-USD")
            await listener.until(lambda: listener.of("connection.lost"))
            for asked in (symbols, symbols[::-1]):
                error = (await listener.ask("subscribe", symbol=asked))["error"]
                assert (error["code"], error["data"]["symbol"]) == (-32000, "BTC-USD")
            followed = [topic.symbol for topic, count in d.core.topics.subscribers.items() if count]
            assert followed == ["BTC-USD"]


async def test_the_first_subscriber_subscribes_upstream_and_the_last_one_unsubscribes() -> None:
    """Nobody listening: nothing upstream. Twice the same client counts once. After the linger it is let go."""
    async with (
        open_binance() as exchange,
        daemon(sources=from_binance(exchange.url, "BTC-USDT", linger=0)) as d,
        client(d.url) as one,
        client(d.url) as other,
    ):
        await exchange.wait_connected()
        assert exchange.subscribed == frozenset()
        await one.call("subscribe", symbol="BTC-USDT")
        await one.call("subscribe", symbol="BTC-USDT")
        await other.call("subscribe", symbol="BTC-USDT")
        await exchange.wait_subscribed(["BTCUSDT"])
        await one.call("unsubscribe", symbol="BTC-USDT")
        assert d.core.topics.subscribers == {Topic("trades", "BTC-USDT"): 1}
        await other.call("unsubscribe", symbol="BTC-USDT")
        while exchange.subscribed:
            await trio.lowlevel.checkpoint()
        await one.call("subscribe", symbol="BTC-USDT")
        await exchange.wait_subscribed(["BTCUSDT"])


@BOTH
@pytest.mark.parametrize("path", ["cache/shard-0", "cache/shard-1", "topics/{symbol}", "sources/{kind}"])
async def test_any_actor_may_be_restarted_without_loss(kind: str, path: str) -> None:
    """A restart of a shard, a subscription or a connector by hand costs no trade, no offset, no duplicate."""
    async with world(kind, opened={"absent": "held", "replay_last": 100}) as w:
        await w.publish(10)
        await w.heard(10)
        parent, _, name = path.format(kind=kind, symbol=w.symbol).rpartition("/")
        await w.daemon.root.supervisor(parent).restart(name)
        await w.publish(10)
        assert await w.heard(20) == w.ids(*range(1, 21))
        assert [trade["offset"] for trade in w.listener.trades()] == list(range(1, 21))
        assert w.listener.of("stream.gap") == []


async def test_a_batch_lost_in_a_crashing_shard_is_announced() -> None:
    """Trades in a shard's hand when it raises are gone: the client hears of a gap, with the reason."""
    async with world("blockchain") as w:
        await w.publish(1)
        await w.heard(1)
        for shard in ("cache/shard-0", "cache/shard-1"):
            w.daemon.sabotage.arm(Point.RECEIVE, shard)
        await w.publish(1)
        await w.daemon.until(lambda: w.daemon.crashes("cache/"))
        await w.publish(1)
        assert await w.heard(2) == w.ids(1, 3)
        stream = w.listener.stream(w.symbol)
        assert [entry.get("reason") for entry in stream] == [None, "shard_restart", None]
        assert [entry.get("offset") for entry in stream] == [1, None, 3]
        assert {path.partition("/")[0] for path in w.daemon.crashes()} == {"cache"}


async def test_trades_with_a_sequence_show_by_themselves_what_a_crash_lost() -> None:
    """For Binance the next id says exactly how many trades were in the shard's hand."""
    async with world("binance") as w:
        await w.publish(1)
        await w.heard(1)
        for shard in ("cache/shard-0", "cache/shard-1"):
            w.daemon.sabotage.arm(Point.RECEIVE, shard)
        await w.publish(1)
        await w.daemon.until(lambda: w.daemon.crashes("cache/"))
        await w.publish(1)
        assert await w.heard(2) == w.ids(1, 3)
        (gap,) = w.listener.of("stream.gap")
        assert (gap["from"], gap["to"]) == (2, 2)


@BOTH
async def test_a_subscription_that_crashes_goes_on_where_it_was(kind: str) -> None:
    """The subscriber does not notice: no gap, no duplicate, no break upstream."""
    async with world(kind) as w:
        await w.publish(1)
        await w.heard(1)
        w.daemon.sabotage.arm(Point.RECEIVE, f"topics/{w.symbol}")
        await w.publish(1)
        await w.daemon.until(lambda: w.daemon.crashes("topics/"))
        await w.publish(1)
        assert await w.heard(3) == w.ids(1, 2, 3)
        assert [trade["offset"] for trade in w.listener.trades()] == [1, 2, 3]
        assert w.listener.of("connection.lost") == []
        assert len(w.exchange.connections) == 1


async def test_a_subscription_that_keeps_crashing_ends_the_sessions_that_listen() -> None:
    """Given up, a subscription must not leave its listeners waiting: 1011, and a new try starts anew."""
    async with world("binance") as w:
        await w.publish(1)
        await w.heard(1)
        while w.listener.closed is None:
            w.daemon.sabotage.arm(Point.START, f"topics/{w.symbol}")
            w.daemon.sabotage.arm(Point.RECEIVE, f"topics/{w.symbol}")
            w.daemon.core.topics.readers.news(w.symbol)
            await trio.lowlevel.checkpoint()
        assert w.listener.closed[0] == 1011
        w.daemon.sabotage.disarm()
        while w.exchange.subscribed:  # what nobody fans out is not wanted upstream either
            await trio.lowlevel.checkpoint()
        async with client(w.daemon.url) as again:
            await again.call("subscribe", symbol=w.symbol)
            await w.subscribed()
            await w.publish(1)
            await again.until(lambda: again.trades())


async def test_a_restart_of_the_pool_of_subscriptions_leaves_nobody_waiting() -> None:
    """Its children are gone for good: who listened is disconnected, and is served after coming back."""
    async with world("binance") as w:
        await w.publish(1)
        await w.heard(1)
        await w.daemon.root.restart("topics")
        await w.listener.until(lambda: w.listener.closed)
        assert w.listener.closed is not None
        assert w.listener.closed[0] == 1011
        async with client(w.daemon.url) as again:
            await again.call("subscribe", symbol=w.symbol)
            await w.subscribed()
            await w.publish(1)
            await again.until(lambda: again.trades())


async def test_a_client_that_comes_while_the_subscriptions_restart_is_told_to_try_again() -> None:
    """-32000 while there is no pool, then service as usual; and no topic is left half open."""
    async with (
        open_binance() as exchange,
        daemon(sources=from_binance(exchange.url, "BTC-USDT")) as d,
        client(d.url) as listener,
    ):
        await d.root.stop("topics")
        answer = await listener.ask("subscribe", symbol="BTC-USDT")
        assert answer["error"]["code"] == -32000
        await d.root.restart("topics")
        await listener.call("subscribe", symbol="BTC-USDT")


async def test_a_client_for_whom_no_session_can_be_started_leaves_no_trace() -> None:
    """1013, and nothing counts against the limit afterwards."""
    async with open_binance() as exchange, daemon(sources=from_binance(exchange.url, "BTC-USDT")) as d:
        await d.root.supervisor("gateway").stop("sessions")
        async with client(d.url) as refused:
            await refused.until(lambda: refused.closed)
            assert refused.closed is not None
            assert refused.closed[0] == 1013
        assert len(d.lobby.clients) == 0


@pytest.mark.parametrize("branch", ["cache", "sources"])
async def test_a_restart_of_a_whole_branch_costs_no_trade(branch: str) -> None:
    """All shards, or all connectors, anew: the stream goes on without a gap or a duplicate."""
    async with world("binance", opened={"absent": "held", "replay_last": 100}) as w:
        await w.publish(5)
        await w.heard(5)
        await w.daemon.root.restart(branch)
        await w.subscribed()
        await w.publish(5)
        assert await w.heard(10) == w.ids(*range(1, 11))
        assert w.listener.of("stream.gap") == []


async def test_a_session_that_fails_takes_only_its_client_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in the handling of one client closes that one with 1011."""
    async with world("binance") as w, client(w.daemon.url) as victim:

        async def explode(_client: methods.Calls, _text: str) -> None:
            raise RuntimeError("sabotage")

        monkeypatch.setattr(methods.Calls, "hear", explode)  # the other client says nothing any more
        with pytest.raises(KeyError):
            await victim.ask("ping")
        assert victim.closed is not None
        assert victim.closed[0] == 1011
        await w.publish(1)
        assert await w.heard(1) == w.ids(1)
        assert len(w.daemon.lobby.clients) == 1


@asynccontextmanager
async def beside_a_deaf_client(session: Session) -> AsyncIterator[tuple[World, trio.SocketStream]]:
    """A world on Binance, and a second client that has subscribed and does not read."""
    async with (
        open_binance() as exchange,
        daemon(sources=from_binance(exchange.url, "BTC-USDT"), session=session) as d,
        client(d.url) as listener,
    ):
        w = World("binance", exchange, d, listener)
        await listener.call("subscribe", symbol=w.symbol)
        async with await never_reading_client(d.url, w.symbol) as deaf:
            while d.core.topics.subscribers[Topic("trades", w.symbol)] < 2:
                await trio.lowlevel.checkpoint()
            # The kernel would keep megabytes for it: tens of thousands of trades until the outbox is needed.
            host, port = deaf.socket.getsockname()
            (wire,) = [s._wire for s in d.lobby.clients if s._wire.peer == f"{host}:{port}"]
            wire._sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_SNDBUF, 4096)
            yield w, deaf


async def test_a_client_that_never_reads_costs_nobody_else_anything() -> None:
    """Its outbox is bounded and it is disconnected; the other client gets everything meanwhile."""
    async with beside_a_deaf_client(Session(outbox=100)) as (w, _deaf):
        d = w.daemon
        published = 0
        while d.lobby.clients.totals().slow == 0:
            await w.publish(500)
            published += 500
            await w.heard(published)
            assert all(session.waiting <= 101 for session in d.lobby.clients)
        await w.publish(10)
        assert len(await w.heard(published + 10)) == published + 10


@pytest.mark.parametrize("policy", [SlowClient.DROP_OLDEST, SlowClient.CONFLATE])
async def test_a_client_that_reads_again_is_told_what_it_missed(policy: SlowClient) -> None:
    """On a real socket: trades and gaps together are the whole stream, in order, to the last trade."""
    async with beside_a_deaf_client(Session(outbox=50, slow_client=policy)) as (w, stream):
        d = w.daemon
        published = 0
        while d.lobby.clients.totals().dropped == 0:
            await w.publish(500)
            published += 500
            await w.heard(published)
        position = 0
        async with aclosing(messages(stream)) as entries:
            async for entry in entries:
                if entry.get("method") == "stream.gap":
                    assert entry["params"]["reason"] == "slow_client"
                    assert entry["params"]["from"] == position + 1
                    position = entry["params"]["to"]
                elif entry.get("method") == "trades.update":
                    assert entry["params"]["offset"] == position + 1
                    position += 1
                if position == published:
                    break
        assert sum(s.dropped for s in d.lobby.clients) > 0


async def messages(stream: trio.SocketStream) -> AsyncGenerator[dict[str, Any], None]:
    """The JSON messages that come over a WebSocket whose handshake is done."""
    ws, parts = Connection(ConnectionType.CLIENT), []
    async for data in stream:
        ws.receive_data(data)
        for event in ws.events():
            assert isinstance(event, TextMessage)
            parts.append(event.data)
            if event.message_finished:
                yield json.loads("".join(parts))
                parts.clear()


async def never_reading_client(url: str, symbol: str) -> trio.SocketStream:
    """Subscribes, with the smallest buffers there are, and never reads again."""
    address = urlsplit(url)
    sock = trio.socket.socket()
    sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, 1024)
    await sock.connect((address.hostname, address.port))
    stream = trio.SocketStream(sock)
    ws = WSConnection(ConnectionType.CLIENT)
    await stream.send_all(ws.send(Request(host="localhost", target="/ws")))
    ws.receive_data(await stream.receive_some())
    assert [type(event) for event in ws.events()] == [AcceptConnection]
    call = {"jsonrpc": "2.0", "id": 1, "method": "subscribe", "params": {"symbol": symbol}}
    await stream.send_all(ws.send(TextMessage(json.dumps(call))))
    return stream


# With a clock that only the test moves. The sockets are real, so every step waits for what it caused.


@BOTH
async def test_a_source_that_stalls_is_reconnected(kind: str, mock_clock: MockClock) -> None:
    """A connection that stays open and says nothing is given up after `stale_after`."""
    async with world(kind, stale_after=15) as w:
        await w.publish(1)
        await w.heard(1)
        w.exchange.stall()
        while not w.daemon.crashes("sources/"):
            mock_clock.jump(4)
            await wait_all_tasks_blocked()
        await w.listener.until(lambda: w.listener.of("connection.lost"))
        assert "stale" in w.listener.of("connection.lost")[0]["reason"]
        await w.exchange.wait_disconnected()
        await wait_all_tasks_blocked()
        mock_clock.jump(1)
        await w.listener.until(lambda: w.listener.of("connection.restored"))
        await w.subscribed()
        await w.publish(1)
        assert await w.heard(2) == w.ids(1, 2)
        w.assert_told_once()
        w.assert_only_the_connector_restarted()


@BOTH
async def test_a_source_that_is_away_for_an_hour_comes_back_without_duplicates(
    kind: str, mock_clock: MockClock
) -> None:
    """An hour of refusals at the capped delay; what the exchange then repeats is not told again."""
    patience = {"backoff": BackoffSettings(), "session": Session(ping_interval=86_400)}
    async with (
        OPEN[kind](absent="held", replay_last=100) as exchange,
        daemon(sources=sources(kind, exchange.url), **patience) as d,
        client(d.url) as listener,
    ):
        w = World(kind, exchange, d, listener)
        # The circuit of a source counts seconds of the process: here the test's clock is all clocks.
        d.core._steady = d.core.sources[kind].steady = trio.current_time
        await listener.call("subscribe", symbol=w.symbol)
        await w.subscribed()
        await w.publish(10)
        await w.heard(10)
        await exchange.disconnect("refuse")
        await d.until(lambda: d.crashes("sources/"))
        begun = trio.current_time()
        while trio.current_time() < begun + 3600:
            attempts = len(d.crashes("sources/"))
            await wait_all_tasks_blocked()  # the next attempt is scheduled
            mock_clock.jump(36.1)
            await d.until(lambda attempts=attempts: len(d.crashes("sources/")) > attempts)
        await exchange.disconnect("accept")
        await wait_all_tasks_blocked()
        mock_clock.jump(36.1)
        await listener.until(lambda: listener.of("connection.restored"))
        await w.publish(5)
        assert await w.heard(15) == w.ids(*range(1, 16))
        assert listener.of("stream.gap") == []
        w.assert_told_once()
        w.assert_only_the_connector_restarted()


async def test_a_client_that_vanished_without_a_word_is_noticed(mock_clock: MockClock) -> None:
    """No close frame, no FIN: a ping without an answer ends the session, and its subscription with it."""
    async with open_binance() as exchange, daemon(sources=from_binance(exchange.url, "BTC-USDT")) as d:
        ghost = await never_reading_client(d.url, "BTC-USDT")
        await until(lambda: d.core.topics.subscribers == {Topic("trades", "BTC-USDT"): 1})
        while len(d.lobby.clients):
            mock_clock.jump(10)
            await wait_all_tasks_blocked(0.001)
        assert d.core.topics.subscribers == {Topic("trades", "BTC-USDT"): 0}
        await ghost.aclose()
