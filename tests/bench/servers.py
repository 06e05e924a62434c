"""The measured servers: the daemon as users run it, and the interface that its peers share.

Rules of this file: every server runs on the server's core. Commands say when updates are due (`rate R`, `flood`,
`idle`). The daemon gets its updates through a socket from a simulated exchange, which takes the commands. A peer takes
the commands itself and makes its own updates.
"""

from __future__ import annotations

import socket
import ssl
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

from . import compiled
from .machine import Cores
from .processes import Program, ProgramFailed

CHECKOUT = Path(__file__).parents[2]
SYMBOL = "BTC-USDT"
SYMBOLS = {"binance": SYMBOL, "blockchain": "BTC-USD"}
SUBSCRIBE = f'{{"jsonrpc":"2.0","id":1,"method":"subscribe","params":{{"symbol":"{SYMBOL}"}}}}'
# An update as the daemon sends it: @N is the number of the trade, @S its time of sending in ns since 1970.
UPDATE = (
    f'{{"jsonrpc":"2.0","method":"trades.update","params":{{"seqnum":@N,"event":"updated","channel":"trades","symbol":"{SYMBOL}",'
    '"timestamp":"2026-01-02T03:04:05.678000Z","side":"sell","qty":@S,"price":61837.63000000,"tradeId":"@N",'
    '"source":"binance","offset":@N}}'
)
Tables = dict[str, dict[str, Any]]
FACES = ("signalr", "pricehub", "marketdata", "stomp", "graphql", "grpc", "docs")  # off by default
FOLDER = "{folder}"  # in a value: the folder of the configuration, which ends with the daemon
RECORDING: Tables = {"history": {"directory": f"{FOLDER}/history"}}
START_WITHIN = 30.0  # seconds
_ANY = ssl._create_unverified_context()  # no authority knows the certificate: each run makes its own


class Server(Protocol):
    """A server that clients connect to."""

    name: str
    port: int
    program: Program

    def tell(self, line: str) -> None:
        """`rate R`, `flood` or `idle`."""

    def close(self) -> None:
        """End the server."""


class Dataflow:
    """`python -m dataflow run` in a checkout, with a configuration of its own, connected to feeds.

    `tables` are added to the configuration, as TOML's tables. `speak` are the languages of the feeds; `tell` speaks to
    the first feed.
    """

    def __init__(
        self,
        cores: Cores,
        checkout: Path,
        tables: Tables | None = None,
        *,
        speak: Sequence[str] = ("binance",),
    ) -> None:
        self.name = "dataflow"
        compiled.BUILD.mkdir(exist_ok=True)
        with ExitStack() as stack:
            self.feeds = [stack.enter_context(feed(language, cores)) for language in speak]
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            self.port = free_port()
            config = folder / "bench.toml"
            ports = {
                language: each.answer()["port"] for language, each in zip(speak, self.feeds, strict=True)
            }
            written = toml(config_of(self.port, ports, tables or {}, checkout))
            config.write_text(written.replace(FOLDER, str(folder)))
            self._tls = "tls_certificate" in (tables or {}).get("gateway", {})
            self._begun = time.monotonic()
            command = [str(interpreter(checkout)), "-m", "dataflow", "run"]
            command += ["--config", str(config), "--log-level", "warning"]
            log = compiled.BUILD / "dataflow.log"
            self.program = Program("dataflow", command, cores=cores.server, log=log, cwd=checkout)
            stack.enter_context(self.program)
            self.start_seconds = self._until_ready()
            self._stack = stack.pop_all()

    @property
    def feed(self) -> Program:
        return self.feeds[0]

    def _until_ready(self) -> float:
        """Seconds until /ready says so and every feed has a subscriber."""
        while not (answers(self.address) and all(each.ask("count")["readers"] for each in self.feeds)):
            self.program.check()
            if time.monotonic() > self._begun + START_WITHIN:
                raise ProgramFailed(f"the daemon was not ready within {START_WITHIN:.0f} s")
            time.sleep(0.005)
        return time.monotonic() - self._begun

    @property
    def address(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def tell(self, line: str) -> None:
        self.feed.ask(line)

    def metric(self, line: str) -> float:
        """The value of the line of /metrics that begins with `line`. Raises ProgramFailed."""
        for each in self.metrics():
            if each.startswith(line):
                return float(each.rpartition(" ")[2])
        raise ProgramFailed(f"/metrics has no {line}")

    def metrics(self) -> list[str]:
        """The lines of /metrics."""
        with urllib.request.urlopen(f"{self.address}/metrics", timeout=10, context=_ANY) as answer:
            text: str = answer.read().decode()
        return text.splitlines()

    def metric_or_zero(self, line: str) -> float:
        """Likewise, and 0 without such a line: a counter appears with its first count."""
        try:
            return self.metric(line)
        except ProgramFailed:
            return 0.0

    def log(self) -> str:
        """The log of the daemon so far."""
        return (compiled.BUILD / "dataflow.log").read_text(errors="replace")

    def restart(self, path: str) -> None:
        """Restart an actor."""
        call = urllib.request.Request(f"{self.address}/actors/{path}/restart", method="POST")
        urllib.request.urlopen(call, timeout=30, context=_ANY).close()

    def close(self) -> None:
        self._stack.close()


def all_faces() -> Tables:
    """The tables that switch on every face."""
    tables: Tables = {f"faces.{face}": {"enabled": True} for face in FACES}
    tables["faces.grpc"]["port"] = free_port()
    return tables


def interpreter(checkout: Path) -> Path:
    """The interpreter of a checkout's own environment; without one, or for this checkout, the running interpreter."""
    own = checkout / ".venv" / "bin" / "python"
    return Path(sys.executable) if checkout == CHECKOUT or not own.exists() else own


def feed(language: str, cores: Cores) -> Program:
    """A simulated exchange. It prints its port first, then takes commands."""
    log = compiled.BUILD / f"feed-{language}.log"
    return Program("feed", [compiled.program("feed"), "--speak", language], cores=cores.feed, log=log)


def config_of(port: int, feeds: Mapping[str, int], more: Tables, checkout: Path = CHECKOUT) -> Tables:
    """The tables of a daemon that knows nobody but the feeds. `more` are added; older checkouts know fewer keys."""
    asks = "refill_url" in (checkout / "config" / "server.toml").read_text()
    tables: Tables = {"gateway": {"port": port, "max_sessions": 20_000}}
    for language, feed_port in feeds.items():
        # A feed is silent between two measurements; probes would disturb them.
        source = {"connector": language, "eager": True, "stale_after": 3600.0}
        source |= {"url": f"ws://127.0.0.1:{feed_port}/stream", "symbols": [SYMBOLS[language]]}
        if (
            asks and language == "binance"
        ):  # in silence it would ask the real exchange; a feed answers nothing
            source["refill_url"] = f"http://127.0.0.1:{feed_port}"
        tables[f"sources.{language}"] = source
    return {name: tables.get(name, {}) | more.get(name, {}) for name in {**tables, **more}}


def toml(tables: Tables) -> str:
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
    """Whether /ready says that the daemon is ready."""
    try:
        urllib.request.urlopen(f"{address}/ready", timeout=2, context=_ANY).close()
    except (urllib.error.URLError, OSError):
        return False
    return True


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
