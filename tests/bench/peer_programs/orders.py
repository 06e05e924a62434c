"""The common part of the Python peers: the port, the orders on standard input, and the due updates.

Rules of this file: it must cost a peer next to nothing. An update is made once and is the same text for all clients.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable

LATEST_SLEEP = 0.1  # seconds: the longest sleep before a look at the orders


class Orders:
    """The orders `rate R`, `flood` and `idle`. The end of standard input ends the process.

    In the text of `--update`, @N is the number of the update and @S its stamp.
    """

    def __init__(self) -> None:
        parser = argparse.ArgumentParser()
        parser.add_argument("--clients", type=int, default=0)
        parser.add_argument("--update", required=True)
        update = parser.parse_args().update.replace("%", "%%")
        self._format = re.sub("@([NS])", r"%(\1)d", update)
        self.rate = 0.0  # < 0: as many as possible
        self.made = 0
        self._due = self._busy_until = 0

    def announce(self, port: int) -> None:
        """Print the port and begin to take orders. Needs a running event loop."""
        print(json.dumps({"port": port}), flush=True)
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), self._obey)

    def _obey(self) -> None:
        line = os.read(sys.stdin.fileno(), 4096)
        if not line:
            os._exit(0)
        word, _, value = line.decode().strip().partition(" ")
        self.rate = {"flood": -1.0, "idle": 0.0}.get(word, float(value or 0))
        self._due = time.monotonic_ns()
        print(json.dumps({"made": self.made}), flush=True)

    async def updates(self) -> AsyncIterator[bytes]:
        """Every update when it is due.

        An update that became due while the server was busy carries the time when it became due. Every other update
        carries the time of its making. So the age contains the delay of the server, but not of the loop's timers.
        """
        while True:
            if self.rate == 0:
                await asyncio.sleep(LATEST_SLEEP)
                continue
            late = 0
            if self.rate > 0:
                now = time.monotonic_ns()
                if now < self._due:
                    await asyncio.sleep(min((self._due - now) / 1e9, LATEST_SLEEP))
                    continue
                late = now - self._due if self._due < self._busy_until else 0
                self._due += int(1e9 / self.rate)
            self.made += 1
            yield (self._format % {"N": self.made, "S": time.time_ns() - late}).encode()
            await asyncio.sleep(0)  # a turn for new connections, and for writes that wait
            self._busy_until = time.monotonic_ns()


def listen() -> socket.socket:
    """A listening socket on a free port."""
    return socket.create_server(("127.0.0.1", 0), backlog=4096)


def run(main: Callable[[], object]) -> None:
    """Run an async main on uvloop, as users of these libraries do."""
    import uvloop

    uvloop.run(main())  # type: ignore[arg-type]
