"""Trades and candles of any time: which of them a query asks for, and how they are written.

Rules of this file. A resolver cannot wait for the disk, and GraphQL takes some ten microseconds a value. So a
document is run once with a specimen in the place of each page, which remembers what is asked of it; then the
desk is asked, page after page, and the answers are written.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol, TypeVar

from attrs import frozen
from graphql import GraphQLError, GraphQLFormattedError, GraphQLResolveInfo

from dataflow.domain.aggregate import Aggregate
from dataflow.gateway.answers import CandlePage, TradesPage
from dataflow.gateway.desk import Desk
from dataflow.gateway.limits import Account
from dataflow.gateway.problems import InvalidValue, Problem
from dataflow.gateway.reading import Wanted
from dataflow.gateway.spelling import moment, position

from .schema import TRADES, Getter, Specimen

MAX_ENTRIES: Final = 1000  # of all pages of a document: to write them takes some milliseconds
MAX_SELECTED: Final = 50  # fields of one entry ...
MAX_KEYS: Final = 1000  # ... and characters of all their keys

T = TypeVar("T")


class Elsewhere(Protocol):
    """Waits for the disk, and holds up nobody meanwhile."""

    def __call__(self, question: Awaitable[T], /) -> Awaitable[T]: ...


@frozen
class _Question:
    info: GraphQLResolveInfo[Any]
    arguments: Mapping[str, Any]
    specimen: Specimen

    def error(self, problem: Problem) -> GraphQLFormattedError:
        error = GraphQLError(
            problem.summary,
            self.info.field_nodes,
            path=[self.info.path.key],
            extensions=extensions(problem),
        )
        return error.formatted


class Pages:
    """The pages that one query asks for: the context in which it is run."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._questions: list[_Question] = []

    def aggregate(self, written: str) -> Aggregate | None:
        """See `Answers`."""
        return self._desk.aggregate(written)

    def ask(self, info: GraphQLResolveInfo[Any], arguments: Mapping[str, Any]) -> Specimen:
        """See `Answers`."""
        question = _Question(info, arguments, Specimen())
        self._questions.append(question)
        return question.specimen

    async def fill(
        self, data: dict[str, Any], elsewhere: Elsewhere, account: Account
    ) -> list[GraphQLFormattedError]:
        """Put the pages into `data`, the result of the query. Returns the errors of those that failed."""
        errors = []
        left = MAX_ENTRIES
        for question in self._questions:
            key = str(question.info.path.key)
            try:
                write = writer(data[key], question.specimen)
                limit = question.arguments["limit"]
                left -= max(0, limit)
                if left < 0:
                    raise _too_many("limit", limit, f"{MAX_ENTRIES:,} entries in a document")
                data[key] = write(await elsewhere(self._page(question, account)))
            except Problem as problem:
                data[key] = None
                errors.append(question.error(problem))
        return errors

    async def _page(self, question: _Question, account: Account) -> TradesPage | CandlePage:
        asked = question.arguments
        symbol, limit = self._desk.canonical(asked["symbol"]), asked["limit"]
        start, end = moment("from", asked.get("from")), moment("to", asked.get("to"))
        if question.info.field_name == TRADES:
            wanted = Wanted(position("after", asked.get("after")), None, start, end)
            return await self._desk.trades(symbol, wanted, limit, account=account)
        interval = asked["interval"]
        return await self._desk.candles(symbol, interval, start, end, limit, account=account)


def writer(model: Mapping[str, Any], specimen: Specimen) -> Callable[[Any], dict[str, Any]]:
    """How values like `specimen` are written: with the members of `model`, which was made of it.

    Raises InvalidValue when they are too many.
    """
    if len(model) > MAX_SELECTED or sum(map(len, model)) > MAX_KEYS:
        raise _too_many("fields", len(model), f"{MAX_SELECTED} fields, and {MAX_KEYS:,} characters of keys")
    members = [(key, _member(value, specimen.fields.get(key))) for key, value in model.items()]
    return lambda value: {key: get(value) for key, get in members}


def _member(model: Any, field: tuple[Getter, Specimen | None] | None) -> Getter:
    if field is None:
        return lambda _value: model  # the name of the type
    get, specimen = field
    if specimen is None:
        return get
    if isinstance(model, list):
        write = writer(model[0], specimen)
        return lambda value: [write(each) for each in get(value)]
    write = writer(model, specimen)
    return lambda value: write(get(value))


def extensions(problem: Problem) -> dict[str, Any]:
    """A problem of the hall for programs."""
    return {"code": type(problem).__name__, **problem.data}


def _too_many(param: str, value: int, most: str) -> InvalidValue:
    return InvalidValue(param, value, f"at most {most}")
