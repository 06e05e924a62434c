"""A changed configuration is taken over while clients are there: nobody loses a session, or a trade in silence."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import evolve
from loguru import logger
from playwright.sync_api import Page, expect
from trio_websocket import wrap_client_stream

from dataflow import app, paths
from dataflow.domain.errors import ConfigError
from dataflow.server.handshake import Handshake
from dataflow.settings.schema import Gateway, Limits, Settings
from dataflow.sources.port import SourceSettings
from simulators import Exchange, Trade, open_binance
from supervisors import Point
from tests.support.browser import Heard, browse, in_the_test
from tests.support.certificates import Certificate, make_certificate
from tests.support.waiting import until
from tests.system.daemon import Client, Daemon, client, daemon, from_binance, http_client
from tests.system.test_process import Running, running

BTC, ETH = "BTC-USDT", "ETH-USDT"


def trade(id: int, symbol: str = "BTCUSDT") -> Trade:
    return Trade(id=id, symbol=symbol, side="buy", price="1.0", qty="1", timestamp_us=id * 1000)


def binance(exchange: Exchange, *symbols: str, **more: Any) -> SourceSettings:
    return from_binance(exchange.url, *symbols, **more)["binance"]


def with_sources(d: Daemon, **sources: SourceSettings) -> Settings:
    return evolve(d.hall.settings, sources=sources)


@contextmanager
def log(path: str | None = paths.RELOAD) -> Iterator[list[str]]:
    """The lines of the log during the block, without their times: those of the actor at `path`, or all of them."""
    lines: list[str] = []
    number = logger.add(
        lambda message: lines.append(message.record["message"]),
        level="INFO",
        filter=lambda record: path in (None, record["extra"].get("path")),
    )
    try:
        yield lines
    finally:
        logger.remove(number)


@asynccontextmanager
async def followed() -> AsyncIterator[tuple[Daemon, Exchange, Exchange, Client]]:
    """A daemon at the first of two exchanges, and a client that follows BTC-USDT. The daemon has it by now."""
    async with (
        open_binance() as first,
        open_binance() as second,
        daemon(sources={"one": binance(first, BTC)}) as d,
        client(d.url) as listener,
    ):
        await listener.call("subscribe", symbol=BTC)
        await d.until_carried(BTC)
        yield d, first, second, listener


def is_whole(listener: Client, symbol: str = BTC) -> bool:
    """Whether the places of a stream follow each other, gaps included."""
    last = 0
    for entry in listener.stream(symbol):
        first = entry.get("from", entry.get("offset"))
        if last and first != last + 1:
            return False
        last = entry.get("to") or first
    return True


async def test_a_source_that_is_added_serves_those_who_wait_already() -> None:
    """It is subscribed at once for a topic that is open. The other source goes on, no trade is lost or comes twice."""
    async with followed() as (d, first, second, listener):
        await first.publish(trade(1))
        both = with_sources(d, one=binance(first, BTC), two=binance(second, BTC, ETH))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(d.reload, both)
            await first.publish_all(trade(id) for id in range(2, 200))
        await second.wait_subscribed(["BTCUSDT"])
        await second.publish(trade(9000))
        await listener.until(lambda: listener.traded[BTC] == 200)
        ids = [each["tradeId"] for each in listener.trades(BTC) if each["source"] == "one"]
        assert ids == [str(id) for id in range(1, 200)]
        assert is_whole(listener)
        await listener.call("subscribe", symbol=ETH)
        await second.wait_subscribed(["BTCUSDT", "ETHUSDT"])
        assert len(first.connections) == 1
        assert [each["symbol"] for each in await listener.call("getSymbols")] == [BTC, ETH]
        assert not listener.of("connection.lost")


async def test_a_source_that_is_removed_parts_and_its_clients_are_told() -> None:
    """The upstream gets its closing handshake. The symbol leaves, those who follow it may let go of it."""
    async with followed() as (d, first, second, listener):
        await d.reload(with_sources(d, two=binance(second, ETH)))
        await first.wait_disconnected()
        await listener.until(lambda: listener.of("connection.lost"))
        (told,) = listener.of("connection.lost")
        assert (told["source"], told["symbols"]) == ("one", [BTC])
        assert "removed from the configuration" in told["reason"]
        assert [each["symbol"] for each in await listener.call("getSymbols")] == [ETH]
        refused = await listener.ask("subscribe", symbol=BTC)
        assert "unknown symbol" in json.dumps(refused["error"])
        assert (await listener.call("unsubscribe", symbol=BTC))["event"] == "unsubscribed"
        status = await listener.call("getStatus")
        assert list(status["sources"]) == ["two"]
        assert [node.path for node in d.root.supervisor("sources").tree().children] == ["sources/two"]


async def test_the_page_follows_the_symbols() -> None:
    """One that nobody brings any more leaves it, and comes back with its source; without a reload of the page.

    Under a pointer its row stays, and comes back at the end: no other row moves.
    """
    async with followed() as (d, first, second, _):
        configured = with_sources(d, one=binance(first, BTC), two=binance(second, ETH))
        await d.reload(configured)
        without = with_sources(d, two=binance(second, ETH))

        def visit(page: Page, heard: Heard) -> list[str]:
            page.goto(d.http)
            rows, notices = page.locator("table.symbols tbody th"), page.locator("#notices")
            expect(rows).to_have_text([BTC, ETH])
            rows.last.hover()
            in_the_test(d.reload, without)
            expect(notices).to_contain_text(f"gone are {BTC}")
            expect(page.locator(".note")).to_contain_text("1 change waits until the pointer leaves")
            expect(rows).to_have_text([BTC, ETH])
            page.mouse.move(5, 5)
            expect(rows).to_have_text([ETH])
            rows.last.hover()
            in_the_test(d.reload, configured)
            expect(rows).to_have_text([ETH, BTC])
            page.mouse.move(5, 5)
            expect(rows).to_have_text([BTC, ETH])
            expect(page.locator("table.symbols tbody tr", has_text=BTC).locator(".source")).to_have_text(
                "one"
            )
            return heard.complaints

        assert await browse(visit) == []


async def test_a_symbol_goes_on_with_its_other_source() -> None:
    """Only the removed source is lost; the stream has no break."""
    async with followed() as (d, first, second, listener):
        await d.reload(with_sources(d, one=binance(first, BTC), two=binance(second, BTC)))
        await second.wait_subscribed(["BTCUSDT"])
        await first.publish(trade(1))
        await second.publish(trade(500))
        await listener.until(lambda: listener.traded[BTC] == 2)
        await d.reload(with_sources(d, two=binance(second, BTC)))
        await second.publish(trade(501))
        await listener.until(lambda: listener.traded[BTC] == 3)
        assert is_whole(listener)
        assert [told["source"] for told in listener.of("connection.lost")] == ["one"]
        symbol = (await listener.call("getSymbols"))[0]
        assert (symbol["sources"], symbol["status"]) == (["two"], "live")


async def test_a_source_that_comes_back_serves_those_who_stayed() -> None:
    """The subscription of a client outlives the absence of its symbol. What was missed is a gap, not silence."""
    async with followed() as (d, first, second, listener):
        await first.publish(trade(1))
        await listener.until(lambda: listener.traded[BTC] == 1)
        await d.reload(with_sources(d, two=binance(second, ETH)))
        await first.wait_disconnected()
        await first.publish(trade(2))
        await d.reload(with_sources(d, one=binance(first, BTC), two=binance(second, ETH)))
        await listener.until(lambda: listener.of("connection.restored"))
        assert listener.of("connection.restored")[-1]["symbols"] == [BTC]
        await first.publish(trade(3))
        await listener.until(lambda: listener.traded[BTC] == 2)
        assert is_whole(listener)
        assert [("gap" if "from" in each else each["tradeId"]) for each in listener.stream(BTC)] == [
            "1",
            "gap",
            "3",
        ]


async def test_a_source_that_has_changed_is_restarted_alone() -> None:
    """It connects to its new address with its new symbols. The others keep their connection."""
    async with followed() as (d, first, second, listener):
        await d.reload(with_sources(d, one=binance(first, BTC), still=binance(first, ETH)))
        await first.wait_connected(2)
        before = d.root.find("sources/still")
        await d.reload(with_sources(d, one=binance(second, BTC, "SOL-USDT"), still=binance(first, ETH)))
        await second.wait_subscribed(["BTCUSDT"])
        await second.publish(trade(7))
        await listener.until(lambda: listener.traded[BTC] == 1)
        assert "configured anew" in listener.of("connection.lost")[-1]["reason"]
        await listener.until(lambda: listener.of("connection.restored"))
        assert d.root.find("sources/still") is before
        still = next(n for n in d.root.supervisor("sources").tree().children if n.path == "sources/still")
        assert still.epoch == 1
        assert [each["symbol"] for each in await listener.call("getSymbols")] == [BTC, ETH, "SOL-USDT"]


async def test_quality_tells_that_a_source_has_left() -> None:
    """Its last state says why. Later answers do not name it any more."""
    async with followed() as (d, _first, second, listener):
        await listener.call("subscribe", symbol=BTC, channel="quality")
        await d.reload(with_sources(d, two=binance(second, BTC)))

        def states(source: str) -> list[str]:
            return [each["state"] for each in listener.of("quality.update") if each["source"] == source]

        await listener.until(lambda: "quiet" in states("two"))  # behind the last words about the other one
        gone = [each for each in listener.of("quality.update") if each["source"] == "one"]
        assert (gone[-1]["state"], gone[-1]["reason"]) == ("lost", "removed from the configuration")
        (symbol,) = await listener.call("getSymbols")
        assert list(symbol["quality"]["sources"]) == ["two"]


async def test_a_mistake_changes_nothing() -> None:
    """One line has all mistakes. Sources, pages and settings stay, although parts of the file were right."""
    async with followed() as (d, first, _second, listener):
        before = d.hall.settings
        with log() as lines:
            await d.reload(
                ConfigError(["x.toml: [gateway] prot: unknown key", "x.toml: [cache] shards: wrong"])
            )
        assert lines == [
            "not reloaded, everything stays as it was: x.toml: [gateway] prot: unknown key;"
            " x.toml: [cache] shards: wrong"
        ]
        assert d.hall.settings is before
        await first.publish(trade(1))
        await listener.until(lambda: listener.traded[BTC] == 1)
        assert not listener.of("connection.lost")


async def test_every_change_is_told_and_what_needs_a_restart_is_named() -> None:
    """What could be taken over counts from now on. The rest stays as it was, and is told again the next time."""
    async with daemon(sources={}) as d, http_client(d.http) as http:
        foreign = {"Origin": "https://app.example.com"}
        assert (await http.get("/health", headers=foreign)).status_code == 403
        gateway = evolve(
            d.hall.settings.gateway,
            origins=("https://app.example.com",),
            hosts=("feed.example.com",),
            max_sessions=5,
        )
        wanted = evolve(d.hall.settings, gateway=gateway)
        with log() as lines:
            await d.reload(wanted)
        assert lines == [
            'reloaded: [gateway] hosts: [] -> ["feed.example.com"]',
            'reloaded: [gateway] origins: [] -> ["https://app.example.com"]',
            "not reloaded, needs a restart: [gateway] max_sessions: 10000 -> 5",
        ] + [line for line in lines if line.startswith("[gateway] hosts: a proxy seems")]
        assert (await http.get("/health", headers=foreign)).status_code == 200
        assert (await http.get("/health", headers={"Host": "feed.example.com"})).status_code == 200
        assert d.hall.settings.gateway.max_sessions == 10_000
        with log() as lines:
            await d.reload(wanted)
        assert lines == ["not reloaded, needs a restart: [gateway] max_sessions: 10000 -> 5"]
        with log() as lines:
            await d.reload(d.hall.settings)
        assert lines == ["reloaded: nothing has changed"]


async def test_trusted_proxies_count_from_the_next_request_on() -> None:
    """What a proxy says about its clients is believed while it is trusted."""
    headers = ((b"x-forwarded-for", b"192.0.2.7"),)
    asked = Handshake("/", "", headers, "127.0.0.1:4711", False)
    async with daemon(sources={}) as d:
        assert d.hall.client_address(asked) == "127.0.0.1"
        gateway = evolve(d.hall.settings.gateway, trusted_proxies=("127.0.0.0/8",))
        await d.reload(evolve(d.hall.settings, gateway=gateway))
        assert d.hall.client_address(asked) == "192.0.2.7"


async def test_limits_count_from_the_next_session_on() -> None:
    """Nobody is sent away, but nobody more comes in."""
    limits = Limits(loopback=True)
    async with daemon(sources={}, limits=limits) as d, client(d.url) as one, client(d.url) as other:
        assert [await each.call("ping") for each in (one, other)] == ["pong", "pong"]  # they are in
        await d.reload(evolve(d.hall.settings, limits=evolve(limits, sessions=1)))
        async with client(d.url) as third:
            await third.until(lambda: third.closed)
            assert third.closed is not None
            assert third.closed[0] == 1013
        assert [await each.call("ping") for each in (one, other)] == ["pong", "pong"]


async def test_connections_without_a_request_are_bounded_anew_at_once() -> None:
    """`waiting` of [limits] holds for the next connection, without a restart of the server."""
    async with daemon(sources={}) as d:
        assert d.hall.settings.limits.waiting > 1
        await d.reload(evolve(d.hall.settings, limits=Limits(waiting=1, loopback=True)))
        first = await trio.open_tcp_stream("127.0.0.1", d.hall.lobby.port)
        second = await trio.open_tcp_stream("127.0.0.1", d.hall.lobby.port)
        async with first, second:
            assert await first.receive_some() == b""
            assert d.hall.lobby.stats.dismissed["too many of one address"] == 1


async def test_a_source_without_its_connector_gets_one() -> None:
    """Whatever has stopped a connector for good, or kept it from starting, the next reload brings it back."""
    async with followed() as (d, first, _second, listener):
        await d.root.supervisor("sources").stop("one")
        await first.wait_disconnected()
        await d.reload(d.hall.settings)
        await first.wait_subscribed(["BTCUSDT"])
        await first.publish(trade(1))
        await listener.until(lambda: listener.traded[BTC] == 1)


async def test_a_connector_with_older_settings_is_replaced() -> None:
    """Whichever way it came to that: it may have been restarted in the midst of a reload."""
    async with followed() as (d, first, second, _listener):
        d.hall.adopt(with_sources(d, one=binance(second, BTC)), None)
        await d.reload(d.hall.settings)
        await second.wait_subscribed(["BTCUSDT"])
        await first.wait_disconnected()


async def test_a_new_source_that_does_not_start_is_tried_again() -> None:
    """A failure of its first start is one of its own: the reload has ended, and the backoff does the rest."""
    async with followed() as (d, first, second, _listener):
        d.sabotage.arm(Point.START, "sources/two")
        await d.reload(with_sources(d, one=binance(first, BTC), two=binance(second, ETH, eager=True)))
        await second.wait_subscribed(["ETHUSDT"])
        assert d.crashes() == ["sources/two"]
        assert "ops/reload" not in d.crashes()


async def test_a_branch_that_restarts_has_the_sources_of_now() -> None:
    """A restart of the whole branch neither forgets an added source nor remembers a removed one."""
    async with followed() as (d, first, second, _listener):
        await d.reload(with_sources(d, two=binance(second, BTC, eager=True)))
        await d.until_carried(BTC)
        await d.root.restart("sources")
        await until(lambda: second.accepted >= 2)
        await d.until_carried(BTC)
        assert [node.path for node in d.root.supervisor("sources").tree().children] == ["sources/two"]
        await first.wait_disconnected()
        assert first.accepted == 1


async def test_ready_may_need_a_source() -> None:
    """`ready_needs_sources`: without any connection 503, and 200 again with one. It can be reloaded."""
    async with open_binance() as exchange, daemon(sources={}) as d, http_client(d.http) as http:
        assert (await http.get("/ready")).status_code == 200
        needy = evolve(d.hall.settings, gateway=evolve(d.hall.settings.gateway, ready_needs_sources=True))
        await d.reload(needy)
        answer = await http.get("/ready")
        assert (answer.status_code, answer.json()["not_ready"]) == (503, ["sources"])
        calm = await http.get("/ready?code=200")  # for pages
        assert (calm.status_code, calm.json()) == (200, answer.json())
        assert (await http.get("/ready?code=404")).status_code == 400
        await d.reload(evolve(needy, sources={"one": binance(exchange, BTC, eager=True)}))
        await exchange.wait_subscribed(["BTCUSDT"])
        while (await http.get("/ready")).status_code != 200:
            await trio.lowlevel.checkpoint()


# -- certificates -------------------------------------------------------------------------------------

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")


@asynccontextmanager
async def tls_client(port: int, context: ssl.SSLContext, name: str = "localhost") -> AsyncIterator[Client]:
    async with await trio.open_tcp_stream("127.0.0.1", port) as tcp, trio.open_nursery() as nursery:
        stream = trio.SSLStream(tcp, context, server_hostname=name)
        await stream.do_handshake()
        made = Client(await wrap_client_stream(nursery, stream, f"127.0.0.1:{port}", "/ws"))
        nursery.start_soon(made.listen)
        yield made
        nursery.cancel_scope.cancel()


async def is_refused(port: int, context: ssl.SSLContext, name: str) -> bool:
    """Whether a client that trusts `context` does not trust the daemon."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as tcp:
        try:
            await trio.SSLStream(tcp, context, server_hostname=name).do_handshake()
        except trio.BrokenResourceError:
            return True
        return False


def renew(certificate: Certificate, by: Certificate) -> None:
    """The files of `certificate` get the content of others."""
    shutil.copy(by.certificate, certificate.certificate)
    shutil.copy(by.key, certificate.key)


def new_certificate(folder: Path) -> Certificate:
    folder.mkdir()
    return make_certificate(folder)


@needs_openssl
@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
async def test_new_connections_get_the_new_certificate(tmp_path: Path, name: str) -> None:
    """Who is connected stays connected. A name in the handshake or none makes no difference."""
    used, other = new_certificate(tmp_path / "a"), new_certificate(tmp_path / "b")
    before, after = used.client_context(), other.client_context()
    gateway = Gateway(port=0, tls_certificate=str(used.certificate), tls_key=str(used.key))
    async with daemon(sources={}, gateway=gateway) as d:
        port = d.lobby.port
        async with tls_client(port, before, name) as first:
            renew(used, other)
            with log() as lines:
                await d.reload(d.hall.settings)
            assert len(lines) == 1
            assert re.fullmatch(r"reloaded: the certificate: [0-9A-F:]{95} -> [0-9A-F:]{95}", lines[0])
            async with tls_client(port, after, name) as second:
                assert await second.call("ping") == "pong"
            assert await is_refused(port, before, name)
            assert await first.call("ping") == "pong"


@needs_openssl
async def test_files_that_cannot_be_used_leave_the_certificate_in_service(tmp_path: Path) -> None:
    """Neither a reload nor a restart of the gateway's actor ends the service. At the first start it is a mistake."""
    used, other = new_certificate(tmp_path / "a"), new_certificate(tmp_path / "b")
    gateway = Gateway(port=0, tls_certificate=str(used.certificate), tls_key=str(used.key))
    context = used.client_context()
    async with daemon(sources={}, gateway=gateway) as d:
        port = d.lobby.port
        shutil.copy(other.key, used.key)  # half of a renewal
        with log() as lines:
            await d.reload(evolve(d.hall.settings, gateway=evolve(gateway, origins=("*",))))
        assert lines == [
            f"not reloaded, everything stays as it was: [gateway] tls_key: {used.key}: is not the key of"
            f" {used.certificate}"
        ]
        assert d.hall.settings.gateway.origins == ()
        with log(path=None) as lines:
            await d.root.supervisor("gateway").restart("http")
        assert [line for line in lines if "the certificate in service stays" in line]
        async with tls_client(port, context) as first:
            assert await first.call("ping") == "pong"
        assert not d.crashes()


# -- real signals -------------------------------------------------------------------------------------


async def logged(d: Running, text: str) -> str:
    """The first line of the log with this text, once it is there."""
    await until(lambda: any(text in line for line in d.log))
    return next(line for line in d.log if text in line)


@needs_openssl
async def test_a_client_goes_on_across_sighup(tmp_path: Path) -> None:
    """With a new certificate, a source more and a source less, its subscription goes on and no trade is lost."""
    used, other = new_certificate(tmp_path / "a"), new_certificate(tmp_path / "b")
    before, after = used.client_context(), other.client_context()
    async with open_binance() as one, open_binance() as two, trio.open_nursery() as nursery:

        def configure(**sources: Exchange) -> None:
            tables = [
                f'[sources.{name}]\nconnector = "binance"\nurl = "{exchange.url}"\nsymbols = ["{BTC}"]\n'
                for name, exchange in sources.items()
            ]
            (tmp_path / "c.toml").write_text(
                f'[gateway]\nport = 0\ntls_certificate = "{used.certificate}"\ntls_key = "{used.key}"\n'
                + "".join(tables)
            )

        configure(one=one)
        command = [sys.executable, "-m", "dataflow", "run", "--config", str(tmp_path / "c.toml")]
        process = await nursery.start(partial(trio.run_process, command, stderr=subprocess.PIPE, check=False))
        d = Running(process, one)
        nursery.start_soon(d.read_log)
        listening = await logged(d, "listening on")
        port = int(re.search(r"https://127\.0\.0\.1:(\d+)/", listening)[1])  # type: ignore[index]
        async with tls_client(port, before) as listener:
            await listener.call("subscribe", symbol=BTC)
            await one.wait_subscribed(["BTCUSDT"])
            renew(used, other)
            configure(one=one, two=two)
            process.send_signal(signal.SIGHUP)
            for id in range(1, 300):
                await one.publish(trade(id))
            await two.wait_subscribed(["BTCUSDT"])
            await listener.until(lambda: listener.traded[BTC] == 299)
            await logged(d, "reloaded: the certificate")
            configure(two=two)
            process.send_signal(signal.SIGHUP)
            for id in range(7000, 7100):
                await two.publish(trade(id))
            await one.wait_disconnected()
            await listener.until(lambda: listener.traded[BTC] == 399)
            assert is_whole(listener)
            assert len({(each["source"], each["tradeId"]) for each in listener.trades(BTC)}) == 399
            async with tls_client(port, after) as newcomer:
                assert await newcomer.call("ping") == "pong"
            assert listener.closed is None
        process.send_signal(signal.SIGTERM)
        assert await d.ended() == 0


async def test_a_mistake_at_sighup_is_one_line_and_the_daemon_goes_on(tmp_path: Path) -> None:
    """Nothing of the file counts, and the next SIGHUP finds what has been mended."""
    async with running(tmp_path) as d, client(d.url) as listener:
        file = tmp_path / "mine.toml"
        right = file.read_text()
        file.write_text(right.replace("[gateway]", '[gateway]\norigins = ["*"]\nprot = 1'))
        d.process.send_signal(signal.SIGHUP)
        line = await logged(d, "not reloaded")
        assert "prot" in line
        assert await listener.call("ping") == "pong"
        file.write_text(right.replace("[gateway]", '[gateway]\norigins = ["*"]'))
        d.process.send_signal(signal.SIGHUP)
        assert '[gateway] origins: [] -> ["*"]' in await logged(d, "reloaded: [gateway]")
        d.process.send_signal(signal.SIGTERM)
        assert await d.ended() == 0
        assert not [line for line in d.log if "Traceback" in line]


async def test_usr1_tells_where_everything_waits_and_usr2_what_signals_do(tmp_path: Path) -> None:
    """The tree, and the tasks with their stacks. Sessions that wait alike are told together. Nothing ends."""
    async with running(tmp_path) as d, client(d.url) as one, client(d.url) as other:
        for listener in (one, other):
            await listener.call("subscribe", symbol="BTC-USDT")
        d.process.send_signal(signal.SIGUSR1)
        await logged(d, "more are not shown")
        assert await logged(d, "  cache/shard-0: running for")
        assert re.search(r"  gateway/sessions: running for [0-9.]+ s, 2 running", "\n".join(d.log))
        assert (
            len([line for line in d.log if "gateway/sessions/1" in line and "gateway/sessions/2" in line])
            >= 1
        )
        assert [line for line in d.log if "actors/session.py" in line]
        d.process.send_signal(signal.SIGUSR2)
        assert "SIGHUP reads" in await logged(d, "SIGUSR2 does nothing")
        assert await one.call("ping") == "pong"
        d.process.send_signal(signal.SIGTERM)
        assert await d.ended() == 0


async def test_signals_in_quick_succession_are_served_one_after_the_other(tmp_path: Path) -> None:
    """A hundred requests are served by a few reloads, and the last of them reads what was written last."""
    async with running(tmp_path) as d:
        file = tmp_path / "mine.toml"
        right = file.read_text()
        for count in range(1, 101):
            file.with_suffix(".new").write_text(
                right.replace("[gateway]", f'[gateway]\nhosts = ["h{count}"]')
            )
            os.replace(file.with_suffix(".new"), file)
            d.process.send_signal(signal.SIGHUP)
        assert await logged(d, '-> ["h100"]')
        d.process.send_signal(signal.SIGTERM)
        assert await d.ended() == 0


async def test_sighup_opens_the_log_file_anew(tmp_path: Path) -> None:
    """As after a rotation, also when the configuration has a mistake."""
    file = tmp_path / "log"
    config = tmp_path / "mine.toml"
    config.write_text("[gateway]\nport = 0\n")
    command = [sys.executable, "-m", "dataflow", "run", "--config", str(config), "--log-file", str(file)]
    async with trio.open_nursery() as nursery:
        process = await nursery.start(partial(trio.run_process, command, check=False))
        await until_file(file, "listening on")
        for text, line in (("[gateway]\nport = 0\n", "nothing has changed"), ("[nothing]", "not reloaded")):
            config.write_text(text)
            file.rename(tmp_path / "rotated")
            process.send_signal(signal.SIGHUP)
            await until_file(file, line)
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0


async def until_file(file: Path, text: str) -> None:
    await until(lambda: file.exists() and text in file.read_text())


TERMINAL = """
import os, pty, sys
child, master = pty.fork()
if child == 0:
    os.execv(sys.executable, [sys.executable, "-m", "dataflow", *sys.argv[1:]])
print(child, flush=True)
sys.stdin.read()  # until the test closes the terminal
"""


async def test_a_terminal_that_closes_does_not_end_the_daemon(tmp_path: Path) -> None:
    """It is a SIGHUP like any other: the configuration is read again, and the daemon goes on."""
    config, file = tmp_path / "mine.toml", tmp_path / "log"
    config.write_text("[gateway]\nport = 0\n")
    run = ["run", "--config", str(config), "--log-file", str(file)]
    command = [sys.executable, "-c", TERMINAL, *run]
    async with trio.open_nursery() as nursery:
        pipe = subprocess.PIPE
        terminal = await nursery.start(partial(trio.run_process, command, stdin=pipe, stdout=pipe))
        number = int(await terminal.stdout.receive_some())
        try:
            await until_file(file, "listening on")
            await terminal.stdin.aclose()
            await until_file(file, "reloaded: nothing has changed")
            port = int(re.search(r"http://127\.0\.0\.1:(\d+)/", file.read_text())[1])  # type: ignore[index]
            async with http_client(f"http://127.0.0.1:{port}") as http:
                assert (await http.get("/health")).status_code == 200
        finally:
            os.kill(number, signal.SIGTERM)


async def test_without_a_configuration_to_read_a_closed_terminal_ends_the_process_in_order() -> None:
    """The demo has none: it must not live on unseen."""
    received: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _frame: received.append(number))
    try:
        async with daemon(sources={}) as d:
            app.signals(lasting=False)[signal.SIGHUP](d.root)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert received == [signal.SIGTERM]
