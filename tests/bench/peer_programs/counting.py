"""What the readers have in common: they connect to `--port`, and tell how many trades they took when asked."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Callable


def port() -> int:
    """Where the feed listens."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    found: int = parser.parse_args().port
    return found


def answer(count: Callable[[], int]) -> None:
    """Answer every line of standard input with the count, and end with it; in the event loop."""

    def told() -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            os._exit(0)
        print(json.dumps({"count": count()}), flush=True)

    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), told)
