"""Server-Sent Events: `GET /api/v1/stream/SYMBOL`, a channel's stream with resume, for browsers and for curl.

Rules of this file: words only. An event's id is its place, "EPOCH-OFFSET"; a client that comes back with the
last one (`Last-Event-ID`, or `?since=`) gets everything since, in order; or a gap that says that this is not
known any more, and then what there is. If its branch was lost, the first event is `rewind`. A `filled` has no
id: it concerns earlier places. Nor has a `switched`, which tells its place itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from attrs import evolve, frozen
from quart import Response, request

from actors.session import Ending
from actors.update import Places
from dataflow.domain import Gap, Topic
from dataflow.domain.notice import Draining, Notice, StreamSwitched
from dataflow.domain.topic import CANDLES, TRADES
from dataflow.gateway import face, spelling
from dataflow.gateway.about import About, Answer, Parameter, Sample, Trial
from dataflow.gateway.answers import Position
from dataflow.gateway.application import asker, chosen
from dataflow.gateway.desk import MAX_COUNT
from dataflow.gateway.face import Conversation, Route, Wish
from dataflow.gateway.format import Format
from dataflow.gateway.hall import Hall
from dataflow.gateway.past import Part
from dataflow.gateway.problems import InvalidValue, Problem
from dataflow.gateway.responses import UNBUFFERED, endless, open_session
from dataflow.gateway.spelling import encode
from dataflow.server.streaming_wire import StreamingWire
from dataflow.settings.schema import FaceSettings

PING_INTERVAL: Final = 15.0  # seconds between two comment lines in a quiet stream
CONTENT_TYPE: Final = "text/event-stream"
NDJSON: Final = "application/x-ndjson"
_KINDS: Final = {TRADES: "trade", CANDLES: "candle"}  # the names of events
_ID: Final = re.compile(r"([0-9]{1,18})-([0-9]{1,18})")


@frozen(kw_only=True)
class Settings(FaceSettings):
    """The table `[faces.sse]`."""


@frozen
class Wanted(Wish):
    """The only message that a client ever sends."""

    topic: Topic
    since: Position | None


class Events(Format):
    """An event for each place; its id is the place. `event` makes its text."""

    name = "sse"
    comment = b":\n\n"

    def event(self, kind: str, data: Any, epoch: int = 0, offset: int = 0) -> bytes:
        """An event; without an epoch it has no place in the stream."""
        place = b"id: %d-%d\n" % (epoch, offset) if epoch else b""
        return b"%bevent: %b\ndata: %b\n\n" % (place, kind.encode(), encode(data))

    def item(self, topic: Topic, epoch: int, offset: int, value: Any) -> bytes:
        return self.event(
            _KINDS.get(topic.channel, topic.channel), spelling.item(topic, offset, value), epoch, offset
        )

    def hole(self, topic: Topic, epoch: int, gap: Gap) -> bytes:
        return self.event("gap", spelling.gap(gap), epoch, gap.last)

    def gap(self, topic: Topic, epoch: int, gap: Gap, skipped: int) -> bytes:
        return self.event("gap", spelling.gap(gap) | {"skipped": skipped}, epoch, gap.last)

    def filled(self, topic: Topic, epoch: int, places: Places) -> bytes:
        trades = [spelling.item(topic, place, value) for place, value in places]
        return self.event("filled", {"from": places[0][0], "to": places[-1][0], "trades": trades})

    def rewind(self, topic: Topic, epoch: int, offset: int) -> bytes:
        return self.event("rewind", {"epoch": epoch, "offset": offset}, epoch, offset)

    def notice(self, notice: Notice) -> bytes:
        if isinstance(notice, StreamSwitched):
            return self.event("switched", spelling.fields(notice))
        return self.event("notice", {"kind": spelling.KINDS[type(notice)], **spelling.fields(notice)})


class Lines(Events):
    """The same events as NDJSON: `{"event", "id", "data"}`, a line each; an empty line is a sign of life."""

    name = "ndjson"
    comment = b"\n"

    def event(self, kind: str, data: Any, epoch: int = 0, offset: int = 0) -> bytes:
        place = {"id": f"{epoch}-{offset}"} if epoch else {}
        return encode({"event": kind, **place, "data": data}) + b"\n"


EVENTS: Final = Events()
LINES: Final = Lines()
FORMATS: Final[dict[str, Events]] = {CONTENT_TYPE: EVENTS, NDJSON: LINES}


class Stream(Conversation):
    """One client's stream."""

    __slots__ = ()

    format: Events = EVENTS

    async def answer(self, message: Wanted) -> bytes:
        topic, since, snapshot = message.topic, message.since, None
        if not self.hall.desk.owes_every_entry(topic):  # then a stream begins with the state of things
            since, snapshot = None, MAX_COUNT
        joined = await self.subscriptions.subscribe(
            topic, self.rendering(), since=since, snapshot=snapshot, write=self._write
        )
        past = [] if joined.past is None else joined.past.texts
        return b"".join(past) or self.format.comment  # a sign that the stream has begun

    async def _write(self, past: Part) -> None:
        await self.begin(b"".join(past.texts))

    def refusal(self, problem: Problem) -> None:
        self.session.say(self.format.event("notice", {"kind": "unavailable", **problem.data}))
        self.session.end(Ending.REFUSED, problem.summary)

    def resumes(self, message: Wanted) -> bool:
        return message.since is not None

    def heartbeat(self) -> bytes:
        return self.format.comment


class LineStream(Stream):
    """The same, in lines."""

    __slots__ = ()

    format = LINES


class Face(face.Face):
    """One endpoint."""

    def routes(self, hall: Hall) -> Iterable[Route]:
        async def stream(symbol: str) -> Response:
            return await _open(hall, symbol)

        return (Route("/api/v1/stream/<symbol>", stream, about=_ABOUT),)

    def about(self, hall: Hall) -> Iterable[Sample]:
        url = "{http}/api/v1/stream/{symbol}"
        lines = {
            "curl": f"curl -N {url}",
            "Python": _PYTHON.replace("URL", url),
            "JavaScript": f"{_IN_NODE}\n"
            f'new EventSource("{url}").addEventListener("trade", e => console.log(e.data));',
        }
        words = "Trades as they come, over plain HTTP. After a break a browser goes on where it was."
        yield Sample("Server-Sent Events", url, words, lines=lines, trial=Trial("events", url))
        url += "?channel=candles&interval=1m"
        lines = {"curl": f"curl -N '{url}'"}
        words = "The candles of the last hours, and each one again when it changes."
        yield Sample("Candles, live", url, words, lines=lines, trial=Trial("events", url))


async def _open(hall: Hall, symbol: str) -> Response:
    topic = hall.desk.topic(request.args.get("channel", TRADES), symbol, request.args.get("interval", ""))
    hall.desk.check_available(topic)
    media = chosen((CONTENT_TYPE, NDJSON), strict=False)  # it was so before there was a choice
    if request.method == "HEAD":
        told = Response(b"", content_type=media, headers=UNBUFFERED)
        del told.headers["Content-Length"]  # a stream has none
        return told
    if hall.closed:  # a browser comes back by itself behind the end of a stream, but never behind a 503
        return Response(FORMATS[media].notice(Draining()), content_type=media)
    since = _position(request.headers.get("Last-Event-ID") or request.args.get("since"))
    manners = evolve(hall.manners, ping_interval=PING_INTERVAL, ping_timeout=None)
    wire = StreamingWire(Wanted(topic, since), peer=asker().peer)
    stream = Stream if media == CONTENT_TYPE else LineStream
    await open_session(hall, wire, lambda session: stream(session, hall), manners)
    return endless(wire.body(), media)


def _position(text: str | None) -> Position | None:
    if not text:
        return None
    match = _ID.fullmatch(text)
    if match is None:
        raise InvalidValue(
            "since", text, "must be EPOCH-OFFSET, the id of an event", example="1763696936212-612"
        )
    return Position(int(match[1]), int(match[2]))


_ABOUT: Final = About(
    "Follow a channel of a symbol",
    {200: Answer("a stream of Server-Sent Events, without end", str, CONTENT_TYPE, also={NDJSON: str})},
    {
        400: "an unknown symbol or channel (`nearest` and `valid` have right ones), or a malformed place",
        429: "this client has as many sessions as it may have",
        503: "no room for another client, or every source refuses the symbol",
    },
    parameters=(
        Parameter("symbol", str, "the name of a symbol", place="path", example="BTC-USDT"),
        Parameter("channel", str, "`trades`, `candles` or `quality`", default=TRADES),
        Parameter("interval", str, "of candles", example="1m"),
        Parameter("since", str, "a place, EPOCH-OFFSET: everything after it comes first"),
        Parameter("Last-Event-ID", str, "the same; comes before `since`", place="header"),
    ),
    more="Events are `trade`, `candle`, `quality`, `gap`, `filled`, `rewind`, `switched` and `notice`. The "
    f"`id` of an event is its place. With `Accept: {NDJSON}` each event is a line: `{{event, id, data}}`.",
)

_IN_NODE: Final = "// a browser; Node.js with --experimental-eventsource"
_PYTHON: Final = """\
import httpx
from httpx_sse import connect_sse

with httpx.Client(timeout=None) as client, connect_sse(client, "GET", "URL") as source:
    for event in source.iter_sse():
        print(event.event, event.id, event.data, flush=True)
"""
