"""The difference of two configurations: what is told, what a running daemon takes over, what is never shown."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.outbox import SlowClient
from dataflow.connectors import binance, blockchain
from dataflow.faces import sse
from dataflow.settings.changes import RELOADED, changes, taken_over
from dataflow.settings.schema import Cache, Chaos, Gateway, Limits, Mode, Operator, Session, Settings, Symbol
from tests.dataflow.connectors.mappings import acme
from tests.dataflow.connectors.mappings import settings as acme_settings

SECRET = "not-to-be-shown"


def source(url: str = "ws://a/stream", *symbols: str, **more: Any) -> binance.Settings:
    return binance.Settings(connector="binance", url=url, symbols=symbols or ("BTC-USDT",), **more)


def lines(old: Settings, new: Settings) -> list[str]:
    return [str(each) for each in changes(old, new)]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (Settings(), Settings(), []),
        (
            Settings(gateway=Gateway(port=1)),
            Settings(gateway=Gateway(port=2)),
            ["[gateway] port: 1 -> 2"],
        ),
        (
            Settings(gateway=Gateway(origins=("https://a",))),
            Settings(gateway=Gateway(origins=("https://a", "https://b"))),
            ['[gateway] origins: ["https://a"] -> ["https://a", "https://b"]'],
        ),
        (
            Settings(operator=Operator(token="first-token")),
            Settings(operator=Operator(token="second-token")),
            ["[operator] token: *** -> ***"],
        ),
        (
            Settings(),
            Settings(gateway=Gateway(tls_certificate="/c.pem", tls_key="/k.pem")),
            ['[gateway] tls_certificate: none -> "/c.pem"', '[gateway] tls_key: none -> "/k.pem"'],
        ),
        (
            Settings(session=Session(slow_client=SlowClient.DISCONNECT)),
            Settings(session=Session(slow_client=SlowClient.CONFLATE)),
            ['[session] slow_client: "disconnect" -> "conflate"'],
        ),
        (Settings(sources={"one": source()}), Settings(), ["[sources.one]: removed"]),
        (  # its stream and its REST follow from the address, so nobody wrote them
            Settings(),
            Settings(sources={"one": source("ws://a/market/stream", "BTC-USDT-PERP")}),
            [
                '[sources.one]: added: connector = "binance", url = "ws://a/market/stream", '
                'symbols = ["BTC-USDT-PERP"]'
            ],
        ),
        (
            Settings(),
            Settings(sources={"one": source(f"ws://me:{SECRET}@a/stream")}),
            [
                '[sources.one]: added: connector = "binance", url = "ws://me:***@a/stream",'
                ' symbols = ["BTC-USDT"]'
            ],
        ),
        (
            Settings(sources={"one": source(), "two": source("ws://b/stream")}),
            Settings(sources={"two": source("ws://c/stream"), "one": source()}),
            ['[sources.two] url: "ws://b/stream" -> "ws://c/stream"'],
        ),
        (
            Settings(faces={"sse": sse.Settings()}),
            Settings(faces={"sse": sse.Settings(enabled=False)}),
            ["[faces.sse] enabled: true -> false"],
        ),
    ],
)
def test_each_change_is_one_line(old: Settings, new: Settings, told: list[str]) -> None:
    """What, the old value and the new one. No secret is shown, only that it is another."""
    assert lines(old, new) == told


def test_a_table_inside_of_a_new_source_is_told_by_its_keys() -> None:
    """As it was written, and not as Python shows its objects."""
    mapped = acme_settings(acme())
    (line,) = lines(Settings(), Settings(sources={"acme": mapped}))
    assert 'trades = {"at": "data.*", ' in line
    assert '"sides": {"B": "buy", "S": "sell"}' in line
    assert "(" not in line


def test_the_difference_of_long_lists_is_told_and_not_their_equal_beginning() -> None:
    """A hundred symbols do not fit into a line, but the one that came does."""
    many = [f"COIN{n}-USDT" for n in range(100)]
    old = Settings(sources={"one": source("ws://a", *many)})
    new = Settings(sources={"one": source("ws://a", *many[1:], "NEW-USDT")})
    assert lines(old, new) == ['[sources.one] symbols: without ["COIN0-USDT"] -> with ["NEW-USDT"]']


def test_another_connector_is_told_key_by_key() -> None:
    """Keys that only one of the two connectors has are there or not there."""
    new = blockchain.Settings(connector="blockchain", url="ws://a/stream", symbols=("BTC-USDT",))
    told = lines(Settings(sources={"one": source()}), Settings(sources={"one": new}))
    assert '[sources.one] connector: "binance" -> "blockchain"' in told
    assert any(line.endswith("-> none") for line in told)


def test_tls_is_renewed_but_neither_begun_nor_ended() -> None:
    """A listener has TLS or has not: that needs a restart, also when other keys of the table do not."""
    plain = Settings(gateway=Gateway(hosts=("old",)))
    first = Settings(gateway=Gateway(hosts=("new",), tls_certificate="/a.pem", tls_key="/b.pem"))
    second = Settings(gateway=Gateway(hosts=("new",), tls_certificate="/c.pem", tls_key="/d.pem"))
    assert taken_over(plain, first) == Settings(gateway=Gateway(hosts=("new",)))
    assert taken_over(first, plain).gateway.tls_certificate == "/a.pem"
    assert taken_over(first, second) == second


_sources = st.builds(
    source,
    st.sampled_from(["ws://a/stream", f"wss://me:{SECRET}@b/stream", f"wss://c/stream?apiKey={SECRET}"]),
    st.sampled_from(["BTC-USDT", "ETH-USDT"]),
    eager=st.booleans(),
)
_gateways = st.builds(
    Gateway,
    port=st.integers(0, 3),
    hosts=st.sampled_from([(), ("feed.example.com",)]),
    origins=st.sampled_from([(), ("*",)]),
    trusted_proxies=st.sampled_from([(), ("10.0.0.0/8",)]),
    ready_needs_sources=st.booleans(),
    admin_token=st.sampled_from([None, SECRET]),
) | st.builds(Gateway, tls_certificate=st.sampled_from(["/a", "/b"]), tls_key=st.just("/k"))
_all = st.builds(
    Settings,
    gateway=_gateways,
    operator=st.builds(Operator, token=st.sampled_from([None, SECRET, SECRET + "2"])),
    limits=st.builds(Limits, sessions=st.integers(1, 3)),
    cache=st.builds(Cache, shards=st.integers(1, 3)),
    chaos=st.builds(Chaos, seed=st.none() | st.integers(0, 2)),
    sources=st.dictionaries(st.sampled_from(["one", "two", "three"]), _sources),
    symbols=st.dictionaries(
        st.sampled_from(["BTC-USD", "ETH-USD"]),
        st.builds(Symbol, mode=st.sampled_from(Mode), return_after=st.sampled_from([1.0, 2.0])),
    ),
)


@given(_all, _all)
def test_what_is_taken_over_and_what_needs_a_restart_are_all_changes(old: Settings, new: Settings) -> None:
    """Each change is in one of the two lists, no change in both, and a second look finds nothing more to take."""
    taken = taken_over(old, new)
    now, later, every = changes(old, taken), changes(taken, new), changes(old, new)
    assert sorted(map(str, now + later)) == sorted(map(str, every))
    assert not {each.place for each in now} & {each.place for each in later}
    assert taken_over(taken, new) == taken
    assert (changes(old, new) == []) is (old == new)


@given(_all, _all)
def test_only_what_can_be_reloaded_is_taken_over(old: Settings, new: Settings) -> None:
    """Everything else keeps its value, whatever is written."""
    taken = taken_over(old, new)
    for table in attrs.fields(Settings):
        before, after = getattr(old, table.name), getattr(taken, table.name)
        if table.name not in RELOADED:
            assert after == before
        elif (keys := RELOADED[table.name]) is not None:
            others = [each.name for each in attrs.fields(type(before)) if each.name not in keys]
            assert [getattr(after, key) for key in others] == [getattr(before, key) for key in others]
        else:
            assert after == getattr(new, table.name)


@given(_all, _all)
def test_no_line_has_a_secret(old: Settings, new: Settings) -> None:
    """Tokens, passwords and keys in addresses are hidden, in whatever changes."""
    assert not [line for line in lines(old, new) if SECRET in line]


def test_every_key_that_is_taken_over_exists() -> None:
    """A key that is renamed in the schema must not be forgotten here."""
    for name, keys in RELOADED.items():
        table = getattr(Settings(), name)
        for key in keys or ():
            assert hasattr(table, key)
