"""The scripts of `completion`, in the shells themselves: typed with the tab key at a terminal."""

from __future__ import annotations

import os
import pty
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from dataflow.cli import app, main
from dataflow.cli.completion import WITH_FILES

# what is typed before the tab key, and after it
ASKED: Final = {
    "st": "status",
    "config d": "config default",
    "history li": "history list",
    "status --w": "status --watch",
    "run --log-level w": "run --log-level warning",
    "top --by c": "top --by client",
    "simulate replay --as bl": "simulate replay --as blockchain",
    "fault sources/a disc": "fault sources/a disconnect",
    "completion f": "completion fish",
    "check zz": "check zz.toml",
    "run --config zz": "run --config zz.toml",
    "history import zz": "history import zz.toml",
    "tail zz": "tail zz",  # a symbol, and no file
    "zz": "zz",
}
# how a shell is told where the script is, and that `dataflow` writes down what it was called with
SHELLS: Final = {
    "bash": (
        ["bash", "--noprofile", "--rcfile", "start", "-i"],
        'source ./script\ndataflow() { echo "$*" >>told; }\n',
    ),
    "zsh": (
        ["zsh", "-i"],
        'fpath=($PWD/functions $fpath)\nautoload -U compinit; compinit -u -D\ndataflow() { echo "$*" >>told; }\n',
    ),
    "fish": (
        ["fish", "--private", "-C", "source ./start"],
        'source ./script\nfunction dataflow; echo "$argv" >>told; end\n',
    ),
}


@contextmanager
def typed(command: list[str], folder: Path, keys: bytes) -> Iterator[int]:
    """A program at a terminal of its own, which has been typed `keys`. Gives the terminal."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        usual = {"PATH": os.environ["PATH"], "HOME": str(folder), "ZDOTDIR": str(folder)}
        os.execvpe(command[0], command, usual | {"TERM": "dumb", "LC_ALL": "C.UTF-8"})
    try:
        os.write(terminal, keys)
        yield terminal
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(terminal)


def to_the_end(terminal: int) -> bytes:
    """All that is drawn until the program has ended."""
    drawn = b""
    try:
        while part := os.read(terminal, 65536):
            drawn += part
    except OSError:  # how a terminal says that nobody is at its other end
        pass
    return drawn


@pytest.mark.parametrize("shell", SHELLS)
def test_with_the_tab_key(shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Commands, commands of commands, options, their values and files, and no file where none is meant."""
    command, start = SHELLS[shell]
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell}")
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    (tmp_path / "functions").mkdir()
    for name in ("script", "functions/_dataflow"):
        (tmp_path / name).write_text(script)
    for name in ("start", ".zshrc"):
        (tmp_path / name).write_text(start)
    (tmp_path / "zz.toml").touch()
    keys = "".join(f"dataflow {words}\t\n" for words in ASKED) + "exit\n"
    with typed(command, tmp_path, keys.encode()) as terminal:
        drawn = to_the_end(terminal)
    told = (tmp_path / "told").read_text().splitlines()
    assert [line.strip() for line in told] == list(ASKED.values()), drawn.decode(errors="replace")


def test_every_command_with_files_is_known() -> None:
    """Those with a path among their words."""
    found = set()
    for group in ("", "config", "history", "simulate"):
        root = app()[group] if group else app()
        for name in (name for name in root if not name.startswith("-")):
            words = root[name].assemble_argument_collection() if root[name].default_command else ()
            if any("Path" in str(each.hint) for each in words if each.index is not None):
                found.add(f"{group} {name}".strip())
    assert found == set(WITH_FILES)


def test_another_shell(capsys: pytest.CaptureFixture[str]) -> None:
    """It is a mistake that names those that are known."""
    assert main(["completion", "tcsh"]) == 1
    assert "SHELL: found tcsh; must be one of bash, zsh, fish" in capsys.readouterr().err
