"""A source that is polled: the same connector, by questions instead of a WebSocket."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataflow.domain.errors import ConfigError
from dataflow.settings.load import load
from simulators import Trade, open_binance
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
            await c.until(lambda: len(c.trades()) >= 58)
            ids = [int(t["tradeId"]) for t in c.trades()]
            assert ids == list(range(ids[0], 60))
            assert c.of("stream.gap") == []
            assert exchange.accepted == 0


@pytest.mark.parametrize(
    ("block", "told"),
    [
        ('connector = "blockchain"', "the connector blockchain has no questions for past trades"),
        ('connector = "binance"\nrefill_url = ""', "or no refill_url"),
        ('connector = "binance"\npoll_interval = 8', "must be below half of stale_after, which is 15"),
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
