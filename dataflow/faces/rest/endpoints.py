"""The endpoints: requests become questions to the desk, and its answers bodies and headers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import trio
from quart import Response, request

from dataflow.cache.archive import Places
from dataflow.domain.candle import Candle
from dataflow.domain.timestamps import to_rfc3339
from dataflow.gateway import spelling
from dataflow.gateway.about import JSON
from dataflow.gateway.answers import TradesPage
from dataflow.gateway.application import HttpProblem, asker, chosen
from dataflow.gateway.hall import Hall
from dataflow.gateway.problems import InvalidValue
from dataflow.gateway.reading import TradesWalk, Wanted
from dataflow.gateway.spelling import encode, moment, position, shown

from . import lines
from .asking import check_symbol, next_link, one_of, parameters, whole
from .downloads import AT_ONCE, download
from .lines import CSV, NDJSON

TRADES: Final = 1000  # in a page, unless the request says otherwise
CANDLES: Final = 500
CANDLES_AT_ONCE: Final = 1000  # of a download
INTERVAL: Final = "1m"

_WRITERS: Final = {CSV: lines.trades_csv, NDJSON: lines.trades_ndjson}
_CANDLE_WRITERS: Final = {CSV: lines.candles_csv, NDJSON: lines.candles_ndjson}
_TYPES: Final = {CSV: f"{CSV}; charset=utf-8; header=present", NDJSON: NDJSON}


class Endpoints:
    """The handlers of all routes."""

    def __init__(self, hall: Hall) -> None:
        self._hall = hall
        self._desk = hall.desk

    async def symbols(self) -> Response:
        return _told([spelling.symbol(info) async for info in self._desk.symbols()])

    async def symbol(self, symbol: str) -> Response:
        check_symbol(self._desk, symbol)
        return _told(spelling.symbol(self._desk.symbol(symbol)))

    async def status(self) -> Response:
        return _told(spelling.status(self._desk.status()))

    async def sources(self) -> Response:
        return _told({name: spelling.source(info) for name, info in self._desk.sources().items()})

    async def source(self, name: str) -> Response:
        sources = self._desk.sources()
        if name not in sources:
            raise HttpProblem(404, "Not Found", f"there is no source {name[:80]!r}", valid=list(sources))
        return _told(spelling.source(sources[name]))

    # Trades.

    async def trades(self, symbol: str) -> Response:
        check_symbol(self._desk, symbol)
        asked = parameters("from", "to", "after", "before", "limit", "order")
        media = chosen((JSON, CSV, NDJSON))
        wanted = Wanted(
            position("after", asked.get("after")),
            position("before", asked.get("before")),
            moment("from", asked.get("from")),
            moment("to", asked.get("to")),
            one_of("order", asked.get("order", "asc"), ("asc", "desc")) == "desc",
        )
        limit = whole("limit", asked.get("limit"), TRADES if media == JSON else None)
        if media != JSON:
            return await self._all_trades(symbol, wanted, limit, media)
        account = self._hall.account(asker())
        page = await self._desk.trades(symbol, wanted, limit or 0, account=account)
        answer = Response(await _page(page), mimetype=JSON)
        if page.more and page.next is not None:
            direction = "before" if wanted.descending else "after"
            answer.headers["Link"] = next_link(**{direction: shown(page.next)})
        return await _kept(answer)

    async def _all_trades(self, symbol: str, wanted: Wanted, limit: int | None, media: str) -> Response:
        _check_limit(limit)
        account = self._hall.account(asker())
        walk = self._desk.walk(symbol, wanted, account=account)
        if request.method == "HEAD":
            answer = _without_body(media)
        else:
            head = lines.TRADES_HEAD if media == CSV else b""

            async def read() -> Places | None:
                return await anext(walk, None)

            answer = await download(read, _WRITERS[media], head, account, _TYPES[media], limit)
        answer.headers.update(_about(walk))
        return answer

    # Candles.

    async def candles(self, symbol: str) -> Response:
        check_symbol(self._desk, symbol)
        asked = parameters("interval", "from", "to", "limit")
        media = chosen((JSON, CSV, NDJSON))
        interval = asked.get("interval", INTERVAL)
        start, end = moment("from", asked.get("from")), moment("to", asked.get("to"))
        limit = whole("limit", asked.get("limit"), CANDLES if media == JSON else None)
        if media != JSON:
            return await self._all_candles(symbol, interval, start, end, limit, media)
        account, limit = self._hall.account(asker()), limit or 0
        page = await self._desk.candles(symbol, interval, start, end, limit, account=account)
        answer = _told(spelling.candle_page(symbol, interval, page))
        if start is not None and page.next is not None and len(page.candles) >= limit:
            following = await self._desk.candles(symbol, interval, page.next, end, 1, account=account)
            if following.candles and following.candles[0].start > page.candles[-1].start:
                answer.headers["Link"] = next_link(**{"from": to_rfc3339(page.next)})
        return await _kept(answer)

    async def _all_candles(
        self, symbol: str, interval: str, start: int | None, end: int | None, limit: int | None, media: str
    ) -> Response:
        _check_limit(limit)
        account = self._hall.account(asker())
        at: int | None = start or 0
        told = (-1, 0)  # the last candle: several of trades may start at the same time

        async def read() -> Sequence[Candle] | None:
            nonlocal at, told
            if at is None:
                return None
            page = await self._desk.candles(symbol, interval, at, end, CANDLES_AT_ONCE, account=account)
            new = [each for each in page.candles if (each.start, each.first_offset) > told]
            at = page.next if len(page.candles) >= CANDLES_AT_ONCE else None
            told = (new[-1].start, new[-1].first_offset) if new else told
            return new or None

        if request.method == "HEAD":
            await self._desk.candles(symbol, interval, at, end, 1, account=account)
            return _without_body(media)
        head = lines.CANDLES_HEAD if media == CSV else b""
        return await download(read, _CANDLE_WRITERS[media], head, account, _TYPES[media], limit)


def _check_limit(limit: int | None) -> None:
    if limit == 0:
        raise InvalidValue("limit", limit, "must be 1 or more")


def _told(body: Any) -> Response:
    return Response(encode(body), mimetype=JSON)


async def _page(page: TradesPage) -> bytes:
    """A page as JSON: others have their turn while it is written."""
    trades = page.trades
    pieces = []
    for at in range(0, len(trades), AT_ONCE):
        some = [spelling.trade(each.offset, each.trade) for each in trades[at : at + AT_ONCE]]
        pieces.append(encode(some)[1:-1])
        await trio.lowlevel.checkpoint()
    about = encode(spelling.about_page(page))
    return b"".join((about[:-1], b',"trades":[', b",".join(pieces), b"]}"))


async def _kept(answer: Response) -> Response:
    """`answer`, for clients that keep it: who has it already, as it is now, gets a 304."""
    answer.headers["Cache-Control"] = "no-cache"
    answer.headers["Vary"] = "Accept"
    await answer.add_etag()
    await answer.make_conditional(request)
    return answer


def _about(walk: TradesWalk) -> Mapping[str, str]:
    """What a page says beside its entries."""
    told = {"Dataflow-Epoch": str(walk.epoch)}
    return told if walk.rewound is None else told | {"Dataflow-Rewound": shown(walk.rewound)}


def _without_body(media: str) -> Response:
    answer = Response(b"", content_type=_TYPES[media], headers={"Vary": "Accept"})
    del answer.headers["Content-Length"]  # a stream has none
    return answer
