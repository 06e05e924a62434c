"""One client's subscriptions: where the past in an answer and the live updates behind it meet, without a
hole.

Rules of this file. The position of an answer is read, and its topic joined, without a checkpoint in between.
Nothing is offered to a session before `answered`: updates that came meanwhile are caught up from the log
then. A long past is made in slices, with a turn for each (see `admission`). Who can write slice by slice gets
only the newest one in the answer: then the log is the queue of a slow client, and what is forgotten before it
was read is a gap. What memory has forgotten is read from disk, in larger parts, and without a turn; the last
slice is always memory's. A disk that fails costs what it has: a gap "overrun" and `recovered: false`, never
silence. A fill that is settled during an answer is told behind it, if the answer told of its gap. No word of
any protocol.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

import trio
from attrs import define, field, frozen
from loguru import logger

from actors.session import NOWHERE
from actors.subscription import Fanout
from actors.update import Fill, Places, Rendering, Update
from dataflow import paths
from dataflow.cache.archive import ArchiveFailed
from dataflow.cache.history import Resumed
from dataflow.domain import Gap, Topic
from dataflow.domain.symbols import ANY
from dataflow.topics.channel import Deep, TopicLog
from dataflow.topics.every import EveryLog
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
LOGS_AT_ONCE: Final = 50  # made in one turn: a millisecond
DISK_SLICE: Final = 2_000  # of them read from disk at once: some 10 ms in a thread
MOST_GAPS: Final = 1_000  # that a client may ask to be filled at once
FILLED_LIMIT: Final = 2_000  # trades in the answer to that; with what is left the client may ask again
UNKNOWN: Final = Gap(0, 0, "overrun", exact=False)  # before what is left; place 0 is never an entry's


Write: TypeAlias = Callable[[Part], Awaitable[None]]


@frozen
class Since(Position):
    """The last place that a client has. `gaps`: the first and last place of those that it has, too."""

    gaps: Sequence[tuple[int, int]] = ()


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
    knows: _Knows


@define
class _JoiningAll:
    """A subscription to all symbols of a channel, whose answer is not said yet: what it tells of each."""

    each: dict[Topic, _Joining]
    rendering: Rendering[Any]


class Seat(Protocol):
    """Where a subscription gets its place: among those of the client, or in that to all symbols."""

    def follows(self, topic: Topic) -> bool:
        """Whether `topic` is live, or will be when the answers are said."""

    def knows(self, log: TopicLog, since: Position | None) -> _Knows:
        """What the client knows before the answer."""

    def hold(self, topic: Topic, rendering: Rendering[Any]) -> None:
        """Nothing of `topic` is offered until the answer in hand is said: that will tell it all."""

    def hold_back(self, log: TopicLog, rendering: Rendering[Any]) -> int:
        """The last place of `log` that an answer may tell of, if it does not tell all that is behind."""

    def follow(self, topic: Topic, joining: _Joining) -> None:
        """Go live when the answers are said."""


@define
class _Knows:
    """What a client was told of that a fill may concern: `told` are ranges of places, as they were at the
    fill with the number `fills`."""

    fills: int
    told: list[tuple[int, int]]


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
        slices = _Slices(self, seat, log, rendering, write, seat.knows(log, since))
        filled = () if since is None else await slices.filled(since)
        resumed = None if since is None else log.resume(since.epoch, since.offset, RECOVERY_LIMIT)
        past = None if resumed is None else slices.begin(resumed, snapshot is not None)
        if resumed is not None and past is not None and (_goes_on(resumed) or snapshot is None):
            past = await slices.recover(past)
            # From here to the end of the answer without a checkpoint.
            slices.add(past, log.behind(past.last, RECOVERY_SLICE))
            last = past.last
            seat.hold_back(log, rendering)
        else:
            older = await slices.older(snapshot or 0)
            last = seat.hold_back(log, rendering)
            if snapshot is not None:
                newest = slices.newest(snapshot, last, older)
                past = await slices.show(past or slices.start(0), newest)
        seat.follow(log.stream.topic, _Joining(last, rendering, slices.knows))
        epoch = log.stream.epoch
        fork = None if resumed is None else resumed.rewound
        return Subscribed(
            epoch,
            last,
            None if resumed is None else resumed.is_known and not slices.is_torn,
            past,
            None if fork is None else Position(epoch, fork),
            filled,
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
                told[each] = _Joining(place, rendering, _Knows(fills, [(1, place)]))
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

    def knows(self, log: TopicLog, since: Position | None) -> _Knows:
        """What the client knows before the answer."""
        if self.follows(log.stream.topic):
            told = self._told(log.stream.topic).knows
            return _Knows(told.fills, [*told.told])
        return _Knows(log.stream.filled, [] if since is None else [(1, since.offset)])

    def _told(self, topic: Topic) -> _Joining:
        """What of a followed topic the client was told, or will be by the answers."""
        joining = (self._joining or {}).get(topic)
        if isinstance(joining, _Joining):
            return joining
        every = (self._joining or {}).get(topic._replace(symbol=ANY))
        if isinstance(every, _JoiningAll) and topic in every.each:
            return every.each[topic]
        place, rendering = self._session.told(topic), self._session.rendering(topic)
        return _Joining(place, rendering, _Knows(self._session.fills(topic), [(1, place)]))

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
        every = topic._replace(symbol=ANY)
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
                logs.append(core.topics.log_of(every._replace(symbol=symbol)))
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

    # The past.

    def tell_of_disk(self, topic: Topic, failed: ArchiveFailed) -> None:
        """Log it once per burst: a disk that fails one client fails all that come."""
        if count := self._hall.disk_troubles.occurred("answer", trio.current_time()):
            logger.bind(path=paths.SESSIONS).warning(
                "{}: an answer without what is on disk ({:,} times): {}", topic, count, failed
            )

    def part(self, log: TopicLog, rendering: Rendering[Any], after: int) -> Part:
        """An empty part of the past of `log` behind place `after`, in the format of its updates."""
        assert isinstance(rendering.format, Format)
        return self._hall.past.part(rendering.format, log.stream.topic, log.stream.epoch, after)


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
        return sorted(self._log.topics - self._each.keys() - self._alone)

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

    def knows(self, log: TopicLog, since: Position | None) -> _Knows:
        told = self._told.get(log.stream.topic)
        if told is not None:
            return _Knows(told.knows.fills, [*told.knows.told])
        return _Knows(log.stream.filled, [] if since is None else [(1, since.offset)])

    def hold(self, topic: Topic, rendering: Rendering[Any]) -> None:
        pass  # it is held already

    def hold_back(self, log: TopicLog, rendering: Rendering[Any]) -> int:
        told = self._told.get(log.stream.topic)
        return log.last if told is None else told.position

    def follow(self, topic: Topic, joining: _Joining) -> None:
        self._each[topic] = joining


def _goes_on(resumed: Resumed) -> bool:
    """Whether all is known behind the position, or behind the place to which it was rewound."""
    return resumed.is_known or resumed.rewound == resumed.after


@define
class _Slices:
    """The slices of a long past: each is written, or added to the one part where nobody wants to write.

    `is_torn`: something that was to be in it could not be had.
    """

    _subscriptions: Subscriptions
    _seat: Seat
    _log: TopicLog
    _rendering: Rendering[Any]
    _write: Write | None
    knows: _Knows
    is_torn: bool = False
    _has_failed: bool = False  # the disk: it is asked no more
    _count: int = 0

    def start(self, after: int) -> Part:
        """An empty part behind place `after`."""
        return self._subscriptions.part(self._log, self._rendering, after)

    def begin(self, resumed: Resumed, has_choice: bool) -> Part:
        """The part where a resumed reader goes on. `has_choice`: it takes less if not all can be had."""
        past = self.start(resumed.after)
        if resumed.rewound is not None:
            past.rewind(resumed.rewound)
        if resumed.is_known or self._log.stream.newest_by is not None:
            return past
        if resumed.rewound is None or (has_choice and not _goes_on(resumed)):
            past.add([(resumed.after, UNKNOWN)])
        elif resumed.rewound < resumed.after:
            self.add(past, [(resumed.after, Gap(resumed.rewound + 1, resumed.after, "overrun"))])
        return past

    def add(self, past: Part, entries: Places) -> None:
        """These entries come next."""
        past.add(entries)
        gaps = [entry for _, entry in entries if isinstance(entry, Gap) and entry.exact]
        self.knows.told += [(gap.first, gap.last) for gap in gaps]

    async def recover(self, past: Part) -> Part:
        """Everything behind `past` but the newest slice. It ends, however fast new entries come."""
        while self._count < 2 * RECOVERY_LIMIT:
            if self._is_on_disk(past.last):
                entries = await self._reach(past.last, DISK_SLICE)
            else:
                entries = self._log.behind(past.last, RECOVERY_SLICE + 1)
                if len(entries) <= RECOVERY_SLICE:
                    break
                entries = entries[:RECOVERY_SLICE]
            self._count += len(entries)
            for start in range(0, len(entries), RECOVERY_SLICE):
                self.add(past, entries[start : start + RECOVERY_SLICE])
                past = await self._next(past)
        return past

    async def filled(self, since: Position) -> list[Places]:
        """What is known of the gaps before the position, as far as it lies on the present branch."""
        gaps = since.gaps if isinstance(since, Since) else ()
        if not gaps:
            return []
        known, after, fork = self._log.resume(since.epoch, since.offset, RECOVERY_LIMIT)
        if not known and fork is None:
            return []  # the client begins anew
        runs: list[Places] = []
        count = 0
        for first, last in sorted(gaps):
            after, last = max(first, 1) - 1, min(last, since.offset if fork is None else fork)
            while after < last and count < FILLED_LIMIT and self._count < RECOVERY_LIMIT:
                limit = min(last - after, RECOVERY_SLICE)
                on_disk = self._is_on_disk(after)
                entries = await self._reach(after, limit) if on_disk else self._log.behind(after, limit)
                runs += _runs([place for place in entries if place[0] <= last])
                count = sum(map(len, runs))
                self._count += len(entries)
                after = entries[-1][0] if entries else last
                await self._subscriptions.turns.pause()
        self._count = 0
        return runs

    async def older(self, count: int) -> Places:
        """The `count` newest entries, if some of them are on disk alone; else nothing."""
        if not count or not isinstance(self._log, Deep) or not self._log.has_older(count):
            return ()
        return await self._ask(self._log.reach_newest(count))

    def newest(self, count: int, last: int, older: Places) -> Places:
        """The `count` newest entries up to place `last`. `older`: what `older` has found a moment ago."""
        log = self._log
        newest = log.newest(count + log.last - last)
        newest = [place for place in newest if place[0] <= last]
        if older:
            behind = log.behind(older[-1][0], log.last - older[-1][0] + 1)
            whole = _newest([place for place in (*older, *behind) if place[0] <= last], count)
            newest = max(newest, whole, key=len)
        if self._has_failed:
            newest = [(0, UNKNOWN), *newest]
        return newest

    def _is_on_disk(self, after: int) -> bool:
        return not self._has_failed and isinstance(self._log, Deep) and self._log.is_forgotten(after)

    async def _reach(self, after: int, limit: int) -> Places:
        """Entries behind `after`, as many as there are at once."""
        assert isinstance(self._log, Deep)
        entries = await self._ask(self._log.reach(after, limit))
        self.is_torn |= any(isinstance(entry, Gap) and entry.reason == "overrun" for _, entry in entries)
        return entries or self._log.behind(after, RECOVERY_SLICE)

    async def _ask(self, reading: Coroutine[Any, Any, Places]) -> Places:
        """The answer of the disk; nothing if it fails. Nobody waits for a turn meanwhile."""
        turns = self._subscriptions.turns
        turns.leave()
        try:
            return await reading
        except ArchiveFailed as failed:
            self._subscriptions.tell_of_disk(self._log.stream.topic, failed)
            self._has_failed = self.is_torn = True
            return ()
        finally:
            await turns.take(resuming=False)

    async def show(self, past: Part, entries: Places) -> Part:
        """These entries. They are not sliced for a client that follows the topic: it is owed its updates."""
        if self._write is not None and not self._seat.follows(self._log.stream.topic):
            while len(entries) > RECOVERY_SLICE:
                self.add(past, entries[:RECOVERY_SLICE])
                entries = entries[RECOVERY_SLICE:]
                past = await self._next(past)
        self.add(past, entries)
        return past

    async def _next(self, past: Part) -> Part:
        """The part behind `past`, which is written now if it can be."""
        if self._write is None:
            await self._subscriptions.turns.pause()
            return past
        self._seat.hold(self._log.stream.topic, self._rendering)
        await self._write(past)
        return self.start(past.last)


def _runs(places: Places) -> list[Places]:
    """The items among them, in runs without a hole."""
    runs: list[list[tuple[int, Any]]] = []
    for place, entry in places:
        if isinstance(entry, Gap):
            continue
        if runs and runs[-1][-1][0] == place - 1:
            runs[-1].append((place, entry))
        else:
            runs.append([(place, entry)])
    return [*runs]


def _newest(places: Places, count: int) -> Places:
    """The part that begins with the last but `count` item."""
    items = [at for at, (_, entry) in enumerate(places) if not isinstance(entry, Gap)]
    return places[items[-count] :] if len(items) > count else places
