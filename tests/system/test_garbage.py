"""An ended session is freed at once: the garbage collector runs rarely and must find nothing of it."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest
import trio
from attrs import define

from dataflow.gateway.admission import Urgency
from dataflow.settings.schema import Admission, Gateway, Session
from simulators import Exchange, open_binance
from simulators.connection import reset
from supervisors.handle import Handle
from tests.support.garbage import collect_all
from tests.system.daemon import Daemon, client, daemon, from_binance, http_client

SYMBOL = "BTC-USDT"
TIMES = 20
SUBSCRIBE = f'{{"jsonrpc": "2.0", "id": 1, "method": "subscribe", "params": {{"symbol": "{SYMBOL}"}}}}'
OUTBOX = 16
NOTICE = b'{"jsonrpc": "2.0", "method": "%d", "params": {"much": "' + b"x" * 600_000 + b'"}}'
OURS = ("actors.", "dataflow.", "supervisors.")


@define
class Stage:
    exchange: Exchange
    daemon: Daemon

    @property
    def sessions(self) -> Handle:
        handle: Handle = self.daemon.root.supervisor("gateway/sessions")
        return handle

    async def alone(self) -> None:
        """Returns when the last session has ended."""
        while self.sessions.counts()["total"]:
            await trio.lowlevel.checkpoint()
        await trio.testing.wait_all_tasks_blocked()


@asynccontextmanager
async def stage() -> AsyncIterator[Stage]:
    async with (
        open_binance() as exchange,
        daemon(
            sources=from_binance(exchange.url, SYMBOL, eager=True),
            session=Session(outbox=OUTBOX, outbox_bytes=OUTBOX << 20),
            admission=Admission(at_once=1, waiting=1),
            gateway=Gateway(port=0, drain_seconds=0.5),
        ) as made,
    ):
        await exchange.wait_subscribed(["BTCUSDT"])
        made.keep_events = False
        yield Stage(exchange, made)


@contextmanager
def garbage() -> Iterator[Counter[str]]:
    """Runs without the collector. At the end, our objects that it would have found are counted by type."""
    found = Counter[str]()
    collect_all()
    gc.disable()
    try:
        yield found
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        for each in gc.garbage:
            kind = type(each)
            if kind.__module__.startswith(OURS):
                found[f"{kind.__module__}.{kind.__qualname__}"] += 1
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


async def leaves(stage: Stage) -> None:
    """The client asks, listens and closes."""
    async with client(stage.daemon.url) as c:
        await c.call("subscribe", symbol=SYMBOL, snapshot=5)
        await c.call("getStatus")
        await c.socket.aclose()


async def says_nothing(stage: Stage) -> None:
    async with client(stage.daemon.url) as c:
        await c.socket.aclose()


async def vanishes(stage: Stage) -> None:
    """Its connection is reset."""
    async with client(stage.daemon.url) as c:
        await c.call("subscribe", symbol=SYMBOL)
        await reset(c.socket._stream)


async def breaks_the_rules(stage: Stage) -> None:
    """Bytes that are no WebSocket frame."""
    async with client(stage.daemon.url) as c:
        await c.call("subscribe", symbol=SYMBOL)
        await c.socket._stream.send_all(b"\xff" * 20)
        await c.until(lambda: c.closed)


async def is_wrong(stage: Stage) -> None:
    """It sends no JSON, then an unknown method, then an unknown symbol."""
    async with client(stage.daemon.url) as c:
        await c.socket.send_message("{")
        await c.ask("no such method")
        assert "error" in await c.ask("subscribe", symbol="NO-SUCH")
        await c.socket.aclose()


async def waits(stage: Stage) -> None:
    """It waits for its turn and hangs up; another client has no room to wait."""
    admission = stage.daemon.lobby.admission
    turn = admission.enter(Urgency.SERVED, lambda: None)
    async with client(stage.daemon.url) as c, client(stage.daemon.url) as refused:
        await c.socket.send_message(SUBSCRIBE)
        while not admission.waiting["new"]:
            await trio.lowlevel.checkpoint()
        await refused.socket.send_message(SUBSCRIBE)
        await refused.until(lambda: refused.closed)
        assert refused.closed is not None
        assert refused.closed[0] == 1013
        await c.socket.aclose()
    admission.leave(turn)


async def is_told_to_go(stage: Stage) -> None:
    """The server ends the session."""
    async with client(stage.daemon.url) as c:
        await c.call("subscribe", symbol=SYMBOL)
        (session,) = stage.sessions.tree().children
        await stage.sessions.stop(session.path.rpartition("/")[2])
        await c.until(lambda: c.closed)
        assert c.closed is not None
        assert c.closed[0] == 1001


async def is_slow(stage: Stage) -> None:
    """Its messages are more than a connection takes at once."""
    async with client(stage.daemon.url) as c:
        await c.call("subscribe", symbol=SYMBOL)
        (session,) = stage.daemon.lobby.clients
        for number in range(OUTBOX):
            session.say(NOTICE % number)
        assert session.waiting
        assert session.ended is None
        await c.until(lambda: len(c.notices) == OUTBOX)
        await c.socket.aclose()


async def is_too_slow(stage: Stage) -> None:
    """Its messages are more than its outbox takes."""
    async with client(stage.daemon.url) as c:
        await c.call("subscribe", symbol=SYMBOL)
        (session,) = stage.daemon.lobby.clients
        number = 0
        while session.ended is None:
            session.say(NOTICE % (number := number + 1))
        await c.until(lambda: c.closed)
        assert c.closed is not None
        assert c.closed[0] == 1008


async def looks(stage: Stage) -> None:
    """No session: two requests by HTTP on one connection."""
    async with http_client(stage.daemon.http) as c:
        assert (await c.get("/health")).status_code == 200
        assert (await c.get("/metrics")).status_code == 200


WAYS = [
    looks,
    leaves,
    says_nothing,
    vanishes,
    breaks_the_rules,
    is_wrong,
    waits,
    is_told_to_go,
    is_slow,
    is_too_slow,
]


@pytest.mark.parametrize("comes_and_goes", WAYS)
async def test_an_ended_session_leaves_no_garbage(
    comes_and_goes: Callable[[Stage], Awaitable[None]],
) -> None:
    """After every kind of end, nothing of ours is left for the collector."""
    async with stage() as s:
        await comes_and_goes(s)  # the first client may leave caches for the next ones
        await s.alone()
        with garbage() as found:
            for _ in range(TIMES):
                await comes_and_goes(s)
                await s.alone()
    assert found == {}
