"""The kit finds what it promises to find: each kind of bad connector breaks the check that is about it."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import attrs
import pytest

from actors.connector import Received
from dataflow.cli import main
from dataflow.conformance import checks
from dataflow.conformance.checks import CHECKS, Broken, NotShown
from dataflow.conformance.recording import BadRecording, Recording, load
from dataflow.conformance.report import Verdict, run
from dataflow.conformance.subject import BadSubject, Subject, subject
from dataflow.connectors import binance
from dataflow.domain import Item, Trade
from tests.support.simulated import Case, recorded

ROOT = Path(__file__).parents[3]
GOOD = recorded(Case("binance", "binance", ("BTC-USDT", "ETH-USDT")))


def bad(codec: type[binance.Codec]) -> Subject:
    """The good connector with another codec."""
    module = SimpleNamespace(Settings=binance.Settings, Codec=codec)
    return attrs.evolve(GOOD, module=cast(ModuleType, module))


class Raises(binance.Codec):
    """It trusts that a message is JSON."""

    def decode(self, message: str | bytes, into: Received[Item]) -> None:
        json.loads(message)
        super().decode(message, into)


class Guesses(binance.Codec):
    """It takes a default where the quantity is missing."""

    def decode(self, message: str | bytes, into: Received[Item]) -> None:
        if isinstance(message, str) and '"trade"' in message and '"q":' not in message:
            message = message.replace('"p":', '"q":"1","p":')
        super().decode(message, into)


class Silent(binance.Codec):
    """It drops what it cannot use."""

    def decode(self, message: str | bytes, into: Received[Item]) -> None:
        super().decode(message, into)
        into.problems.clear()


class Nameless(binance.Codec):
    """Its problems have no names."""

    def decode(self, message: str | bytes, into: Received[Item]) -> None:
        super().decode(message, into)
        into.problems[:] = [("Something is wrong!", excerpt) for _, excerpt in into.problems]


class Backwards(binance.Codec):
    """It gives the newest trade of a message first."""

    def decode(self, message: str | bytes, into: Received[Item]) -> None:
        super().decode(message, into)
        if into.items:
            newest = cast(Trade, into.items[0])
            older = binance.Trade(
                *newest.__struct_fields__[:0], **_fields(newest, sequence=1, timestamp=10**18)
            )
            into.items.append(older)


class Strict(binance.Codec):
    """It refuses a message with a field that it does not know."""

    def decode(self, message: str | bytes, into: Received[Item]) -> None:
        if "zz_unknown" in str(message):
            into.problems.append(("unknown_field", ""))
        else:
            super().decode(message, into)


class Inventive(binance.Codec):
    """It gives a trade that comes again another id."""

    seen: set[str]

    def __init__(self, name: str, settings: binance.Settings) -> None:
        super().__init__(name, settings)
        self.seen = set()

    def decode(self, message: str | bytes, into: Received[Item]) -> None:
        super().decode(message, into)
        for place, item in enumerate(into.items):
            trade = cast(Trade, item)
            if trade.trade_id in self.seen:
                into.items[place] = Trade(**_fields(trade, trade_id=f"{trade.trade_id}b"))
            self.seen.add(str(trade.trade_id))


class Deaf(binance.Codec):
    """It does not report answers."""

    def decode(self, message: str | bytes, into: Received[Item]) -> None:
        super().decode(message, into)
        into.answers.clear()


class Unsure(binance.Codec):
    """Its sides are words of its own."""

    def decode(self, message: str | bytes, into: Received[Item]) -> None:
        super().decode(message, into)
        into.items[:] = [Trade(**_fields(cast(Trade, each), side="SELL")) for each in into.items]


class Unmarked(binance.Codec):
    """Its trades have no sequence, and it leaves no mark."""

    def decode(self, message: str | bytes, into: Received[Item]) -> None:
        super().decode(message, into)
        into.items[:] = [Trade(**_fields(cast(Trade, each), sequence=None)) for each in into.items]


class Forgetful(binance.Codec):
    """What it has heard on one connection changes the next."""

    heard = 0

    def decode(self, message: str | bytes, into: Received[Item]) -> None:
        Forgetful.heard += 1
        super().decode(message, into)
        if Forgetful.heard > 18:
            into.items.clear()


def _fields(trade: Trade, **other: Any) -> dict[str, Any]:
    return {name: getattr(trade, name) for name in trade.__struct_fields__} | other


@pytest.mark.parametrize(
    ("codec", "check", "words"),
    [
        (Raises, checks.survives, "no message may make it raise"),
        (Guesses, checks.guesses_nothing, "another trade came of a spoilt message"),
        (Silent, checks.guesses_nothing, "a trade was lost in silence"),
        (Nameless, checks.survives, "a problem must have a name"),
        (Backwards, checks.order, "newer trades before older"),
        (Strict, checks.ignores_additions, "a field more at"),
        (Inventive, checks.invents_nothing, "not sent came of disorder"),
        (Deaf, checks.answers, "needs|answers to subscriptions"),
        (Unsure, checks.trades, "must be that of the taker"),
        (Unmarked, checks.marks, "a loss would be silent"),
        (Forgetful, checks.same, "understands a message differently"),
    ],
)
def test_each_kind_of_bad_connector_is_found(
    codec: type[binance.Codec], check: Callable[[Subject], None], words: str
) -> None:
    """The good one passes the check that the bad one breaks."""
    check(GOOD)
    with pytest.raises(NotShown if codec is Deaf else Broken, match=words):
        check(bad(codec))


def test_a_connector_that_waits_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that imports a clock or a socket is no connector."""
    (tmp_path / "hasty_feeds").mkdir()
    (tmp_path / "hasty_feeds" / "one.py").write_text(
        "import time\nfrom dataflow.connectors.binance import Codec, Settings\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(Broken, match="it imports time"):
        checks.pure(subject("hasty_feeds.one", ["BTC-USDT"]))


def test_without_a_recording_much_is_not_shown() -> None:
    """The report says what was not looked at, instead of calling it kept."""
    verdicts = {each.name: each.verdict for each in run(subject("binance", ["BTC-USDT"]))}
    assert verdicts["survives"] is Verdict.KEPT
    assert verdicts["guesses_nothing"] is Verdict.NOT_SHOWN
    assert Verdict.BROKEN not in verdicts.values()


@pytest.mark.parametrize(
    ("connector", "words"),
    [
        ("no.such.module", "cannot be imported"),
        ("binanec", 'unknown connector; did you mean "binance"?'),
        ("json", "has no Settings"),
        ("ticks_protobuf", "has no Settings"),
    ],
)
def test_what_is_no_connector_is_told(connector: str, words: str) -> None:
    """In one line, before any check."""
    name = "json.decoder" if connector == "json" else connector
    with pytest.raises(BadSubject, match=re.escape(words)):
        subject(name, ["BTC-USD"])


def test_a_recording_is_read(tmp_path: Path) -> None:
    """Connections apart, what we said left out, answers over HTTP kept; compressed or not."""
    lines = [
        {"dir": "connect", "url": "wss://x"},
        {"dir": "out", "msg": "subscribe"},
        {"dir": "in", "msg": "a", "t": 1.5},
        {"dir": "connect"},
        {"msg": "b"},
        {"dir": "rest", "symbol": "BTC-USD", "path": "/trades", "msg": "[]"},
    ]
    text = "\n".join(map(json.dumps, lines)).encode()
    (tmp_path / "a.jsonl").write_bytes(text)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(text))
    for name in ("a.jsonl", "a.jsonl.gz"):
        found = load(tmp_path / name)
        assert found.connections == (("a",), ("b",))
        assert [(each.symbol, each.path, each.body) for each in found.answers] == [
            ("BTC-USD", "/trades", b"[]")
        ]


@pytest.mark.parametrize("content", [b"{", b'{"dir":"up"}', b"\xff\xfe", b"[1]"])
def test_what_is_no_recording_is_told_with_its_line(tmp_path: Path, content: bytes) -> None:
    """Nothing is skipped."""
    (tmp_path / "a.jsonl").write_bytes(b'{"msg":"x"}\n' + content)
    with pytest.raises(BadRecording, match=r"a\.jsonl, line 2: "):
        load(tmp_path / "a.jsonl")
    with pytest.raises(BadRecording, match="No such file"):
        load(tmp_path / "b.jsonl")
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(b'{"msg":"x"}')[:-4])
    with pytest.raises(BadRecording, match=r"c\.jsonl\.gz"):
        load(tmp_path / "c.jsonl.gz")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It shows each promise, says where one is broken, and its exit code is the verdict."""
    recording = tmp_path / "session.jsonl"
    lines = [json.dumps({"dir": "in", "msg": message}) for message in GOOD.recording.connections[0]]
    recording.write_text("\n".join(lines))
    words = ["conformance", "binance", "--symbols", "BTC-USDT", "ETH-USDT", "--recording", str(recording)]
    assert main(words) == 0
    told = capsys.readouterr().out
    assert "ok  guesses_nothing" in told
    assert f"{len(lines)} messages, 16 trades, no problem" in told
    recording.write_text("\n".join([*lines, json.dumps({"msg": '{"e":"news"}'})]))
    assert main(words) == 1
    assert "BROKEN  explains" in capsys.readouterr().out
    assert main([*words, "--accept", "unknown_event", "--json"]) == 0
    assert {each["verdict"] for each in json.loads(capsys.readouterr().out)} == {"kept", "not shown"}
    assert main(["conformance", "no.such"]) == 1
    assert main(["conformance", "binance", "--recording", "nowhere.jsonl"]) == 1


def test_the_plugin(tmp_path: Path) -> None:
    """For an author with pytest: each check is a test, and what is not shown is skipped with its reason."""
    recording = tmp_path / "session.jsonl"
    recording.write_text("\n".join(json.dumps({"msg": each}) for each in GOOD.recording.connections[0]))
    (tmp_path / "my_feeds").mkdir()
    (tmp_path / "my_feeds" / "acme.py").write_text(
        "import time\nfrom dataflow.connectors.binance import Codec, Settings\n"
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-rs",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
    ]
    options = ["--connector", "my_feeds.acme", "--connector-symbols", "BTC-USDT,ETH-USDT"]
    options += ["--connector-recording", str(recording)]
    done = subprocess.run(
        [*command, *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": "/usr/bin:/bin"},
    )
    assert "it imports time" in done.stdout, done.stdout + done.stderr
    assert f"1 failed, {len(CHECKS) - 3} passed, 2 skipped" in done.stdout
    assert done.returncode == 1


def test_an_empty_recording_is_no_proof() -> None:
    """Messages without a trade keep no promise about trades."""
    empty = subject("binance", ["BTC-USDT"], Recording((("{}",),)), ["unknown_message"])
    with pytest.raises(NotShown):
        checks.trades(empty)
