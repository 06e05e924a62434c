"""From what was written to attrs classes, strictly.

Rules of this file: no I/O, and no knowledge of any table or key. Types are strict: "80" is not 80, 1 is not
true; a whole number passes where a float is wanted. A mistake never stops the reading: each adds one line to
`problems` that names place, key, what was found and what would be valid.
"""

from __future__ import annotations

import difflib
import json
import math
import types
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from enum import Enum
from typing import Any, Literal, TypeAlias, TypeVar, Union, get_args, get_origin, get_type_hints

import attrs
from attrs import frozen, validators


@frozen
class Leaf:
    """A value and where it was written. `text` is what an environment variable held before it was parsed."""

    value: Any
    origin: str
    text: str | None = None


class Table(dict[str, "Table | Leaf"]):
    """What was written below a name, and who wrote it first."""

    def __init__(self, origin: str, content: Iterable[tuple[str, Table | Leaf]] = ()) -> None:
        super().__init__(content)
        self.origin = origin


_T = TypeVar("_T")

Rules: TypeAlias = Mapping[str, Callable[[Any], Iterable[str]]]


def structure(
    cls: type[_T], written: Table, place: str, problems: list[str], rules: Rules | None = None
) -> _T | None:
    """An instance of the attrs class `cls`, or None with at least one more line in `problems`.

    `rules` adds objections to those of the class's own validators, by key.
    """
    before = len(problems)
    kinds = get_type_hints(cls)
    fields = {a.name: a for a in attrs.fields(cls)}  # type: ignore[arg-type]
    required = [name for name, a in fields.items() if a.default is attrs.NOTHING]
    for key in required:
        if key not in written:
            problems.append(f"{written.origin}: {place}: {key} is missing, must be {_kind(kinds[key])}")
    values = _values(written, kinds, fields, place, problems)
    # every validator is asked, not only those before the first that objects
    with validators.disabled():
        made = cls(**dict.fromkeys(required) | values)
    for key, value in values.items():
        for why in (*_objections(made, fields[key]), *(rules or {}).get(key, _none)(value)):
            problems.append(wrong(written[key], f"{place} {key}", why))
    return made if len(problems) == before else None


def _none(_value: Any) -> tuple[str, ...]:
    return ()


def _values(
    written: Table, kinds: Mapping[str, Any], fields: Collection[str], place: str, problems: list[str]
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, leaf in written.items():
        if key not in fields:
            problems.append(f"{leaf.origin}: {place} {key}: unknown key; {instead(key, fields)}")
            continue
        try:
            values[key] = _value(leaf, kinds[key])
        except ValueError as error:
            problems.append(wrong(leaf, f"{place} {key}", str(error)))
    return values


def _objections(made: Any, a: attrs.Attribute[Any]) -> Iterator[str]:
    value = getattr(made, a.name)
    try:
        if a.validator is not None:
            a.validator(made, a, value)
    except ValueError as error:
        # attrs writes "'port' must be <= 65535: 70000"; name and value are in our line already
        yield str(error.args[0]).removeprefix(f"'{a.name}' ").removesuffix(f": {value}")


# -- one value ----------------------------------------------------------------------------------------


def _value(leaf: Table | Leaf, kind: Any) -> Any:
    """What was written, as `kind`. Raises ValueError that says what would be valid."""
    written = plain(leaf)
    if isinstance(leaf, Leaf) and leaf.text is not None and not isinstance(written, str):
        # a variable needs no quotation marks: where text is wanted, 12345 and true are text too
        written = leaf.text if str in _alternatives(kind) else written
    return _fit(written, kind)


def _alternatives(kind: Any) -> tuple[Any, ...]:
    """The members of a union; TOML has no null, so None is never written."""
    if get_origin(kind) in (Union, types.UnionType):
        return tuple(member for member in get_args(kind) if member is not type(None))
    return (kind,)


def _fit(written: Any, kind: Any) -> Any:
    for alternative in _alternatives(kind):
        try:
            return _fit_one(written, alternative)
        except ValueError:
            continue
    raise ValueError(f"must be {_kind(kind)}")


def _fit_one(written: Any, kind: Any) -> Any:
    outer, inner = get_origin(kind), get_args(kind)
    if outer is Literal and isinstance(written, str) and written in inner:
        return written
    if outer is tuple and isinstance(written, list):
        return tuple(_fit(each, inner[0]) for each in written)
    if outer in (dict, Mapping) and isinstance(written, dict):
        return {key: _fit(each, inner[1]) for key, each in written.items()}
    if isinstance(kind, type) and issubclass(kind, Enum) and isinstance(written, str):
        return kind(written)
    if kind is float and type(written) in (int, float) and math.isfinite(written):
        return float(written)
    if kind in (str, int, bool) and type(written) is kind:
        return written
    raise ValueError


_KINDS: dict[Any, str] = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def _kind(kind: Any) -> str:
    """What a value of this type is called in a message."""
    alternatives = _alternatives(kind)
    outer, inner = get_origin(alternatives[0]), get_args(alternatives[0])
    if len(alternatives) > 1:
        return " or ".join(map(_kind, alternatives))
    if outer is tuple:
        return f"a list, each {_kind(inner[0])}"
    if outer in (dict, Mapping):
        return f"a table, each value {_kind(inner[1])}"
    if outer is Literal:
        return _one_of(inner)
    if isinstance(alternatives[0], type) and issubclass(alternatives[0], Enum):
        return _one_of(member.value for member in alternatives[0])
    return _KINDS[alternatives[0]]


def _one_of(valid: Iterable[Any]) -> str:
    return f"one of {', '.join(map(shown, valid))}"


# -- messages -----------------------------------------------------------------------------------------


def plain(written: Table | Leaf) -> Any:
    """The bare values, without their origins."""
    if isinstance(written, Leaf):
        return written.value
    return {key: plain(value) for key, value in written.items()}


def wrong(leaf: Table | Leaf, place: str, why: str) -> str:
    """The line for a value that will not do; a secret is not repeated, for lines end up in logs."""
    secret = place.endswith(("token", "secret", "password"))
    return f"{leaf.origin}: {place}: found {'something else' if secret else shown(plain(leaf))}; {why}"


def shown(value: Any) -> str:
    """A value as TOML would write it, or nearly, cut to a readable length."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


def instead(name: str, valid: Collection[str]) -> str:
    """What to write in place of an unknown name."""
    near = difflib.get_close_matches(name.lower(), valid, n=1)
    hint = f"did you mean {shown(near[0])}? " if near else ""
    return f"{hint}valid: {', '.join(sorted(valid))}"
