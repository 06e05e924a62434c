"""What a subscription takes of its client's quota comes back once, however it ends."""

from __future__ import annotations

from typing import Any, cast

import trio
import trio.testing

from actors.update import Rendering
from dataflow.app import hall
from dataflow.domain import Topic
from dataflow.gateway.admission import Urgency
from dataflow.gateway.clients import AnySession
from dataflow.gateway.identity import ANONYMOUS
from dataflow.gateway.subscriptions import Subscriptions
from dataflow.settings.schema import Admission, Settings
from supervisors import Child, Ref
from tests.system.daemon import from_binance

TOPIC = Topic("trades", "BTC-USDT")


class _Silent:
    """A session that nothing is sent to."""

    def __init__(self) -> None:
        self.lanes: dict[Any, Any] = {}

    def tell(self, notice: object) -> None:
        raise AssertionError("no client waits for long")

    async def listen_ahead(self) -> None:
        await trio.sleep_forever()


class _Pool:
    """Starts nothing, and says that it did."""

    async def start(self, child: Child) -> Ref:
        await trio.lowlevel.checkpoint()
        return cast(Ref, self)

    def put(self, message: object) -> None:
        pass


async def test_who_leaves_while_it_waits_behind_a_new_topic_gives_its_place_back_once() -> None:
    """The client has joined the topic and waits for its turn: one place is given back, at the end."""
    built = hall(
        Settings(sources=from_binance("ws://127.0.0.1:9", "BTC-USDT"), admission=Admission(at_once=1))
    )
    built.pool = _Pool()
    built.lobby.admission.enter(Urgency.NEW, wake=lambda: None)  # the only turn, for good
    session = cast(AnySession, _Silent())
    subscriptions = Subscriptions(session, built)
    account = subscriptions.account = built.quotas.account(ANONYMOUS, "192.0.2.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(subscriptions.subscribe, TOPIC, cast(Rendering[Any], None))
        await trio.testing.wait_all_tasks_blocked()
        assert built.core.topics.subscribers == {TOPIC: 1}
        assert account.subscriptions == 1
        nursery.cancel_scope.cancel()
    subscriptions.close()
    assert account.subscriptions == 0
    assert built.core.topics.subscribers == {TOPIC: 0}
