"""Descriptions of the endpoints, for the OpenAPI document. Rules of this file: words and types only."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypedDict

from msgspec import Meta

from dataflow.gateway import spelled
from dataflow.gateway.about import About, Answer, Parameter
from dataflow.gateway.desk import MAX_CANDLES, MAX_TRADES

from .endpoints import CANDLES as USUAL_CANDLES
from .endpoints import INTERVAL
from .endpoints import TRADES as USUAL_TRADES
from .lines import CSV, NDJSON

_SYMBOL: Final = Parameter("symbol", str, "the name of a symbol", place="path", example="BTC-USDT")
_NO_SYMBOL: Final = "no source carries this symbol; `nearest` has similar ones"
_FROM: Final = Parameter("from", str, "RFC 3339: only from this time on")
_TO: Final = Parameter("to", str, "RFC 3339: only before this time")
_STREAMED: Final[dict[str, Any]] = {CSV: str, NDJSON: str}
_LINK: Final = {"Link": '`rel="next"`: the next page, relative to this one; only where there is more now'}
_ERRORS: Final = {
    400: "a parameter that is unknown, or a value that means nothing; `param`, `problem` and `valid` tell",
    404: _NO_SYMBOL,
    406: "the client takes none of the media that there are",
    503: "the history on disk does not answer, or too many downloads are under way",
}
_DOWNLOAD: Final = (
    f" With `Accept: {CSV}` or `{NDJSON}`: the whole range, however long, unless `limit` says otherwise."
    " A download that breaks off is not whole. The columns of CSV are the fields of JSON."
)


def _limit(most: int, default: int) -> Parameter:
    words = "entries in the answer; CSV and NDJSON have no limit by default"
    return Parameter("limit", Annotated[int, Meta(ge=1, le=most)], words, default=default)


SYMBOLS: Final = About(
    "All symbols", {200: Answer("what `getSymbols` says, in alphabetical order", list[spelled.Symbol])}
)
SYMBOL: Final = About(
    "One symbol", {200: Answer("the symbol", spelled.Symbol)}, {404: _NO_SYMBOL}, parameters=(_SYMBOL,)
)
TRADES: Final = About(
    "Trades of any time",
    {
        200: Answer("a page of trades and gaps", spelled.TradesPage, also=_STREAMED, sometimes=_LINK),
        304: Answer("as the client has it: its `If-None-Match` is the `ETag`"),
    },
    _ERRORS,
    parameters=(
        _SYMBOL,
        _FROM,
        _TO,
        Parameter("after", str, "a place, EPOCH:OFFSET: only what stands behind it"),
        Parameter("before", str, "a place, EPOCH:OFFSET: only what stands before it"),
        _limit(MAX_TRADES, USUAL_TRADES),
        Parameter("order", Literal["asc", "desc"], "by place: the oldest or the newest first", default="asc"),
    ),
    more="In the order of the stream, from memory and disk alike, with the gaps in it. Go on with `next`, as"
    " `after` (or `before`, where the newest comes first), and all else as it was." + _DOWNLOAD,
)
CANDLES: Final = About(
    "Candles of any time",
    {
        200: Answer("a page, oldest first", spelled.CandlePage, also=_STREAMED, sometimes=_LINK),
        304: Answer("as the client has it: its `If-None-Match` is the `ETag`"),
    },
    _ERRORS,
    parameters=(
        _SYMBOL,
        Parameter("interval", str, "such as 1m, 1h, 100t (trades) or 10v (volume)", default=INTERVAL),
        _FROM,
        _TO,
        _limit(MAX_CANDLES, USUAL_CANDLES),
    ),
    more="Without `from` the newest ones. Go on with `next`, as `from`." + _DOWNLOAD,
)
STATUS: Final = About("The daemon and its sources", {200: Answer("what `getStatus` says", spelled.Status)})
SOURCES: Final = About(
    "All sources", {200: Answer("by name, in the order of the configuration", dict[str, spelled.Source])}
)
SOURCE: Final = About(
    "One source",
    {200: Answer("its connection, and what it delivered", spelled.Source)},
    {404: "no source has this name; `valid` has those that exist"},
    parameters=(Parameter("name", str, "the NAME of `[sources.NAME]`", place="path", example="binance"),),
)


class _Pushed(TypedDict):
    symbol: Annotated[str, Meta(examples=["AAPL"])]
    timestamp: Annotated[str, Meta(description="RFC 3339, up to nine digits of a second")]
    price: Annotated[str | float, Meta(description="all digits count, as text or as a number")]
    qty: Annotated[str | float, Meta(description="likewise")]


class PushedTrade(_Pushed, total=False):
    """A trade as its producer knows it."""

    side: Annotated[Literal["buy", "sell"] | None, Meta(description="of the taker")]
    tradeId: Annotated[
        str | None, Meta(description="a trade with an id is taken once, however often it comes")
    ]
    sequence: Annotated[int | None, Meta(description="grows by one from trade to trade of the symbol")]


class Ingested(TypedDict):
    """What became of the trades."""

    accepted: int
    refused: Annotated[dict[str, int], Meta(description="by reason")]
    repeated: Annotated[int, Meta(description="these were here already")]
    examples: Annotated[dict[str, str], Meta(description="the beginning of a refused line, by reason")]


INGEST: Final = About(
    "Push trades to a source",
    {202: Answer("what became of them", Ingested)},
    {
        401: "the header `Authorization: Bearer TOKEN` is missing, or the token is wrong",
        403: "the source has no token, so only the daemon's own machine may push",
        404: "no source of this name takes what is pushed; `valid` has those that do",
        408: "nothing came for 10 s; the body tells what was taken before",
        413: "one trade is too long",
        415: f"the body is neither JSON nor {NDJSON}, or it is encoded",
        503: "the source, or the daemon, takes nothing at present; `Retry-After` says when to come back",
    },
    parameters=(
        Parameter("source", str, 'the NAME of `[sources.NAME]`, with `connector = "push"`', place="path"),
    ),
    body=PushedTrade,
    more=f"One trade as JSON, or any number as `{NDJSON}`, one a line. Send all of it again after a failure:"
    " a trade with a `tradeId` is taken once. 429 when the source has as many requests at once as it takes.",
)
