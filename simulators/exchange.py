"""A simulated exchange: serves a dialect on a port, publishes trades to its subscribers, and fails on demand.

Rule 1: `publish` chooses the receivers of an item and puts it in their outboxes without a checkpoint. So a
subscription is either before an item or after it, never in between.
Rule 2: a connection's handler that fails ends its own connection only. The error is counted and kept in
`failures`.
Rule 3: an exchange loses nothing by itself. A full outbox makes the publisher wait. A client whose outbox
stays full longer than `patience` is cut and counted.
Rule 4: while it refuses clients nobody listens on the port, and no other program can take the port.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, Literal, TypeAlias, get_args

import trio
from attrs import define, field
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest, wrap_server_stream

from .connection import Connection, InTurn, reset
from .dialect import Dialect, HandshakeRefused, Session
from .faults import ON_QUESTIONS, Fault, Faults, Kind
from .listener import Listener
from .rest import RestPort, Rewound, head_of, is_question
from .trade import Item, Trade

Absent: TypeAlias = Literal["lost", "held", "replayed"]
Mode: TypeAlias = Literal["graceful", "abrupt", "drop", "refuse", "restart", "announce", "accept"]
MODES: tuple[str, ...] = get_args(Mode)
HANDSHAKE_WITHIN = 10.0
CLOSE_WITHIN = 5.0
PONG_WITHIN = 60.0
KEPT_FAILURES = 100


def wall_clock_us() -> int:
    """Now, in microseconds since the epoch."""
    return time.time_ns() // 1000


def ignore(line: str) -> None:
    """Drop the line."""


@define(eq=False)
class Exchange:
    """A simulated exchange; `open_exchange` and `serve_exchange` serve one.

    `absent` says what happens to a trade while nobody is subscribed to its symbol. ``lost``: nobody gets it.
    ``held``: publishing waits while nobody is subscribed to any symbol, or while this symbol has lost its
    last subscriber by a disconnect. ``replayed``: the next subscriber of the symbol gets it.

    `replay_last` is how many of the last trades a new subscriber gets again, when the symbol had a subscriber
    before: some exchanges send such an overlap. `history` is how many trades of a symbol are remembered.
    `patience` is how many seconds a client may leave a full outbox unread. `now_us` is the exchange's clock,
    in microseconds since the epoch; `say` receives a line for each event. `seed` is for the faults.

    `published` counts items; `accepted`, `refused`, `slow_clients_cut` and `failed` count connections.
    """

    dialect: Dialect
    absent: Absent = "lost"
    replay_last: int = 0
    history: int = 100_000
    patience: float = 30.0
    seed: int = 0
    now_us: Callable[[], int] = wall_clock_us
    say: Callable[[str], None] = ignore
    faults: Faults = field(init=False)
    host: str = ""
    port: int = 0
    published: int = 0
    accepted: int = 0
    refused: int = 0
    slow_clients_cut: int = 0
    failed: int = 0
    failures: deque[BaseException] = field(factory=partial(deque, maxlen=KEPT_FAILURES))
    _connections: dict[int, Connection] = field(factory=dict)
    _subscribed: frozenset[str] = frozenset()
    _tape: dict[str, deque[Trade]] = field(factory=dict)
    _earlier: dict[str, list[Trade]] = field(factory=dict)  # trades of numberings that are over
    _shift: int = 0
    _replays: dict[str, _Replay] = field(factory=dict)
    rest: RestPort = field(init=False)
    _listener: Listener = field(init=False)
    _changed: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot)

    def __attrs_post_init__(self) -> None:
        self.faults = Faults(self.seed)
        self.rest = RestPort(self.dialect, self.faults, self._present, lambda: self._tape)
        self._listener = Listener(self.handle)

    # For tests and feeds

    @property
    def url(self) -> str:
        """The URL for clients."""
        return f"ws://{self.host}:{self.port}{self.dialect.path}"

    @property
    def rest_url(self) -> str:
        """Scheme and host for questions by HTTP."""
        return f"http://{self.host}:{self.port}"

    @property
    def connections(self) -> tuple[Connection, ...]:
        """The open connections, oldest first."""
        return tuple(self._connections.values())

    @property
    def subscribed(self) -> frozenset[str]:
        """The symbols whose trades at least one client is subscribed to now."""
        return self._subscribed

    async def wait_subscribed(self, symbols: Iterable[str] = ()) -> None:
        """Wait until each of `symbols` has a subscriber (without symbols: until any symbol has one)."""
        wanted = frozenset(symbols)
        while not (self.subscribed and wanted <= self.subscribed):
            await self._changed.park()

    async def wait_accepting(self) -> None:
        """Wait until clients can connect."""
        await self._listener.wait_accepting()

    async def wait_connected(self, count: int = 1) -> None:
        """Wait until at least `count` connections are open."""
        while len(self._connections) < count:
            await self._changed.park()

    async def wait_disconnected(self) -> None:
        """Wait until no connection is open."""
        while self._connections:
            await self._changed.park()

    async def publish(self, item: Item) -> None:
        """Send `item` to its subscribers. Waits while the item is held, or while an outbox is full."""
        await trio.lowlevel.checkpoint()
        if self._shift and isinstance(item, Trade):
            item = item.moved(ids=self._shift, members=self._shift)
        while True:
            if self._holds(item):
                await self._changed.park()
            elif slow := self._full(item):
                await self._wait_for_room(slow)
            else:
                return self._deliver(item)

    async def publish_all(self, items: Iterable[Item]) -> None:
        """Publish the items one after the other."""
        for item in items:
            await self.publish(item)

    async def drained(self) -> None:
        """Wait until everything published so far is written to the sockets."""
        for connection in self.connections:
            await connection.drained()

    def tape(self, symbol: str) -> tuple[Trade, ...]:
        """The last `history` trades published for `symbol`, oldest first, of every numbering."""
        return (*self._earlier.get(symbol, ()), *self._present(symbol))

    # Trouble on demand

    def renumber(self, ids: int) -> None:
        """Number trades anew: from now on `ids` is added to each id. Questions by HTTP know only those.

        Connections stay. An exchange that comes back with another numbering ends them too: `disconnect`.
        """
        self._shift += ids
        for symbol, trades in self._tape.items():
            self._earlier.setdefault(symbol, []).extend(trades)
            trades.clear()
        self._replays.clear()

    def fault(
        self,
        kind: Kind,
        *,
        times: int | None = 1,
        probability: float = 1.0,
        symbol: str | None = None,
        seconds: float | None = None,
    ) -> Fault:
        """Add a fault; `Fault` explains the parameters. ValueError when they make no sense."""
        if kind == "skip" and not self.dialect.sequenced:
            raise ValueError(f"{self.dialect.name} numbers no messages: `drop` a trade instead")
        if kind in ON_QUESTIONS and self.dialect.rest is None:
            raise ValueError(
                f"{self.dialect.name} answers no questions by HTTP, so {kind} has nothing to strike"
            )
        return self.faults.add(kind, times=times, probability=probability, symbol=symbol, seconds=seconds)

    def stall(self, seconds: float | None = None) -> None:
        """Make every open connection silent, but keep it open: for `seconds`, or until it ends."""
        for connection in self.connections:
            connection.stall(seconds)

    async def disconnect(self, mode: Mode, seconds: float | None = None) -> None:
        """End all connections in one of these ways, and return when they have ended.

        ``graceful``: send what is queued, then a close frame 1001. ``abrupt``: reset the TCP connection.
        ``drop``: abrupt, then refuse clients for `seconds`. ``refuse``: abrupt, then refuse clients until
        ``accept``. ``restart``: a close frame 1012, refuse clients for `seconds` (default 0), and forget all
        trades. ``announce``: say that they will end, go on, and end them `seconds` later (default 1); new
        ones are accepted. ``accept``: end no connection, and accept clients again. ValueError for any other
        mode, for ``drop`` without `seconds`, and for ``announce`` where the protocol has no word for it.
        """
        if mode not in MODES or (mode == "drop" and seconds is None):
            raise ValueError(_no_such(mode))
        if mode == "announce" and self.dialect.farewell is None:
            raise ValueError(f"{self.dialect.name} announces no end of a connection")
        self.say(f"disconnect {mode}" if seconds is None else f"disconnect {mode} for {seconds:g} s")
        match mode:
            case "graceful":
                await _close(self._release_all(), 1001, "going away")
            case "abrupt":
                await _cut(self._release_all())
            case "drop":
                await self._listener.refuse_until(trio.current_time() + (seconds or 0.0))
                await _cut(self._release_all())
            case "refuse":
                await self._listener.refuse_until(float("inf"))
                await _cut(self._release_all())
            case "restart":
                await self._restart(seconds or 0.0)
            case "announce":
                await self._announce(1.0 if seconds is None else seconds)
            case "accept":
                await self._listener.accept()
        await trio.lowlevel.checkpoint()

    @property
    def refusing(self) -> bool:
        """Whether it refuses clients now."""
        return self._listener.refusing

    async def _announce(self, seconds: float) -> None:
        leaving = self.connections
        assert self.dialect.farewell is not None
        for connection in leaving:
            connection.say([self.dialect.farewell(self.now_us())])
        await trio.sleep(seconds)
        ending = [each for each in leaving if each.number in self._connections]
        for connection in ending:
            self._release(connection)
        await _close(ending, 1001, "going away")

    async def _restart(self, seconds: float) -> None:
        await self._listener.refuse_until(trio.current_time() + seconds)
        await _close(self._release_all(), 1012, "service restart")
        self._tape.clear()
        self._earlier.clear()
        self._replays.clear()

    def _present(self, symbol: str) -> tuple[Trade, ...]:
        """What the present numbering has."""
        return tuple(self._tape.get(symbol, ()))

    def _release_all(self) -> tuple[Connection, ...]:
        released = self.connections
        for connection in released:
            self._release(connection)
        return released

    # Publishing

    def _holds(self, item: Item) -> bool:
        if self.absent != "held":
            return False
        return not self._subscribed or (item.symbol in self._replays and item.symbol not in self._subscribed)

    def _full(self, item: Item) -> Connection | None:
        wanting = (each for each in self.connections if each.session.wants(item))
        return next((each for each in wanting if each.full), None)

    async def _wait_for_room(self, slow: Connection) -> None:
        with trio.move_on_after(self.patience) as waiting:
            await slow.room()
        if waiting.cancelled_caught:
            self.slow_clients_cut += 1
            self._release(slow)
            await slow.cut()

    def _deliver(self, item: Item) -> None:
        self.published += 1
        if isinstance(item, Trade):
            self._remember(item)
        for connection in self.connections:
            connection.tell(item)

    def _remember(self, trade: Trade) -> None:
        self._tape.setdefault(trade.symbol, deque(maxlen=self.history)).append(trade)
        if replay := self._replays.get(trade.symbol):
            (replay.told if trade.symbol in self._subscribed else replay.missed).append(trade)

    # Connections

    async def handle(self, stream: trio.abc.Stream) -> None:
        """Serve one client on an open stream until the connection ends. Raises only cancellation."""
        if self.refusing:
            self.refused += 1
            await reset(stream)
            return
        try:
            async with trio.open_nursery() as nursery:
                await self._serve_either(stream, nursery)
                nursery.cancel_scope.cancel()
        except* ConnectionClosed:
            pass
        except* Exception as group:
            self.failed += 1
            self.failures.append(group)
            self.say(f"a connection's handler failed: {group.exceptions[0]!r}")
        finally:
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(stream)

    async def _serve_either(self, stream: trio.abc.Stream, nursery: trio.Nursery) -> None:
        """By WebSocket, or by REST if the dialect has it: the first request tells."""
        if self.dialect.rest is None:
            return await self._serve(stream, stream, nursery)
        head = None
        with trio.move_on_after(HANDSHAKE_WITHIN), suppress(trio.BrokenResourceError):
            head = await head_of(stream)
        if head is None:
            self.refused += 1
            return None
        rewound = Rewound(stream, head)
        if is_question(head):
            return await self.rest.converse(rewound)
        return await self._serve(stream, rewound, nursery)

    async def _serve(self, stream: trio.abc.Stream, unread: trio.abc.Stream, nursery: trio.Nursery) -> None:
        turn = trio.StrictFIFOLock()
        opened = await self._handshake(InTurn(unread, turn), nursery)
        if opened is None:
            self.refused += 1
        elif self.refusing:
            self.refused += 1
            await reset(stream)
        else:
            await self._converse(self._enter(stream, turn, *opened))

    async def _handshake(
        self, stream: trio.abc.Stream, nursery: trio.Nursery
    ) -> tuple[Session, WebSocketConnection] | None:
        with trio.move_on_after(HANDSHAKE_WITHIN):
            request = await wrap_server_stream(nursery, stream)
            try:
                session = self.dialect.open(request.path, _headers(request), self._refuses)
            except HandshakeRefused as refusal:
                await request.reject(refusal.status, body=refusal.text.encode())
                return None
            return session, await request.accept()
        return None

    def _refuses(self, symbol: str) -> bool:
        return self.faults.strike(symbol, "refuse") is not None

    def _enter(
        self,
        stream: trio.abc.Stream,
        turn: trio.StrictFIFOLock,
        session: Session,
        websocket: WebSocketConnection,
    ) -> Connection:
        self.accepted += 1
        allowed = self.dialect.frames_per_second
        connection = Connection(self.accepted, session, self.faults, stream, turn, websocket, allowed=allowed)
        self._connections[connection.number] = connection
        self.say(f"client {connection.number} connected")
        self._subscriptions_changed(connection, frozenset())
        return connection

    def _release(self, connection: Connection) -> None:
        self._connections.pop(connection.number, None)
        self._refresh()

    def _refresh(self) -> None:
        self._subscribed = frozenset().union(*(each.session.symbols for each in self.connections))
        self._changed.unpark_all()

    async def _converse(self, connection: Connection) -> None:
        try:
            async with trio.open_nursery() as nursery:
                for task in self._tasks(connection):
                    nursery.start_soon(_until_first, task, nursery.cancel_scope)
        finally:
            self._release(connection)
            connection.end()
            self.say(f"client {connection.number} left after {connection.sent} messages")

    def _tasks(self, connection: Connection) -> list[Task]:
        tasks: list[Task] = [connection.write, partial(self._listen, connection)]
        if self.dialect.heartbeat is not None:
            tasks.append(partial(self._beat, connection, self.dialect.heartbeat))
        if self.dialect.ping is not None:
            tasks.append(partial(connection.ping, self.dialect.ping, PONG_WITHIN))
        if self.dialect.lifetime is not None:
            tasks.append(partial(self._retire, connection, self.dialect.lifetime))
        return tasks

    async def _listen(self, connection: Connection) -> None:
        while not connection.leaving:
            try:
                message = await connection.websocket.get_message()
            except ConnectionClosed:
                break
            connection.hears()
            await connection.room_to_answer()
            if not connection.leaving:
                self._hear(connection, message)
        if connection.leaving:
            # The writer is closing the connection; to return would cancel it, and could lose the close frame.
            await trio.sleep_forever()

    def _hear(self, connection: Connection, message: str | bytes) -> None:
        if connection.number in self._connections:
            before = connection.session.symbols
            connection.say(connection.session.receive(message))
            self._subscriptions_changed(connection, before)

    def _subscriptions_changed(self, connection: Connection, before: frozenset[str]) -> None:
        now = connection.session.symbols
        if now != before:
            self.say(f"client {connection.number} subscribes to {', '.join(sorted(now)) or 'nothing'}")
        connection.unmute(now - before)
        for symbol in sorted(now - before):
            if self.dialect.snapshot is not None:
                connection.say(self.dialect.snapshot(connection.session, symbol, self.tape(symbol)))
            connection.tell_all(self._tail(symbol))
        self._refresh()
        for symbol in before - now - self._subscribed:
            self._replays.pop(symbol, None)

    def _tail(self, symbol: str) -> list[Trade]:
        replay = self._replays.setdefault(symbol, _Replay(self.replay_last, self.history))
        return replay.rewind() if self.absent == "replayed" else replay.forget_missed()

    async def _beat(self, connection: Connection, every: float) -> None:
        while True:
            await trio.sleep(every)
            await connection.room_to_answer()
            connection.say(connection.session.beat(self.now_us()))

    async def _retire(self, connection: Connection, after: float) -> None:
        await trio.sleep(after)
        self._release(connection)
        await _close((connection,), 1001, "connection lifetime reached")

    # Serving

    async def serve(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        task_status: trio.TaskStatus[tuple[str, int]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Listen until cancelled; reports ``(host, port)`` as bound (0: any free port). May raise OSError."""
        async with trio.open_nursery() as nursery:
            self.host, self.port = await nursery.start(self._listener.run, host, port)
            task_status.started((self.host, self.port))


Task: TypeAlias = Callable[[], Awaitable[None]]


class _Replay:
    """The trades that the next subscriber of one symbol may get again.

    `told` are the last trades that were sent to subscribers; `missed` came after the last subscriber had
    left.
    """

    def __init__(self, replay_last: int, history: int) -> None:
        self.told: deque[Trade] = deque(maxlen=replay_last)
        self.missed: deque[Trade] = deque(maxlen=history)

    def rewind(self) -> list[Trade]:
        tail = [*self.told, *self.missed]
        self.told.extend(self.missed)
        self.missed.clear()
        return tail

    def forget_missed(self) -> list[Trade]:
        self.missed.clear()
        return list(self.told)


def _headers(request: WebSocketRequest) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in request.headers}


def _no_such(mode: str) -> str:
    return "mode 'drop' needs `seconds`" if mode == "drop" else f"no mode {mode!r}: {', '.join(MODES)}"


async def _until_first(task: Task, scope: trio.CancelScope) -> None:
    await task()
    scope.cancel()


async def _close(connections: Iterable[Connection], code: int, reason: str) -> None:
    closing = tuple(connections)
    for connection in closing:
        connection.bid_goodbye(code, reason)
    with trio.move_on_after(CLOSE_WITHIN):
        for connection in closing:
            await connection.gone.wait()
    await _cut(each for each in closing if not each.gone.is_set())


async def _cut(connections: Iterable[Connection]) -> None:
    cutting = tuple(connections)
    for connection in cutting:
        await connection.cut()
    for connection in cutting:
        await connection.gone.wait()


@asynccontextmanager
async def open_exchange(
    dialect: Dialect, *, host: str = "127.0.0.1", port: int = 0, **options: Any
) -> AsyncIterator[Exchange]:
    """Serve an exchange in an ``async with``; `options` are those of `Exchange`. May raise OSError."""
    exchange = Exchange(dialect, **options)
    async with trio.open_nursery() as nursery:
        await nursery.start(exchange.serve, host, port)
        yield exchange
        nursery.cancel_scope.cancel()
