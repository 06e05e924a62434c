"""The operations of one client, over WebSocket.

Rules of this file: which message means what is decided in `transport_ws`. A session has one lane in a topic,
so all operations of a client in one topic share a `Feed`. Between the subscription to a topic and the first
result there is no checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import trio
from attrs import field, frozen
from graphql import DocumentNode

from actors.session import Ending
from actors.update import Rendering, Update
from dataflow.domain import Topic
from dataflow.domain import topic as channels
from dataflow.gateway.clients import AnySession
from dataflow.gateway.face import Conversation
from dataflow.gateway.hall import Hall
from dataflow.gateway.problems import Problem, TooManySubscriptions
from dataflow.gateway.spelling import encode

from . import transport_ws
from .documents import Rejected
from .execution import Result, Service, failed, is_subscription, refused
from .request import Request
from .schema import MARKET_DATA
from .selections import RESULTS, Selection, Wanted, wanted
from .transport_ws import (
    ACKNOWLEDGED,
    INIT_TIMEOUT,
    INIT_WITHIN,
    TAIL,
    WRONG_SUBPROTOCOL,
    Complete,
    Init,
    Order,
    Ping,
    Subscribe,
    Violation,
    next_head,
)

MAX_IN_ONE_TOPIC: Final = 20  # operations of one client: each trade is sent once for each of them


@frozen(eq=False)
class Feed(Rendering[Any]):
    """The operations of one client in one topic: each entry is sent once an operation, as that selects."""

    operations: dict[bytes, Selection] = field(factory=dict)  # by what stands before each of their results

    @property
    def shared(self) -> bool:
        return False

    def wrapped(self, texts: Sequence[bytes]) -> Sequence[bytes]:
        """Results that are the same for all operations."""
        return [head + text + TAIL for text in texts for head in self.operations]

    def texts(self, update: Update) -> Sequence[bytes]:
        written = [(head, selection.results(update)) for head, selection in self.operations.items()]
        places = range(len(update.places))
        return [head + results[place] + TAIL for place in places for head, results in written]

    def payload(self, update: Update) -> Any:
        return self.frame(self.texts(update))


class Operations(Conversation):
    """One client's connection."""

    __slots__ = ("_feeds", "_followed", "_order", "_service", "alarm")

    format = RESULTS

    def __init__(self, session: AnySession, hall: Hall, service: Service, subprotocol: str | None) -> None:
        super().__init__(session, hall)
        self._service = service
        self._order = Order()
        self._feeds: dict[Topic, Feed] = {}
        self._followed: dict[str, Topic] = {}  # by the ids of subscriptions
        self.alarm = trio.current_time() + INIT_WITHIN
        if subprotocol is None:
            self._break_off(Violation(WRONG_SUBPROTOCOL, "Subprotocol not acceptable"))

    async def answer(self, message: str) -> bytes | None:
        try:
            said = self._order.hear(message)
        except Violation as violation:
            self._break_off(violation)
            return None
        match said:
            case Init():
                self.alarm = math.inf
                return ACKNOWLEDGED
            case Ping():
                return transport_ws.pong(said)
            case Subscribe(id, request):
                return await self._start(id, request)
            case Complete(id):
                self._stop(id)
        return None

    def refusal(self, problem: Problem) -> bytes | None:
        raise AssertionError("every operation answers for its own problem")

    def on_alarm(self) -> None:
        self.alarm = math.inf
        self._break_off(Violation(INIT_TIMEOUT, "Connection initialisation timeout"))

    def _break_off(self, violation: Violation) -> None:
        self.session.end(Ending.VIOLATION, violation.words, violation.code)

    async def _start(self, id: str, request: Request) -> bytes | None:
        try:
            self.account.call()
            document = self._service.documents.document(request.query, self.account.pay)
            if is_subscription(document, request):
                return await self._follow(id, document, request)
            elsewhere = self.subscriptions.turns.elsewhere
            answer = await self._service.run(document, request, elsewhere, self.account)
        except Rejected as rejected:
            answer = failed(rejected.errors)
        except Problem as problem:
            answer = refused(problem)
        return self._end(id, answer)

    def _end(self, id: str, answer: Result) -> bytes:
        """The last message of an operation that ends with this answer."""
        self._order.ended(id)
        if "data" not in answer:
            return transport_ws.error(id, encode(answer["errors"]))
        self.session.say(transport_ws.next_(id, encode(answer)))
        return transport_ws.complete(id)

    async def _follow(self, id: str, document: DocumentNode, request: Request) -> bytes | None:
        """The first result of a subscription; None when that comes with the next event."""
        wish = wanted(document, request)
        topic = self._topic(wish)
        feed = self._feeds.get(topic) or Feed(self.format, None, self.session.plain)
        if len(feed.operations) >= MAX_IN_ONE_TOPIC:
            raise TooManySubscriptions(MAX_IN_ONE_TOPIC, "one operation of a client in a topic is enough")
        await self.subscriptions.subscribe(topic, feed)
        # From here to the end of the answer without a checkpoint. An operation that was there got all before.
        selection = self._service.selections.share(topic, wish)
        feed.operations[next_head(id)] = selection
        self._feeds[topic] = feed
        self._followed[id] = topic
        state = self.hall.desk.aggregate(topic.symbol) if wish.root == MARKET_DATA else None
        return None if state is None else transport_ws.next_(id, selection.result(state))

    def _topic(self, wish: Wanted) -> Topic:
        desk = self.hall.desk
        symbol = desk.canonical(wish.symbol)
        if wish.root == MARKET_DATA:
            return desk.day_topic(symbol)
        topic = Topic(channels.TRADES, symbol)
        desk.check_available(topic)
        return topic

    def _stop(self, id: str) -> None:
        topic = self._followed.pop(id, None)
        if topic is None:
            return
        operations = self._feeds[topic].operations
        del operations[next_head(id)]
        if not operations:
            del self._feeds[topic]
            self.subscriptions.unsubscribe(topic)
