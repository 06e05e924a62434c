"""`simulate` and `client`: the other ends of the wire, to play with."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from cyclopts import Parameter

import simulators

from .common import Url, daemon_url, until_interrupted
from .ends import Mistake

Host: TypeAlias = Annotated[str, Parameter(help="Address to listen on.")]
Port: TypeAlias = Annotated[int | None, Parameter(help="Port; the controls listen 100 above it.")]
Speed: TypeAlias = Annotated[str, Parameter(help="How many times as fast as it happened, or max.")]
Keyboard: TypeAlias = Annotated[
    bool, Parameter(name="--keyboard", negative="--no-keyboard", help="Obey keys.")
]
Names: TypeAlias = Annotated[
    dict[str, str] | None,
    Parameter(name="--names", help="--names.SYMBOL NAME: what a symbol is called there."),
]


def blockchain(
    *, host: Host = "127.0.0.1", port: Port = None, speed: Speed = "1", keyboard: Keyboard | None = None
) -> None:
    """A simulated Blockchain.com exchange, on port 5000 unless told otherwise."""
    _serve(simulators.serve_blockchain, host, port, speed, keyboard)


def binance(
    *, host: Host = "127.0.0.1", port: Port = None, speed: Speed = "1", keyboard: Keyboard | None = None
) -> None:
    """A simulated Binance, on port 5001 unless told otherwise."""
    _serve(simulators.serve_binance, host, port, speed, keyboard)


def replay(
    file: Path,
    /,
    *,
    as_: Annotated[Literal["binance", "blockchain"], Parameter(name="--as")] = "binance",
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
