"""What the tests of several connectors say and ask."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from hypothesis import strategies as st

from actors.connector import Received
from dataflow.domain import Item, Missing, Trade
from dataflow.sources.port import Codec, Filler
from simulators import Trade as Published
from simulators.dialect import Rest

MOST_PAGES = 100

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def decode(codec: Codec, *messages: str | bytes) -> Received[Item]:
    into: Received[Item] = Received()
    for message in messages:
        codec.decode(message, into)
    return into


def reasons(into: Received[Item]) -> list[str]:
    """The names of the problems, in order. Each excerpt is short."""
    assert all(len(excerpt) <= 120 for _, excerpt in into.problems)
    return [reason for reason, _ in into.problems]


def trades(into: Received[Item]) -> list[Trade]:
    return [item for item in into.items if isinstance(item, Trade)]


def sent(texts: Sequence[str]) -> list[Any]:
    """Requests, as an exchange reads them."""
    return [json.loads(text) for text in texts]


def told(trade: Trade) -> tuple[Any, ...]:
    """A trade as a test that reads the JSON itself has it: texts with all digits, and microseconds."""
    return (
        trade.symbol,
        trade.trade_id,
        trade.side,
        str(trade.price),
        str(trade.quantity),
        trade.timestamp // 1000,
    )


def refill(
    filler: Filler, missing: Missing, rest: Rest, tape: Callable[[str], Sequence[Published]]
) -> tuple[list[Trade], int]:
    """All trades that the pages bring, sorted and each once, and the number of questions."""
    request = filler.fill(missing)
    found: dict[str | None, Trade] = {}
    questions = 0
    while request is not None:
        questions += 1
        assert questions <= MOST_PAGES
        assert request.weight > 0
        page = filler.filled(missing, request, asked(rest, request.path, tape))
        for trade in page.trades:
            assert found.setdefault(trade.trade_id, trade) == trade
        request = page.following
    return sorted(found.values(), key=lambda trade: int(trade.trade_id or 0)), questions


def asked(rest: Rest, path: str, tape: Callable[[str], Sequence[Published]]) -> bytes:
    """The body of the answer of a simulated exchange."""
    address = urlsplit(path)
    answer = rest(address.path, dict(parse_qsl(address.query)), tape)
    assert answer.status == 200, answer
    return answer.body


def tape_of(published: Mapping[str, Sequence[Published]]) -> Callable[[str], Sequence[Published]]:
    return lambda symbol: published.get(symbol, ())
