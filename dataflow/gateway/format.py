"""How a protocol writes entries and notices: the base class of all formats.

Rules of this file: pure. A format is one object without state, and its texts are shared by all clients of its
kind.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from actors.update import Encode, Places
from dataflow.domain import Gap, Topic
from dataflow.domain.notice import Notice


class Format(ABC):
    """The text of entries and notices, the same for all clients with this format. One object, without state.

    `item` and `hole` are enough. Frequent texts may have a faster `encoder`.
    """

    name: str  # for people: in reports and tests

    @abstractmethod
    def item(self, topic: Topic, epoch: int, offset: int, value: Any) -> bytes:
        """An item of the topic's channel at its place: for trades a `Trade`, live as well as in an answer."""

    @abstractmethod
    def hole(self, topic: Topic, epoch: int, gap: Gap) -> bytes:
        """A gap, live as well as in an answer."""

    def encoder(self, topic: Topic, epoch: int) -> Encode:
        """Writes live entries of `topic`, a text each; it may keep what repeats."""

        def encode(places: Places) -> list[bytes]:
            return [
                self.hole(topic, epoch, entry)
                if isinstance(entry, Gap)
                else self.item(topic, epoch, offset, entry)
                for offset, entry in places
            ]

        return encode

    def gap(self, topic: Topic, epoch: int, gap: Gap, skipped: int) -> bytes | None:
        """The notice that a slow client will not get these places, with so many items."""
        return self.hole(topic, epoch, gap)

    def fill(self, topic: Topic, epoch: int, places: Places) -> bytes:
        """A fill in an answer: these places of a gap hold these items now."""
        raise NotImplementedError(f"{self.name} has no gaps in `since`")

    def filled(self, topic: Topic, epoch: int, places: Places) -> bytes | None:
        """The live notice of the same; None: this protocol has no word for it."""
        return None

    def rewind(self, topic: Topic, epoch: int, offset: int) -> bytes | None:
        """Before the past of a client on a branch that was lost: what it has behind that place is no part of
        the stream. None: this protocol tells it elsewhere, or not at all."""
        return None

    def notice(self, notice: Notice) -> bytes | None:
        """A notice; None: this protocol has no word for it."""
        return None
