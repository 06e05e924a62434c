"""The common part of the readers: the port of the feed, and the answers with the count of trades."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Callable


def port() -> int:
    """The port of the feed, from the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    found: int = parser.parse_args().port
    return found


def answer(count: Callable[[], int]) -> None:
    """Answer every line of standard input with the count. The end of standard input ends the process."""

    def told() -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            os._exit(0)
        print(json.dumps({"count": count()}), flush=True)

    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), told)
