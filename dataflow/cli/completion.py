"""`completion`: the script with which a shell completes the words of this command.

Rules of this file: the script is the library's. Each change to it has its reason beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

Shell = Literal["bash", "zsh", "fish"]

# commands with files among their words; files as values of options are known without
WITH_FILES: Final = (
    "check",
    "config show",
    "history backup",
    "history import",
    "history restore",
    "simulate replay",
)


def completion(shell: Shell, /) -> None:
    """The script with which a shell completes commands, options and values.

    It goes to standard output, and no file is changed. Put it where the
    shell looks for it:

    bash: ~/.local/share/bash-completion/completions/dataflow

    zsh: ~/.zfunc/_dataflow, with fpath+=~/.zfunc before compinit

    fish: ~/.config/fish/completions/dataflow.fish

    Parameters
    ----------
    shell
        bash, zsh or fish.
    """
    from . import app

    script = app().generate_completion(prog_name="dataflow", shell=shell)
    if shell == "zsh":
        # zsh calls the function with the name of the file; with another one inside, it would do nothing
        script = script.replace("_cyclopts_dataflow", "_dataflow")
    print("\n".join([script.rstrip("\n"), *(_files() if shell == "fish" else ())]))


def _files() -> Iterator[str]:
    """fish offers files everywhere, also among the names of commands, unless it is told not to."""
    yield "complete -c dataflow -f"
    for command in WITH_FILES:
        yield f"complete -c dataflow -n '__fish_dataflow_using_command {command}' -F"
