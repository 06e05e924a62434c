"""The schema, and where each field gets its value.

Rules of this file: pure; no resolver waits. A number leaves with exactly the digits that it has inside, as in
every protocol here: the scalar `Float` passes decimals on, and the writer of JSON knows them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final, Protocol

from graphql import (
    GraphQLArgument,
    GraphQLField,
    GraphQLInt,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLOutputType,
    GraphQLResolveInfo,
    GraphQLScalarType,
    GraphQLSchema,
    GraphQLString,
)

from dataflow.domain.aggregate import Aggregate
from dataflow.domain.timestamps import to_rfc3339
from dataflow.gateway.spelling import amount, milliseconds

MARKET_DATA: Final = "marketData"  # fields of the roots
TRADES: Final = "trades"


class Desk(Protocol):
    """Who knows the answers."""

    def aggregate(self, written: str) -> Aggregate | None:
        """The running bar of the day of the symbol with this name; None without one, or a trade of it."""


class _Scalar(GraphQLScalarType):
    """A scalar that may have the name of a standard one."""

    reserved_types: ClassVar[dict[str, Any]] = {}  # type: ignore[misc]


FLOAT: Final = _Scalar(
    "Float",
    description="A number, with all the digits that it has: it may have more than a double can hold.",
    coerce_output_value=lambda value: value,
)

Getter = Callable[[Any], Any]
_Told = tuple[GraphQLOutputType, Getter, str]


_AGGREGATE: Final[Mapping[str, _Told]] = {
    "symbol": (GraphQLString, lambda bar: bar.symbol, "Its canonical name."),
    "open": (FLOAT, lambda bar: bar.open, "Price of the first trade."),
    "high": (FLOAT, lambda bar: bar.high, "Highest price."),
    "low": (FLOAT, lambda bar: bar.low, "Lowest price."),
    "close": (FLOAT, lambda bar: bar.close, "Price of the last trade."),
    "volume": (GraphQLString, lambda bar: amount(bar.volume), "Sum of all quantities, an exact decimal."),
    "timestamp": (
        GraphQLString,
        lambda bar: str(milliseconds(bar.timestamp)),
        "Time of the last trade, ms since the epoch.",
    ),
}

_TRADE: Final[Mapping[str, _Told]] = {
    "symbol": (GraphQLNonNull(GraphQLString), lambda one: one.trade.symbol, "Its canonical name."),
    "price": (GraphQLNonNull(FLOAT), lambda one: one.trade.price, ""),
    "qty": (GraphQLNonNull(FLOAT), lambda one: one.trade.quantity, ""),
    "side": (GraphQLString, lambda one: one.trade.side, '"buy" or "sell"; null when the source has no side.'),
    "tradeId": (GraphQLString, lambda one: one.trade.trade_id, "The source's; null when it gives none."),
    "timestamp": (
        GraphQLNonNull(GraphQLString),
        lambda one: str(milliseconds(one.trade.timestamp)),
        "Time of the trade, ms since the epoch.",
    ),
    "time": (
        GraphQLNonNull(GraphQLString),
        lambda one: to_rfc3339(one.trade.timestamp),
        "The same in UTC, with microseconds.",
    ),
    "offset": (
        GraphQLNonNull(GraphQLInt),
        lambda one: one.offset,
        "Its place in the stream of the symbol, which grows by one a place.",
    ),
    "source": (GraphQLNonNull(GraphQLString), lambda one: one.trade.source, "Where it comes from."),
}


def _object(name: str, fields: Mapping[str, _Told], description: str) -> GraphQLObjectType:
    return GraphQLObjectType(
        name,
        {
            key: GraphQLField(kind, description=about or None)
            for key, (kind, _getter, about) in fields.items()
        },
        description=description,
    )


AGGREGATE: Final = _object("Aggregate", _AGGREGATE, "The running bar of the current UTC day of a symbol.")
TRADE: Final = _object("Trade", _TRADE, "One trade of a symbol.")
_GETTERS: Final[Mapping[GraphQLObjectType, Mapping[str, Getter]]] = {
    kind: {key: getter for key, (_kind, getter, _about) in fields.items()}
    for kind, fields in ((AGGREGATE, _AGGREGATE), (TRADE, _TRADE))
}


def leaf(source: Any, info: GraphQLResolveInfo[Any]) -> Any:
    """Resolves a field of an object: of an `Aggregate`, or of a trade, which is `Recorded`."""
    return _GETTERS[info.parent_type][info.field_name](source)


def getter(root: str, name: str) -> Getter:
    """What a field `name` is in the events of the subscription `root`."""
    return _GETTERS[AGGREGATE if root == MARKET_DATA else TRADE][name]


def _bar(_root: Any, info: GraphQLResolveInfo[Any], symbol: str) -> Aggregate | None:
    desk: Desk = info.context
    return desk.aggregate(symbol)


_SYMBOL: Final = {"symbol": GraphQLArgument(GraphQLNonNull(GraphQLString))}

SCHEMA: Final = GraphQLSchema(
    query=GraphQLObjectType(
        "Query",
        {
            MARKET_DATA: GraphQLField(
                AGGREGATE,
                args=_SYMBOL,
                resolve=_bar,
                description="Null for an unknown symbol, and for one without a trade.",
            )
        },
    ),
    subscription=GraphQLObjectType(
        "Subscription",
        {
            MARKET_DATA: GraphQLField(
                GraphQLNonNull(AGGREGATE),
                args=_SYMBOL,
                description="The current state first, if there is one, then one event a trade. A client that"
                " is behind gets the newest.",
            ),
            TRADES: GraphQLField(
                GraphQLNonNull(TRADE),
                args=_SYMBOL,
                description="Every trade from now on. Missing trades are an event with an error whose"
                " extensions name them.",
            ),
        },
    ),
)
