"""The plan of a rehearsal, drawn from a seed: which troubles happen at what time, or how each life ends.

Rules of this file. Pure. A plan depends on the seed, its length, its density and the static shape of the
daemon, and not on events during the rehearsal. Times are seconds.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, TypeAlias

from attrs import evolve, field, frozen, validators

from dataflow import paths

Sort: TypeAlias = Literal["fault", "restart", "exchange", "wire", "question", "proxy", "client"]

LONGEST: Final = 3.0  # longest duration of one trouble
SHORTEST: Final = 0.05
ROTATION: Final = 15.0  # seconds
RENUMBERED: Final = (
    0.05  # share of ends at which the exchange numbers anew: nothing from before can be asked then
)
QUIET_END: Final = 0.05  # share of the time, at the end, without new troubles
FORMATS: Final[Sequence[Literal["json", "compact", "strings"]]] = ("json", "compact", "strings")


@frozen
class Shape:
    """The parts that can be broken. `numbering`: sources with a sequence number in every message.

    `asked`: sources whose exchange numbers its trades, and answers questions for them by HTTP, with their
    symbols. `faces`: those with a client of their own, beside `clients` that speak JSON-RPC. `listeners`:
    sources that `producers` push to.
    """

    shards: int
    symbols: tuple[str, ...]
    sources: tuple[str, ...]
    numbering: frozenset[str]
    clients: int
    faces: tuple[str, ...] = ()
    listeners: tuple[str, ...] = ()
    producers: tuple[str, ...] = ()
    asked: Mapping[str, tuple[str, ...]] = field(factory=dict)

    @property
    def client_names(self) -> tuple[str, ...]:
        """The names of the clients."""
        return (*map(client_name, range(self.clients)), *self.faces)


def client_name(number: int) -> str:
    """Of a client that speaks JSON-RPC."""
    return f"client-{number}"


@frozen
class Step:
    """One trouble. `sort` is the part that makes it, `kind` the trouble itself, `target` the part it hits.

    sort      kinds                                              target
    --------  -------------------------------------------------  -------------------------------------------
    fault     crash hang delay drop disconnect                   a path of the daemon's tree, at `point`
    restart   restart                                            a path of the daemon's tree
    exchange  graceful abrupt drop refuse announce renumber      a source whose exchange ends its connections
    wire      duplicate truncate garbage skip drop mute          a source whose exchange garbles messages
    question  rest_error rest_limit rest_slow rest_endless       a source whose exchange fails to answer by
              rest_huge rest_redirect rest_half rest_lie         HTTP, or lies
    proxy     cut cut_one reset latency half_open                the way of a source, client or producer
    client    leave vanish stop_reading                          a client
    """

    at: float
    sort: Sort
    kind: str
    target: str
    seconds: float | None = None
    point: str | None = None
    times: int = 1


@frozen
class Plan:
    """All troubles and settings of one rehearsal. `eager`: subscribe upstream also without clients.

    `lines`, `rotate_after` and `hold`: of the sources that can be asked by HTTP.
    """

    seed: int
    seconds: float
    steps: tuple[Step, ...]
    slow_client: str
    eager: bool
    lines: int
    rotate_after: float
    hold: float


@frozen
class Rehearsal:
    """The options of a rehearsal. `minutes` and `faults_per_minute` must be positive, else ValueError."""

    seed: int
    minutes: float = field(default=1.0, validator=validators.gt(0))
    faults_per_minute: float = field(default=30.0, validator=validators.gt(0))
    clients: int = field(default=3, validator=validators.ge(1))


@frozen
class Make:
    """The parts of a client that speaks JSON-RPC.

    `sort`: `own` words, that share nothing with the library; its `core`; the whole `library`. The rest is
    drawn for the last two: `every`, it follows `*`; `apart`, it runs on asyncio in a thread of its own;
    `also`, it follows candles and quality beside the trades.
    """

    sort: Literal["own", "core", "library"]
    format: Literal["json", "compact", "strings"] = "json"
    batch: bool = False
    every: bool = False
    apart: bool = False
    also: bool = False

    def __str__(self) -> str:
        if self.sort == "own":
            return "own words"
        told = {
            "in batches": self.batch,
            "of *": self.every,
            "on asyncio": self.apart,
            "with candles": self.also,
        }
        return ", ".join([self.sort, self.format, *(words for words, is_so in told.items() if is_so)])


def makes(seed: int, count: int) -> dict[str, Make]:
    """Of what the clients are made, by name. One is of own words always, and of three one of the library.

    They have dice of their own: the troubles of a seed do not depend on the clients that meet them.
    """
    dice = random.Random(f"clients/{seed}")
    drawn = [Make("own")]
    for number in range(1, count):
        sort: Literal["core", "library"] = "library" if number == 2 else dice.choice(("core", "library"))
        format = dice.choice(FORMATS)
        batch, every, apart, also = (dice.random() < 0.5 for _ in range(4))
        whole = sort == "library"
        drawn.append(Make(sort, format, batch, whole and every, whole and apart, whole and also))
    return {client_name(number): make for number, make in enumerate(drawn)}


def make(rehearsal: Rehearsal, shape: Shape) -> Plan:
    """The plan. The same arguments give the same plan, in every process and every later version."""
    # Seeded with a text: its hash is the same in every process.
    dice = random.Random(f"chaos/{rehearsal.seed}")
    seconds = rehearsal.minutes * 60
    number = max(1, round(rehearsal.minutes * rehearsal.faults_per_minute))
    moments = sorted(dice.uniform(0, seconds * (1 - QUIET_END)) for _ in range(number))
    steps = tuple(_steps(dice, moments, shape))
    policy = dice.choice(("disconnect", "drop_oldest", "conflate"))
    return Plan(
        rehearsal.seed,
        seconds,
        steps,
        policy,
        eager=dice.random() < 0.5,
        lines=dice.choice((1, 1, 2)),
        rotate_after=dice.choice((0.0, ROTATION)),
        hold=dice.choice((0.0, 0.5, 2.0, 2.0)),
    )


def _steps(dice: random.Random, moments: Sequence[float], shape: Shape) -> list[Step]:
    steps: list[Step] = []
    for at in moments:
        sort = dice.choices([each for each, _weight in _SORTS], [weight for _each, weight in _SORTS])[0]
        steps += (evolve(step, at=round(at + step.at, 3)) for step in sort(dice, shape))
    return sorted(steps, key=lambda step: step.at)


# Each of these functions makes one trouble; `at` counts from its beginning.


def _crash(dice: random.Random, shape: Shape) -> list[Step]:
    path, point = _target(dice, shape)
    return [Step(0, "fault", "crash", path, point=point, times=dice.choice((1, 1, 1, 2)))]


def _hang(dice: random.Random, shape: Shape) -> list[Step]:
    path, point = _target(dice, shape)
    return [Step(0, "fault", dice.choice(("hang", "delay")), path, _while(dice), point)]


def _of_a_source(dice: random.Random, shape: Shape) -> list[Step]:
    kind = dice.choice(("drop", "disconnect"))
    return [
        Step(
            0,
            "fault",
            kind,
            paths.source(dice.choice((*shape.sources, *shape.listeners))),
            times=dice.randint(1, 3),
        )
    ]


def _of_a_session(dice: random.Random, shape: Shape) -> list[Step]:
    return [Step(0, "fault", dice.choice(("crash", "disconnect")), paths.SESSIONS, times=dice.randint(1, 3))]


def _bad_start(dice: random.Random, shape: Shape) -> list[Step]:
    """A restart with a first attempt that fails or is slow."""
    path = dice.choice((*_actors(shape), *_restarted(shape)))
    kind = dice.choice(("crash", "delay"))
    seconds = _while(dice) if kind == "delay" else None
    point = dice.choice(("start", "ready", "stop"))
    return [Step(0, "fault", kind, path, seconds, point), Step(0.01, "restart", "restart", path)]


def _restart(dice: random.Random, shape: Shape) -> list[Step]:
    return [Step(0, "restart", "restart", dice.choice((*_actors(shape) * 3, *_restarted(shape))))]


def _exchange(dice: random.Random, shape: Shape) -> list[Step]:
    source = dice.choice(shape.sources)
    more = ("announce", "announce") if source in shape.asked else ()
    kind = dice.choice(("graceful", "abrupt", "drop", "refuse", *more))
    if more and dice.random() < RENUMBERED:
        kind = "renumber"
    seconds = _while(dice) if kind in ("drop", "refuse", "announce") else None
    return [Step(0, "exchange", kind, source, seconds)]


def _wire(dice: random.Random, shape: Shape) -> list[Step]:
    source = dice.choice(shape.sources)
    more = [
        *(["skip"] if source in shape.numbering else []),
        *(["drop", "mute"] if source in shape.asked else []),
    ]
    kind = dice.choice(("duplicate", "truncate", "garbage", *more))
    if kind == "mute":
        return [Step(0, "wire", kind, source, point=dice.choice(shape.asked[source]))]
    return [Step(0, "wire", kind, source, times=dice.randint(1, 5))]


def _question(dice: random.Random, shape: Shape) -> list[Step]:
    """Something that makes questions necessary, and questions that fail."""
    if not shape.asked:
        return _wire(dice, shape)
    source, kind = dice.choice([*shape.asked]), dice.choice(QUESTIONS)
    seconds = _while(dice) if kind in ("rest_slow", "rest_limit") else None
    failing = Step(0, "question", kind, source, seconds, times=dice.randint(1, 4))
    return [failing, Step(0.01, "wire", "drop", source, times=dice.randint(1, 5))]


def _proxy(dice: random.Random, shape: Shape) -> list[Step]:
    if shape.asked and dice.random() < 0.2:
        return [Step(0, "proxy", "cut_one", dice.choice([*shape.asked]))]
    kind = dice.choice(("cut", "reset", "latency", "half_open"))
    seconds = _while(dice) if kind in ("latency", "half_open") else None
    point = dice.choice(("up", "down")) if kind == "half_open" else None
    return [
        Step(
            0,
            "proxy",
            kind,
            dice.choice((*shape.sources, *shape.client_names, *shape.producers)),
            seconds,
            point,
        )
    ]


def _client(dice: random.Random, shape: Shape) -> list[Step]:
    kind = dice.choice(("leave", "vanish", "stop_reading", "stop_reading"))
    longer = 3 if kind == "stop_reading" else 1  # long enough to fill an outbox
    return [Step(0, "client", kind, dice.choice(shape.client_names), _while(dice, LONGEST * longer))]


_SORTS: Final[Sequence[tuple[Callable[[random.Random, Shape], list[Step]], int]]] = (
    (_crash, 5),
    (_hang, 3),
    (_of_a_source, 2),
    (_of_a_session, 1),
    (_bad_start, 2),
    (_restart, 3),
    (_exchange, 3),
    (_wire, 3),
    (_question, 3),
    (_proxy, 4),
    (_client, 4),
)
QUESTIONS: Final = (
    *("rest_error", "rest_limit", "rest_slow", "rest_endless"),
    *("rest_huge", "rest_redirect", "rest_half", "rest_lie"),
)
RESTARTED: Final = (*paths.BRANCHES, paths.HTTP)


def _actors(shape: Shape) -> tuple[str, ...]:
    return (
        *(paths.shard(n) for n in range(shape.shards)),
        *(paths.topic(symbol) for symbol in shape.symbols),
        *(paths.source(source) for source in (*shape.sources, *shape.listeners)),
    )


def _restarted(shape: Shape) -> tuple[str, ...]:
    """What can be restarted beside the actors."""
    parts = [part(name) for name in shape.listeners for part in (paths.listener, paths.producers)]
    return (*RESTARTED, *((paths.GRPC,) if "grpc" in shape.faces else ()), *parts)


def _target(dice: random.Random, shape: Shape) -> tuple[str, str]:
    """A random actor, and the point at which messages reach it."""
    path = dice.choice(_actors(shape))
    return path, "message" if paths.below(paths.SOURCES, path) else "receive"


def _while(dice: random.Random, most: float = LONGEST) -> float:
    return round(dice.uniform(SHORTEST, most), 2)


# -- lives and deaths -------------------------------------------------------------------------------------

End: TypeAlias = Literal["kill", "stop"]
POLITE: Final = 0.1  # share of deaths that a stop in order follows
EARLY: Final = 0.2  # share of lives that may end before the daemon listens
START: Final = 1.5  # seconds, about the time of a start
REPEATED: Final = (0, 50, 1_000)  # how many trades an exchange may repeat to a client that comes back


@frozen
class Deaths:
    """The options of a rehearsal of deaths. `seconds`: the longest life after a start. All must be positive,
    else ValueError."""

    seed: int
    deaths: int = field(default=10, validator=validators.ge(1))
    seconds: float = field(default=2.0, validator=validators.gt(0))
    clients: int = field(default=3, validator=validators.ge(1))


@frozen
class Life:
    """A life of the daemon. It ends `seconds` after the start of its process, or after all were served again.

    `kill` is SIGKILL at any moment, `stop` is SIGTERM.
    """

    end: End
    seconds: float
    from_start: bool = False


@frozen
class Fate:
    """All lives, and how the exchanges and the daemon are.

    `repeated`: trades that come again after a reconnection. `dropped`: the share of trades that an exchange
    with sequences loses on the wire. `after_commit`: clients are told what is on disk alone.
    """

    lives: tuple[Life, ...]
    repeated: int
    dropped: float
    after_commit: bool


def fate(deaths: Deaths) -> Fate:
    """The same options give the same fate, in every process and every later version."""
    dice = random.Random(f"deaths/{deaths.seed}")
    lives: list[Life] = []
    for _ in range(deaths.deaths):
        early = dice.random() < EARLY
        most = min(START, deaths.seconds) if early else deaths.seconds
        lives.append(Life("kill", round(dice.uniform(0, most), 3), early))
        if dice.random() < POLITE:
            lives.append(Life("stop", round(dice.uniform(0, deaths.seconds), 3)))
    return Fate(tuple(lives), dice.choice(REPEATED), dice.choice((0.0, 0.002)), dice.random() < 0.3)
