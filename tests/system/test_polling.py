"""A source that is polled: the same connector, by questions instead of a WebSocket."""

from __future__ import annotations

import time
from decimal import Decimal
from pathlib import Path

import attrs
import pytest

from dataflow import plugs
from dataflow.domain import Gap
from dataflow.domain.errors import ConfigError
from dataflow.settings.load import load
from simulators import Trade, exchanges, open_binance, open_exchange
from tests.support.waiting import until
from tests.system.daemon import client, daemon, from_binance


def deal(number: int) -> Trade:
    return Trade(number, "BTCUSDT", "buy", "61000.10", "0.5", 1_723_161_274_123_000 + number * 1000)


async def test_a_polled_source_brings_every_trade() -> None:
    """In order and once; what the exchange traded between two questions is in the next answer; a failing
    question costs time and no trade. Nobody opens a WebSocket."""
    async with open_binance() as exchange:
        rest = f"http://127.0.0.1:{exchange.port}"
        sources = from_binance(
            exchange.url,
            "BTC-USDT",
            transport="rest",
            refill_url=rest,
            poll_interval=0.05,
            refill_weight=6000,
        )
        await exchange.publish(deal(1))
        async with daemon(sources=sources) as d, client(d.url) as c:
            await c.call("subscribe", symbol="BTC-USDT")
            await until(lambda: d.core.sources["binance"].subscribed_symbols == {"BTC-USDT"})
            await exchange.publish_all(deal(n) for n in range(2, 50))
            await until(lambda: d.core.history("BTC-USDT").last == 49)
            exchange.fault("rest_error", times=2)
            await until(lambda: not exchange.faults.active())
            await exchange.publish_all(deal(n) for n in range(50, 60))
            await until(lambda: d.core.history("BTC-USDT").last == 59)
            await c.until(lambda: [t for t in c.trades() if t["tradeId"] == "59"])
            ids = [int(t["tradeId"]) for t in c.trades()]
            assert ids == list(range(ids[0], 60))
            assert c.of("stream.gap") == []
            assert exchange.accepted == 0


@pytest.mark.parametrize(
    ("block", "told"),
    [
        ('connector = "blockchain"', "the connector blockchain has no questions for past trades"),
        ('connector = "binance"\nrefill_url = ""', "or no refill_url"),
        (
            'connector = "binance"\nrefill_url = "http://127.0.0.1:1"\npoll_interval = 8',
            "must be below half of stale_after, which is 15",
        ),
        ('connector = "binance"\nrefill_url = "http://127.0.0.1:1"\nlines = 2', "lines: found 2; must be 1"),
    ],
)
def test_what_cannot_be_polled_is_a_mistake_of_the_configuration(
    block: str, told: str, tmp_path: Path
) -> None:
    """Told by the check, with what would be possible."""
    file = tmp_path / "polled.toml"
    file.write_text(
        f'[sources.x]\nurl = "ws://127.0.0.1:1"\nsymbols = ["A-B"]\ntransport = "rest"\n{block}\n'
    )
    with pytest.raises(ConfigError) as found:
        load([file], {})
    assert told in found.value.problems[0]


def polled_exchanges() -> list[str]:
    """The simulated exchanges that answer questions, and have a connector of their name."""
    return [name for name in exchanges.names() if exchanges.find(name).dialect(frozenset()).rest is not None]


@pytest.mark.parametrize("name", polled_exchanges())
async def test_every_connector_with_questions_can_be_polled(name: str) -> None:
    """Each trade once and in order, also across a new link, and where there is no sequence."""
    connector = plugs.find("connectors", name)
    path = exchanges.find(name).dialect(frozenset()).path
    known = connector.Settings(connector=name, url=f"ws://any{path}").exchange_name("BTC-USD")
    dialect = exchanges.find(name).dialect(frozenset({known}))
    async with open_exchange(attrs.evolve(dialect, weight_a_minute=1_000_000)) as exchange:
        settings = connector.Settings(
            connector=name,
            url=exchange.url,
            refill_url=f"http://127.0.0.1:{exchange.port}",
            symbols=("BTC-USD",),
            transport="rest",
            eager=True,
            poll_interval=0.02,
            refill_weight=1_000_000,
        )
        symbol, began = settings.exchange_name("BTC-USD"), int(time.time() * 1e6) - 10_000_000
        tape = [
            Trade(1000 + n, symbol, "buy" if n % 3 else "sell", f"100.{n}", "0.5", began + n * 10_000)
            for n in range(10, 61)
        ]
        await exchange.publish_all(tape[:10])
        async with daemon(sources={name: settings}) as d:
            log = d.core.history("BTC-USD")
            await until(lambda: log.last == 10)
            await exchange.publish_all(tape[10:30])
            await until(lambda: log.last == 30)
            await d.root.supervisor(f"sources/{name}/lines").restart(1)
            await exchange.publish_all(tape[30:])
            await until(lambda: log.last == len(tape))
            entries = [entry for _, entry in log.places(0, 1000)]
            prices = [each.price for each in entries if not isinstance(each, Gap)]
            assert prices == [Decimal(each.price) for each in tape]
            assert not d.core.sources[name].problems
