"""What an upstream answers to the question for missing trades is believed only as far as it was asked.

Rules of this file: pure. An answer is taken as a whole, or refused as a whole. What may be in it: the missing
trades, and the two around them, with the very values that we know. Exact repeats count once. Two values for
one id, another symbol, an id or a time outside of the question refuse it, and so does an answer that has
neither of the two known trades. A missing trade that the answer does not have is no fault: perhaps the
upstream's own books are late.

Reasons: refill_symbol, refill_id, refill_conflict, refill_outside, refill_time, refill_known,
refill_unproven.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from attrs import frozen

from dataflow.domain import Missing, Trade

from .reading import Unusable

SLACK: Final = 2 * 10**9  # nanoseconds: some upstreams tell whole seconds by HTTP, and cut or round them


@frozen
class Judged:
    """`trades` are missing ones, in order, each once. `is_whole`: with them nothing is missing."""

    trades: tuple[Trade, ...]
    is_whole: bool


def judge(missing: Missing, answer: Iterable[Trade]) -> Judged:
    """What to make of an answer, oldest first. Raises Unusable for one that must not be believed."""
    by_id = _once(missing, answer)
    if missing.first is None:
        return _by_id(missing, by_id)
    return _by_sequence(missing, missing.first, by_id.values())


def _once(missing: Missing, answer: Iterable[Trade]) -> dict[str, Trade]:
    found: dict[str, Trade] = {}
    for trade in answer:
        if (trade.source, trade.symbol) != (missing.source, missing.symbol):
            raise Unusable("refill_symbol")
        if trade.trade_id is None:
            raise Unusable("refill_id")
        if found.setdefault(trade.trade_id, trade) != trade:
            raise Unusable("refill_conflict")
        _check_time(missing, trade)
        for known in (missing.after, missing.before):
            if known is not None and known.trade_id == trade.trade_id:
                _check_known(known, trade)
    return found


def _check_time(missing: Missing, trade: Trade) -> None:
    """Trades of one moment may stand in any order, and the known ones may be out of order themselves."""
    after, before = missing.after, missing.before
    known = [each.timestamp for each in (after, before) if each is not None]
    if after is not None and trade.timestamp < min(known) - SLACK:
        raise Unusable("refill_time")
    if before is not None and trade.timestamp > max(known) + SLACK:
        raise Unusable("refill_time")


def _check_known(known: Trade, told: Trade) -> None:
    """The same trade by both ways. Their times may have been rounded differently."""
    same_side = known.side == told.side or None in (known.side, told.side)
    same = (known.price, known.quantity, known.sequence) == (told.price, told.quantity, told.sequence)
    if not (same and same_side and abs(known.timestamp - told.timestamp) <= SLACK):
        raise Unusable("refill_known")


def _by_sequence(missing: Missing, first: int, answer: Iterable[Trade]) -> Judged:
    last = missing.last
    found: dict[int, Trade] = {}
    for trade in answer:
        number = trade.sequence
        if number is None or number < first - 1 or (last is not None and number > last + 1):
            raise Unusable("refill_outside")
        if found.setdefault(number, trade) is not trade:
            raise Unusable("refill_conflict")
        for known, at in ((missing.after, first - 1), (missing.before, None if last is None else last + 1)):
            if known is not None and known.sequence == at == number and known.trade_id != trade.trade_id:
                raise Unusable("refill_known")
    if found and not _is_anchored(missing, first, found):
        raise Unusable("refill_unproven")
    numbers = sorted(number for number in found if number >= first and (last is None or number <= last))
    if last is not None:
        return _told(found, numbers, len(numbers) == last - first + 1)
    # Up to now: only what goes on from the known one without a hole is of use.
    next_ones = [number for at, number in enumerate(numbers) if number == first + at]
    begins = bool(next_ones) or first - 1 in found
    return _told(found, next_ones, begins and len(next_ones) == len(numbers))


def _is_anchored(missing: Missing, first: int, found: Mapping[int, Trade]) -> bool:
    """Whether one of the trades around the missing ones is there, which shows that the numbers mean the same.
    If the one before them is not known, as in the midst of a large loss, nothing can be shown."""
    after = missing.after
    if after is None or after.sequence != first - 1:
        return True
    return first - 1 in found or (missing.last is not None and missing.last + 1 in found)


def _told(found: Mapping[int, Trade], numbers: Iterable[int], is_whole: bool) -> Judged:
    return Judged(tuple(found[number] for number in numbers), is_whole)


def _by_id(missing: Missing, found: dict[str, Trade]) -> Judged:
    """Only what goes on from the trade before is of use: nothing tells what is missing in between."""
    after, before = missing.after, missing.before
    trades: Sequence[Trade] = sorted(found.values(), key=lambda trade: trade.timestamp)
    ids = [trade.trade_id for trade in trades]
    if any(trade.sequence is not None for trade in trades):
        raise Unusable("refill_outside")
    if after is None or after.trade_id not in ids:
        return Judged((), is_whole=False)
    begin = ids.index(after.trade_id) + 1
    if before is None:
        return Judged(tuple(trades[begin:]), is_whole=True)
    if before.trade_id not in ids:
        return Judged(tuple(trades[begin:]), is_whole=False)
    end = ids.index(before.trade_id)
    # The other way round, as after two lines that brought them, nothing tells what is missing.
    return Judged(tuple(trades[begin:end]), is_whole=end >= begin)
