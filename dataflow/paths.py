"""The paths of the supervision tree, each written once. They are public, in `/actors` and in metrics."""

from __future__ import annotations

from typing import Final

CACHE: Final = "cache"
HISTORY: Final = "history"
RECORDER: Final = f"{HISTORY}/recorder"
TOPICS: Final = "topics"
FOLLOWERS: Final = "followers"
DAYS: Final = f"{FOLLOWERS}/days"
CANDLES: Final = f"{FOLLOWERS}/candles"
FAILOVER: Final = "failover"
WATCH: Final = f"{FAILOVER}/watch"
SOURCES: Final = "sources"
GATEWAY: Final = "gateway"
SESSIONS: Final = f"{GATEWAY}/sessions"
HERALD: Final = f"{GATEWAY}/herald"
HTTP: Final = f"{GATEWAY}/http"
GRPC: Final = f"{GATEWAY}/grpc"
CHAOS: Final = "chaos"
OPS: Final = "ops"
LAG: Final = f"{OPS}/lag"
LOAD: Final = f"{OPS}/load"
MEMORY: Final = f"{OPS}/memory"
GUESTBOOK: Final = f"{OPS}/guestbook"
RELOAD: Final = f"{OPS}/reload"
DUMP: Final = f"{OPS}/dump"
BRANCHES: Final = (CACHE, TOPICS, SOURCES, GATEWAY)

_SHARD: Final = f"{CACHE}/shard-"


def shard(number: int) -> str:
    """The path of a cache shard."""
    return f"{_SHARD}{number}"


def shard_number(path: str) -> int | None:
    """The number of the cache shard at `path`; None for any other actor."""
    return int(path.removeprefix(_SHARD)) if path.startswith(_SHARD) else None


def source(name: str) -> str:
    """The path of a source's branch."""
    return f"{SOURCES}/{name}"


def lines(name: str) -> str:
    """The path of the connections to a source."""
    return f"{source(name)}/lines"


def line(name: str, number: int) -> str:
    """The path of a connection to a source."""
    return f"{lines(name)}/{number}"


def keeper(name: str) -> str:
    """The path of the actor that keeps the connections to a source."""
    return f"{source(name)}/keeper"


def lookout(name: str) -> str:
    """The path of the actor that looks after the symbols of a source."""
    return f"{source(name)}/lookout"


def refill(name: str) -> str:
    """The path of the actor that asks a source for missing trades."""
    return f"{source(name)}/refill"


def listener(name: str) -> str:
    """The path of the actor that listens for the producers of a source."""
    return f"{source(name)}/listener"


def producers(name: str) -> str:
    """The path of the connections of its producers."""
    return f"{source(name)}/connections"


def crowd(path: str) -> str | None:
    """The supervisor of `path`, where it has many actors that come and go and are all alike."""
    of = path.rpartition("/")[0]
    source_of = below(SOURCES, of)
    is_crowd = of == SESSIONS or (source_of is not None and name(of) in ("lines", "connections"))
    return of if is_crowd else None


def session(number: int) -> str:
    """The path of a client's session."""
    return f"{SESSIONS}/{number}"


def topic(name: str) -> str:
    """The path of a topic's subscription."""
    return f"{TOPICS}/{name}"


def below(branch: str, path: str) -> str | None:
    """The rest of `path` below `branch`; None if it lies elsewhere."""
    return path[len(branch) + 1 :] if path.startswith(f"{branch}/") else None


def name(path: str) -> str:
    """The last part of `path`: the id of a child."""
    return path.rpartition("/")[2]
