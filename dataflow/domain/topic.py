"""What can be listened to: a channel of a symbol, in a variant where the channel has several."""

from __future__ import annotations

from typing import Final, NamedTuple

TRADES: Final = "trades"
QUALITY: Final = "quality"


class Topic(NamedTuple):
    """One stream. As text "BTC-USD" for trades, "quality:BTC-USD", "candles:BTC-USD:1m": a symbol has no
    colon.

    A NamedTuple, because it is the key of lanes and subscriptions: it is compared without Python code.
    """

    channel: str
    symbol: str
    variant: str = ""

    def __str__(self) -> str:
        if self.channel == TRADES:  # the name that trades have in paths, in the log and in metrics
            return self.symbol
        return ":".join(filter(None, self))
