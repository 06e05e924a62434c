"""The example in dataflow/connectors/README.md is true: it runs as it stands, on recorded traffic."""

from __future__ import annotations

import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.connector import Received, Refused, Subscribed
from dataflow.cache.history import History
from dataflow.conformance.checks import CHECKS
from dataflow.conformance.recording import load as read_recording
from dataflow.conformance.report import Verdict, result
from dataflow.conformance.subject import subject
from dataflow.domain import Item, Trade
from dataflow.settings.load import load
from dataflow.sources.port import SourceSettings

ROOT = Path(__file__).parents[3]
README = ROOT / "dataflow" / "connectors" / "README.md"
SESSION = ROOT / "tests" / "data" / "coinbase_matches_20210417.jsonl"


def block(language: str, containing: str) -> str:
    """The README's code block in `language` that contains a text."""
    blocks = re.findall(rf"```{language}\n(.*?)```", README.read_text(), re.DOTALL)
    (found,) = [each for each in blocks if containing in each]
    return str(found)


@pytest.fixture
def feeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the import path that holds `my_feeds/coinbase.py`, as the README tells its reader to make."""
    package = tmp_path / "my_feeds"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "coinbase.py").write_text(block("python", "Coinbase Exchange"))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_feeds"]:
        del sys.modules[name]


def coinbase(folder: Path) -> tuple[Any, Any]:
    """The codec and the settings that the README's two blocks make, for the symbols of the recording besides."""
    config = folder / "mine.toml"
    written = block("toml", "my_feeds.coinbase")
    config.write_text(
        written.replace('"ETH-USD"', ", ".join(f'"{symbol}"' for symbol in ("ETH-USD", *RECORDED)))
    )
    settings = load([config], {}).sources["coinbase"]
    module = sys.modules[type(settings).__module__]
    return module.Codec("coinbase", settings), settings  # type: ignore[attr-defined]


RECORDED = (
    *("BAND-BTC", "BAND-GBP", "CRV-EUR", "DASH-BTC", "NMR-EUR"),
    *("NU-GBP", "SKL-BTC", "SKL-GBP", "SKL-USD", "YFI-BTC"),
)


def messages() -> list[str]:
    return [json.loads(line)["msg"] for line in SESSION.read_text().splitlines()]


def test_the_example_is_configured_by_its_name_alone(feeds: Path) -> None:
    """The module is found by the dotted name, and its block is checked like any other."""
    _codec, settings = coinbase(feeds)
    assert settings.symbols[:2] == ("BTC-USD", "ETH-USD")


def test_the_example_decodes_a_recorded_session(feeds: Path) -> None:
    """Every message is understood; the ids of each symbol are contiguous, so nothing is a gap."""
    codec, _settings = coinbase(feeds)
    received: Received[Item] = Received()
    for message in messages():
        codec.decode(message, received)
    assert received.problems == []
    assert len(received.items) == 107
    assert len(received.answers) == 10
    assert all(isinstance(answer, Subscribed) for _, answer in received.answers)
    histories: defaultdict[str, History] = defaultdict(lambda: History(1, 1000, 3600))
    for item in received.items:
        histories[item.symbol].admit(item, 0.0)
    for history in histories.values():
        assert all(not hasattr(entry, "reason") for entry in history.read(0, 1000))


def test_the_example_keeps_the_promises_of_the_kit(feeds: Path, tmp_path: Path) -> None:
    """Its author is told to run it: the first thing that a newcomer sees must not be broken."""
    few = tmp_path / "few.jsonl"
    few.write_text("\n".join(SESSION.read_text().splitlines()[:20]))
    about = subject("my_feeds.coinbase", RECORDED, read_recording(few))
    broken = [each for each in (result(check, about) for check in CHECKS) if each.verdict is Verdict.BROKEN]
    assert broken == []


def test_the_example_takes_the_takers_side(feeds: Path) -> None:
    """Coinbase names the maker's side: a flipped side must fail here."""
    codec, _settings = coinbase(feeds)
    match = next(json.loads(m) for m in messages() if '"match"' in m)
    received: Received[Item] = Received()
    codec.decode(json.dumps(match), received)
    (trade,) = received.items
    assert isinstance(trade, Trade)
    assert {trade.side, match["side"]} == {"buy", "sell"}
    assert str(trade.price) == match["price"]


def test_the_example_reports_a_refusal(feeds: Path) -> None:
    """The symbols that were asked for and not answered are refused, with the words of the exchange."""
    codec, _settings = coinbase(feeds)
    codec.subscribe({"BTC-USD", "ETH-USD"})
    received: Received[Item] = Received()
    subscribed = {"type": "subscriptions", "channels": [{"name": "matches", "product_ids": ["BTC-USD"]}]}
    codec.decode(json.dumps(subscribed), received)
    codec.decode(
        json.dumps({"type": "error", "message": "Failed", "reason": "ETH-USD is delisted"}), received
    )
    assert [answer for _, answer in received.answers] == [
        Subscribed("BTC-USD"),
        Refused(("ETH-USD",), "ETH-USD is delisted"),
    ]
    assert received.problems == []


def test_the_example_takes_no_trade_of_another_symbol(feeds: Path) -> None:
    """A symbol that nobody configured is a problem with a name."""
    codec, _settings = coinbase(feeds)
    match = next(json.loads(m) for m in messages() if '"match"' in m)
    received: Received[Item] = Received()
    codec.decode(json.dumps(match | {"product_id": "DOGE-USD"}), received)
    assert (received.items, [reason for reason, _ in received.problems]) == ([], ["unknown_symbol"])


@pytest.mark.parametrize("field", ["side", "price", "size", "time", "product_id", "trade_id"])
def test_the_example_guesses_nothing(field: str, feeds: Path) -> None:
    """A match that lacks a field is a problem with a name, and no trade."""
    codec, _settings = coinbase(feeds)
    match = next(json.loads(m) for m in messages() if '"match"' in m)
    del match[field]
    received: Received[Item] = Received()
    codec.decode(json.dumps(match), received)
    assert received.items == []
    assert len(received.problems) == 1


def test_the_table_of_keys_is_complete() -> None:
    """Every common key of a source, with its default."""
    rows = dict(re.findall(r"^\| `(\w+)` \| (\S*) ?\|", README.read_text(), re.MULTILINE))
    told = {key: default.strip("`") for key, default in rows.items()}
    for attribute in SourceSettings.__attrs_attrs__:
        default = told.pop(attribute.name)
        if attribute.name in ("connector", "url"):
            assert default == ""
        else:
            of_code = attribute.default.factory() if attribute.name == "names" else attribute.default
            assert json.loads(default) == (list(of_code) if default == "[]" else of_code)
    assert told == {}
