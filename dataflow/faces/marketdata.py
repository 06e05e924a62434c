"""The day so far of one symbol: at `/api/v1/marketdata/SYMBOL`, and live by the WebSocket `/ws/marketdata`.

Rules of this file: words only. A client says nothing; its handshake names the symbol, and what it says
besides is not heard. It gets the state of now, and then one for each trade.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, TypedDict
from urllib.parse import parse_qs

from attrs import frozen
from quart import Response

from dataflow.domain import Gap, Topic
from dataflow.domain.aggregate import Aggregate
from dataflow.gateway import face
from dataflow.gateway.about import About, Answer, Parameter, Sample, simple, socket_only, watched
from dataflow.gateway.application import HttpProblem, not_an_upgrade
from dataflow.gateway.clients import AnySession
from dataflow.gateway.face import Entrance, Route, Viewer, Wish
from dataflow.gateway.format import Format
from dataflow.gateway.hall import Hall
from dataflow.gateway.problems import InvalidValue
from dataflow.gateway.spelling import amount, encode, milliseconds, plain
from dataflow.server.handshake import Handshake, Messages, Socket
from dataflow.settings.schema import FaceSettings

PATH: Final = "/ws/marketdata"
SYMBOL: Final = "symbol"


@frozen(kw_only=True)
class Settings(FaceSettings):
    """The table `[faces.marketdata]`."""

    enabled: bool = False


@frozen
class Wanted(Wish):
    """A day."""

    topic: Topic


class States(Format):
    """One object for each state of a day."""

    name = "marketdata"

    def item(self, topic: Topic, epoch: int, offset: int, value: Aggregate) -> bytes:
        return spelled(value)

    def hole(self, topic: Topic, epoch: int, gap: Gap) -> bytes:
        raise AssertionError("states have no holes")


def spelled(day: Aggregate) -> bytes:
    """The object that clients get: all numbers, with all their digits. The time is in ms since the epoch."""
    prices = ",".join(f'"{name}":{plain(getattr(day, name))}' for name in ("open", "high", "low", "close"))
    return (
        f'{{"symbol":{encode(day.symbol).decode()},{prices},"volume":{amount(day.volume)},'
        f'"timestamp":{milliseconds(day.timestamp)}}}'
    ).encode()


STATES: Final = States()


class Feed(Viewer):
    """One client's day."""

    __slots__ = ()

    format = STATES

    async def answer(self, message: Wanted) -> bytes | None:
        self.account.call()
        joined = await self.subscriptions.subscribe(message.topic, self.rendering(), snapshot=1)
        assert joined.past is not None
        return joined.past.texts[-1] if joined.past.texts else None


class Face(face.Face):
    """A WebSocket and a question."""

    follows_days = True

    def sockets(self, hall: Hall) -> Iterable[Entrance]:
        def converse(session: AnySession, client: Handshake) -> Feed:
            session.hear_first(Wanted(hall.desk.day_topic(_symbol(hall, client))))
            return Feed(session, hall)

        def check(client: Handshake) -> None:
            _symbol(hall, client)

        return (Entrance(Socket(PATH, messages=Messages.EITHER), converse, check),)

    def routes(self, hall: Hall) -> Iterable[Route]:
        async def marketdata(symbol: str) -> Response:
            return _now(hall, symbol)

        return (
            Route(PATH, not_an_upgrade, about=_SOCKET),
            Route("/api/v1/marketdata/<symbol>", marketdata, about=_DAY),
        )

    def about(self, hall: Hall) -> Iterable[Sample]:
        url = f"{{ws}}{PATH}?{SYMBOL}={{symbol}}"
        words = "The day so far, and again after each trade."
        yield watched("The day of a symbol, live", url, words, "JSON.parse(e.data)")
        yield simple("The day of a symbol", "/api/v1/marketdata/{symbol}", "The UTC day so far.")


def _symbol(hall: Hall, client: Handshake) -> str:
    """The symbol that a handshake names; it need not exist yet. Raises InvalidValue."""
    written = parse_qs(client.query).get(SYMBOL)
    if written is None:
        raise InvalidValue(SYMBOL, None, "is missing", example=f"{PATH}?{SYMBOL}=BTC-USD")
    return hall.desk.canonical(written[0])


def _now(hall: Hall, written: str) -> Response:
    day = hall.desk.aggregate(written)
    if day is None:
        told = f"Symbol not found: {written}"
        raise HttpProblem(404, "Not Found", told, error=f"NOT_FOUND: {told}")
    return Response(spelled(day), mimetype="application/json")


class _State(TypedDict):
    symbol: str
    open: float
    high: float
    low: float
    close: float
    volume: float
    timestamp: int


_NAME: Final = "`BTC-USDT` or `BTCUSDT`, in any case"
_SOCKET: Final = socket_only(
    "The day of a symbol over a WebSocket",
    (Parameter(SYMBOL, str, _NAME, required=True, example="BTC-USDT"),),
)
_DAY: Final = About(
    "The UTC day of a symbol so far",
    {200: Answer("all numbers with all their digits; `timestamp` in ms since the epoch", _State)},
    {404: "there is no such symbol, or no trade of it; `error` says so, too"},
    parameters=(Parameter("symbol", str, _NAME, place="path", example="BTC-USDT"),),
)
