"""`dataflow config`: the configuration with the origin of each value, and the one that is shipped."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path
from typing import Any

import pytest

from dataflow import plugs
from dataflow.cli import main
from dataflow.settings.load import load, shipped
from dataflow.settings.schema import Settings
from tests.dataflow.connectors.mappings import BITSTAMP, COINBASE, KRAKEN, acme


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("DATAFLOW")]:
        monkeypatch.delenv(name)


def told(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    code = main(("config", *words))
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    return out


class TestShow:
    def test_where_each_value_comes_from(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A file, a variable, or the default, which the shipped file repeats."""
        (tmp_path / "mine.toml").write_text("[gateway]\nport = 9000\nmax_sessions = 10_000\n")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("DATAFLOW__SESSION__OUTBOX", "7")
        lines = told(capsys, "show", str(shipped("server.toml")), "mine.toml").splitlines()
        shown = [line.split() for line in lines]
        assert ["port", "=", "9000", "#", "mine.toml"] in shown
        assert ["max_sessions", "=", "10000", "#", "mine.toml"] in shown
        assert ["outbox", "=", "7", "#", "DATAFLOW__SESSION__OUTBOX"] in shown
        assert ["deflate", "=", "true", "#", "default"] in shown
        assert ["#", "tls_key", "has", "no", "value", "#", "default"] in shown
        assert lines[0] == "[gateway]"

    def test_only_what_is_not_the_default(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Without the rest of the shipped file."""
        file = tmp_path / "mine.toml"
        file.write_text("[gateway]\nport = 9000\n[sources]\n")
        monkeypatch.chdir(tmp_path)
        assert told(capsys, "show", "--changed", "mine.toml").splitlines() == [
            "[gateway]",
            "port = 9000  # mine.toml",
        ]

    @pytest.mark.parametrize("files", [["server.toml"], ["server.toml", "simulated.toml"]])
    def test_it_can_be_read_again(
        self, files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """It is TOML, and makes the same configuration. (With all faces, since it names the default ones.)"""
        paths = [shipped(name) for name in files]
        file = tmp_path / "again.toml"
        file.write_text(told(capsys, "show", *map(str, paths)))
        again, first = load([file], {}), load(paths, {})
        assert set(again.faces) == set(plugs.names("faces"))
        assert {**without_faces(again)} == {**without_faces(first)}
        assert all(again.faces[name] == keys for name, keys in first.faces.items())

    @pytest.mark.parametrize("mapping", [COINBASE, KRAKEN, BITSTAMP, acme()], ids=range(4))
    def test_tables_in_tables(self, mapping: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """The tables of a mapping, with lists of tables in them, are written and read again, too."""
        first, again = tmp_path / "first.toml", tmp_path / "again.toml"
        first.write_text(mapping.replace("= SYMBOLS", '= ["BTC-USD"]'))
        again.write_text(told(capsys, "show", str(first)))
        assert load([again], {}).sources == load([first], {}).sources

    @pytest.mark.parametrize("form", [[], ["--json"]])
    def test_no_secret_is_shown(
        self, form: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Neither a token, nor a password or key in an address, nor any header."""
        file = tmp_path / "mine.toml"
        url = "wss://user:passw0rd@feed.example.com/ws?apiKey=k3y"
        mapping = COINBASE.replace("wss://ws-feed.exchange.coinbase.com", url).replace(
            "= SYMBOLS", '= ["A-B"]'
        )
        headers = '[sources.coinbase.headers]\nAccept = "s3cret too"\n'
        file.write_text(f'[operator]\ntoken = "s3cret"\n{mapping}{headers}')
        out = told(capsys, "show", *form, str(file))
        assert "***@feed.example.com" in out
        assert not [secret for secret in ("s3cret", "passw0rd", "k3y") if secret in out]

    def test_json(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        """Tables within tables, each key with value and origin."""
        monkeypatch.setenv("DATAFLOW__GATEWAY__PORT", "9000")
        shown: dict[str, Any] = json.loads(told(capsys, "show", "--json"))
        assert shown["gateway"]["port"] == {"value": 9000, "origin": "DATAFLOW__GATEWAY__PORT"}
        assert shown["operator"]["token"] == {"value": None, "origin": "default"}
        assert shown["sources"]["binance"]["symbols"]["value"] == ["BTC-USDT", "ETH-USDT"]

    def test_a_mistake(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Is told as by `check`; nothing is shown."""
        file = tmp_path / "mine.toml"
        file.write_text("[gateway]\nport = 'x'\n")
        assert main(["config", "show", str(file)]) == 1
        assert capsys.readouterr() == ("", f'{file}: [gateway] port: found "x"; must be a whole number\n')


def without_faces(settings: Settings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in Settings.__annotations__ if name != "faces"}


def test_default(capsys: pytest.CaptureFixture[str]) -> None:
    """The shipped file as it is, with its comments."""
    out = told(capsys, "default")
    assert out == shipped("server.toml").read_text()
    assert tomllib.loads(out)["gateway"]["port"] == 8080
