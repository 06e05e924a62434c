"""Paths into a JSON message, conditions on it, and templates of texts.

Rules of this file: pure. A path names one place and never looks for another. A place that is not there, or
holds null, is `ABSENT`. Digits of numbers are kept: a number that is not whole is read as a `Numeral`. A
template with an unknown placeholder is refused when it is checked, not when it is used.

A path is keys with dots between them: `data.0.p`. A number is a place in a list, from the end if it is
negative, or the key of an object. `*` is each value of a list; `[name=matches]` is each of its objects that
have this text there. `$` at its beginning is the whole message, also from inside a trade. A text that begins
with `=` is no path: what follows is the value itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec

EACH: Final = "*"
WHOLE: Final = "$"
THERE: Final = "*"  # in a condition: whatever it is, null too

_SOME: Final = re.compile(r"\[([^][=.]+)=([^][=.]*)\]")
_INDEX: Final = re.compile(r"-?[0-9]{1,6}")
_PLACEHOLDER: Final = re.compile(r"\{([A-Za-z_]+(?::[A-Za-z_]+)?)\}")


class Absent:
    """The type of `ABSENT`: nothing is there."""


ABSENT: Final = Absent()


class Numeral(str):
    """A number with a fraction or an exponent, as it was written."""

    __slots__ = ()


decode_json: Final = msgspec.json.Decoder(float_hook=Numeral)

_Step: TypeAlias = tuple[str, int | None]  # the key of an object, and the place in a list if it can be one
Find: TypeAlias = Callable[[Any, Any], Any]  # (the whole message, the part that is read) -> the value
FindAll: TypeAlias = Callable[[Any], list[Any]]


def check_path(text: str, each: bool = False) -> None:
    """Raises ValueError for a text that is no path. `each`: whether `*` may stand in it."""
    if text.startswith("="):
        return
    keys = text.split(".")
    if not all(keys):
        raise ValueError('must be keys with dots between them, such as "data.0.price"')
    if WHOLE in keys[1:]:
        raise ValueError(f'must have "{WHOLE}", the whole message, at its beginning only')
    if not each and any(_names_several(key) for key in keys):
        raise ValueError(f'must name one value; "{EACH}" and "[name=text]" name several')


def names_several(text: str) -> bool:
    """Whether a path may find several values."""
    return any(map(_names_several, text.split(".")))


def _names_several(key: str) -> bool:
    return key == EACH or _SOME.fullmatch(key) is not None


def finder(text: str) -> Find:
    """What finds the value at a path: ABSENT if there is none. The text was checked."""
    if text.startswith("="):
        value = text[1:]
        return lambda _message, _part: value
    whole, steps = _steps(text)
    if whole:
        return lambda message, _part: _walk(message, steps)
    if len(steps) == 1:
        ((key, index),) = steps
        return lambda _message, part: _step(part, key, index)
    return lambda _message, part: _walk(part, steps)


def all_finder(text: str) -> FindAll:
    """What finds the values at a path that names several: ABSENT for each that is not there."""
    _, steps = _steps(text)
    return lambda message: list(_branches(message, steps))


def _steps(text: str) -> tuple[bool, tuple[_Step, ...]]:
    keys = text.split(".") if text else []
    whole = bool(keys) and keys[0] == WHOLE
    return whole, tuple((k, int(k) if _INDEX.fullmatch(k) else None) for k in keys[whole:])


def _step(value: Any, key: str, index: int | None) -> Any:
    if type(value) is dict:
        found = value.get(key)
    elif type(value) is list and index is not None and -len(value) <= index < len(value):
        found = value[index]
    else:
        return ABSENT
    return ABSENT if found is None else found


def _walk(value: Any, steps: Sequence[_Step]) -> Any:
    for key, index in steps:
        value = _step(value, key, index)
    return value


def _branches(value: Any, steps: Sequence[_Step]) -> Iterator[Any]:
    """The values; ABSENT for each place that is not there."""
    for at, (key, index) in enumerate(steps):
        if _names_several(key):
            if type(value) is not list:
                yield ABSENT
                return
            for each in value:
                if key == EACH or _is_one(each, key):
                    yield from _branches(each, steps[at + 1 :])
            return
        value = _step(value, key, index)
    yield ABSENT if value is None else value


def _is_one(value: Any, some: str) -> bool:
    wanted = _SOME.fullmatch(some)
    return wanted is not None and type(value) is dict and value.get(wanted[1]) == wanted[2]


# -- conditions ---------------------------------------------------------------------------------------

Condition: TypeAlias = Mapping[str, Any]  # path: the value, or a list of possible values; tables nest
_PLAIN: Final = (str, int, bool)


def check_condition(condition: Condition) -> None:
    """Raises ValueError for a condition that cannot be asked."""
    if not condition:
        raise ValueError('must name at least one value, such as { type = "trade" }')
    for path, values in _flat(condition):
        check_path(path)
        if path.startswith("="):
            raise ValueError('must have paths on its left; "=" is for values')
        if not values or not all(type(value) in _PLAIN for value in values):
            raise ValueError(
                f"must have text, a whole number, true, false, or a list of these for {path};"
                f' "{THERE}" is any value, null too'
            )


def condition(written: Condition) -> Callable[[Any], bool]:
    """What tells whether a message has all these values. The condition was checked."""
    tests = [_test(path, values) for path, values in _flat(written)]
    if len(tests) == 1:
        return tests[0]
    return lambda message: all(test(message) for test in tests)


def _flat(written: Condition, *above: str) -> Iterator[tuple[str, Sequence[Any]]]:
    for key, value in written.items():
        if isinstance(value, Mapping):
            yield from _flat(value, *above, key)
        else:
            yield ".".join((*above, key)), value if isinstance(value, list | tuple) else [value]


def _test(path: str, values: Sequence[Any]) -> Callable[[Any], bool]:
    _, steps = _steps(path)
    if THERE in values:
        return lambda message: _is_there(message, steps)
    wanted = {(type(value), value) for value in values}  # true is not 1

    def test(message: Any) -> bool:
        found = _walk(message, steps)
        kind = type(found)
        return kind in _PLAIN and (kind, found) in wanted

    return test


def _is_there(value: Any, steps: Sequence[_Step]) -> bool:
    above, (key, index) = _walk(value, steps[:-1]), steps[-1]
    if type(above) is dict:
        return key in above
    return type(above) is list and index is not None and -len(above) <= index < len(above)


# -- templates ----------------------------------------------------------------------------------------


def check_template(text: str, valid: Sequence[str]) -> None:
    """Raises ValueError for a placeholder that is not valid."""
    for name in placeholders(text):
        if name not in valid:
            told = ", ".join(f"{{{each}}}" for each in valid)
            raise ValueError(f"must not have {{{name}}}; valid: {told}")


def placeholders(text: str) -> Sequence[str]:
    """The names in a template, in order."""
    return _PLACEHOLDER.findall(text)


def filled(text: str, values: Mapping[str, str]) -> str:
    """The text with a value in the place of each placeholder."""
    return _PLACEHOLDER.sub(lambda match: values[match[1]], text)


def inside_json(text: str) -> str:
    """A text as it stands between the quotation marks of JSON."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def is_json(text: str) -> bool:
    """Whether a text means to be an object or a list of JSON."""
    return _PLACEHOLDER.sub("", text).lstrip()[:1] in ("{", "[")
