"""The servers that the daemon is compared with: small programs in `peer_programs/`, and two limits in `native/`.

Rules of this file: a peer that cannot run here is reported as missing, with the reason. Packages are installed once,
into two folders that git ignores.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

from . import compiled
from .compiled import BUILD, Missing
from .machine import Cores
from .plan import Bench
from .processes import Program
from .servers import CHECKOUT, UPDATE, feed

FOLDER = Path(__file__).parent / "peer_programs"
VENV = CHECKOUT / ".venv-bench"
LOCK = Path(__file__).parent / "requirements.lock"
NODE_WS = "8.23.0"
LIMIT, PICOWS, WEBSOCKETS, FASTAPI, NODE = "C limit", "picows", "websockets", "FastAPI", "Node ws"
CRYPTOFEED = "cryptofeed"
STRAWBERRY, CACHING = "strawberry", "strawberry, caching"  # documents parsed and checked each time; once
JOINING = "C limit, joining"
JOINED = 256  # most updates in a send of it, the default of the daemon's `[fanout] joined`


class Peer:
    """A program that prints its port and makes its own updates, on command."""

    def __init__(
        self, name: str, words: list[str | Path], cores: Cores, clients: int, environ: Mapping[str, str]
    ) -> None:
        self.name = name
        command = [*words, "--clients", str(clients), "--update", UPDATE]
        self.program = Program(name, command, cores=cores.server, log=log_of(name), environ=environ)
        try:
            self.port = int(self.program.answer(30)["port"])
        except BaseException:
            self.program.close()
            raise

    def tell(self, line: str) -> None:
        self.program.ask(line)

    def close(self) -> None:
        self.program.close()


class JoiningLimit:
    """The limit in C that gets its updates as the daemon does: through a socket from a feed, which takes the commands.

    Raises Missing, ProgramFailed.
    """

    def __init__(self, cores: Cores, clients: int) -> None:
        self.name = JOINING
        with ExitStack() as stack:
            self.feed = stack.enter_context(feed("binance", cores))
            words: list[str | Path] = [compiled.program("limit"), "--joined", str(JOINED)]
            words += ["--feed", str(self.feed.answer()["port"])]
            peer = Peer(JOINING, words, cores, clients, {})
            stack.callback(peer.close)
            self.program, self.port = peer.program, peer.port
            self._stack = stack.pop_all()

    def tell(self, line: str) -> None:
        self.feed.ask(line)

    def close(self) -> None:
        self._stack.close()


def server(name: str, cores: Cores, clients: int) -> Peer | JoiningLimit:
    """One of PEERS, or JOINING, started for `clients` clients. Raises Missing, ProgramFailed."""
    if name == JOINING:
        return JoiningLimit(cores, clients)
    words, environ = PEERS[name]()
    return Peer(name, words, cores, clients, environ)


def reader(name: str, cores: Cores, port: int) -> Program:
    """One of READERS. It reads the feed at `port` and answers any line with its count of trades. Raises Missing."""
    command: list[str | Path] = [python(), FOLDER / READERS[name], "--port", str(port)]
    return Program(name, command, cores=cores.server, log=log_of(name))


def log_of(name: str) -> Path:
    """The file for a program's standard error."""
    BUILD.mkdir(exist_ok=True)
    return BUILD / f"{name.replace(',', '').replace(' ', '-')}.log"


def _limit() -> tuple[list[str | Path], Mapping[str, str]]:
    return [compiled.program("limit")], {}


def _python(script: str) -> Callable[[], tuple[list[str | Path], Mapping[str, str]]]:
    return lambda: ([python(), FOLDER / script], {})


def _node() -> tuple[list[str | Path], Mapping[str, str]]:
    return [_found("node"), FOLDER / "ws_server.js"], {"NODE_PATH": str(node_modules())}


PEERS: dict[str, Callable[[], tuple[list[str | Path], Mapping[str, str]]]] = {
    LIMIT: _limit,
    PICOWS: _python("picows_server.py"),
    WEBSOCKETS: _python("websockets_broadcast.py"),
    NODE: _node,
    FASTAPI: _python("fastapi_uvicorn.py"),
}
READERS = {PICOWS: "picows_reader.py", CRYPTOFEED: "cryptofeed_reader.py"}


# -- installed packages --------------------------------------------------------------------------------


def once(make: Callable[[], Path]) -> Callable[[], Path]:
    """Calls `make` once. Later calls give the same path or raise the same Missing, without a second attempt."""
    outcome: list[Path | Missing] = []

    def made() -> Path:
        if not outcome:
            try:
                outcome.append(make())
            except Missing as why:
                outcome.append(why)
        if isinstance(outcome[0], Missing):
            raise outcome[0]
        return outcome[0]

    return made


@once
def python() -> Path:
    """The interpreter with the packages of the Python peers. The first use makes it. Raises Missing."""
    interpreter, stamp = VENV / "bin" / "python", VENV / "bench.stamp"
    if not stamp.exists() or stamp.read_bytes() != LOCK.read_bytes():
        print(f"(making {VENV.name} for the Python peers, about a minute)", flush=True)
        _run([sys.executable, "-m", "venv", "--clear", VENV], "an environment for the Python peers")
        pip: list[str | Path] = [
            interpreter,
            "-m",
            "pip",
            "install",
            "-q",
            "--disable-pip-version-check",
            "--no-deps",
        ]
        _run([*pip, "--require-hashes", "-r", LOCK], "the Python peers")
        stamp.write_bytes(LOCK.read_bytes())
    return interpreter


@once
def node_modules() -> Path:
    """The folder with the package ws for Node. The first use makes it. Raises Missing."""
    folder = BUILD / "node"
    package = folder / "node_modules" / "ws" / "package.json"
    if not package.exists() or f'"{NODE_WS}"' not in package.read_text():
        folder.mkdir(parents=True, exist_ok=True)
        npm: list[str | Path] = [
            _found("npm"),
            "install",
            "--no-save",
            "--no-package-lock",
            "--no-audit",
            "--no-fund",
        ]
        _run([*npm, f"ws@{NODE_WS}"], "ws for Node", folder)
    return folder / "node_modules"


def prepare(bench: Bench) -> None:
    """Install the packages of the wanted peers before the clock runs. A failure is reported at the turn of its peer."""
    made: dict[str, Callable[[], Path]] = {NODE: node_modules}
    made |= dict.fromkeys((PICOWS, WEBSOCKETS, FASTAPI, CRYPTOFEED, STRAWBERRY, CACHING), python)
    for name, make in made.items():
        if bench.wanted(name):
            with suppress(Missing):
                make()


def _found(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        raise Missing(f"{program} is not installed (on Debian: apt install nodejs npm)")
    return found


def _run(command: list[str | Path], what: str, folder: Path | None = None) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, check=False)
    except subprocess.TimeoutExpired:
        raise Missing(f"{what}: not installed within 10 minutes; is there a network?") from None
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no reason given"]
        raise Missing(f"{what}: cannot be installed: {last[0][:200]}")


def versions() -> dict[str, str]:
    """The versions of the peers' packages, as far as they are installed."""
    found: dict[str, str] = {}
    if (VENV / "bench.stamp").exists():
        names = ["fastapi", "uvicorn", "uvloop", "websockets", "picows", "aiofastnet", "cryptofeed"]
        names += ["strawberry-graphql"]
        script = f"from importlib.metadata import version\nfor n in {names}: print(n, version(n))"
        told = subprocess.run([python(), "-c", script], capture_output=True, text=True, check=False).stdout
        found |= {line.split()[0]: line.split()[1] for line in told.splitlines()}
    if node := shutil.which("node"):
        found["node"] = subprocess.run(
            [node, "--version"], capture_output=True, text=True, check=False
        ).stdout.strip()
        found["ws (Node)"] = NODE_WS
    return found
