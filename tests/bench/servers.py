"""What is measured: the daemon as users run it, and its peers, behind one interface.

Rules of this file: every server runs on the server's core and is told by lines when updates are due (`rate R`, `flood`,
`idle`). The daemon gets them through a socket from a simulated exchange, which is told; a peer makes them itself.
"""

from __future__ import annotations

import socket
import ssl
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Protocol

from . import compiled
from .machine import Cores
from .processes import Program, ProgramFailed

CHECKOUT = Path(__file__).parents[2]
SYMBOL = "BTC-USDT"
SUBSCRIBE = f'{{"jsonrpc":"2.0","id":1,"method":"subscribe","params":{{"symbol":"{SYMBOL}"}}}}'
# An update as the daemon sends it: @N is the number of the trade, @S the time in ns at which it was sent.
UPDATE = (
    f'{{"jsonrpc":"2.0","method":"trades.update","params":{{"seqnum":@N,"event":"updated","channel":"trades","symbol":"{SYMBOL}",'
    '"timestamp":"2026-01-02T03:04:05.678000Z","side":"sell","qty":@S,"price":61837.63000000,"tradeId":"@N",'
    '"source":"binance","offset":@N}}'
)
START_WITHIN = 30.0  # seconds
_ANY = ssl._create_unverified_context()  # the certificate is made for the run


class Server(Protocol):
    """Something that clients connect to."""

    name: str
    port: int
    program: Program

    def tell(self, line: str) -> None:
        """`rate R`, `flood` or `idle`."""

    def close(self) -> None:
        """End it."""


class Dataflow:
    """`python -m dataflow run` with a configuration of its own, connected to a feed that is told what to say.

    `tables` are added to the configuration, as TOML's tables.
    """

    def __init__(
        self,
        cores: Cores,
        checkout: Path,
        tables: dict[str, dict[str, Any]] | None = None,
        *,
        speak: str = "binance",
    ) -> None:
        self.name = "dataflow"
        compiled.BUILD.mkdir(exist_ok=True)
        log = compiled.BUILD / "feed.log"
        self.feed = Program("feed", [compiled.program("feed"), "--speak", speak], cores=cores.feed, log=log)
        self._folder = tempfile.TemporaryDirectory()
        try:
            self.port = free_port()
            config = Path(self._folder.name, "bench.toml")
            config.write_text(toml(_tables(self.port, self.feed.answer()["port"], speak, tables or {})))
            self._tls = "tls_certificate" in (tables or {}).get("gateway", {})
            self.begun = time.monotonic()
            command = [
                sys.executable,
                "-m",
                "dataflow",
                "run",
                "--config",
                str(config),
                "--log-level",
                "warning",
            ]
            log = compiled.BUILD / "dataflow.log"
            self.program = Program("dataflow", command, cores=cores.server, log=log, cwd=checkout)
            try:
                self.start_seconds = self._until_ready()
            except BaseException:
                self.program.close()
                raise
        except BaseException:
            self.feed.close()
            self._folder.cleanup()
            raise

    def _until_ready(self) -> float:
        """Seconds until /ready says so and the feed is subscribed to."""
        deadline = self.begun + START_WITHIN
        while not (answers(self.address) and self.feed.ask("count")["readers"]):
            self.program.check()
            if time.monotonic() > deadline:
                raise ProgramFailed(f"the daemon was not ready within {START_WITHIN:.0f} s")
            time.sleep(0.005)
        return time.monotonic() - self.begun

    @property
    def address(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def tell(self, line: str) -> None:
        self.feed.ask(line)

    def metric(self, line: str) -> float:
        """The value of the line of /metrics that begins with `line`. Raises ProgramFailed."""
        with urllib.request.urlopen(f"{self.address}/metrics", timeout=10, context=_ANY) as answer:
            for each in answer.read().decode().splitlines():
                if each.startswith(line):
                    return float(each.rpartition(" ")[2])
        raise ProgramFailed(f"/metrics has no {line}")

    def close(self) -> None:
        self.feed.close()
        self.program.close()
        self._folder.cleanup()


def _tables(port: int, feed: int, speak: str, more: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    # A feed is silent between two measurements, and wants no probes in them.
    source: dict[str, Any] = {"eager": True, "stale_after": 3600.0}
    if speak == "binance":
        source |= {"connector": "binance", "url": f"ws://127.0.0.1:{feed}/stream", "symbols": [SYMBOL]}
    else:
        source |= {"connector": "blockchain", "url": f"ws://127.0.0.1:{feed}/", "symbols": ["BTC-USD"]}
    tables: dict[str, dict[str, Any]] = {
        "gateway": {"port": port, "max_sessions": 20_000},
        f"sources.{speak}": source,
    }
    for name, keys in more.items():
        tables[name] = tables.get(name, {}) | keys
    return tables


def toml(tables: dict[str, dict[str, Any]]) -> str:
    """Tables of plain values as TOML."""
    lines = []
    for name, keys in tables.items():
        lines.append(f"[{name}]")
        lines += [f"{key} = {_value(value)}" for key, value in keys.items()]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + value + '"'
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return str(value)


def answers(address: str) -> bool:
    """Whether /ready says that it is."""
    try:
        urllib.request.urlopen(f"{address}/ready", timeout=2, context=_ANY).close()
    except (urllib.error.URLError, OSError):
        return False
    return True


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
