"""Conversion with cattrs: the types that a settings class may use, and the lines for mistakes."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum, StrEnum
from typing import Any, Literal

import attrs
import pytest
from attrs import field, frozen, validators
from cattrs import ClassValidationError, StructureHandlerNotFoundError

from dataflow.settings.structure import Leaf, Table, explain, strict_converter


class Side(StrEnum):
    BUY = "buy"
    SELL = "sell"


class Level(IntEnum):
    ONE = 1
    TWO = 2


@frozen(kw_only=True)
class Proxy:
    host: str
    port: int = field(default=1, validator=validators.gt(0))


@frozen(kw_only=True)
class Everything:
    """A key of every supported type."""

    side: Side = Side.BUY
    level: Level = Level.ONE
    depth: Literal[1, 2] = 1
    mode: Literal["auto"] | int = 1
    name: int | str = 1
    part: float | None = None
    pair: list[str] = field(factory=list)
    grid: tuple[tuple[int, ...], ...] = ()
    limits: dict[str, float] = field(factory=dict)
    proxy: Proxy | None = None
    proxies: Mapping[str, Proxy] = field(factory=dict)
    checked: Any = field(default="x", validator=validators.instance_of(str))
    least: int = 1
    most: int = field(default=5)

    @most.validator
    def _in_order(self, _attribute: object, value: int) -> None:
        if value < self.least:
            raise ValueError(f"must be >= least, which is {self.least}")

    def __attrs_post_init__(self) -> None:
        if self.level is Level.TWO and self.depth == 2:
            raise ValueError("level and depth cannot both be 2")


def _table(written: Mapping[str, Any]) -> Table:
    return Table("f", [(k, _table(v) if isinstance(v, dict) else Leaf(v, "f")) for k, v in written.items()])


def _structured(**written: Any) -> Any:
    return strict_converter().structure(_table(written), Everything)


def _told(**written: Any) -> list[str]:
    with pytest.raises(ClassValidationError) as caught:
        _structured(**written)
    return [line.removeprefix("f: [e] ") for line in explain(caught.value, _table(written), "e")]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ({"side": "sell"}, Side.SELL),
        ({"level": 2}, Level.TWO),
        ({"depth": 2}, 2),
        ({"mode": "auto"}, "auto"),
        ({"mode": 7}, 7),
        ({"name": "seven"}, "seven"),
        ({"name": 7}, 7),
        ({"part": 1}, 1.0),
        ({"pair": ["a", "b"]}, ["a", "b"]),
        ({"grid": [[1], [2, 3]]}, ((1,), (2, 3))),
        ({"limits": {"a": 1}}, {"a": 1.0}),
        ({"proxy": {"host": "h"}}, Proxy(host="h")),
        ({"proxies": {"a": {"host": "h", "port": 2}}}, {"a": Proxy(host="h", port=2)}),
    ],
)
def test_valid_values(written: dict[str, Any], meant: Any) -> None:
    """A value is converted to exactly its type, also to a number type of the user's."""
    [key] = written
    found = getattr(_structured(**written), key)
    assert found == meant
    assert type(found) is type(meant)


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ({"side": "hold"}, 'side: found "hold"; must be one of "buy", "sell"'),
        ({"level": True}, "level: found true; must be one of 1, 2"),
        ({"depth": True}, "depth: found true; must be one of 1, 2"),
        ({"depth": 1.0}, "depth: found 1.0; must be one of 1, 2"),
        ({"mode": "manual"}, 'mode: found "manual"; must be one of "auto" or a whole number'),
        ({"name": True}, "name: found true; must be a whole number or text"),
        ({"part": "1"}, 'part: found "1"; must be a number'),
        ({"part": float("nan")}, "part: found NaN; must be a number"),
        ({"pair": "ab"}, 'pair: found "ab"; must be a list, each text'),
        ({"pair": {"a": 1}}, 'pair: found {"a": 1}; must be a list, each text'),
        (
            {"grid": [[1], ["2"]]},
            'grid: found [[1], ["2"]]; must be a list, each a list, each a whole number',
        ),
        ({"limits": {"a": True}}, 'limits: found {"a": true}; must be a table, each value a number'),
        ({"limits": "a"}, 'limits: found "a"; must be a table, each value a number'),
        ({"checked": "x", "most": 0}, "most: found 0; must be >= least, which is 1"),
    ],
)
def test_invalid_values(written: dict[str, Any], told: str) -> None:
    """A value that cattrs itself would convert is refused, and the line names the expected type."""
    assert _told(**written) == [told]


def test_tables_below_tables() -> None:
    """A nested class is a nested table in the error lines, at every depth."""
    assert _told(proxy={"port": 0}, proxies={"a": {"host": 1, "prot": 2}, "b": 3}) == [
        "f: [e.proxy]: host is missing, must be text",
        "f: [e.proxy] port: found 0; must be > 0",
        "f: [e.proxies.a] host: found 1; must be text",
        'f: [e.proxies.a] prot: unknown key; did you mean "port"? valid: host, port',
        "f: [e.proxies.b]: found 3; must be a table",
    ]


def test_a_default_that_does_not_go_with_a_written_key() -> None:
    """A rule between two keys also holds if only the other key is written; its line names the table."""
    assert _told(least=6) == ["f: [e]: most must be >= least, which is 6"]


def test_a_rule_between_keys_is_skipped_for_an_unreadable_key() -> None:
    """One mistake is one line: a rule between two keys is skipped if one of them is unreadable."""
    assert _told(least="6", most=1) == ['least: found "6"; must be a whole number']


def test_all_mistakes_of_a_table_in_their_order() -> None:
    """Wrong types, unknown keys and failed validators come together, in the order of the file."""
    assert _told(most=0, nearest=1, depth=3, other=2) == [
        "most: found 0; must be >= least, which is 1",
        'nearest: unknown key; did you mean "least"? valid: checked, depth, grid, least, level, limits, mode, '
        "most, name, pair, part, proxies, proxy, side",
        "depth: found 3; must be one of 1, 2",
        "other: unknown key; valid: checked, depth, grid, least, level, limits, mode, most, name, pair, part, "
        "proxies, proxy, side",
    ]


def test_an_objection_of_the_class_itself() -> None:
    """An error of `__attrs_post_init__` belongs to no key: its line names the table."""
    assert _told(level=2, depth=2) == ["f: [e]: level and depth cannot both be 2"]


def test_a_type_without_a_hook_is_an_error_of_the_class() -> None:
    """A class with a key of an unsupported type is refused before anything is read."""
    odd = attrs.make_class("Odd", {"when": attrs.field(type=complex)})
    with pytest.raises(StructureHandlerNotFoundError, match="complex"):
        strict_converter().structure(_table({"when": 1}), odd)
