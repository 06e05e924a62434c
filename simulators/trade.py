"""The messages of an exchange: trades, and other messages of its streams.

Rule 1: a symbol is written as the exchange writes it (``BTCUSDT``, ``BTC-USD``); nothing here translates it.
Rule 2: prices and quantities are plain decimal strings and keep every digit; they never become floats.
Rule 3: a wrong trade cannot be created, so a simulator never sends nonsense by accident. Faults send nonsense
on purpose.
"""

from __future__ import annotations

import re
from typing import Literal, TypeAlias

import msgspec
from attrs import Attribute, evolve, field, frozen

_DECIMAL = re.compile(r"\d+(\.\d+)?")


def _is_decimal(trade: object, attribute: Attribute[str], value: str) -> None:
    if not isinstance(value, str) or not _DECIMAL.fullmatch(value):
        raise ValueError(f"{attribute.name} must be a plain decimal string such as '0.0125', not {value!r}")


def _is_side(trade: object, attribute: Attribute[str], value: str) -> None:
    if value not in ("buy", "sell"):
        raise ValueError(f"side must be 'buy' or 'sell', not {value!r}")


@frozen
class Trade:
    """One trade. `timestamp_us` is microseconds since the epoch; `side` is the taker's.

    `event_us` is when the exchange sent it, in formats that say so (Binance's ``E``); None: at
    `timestamp_us`. `aggregate` makes it an aggregated trade of Binance: the ``(first, last)`` id of its
    trades. Its own id is `id`. ValueError for a side, a price or a quantity that is none.
    """

    id: int
    symbol: str
    side: Literal["buy", "sell"] = field(validator=_is_side)
    price: str = field(validator=_is_decimal)
    qty: str = field(validator=_is_decimal)
    timestamp_us: int
    event_us: int | None = None
    aggregate: tuple[int, int] | None = None

    def moved(self, *, ids: int = 0, members: int = 0, us: int = 0) -> Trade:
        """This trade `us` microseconds later, with `ids` added to its id and `members` to `aggregate`."""
        event = None if self.event_us is None else self.event_us + us
        pair = None if self.aggregate is None else (self.aggregate[0] + members, self.aggregate[1] + members)
        return evolve(
            self, id=self.id + ids, timestamp_us=self.timestamp_us + us, event_us=event, aggregate=pair
        )


@frozen
class StreamMessage:
    """Any other message of a Binance stream (depth, bookTicker, ...), as the JSON text that was recorded."""

    stream: str
    data: str

    @property
    def symbol(self) -> str:
        """The symbol in the name of the stream, in upper case."""
        return self.stream.partition("@")[0].upper()

    def moved(self, *, ids: int = 0, us: int = 0) -> StreamMessage:
        """This message `us` microseconds later, with `ids` added to the ids of its book updates."""
        if not ids and not us:
            return self
        data: dict[str, object] = msgspec.json.decode(self.data)
        for key, step in (("E", us // 1000), ("T", us // 1000), ("U", ids), ("u", ids)):
            value = data.get(key)
            if isinstance(value, int):
                data[key] = value + step
        return evolve(self, data=msgspec.json.encode(data).decode())


Item: TypeAlias = Trade | StreamMessage
