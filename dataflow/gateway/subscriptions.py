"""One client's subscriptions: where the past in an answer and the live updates behind it meet, without a
hole.

Rules of this file. The position of an answer is read, and its topic joined, without a checkpoint in between.
Nothing is offered to a session before `answered`: updates that came meanwhile are caught up from the log
then. A fill that is settled during an answer is told behind it, if the answer told of its gap. How the past
is made is told in `recovery`. No word of any protocol.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, Protocol

from attrs import define, field, frozen

from actors.session import NOWHERE
from actors.subscription import Fanout
from actors.update import Fill, Places, Rendering, Update
from dataflow.domain import Topic
from dataflow.domain.symbols import ANY
from dataflow.topics.channel import TopicLog
from dataflow.topics.every import EveryLog
from supervisors import SupervisionError

from .admission import Turns
from .answers import Position
from .format import Format
from .past import Part
from .problems import Problem, TooManySubscriptions, Unavailable
from .recovery import Knows, Recovery, Write, goes_on

if TYPE_CHECKING:
    from .clients import AnySession
    from .hall import Hall

LOGS_AT_ONCE: Final = 50  # made in one turn: a millisecond


@frozen
class Subscribed:
    """The answer to a subscription: live updates begin behind `offset`.

    `recovered` tells whether `past` holds all behind the position that was asked for; None when none was. If
    it is False, what is missing is a gap "overrun" in `past`: at its beginning `UNKNOWN`, if the position is
    not known at all, and later one with its places; unless only the newest entries of the topic count.
    `rewound`: what the client has behind it is no part of the stream, and `past` begins there. `past` is None
    when nothing of it was asked for. `filled`: places of the client's gaps that hold items now; what a
    rewind took is not among them.
    """

    epoch: int
    offset: int
    recovered: bool | None
    past: Part | None
    rewound: Position | None = None
    filled: Sequence[Places] = ()


@define
class _Joining:
    """A subscription whose answer is not said yet."""

    position: int
    rendering: Rendering[Any]
    knows: Knows


@define
class _JoiningAll:
    """A subscription to all symbols of a channel, whose answer is not said yet: what it tells of each."""

    each: dict[Topic, _Joining]
    rendering: Rendering[Any]


class Seat(Protocol):
    """Where a subscription gets its place: among those of the client, or in that to all symbols."""

    def follows(self, topic: Topic) -> bool:
        """Whether `topic` is live, or will be when the answers are said."""

    def knows(self, log: TopicLog, since: Position | None) -> Knows:
        """What the client knows before the answer."""

    def hold(self, topic: Topic, rendering: Rendering[Any]) -> None:
        """Nothing of `topic` is offered until the answer in hand is said: that will tell it all."""

    def hold_back(self, log: TopicLog, rendering: Rendering[Any]) -> int:
        """The last place of `log` that an answer may tell of, if it does not tell all that is behind."""

    def follow(self, topic: Topic, joining: _Joining) -> None:
        """Go live when the answers are said."""


class Subscriptions:
    """Of one session."""

    __slots__ = ("_hall", "_joined", "_joining", "_session", "account", "turns")

    def __init__(self, session: AnySession, hall: Hall) -> None:
        self._session = session
        self._hall = hall
        self.turns = Turns(hall.lobby.admission, session)
        self.account = hall.quotas.exempt  # until the hall says whose it is
        self._joined: dict[Topic, TopicLog | EveryLog] | None = None  # None until there is one
        self._joining: dict[Topic, _Joining | _JoiningAll] | None = None  # while a request is heard

    def epoch(self, topic: Topic) -> int:
        """The epoch of a topic that is followed."""
        return self._hall.core.topics.log_of(topic).stream.epoch

    async def subscribe(
        self,
        topic: Topic,
        rendering: Rendering[Any],
        *,
        since: Position | None = None,
        snapshot: int | None = None,
        write: Write | None = None,
    ) -> Subscribed:
        """Follow `topic` from the answer on; say it, and then call `answered`, before the next checkpoint.

        The answer's past is everything since a position, or else the `snapshot` newest entries. When the
        position is not known any more, it is all there is, or the `snapshot` newest. What is behind a rewind
        counts as known. Raises TooManySubscriptions or Unavailable. A second subscription to a topic changes
        its rendering.

        With `write`, the slices of a long past are given to it in order, and only the last one is returned.
        Nothing is raised once it was called.
        """
        if topic not in (self._joined or ()):
            await self._join(topic)
        return await self.tell(self, self._log(topic), rendering, since, snapshot, write)

    async def tell(
        self,
        seat: Seat,
        log: TopicLog,
        rendering: Rendering[Any],
        since: Position | None,
        snapshot: int | None,
        write: Write | None,
    ) -> Subscribed:
        """The answer to a subscription to the topic of `log`, which takes its place in `seat`."""
        recovery = self._recovery(seat, log, rendering, write, since)
        filled = () if since is None else await recovery.filled(since)
        resumed = None if since is None else recovery.resume(since)
        past = None if resumed is None else recovery.begin(resumed, snapshot is not None)
        if resumed is not None and past is not None and (goes_on(resumed) or snapshot is None):
            past = await recovery.recover(past)
            # From here to the end of the answer without a checkpoint.
            recovery.end(past)
            last = past.last
            seat.hold_back(log, rendering)
        else:
            older = await recovery.older(snapshot or 0)
            last = seat.hold_back(log, rendering)
            if snapshot is not None:
                newest = recovery.newest(snapshot, last, older)
                past = await recovery.show(past or recovery.start(0), newest)
        seat.follow(log.stream.topic, _Joining(last, rendering, recovery.knows))
        epoch = log.stream.epoch
        fork = None if resumed is None else resumed.rewound
        return Subscribed(
            epoch,
            last,
            None if resumed is None else resumed.is_known and not recovery.is_torn,
            past,
            None if fork is None else Position(epoch, fork),
            filled,
        )

    def _recovery(
        self,
        seat: Seat,
        log: TopicLog,
        rendering: Rendering[Any],
        write: Write | None,
        since: Position | None,
    ) -> Recovery:
        format, stream = rendering.format, log.stream
        assert isinstance(format, Format)
        return Recovery(
            log,
            self.turns,
            seat.knows(log, since),
            partial(self._hall.past.part, format, stream.topic, stream.epoch),
            partial(seat.hold, stream.topic, rendering),
            partial(seat.follows, stream.topic),
            self._hall.disk_troubles,
            write,
        )

    async def join(self, topics: Iterable[Topic]) -> None:
        """Take what subscriptions to all of them need, or nothing. The one answer has to subscribe to them.

        Raises TooManySubscriptions or Unavailable.
        """
        new = [topic for topic in topics if topic not in (self._joined or ())]
        self._check_room(len(new))
        for at, topic in enumerate(new):
            try:
                await self._join(topic)
            except Problem:
                for joined in new[:at]:
                    self.unsubscribe(joined)
                raise

    async def join_every(self, topic: Topic, rendering: Rendering[Any]) -> Every:
        """Follow all symbols of a channel, those that come later included. `topic` is one of `desk.every`.

        Use what it returns for the answer. Raises TooManySubscriptions or Unavailable.
        """
        if topic not in (self._joined or ()):
            logs = await self._logs_of_all(topic)
            await self._join(topic)
            del logs  # the log of all has them now
        told: dict[Topic, _Joining] = {}
        joining = (self._joining or {}).pop(topic, None)
        if isinstance(joining, _JoiningAll):
            told = joining.each
        elif self.follows(topic):
            for each, (place, fills) in self._session.told_of_all(topic).items():
                told[each] = _Joining(place, rendering, Knows(fills, [(1, place)]))
            self._session.hold(topic, rendering)
        return Every(self, self._every_log(topic), rendering, told)

    def unsubscribe(self, topic: Topic) -> None:
        """Nothing of `topic` leaves after this, unless it is followed among all. Idempotent."""
        every = self._every(topic) if topic in (self._joined or ()) else None
        told = None if every is None else self._told(topic)
        if self._joining is not None:
            self._joining.pop(topic, None)
        if every is not None and every not in (self._joining or ()):
            self._session.catch_up(every, (), {})
        self._session.unfollow(topic)
        if self._joined is not None and self._joined.pop(topic, None) is not None:
            self.account.subscriptions -= 1
        self._hall.core.topics.leave(topic, self._session)
        if every is not None and told is not None:
            self._go_on(every, {topic: told})

    def answered(self) -> None:
        """The answers are said: from here on the subscriptions in them are live."""
        joining, self._joining = self._joining or {}, None
        for topic, each in joining.items():
            if isinstance(each, _Joining):
                self._session.follow(topic, each.position, each.rendering, each.knows.fills)
                for fill in self._log(topic).stream.fills(each.knows.fills):
                    self._session.amend(fill, each.knows.told)
                self._bring_up(topic)
        for topic, each in joining.items():
            if isinstance(each, _JoiningAll):
                self._session.follow_all(topic, self._every_log(topic), each.rendering)
                self._go_on(topic, each.each)

    def close(self) -> None:
        """The session is over."""
        for topic in self._joined or ():
            self._hall.core.topics.leave(topic, self._session)
        self.account.subscriptions -= len(self._joined or ())
        self._hall.lobby.clients.leave(self._session)

    # Joining: from here on the topic stays open; nothing is offered before the session follows.

    def _check_room(self, wanted: int) -> None:
        most = self._hall.settings.session.max_subscriptions
        if len(self._joined or ()) + wanted > most:
            raise TooManySubscriptions(most)

    async def _join(self, topic: Topic) -> None:
        self._check_room(1)
        self.account.subscribe()
        topics = self._hall.core.topics
        fanout = topics.opened(topic)
        had_turn = fanout is not None
        try:
            fanout = fanout or await self._open(topic)
        except BaseException:
            self.account.subscriptions -= 1
            raise
        self._enter(fanout, topic)  # from here on `unsubscribe` or `close` gives the place back
        if not had_turn:
            await self.turns.take(resuming=False)

    def _enter(self, fanout: Fanout, topic: Topic) -> None:
        fanout.join(self._session)
        log = self._hall.core.topics.log_of(topic)
        self._joined = self._joined or {}
        self._joined[log.stream.topic] = log  # by the log's own topic: the clients' own would be thousands

    async def _open(self, topic: Topic) -> Fanout:
        self.turns.leave()  # it can take seconds to start a topic: nobody else shall wait for that
        try:
            return await self._hall.core.topics.open(topic, self._hall.pool)
        except SupervisionError as error:  # going away, or just being restarted: reported where it happened
            advice = "try again in a moment"
            raise Unavailable(
                "temporarily unavailable", symbol=topic.symbol, problem=str(error), advice=advice
            ) from None

    # A seat.

    def follow(self, topic: Topic, joining: _Joining) -> None:
        self._joining = self._joining or {}
        self._joining[topic] = joining

    def follows(self, topic: Topic) -> bool:
        """Whether `topic` is live, alone or among all, or will be when the answers are said."""
        return self._is_on(topic) or self._every(topic) is not None

    def _is_on(self, topic: Topic) -> bool:
        lane = self._session.lanes.get(topic)
        return topic in (self._joining or ()) or (lane is not None and lane.position != NOWHERE)

    def hold(self, topic: Topic, rendering: Rendering[Any]) -> None:
        if self._joining is not None:
            self._joining.pop(topic, None)
        self._session.hold(topic, rendering)

    def hold_back(self, log: TopicLog, rendering: Rendering[Any]) -> int:
        """Of a topic that is followed already, updates leave behind the answer, and it tells that. Where only
        the newest entries count, they leave before it: the answer must not be newer than what follows."""
        topic = log.stream.topic
        if not self.follows(topic):
            return log.last
        if log.stream.newest_by is not None and topic in self._session.lanes and not self._session.reciting:
            self._bring_up(topic)
        last = self._told(topic).position
        self.hold(topic, rendering)
        return last

    def knows(self, log: TopicLog, since: Position | None) -> Knows:
        """What the client knows before the answer."""
        if self.follows(log.stream.topic):
            told = self._told(log.stream.topic).knows
            return Knows(told.fills, [*told.told])
        return Knows(log.stream.filled, [] if since is None else [(1, since.offset)])

    def _told(self, topic: Topic) -> _Joining:
        """What of a followed topic the client was told, or will be by the answers."""
        joining = (self._joining or {}).get(topic)
        if isinstance(joining, _Joining):
            return joining
        every = (self._joining or {}).get(topic.of(ANY))
        if isinstance(every, _JoiningAll) and topic in every.each:
            return every.each[topic]
        place, rendering = self._session.told(topic), self._session.rendering(topic)
        return _Joining(place, rendering, Knows(self._session.fills(topic), [(1, place)]))

    def _bring_up(self, topic: Topic) -> None:
        log = self._log(topic)
        for fill in log.stream.fills(self._session.lanes[topic].fills):
            self._session.amend(fill)  # before what is read next, which has it already
        while self._session.ended is None:
            update = log.read(self._session.position(topic))
            if update is None:
                return
            self._session.offer(update)

    def _log(self, topic: Topic) -> TopicLog:
        log = (self._joined or {})[topic]
        assert not isinstance(log, EveryLog)
        return log

    # All symbols of a channel. A symbol may be followed alone besides: then it comes by its own lane only.

    def _every(self, topic: Topic) -> Topic | None:
        """The topic of all symbols, with `topic` among them, if it is on."""
        every = topic.of(ANY)
        return every if every != topic and self._is_on(every) else None

    def _every_log(self, topic: Topic) -> EveryLog:
        log = (self._joined or {})[topic]
        assert isinstance(log, EveryLog)
        return log

    def go_live(self, every: Topic, each: dict[Topic, _Joining], rendering: Rendering[Any]) -> None:
        """Follow all topics from there on when the answers are said. For `Every`."""
        self._joining = self._joining or {}
        self._joining[every] = _JoiningAll(each, rendering)

    async def _logs_of_all(self, every: Topic) -> Sequence[TopicLog | EveryLog]:
        """The logs of all its topics, made in turns: thousands of them would take a tenth of a second."""
        logs: list[TopicLog | EveryLog] = []
        core = self._hall.core
        for number, symbol in enumerate(core.symbols):
            if number and number % LOGS_AT_ONCE == 0:
                await self.turns.pause()
            if symbol in core.carriers:
                logs.append(core.topics.log_of(every.of(symbol)))
        return logs

    def _go_on(self, every: Topic, told: Mapping[Topic, _Joining]) -> None:
        """Behind what was told the topics come among all others: what these are ahead with is sent now."""
        joining = (self._joining or {}).get(every)
        if isinstance(joining, _JoiningAll):
            joining.each.update(told)
            return
        log = self._every_log(every)
        parts: list[Update | Fill] = []
        apart: dict[Topic, tuple[int, int]] = {}
        for topic, each in told.items():
            brought = log.places.get(topic, 0), log.fills.get(topic, 0)
            if topic in self._session.lanes:
                continue
            own = log.log_of(topic)
            if brought != (each.position, each.knows.fills) or own.stream.filled != each.knows.fills:
                place = _catch_up(own, each, brought[0], parts)
                if brought != (place, own.stream.filled):
                    apart[topic] = place, own.stream.filled
        self._session.catch_up(every, parts, apart)

    def rendering_of(self, topic: Topic) -> Rendering[Any] | None:
        """How the updates of a topic are written that the client follows alone; else None."""
        return self._told(topic).rendering if topic in (self._joined or ()) else None


def _catch_up(log: TopicLog, told: _Joining, until: int, parts: list[Update | Fill]) -> int:
    """Add what the client lacks up to place `until`, or a little further. Returns its place then."""
    place = told.position
    for fill in log.stream.fills(told.knows.fills):
        some = [fill.within(first, min(last, place)) for first, last in told.knows.told]
        parts += [part for part in some if part is not None]
    while place < until and (update := log.read(place)) is not None:
        parts.append(update)
        place = update.last
    return place


@define
class Every:
    """The answer to a subscription to all symbols of a channel, on its way: a single one for each symbol.

    `told`: what the client was told already. Nothing leaves before the whole answer is said.
    """

    _subscriptions: Subscriptions
    _log: EveryLog
    rendering: Rendering[Any]
    _told: Mapping[Topic, _Joining]
    _each: dict[Topic, _Joining] = field(factory=dict)
    _alone: set[Topic] = field(factory=set)

    def untold(self) -> Sequence[Topic]:
        """The topics that there are by now, without those that were subscribed to, in their order."""
        return sorted(self._log.topics - self._each.keys() - self._alone, key=attrgetter("symbol"))

    def rendering_of(self, topic: Topic) -> Rendering[Any]:
        """How the updates of `topic` are written: one that is followed alone, too, remains as it is."""
        return self._subscriptions.rendering_of(topic) or self.rendering

    async def subscribe(
        self,
        topic: Topic,
        rendering: Rendering[Any],
        *,
        since: Position | None = None,
        snapshot: int | None = None,
        write: Write | None = None,
    ) -> Subscribed:
        """As `Subscriptions.subscribe`, and with the same words. Raises nothing."""
        if self._subscriptions.rendering_of(topic) is not None:
            self._alone.add(topic)
            return await self._subscriptions.subscribe(
                topic, rendering, since=since, snapshot=snapshot, write=write
            )
        log = self._log.log_of(topic)
        return await self._subscriptions.tell(self, log, rendering, since, snapshot, write)

    def complete(self) -> None:
        """All is told: no checkpoint between the last `untold` and this."""
        each = {**self._told, **self._each}  # a symbol may have left meanwhile
        self._subscriptions.go_live(self._log.stream.topic, each, self.rendering)

    # A seat.

    def follows(self, topic: Topic) -> bool:
        return False

    def knows(self, log: TopicLog, since: Position | None) -> Knows:
        told = self._told.get(log.stream.topic)
        if told is not None:
            return Knows(told.knows.fills, [*told.knows.told])
        return Knows(log.stream.filled, [] if since is None else [(1, since.offset)])

    def hold(self, topic: Topic, rendering: Rendering[Any]) -> None:
        pass  # it is held already

    def hold_back(self, log: TopicLog, rendering: Rendering[Any]) -> int:
        told = self._told.get(log.stream.topic)
        return log.last if told is None else told.position

    def follow(self, topic: Topic, joining: _Joining) -> None:
        self._each[topic] = joining
