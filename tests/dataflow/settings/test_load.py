"""Loading the configuration: layers, types, and all mistakes at once with their origins."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import attrs
import pytest
from attrs import field, frozen, validators
from hypothesis import given
from hypothesis import strategies as st

from actors.outbox import SlowClient
from dataflow import connectors, plugs
from dataflow.domain.errors import ConfigError
from dataflow.domain.symbols import Form
from dataflow.settings import load as config
from dataflow.settings.environment import near_misses
from dataflow.settings.load import load, read
from dataflow.settings.schema import Chaos, Gateway, History, Mode, Session, Settings, Symbol
from dataflow.sources.port import ListenerSettings, SourceSettings


@frozen(kw_only=True)
class FeedSettings(SourceSettings):
    """Settings of a connector, with keys of every kind."""

    api_token: str | None = field(default=None, repr=False)
    stream: Literal["trade", "aggTrade"] = "trade"
    depth: int = field(default=10, validator=validators.in_([10, 20]))
    extra: Mapping[str, str] = {}


@pytest.fixture(autouse=True)
def _feeds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """User modules named `my_feeds.*`, and a connectors folder with two connectors and a private file."""
    good = ModuleType("my_feeds.acme")
    good.Settings = FeedSettings  # type: ignore[attr-defined]
    good.Codec = object  # type: ignore[attr-defined]
    bare = ModuleType("my_feeds.bare")
    alien = ModuleType("my_feeds.alien")
    alien.Settings = Gateway  # type: ignore[attr-defined]
    alien.Codec = object  # type: ignore[attr-defined]
    codecless = ModuleType("my_feeds.codecless")
    codecless.Settings = FeedSettings  # type: ignore[attr-defined]
    pushed = ModuleType("my_feeds.pushed")
    pushed.Settings = ListenerSettings  # type: ignore[attr-defined]
    pushed.Codec = object  # type: ignore[attr-defined]
    for module in (ModuleType("my_feeds"), good, bare, alien, codecless, pushed):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    folder = tmp_path / "connectors"
    folder.mkdir()
    for name in ("binance", "blockchain", "_shared"):
        (folder / f"{name}.py").write_text("raise RuntimeError('must not be imported to be listed')\n")
    monkeypatch.setattr(connectors, "__path__", [str(folder)])


class Files:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, text: str, name: str = "my.toml") -> Path:
        file = self.folder / name
        file.write_text(text)
        return file

    def problems(self, text: str, environ: Mapping[str, str] | None = None) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            load([self.write(text)], environ or {})
        return [problem.replace(f"{self.folder}/", "") for problem in caught.value.problems]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


SOURCE = '[sources.a]\nconnector = "my_feeds.acme"\nurl = "wss://feed.example.com/ws"\n'
SEVERAL = (
    "".join(
        f'{SOURCE.replace("sources.a", f"sources.{name}")}symbols = ["{symbol}"]\n'
        for name, symbol in (("a", "BTC-USD"), ("b", "BTC-USD"), ("d", "ETH-USD"))
    )
    + '[sources.t]\nconnector = "my_feeds.pushed"\nsymbols = ["AAPL"]\n'
)


class TestMeaning:
    def test_nothing_written_means_the_defaults(self) -> None:
        """Without files and variables the defaults of the code hold, and there is no source."""
        assert load([], {"PATH": "/bin", "DATAFLOW_RECORDINGS": "x"}) == Settings()

    def test_every_kind_of_value(self, files: Files) -> None:
        """Every kind of value is converted to its own type."""
        settings = load(
            [
                files.write(
                    '[gateway]\nhost = "::1"\nport = 0\nadmin_token = "s3cret"\n'
                    '[session]\nslow_client = "conflate"\nping_interval = 5\n[chaos]\nenabled = true\nseed = 7\n'
                    + SOURCE
                    + 'symbols = ["BTC-USD", "ETH-USD"]\nstream = "aggTrade"\ndepth = 20\n'
                    + 'extra = { version = "2" }\n'
                )
            ],
            {},
        )
        assert settings.gateway == Gateway(host="::1", port=0, admin_token="s3cret")
        assert settings.session == Session(slow_client=SlowClient.CONFLATE, ping_interval=5.0)
        assert type(settings.session.ping_interval) is float
        assert settings.chaos == Chaos(enabled=True, seed=7)
        assert settings.sources == {
            "a": FeedSettings(
                connector="my_feeds.acme",
                url="wss://feed.example.com/ws",
                symbols=("BTC-USD", "ETH-USD"),
                stream="aggTrade",
                depth=20,
                extra={"version": "2"},
            )
        }

    def test_later_files_win_key_by_key(self, files: Files) -> None:
        """A later file changes only its own keys, in any table."""
        first = files.write("[gateway]\nport = 1\nmax_sessions = 2\n" + SOURCE, "first.toml")
        later = files.write('[gateway]\nport = 3\n[sources.a]\nurl = "ws://127.0.0.1:5000"\n', "later.toml")
        settings = load([first, later], {})
        assert settings.gateway == Gateway(port=3, max_sessions=2)
        assert settings.sources["a"].url == "ws://127.0.0.1:5000"
        assert settings.sources["a"].connector == "my_feeds.acme"

    def test_the_environment_wins_over_files(self, files: Files) -> None:
        """A variable overrides a file. It is read as TOML if it is valid TOML, else as text."""
        file = files.write("[gateway]\nport = 1\n" + SOURCE)
        settings = load(
            [file],
            {
                "DATAFLOW__GATEWAY__PORT": "9000",
                "DATAFLOW__GATEWAY__HOST": "0.0.0.0",
                "DATAFLOW__CHAOS__ENABLED": "true",
                "DATAFLOW__SOURCES__A__SYMBOLS": '["BTC-USD"]',
                "DATAFLOW__SOURCES__A__STALE_AFTER": "2.5",
                "DATAFLOW__SOURCES__A__API_TOKEN": "0012",
            },
        )
        assert settings.gateway == Gateway(host="0.0.0.0", port=9000)
        assert settings.chaos.enabled is True
        assert settings.sources["a"].symbols == ("BTC-USD",)
        assert settings.sources["a"].stale_after == 2.5
        assert settings.sources["a"].api_token == "0012"  # type: ignore[attr-defined]

    @pytest.mark.parametrize("text", ["12345", "true", "1e5", "2020-01-01", "[1]", "a\nb = 2", "1\nb = 2"])
    def test_a_variable_for_text_is_that_text(self, text: str) -> None:
        """A text from the environment stays a text, also if it looks like a number, a boolean or a list."""
        settings = load([], {"DATAFLOW__GATEWAY__HOST": text})
        assert settings.gateway.host == text

    @pytest.mark.parametrize("text", ["12345", "true", "pässwort", "two words", "\udcff"])
    def test_a_token_from_the_environment_is_that_text(self, text: str) -> None:
        """A token may look like a number, and it may be bytes that are no text."""
        assert load([], {"DATAFLOW__GATEWAY__ADMIN_TOKEN": text}).gateway.admin_token == text

    def test_secrets_do_not_show(self) -> None:
        """Settings can be logged: their text has no tokens."""
        assert "s3cret" not in repr(Gateway(admin_token="s3cret"))


class TestMistakes:
    def test_all_at_once(self, files: Files) -> None:
        """All mistakes of all files and variables are reported at once, in these exact words."""
        first = files.write(
            '[gateway]\nprot = 80\nport = "80"\nmax_sessions = 0\n[gatway]\nport = 1\n[session]\noutbox = 1.5\n',
            "first.toml",
        )
        broken = files.write("[gateway\n", "broken.toml")
        absent = files.folder / "absent.toml"
        with pytest.raises(ConfigError) as caught:
            load([first, broken, absent, files.folder], {"DATAFLOW__CHAOS__ENABLED": "1"})
        assert [p.replace(f"{files.folder}/", "") for p in caught.value.problems] == [
            "broken.toml: not valid TOML: Expected ']' at the end of a table declaration (at line 1, column 9)",
            "absent.toml: no such file",
            f"{files.folder}: cannot be read: Is a directory",
            'first.toml: [gateway] prot: unknown key; did you mean "port"? valid: admin_token, '
            "deflate, drain_seconds, host, hosts, max_memory, max_message_bytes, max_sessions, origins, port, ready_needs_sources, root_path, "
            "tls_certificate, tls_key, trusted_proxies",
            'first.toml: [gateway] port: found "80"; must be a whole number',
            "first.toml: [gateway] max_sessions: found 0; must be > 0",
            'first.toml: [gatway]: unknown table; did you mean "gateway"? valid: admission, '
            "backoff, cache, candles, chaos, faces, fanout, gateway, history, limits, operator, runtime, session, sources, supervision, symbols",
            "first.toml: [session] outbox: found 1.5; must be a whole number",
            "DATAFLOW__CHAOS__ENABLED: [chaos] enabled: found 1; must be true or false",
        ]
        assert str(caught.value).count("\n") == 8

    @pytest.mark.parametrize(
        ("written", "told"),
        [
            ("gateway = 3", "my.toml: [gateway]: found 3; must be a table"),
            ("sources = 3", "my.toml: [sources]: found 3; must be a table"),
            ("sources.a = 3", "my.toml: [sources.a]: found 3; must be a table"),
            ("gateway.port = true", "my.toml: [gateway] port: found true; must be a whole number"),
            ("gateway.port = 80.0", "my.toml: [gateway] port: found 80.0; must be a whole number"),
            ("gateway.port.a = 1", 'my.toml: [gateway] port: found {"a": 1}; must be a whole number'),
            ("gateway.port = 65536", "my.toml: [gateway] port: found 65536; must be <= 65535"),
            ("gateway.port = -1", "my.toml: [gateway] port: found -1; must be >= 0"),
            ("gateway.host = 1", "my.toml: [gateway] host: found 1; must be text"),
            (
                'gateway.admin_token = "a\\nb"',
                "my.toml: [gateway] admin_token: found ***; "
                "holds a control character, which no header can carry",
            ),
            (
                'gateway.admin_token = "ab "',
                "my.toml: [gateway] admin_token: found ***; "
                "begins or ends with a blank, which no header can carry",
            ),
            ("gateway.admin_token = 1", "my.toml: [gateway] admin_token: found ***; must be text"),
            ("chaos.enabled = 1", "my.toml: [chaos] enabled: found 1; must be true or false"),
            ('backoff.jitter = "1"', 'my.toml: [backoff] jitter: found "1"; must be a number'),
            ("backoff.jitter = true", "my.toml: [backoff] jitter: found true; must be a number"),
            ("backoff.jitter = nan", "my.toml: [backoff] jitter: found NaN; must be a number"),
            ("backoff.max_delay = inf", "my.toml: [backoff] max_delay: found Infinity; must be a number"),
            (
                "backoff.max_delay = 0.5",
                "my.toml: [backoff] max_delay: found 0.5; must be >= initial_delay, which is 1.0",
            ),
            ("backoff.multiplier = 0.9", "my.toml: [backoff] multiplier: found 0.9; must be >= 1.0"),
            ("supervision.restarts = -1", "my.toml: [supervision] restarts: found -1; must be >= 0"),
            ("supervision.within = 0", "my.toml: [supervision] within: found 0; must be > 0"),
            (
                'session.slow_client = "explode"',
                'my.toml: [session] slow_client: found "explode"; must be one of "disconnect", "drop_oldest", '
                '"conflate"',
            ),
            (
                f'gateway.port = "{"x" * 99}"',
                f'my.toml: [gateway] port: found "{"x" * 56}...; must be a whole number',
            ),
        ],
    )
    def test_one_mistake(self, files: Files, written: str, told: str) -> None:
        """The line of a mistake has file, table, key, the value found and the valid values."""
        assert files.problems(written) == [told]

    @pytest.mark.parametrize(
        ("written", "told"),
        [
            (
                'gateway.hosts = ["https://a.example"]',
                '[gateway] hosts: found ["https://a.example"]; must be a list, each a name without scheme and '
                'port, such as "feed.example.com"; "https://a.example" is not',
            ),
            (
                'gateway.origins = ["a.example"]',
                '[gateway] origins: found ["a.example"]; must be a list, each scheme://host or '
                'scheme://host:port in small letters, or "*"; "a.example" is not',
            ),
            (
                'gateway.origins = ["https://a.example/"]',
                '[gateway] origins: found ["https://a.example/"]; must be a list, each scheme://host or '
                'scheme://host:port in small letters, or "*"; "https://a.example/" is not',
            ),
            (
                'gateway.trusted_proxies = ["10.0.0.1/8"]',
                '[gateway] trusted_proxies: found ["10.0.0.1/8"]; must be IP addresses or networks: '
                "10.0.0.1/8 has host bits set",
            ),
            (
                'gateway.root_path = "feed/"',
                '[gateway] root_path: found "feed/"; must be empty, or begin with "/" and not end with it, '
                'such as "/feed"',
            ),
            (
                'operator.host = "::1"',
                '[operator] host: found "::1"; must have a port beside it: without one the operator has no '
                "listener of its own",
            ),
        ],
    )
    def test_a_mistake_about_who_asks(self, files: Files, written: str, told: str) -> None:
        """What would have no effect, or another effect than meant, is a mistake."""
        assert files.problems(written) == [f"my.toml: {told}"]

    def test_two_listeners_have_two_ports(self, files: Files) -> None:
        """The second would find its port taken; port 0 is never taken."""
        assert files.problems("gateway.port = 90\noperator.port = 90") == [
            "my.toml: [operator] port: found 90; must not be that of [gateway]"
        ]
        assert load([files.write("gateway.port = 0\noperator.port = 0")], {})

    def test_two_different_tokens_are_a_mistake(self, files: Files) -> None:
        """The token has two names. The line has both places, and no token in it."""
        [told] = files.problems('operator.token = "one"', {"DATAFLOW__GATEWAY__ADMIN_TOKEN": "two"})
        assert told == (
            "my.toml: [operator] token: differs from [gateway] admin_token, its old name, in "
            "DATAFLOW__GATEWAY__ADMIN_TOKEN; write one of them"
        )

    def test_the_token_has_an_old_name(self, files: Files) -> None:
        """Either name is enough, and both may have the same token."""
        for written in ("operator.token", "gateway.admin_token"):
            assert load([files.write(f'{written} = "one"')], {}).operator_token == "one"
        assert load([files.write('operator.token = "one"\ngateway.admin_token = "one"')], {})
        assert load([], {}).operator_token is None

    @pytest.mark.parametrize(
        ("written", "told"),
        [
            ("symbols = 1", "symbols: found 1; must be a list, each text"),
            ("symbols = [1]", "symbols: found [1]; must be a list, each text"),
            (
                'symbols = ["BTCUSD"]',
                'symbols: found ["BTCUSD"]; "BTCUSD" must be BASE-QUOTE in capitals, such as "BTC-USD"',
            ),
            (
                'symbols = ["btc-usd"]',
                'symbols: found ["btc-usd"]; "btc-usd" must be BASE-QUOTE in capitals, such as "BTC-USD"',
            ),
            (
                'symbols = ["BTC-USD-SWAP"]',
                'symbols: found ["BTC-USD-SWAP"]; "BTC-USD-SWAP" must be BASE-QUOTE in capitals, such as "BTC-USD"',
            ),
            (
                'symbols = ["*"]',
                'symbols: found ["*"]; "*" must be BASE-QUOTE in capitals, such as "BTC-USD"',
            ),
            (
                'symbols = ["A-B", "C-D", "A-B"]',
                'symbols: found ["A-B", "C-D", "A-B"]; "A-B" is named more than once',
            ),
            ('stream = "book"', 'stream: found "book"; must be one of "trade", "aggTrade"'),
            ("depth = 15", "depth: found 15; must be in [10, 20] (got 15)"),
            ("stale_after = 0", "stale_after: found 0; must be > 0"),
            ("eager = 1", "eager: found 1; must be true or false"),
            ("extra = { v = 2 }", 'extra: found {"v": 2}; must be a table, each value text'),
        ],
    )
    def test_a_mistake_in_a_source(self, files: Files, written: str, told: str) -> None:
        """The types and validators of a connector's own keys are checked like all others."""
        assert files.problems(SOURCE + written) == [f"my.toml: [sources.a] {told}"]

    def test_contracts_of_an_exchange(self, files: Files) -> None:
        """A perpetual one, and one that ends on a day."""
        file = files.write(SOURCE + 'symbols = ["BTC-USDT-PERP", "BTC-USDT-261225"]')
        assert load([file], {}).sources["a"].symbols == ("BTC-USDT-PERP", "BTC-USDT-261225")

    def test_symbols_of_a_source_that_asks_for_less(
        self, files: Files, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its settings say what they look like, and whether it may bring any."""
        form = Form(r"\*|[A-Z]{1,4}", "tickers")
        monkeypatch.setattr(SourceSettings, "symbol_form", form)
        assert load([files.write(SOURCE + 'symbols = ["AAPL", "*"]')], {}).sources["a"].symbols == (
            "AAPL",
            "*",
        )
        assert files.problems(SOURCE + 'symbols = ["GOOGL"]') == [
            'my.toml: [sources.a] symbols: found ["GOOGL"]; "GOOGL" must be tickers'
        ]

    def test_no_two_symbols_become_one_without_their_dashes(self, files: Files) -> None:
        """Clients may leave the dashes out; of different sources, too. One symbol of two sources is no mistake."""
        other = SOURCE.replace("sources.a", "sources.b")
        assert load([files.write(f'{SOURCE}symbols = ["A-BC"]\n{other}symbols = ["A-BC", "AB-CD"]')], {})
        assert files.problems(f'{SOURCE}symbols = ["A-BC"]\n{other}symbols = ["X-Y", "AB-C"]') == [
            'my.toml: [sources.b] symbols: "A-BC" and "AB-C" have the same name without their dashes, "ABC", which'
            " clients may use; leave one out"
        ]

    @pytest.mark.parametrize(
        ("written", "told"),
        [
            ('sources = ["b", "c"]', 'sources: there is no source "c"; valid: a, b'),
            ('sources = ["d"]', "sources: [sources.d] does not list it in `symbols`; valid: a, b"),
            ('sources = ["b", "a", "b"]', 'sources: "b" is named more than once'),
            (
                'sources = ["t"]',
                'sources: producers push to "t", so it cannot be one of several; leave it out',
            ),
            ("sources = [1]", "sources: found [1]; must be a list, each text"),
            ('mode = "both"', 'mode: found "both"; must be one of "all", "failover"'),
            ("return_after = -1", "return_after: found -1; must be >= 0"),
            ("order = 1", 'order: unknown key; did you mean "mode"? valid: mode, return_after, sources'),
        ],
    )
    def test_a_mistake_in_a_symbol(self, files: Files, written: str, told: str) -> None:
        """`[symbols]` chooses among the sources that list the symbol."""
        assert files.problems(f"{SEVERAL}[symbols.BTC-USD]\n{written}") == [
            f"my.toml: [symbols.BTC-USD] {told}"
        ]

    def test_a_symbol_that_no_source_lists(self, files: Files) -> None:
        """The likely meant ones are named, not all of thousands."""
        assert files.problems(f'{SEVERAL}[symbols.BTC-USDX]\nmode = "failover"') == [
            'my.toml: [symbols.BTC-USDX]: no source lists this symbol; did you mean "BTC-USD" or "ETH-USD"?'
        ]

    def test_nobody_fails_over_between_producers(self, files: Files) -> None:
        """A producer that says nothing may be well: there is no health to decide by."""
        assert files.problems(f'{SEVERAL}[symbols.AAPL]\nmode = "failover"') == [
            'my.toml: [symbols.AAPL] mode: producers push to "t", and nobody can tell a silent one from a dead'
            ' one; leave out mode = "failover"'
        ]

    def test_a_symbol_of_several_sources(self, files: Files) -> None:
        """In their own order."""
        text = f'{SEVERAL}[symbols.BTC-USD]\nsources = ["b", "a"]\nmode = "failover"'
        assert load([files.write(text)], {}).symbols == {
            "BTC-USD": Symbol(sources=("b", "a"), mode=Mode.FAILOVER)
        }

    @pytest.mark.parametrize("url", ["", "ws.example.com", "wss://", "//host", "/path"])
    def test_an_address_is_whole(self, files: Files, url: str) -> None:
        """An address without scheme or host is reported at the start, before any attempt to connect."""
        assert files.problems(f'[sources.a]\nconnector = "my_feeds.acme"\nurl = "{url}"') == [
            f'my.toml: [sources.a] url: found "{url}"; must be a whole address, such as "wss://host/path"'
        ]

    @pytest.mark.parametrize(
        ("written", "told"),
        [
            ('url = "wss://x"', ": connector is missing; valid: binance, blockchain"),
            ("connector = 3", " connector: found 3; must be text"),
            (
                'connector = "blokchain"',
                ' connector: found "blokchain"; unknown connector; did you mean "blockchain"? '
                "valid: binance, blockchain",
            ),
            (
                'connector = "my_feeds.nothing"',
                ' connector: found "my_feeds.nothing"; cannot be used: ModuleNotFoundError: No module named '
                "'my_feeds.nothing'; 'my_feeds' is not a package",
            ),
            (
                'connector = "my_feeds.bare"',
                " connector: found \"my_feeds.bare\"; cannot be used: AttributeError: module 'my_feeds.bare' "
                "has no attribute 'Settings'",
            ),
            (
                'connector = "my_feeds.codecless"',
                ' connector: found "my_feeds.codecless"; cannot be used: AttributeError: module '
                "'my_feeds.codecless' has no attribute 'Codec'",
            ),
            (
                'connector = "my_feeds.alien"',
                ' connector: found "my_feeds.alien"; cannot be used: TypeError: my_feeds.alien.Settings is not '
                "derived from dataflow.sources.SourceSettings",
            ),
            ('connector = "my_feeds.acme"', ": url is missing, must be text"),
        ],
    )
    def test_an_impossible_source(self, files: Files, written: str, told: str) -> None:
        """A source without a usable connector or without an address: the line names the missing key and the
        existing connectors."""
        assert files.problems(f"[sources.a]\n{written}\n") == [f"my.toml: [sources.a]{told}"]

    @pytest.mark.parametrize("name", ["", "a/b"])
    def test_a_source_name_is_a_path_segment(self, files: Files, name: str) -> None:
        """A name with a slash is refused, because a slash separates actors in a path."""
        assert files.problems(SOURCE.replace("[sources.a]", f'[sources."{name}"]')) == [
            f'my.toml: [sources.{name}]: the name must not be empty or contain "/"'
        ]

    def test_a_face_that_cannot_be(self, files: Files) -> None:
        """An unknown face, an unknown key, a wrong type, no table: one line each, with the valid values."""
        written = """
            [faces]
            page = true
            [faces.jsonrcp]
            enabled = true
            [faces.admin]
            enabled = 1
            port = 5
        """
        assert files.problems(written) == [
            'my.toml: [faces.page]: found true; must be a table',
            'my.toml: [faces] jsonrcp: found {"enabled": true}; unknown face; did you mean "jsonrpc"? '
            f"valid: {', '.join(plugs.names('faces'))}",
            'my.toml: [faces.admin] enabled: found 1; must be true or false',
            'my.toml: [faces.admin] port: unknown key; valid: enabled',
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("variable", "told"),
        [
            ("DATAFLOW__GATEWAY__PORT", '[gateway] port: found "x"; must be a whole number'),
            ("DATAFLOW__GATEWAY", "[gateway] is a table; a variable sets one key of it, such as DATAFLOW__GATEWAY__HOST"),
            ("DATAFLOW__SOURCES", "[sources] is a table; a variable sets one key of it, such as DATAFLOW__SOURCES__NAME__KEY"),
            ("DATAFLOW__SOURCES__A", '[sources.a]: found "x"; must be a table'),
            ("DATAFLOW__GATEWAY__TLS_KEY", '[gateway] tls_key: found "x"; tls_certificate and tls_key belong together'),
            ("DATAFLOW__PROT__X", "[prot]: unknown table; valid: admission, backoff, cache, candles, chaos, faces, fanout, gateway, history, limits, operator, "
             "runtime, session, sources, supervision, symbols"),
            ("DATAFLOW__GATEWAY__PROT", '[gateway] prot: unknown key; did you mean "port"? valid: admin_token, '
             "deflate, drain_seconds, host, hosts, max_memory, max_message_bytes, max_sessions, origins, port, ready_needs_sources, root_path, "
             "tls_certificate, tls_key, trusted_proxies"),
            ("DATAFLOW__GATEWAY__HOSTS", """[gateway] hosts: found "x"; must be a list, each text; write it as DATAFLOW__GATEWAY__HOSTS='["x"]'"""),
        ],
    )  # fmt: skip
    def test_a_mistake_in_a_variable(self, variable: str, told: str) -> None:
        """The line of a mistake in the environment names the variable."""
        with pytest.raises(ConfigError) as caught:
            load([], {variable: "x"})
        assert caught.value.problems == [f"{variable}: {told}"]

    @pytest.mark.parametrize(
        ("variable", "right"),
        [
            ("DATAFLOW__GATEWAY_PORT", "DATAFLOW__GATEWAY__PORT"),
            ("DATAFLOW__GATWAY__PORT", "DATAFLOW__GATEWAY__PORT"),
            ("DATAFLOW__GATEWAY__TLS__KEY", "DATAFLOW__GATEWAY__TLS_KEY"),
            ("DATAFLOW__MAX_SESSIONS", "DATAFLOW__GATEWAY__MAX_SESSIONS"),
            ("DATAFLOW__PORT", "DATAFLOW__GATEWAY__PORT or DATAFLOW__OPERATOR__PORT"),
            ("DATAFLOW__SOURCE__BINANCE__EAGER", "DATAFLOW__SOURCES__BINANCE__EAGER"),
        ],
    )
    def test_a_variable_with_nearly_the_right_name(self, variable: str, right: str) -> None:
        """The line has the right name, in one word to copy."""
        with pytest.raises(ConfigError) as caught:
            load([], {variable: "1"})
        assert caught.value.problems == [
            f"{variable}: no key of the configuration has this name; did you mean {right}?"
        ]

    @pytest.mark.parametrize(
        ("variable", "right"),
        [
            ("DATAFLOW_GATEWAY__PORT", "DATAFLOW__GATEWAY__PORT"),
            ("DATAFLOW_GATEWAY_PORT", "DATAFLOW__GATEWAY__PORT"),
            ("dataflow__gateway__port", "DATAFLOW__GATEWAY__PORT"),
            ("DATAFLW__GATEWAY__PORT", "DATAFLOW__GATEWAY__PORT"),
            ("DATAFLOW_SOURCES__X__EAGER", "DATAFLOW__SOURCES__X__EAGER"),
            ("DATAFLOW_HOME", None),
            ("DATAFLOW_GATEWAY_SERVICE_HOST", None),
            ("MY__GATEWAY__PORT", None),
            ("PATH", None),
            ("DATAFLOW__GATEWAY__PORT", None),
            ("DATAFLOW__", None),
            ("__", None),
            ("", None),
        ],
    )
    def test_a_variable_that_only_resembles_ours(self, variable: str, right: str | None) -> None:
        """It is no mistake, since somebody else may own it, but it is worth a warning with the right name."""
        told = [f"{variable} is not read; did you mean {right}?"] if right else []
        assert near_misses({variable: "1"}) == told
        if not variable.startswith("DATAFLOW__"):
            assert load([], {variable: "1"}) == Settings()

    @pytest.mark.parametrize(
        ("text", "written"),
        [
            ("BTC-USD,ETH-USD", '["BTC-USD", "ETH-USD"]'),
            ("BTC-USD", '["BTC-USD"]'),
            ("[BTC-USD, ETH-USD]", '["BTC-USD", "ETH-USD"]'),
            ("", "[]"),
        ],
    )
    def test_how_a_variable_writes_a_list(self, text: str, written: str) -> None:
        """The line shows what was probably meant, and that can be copied."""
        variable = "DATAFLOW__CANDLES__RECORD"
        with pytest.raises(ConfigError) as caught:
            load([], {variable: text})
        (told,) = caught.value.problems
        assert told.endswith(f"; write it as {variable}='{written}'")
        assert load([], {variable: written}).candles.record == tuple(json.loads(written))

    def test_a_key_in_the_wrong_place(self, files: Files) -> None:
        """The line says where the key belongs."""
        told = files.problems(
            "port = 9000\nnothing = 1\n[max_sessions]\nx = 1\n[session]\nmax_sessions = 3\n"
        )
        assert told[0] == "my.toml: port: stands in no table; write it below [gateway] or [operator]"
        assert told[1].startswith("my.toml: [nothing]: unknown table; valid: admission, ")
        assert told[2] == "my.toml: [max_sessions]: unknown table; max_sessions is a key of [gateway]"
        assert told[3].startswith(
            "my.toml: [session] max_sessions: unknown key; it is a key of [gateway]; did you "
        )

    def test_where_each_value_comes_from(self, files: Files) -> None:
        """The layer that wrote it last, or none."""
        first = files.write("[gateway]\nport = 1\nmax_sessions = 2\n", "first.toml")
        later = files.write("[gateway]\nport = 3\n", "later.toml")
        written = read([first, later], {"DATAFLOW__CHAOS__SEED": "7"})
        origins = [("gateway", "port"), ("gateway", "max_sessions"), ("gateway", "host"), ("chaos", "seed")]
        assert [written.origin(*each) for each in origins] == [
            str(later),
            str(first),
            None,
            "DATAFLOW__CHAOS__SEED",
        ]

    def test_the_file_that_wrote_the_key_is_named(self, files: Files) -> None:
        """The line names the file with the mistake, not the file that began the table."""
        first = files.write("[gateway]\nport = 1\n", "first.toml")
        later = files.write("[gateway]\nmax_sessions = -1\n", "later.toml")
        with pytest.raises(ConfigError) as caught:
            load([first, later], {})
        assert caught.value.problems == [f"{later}: [gateway] max_sessions: found -1; must be > 0"]

    @given(
        st.dictionaries(
            st.sampled_from(
                ["GATEWAY__PORT", "SESSION__OUTBOX", "SOURCES__A__URL", "SOURCES__A", "CHAOS", "X__Y__Z"]
            ),
            st.text(st.characters(blacklist_characters="\0"), max_size=12),
        )
    )
    def test_nothing_but_a_config_error(self, values: dict[str, str]) -> None:
        """Any environment gives settings or a ConfigError, never another exception."""
        with suppress(ConfigError):
            load([], {f"DATAFLOW__{key}": value for key, value in values.items()})


PLUGS = ("sources", "symbols", "faces")


class TestShippedFiles:
    @pytest.fixture
    def server(self, checkout: Path) -> str:
        return (checkout / "config" / "server.toml").read_text()

    def test_server_toml_has_the_defaults(self, server: str) -> None:
        """The values in config/server.toml are the defaults of the code, in all tables except sources. Only the
        daemon keeps a history without being asked: in the code there is no place for it."""
        written = tomllib.loads(server)
        written.pop("sources")
        written.pop("faces")
        assert config._settings(config._leaves(written, "server.toml"), problems := []) == Settings(
            history=History(directory="data")
        )
        assert problems == []

    def test_server_toml_names_every_key(self, server: str) -> None:
        """Every key is in its table; it is commented out if its default is "none"."""
        tables: dict[str, Any] = {a.name: a.default for a in attrs.fields(Settings) if a.name not in PLUGS}
        for name, default in tables.items():
            block = re.search(rf"^\[{name}\]\n(.*?)^(?=\[|# -- )", server, re.MULTILINE | re.DOTALL)
            assert block, f"[{name}] is missing"
            keys = set(re.findall(r"^(?:# )?([a-z_]+) = ", block[1], re.MULTILINE))
            assert keys == {a.name for a in attrs.fields(type(default))}

    def test_server_toml_names_every_key_of_a_symbol(self, server: str) -> None:
        """Commented out, each with its default where that says something."""
        block = re.search(r"^# \[symbols\.\S+\]\n(.*?)\n\n", server, re.MULTILINE | re.DOTALL)
        assert block
        told = dict(re.findall(r"^# ([a-z_]+) = (.*)$", block[1], re.MULTILINE))
        assert told.keys() == {a.name for a in attrs.fields(Symbol)}
        assert (told["mode"], told["return_after"]) == (
            f'"{Symbol().mode.value}"',
            str(Symbol().return_after),
        )

    def test_server_toml_has_every_face(self, server: str) -> None:
        """Each face has its table with all keys and defaults, so that the file shows everything to switch off."""
        tables = {"faces": tomllib.loads(server)["faces"]}
        written = config._settings(config._leaves(tables, "server.toml"), problems := [])
        assert written is not None, problems
        assert written.faces == {name: plugs.find("faces", name).Settings() for name in plugs.names("faces")}

    def test_server_toml_names_every_key_of_a_source(self, server: str) -> None:
        """The comments name the keys that all sources share, with their defaults."""
        told = dict(re.findall(r"^#   ([a-z_]+)\s+(?:default (\S+?)[,:.] )?", server, re.MULTILINE))
        for a in attrs.fields(SourceSettings):
            assert a.name in told
            if a.name not in ("connector", "url", "symbols"):
                default = a.default.factory() if isinstance(a.default, attrs.Factory) else a.default
                assert tomllib.loads(f"v = {told[a.name]}")["v"] == default

    def test_simulated_toml_changes_little(self, checkout: Path) -> None:
        """It differs only in addresses, fault injection, and faces: all are on. So it rehearses the real one."""
        written = tomllib.loads((checkout / "config" / "simulated.toml").read_text())
        off = [name for name in plugs.names("faces") if not plugs.find("faces", name).Settings().enabled]
        assert written.pop("faces") == {name: {"enabled": True} for name in off}
        assert written == {
            "chaos": {"enabled": True},
            "sources": {
                "blockchain": {"url": "ws://127.0.0.1:5000/mercury-gateway/v1/ws"},
                "binance": {"url": "ws://127.0.0.1:5001/stream", "refill_url": "http://127.0.0.1:5001"},
                "ticks": {"connector": "ticks_protobuf"},
            },
        }

    def test_shipped_finds_the_checkout(self, checkout: Path) -> None:
        """Without an installed package the files of the checkout are used."""
        assert config.shipped("server.toml").samefile(checkout / "config" / "server.toml")
