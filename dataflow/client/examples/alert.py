"""Say when the data of symbols is not good any more, and when it is again.

    python alert.py http://127.0.0.1:8080 BTC-USDT ETH-USDT

A symbol is bad while none of its sources is live, or the daemon itself is away.
"""

import sys
from contextlib import suppress

import anyio

from dataflow.client import Connection, Quality, connect

GOOD = {"live", "quiet", "standby", "idle"}


async def main(url: str, symbols: list[str]) -> None:
    states: dict[str, dict[str, str]] = {symbol: {} for symbol in symbols}
    bad: set[str] = set()
    async with connect(url, wait=True) as feed:
        async for event in feed.quality(symbols):
            match event:
                case Connection(state="lost"):
                    print("ALERT the daemon is away:", event.reason, flush=True)
                case Connection(state="connected"):
                    print("the daemon is there", flush=True)
                case Quality():
                    states[event.symbol][event.source] = event.state
                    is_bad = not GOOD & set(states[event.symbol].values())
                    if is_bad and event.symbol not in bad:
                        bad.add(event.symbol)
                        why = f"{event.state} at {event.source} {event.reason or ''}"
                        print("ALERT", event.symbol, why, flush=True)
                    elif not is_bad and event.symbol in bad:
                        bad.discard(event.symbol)
                        print(event.symbol, "is good again, at", event.source, flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    with suppress(KeyboardInterrupt):  # Ctrl-C ends it
        anyio.run(main, sys.argv[1], sys.argv[2:])
