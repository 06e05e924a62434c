"""The service of `marketdata.proto`: ticks in, aggregates out.

Rules of this file: the words of the service alone. What becomes of a tick decides the intake; aggregates come
from the desk and from the topics, as for every face.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from attrs import evolve, frozen
from google.protobuf.message import DecodeError

from actors.session import Ending
from dataflow.domain import Topic, Trade
from dataflow.gateway.clients import AnySession
from dataflow.gateway.face import Conversation, Wish
from dataflow.gateway.hall import Hall
from dataflow.gateway.problems import Problem
from dataflow.protobuf import marketdata_pb2 as pb
from dataflow.sources.intake import Intake
from dataflow.sources.reading import Unusable, excerpt
from supervisors import ActorGone

from .call import Call, CallWire, failure_of
from .format import Prefixed, message
from .protocol import CallFailed, Status

SOURCE: Final = "ticks"  # of the table that ticks need: [sources.ticks]
MALFORMED: Final = "malformed_protobuf"


@frozen
class Wanted(Wish):
    """The only message that a session ever hears."""

    topic: Topic


class Aggregates(Conversation):
    """One client's stream of aggregates."""

    __slots__ = ("_wire",)

    format = Prefixed()

    def __init__(self, session: AnySession, hall: Hall, wire: CallWire) -> None:
        super().__init__(session, hall)
        self._wire = wire

    async def answer(self, wanted: Wanted) -> bytes | None:
        joined = await self.subscriptions.subscribe(wanted.topic, self.rendering(), snapshot=1)
        assert joined.past is not None
        return b"".join(joined.past.texts) or None

    def refusal(self, problem: Problem) -> None:
        self._wire.failure = failure_of(problem)
        self.session.end(Ending.REFUSED, problem.summary)


class MarketData:
    """`marketdata.MarketDataService`."""

    descriptors = (pb.DESCRIPTOR.services_by_name["MarketDataService"],)

    def __init__(self, hall: Hall) -> None:
        self._hall = hall

    async def GetAggregate(self, call: Call) -> None:  # noqa: N802
        asked = (await call.request()).symbol
        aggregate = self._hall.desk.aggregate(asked)
        if aggregate is None:
            raise CallFailed(Status.NOT_FOUND, f"Symbol not found: {asked}")
        await call.say(message(aggregate))

    async def StreamAggregates(self, call: Call) -> None:  # noqa: N802
        hall = self._hall
        topic = hall.desk.day_topic(hall.desk.canonical((await call.request()).symbol))
        wire = CallWire(Wanted(topic), peer=call.client.peer)
        manners = evolve(hall.manners, ping_timeout=None)  # the server pings the connection
        refused = await hall.open_session(
            wire, lambda session: Aggregates(session, hall, wire), call.client, manners
        )
        if refused is not None:
            status = Status.RESOURCE_EXHAUSTED if refused.is_quota else Status.UNAVAILABLE
            raise CallFailed(status, f"{refused.reason}, try again later", refused.retry_after)
        await call.stream(wire)

    async def StreamTicks(self, call: Call) -> None:  # noqa: N802
        intake = self._hall.intake(SOURCE)
        if intake is None:
            raise CallFailed(
                Status.UNIMPLEMENTED, f"ticks are not taken here: there is no [sources.{SOURCE}]"
            )
        with call.lasting():
            ticks = Ticks(intake)
            while messages := await call.some():
                try:
                    await ticks.take(messages)
                finally:
                    call.told = ticks.told
            await call.say(pb.Ack(success=not ticks.refused, message=ticks.told))
            call.told = ""


class Ticks:
    """The ticks of one stream."""

    def __init__(self, intake: Intake) -> None:
        self.refused: Counter[str] = Counter()
        self._received = 0
        self._intake = intake
        self._tick = pb.Tick()  # filled again for each message

    @property
    def told(self) -> str:
        """What has become of them, for the client."""
        told = f"Received {self._received} ticks"
        if not self.refused:
            return told
        each = ", ".join(f"{reason} {count}" for reason, count in sorted(self.refused.items()))
        return f"{told}, {self.refused.total()} refused: {each}"

    async def take(self, messages: list[bytes]) -> None:
        """Hand over what is good. Waits for room; raises CallFailed behind a message that is no tick."""
        trades: list[Trade] = []
        await self._intake.turn()
        failed = self._judge(messages, trades)
        try:
            await self._intake.put(trades, sum(map(len, messages)))
        except ActorGone:
            raise CallFailed(Status.UNAVAILABLE, "ticks are not taken at present") from None
        self._received += len(trades)
        if failed is not None:
            raise failed

    def _judge(self, messages: list[bytes], trades: list[Trade]) -> CallFailed | None:
        """Add the trades of `messages` to `trades`, up to the first one that is no tick."""
        parse, judge, tick, take = self._tick.ParseFromString, self._intake.judge, self._tick, trades.append
        for written in messages:
            try:
                parse(written)
                take(judge(tick))
            except Unusable as problem:
                self.refused[problem.reason] += 1
                self._intake.refused(problem.reason, excerpt(written))
            except DecodeError:
                self._intake.refused(MALFORMED, excerpt(written))
                return CallFailed(Status.INTERNAL, f"a message is no {pb.Tick.DESCRIPTOR.full_name}")
        return None
