"""Readiness: static actors must run, sources may be down, dynamic actors do not count."""

from __future__ import annotations

import pytest

from dataflow.domain.quality import Grade
from dataflow.ops.readiness import readiness, unwell
from supervisors import Node


def node(path: str, kind: str = "actor", state: str = "running", *children: Node) -> Node:
    return Node(path, kind, state, 1, 0, None, None, 0.0, None, tuple(children))


def tree(**states: str) -> Node:
    """A whole tree; `states` by the last part of a path, the others run."""

    def make(path: str, kind: str = "actor", *children: Node) -> Node:
        return node(path, kind, states.get(path.rpartition("/")[2].replace("-", "_"), "running"), *children)

    return make(
        "",
        "supervisor",
        make("cache", "supervisor", make("cache/shard-0")),
        make("topics", "pool", make("topics/BTC-USD")),
        make("sources", "supervisor", make("sources/binance")),
        make("gateway", "supervisor", make("gateway/sessions", "pool"), make("gateway/http")),
    )


@pytest.mark.parametrize(
    ("states", "down", "needed", "not_ready"),
    [
        ({}, ("binance",), None, ()),
        ({}, (), ("binance",), ()),
        ({}, ("binance",), ("binance",), ("sources",)),
        ({}, ("binance",), ("binance", "kraken"), ()),
        ({"binance": "backoff"}, ("kraken",), ("binance", "kraken"), ("sources",)),
        ({}, (), (), ("sources",)),
    ],
)
def test_one_of_the_needed_sources_must_be_up(
    states: dict[str, str], down: tuple[str, ...], needed: tuple[str, ...] | None, not_ready: tuple[str, ...]
) -> None:
    """Where a source is needed and none is up, the branch of the sources is not ready."""
    verdict = readiness(tree(**states), down, needed)
    assert verdict.not_ready == not_ready
    assert (verdict.status == "not ready") is bool(not_ready)


@pytest.mark.parametrize(
    ("states", "down", "status", "not_ready", "degraded"),
    [
        ({}, (), "ready", (), ()),
        ({"shard_0": "backoff"}, (), "not ready", ("cache/shard-0",), ()),
        ({"binance": "backoff"}, (), "degraded", (), ("sources/binance",)),
        ({}, ("binance",), "degraded", (), ("sources/binance",)),
        (
            {"binance": "starting", "http": "starting"},
            (),
            "not ready",
            ("gateway/http",),
            ("sources/binance",),
        ),
        ({"sources": "backoff"}, (), "not ready", ("sources",), ()),
        ({"BTC_USD": "backoff"}, (), "ready", (), ()),
    ],
)
def test_readiness(
    states: dict[str, str],
    down: tuple[str, ...],
    status: str,
    not_ready: tuple[str, ...],
    degraded: tuple[str, ...],
) -> None:
    """The status and the paths behind it."""
    found = readiness(tree(**states), down)
    assert (found.status, found.not_ready, found.degraded) == (status, not_ready, degraded)


def test_a_symbol_that_lacks_trades_is_named_with_its_state() -> None:
    """Also one that its source refuses: nothing comes of it, and nobody but an operator can mend that."""
    states = {
        "x": {Grade.LIVE: ["A-B"], Grade.STALLED: ["C-D"], Grade.REJECTED: ["E-F"], Grade.IDLE: ["G-H"]}
    }
    assert list(unwell(states)) == ["x: E-F rejected", "x: C-D stalled"]
