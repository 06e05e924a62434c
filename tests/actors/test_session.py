"""The session: one way out in order, a bounded outbox, and an end that everybody hears of."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from attrs import define
from trio.testing import MockClock, wait_all_tasks_blocked

from actors import session as session_module
from actors.outbox import SlowClient
from actors.session import ANSWERS_WAITING, Backlog, Ended, Ending, Manners, Session
from actors.update import Fill, Personal, Stream, Update
from supervisors import Child, Event, Pool, Ref, Restart, open_supervisor
from tests.actors import fakes
from tests.actors.fakes import JOINED, PLAIN, WORDS, FakeWire


def update(first: int, count: int = 1, topic: str = "a") -> Update:
    return fakes.update(topic, first, count)


class Echo:
    """A dialogue that answers every message with itself; "boom" raises, "slowly" waits for `unhurried`."""

    def __init__(self, session: Session[bytes, str]) -> None:
        self.session = session
        self.ended = 0
        self.unhurried = trio.Event()
        self.sign: bytes | None = None
        self.alarm = math.inf
        self.alarms = 0

    async def hear(self, text: str) -> None:
        await trio.lowlevel.checkpoint()
        if text == "boom":
            raise RuntimeError(text)
        if text == "slowly":
            await self.unhurried.wait()
        self.session.say(f"echo {text}".encode())

    def gap(self, topic: str, first: int, last: int, items: int) -> bytes:
        return f"gap {topic}{first}..{last}".encode()

    def notice(self, notice: str) -> bytes | None:
        return f"notice {notice}".encode() if notice else None

    def farewell(self) -> bytes:
        return b"draining"

    def heartbeat(self) -> bytes | None:
        return self.sign

    def on_alarm(self) -> None:
        self.alarm = math.inf
        self.alarms += 1

    def closed(self) -> None:
        self.ended += 1


@define
class Stage:
    wire: FakeWire
    session: Session[bytes, str]
    dialogue: Any
    events: list[Event]
    pool: Any
    ref: Ref


@asynccontextmanager
async def stage(
    dialogue_of: Callable[[Session[bytes, str]], Any] | None = None, room: int = 1 << 30, **manners: Any
) -> AsyncIterator[Stage]:
    wire, events = FakeWire(room), list[Event]()
    session = Session(wire, Manners(**manners))
    dialogue = (dialogue_of or Echo)(session)
    session.speak(dialogue)
    child = Child("s", lambda: session, restart=Restart.TEMPORARY, stop_within=0, cleanup_within=30)
    async with open_supervisor(Pool(), on_event=events.append) as pool:
        ref = await pool.start(child)
        yield Stage(wire, session, dialogue, events, pool, ref)


async def test_a_lane_lasts_until_it_is_left() -> None:
    """Following again goes on in the same lane, elsewhere and otherwise; leaving closes it to whoever still has it."""
    async with stage() as s:
        s.session.follow("a", 0, PLAIN)
        lane = s.session.lanes["a"]
        s.session.offer(update(1, 2))
        s.session.follow("a", 5, JOINED)
        assert s.session.lanes["a"] is lane
        assert lane.position == 5
        s.session.unfollow("a")
        assert lane.send is None
        assert s.session.sent == 2


async def test_a_part_of_an_update_is_packed_for_its_client_alone() -> None:
    """What only one slow client needs must not cost what pays for many: compression, say."""
    async with stage() as s:
        s.wire.plain = lambda texts: b"".join(b"alone " + text + b"\n" for text in texts)
        s.session.follow("a", 0, PLAIN)
        s.session.offer(update(1, 3))
        s.session.offer(update(3, 2))
        assert s.wire.texts == ["a1", "a2", "a3", "alone a4"]
    async with stage(room=0, outbox=4, slow_client=SlowClient.DROP_OLDEST) as s:
        s.wire.plain = lambda texts: b"".join(b"alone " + text + b"\n" for text in texts)
        s.session.follow("a", 0, JOINED)
        await wait_all_tasks_blocked()
        for first in (1, 2, 5):
            s.session.offer(update(first, 3 if first > 1 else 1))
        s.wire.reads(1 << 20)
        await wait_all_tasks_blocked()
        assert s.wire.texts == ["a1", "gap a2..3", "alone a4", "[a5,a6,a7]"]


async def test_answers_and_updates_leave_at_once_and_in_order() -> None:
    """A client that reads waits for nothing."""
    async with stage() as s:
        s.session.follow("a", 0, PLAIN)
        await s.wire.says("hi")
        await wait_all_tasks_blocked()
        s.session.offer(update(1, 2))
        s.session.say(b"notice")
        assert s.wire.texts == ["echo hi", "a1", "a2", "notice"]
        assert s.session.waiting == 0


async def test_a_handshake_can_be_the_first_message() -> None:
    """A client that never speaks is answered; one that does is heard behind that."""

    def asked(session: Session[bytes, str]) -> Echo:
        session.hear_first("handshake")
        return Echo(session)

    async with stage(asked) as s:
        await s.wire.says("hi")
        await wait_all_tasks_blocked()
        assert s.wire.texts == ["echo handshake", "echo hi"]


async def test_only_what_lies_behind_the_position_is_sent() -> None:
    """A session that knows places up to 2 gets the third and nothing of a topic it does not follow."""
    async with stage() as s:
        s.session.follow("a", 2, PLAIN)
        s.session.offer(update(1, 3))
        s.session.offer(update(1, 3))
        s.session.offer(update(1, 3, topic="b"))
        assert s.wire.texts == ["a3"]
        assert s.session.position("a") == 3


async def test_a_batch_client_gets_several_updates_as_one_message() -> None:
    """Joined only for those who asked for it, and only where there are several."""
    async with stage() as s:
        s.session.follow("a", 0, JOINED)
        s.session.offer(update(1, 2))
        s.session.offer(update(3))
        assert s.wire.texts == ["[a1,a2]", "a3"]


async def test_a_notice_is_told_in_the_words_of_the_protocol() -> None:
    """A protocol without a word for it says nothing."""
    async with stage() as s:
        s.session.tell("lost")
        s.session.tell("")
        assert s.wire.texts == ["notice lost"]


async def test_notices_that_come_together_wait_as_one_message() -> None:
    """A client that is busy while thousands come is not too slow for their number."""
    async with stage(room=0, outbox=2, slow_client=SlowClient.DISCONNECT) as s:
        s.session.tell("first")
        s.session.tell(*[str(n) for n in range(9)], "", "last")
        assert s.session.ended is None
        s.wire.reads(1 << 30)
        await wait_all_tasks_blocked()
        assert s.wire.texts == [f"notice {said}" for said in ("first", *range(9), "last")]


async def test_a_personal_rendering_has_a_head_of_its_own() -> None:
    """Each client's own head stands before each text, also before a gap; the bodies are encoded once for all."""
    encoded = WORDS.encoded
    async with stage() as one, stage(room=2, outbox=2, slow_client=SlowClient.DROP_OLDEST) as other:
        one.session.follow("a", 0, Personal(WORDS, None, fakes.lines, heads=[(b"1:", b"")]))
        other.session.follow("a", 0, Personal(WORDS, None, fakes.lines, heads=[(b"2:", b"!")]))
        assert one.session.lanes["a"].send is None
        run = update(1, 2)
        for session in (one.session, other.session):
            session.offer(run)
        assert WORDS.encoded == encoded + 1
        for n in range(3, 7):
            for session in (one.session, other.session):
                session.offer(update(n))
        other.wire.reads(1000)
        await wait_all_tasks_blocked()
        assert one.wire.texts == ["1:a1", "1:a2", "1:a3", "1:a4", "1:a5", "1:a6"]
        assert other.wire.texts == ["2:a1!", "2:a2!", "2:gap a3..4!", "2:a5!", "2:a6!"]


async def test_topics_send_directly_only_while_nothing_comes_first() -> None:
    """The lane is closed when the wire has something to send first, and opened again; a partial send is completed."""
    async with stage() as s:
        s.session.follow("a", 0, PLAIN)
        lane = s.session.lanes["a"]
        assert lane.send is not None
        s.wire.turn(False)
        assert lane.send is None
        s.wire.turn(True)
        assert lane.send is not None
        s.wire.room = 2
        payload = lane.rendering.payload(update(1, 2))
        s.session.finish(payload, lane.send(payload))
        assert lane.send is None
        s.session.say(b"notice")
        s.wire.reads(1000)
        await wait_all_tasks_blocked()
        assert s.wire.texts == ["a1", "a2", "notice"]
        assert lane.send is not None
        s.session.finish(payload, None)
        await wait_all_tasks_blocked()
        assert s.wire.texts == ["a1", "a2", "notice", "a1", "a2"]
    assert s.wire.watcher is None


async def test_a_partial_write_is_completed_before_anything_else() -> None:
    """The bytes of a message are never torn apart by another one."""
    async with stage(room=3) as s:
        s.session.follow("a", 0, PLAIN)
        s.session.offer(update(1, 2))
        s.session.say(b"notice")
        await wait_all_tasks_blocked()
        assert b"".join(s.wire.sent) == b"a1\n"
        s.wire.reads(1000)
        await wait_all_tasks_blocked()
        assert s.wire.texts == ["a1", "a2", "notice"]


async def test_a_client_that_does_not_read_is_disconnected(mock_clock: MockClock) -> None:
    """Under `disconnect` the outbox is bounded, the reason is slowness, and memory is given back."""
    async with stage(room=0, outbox=10) as s:
        s.session.follow("a", 0, PLAIN)
        for n in range(1, 100):
            s.session.offer(update(n))
            assert s.session.waiting <= 11
        assert s.session.waiting == 0
        assert s.session.ended is not None
        assert s.session.ended.why is Ending.SLOW
        mock_clock.autojump_threshold = 0
        exit_ = await s.ref.watch()
        assert exit_.kind == "normal"
        assert s.wire.aborted
        assert s.dialogue.ended == 1


async def test_a_slow_client_that_recovers_in_time_gets_its_close_frame(mock_clock: MockClock) -> None:
    """The frame in progress is completed, so that the reason can be understood."""
    async with stage(room=1, outbox=2) as s:
        s.session.follow("a", 0, PLAIN)
        for n in range(1, 6):
            s.session.offer(update(n))
        s.wire.reads(1000)
        await s.ref.watch()
        assert s.wire.texts == ["a1"]
        assert s.wire.closed is not None
        assert s.wire.closed[0] is Ending.SLOW


async def test_a_client_that_stops_reading_is_seen_at_once(mock_clock: MockClock) -> None:
    """The age of the oldest message that it has not taken grows from the first byte that found no room, also while
    that message is being sent. With every message that it takes, the next one is the oldest."""
    async with stage(room=4) as s:
        s.session.follow("a", 0, PLAIN)
        s.session.offer(update(1))
        assert s.session.backlog is None
        begun = trio.current_time()
        s.session.offer(update(2))
        assert s.session.backlog == Backlog(0, 0, begun)
        await wait_all_tasks_blocked()
        for n in (3, 4):
            mock_clock.jump(5)
            s.session.offer(update(n))
        assert s.session.backlog == Backlog(2, 6, begun)
        s.wire.reads(2 + 4)  # the rest of the second, the third, and a byte of the fourth
        await wait_all_tasks_blocked()
        assert s.session.backlog == Backlog(0, 0, begun + 5)
        s.wire.reads(1000)
        await wait_all_tasks_blocked()
        assert s.session.backlog is None


@pytest.mark.parametrize("policy", [SlowClient.DROP_OLDEST, SlowClient.CONFLATE])
async def test_what_a_slow_client_misses_is_announced(policy: SlowClient) -> None:
    """However drops fall, messages and gaps together are the whole stream in order."""
    async with stage(room=2, outbox=8, slow_client=policy) as s:
        s.session.follow("a", 0, PLAIN)
        for n in range(1, 100):
            s.session.offer(update(n))
            assert s.session.waiting <= 8
        s.wire.reads(100_000)
        await wait_all_tasks_blocked()
        s.session.offer(update(100))
        seen = 0
        for text in s.wire.texts:
            first, last = [int(x) for x in text.removeprefix("gap a").removeprefix("a").split("..")] * (
                1 if text.startswith("gap") else 2
            )
            assert first == seen + 1
            seen = last
        assert seen == 100
        assert any(text.startswith("gap") for text in s.wire.texts)


async def test_one_slow_client_does_not_delay_another(autojump_clock: MockClock) -> None:
    """`offer` never waits, whatever the client does."""
    async with stage(room=0, outbox=1000) as slow, stage() as quick:
        for session in (slow.session, quick.session):
            session.follow("a", 0, PLAIN)
        for n in range(1, 500):
            for session in (slow.session, quick.session):
                session.offer(update(n))
        assert len(quick.wire.texts) == 499


async def test_a_client_that_vanished_is_noticed(mock_clock: MockClock) -> None:
    """Silence brings a ping; silence after the ping ends the session."""
    async with stage(ping_interval=20, ping_timeout=10) as s:
        await wait_all_tasks_blocked()
        mock_clock.jump(20.5)
        await wait_all_tasks_blocked()
        assert s.wire.pings == 1
        assert s.session.ended is None
        mock_clock.jump(10.5)
        await s.ref.watch()
        assert s.session.ended is not None
        assert "ping" in s.session.ended.words
        assert s.dialogue.ended == 1


async def test_the_alarm_of_a_protocol_goes_off_once(mock_clock: MockClock) -> None:
    """At its time, and no ping is the worse for it; a message that comes before does not silence it."""
    async with stage(ping_interval=20, ping_timeout=10) as s:
        await s.wire.says("hello")
        await wait_all_tasks_blocked()
        s.dialogue.alarm = trio.current_time() + 5
        await s.wire.says("hello again")
        await wait_all_tasks_blocked()
        mock_clock.jump(4)
        await wait_all_tasks_blocked()
        assert s.dialogue.alarms == 0
        mock_clock.jump(1)
        await wait_all_tasks_blocked()
        mock_clock.jump(1)
        await wait_all_tasks_blocked()
        assert (s.dialogue.alarms, s.wire.pings) == (1, 0)
        mock_clock.jump(20)
        await wait_all_tasks_blocked()
        assert s.wire.pings == 1


async def test_a_protocol_has_a_last_word_when_a_rule_of_the_wire_is_broken() -> None:
    """The wire asks for it; not in the midst of a message, and not when the session has ended."""
    async with stage() as s:
        s.dialogue.reproach = lambda words: [words.encode(), b"bye"]
        assert s.session.reproach("too long") == b"too long\nbye\n"
        s.session.begin(b"half")
        assert s.session.reproach("too long") is None
        s.session.end(Ending.GONE, "")
        assert s.session.reproach("too long") is None


async def test_the_code_of_an_end_reaches_the_wire() -> None:
    """A protocol's own number goes with the reason; without one the wire chooses."""
    async with stage() as s:
        s.session.end(Ending.VIOLATION, "already so", 4409)
        await wait_all_tasks_blocked()
        assert (s.wire.closed, s.wire.code) == ((Ending.VIOLATION, "already so"), 4409)


async def test_a_quiet_client_that_answers_pings_stays(mock_clock: MockClock) -> None:
    """A listener that never says anything is not disconnected."""
    async with stage(ping_interval=20, ping_timeout=10) as s:
        for round_ in range(1, 20):
            await wait_all_tasks_blocked()
            mock_clock.jump(20.5)
            await wait_all_tasks_blocked()
            assert s.wire.pings == round_
            s.wire.heard = trio.current_time()
        assert s.session.ended is None


async def test_what_comes_in_the_moment_of_a_ping_is_answered(mock_clock: MockClock) -> None:
    """The timer that is due together with a message does not cut short the dialogue about it."""
    async with stage(ping_interval=20, ping_timeout=10) as s:
        await wait_all_tasks_blocked()
        s.wire.says_now("hi")
        mock_clock.jump(20.5)
        await wait_all_tasks_blocked()
        assert s.wire.texts == ["echo hi"]
        assert s.session.ended is None


async def test_a_client_that_cannot_speak_is_pinged_and_never_given_up(mock_clock: MockClock) -> None:
    """Some protocols have no way for a client to say anything: silence says nothing about it then."""
    async with stage(ping_interval=20, ping_timeout=None) as s:
        for round_ in range(1, 20):
            await wait_all_tasks_blocked()
            mock_clock.jump(20.5)
            await wait_all_tasks_blocked()
            assert s.wire.pings == round_
        assert s.session.ended is None


async def test_a_protocol_may_have_a_heartbeat_of_its_own(mock_clock: MockClock) -> None:
    """It is said instead of a ping; behind messages that wait it would add nothing."""
    async with stage(ping_interval=20, ping_timeout=None) as s:
        s.dialogue.sign = b"still here"
        await wait_all_tasks_blocked()
        mock_clock.jump(20.5)
        await wait_all_tasks_blocked()
        assert (s.wire.texts, s.wire.pings) == (["still here"], 0)
        s.wire.room = 0
        for text in (b"waits", b"too"):
            s.session.say(text)
        await wait_all_tasks_blocked()
        for _ in range(3):
            mock_clock.jump(20.5)
            await wait_all_tasks_blocked()
        s.wire.reads(1000)
        await wait_all_tasks_blocked()
        assert s.wire.texts == ["still here", "waits", "too"]


async def test_a_long_dialogue_is_not_cut_short_by_a_ping(mock_clock: MockClock) -> None:
    """However long the answer takes: who is waited for is not silent."""
    async with stage(ping_interval=20, ping_timeout=10) as s:
        await s.wire.says("slowly")
        await wait_all_tasks_blocked()
        mock_clock.jump(100)
        await wait_all_tasks_blocked()
        assert s.wire.texts == []
        s.dialogue.unhurried.set()
        await wait_all_tasks_blocked()
        assert s.wire.texts == ["echo slowly"]
        assert s.wire.pings == 1
        assert s.session.ended is None


async def test_a_flusher_that_fails_ends_this_session_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As any other failure inside: nothing more is sent into what may be half a message."""
    async with stage(room=1) as s:

        async def fails(payloads: object) -> None:
            raise RuntimeError("boom")

        monkeypatch.setattr(s.wire, "write", fails)
        s.session.follow("a", 0, PLAIN)
        s.session.offer(update(1))
        exit_ = await s.ref.watch()
        assert exit_.kind == "crash"
        assert [str(error) for error in exit_.errors] == ["boom"]
        assert s.wire.aborted
        assert s.dialogue.ended == 1
        assert s.pool.counts()["total"] == 0


async def test_who_asks_without_reading_is_not_asked_again(mock_clock: MockClock) -> None:
    """Unread answers are bounded: the session stops reading requests, and in the end gives up."""
    async with stage(room=0, ping_interval=20, ping_timeout=10) as s:
        for n in range(50):
            await s.wire.says(str(n))
        await wait_all_tasks_blocked()
        assert s.session.waiting <= ANSWERS_WAITING
        mock_clock.jump(31)
        mock_clock.autojump_threshold = 0
        await s.ref.watch()
        assert s.session.ended is not None
        assert s.session.ended.why is Ending.SLOW


async def test_long_answers_wait_for_the_client_to_read_them() -> None:
    """Not only their number is bounded: who does not read a long answer is not asked again."""
    async with stage(room=10) as s:
        for n in range(5):
            await s.wire.says(str(n) + "x" * 200_000)
        await wait_all_tasks_blocked()
        assert s.session.waiting <= 3
        s.wire.reads(10_000_000)
        await wait_all_tasks_blocked()
        assert len(s.wire.texts) == 5


async def test_what_waits_is_bounded_in_bytes() -> None:
    """A client that does not read is let go by its bytes, although few messages wait; the words name the bound."""
    async with stage(room=0, outbox=1000, outbox_bytes=100) as s:
        s.session.follow("a", 0, PLAIN)
        s.session.offer(update(1))
        for first in range(2, 1000, 10):
            if s.session.ended is None:
                s.session.offer(update(first, 10))
                assert s.session.waiting_bytes <= 100
        assert s.session.ended == Ended(Ending.SLOW, "slow client: 100 bytes were waiting")


async def test_what_leaves_the_outbox_at_once_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the flusher has in hand is beyond the policy's reach, so it takes no more than it needs."""
    monkeypatch.setattr(session_module, "BYTES_AT_ONCE", 20)
    async with stage(room=0) as s:
        for n in range(10):
            s.session.say(b"%d" % n * 9)
        await wait_all_tasks_blocked()
        assert s.session.waiting == 8
        s.wire.reads(1000)
        await wait_all_tasks_blocked()
        assert s.wire.texts == [str(n) * 9 for n in range(10)]


class Tale(Echo):
    """A dialogue that answers "tell" in pieces, each when the client has taken the one before; counts them."""

    pieces = 0

    async def hear(self, text: str) -> None:
        if text != "tell":
            await super().hear(text)
            return
        for n in range(1, 5):
            self.pieces = n
            self.session.begin(f"<{n}".encode())
            await self.session.room()
        self.session.complete(b"5>")


async def test_a_long_message_is_made_as_the_client_takes_it() -> None:
    """One piece is in hand at most. What comes meanwhile follows behind, whole and in order, under its bounds."""
    async with stage(Tale, room=3) as s:
        s.session.follow("a", 0, PLAIN)
        await s.wire.says("tell")
        await wait_all_tasks_blocked()
        assert s.dialogue.pieces == 2
        lane = s.session.lanes["a"]
        assert lane.send is None
        s.session.say(b"notice")
        s.session.offer(update(1, 2))
        s.wire.reads(2)
        await wait_all_tasks_blocked()
        assert s.dialogue.pieces == 3
        assert s.session.waiting == 4  # the place of the message, a notice and two entries
        s.wire.reads(1000)
        await wait_all_tasks_blocked()
        assert s.wire.texts == ["<1<2<3<45>", "notice", "a1", "a2"]
        assert lane.send is not None
        await s.wire.says("tell")
        await s.wire.says("again")
        await wait_all_tasks_blocked()
        assert s.wire.texts[4:] == ["<1<2<3<45>", "echo again"]


async def test_nothing_comes_between_the_pieces_of_a_message() -> None:
    """Also while nothing waits, because the client takes everything at once."""
    async with stage() as s:
        s.session.follow("a", 0, PLAIN)
        s.session.begin(b"<")
        s.session.say(b"notice")
        s.session.offer(update(1, 2))
        await s.wire.says("hi")
        await wait_all_tasks_blocked()
        s.session.complete(b">")
        await wait_all_tasks_blocked()
        assert s.wire.texts == ["<>", "notice", "a1", "a2", "echo hi"]
        s.session.offer(update(3))
        assert s.wire.texts[-1] == "a3"


async def test_a_long_message_comes_behind_what_waits() -> None:
    """It keeps its place in the order, although its pieces wait nowhere."""
    async with stage(Tale, room=1) as s:
        s.session.follow("a", 0, PLAIN)
        for n in range(1, 4):
            s.session.offer(update(n))
        await s.wire.says("tell")
        await wait_all_tasks_blocked()
        s.session.offer(update(4))
        assert s.dialogue.pieces == 1
        s.wire.reads(1000)
        await wait_all_tasks_blocked()
        assert s.wire.texts == ["a1", "a2", "a3", "<1<2<3<45>", "a4"]


async def test_who_leaves_in_the_middle_of_a_long_message_is_noticed_at_once() -> None:
    """The session listens meanwhile."""
    async with stage(Tale, room=1) as s:
        await s.wire.says("tell")
        await wait_all_tasks_blocked()
        await s.wire.hangs_up()
        await s.ref.watch()
        assert s.session.ended is not None
        assert s.session.ended.why is Ending.GONE
        assert s.dialogue.ended == 1


async def test_who_takes_nothing_of_a_long_message_is_let_go(mock_clock: MockClock) -> None:
    """After the patience for unread answers, which begins anew with each piece; the connection is cut."""
    async with stage(Tale, room=1, ping_interval=20, ping_timeout=10) as s:
        await s.wire.says("tell")
        for _ in range(2):
            await wait_all_tasks_blocked()
            s.wire.heard = trio.current_time()
            mock_clock.jump(15)
            await wait_all_tasks_blocked()
            s.wire.heard = trio.current_time()
            mock_clock.jump(14)
            assert s.session.ended is None
            s.wire.reads(2)
        await wait_all_tasks_blocked()
        s.wire.heard = trio.current_time()
        mock_clock.jump(15)
        await wait_all_tasks_blocked()
        s.wire.heard = trio.current_time()
        mock_clock.jump(16)
        mock_clock.autojump_threshold = 0
        await s.ref.watch()
        assert s.session.ended == Ended(Ending.SLOW, "slow client: answers unread for 30 s")
        assert s.wire.aborted
        assert s.dialogue.pieces == 3


async def test_a_stop_ends_an_unfinished_message(mock_clock: MockClock) -> None:
    """Nothing could be understood behind it: the connection is closed with the reason, without a farewell."""
    async with stage(Tale, room=2) as s:
        await s.wire.says("tell")
        await wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(s.pool.stop, "s")
            await wait_all_tasks_blocked()
            s.wire.reads(1000)
        assert b"".join(s.wire.sent) == b"<1<2"
        assert s.wire.closed == (Ending.GOING_AWAY, "server going away")


async def test_a_held_topic_offers_nothing_until_it_is_followed() -> None:
    """What waits of it is taken back too; then it goes on from the new position."""
    async with stage(room=0) as s:
        s.session.follow("a", 0, PLAIN)
        s.session.say(b"first")
        s.session.offer(update(1, 2))
        s.session.hold("a", PLAIN)
        s.session.offer(update(1, 4))
        s.session.follow("a", 3, PLAIN)
        s.session.offer(update(1, 5))
        s.wire.reads(1000)
        await wait_all_tasks_blocked()
        assert s.wire.texts == ["first", "a4", "a5"]


async def test_a_notice_before_the_session_runs_is_the_first_to_leave() -> None:
    """It neither waits for the client to become slow nor is it overtaken."""
    wire = FakeWire()
    session = Session(wire, Manners())
    session.speak(Echo(session))
    session.say(b"early")
    async with open_supervisor(Pool()) as pool:
        await pool.start(Child("s", lambda: session, restart=Restart.TEMPORARY, stop_within=0))
        await wait_all_tasks_blocked()
        session.say(b"late")
        assert wire.texts == ["early", "late"]


async def test_a_client_that_leaves_is_gone() -> None:
    """The session ends normally, and leaves every topic."""
    async with stage() as s:
        await s.wire.hangs_up()
        exit_ = await s.ref.watch()
        assert exit_.kind == "normal"
        assert s.dialogue.ended == 1
        s.session.offer(update(1))
        s.session.say(b"into the void")
        assert s.wire.sent == []


async def test_a_failure_inside_ends_this_session_alone() -> None:
    """The client is told of a failure; the pool lives on."""
    async with stage() as s:
        await s.wire.says("boom")
        exit_ = await s.ref.watch()
        assert exit_.kind == "crash"
        assert s.wire.closed == (Ending.FAILED, "internal error")
        assert s.dialogue.ended == 1
        assert s.pool.counts()["total"] == 0


async def test_a_stop_says_farewell_behind_everything_that_waits(mock_clock: MockClock) -> None:
    """On shutdown the outbox is flushed, then the notice, then the reason."""
    async with stage(room=1) as s:
        s.session.follow("a", 0, PLAIN)
        s.session.offer(update(1))
        s.session.offer(update(2))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(s.pool.stop, "s")
            await wait_all_tasks_blocked()
            s.wire.reads(1000)
        assert s.wire.texts == ["a1", "a2", "draining"]
        assert s.wire.closed == (Ending.GOING_AWAY, "server going away")


async def test_a_stop_waits_for_a_client_that_does_not_read_no_longer_than_agreed(
    mock_clock: MockClock,
) -> None:
    """`drain_seconds` bounds the farewell; then the connection is cut."""
    mock_clock.autojump_threshold = 0
    async with stage(room=1, drain_seconds=5) as s:
        s.session.follow("a", 0, PLAIN)
        s.session.offer(update(1))
        before = trio.current_time()
        await s.pool.stop("s")
        assert trio.current_time() - before == pytest.approx(5, abs=1)
        assert s.wire.aborted


def fill(number: int, *places: int, topic: str = "a") -> Fill:
    return Fill(Stream(topic, 1), number, [(place, f"{topic}{place}") for place in places])


async def test_a_fill_is_sent_once_and_up_to_the_clients_place() -> None:
    """What lies behind it comes as an update; another look at the same fill sends nothing."""
    async with stage() as s:
        s.session.follow("a", 5, PLAIN, fills=1)
        s.session.amend(fill(1, 2))
        s.session.amend(fill(2, 4, 5, 6))
        s.session.amend(fill(2, 4, 5, 6))
        s.session.amend(fill(3, 6))
        s.session.amend(fill(1, 2, topic="b"))
        assert s.wire.texts == ["filled a4 a5"]


async def test_a_fill_that_waits_is_told_again_by_a_new_answer() -> None:
    """What is held back is forgotten, and the number of the last fill goes back with it."""
    async with stage(room=0) as s:
        s.session.follow("a", 5, PLAIN)
        s.session.say(b"first")  # in the hands of the flusher
        await wait_all_tasks_blocked()
        s.session.amend(fill(1, 2))
        s.session.amend(fill(2, 3))
        assert s.session.fills("a") == 0
        s.session.hold("a", PLAIN)
        assert s.session.lanes["a"].fills == 0
        s.session.amend(fill(3, 4))
        s.session.follow("a", 5, PLAIN)
        for each in (fill(1, 2), fill(2, 3), fill(3, 4)):
            s.session.amend(each, [(3, 3), (9, 9)])
        s.wire.reads(1000)
        await wait_all_tasks_blocked()
        assert s.wire.texts == ["first", "filled a3"]
