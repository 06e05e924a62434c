"""Promises of faces.stomp.format: the body of a MESSAGE, the same for all who follow a symbol."""

from __future__ import annotations

import json
from decimal import Decimal

from dataflow.domain import Topic
from dataflow.domain.aggregate import Aggregate
from dataflow.faces.stomp.format import BODIES, SOCKJS_BODIES

DAY = Topic("days", "AAPL")


def test_an_aggregate_is_seven_members_in_their_order() -> None:
    """Prices are numbers with the digits that they have; volume and time in milliseconds are strings."""
    bar = Aggregate(
        "AAPL",
        0,
        Decimal("150.25"),
        Decimal("152.10"),
        Decimal("149.8"),
        Decimal("151.5"),
        Decimal("1000000"),
        7,
        1_735_201_234_567_891_234,
        42,
    )
    body = (
        b'{"symbol":"AAPL","open":150.25,"high":152.10,"low":149.8,"close":151.5,'
        b'"volume":"1000000","timestamp":"1735201234567"}'
    )
    text = BODIES.item(DAY, 9, 42, bar)
    assert text == b"message-id:42\ncontent-length:%d\n\n%b" % (len(body), body)
    assert json.loads(b'"' + SOCKJS_BODIES.item(DAY, 9, 42, bar) + b'"').encode() == text
