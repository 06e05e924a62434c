"""The command `dataflow`: the table of commands, and the exit codes.

Rules of this file: a command is imported when it is called, so that the others start fast. Exit codes: 0
fine; 1 the user's mistake, told in one clear line without a traceback; 2 an internal failure; 130 Ctrl-C
before the work was done. A command without an end of its own, such as `tail`, takes Ctrl-C for it.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from .ends import Failure, Interrupted, Mistake, only, wrong
from .streams import CannotWrite, discard, standard_streams

if TYPE_CHECKING:
    from cyclopts import App, CycloptsError

# name, module and function, one line of help, examples
_COMMANDS = (
    (
        "run",
        "daemon:run",
        "The daemon: sources in, WebSocket and HTTP out.",
        "dataflow run",
        "dataflow run --config server.toml --config mine.toml",
        "DATAFLOW__GATEWAY__PORT=9000 dataflow run --log-format json",
    ),
    (
        "check",
        "daemon:check",
        "Check configuration files: all mistakes at once, with file, table and key.",
        "dataflow check mine.toml",
        "dataflow check server.toml mine.toml --json",
        "dataflow check --connect mine.toml",
    ),
    (
        "demo",
        "demo:demo",
        "Two simulated exchanges and the daemon in one process, offline.",
        "dataflow demo",
        "dataflow demo --port 9000",
    ),
    (
        "status",
        "status:status",
        "The supervision tree of a running daemon.",
        "dataflow status --watch",
        "dataflow status --json | jq .state",
    ),
    (
        "top",
        "top:top",
        "The busiest sources, topics or clients of a running daemon.",
        "dataflow top",
        "dataflow top --by client --sort oldest",
        "dataflow top --once --json | jq .sources[].rate",
    ),
    (
        "tail",
        "tail:tail",
        "Live trades.",
        "dataflow tail BTC-USD ETH-USD",
        "dataflow tail BTC-USD --snapshot 20 --count 100",
        "dataflow tail BTC-USD --json | jq .price",
    ),
    (
        "fault",
        "fault:fault",
        "Inject a fault, to see the daemon recover.",
        "dataflow fault sources/binance disconnect",
        "dataflow fault cache/shard-0 crash --times 3",
        "dataflow fault cache/shard-0 delay --seconds 0.5 --probability 0.1",
        "dataflow fault --list",
        "dataflow fault --withdraw 7",
    ),
    (
        "chaos",
        "chaos:chaos",
        "Rehearse random failures, and check that no client silently lost a trade.",
        "dataflow chaos --minutes 2",
        "dataflow chaos --seed 7 --faults-per-minute 90",
        "dataflow chaos --seed 7 --json | jq .violations",
    ),
    (
        "conformance",
        "conformance:conformance",
        "Check a connector of yours: it never guesses, never raises, and loses nothing in silence.",
        "dataflow conformance my_feeds.acme --symbols BTC-USD --recording session.jsonl.gz",
        "dataflow conformance binance --symbols BTC-USDT --json | jq .",
    ),
    (
        "client",
        "simulate:client",
        "An interactive client that leaves gracefully, abruptly or for a while.",
        "dataflow client BTC-USD",
    ),
    (
        "completion",
        "completion:completion",
        "The script with which bash, zsh or fish complete this command.",
        "dataflow completion bash > ~/.local/share/bash-completion/completions/dataflow",
        "dataflow completion zsh > ~/.zfunc/_dataflow",
    ),
    (
        "bench",
        "bench:bench",
        "The measurements, from a checkout.",
        "dataflow bench --quick",
        "dataflow bench rates ingest",
    ),
)


_KINDS: Mapping[Any, str] = {int: "a whole number", float: "a number"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["help"]:
        words = [*words[1:], "--help"]
    with standard_streams():
        try:
            return _run(words)
        finally:
            if logs := sys.modules.get("dataflow.logs"):  # most commands need no log, and load none
                logs.finish()


def _run(words: list[str]) -> int:
    try:
        if words == ["--version"]:  # before the imports that every other command needs
            print(f"dataflow {version('dataflow')}")
            code = 0
        else:
            code = _call(words)
        sys.stdout.flush()  # here, where a closed pipe or a full disk is still handled below
        return code
    except BaseException as error:
        return _ended_by(only(error))


def _call(words: list[str]) -> int:
    from cyclopts import CycloptsError

    try:
        called = app(words[0] if words else None)
        code = called(words, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        raise Mistake(_plainly(error)) from None
    return int(code or 0)


def _plainly(error: CycloptsError) -> str:
    """The mistake in the words of a command, in a sentence of ours where the library's is not plain."""
    from cyclopts import (
        CoercionError,
        MissingArgumentError,
        UnknownCommandError,
        UnknownOptionError,
        UnusedCliTokensError,
    )

    name = " ".join(("dataflow", *(error.command_chain or ())))
    match error:
        case UnknownCommandError(app=asked, unused_tokens=[word, *_]) if asked is not None:
            known = [each for each in asked if not each.startswith("-")]
            return f"there is no {name} {word}; {_meant(word, known, name)}"
        case UnknownOptionError(token=token, argument_collection=known):
            word = (token.keyword or token.value).partition("=")[0]  # without a value: it may be a secret
            options = [each for argument in known for each in argument.names]
            return f"{name} has no option {word}; {_meant(word, options, name)}"
        case UnusedCliTokensError():
            return _too_much(error.command_chain or (), error.unused_tokens or [])
        case MissingArgumentError(argument=argument) if argument is not None:
            if error.keyword or argument.tokens:
                return f"{error.keyword or argument.name} needs a value; {name} --help says which"
            wanted = argument.name.lstrip("-").upper()
            return f"{name} needs a {wanted}; {name} --help has examples"
        case CoercionError(target_type=kind, token=token, argument=argument) if token and argument:
            choices = argument.get_choices(force=True)
            must = f"one of {', '.join(choices)}" if choices else _KINDS.get(kind)
            where = token.keyword or argument.name.lstrip("-").upper()
            return str(wrong(where, token.value, must)) if must else str(error)
        case _:
            return str(error)


def _meant(word: str, known: Iterable[str], command: str) -> str:
    """Advice about an unknown word."""
    from difflib import get_close_matches

    near = get_close_matches(word, list(known), 1)
    return f"did you mean {near[0]}?" if near else f"{command} --help lists what there is"


def _too_much(command: Sequence[str], words: Sequence[str]) -> str:
    """Words that a command does not take. Of a file it is clear what was meant."""
    name, given = " ".join(("dataflow", *command)), " ".join(words)
    if name in ("dataflow run", "dataflow demo") and all(word.endswith(".toml") for word in words):
        return f"did you mean {name} {' '.join(f'--config {word}' for word in words)}?"
    return f"{name} does not take {given}; {name} --help says what it takes"


def app(called: str | None = None) -> App:
    """The commands and their help. The command `called` explains itself with its whole docstring."""
    from cyclopts import App, Parameter

    about = "Real-time market data: supervised sources to many WebSocket clients."
    root = App(
        name="dataflow",
        help=about,
        help_format="plaintext",
        version=lambda: f"dataflow {version('dataflow')}",
        default_parameter=Parameter(negative=()),
        suppress_keyboard_interrupt=False,  # `main` turns it into an exit code
        help_epilogue=examples("dataflow demo", "dataflow tail BTC-USD", "dataflow status --watch"),
    )
    for name, where, help_, *shown in _COMMANDS:
        # A line of help replaces the docstring. Without such lines the list would import every command.
        line = {} if name == called else {"help": help_}
        root.command(f"{__name__}.{where}", name=name, help_epilogue=examples(*shown), **line)
    root.command(f"{__name__}.config:app", name="config", help="The configuration: yours, and as shipped.")
    root.command(f"{__name__}.simulate:app", name="simulate", help="Exchanges to test against.")
    root.command(f"{__name__}.history:app", name="history", help="The history on disk: look, copy, move.")
    return root


def examples(*lines: str) -> str:
    """The end of a command's help."""
    return "\n\n".join(("Examples:", *(f"  {line}" for line in lines)))


def _ended_by(error: BaseException) -> int:
    from dataflow.domain.errors import ConfigError  # not at the top: they bring attrs along
    from dataflow.domain.secrets import concealed

    match error:
        case ConfigError():
            print("\n".join(error.problems), file=sys.stderr)
            return 1
        case Mistake():
            print(f"dataflow: {concealed(str(error))}", file=sys.stderr)
            return 1
        case BrokenPipeError():  # in `dataflow tail ... | head`, head has ended
            discard(sys.stdout.fileno())
            return 0
        case CannotWrite():
            discard(sys.stdout.fileno())
            print(f"dataflow: cannot write to standard output: {error.strerror}", file=sys.stderr)
            return 1
        case KeyboardInterrupt() | Interrupted():
            print(f"dataflow: interrupted before {str(error) or 'it was done'}", file=sys.stderr)
            return 130
        case Failure():
            print(f"dataflow: {concealed(str(error))}", file=sys.stderr)
            return 2
        case SystemExit():
            raise error
        case _:
            print(concealed("".join(traceback.format_exception(error))), end="", file=sys.stderr)
            print(
                "dataflow: an internal failure, not your mistake; please report the text above",
                file=sys.stderr,
            )
            return 2
