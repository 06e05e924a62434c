"""`simulate` and `client`: the other ends of the wire, to play with."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from cyclopts import App, Parameter

import simulators

from . import examples
from .common import Url, daemon_url, until_interrupted
from .ends import Mistake

Host: TypeAlias = Annotated[str, Parameter(help="Address to listen on.")]
Port: TypeAlias = Annotated[int | None, Parameter(help="Port; the controls listen 100 above it.")]
Speed: TypeAlias = Annotated[str, Parameter(help="How many times as fast as it happened, or max.")]
Keyboard: TypeAlias = Annotated[
    bool, Parameter(name="--keyboard", negative="--no-keyboard", help="Obey keys.")
]
if TYPE_CHECKING:
    Exchange: TypeAlias = str
else:
    Exchange = Annotated[Literal[simulators.exchanges.names()], Parameter(name="--as")]
Names: TypeAlias = Annotated[
    dict[str, str] | None,
    Parameter(name="--names", help="--names.SYMBOL NAME: what a symbol is called there."),
]


def _exchange(name: str) -> tuple[Any, ...]:
    """The row of `SIMULATORS` for one exchange."""

    def serve(
        *, host: Host = "127.0.0.1", port: Port = None, speed: Speed = "1", keyboard: Keyboard | None = None
    ) -> None:
        _serve(partial(simulators.simulate, name), host, port, speed, keyboard)

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
    """A recording, sent as an exchange would send it; begins with the first subscriber.

    Parameters
    ----------
    file
        A recorded session (.jsonl) or a table of trades (.csv), also with .gz.
    as_
        Whose format to speak.
    loop
        Begin again at the end.
    rebase
        Move the times to now.
    """
    if not file.exists():
        raise Mistake(f"{file}: no such file")
    serve = partial(simulators.replay, file, as_, loop=loop, rebase=rebase, names=names)
    _serve(serve, host, port, speed, keyboard)


def client(*symbols: str, url: Url = None, keyboard: Keyboard | None = None) -> None:
    """An interactive client: keys make it leave gracefully, abruptly or for a while, and come back.

    Parameters
    ----------
    symbols
        What to subscribe to, such as BTC-USD.
    """
    if not symbols:
        raise Mistake("client needs a symbol, such as `dataflow client BTC-USD`")
    address = f"{daemon_url(url).replace('http', 'ws', 1)}/ws"
    wanted = tuple(symbol.upper() for symbol in symbols)
    until_interrupted(partial(simulators.run_client, wanted, url=address, keyboard=_keys(keyboard), say=_say))


def _serve(
    serve: Callable[..., Awaitable[Any]], host: str, port: int | None, speed: str, keyboard: bool | None
) -> None:
    where = {} if port is None else {"port": port}
    try:
        until_interrupted(partial(serve, host=host, speed=speed, keyboard=_keys(keyboard), say=_say, **where))
    except* (OSError, ValueError) as group:  # a port that is taken, a speed or a file that cannot be
        raise Mistake(str(_first(group))) from None


def _keys(wanted: bool | None) -> bool:
    """Keys are read from a terminal unless told otherwise."""
    return sys.stdin.isatty() if wanted is None else wanted


def _say(line: str) -> None:
    print(line, flush=True)


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


# name, function, one line of help, examples
SIMULATORS: tuple[tuple[Any, ...], ...] = (
    *(_exchange(name) for name in simulators.exchanges.names()),
    (
        "replay",
        replay,
        "A recording, sent as an exchange would send it.",
        "dataflow simulate replay trades.jsonl.gz --speed max",
        "dataflow simulate replay trades.csv --as blockchain --loop",
    ),
)
app = App(
    name="simulate", help_epilogue=examples(*(each for _, _, _, *shown in SIMULATORS for each in shown))
)
for _name, _function, _help, *_shown in SIMULATORS:
    app.command(_function, name=_name, help=_help, help_epilogue=examples(*_shown))
