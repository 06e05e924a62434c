"""Server-Sent Events: `GET /api/v1/stream/SYMBOL`, a channel's stream with resume, for browsers and for curl.

Rules of this file: words only. An event's id is its place, "EPOCH-OFFSET"; a client that comes back with the
last one (`Last-Event-ID`, or `?since=`) gets everything since, in order, or a gap that says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

import trio
from attrs import evolve, frozen
from quart import Response, request

from actors.update import Encode, Places, rendering
from dataflow.domain import Gap, Recorded, Topic
from dataflow.domain.notice import Draining, Notice, Refused, SourceLost, SourceRestored, Waiting
from dataflow.domain.topic import QUALITY, TRADES
from dataflow.gateway import spelling
from dataflow.gateway.application import HttpProblem, asker
from dataflow.gateway.face import Entrance, Route, Talk
from dataflow.gateway.hall import Hall
from dataflow.gateway.problems import InvalidValue
from dataflow.gateway.spelling import encode
from dataflow.gateway.subscriptions import Position
from dataflow.server.streaming_wire import StreamingWire
from dataflow.settings.schema import FaceSettings
from supervisors import Child

PING_INTERVAL: Final = 15.0  # seconds between two comment lines in a quiet stream
CONTENT_TYPE: Final = "text/event-stream"
COMMENT: Final = b":\n\n"
_ID: Final = re.compile(r"([0-9]{1,18})-([0-9]{1,18})")
_KINDS: Final = {
    SourceLost: "connection.lost",
    SourceRestored: "connection.restored",
    Waiting: "connection.waiting",
    Refused: "connection.refused",
    Draining: "connection.draining",
}


@frozen(kw_only=True)
class Settings(FaceSettings):
    """The table `[faces.sse]`."""


@frozen
class Wanted:
    """What a client asks for: the only message that it ever sends."""

    topic: Topic
    since: Position | None

    def __len__(self) -> int:
        return 1  # for the session, which bounds what it reads ahead


class Events:
    """The format: a place is an event whose id is the place."""

    name = "sse"

    def encoder(self, topic: Topic, epoch: int) -> Encode:
        if topic.channel == QUALITY:
            return lambda places: [
                _event("quality", spelling.quality(state), epoch, at) for at, state in places
            ]

        def trades(places: Places) -> list[bytes]:
            return [
                self.hole(topic, epoch, entry)
                if isinstance(entry, Gap)
                else self.item(topic, epoch, Recorded(at, entry))
                for at, entry in places
            ]

        return trades

    def item(self, topic: Topic, epoch: int, entry: Recorded) -> bytes:
        return _event("trade", spelling.trade(entry), epoch, entry.offset)

    def hole(self, topic: Topic, epoch: int, gap: Gap) -> bytes:
        return _event("gap", spelling.gap(gap), epoch, gap.last)

    def gap(self, topic: Topic, epoch: int, gap: Gap, skipped: int) -> bytes:
        return _event("gap", spelling.gap(gap) | {"skipped": skipped}, epoch, gap.last)

    def notice(self, notice: Notice) -> bytes:
        told = spelling.fields(notice)
        return _event("notice", {"kind": _KINDS[type(notice)], **told})


EVENTS: Final = Events()


class Stream(Talk):
    """One client's stream: a `gateway.face.Conversation`."""

    __slots__ = ("_hall",)

    format = EVENTS

    def __init__(self, session: Any, hall: Hall) -> None:
        super().__init__(session, hall)
        self._hall = hall

    async def hear(self, message: Wanted) -> None:
        turns, topic = self.subscriptions.turns, message.topic
        await turns.take(resuming=message.since is not None)
        try:
            kind = rendering(EVENTS, None, self.session.frame)
            joined = await self.subscriptions.subscribe(topic, kind, since=message.since)
            texts = [] if joined.past is None else joined.past.texts
            if joined.recovered is False:
                unknown = Gap(0, 0, "overrun", exact=False)
                texts = [_event("gap", spelling.gap(unknown), joined.epoch, joined.offset)]
            if topic.channel == QUALITY:
                states = self._hall.core.quality(topic.symbol)
                texts = [
                    _event("quality", spelling.quality(state), joined.epoch, joined.offset)
                    for state in states
                ]
            self.session.say(b"".join(texts) or COMMENT)  # a sign that the stream has begun
            self.subscriptions.answered()
            await trio.lowlevel.checkpoint()
        finally:
            turns.leave()


class Face:
    """A `gateway.face.Face`."""

    def __init__(self, settings: Settings) -> None:
        pass

    def routes(self, hall: Hall) -> Iterable[Route]:
        async def stream(symbol: str) -> Response:
            return await _open(hall, symbol)

        return (Route("/api/v1/stream/<symbol>", stream),)

    def sockets(self, hall: Hall) -> Iterable[Entrance]:
        return ()

    def children(self, hall: Hall) -> Iterable[Child]:
        return ()


async def _open(hall: Hall, symbol: str) -> Response:
    topic = hall.desk.topic(request.args.get("channel", TRADES), symbol)
    hall.desk.check_available(topic)
    if request.method == "HEAD":
        return Response(b"", content_type=CONTENT_TYPE)
    since = _position(request.headers.get("Last-Event-ID") or request.args.get("since"))
    wire = StreamingWire(Wanted(topic, since), peer=asker().peer, comment=COMMENT)
    manners = evolve(hall.manners, ping_interval=PING_INTERVAL, ping_timeout=None)
    delay = await hall.open_session(wire, lambda session: Stream(session, hall), manners)
    if delay is not None:
        raise HttpProblem(503, "Service Unavailable", "there is no room, try again later", retry_after=delay)
    answer = Response(wire.body(), content_type=CONTENT_TYPE, headers={"Cache-Control": "no-store"})
    answer.timeout = None  # the stream ends when the client or the server leaves
    return answer


def _position(text: str | None) -> Position | None:
    if not text:
        return None
    match = _ID.fullmatch(text)
    if match is None:
        raise InvalidValue(
            "since", text, "must be EPOCH-OFFSET, the id of an event", example="1763696936212-612"
        )
    return Position(int(match[1]), int(match[2]))


def _event(kind: str, data: Any, epoch: int = 0, offset: int = 0) -> bytes:
    """An event; without an epoch it has no place in the stream."""
    place = b"id: %d-%d\n" % (epoch, offset) if epoch else b""
    return b"%bevent: %b\ndata: %b\n\n" % (place, kind.encode(), encode(data))
