"""Every connector that is shipped keeps every promise that we ask of others."""

from __future__ import annotations

import pytest

from dataflow.conformance.checks import CHECKS
from dataflow.conformance.report import Verdict, result
from tests.dataflow.connectors.mappings import BINANCE, tables
from tests.support.simulated import Case, recorded, upstreams

CASES = {
    "blockchain": [Case("blockchain", "blockchain")],
    "binance": [Case("binance", "binance", ("BTC-USDT", "ETH-USDT"))],
    "bybit": [
        Case("bybit", "bybit", ("BTC-USDT", "ETH-USDT"), path="/v5/public/spot"),
        Case("bybit", "bybit", ("BTC-USDT-PERP", "ETH-USDT-PERP"), path="/v5/public/linear"),
    ],
    "kraken": [Case("kraken", "kraken"), Case("kraken", "kraken", keys={"version": 1}, path="/")],
    "okx": [
        Case("okx", "okx", ("BTC-USDT", "ETH-USDT"), path="/ws/v5/business"),
        Case("okx", "okx", ("BTC-USDT", "BTC-USDT-PERP"), path="/ws/v5/public"),
    ],
    "mapped_json": [
        Case("mapped_json", "binance", ("BTC-USDT", "ETH-USDT"), tables(BINANCE, ("BTC-USDT", "ETH-USDT")))
    ],
}
# Upstreams without a history of trades, or without one of what they send: aggregates.
WITHOUT_FILLS = [*CASES["blockchain"], CASES["kraken"][1], CASES["okx"][1]]


def cases() -> list[Case]:
    """The cases of every connector of an exchange; without a special one: the simulator of its name."""
    return [case for name in upstreams() for case in CASES.get(name, [Case(name, name)])]


@pytest.mark.parametrize(
    "case",
    cases(),
    ids=lambda case: " ".join(
        [
            case.connector,
            case.path or "",
            *(f"{k}={v}" for k, v in case.keys.items() if isinstance(v, int | str)),
        ]
    ),
)
def test_it_keeps_every_promise(case: Case) -> None:
    """All checks of the kit, over a conversation with the simulated exchange. What has a filler shows it."""
    about = recorded(case)
    results = [result(check, about) for check in CHECKS]
    assert [f"{each.name}: {each.reason}" for each in results if each.verdict is Verdict.BROKEN] == []
    unseen = {each.name for each in results if each.verdict is Verdict.NOT_SHOWN}
    assert unseen <= (set() if about.recording.answers else {"fills", "fills_nothing_else"})
    assert bool(about.recording.answers) == (case not in WITHOUT_FILLS)
    assert len(about.trades) == 8 * len(case.symbols)
