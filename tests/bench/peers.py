"""The servers that the daemon is compared with: small programs in `peers/`, and the limit in `native/`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from . import native
from .machine import Cores
from .processes import Program
from .servers import CHECKOUT, UPDATE

FOLDER = Path(__file__).parent / "peers"
VENV = CHECKOUT / ".venv-bench"
LIMIT = "C limit"


class Peer:
    """A program that prints its port and makes its updates itself, from the time when `clients` are connected."""

    def __init__(self, name: str, command: list[str | Path], cores: Cores, clients: int) -> None:
        self.name = name
        words = [*command, "--clients", str(clients), "--update", UPDATE]
        self.program = Program(
            name, words, cores=cores.server, log=native.BUILD / f"{command[-1]}.log".replace("/", "_")
        )
        try:
            self.port = int(self.program.answer(30)["port"])
        except BaseException:
            self.program.close()
            raise

    def tell(self, line: str) -> None:
        self.program.ask(line)

    def close(self) -> None:
        self.program.close()


def limit(cores: Cores, clients: int) -> Peer:
    return Peer(LIMIT, [native.program("limit")], cores, clients)


PEERS: dict[str, Callable[[Cores, int], Peer]] = {LIMIT: limit}
