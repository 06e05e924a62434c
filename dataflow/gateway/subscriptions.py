"""One client's subscriptions: where the past in an answer and the live updates behind it meet, without a
hole.

Rules of this file. The position of an answer is read, and its topic joined, without a checkpoint in between.
Nothing is offered to a session before `answered`: updates that came meanwhile are caught up from the log
then. A long past is made in slices, with a turn for each (see `admission`). Who can write slice by slice gets
only the newest one in the answer: then the log is the queue of a slow client, and what is forgotten before it
was read is a gap. No word of any protocol.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from attrs import define, field, frozen

from actors.session import NOWHERE
from actors.subscription import Fanout
from actors.update import Places, Rendering, Update
from dataflow.domain import Gap, Topic
from dataflow.domain.symbols import ANY
from dataflow.topics.channel import TopicLog
from dataflow.topics.every import EveryLog
from supervisors import SupervisionError

from .admission import Turns
from .format import Format
from .past import Part
from .problems import Problem, TooManySubscriptions, Unavailable

if TYPE_CHECKING:
    from .clients import AnySession
    from .hall import Hall

RECOVERY_LIMIT: Final = 20_000  # entries in the answer to `since`: some 40 ms of encoding, and 4 MB
RECOVERY_SLICE: Final = 200  # of them in one turn: half a millisecond, and 45 KB
UNKNOWN: Final = Gap(0, 0, "overrun", exact=False)  # before what is left; place 0 is never an entry's


Write: TypeAlias = Callable[[Part], Awaitable[None]]


@frozen
class Position:
    """A place in the stream of a topic."""

    epoch: int
    offset: int


@frozen
class Subscribed:
    """The answer to a subscription: live updates begin behind `offset`.

    `recovered` tells whether `past` holds all behind the position that was asked for; None when none was. If
    it is False, `past` begins with the gap `UNKNOWN`, unless only the newest entries of the topic count.
    `past` is None when nothing of it was asked for.
    """

    epoch: int
    offset: int
    recovered: bool | None
    past: Part | None


@define
class _Joining:
    """A subscription whose answer is not said yet."""

    position: int
    rendering: Rendering[Any]


@define
class _JoiningAll:
    """A subscription to all topics of a channel, whose answer is not said yet: how much it tells of each."""

    places: dict[Topic, int]
    rendering: Rendering[Any]


class Seat(Protocol):
    """Where a subscription gets its place: among those of the client, or in that to all symbols."""

    def follows(self, topic: Topic) -> bool:
        """Whether `topic` is live, or will be when the answers are said."""

    def hold(self, topic: Topic, rendering: Rendering[Any]) -> None:
        """Nothing of `topic` is offered until the answer in hand is said: that will tell it all."""

    def hold_back(self, log: TopicLog, rendering: Rendering[Any]) -> int:
        """The last place of `log` that an answer may tell of, if it does not tell all that is behind."""

    def follow(self, topic: Topic, rendering: Rendering[Any], last: int) -> None:
        """Go live behind place `last` when the answers are said."""


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
        position is not known any more, it is all there is, or the `snapshot` newest. Raises
        TooManySubscriptions or Unavailable. A second subscription to a topic changes its rendering.

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
        slices = _Slices(self, seat, log, rendering, write)
        recovered, past = self._beginning(log, rendering, since)
        if past is not None and (recovered or snapshot is None):
            past = await slices.recover(past)
            # From here to the end of the answer without a checkpoint.
            past.add(log.behind(past.last, RECOVERY_SLICE))
            last = past.last
            seat.hold_back(log, rendering)
        else:
            last = seat.hold_back(log, rendering)
            if snapshot is not None:
                newest = log.newest(snapshot + log.last - last)
                newest = [place for place in newest if place[0] <= last]
                past = await slices.show(past or self.part(log, rendering, 0), newest)
        seat.follow(log.stream.topic, rendering, last)
        return Subscribed(log.stream.epoch, last, recovered, past)

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
            await self._join(topic)
        told: Mapping[Topic, int] = {}
        joining = (self._joining or {}).pop(topic, None)
        if isinstance(joining, _JoiningAll):
            told = joining.places
        elif self.follows(topic):
            told = self._session.told_of_all(topic)
            self._session.hold(topic, rendering)
        return Every(self, self._every_log(topic), rendering, told)

    def unsubscribe(self, topic: Topic) -> None:
        """Nothing of `topic` leaves after this, unless it is followed among all. Idempotent."""
        every = self._every(topic) if topic in (self._joined or ()) else None
        told = 0 if every is None else self._told(topic)
        if self._joining is not None:
            self._joining.pop(topic, None)
        if every is not None and every not in (self._joining or ()):
            self._session.catch_up(every, (), {})
        self._session.unfollow(topic)
        if self._joined is not None and self._joined.pop(topic, None) is not None:
            self.account.subscriptions -= 1
        self._hall.core.topics.leave(topic, self._session)
        if every is not None:
            self._go_on(every, {topic: told})

    def answered(self) -> None:
        """The answers are said: from here on the subscriptions in them are live."""
        joining, self._joining = self._joining or {}, None
        for topic, each in joining.items():
            if isinstance(each, _Joining):
                self._session.follow(topic, each.position, each.rendering)
                self._bring_up(topic)
        for topic, each in joining.items():
            if isinstance(each, _JoiningAll):
                self._session.follow_all(topic, self._every_log(topic), each.rendering)
                self._go_on(topic, each.places)

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

    def follow(self, topic: Topic, rendering: Rendering[Any], last: int) -> None:
        self._joining = self._joining or {}
        self._joining[topic] = _Joining(last, rendering)

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

    def _bring_up(self, topic: Topic) -> None:
        log = self._log(topic)
        while self._session.ended is None:
            update = log.read(self._session.position(topic))
            if update is None:
                return
            self._session.offer(update)

    def _log(self, topic: Topic) -> TopicLog:
        log = (self._joined or {})[topic]
        assert not isinstance(log, EveryLog)
        return log

    def hold_back(self, log: TopicLog, rendering: Rendering[Any]) -> int:
        """Of a topic that is followed already, updates leave behind the answer, and it tells that."""
        topic = log.stream.topic
        if not self.follows(topic):
            return log.last
        last = self._told(topic)
        self.hold(topic, rendering)
        return last

    def _told(self, topic: Topic) -> int:
        """The last place of a followed topic that the client was told, or will be by the answers."""
        joining = (self._joining or {}).get(topic)
        if isinstance(joining, _Joining):
            return joining.position
        every = (self._joining or {}).get(topic._replace(symbol=ANY))
        if isinstance(every, _JoiningAll) and topic in every.places:
            return every.places[topic]
        return self._session.told(topic)

    # All symbols of a channel. A symbol may be followed alone besides: then it comes by its own lane only.

    def _every(self, topic: Topic) -> Topic | None:
        """The topic of all symbols, with `topic` among them, if it is on."""
        every = topic._replace(symbol=ANY)
        return every if every != topic and self._is_on(every) else None

    def _every_log(self, topic: Topic) -> EveryLog:
        log = (self._joined or {})[topic]
        assert isinstance(log, EveryLog)
        return log

    def _go_on(self, every: Topic, told: Mapping[Topic, int]) -> None:
        """Behind these places the topics come among all others: what these are ahead with is sent now."""
        joining = (self._joining or {}).get(every)
        if isinstance(joining, _JoiningAll):
            joining.places.update(told)
            return
        log = self._every_log(every)
        updates: list[Update] = []
        apart: dict[Topic, int] = {}
        for topic, place in told.items():
            newest = log.places.get(topic, 0)
            if place == newest or topic in self._session.lanes:
                continue
            while place < newest and (update := log.log_of(topic).read(place)) is not None:
                updates.append(update)
                place = update.last
            if place > newest:
                apart[topic] = place
        self._session.catch_up(every, updates, apart)

    def go_live(self, every: Topic, places: dict[Topic, int], rendering: Rendering[Any]) -> None:
        """Follow all topics from these places on when the answers are said. For `Every`."""
        self._joining = self._joining or {}
        self._joining[every] = _JoiningAll(places, rendering)

    def rendering_of(self, topic: Topic) -> Rendering[Any] | None:
        """How the updates of a topic are written that the client follows alone; else None."""
        if topic not in (self._joined or ()):
            return None
        joining = (self._joining or {}).get(topic)
        return self._session.lanes[topic].rendering if joining is None else joining.rendering

    # The past.

    def _beginning(
        self, log: TopicLog, rendering: Rendering[Any], since: Position | None
    ) -> tuple[bool | None, Part | None]:
        """Whether everything since is known, and the part of the past that begins there."""
        if since is None:
            return None, None
        known, after, _ = log.resume(since.epoch, since.offset, RECOVERY_LIMIT)
        part = self.part(log, rendering, after)
        if not known and log.stream.newest_by is None:
            part.add([(after, UNKNOWN)])
        return known, part

    def part(self, log: TopicLog, rendering: Rendering[Any], after: int) -> Part:
        """An empty part of the past of `log` behind place `after`, in the format of its updates."""
        assert isinstance(rendering.format, Format)
        return self._hall.past.part(rendering.format, log.stream.topic, log.stream.epoch, after)


@define
class Every:
    """The answer to a subscription to all symbols of a channel, on its way: a single one for each symbol.

    `told`: places of which the client was told already. Nothing leaves before the whole answer is said.
    """

    _subscriptions: Subscriptions
    _log: EveryLog
    rendering: Rendering[Any]
    _told: Mapping[Topic, int]
    _places: dict[Topic, int] = field(factory=dict)
    _alone: set[Topic] = field(factory=set)

    def untold(self) -> Sequence[Topic]:
        """The topics that there are by now, without those that were subscribed to, in their order."""
        return sorted(self._log.topics - self._places.keys() - self._alone)

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
        places = {**self._told, **self._places}  # a symbol may have left meanwhile
        self._subscriptions.go_live(self._log.stream.topic, places, self.rendering)

    # A seat.

    def follows(self, topic: Topic) -> bool:
        return False

    def hold(self, topic: Topic, rendering: Rendering[Any]) -> None:
        pass  # it is held already

    def hold_back(self, log: TopicLog, rendering: Rendering[Any]) -> int:
        return self._told.get(log.stream.topic, log.last)

    def follow(self, topic: Topic, rendering: Rendering[Any], last: int) -> None:
        self._places[topic] = last


@frozen
class _Slices:
    """The slices of a long past: each is written, or added to the one part where nobody wants to write."""

    _subscriptions: Subscriptions
    _seat: Seat
    _log: TopicLog
    _rendering: Rendering[Any]
    _write: Write | None

    async def recover(self, past: Part) -> Part:
        """Everything behind `past` but the newest slice. It ends, however fast new entries come."""
        for _ in range(2 * RECOVERY_LIMIT // RECOVERY_SLICE):
            entries = self._log.behind(past.last, RECOVERY_SLICE + 1)
            if len(entries) <= RECOVERY_SLICE:
                break
            past.add(entries[:RECOVERY_SLICE])
            past = await self._next(past)
        return past

    async def show(self, past: Part, entries: Places) -> Part:
        """These entries. They are not sliced for a client that follows the topic: it is owed its updates."""
        if self._write is not None and not self._seat.follows(self._log.stream.topic):
            while len(entries) > RECOVERY_SLICE:
                past.add(entries[:RECOVERY_SLICE])
                entries = entries[RECOVERY_SLICE:]
                past = await self._next(past)
        past.add(entries)
        return past

    async def _next(self, past: Part) -> Part:
        """The part behind `past`, which is written now if it can be."""
        if self._write is None:
            await self._subscriptions.turns.pause()
            return past
        self._seat.hold(self._log.stream.topic, self._rendering)
        await self._write(past)
        return self._subscriptions.part(self._log, self._rendering, past.last)
