"""`demo`: two simulated exchanges and the daemon in one process, with commands to try."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import attrs
import trio
from attrs import frozen
from loguru import logger
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

import simulators
from dataflow.domain import secrets
from dataflow.settings.load import load, shipped
from dataflow.settings.schema import Settings
from dataflow.sources.port import ListenerSettings, SourceSettings
from simulators import CONTROLS_ABOVE
from supervisors import Child, Context

from .configured import warnings
from .daemon import (
    Config,
    LogFile,
    LogFormat,
    LogLevel,
    Port,
    check_free,
    start_log,
    told_end,
    why_not_free,
    with_port,
)
from .ends import Mistake

HOST = "127.0.0.1"
SIMULATED_PORTS = {name: simulators.exchanges.find(name).port for name in ("blockchain", "binance")}
PORTS_TRIED = 50


def demo(
    *,
    config: Config = None,
    port: Port = None,
    log_format: LogFormat = "human",
    log_level: LogLevel = "info",
    log_file: LogFile = None,
) -> int:
    """Two simulated exchanges and the daemon in one process, offline.

    The exchanges replay real trades, moved to now. Ctrl-C ends everything.
    """
    ports = free_ports(SIMULATED_PORTS)
    files = [shipped("server.toml"), shipped("simulated.toml"), *(config or [])]
    settings = listening_at_free_ports(at_ports(with_port(load(files, os.environ), port), ports))
    secrets.keep(settings)
    start_log(log_format, log_level, log_file)
    check_free(settings.gateway)
    for warning in warnings():
        logger.warning("{}", warning)
    if log_format == "human":
        Console(stderr=True).print(invitation(settings, ports, command_name()))
    from dataflow import app

    exchanges = Child("exchanges", lambda: Exchanges(ports["blockchain"], ports["binance"]))
    with TemporaryDirectory(prefix="dataflow-demo-", ignore_cleanup_errors=True) as folder:
        return told_end(app.run(recording_to(folder, settings), children_before=(exchanges,)))


def recording_to(folder: str, settings: Settings) -> Settings:
    """`settings`, with a history that ends with the demo: its trades are moved to now, so no other run of it
    can go on from them. A history that the user wants elsewhere stays there."""
    default = load([shipped("server.toml")], {}).history
    if settings.history != default:
        return settings
    return attrs.evolve(settings, history=attrs.evolve(default, directory=folder))


def free_ports(wanted: Mapping[str, int]) -> dict[str, int]:
    """The wanted ports, or the next free ones if another program listens there. Raises Mistake."""
    found: dict[str, int] = {}
    for name, first in wanted.items():
        candidates = range(first, first + PORTS_TRIED)
        free = (port for port in candidates if port not in found.values() and _is_free(port))
        port = next(free, None)
        if port is None:
            raise Mistake(f"no port from {first} to {candidates[-1]} is free for the simulated {name}")
        found[name] = port
    return found


def listening_at_free_ports(settings: Settings) -> Settings:
    """`settings`, with each listener beside the gateway at its port or the next free one. Raises Mistake."""
    taken = {settings.gateway.port}

    def moved(name: str, keys: Any) -> Any:
        port = next(
            (each for each in range(keys.port, keys.port + PORTS_TRIED) if free(keys.host, each)), None
        )
        if port is None:
            raise Mistake(f"no port from {keys.port} to {keys.port + PORTS_TRIED - 1} is free for {name}")
        taken.add(port)
        return attrs.evolve(keys, port=port)

    def free(host: str, port: int) -> bool:
        return port not in taken and not why_not_free(host, port)

    def all_moved(tables: Mapping[str, Any]) -> dict[str, Any]:
        return {name: moved(name, keys) if hasattr(keys, "port") else keys for name, keys in tables.items()}

    return attrs.evolve(settings, sources=all_moved(settings.sources), faces=all_moved(settings.faces))


def _is_free(port: int) -> bool:
    return not why_not_free(HOST, port) and not why_not_free(HOST, port + CONTROLS_ABOVE)


def at_ports(settings: Settings, ports: Mapping[str, int]) -> Settings:
    """`settings`, with the sources of the simulators moved from the usual ports to the present ones."""
    sources = dict(settings.sources)
    for name, usual in SIMULATED_PORTS.items():
        for source, about in settings.sources.items():
            if not isinstance(about, SourceSettings):
                continue
            at, now = f"//{HOST}:{usual}", f"//{HOST}:{ports[name]}"
            url = about.url.replace(f"{at}/", f"{now}/")
            asked = re.sub(f"{re.escape(at)}$", now, about.refill_url)
            if (url, asked) != (about.url, about.refill_url):
                sources[source] = attrs.evolve(about, url=url, refill_url=asked)
    return attrs.evolve(settings, sources=sources)


@frozen
class Exchanges:
    """The simulated exchanges as one actor, so that the demo is one tree."""

    blockchain_port: int
    binance_port: int

    async def run(self, ctx: Context) -> None:
        """Serve until the stop."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._serve)
            ctx.ready()
            await ctx.stopping.wait()
            nursery.cancel_scope.cancel()

    async def _serve(self, task_status: trio.TaskStatus[object]) -> None:
        await simulators.serve_demo(
            host=HOST,
            blockchain_port=self.blockchain_port,
            binance_port=self.binance_port,
            task_status=task_status,
        )


def command_name() -> str:
    """The words that call this command from here: its name if it is on the PATH, else its path."""
    found, own = shutil.which("dataflow"), Path(sys.argv[0])
    if found is not None and own.exists() and Path(found).samefile(own):
        return "dataflow"
    return (
        os.path.relpath(own) if own.name == "dataflow" else f"{os.path.relpath(sys.executable)} -m dataflow"
    )


def invitation(settings: Settings, ports: Mapping[str, int], command: str) -> Panel:
    """The page to open, and commands for another terminal."""
    gateway = f"{HOST}:{settings.gateway.port}"
    at = "" if settings.gateway.port == 8080 else f" --url {gateway}"
    cut = f"{HOST}:{ports['binance'] + CONTROLS_ABOVE}/disconnect"
    table = Table.grid(padding=(0, 2))
    producers = [each for each in settings.sources.values() if isinstance(each, ListenerSettings)]
    to = [f" --to {each.host}:{each.port}" if each.port != 9000 else "" for each in producers]
    for what, how in (
        ("open", f"http://{gateway}/"),
        ("protocols", f"http://{gateway}/faces"),
        ("trades", f"{command} tail BTC-USD BTC-USDT{at}"),
        *(("push ticks", f"{command} simulate ticks{each}") for each in to[:1]),
        ("sources", f"{command} top{at}"),
        ("the tree", f"{command} status --watch{at}"),
        ("cut a wire", f'curl {cut} -d \'{{"mode":"drop","seconds":5}}\''),
        ("restart", f"curl -X POST {gateway}/actors/cache/shard-0/restart"),
    ):
        table.add_row(Text(what, style="dim"), Text(how, style="bold"))
    return Panel(table, title="dataflow demo", subtitle="Ctrl-C ends it", expand=False)
