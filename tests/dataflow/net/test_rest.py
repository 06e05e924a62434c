"""Questions by HTTP, against a server that does all that a bad one can do."""

from __future__ import annotations

import gzip
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from dataflow.net.address import check_origin
from dataflow.net.budget import (
    AT_ONCE,
    LIMITED_FOR,
    MARGIN,
    MINUTE,
    QUEUE,
    TURN_WITHIN,
    Budget,
    Priority,
    RestFailed,
)
from dataflow.net.rest import RestClient
from tests.support.certificates import make_certificate
from tests.support.ports import own_port

Respond = Callable[[trio.SocketStream], Awaitable[None]]
MOST = 10_000


@asynccontextmanager
async def serving(respond: Respond, asked: list[bytes] | None = None) -> AsyncIterator[str]:
    """A server that reads the head of each request and gives the rest to `respond`. The address for clients."""

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    head = b""
                    while b"\r\n\r\n" not in head:
                        some = await stream.receive_some()
                        if not some:
                            return
                        head += some
                    if asked is not None:
                        asked.append(head)

                    async def until_it_leaves() -> None:
                        with_end = b"x"
                        while with_end:
                            try:
                                with_end = await stream.receive_some()
                            except trio.BrokenResourceError:
                                with_end = b""
                        scope.cancel()

                    nursery.start_soon(until_it_leaves)
                    with suppress(trio.BrokenResourceError):
                        await respond(stream)
                    nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


def says(*data: bytes) -> Respond:
    async def respond(stream: trio.SocketStream) -> None:
        for each in data:
            await stream.send_all(each)

    return respond


def whole(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@asynccontextmanager
async def asking(url: str, most: int = 1200, **more: Any) -> AsyncIterator[RestClient]:
    more = {"most_bytes": MOST, "within": 10.0, "connect_within": 5.0, "budget": Budget(most), **more}
    async with RestClient(url, **more) as client:
        yield client


async def failure(respond: Respond, **more: Any) -> RestFailed:
    async with serving(respond) as url, asking(url, **more) as client:
        with pytest.raises(RestFailed) as told:
            await client.get("/api?symbol=X")
        return told.value


async def test_an_answer_that_did_not_change_is_not_sent_again() -> None:
    """Its tag goes back with the next question. An answer that nobody has is no answer, whatever it claims."""
    asked: list[bytes] = []
    async with serving(says(whole(b"[1]", "200 OK", 'ETag: "one"')), asked) as url, asking(url) as client:
        assert await client.get_changed("/", "") == (b"[1]", '"one"')
        assert await client.get_changed("/", '"old"') == (b"[1]", '"one"')
    assert b"If-None-Match" not in asked[0]
    assert b'If-None-Match: "old"\r\n' in asked[1]
    same = b"HTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n"
    async with serving(says(same)) as url, asking(url) as client:
        assert await client.get_changed("/", '"one"') == (None, '"one"')
        with pytest.raises(RestFailed) as told:
            await client.get_changed("/", "")
        assert told.value.reason == "redirected"


async def test_an_answer_is_given_whole() -> None:
    """Plain or compressed, and the path is asked for as it is, with no header of ours that tells who we are."""
    asked: list[bytes] = []
    async with serving(says(whole(b"[1]")), asked) as url, asking(url) as client:
        assert await client.get("/a%20b?c=%5B%22d%22%5D") == b"[1]"
    assert asked[0].startswith(b"GET /a%20b?c=%5B%22d%22%5D HTTP/1.1\r\n")
    packed = whole(gzip.compress(b"x" * MOST, mtime=0), "200 OK", "Content-Encoding: gzip")
    async with serving(says(packed)) as url, asking(url) as client:
        assert await client.get("/") == b"x" * MOST


@pytest.mark.parametrize(
    ("answer", "reason", "words"),
    [
        (whole(b"no", "500 Oops"), "server_error", "HTTP status 500: no"),
        (whole(b"", "404 Not Found"), "client_error", "HTTP status 404"),
        (whole(b"", "204 No Content"), "server_error", "HTTP status 204"),
        (whole(b"", "302 Found", "Location: http://10.0.0.1/x"), "redirected", "http://10.0.0.1/x"),
        (whole(b"", "301 Moved"), "redirected", "not told"),
        (whole(b"", "429 Slow down", "Retry-After: 7"), "rate_limited", "after 7 s"),
        (whole(b"", "418 Banned"), "rate_limited", "418"),
        (whole(b"", "503 Busy", "Retry-After: 3"), "rate_limited", "after 3 s"),
        (whole(b"x" * (MOST + 1)), "too_large", f"{MOST} bytes"),
        (
            whole(gzip.compress(b"x" * (MOST + 1), mtime=0), "200 OK", "Content-Encoding: gzip"),
            "too_large",
            "bytes",
        ),
        (
            whole(gzip.compress(b"x" * 10**7, mtime=0), "200 OK", "Content-Encoding: gzip"),
            "too_large",
            "bytes",
        ),
        (whole(gzip.compress(b"x", mtime=0)[:-4], "200 OK", "Content-Encoding: gzip"), "broken", "broke off"),
        (whole(b"no gzip", "200 OK", "Content-Encoding: gzip"), "bad_encoding", "no gzip"),
        (whole(b"?", "200 OK", "Content-Encoding: br"), "bad_encoding", "br"),
        (whole(b"[1, 2]")[:-2], "broken", "broke off"),
        (b"", "broken", "broke off"),
        (b"SSH-2.0-OpenSSH\r\n", "broken", "broke off"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n", "broken", "broke off"),
    ],
)
async def test_what_is_wrong_has_a_name(answer: bytes, reason: str, words: str) -> None:
    """And words that tell what the upstream said."""
    told = await failure(says(answer))
    assert (told.reason, words in str(told)) == (reason, True), str(told)


async def test_an_answer_without_an_end_is_cut() -> None:
    """At its greatest size, while it comes: whatever a server sends costs no more memory."""

    async def pour(stream: trio.SocketStream) -> None:
        await stream.send_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await stream.send_all(b"400\r\n" + b" " * 1024 + b"\r\n")

    assert (await failure(pour)).reason == "too_large"


@pytest.mark.parametrize("first", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n1"])
async def test_an_answer_has_a_total_time(first: bytes, mock_clock: MockClock) -> None:
    """However busily it trickles."""
    begun = trio.Event()

    async def trickle(stream: trio.SocketStream) -> None:
        if first:
            await stream.send_all(first)
        begun.set()
        await trio.sleep_forever()

    async def tell() -> None:
        told.append(await failure(trickle))

    told: list[RestFailed] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tell)
        await begun.wait()
        mock_clock.jump(11)
    assert told[0].reason == "no_answer"


async def test_words_of_an_error_are_not_waited_for(mock_clock: MockClock) -> None:
    """The status is enough."""
    begun = trio.Event()

    async def stall(stream: trio.SocketStream) -> None:
        await stream.send_all(b"HTTP/1.1 500 Oops\r\nContent-Length: 9\r\n\r\n")
        begun.set()
        await trio.sleep_forever()

    async def tell() -> None:
        told.append(await failure(stall))

    told: list[RestFailed] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tell)
        await begun.wait()
        while not told:
            await trio.testing.wait_all_tasks_blocked(0.01)
            mock_clock.jump(0.5)
    assert told[0].reason == "server_error"


async def test_nobody_listens() -> None:
    """Told in the words of the system."""
    async with asking(f"http://127.0.0.1:{own_port()}") as client:
        with pytest.raises(RestFailed, match="refused") as told:
            await client.get("/")
    assert told.value.reason == "unreachable"


async def test_nothing_is_asked_before_its_time(mock_clock: MockClock) -> None:
    """After `Retry-After` every question fails at once, with the time that is left; then it goes on."""
    asked: list[bytes] = []
    answers = [whole(b"", "429 Slow down", "Retry-After: 30"), whole(b"[]")]

    async def respond(stream: trio.SocketStream) -> None:
        await stream.send_all(answers.pop(0))

    async with serving(respond, asked) as url, asking(url) as client:
        for _ in range(3):
            with pytest.raises(RestFailed) as told:
                await client.get("/")
            assert (told.value.reason, round(told.value.wait)) == ("rate_limited", 30)
        assert len(asked) == 1
        mock_clock.jump(30)
        assert await client.get("/") == b"[]"
    assert len(asked) == 2


@pytest.mark.parametrize("header", [[], ["Retry-After: -1"], ["Retry-After: 0"], ["Retry-After: soon"]])
async def test_who_is_asked_too_often_is_left_alone_whatever_it_says(
    header: list[str], mock_clock: MockClock
) -> None:
    """To ask on would get us banned."""
    asked: list[bytes] = []
    answers = [whole(b"", "429 Slow down", *header), whole(b"[]")]

    async def respond(stream: trio.SocketStream) -> None:
        await stream.send_all(answers.pop(0))

    async with serving(respond, asked) as url, asking(url) as client:
        for _ in range(3):
            with pytest.raises(RestFailed) as told:
                await client.get("/")
            assert (told.value.reason, told.value.wait) == ("rate_limited", LIMITED_FOR)
        assert len(asked) == 1
        mock_clock.jump(LIMITED_FOR)
        assert await client.get("/") == b"[]"


async def test_the_upstream_corrects_our_count_upward() -> None:
    """Others at our address use the same weight. Less than we know of is not believed."""
    headers = [["X-Used: 1100"], ["X-Used: 3"], ["X-Used: much"], []]

    async def respond(stream: trio.SocketStream) -> None:
        await stream.send_all(whole(b"", "200 OK", *headers.pop(0)))

    async with serving(respond) as url, asking(url, weight_header="X-Used") as client:
        used = []
        for _ in range(4):
            await client.get("/", weight=10)
            used.append(client.budget.used(trio.current_time()))
    assert used == [1100, 1110, 1120, 1130]


async def test_a_proxy_is_asked_for_the_way() -> None:
    """With its credentials; what it refuses is told, and they are not."""
    asked: list[bytes] = []
    refuses = says(whole(b"", "407 Proxy Authentication Required"))
    async with serving(refuses, asked) as proxy:
        with_password = proxy.replace("://", "://user:hunter22@")
        async with asking("https://127.0.0.1:1", proxy=with_password) as client:
            with pytest.raises(RestFailed) as told:
                await client.get("/")
    assert asked[0].startswith(b"CONNECT 127.0.0.1:1 HTTP/1.1\r\n")
    assert b"Basic dXNlcjpodW50ZXIyMg==" in asked[0]
    assert told.value.reason == "unreachable"
    assert "proxy" in str(told.value)
    assert "hunter22" not in str(told.value)


WRONG = [
    "ws://host",
    "https://host/path",
    "https://host?x",
    "host",
    "",
    "https://",
    "http://[::1",
    "http://h:0",
    "http://h:x",
]


@pytest.mark.parametrize("url", [*WRONG, "http://a b", "http://h\xf6st", "http://h:65536"])
def test_an_address_is_scheme_and_host(url: str) -> None:
    """Anything else is refused with what it must be."""
    with pytest.raises(ValueError, match="must "):
        check_origin(url)
    for right in ("http://127.0.0.1:5001", "https://api.example.com/", "http://[::1]:80", "http://u:p@host"):
        check_origin(right)


@pytest.fixture
def expired(tmp_path: Path) -> Any:
    made = make_certificate(tmp_path)
    command = ["openssl", "x509", "-in", str(made.certificate), "-signkey", str(made.key), "-days", "-1"]
    subprocess.run([*command, "-out", str(made.certificate)], check=True, capture_output=True)
    return made


async def test_a_certificate_that_expired_is_named(expired: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user can tell it from a wrong address."""
    monkeypatch.setenv("SSL_CERT_FILE", str(expired.certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(expired.certificate, expired.key)

    async def serve(stream: trio.abc.Stream) -> None:
        with pytest.raises(trio.BrokenResourceError):
            await trio.SSLStream(stream, context, server_side=True).do_handshake()
        await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        async with asking(f"https://127.0.0.1:{listener.socket.getsockname()[1]}") as client:
            with pytest.raises(RestFailed, match="certificate has expired") as told:
                await client.get("/")
        nursery.cancel_scope.cancel()
    assert told.value.reason == "untrusted"


# -- turns


async def turn(budget: Budget, weight: int, priority: Priority, order: list[Any], name: Any) -> None:
    async with budget.turn(weight, priority):
        order.append(name)


async def test_urgent_questions_go_first(autojump_clock: MockClock) -> None:
    """Hold, then fills, then proof of life; within a kind the one that came first."""
    budget, order = Budget(10), list[Any]()
    async with budget.turn(10, Priority.HOLD), trio.open_nursery() as nursery:
        for name in ("life", "fill", "hold", "fill again"):
            priority = {"l": Priority.LIFE, "f": Priority.FILL, "h": Priority.HOLD}[name[0]]
            nursery.start_soon(turn, budget, 2, priority, order, name)
            await trio.testing.wait_all_tasks_blocked()
    assert order == ["hold", "fill", "fill again", "life"]


async def test_proof_of_life_gets_a_quarter(autojump_clock: MockClock) -> None:
    """Of the weight, in any minute, even when nobody else asks."""
    budget, order, begun = Budget(40), list[Any](), trio.current_time()
    for number in range(4):
        await turn(budget, 5, Priority.LIFE, order, number)
        order.append(trio.current_time() - begun)
    assert order[:4] == [0, 0, 1, 0]
    assert order[5] == order[7] == MINUTE + MARGIN
    with pytest.raises(RestFailed, match="never fits") as told:
        await turn(budget, 11, Priority.LIFE, order, "heavy")
    assert told.value.reason == "too_heavy"


async def test_waiting_is_bounded(autojump_clock: MockClock) -> None:
    """In number and in time."""
    budget, failed = Budget(1), list[str]()

    async def ask() -> None:
        try:
            await turn(budget, 1, Priority.FILL, [], None)
        except RestFailed as error:
            failed.append(error.reason)

    begun = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(QUEUE + 2):
            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
    assert failed[0] == "busy"
    assert set(failed[1:]) == {"no_turn"}
    assert trio.current_time() - begun <= TURN_WITHIN + 1


async def test_few_are_under_way_at_once() -> None:
    """The next one begins when one has ended."""
    budget, inside = Budget(1000), trio.Semaphore(AT_ONCE)
    order: list[int] = []

    async def ask(number: int) -> None:
        async with budget.turn(1, Priority.FILL):
            inside.acquire_nowait()
            order.append(number)
            await trio.lowlevel.checkpoint()
            inside.release()

    async with trio.open_nursery() as nursery:
        for number in range(AT_ONCE * 3):
            nursery.start_soon(ask, number)
    assert sorted(order) == list(range(AT_ONCE * 3))


async def test_who_gives_up_waiting_is_in_nobodys_way(autojump_clock: MockClock) -> None:
    """A cancelled question spends nothing and blocks nothing."""
    budget, order = Budget(2), list[Any]()
    async with budget.turn(2, Priority.HOLD):
        with trio.move_on_after(1):
            await turn(budget, 2, Priority.HOLD, order, "given up")
    await turn(budget, 2, Priority.LIFE if budget.most > 8 else Priority.FILL, order, "next")
    assert order == ["next"]
    assert budget.used(trio.current_time()) == 2


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(1, 10), st.sampled_from(Priority)), max_size=40))
def test_no_minute_holds_more_than_is_allowed(asked: list[tuple[float, int, Priority]]) -> None:
    """Whatever is asked for when: the weight within any 60 s is at most the bound, a quarter of it for life."""
    spent: list[tuple[float, int, Priority]] = []

    async def main() -> None:
        budget = Budget(40)
        for pause, weight, priority in asked:
            await trio.sleep(pause)
            with suppress(RestFailed):  # it finds no turn in time
                async with budget.turn(weight, priority):
                    spent.append((trio.current_time(), weight, priority))

    trio.run(main, clock=MockClock(autojump_threshold=0))
    for begin, _, _ in spent:
        within = [each for each in spent if begin <= each[0] < begin + MINUTE]
        assert sum(weight for _, weight, _ in within) <= 40
        assert sum(weight for _, weight, priority in within if priority is Priority.LIFE) <= 10


async def test_a_client_can_be_left_at_any_time() -> None:
    """In the midst of an answer, too: nothing stays behind."""
    begun = trio.Event()

    async def stall(stream: trio.SocketStream) -> None:
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n1")
        begun.set()
        await trio.sleep_forever()

    async def ask(url: str) -> None:
        async with asking(url) as client:
            await client.get("/")

    async with serving(stall) as url, trio.open_nursery() as nursery:
        nursery.start_soon(ask, url)
        await begun.wait()
        nursery.cancel_scope.cancel()
