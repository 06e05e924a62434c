"""Carries out a plan on the whole daemon, in one process, and collects the results.

Rules of this file. It decides nothing: `plan` chooses the troubles, `check` judges the results. An exchange
without questions by HTTP repeats its last trades after a reconnect, so a lost connection alone costs no
trade; the other one repeats nothing, so each of its trades must be asked for. Every wait has an end; a part
that has not recovered by then is a finding.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from functools import partial
from typing import Any, Final, cast

import trio
from attrs import define, evolve, field, frozen

from actors.outbox import SlowClient
from dataflow import paths
from dataflow.app import hall, tree
from dataflow.core import Core
from dataflow.faults.registry import Faults
from dataflow.gateway.hall import Hall
from dataflow.reactions import Reactions
from dataflow.settings.load import load, shipped
from dataflow.settings.schema import BackoffSettings, Chaos, Settings, Supervision
from dataflow.sources.port import SourceSettings
from dataflow.sources.state import LinkState
from dataflow.sources.wanted import Refills
from simulators import Exchange, Player, Proxy
from supervisors import Event, Handle, SupervisionError, open_supervisor

from .check import Figures, Refill, pushed_account
from .client import Client, dial
from .exchanges import ASKED, EXCHANGES, REMEMBERED, judge, newest_trades, numbered_anew, playing
from .faces import CLIENTS
from .grpc import Aggregates
from .plan import Plan, Rehearsal, Shape, Step, make, makes
from .ports import HOST, kept_port
from .producers import PRODUCERS, SOURCE, Producer
from .speakers import speaker
from .witness import LOOK_EVERY, Books, Overheard, Records, Watch, inventory, look_for_the_rest

REPLAYED: Final = 1_000  # trades of a symbol that an exchange repeats after a reconnect
REFILLED_WITHIN: Final = 90.0  # seconds: a question that failed often is asked again after a minute
WEIGHT: Final = 6_000  # a minute, as Binance allows it
RENUMBERED: Final = 50_000_000  # by so much lower are the ids of a new numbering: more than a rehearsal has
WELL_WITHIN: Final = 60.0  # seconds after the last trouble: a busy machine replays slowly
ROUNDS: Final = 3  # attempts to come to rest ...
REST_WITHIN: Final = 15.0  # seconds of each, below WELL_WITHIN; then those who wait get one more trade
LATELY: Final = 500  # trades of a symbol among which the newest one of an exchange is looked for
RESTART_WITHIN: Final = 30.0
AT_REST: Final = 10  # looks in a row, because messages inside the sockets cannot be seen
LATENCY: Final = 0.2
JITTER: Final = 0.2

_CLIENTS: Final[Mapping[str, type[Client]]] = {**CLIENTS, "grpc": Aggregates}  # by the name of the face
_TICKED: Final = {"ticks-tcp": "AAPL", "ticks-grpc": "MSFT"}  # the symbol of each producer


@frozen
class Progress:
    """The progress of a rehearsal. `phase` is starting, running or settling."""

    phase: str
    seconds_left: float
    faults: int
    trades: int

    def __str__(self) -> str:
        return f"{self.phase}, {self.seconds_left:.0f} s left, {self.faults} faults, {self.trades} trades"


Tell = Callable[[Progress], None]


async def rehearse(rehearsal: Rehearsal, tell: Tell = lambda _progress: None) -> Figures:
    """Make the plan of `rehearsal`, carry it out and return the results."""
    before = inventory()
    made = {name: str(each) for name, each in makes(rehearsal.seed, rehearsal.clients).items()}
    figures = Figures(made=made)
    with ExitStack() as kept:
        shown = load([shipped("server.toml"), shipped("simulated.toml")], {})
        settings = _rehearsed(shown, lambda: kept.enter_context(kept_port()))
        plan = make(rehearsal, shape(settings, rehearsal.clients))
        async with _stage(settings, plan, rehearsal) as stage:
            await _play(stage, plan, figures, tell)
    await look_for_the_rest(before, figures)
    return figures


def shape(settings: Settings, clients: int) -> Shape:
    """The parts that can be broken in a daemon with these settings."""
    return Shape(
        settings.cache.shards,
        _symbols(settings),
        tuple(sorted(EXCHANGES)),
        frozenset({"blockchain"}),
        clients,
        tuple(_CLIENTS),
        (SOURCE,),
        tuple(PRODUCERS),
        {name: settings.sources[name].symbols for name in ASKED},
    )


def _rehearsed(shipped: Settings, port: Callable[[], int]) -> Settings:
    """Without what is not played here, and without ports that another daemon may have.

    `port` gives one. They are known before anything runs, because the ways there are, and stay the same after
    a restart.
    """
    faces: dict[str, Any] = dict(shipped.faces)
    faces |= {
        name: evolve(keys, host=HOST, port=port()) for name, keys in faces.items() if hasattr(keys, "port")
    }
    sources: dict[str, Any] = {name: shipped.sources[name] for name in EXCHANGES}
    ticks: Any = shipped.sources[SOURCE]
    sources[SOURCE] = evolve(ticks, host=HOST, port=port(), symbols=tuple(_TICKED.values()))
    gateway = evolve(shipped.gateway, host=HOST, port=port())
    return evolve(shipped, gateway=gateway, sources=sources, faces=faces)


def _port_of(settings: Settings, name: str) -> int:
    """The port of the daemon that this client or producer connects to."""
    if name in ("grpc", "ticks-grpc"):
        table: Any = settings.faces["grpc"]
    else:
        table = settings.sources[SOURCE] if name in PRODUCERS else settings.gateway
    return int(table.port)


# -- the stage: exchanges, proxies, clients --------------------------------------------------------------


@define(eq=False)
class _Stage:
    """Everything around the daemon, and its settings. `ways`: the proxies, by who is behind them."""

    settings: Settings
    exchanges: dict[str, Exchange]
    players: dict[str, Player]
    ways: dict[str, Proxy]
    clients: dict[str, Client]
    producers: dict[str, Producer]

    async def heal(self) -> None:
        """End all troubles of proxies and exchanges."""
        for way in self.ways.values():
            await way.heal()
        for exchange in self.exchanges.values():
            exchange.faults.withdraw()
            await exchange.disconnect("accept")


@asynccontextmanager
async def _stage(settings: Settings, plan: Plan, rehearsal: Rehearsal) -> AsyncIterator[_Stage]:
    names = shape(settings, rehearsal.clients).client_names
    async with AsyncExitStack() as stack:
        exchanges: dict[str, Exchange] = {}
        players: dict[str, Player] = {}
        ways: dict[str, Proxy] = {}
        for source in EXCHANGES:
            asked = source in ASKED
            opened = playing(source, seed=plan.seed, repeated=0 if asked else REPLAYED, holds=not asked)
            exchange, players[source] = await stack.enter_async_context(opened)
            exchanges[source] = exchange
            to = partial(trio.open_tcp_stream, exchange.host, exchange.port)
            ways[source] = await stack.enter_async_context(_served(Proxy(to, plan.seed)))
        for name in (*names, *PRODUCERS):
            to_daemon = partial(dial, HOST, _port_of(settings, name))
            ways[name] = await stack.enter_async_context(_served(Proxy(to_daemon, plan.seed)))
        set_up = _settings(settings, plan, rehearsal, {name: ways[name] for name in exchanges}, exchanges)
        symbols = _symbols(settings)
        drawn = makes(plan.seed, rehearsal.clients)
        clients = {
            name: speaker(drawn[name], HOST, ways[name].port, symbols)
            if name in drawn
            else _CLIENTS[name](HOST, ways[name].port, symbols)
            for name in names
        }
        producers = {
            name: producer(HOST, ways[name].port, _TICKED[name]) for name, producer in PRODUCERS.items()
        }
        yield _Stage(set_up, exchanges, players, ways, clients, producers)


@asynccontextmanager
async def _served(proxy: Proxy) -> AsyncIterator[Proxy]:
    async with trio.open_nursery() as nursery:
        await nursery.start(proxy.serve, HOST, 0)
        yield proxy
        nursery.cancel_scope.cancel()


def _settings(
    shipped: Settings,
    plan: Plan,
    rehearsal: Rehearsal,
    ways: dict[str, Proxy],
    exchanges: dict[str, Exchange],
) -> Settings:
    """The shipped settings with other addresses, an unlimited cache and shorter timeouts."""
    sources = dict(shipped.sources) | {
        name: evolve(
            _upstream(shipped, name),
            url=f"ws://{way.host}:{way.port}{exchanges[name].dialect.path}",
            eager=plan.eager or name in ASKED,  # nothing is promised, and nothing missed, unsubscribed
            linger=1.0,
            stale_after=5.0,
            subscribe_within=5.0,
            connect_within=3.0,
            **(_asked(plan, way) if name in ASKED else {}),
        )
        for name, way in ways.items()
    }
    restarts = max(shipped.supervision.restarts, round(rehearsal.faults_per_minute / 10))
    return evolve(
        shipped,
        gateway=evolve(shipped.gateway, drain_seconds=1.0),
        session=evolve(shipped.session, slow_client=SlowClient(plan.slow_client)),
        cache=evolve(shipped.cache, trades_per_symbol=REMEMBERED),
        backoff=BackoffSettings(initial_delay=0.1, max_delay=1.0),
        supervision=Supervision(restarts=restarts, within=5.0, stop_within=2.0),
        chaos=Chaos(enabled=True, seed=plan.seed),
        sources=sources,
    )


def _asked(plan: Plan, way: Proxy) -> dict[str, Any]:
    """Questions by HTTP go the same way as the messages."""
    return {
        "refill_url": f"http://{way.host}:{way.port}",
        "refill_weight": WEIGHT,
        "lines": plan.lines,
        "rotate_after": plan.rotate_after,
        "hold": plan.hold,
        "stall_after": 2.0,
    }


def _upstream(settings: Settings, name: str) -> SourceSettings:
    source = settings.sources[name]
    assert isinstance(source, SourceSettings)
    return source


def _symbols(settings: Settings) -> tuple[str, ...]:
    """Those of the exchanges first: a client of a single symbol follows one of theirs."""
    traded = {symbol for name in EXCHANGES for symbol in settings.sources[name].symbols}
    return (*sorted(traded), *_TICKED.values())


# -- the play ------------------------------------------------------------------------------------------


async def _play(stage: _Stage, plan: Plan, figures: Figures, tell: Tell) -> None:
    built = hall(stage.settings)
    core = built.core
    assert core.faults is not None, "[chaos] is enabled"
    react, watch = Reactions(built), Watch(figures)
    for source in core.sources.values():
        source.audience = Overheard(source.audience, watch)

    def on_event(event: Event) -> None:
        react(event)
        watch(event)
        books.look()

    books = Books(figures)
    records = Records(core)
    try:
        async with open_supervisor(
            tree(built),
            rng=random.Random(plan.seed),
            on_event=on_event,
            faults=core.faults,
            blocked_after=None,
        ) as root:
            books.root = root
            play = _Play(stage, plan, figures, built, core.faults, root, records, books, tell)
            await play.run()
    except SupervisionError as error:
        figures.broken.append(f"the daemon gave up: {type(error).__name__}: {error}")
    records.read()
    _judge(stage, core, records, figures)


@define(eq=False)
class _Play:
    """One rehearsal while it runs."""

    stage: _Stage
    plan: Plan
    figures: Figures
    hall: Hall
    faults: Faults
    root: Handle
    records: Records
    books: Books
    tell: Tell
    phase: str = "starting"
    ends: float = field(factory=trio.current_time)

    async def run(self) -> None:
        async with trio.open_nursery() as around:
            around.start_soon(self._look)
            async with trio.open_nursery() as audience:
                for client in self.stage.clients.values():
                    audience.start_soon(client.run)
                for producer in self.stage.producers.values():
                    audience.start_soon(producer.run)
                await self._until_well("at the start")
                await self._storm()
                await self._settle()
                audience.cancel_scope.cancel()
            await self._until(self._sessions, "sessions after their clients had left:")
            around.cancel_scope.cancel()

    async def _storm(self) -> None:
        begin = trio.current_time()
        self.phase, self.ends = "running", begin + self.plan.seconds
        async with trio.open_nursery() as nursery:
            for step in self.plan.steps:
                await trio.sleep_until(begin + step.at)
                nursery.start_soon(self._carry_out, step)
            await trio.sleep_until(self.ends)

    async def _settle(self) -> None:
        """End all troubles. Wait until every part has recovered, one more trade of each symbol has come and
        all messages have arrived."""
        self.phase, self.ends = "settling", trio.current_time() + WELL_WITHIN
        self._end_faults()
        await self.stage.heal()
        await self._until_well("in the end")
        for _ in range(ROUNDS):
            await self._pause()
            if await self._is_at_rest():
                break
            self._go_on()
        else:
            await self._pause()
            await self._until(self._behind, "not caught up:", AT_REST)
        self.records.close()

    async def _pause(self) -> None:
        """One more trade of each symbol comes, and what is missing is asked for. Then nothing is sent."""
        reached = {symbol: self.hall.core.history(symbol).last for symbol in self.hall.core.symbols}
        await self._until(lambda: self._silent(reached), "no trade came any more of")
        with trio.move_on_after(REFILLED_WITHIN):
            for name in ASKED:
                await self._answered(self.hall.core.refills(name))
        for player in self.stage.players.values():
            player.pause()
        for producer in self.stage.producers.values():
            producer.paused = True

    async def _is_at_rest(self) -> bool:
        """Whether all has arrived. If a connection ended at the pause, it has not.

        Its last messages are missed with the next trade, and until then a price client has nothing.
        """
        with trio.move_on_after(REST_WITHIN):
            await self._until(self._behind, "not caught up:", AT_REST)
            return True
        return False

    def _go_on(self) -> None:
        for player in self.stage.players.values():
            player.resume()
        for producer in self.stage.producers.values():
            producer.paused = False

    async def _answered(self, refills: Refills) -> None:
        """Wait until nothing is asked for any more."""
        while refills.open:
            await refills.changed().wait()

    def _end_faults(self) -> None:
        for (path, kind), count in self.faults.struck.items():
            self.figures.struck[f"{kind} {path}"] = count
        self.faults.clear()

    # Each of these returns the parts that have not recovered, in words. An empty list means that all is well.

    async def _until_well(self, when: str) -> None:
        await self._until(lambda: [*self._down(), *self._deaf()], f"not well {when}:")

    async def _until(self, ailing: Callable[[], Collection[str]], complaint: str, looks: int = 1) -> None:
        """Wait until `ailing` is empty `looks` times in a row. After WELL_WITHIN its content is a finding."""
        well = 0
        with trio.move_on_after(WELL_WITHIN):
            while well < looks:
                well = 0 if ailing() else well + 1
                await trio.sleep(LOOK_EVERY)
            return
        self.figures.unsettled += (f"{complaint} {what}" for what in ailing())

    def _down(self) -> list[str]:
        states = {paths.source(name): source.link for name, source in self.hall.core.sources.items()}
        ailing = [
            f"{path} is {link.value}" for path, link in states.items() if link is not LinkState.CONNECTED
        ]
        return [
            *ailing,
            *(f"{node.path} is {node.state}" for node in _nodes(self.root) if node.state != "running"),
        ]

    def _deaf(self) -> list[str]:
        return [
            f"{name} waits for {client.waits_for}"
            for name, client in self.stage.clients.items()
            if not client.listening
        ] + [
            f"{name} has no connection"
            for name, producer in self.stage.producers.items()
            if not producer.pushing
        ]

    def _silent(self, reached: dict[str, int]) -> list[str]:
        return [symbol for symbol, last in reached.items() if self.hall.core.history(symbol).last <= last]

    def _behind(self) -> list[str]:
        """Messages still on the way: to the daemon, and from the daemon to the clients."""
        return [
            *self._on_the_way(),
            *self._not_admitted(),
            *self._held(),
            *self._not_taken(),
            *self._not_heard(),
        ]

    def _not_admitted(self) -> list[str]:
        self.records.read()
        return [
            f"the newest trade of {symbol} at {name} was not admitted"
            for name, exchange in self.stage.exchanges.items()
            for symbol, newest in newest_trades(name, exchange, self.hall.core.settings.sources[name].symbols)
            if newest.key not in self.records.admitted[symbol].newest(LATELY)
        ]

    def _held(self) -> list[str]:
        waiting = sum(store.waiting for store in self.hall.core.stores)
        return [f"{waiting} trades wait for missing ones"] if waiting else []

    def _on_the_way(self) -> list[str]:
        return [
            f"{name} has {connection.queued} messages to send"
            for name, exchange in self.stage.exchanges.items()
            for connection in exchange.connections
            if connection.queued
        ]

    def _not_taken(self) -> list[str]:
        admitted = self.records.admitted
        return [
            f"{name} has pushed ticks that were not taken"
            for name, producer in self.stage.producers.items()
            if producer.pushing
            and producer.pushes[-1].sent
            and producer.pushes[-1].sent[-1] not in admitted[producer.symbol].trades.values()
        ]

    def _not_heard(self) -> list[str]:
        self.records.read()
        admitted = self.records.admitted
        return [
            f"{name}: {what}"
            for name, client in self.stage.clients.items()
            for what in client.behind(admitted)
        ]

    def _sessions(self) -> list[str]:
        clients = self.hall.lobby.clients
        return [f"{len(clients)}"] if len(clients) else []

    async def _look(self) -> None:
        """Periodically check the mailboxes and read the admitted trades."""
        while True:
            self.books.look()
            trades = self.records.read()
            left = max(0.0, self.ends - trio.current_time())
            self.tell(Progress(self.phase, left, self.figures.faults.total(), trades))
            await trio.sleep(LOOK_EVERY)

    # The steps of the plan.

    async def _carry_out(self, step: Step) -> None:
        carry = {
            "fault": self._fault,
            "restart": self._restart,
            "exchange": self._exchange,
            "wire": self._wire,
            "question": self._wire,
            "proxy": self._proxy,
            "client": self._client,
        }[step.sort]
        self.figures.faults[f"{step.sort} {step.kind}"] += 1
        try:
            await carry(step)
        except SupervisionError as error:
            self.figures.impossible[f"{step.kind} {step.target}: {type(error).__name__}"] += 1

    async def _fault(self, step: Step) -> None:
        self.faults.inject(step.target, step.kind, point=step.point, seconds=step.seconds, times=step.times)

    async def _restart(self, step: Step) -> None:
        parent, _, name = step.target.rpartition("/")
        with trio.move_on_after(RESTART_WITHIN):
            await self.root.supervisor(parent).restart(name)
            return
        self.figures.broken.append(f"{step.target} was not restarted within {RESTART_WITHIN:g} s")

    async def _exchange(self, step: Step) -> None:
        exchange = self.stage.exchanges[step.target]
        mode = cast(Any, step.kind)
        if mode == "renumber":
            exchange.renumber(-RENUMBERED)
            await exchange.disconnect("graceful")
        elif mode == "refuse":
            await exchange.disconnect(mode)
            await trio.sleep(step.seconds or 0.0)
            await exchange.disconnect("accept")
        else:
            await exchange.disconnect(mode, step.seconds)

    async def _wire(self, step: Step) -> None:
        symbol = step.point and step.point.replace("-", "")
        exchange = self.stage.exchanges[step.target]
        exchange.fault(cast(Any, step.kind), times=step.times, symbol=symbol, seconds=step.seconds)

    async def _proxy(self, step: Step) -> None:
        way, seconds, direction = self.stage.ways[step.target], step.seconds or 0.0, cast(Any, step.point)
        match step.kind:
            case "cut":
                await way.cut()
            case "cut_one":
                await way.cut(1)
            case "reset":
                await way.reset()
            case "latency":
                way.delay(LATENCY, JITTER)
                await trio.sleep(seconds)
                way.delay(0.0)
            case "half_open":
                way.hold(direction)
                await trio.sleep(seconds)
                way.release(direction)

    async def _client(self, step: Step) -> None:
        client, seconds = self.stage.clients[step.target], step.seconds or 0.0
        if step.kind == "stop_reading":
            await client.reading.shut_for(seconds)
        else:
            await client.leave(seconds, politely=step.kind == "leave")


def _nodes(root: Handle) -> list[Any]:
    """Every static actor and supervisor."""
    found, waiting = [], list(root.tree().children)
    while waiting:
        node = waiting.pop()
        found.append(node)
        if node.path != paths.SESSIONS:
            waiting += node.children
    return found


# -- the judgement ----------------------------------------------------------------------------------------


def _judge(stage: _Stage, core: Core, records: Records, figures: Figures) -> None:
    for name, exchange in stage.exchanges.items():
        symbols = core.sources[name].settings.symbols
        figures.sources[name] = judge(name, exchange, symbols, records.admitted)
        figures.broken += (f"the simulated {name} failed: {error!r}" for error in exchange.failures)
        if name in ASKED:
            refills, left = core.refills(name), figures.sources[name].announced
            figures.refills[name] = Refill(
                refills.filled,
                left,
                list(refills.seconds.cumulative()),
                refills.asked,
                refills.refused,
                # Some lapsed trades stand beside the new numbering: they count once.
                min(left, numbered_anew(name, exchange, symbols, records.admitted) + refills.lapsed),
            )
    for name, producer in stage.producers.items():
        admitted, dropped = records.admitted[producer.symbol], 0
        if name == "ticks-tcp":
            dropped = figures.struck[f"drop {paths.source(SOURCE)}"]
        figures.sources[name] = pushed_account(producer.symbol, producer.pushes, admitted, dropped)
    for name, client in stage.clients.items():
        figures.clients[name] = client.account(records.admitted)
        figures.connections[name] = client.connections
        figures.closed.update(client.closed)
    for admitted in records.admitted.values():
        figures.gaps.update(admitted.gaps)
    for store in core.stores:
        for (_source, verdict), count in store.counts.items():
            figures.verdicts[verdict] += count
