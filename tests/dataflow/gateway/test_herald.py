"""The herald tells every client once, and holds no other task up."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from actors.session import Manners, Session
from dataflow.domain import Topic
from dataflow.domain.notice import (
    SWITCHES_AT_ONCE,
    Draining,
    Notice,
    SourceLost,
    SourceRestored,
    StreamSwitched,
    SymbolsChanged,
)
from dataflow.domain.symbols import ANY
from dataflow.gateway.clients import Clients
from dataflow.gateway.herald import CLIENTS_AT_ONCE, Herald
from supervisors import Child, Mailbox, Supervisor, open_supervisor

LOST = SourceLost("binance", "cut", ("BTC-USDT",))
RESTORED = SourceRestored("binance", ("BTC-USDT",))


class Nothing:
    """A wire that is never used."""

    peer = "test:1"

    pack: Any = None
    way: Any = None


class Client(Session[bytes, str]):
    """A session that only keeps its notices."""

    def __init__(self) -> None:
        wire: Any = Nothing()
        super().__init__(wire, Manners())
        self.said: list[Notice] = []
        self.calls = 0

    def tell(self, *notices: Notice) -> None:
        self.calls += bool(notices)
        self.said += notices


class Crowd:
    def __init__(self, count: int) -> None:
        self.clients = Clients()
        self.members = [Client() for _ in range(count)]
        for member in self.members:
            self.clients.enter(member)


def herald(clients: Clients) -> Supervisor:
    return Supervisor(children=[Child("herald", lambda: Herald(clients), mailbox=Mailbox(size=8))])


@pytest.mark.parametrize("count", [0, 1, CLIENTS_AT_ONCE, CLIENTS_AT_ONCE + 1, 3 * CLIENTS_AT_ONCE])
async def test_every_client_is_told_everything_once_and_in_order(count: int) -> None:
    """Notices reach each client in the order of the calls."""
    crowd = Crowd(count)
    async with open_supervisor(herald(crowd.clients)):
        crowd.clients.broadcast(LOST)
        crowd.clients.broadcast(RESTORED)
        await wait_all_tasks_blocked()
        assert all(member.said == [LOST, RESTORED] for member in crowd.members)


async def test_other_tasks_run_while_many_clients_are_told() -> None:
    """The work is cut into pieces, and the event loop turns between them."""
    crowd = Crowd(3 * CLIENTS_AT_ONCE)
    seen = set[int]()

    async with open_supervisor(herald(crowd.clients)):
        crowd.clients.broadcast(LOST)
        for _ in range(20):
            await trio.lowlevel.checkpoint()
            seen.add(sum(bool(member.said) for member in crowd.members))
    assert seen & {
        CLIENTS_AT_ONCE,
        2 * CLIENTS_AT_ONCE,
    }  # at least one of them, whichever task runs first in a pass
    assert max(seen) == 3 * CLIENTS_AT_ONCE


async def test_a_client_that_left_and_a_missing_herald_are_no_trouble() -> None:
    """A notice reaches connected clients only. Before the herald runs, it reaches none."""
    crowd = Crowd(2)
    crowd.clients.broadcast(Draining())
    async with open_supervisor(herald(crowd.clients)):
        crowd.clients.leave(crowd.members[0])
        crowd.clients.broadcast(LOST)
        await wait_all_tasks_blocked()
    assert [member.said for member in crowd.members] == [[], [LOST]]


async def test_symbols_that_come_one_by_one_are_told_together() -> None:
    """A thousand discovered symbols are no thousand messages to each client."""
    crowd = Crowd(2)
    async with open_supervisor(herald(crowd.clients)):
        for number in range(1000):
            crowd.clients.symbols_changed([f"S{number:03}"], [])
        crowd.clients.symbols_changed([], ["S007", "OLD"])
        await wait_all_tasks_blocked()
        crowd.clients.symbols_changed(["LATER"], [])
        await wait_all_tasks_blocked()
    names = tuple(f"S{number:03}" for number in range(1000) if number != 7)
    told = [SymbolsChanged(names, ("OLD",)), SymbolsChanged(("LATER",), ())]
    assert [member.said for member in crowd.members] == [told, told]


async def test_symbols_that_a_full_mailbox_refused_are_told_with_the_next_ones() -> None:
    """What has changed is a state: it is not lost with a message."""
    crowd = Crowd(1)
    async with open_supervisor(herald(crowd.clients)):
        for _ in range(8):
            crowd.clients.broadcast(LOST)
        crowd.clients.symbols_changed(["A-B"], [])
        await wait_all_tasks_blocked()
        crowd.clients.symbols_changed(["C-D"], [])
        await wait_all_tasks_blocked()
    assert crowd.members[0].said[-1] == SymbolsChanged(("A-B", "C-D"), ())


async def test_thousands_of_switches_at_once_are_all_told() -> None:
    """To those who follow the symbol, in order, though the mailbox has room for a few messages. And together: a
    client that is busy has room for a thousand messages."""
    crowd = Crowd(3)
    lanes: list[Any] = [crowd.members[0].lanes, crowd.members[1].lanes]
    lanes[0][Topic("trades", "S2999")], lanes[1][Topic("trades", ANY)] = object(), object()
    notices = [StreamSwitched(f"S{n}", "trades", 1, n, "a", "b", "a is lost") for n in range(3000)]
    async with open_supervisor(herald(crowd.clients)):
        await wait_all_tasks_blocked()
        for notice in notices:
            crowd.clients.switched(notice)
        await wait_all_tasks_blocked()
    assert [member.said for member in crowd.members] == [notices[-1:], notices, []]
    assert [member.calls for member in crowd.members] == [1, 3000 // SWITCHES_AT_ONCE, 0]
