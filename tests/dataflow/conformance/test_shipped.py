"""Every connector that is shipped keeps every promise that we ask of others."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from attrs import evolve

from dataflow.conformance.checks import CHECKS
from dataflow.conformance.report import Verdict, result
from dataflow.conformance.subject import subject
from simulators.exchanges import find
from tests.dataflow.connectors.mappings import BINANCE, tables
from tests.support.simulated import Case, recorded, upstreams

PERPETUALS = ("BTC-USDT-PERP", "ETH-USDT-PERP")
FUTURES = "wss://fstream.binance.com/market/stream"
OKX = "wss://ws.okx.com:8443/ws/v5"
BYBIT = "wss://stream.bybit.com/v5/public"
KRAKEN = {"BTC-USD": "BTC/USD", "ETH-USD": "ETH/USD"}  # as version 2 has them
CASES = {
    "binance": [
        Case("binance", "binance", ("BTC-USDT", "ETH-USDT")),
        Case("binance", "binance", PERPETUALS, {"url": FUTURES}, "/market/stream"),
    ],
    "blockchain": [Case("blockchain", "blockchain")],
    "kraken": [
        Case("kraken", "kraken"),
        Case("kraken", "kraken", keys={"version": 1}, path="/", refills=False, named=KRAKEN),
    ],
    "bybit": [
        Case("bybit", "bybit", ("BTC-USDT", "ETH-USDT"), {"url": f"{BYBIT}/spot"}),
        Case("bybit", "bybit", PERPETUALS, {"url": f"{BYBIT}/linear"}, "/v5/public/linear"),
    ],
    "okx": [
        Case("okx", "okx", ("BTC-USDT", "ETH-USDT-PERP"), {"url": f"{OKX}/business"}),
        Case(
            "okx",
            "okx",
            ("BTC-USDT", "ETH-USDT-PERP"),
            {"url": f"{OKX}/public"},
            "/ws/v5/public",
            refills=False,
        ),
    ],
    "mapped_json": [
        Case("mapped_json", "binance", ("BTC-USDT", "ETH-USDT"), tables(BINANCE, ("BTC-USDT", "ETH-USDT")))
    ],
}


ODD = ("A\"\\B'-USDT", "%41?#+*&=@-U<,;[{$}]>", "\u00c4\u65e5\U0001f600-USDT")


def cases() -> list[Case]:
    """The cases of every connector of an exchange; without a special one: the simulator of its name."""
    return [case for name in upstreams() for case in CASES.get(name, [Case(name, name)])]


def odd(case: Case) -> Case:
    """The case with symbols whose characters mean something in JSON, in addresses or beyond ASCII."""
    kind = "-PERP" if case.symbols == PERPETUALS else ""
    symbols = tuple(f"{name}{kind}" for name in ODD)
    keys = tables(BINANCE, symbols) if case.connector == "mapped_json" else case.keys
    named = {symbol: symbol.replace("-", "/") for symbol in symbols} if case.named else {}
    return evolve(case, symbols=symbols, keys=keys, named=named)


EACH = pytest.mark.parametrize(
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


@EACH
@pytest.mark.parametrize("as_told", [lambda case: case, odd], ids=["", "odd"])
def test_it_keeps_every_promise(case: Case, as_told: Callable[[Case], Case]) -> None:
    """All checks of the kit, over a conversation with the simulated exchange. What has a filler shows it.

    Also of symbols with odd characters.
    """
    case = as_told(case)
    about = recorded(case)
    results = [result(check, about) for check in CHECKS]
    assert [f"{each.name}: {each.reason}" for each in results if each.verdict is Verdict.BROKEN] == []
    unseen = {each.name for each in results if each.verdict is Verdict.NOT_SHOWN}
    unfilled = {"fills_nothing_else"} if about.filler() else {"fills", "fills_nothing_else"}
    assert unseen <= (set() if about.filler() and case.refills else unfilled)
    assert len(about.trades) == 8 * len(case.symbols)


@pytest.mark.parametrize("name", upstreams())
def test_an_exchange_is_not_asked_about_a_simulated_one(name: str) -> None:
    """With the address of an upstream on this machine, the default is that nobody is asked."""
    case = next(case for case in cases() if case.connector == name)
    keys = {key: value for key, value in case.keys.items() if key not in ("url", "rest", "refill_url")}
    path = case.path or find(case.exchange).dialect(frozenset()).path
    for host in ("127.0.0.1:5001", "localhost", "[::1]:5001"):
        here = subject(name, case.symbols, url=f"ws://{host}{path}", **keys)
        assert here.settings.refill_url == ""
        assert here.settings.transport == "websocket"
