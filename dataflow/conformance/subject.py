"""The connector that is checked, with its settings and what its upstream has said.

Rules of this file: whatever cannot be used is a `BadSubject` in one line, before any check runs.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cached_property
from types import ModuleType
from typing import Any

from attrs import field, frozen

from actors.connector import Received
from dataflow import plugs
from dataflow.domain import Item, Missed, Trade
from dataflow.settings.structure import instead
from dataflow.sources.port import Codec, Filler, SourceSettings

from .recording import Recording

NAME = "conformance"  # of the source
EXAMPLE = "wss://upstream.example"  # an address that nobody dials


class BadSubject(ValueError):
    """There is no such connector, or its settings cannot be used."""


@frozen(slots=False)
class Subject:
    """`module` is the connector. `accepted`: problems that this recording may have, by their reasons."""

    module: ModuleType
    settings: SourceSettings
    recording: Recording = field(factory=Recording)
    accepted: frozenset[str] = frozenset()

    @property
    def symbols(self) -> Sequence[str]:
        """The canonical names."""
        return self.settings.symbols

    def codec(self) -> Codec:
        """A fresh codec, which has said its opening and asked for all symbols."""
        made: Codec = self.module.Codec(NAME, self.settings)
        made.opening()
        self.ask(made)
        return made

    def ask(self, codec: Codec) -> list[str]:
        """The requests for all symbols, of which none names more than the upstream takes."""
        most, symbols = self.settings.symbols_a_request, self.symbols
        parts = (symbols[at : at + most] for at in range(0, len(symbols), most))
        return [request for part in parts for request in codec.subscribe(part)]

    def filler(self) -> Filler | None:
        """The connector's filler, if it has one."""
        cls = getattr(self.module, "Filler", None)
        made: Filler | None = None if cls is None else cls(NAME, self.settings)
        return made

    @cached_property
    def heard(self) -> Sequence[Sequence[Heard]]:
        """All recorded messages, of each connection, with what a codec makes of them."""
        return [_replayed(self.codec(), messages) for messages in self.recording.connections]

    @cached_property
    def trades(self) -> Sequence[Trade]:
        """All recorded trades."""
        return [trade for connection in self.heard for heard in connection for trade in heard.trades]

    def before(self, connection: int, index: int) -> Codec:
        """A codec that has heard all messages of a connection before that of `index`."""
        codec = self.codec()
        for message in self.recording.connections[connection][:index]:
            codec.decode(message, Received())
        return codec


@frozen
class Heard:
    """One message, and what it means at its place."""

    message: str
    received: Received[Item]

    @property
    def trades(self) -> Sequence[Trade]:
        return trades_of(self.received)


def trades_of(received: Received[Item]) -> list[Trade]:
    """The trades among the items."""
    return [item for item in received.items if isinstance(item, Trade)]


def tells(received: Received[Item]) -> bool:
    """Whether a loss would be told: a problem, a mark, or the end of the connection."""
    marks = any(isinstance(item, Missed) for item in received.items)
    return bool(received.problems or marks or received.lost or received.leaving)


def hear(codec: Codec, message: str | bytes) -> Received[Item]:
    """What `codec` makes of one message."""
    into: Received[Item] = Received()
    codec.decode(message, into)
    return into


def twin(codec: Codec) -> Codec:
    """A codec in the same state, so that the first stays as it is. Both share what cannot be copied: a
    decoder of msgspec, say, which has no state."""
    try:
        return copy.deepcopy(codec)
    except TypeError:
        shared = {id(each): each for each in vars(codec).values() if not _can_be_copied(each)}
        return copy.deepcopy(codec, shared)


def _can_be_copied(value: object) -> bool:
    try:
        copy.deepcopy(value)
    except TypeError:
        return False
    return True


def subject(
    connector: str,
    symbols: Sequence[str],
    recording: Recording = Recording(),  # noqa: B008 - frozen
    accepted: Sequence[str] = (),
    **keys: Any,
) -> Subject:
    """The connector of that name, with these symbols and further keys. Raises BadSubject."""
    if "." not in connector and connector not in (shipped := plugs.names("connectors")):
        hint = f"{instead(connector, shipped)}; yours has a dotted name"
        raise BadSubject(f"{connector}: unknown connector; {hint}")
    try:
        module = plugs.find("connectors", connector)
    except Exception as error:  # the import of a user's module may raise anything
        raise BadSubject(f"{connector}: cannot be imported: {type(error).__name__}: {error}") from None
    cls = getattr(module, "Settings", None)
    if not (isinstance(cls, type) and issubclass(cls, SourceSettings)):
        raise BadSubject(f"{connector}: has no Settings derived from dataflow.sources.SourceSettings")
    if not callable(getattr(module, "Codec", None)):
        raise BadSubject(f"{connector}: has no class Codec")
    keys["url"] = keys.get("url") or EXAMPLE
    try:
        settings = cls(connector=connector, symbols=tuple(symbols), **keys)
    except (TypeError, ValueError) as error:
        raise BadSubject(f"{connector}: these settings cannot be used: {error}") from None
    return Subject(module, settings, recording, frozenset(accepted))


def _replayed(codec: Codec, messages: Sequence[str]) -> list[Heard]:
    return [Heard(message, hear(codec, message)) for message in messages]
