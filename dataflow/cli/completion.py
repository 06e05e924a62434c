"""`completion`: the script with which a shell completes the words of this command."""

from __future__ import annotations

from typing import Literal

Shell = Literal["bash", "zsh", "fish"]


def completion(shell: Shell, /) -> None:
    """The script with which a shell completes commands, options and their values.

    It goes to standard output, and no file is changed. Put it where the
    shell looks for it:

    bash: dataflow completion bash > ~/.local/share/bash-completion/completions/dataflow

    zsh: dataflow completion zsh > ~/.zfunc/_dataflow, with ~/.zfunc in fpath

    fish: dataflow completion fish > ~/.config/fish/completions/dataflow.fish

    Parameters
    ----------
    shell
        bash, zsh or fish.
    """
    from . import app

    print(app().generate_completion(prog_name="dataflow", shell=shell), end="")
