"""A plan is made of its seed alone, and asks for nothing that is impossible."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.chaos.plan import Order, Plan, Shape, Step, make
from dataflow.faults.registry import Faults
from simulators.exchange import MODES
from simulators.faults import KINDS

SHAPE = Shape(
    shards=2,
    symbols=("BTC-USD", "BTC-USDT"),
    sources=("binance", "blockchain"),
    numbering=frozenset({"blockchain"}),
    clients=3,
)
SEEDS = st.integers(0, 10**9)
ORDERS = st.builds(
    Order,
    seed=SEEDS,
    minutes=st.floats(0.05, 20),
    faults_per_minute=st.floats(1, 100),
    clients=st.just(SHAPE.clients),
)


def steps(seed: int, sort: str) -> list[Step]:
    plan = make(Order(seed, minutes=20, faults_per_minute=60), SHAPE)
    return [step for step in plan.steps if step.sort == sort]


@given(order=ORDERS)
def test_the_same_order_makes_the_same_plan(order: Order) -> None:
    """Whenever and however often it is made."""
    assert make(order, SHAPE) == make(order, SHAPE)


def test_a_seed_means_the_same_for_ever() -> None:
    """In every process and on every machine: the command that repeats a failure does repeat it."""
    first, *_rest = make(Order(7), SHAPE).steps
    assert first == Step(at=0.468, sort="fault", kind="crash", target="topics/BTC-USD", point="receive")


@given(seed=SEEDS)
def test_another_seed_makes_another_plan(seed: int) -> None:
    """Or a hundred seeds would rehearse one storm."""
    assert make(Order(seed), SHAPE).steps != make(Order(seed + 1), SHAPE).steps


@given(order=ORDERS)
def test_troubles_come_in_time_and_as_often_as_ordered(order: Order) -> None:
    """In order, inside the time, and none without an end."""
    plan = make(order, SHAPE)
    moments = [step.at for step in plan.steps]
    assert moments == sorted(moments)
    assert all(0 <= at <= plan.seconds for at in moments)
    assert plan.seconds == order.minutes * 60
    troubles = len(plan.steps) - sum(step.at > 0 and step.sort == "restart" for step in plan.steps)
    assert troubles <= max(1, round(order.minutes * order.faults_per_minute)) <= len(plan.steps)


@given(order=ORDERS)
def test_nothing_impossible_is_asked_for(order: Order) -> None:
    """Every step is one that its target takes: the daemon's faults, the exchanges, the proxies, the clients."""
    for step in make(order, SHAPE).steps:
        assert_possible(step)


def assert_possible(step: Step) -> None:
    match step.sort:
        case "fault":
            Faults().inject(step.target, step.kind, point=step.point, seconds=step.seconds, times=step.times)
        case "restart":
            assert step.target
        case "exchange":
            assert step.kind in MODES
            assert step.target in SHAPE.sources
            assert step.kind in ("graceful", "abrupt") or step.seconds
        case "wire":
            assert step.kind in KINDS
            assert step.target in SHAPE.sources
            assert step.kind != "skip" or step.target in SHAPE.numbering
        case "proxy":
            assert step.kind in ("cut", "reset", "latency", "half_open")
            assert step.target in (*SHAPE.sources, *SHAPE.client_names)
            assert step.kind in ("cut", "reset") or step.seconds
        case "client":
            assert step.kind in ("leave", "vanish", "stop_reading")
            assert step.target in SHAPE.client_names
            assert step.seconds


@pytest.mark.parametrize(
    ("sort", "kinds"),
    [
        ("fault", {"crash", "hang", "delay", "drop", "disconnect"}),
        ("restart", {"restart"}),
        ("exchange", {"graceful", "abrupt", "drop", "refuse"}),
        ("wire", {"duplicate", "truncate", "garbage", "skip"}),
        ("proxy", {"cut", "reset", "latency", "half_open"}),
        ("client", {"leave", "vanish", "stop_reading"}),
    ],
)
def test_every_kind_of_trouble_comes(sort: str, kinds: set[str]) -> None:
    """A long storm leaves nothing out."""
    assert {step.kind for step in steps(1, sort)} == kinds


def test_every_part_of_the_tree_is_hit() -> None:
    """Every shard, topic, source and branch, the server and the sessions."""
    hit = {step.target for sort in ("fault", "restart") for step in steps(1, sort)}
    assert hit == {
        "cache", "cache/shard-0", "cache/shard-1", "topics", "topics/BTC-USD", "topics/BTC-USDT",
        "sources", "sources/binance", "sources/blockchain", "gateway", "gateway/http", "gateway/sessions",
    }  # fmt: skip


def test_every_policy_and_both_sorts_of_interest_are_rehearsed() -> None:
    """Over some seeds: slow clients of all three sorts, sources with and without clients."""
    plans: list[Plan] = [make(Order(seed), SHAPE) for seed in range(40)]
    assert {plan.slow_client for plan in plans} == {"disconnect", "drop_oldest", "conflate"}
    assert {plan.eager for plan in plans} == {True, False}


@pytest.mark.parametrize("wrong", [{"minutes": 0}, {"minutes": -1}, {"faults_per_minute": 0}, {"clients": 0}])
def test_an_order_for_nothing_is_refused(wrong: dict[str, Any]) -> None:
    """ValueError: a rehearsal of nothing would hold every invariant."""
    with pytest.raises(ValueError, match="must be"):
        Order(1, **wrong)
