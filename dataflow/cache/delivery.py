"""From sources into the shards: the choice of the shard, and the case of a full mailbox.

Rules of this file. Delivering never waits: a shard that is down must not block a connector. Trades that a
full mailbox refuses are counted. A mark for the hole is delivered as soon as there is room again. Trades with
a sequence do not need it; their numbers show the hole. Of a refused answer only its end is delivered later:
what waits for it must not wait for ever. Who can make its producer wait calls `put`, which
waits for room instead, and refuses only what it must leave behind when it is cut off.

What a source sends of a symbol while it stands by is left out here, before any queue, and counted. A source
that stands by nowhere costs nothing more. The mark of a switch is never lost: if there is no room for it, it
comes before the next items of its shard.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from zlib import crc32

from attrs import evolve

from dataflow.domain import Item, Missed, Refilled, Switched, Trade
from supervisors import ActorGone, Put, Ref


@lru_cache(maxsize=4096)
def shard_of(symbol: str, shards: int) -> int:
    """The number of the shard that owns `symbol`: the same in every run and every process."""
    return crc32(symbol.encode()) % shards


class Delivery:
    """Splits the items of a connector and puts them into the mailboxes of the shards."""

    def __init__(self, shards: int) -> None:
        self.overflowed: Counter[str] = Counter()  # trades refused by a full mailbox, by source
        self._shards: list[Ref | None] = [None] * shards
        self.left_out: Counter[str] = Counter()  # trades of sources that stood by, by source
        self._owed: defaultdict[int, dict[object, Item]] = defaultdict(dict)
        # By source: the symbols for which it stands by, each with its last trade left out.
        self._standby: dict[str, dict[str, Trade | None]] = {}

    def attach(self, shard: int, ref: Ref) -> None:
        """Put the items of `shard` into the mailbox of `ref` from now on."""
        self._shards[shard] = ref

    def __call__(self, items: Sequence[Item]) -> None:
        """Put `items` into their shards, in order. The caller must not change them later. Never waits.

        Of several items all are of one source, unless they are marks of switches.
        """
        if self._standby and items and items[0].source in self._standby:
            items = self._part_of_streams(items)
        for shard, batch in self._split(items).items():
            if shard in self._owed:
                batch = [*self._owed.pop(shard).values(), *batch]
            ref = self._shards[shard]
            if ref is None or ref.put(batch) is Put.DROPPED:
                self._remember(shard, batch)

    async def put(self, items: Sequence[Item]) -> None:
        """Like a call, but wait while a shard has no room, also while it is down but will be back.

        When this is cancelled, or a shard has ended for good (ActorGone), what is left counts as refused.
        """
        if self._standby and items and items[0].source in self._standby:
            items = self._part_of_streams(items)
        left = dict(self._split(items))
        try:
            for shard in list(left):
                ref = self._shards[shard]
                if ref is None:
                    raise ActorGone(f"shard {shard} has not started")
                owed = self._owed.pop(shard, None)
                if owed:
                    left[shard] = [*owed.values(), *left[shard]]
                await ref.send(left[shard])
                del left[shard]
        finally:
            for shard, batch in left.items():
                self._remember(shard, batch)

    def stand_by(self, source: str, symbol: str) -> None:
        """What `source` sends of `symbol` is no part of its stream from now on. Idempotent."""
        self._standby.setdefault(source, {}).setdefault(symbol, None)

    def join(self, source: str, symbol: str) -> int | None:
        """It is from now on. Returns the sequence of the last trade that was left out. Idempotent."""
        symbols = self._standby.get(source, {})
        last = symbols.pop(symbol, None)
        if not symbols:
            self._standby.pop(source, None)
        return None if last is None else last.sequence

    def last_left_out(self, source: str, symbol: str) -> Trade | None:
        """The last trade that was left out while `source` stands by for `symbol`; None if there was none."""
        return self._standby.get(source, {}).get(symbol)

    def _part_of_streams(self, items: Sequence[Item]) -> Sequence[Item]:
        """Without what was sent in standby. Answers to questions and marks of switches are not sent so."""
        symbols = self._standby[items[0].source]
        kept: list[Item] = []
        for item in items:
            if item.symbol not in symbols or isinstance(item, Refilled | Switched):
                kept.append(item)
            elif isinstance(item, Trade):
                self.left_out[item.source] += 1
                symbols[item.symbol] = item
        return kept

    def _split(self, items: Sequence[Item]) -> Mapping[int, Sequence[Item]]:
        shards = {shard_of(symbol, len(self._shards)) for symbol in {item.symbol for item in items}}
        if len(shards) == 1:
            return dict.fromkeys(shards, items)
        batches: defaultdict[int, list[Item]] = defaultdict(list)
        for item in items:
            batches[shard_of(item.symbol, len(self._shards))].append(item)
        return batches

    def _remember(self, shard: int, refused: Iterable[Item]) -> None:
        owed = self._owed[shard]
        for item in refused:
            if isinstance(item, Switched):
                owed.pop(item, None)
                owed[item] = item
                continue
            if isinstance(item, Refilled):
                self.overflowed[item.source] += len(item.trades)
                if item.is_last:
                    owed[Refilled, item.source, item.symbol] = evolve(item, trades=(), is_whole=False)
                continue
            if not isinstance(item, Missed):
                self.overflowed[item.source] += 1
            owed[Missed, item.source, item.symbol] = Missed(item.source, item.symbol, "source_gap")
