"""One client: its subscriptions, its outbox, its slow-client policy.

Rules of this file. `offer` and `say` never wait. The rest of a write waits in the outbox, and a flusher sends
it in order; the flusher lives only while something waits. Everything for the client goes this one way, so
answers, updates and notices keep their order. A session ends exactly once, for one reason, and takes nobody
with it: it is a temporary child. Most sessions are idle for most of the time: they wait in one cancel scope
and two coroutines above those of the wire, and make outbox, event and flusher only when they need them. An
ended session has let go of everything that knows it, so that it is freed at once. The session knows no
protocol: a `Dialogue` does.

A long message never stands in memory whole. `begin` sends it piece by piece, and each piece is made when the
client has taken the one before. Until `complete` everything else waits in the outbox, under its bounds. An
unfinished message is the last one: the connection ends with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence, Sized
from enum import Enum
from typing import Any, Generic, Protocol, Self, TypeGuard, TypeVar

import trio
from attrs import frozen

from supervisors import Context

from .outbox import Outbox, OutboxFull, SlowClient
from .subscription import Lane, WideLane
from .update import Bundle, Bundles, Fill, Rendering, Update

P = TypeVar("P")
P_co = TypeVar("P_co", covariant=True)
M_co = TypeVar("M_co", covariant=True)
M_contra = TypeVar("M_contra", contravariant=True)
M = TypeVar("M", bound=Sized)

PAYLOADS_AT_ONCE = 64  # taken from the outbox at once, and then beyond the reach of the policy: not too much
BYTES_AT_ONCE = 256 * 1024  # likewise
ANSWERS_WAITING = 8  # unsent answers at which no further request is read
ANSWER_BYTES_WAITING = 256 * 1024  # likewise, for answers that are long
AHEAD_WAITING = 16 * 1024  # characters of requests read ahead at which no further one is
PARTS_AT_ONCE = 64  # of bundles, of one client alone, that leave together
NOWHERE = 1 << 62  # the position of a subscriber that nothing is behind
_NEVER = float("-inf")
CLOSE_WITHIN = 1.0  # seconds for the last bytes to a client that is being disconnected


class Ending(Enum):
    """Why a session ends. A wire says it in its own codes."""

    GONE = "gone"  # the client left, or its connection broke
    SLOW = "slow"  # it does not read what it is sent
    SILENT = "silent"  # it does not answer a ping
    REFUSED = "refused"  # there is no room: it may come back later
    GOING_AWAY = "going away"  # the server stops
    FAILED = "failed"  # our fault
    VIOLATION = "protocol violation"  # it broke a rule of its protocol
    OPERATOR = "ended by the operator"


@frozen
class Ended:
    """The end of a session: why, and the words that its client gets.

    `code`: the protocol's own number of this end, for wires that carry one. `heard`: the number that the
    client gave, where it ended it.
    """

    why: Ending
    words: str
    code: int | None = None
    heard: int | None = None


@frozen
class Backlog:
    """What a client has not taken. `messages` and `bytes`: in the outbox, behind what is being sent.

    `since`: when the oldest of all that was not taken began to wait, on Trio's clock.
    """

    messages: int
    bytes: int
    since: float


class WireClosed(Exception):
    """The connection has ended, or is to end, for this reason. `code`: the number that the peer gave."""

    code: int | None = None

    def __init__(self, words: str = "", why: Ending = Ending.GONE) -> None:
        super().__init__(words)
        self.words = words
        self.why = why


class Watcher(Protocol[P_co]):
    """Uses the short way of a wire."""

    def way_changed(self) -> None:
        """Look at `way` again. Never waits or raises."""

    def reproach(self, words: str) -> P_co | None:
        """The last payload to a client that broke a rule of the wire; None when there is none. Never
        raises."""


class Wire(Protocol[P, M_co]):
    """One client's connection. P: a payload, ready to be sent and shared. M: a message of the client's."""

    @property
    def peer(self) -> str:
        """The client's address."""

    @property
    def heard(self) -> float:
        """`trio.current_time()` of the last byte that came in."""

    @property
    def stays(self) -> bool:
        """Whether it lives in a request of the server that accepted it, and must end before that stops."""

    @property
    def pack(self) -> Callable[[Sequence[bytes]], P]:
        """Makes one payload of k texts. Pure, and the same function for all wires of a kind: its payloads are
        shared between sessions."""

    @property
    def plain(self) -> Callable[[Sequence[bytes]], P]:
        """As `pack`, for a payload that no other session gets: without work that pays only when shared."""

    @property
    def size(self) -> Callable[[P], int]:
        """The bytes of a payload, or about as many."""

    def piece(self, text: bytes, first: bool, last: bool) -> P:
        """Makes a payload of a piece of one long text: whole characters. Only its further pieces may follow
        it, and what the wire says of its own accord."""

    @property
    def way(self) -> Callable[[P], int] | None:
        """The short way of a payload: `send` of a non-blocking socket, see `subscription.Lane`. None while
        something else comes first, and for wires without one."""

    def watch(self, watcher: Watcher[P] | None) -> None:
        """Have `watcher.way_changed()` called when there is a short way, or none any more. A wire that can
        speak to a client that broke a rule says `watcher.reproach` before it closes."""

    def cut(self, payload: P, taken: int) -> P:
        """The short way took only so much of `payload`: returns the rest, which must be written next."""

    def write_nowait(self, payload: P) -> P | None:
        """Send what is taken without waiting; returns the rest, None when there is none. Never raises."""

    async def write(self, payloads: Sequence[P]) -> None:
        """Send all of it. Raises WireClosed. After a cancellation only `abort` is of use."""

    async def receive(self) -> M_co:
        """The next message. Raises WireClosed. Cancelling it loses nothing."""

    async def ping(self) -> None:
        """Ask for a sign of life."""

    async def close(self, why: Ending, words: str, code: int | None = None) -> None:
        """Close politely within a bounded time. Never raises.

        `code`: the protocol's own number of this end; a wire without such numbers does not use it.
        """

    def abort(self) -> None:
        """Close at once."""

    def turn_binary(self) -> None:
        """From now on send binary messages. For a wire that can send either kind, before it is shared."""


class Dialogue(Protocol[M_contra]):
    """One client's side of a protocol: the words for it, and the meaning of its messages."""

    async def hear(self, message: M_contra) -> None:
        """Take one message; the answer is said through the session. Never raises for what was said."""

    def gap(self, topic: Any, first: int, last: int, items: int) -> bytes | None:
        """The notice that these places, with so many items, were dropped because the client is slow."""

    def notice(self, notice: Any) -> bytes | None:
        """A notice for all clients in this protocol's words; None when it has none for it."""

    def farewell(self) -> bytes | None:
        """The notice that the server is going away."""

    def reproach(self, words: str) -> Sequence[bytes]:
        """The last words to a client that broke a rule below this protocol: its message was too long, say."""

    def heartbeat(self) -> bytes | None:
        """The protocol's own word for a sign of life; None: the wire's ping is enough."""

    @property
    def alarm(self) -> float:
        """When `on_alarm` is to be called, on Trio's clock; infinity for never."""

    def on_alarm(self) -> None:
        """The time of `alarm` has come. Sets it anew. Never waits or raises."""

    def closed(self) -> None:
        """The session is over: leave every topic."""


@frozen
class Manners:
    """How a session treats its client. Times are seconds.

    `ping_timeout` None: the client cannot answer a ping, so its silence says nothing. It is pinged all the
    same.
    """

    outbox: int = 1024
    outbox_bytes: int = 1 << 20
    slow_client: SlowClient = SlowClient.DISCONNECT
    ping_interval: float = 20.0
    ping_timeout: float | None = 20.0
    drain_seconds: float = 5.0


class Session(Generic[P, M]):
    """The actor of one client, and the subscriber that topics see."""

    __slots__ = (
        "_ahead",
        "_context",
        "_dialogue",
        "_dropped",
        "_flush_scope",
        "_flush_until",
        "_flushing",
        "_held_since",
        "_left",
        "_listening",
        "_manners",
        "_outbox",
        "_piece",
        "_pinged",
        "_reciting",
        "_rest",
        "_sent",
        "_taking",
        "_torn",
        "_wire",
        "ended",
        "lanes",
    )

    def __init__(self, wire: Wire[P, M], manners: Manners) -> None:
        self.ended: Ended | None = None
        self._wire = wire
        self._manners = manners
        self._dialogue: Dialogue[M]
        self.lanes: dict[Any, Lane[P]] = {}  # where topics look; read only for them
        self._sent = 0  # in topics that are no longer followed
        self._dropped = 0  # by an outbox that is no more
        self._outbox: Outbox[P] | None = None  # None until something has to wait
        self._rest: P | None = None  # the rest of a partial write: goes out first, whole
        self._held_since: float | None = None  # what the flusher has in its hand; None: nothing
        self._reciting = False  # a long message has begun
        self._piece: tuple[P, bool] | None = None  # of it, and whether it is the last: waits for its turn
        self._taking: trio.CancelScope | None = None  # cancelled when something left, without a deadline then
        self._flushing = False
        self._left: trio.Event | None = None  # set when something left the outbox, or the flusher did
        self._pinged = _NEVER
        self._context: Context | None = None  # while it runs
        self._listening: trio.CancelScope | None = None
        self._ahead: list[M] | None = None  # requests that wait to be heard, oldest first
        self._flush_until = float("inf")
        self._flush_scope: trio.CancelScope | None = None
        self._torn = False  # a write was cut short: nothing sent after it could be understood

    # For topics and the dialogue.

    @property
    def peer(self) -> str:
        return self._wire.peer

    @property
    def heard(self) -> float:
        """`trio.current_time()` of the last byte that came from the client."""
        return self._wire.heard

    @property
    def stays(self) -> bool:
        """Whether it must end before the server that accepted it stops."""
        return self._wire.stays

    @property
    def frame(self) -> Callable[[Sequence[bytes]], P]:
        """How its kind of wire makes a payload of texts that many sessions get."""
        return self._wire.pack

    @property
    def plain(self) -> Callable[[Sequence[bytes]], P]:
        """The same for a payload of its own."""
        return self._wire.plain

    @property
    def stuck_since(self) -> float | None:
        """Since when the client has not taken what it is sent, or not answered a ping, on Trio's clock."""
        backlog = self.backlog
        since = None if backlog is None else backlog.since
        if self._pinged > self._wire.heard and self._manners.ping_timeout is not None:
            since = self._pinged if since is None else min(since, self._pinged)
        return since

    @property
    def waiting(self) -> int:
        """Messages in the outbox."""
        return len(self._outbox) if self._outbox is not None else 0

    @property
    def backlog(self) -> Backlog | None:
        """None while the client takes everything at once."""
        outbox = self._outbox
        since = self._held_since
        if since is None and outbox is not None:
            since = outbox.oldest
        if since is None:
            return None
        return Backlog(self.waiting, self.waiting_bytes, since)

    @property
    def waiting_bytes(self) -> int:
        """Bytes in the outbox."""
        return self._outbox.bytes if self._outbox is not None else 0

    @property
    def dropped(self) -> int:
        """Items dropped, and announced as gaps, because the client was slow."""
        return self._outbox.dropped if self._outbox is not None else self._dropped

    @property
    def sent(self) -> int:
        """Messages of topics that were sent or wait to be."""
        return self._sent + sum([lane.sent for lane in self.lanes.values()])

    def follow(self, topic: Any, position: int, rendering: Rendering[P], fills: int | None = None) -> None:
        """From now on take updates of `topic` behind `position`, written as `rendering` says.

        `fills`: the number of the last fill that it knows; None: as before.
        """
        lane = self.lanes.get(topic)
        if lane is None:
            lane = self.lanes[topic] = Lane(position, rendering, None)
            self._part_ways()
        else:
            lane.position, lane.rendering = position, rendering
        if fills is not None:
            lane.fills = fills
        lane.send = self._way_of(lane)

    def follow_all(self, topic: Any, log: Bundles, rendering: Rendering[P]) -> None:
        """From now on take the bundles of `topic` behind the newest one. Go on with `catch_up`."""
        lane = self.lanes.get(topic)
        if lane is None:
            self.lanes[topic] = WideLane(log.last, rendering, None, log=log)
        else:
            assert isinstance(lane, WideLane)
            lane.position, lane.rendering, lane.apart = log.last, rendering, {}

    def catch_up(
        self, topic: Any, parts: Sequence[Update | Fill], apart: Mapping[Any, tuple[int, int]]
    ) -> None:
        """Take these parts of topics in the bundles of `topic`; `apart`: where the client knows more behind
        them than the bundles do, see `WideLane`. Never waits or raises."""
        lane = self.lanes[topic]
        assert isinstance(lane, WideLane)
        self._take_newest(lane)
        lane.apart.update(apart)
        for start in range(0, len(parts), PARTS_AT_ONCE):
            self._take_parts(lane, parts[start : start + PARTS_AT_ONCE])
        lane.send = self._way_of(lane)

    def way_changed(self) -> None:
        """Let topics send directly, or not any more, as things stand."""
        for lane in self.lanes.values():
            lane.send = self._way_of(lane)

    def reproach(self, words: str) -> P | None:
        """The last words to a client that broke a rule of the wire, before its connection ends."""
        if self._reciting or self.ended is not None:
            return None
        texts = self._dialogue.reproach(words)
        return self._wire.pack(texts) if texts else None

    def _way_of(self, lane: Lane[P]) -> Callable[[P], int] | None:
        """The short way past the session; not for a personal rendering, whose payload nobody shares."""
        free = not self._busy and self.ended is None and lane.rendering.shared
        if free and isinstance(lane, WideLane):
            free = not lane.apart and not any(map(lane.log.covers, self.lanes))
        return self._wire.way if free else None

    def _part_ways(self) -> None:
        """A topic has a lane of its own from now on, or no more: bundles that have it must be looked at."""
        for lane in self.lanes.values():
            if isinstance(lane, WideLane):
                lane.send = self._way_of(lane)

    def _lane(self, topic: Any) -> Lane[P]:
        """The lane by which `topic` comes. Raises KeyError."""
        lane = self.lanes.get(topic) or self._wide_lane(topic)
        if lane is None:
            raise KeyError(topic)
        return lane

    def _wide_lane(self, topic: Any) -> WideLane[P] | None:
        """The lane of bundles with `topic`."""
        for lane in self.lanes.values():
            if isinstance(lane, WideLane) and lane.log.covers(topic):
                return lane
        return None

    @property
    def reciting(self) -> bool:
        """Whether a long message has begun: everything else leaves behind it."""
        return self._reciting

    @property
    def flushing(self) -> bool:
        """Whether the client has yet to take something before more is sent."""
        return self._flushing

    def told(self, topic: Any) -> int:
        """The last place of `topic` that has left, when what waits shall not (`hold`). Raises KeyError."""
        waiting = self._outbox.before() if self._outbox is not None else {}
        return waiting[topic] if topic in waiting else self.position(topic)

    def told_of_all(self, topic: Any) -> dict[Any, tuple[int, int]]:
        """`told` and `fills` of all topics in the bundles of `topic`. Raises KeyError."""
        lane = self.lanes[topic]
        assert isinstance(lane, WideLane)
        self._take_newest(lane)
        waiting = {} if self._outbox is None else self._outbox.before()
        fills = {} if self._outbox is None else self._outbox.first_fills()
        told = {}
        for each in (*lane.log.places, *lane.apart):
            place, number = lane.known(each)
            told[each] = waiting.get(each, place), fills[each] - 1 if each in fills else number
        return told

    def hold(self, topic: Any, rendering: Rendering[P]) -> None:
        """Until it is followed the next time nothing more of `topic` leaves, what waits included."""
        fills = self.fills(topic) if self.lanes.get(topic) or self._wide_lane(topic) else None
        self.follow(topic, NOWHERE, rendering, fills)
        self._forget(topic, self.lanes[topic])

    def fills(self, topic: Any) -> int:
        """The number of the last fill of `topic` that has left. Raises KeyError when it is not followed."""
        waiting = {} if self._outbox is None else self._outbox.first_fills()
        if topic in waiting:
            return waiting[topic] - 1
        lane = self._lane(topic)
        return lane.known(topic)[1] if self._is_wide(lane, topic) else lane.fills

    def position(self, topic: Any) -> int:
        """The last place of `topic` that was sent or waits. Raises KeyError when it is not followed."""
        lane = self._lane(topic)
        return lane.known(topic)[0] if self._is_wide(lane, topic) else lane.position

    def rendering(self, topic: Any) -> Rendering[P]:
        """How updates of `topic` are written. Raises KeyError when it is not followed."""
        return self._lane(topic).rendering

    def _is_wide(self, lane: Lane[P], topic: Any) -> TypeGuard[WideLane[P]]:
        """Whether `topic` comes in the bundles of `lane`. The newest one is taken then."""
        if not isinstance(lane, WideLane) or topic in self.lanes:
            return False
        self._take_newest(lane)
        return True

    def unfollow(self, topic: Any) -> None:
        """No update of `topic` leaves after this, unless it is in bundles that are followed."""
        lane = self.lanes.pop(topic, None)
        if lane is not None:
            lane.send = None  # a topic may have it in hand still
            self._sent += lane.sent
            self._part_ways()
            self._forget(topic, lane)

    def offer(self, update: Update) -> None:
        """Send what is behind the client's position, now or as soon as it takes it. Never waits or raises."""
        lane = self.lanes.get(update.topic)
        if lane is None or self.ended is not None:
            return
        rest = update.after(lane.position)
        if rest is None:
            return
        lane.position = rest.last
        if isinstance(rest, Bundle):
            self._take_bundle(lane, rest)
            return
        lane.sent += len(rest.places)
        if self._busy:
            self._queue_update(rest)
        else:
            self._send(self._pack(rest))

    def amend(self, fill: Fill, told: Sequence[tuple[int, int]] | None = None) -> None:
        """Send a fill, as far as the client was told of the hole: up to its position, or in the ranges
        `told`. In its turn, behind all that waits: the hole may wait there. Never waits or raises."""
        lane = self.lanes.get(fill.topic)
        if lane is None or self.ended is not None or lane.position == NOWHERE or lane.fills >= fill.number:
            return
        lane.fills = fill.number
        for first, last in ((1, lane.position),) if told is None else told:
            part = fill.within(first, min(last, lane.position))
            payload = None if part is None else part.payload(lane.rendering)
            if payload is not None:
                lane.sent += 1
                self._say(payload, (fill.topic, fill.number))

    def _take_newest(self, lane: WideLane[P]) -> None:
        """Take the newest bundle, if it is on its way still."""
        if lane.log.bundle is not None:
            self.offer(lane.log.bundle)

    def _take_bundle(self, lane: Lane[P], bundle: Bundle) -> None:
        assert isinstance(lane, WideLane)
        parts = lane.behind(bundle, self.lanes)
        if parts is bundle.own and not self._busy:
            lane.sent += len(bundle.places)
            self._send(lane.rendering.payload(bundle))
        else:
            self._take_parts(lane, parts)
        lane.send = self._way_of(lane)

    def _take_parts(self, lane: WideLane[P], parts: Sequence[Update | Fill]) -> None:
        format = lane.rendering.format
        lane.sent += sum([len(part.places) for part in parts])
        if not parts or self.ended is not None:
            return
        if not self._busy:
            texts = [text for part in parts for text in part.texts(format)]
            self._send(self._wire.plain(lane.rendering.wrapped(texts)))
            return
        for part in parts:
            if isinstance(part, Fill):
                payload = part.payload(lane.rendering)
                if payload is not None:
                    self._say(payload, (part.topic, part.number))
            elif lane.log.covers(part.topic):
                self._queue_update(part)
            else:  # an announcement: never dropped
                for text in part.texts(format):
                    self.say(text)

    def finish(self, payload: P, taken: int | None) -> None:
        """A send through a lane took only so much, or nothing (None): send the rest, before anything else."""
        self._finish(payload if taken is None else self._wire.cut(payload, taken))

    def _finish(self, rest: P) -> None:
        self._rest, self._held_since = rest, trio.current_time()
        self._start_flushing()

    def tell(self, *notices: Any) -> None:
        """Send notices in the client's protocol, those for which it has a word. Never waits or raises.

        Together: thousands may come at once, and each payload costs a call of the system, or room to wait.
        """
        texts = [text for notice in notices if (text := self._dialogue.notice(notice)) is not None]
        if texts and self.ended is None:
            self._say(self._wire.pack(texts))

    def say(self, text: bytes) -> None:
        """Send an answer or a notice in its turn. Never waits or raises."""
        if self.ended is not None:
            return
        self._say(self._wire.pack([text]))

    def _say(self, payload: P, fill: tuple[Any, int] | None = None) -> None:
        if self.ended is not None:
            return
        if not self._busy:
            self._send(payload)
            return
        try:
            self._backlog().put(payload, fill)
        except OutboxFull as full:
            self._too_slow(full)

    def begin(self, text: bytes) -> None:
        """Send a piece of a long message; `complete` sends the last one. Never waits or raises.

        Wait for `room` before the next piece.
        """
        if self.ended is not None:
            return
        first, self._reciting = not self._reciting, True
        if first:
            self._close_lanes()
            self._backlog().mark()
        self._put_piece(self._wire.piece(text, first, False), False)

    def complete(self, text: bytes) -> None:
        """Send the last piece of the message that has begun. Never waits or raises."""
        if self.ended is None:
            self._put_piece(self._wire.piece(text, False, True), True)

    async def room(self) -> None:
        """Wait until the client has taken all that `begin` sent, and listen meanwhile.

        The session of a client that leaves, or takes nothing for too long, ends; that cancels this.
        """
        while self._flushing:
            with trio.move_on_after(self._patience) as self._taking:
                await self.listen_ahead()
            if self._taking.deadline < math.inf:
                self.end(Ending.SLOW, self._unread())
                await trio.sleep_forever()
        self._taking = None

    def turn_binary(self) -> None:
        """From now on send binary messages, where the client's wire can send either kind.

        Before the first subscription: renderings are made for one kind.
        """
        self._wire.turn_binary()

    def end(self, why: Ending, words: str, code: int | None = None) -> None:
        """End this session; the first reason given counts.

        `code`: the protocol's own number of this end, such as a close code of WebSocket.
        """
        self._end(Ended(why, words, code))

    def _closed(self, closed: WireClosed) -> None:
        self._end(Ended(closed.why, closed.words, heard=closed.code))

    def _end(self, ended: Ended) -> None:
        if self.ended is None:
            self.ended = ended
            self._close_lanes()
            self._piece = None
            if self._outbox is not None:
                self._outbox.clear()
            self._bound_flush(CLOSE_WITHIN)
            if self._listening is not None:
                self._listening.cancel()

    # The actor.

    def speak(self, dialogue: Dialogue[M]) -> None:
        """Give the session its protocol, before it runs."""
        self._dialogue = dialogue

    def hear_first(self, message: M) -> None:
        """Have the dialogue hear `message` before all that the client says: its handshake was the request."""
        self._put_ahead(message)

    def myself(self) -> Self:
        """For `Child.make`: there is one incarnation of it at most."""
        return self

    async def run(self, ctx: Context) -> None:
        # All of an idle session's waiting is in this coroutine: another one costs a quarter of a KiB.
        try:
            self._begin(ctx)
            while self.ended is None:
                with trio.CancelScope(deadline=self._due) as listening:
                    self._listening = listening
                    while True:
                        message = self._take_ahead() if self._ahead else await self._wire.receive()
                        if listening.cancel_called:  # the deadline came with it: not heard in this scope
                            self._ahead = [message, *(self._ahead or ())]
                            break
                        listening.deadline = math.inf
                        await self._dialogue.hear(message)
                        if self._outbox is not None and self._crowded:
                            await self._room_for_answers()
                        listening.deadline = self._due
                await self._look_after()
        except WireClosed as closed:
            self._closed(closed)
        except trio.Cancelled:
            self._take_leave()
            raise
        finally:
            await self._finish_up()

    def _begin(self, ctx: Context) -> None:
        self._context = ctx
        self._wire.watch(self)
        ctx.ready()
        if self._outbox:  # notices that came before
            self._start_flushing()

    async def _finish_up(self) -> None:
        self.end(Ending.FAILED, "internal error")  # unless it has ended already
        with trio.CancelScope(shield=True):  # `_flush_until` is the bound
            while self._flushing:
                await self._until_left()
        self._context = None
        self._close_lanes()
        self._dialogue.closed()
        await self._hang_up()
        self.let_go()

    def let_go(self) -> None:
        """Keep nothing that knows this session. For the maker of a session that never runs."""
        if self._outbox is not None:
            self._dropped, self._outbox = self._outbox.dropped, None
        self._wire.watch(None)
        self._dialogue = _NOBODY

    def _put_ahead(self, message: M) -> None:
        self._ahead = self._ahead or []
        self._ahead.append(message)

    def _take_ahead(self) -> M:
        assert self._ahead
        message = self._ahead.pop(0)
        if not self._ahead:
            self._ahead = None
        return message

    async def listen_ahead(self) -> None:
        """For a dialogue that waits in `hear`: go on reading until cancelled, so that a client who hangs up
        or vanishes is noticed at once. The session ends then, which cancels the dialogue."""
        try:
            while sum(map(len, self._ahead or ())) < AHEAD_WAITING:
                self._put_ahead(await self._next_message())
        except WireClosed as closed:
            self._closed(closed)
        await trio.sleep_forever()

    async def _room_for_answers(self) -> None:
        """A client that asks and does not read is not heard; when that lasts, it is let go."""
        with trio.move_on_after(self._patience):
            while self._crowded:
                await self._until_left()
            return
        raise WireClosed(self._unread(), Ending.SLOW)

    @property
    def _patience(self) -> float:
        return self._manners.ping_interval + (self._manners.ping_timeout or 0.0)

    def _unread(self) -> str:
        return f"slow client: answers unread for {self._patience:g} s"

    @property
    def _crowded(self) -> bool:
        outbox = self._outbox
        if outbox is None:
            return False
        return outbox.answers >= ANSWERS_WAITING or outbox.answer_bytes > ANSWER_BYTES_WAITING

    async def _next_message(self) -> M:
        """The next request, in the middle of another one. Raises WireClosed."""
        while True:
            with trio.move_on_at(self._due):
                return await self._wire.receive()
            await self._look_after()

    @property
    def _due(self) -> float:
        """When the client has to be looked after, unless it is heard from before."""
        return min(self._next_sign, self._dialogue.alarm)

    @property
    def _next_sign(self) -> float:
        """When the client must have given a sign of life, or must be asked for one."""
        manners, heard = self._manners, self._wire.heard
        if manners.ping_timeout is None:
            return max(self._pinged, heard) + manners.ping_interval
        if self._pinged > heard:
            return self._pinged + manners.ping_timeout
        return heard + manners.ping_interval

    async def _look_after(self) -> None:
        """Ping a client that was silent for long. Raises WireClosed when it stays silent: it has vanished."""
        if self.ended is None and self._dialogue.alarm <= trio.current_time():
            self._dialogue.on_alarm()
        if self._next_sign > trio.current_time() or self.ended is not None:
            return
        timeout = self._manners.ping_timeout
        if timeout is not None and self._pinged > self._wire.heard:
            raise WireClosed(f"no answer to a ping for {timeout:g} s", Ending.SILENT)
        self._pinged = trio.current_time()
        text = self._dialogue.heartbeat()
        if text is None:
            await self._wire.ping()
        elif not self._busy:  # behind messages that wait it would add nothing
            self.say(text)

    def _take_leave(self) -> None:
        """The server is going away: say so, behind everything that still waits, and give that its time."""
        farewell = self._dialogue.farewell()
        if farewell is not None:
            self.say(farewell)
        if self.ended is None:
            self.ended = Ended(Ending.GOING_AWAY, "server going away")
            self._close_lanes()
        self._bound_flush(self._manners.drain_seconds)

    async def _hang_up(self) -> None:
        assert self.ended is not None
        if self._torn:
            self._wire.abort()
            return
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_WITHIN) as scope:
            await self._wire.close(self.ended.why, self.ended.words, self.ended.code)
        if scope.cancelled_caught:
            self._wire.abort()

    # The way out.

    @property
    def _busy(self) -> bool:
        return self._flushing or self._reciting or self._context is None

    def _close_lanes(self) -> None:
        """Let topics not send directly any more."""
        for lane in self.lanes.values():
            lane.send = None

    def _forget(self, topic: Any, lane: Lane[P]) -> None:
        """Nothing that came by this lane waits any more."""
        if self._outbox is not None and isinstance(lane, WideLane):
            covers = lane.log.covers
            self._outbox.forget(lambda other: covers(other) and other not in self.lanes)
        elif self._outbox is not None:
            self._outbox.forget(lambda other: other == topic)

    def _pack(self, update: Update) -> P:
        rendering = self._lane(update.topic).rendering
        if update.whole:
            return rendering.payload(update)
        return self._wire.plain(rendering.texts(update))

    def _announce(self, topic: Any, first: int, last: int, items: int) -> P:
        text = self._dialogue.gap(topic, first, last, items)
        return self._lane(topic).rendering.pack([] if text is None else [text])

    def _send(self, payload: P) -> None:
        rest = self._wire.write_nowait(payload)
        if rest is not None:
            self._finish(rest)

    def _queue_update(self, update: Update) -> None:
        try:
            self._backlog().put_update(update)
        except OutboxFull as full:
            self._too_slow(full)

    def _too_slow(self, full: OutboxFull) -> None:
        self.end(Ending.SLOW, f"slow client: {full} were waiting")

    def _put_piece(self, payload: P, last: bool) -> None:
        assert self._piece is None, "there was no room"
        if self._flushing or not self._backlog().at_mark:
            self._piece = payload, last
            return
        if last:
            self._end_long_message()
        self._send(payload)
        if last and not self._flushing:
            if self._outbox:
                self._start_flushing()
            else:
                self.way_changed()

    def _end_long_message(self) -> None:
        self._reciting = False
        self._backlog().unmark()

    def _start_flushing(self) -> None:
        assert self._context is not None
        self._flushing = True
        self._close_lanes()
        self._context.start_helper(self._flush)

    async def _flush(self) -> None:
        self._torn = True  # if this fails
        try:
            await self._flush_all()
        finally:
            self._flushing = False
            self._held_since = None
            self._flush_scope = None
            self._tell_left()
        self.way_changed()

    async def _flush_all(self) -> None:
        # Shielded, so that a session that is told to go can still send what waits, until `_flush_until`.
        with trio.CancelScope(shield=True, deadline=self._flush_until) as self._flush_scope:
            try:
                while payloads := self._take():
                    await self._wire.write(payloads)
                    self._tell_left()
            except WireClosed as closed:
                self._closed(closed)
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
        if self._taking is not None:
            self._taking.deadline = math.inf
            self._taking.cancel()

    def _backlog(self) -> Outbox[P]:
        if self._outbox is None:
            manners = self._manners
            self._outbox = Outbox(
                manners.outbox,
                manners.slow_client,
                self._pack,
                self._announce,
                manners.outbox_bytes,
                self._wire.size,
                trio.current_time,
            )
        return self._outbox

    def _take(self) -> list[P]:
        payloads: list[P] = []
        if self._rest is None and self._outbox is not None:
            self._held_since = self._outbox.oldest
        size = 0
        while len(payloads) < PAYLOADS_AT_ONCE and size < BYTES_AT_ONCE:
            payload = self._take_next()
            if payload is None:
                break
            payloads.append(payload)
            size += self._wire.size(payload)
        return payloads

    def _take_next(self) -> P | None:
        payload: P | None
        if self._rest is not None:
            payload, self._rest = self._rest, None
        elif self._outbox is None:
            payload = None
        elif not self._outbox.at_mark:
            payload = self._outbox.take()
        elif self._piece is not None:
            (payload, last), self._piece = self._piece, None
            if last:
                self._end_long_message()
        else:  # it is not made yet
            payload = None
        return payload

    def _bound_flush(self, seconds: float) -> None:
        self._flush_until = min(self._flush_until, trio.current_time() + seconds)
        if self._flush_scope is not None:
            self._flush_scope.deadline = self._flush_until


class _Nobody:
    """The dialogue of an ended session, which nothing is asked of any more."""

    async def hear(self, message: object) -> None:
        raise AssertionError("an ended session does not listen")

    def gap(self, topic: Any, first: int, last: int, items: int) -> bytes | None:
        raise AssertionError("an ended session owes nothing")

    def notice(self, notice: Any) -> bytes | None:
        return None

    def farewell(self) -> bytes | None:
        raise AssertionError("an ended session has said it")

    def reproach(self, words: str) -> Sequence[bytes]:
        return ()

    def heartbeat(self) -> bytes | None:
        return None

    alarm = math.inf

    def on_alarm(self) -> None:
        pass

    def closed(self) -> None:
        pass


_NOBODY = _Nobody()
