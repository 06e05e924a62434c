"""Entries as bytes, for a disk or another process: places written down once, and read back exactly.

Rules of this file: pure. An entry is a msgpack array, and the texts of a run stand one behind another without
a header: so two runs are joined by joining their bytes. Offsets are not written: a trade moves on by one
place, a gap to its last one. Decimals are their text, so all digits survive.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from .items import Gap, Trade

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(list[Trade | Gap]).decode


def pack(places: Sequence[tuple[int, Trade | Gap]]) -> bytes:
    """`places`, in order and without a hole. Some 0.4 us for each."""
    data = _encode([entry for _, entry in places])
    return data[len(_header(len(places))) :]


def unpack(data: bytes, count: int, first: int) -> list[tuple[int, Trade | Gap]]:
    """`count` entries from place `first` on, each with its last place. Some 1 us for each.

    Raises ValueError for anything else than their bytes.
    """
    try:
        entries = _decode(_header(count) + data)
    except msgspec.MsgspecError as error:
        raise ValueError(f"no entries: {error}") from None
    places: list[tuple[int, Trade | Gap]] = []
    last = first - 1
    for entry in entries:
        if isinstance(entry, Gap):
            if entry.first != last + 1 or entry.last < entry.first:
                raise ValueError(f"a gap of the places {entry.first} to {entry.last} stands behind {last}")
            last = entry.last
        else:
            last += 1
        places.append((last, entry))
    return places


def _header(count: int) -> bytes:
    """That of a msgpack array."""
    if count < 1 << 4:
        return bytes((0x90 | count,))
    return b"\xdc%b" % count.to_bytes(2, "big") if count < 1 << 16 else b"\xdd%b" % count.to_bytes(4, "big")
