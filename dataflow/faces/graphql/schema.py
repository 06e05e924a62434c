"""The schema, and where each field gets its value.

Rules of this file: pure; no resolver waits. A number leaves with exactly the digits that it has inside, as in
every protocol here: the scalar `Float` passes decimals on, `Int` the places of a stream of any length, and
the writer of JSON knows them. What the disk must be asked for is a page (`pages.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final, Protocol

from graphql import (
    GraphQLArgument,
    GraphQLBoolean,
    GraphQLField,
    GraphQLInt,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLOutputType,
    GraphQLResolveInfo,
    GraphQLScalarType,
    GraphQLSchema,
    GraphQLString,
    get_nullable_type,
    is_leaf_type,
    is_list_type,
)

from dataflow.domain.aggregate import Aggregate
from dataflow.domain.timestamps import to_rfc3339
from dataflow.gateway.answers import Position
from dataflow.gateway.spelling import amount, milliseconds, shown

MARKET_DATA: Final = "marketData"  # fields of the roots
TRADES: Final = "trades"
CANDLES: Final = "candles"
USUAL_ENTRIES: Final = 100  # in a page


class Answers(Protocol):
    """Who knows the answers: the context of a query."""

    def aggregate(self, written: str) -> Aggregate | None:
        """The running bar of the day of the symbol with this name; None without one, or a trade of it."""

    def ask(self, info: GraphQLResolveInfo[Any], arguments: Mapping[str, Any]) -> Any:
        """What stands in the place of a page of trades or candles, which is written later."""


class _Scalar(GraphQLScalarType):
    """A scalar that may have the name of a standard one."""

    reserved_types: ClassVar[dict[str, Any]] = {}  # type: ignore[misc]


FLOAT: Final = _Scalar(
    "Float",
    description="A number, with all the digits that it has: it may have more than a double can hold.",
    coerce_output_value=lambda value: value,
)

INT: Final = _Scalar(
    "Int",
    description="A whole number. The places of a stream may have more than 32 bits.",
    coerce_output_value=lambda value: value,
    coerce_input_value=GraphQLInt.coerce_input_value,
    coerce_input_literal=GraphQLInt.coerce_input_literal,
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
        GraphQLNonNull(INT),
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


def _place(position: Position | None) -> str | None:
    return None if position is None else shown(position)


def _time(ns: int | None) -> str | None:
    return None if ns is None else to_rfc3339(ns)


def _all(kind: GraphQLObjectType) -> GraphQLOutputType:
    return GraphQLNonNull(GraphQLList(GraphQLNonNull(kind)))


_GAP: Final[Mapping[str, _Told]] = {
    "from": (GraphQLNonNull(INT), lambda gap: gap.first, "The first place without its trade."),
    "to": (INT, lambda gap: gap.last if gap.exact else None, "The last one; null: nobody knows how many."),
    "reason": (GraphQLNonNull(GraphQLString), lambda gap: gap.reason, ""),
}

_TEXT: Final = GraphQLNonNull(GraphQLString)
_NUMBER: Final = GraphQLNonNull(FLOAT)

AGGREGATE: Final = _object("Aggregate", _AGGREGATE, "The running bar of the current UTC day of a symbol.")
TRADE: Final = _object("Trade", _TRADE, "One trade of a symbol.")
GAP: Final = _object("Gap", _GAP, "Places without their trades.")

_CANDLE: Final[Mapping[str, _Told]] = {
    "symbol": (_TEXT, lambda bar: bar.symbol, "Its canonical name."),
    "interval": (_TEXT, lambda bar: bar.interval, ""),
    "start": (_TEXT, lambda bar: to_rfc3339(bar.start), "Begin of its window, in UTC, with microseconds."),
    "open": (_NUMBER, lambda bar: bar.open, "Price of the first trade."),
    "high": (_NUMBER, lambda bar: bar.high, "Highest price."),
    "low": (_NUMBER, lambda bar: bar.low, "Lowest price."),
    "close": (_NUMBER, lambda bar: bar.close, "Price of the last trade."),
    "volume": (_TEXT, lambda bar: amount(bar.volume), "Sum of all quantities, an exact decimal."),
    "quoteVolume": (_TEXT, lambda bar: amount(bar.quote_volume), "Sum of quantity times price, likewise."),
    "buyVolume": (_TEXT, lambda bar: amount(bar.buy_volume), "Of the trades whose taker bought, likewise."),
    "count": (GraphQLNonNull(INT), lambda bar: bar.count, "Trades."),
    "rev": (GraphQLNonNull(INT), lambda bar: bar.rev, "Grows with every change of this candle."),
    "closed": (GraphQLNonNull(GraphQLBoolean), lambda bar: bar.closed, "Its window is over."),
    "complete": (
        GraphQLNonNull(GraphQLBoolean),
        lambda bar: bar.complete,
        "No trade of the window is known to be missing.",
    ),
    "gaps": (_all(GAP), lambda bar: bar.gaps, "Where trades of the window may be missing."),
    "firstOffset": (GraphQLNonNull(INT), lambda bar: bar.first_offset, "The place of its first trade."),
    "lastOffset": (GraphQLNonNull(INT), lambda bar: bar.last_offset, "That of its last one."),
}
CANDLE: Final = _object("Candle", _CANDLE, "The bar of a window of trades.")

_TRADES_PAGE: Final[Mapping[str, _Told]] = {
    "symbol": (_TEXT, lambda page: page.symbol, "Its canonical name."),
    "epoch": (_TEXT, lambda page: str(page.epoch), "That of all places in this page."),
    "trades": (_all(TRADE), lambda page: page.trades, "In the order of the stream."),
    "gaps": (
        _all(GAP),
        lambda page: page.gaps,
        "The gaps among them. From 0: `after` says nothing any more.",
    ),
    "next": (
        GraphQLString,
        lambda page: _place(page.next),
        "`after` of the next page; null: a bounded range is at its end.",
    ),
    "rewound": (
        GraphQLString,
        lambda page: _place(page.rewound),
        "What you hold behind this place is not part of the stream any more.",
    ),
}
_CANDLES_PAGE: Final[Mapping[str, _Told]] = {
    "candles": (_all(CANDLE), lambda page: page.candles, "Oldest first."),
    "next": (
        GraphQLString,
        lambda page: _time(page.next),
        "`from` of the next page; null: there is no more.",
    ),
}
TRADES_PAGE: Final = _object("Trades", _TRADES_PAGE, "A part of a symbol's stream.")
CANDLES_PAGE: Final = _object("Candles", _CANDLES_PAGE, "Candles of one symbol.")

_GETTERS: Final[Mapping[GraphQLObjectType, Mapping[str, Getter]]] = {
    kind: {key: getter for key, (_kind, getter, _about) in fields.items()}
    for kind, fields in (
        (AGGREGATE, _AGGREGATE),
        (TRADE, _TRADE),
        (GAP, _GAP),
        (CANDLE, _CANDLE),
        (TRADES_PAGE, _TRADES_PAGE),
        (CANDLES_PAGE, _CANDLES_PAGE),
    )
}


def leaf(source: Any, info: GraphQLResolveInfo[Any]) -> Any:
    """Resolves a field of an object: of an `Aggregate`, or of what stands in the place of a page."""
    if isinstance(source, Specimen):
        return source.asked(info)
    return _GETTERS[info.parent_type][info.field_name](source)


class Specimen:
    """Stands for a value that is yet to come, and remembers which of its fields are asked for."""

    def __init__(self) -> None:
        self.fields: dict[str, tuple[Getter, Specimen | None]] = {}  # by key

    def asked(self, info: GraphQLResolveInfo[Any]) -> Any:
        """A value for this field, which may be asked for more."""
        get = _GETTERS[info.parent_type][info.field_name]
        kind, value = get_nullable_type(info.return_type), Specimen()
        is_leaf = is_leaf_type(kind)
        self.fields[str(info.path.key)] = (get, None if is_leaf else value)
        return False if is_leaf else [value] if is_list_type(kind) else value


def getter(root: str, name: str) -> Getter:
    """What a field `name` is in the events of the subscription `root`."""
    return _GETTERS[AGGREGATE if root == MARKET_DATA else TRADE][name]


def _bar(_root: Any, info: GraphQLResolveInfo[Any], symbol: str) -> Aggregate | None:
    answers: Answers = info.context
    return answers.aggregate(symbol)


def _page(_root: Any, info: GraphQLResolveInfo[Any], **arguments: Any) -> Any:
    answers: Answers = info.context
    return answers.ask(info, arguments)


_SYMBOL: Final = {"symbol": GraphQLArgument(_TEXT)}
_RANGE: Final = {
    "from": GraphQLArgument(GraphQLString, description="RFC 3339: only from this time on."),
    "to": GraphQLArgument(GraphQLString, description="RFC 3339: only before this time."),
    "limit": GraphQLArgument(GraphQLNonNull(INT), default_value=USUAL_ENTRIES, description="1 to 1,000."),
}

SCHEMA: Final = GraphQLSchema(
    query=GraphQLObjectType(
        "Query",
        {
            MARKET_DATA: GraphQLField(
                AGGREGATE,
                args=_SYMBOL,
                resolve=_bar,
                description="Null for an unknown symbol, and for one without a trade.",
            ),
            TRADES: GraphQLField(
                TRADES_PAGE,
                args=_SYMBOL
                | _RANGE
                | {"after": GraphQLArgument(GraphQLString, description="A place: only what is behind it.")},
                resolve=_page,
                description="Trades of any time, from memory and disk alike, with the gaps among them.",
            ),
            CANDLES: GraphQLField(
                CANDLES_PAGE,
                args=_SYMBOL
                | {
                    "interval": GraphQLArgument(
                        _TEXT, default_value="1m", description="1m, 1h, 100t, 10v ..."
                    )
                }
                | _RANGE,
                resolve=_page,
                description="Candles of any time; without `from` the newest ones.",
            ),
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
