"""`simulate` and `client`: simulated exchanges, a producer of ticks, and an interactive client.

Rules of this file: what is simulated prints nothing itself. Its lines are shown as text, never as escape
codes. The client shows trades and notices as `tail` does.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import msgspec
from cyclopts import App, Parameter

import simulators
from dataflow.client import Trade
from dataflow.logs import unhinder
from dataflow.logs.terminal import disarmed, wants_colour

from . import examples
from .columns import Columns, in_words
from .common import Url, daemon_url, until_interrupted
from .daemon import cannot_listen, why_not_free
from .ends import Mistake, wrong

Host: TypeAlias = Annotated[str, Parameter(help="Address to listen on.")]
Port: TypeAlias = Annotated[int | None, Parameter(help="Port; the controls listen 100 above it.")]
Speed: TypeAlias = Annotated[str, Parameter(help="Speed relative to the recording, or max.")]
Keyboard: TypeAlias = Annotated[
    bool,
    Parameter(name="--keyboard", negative="--no-keyboard", help="Read keys. [default: on a terminal]"),
]
if TYPE_CHECKING:
    Exchange: TypeAlias = str
else:
    Exchange = Annotated[Literal[simulators.exchanges.names()], Parameter(name="--as")]
Names: TypeAlias = Annotated[
    dict[str, str] | None,
    Parameter(name="--names", help="--names.SYMBOL NAME: the exchange's name for a symbol of the file."),
]


def _exchange(name: str) -> tuple[Any, ...]:
    """The row of `SIMULATORS` for an exchange."""

    def serve(
        *, host: Host = "127.0.0.1", port: Port = None, speed: Speed = "1", keyboard: Keyboard | None = None
    ) -> None:
        _serve(partial(simulators.simulate, name), name, host, port, speed, keyboard)

    about = simulators.exchanges.find(name)
    example = f"dataflow simulate {name} --port {about.port + 1000} --speed 10"
    return name, serve, f"A simulated {about.title}.", example


def replay(
    file: Path,
    /,
    *,
    as_: Exchange = "binance",
    loop: bool = False,
    rebase: bool = False,
    names: Names = None,
    host: Host = "127.0.0.1",
    port: Port = None,
    speed: Speed = "1",
    keyboard: Keyboard | None = None,
) -> None:
    """Replay a recording in the format of an exchange.

    Begins with the first subscriber.

    Parameters
    ----------
    file
        A recorded session (.jsonl) or a table of trades (.csv), also with .gz.
    as_
        The exchange with the format to speak.
    loop
        Start again at the end.
    rebase
        Move the timestamps to now.
    """
    if not file.exists():
        raise Mistake(f"{file}: no such file")
    serve = partial(simulators.replay, file, as_, loop=loop, rebase=rebase, names=names)
    _serve(serve, as_, host, port, speed, keyboard)


def ticks(
    *,
    to: str = "127.0.0.1:9000",
    symbol: str = " aApL ",
    price: float = 100.25,
    volume: int = 10,
    every: float = 0.01,
    count: int | None = None,
) -> None:
    """A producer of ticks by TCP.

    Connects to a source that listens, such as [sources.ticks] of the
    demo, and connects again when it is sent away.

    Parameters
    ----------
    to
        HOST:PORT of the source.
    symbol
        As it is sent: blanks around it and small letters do not count.
    price
        Of every tick.
    volume
        Of every tick; whole units.
    every
        Seconds from one tick to the next. 0: as many as the source takes.
    count
        End after so many. [default: never]
    """
    host, _, port = to.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise wrong("--to", to, "HOST:PORT, such as 127.0.0.1:9000")
    if every < 0:
        raise wrong("--every", f"{every:g}", "seconds, at least 0")
    if not -(1 << 63) <= volume < 1 << 63:
        raise wrong("--volume", volume, "a whole number of 64 bits")
    unhinder("stdout", "stderr")
    push = partial(simulators.push_ticks, host=host.strip("[]"), port=int(port), symbol=symbol, price=price)
    until_interrupted(partial(push, volume=volume, every=every, count=count, say=_say))


def client(*symbols: str, url: Url = None, keyboard: Keyboard | None = None) -> None:
    """An interactive client.

    Keys make it leave gracefully, abruptly or for a while, and come back.
    It shows what `tail` shows, and checks it: a line in capitals names
    what the daemon got wrong.

    Parameters
    ----------
    symbols
        Symbols to subscribe to, such as BTC-USD.
    """
    if not symbols:
        raise Mistake("client needs a symbol, such as `dataflow client BTC-USD`")
    address = f"{daemon_url(url).replace('http', 'ws', 1)}/ws"
    wanted = tuple(symbol.upper() for symbol in symbols)
    columns = Columns(max(map(len, wanted)), wants_colour(sys.stdout, os.environ))
    unhinder("stdout", "stderr")
    until_interrupted(
        partial(
            simulators.run_client,
            wanted,
            url=address,
            keyboard=_keys(keyboard),
            say=lambda line: print(columns.news(line), flush=True),
            show=lambda method, params: print(as_line(columns, method, params), flush=True),
        )
    )


def as_line(columns: Columns, method: str, params: dict[str, Any]) -> str:
    """A notification in the columns and words of `tail`."""
    if method != "trades.update":
        return columns.news(in_words(method, params))
    try:
        return columns.trade(msgspec.convert(params, Trade))
    except msgspec.ValidationError as error:
        return columns.news(f"UNREADABLE trade ({error}): {params}")


def _serve(
    serve: Callable[..., Awaitable[Any]],
    exchange: str,
    host: str,
    port: int | None,
    speed: str,
    keyboard: bool | None,
) -> None:
    if port is not None and not 0 <= port <= 65535 - simulators.CONTROLS_ABOVE:
        raise wrong("--port", port, f"0 to {65535 - simulators.CONTROLS_ABOVE}")
    try:
        simulators.controls.speed_of(speed)
    except ValueError:
        raise wrong("--speed", speed, "a number greater than 0, or max") from None
    unhinder("stdout", "stderr")
    where = {} if port is None else {"port": port}
    try:
        until_interrupted(partial(serve, host=host, speed=speed, keyboard=_keys(keyboard), say=_say, **where))
        _say(f"{exchange} simulator ended")
    except* (OSError, ValueError) as group:  # a taken port, an unreadable file
        error, usual = _first(group), simulators.exchanges.find(exchange).port
        taken = isinstance(error, OSError) and error.filename is None  # the system's error names no port
        told = _taken(host, usual if port is None else port) if taken else None
        raise Mistake(told or str(error)) from None


def _taken(host: str, port: int) -> str | None:
    """The error text if the port of the exchange or of its controls is taken."""
    for each in (port, port + simulators.CONTROLS_ABOVE) if port else ():
        if (why := why_not_free(host, each)) is not None:
            return cannot_listen(host, each, why, "--host")
    return None


def _keys(wanted: bool | None) -> bool:
    """Whether to read keys. By default only from a terminal."""
    return sys.stdin.isatty() if wanted is None else wanted


def _say(line: str) -> None:
    print(disarmed(line), flush=True)


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


# name, function, one line of help, examples
SIMULATORS: tuple[tuple[Any, ...], ...] = (
    *(_exchange(name) for name in simulators.exchanges.names()),
    (
        "replay",
        replay,
        "Replay a recording in the format of an exchange.",
        "dataflow simulate replay trades.jsonl.gz --speed max",
        "dataflow simulate replay trades.csv --as blockchain --loop",
    ),
    (
        "ticks",
        ticks,
        "A producer of ticks by TCP.",
        "dataflow simulate ticks --symbol MSFT --price 430.5 --every 1",
    ),
)
app = App(
    name="simulate", help_epilogue=examples(*(each for _, _, _, *shown in SIMULATORS for each in shown))
)
for _name, _function, _help, *_shown in SIMULATORS:
    app.command(_function, name=_name, help=_help, help_epilogue=examples(*_shown))
