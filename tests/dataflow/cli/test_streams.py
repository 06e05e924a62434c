"""The surroundings: standard streams that are closed, full or stuck, and outputs that cannot show everything."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest


def shell(command: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[bytes]:
    """A command of a shell, in which `dataflow` is this one."""
    usual = {name: value for name, value in os.environ.items() if not name.startswith("DATAFLOW__")}
    usual |= {"PYTHONPATH": str(Path(__file__).parents[3]), "PY": sys.executable}
    script = f'dataflow() {{ "$PY" -m dataflow "$@"; }}; {command}'
    return subprocess.run(
        ["sh", "-c", script], capture_output=True, cwd=cwd, env=usual | environ, check=False
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "fine.toml").write_text("[gateway]\nport = 47000\n")
    (tmp_path / "wrong.toml").write_text("[gateway]\nport = true\n")
    (tmp_path / "symbol.toml").write_text(
        '[sources.binance]\nconnector = "binance"\nurl = "wss://a.example/stream"\nsymbols = ["币安-USDT"]\n',
        encoding="utf-8",
    )
    return tmp_path


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(("file", "code"), [("fine.toml", 0), ("wrong.toml", 1)])
def test_a_closed_stream_changes_no_exit_code(folder: Path, closed: str, file: str, code: int) -> None:
    """The code is what it would be with all streams, and nothing is said of a failure inside."""
    done = shell(f"dataflow config show {file} {closed}", folder)  # the quickest that reads a file
    assert done.returncode == code
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("words", ["check fine.toml", "check fine.toml --json", "--version", "--help"])
def test_a_full_output_is_one_line(folder: Path, words: str) -> None:
    """Exit code 1, and the line says what is full."""
    done = shell(f"dataflow {words} >/dev/full", folder)
    assert (done.returncode, done.stderr) == (
        1,
        b"dataflow: cannot write to standard output: No space left on device\n",
    )


def test_a_full_standard_error_changes_no_exit_code(folder: Path) -> None:
    """Nobody is left to be told, so nothing happens."""
    assert shell("dataflow check wrong.toml 2>/dev/full", folder).returncode == 1
    assert shell("dataflow check fine.toml 2>/dev/full", folder).returncode == 0


def test_no_file_or_socket_gets_the_number_of_a_standard_stream(folder: Path) -> None:
    """Whatever the process opens first must not receive what is meant for standard error."""
    program = (
        "import os, socket; from dataflow.cli.streams import standard_streams\n"
        "with standard_streams():\n"
        "    print(os.readlink('/proc/self/fd/0'), socket.socket().fileno() > 2)\n"
    )
    done = shell(f'"$PY" -c "{program}" <&- 2>&-', folder)
    assert done.stdout == b"/dev/null True\n"


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_what_an_output_cannot_show_is_escaped(folder: Path, encoding: str) -> None:
    """The command goes on, and ends with 0."""
    done = shell("dataflow check symbol.toml", folder, PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"binance: \u5e01\u5b89-USDT from" in done.stdout


def test_a_mistake_is_escaped_too(folder: Path) -> None:
    """Standard error is an output like the other."""
    done = shell("dataflow check 币.toml; dataflow 币", folder, PYTHONIOENCODING="ascii", LC_ALL="C.UTF-8")
    assert done.stderr.splitlines()[0] == rb"\u5e01.toml: no such file"
    assert rb"there is no dataflow \u5e01" in done.stderr


def test_json_is_utf_8_everywhere(folder: Path) -> None:
    """A program that reads it need not know the terminal's encoding."""
    done = shell("dataflow check symbol.toml --json", folder, PYTHONIOENCODING="latin-1")
    assert '"币安-USDT"'.encode() in done.stdout


def test_a_reader_that_leaves_is_no_mistake(folder: Path) -> None:
    """`dataflow ... | head`: exit code 0 and not a word."""
    done = shell("(dataflow check fine.toml; echo $? >&2) | true", folder)
    assert done.stderr == b"0\n"


ENDLESS = """
import sys, trio
from dataflow.cli.common import until_interrupted
from dataflow.cli.streams import standard_streams

async def talk():
    print("up", file=sys.stderr, flush=True)
    while True:
        print("x" * 1000)
        await trio.lowlevel.checkpoint()

with standard_streams():
    try:
        until_interrupted(talk)
    except* KeyboardInterrupt:
        pass
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_command_that_waits_for_its_reader(number: signal.Signals) -> None:
    """`dataflow tail ... | something stuck`: the command waits, as any other would, and a signal ends it."""
    environ = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-c", ENDLESS]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, env=environ) as running:
        try:
            assert running.stderr is not None
            assert running.stderr.readline() == b"up\n"
            running.send_signal(number)
            assert running.wait() == 0
        finally:
            running.kill()
