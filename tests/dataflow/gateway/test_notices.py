"""Sources in the log: what a connection is for, in one line however many symbols it carries."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

import pytest
from loguru import logger

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
