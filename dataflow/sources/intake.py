"""The one entry for all that clients push: judged, given a name that the core knows, and put into the shards.

Rules of this file. What is pushed becomes a trade, or it is refused for the first reason that holds, in the
order of `REFUSALS`; nothing is mended but the blanks and the small letters of a symbol. A tick has no id and
no side, and none is made up: each accepted one is a trade. A trade that was pushed with its id is taken once,
however often its producer repeats it; another trade with that id is refused. The history knows the ids, and
`_recent` those on their way to it. Whoever pushes waits while the shards have no room. An intake outlives
every actor.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Sequence
from decimal import Decimal
from math import inf
from typing import Final

import trio

from dataflow.domain import Item, Trade
from dataflow.domain.symbols import ANY
from dataflow.domain.timestamps import LATEST
from supervisors import ActorGone

from .port import TICKER, ProducerSettings, Pushed, Tick
from .reading import Unusable
from .state import SourceState

BAD_SYMBOL: Final = "bad_symbol"
BAD_PRICE: Final = "bad_price"
BAD_QUANTITY: Final = "bad_quantity"
BAD_TIMESTAMP: Final = "bad_timestamp"
TOO_MANY_SYMBOLS: Final = "too_many_symbols"
SYMBOL_TAKEN: Final = "symbol_taken"
SYMBOL_NOT_ALLOWED: Final = "symbol_not_allowed"
REFUSALS: Final = (
    *(BAD_SYMBOL, BAD_PRICE, BAD_QUANTITY, BAD_TIMESTAMP),
    *(TOO_MANY_SYMBOLS, SYMBOL_TAKEN, SYMBOL_NOT_ALLOWED),
)
ID_REUSED: Final = "id_reused"  # by a trade with other values: refused as well
REPEATED: Final = "repeated"  # no refusal: the trade is here already

BATCHES_AT_ONCE: Final = 4  # of some 400 ticks each: to refuse one takes some 3 ms
_is_ticker: Final = re.compile(TICKER.pattern, re.ASCII | re.IGNORECASE).fullmatch
_BLANKS: Final = " \t\n\v\f\r"
PRESENT: Final = 120.0  # seconds for which a producer that pushes by HTTP is there after a request
ADDRESSES: Final = 1_000  # of such producers; of more the newest count
RECENT: Final = 32_768  # ids; more trades than can be on their way from producers to the shards
_REMEMBERED: Final = 4096  # spellings, prices, volumes; then forgotten all at once


class _Memory(dict[object, Decimal]):
    """The decimals of the last numbers: many ticks have the same few."""

    def __missing__(self, number: float | int) -> Decimal:
        if len(self) >= _REMEMBERED:
            self.clear()
        self[number] = exact = Decimal(repr(number).removesuffix(".0"))
        return exact


class Intake:
    """Of one source. `is_taken(symbol)`: an exchange has it, or another symbol has its name without dashes.

    `discover(symbol)`: the source carries it from now on. `deliver(items)` waits for room in the shards.
    `admitted(symbol, trade_id)`: the trade of this source with that id, as far as the history remembers.
    """

    def __init__(
        self,
        source: SourceState,
        is_taken: Callable[[str], bool],
        discover: Callable[[str], None],
        deliver: Callable[[Sequence[Item]], Awaitable[None]],
        admitted: Callable[[str, str], Trade | None] = lambda _symbol, _id: None,
    ) -> None:
        self._source = source
        self._is_taken = is_taken
        self._discover = discover
        self._deliver = deliver
        self._admitted = admitted
        self._recent: dict[tuple[str, str | None], Trade] = {}
        self._heard: dict[str, float] = {}  # when each address has pushed last, the oldest first
        self._is_open = True
        self._turns = trio.Semaphore(BATCHES_AT_ONCE)
        self._symbols: set[str] = set()
        self._spellings: dict[str, str] = {}
        self._prices, self._volumes = _Memory(), _Memory()

    @property
    def symbols(self) -> Collection[str]:
        """The symbols that have come so far."""
        return self._symbols

    def up(self) -> None:
        """The source takes ticks from now on: all that it may carry is live."""
        symbols = sorted({*self._symbols, *self._settings.symbols} - {ANY})
        self._source.up(symbols)
        for symbol in symbols:
            self._source.subscribed(symbol)

    def adopt(self, is_open: bool = True) -> None:
        """The settings have changed, of this source or of others: every symbol is judged anew.

        Unless `is_open`, the source takes nothing any more.
        """
        self._is_open = is_open
        self._spellings.clear()
        before, self._symbols = self._symbols, set()
        for symbol in sorted(before):
            if self._why_not(symbol) is None:
                self._symbols.add(symbol)
                self._discover(symbol)
            else:
                self._source.unsubscribed(symbol)

    def came(self) -> None:
        """A producer has connected. Its end is told with `went`."""
        self._source.attended(self._source.producers + 1)

    def went(self) -> None:
        """A producer has left."""
        self._source.attended(self._source.producers - 1)

    def heard(self, address: str) -> None:
        """A producer without a connection has pushed from this address; it is there for `PRESENT` seconds."""
        self._heard.pop(address, None)
        self._heard[address] = trio.current_time()
        if len(self._heard) > ADDRESSES:
            del self._heard[next(iter(self._heard))]
        self._source.attended(len(self._heard))

    def forget_the_silent(self) -> None:
        """Those who have not pushed for `PRESENT` seconds are gone."""
        now = trio.current_time()
        self._heard = {address: at for address, at in self._heard.items() if at + PRESENT > now}
        self._source.attended(len(self._heard))

    async def turn(self) -> None:
        """Wait until a batch may be judged. What the caller does before its next checkpoint is done in it.

        A few in one pass of the event loop: the shards bound what is good, nothing else what is refused.
        """
        async with self._turns:
            await trio.lowlevel.checkpoint()

    def judge(self, tick: Tick) -> Trade:
        """The trade that a tick tells. Raises Unusable, with one of `REFUSALS`."""
        written, price, volume, moment = tick.symbol, tick.price, tick.volume, tick.exchange_timestamp
        symbol = self._spellings.get(written)
        if symbol is None:
            name = _name(written)
        if not 0 < price < inf:  # nor NaN
            raise Unusable(BAD_PRICE)
        if volume <= 0:
            raise Unusable(BAD_QUANTITY)
        if not 0 < moment < LATEST:
            raise Unusable(BAD_TIMESTAMP)
        if symbol is None:
            symbol = self._let_in(written, name.upper())
        return Trade(
            self._source.name, symbol, None, None, self._prices[price], self._volumes[volume], moment
        )

    def accept(self, pushed: Pushed) -> Trade:
        """The trade that was pushed. Raises Unusable, with one of `REFUSALS`, `ID_REUSED` or
        `REPEATED`.

        It counts as taken from now on; `put` it, or its repetition will be in vain.
        """
        written, symbol = pushed.symbol, self._spellings.get(pushed.symbol)
        name = symbol or _name(written)
        if not 0 < pushed.price < inf:
            raise Unusable(BAD_PRICE)
        if not 0 < pushed.quantity < inf:
            raise Unusable(BAD_QUANTITY)
        if not 0 < pushed.timestamp < LATEST:
            raise Unusable(BAD_TIMESTAMP)
        symbol = symbol or self._let_in(written, name.upper())
        trade = Trade(
            *(self._source.name, symbol, pushed.trade_id, pushed.side),
            *(pushed.price, pushed.quantity, pushed.timestamp, pushed.sequence),
        )
        if pushed.trade_id is not None:
            self._check_new(trade, pushed.trade_id)
        return trade

    def _check_new(self, trade: Trade, trade_id: str) -> None:
        key = (trade.symbol, trade_id)
        known = self._recent.get(key) or self._admitted(*key)
        if known is not None:
            raise Unusable(REPEATED if known == trade else ID_REUSED)
        self._recent[key] = trade
        if len(self._recent) > RECENT:
            del self._recent[next(iter(self._recent))]

    def refused(self, reason: str, about: str) -> None:
        """Count a refusal. `about`: an excerpt of what was refused, for the log."""
        self._source.problem(reason, about)

    async def put(self, trades: Sequence[Item], size: int = 0) -> None:
        """Hand over trades, in order, which came in `size` bytes. Waits for room.

        Raises ActorGone when there will be none, or the source is gone.
        """
        try:
            if not self._is_open:
                raise ActorGone(f"there is no source {self._source.name} any more")
            self._source.received(len(trades), size)
            if trades:
                await self._deliver(trades)
        except BaseException:
            for trade in trades if self._recent else ():  # so that its producer may push it again
                if isinstance(trade, Trade):
                    self._recent.pop((trade.symbol, trade.trade_id), None)
            raise

    @property
    def _settings(self) -> ProducerSettings:
        settings = self._source.settings
        assert isinstance(settings, ProducerSettings)
        return settings

    @property
    def _is_full(self) -> bool:
        return len(self._symbols) >= self._settings.max_symbols

    def _let_in(self, written: str, symbol: str) -> str:
        if symbol not in self._symbols:
            self._enter(symbol)
        if len(self._spellings) >= _REMEMBERED:
            self._spellings.clear()
        self._spellings[written] = symbol
        return symbol

    def _enter(self, symbol: str) -> None:
        if self._is_open and ANY in self._settings.symbols and self._is_full:
            raise Unusable(TOO_MANY_SYMBOLS)
        if (why := self._why_not(symbol)) is not None:
            raise Unusable(why)
        self._symbols.add(symbol)
        self._discover(symbol)
        self._source.subscribed(symbol)

    def _why_not(self, symbol: str) -> str | None:
        if not self._is_open:
            return SYMBOL_NOT_ALLOWED
        if self._is_taken(symbol):
            return SYMBOL_TAKEN
        allowed = self._settings.symbols
        return None if ANY in allowed or symbol in allowed else SYMBOL_NOT_ALLOWED


def _name(written: str) -> str:
    """A symbol without the blanks around it. Raises Unusable."""
    name = written.strip(_BLANKS)
    if _is_ticker(name) is None:
        raise Unusable(BAD_SYMBOL)
    return name
