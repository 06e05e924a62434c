"""What has changed between two configurations, and the part of it that a running daemon can take over.

Rules of this file: pure. `RELOADED` alone decides what can be taken over. No line holds a secret.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import attrs
from attrs import frozen

from dataflow.domain.secrets import HIDDEN, concealed, concealed_value, is_secret

from .schema import Settings

_GATEWAY: Final = (
    *("hosts", "origins", "trusted_proxies", "ready_needs_sources"),
    *("tls_certificate", "tls_key"),
)
# Table -> its keys that a running daemon takes over; None: the whole table.
RELOADED: Final[Mapping[str, Sequence[str] | None]] = {
    "gateway": _GATEWAY,
    "limits": None,
    "sources": None,
    "symbols": None,
}

_LONGEST: Final = 200  # characters of a value in a line


@frozen
class Change:
    """A key or table with another value. `old` and `new` are texts; None: there is none."""

    place: str
    old: str | None
    new: str | None

    def __str__(self) -> str:
        if self.old is None and self.place.endswith("]"):
            return f"{self.place}: added: {self.new}"
        if self.new is None and self.place.endswith("]"):
            return f"{self.place}: removed"
        return f"{self.place}: {self.old or 'none'} -> {self.new or 'none'}"


def taken_over(old: Settings, new: Settings) -> Settings:
    """`new` as far as a running daemon can take it over, and `old` in everything else."""
    tables: dict[str, Any] = {}
    for name, keys in RELOADED.items():
        before, after = getattr(old, name), getattr(new, name)
        if name == "gateway" and (before.tls_certificate is None) != (after.tls_certificate is None):
            keys = [key for key in _GATEWAY if not key.startswith("tls_")]  # a listener has TLS, or has not
        tables[name] = (
            after if keys is None else attrs.evolve(before, **{key: getattr(after, key) for key in keys})
        )
    return attrs.evolve(old, **tables)


def changes(old: Settings, new: Settings) -> list[Change]:
    """Every changed key, in the order of the configuration. A table that comes or goes is one change."""
    return list(_between((), old, new))


def _between(path: Sequence[str], old: Any, new: Any) -> Iterator[Change]:
    before, after = _members(old), _members(new)
    for key in {**before, **after}:
        was, now = before.get(key), after.get(key)
        if was == now:
            continue
        if _is_table(was) and _is_table(now):
            yield from _between((*path, key), was, now)
        elif _is_table(was) or _is_table(now):
            yield Change(f"[{'.'.join((*path, key))}]", *(_table(each) for each in (was, now)))
        else:
            yield Change(f"[{'.'.join(path)}] {key}", *_values(key, was, now))


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping) or attrs.has(type(value))


def _members(table: Any) -> dict[str, Any]:
    if isinstance(table, Mapping):
        return dict(table)
    return {field.name: getattr(table, field.name) for field in attrs.fields(type(table))}


def _table(value: Any) -> str | None:
    """The keys of a table that were written, as far as one can tell: those that are not the default."""
    if value is None:
        return None
    return (
        ", ".join(f"{key} = {_value(key, each)}" for key, each in _written(value).items()) or "as by default"
    )


def _written(table: Any) -> dict[str, Any]:
    fields = {field.name: field for field in attrs.fields(type(table))}
    return {key: each for key, each in _members(table).items() if each != default_of(fields[key], table)}


def default_of(field: attrs.Attribute[Any], table: Any) -> Any:
    """The value that a key of `table` has when nobody writes it; `attrs.NOTHING` if it must be written."""
    made: Any = field.default
    if not isinstance(made, attrs.Factory):  # type: ignore[arg-type]
        return made
    return made.factory(table) if made.takes_self else made.factory()


def _values(key: str, old: Any, new: Any) -> tuple[str | None, str | None]:
    texts = _value(key, old), _value(key, new)
    if isinstance(old, tuple) and isinstance(new, tuple) and max(map(len, filter(None, texts))) > _LONGEST:
        # the difference may lie behind the cut
        gone, come = ([each for each in one if each not in other] for one, other in ((old, new), (new, old)))
        return f"without {_cut(_value(key, gone))}", f"with {_cut(_value(key, come))}"
    return _cut(texts[0]), _cut(texts[1])


def _value(key: str, value: Any) -> str | None:
    """A value nearly as TOML writes it. A secret is not shown."""
    if value is None:
        return None
    if is_secret(key):
        return HIDDEN
    return concealed(json.dumps(concealed_value(value), ensure_ascii=False, default=_plain))


def _plain(value: Any) -> Any:
    """What JSON does not know: a table inside of a table, and a choice."""
    return concealed_value(_written(value)) if _is_table(value) else getattr(value, "value", str(value))


def _cut(text: str | None) -> str | None:
    return text if text is None or len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
