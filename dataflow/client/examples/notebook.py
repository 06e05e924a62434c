"""Candles into a data frame, as in a notebook: without `async`. Needs pandas.

python notebook.py http://127.0.0.1:8080 BTC-USDT 1m
"""

import sys

from dataflow.client import Candle, connect_sync, to_pandas


def main(url: str, symbol: str, interval: str) -> None:
    with connect_sync(url) as feed:
        past = [candle for page in feed.candle_history(symbol, interval, limit=500) for candle in page]
        candles = {candle.start: candle for candle in past}
        for event in feed.candles(symbol, interval, snapshot=10):  # a later one replaces the one before
            if isinstance(event, Candle):
                candles[event.start] = event
                break  # take as many as you like
    frame = to_pandas(candles.values())
    print(frame[["open", "high", "low", "close", "volume", "complete"]].tail(10).to_string())
    print("highest", frame["high"].max(), "lowest", frame["low"].min(), "volume", frame["volume"].sum())


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(*sys.argv[1:4])
