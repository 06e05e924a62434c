"""The past in answers: encoded once for each format, for all clients that ask.

Rules of this file: no I/O, no clock. A trade at a place never changes, so its text is kept for the next
client that asks: clients that come back at the same time have all missed the same. A gap may be filled, so
its text is made each time. The number of texts is bounded; above the bound all of them are dropped.
"""

from __future__ import annotations

from attrs import define, field

from actors.update import Places
from dataflow.domain import Gap, Topic

from .format import Format

KEPT_TEXTS = 50_000  # of all topics together: some 15 MB


class Past:
    """The texts of items in recent answers. `most` of them are kept, `count` there are: it is counted where
    they are made, because an answer may have thousands of topics."""

    def __init__(self, most: int = KEPT_TEXTS) -> None:
        self.count = 0
        self._most = most
        self._texts: dict[tuple[Format, Topic, int], dict[int, bytes]] = {}  # by place

    def part(self, format: Format, topic: Topic, epoch: int, after: int = 0) -> Part:
        """An empty part of the past of `topic`. It begins behind place `after`."""
        if self.count > self._most:
            self._texts.clear()
            self.count = 0
        return Part(format, topic, epoch, after, self)

    def kept(self, format: Format, topic: Topic, epoch: int) -> dict[int, bytes]:
        """The texts of one topic, by place: for entries only, because clients can name topics without any."""
        return self._texts.setdefault((format, topic, epoch), {})


@define
class Part:
    """A part of one topic's past, for an answer. It reaches up to place `last`; `texts` are in order."""

    _format: Format
    _topic: Topic
    _epoch: int
    last: int
    _past: Past
    texts: list[bytes] = field(factory=list)
    _holes: set[int] = field(factory=set)  # which of the texts are gaps

    @property
    def items(self) -> list[bytes]:
        """The texts of the items alone."""
        return (
            [text for at, text in enumerate(self.texts) if at not in self._holes]
            if self._holes
            else self.texts
        )

    @property
    def gaps(self) -> list[bytes]:
        """The texts of the gaps alone."""
        return [self.texts[at] for at in sorted(self._holes)]

    def rewind(self, offset: int) -> None:
        """Say that what the client has behind place `offset` is lost, where the format says that here."""
        text = self._format.rewind(self._topic, self._epoch, offset)
        if text is not None:
            self.texts.append(text)

    def add(self, places: Places) -> None:
        """Encode `places`, which follow those before: about 2 us for each that nobody asked for yet."""
        kept = self._past.kept(self._format, self._topic, self._epoch) if places else {}
        before = len(kept)
        for last, entry in places:
            self.last = last
            if isinstance(entry, Gap):
                self._holes.add(len(self.texts))
                self.texts.append(self._format.hole(self._topic, self._epoch, entry))
                continue
            text = kept.get(last)
            if text is None:
                text = kept[last] = self._format.item(self._topic, self._epoch, last, entry)
            self.texts.append(text)
        self._past.count += len(kept) - before
