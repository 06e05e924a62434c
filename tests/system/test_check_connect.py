"""`dataflow check --connect`: what it says of sources that work, and of each way in which they do not."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from dataflow.cli import main
from dataflow.cli.daemon import why_not_free
from dataflow.cli.trial import Step, Trial, Verdict, as_text, try_all
from dataflow.connectors import binance, bitstamp, push, ticks_protobuf
from dataflow.settings.schema import Gateway, Settings
from simulators import Exchange, Trade, open_binance, open_exchange
from simulators.exchanges.bitstamp import bitstamp_dialect
from tests.dataflow.connectors.mappings import acme, settings
from tests.support.acme import acme_dialect
from tests.support.certificates import make_certificate
from tests.support.waiting import until, until_deadline_within, until_delivered

BTC = "BTC-USDT"


def at(url: str, *symbols: str, **keys: Any) -> binance.Settings:
    keys = {"refill_url": "http://127.0.0.1:9", "connect_within": 60.0, **keys}
    return binance.Settings(connector="binance", url=url, symbols=symbols or (BTC,), **keys)


async def tried(within: float = 0.0, **sources: Any) -> list[Trial]:
    gateway = Gateway(port=0)
    return await try_all(
        Settings(gateway=gateway, sources=sources), within, why_not_free, lambda _trial: None
    )


@asynccontextmanager
async def being_tried(within: float = 0.0, **sources: Any) -> AsyncIterator[list[Trial]]:
    """The same while the block goes on. The list is filled at its end."""
    trials: list[Trial] = []

    async def run() -> None:
        trials.extend(await tried(within, **sources))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        yield trials


def steps(trial: Trial) -> dict[str, Step]:
    return {step.name: step for step in trial.steps}


def failures(trial: Trial) -> dict[str, str]:
    return {step.name: step.words for step in trial.steps if step.verdict is Verdict.FAILED}


@asynccontextmanager
async def trading(
    exchange: Exchange, seconds_ago: float = 0.0, symbol: str = "BTCUSDT"
) -> AsyncIterator[trio.Event]:
    """The exchange trades as soon as somebody is subscribed. The event tells that the trades have arrived."""
    arrived = trio.Event()

    async def trade() -> None:
        await exchange.wait_subscribed([symbol])
        for number in range(1, 4):
            now = int((time.time() - seconds_ago) * 1e6)
            await exchange.publish(Trade(number, symbol, "buy", "61000.10", "0.5", now))
        await until_arrived(exchange)
        arrived.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trade)
        yield arrived
        nursery.cancel_scope.cancel()


async def until_arrived(exchange: Exchange) -> None:
    """Returns once all that the exchange has said so far was read."""
    await exchange.drained()
    for connection in exchange.connections:
        assert isinstance(connection.stream, trio.SocketStream)
        await until_delivered(connection.stream.socket)


async def test_a_source_that_works() -> None:
    """Name, TCP, handshake, subscription, first trade, clock and REST, in this order."""
    async with open_binance() as exchange, trading(exchange):
        rest = f"http://127.0.0.1:{exchange.port}"
        (trial,) = await tried(60.0, binance=at(exchange.url, refill_url=rest))
    assert [step.name for step in trial.steps] == [
        *("name", "tcp", "tls", "handshake", "subscription", "first trade", "clock", "rest")
    ]
    assert trial.is_fine, as_text(trial)
    told = steps(trial)
    assert told["tls"].verdict is Verdict.NOTE
    assert told["subscription"].words == "1 of 1 symbols"
    assert told["first trade"].words.startswith("BTC-USDT: 0.50000000 at 61000.10")
    assert told["clock"].verdict is Verdict.OK
    assert "3 trades of BTC-USDT" in told["rest"].words
    assert "weight 25 of 4800 a minute" in told["rest"].words


@pytest.mark.parametrize(
    ("seconds", "words"), [(60.0, "s old when it came"), (-60.0, "s ahead of our clock")]
)
async def test_a_clock_that_is_off_is_told(seconds: float, words: str) -> None:
    """By the trades that come live; it is a note, for the trades are taken all the same."""
    async with open_binance() as exchange, trading(exchange, seconds):
        (trial,) = await tried(60.0, binance=at(exchange.url))
    assert steps(trial)["clock"].verdict is Verdict.NOTE
    assert words in steps(trial)["clock"].words


async def test_a_quiet_market_is_no_failure() -> None:
    """Nothing traded in the time: a note."""
    async with open_binance() as exchange:
        (trial,) = await tried(0.0, binance=at(exchange.url, refill_url=f"http://127.0.0.1:{exchange.port}"))
    assert steps(trial)["first trade"].verdict is Verdict.NOTE
    assert trial.is_fine


async def test_each_failure_has_its_step_and_its_words() -> None:
    """A name that nobody knows, a port that nobody answers, a path that is none, and questions that fail."""
    async with open_binance() as exchange:
        nowhere, closed, wrong = await tried(
            nowhere=at("ws://no-such-host.invalid/stream"),
            closed=at("ws://127.0.0.1:9/stream"),
            wrong=at(exchange.url.replace("/stream", "/nothing")),
        )
    assert failures(nowhere)["name"].startswith("cannot find no-such-host.invalid")
    assert failures(closed)["tcp"] == "Connection refused"
    assert "404" in failures(wrong)["handshake"]
    assert failures(wrong)["rest"].startswith("unreachable: cannot connect to 127.0.0.1:9")


async def test_an_upstream_that_says_nothing_ends_in_time(mock_clock: MockClock) -> None:
    """Whoever takes the connection and never answers costs `connect_within`, and no more."""
    (silent,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with silent:
        url = f"ws://127.0.0.1:{silent.socket.getsockname()[1]}/stream"
        source = at(url, refill_url="", connect_within=0.1)
        async with (
            being_tried(silent=source) as trials,
            await silent.accept(),  # to try TCP
            await silent.accept(),  # for the handshake
        ):
            await until_deadline_within(0.1)
            mock_clock.jump(0.1)
            await until(lambda: trials)
        (asked,) = await tried(silent=attrs.evolve(source, transport="rest"))
    assert trio.current_time() == pytest.approx(0.1)
    (trial,) = trials
    assert "within 0.1 s" in failures(trial)["handshake"]
    assert "cannot be polled" in failures(asked)["rest"]


async def test_a_refused_symbol_is_named() -> None:
    """The others are subscribed; the refusal is a failure, in the words of the upstream."""
    async with open_exchange(acme_dialect()) as exchange:
        exchange.fault("refuse", symbol="ETH/USD", times=None)
        (trial,) = await tried(acme=attrs.evolve(settings(acme()), url=exchange.url))
    assert failures(trial) == {"subscription": "1 of 2 symbols; refused: ETH-USD: no such market: ETH/USD"}
    assert steps(trial)["rest"].verdict is Verdict.NOTE


async def test_a_mapping_that_does_not_fit_is_shown_what_came(mock_clock: MockClock) -> None:
    """Messages that were not understood, with an example: what an author of a mapping needs."""
    written = acme().replace('ok = true }, id = "id"', 'fine = true }, id = "id"')
    async with open_exchange(acme_dialect()) as exchange:
        source = attrs.evolve(settings(written), url=exchange.url, subscribe_within=0.2)
        async with being_tried(acme=source) as trials:
            await exchange.wait_subscribed(["BTC/USD", "ETH/USD"])
            await until_arrived(exchange)
            await until_deadline_within(0.2)
            mock_clock.jump(0.2)
    (trial,) = trials
    assert failures(trial)["subscription"] == "0 of 2 symbols; no answer for BTC-USD, ETH-USD"
    assert "no answer to the subscription" in failures(trial)["connection"]
    assert 'unknown_message (1): \'{"op": "sub"' in steps(trial)["messages"].words


async def test_trades_that_are_not_understood_are_no_quiet_market(mock_clock: MockClock) -> None:
    """Who mapped a field wrongly shall look at the mapping, not wait for trades."""
    written = acme().replace('price = "px"', 'price = "no_such"')
    async with (
        open_exchange(acme_dialect()) as exchange,
        trading(exchange, symbol="BTC/USD") as arrived,
        being_tried(1.0, acme=attrs.evolve(settings(written), url=exchange.url)) as trials,
    ):
        await arrived.wait()
        await until_deadline_within(1.0)
        mock_clock.jump(1.0)
    (trial,) = trials
    assert "missing_field" in steps(trial)["messages"].words
    assert steps(trial)["first trade"].words == "none in this time: what came was not understood"


async def test_a_question_by_http_that_fails_is_told() -> None:
    """The WebSocket may work all the same."""
    async with open_binance() as exchange:
        exchange.fault("rest_error", times=None)
        (trial,) = await tried(binance=at(exchange.url, refill_url=f"http://127.0.0.1:{exchange.port}"))
    assert failures(trial).keys() == {"rest"}
    assert failures(trial)["rest"].startswith("server_error")


async def test_each_symbol_of_a_source_that_is_polled_is_asked_for() -> None:
    """What the upstream refuses is named, and the others are told all the same."""
    async with open_exchange(bitstamp_dialect(symbols=("btcusd",))) as exchange:
        source = bitstamp.Settings(
            connector="bitstamp",
            url=exchange.url,
            refill_url=f"http://127.0.0.1:{exchange.port}",
            symbols=("BTC-USD", "NO-SUCH", "SUCH-NO"),
            transport="rest",
        )
        (trial,) = await tried(bitstamp=source)
    verdicts = [(each.words.split(":")[0], each.verdict) for each in trial.steps]
    assert verdicts[:2] == [("NO-SUCH", Verdict.FAILED), ("SUCH-NO", Verdict.FAILED)]
    assert "trades of BTC-USD" in trial.steps[2].words


async def test_ports_for_producers_are_free_or_not() -> None:
    """For those who connect to us the listener's; for those who push by HTTP that of the gateway."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ticks, own = await tried(
            ticks=ticks_protobuf.Settings(connector="ticks_protobuf", port=port),
            own=push.Settings(connector="push"),
        )
    assert failures(ticks)["port"].endswith("choose another with [sources.ticks] port")
    assert own.is_fine


async def test_certificates_are_told_in_days_and_distrusted_ones_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that ends tomorrow is a note; one that nobody vouches for ends the trial of the WebSocket."""
    made = make_certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(made.certificate, made.key)

    async def hang_up(stream: trio.SSLStream[trio.SocketStream]) -> None:
        with suppress(trio.BrokenResourceError):
            await stream.receive_some()

    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_ssl_over_tcp, hang_up, 0, context, host="127.0.0.1", https_compatible=True)
        (listener, *_) = await nursery.start(serve)
        url = f"wss://localhost:{listener.transport_listener.socket.getsockname()[1]}/stream"
        (distrusted,) = await tried(binance=at(url))
        monkeypatch.setenv("SSL_CERT_FILE", str(made.certificate))
        (trusted,) = await tried(binance=at(url))
        nursery.cancel_scope.cancel()
    assert "self-signed certificate" in failures(distrusted)["tls"]
    assert "handshake" not in steps(distrusted)
    assert steps(trusted)["tls"] == Step(
        "tls", Verdict.NOTE, "the certificate is good for 1 days; it expires soon"
    )
    assert "hung up" in failures(trusted)["handshake"]


def test_the_command_tells_everything_and_no_secret(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As text and as JSON; the exit code is 1 when something failed, and 0 when nothing did."""
    config = tmp_path / "mine.toml"
    config.write_text(
        '[sources.lost]\nconnector = "binance"\nurl = "ws://user:hunter-2@127.0.0.1:9/stream"\nsymbols = ["BTC-USDT"]\n'
        'refill_url = "http://127.0.0.1:9"\n[sources.own]\nconnector = "push"\ntoken = "a very secret token"\n'
        "[gateway]\nport = 0\n"
    )

    command = [sys.executable, "-m", "dataflow", "check", "--connect", "--within", "0", str(config)]
    failed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert "lost: ws://user:***@127.0.0.1:9/stream\n  ok      name" in failed.stdout
    assert main(["check", "--connect", "--json", "--within", "0", str(config)]) == 1
    data = capsys.readouterr()
    told = json.loads(data.out)
    assert (told["ok"], told["sources"]["lost"]["ok"], told["sources"]["own"]["ok"]) == (False, False, True)
    for each in (failed.stdout, failed.stderr, data.out, data.err):
        assert "hunter-2" not in each
        assert "very secret" not in each
    config.write_text('[sources.own]\nconnector = "push"\n[gateway]\nport = 0\n')
    assert main(["check", "--connect", str(config)]) == 0
