"""What a trade costs that is decoded: CPU time by connector, without a socket; the messages are those of the simulators.

Run by hand: make bench ARGS=decode. Every pass has a codec of its own, so nothing is remembered from the pass before. All
connectors are measured in turn, pass after pass. Trust the last column: the ratio to Binance within a pass.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import quantiles
from typing import Any

from attrs import frozen

sys.path.insert(0, str(Path(__file__).parents[2]))  # as a script it finds this folder alone

from actors.connector import Received
from dataflow import plugs
from dataflow.domain import Item
from dataflow.sources.port import SourceSettings, codec_class
from simulators import Trade, exchanges
from tests.dataflow.connectors.mappings import COINBASE, settings

TRADES, PASSES = 20_000, 9
USD, USDT = "BTC-USD", "BTC-USDT"
SYMBOLS = {
    **dict.fromkeys(("binance", "bybit", "okx"), USDT),
    **dict.fromkeys(("bitfinex", "bitstamp", "blockchain", "coinbase", "gemini", "kraken"), USD),
}
MAPPED = "coinbase by mapped_json"


@frozen
class Case:
    """A source, and all that its exchange says: answers first, then a message for each trade."""

    name: str
    settings: SourceSettings
    answers: Sequence[str]
    messages: Sequence[str]

    def decode(self) -> float:
        """Microseconds of CPU time a trade."""
        codec = codec_class(self.settings)(self.name, self.settings)
        _requests(codec, self.settings)
        into = Received[Item]()
        for answer in self.answers:
            codec.decode(answer, into)
        into.items.clear()
        decode, begun = codec.decode, time.thread_time()
        for message in self.messages:
            decode(message, into)
        took = time.thread_time() - begun
        assert (len(into.items), into.problems) == (TRADES, []), (self.name, into.problems[:3])
        return took / TRADES * 1e6


def _requests(codec: Any, about: SourceSettings) -> list[str]:
    return [*codec.opening(), *codec.subscribe(about.symbols)]


def case(name: str, exchange: str, make: Callable[[str], SourceSettings]) -> Case:
    dialect = exchanges.find(exchange).dialect(frozenset())
    about = make(f"ws://127.0.0.1{dialect.path}")
    session = dialect.open(dialect.path, {"origin": "https://exchange.blockchain.com"}, lambda _symbol: False)
    codec = codec_class(about)(name, about)
    answers = [answer for text in _requests(codec, about) for answer in session.receive(text)]
    (symbol,) = session.symbols
    return Case(
        name, about, answers, [text for n in range(TRADES) for text in session.encode(_trade(symbol, n))]
    )


def _trade(symbol: str, n: int) -> Trade:
    price, qty = f"61{n // 20 % 900:03d}.{n // 5 % 90 + 10}", f"0.{n * 7919 % 90_000 + 10_000}"
    return Trade(
        1_000_000 + n, symbol, "buy" if n % 3 else "sell", price, qty, 1_700_000_000_000_000 + n * 5_000
    )


def cases() -> list[Case]:
    def plain(name: str) -> Case:
        make = plugs.find("connectors", name).Settings
        return case(name, name, lambda url: make(connector=name, url=url, symbols=(SYMBOLS[name],)))

    mapped = case(MAPPED, "coinbase", lambda _url: settings(COINBASE, [USD]))
    return [*map(plain, SYMBOLS), mapped]


def main() -> None:
    every = cases()
    taken: dict[str, list[float]] = {each.name: [] for each in every}
    for _ in range(PASSES):
        for each in every:
            taken[each.name].append(each.decode())
    print("| connector | us a trade | beside Binance |\n| --- | ---: | ---: |")
    first = taken[every[0].name]
    for name, times in taken.items():
        low, middle, high = quantiles(times, n=4)
        ratio = quantiles([each / other for each, other in zip(times, first, strict=True)], n=4)[1]
        print(f"| {name} | {middle:.2f} ({low:.2f} … {high:.2f}) | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
