"""The plan: the seed alone decides, and every step is possible."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from dataflow.chaos.plan import FORMATS, Make, Plan, Rehearsal, Shape, Step, make, makes
from dataflow.faults.registry import Faults
from simulators.exchange import MODES
from simulators.faults import KINDS

SHAPE = Shape(
    shards=2,
    symbols=("BTC-USD", "BTC-USDT"),
    sources=("binance", "blockchain"),
    numbering=frozenset({"blockchain"}),
    clients=3,
    asked={"binance": ("BTC-USDT",)},
)
WHOLE = evolve(SHAPE, faces=("grpc",), listeners=("ticks",), producers=("tcp",))
SEEDS = st.integers(0, 10**9)
REHEARSALS = st.builds(
    Rehearsal,
    seed=SEEDS,
    minutes=st.floats(0.05, 20),
    faults_per_minute=st.floats(1, 100),
    clients=st.just(SHAPE.clients),
)


def steps(seed: int, sort: str, shape: Shape = SHAPE) -> list[Step]:
    plan = make(Rehearsal(seed, minutes=20, faults_per_minute=60), shape)
    return [step for step in plan.steps if step.sort == sort]


@given(rehearsal=REHEARSALS)
def test_the_same_rehearsal_makes_the_same_plan(rehearsal: Rehearsal) -> None:
    """A second call returns an equal plan."""
    assert make(rehearsal, SHAPE) == make(rehearsal, SHAPE)


def test_a_seed_means_the_same_for_ever() -> None:
    """In every process and on every machine. Otherwise the command that repeats a failure would not repeat it."""
    first, *_rest = make(Rehearsal(7), SHAPE).steps
    assert first == Step(at=0.468, sort="fault", kind="crash", target="topics/BTC-USD", point="receive")


@given(seed=SEEDS)
def test_another_seed_makes_another_plan(seed: int) -> None:
    """A hundred seeds must rehearse a hundred different storms."""
    assert make(Rehearsal(seed), SHAPE).steps != make(Rehearsal(seed + 1), SHAPE).steps


@given(seed=SEEDS, count=st.integers(1, 6))
def test_one_client_owes_nothing_to_the_library_and_one_is_made_of_it(seed: int, count: int) -> None:
    """So that it hides no fault of its own, and has to bear whatever comes."""
    made = [*makes(seed, count).values()]
    assert made == [*makes(seed, count).values()]
    assert made[0] == Make("own")
    assert [each.sort for each in made[2:3]] == ["library"] * (count > 2)


def test_every_way_to_use_the_library_is_rehearsed() -> None:
    """By some of a few hundred seeds: each format, both loops, one symbol or all, with candles or without."""
    drawn = {each for seed in range(400) for each in makes(seed, 3).values()}
    assert len({each for each in drawn if each.sort == "core"}) == len(FORMATS) * 2
    assert len({each for each in drawn if each.sort == "library"}) == len(FORMATS) * 2**4


@given(rehearsal=REHEARSALS)
def test_troubles_come_in_time_and_as_often_as_asked_for(rehearsal: Rehearsal) -> None:
    """Steps are sorted and lie inside the time, and their number follows the rate."""
    plan = make(rehearsal, SHAPE)
    moments = [step.at for step in plan.steps]
    assert moments == sorted(moments)
    assert all(0 <= at <= plan.seconds for at in moments)
    assert plan.seconds == rehearsal.minutes * 60
    # A bad start is a fault and a restart; a question that fails has a loss behind it that makes it necessary.
    second = sum(step.sort in ("restart", "question") for step in plan.steps)
    troubles = len(plan.steps) - second
    assert troubles <= max(1, round(rehearsal.minutes * rehearsal.faults_per_minute)) <= len(plan.steps)


@given(rehearsal=REHEARSALS)
def test_nothing_impossible_is_asked_for(rehearsal: Rehearsal) -> None:
    """Every target accepts its steps: the daemon's faults, the exchanges, the proxies, the clients."""
    for step in make(rehearsal, WHOLE).steps:
        assert_possible(step)


def assert_possible(step: Step) -> None:
    match step.sort:
        case "fault":
            Faults().inject(step.target, step.kind, point=step.point, seconds=step.seconds, times=step.times)
        case "restart":
            assert step.target
        case "exchange":
            assert step.kind in (*MODES, "renumber")
            assert step.target in SHAPE.sources
            assert step.kind in ("graceful", "abrupt", "renumber") or step.seconds
            assert step.kind not in ("announce", "renumber") or step.target in SHAPE.asked
        case "question":
            assert step.kind in KINDS
            assert step.target in SHAPE.asked
        case "wire":
            assert step.kind in KINDS
            assert step.target in SHAPE.sources
            assert step.kind not in ("drop", "mute") or step.target in SHAPE.asked
            assert step.kind != "mute" or step.point in SHAPE.asked[step.target]
            assert step.kind != "skip" or step.target in SHAPE.numbering
        case "proxy":
            assert step.kind in ("cut", "cut_one", "reset", "latency", "half_open")
            assert step.kind != "cut_one" or step.target in SHAPE.asked
            assert step.target in (*WHOLE.sources, *WHOLE.client_names, *WHOLE.producers)
            assert step.kind in ("cut", "cut_one", "reset") or step.seconds
        case "client":
            assert step.kind in ("leave", "vanish", "stop_reading")
            assert step.target in WHOLE.client_names
            assert step.seconds


@pytest.mark.parametrize(
    ("sort", "kinds"),
    [
        ("fault", {"crash", "hang", "delay", "drop", "disconnect"}),
        ("restart", {"restart"}),
        ("exchange", {"graceful", "abrupt", "drop", "refuse", "announce", "renumber"}),
        ("wire", {"duplicate", "truncate", "garbage", "skip", "drop", "mute"}),
        ("question", {kind for kind in KINDS if kind.startswith("rest_")}),
        ("proxy", {"cut", "cut_one", "reset", "latency", "half_open"}),
        ("client", {"leave", "vanish", "stop_reading"}),
    ],
)
def test_every_kind_of_trouble_comes(sort: str, kinds: set[str]) -> None:
    """A long plan contains every kind."""
    assert {step.kind for step in steps(1, sort)} == kinds


def test_every_part_of_the_tree_is_hit() -> None:
    """A long plan hits every shard, topic, source and branch, the HTTP server and the sessions."""
    hit = {step.target for sort in ("fault", "restart") for step in steps(1, sort)}
    assert hit == {
        "cache", "cache/shard-0", "cache/shard-1", "topics", "topics/BTC-USD", "topics/BTC-USDT",
        "sources", "sources/binance", "sources/blockchain", "gateway", "gateway/http", "gateway/sessions",
    }  # fmt: skip


def test_listeners_and_their_producers_are_hit() -> None:
    """A long plan hits a source that listens with its parts, the ways of its producers, and the port of gRPC."""
    hit = {step.target for sort in ("fault", "restart") for step in steps(1, sort, WHOLE)}
    parts = {"sources/ticks", "sources/ticks/listener", "sources/ticks/connections", "gateway/grpc"}
    assert parts <= hit
    assert {"tcp", "grpc"} <= {step.target for step in steps(1, "proxy", WHOLE)}


def test_every_policy_and_both_sorts_of_interest_are_rehearsed() -> None:
    """Forty seeds cover all policies for slow clients, sources with and without `eager`, and their lines."""
    plans: list[Plan] = [make(Rehearsal(seed), SHAPE) for seed in range(40)]
    assert {plan.slow_client for plan in plans} == {"disconnect", "drop_oldest", "conflate"}
    assert {plan.eager for plan in plans} == {True, False}
    assert {plan.lines for plan in plans} == {1, 2}
    assert len({plan.rotate_after for plan in plans}) == 2
    assert {plan.hold for plan in plans} == {0.0, 0.5, 2.0}


@pytest.mark.parametrize("wrong", [{"minutes": 0}, {"minutes": -1}, {"faults_per_minute": 0}, {"clients": 0}])
def test_a_rehearsal_of_nothing_is_refused(wrong: dict[str, Any]) -> None:
    """A rehearsal of nothing would hold every invariant, so it is a ValueError."""
    with pytest.raises(ValueError, match="must be"):
        Rehearsal(1, **wrong)
