"""Topics: one channel of one symbol, in one variant if the channel has several."""

from __future__ import annotations

from typing import Final, NamedTuple

TRADES: Final = "trades"
QUALITY: Final = "quality"
DAYS: Final = "days"
PRICES: Final = "prices"
CANDLES: Final = "candles"


class Topic(NamedTuple):
    """One stream that clients can subscribe to.

    As text: "BTC-USD" for trades, else "quality:BTC-USD" or "candles:BTC-USD:1m". No two topics have the same
    text, though a symbol may have a colon: symbols are in capitals, and channels in small letters.

    Topics are the keys of lanes and subscriptions. A NamedTuple is compared and hashed without Python code.
    """

    channel: str
    symbol: str
    variant: str = ""

    def of(self, symbol: str) -> Topic:
        """The same of another symbol. A third of what `_replace` costs: it is made for each piece of news."""
        return Topic(self.channel, symbol, self.variant)

    def __str__(self) -> str:
        if self.channel == TRADES:  # so it stands in paths, logs and metrics
            return self.symbol
        return ":".join(filter(None, self))
