"""Configuration, for all values: written settings load unchanged, and one wrong value is one line."""

from __future__ import annotations

import datetime
import json
import math
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin

import attrs
import cattrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.outbox import SlowClient
from dataflow.connectors import binance, blockchain
from dataflow.domain.errors import ConfigError
from dataflow.settings.load import load
from dataflow.settings.schema import (
    Admission,
    BackoffSettings,
    Cache,
    Chaos,
    FanOut,
    Gateway,
    Operator,
    Runtime,
    Session,
    Settings,
    Supervision,
    why_not_sendable,
)


def toml(value: Any) -> str:
    """A value as TOML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(key)} = {toml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, float | datetime.date):
        return str(value)
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def document(tables: dict[str, dict[str, Any]]) -> str:
    """Tables as TOML, without None values."""
    return "".join(
        f"[{name}]\n"
        + "".join(f"{toml(key)} = {toml(value)}\n" for key, value in table.items() if value is not None)
        for name, table in tables.items()
    )


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("config") / "my.toml"


def written(loaded: Settings) -> dict[str, dict[str, Any]]:
    """The content of a file for these settings."""
    tables = cattrs.unstructure(attrs.evolve(loaded, sources={}, symbols={}, faces={}))
    del tables["sources"], tables["symbols"], tables["faces"]
    blocks = {f"sources.{toml(name)}": cattrs.unstructure(source) for name, source in loaded.sources.items()}
    for block in blocks.values():
        assert not block.pop("names", {})  # a table in a table: see test_load
    return tables | blocks


# -- any settings -------------------------------------------------------------------------------------

POSITIVE = st.floats(min_value=0, exclude_min=True, allow_infinity=False)
NOT_NEGATIVE = st.floats(min_value=0, allow_infinity=False)
COUNT = st.integers(min_value=1)
SYMBOL = st.text("ABC19", min_size=1).flatmap(lambda base: st.just(f"{base}-USD"))
SOURCE: dict[str, st.SearchStrategy[Any]] = {
    "url": st.sampled_from(["ws://127.0.0.1:5000", "wss://host/path?a=b%23c"]),
    "symbols": st.lists(SYMBOL, unique=True).map(tuple),
    "eager": st.booleans(),
    "stale_after": POSITIVE,
    "connect_within": POSITIVE,
    "subscribe_within": POSITIVE,
    "linger": NOT_NEGATIVE,
    "max_message_bytes": COUNT,
    "requests_per_second": st.integers(0),
}
SOURCES = st.one_of(
    st.builds(
        binance.Settings,
        connector=st.just("binance"),
        stream=st.sampled_from(["trade", "aggTrade"]),
        **SOURCE,
    ),
    st.builds(
        blockchain.Settings, connector=st.just("blockchain"), api_token=st.none() | st.text(), **SOURCE
    ),
)
DELAYS = st.tuples(POSITIVE, POSITIVE).map(sorted)
ANY = st.builds(
    Settings,
    gateway=st.booleans().flatmap(
        lambda tls: st.builds(
            Gateway,
            host=st.text(),
            port=st.integers(0, 65535),
            max_sessions=COUNT,
            max_message_bytes=COUNT,
            drain_seconds=NOT_NEGATIVE,
            admin_token=st.none() | st.text(min_size=1).filter(lambda token: why_not_sendable(token) is None),
            tls_certificate=st.text() if tls else st.none(),
            tls_key=st.text() if tls else st.none(),
            hosts=st.sampled_from([(), ("a.example", "B-2.example")]),
            origins=st.sampled_from([(), ("*",), ("null", "https://a.example:8443")]),
            trusted_proxies=st.lists(st.ip_addresses().map(str)).map(tuple),
            root_path=st.sampled_from(["", "/feed", "/a/b-2"]),
        )
    ),
    operator=st.builds(
        Operator,
        token=st.none(),
        trust_local=st.booleans(),
        host=st.text(),
        port=st.just(0),  # no other listener's
    ),
    admission=st.builds(Admission, at_once=COUNT, waiting=COUNT, retry_after=POSITIVE),
    session=st.builds(
        Session,
        outbox=COUNT,
        slow_client=st.sampled_from(SlowClient),
        ping_interval=POSITIVE,
        ping_timeout=POSITIVE,
        max_subscriptions=COUNT,
    ),
    fanout=st.builds(FanOut, interval=st.floats(0, 1), joined=COUNT),
    cache=st.builds(Cache, shards=COUNT, trades_per_symbol=COUNT, max_age_seconds=POSITIVE),
    backoff=DELAYS.flatmap(
        lambda delays: st.builds(
            BackoffSettings,
            initial_delay=st.just(delays[0]),
            max_delay=st.just(delays[1]),
            multiplier=st.floats(min_value=1, allow_infinity=False),
            jitter=NOT_NEGATIVE,
        )
    ),
    supervision=st.builds(
        Supervision, restarts=st.integers(min_value=0), within=POSITIVE, stop_within=NOT_NEGATIVE
    ),
    runtime=st.builds(Runtime, gc_thresholds=st.tuples(*[st.integers(min_value=0)] * 3)),
    chaos=st.builds(
        Chaos, enabled=st.booleans(), seed=st.none() | st.integers(), faults_per_minute=NOT_NEGATIVE
    ),
    sources=st.dictionaries(
        st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"]), min_size=1),
        SOURCES,
        max_size=2,
    ),
)


@settings(deadline=None)
@given(ANY)
def test_settings_survive_being_written(file: Path, wanted: Settings) -> None:
    """Any settings, written as TOML and loaded, are unchanged, with the same types."""
    file.write_text(document(written(wanted)), encoding="utf-8")
    loaded = load([file], {})
    assert loaded == wanted
    assert repr(loaded) == repr(wanted)


# -- one wrong value ----------------------------------------------------------------------------------

DEFAULTS = written(
    Settings(
        gateway=Gateway(admin_token="x", tls_certificate="x", tls_key="x"),
        operator=Operator(token="x", port=1),
        chaos=Chaos(seed=1),
        sources={
            "a": binance.Settings(connector="binance", url="wss://h", symbols=("A-B",)),
            "b": blockchain.Settings(connector="blockchain", url="wss://h", api_token="x"),
        },
    )
)
CLASSES: dict[str, Any] = {a.name: type(a.default) for a in attrs.fields(Settings)} | {
    'sources."a"': binance.Settings,
    'sources."b"': blockchain.Settings,
}
KEYS = [
    (table, a)
    for table in DEFAULTS
    for a in attrs.fields(attrs.resolve_types(CLASSES[table]))
    if a.name in DEFAULTS[table]
]
SCALARS: dict[Any, st.SearchStrategy[Any]] = {
    str: st.sampled_from(["80", "1.5", "true"]) | st.text().map("?{}".format),  # never a valid choice
    int: st.integers(),
    float: st.floats(allow_nan=False, allow_infinity=False),
    bool: st.booleans(),
}
NEVER: st.SearchStrategy[Any] = st.one_of(
    st.dates(), st.sampled_from([math.nan, math.inf]), st.dictionaries(st.sampled_from("ab"), st.integers())
)


def wrong_for(kind: Any) -> st.SearchStrategy[Any]:
    """Values that TOML can express and that a key of this type must refuse."""
    if NoneType in get_args(kind):
        [kind] = set(get_args(kind)) - {NoneType}
    taken = (float, int) if kind is float else (kind,)
    element = get_args(kind)[0] if get_origin(kind) is tuple else None
    elements = st.one_of(*(values for scalar, values in SCALARS.items() if scalar is not element))
    return st.one_of(
        *(values for scalar, values in SCALARS.items() if scalar not in taken),
        NEVER,
        st.lists(elements, min_size=1),
    )


@pytest.mark.parametrize(("table", "a"), KEYS, ids=[f"{table} {a.name}" for table, a in KEYS])
@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_a_wrong_type_is_one_line(
    file: Path, table: str, a: attrs.Attribute[Any], data: st.DataObject
) -> None:
    """One value of a wrong type among right ones gives exactly one line, which names its key."""
    value = data.draw(wrong_for(a.type))
    file.write_text(document(DEFAULTS | {table: DEFAULTS[table] | {a.name: value}}), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load([file], {})
    place = table.replace('"', "")
    [line] = caught.value.problems
    assert line.startswith(f"{file}: [{place}] {a.name}: found ")
    assert "; must be " in line


@settings(deadline=None)
@given(table=st.sampled_from(list(DEFAULTS)), key=st.text(min_size=1).map("?{}".format))
def test_an_unknown_key_is_one_line(file: Path, table: str, key: str) -> None:
    """Any unknown key gives a line."""
    file.write_text(document(DEFAULTS | {table: DEFAULTS[table] | {key: 1}}), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load([file], {})
    [line] = caught.value.problems
    assert line.startswith(f"{file}: [{table.replace(chr(34), '')}] {key}: unknown key; ")


@settings(deadline=None, max_examples=50)
@given(data=st.data(), keys=st.lists(st.sampled_from(range(len(KEYS))), unique=True, min_size=1))
def test_all_wrong_types_are_told(file: Path, keys: list[int], data: st.DataObject) -> None:
    """The number of lines is the number of mistakes, for any set of keys."""
    tables = {table: dict(values) for table, values in DEFAULTS.items()}
    for table, a in (KEYS[number] for number in keys):
        tables[table][a.name] = data.draw(wrong_for(a.type))
    file.write_text(document(tables), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load([file], {})
    # a connector's own key cannot be checked without the connector's name
    unread = {"stream", "api_token"}
    told = {
        (table.replace('"', ""), a.name)
        for table, a in (KEYS[number] for number in keys)
        if a.name not in unread or isinstance(tables[table]["connector"], str)
    }
    assert {
        tuple(line.removeprefix(f"{file}: [").split(": ")[0].split("] ")) for line in caught.value.problems
    } == told
    assert len(caught.value.problems) == len(told)


# -- cases --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("connector", "told"),
    [
        ("", ": connector is missing; valid: binance, "),
        (
            'connector = "binanc"\n',
            ' connector: found "binanc"; unknown connector; did you mean "binance"? valid: ',
        ),
        ("connector = 3\n", " connector: found 3; must be text"),
    ],
)
def test_a_source_without_a_connector_tells_its_other_mistakes(file: Path, connector: str, told: str) -> None:
    """Without a usable connector only the keys that every source has are checked, and no missing keys."""
    file.write_text(f'[sources.a]\n{connector}symbols = ["x"]\nlinger = -1\neager = "no"\nmine = 1\n')
    with pytest.raises(ConfigError) as caught:
        load([file], {})
    first, *others = caught.value.problems
    assert first.startswith(f"{file}: [sources.a]{told}")
    assert others == [
        f'{file}: [sources.a] symbols: found ["x"]; "x" must be BASE-QUOTE in capitals, such as "BTC-USD"',
        f"{file}: [sources.a] linger: found -1; must be >= 0",
        f'{file}: [sources.a] eager: found "no"; must be true or false',
    ]


def test_a_first_delay_above_the_default_of_the_longest(file: Path) -> None:
    """A key that contradicts the default of another key gives a line."""
    file.write_text("[backoff]\ninitial_delay = 60\n")
    with pytest.raises(ConfigError) as caught:
        load([file], {})
    assert caught.value.problems == [f"{file}: [backoff]: max_delay must be >= initial_delay, which is 60.0"]


def test_a_broken_address_is_told(file: Path) -> None:
    """An address that cannot be parsed is an ordinary mistake."""
    file.write_text('[sources.a]\nconnector = "binance"\nurl = "ws://[x"\n')
    with pytest.raises(ConfigError) as caught:
        load([file], {})
    assert caught.value.problems == [
        f'{file}: [sources.a] url: found "ws://[x"; must be a whole address, such as "wss://host/path"'
    ]


def test_a_byte_order_mark_is_not_seen(file: Path) -> None:
    """A file with a byte order mark and CRLF line ends, as from Windows, has the same meaning."""
    file.write_bytes(b"\xef\xbb\xbf[gateway]\r\nport = 9000\r\n")
    assert load([file], {}) == Settings(gateway=Gateway(port=9000))
