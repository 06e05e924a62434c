"""What a block of a file holds: places of one symbol, written down once, with a checksum.

Rules of this file: pure. A part is the packed form of a run. Its frame holds the symbol and the places too,
under the same checksum: so a frame at a wrong place is found out like one with a wrong bit. What fails a
check is `Damaged`, and nothing of it is used.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec
import zstandard
from attrs import evolve, frozen

from dataflow.cache.archive import Run
from dataflow.cache.places import Places, above
from dataflow.domain import Gap, Trade
from dataflow.domain.entries import unpack

FULL: Final = 1_024  # entries of a block. Larger: cheaper on disk; smaller: cheaper to read
_LARGEST: Final = 1 << 28  # bytes; a frame that promises more is not ours


class Damaged(Exception):
    """These bytes are not what was written."""


class Part(msgspec.Struct, frozen=True, array_like=True):
    """Places `first` to `last` of a symbol: `count` entries, of which `trades` are trades, packed as `data`.

    `earliest` and `latest`: the lowest and the highest time of its trades, ns; None without any.
    """

    symbol: str
    first: int
    last: int
    count: int
    trades: int
    earliest: int | None
    latest: int | None
    data: bytes
    is_fill: bool = False

    @classmethod
    def of(cls, run: Run) -> Part:
        gaps = list(map(type, [entry for _, entry in run.places])).count(Gap)
        return cls(
            run.symbol,
            run.first,
            run.last,
            run.count,
            run.count - gaps,
            run.earliest,
            run.latest,
            run.data,
            run.is_fill,
        )

    def places(self) -> Places:
        """Its entries. Raises Damaged."""
        try:
            places = unpack(self.data, self.count, self.first)
        except ValueError as error:
            raise Damaged(str(error)) from None
        if not places or places[-1][0] != self.last:
            raise Damaged("its places are others")
        return places


def joined(parts: Sequence[Part]) -> Part:
    """One part of several that follow each other."""
    if len(parts) == 1:
        return parts[0]
    return Part(
        parts[0].symbol,
        parts[0].first,
        parts[-1].last,
        sum(part.count for part in parts),
        sum(part.trades for part in parts),
        min((part.earliest for part in parts if part.earliest is not None), default=None),
        max((part.latest for part in parts if part.latest is not None), default=None),
        b"".join([part.data for part in parts]),
    )


@frozen
class Open:
    """The end of a stream that is no block yet: its parts are in the journal, from row `row` on.

    A lost row of the journal leaves a hole between two parts. It began at `since`, seconds since the epoch.
    `count`: its entries, kept because each run asks for it.
    """

    parts: tuple[Part, ...]
    row: int
    since: float
    count: int

    @classmethod
    def of(cls, part: Part, row: int, since: float) -> Open:
        return cls((part,), row, since, part.count)

    @property
    def first(self) -> int:
        return self.parts[0].first

    @property
    def last(self) -> int:
        return self.parts[-1].last

    def grown(self, part: Part) -> Open:
        """The same with one more part."""
        return evolve(self, parts=(*self.parts, part), count=self.count + part.count)

    def blocks(self) -> list[Part]:
        """Its parts, joined wherever there is no hole."""
        groups: list[list[Part]] = []
        for part in self.parts:
            if groups and groups[-1][-1].last + 1 == part.first:
                groups[-1].append(part)
            else:
                groups.append([part])
        return [joined(group) for group in groups]

    def filled(self, fill: Part) -> Open:
        """The same with these places filled. Raises Damaged."""
        parts = tuple([_filled(part, fill) for part in self.parts])
        return evolve(self, parts=parts, count=sum([part.count for part in parts]))


def _filled(part: Part, fill: Part) -> Part:
    if part.trades == part.count or part.last < fill.first or part.first > fill.last:
        return part
    return Part.of(Run.of(part.symbol, list(laid(part.places(), fill.places()))))


def cut(run: Run, after: int) -> Iterator[Run]:
    """The places of a run behind `after`, in runs that are no longer than a block."""
    if run.first > after and run.count <= FULL:
        yield run
        return
    places = above(run.places, after)
    for start in range(0, len(places), FULL):
        yield Run.of(run.symbol, places[start : start + FULL], is_fill=run.is_fill)


def laid(places: Iterable[tuple[int, Trade | Gap]], fill: Places) -> Iterator[tuple[int, Trade | Gap]]:
    """`places`, and in their gaps the trades that `fill` has for them."""
    trades = {place: entry for place, entry in fill if isinstance(entry, Trade)}
    first, last = min(trades, default=0), max(trades, default=-1)
    for place, entry in places:
        if not isinstance(entry, Gap) or entry.last < first or entry.first > last:
            yield place, entry
            continue
        begin = entry.first
        for at in range(max(first, entry.first), min(last, entry.last) + 1):
            if at in trades:
                if begin < at:
                    yield at - 1, entry.part(begin, at - 1)
                yield at, trades[at]
                begin = at + 1
        if begin <= entry.last:
            yield entry.last, entry.part(begin, entry.last)


class Press:
    """Parts to a frame and back. For one thread at a time; most of the work is done without the GIL."""

    def __init__(self) -> None:
        self._compress = zstandard.ZstdCompressor(level=1, write_checksum=True).compress
        self._expand = zstandard.ZstdDecompressor().decompress
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(list[Part]).decode

    def frame(self, parts: Sequence[Part]) -> bytes:
        return self._compress(self._encode(parts))

    def parts(self, frame: object) -> list[Part]:
        """Raises Damaged."""
        try:
            if not isinstance(frame, bytes) or not 0 <= zstandard.frame_content_size(frame) <= _LARGEST:
                raise Damaged("no frame")
            return self._decode(self._expand(frame, allow_extra_data=False))
        except (zstandard.ZstdError, msgspec.MsgspecError, UnicodeError) as error:
            raise Damaged(str(error)) from None


def checksum(*values: int | str | bytes | None) -> int:
    """That of a row without a frame."""
    return zlib.crc32(repr(values).encode())
