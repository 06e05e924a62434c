"""`run` and `check`: from configuration to a daemon, or to a list of mistakes."""

from __future__ import annotations

import json as json_
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import attrs
from cyclopts import Parameter
from loguru import logger

from dataflow import logs
from dataflow.domain import secrets
from dataflow.domain.errors import ConfigError
from dataflow.domain.secrets import concealed
from dataflow.domain.symbols import ANY
from dataflow.gateway import exposure
from dataflow.gateway.certificates import configured_context
from dataflow.net.listening import why_refused
from dataflow.settings.schema import Gateway, Mode, Operator, Settings
from dataflow.sources.port import ProducerSettings

from .common import Json
from .configured import placed, warnings, written
from .ends import Mistake, wrong

Config: TypeAlias = Annotated[
    list[Path] | None,
    Parameter(name=("--config", "-c"), help="A TOML file; later ones win. May be repeated."),
]
Port: TypeAlias = Annotated[int | None, Parameter(help="Listen on this port instead of the configured one.")]
LogFormat: TypeAlias = Annotated[logs.Format, Parameter(help="human for people, json for machines.")]
LogLevel: TypeAlias = Annotated[logs.Level, Parameter(help="The lowest level to log.")]
LogFile: TypeAlias = Annotated[
    Path | None, Parameter(help="Append the log to this file. [default: standard error]")
]

Connect: TypeAlias = Annotated[bool, Parameter(negative=(), help="Try every source for real.")]
Within: TypeAlias = Annotated[float, Parameter(help="Seconds to wait for the first trades.")]

NO_SOURCES = "no sources, so there will be no trades"


def run(
    *,
    config: Config = None,
    port: Port = None,
    log_format: LogFormat = "human",
    log_level: LogLevel = "info",
    log_file: LogFile = None,
) -> int:
    """The daemon: sources in, WebSocket and HTTP out.

    Without --config it uses the shipped configuration with the real
    exchanges. Ctrl-C and SIGTERM end it after a notice to its clients.
    SIGHUP, also that of a terminal that closes, does not end it: it
    reads the configuration, the certificate and the log file again.
    SIGUSR1 writes the supervision tree and all tasks to the log.
    """
    with _requests_ignored():
        again = " ".join(("dataflow run --config {}", *(f"--config {each}" for each in config or ())))
        found = written(config, again)
        settings = with_port(found.settings, port)
        secrets.keep(settings)
        with placed(found):
            configured_context(settings.gateway)
        start_log(log_format, log_level, log_file)
        check_free(settings.gateway)
        if settings.operator.port is not None:
            check_free(settings.operator)
        if not settings.sources:
            logger.warning(NO_SOURCES)
        for warning in (*warnings(), *exposure.warnings(settings)):
            logger.warning("{}", warning)
        from dataflow import app

        with placed(found):
            code = app.run(settings, read=lambda: with_port(written(config, again).settings, port))
        return told_end(code)


def told_end(code: int) -> int:
    """Log that the daemon has ended in order. What else may have happened is told already."""
    if code == 0:
        logger.info("stopped in order")
    return code


@contextmanager
def _requests_ignored() -> Iterator[None]:
    """A signal that asks a daemon for something must not kill one that is not there yet, or any more."""
    names = ("SIGHUP", "SIGUSR1", "SIGUSR2")  # Windows has none of them
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def check(*files: Path, connect: Connect = False, within: Within = 10.0, json: Json = False) -> int:
    """Check configuration files: all mistakes at once, each with its file, table and key.

    Files are merged from left to right, then the environment. Without a
    file, the shipped one is checked. With --connect every source is tried
    for real: name, TCP, TLS, handshake, subscriptions, the first trades and
    the questions by HTTP; for producers, whether the port is free.

    Parameters
    ----------
    files
        TOML files.
    """
    try:
        found = written(files, " ".join(("dataflow check {}", *map(str, files))))
        settings = found.settings
        from dataflow import app

        with placed(found):
            configured_context(settings.gateway)
            app.store(settings)
            app.hall(settings)
    except ConfigError as error:
        if not json:
            raise
        print(json_.dumps({"ok": False, "problems": error.problems}, ensure_ascii=False))
        return 1
    if connect:
        return _connect(settings, within, json)
    if json:
        told = {"ok": True, "warnings": warnings(), **_summary(settings)}
        print(json_.dumps(told, ensure_ascii=False))
        return 0
    for warning in warnings():
        print(f"warning: {warning}", file=sys.stderr)
    print(_told(settings))
    if not files:
        print("this is the configuration as shipped; dataflow check FILE... checks yours")
    return 0


def _connect(settings: Settings, within: float, json: bool) -> int:
    """Try every source. 0: nothing failed, 1: something did."""
    import trio

    from . import trial

    secrets.keep(settings)
    left = set(settings.sources)

    def done(one: trial.Trial) -> None:
        left.discard(one.name)
        if sys.stderr.isatty():
            waiting = f", {len(left)} left: {', '.join(sorted(left))}" if left else ""
            print(f"{one.name}: {'fine' if one.is_fine else 'failed'}{waiting}", file=sys.stderr)

    trials = trio.run(trial.try_all, settings, within, why_not_free, done)
    is_fine = all(each.is_fine for each in trials)
    if json:
        told = {each.name: trial.as_data(each) for each in trials}
        print(json_.dumps({"ok": is_fine, "sources": told}, ensure_ascii=False))
    else:
        print("\n\n".join(map(trial.as_text, trials)) or NO_SOURCES)
    return 0 if is_fine else 1


def _summary(settings: Settings) -> dict[str, Any]:
    gateway = settings.gateway
    sources = {
        name: {
            "connector": source.connector,
            "url": concealed(source.address),
            "symbols": list(source.symbols),
            "completeness": source.proof.value,
        }
        for name, source in settings.sources.items()
    }
    scheme = "http" if gateway.tls_certificate is None else "https"
    faces = {
        name: f"{keys.host}:{keys.port}"
        for name, keys in settings.faces.items()
        if keys.enabled and hasattr(keys, "host") and hasattr(keys, "port")  # with a port of its own
    }
    return {
        "listen": f"{gateway.host}:{gateway.port}",
        "scheme": scheme,
        "faces": faces,
        "sources": sources,
    }


def _told(settings: Settings) -> str:
    summary = _summary(settings)
    tls = " (TLS)" if summary["scheme"] == "https" else ""
    lines = [f"fine: listens on {summary['listen']}{tls}"]
    lines += [f"  {name}: clients at {address}" for name, address in summary["faces"].items()]
    for name, source in settings.sources.items():
        symbols = "any symbols" if ANY in source.symbols else ", ".join(source.symbols) or "no symbols"
        way = "from producers at" if isinstance(source, ProducerSettings) else "from"
        lines.append(f"  {name}: {symbols} {way} {concealed(source.address)}")
        if not source.proof.is_complete:
            lines.append(f"    {source.proof.value}")
    for symbol, keys in settings.symbols.items():
        if keys.mode is Mode.FAILOVER:
            listing = [name for name, source in settings.sources.items() if symbol in source.symbols]
            first, *others = keys.sources or listing
            otherwise = f"else from {' or '.join(others)}" if others else "and nothing takes over from it"
            lines.append(f"  {symbol}: from {first}, {otherwise}")
    return "\n".join(lines if summary["sources"] else [*lines, f"  {NO_SOURCES}"])


def start_log(format: logs.Format, level: logs.Level, file: Path | None = None) -> None:
    """Log, and wait for nobody from here on who reads a standard stream. Raises Mistake."""
    logs.unhinder("stdout", "stderr")
    try:
        logs.configure(format, level, file=file)
    except OSError as error:
        raise Mistake(f"--log-file: {file}: cannot be opened: {error.strerror}") from None


def with_port(settings: Settings, port: int | None) -> Settings:
    """`settings`, listening on `port` unless that is None. Raises ConfigError."""
    if port is None:
        return settings
    if not 0 <= port <= 65535:
        raise wrong("--port", port, "0 to 65535")
    return attrs.evolve(settings, gateway=attrs.evolve(settings.gateway, port=port))


def check_free(listener: Gateway | Operator) -> None:
    """Raises Mistake if the daemon could not listen, before anything has started."""
    host, port = listener.host, listener.port or 0
    error = why_not_free(host, port)
    if error is not None:
        keys = () if isinstance(listener, Gateway) else ("[operator] host", "[operator] port")
        raise Mistake(cannot_listen(host, port, error, *keys))


def cannot_listen(host: str, port: int, error: OSError, *keys: str) -> str:
    """The error text. `keys`: where the user wrote host and port, as for `why_refused`."""
    return f"cannot listen on {host}:{port}: {why_refused(error, *keys)}"


def why_not_free(host: str, port: int) -> OSError | None:
    """Why nothing can listen there now; None if the address is free."""
    try:
        family, kind, protocol, _name, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen()
    except OSError as error:
        return error
    except UnicodeError:  # a label that no name server knows, for example an empty one
        return socket.gaierror(socket.EAI_NONAME, "this is no name of a host")
    return None
