"""Sources in the log: what a connection is for, in one line however many symbols it carries."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

import pytest
from loguru import logger

from actors.connector import STOPPED
from dataflow.events import Events
from dataflow.gateway.clients import Clients
from dataflow.gateway.notices import SYMBOLS_TOLD, Announcer

MANY = [f"S{n:03}-USD" for n in range(300)]


@pytest.fixture
def lines() -> Iterator[list[str]]:
    told: list[str] = []
    sink = logger.add(lambda message: told.append(message.rstrip("\n")), format="{extra[path]}: {message}")
    yield told
    logger.remove(sink)


@pytest.mark.parametrize(
    ("symbols", "told"),
    [
        ([], "nothing is subscribed"),
        (["ETH-USD", "BTC-USD"], "subscribed to BTC-USD, ETH-USD"),
        (MANY, "subscribed to " + ", ".join(MANY[:SYMBOLS_TOLD]) + f" and {300 - SYMBOLS_TOLD} more"),
    ],
)
@pytest.mark.parametrize(
    ("tell", "before"),
    [
        (lambda to, symbols: to.connected("a", "ws://x/", symbols), "connected to ws://x/, "),
        (lambda to, symbols: to.restored("a", symbols, 3.21), "connection restored after 3.2 s, "),
    ],
)
def test_a_connection_is_one_short_line(
    lines: list[str],
    tell: Callable[[Announcer, Collection[str]], None],
    before: str,
    symbols: list[str],
    told: str,
) -> None:
    """The first connection has the address, a later one does not; of many symbols the number is told."""
    tell(Announcer(Clients()), symbols)
    assert lines == [f"sources/a: {before}{told}"]


async def test_what_happens_to_a_source_is_an_event(lines: list[str]) -> None:
    """Each change has its kind. A refused symbol is no lost connection, neither in the log nor as an event; and what
    the operator wanted is no loss."""
    events = Events()
    to = Announcer(Clients(), events)
    to.lost("a", "cut", ["X-Y"])
    to.refused("a", "X-Z", "no such symbol")
    to.restored("a", ["X-Y"], 3.21)
    to.accepted("a", "X-Z")
    to.stalled("a", "X-Y", "newer trades")
    to.recovered("a", "X-Y")
    to.renumbered("a", "X-Y")
    to.switched("X-Y", 1, 7, "a", "b", "a is lost")
    to.lost("b", STOPPED, [])
    assert [(each.kind.value, each.path, each.text) for each in events.newest(20)] == [
        ("lost", "sources/a", "cut; concerns X-Y"),
        ("lost", "sources/a", "X-Z is refused: no such symbol"),
        ("restored", "sources/a", "after 3.2 s, subscribed to X-Y"),
        ("restored", "sources/a", "X-Z is refused no more"),
        ("stalled", "sources/a", "X-Y: newer trades"),
        ("recovered", "sources/a", "X-Y: its trades come again"),
        ("renumbered", "sources/a", "X-Y: trades may be missing before"),
        ("switched", "sources/b", "X-Y comes from b and no more from a: a is lost"),
        ("stopped", "sources/b", "stopped; concerns no symbols"),
    ]
    assert lines == [
        "sources/a: connection lost: cut",
        "sources/a: connection restored after 3.2 s, subscribed to X-Y",
        "sources/a: X-Z is refused no more",
        "sources/a: X-Y is stalled no more",
        "sources/a: X-Y is numbered anew: trades may be missing before",
        "sources/b: X-Y comes from b and no more from a: a is lost",
        "sources/b: connection ended: stopped",
    ]
