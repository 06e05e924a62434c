"""From connectors into the shards: which shard, and what happens when it has no room.

Rules of this file. Delivering never waits: a shard that is down must not block a connector. What a
full mailbox refuses is counted, and the hole is marked as soon as there is room again; trades that
carry a sequence mark it by themselves.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from zlib import crc32

from dataflow.domain import Item, Missed
from supervisors import Put, Ref


@lru_cache(maxsize=4096)
def shard_of(symbol: str, shards: int) -> int:
    """The shard that owns `symbol`: the same in every run and every process."""
    return crc32(symbol.encode()) % shards


class Delivery:
    """Splits what a connector received and puts it into the shards' mailboxes."""

    def __init__(self, shards: int) -> None:
        self.overflowed: Counter[str] = Counter()  # trades refused by a full mailbox, by source
        self._shards: list[Ref | None] = [None] * shards
        self._owed: defaultdict[int, dict[tuple[str, str], Missed]] = defaultdict(dict)

    def attach(self, shard: int, ref: Ref) -> None:
        """Where to put what belongs to `shard`."""
        self._shards[shard] = ref

    def __call__(self, items: Sequence[Item]) -> None:
        """Put `items` into their shards, in order; whoever gave them leaves them alone. Never waits."""
        for shard, batch in self._split(items).items():
            if shard in self._owed:
                batch = [*self._owed.pop(shard).values(), *batch]
            ref = self._shards[shard]
            if ref is None or ref.put(batch) is Put.DROPPED:
                self._remember(shard, batch)

    def _split(self, items: Sequence[Item]) -> Mapping[int, Sequence[Item]]:
        shards = {shard_of(symbol, len(self._shards)) for symbol in {item.symbol for item in items}}
        if len(shards) == 1:
            return dict.fromkeys(shards, items)
        batches: defaultdict[int, list[Item]] = defaultdict(list)
        for item in items:
            batches[shard_of(item.symbol, len(self._shards))].append(item)
        return batches

    def _remember(self, shard: int, refused: Iterable[Item]) -> None:
        for item in refused:
            if not isinstance(item, Missed):
                self.overflowed[item.source] += 1
            self._owed[shard][item.source, item.symbol] = Missed(item.source, item.symbol, "source_gap")
