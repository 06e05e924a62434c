"""Updates: runs of a topic's places, and how they are written down for clients.

Rules of this file: values and pure functions. Three steps lead from entries to a payload, and each result is
kept where it is shared:

    entries --encode (format)--> texts --envelope (protocol)--> texts --frame (wire)--> payload

So an update is encoded once a format and framed once a rendering, however many subscribers there are.
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


class _Nothing:
    """The kind of hole of a stream that has none."""


@define(eq=False)
class Stream:
    """The common part of all updates of one topic.

    `hole` is the class of entries that stand for missing items. `newest_by(entry)` is None where a subscriber
    is owed every entry; else only the newest entry of each key counts, and a slow subscriber gets no more.
    """

    topic: Any
    epoch: int
    hole: type = _Nothing
    newest_by: Callable[[Any], Hashable] | None = None
    _encoders: dict[Encoding, Encode] = field(factory=dict, init=False, repr=False)

    def texts(self, format: Encoding, places: Places) -> list[bytes]:
        """`places` in `format`, one text an entry."""
        encode = self._encoders.get(format)
        if encode is None:
            encode = self._encoders[format] = format.encoder(self.topic, self.epoch)
        return encode(places)


@define(eq=False)
class Update:
    """A run of a topic's places, without a hole between them. `first` is the first place, `last` the last.

    `since` is when the first of its entries came, on Trio's clock; None where nobody measures that.
    """

    stream: Stream
    first: int
    places: Places
    since: float | None = None
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
        part = Update(self.stream, first, self.places[start:stop])
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
        made = Update(self.stream, self.first, [self.places[at] for at in newest.values()])
        for format, texts in self._texts.items():
            if len(texts) == len(self.places):
                made._texts[format] = [texts[at] for at in newest.values()]
        return made

    def superseded_by(self, newer: Update) -> Update:
        """Both in one, of each key only the newest entry. For streams with `newest_by`.

        Texts are not made again: else each slow client would cost an encoding of all that waits.
        """
        both = Update(self.stream, self.first, [*self.places, *newer.places])
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
class Bundle(Update):
    """Updates of several topics that leave together: one place in the stream of the topic that has them all.

    `places` are those of all parts. A part of the bundle's own topic announces another topic.
    """

    parts: Sequence[Update] = field(kw_only=True)

    @property
    def last(self) -> int:
        return self.first

    def after(self, position: int) -> Update | None:
        return self if position < self.first else None

    def texts(self, format: Encoding) -> list[bytes]:
        texts = self._texts.get(format)
        if texts is None:
            texts = self._texts[format] = [text for part in self.parts for text in part.texts(format)]
        return texts


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

    def pack(self, texts: Sequence[bytes]) -> P:
        """`texts` as one payload."""
        return self.frame(texts if self.envelope is None else self.envelope(texts))

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

    def pack(self, texts: Sequence[bytes]) -> P:
        return super().pack([head + text + tail for text in texts for head, tail in self.heads])

    def payload(self, update: Update) -> P:
        return self.pack(update.texts(self.format))


@cache
def rendering(format: Encoding, envelope: Envelope | None, frame: Frame[P]) -> Rendering[P]:
    """The one rendering of these three. Formats, envelopes and frames are few and live as long as the
    process."""
    return Rendering(format, envelope, frame)
