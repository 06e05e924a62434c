"""One client's subscriptions: where the past in an answer and the live updates behind it meet, without a
hole.

Rules of this file. The position of an answer is read, and its topic joined, without a checkpoint in between.
Nothing is offered to a session before `answered`: updates that came meanwhile are caught up from the log
then. A long past is made in slices, with a turn for each (see `admission`). Who can write slice by slice gets
only the newest one in the answer: then the log is the queue of a slow client, and what is forgotten before it
was read is a gap. No word of any protocol.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from attrs import define, frozen

from actors.session import NOWHERE
from actors.subscription import Fanout
from actors.update import Places, Rendering
from dataflow.domain import Gap, Topic
from dataflow.topics.channel import TopicLog
from supervisors import SupervisionError

from .admission import Turns
from .answers import Position as Position
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


class Subscriptions:
    """Of one session."""

    __slots__ = ("_gathering", "_hall", "_joined", "_joining", "_session", "account", "turns")

    def __init__(self, session: AnySession, hall: Hall) -> None:
        self._session = session
        self._hall = hall
        self.turns = Turns(hall.lobby.admission, session)
        self.account = hall.quotas.exempt  # until the hall says whose it is
        self._joined: dict[Topic, TopicLog] | None = None  # None until there is one
        self._joining: dict[Topic, _Joining] | None = None  # while a request is heard
        self._gathering = False  # several answers are one: nothing leaves between them

    def epoch(self, topic: Topic) -> int:
        """The epoch of a topic that is followed."""
        return self._log(topic).stream.epoch

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
        log = (self._joined or {}).get(topic)
        if log is None:
            log = await self._join(topic)
        slices = _Slices(self, log, rendering, write)
        recovered, past = self._beginning(log, rendering, since)
        if past is not None and (recovered or snapshot is None):
            past = await slices.recover(past)
            # From here to the end of the answer without a checkpoint.
            past.add(log.behind(past.last, RECOVERY_SLICE))
            last = past.last
            self._hold_back(log, rendering)
        else:
            last = self._hold_back(log, rendering)
            if snapshot is not None:
                newest = log.newest(snapshot + log.last - last)
                newest = [place for place in newest if place[0] <= last]
                past = await slices.show(past or self.part(log, rendering, 0), newest)
        self._follow(log.stream.topic, rendering, last)
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
        self._gathering = True

    def unsubscribe(self, topic: Topic) -> None:
        """Nothing of `topic` leaves after this. Idempotent."""
        if self._joining is not None:
            self._joining.pop(topic, None)
        self._session.unfollow(topic)
        if self._joined is not None and self._joined.pop(topic, None) is not None:
            self.account.subscriptions -= 1
        self._hall.core.topics.leave(topic, self._session)

    def answered(self) -> None:
        """The answers are said: from here on the subscriptions in them are live."""
        joining, self._joining = self._joining or {}, None
        self._gathering = False
        for topic, each in joining.items():
            self._session.follow(topic, each.position, each.rendering)
            self._bring_up(topic)

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

    async def _join(self, topic: Topic) -> TopicLog:
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
        log = self._enter(fanout, topic)  # from here on `unsubscribe` or `close` gives the place back
        if not had_turn:
            await self.turns.take(resuming=False)
        return log

    def _enter(self, fanout: Fanout, topic: Topic) -> TopicLog:
        fanout.join(self._session)
        log = self._hall.core.channels[topic.channel].log_of(topic)
        self._joined = self._joined or {}
        self._joined[log.stream.topic] = log  # by the log's own topic: the clients' own would be thousands
        return log

    async def _open(self, topic: Topic) -> Fanout:
        self.turns.leave()  # it can take seconds to start a topic: nobody else shall wait for that
        try:
            return await self._hall.core.topics.open(topic, self._hall.pool)
        except SupervisionError as error:  # going away, or just being restarted: reported where it happened
            advice = "try again in a moment"
            raise Unavailable(
                "temporarily unavailable", symbol=topic.symbol, problem=str(error), advice=advice
            ) from None

    def _follow(self, topic: Topic, rendering: Rendering[Any], last: int) -> None:
        self._joining = self._joining or {}
        if self.follows(topic):
            self._follow_again(topic, rendering)
        else:
            self._joining[topic] = _Joining(last, rendering)

    def follows(self, topic: Topic) -> bool:
        """Whether `topic` is live, or will be when the answers are said."""
        lane = self._session.lanes.get(topic)
        return topic in (self._joining or ()) or (lane is not None and lane.position != NOWHERE)

    def hold(self, topic: Topic, rendering: Rendering[Any]) -> None:
        """Nothing of `topic` is offered until the answer in hand is said: that will tell it all."""
        if self._joining is not None:
            self._joining.pop(topic, None)
        self._session.hold(topic, rendering)

    def _follow_again(self, topic: Topic, rendering: Rendering[Any]) -> None:
        """A second subscription to the same topic: due updates are sent before the answer, nothing twice."""
        self.answered()
        self._session.follow(topic, self._session.position(topic), rendering)
        self._bring_up(topic)

    def _bring_up(self, topic: Topic) -> None:
        log = self._log(topic)
        while self._session.ended is None:
            update = log.read(self._session.position(topic))
            if update is None:
                return
            self._session.offer(update)

    def _log(self, topic: Topic) -> TopicLog:
        assert self._joined is not None
        return self._joined[topic]

    def _hold_back(self, log: TopicLog, rendering: Rendering[Any]) -> int:
        """The last place of `log` that an answer may tell of, if it does not tell all that is behind.

        In the midst of an answer updates can only leave behind it, so they are told to be there.
        """
        topic = log.stream.topic
        if not (self._session.reciting or self._gathering) or not self.follows(topic):
            return log.last
        joining = (self._joining or {}).get(topic)
        last = self._session.told(topic) if joining is None else joining.position
        self.hold(topic, rendering)
        return last

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


@frozen
class _Slices:
    """The slices of a long past: each is written, or added to the one part where nobody wants to write."""

    _subscriptions: Subscriptions
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
        if self._write is not None and not self._subscriptions.follows(self._log.stream.topic):
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
        self._subscriptions.hold(self._log.stream.topic, self._rendering)
        await self._write(past)
        return self._subscriptions.part(self._log, self._rendering, past.last)
