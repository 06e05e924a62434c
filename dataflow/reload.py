"""The actor that takes over a changed configuration, without a restart.

Rules of this file. Everything is read and checked first, in a thread: the loop waits for no disk. If anything
is wrong, all stays as it was. Each change has its line in the log, and so has what needs a restart. The
connectors follow the state of the core: `_align` compares the two, also when this actor starts, so that no
crash of it leaves a source without its connector.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import trio
from attrs import frozen
from loguru import logger

from supervisors import Child, Context, Handle, StartFailed, SupervisionError

from . import logs, paths
from .domain import secrets
from .domain.errors import ConfigError
from .events import Kind
from .gateway import exposure
from .gateway.certificates import Certificate, configured
from .gateway.hall import Hall
from .settings.changes import changes, taken_over
from .settings.schema import Settings
from .sources.state import CHANGED, REMOVED, SourceState


@frozen
class _Read:
    settings: Settings
    certificate: Certificate | None


class Reload:
    """Any message is a request to read the configuration again.

    `read` gives it, and raises ConfigError. `child_of` makes the child of the branch `sources` for a source.
    """

    def __init__(
        self, hall: Hall, read: Callable[[], Settings], child_of: Callable[[SourceState], Child]
    ) -> None:
        self._hall = hall
        self._read = read
        self._child_of = child_of

    async def run(self, ctx: Context) -> None:
        self._branch: Handle = ctx.supervisor(paths.SOURCES)
        ctx.ready()
        await self._align()
        while True:
            await ctx.receive()
            logs.reopen()
            await self._reload()

    async def _reload(self) -> None:
        try:
            read = await trio.to_thread.run_sync(self._checked, abandon_on_cancel=True)
        except ConfigError as error:
            why = f"not reloaded, everything stays as it was: {'; '.join(error.problems)}"
            _log.error("{}", why)
            self._keep([why])
            return
        secrets.keep(read.settings)
        hall, old = self._hall, self._hall.settings
        new = taken_over(old, read.settings)
        before = hall.lobby.certificate.certificate
        await self._stop_changed(new)
        hall.adopt(new, read.certificate)
        await self._align()
        told = [str(each) for each in changes(old, new)]
        after = hall.lobby.certificate.certificate
        if before is not None and after is not None and before.fingerprint != after.fingerprint:
            told.append(f"the certificate: {before.fingerprint} -> {after.fingerprint}")
        self._keep(_tell(told, [str(each) for each in changes(new, read.settings)]))
        for warning in set(exposure.warnings(new)) - set(exposure.warnings(old)):
            _log.warning("{}", warning)

    def _keep(self, told: Iterable[str]) -> None:
        words = "; ".join(told)
        self._hall.core.events.tell(Kind.RELOAD, paths.RELOAD, words, alike=words)

    def _checked(self) -> _Read:
        settings = self._read()
        return _Read(settings, configured(settings.gateway))

    async def _stop_changed(self, new: Settings) -> None:
        """Before anything else: a connector must not meet settings that it was not made for."""
        stopped = []
        for name, source in self._hall.core.sources.items():
            if name not in new.sources:
                source.retire(REMOVED)
                stopped.append(name)
            elif new.sources[name] != source.settings:
                source.down(CHANGED)
                stopped.append(name)
        await self._stop(stopped)

    async def _align(self) -> None:
        """Each source of the core has its connector, made from its present settings; there are no others."""
        sources = self._hall.core.sources
        running = {paths.name(node.path): node for node in self._branch.tree().children}
        await self._stop(
            name
            for name, node in running.items()
            if name not in sources
            or node.state == "done"
            or sources[name].used not in (None, sources[name].settings)
        )
        present = {paths.name(node.path) for node in self._branch.tree().children}
        for name in [name for name in sources if name not in present]:
            try:
                await self._branch.start(self._child_of(sources[name]))
            except StartFailed:
                continue  # told, and tried again, by its supervisor
            except SupervisionError:
                return  # the branch is down, and comes back with all sources

    async def _stop(self, names: Iterable[str]) -> None:
        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(_stopped, self._branch, name)


async def _stopped(branch: Handle, name: str) -> None:
    try:
        await branch.stop(name)
        branch.remove(name)
    except SupervisionError:  # the branch is down; or the connector does not stop, which is told
        return


_log = logger.bind(path=paths.RELOAD)


def _tell(told: Sequence[str], postponed: Sequence[str]) -> Sequence[str]:
    """Log it, and return the lines."""
    done = [f"reloaded: {each}" for each in told]
    missing = [f"not reloaded, needs a restart: {each}" for each in postponed]
    if not done and not missing:
        done = ["reloaded: nothing has changed"]
    for line in done:
        _log.info("{}", line)
    for line in missing:
        _log.warning("{}", line)
    return done + missing
