"""All that the commands need to know of an exchange; each file under `exchanges/` defines one."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen

from .dialect import Dialect
from .feed import Feed


@frozen(kw_only=True)
class Definition:
    """An exchange that can be simulated.

    `title` is its name in help texts. `port` is where it listens unless told otherwise. `dialect` makes its
    dialect, given the symbols that will be played, for an exchange that rejects unknown symbols. `feed` makes
    the feed that it plays when it is given none. `symbol` translates a symbol of a recording into the
    exchange's name, or returns None when that is unknown: names are never guessed. `plays_messages` says
    whether it can send the `StreamMessage` items of a recording, or trades only.
    """

    title: str
    port: int
    dialect: Callable[[frozenset[str]], Dialect]
    feed: Callable[[], Feed]
    symbol: Callable[[str], str | None]
    plays_messages: bool = False
