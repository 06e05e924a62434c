"""One attack on one daemon, and the judgement about it.

Rules of this file: a promise is a fact that does not depend on how busy the machine is. Whether a bystander
waited too long is judged in CPU time of the daemon: what it worked on before the answer. Other programs
do not change that. The waits by the clock are shown and not judged.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio
from attrs import asdict, define, field

from tests.support.certificates import Certificate

from .arena import ANSWER_WITHIN, Arena, Broken, Bystander, Process, Setting, arena
from .attacker import STAYED
from .attacks import PATIENCE, Attack

MORE_UPSTREAM: Final = 5.0  # seconds: it attacks while the daemon starts, too
SHARE: Final = 0.99  # of the waits are within the aim. The last one in a hundred is the scheduler's
HEAD: Final = (
    f"{'attack':22}{'ping ms':>14}{'health ms':>15}{'ping cpu ms':>14}{'health cpu':>14}{'cpu s':>7}"
    f"{'MiB':>15}{'files':>13}{'lost':>5}  let go"
)


@define(kw_only=True)
class Result:
    """Waits: median, `SHARE` and worst, in milliseconds. Memory and files: before, at most, after."""

    name: str
    ping: tuple[float, ...] = ()
    health: tuple[float, ...] = ()
    ping_cpu: tuple[float, ...] = ()
    health_cpu: tuple[float, ...] = ()
    cpu: float = 0.0
    memory: tuple[float, ...] = ()
    files: tuple[int, ...] = ()
    lost: int = 0
    ends: dict[str, int] = field(factory=dict)
    first: float | None = None
    done: int = 0
    broken: list[str] = field(factory=list)

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


async def trial(attack: Attack, seconds: float, folder: Path, certificate: Certificate) -> Result:
    """Carry out `attack`, and judge. Never raises because of the daemon."""
    result = Result(name=attack.name)
    setting = Setting(
        folder=folder,
        certificate=certificate if attack.tls else None,
        max_files=attack.max_files,
        reads_log=attack.reads_log,
        reads_bodies=attack.reads_bodies,
        all_faces=attack.all_faces,
    )
    try:
        async with trio.open_nursery() as nursery:
            if attack.hostile_upstreams:
                child = await _start(nursery, attack, None, seconds + MORE_UPSTREAM)
                port = int(await _line(child))
                for number in range(attack.hostile_upstreams):
                    setting.upstreams[f"X{number}-USDT"] = f"ws://127.0.0.1:{port}/stream"
            async with arena(setting) as made:
                before = (made.process.cpu(), made.process.memory(), made.process.files())
                if not attack.hostile_upstreams:
                    child = await _start(nursery, attack, made.process, seconds)
                with trio.move_on_after(seconds * sum(PATIENCE) + MORE_UPSTREAM + ANSWER_WITHIN):
                    _keep(result, json.loads(await _line(child)))
                child.kill()
                await made.settle()
                more = await made.given_back(before[2])
                result.cpu = made.process.cpu() - before[0]
                result.memory = (before[1], made.process.most_memory, made.process.memory())
                result.files = (before[2], made.process.most_files, before[2] + more)
                _keep_waits(result, made.bystander)
                _judge(result, attack, made)
            nursery.cancel_scope.cancel()
    except* (Broken, trio.TooSlowError, ValueError) as errors:
        result.broken += dict.fromkeys(f"the trial could not go on: {error!r}" for error in _leaves(errors))
    return result


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


async def _start(
    nursery: trio.Nursery, attack: Attack, daemon: Process | None, seconds: float
) -> trio.Process:
    ports = (daemon.port, daemon.grpc_port, daemon.ticks_port) if daemon else (0, 0, 0)
    command = [sys.executable, "-m", "tests.abuse.attacks", attack.name, str(seconds), *map(str, ports)]
    started: trio.Process = await nursery.start(
        partial(trio.run_process, command, stdin=b"", stdout=subprocess.PIPE, check=False)
    )
    return started


async def _line(child: trio.Process) -> str:
    """The next line of the attacker, empty when there is none."""
    assert child.stdout is not None
    line = b""
    while not line.endswith(b"\n"):
        chunk = await child.stdout.receive_some(1 << 16)
        if not chunk:
            break
        line += chunk
    return line.decode()


def _keep(result: Result, told: dict[str, Any]) -> None:
    result.ends, result.first, result.done = told["ends"], told["first"], told["done"]


def _keep_waits(result: Result, bystander: Bystander) -> None:
    result.ping, result.ping_cpu = _summary(bystander.pings.wall), _summary(bystander.pings.cpu)
    result.health, result.health_cpu = _summary(bystander.health.wall), _summary(bystander.health.cpu)


def _summary(waits: Sequence[float]) -> tuple[float, ...]:
    ordered = sorted(waits) or [0.0]
    return tuple(ordered[min(len(ordered) - 1, int(len(ordered) * share))] for share in (0.5, SHARE, 1.0))


def _judge(result: Result, attack: Attack, made: Arena) -> None:
    bystander = made.bystander
    places = bystander.trades
    result.lost = made.feed.published - (places[0] - 1 if places else 0) - len(set(places))
    if result.lost or bystander.gaps:
        result.broken.append(f"the bystander lost {result.lost} trades and was told {bystander.gaps} gaps")
    if places != sorted(set(places)):
        result.broken.append("the bystander got trades twice or out of order")
    if bystander.refused and not attack.full_house:
        result.broken.append(
            f"the bystander was refused {len(bystander.refused)} times: {bystander.refused[0]}"
        )
    if attack.ends and (others := result.ends.keys() - {*attack.ends, STAYED}):
        result.broken.append(
            f"attackers ended with {', '.join(sorted(others))}, not {' or '.join(attack.ends)}"
        )
    if attack.ends and not result.ends.keys() & set(attack.ends):
        result.broken.append(f"no attacker was let go with {' or '.join(attack.ends)}")
    if not (result.ends or result.done) and attack.name != "nothing":
        result.broken.append("nobody attacked")
    for what, waits in (("a ping", result.ping_cpu), ("/health", result.health_cpu)):
        if waits[1] > attack.aim:
            result.broken.append(
                f"{what} waited for {waits[1]:.0f} ms of the daemon's work, not {attack.aim:.0f} ms at most"
            )
    if result.files[2] > result.files[0]:
        result.broken.append(f"{result.files[2] - result.files[0]} descriptors were not given back")


def row(result: Result) -> str:
    """A line of the table."""
    if not result.memory:
        return f"{result.name:22} no figures"
    let_go = ", ".join(f"{how} x{count}" for how, count in sorted(result.ends.items())) or "-"
    first = "" if result.first is None else f", first after {result.first:.1f} s"
    return (
        f"{result.name:22}{_triple(result.ping):>14}{_triple(result.health):>15}{_triple(result.ping_cpu):>14}"
        f"{_triple(result.health_cpu):>14}{result.cpu:7.1f}{_triple(result.memory):>15}"
        f"{_triple(result.files):>13}{result.lost:5}  {let_go}{first}; {result.done} done"
    )


def _triple(figures: Sequence[float]) -> str:
    return "/".join(f"{figure:.0f}" for figure in figures)
