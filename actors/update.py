"""Updates: runs of a topic's places, and how they are written down for clients.

Rules of this file: values and pure functions. Three steps lead from entries to a payload, and each result is
kept where it is shared:

    entries --encode (format)--> texts --envelope (protocol)--> texts --frame (wire)--> payload

So an update is encoded once a format and framed once a rendering, however many subscribers there are.

A place never changes, with one exception: a hole may be filled. Then a `Fill` goes to those who were told of
the hole. Who comes to the place later reads the items in order, and never hears of it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cache
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from attrs import define, field, frozen

P = TypeVar("P")

Places: TypeAlias = Sequence[tuple[int, Any]]  # entries in order, each with the last place that it takes
Encode: TypeAlias = Callable[[Places], list[bytes]]  # one text an entry
Envelope: TypeAlias = Callable[[Sequence[bytes]], Sequence[bytes]]  # texts as a protocol sends them together
Frame: TypeAlias = Callable[[Sequence[bytes]], P]  # texts as one payload of a kind of wire


class Encoding(Protocol):
    """A way to write down entries: hashable, one object for all who want it so."""

    def encoder(self, topic: Any, epoch: int) -> Encode:
        """The encoder of one topic's stream; it may keep what repeats."""

    def filled(self, topic: Any, epoch: int, places: Places) -> bytes | None:
        """The notice that these places hold these items now; None where there is no word for it."""


class Numbered(Protocol):
    """A fill. `places`: one for each item, without a hole between them."""

    @property
    def number(self) -> int:
        """Grows by one from fill to fill."""

    @property
    def places(self) -> Places: ...


class Fills(Protocol):
    """The fills of one log."""

    @property
    def filled(self) -> int:
        """The number of the last one; 0 when there is none."""

    def fills_behind(self, number: int) -> Sequence[Numbered]:
        """Those behind that number that are remembered, in order."""


class _Nothing:
    """The kind of hole of a stream that has none."""


@define(eq=False)
class Stream:
    """The common part of all updates of one topic.

    `hole` is the class of entries that stand for missing items. `newest_by(entry)` is None where a subscriber
    is owed every entry; else only the newest entry of each key counts, and a slow subscriber gets no more.
    `filling`: the fills of its holes, where holes are filled.
    """

    topic: Any
    epoch: int
    hole: type = _Nothing
    newest_by: Callable[[Any], Hashable] | None = None
    filling: Fills | None = None
    _encoders: dict[Encoding, Encode] = field(factory=dict, init=False, repr=False)

    def texts(self, format: Encoding, places: Places) -> list[bytes]:
        """`places` in `format`, one text an entry."""
        encode = self._encoders.get(format)
        if encode is None:
            encode = self._encoders[format] = format.encoder(self.topic, self.epoch)
        return encode(places)

    @property
    def filled(self) -> int:
        """The number of the last fill."""
        return 0 if self.filling is None else self.filling.filled

    def fills(self, number: int) -> list[Fill]:
        """The fills behind that number."""
        if self.filling is None or self.filling.filled <= number:
            return []
        return [Fill(self, each.number, each.places) for each in self.filling.fills_behind(number)]


@define(eq=False)
class Update:
    """A run of a topic's places, without a hole between them. `first` is the first place, `last` the last.

    `since` is when the first of its entries came, on Trio's clock; None where nobody measures that. A part of
    an update, or several in one, is not `whole`: one slow client needs it, and nobody shares its payload.
    """

    stream: Stream
    first: int
    places: Places
    since: float | None = None
    whole: bool = field(default=True, kw_only=True)
    _texts: dict[Encoding, list[bytes]] = field(factory=dict, init=False, repr=False)
    _payloads: dict[Any, Any] = field(factory=dict, init=False, repr=False)

    @property
    def topic(self) -> Any:
        return self.stream.topic

    @property
    def last(self) -> int:
        return self.places[-1][0]

    @property
    def items(self) -> int:
        """How many entries are items, not holes."""
        hole = self.stream.hole
        return sum([not isinstance(entry, hole) for _, entry in self.places])

    def after(self, position: int) -> Update | None:
        """The entries that end behind `position`: this very update in the common case, None when there are
        none."""
        if position < self.first:
            return self
        if position >= self.last:
            return None
        first = self.first
        for index, (last, _entry) in enumerate(self.places):
            if last > position:
                return self._part(first, index, None)
            first = last + 1
        return None

    def upto(self, count: int) -> Update:
        """The first `count` entries, at least one."""
        return self._part(self.first, 0, count)

    def _part(self, first: int, start: int, stop: int | None) -> Update:
        """Some of the entries, with the texts that they have already."""
        part = Update(self.stream, first, self.places[start:stop], whole=False)
        for format, texts in self._texts.items():
            if len(texts) == len(self.places):
                part._texts[format] = texts[start:stop]
        return part

    def newest(self) -> Update:
        """Of each key only the newest entry. For streams with `newest_by`. Texts are not made again."""
        key = self.stream.newest_by
        assert key is not None
        newest: dict[Hashable, int] = {}
        for at, (_, entry) in enumerate(self.places):
            newest.pop(key(entry), None)
            newest[key(entry)] = at
        if len(newest) == len(self.places):
            return self
        made = Update(self.stream, self.first, [self.places[at] for at in newest.values()], whole=False)
        for format, texts in self._texts.items():
            if len(texts) == len(self.places):
                made._texts[format] = [texts[at] for at in newest.values()]
        return made

    def superseded_by(self, newer: Update) -> Update:
        """Both in one, of each key only the newest entry. For streams with `newest_by`.

        Texts are not made again: else each slow client would cost an encoding of all that waits.
        """
        both = Update(self.stream, self.first, [*self.places, *newer.places], whole=False)
        for format, texts in self._texts.items():
            if len(texts) == len(self.places):
                both._texts[format] = [*texts, *newer.texts(format)]
        return both.newest()

    def texts(self, format: Encoding) -> list[bytes]:
        """One text an entry, made once a format."""
        texts = self._texts.get(format)
        if texts is None:
            texts = self._texts[format] = self.stream.texts(format, self.places)
        return texts

    def payload_once(self, rendering: Rendering[P]) -> P:
        """All texts as `rendering` packs them, once."""
        payload: P | None = self._payloads.get(rendering)
        if payload is None:
            payload = self._payloads[rendering] = rendering.pack(self.texts(rendering.format))
        return payload


@define(eq=False)
class Fill:
    """Places that were a hole and hold items now, one each, without a hole between them."""

    stream: Stream
    number: int
    places: Places
    _texts: dict[Encoding, bytes | None] = field(factory=dict, init=False, repr=False)
    _payloads: dict[Any, Any] = field(factory=dict, init=False, repr=False)

    @property
    def topic(self) -> Any:
        return self.stream.topic

    def within(self, first: int, last: int) -> Fill | None:
        """The places from `first` to `last`: this very fill if these are all, None if there are none."""
        begin, end = self.places[0][0], self.places[-1][0]
        if first <= begin and end <= last:
            return self
        if last < begin or end < first:
            return None
        return Fill(self.stream, self.number, self.places[max(first - begin, 0) : last - begin + 1])

    def texts(self, format: Encoding) -> list[bytes]:
        """The notice of it; nothing where there is no word for it."""
        text = self._text(format)
        return [] if text is None else [text]

    def payload(self, rendering: Rendering[P]) -> P | None:
        """The notice of it as one payload; None where there is no word for it."""
        text = self._text(rendering.format)
        if text is None or not rendering.shared:
            return None if text is None else rendering.pack([text])
        payload: P | None = self._payloads.get(rendering)
        if payload is None:
            payload = self._payloads[rendering] = rendering.pack([text])
        return payload

    def _text(self, format: Encoding) -> bytes | None:
        if format not in self._texts:
            self._texts[format] = format.filled(self.stream.topic, self.stream.epoch, self.places)
        return self._texts[format]


@define(eq=False)
class Bundle(Update):
    """Updates and fills of several topics that leave together: one place in the stream of a topic that has
    them all.

    `places` are those of all updates. The fills of a topic come before its updates; `told` is the place of
    the topic before the bundle. A part of the bundle's own topic announces another one.
    """

    parts: Sequence[Update | Fill] = field(kw_only=True)
    told: Mapping[Any, int] = field(kw_only=True)
    _own: Sequence[Update | Fill] | None = field(default=None, init=False)

    @property
    def last(self) -> int:
        return self.first

    def after(self, position: int) -> Update | None:
        return self if position < self.first else None

    def texts(self, format: Encoding) -> list[bytes]:
        texts = self._texts.get(format)
        if texts is None:
            texts = self._texts[format] = [text for part in self.own for text in part.texts(format)]
        return texts

    @property
    def own(self) -> Sequence[Update | Fill]:
        """The parts, as far as they concern a subscriber that knows what was told before, and no more."""
        if self._own is None:
            some = [self.part(part, self.told.get(part.topic, -1)) for part in self.parts]
            self._own = [part for part in some if part is not None]
        return self._own

    @staticmethod
    def part(part: Update | Fill, place: int) -> Update | Fill | None:
        """What of a part concerns a subscriber that is at `place` in its topic."""
        return part.within(1, place) if isinstance(part, Fill) else part.after(place)


class Bundles(Protocol):
    """The log of a topic that has all entries of other topics."""

    @property
    def last(self) -> int:
        """The place of the newest bundle; 0 while there is none."""

    @property
    def bundle(self) -> Bundle | None:
        """The newest bundle, which may be on its way still."""

    @property
    def places(self) -> Mapping[Any, int]:
        """By topic: how far the bundles have brought it, the newest one included."""

    @property
    def fills(self) -> Mapping[Any, int]:
        """By topic: the number of its last fill that they have brought."""

    def covers(self, topic: Any) -> bool:
        """Whether `topic` is one of those."""


@frozen(eq=False)
class Rendering(Generic[P]):
    """How a kind of client gets updates. One object for all clients of the kind: see `rendering`."""

    format: Encoding
    envelope: Envelope | None
    frame: Frame[P]

    @property
    def shared(self) -> bool:
        """Whether all clients with this rendering get the same payload."""
        return True

    def wrapped(self, texts: Sequence[bytes]) -> Sequence[bytes]:
        """`texts` as the protocol sends them together."""
        return texts if self.envelope is None else self.envelope(texts)

    def pack(self, texts: Sequence[bytes]) -> P:
        """`texts` as one payload."""
        return self.frame(self.wrapped(texts))

    def texts(self, update: Update) -> Sequence[bytes]:
        """The texts of `update`, wrapped."""
        return self.wrapped(update.texts(self.format))

    def payload(self, update: Update) -> P:
        """`update` as one payload."""
        return update.payload_once(self)


@frozen(eq=False)
class Personal(Rendering[P]):
    """A rendering for one client alone, where each message carries the client's own id.

    The bodies are shared, the frames are not. An update does not remember them: there would be one a client.
    `heads` are pairs of what stands before and behind a body. With several of them, each body is sent so many
    times: a client may follow a topic under several ids.
    """

    heads: Sequence[tuple[bytes, bytes]] = ((b"", b""),)

    @property
    def shared(self) -> bool:
        return False

    def wrapped(self, texts: Sequence[bytes]) -> Sequence[bytes]:
        return super().wrapped([head + text + tail for text in texts for head, tail in self.heads])

    def payload(self, update: Update) -> P:
        return self.frame(self.texts(update))


@cache
def rendering(format: Encoding, envelope: Envelope | None, frame: Frame[P]) -> Rendering[P]:
    """The one rendering of these three. Formats, envelopes and frames are few and live as long as the
    process."""
    return Rendering(format, envelope, frame)
