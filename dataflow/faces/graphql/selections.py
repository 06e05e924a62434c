"""What subscriptions ask for, and how their events are written.

Rules of this file: pure. GraphQL would run a document anew for each event and client; that takes a hundred
times as long as to write it down. An event is a flat object, so a document is run once, with a specimen, and
what it asks for is remembered: a `Wanted`. Equal wishes in one topic share one `Selection`, which writes each
place once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from weakref import WeakValueDictionary

from attrs import frozen
from graphql import (
    DocumentNode,
    ExecutionResult,
    GraphQLError,
    GraphQLResolveInfo,
    execute_sync,
    get_named_type,
)

from actors.update import Update
from dataflow.domain import Gap, Recorded, Topic, Trade
from dataflow.gateway import spelling
from dataflow.gateway.format import Format
from dataflow.gateway.spelling import encode

from .documents import Rejected
from .pages import MAX_KEYS, MAX_SELECTED  # an event has at most some 2.5 KB then, for each trade
from .request import Request
from .schema import SCHEMA, Getter, getter

KEPT_RESULTS: Final = 64  # of one selection, and those of one update more
_SPECIMENS: Final = {"String": "", "Int": 0, "Float": 0}


@frozen
class Entry:
    """A member of an event: the field of this name, or else always the same value."""

    key: str
    name: str | None
    constant: Any = None


@frozen
class Wanted:
    """What a subscription asks for. `root` is its field, which answers under `key`."""

    root: str
    symbol: str
    key: str
    entries: tuple[Entry, ...]


def wanted(document: DocumentNode, request: Request) -> Wanted:
    """What the subscription in `document`, which is valid, asks for. Raises Rejected."""
    root: dict[str, Any] = {}
    names: dict[str, str] = {}

    def record(_source: Any, info: GraphQLResolveInfo[Any], **arguments: Any) -> Any:
        key = str(info.path.key)
        if info.parent_type is SCHEMA.subscription_type:
            root.update(arguments, root=info.field_name, key=key)
            return record
        names[key] = info.field_name
        return _SPECIMENS[get_named_type(info.return_type).name]

    ran = execute_sync(
        SCHEMA,
        document,
        variable_values=dict(request.variables),
        operation_name=request.operation_name,
        field_resolver=record,
    )
    assert isinstance(ran, ExecutionResult)
    if ran.errors:
        raise Rejected(ran.errors)
    if not root or ran.data is None:
        raise Rejected([GraphQLError("The subscription follows nothing.")])
    members = ran.data[root["key"]].items()
    if len(members) > MAX_SELECTED or sum(len(key) for key, _ in members) + len(root["key"]) > MAX_KEYS:
        words = f"A subscription selects at most {MAX_SELECTED} fields, and {MAX_KEYS} characters of keys."
        raise Rejected([GraphQLError(words)])
    entries = (Entry(key, names.get(key), None if key in names else value) for key, value in members)
    return Wanted(**root, entries=tuple(entries))


class Selection:
    """Writes the events of one topic for all who want the same of them."""

    def __init__(self, wanted: Wanted) -> None:
        self._key = wanted.key
        self._members: list[tuple[str, Getter]] = [
            (entry.key, getter(wanted.root, entry.name) if entry.name else _always(entry.constant))
            for entry in wanted.entries
        ]
        self._results: dict[int, bytes] = {}  # of the last places: clients that are behind want them, too

    def result(self, value: Any) -> bytes:
        """One event as a result: of an `Aggregate` or a `Recorded`."""
        return encode({"data": {self._key: {key: get(value) for key, get in self._members}}})

    def results(self, update: Update) -> Sequence[bytes]:
        """A result for each entry."""
        kept = self._results
        if len(kept) > KEPT_RESULTS:
            kept.clear()
        for last, entry in update.places:
            if last not in kept:
                kept[last] = self._written(last, entry)
        return [kept[last] for last, _ in update.places]

    def _written(self, last: int, entry: Any) -> bytes:
        if isinstance(entry, Trade):
            return self.result(Recorded(last, entry))
        return RESULTS.missing(entry) if isinstance(entry, Gap) else self.result(entry)


class Selections:
    """Those in use, shared: kept as long as somebody follows."""

    def __init__(self) -> None:
        self._shared: WeakValueDictionary[tuple[Topic, Wanted], Selection] = WeakValueDictionary()

    def __len__(self) -> int:
        return len(self._shared)

    def share(self, topic: Topic, wanted: Wanted) -> Selection:
        """The one selection of those who want this of `topic`."""
        selection = self._shared.get((topic, wanted))
        if selection is None:
            selection = self._shared[topic, wanted] = Selection(wanted)
        return selection


def _always(value: Any) -> Getter:
    return lambda _event: value


class Results(Format):
    """The part of a result that is the same whatever is selected: missing trades.

    It is an event like others, with an error instead of data. It is none of the operation, which goes on.
    """

    name = "graphql"

    def item(self, topic: Topic, epoch: int, offset: int, value: Any) -> bytes:
        raise AssertionError("a selection writes items")

    def hole(self, topic: Topic, epoch: int, gap: Gap) -> bytes:
        return self.missing(gap)

    def gap(self, topic: Topic, epoch: int, gap: Gap, skipped: int) -> bytes:
        return self.missing(gap, skipped=skipped)

    def missing(self, gap: Gap, **more: Any) -> bytes:
        """A result that says which trades there will not be."""
        where = f"place {gap.first}" if gap.first == gap.last else f"places {gap.first} to {gap.last}"
        error = {
            "message": f"Trades are missing: {where}, {gap.reason}.",
            "extensions": {"code": "GAP", **spelling.gap(gap), **more},
        }
        return encode({"data": None, "errors": [error]})


RESULTS: Final = Results()
