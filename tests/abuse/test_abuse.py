"""The judge of the attacks: what it must not overlook."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from tests.support.certificates import make_certificate

from .arena import Arena, Bystander, Feed, Process
from .attacker import STAYED, by_http, by_http2, by_websocket, http2, masked, unmasked
from .attacks import ALL, Attack, by_client
from .trial import Result, _judge, trial

ATTACK = Attack(name="made up", run=ALL[0].run, ends=("1008",))


def judged(
    result: Result, published: int, places: list[int], gaps: int = 0, attack: Attack = ATTACK
) -> list[str]:
    """What the judge finds broken when a bystander got these places of the published trades."""
    bystander = Bystander(Process(0, 0), None, trades=places, gaps=gaps)
    feed = Feed(None, published)  # type: ignore[arg-type]
    _judge(result, attack, Arena(Process(0, 0), feed, bystander, lambda: None))
    return result.broken


def good() -> Result:
    """Figures with which every promise holds."""
    return Result(
        name="", ping_cpu=(1, 2, 3), health_cpu=(1, 2, 3), files=(10, 20, 10), ends={"1008": 2, STAYED: 1}
    )


def test_a_good_result_breaks_nothing() -> None:
    """A bystander that subscribed late gets all from there on."""
    assert judged(good(), 5, [3, 4, 5]) == []


@pytest.mark.parametrize(
    ("published", "places", "gaps", "told"),
    [
        (5, [3, 5], 0, "lost 1 trades"),
        (5, [3, 4], 0, "lost 1 trades"),
        (5, [3, 4, 5], 1, "told 1 gaps"),
        (5, [3, 4, 4, 5], 0, "twice or out of order"),
        (5, [4, 3, 5], 0, "twice or out of order"),
    ],
)
def test_every_trade_comes_once_and_in_order(published: int, places: list[int], gaps: int, told: str) -> None:
    """A missing, repeated or displaced trade breaks a promise, and so does a gap."""
    assert told in "\n".join(judged(good(), published, places, gaps))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"ends": {"1000": 1, "1008": 1}}, "ended with 1000, not 1008"),
        ({"ends": {STAYED: 3}}, "no attacker was let go"),
        ({"ends": {}}, "nobody attacked"),
        ({"ping_cpu": (1, 201, 201)}, "a ping waited for 201 ms"),
        ({"health_cpu": (1, 201, 201)}, "/health waited for 201 ms"),
        ({"files": (10, 20, 11)}, "1 descriptors were not given back"),
    ],
)
def test_every_figure_is_judged(change: dict[str, Any], told: str) -> None:
    """How attackers ended, what a bystander waited in CPU time, and what was not given back."""
    assert told in "\n".join(judged(evolve(good(), **change), 5, [5]))


def test_the_end_of_an_attacker_is_read_from_its_last_bytes() -> None:
    """Close codes of both roles, the status of HTTP and the error of HTTP/2."""
    told = b"\x03\xf0" + b"too many"
    assert by_websocket(unmasked(0x81, b"\x88") + unmasked(0x88, told)) == "1008"
    assert by_websocket(b"") == by_websocket(unmasked(0x81, b"hello")) == "cut off"
    assert by_client(masked(0x8A, b"\x88") + masked(0x88, told)) == "1008"
    assert by_client(masked(0x81, b"hello")) == "cut off"
    assert by_http(b"HTTP/1.1 408 Request Timeout\r\n\r\n") == "408"
    assert by_http(b"") == "closed"
    goaway = http2(7, payload=bytes(4) + b"\0\0\0\x0b")
    assert by_http2(http2(4) + goaway) == "GOAWAY 11"
    assert by_http2(http2(3, 0, 1, bytes(4)) * 2) == "2 resets"


async def test_a_trial_is_carried_out_and_judged(tmp_path: Path) -> None:
    """A real daemon lets go of who floods it with pings. Expected to end otherwise, that is a broken promise, and the only one."""
    [pings] = [attack for attack in ALL if attack.name == "pings"]
    wrong = evolve(pings, ends=("1000",), aim=1e9)
    result = await trial(wrong, 1.0, tmp_path, make_certificate(tmp_path))
    assert result.broken == [
        "attackers ended with 1008, not 1000",
        "no attacker was let go with 1000",
    ]
    assert result.done
    assert result.lost == 0


async def test_a_daemon_that_dies_breaks_every_promise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trial tells it, and ends."""

    async def dies(arena: Arena) -> None:
        os.kill(arena.process.pid, signal.SIGKILL)

    monkeypatch.setattr(Arena, "settle", dies)
    result = await trial(evolve(ALL[0]), 0.1, tmp_path, make_certificate(tmp_path))
    assert "the daemon" in "\n".join(result.broken)  # that it has ended, or how
