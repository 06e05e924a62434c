"""Simulators as commands. Each coroutine serves until it is cancelled, and reports its URLs by `task_status`.

Rule 1: nothing is printed. `say` gets a line for each event.
Rule 2: without a feed an exchange plays its own (see `Definition`): shipped recordings, looped and moved to
now.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TypeAlias, TypedDict, Unpack

import trio
from attrs import frozen

from . import exchanges
from .control_port import ControlPort
from .controls import Controls, Speed, speed_of
from .dialect import Dialect
from .exchange import Absent, Exchange, ignore
from .exchanges.binance import PORT as BINANCE_PORT
from .exchanges.blockchain import PORT as BLOCKCHAIN_PORT
from .feed import Feed, recorded, relabel
from .keyboard import each_key, exchange_keys, help_line, presser
from .player import Pace, Player, Start
from .recordings import RecordingError, read

Say: TypeAlias = Callable[[str], None]
CONTROLS_ABOVE = 100


@frozen
class Served:
    """The URLs of a running simulator, and its controls."""

    url: str
    control_url: str
    controls: Controls


async def serve_exchange(
    dialect: Dialect,
    feed: Feed | None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    control_port: int | None = None,
    speed: Speed = 1.0,
    start: Start = "now",
    absent: Absent = "lost",
    replay_last: int = 0,
    seed: int = 0,
    keyboard: bool = False,
    say: Say = ignore,
    task_status: trio.TaskStatus[Served] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve a dialect and its control port, and play `feed` (None: play nothing).

    `control_port` is `port` + 100 unless given (a free port when `port` is 0). `keyboard` reads keys from the
    terminal. The other options are those of `Exchange` and `Player`. ValueError for an option out of range;
    OSError when a port is taken.
    """
    exchange = Exchange(
        dialect, absent=absent, replay_last=replay_last, seed=seed, say=_named(dialect.name, say)
    )
    player = None if feed is None else Player(exchange, feed, Pace(speed_of(speed)), start)
    control = ControlPort(Controls(exchange, player))
    async with trio.open_nursery() as nursery:
        await nursery.start(exchange.serve, host, port)
        await nursery.start(
            control.serve, host, control_port_beside(port) if control_port is None else control_port
        )
        if player is not None:
            nursery.start_soon(player.run)
        say(f"{dialect.name} simulator on {exchange.url}, controls on {control.url}/status; Ctrl-C ends it")
        task_status.started(Served(exchange.url, control.url, control.controls))
        if keyboard:
            await _obey_keys(control.controls, say, nursery.cancel_scope)


def control_port_beside(port: int) -> int:
    """The usual control port of an exchange on `port`: `CONTROLS_ABOVE` higher (0: any free port)."""
    return port + CONTROLS_ABOVE if port else 0


def _named(name: str, say: Say) -> Say:
    return lambda line: say(f"{name}: {line}")


async def _obey_keys(controls: Controls, say: Say, scope: trio.CancelScope) -> None:
    keys = exchange_keys(controls, say, scope.cancel)
    say(help_line(keys))
    await each_key(presser(keys, say))


class Options(TypedDict, total=False):
    """The options of `serve_exchange`; every command takes them."""

    host: str
    port: int
    control_port: int | None
    speed: Speed
    start: Start
    absent: Absent
    replay_last: int
    seed: int
    keyboard: bool
    say: Say
    task_status: trio.TaskStatus[Served]


async def simulate(name: str, *, feed: Feed | None = None, **options: Unpack[Options]) -> None:
    """Serve the exchange of this name on its usual port, playing its own feed (see `serve_exchange`).

    ValueError when there is no such exchange.
    """
    definition = exchanges.find(name)
    feed = feed or definition.feed()
    options.setdefault("port", definition.port)
    await serve_exchange(definition.dialect(feed.symbols), feed, **options)


async def replay(
    file: str | Path,
    as_exchange: str = "binance",
    *,
    names: Mapping[str, str] | None = None,
    trades_only: bool = False,
    loop: bool = False,
    rebase: bool = False,
    **options: Unpack[Options],
) -> None:
    """Replay a recording or a table of trades as an exchange would send it (see `serve_exchange`).

    It begins with the first subscriber, unless `start` says otherwise. `names` maps symbols of the file to
    symbols of the exchange. `trades_only` leaves out the other messages of a recording. `loop` and `rebase`:
    see `recorded`. RecordingError when the file is no recording, has nothing to play, or has a symbol without
    a name on the exchange; ValueError when there is no such exchange.
    """
    feed = file_feed(file, as_exchange, names=names, trades_only=trades_only, loop=loop, rebase=rebase)
    options.setdefault("start", "first_subscriber")
    await simulate(as_exchange, feed=feed, **options)


def file_feed(
    file: str | Path,
    as_exchange: str,
    *,
    names: Mapping[str, str] | None = None,
    trades_only: bool = False,
    loop: bool = False,
    rebase: bool = False,
) -> Feed:
    """The feed that `replay` plays."""
    recording = read(file)
    if not recording.ticks:
        raise RecordingError(f"{file}: nothing to play ({dict(recording.skipped)})")
    exchange = exchanges.find(as_exchange)
    table = _names(file, {trade.symbol for trade in recording.trades}, as_exchange, names or {})
    same = all(symbol == name for symbol, name in table.items())
    whole = exchange.plays_messages and same and not trades_only
    ticks = recording.ticks if whole else relabel(recording.ticks, table)
    return recorded(ticks, loop=loop, rebase=rebase)


def _names(file: str | Path, symbols: set[str], as_exchange: str, given: Mapping[str, str]) -> dict[str, str]:
    exchange = exchanges.find(as_exchange)
    found = {symbol: given.get(symbol) or exchange.symbol(symbol) for symbol in symbols}
    nameless = sorted(symbol for symbol, name in found.items() if name is None)
    if nameless:
        raise RecordingError(f"{file}: no {as_exchange} name for {', '.join(nameless)}; give one in `names`")
    return {symbol: name for symbol, name in found.items() if name is not None}


@frozen
class Demo:
    """The two simulators of the demo."""

    blockchain: Served
    binance: Served


async def serve_demo(
    *,
    host: str = "127.0.0.1",
    blockchain_port: int = BLOCKCHAIN_PORT,
    binance_port: int = BINANCE_PORT,
    say: Say = ignore,
    task_status: trio.TaskStatus[Demo] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve Blockchain.com and Binance, each with its own feed, as fast as it happened."""
    async with trio.open_nursery() as nursery:
        serve = partial(simulate, host=host, say=say)
        blockchain = await nursery.start(partial(serve, port=blockchain_port), "blockchain")
        binance = await nursery.start(partial(serve, port=binance_port), "binance")
        task_status.started(Demo(blockchain, binance))
