"""Spoils messages in every way that an upstream could. Pure: the same message gives the same spoilt ones.

Rules of this file: each way is named, for the report. A message that is no JSON is only cut.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any, Final

import msgspec
from attrs import frozen

_WRONG: Final[Sequence[Any]] = (None, [], {}, True, [[]], {"a": None})
_CUTS: Final = 24  # of one message
_MOST: Final = 400  # spoilt messages made of one
_decode: Final = msgspec.json.Decoder(float_hook=Decimal).decode  # with all digits
_encode: Final = msgspec.json.Encoder(decimal_format="number").encode


@frozen
class Spoilt:
    """A message that was spoilt. `how` tells what was done. `loses`: something that was in it is gone."""

    how: str
    message: str
    loses: bool = True


def spoilt(message: str) -> Iterator[Spoilt]:
    """A message without each of its fields, with wrong types in it, and cut off."""
    try:
        whole = _decode(message)
    except msgspec.DecodeError:
        whole = None
    made = 0
    if isinstance(whole, dict | list):
        for each in _spoilt_json(whole):
            yield each
            made += 1
            if made >= _MOST:
                break
    step = max(1, len(message) // _CUTS)
    for end in range(0, len(message), step):
        yield Spoilt(f"cut after {end} characters", message[:end])


def extended(message: str) -> Iterator[Spoilt]:
    """The message with a field more, in each of its objects."""
    try:
        whole = _decode(message)
    except msgspec.DecodeError:
        return
    for path, value in _places(whole):
        if isinstance(value, dict):
            more = {**value, "zz_unknown": {"zz": [1, None, "x"]}}
            yield Spoilt(f"a field more at {_shown(path)}", _written(whole, path, more), loses=False)


def garbage(seed: int = 0, count: int = 200) -> Iterator[str | bytes]:
    """Messages that mean nothing."""
    yield from _NONSENSE
    dice = random.Random(seed)
    for _ in range(count):
        yield msgspec.json.encode(_anything(dice, 4)).decode()
    for _ in range(count // 4):
        yield dice.randbytes(dice.randint(0, 40))
        yield "".join(map(chr, (dice.choice((dice.randint(1, 0x7F), 0x20AC, 0x1F600)) for _ in range(20))))


_NONSENSE: Final[Sequence[str | bytes]] = (
    *("", " ", "{}", "[]", "null", "true", "0", '""', "[[]]", "[{}]", '{"data":[]}', '{"data":{}}', "{", "]"),
    *("NaN", "1e999", "-0", '{"a":1e400}', '{"a":NaN}', '{"a":"\\ud800"}', "\x00", "\ufeff{}", b"", b"\xff"),
    *(
        '{"e":"trade"}',
        '{"type":"match"}',
        '{"event":"trade"}',
        '{"channel":"trade"}',
        '{"id":18446744073709551616}',
    ),
    "[" * 600 + "]" * 600,
    '{"a":' * 600 + "1" + "}" * 600,
    "9" * 5000,
    '{"a":' + "9" * 5000 + "}",
    '"' + "x" * 20_000 + '"',
)


def _spoilt_json(whole: Any) -> Iterator[Spoilt]:
    for path, value in _places(whole):
        if path:
            is_member = isinstance(path[-1], str) or not isinstance(value, dict | list)
            yield Spoilt(f"without {_shown(path)}", _written(whole, path, _GONE), loses=is_member)
        for wrong in _WRONG:
            if type(wrong) is not type(value) or (wrong != value and not isinstance(wrong, bool)):
                told = _encode(wrong).decode()
                # an empty list in the stead of a list of trades loses nothing: there were none
                empty = isinstance(value, list) and wrong in ([], [[]])
                yield Spoilt(f"{told} at {_shown(path)}", _written(whole, path, wrong), loses=not empty)


def _places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    yield path, value
    members: Iterator[tuple[str | int, Any]] = iter(())
    if isinstance(value, dict):
        members = iter(value.items())
    elif isinstance(value, list):
        members = iter(list(enumerate(value))[:4])  # the further ones look the same
    for key, member in members:
        yield from _places(member, (*path, key))


class _Gone:
    pass


_GONE: Final = _Gone()


def _written(whole: Any, path: Sequence[str | int], value: Any) -> str:
    return _encode(_with(whole, path, value)).decode()


def _with(whole: Any, path: Sequence[str | int], value: Any) -> Any:
    if not path:
        return value
    key, rest = path[0], path[1:]
    made = dict(whole) if isinstance(whole, dict) else dict(enumerate(whole))
    new = _with(made[key], rest, value)
    if new is _GONE:
        del made[key]
    else:
        made[key] = new
    return made if isinstance(whole, dict) else list(made.values())


def _shown(path: Sequence[str | int]) -> str:
    return ".".join(map(str, path)) or "the top"


def _anything(dice: random.Random, depth: int) -> Any:
    kind = dice.randrange(9 if depth else 6)
    if kind < 6:
        return (None, True, dice.randint(-(10**12), 10**12), dice.random(), dice.choice(_WORDS), "1.5")[kind]
    if kind < 7:
        return [_anything(dice, depth - 1) for _ in range(dice.randrange(4))]
    return {dice.choice(_WORDS): _anything(dice, depth - 1) for _ in range(dice.randrange(6))}


_WORDS: Final = (
    *(
        "e",
        "s",
        "t",
        "p",
        "q",
        "T",
        "m",
        "data",
        "id",
        "result",
        "type",
        "event",
        "channel",
        "symbol",
        "price",
    ),
    *(
        "qty",
        "size",
        "side",
        "buy",
        "sell",
        "trade",
        "trades",
        "subscribed",
        "error",
        "params",
        "BTC-USD",
        "arg",
    ),
)
