"""Kills a real daemon again and again, under load, and starts it again at once.

Rules of this file. It decides nothing: `plan` draws the lives, `lives` judges the results. The daemon is a
process of its own with a history on disk; exchanges and clients outlive it. Every wait has an end; what has
not happened by then is a finding. The disk is looked at only between two lives, and only in a copy.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import takewhile
from pathlib import Path
from typing import Final

import httpx
import msgspec
import trio
from attrs import define, field, frozen

from dataflow.cache.archive import ArchiveFailed
from dataflow.domain.errors import ConfigError
from dataflow.settings.load import load, shipped
from simulators import Exchange, Player

from .check import Admitted
from .exchanges import EXCHANGES, judge, playing
from .lives import Forks, Lives
from .plan import Deaths, Fate, Life, fate, makes
from .ports import HOST, kept_port
from .readings import Disk, served
from .speakers import JsonRpc, Speaker, speaker
from .witness import LOOK_EVERY

COMMAND: Final = (sys.executable, "-m", "dataflow")
SERVED_WITHIN: Final = 60.0  # seconds from a start until all clients are served: a busy machine is slow
ENDS_WITHIN: Final = 30.0  # seconds of a stop in order
AT_REST: Final = 20  # looks in a row without news
SPEED: Final = 10.0  # times the recordings' own pace: about 1,000 trades a second together
REMEMBERED: Final = (
    2_000  # trades of a symbol in the daemon's memory: few, so that answers come from disk too
)


@frozen
class Passed:
    """The progress of a rehearsal of deaths. `trades`: received by the client that has most."""

    phase: str
    deaths: int
    trades: int

    def __str__(self) -> str:
        return f"{self.phase}, {self.deaths} deaths, {self.trades} trades"


Tell = Callable[[Passed], None]


async def outlive(deaths: Deaths, tell: Tell = lambda _passed: None) -> Lives:
    """Kill the daemon as often as `deaths` says, and return the verdict."""
    made = {name: str(each) for name, each in makes(deaths.seed, deaths.clients).items()}
    figures = Lives(made=made)
    with tempfile.TemporaryDirectory(prefix="dataflow-deaths-") as folder:
        async with _stage(Path(folder), deaths) as stage, trio.open_nursery() as nursery:
            play = _Play(stage, fate(deaths), figures, tell)
            nursery.start_soon(play.report)
            for client in stage.clients.values():
                nursery.start_soon(client.run)
            try:
                await play.run()
            finally:
                with trio.CancelScope(shield=True):
                    await stage.daemon.kill()
            nursery.cancel_scope.cancel()
    return figures


# -- the stage: a daemon in a process of its own, exchanges, clients ------------------------------------


@define(eq=False)
class _Daemon:
    """`dataflow run` with a history in `folder`, on a port that stays the same."""

    folder: Path
    port: int
    process: trio.Process | None = None

    @property
    def directory(self) -> Path:
        """Its history."""
        return self.folder / "data"

    @property
    def log(self) -> Path:
        """What it says, over all lives."""
        return self.folder / "daemon.log"

    def configure(
        self, exchanges: dict[str, Exchange], symbols: Mapping[str, Collection[str]], send: str
    ) -> None:
        """Write its configuration."""
        lines = [
            f'[gateway]\nhost = "{HOST}"\nport = {self.port}\ndrain_seconds = 1.0',
            f"[cache]\ntrades_per_symbol = {REMEMBERED}",
            "[backoff]\ninitial_delay = 0.05\nmax_delay = 0.5",
            f'[history]\ndirectory = "{self.directory}"\nmin_free_bytes = 0\nsend = "{send}"',
        ]
        for name, exchange in exchanges.items():
            known = ", ".join(f'"{symbol}"' for symbol in symbols[name])
            lines.append(f'[sources.{name}]\nconnector = "{name}"\nurl = "{exchange.url}"\neager = true')
            if exchange.dialect.rest is not None:
                lines.append(f'refill_url = "{exchange.rest_url}"')
            lines.append(f"symbols = [{known}]")
        (self.folder / "daemon.toml").write_text("\n".join(lines) + "\n")

    async def start(self) -> None:
        """Start the process. It need not listen when this returns."""
        command = [*COMMAND, "run", "--config", str(self.folder / "daemon.toml")]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("DATAFLOW__")}
        with self.log.open("ab") as log:
            self.process = await trio.lowlevel.open_process(
                command, stdout=log, stderr=log, stdin=-3, env=environment, cwd=self.folder
            )

    async def end(self, how: signal.Signals) -> int:
        """Send this signal, and wait for the end. Returns the exit code."""
        assert self.process is not None
        self.process.send_signal(how)
        with trio.move_on_after(ENDS_WITHIN):
            return await self.process.wait()
        return await self.kill() or 0

    async def kill(self) -> int | None:
        """End it in any case."""
        if self.process is None:
            return None
        self.process.kill()
        return await self.process.wait()


@define(eq=False)
class _Stage:
    daemon: _Daemon
    symbols: Mapping[str, Collection[str]]  # by source
    exchanges: dict[str, Exchange]
    players: dict[str, Player]
    clients: dict[str, Speaker]


@asynccontextmanager
async def _stage(folder: Path, deaths: Deaths) -> AsyncIterator[_Stage]:
    plan = fate(deaths)
    settings = load([shipped("server.toml")], {})
    symbols = {name: tuple(settings.sources[name].symbols) for name in EXCHANGES}
    async with AsyncExitStack() as stack:
        exchanges: dict[str, Exchange] = {}
        players: dict[str, Player] = {}
        for name in EXCHANGES:
            opened = playing(name, seed=deaths.seed, repeated=plan.repeated, speed=SPEED)
            exchanges[name], players[name] = await stack.enter_async_context(opened)
        if plan.dropped:
            exchanges["binance"].fault("drop", times=None, probability=plan.dropped)
        daemon = _Daemon(folder, stack.enter_context(kept_port()))
        daemon.configure(exchanges, symbols, "after_commit" if plan.after_commit else "at_once")
        every = [symbol for known in symbols.values() for symbol in known]
        clients = {
            name: speaker(make, HOST, daemon.port, every, outlives=True)
            for name, make in makes(deaths.seed, deaths.clients).items()
        }
        yield _Stage(daemon, symbols, exchanges, players, clients)


# -- the play ---------------------------------------------------------------------------------------------


@define(eq=False)
class _Play:
    stage: _Stage
    fate: Fate
    figures: Lives
    tell: Tell
    phase: str = "killing"
    _forks: dict[str, Forks] = field(factory=dict)
    _disk: Disk = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._forks = {name: Forks() for name in self.stage.clients}
        self._disk = Disk(self.stage.daemon.directory)

    async def run(self) -> None:
        for life in self.fate.lives:
            await self._live(life)
            await self._look_around()
        await self._settle()

    async def report(self) -> None:
        """Tell the progress, again and again."""
        while True:
            trades = max(client.received for client in self.stage.clients.values())
            self.tell(Passed(self.phase, self.figures.ends["kill"], trades))
            await trio.sleep(LOOK_EVERY)

    async def _live(self, life: Life) -> None:
        daemon, begin = self.stage.daemon, trio.current_time()
        await daemon.start()
        if not life.from_start:
            await self._until_served(begin)
        await trio.sleep(life.seconds)
        self.figures.early += any(not client.listening for client in self.stage.clients.values())
        assert daemon.process is not None
        if daemon.process.poll() is not None:
            self.figures.broken.append(
                f"the daemon ended by itself: {daemon.process.returncode}; {self._said()}"
            )
            return
        code = await daemon.end(signal.SIGKILL if life.end == "kill" else signal.SIGTERM)
        if life.end == "stop" and code != 0:
            self.figures.broken.append(f"a stop in order ended with {code}; {self._said()}")
        self.figures.ends[life.end] += 1

    async def _until_served(self, begin: float) -> None:
        await self._until(self._deaf, SERVED_WITHIN)
        self.figures.starts.append(trio.current_time() - begin)

    async def _look_around(self) -> None:
        """Between two lives: what is on disk, and what each client holds."""
        await self._until(self._not_noticed, ENDS_WITHIN)
        try:
            last = await trio.to_thread.run_sync(self._disk.look)
        except (ArchiveFailed, ConfigError) as error:
            self.figures.broken.append(f"the disk cannot be read: {error}")
            return
        for name, client in self.stage.clients.items():
            self._judge_rewinds(name, client)
            self._forks[name].died({symbol: client.position(symbol) for symbol in last}, last)

    def _judge_rewinds(self, name: str, client: Speaker) -> None:
        answered, client.answered = client.answered, set()
        wrong = self._forks[name].served(answered, client.rewinds)
        self.figures.untold += (f"{name}: {what}" for what in wrong)

    async def _settle(self) -> None:
        """The last life: no more trouble. All that was sent arrives, and the record is read and judged."""
        self.phase = "settling"
        for exchange in self.stage.exchanges.values():
            exchange.faults.withdraw()
        await self.stage.daemon.start()
        await self._until_served(trio.current_time())
        reached = self._positions()
        await self._until(lambda: self._no_news(reached), SERVED_WITHIN)
        for player in self.stage.players.values():
            player.pause()
        await self._rest()
        async with trio.open_nursery() as nursery:  # they ask for what is known of their gaps now
            for client in self.stage.clients.values():
                nursery.start_soon(lambda each: each.leave(0.0, politely=True), client)
        await self._until(self._deaf, SERVED_WITHIN)
        await self._rest()
        await self._judge()

    async def _rest(self) -> None:
        """Wait until nothing is on the way any more."""
        quiet, before = 0, self._positions()
        with trio.move_on_after(SERVED_WITHIN):
            while quiet < AT_REST:
                await trio.sleep(LOOK_EVERY)
                now = self._positions()
                quiet, before = (quiet + 1 if now == before and not self._on_the_way() else 0), now
            return
        self.figures.unsettled.append("messages were still on the way")

    async def _judge(self) -> None:
        stage, figures = self.stage, self.figures
        try:
            record = await self._record()
        except (httpx.HTTPError, msgspec.DecodeError, RuntimeError) as error:
            figures.broken.append(f"the record cannot be read: {error!r}; {self._said()}")
            return
        for name, client in stage.clients.items():
            client.lost()
            self._judge_rewinds(name, client)
            figures.clients[name] = client.account(record)
            figures.connections[name] = client.connections
            figures.rewinds[name] = sum(map(len, client.rewinds.values()))
            figures.filled[name] = 0 if isinstance(client, JsonRpc) else client.filled
        for name, exchange in stage.exchanges.items():
            figures.sources[name] = judge(name, exchange, stage.symbols[name], record)
            figures.broken += (f"the simulated {name} failed: {error!r}" for error in exchange.failures)
        for admitted in record.values():
            figures.gaps.update(admitted.gaps)
        for disk in self._disk.found:
            figures.found_on_disk(disk, record)
        code = await stage.daemon.end(signal.SIGTERM)
        if code != 0:
            figures.broken.append(f"the last stop ended with {code}; {self._said()}")
        figures.compare("on disk", record, await trio.to_thread.run_sync(self._disk.read))
        figures.broken += self._disk.damage
        figures.broken += self._tracebacks()

    async def _record(self) -> dict[str, Admitted]:
        """The stream of each symbol as the daemon serves it, from its first place on."""
        found: dict[str, Admitted] = {}
        async with httpx.AsyncClient(
            base_url=f"http://{HOST}:{self.stage.daemon.port}", verify=False
        ) as http:
            for symbols in self.stage.symbols.values():
                for symbol in symbols:
                    found[symbol] = await served(http, symbol)
        return found

    def _said(self) -> str:
        """The last line of the daemon's log."""
        lines = self._log()
        return lines[-1] if lines else "it said nothing"

    def _tracebacks(self) -> list[str]:
        """The errors that nobody expected, of all lives: the last line of each traceback."""
        lines, found = self._log(), list[str]()
        for n, line in enumerate(lines):
            if "Traceback (most recent call last)" in line:
                behind = takewhile(lambda each: not each.startswith("20"), lines[n + 1 :])
                found.append(f"in the log: {[line, *behind][-1].strip()}")
        return found

    def _log(self) -> list[str]:
        return self.stage.daemon.log.read_text(errors="replace").splitlines()

    # What has not happened yet, in words. An empty list means that all is well.

    async def _until(self, ailing: Callable[[], Collection[str]], seconds: float) -> None:
        with trio.move_on_after(seconds):
            while ailing():  # noqa: ASYNC110 - there is no event for this
                await trio.sleep(LOOK_EVERY)
            return
        self.figures.unsettled += ailing()

    def _deaf(self) -> list[str]:
        clients = self.stage.clients.items()
        return [f"{name} waits for {client.waits_for}" for name, client in clients if not client.listening]

    def _not_noticed(self) -> list[str]:
        clients = self.stage.clients.items()
        return [f"{name} has not noticed the end" for name, client in clients if client.connected]

    def _no_news(self, reached: dict[tuple[str, str], int | None]) -> list[str]:
        now = self._positions()
        return [
            f"{name}: no trade of {symbol}"
            for (name, symbol), at in reached.items()
            if now[name, symbol] == at
        ]

    def _on_the_way(self) -> bool:
        return any(each.queued for exchange in self.stage.exchanges.values() for each in exchange.connections)

    def _positions(self) -> dict[tuple[str, str], int | None]:
        return {
            (name, symbol): client.position(symbol)
            for name, client in self.stage.clients.items()
            for symbol in client.symbols
        }
