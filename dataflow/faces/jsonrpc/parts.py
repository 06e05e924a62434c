"""The positions of a subscription to all symbols, in parts, where one call cannot hold them.

Rules of this file. Pure. The parts come in order. A part is refused unless all before it were taken, so the
last one subscribes with the positions of all, or not at all: a stream without its position would begin anew.
What waits for the last part is bounded: the positions are of symbols that there are, and their gaps are
counted.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from attrs import define, field

from dataflow.domain import Topic
from dataflow.gateway.problems import InvalidValue, Unavailable
from dataflow.gateway.recovery import Since

MOST_GAPS_OF_ALL: Final = 20_000  # in the positions of all parts: some 2 MB


@define
class _Waiting:
    """The parts of one subscription that came so far."""

    topic: Topic
    count: int
    came: int = 0
    gaps: int = 0
    since: dict[str, Since] = field(factory=dict)


class Parts:
    """The parts that one client has sent of a subscription. The first part of the next one drops them."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: _Waiting | None = None

    def add(
        self,
        topic: Topic,
        number: int,
        count: int,
        since: Mapping[str, Since],
        known: Collection[str],
    ) -> Mapping[str, Since] | None:
        """Part `number` of `count`, from 1. Returns the positions of all with the last one, else None.
        `known`: the symbols that there are.

        Raises InvalidValue, or Unavailable when a part before it was not taken. All are dropped then.
        """
        waiting = _Waiting(topic, count) if number == 1 else self._waiting
        self._waiting = None
        if not 1 <= number <= count:
            raise InvalidValue("part", [number, count], "must be [NUMBER, COUNT], from [1, COUNT] on")
        if waiting is None or (waiting.topic, waiting.count, waiting.came) != (topic, count, number - 1):
            problem = f"part {number} of {count} came, and not all parts before it were taken"
            raise Unavailable("temporarily unavailable", problem=problem, advice="begin again with part 1")
        waiting.came = number
        waiting.gaps += sum(len(each.gaps) for each in since.values())
        if waiting.gaps > MOST_GAPS_OF_ALL:
            raise InvalidValue("since", waiting.gaps, f"at most {MOST_GAPS_OF_ALL:,} gaps in all parts")
        waiting.since |= {symbol: each for symbol, each in since.items() if symbol in known}
        if number == count:
            return waiting.since
        self._waiting = waiting
        return None
