"""The price hub: each price of each instrument over a WebSocket at `/pricehub`, and the last one over HTTP.

Rules of this file: words only. A client says nothing; its handshake selects the instruments, and what it says
besides is not heard. It gets `{"Instrument":"BTCUSDT","Price":"61837.63000000"}` for each trade, and nothing
else: its program knows no other message.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Final, TypedDict
from urllib.parse import parse_qs

from attrs import field, frozen
from quart import Response

from actors.update import Encode, Places
from dataflow.domain import Gap, Topic, Trade
from dataflow.domain.symbols import ANY, compact
from dataflow.domain.topic import PRICES
from dataflow.gateway import face
from dataflow.gateway.about import About, Answer, Parameter, Sample, simple, socket_only, watched
from dataflow.gateway.application import HttpProblem, json_response, not_an_upgrade
from dataflow.gateway.clients import AnySession
from dataflow.gateway.face import Entrance, Route, Viewer, Wish
from dataflow.gateway.format import Format
from dataflow.gateway.hall import Hall
from dataflow.gateway.problems import InvalidValue, TooManySubscriptions
from dataflow.gateway.spelling import encode, plain
from dataflow.server.handshake import Handshake, Messages, Socket
from dataflow.settings.schema import FaceSettings, check_path

SELECTION: Final = "instruments"


@frozen(kw_only=True)
class Settings(FaceSettings):
    """The table `[faces.pricehub]`."""

    enabled: bool = False
    path: str = field(default="/pricehub", validator=check_path)


@frozen
class Wanted(Wish):
    """Prices."""

    topics: Sequence[Topic]


class Prices(Format):
    """One object with two texts for each trade."""

    name = "pricehub"

    def encoder(self, topic: Topic, epoch: int) -> Encode:
        heads: dict[str, str] = {}  # by symbol, up to the price

        def encode_each(places: Places) -> list[bytes]:
            made = []
            for _, trade in places:
                head = heads.get(trade.symbol)
                if head is None:
                    head = heads[trade.symbol] = _head(trade.symbol)
                made.append(f'{head}{trade.price:f}"}}'.encode())
            return made

        return encode_each

    def item(self, topic: Topic, epoch: int, offset: int, value: Trade) -> bytes:
        return f'{_head(value.symbol)}{value.price:f}"}}'.encode()

    def hole(self, topic: Topic, epoch: int, gap: Gap) -> bytes:
        raise AssertionError("prices have no holes")


PRICES_FORMAT: Final = Prices()


class Feed(Viewer):
    """One client's prices."""

    __slots__ = ()

    format = PRICES_FORMAT

    async def answer(self, message: Wanted) -> None:
        self.account.call()
        rendering = self.rendering()
        for topic in message.topics:
            await self.subscriptions.subscribe(topic, rendering)


class Face(face.Face):
    """A WebSocket and two questions."""

    def __init__(self, settings: Settings) -> None:
        self._path = settings.path

    def sockets(self, hall: Hall) -> Iterable[Entrance]:
        def converse(session: AnySession, client: Handshake) -> Feed:
            session.hear_first(Wanted(_selected(hall, client)))
            return Feed(session, hall)

        return (
            Entrance(
                Socket(self._path, messages=Messages.EITHER), converse, lambda client: _check(hall, client)
            ),
        )

    def routes(self, hall: Hall) -> Iterable[Route]:
        async def instruments() -> Response:
            return json_response(list(map(compact, hall.core.carriers)))

        async def price(name: str) -> Response:
            return _price(hall, name)

        return (
            Route(self._path, not_an_upgrade, about=_SOCKET),
            Route("/Instruments", instruments, any_case=True, about=_NAMES),
            Route("/Instruments/<name>/price", price, any_case=True, about=_PRICE),
        )

    def about(self, hall: Hall) -> Iterable[Sample]:
        url = f"{{ws}}{self._path}?{SELECTION}={{compact}}"
        words = f"Each price as it comes. Without `?{SELECTION}=` those of all instruments."
        yield watched("Prices", url, words, "JSON.parse(e.data).Price")
        yield simple("Instruments", "/Instruments", "The names of all instruments.")
        yield simple("A price", "/Instruments/{compact}/price", "The price of the last trade.")


def _selected(hall: Hall, client: Handshake) -> Sequence[Topic]:
    """The topics that a handshake asks for, each once. Raises InvalidValue."""
    written = parse_qs(client.query, keep_blank_values=True).get(SELECTION)
    if written is None:
        return (Topic(PRICES, ANY),)
    return tuple(dict.fromkeys(Topic(PRICES, _symbol(hall, name)) for name in ",".join(written).split(",")))


def _symbol(hall: Hall, name: str) -> str:
    symbol = hall.desk.find(name)
    if symbol is None:
        raise InvalidValue(SELECTION, name, "unknown instrument", advice="GET /Instruments names all")
    return symbol


def _check(hall: Hall, client: Handshake) -> None:
    topics, most = _selected(hall, client), hall.settings.session.max_subscriptions
    if len(topics) > most:
        raise TooManySubscriptions(most, "select none, and you get all of them")
    for topic in topics:
        if topic.symbol != ANY:
            hall.desk.check_available(topic)


def _price(hall: Hall, name: str) -> Response:
    symbol = hall.desk.find(name)
    price = None if symbol is None else hall.desk.price(symbol)
    if symbol is None or price is None:
        problem = "unknown instrument" if symbol is None else "no trade yet"
        raise HttpProblem(404, "Not Found", f"{name}: {problem}", instrument=name)
    return Response(_quote(compact(symbol), price), mimetype="application/json")


def _quote(instrument: str, price: Decimal) -> bytes:
    return b'{"instrument":%b,"price":%b}' % (encode(instrument), plain(price).encode())


class _Price(TypedDict):
    instrument: str
    price: float


_SOCKET: Final = socket_only(
    "Prices over a WebSocket", (Parameter(SELECTION, str, "some names, with commas between; else all"),)
)
_NAMES: Final = About("The names of all instruments", {200: Answer("in the order of the sources", list[str])})
_PRICE: Final = About(
    "The price of the last trade",
    {200: Answer("with the digits of the exchange", _Price)},
    {404: "an unknown instrument, or one without a trade yet"},
    parameters=(
        Parameter("name", str, "`BTCUSDT` or `BTC-USDT`, in any case", place="path", example="BTCUSDT"),
    ),
)


def _head(symbol: str) -> str:
    return f'{{"Instrument":{encode(compact(symbol)).decode()},"Price":"'
