"""A daemon that breaks its contract, or asks for what is absurd: no client is ended by that, or ends its host."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import pytest
import trio

from dataflow.client import Connection, Notice, Unreachable, Unreadable, connect
from tests.support.lying import HONEST, PLACE, Lie, lying, refusal, told
from tests.system.following import BACKENDS, following
from tests.system.test_javascript import user

backends = pytest.mark.parametrize("backend", BACKENDS)
ROW = '[[0,%d,1,"buy",1.5,2,"x",0]]'
REFUSED, UNAVAILABLE = "connection.refused", -32000
GAP = partial(told, "stream.gap", symbol="A", channel="trades", epoch=1, reason="source_gap")

LIES: dict[str, tuple[Lie, ...]] = {
    "garbage": ("\0",),
    "params that are none": ('{"method": "connection.refused", "params": null}',),
    "arrays without end": (ROW[:-2] % (PLACE + 1) + "," + "[" * 100_000,),
    "gaps that overlap": (GAP(**{"from": 6, "to": 9}), GAP(**{"from": 8, "to": 12})),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
@backends
async def test_a_lie_costs_the_connection_and_no_more(backend: str, lie: str) -> None:
    """It is told by name, and the next connection goes on behind the last right place. What else a server may say
    wrong the tests of the core know."""
    async with lying(HONEST, *LIES[lie]) as liar, following(liar.url, backend, "A") as program:
        await liar.until_asked(2)
        await program.until(lambda: "connected" in program.states)
        [lost] = program.of("lost")
        assert str(lost.reason).startswith("a fault of the daemon")
        gap_ends = 9 if lie == "gaps that overlap" else PLACE
        assert liar.asked[1]["params"]["since"]["offset"] == gap_ends


@pytest.mark.parametrize("pause", [0, -1, 10**400])
@backends
async def test_a_refused_subscription_is_asked_for_again_after_a_pause(backend: str, pause: int) -> None:
    """A real one, whatever pause the daemon wants. That it refuses is told, to who listens to events."""
    lies = refusal(UNAVAILABLE, retryAfter=pause)

    async def main(url: str) -> tuple[list[Any], int]:
        async with connect(url, retry_first=60.0, retry_most=60.0) as feed:
            trades, events = feed.trades("A"), feed.events()
            heard: list[Any] = [await anext(events) for _ in range(2)]
            with anyio.move_on_after(0.1):
                heard.append(await anext(trades))
            return heard, len(feed._asking)

    async with lying(lies, lies, lies) as liar:
        heard, asking = await trio.to_thread.run_sync(partial(anyio.run, main, liar.url, backend=backend))
        assert heard[0] == Connection(state="connected")
        assert isinstance(heard[1], Notice)
        assert (heard[1].method, heard[1].params["symbol"]) == ("client.refused", "A")
        assert (len(heard), asking, len(liar.asked)) == (2, 1, 1)


@backends
async def test_no_connection_follows_another_at_once(backend: str) -> None:
    """Though the daemon says that it may."""
    async with (
        lying(told(REFUSED, reason="full", retryAfter=0), 1013) as liar,
        following(liar.url, backend, "A") as program,
    ):
        await liar.until_asked(2)
        await program.until(lambda: program.of("lost"))
        [lost] = program.of("lost")
        assert lost.retry_in == pytest.approx(0.05)


@backends
async def test_the_end_of_waiting_is_told(backend: str) -> None:
    """With the answer that comes then."""
    waiting = told("connection.waiting", ahead=1, seconds=1)
    async with lying(waiting, HONEST) as liar, following(liar.url, backend, "A") as program:
        await program.until(lambda: program.states == ["waiting", "connected"])


@pytest.mark.parametrize("lie", LIES)
async def test_javascript_tells_a_lie_and_goes_on(lie: str) -> None:
    """As the client in Python does. What it can understand in another way it may."""
    async with lying(HONEST, *LIES[lie], 4000) as liar, user(liar.url) as u:
        await u.follow("A")
        await liar.until_asked(2)
        await u.until(lambda: {each["state"] for each in u.connections} & {"lost", "refused"})
        assert liar.asked[1]["params"]["since"]["offset"] in (PLACE, 9)


async def test_javascript_asks_again_after_a_bounded_pause() -> None:
    """A timer of more than 25 days would fire at once, for ever."""
    async with lying(refusal(UNAVAILABLE, retryAfter=1e9)) as liar, user(liar.url) as u:
        await u.follow("A", "asked")
        await u.until(lambda: "client.refused" in u.notices)
        for _ in range(20):
            await u.ask("positions")
        assert len(liar.asked) == 1


async def test_javascript_waits_before_it_connects_again() -> None:
    """Though the daemon says that it need not."""
    async with lying(told(REFUSED, reason="full", retryAfter=0), 1013) as liar, user(liar.url) as u:
        await u.follow("A")
        assert (await u.until_state("refused"))["retryIn"] >= 0.05
        assert (await u.until_state("refused"))["retryIn"] >= 0.05
        await liar.until_asked(2)


@asynccontextmanager
async def saying(answer: bytes) -> AsyncIterator[str]:
    """The address of a server that gives one answer to every request, and closes."""

    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(answer)
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"", r"breaks off the handshake \(without a word\)$"),
        (b"SSH-2.0-OpenSSH\r\n", "what answers at .* is no dataflow daemon"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "what answers at .* is no dataflow daemon"),
        (b"HTTP/1.1 101 Yes\r\nUpgrade: websocket\r\n\r\n", "^what answers at .* is no WebSocket: "),
        (b"HTTP/1.1 401 No\r\nContent-Length: 3\r\n\r\nwho", "answers with status 401: who$"),
    ],
)
async def test_what_answers_may_be_no_daemon(answer: bytes, problem: str) -> None:
    """One error, that says what came instead."""
    async with saying(answer) as url:
        with pytest.raises(Unreachable, match=problem):
            async with connect(url):
                pass


async def test_a_pause_in_a_header_may_be_nonsense() -> None:
    """Then the feed's own pause counts; and it is never none."""
    for header, most in ((b"\xb2", 2.0), (b"0", 1.0), (b"9" * 400, 300.0)):
        head = b"HTTP/1.1 503 Full\r\nRetry-After: " + header + b"\r\nContent-Length: 0\r\n\r\n"
        async with saying(head) as url, connect(url, retry_first=1.0) as feed:
            lost = feed.connection
            assert lost.state == "lost"
            assert lost.retry_in is not None
            assert 1.0 <= lost.retry_in <= most


@pytest.mark.parametrize("result", [b"[" * 100_000, b"9" * 5_000, b"5", b"nonsense"])
async def test_an_answer_to_a_call_may_be_none(result: bytes) -> None:
    """One error, whatever was said."""
    body = b'{"result": ' + result + b"}"
    async with saying(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body) as url:
        feed = connect(url)  # calls have connections of their own
        for asked in (feed.symbols, feed.status, partial(feed.recent, "A"), feed.history("A").__anext__):
            with pytest.raises(Unreadable):
                await asked()
