"""Promises of the methods beyond their answers. The answers are tested over a real WebSocket."""

from __future__ import annotations

from typing import Any, cast

import trio

from dataflow.app import hall
from dataflow.domain import Topic
from dataflow.faces.jsonrpc.methods import Calls
from dataflow.faces.jsonrpc.parts import Parts
from dataflow.gateway.clients import AnySession
from dataflow.gateway.recovery import Since
from dataflow.settings.schema import Admission, Settings

PING = '{"jsonrpc": "2.0", "id": 1, "method": "ping"}'


class Silent:
    """A session that only counts its messages."""

    said = 0
    frame: Any = None

    def tell(self, notice: object) -> None:
        raise AssertionError("no client waits for long")

    def say(self, text: bytes) -> None:
        Silent.said += 1

    async def listen_ahead(self) -> None:
        await trio.sleep_forever()


async def test_a_pass_of_the_event_loop_answers_a_bounded_number_of_calls() -> None:
    """When many clients ask at the same moment, other tasks run after every few answers."""
    built = hall(Settings(admission=Admission(at_once=4)))
    Silent.said, most = 0, 0
    async with trio.open_nursery() as nursery:
        for _ in range(100):
            session = cast(AnySession, Silent())
            nursery.start_soon(Calls(session, built).hear, PING)
        while Silent.said < 100:
            before = Silent.said
            await trio.lowlevel.checkpoint()
            most = max(most, Silent.said - before)
    assert 1 <= most <= 2 * 4  # this task may run first in one pass and last in the next one


def test_only_positions_of_symbols_that_there_are_wait_for_the_last_part() -> None:
    """A client can name as many as it likes."""
    parts, topic, since = Parts(), Topic("trades", "*"), Since(1, 2)
    assert (
        parts.add(topic, 1, 2, {f"X{n}": since for n in range(1_000)} | {"BTC-USD": since}, ("BTC-USD",))
        is None
    )
    assert parts.add(topic, 2, 2, {}, ("BTC-USD",)) == {"BTC-USD": since}
