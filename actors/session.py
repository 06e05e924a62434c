"""One client: its subscriptions, its outbox, its slow-client policy.

Rules of this file. `offer` and `say` never wait: what the connection does not take at once waits in
the outbox, and a flusher, which lives only while something waits, sends it in order. Everything for
the client goes this one way, so that answers, updates and notices keep their order. A session ends
exactly once, for one reason, and takes nobody with it: it is a temporary child.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Generic, Protocol, TypeVar

import trio
from attrs import define, frozen

from supervisors import Context

from .outbox import Outbox, OutboxFull, SlowClient
from .subscription import Lane, Update

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

    def __init__(self, wire: Wire[P], manners: Manners) -> None:
        self.ending: Ending | None = None
        self._wire = wire
        self._manners = manners
        self._dialogue: Dialogue
        self.lanes: dict[str, Lane[P]] = {}  # where topics look; read only for them
        self._sent = 0  # in topics that are no longer followed
        self._outbox: Outbox[P] = Outbox(
            manners.outbox,
            manners.slow_client,
            self._pack,
            lambda *gap: wire.pack([self._dialogue.gap(*gap)]),
        )
        self._rest: P | None = None  # what a partial write left of a payload: goes out first, whole
        self._flushing = False
        self._left = trio.Event()  # set, and replaced, whenever something left the outbox
        self._pinged = float("-inf")
        self._nursery: trio.Nursery | None = None
        self._listening = trio.CancelScope()
        self._ahead: list[str] = []  # requests that came while the dialogue waited, oldest first
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
        return len(self._outbox)

    @property
    def dropped(self) -> int:
        """Items dropped, and announced as gaps, because the client was slow."""
        return self._outbox.dropped

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
            self._outbox.put(payload, len(text))
        except OutboxFull:
            self._too_slow()

    def end(self, code: int, reason: str) -> None:
        """End this session; the first reason given is the one that counts."""
        if self.ending is None:
            self.ending = Ending(code, reason)
            self._open_lanes(None)
            self._outbox.clear()
            self._bound_flush(CLOSE_WITHIN)
            self._listening.cancel()

    # The actor.

    def speak(self, dialogue: Dialogue) -> None:
        """Give the session its protocol, before it runs."""
        self._dialogue = dialogue

    async def run(self, ctx: Context) -> None:
        try:
            async with trio.open_nursery() as self._nursery:
                ctx.ready()
                if self._outbox:  # notices that came before
                    self._start_flushing()
                await self._serve()
        finally:
            self._nursery = None
            self._open_lanes(None)
            self._dialogue.closed()
            await self._hang_up()

    async def _serve(self) -> None:
        try:
            with self._listening:
                await self._listen()
        except trio.Cancelled:
            self._take_leave()
            raise
        except Exception:
            self.end(1011, "internal error")
            raise

    async def _listen(self) -> None:
        try:
            while True:
                text = self._ahead.pop(0) if self._ahead else await self._next_message()
                await self._dialogue.hear(text)
                await self._room_for_answers()
        except WireClosed as closed:
            self.end(closed.code, closed.reason)

    async def listen_ahead(self) -> None:
        """For a dialogue that waits in `hear`: go on reading until cancelled, so that a client who hangs up
        or vanishes is noticed at once. The session ends then, which cancels the dialogue."""
        try:
            while sum(map(len, self._ahead)) < AHEAD_WAITING:
                self._ahead.append(await self._next_message())
        except WireClosed as closed:
            self.end(closed.code, closed.reason)
        await trio.sleep_forever()

    async def _room_for_answers(self) -> None:
        """Who asks and does not read is not asked again; and is let go of when that lasts."""
        if not self._crowded:
            return
        patience = self._manners.ping_interval + self._manners.ping_timeout
        with trio.move_on_after(patience):
            while self._crowded:
                await self._left.wait()
            return
        raise WireClosed(1008, f"slow client: answers unread for {patience:g} s")

    @property
    def _crowded(self) -> bool:
        outbox = self._outbox
        return outbox.answers >= ANSWERS_WAITING or outbox.answer_bytes > ANSWER_BYTES_WAITING

    async def _next_message(self) -> str:
        """The next request. Whoever is silent for long is pinged; whoever stays silent has vanished."""
        while True:
            unanswered = self._pinged > self._wire.heard
            with trio.move_on_at(
                self._pinged + self._manners.ping_timeout
                if unanswered
                else self._wire.heard + self._manners.ping_interval
            ):
                return await self._wire.receive()
            if unanswered and self._pinged > self._wire.heard:
                raise WireClosed(1011, f"no answer to a ping for {self._manners.ping_timeout:g} s")
            if trio.current_time() >= self._wire.heard + self._manners.ping_interval:
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
        ending = self.ending or Ending(1011, "internal error")
        if self._torn:
            self._wire.abort()
            return
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_WITHIN) as scope:
            await self._wire.close(ending.code, ending.reason)
        if scope.cancelled_caught:
            self._wire.abort()

    # The way out.

    @property
    def _busy(self) -> bool:
        return self._flushing or self._nursery is None

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

    def _send(self, payload: P) -> None:
        rest = self._wire.write_nowait(payload)
        if rest is not None:
            self.finish(rest)

    def _queue_update(self, update: Update) -> None:
        try:
            self._outbox.put_update(update)
        except OutboxFull:
            self._too_slow()

    def _too_slow(self) -> None:
        self.end(1008, f"slow client: {self._manners.outbox} messages were waiting")

    def _start_flushing(self) -> None:
        assert self._nursery is not None
        self._flushing = True
        self._open_lanes(None)
        self._nursery.start_soon(self._flush)

    async def _flush(self) -> None:
        # Shielded, so that a session that is told to go can still send what waits, until `_flush_until`.
        with trio.CancelScope(shield=True, deadline=self._flush_until) as self._flush_scope:
            try:
                while payloads := self._take():
                    await self._wire.write(payloads)
                    self._left.set()
                    self._left = trio.Event()
            except WireClosed as closed:
                self.end(closed.code, closed.reason)
        self._torn = self._flush_scope.cancelled_caught
        self._flushing = False
        if self.ending is None:
            self._open_lanes(self._wire.write_nowait)

    def _take(self) -> list[P]:
        payloads: list[P] = []
        if self._rest is not None:
            payloads.append(self._rest)
            self._rest = None
        while len(payloads) < PAYLOADS_AT_ONCE and (payload := self._outbox.take()) is not None:
            payloads.append(payload)
        return payloads

    def _bound_flush(self, seconds: float) -> None:
        self._flush_until = min(self._flush_until, trio.current_time() + seconds)
        if self._flush_scope is not None:
            self._flush_scope.deadline = self._flush_until


@cache
def _joining(pack: Callable[[Sequence[bytes]], Any]) -> Callable[[Sequence[bytes]], Any]:
    """`pack`, with several texts as one JSON array; one function, for what it makes is shared."""

    def pack_joined(texts: Sequence[bytes]) -> Any:
        return pack(texts if len(texts) == 1 else [b"[" + b",".join(texts) + b"]"])

    return pack_joined
