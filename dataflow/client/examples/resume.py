"""Print trades, and go on where this program ended, also when it was killed, or the daemon was.

    python resume.py http://127.0.0.1:8080 BTC-USDT positions.json

The position is saved behind each event, before the next one is taken. So an event may be printed twice after
a kill of this program, and none is left out.
"""

import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio

from dataflow.client import Connection, Filled, Gap, Rewound, Trade, connect


async def main(url: str, symbol: str, saved: Path, since: dict[str, Any] | None) -> None:
    async with connect(url, wait=True) as feed:
        async for event in feed.trades(symbol, since=since, snapshot=10):
            match event:
                case Trade():
                    print(event.offset, event.side, event.quantity, "at", event.price, flush=True)
                case Gap():
                    print(f"{event.first} to {event.to} are missing: {event.reason}", flush=True)
                case Filled():
                    print(f"{event.first} to {event.last} came after all", flush=True)
                case Rewound():
                    print(f"all behind {event.offset} is void", flush=True)
                case Connection():
                    print(event.state, event.reason or "", flush=True)
            save(saved, feed.positions)


def save(file: Path, positions: dict[str, Any]) -> None:
    """At once or not at all: a half-written file would be worse than an old one."""
    new = file.with_suffix(".new")
    new.write_text(json.dumps(positions))
    new.replace(file)


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    url, symbol, file = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    with suppress(KeyboardInterrupt):  # Ctrl-C ends it
        anyio.run(main, url, symbol, file, json.loads(file.read_text()) if file.exists() else None)
