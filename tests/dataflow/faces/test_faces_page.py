"""The page at `/faces`: three safe files that load nothing from elsewhere and know no protocol."""

from __future__ import annotations

import json
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow import plugs
from dataflow.app import hall
from dataflow.connectors import binance, ticks_protobuf
from dataflow.faces.page import OWN_FILES, Access, served
from dataflow.settings.schema import Settings
from tests.support.node import NODE

OPEN = Access(True, "open", None, None)
FOLDER = Path(__file__).parents[3] / "dataflow" / "faces" / "page"
PAGE, STYLE, SCRIPT = (
    (FOLDER / f"faces.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js")
)


class Outline(HTMLParser):
    """All elements with their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(PAGE)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def values(self, attribute: str) -> list[str]:
        return [attrs[attribute] or "" for _, attrs in self.elements if attribute in attrs]


def test_nothing_is_loaded_from_elsewhere() -> None:
    """No address of another site, nothing inside the page that its policy forbids, no hole in the policy."""
    outline = Outline()
    for text in (PAGE, STYLE, SCRIPT):
        assert re.findall(r"://|@import|\burl\(|\bimport\b", text) == []
    assert outline.values("src") == ["faces/faces.js"]
    assert set(outline.values("href")) == {"data:,", "faces/faces.css", "./", "api/v1/faces"}
    assert outline.values("style") == []
    assert [name for _, attrs in outline.elements for name in attrs if name.startswith("on")] == []
    assert "<style" not in PAGE
    assert "unsafe" not in OWN_FILES
    assert "*" not in OWN_FILES


def test_text_from_outside_never_becomes_markup() -> None:
    """Neither answers nor descriptions can inject anything: the script cannot make markup from text."""
    ways = r"(?:inner|outer|insertAdjacent|set)HTML|createContextualFragment|DOMParser|document\.write|srcdoc"
    assert (
        re.findall(rf"{ways}|\beval\b|\bFunction\(|setTimeout\(\s*[\"'`]|setAttribute\([\"']on", SCRIPT) == []
    )


def test_the_symbols_that_are_configured_come_first() -> None:
    """The page begins with the first one, which an exchange trades, and not with what a producer brought."""
    sources: Any = {
        "binance": binance.Settings(
            connector="binance", url="ws://127.0.0.1:1/", symbols=("ETH-USDT", "BTC-USDT")
        ),
        "ticks": ticks_protobuf.Settings(connector="ticks_protobuf"),
    }
    built = hall(Settings(sources=sources))
    built.core.discover("AAPL", "ticks")
    assert served(built, OPEN).symbols == ["ETH-USDT", "BTC-USDT", "AAPL"]


def test_the_script_names_only_parts_that_exist() -> None:
    """Ids and classes of the page."""
    outline = Outline()
    ids = set(outline.values("id"))
    classes = {name for text in outline.values("class") for name in text.split()}
    assert set(re.findall(r"\$\(\"([^\"]+)\"\)|stamp\(\"([^\"]+)\"", SCRIPT)) <= {
        pair for name in ids for pair in ((name, ""), ("", name))
    }
    parts = set(re.findall(r"\"\.([a-z]+)\"", SCRIPT)) - {""}
    assert parts
    assert parts <= classes


def test_no_protocol_has_a_word_in_the_script() -> None:
    """A new face needs no edit of the page: everything comes from its description."""
    for word in ("jsonrpc", "stomp", "signalr", "graphql", "pricehub", "sockjs", "subscribe", "/ws"):
        assert word not in SCRIPT.lower()


def evaluate(expression: str) -> Any:
    """The value of `expression` after the script's pure functions."""
    names = ("filled", "visible")
    functions = [re.search(rf"^const {name} = (?:[^\n]*;|.*?^}};)$", SCRIPT, re.S | re.M) for name in names]
    surroundings = """
    const BASE = "https://feed.example.com:8443/below", location = { hostname: "feed.example.com" };
    const $ = () => ({ value: " BTC-USDT " });
    """
    program = surroundings + "\n".join(found[0] for found in functions if found)
    program += f"\nprocess.stdout.write(JSON.stringify({expression}))"
    done = subprocess.run([str(NODE), "-e", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_words_of_a_sample_are_filled_in() -> None:
    """Scheme, host, port and prefix of this daemon, and the chosen symbol; all else stays, braces of JSON too."""
    assert evaluate('filled("{http}/a {ws}/b {host}:1 {symbol} {compact} {\\"x\\": {http }}")') == (
        "https://feed.example.com:8443/below/a wss://feed.example.com:8443/below/b feed.example.com:1"
        ' BTC-USDT BTCUSDT {"x": {http }}'
    )


@settings(max_examples=5)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), max_size=30))
def test_control_characters_are_made_visible(texts: list[str]) -> None:
    """The separators of protocols can be read; everything else is shown as it is."""

    def shown(character: str) -> str:
        code = ord(character)
        return "\u2421" if code == 127 else character if code >= 32 or code == 10 else chr(0x2400 + code)

    texts = [*texts, "{}\x1e", "CONNECT\n\n\0"]
    assert evaluate(f"{json.dumps(texts)}.map(visible)") == ["".join(map(shown, text)) for text in texts]


def test_every_face_is_named_with_what_it_serves() -> None:
    """Those that are on with their samples; those that are off with the line that switches them on."""
    built = hall(Settings())
    told = {face.name: face for face in served(built, OPEN).faces}
    on = {face.name for face in built.faces}
    assert sorted(told) == plugs.names("faces")
    assert {name for name, face in told.items() if face.enabled} == on
    for name, face in told.items():
        assert face.words
        assert face.key == f"[faces.{name}] enabled = true"
        assert bool(face.samples) is face.enabled, f"{name} has no about()"
