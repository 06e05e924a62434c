"""The exchanges of a rehearsal, and the verdict on what they sent.

Rules of this file. An exchange that can be asked by HTTP goes on while no connection is there: what it sends
then is missed, and must be asked for. Any other holds its trades, so a lost connection costs none of those
that it has not sent. It remembers all that it sent.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Final, Literal

import simulators
from simulators import Exchange, Player

from .check import Admitted, Seen, SourceAccount, missed_anew, source_account

SPEED: Final = 5.0  # times the recordings' own pace: about 500 trades a second together
REMEMBERED: Final = 1_000_000  # trades of a symbol: more than a rehearsal has

_OPENED: Final = {
    "blockchain": (simulators.open_blockchain, simulators.blockchain_feed),
    "binance": (simulators.open_binance, simulators.binance_feed),
}
EXCHANGES: Final = tuple(_OPENED)
ASKED: Final = ("binance",)  # by HTTP; their trades are numbered


@asynccontextmanager
async def playing(
    name: str, *, seed: int, repeated: int, speed: float = SPEED, holds: bool = True
) -> AsyncIterator[tuple[Exchange, Player]]:
    """An exchange that plays its recording. `repeated`: trades of a symbol that it sends again to a client
    that comes back. `holds`: it waits while nobody is subscribed."""
    opened, feed = _OPENED[name]
    absent: Literal["held", "lost"] = "held" if holds else "lost"
    async with (
        opened(absent=absent, replay_last=repeated, history=REMEMBERED, seed=seed) as exchange,
        simulators.playing(exchange, feed(), speed=speed, start="all_subscribed") as player,
    ):
        yield exchange, player


def judge(
    name: str, exchange: Exchange, symbols: Collection[str], admitted: Mapping[str, Admitted]
) -> SourceAccount:
    """The verdict on all symbols of an exchange."""
    whole = SourceAccount()
    for symbol in symbols:
        upstream = symbol if name == "blockchain" else symbol.replace("-", "")
        sent = [_sent(name, trade) for trade in exchange.tape(upstream)]
        whole.add(source_account(symbol, sent, admitted[symbol]))
    return whole


def newest_trades(name: str, exchange: Exchange, symbols: Collection[str]) -> Iterator[tuple[str, Seen]]:
    """The newest trade that it sent of each symbol, if there is one."""
    for symbol in symbols:
        if tape := exchange.tape(symbol if name == "blockchain" else symbol.replace("-", "")):
            yield symbol, _sent(name, tape[-1])


def numbered_anew(
    name: str, exchange: Exchange, symbols: Collection[str], admitted: Mapping[str, Admitted]
) -> int:
    """How many trades were missed because the exchange numbered anew."""
    return sum(
        missed_anew(
            [trade.id for trade in exchange.tape(symbol.replace("-", ""))],
            {int(trade.trade_id or 0) for trade in admitted[symbol].trades.values() if trade.source == name},
        )
        for symbol in symbols
    )


def _sent(source: str, trade: simulators.Trade) -> Seen:
    return Seen(source, str(trade.id), trade.side, Decimal(trade.price), Decimal(trade.qty))
