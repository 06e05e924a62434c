"""Clients in the log: who came, who went and why, in few lines however many they are."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actors.session import Ended, Ending, Manners, Session
from actors.update import Rendering
from dataflow.domain import Topic
from dataflow.events import Events
from dataflow.gateway.clients import LEFT, Clients
from dataflow.gateway.guestbook import EVERY, FREELY, QUIET, code_of, why_ended
from dataflow.gateway.hall import AGENTS_SHARED, _shared
from supervisors import Child, Supervisor, open_supervisor
from tests.actors.fakes import PLAIN, FakeWire


def session() -> Session[Any, Any]:
    return Session(FakeWire(), Manners())


def actor(clients: Clients) -> Supervisor:
    return Supervisor([Child("guestbook", lambda: clients.guestbook, stop_within=0)])


async def test_a_line_when_a_client_comes_and_one_when_it_goes(
    lines: list[str], mock_clock: MockClock
) -> None:
    """With its address, protocol and program, what it followed, for how long, how much was sent, and why it went."""
    clients, one = Clients(), session()
    rendering: Rendering[Any] = PLAIN
    clients.enter(one, "jsonrpc", "feed/2")
    for symbol in ("BTC-USD", "ETH-USD"):
        one.follow(Topic("trades", symbol), 0, rendering)
    one.lanes[Topic("trades", "BTC-USD")].sent = 1234
    mock_clock.jump(62.5)
    one.end(Ending.SLOW, "slow client: 10 messages were waiting")
    clients.leave(one)
    assert lines == [
        "INFO gateway/sessions/1: client came: test:1, jsonrpc, feed/2",
        "WARNING gateway/sessions/1: client went after 62.5 s (slow client: 10 messages were waiting, code 1008): "
        "test:1, jsonrpc, feed/2; followed BTC-USD, ETH-USD; 1,234 sent, 0 dropped",
    ]


@pytest.mark.parametrize(
    ("why", "words", "told"),
    [
        (Ending.GONE, "1006 connection lost", "INFO (gone: 1006 connection lost)"),
        (Ending.GONE, "", "INFO (gone)"),
        (Ending.GOING_AWAY, "server going away", "INFO (going away: server going away, code 1001)"),
        (Ending.OPERATOR, "ended by the operator: lunch", "INFO (ended by the operator: lunch, code 1008)"),
        (Ending.FAILED, "internal error", "WARNING (failed: internal error, code 1011)"),
        (Ending.VIOLATION, "1009 too long", "WARNING (protocol violation: 1009 too long, code 1008)"),
    ],
)
async def test_the_reason_stands_once(lines: list[str], why: Ending, words: str, told: str) -> None:
    """In the words that the client got; what points at a fault is a warning."""
    clients, one = Clients(), session()
    clients.enter(one)
    one.end(why, words)
    clients.leave(one)
    level, reason = told.split(" ", 1)
    assert lines[1].startswith(f"{level} ")
    assert reason + ": test:1, unknown; followed nothing; 0 sent, 0 dropped" in lines[1]


async def test_a_storm_costs_few_lines_and_its_size_is_told(lines: list[str], mock_clock: MockClock) -> None:
    """10,000 clients within 8 s that all leave for one reason. The numbers in the lines add up to them."""
    clients = Clients()
    async with open_supervisor(actor(clients)):
        crowd = [session() for _ in range(10_000)]
        for n, one in enumerate(crowd, start=1):
            clients.enter(one)
            if n % 100 == 0:
                mock_clock.jump(0.08)
        for one in crowd:
            one.end(Ending.GONE, "")
            clients.leave(one)
        assert len(lines) == 2 * FREELY
        for _ in range(2):
            mock_clock.jump(QUIET)
            await trio.testing.wait_all_tasks_blocked()
        assert lines[2 * FREELY :] == [
            f"INFO gateway/sessions: {10_000 - FREELY:,} more clients came",
            f"INFO gateway/sessions: {10_000 - FREELY:,} more clients went (gone)",
        ]
        clients.enter(session())
        assert lines[-1] == "INFO gateway/sessions/10001: client came: test:1, unknown"


async def test_a_crowd_without_end_is_counted_regularly(lines: list[str], mock_clock: MockClock) -> None:
    """A client every tenth of a second, for a minute: no burst of them ever ends."""
    clients = Clients()
    for _ in range(600):
        clients.enter(session())
        mock_clock.jump(0.1)
    counted = [line for line in lines if "more before" in line]
    assert len(lines) - len(counted) == FREELY
    assert len(counted) == int((60 - FREELY / 10) / EVERY)
    assert f"(and {int(EVERY * 10) - 1} more before)" in counted[1]


async def test_what_is_untold_is_told_at_the_end(lines: list[str]) -> None:
    """The daemon stops in the middle of a burst: all clients of it are told nevertheless."""
    clients = Clients()
    async with open_supervisor(actor(clients)):
        for _ in range(FREELY + 5):
            clients.enter(session())
    assert lines[-1] == "INFO gateway/sessions: 5 more clients came"


async def test_reasons_are_counted_for_the_metrics() -> None:
    """Every reason has a figure from the start, and a client counts once however often it leaves."""
    clients, one = Clients(), session()
    assert clients.totals().ended == dict.fromkeys(Ending, 0)
    clients.enter(one)
    one.end(Ending.SLOW, "")
    for _ in range(2):
        clients.leave(one)
    assert clients.totals().ended == {**dict.fromkeys(Ending, 0), Ending.SLOW: 1}
    assert clients.totals().slow == 1


async def test_what_waits_for_all_is_summed(mock_clock: MockClock) -> None:
    """The age is that of the oldest message of all; nobody waits: nothing is told."""
    clients = Clients()
    stuck = [session() for _ in range(3)]
    for one in stuck:
        clients.enter(one)
    assert clients.backlog() is None
    for one in stuck[:2]:  # neither runs yet, so all that is said has to wait
        one.say(b"x")
        mock_clock.jump(5)
    backlog = clients.backlog()
    assert backlog is not None
    assert (backlog.messages, backlog.bytes, trio.current_time() - backlog.since) == (2, 4, 10)


def test_programs_of_strangers_are_shared_and_not_kept() -> None:
    """Clients with the same User-Agent share one text; of endless other ones only a few are remembered."""
    assert _shared("feed/2.1".upper()) is _shared("FEED/2.1")
    for number in range(2 * AGENTS_SHARED):
        _shared(f"stranger/{number}")
    assert _shared.cache_info().currsize == AGENTS_SHARED


async def test_a_client_that_takes_nothing_is_told_once_until_it_reads(
    lines: list[str], mock_clock: MockClock
) -> None:
    """A warning and an event, after some seconds; one more of each when it reads again."""
    events = Events()
    clients, one = Clients(events), session()
    clients.enter(one)
    del lines[:]
    async with open_supervisor(actor(clients)):
        await pass_time(mock_clock, 3)
        one.say(b"x")  # it does not run yet, so what is said has to wait
        await pass_time(mock_clock, 3)
        assert lines == []
        await pass_time(mock_clock, 20)
        (line,) = lines
        assert line.startswith(
            "WARNING gateway/sessions/1: client takes nothing: the oldest of what it was sent"
        )
        assert line.endswith("(1 messages, 2 bytes behind it): test:1, unknown")
        one.ended, _ended = Ended(Ending.GONE, ""), one.ended
        one._outbox.clear()  # type: ignore[union-attr]
        await pass_time(mock_clock, 20)
        assert len(lines) == 1, "who is about to go does not read again"
        one.ended = _ended
        await pass_time(mock_clock, 20)
        assert lines[1:] == ["INFO gateway/sessions/1: client reads again: test:1, unknown"]
    told = [(each.kind.value, each.path) for each in events.newest(9)]
    assert told == [("stalled", "gateway/sessions/1"), ("recovered", "gateway/sessions/1")]


async def test_a_client_that_answers_no_ping_does_not_read_again_when_more_is_sent(
    lines: list[str], mock_clock: MockClock
) -> None:
    """The sockets took what was sent before. That it waits now is no sign of life, and no second warning."""
    clients, one = Clients(), session()
    clients.enter(one)
    del lines[:]
    one._pinged = trio.current_time() + 0.5
    async with open_supervisor(actor(clients)):
        await pass_time(mock_clock, 20)
        (line,) = lines
        assert line.startswith("WARNING gateway/sessions/1: client is silent: a ping has had no answer for ")
        for _ in range(4):
            one.say(b"x")
            await pass_time(mock_clock, 3)
            one._outbox.clear()  # type: ignore[union-attr]
        assert len(lines) == 1


async def test_a_crowd_that_takes_nothing_costs_few_lines(lines: list[str], mock_clock: MockClock) -> None:
    """A network is gone, with 3,000 clients behind it: some lines, the number of the others, and one event."""
    events = Events()
    clients = Clients(events)
    crowd = [session() for _ in range(3000)]
    for one in crowd:
        clients.enter(one)
        one.say(b"x")
    del lines[:]
    async with open_supervisor(actor(clients)):
        await pass_time(mock_clock, 9)
        assert len([line for line in lines if "takes nothing" in line]) == FREELY
        assert lines[-1] == f"WARNING gateway/sessions: {3000 - FREELY:,} more clients stalled"
    assert [each.times for each in events.newest(9)] == [3000]
    assert clients.guestbook.untold >= 3000 - FREELY


async def pass_time(clock: MockClock, seconds: int) -> None:
    for _ in range(seconds):
        clock.jump(1.0)
        await trio.testing.wait_all_tasks_blocked()


async def test_the_last_ones_that_left_are_known(mock_clock: MockClock) -> None:
    """Who they were, when and why, and what they got; of many only the newest."""
    clients = Clients()
    for n in range(1, LEFT + 3):
        one = session()
        clients.enter(one, "jsonrpc", f"feed/{n}")
        mock_clock.jump(2.0)
        one.end(Ending.SLOW, "slow client: 10 messages were waiting")
        clients.leave(one)
    assert LEFT == 50
    assert [each.guest.number for each in clients.left] == list(range(3, LEFT + 3))
    last = clients.left[-1]
    assert (last.guest.agent, last.left_at - last.guest.came_at) == (f"feed/{LEFT + 2}", 2.0)
    assert (why_ended(last.ended), code_of(last.ended)) == ("slow client: 10 messages were waiting", 1008)


@pytest.mark.parametrize(
    ("ended", "reason", "code"),
    [
        (Ended(Ending.GONE, "1001 page closed", heard=1001), "gone: page closed", 1001),
        (Ended(Ending.GONE, "1000", heard=1000), "gone", 1000),
        (Ended(Ending.GONE, "it hung up"), "gone: it hung up", None),
        (Ended(Ending.VIOLATION, "1009 too long", heard=1009), "protocol violation: too long", 1009),
        (Ended(Ending.REFUSED, "4400 no", 4400), "refused: 4400 no", 4400),
        (Ended(Ending.SILENT, "no answer to a ping for 20 s"), "silent: no answer to a ping for 20 s", 1011),
    ],
)
def test_the_code_of_an_end(ended: Ended, reason: str, code: int | None) -> None:
    """Its own, the client's, or that of the reason; none where a client just went. It stands beside the words."""
    assert (why_ended(ended), code_of(ended)) == (reason, code)
