"""One client: its subscriptions, its outbox, its slow-client policy.

Rules of this file. `offer` and `say` never wait: what the connection does not take at once waits in
the outbox, and a flusher, which lives only while something waits, sends it in order. Everything for
the client goes this one way, so that answers, updates and notices keep their order. A session ends
exactly once, for one reason, and takes nobody with it: it is a temporary child. Thousands of sessions have
nothing to say for most of the time: what only a busy one needs is made when it is needed, an idle one waits
in one cancel scope and two coroutines above its wire's. An ended one has let go of whatever knows it, so that
it is freed at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Generic, Protocol, Self, TypeVar

import trio
from attrs import define, frozen

from supervisors import Context

from .outbox import Outbox, OutboxFull, SlowClient
from .subscription import Lane
from .update import Update

P = TypeVar("P")

PAYLOADS_AT_ONCE = 64  # what the flusher takes from the outbox is beyond the policy's reach: not too much
ANSWERS_WAITING = 8  # unsent answers at which no further request is read
ANSWER_BYTES_WAITING = 256 * 1024  # likewise, for answers that are long
AHEAD_WAITING = 16 * 1024  # characters of requests read ahead at which no further one is
CLOSE_WITHIN = 1.0  # seconds for the last bytes to a client that is being disconnected


class WireClosed(Exception):
    """The connection has ended, by whomever: `code` and `reason` as in the close frame."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(f"{code} {reason}".strip())
        self.code = code
        self.reason = reason


class Wire(Protocol[P]):
    """One client's connection. P is what `pack` makes of text messages: ready to be sent, and shared."""

    @property
    def peer(self) -> str:
        """The client's address."""

    @property
    def heard(self) -> float:
        """`trio.current_time()` of the last byte that came in."""

    @property
    def pack(self) -> Callable[[Sequence[bytes]], P]:
        """Makes one payload of k text messages. Pure, and the same function for all wires of a kind: what it
        makes is shared between sessions."""

    def write_nowait(self, payload: P) -> P | None:
        """Send what is taken without waiting; returns what is left, None when nothing is. Never raises."""

    async def write(self, payloads: Sequence[P]) -> None:
        """Send all of it. Raises WireClosed. After a cancellation only `abort` is of use."""

    async def receive(self) -> str:
        """The next text message. Raises WireClosed. Cancelling it loses nothing."""

    async def ping(self) -> None:
        """Ask for a sign of life."""

    async def close(self, code: int, reason: str) -> None:
        """Close politely within a bounded time. Never raises."""

    def abort(self) -> None:
        """Close at once."""


class Dialogue(Protocol):
    """What is said to a client, by someone who knows the protocol."""

    async def hear(self, text: str) -> None:
        """Take one message; the answer is said through the session. Never raises for what was said."""

    def gap(self, topic: str, first: int, last: int, items: int) -> bytes:
        """The notice that these places, with so many items, were dropped because the client is slow."""

    def farewell(self) -> bytes:
        """The notice that the server is going away."""

    def closed(self) -> None:
        """The session is over: leave every topic."""


@frozen
class Manners:
    """How a session treats its client. Times are seconds."""

    outbox: int = 1024
    slow_client: SlowClient = SlowClient.DISCONNECT
    ping_interval: float = 20.0
    ping_timeout: float = 20.0
    drain_seconds: float = 5.0


@define
class Ending:
    """Why a session ends: the close code and reason that its client gets."""

    code: int
    reason: str


class Session(Generic[P]):
    """The actor of one client, and the subscriber that topics see."""

    __slots__ = (
        "_ahead",
        "_context",
        "_dialogue",
        "_dropped",
        "_flush_scope",
        "_flush_until",
        "_flushing",
        "_left",
        "_listening",
        "_manners",
        "_outbox",
        "_pinged",
        "_rest",
        "_sent",
        "_torn",
        "_wire",
        "ending",
        "lanes",
    )

    def __init__(self, wire: Wire[P], manners: Manners) -> None:
        self.ending: Ending | None = None
        self._wire = wire
        self._manners = manners
        self._dialogue: Dialogue
        self.lanes: dict[str, Lane[P]] = {}  # where topics look; read only for them
        self._sent = 0  # in topics that are no longer followed
        self._dropped = 0  # by an outbox that is no more
        self._outbox: Outbox[P] | None = None  # None until something has to wait
        self._rest: P | None = None  # what a partial write left of a payload: goes out first, whole
        self._flushing = False
        self._left: trio.Event | None = None  # set when something left the outbox, or the flusher did
        self._pinged = float("-inf")
        self._context: Context | None = None  # while it runs
        self._listening: trio.CancelScope | None = None
        self._ahead: list[str] | None = None  # requests that wait to be heard, oldest first
        self._flush_until = float("inf")
        self._flush_scope: trio.CancelScope | None = None
        self._torn = False  # a write was cut short: nothing sent after it could be understood

    # What topics and the dialogue see.

    @property
    def peer(self) -> str:
        return self._wire.peer

    @property
    def waiting(self) -> int:
        """Messages in the outbox."""
        return len(self._outbox) if self._outbox is not None else 0

    @property
    def dropped(self) -> int:
        """Items dropped, and announced as gaps, because the client was slow."""
        return self._outbox.dropped if self._outbox is not None else self._dropped

    @property
    def sent(self) -> int:
        """Messages of topics that were sent or wait to be."""
        return self._sent + sum([lane.sent for lane in self.lanes.values()])

    @property
    def topics(self) -> Sequence[str]:
        return list(self.lanes)

    def follow(self, topic: str, position: int, batch: bool) -> None:
        """From now on take updates of `topic` behind `position`; `batch` joins several in one message."""
        pack = _joining(self._wire.pack) if batch else self._wire.pack
        write = None if self._busy else self._wire.write_nowait
        lane = self.lanes.get(topic)
        if lane is None:
            self.lanes[topic] = Lane(position, pack, write)
        else:
            lane.position, lane.pack, lane.write = position, pack, write

    def position(self, topic: str) -> int:
        """The last place of `topic` that was sent or waits to be. Raises KeyError when it is not followed."""
        return self.lanes[topic].position

    def unfollow(self, topic: str) -> None:
        """No update of `topic` leaves after this."""
        self._count_out(topic)
        if self._outbox is not None:
            self._outbox.forget(topic)

    def offer(self, update: Update) -> None:
        """Send what is behind the client's position, now or as soon as it takes it. Never waits or raises."""
        lane = self.lanes.get(update.topic)
        if lane is None or self.ending is not None:
            return
        rest = update.after(lane.position)
        if rest is None:
            return
        lane.position = rest.last
        lane.sent += len(rest.messages)
        if self._busy:
            self._queue_update(rest)
        else:
            self._send(rest.packed(lane.pack))

    def finish(self, rest: P) -> None:
        """Send what a write left over, before anything else. Never waits or raises."""
        self._rest = rest
        self._start_flushing()

    def say(self, text: bytes) -> None:
        """Send an answer or a notice in its turn. Never waits or raises."""
        if self.ending is not None:
            return
        payload = self._wire.pack([text])
        if not self._busy:
            self._send(payload)
            return
        try:
            self._backlog().put(payload, len(text))
        except OutboxFull:
            self._too_slow()

    def end(self, code: int, reason: str) -> None:
        """End this session; the first reason given is the one that counts."""
        if self.ending is None:
            self.ending = Ending(code, reason)
            self._open_lanes(None)
            if self._outbox is not None:
                self._outbox.clear()
            self._bound_flush(CLOSE_WITHIN)
            if self._listening is not None:
                self._listening.cancel()

    # The actor.

    def speak(self, dialogue: Dialogue) -> None:
        """Give the session its protocol, before it runs."""
        self._dialogue = dialogue

    def myself(self) -> Self:
        """For `Child.make`: there is one incarnation of it at most."""
        return self

    async def run(self, ctx: Context) -> None:
        # All of an idle session's waiting is in this coroutine: another one costs a quarter of a KiB.
        try:
            self._begin(ctx)
            while self.ending is None:
                with trio.CancelScope(deadline=self._due) as listening:
                    self._listening = listening
                    while True:
                        text = self._take_ahead() if self._ahead else await self._wire.receive()
                        if listening.cancel_called:  # the deadline came with it: not heard in this scope
                            self._ahead = [text, *(self._ahead or ())]
                            break
                        listening.deadline = math.inf
                        await self._dialogue.hear(text)
                        if self._outbox is not None and self._crowded:
                            await self._room_for_answers()
                        listening.deadline = self._due
                await self._look_after()
        except WireClosed as closed:
            self.end(closed.code, closed.reason)
        except trio.Cancelled:
            self._take_leave()
            raise
        finally:
            await self._finish_up()

    def _begin(self, ctx: Context) -> None:
        self._context = ctx
        ctx.ready()
        if self._outbox:  # notices that came before
            self._start_flushing()

    async def _finish_up(self) -> None:
        self.end(1011, "internal error")  # unless there is an ending already
        with trio.CancelScope(shield=True):  # `_flush_until` is the bound
            while self._flushing:
                await self._until_left()
        self._context = None
        self._open_lanes(None)
        self._dialogue.closed()
        await self._hang_up()
        self.let_go()

    def let_go(self) -> None:
        """Keep nothing that knows this session. For who made it, if it never gets to run."""
        if self._outbox is not None:
            self._dropped, self._outbox = self._outbox.dropped, None
        self._dialogue = _NOBODY

    def _put_ahead(self, text: str) -> None:
        self._ahead = self._ahead or []
        self._ahead.append(text)

    def _take_ahead(self) -> str:
        assert self._ahead
        text = self._ahead.pop(0)
        if not self._ahead:
            self._ahead = None
        return text

    async def listen_ahead(self) -> None:
        """For a dialogue that waits in `hear`: go on reading until cancelled, so that a client who hangs up
        or vanishes is noticed at once. The session ends then, which cancels the dialogue."""
        try:
            while sum(map(len, self._ahead or ())) < AHEAD_WAITING:
                self._put_ahead(await self._next_message())
        except WireClosed as closed:
            self.end(closed.code, closed.reason)
        await trio.sleep_forever()

    async def _room_for_answers(self) -> None:
        """Who asks and does not read is not asked again; and is let go of when that lasts."""
        patience = self._manners.ping_interval + self._manners.ping_timeout
        with trio.move_on_after(patience):
            while self._crowded:
                await self._until_left()
            return
        raise WireClosed(1008, f"slow client: answers unread for {patience:g} s")

    @property
    def _crowded(self) -> bool:
        outbox = self._outbox
        if outbox is None:
            return False
        return outbox.answers >= ANSWERS_WAITING or outbox.answer_bytes > ANSWER_BYTES_WAITING

    async def _next_message(self) -> str:
        """The next request, in the middle of another one. Raises WireClosed."""
        while True:
            with trio.move_on_at(self._due):
                return await self._wire.receive()
            await self._look_after()

    @property
    def _due(self) -> float:
        """When the client has to be looked after, unless it is heard from before."""
        if self._pinged > self._wire.heard:
            return self._pinged + self._manners.ping_timeout
        return self._wire.heard + self._manners.ping_interval

    async def _look_after(self) -> None:
        """Who has been silent for long is pinged; who stays silent has vanished: raises WireClosed."""
        if self._due > trio.current_time() or self.ending is not None:
            return
        if self._pinged > self._wire.heard:
            raise WireClosed(1011, f"no answer to a ping for {self._manners.ping_timeout:g} s")
        self._pinged = trio.current_time()
        await self._wire.ping()

    def _take_leave(self) -> None:
        """The server is going away: say so, behind everything that still waits, and give that its time."""
        self.say(self._dialogue.farewell())
        if self.ending is None:
            self.ending = Ending(1001, "server going away")
            self._open_lanes(None)
        self._bound_flush(self._manners.drain_seconds)

    async def _hang_up(self) -> None:
        assert self.ending is not None
        if self._torn:
            self._wire.abort()
            return
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_WITHIN) as scope:
            await self._wire.close(self.ending.code, self.ending.reason)
        if scope.cancelled_caught:
            self._wire.abort()

    # The way out.

    @property
    def _busy(self) -> bool:
        return self._flushing or self._context is None

    def _open_lanes(self, write: Callable[[P], P | None] | None) -> None:
        """Let topics write to the client directly, or not any more."""
        for lane in self.lanes.values():
            lane.write = write

    def _count_out(self, topic: str) -> None:
        lane = self.lanes.pop(topic, None)
        if lane is not None:
            lane.write = None  # a topic may have it in hand still
            self._sent += lane.sent

    def _pack(self, update: Update) -> P:
        lane = self.lanes.get(update.topic)
        return update.packed(lane.pack if lane is not None else self._wire.pack)

    def _announce(self, topic: str, first: int, last: int, items: int) -> P:
        return self._wire.pack([self._dialogue.gap(topic, first, last, items)])

    def _send(self, payload: P) -> None:
        rest = self._wire.write_nowait(payload)
        if rest is not None:
            self.finish(rest)

    def _queue_update(self, update: Update) -> None:
        try:
            self._backlog().put_update(update)
        except OutboxFull:
            self._too_slow()

    def _too_slow(self) -> None:
        self.end(1008, f"slow client: {self._manners.outbox} messages were waiting")

    def _start_flushing(self) -> None:
        assert self._context is not None
        self._flushing = True
        self._open_lanes(None)
        self._context.start_helper(self._flush)

    async def _flush(self) -> None:
        self._torn = True  # if this fails
        try:
            await self._flush_all()
        finally:
            self._flushing = False
            self._flush_scope = None
            self._tell_left()
        if self.ending is None:
            self._open_lanes(self._wire.write_nowait)

    async def _flush_all(self) -> None:
        # Shielded, so that a session that is told to go can still send what waits, until `_flush_until`.
        with trio.CancelScope(shield=True, deadline=self._flush_until) as self._flush_scope:
            try:
                while payloads := self._take():
                    await self._wire.write(payloads)
                    self._tell_left()
            except WireClosed as closed:
                self.end(closed.code, closed.reason)
        self._torn = self._flush_scope.cancelled_caught

    async def _until_left(self) -> None:
        """Wait until something has left the outbox, or the flusher has ended."""
        if self._left is None:
            self._left = trio.Event()
        await self._left.wait()

    def _tell_left(self) -> None:
        if self._left is not None:
            self._left.set()
            self._left = None

    def _backlog(self) -> Outbox[P]:
        if self._outbox is None:
            manners = self._manners
            self._outbox = Outbox(manners.outbox, manners.slow_client, self._pack, self._announce)
        return self._outbox

    def _take(self) -> list[P]:
        payloads: list[P] = []
        if self._rest is not None:
            payloads.append(self._rest)
            self._rest = None
        if self._outbox is not None:
            while len(payloads) < PAYLOADS_AT_ONCE and (payload := self._outbox.take()) is not None:
                payloads.append(payload)
        return payloads

    def _bound_flush(self, seconds: float) -> None:
        self._flush_until = min(self._flush_until, trio.current_time() + seconds)
        if self._flush_scope is not None:
            self._flush_scope.deadline = self._flush_until


class _Nobody:
    """Who an ended session talks with: a `Dialogue` that nothing is asked of any more."""

    async def hear(self, text: str) -> None:
        raise AssertionError("an ended session does not listen")

    def gap(self, topic: str, first: int, last: int, items: int) -> bytes:
        raise AssertionError("an ended session owes nothing")

    def farewell(self) -> bytes:
        raise AssertionError("an ended session has said it")

    def closed(self) -> None:
        pass


_NOBODY = _Nobody()


@cache
def _joining(pack: Callable[[Sequence[bytes]], Any]) -> Callable[[Sequence[bytes]], Any]:
    """`pack`, with several texts as one JSON array; one function, for what it makes is shared."""

    def pack_joined(texts: Sequence[bytes]) -> Any:
        return pack(texts if len(texts) == 1 else [b"[" + b",".join(texts) + b"]"])

    return pack_joined
