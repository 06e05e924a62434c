"""Strict conversion of written tables to attrs classes. cattrs converts; the error texts come from here.

Rules of this file: no I/O, and no knowledge of any table or key. Types are strict: "80" is not 80, 1 is not
true. One exception: a whole number passes as a float. A mistake never stops the reading: each becomes one
line with origin, table, key, the value found and the valid values.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from enum import Enum
from types import MappingProxyType, NoneType, UnionType
from typing import Any, Literal, TypeAlias, Union, get_args, get_origin

import attrs
from attrs import frozen
from cattrs import AttributeValidationNote, ClassValidationError, Converter, ForbiddenExtraKeysError, override
from cattrs.cols import list_structure_factory
from cattrs.gen import make_dict_structure_fn
from cattrs.strategies import configure_union_passthrough

from dataflow.domain.secrets import HIDDEN, concealed, concealed_value, is_secret


@frozen
class Leaf:
    """A value and its origin. `text` is the text of an environment variable before parsing."""

    value: Any
    origin: str
    text: str | None = None


class Table(dict[str, "Table | Leaf"]):
    """A written table, and the origin of its first key."""

    def __init__(self, origin: str, content: Iterable[tuple[str, Table | Leaf]] = ()) -> None:
        super().__init__(content)
        self.origin = origin


class Objection(ValueError):
    """A mistake at `key` with its own error text. For other errors the text names the expected type."""

    def __init__(self, key: str, why: str) -> None:
        super().__init__(why)
        self.add_note(AttributeValidationNote(f"attribute {key}", key, None))


Hook: TypeAlias = Callable[[Any, Any], Any]
Rule: TypeAlias = Callable[[Any], Iterable[str]]
Rules: TypeAlias = Mapping[str, Rule]


def strict_converter() -> Converter:
    """Converts a Table to an attrs class. Raises ClassValidationError; `explain` turns it into lines."""
    converter = Converter(forbid_extra_keys=True, detailed_validation=True)
    for kind in (str, int, bool):
        converter.register_structure_hook(kind, _only(kind))
    converter.register_structure_hook(float, _only(float, int))
    converter.register_structure_hook_func(lambda kind: bool(_choices(kind)), _choice)
    converter.register_structure_hook_factory(lambda kind: get_origin(kind) in _LISTS, _list)
    configure_union_passthrough(str | int | None, converter)
    converter.register_structure_hook_factory(attrs.has, class_hook)
    return converter


# -- classes ------------------------------------------------------------------------------------------


def class_hook(cls: type[Any], converter: Converter, rules: Rules = MappingProxyType({})) -> Hook:
    """The hook for an attrs class. `rules` adds checks to the class's own validators, by key."""
    fields = {a.name: a for a in attrs.fields(attrs.resolve_types(cls))}
    hooks = {key: _without_origin(a.type, converter) for key, a in fields.items()}
    overrides: dict[str, Any] = {key: override(struct_hook=hook) for key, hook in hooks.items()}
    structure = make_dict_structure_fn(cls, converter, **overrides)

    def hook(written: Any, _: Any) -> Any:
        if not isinstance(written, Table):
            raise ValueError
        errors: list[Exception] = []
        refusal: list[Exception] = []
        # By hand: attrs stops at the first failing validator, and cattrs makes no instance if a key has the
        # wrong type. Here every validator runs, on a stand-in if there is no instance.
        try:
            made = structure(written, cls)
        except ClassValidationError as error:
            made = _stand_in(cls, written, fields, hooks)
            noted, others = error.group_exceptions()
            unknown = [each for each in others if isinstance(each, ForbiddenExtraKeysError)]
            errors = [*(each for each, _ in noted), *unknown]
            # The instance was refused by a validator, which runs again below, or by __attrs_post_init__.
            refusal = [Objection("", str(each)) for each in others if each not in unknown]
        for key in sorted(fields, key=lambda key: key not in written):
            # a default that contradicts a written key is reported only if no written key has a mistake
            if hasattr(made, key) and (key in written or not errors):
                found = [Objection(key, why) for why in _objections(made, fields[key], rules.get(key))]
                errors += found
                if found:  # no line for what only follows from it
                    object.__delattr__(made, key)
        if errors or refusal:
            raise ClassValidationError(cls.__name__, errors or refusal, cls)
        return made

    return hook


def _without_origin(kind: Any, converter: Converter) -> Hook:
    hook = converter.get_structure_hook(kind)
    as_text = str in _alternatives(kind)
    return lambda written, _: hook(written if is_table(kind) else plain(written, as_text), kind)


_UNKNOWN: tuple[Any, ...] = (attrs.Factory, type(attrs.NOTHING))


def _stand_in(cls: type, written: Table, fields: Mapping[str, Any], hooks: Mapping[str, Hook]) -> Any:
    """An instance with the readable written keys, and the defaults of the other keys. It has the methods of
    its class, because validators call them."""
    made: Any = object.__new__(cls)
    for key, a in fields.items():
        with suppress(Exception):
            if key not in written:
                object.__setattr__(made, key, _default_of(a))
            elif not is_table(a.type):
                object.__setattr__(made, key, hooks[key](written[key], a.type))
    return made


def _default_of(a: attrs.Attribute[Any]) -> Any:
    """Raises ValueError if it has none, or one that is made of other keys."""
    default: Any = a.default
    if not isinstance(default, _UNKNOWN):
        return default
    if default is attrs.NOTHING or default.takes_self:
        raise ValueError
    return default.factory()


def _objections(made: Any, a: attrs.Attribute[Any], rule: Rule | None) -> Iterator[str]:
    value = getattr(made, a.name)
    try:
        if a.validator is not None:
            a.validator(made, a, value)
    except (ValueError, TypeError) as error:
        # attrs writes "'port' must be <= 65535: 70000"; our line has the name and the value already
        yield str(*error.args[:1]).removeprefix(f"'{a.name}' ").removesuffix(f": {value}")
    except AttributeError:
        pass  # the validator needs another key that could not be read and has a line already
    if rule:
        yield from rule(value)


# -- values -------------------------------------------------------------------------------------------


def _only(*valid: type) -> Hook:
    def hook(value: Any, kind: Any) -> Any:
        if type(value) not in valid or (isinstance(value, float) and not math.isfinite(value)):
            raise ValueError
        return kind(value)

    return hook


def _choice(value: Any, kind: Any) -> Any:
    """By hand, because cattrs compares only values, and true equals 1."""
    for valid, choice in _choices(kind):
        if type(value) is type(valid) and value == valid:
            return choice
    raise ValueError


def _list(kind: Any, converter: Converter) -> Hook:
    """By hand, because cattrs accepts a text as a list of its letters."""
    make, structure = get_origin(kind), list_structure_factory(kind, converter)
    strictly = _only(list)
    return lambda value, _: make(structure(strictly(value, list), kind))


# -- types --------------------------------------------------------------------------------------------


def _alternatives(kind: Any) -> tuple[Any, ...]:
    """The members of a union, without None: TOML has no null."""
    if get_origin(kind) in (Union, UnionType):
        return tuple(member for member in get_args(kind) if member is not NoneType)
    return (kind,)


def _choices(kind: Any) -> list[tuple[Any, Any]]:
    """The values of a Literal or an enumeration: (as written, as converted)."""
    if get_origin(kind) is Literal:
        return [(value, value) for value in get_args(kind)]
    return [(member.value, member) for member in kind] if isinstance(kind, type(Enum)) else []


def is_table(kind: Any) -> bool:
    """Whether error texts treat it as a table: an attrs class, or a mapping of names to attrs classes."""
    kind = _alternatives(kind)[0]
    return attrs.has(get_args(kind)[1] if get_origin(kind) in _MAPPINGS else kind)


_LISTS: tuple[Any, ...] = (tuple, list)
_MAPPINGS: tuple[Any, ...] = (dict, Mapping)
_NAMES: dict[Any, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    Any: "of any kind",
}


def _name(kind: Any) -> str:
    """The name of a type in error texts."""
    first, *others = _alternatives(kind)
    outer, inner = get_origin(first), get_args(first)
    if others:
        return " or ".join(map(_name, (first, *others)))
    if is_table(first):
        return "a table"
    if outer in _LISTS:
        return f"a list, each {_name(inner[0])}"
    if outer in _MAPPINGS:
        return f"a table, each value {_name(inner[1])}"
    if choices := _choices(first):
        return f"one of {', '.join(shown(value) for value, _ in choices)}"
    return _NAMES.get(first, str(first))


# -- messages -----------------------------------------------------------------------------------------


def explain(error: Exception, written: Table, *tables: str, root: type | None = None) -> list[str]:
    """One line for each mistake in `tables`: first the missing keys, then the others in written order.

    `root`: the class of the whole configuration, to tell where a misplaced key belongs. By hand, because
    transform_error of cattrs returns texts, without the path that is needed to look up origin and order.
    """
    order = {key: number for number, key in enumerate(written)}
    lines: list[str] = []
    for key, each, kind in sorted(_by_key(error), key=lambda mistake: order.get(mistake[0], -1)):
        leaf = written.get(key)
        place = f"[{'.'.join(tables)}]"
        below = f"{place} {key}" if tables and not is_table(kind) else f"[{'.'.join((*tables, key))}]"
        why = f"must be {_name(kind)}" if kind else str(each)
        if leaf is None:
            missing = f"{key} is missing, " if isinstance(each, KeyError) else f"{key} " if key else ""
            lines.append(f"{written.origin}: {place}: {missing}{why}")
        elif isinstance(each, ForbiddenExtraKeysError):
            lines.append(f"{leaf.origin}: {_unknown(key, leaf, tables, each.cl, root)}")
        elif isinstance(leaf, Table) and is_table(kind):
            lines += explain(each, leaf, *tables, key, root=root)
        else:
            lines.append(wrong(leaf, below, why) + _as_a_list(key, leaf, kind))
    return lines


def _unknown(key: str, leaf: Table | Leaf, tables: Sequence[str], cls: type, root: type | None) -> str:
    """What is wrong with a key or table that does not exist. One that exists in another table was meant."""
    names = places(root, key) if root is not None and len(tables) < 2 else ()
    homes = " or ".join(f"[{name}]" for name in names)
    valid = instead(key, [a.name for a in attrs.fields(cls)])
    if tables:
        return (
            f"[{'.'.join(tables)}] {key}: unknown key; {f'it is a key of {homes}; ' if homes else ''}{valid}"
        )
    if not homes:
        return f"[{key}]: unknown table; {valid}"
    if isinstance(leaf, Leaf):
        return f"{key}: stands in no table; write it below {homes}"
    return f"[{key}]: unknown table; {key} is a key of {homes}"


def places(cls: type, key: str, *tables: str) -> Iterator[str]:
    """The tables below a class that have such a key. A table with a name of the user's counts as NAME."""
    for a in attrs.fields(attrs.resolve_types(cls)):
        kind = _alternatives(a.type)[0]
        if get_origin(kind) in _MAPPINGS:
            kind, name = get_args(kind)[1], f"{a.name}.NAME"
        else:
            name = a.name
        if a.name == key and tables and not attrs.has(kind):
            yield ".".join(tables)
        elif attrs.has(kind):
            yield from places(kind, key, *tables, name)


def _as_a_list(key: str, leaf: Table | Leaf, kind: Any) -> str:
    """How an environment variable writes a list, if it should have."""
    is_list = get_origin(_alternatives(kind)[0]) in _LISTS
    if not is_list or isinstance(leaf, Table) or leaf.text is None or isinstance(leaf.value, list):
        return ""
    parts = [each.strip() for each in leaf.text.strip("[] ").split(",")]
    found = ["..."] if is_secret(key) else [concealed(each) for each in parts if each]
    return f"; write it as {leaf.origin}='{json.dumps(found, ensure_ascii=False)}'"


def _by_key(error: Any) -> Iterator[tuple[str, Exception, Any]]:
    """Key, error and expected type; the type is None if the error has its own text."""
    noted, unknown = error.group_exceptions()
    for each, note in noted:
        yield note.name if isinstance(note, AttributeValidationNote) else note.index, each, note.type
    for each in unknown:
        yield from ((key, each, None) for key in each.extra_fields)


def plain(written: Table | Leaf, as_text: bool = False) -> Any:
    """The values without origins. With `as_text`, an environment variable keeps its text."""
    if isinstance(written, Table):
        return {key: plain(value) for key, value in written.items()}
    # a variable needs no quotation marks: for a text key, 12345 and true are text too
    unquoted = as_text and written.text is not None and not isinstance(written.value, str)
    return written.text if unquoted else written.value


def wrong(leaf: Table | Leaf, place: str, why: str) -> str:
    """The line for an invalid value. Secrets are not repeated, because lines end up in logs."""
    key = place.rstrip("]").rpartition(" ")[2].rpartition(".")[2]
    found = HIDDEN if is_secret(key) else shown(concealed_value(plain(leaf)))
    return f"{leaf.origin}: {place}: found {found}; {why}"


def shown(value: Any) -> str:
    """A value nearly as TOML writes it, cut to 60 characters."""
    # before the cut, which may hide how a secret is recognised
    text = concealed(json.dumps(value, ensure_ascii=False, default=str))
    return text if len(text) <= 60 else f"{text[:57]}..."


def instead(name: str, valid: Collection[str]) -> str:
    """The hint for an unknown name: the nearest valid name, and all valid names."""
    near = difflib.get_close_matches(name.lower(), valid, n=1)
    hint = f"did you mean {shown(near[0])}? " if near else ""
    return f"{hint}valid: {', '.join(sorted(valid))}"
