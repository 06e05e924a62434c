"""What an exchange has to tell: trades, and other messages of its streams.

Rule 1: a trade is named as the exchange names it (``BTCUSDT``, ``BTC-USD``); nothing here translates symbols.
Rule 2: prices and quantities are plain decimal strings, digit for digit; they never pass through a float.
Rule 3: a wrong trade is refused when it is made, so that a simulator cannot send nonsense by accident (for
nonsense on purpose there are faults).
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

    `event_us` is when the exchange sent it, where the format has that (Binance's ``E``); None means at once.
    `aggregate` is ``(first, last)`` trade id when this is Binance's aggregated trade, whose own id is `id`.
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
        """The same trade `us` microseconds later, its id grown by `ids`, its members' ids by `members`."""
        event = None if self.event_us is None else self.event_us + us
        pair = None if self.aggregate is None else (self.aggregate[0] + members, self.aggregate[1] + members)
        return evolve(
            self, id=self.id + ids, timestamp_us=self.timestamp_us + us, event_us=event, aggregate=pair
        )


@frozen
class StreamMessage:
    """Any other message of a Binance stream (depth, bookTicker, ...), kept as the JSON text it was."""

    stream: str
    data: str

    @property
    def symbol(self) -> str:
        """The symbol in the stream's name, in capitals."""
        return self.stream.partition("@")[0].upper()

    def moved(self, *, ids: int = 0, us: int = 0) -> StreamMessage:
        """The same message `us` microseconds later, its book update ids grown by `ids`."""
        if not ids and not us:
            return self
        data: dict[str, object] = msgspec.json.decode(self.data)
        for key, step in (("E", us // 1000), ("T", us // 1000), ("U", ids), ("u", ids)):
            value = data.get(key)
            if isinstance(value, int):
                data[key] = value + step
        return evolve(self, data=msgspec.json.encode(data).decode())


Item: TypeAlias = Trade | StreamMessage
