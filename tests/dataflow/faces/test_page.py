"""The page at `/`: one safe, self-contained file that speaks only the public contract.

The contract stands here a second time on purpose. Where node is installed, it runs the script's functions.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dataflow.faces.page import policy

PAGE = (Path(__file__).parents[3] / "dataflow" / "faces" / "page" / "page.html").read_text(encoding="utf-8")
STYLE = re.findall(r"<style>(.*?)</style>", PAGE, re.S)[0]
SCRIPT = re.findall(r"<script>(.*?)</script>", PAGE, re.S)[0]

ENDPOINTS = {"ready", "actors", "ws", "api/v1/clients"}  # relative, so that it works below any prefix
METHODS = {"subscribe", "unsubscribe", "getRecentTrades", "getSymbols", "getStatus", "ping"}
NOTIFICATIONS = {
    "trades.update",
    "stream.gap",
    "stream.filled",
    "quality.update",
    "stream.switched",
    "symbols.changed",
    "connection.lost",
    "connection.restored",
    "connection.draining",
    "connection.waiting",
    "connection.refused",
}
STATES = {"idle", "starting", "running", "backoff", "stopping", "done"}
VOID = {"meta", "link", "input", "br", "hr", "img"}


class Outline(HTMLParser):
    """All elements with their attributes, and all tags that are not closed in their place."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.faults: list[str] = []
        self._open: list[str] = []
        self.feed(PAGE)
        self.close()
        self.faults += self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if len(dict(attrs)) != len(attrs):
            self.faults.append(f"an attribute twice in {tag}")
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._open and self._open[-1] == tag:
            self._open.pop()
        else:
            self.faults.append(f"/{tag}")

    def values(self, attribute: str) -> list[str]:
        """Every value of `attribute` in the page."""
        return [attrs[attribute] or "" for _, attrs in self.elements if attribute in attrs]


@pytest.fixture(scope="module")
def outline() -> Outline:
    return Outline()


def js_function(name: str) -> str:
    """The source of one top-level function or constant of the script."""
    found = re.search(rf"^(?:function {name}\(.*?^}}|const {name} = .*?;)$", SCRIPT, re.S | re.M)
    assert found, name
    return found[0]


def test_the_markup_is_well_formed(outline: Outline) -> None:
    """Every element is closed in its place, and no id stands twice."""
    assert outline.faults == []
    assert [name for name, times in Counter(outline.values("id")).items() if times > 1] == []
    assert PAGE.startswith("<!doctype html>")


def test_every_name_refers_to_something(outline: Outline) -> None:
    """Script and labels name only ids that exist; the script names no part that its templates lack."""
    ids, classes = set(outline.values("id")), {c for text in outline.values("class") for c in text.split()}
    assert set(re.findall(r"(?:\$|stamp)\(\"([^\"]+)\"\)", SCRIPT)) <= ids
    assert set(outline.values("aria-labelledby")) <= ids
    parts = set(re.findall(r"\bactor\.([a-z]+)\b(?!At)", SCRIPT)) - {"body", "chosen", "seen"}
    assert parts
    assert parts <= classes


def test_nothing_is_loaded_from_elsewhere(outline: Outline) -> None:
    """The page works offline and contacts no third party: no address, no import, a content policy without a hole."""
    assert re.findall(r"\b(?:https?|wss?):|[\"'(=]//|@import|\burl\([^)]|\bimport\b", STYLE + SCRIPT) == []
    assert "://" not in PAGE
    assert outline.values("src") == []
    assert [href for href in outline.values("href") if not href.startswith("data:")] == ["faces"]
    parts = [part.strip().partition(" ") for part in policy(PAGE.encode()).split(";")]
    directives = {name: rest for name, _, rest in parts}
    assert len(directives) == len(parts)
    assert directives["default-src"] == "'none'"
    assert directives["connect-src"] == "'self'"
    assert all(re.fullmatch(r"'sha256-[^ ']+'", directives[f"{kind}-src"]) for kind in ("script", "style"))
    assert not any("*" in rest or "eval" in rest or "unsafe" in rest for rest in directives.values())
    assert outline.values("style") == []  # the policy would not let it work


def test_text_from_outside_never_becomes_markup(outline: Outline) -> None:
    """Symbols, errors and reasons cannot inject anything: the script cannot make markup from text."""
    ways = r"(?:inner|outer|insertAdjacent|set)HTML|createContextualFragment|DOMParser|document\.write|srcdoc"
    assert (
        re.findall(rf"{ways}|\beval\b|\bFunction\(|setTimeout\(\s*[\"'`]|setAttribute\([\"']on", SCRIPT) == []
    )
    assert [name for _, attrs in outline.elements for name in attrs if name.startswith("on")] == []


def test_only_the_public_contract_is_used() -> None:
    """Addresses, methods and notifications are those of the contract, and no notification is ignored."""
    api = re.search(r"const API = \{(.*?)\}", SCRIPT)
    assert api
    assert set(re.findall(r"\"([^\"]*)\"", api[1])) == ENDPOINTS
    assert re.findall(r"[\"'`](/[a-z]\w*)[\"'`]", SCRIPT) == []
    called = set(re.findall(r"\bcall\(\"(\w+)\"", SCRIPT))
    assert {"getSymbols", "getStatus", "subscribe"} <= called <= METHODS
    assert set(re.findall(r"^  \"([a-z]+\.[a-z]+)\":", SCRIPT, re.M)) == NOTIFICATIONS
    assert re.findall(r"\b(?:fetch|WebSocket)\((?!url|new URL\(API)", SCRIPT) == []
    assert '/restart`, "POST"' in SCRIPT


def test_every_state_has_its_colour() -> None:
    """The six states of an actor are told apart, each by a class that the style defines."""
    kinds = dict(re.findall(r"(\w+): \"(\w+)\"", js_function("KINDS")))
    assert set(kinds) == STATES
    assert all(f".{kind} {{ color: var(--{kind}); }}" in STYLE for kind in kinds.values())


def luminance(colour: str) -> float:
    """WCAG 2 relative luminance of `#rrggbb`."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("ground", ["page", "panel"])
@pytest.mark.parametrize("name", ["text", "off", "good", "bad", "warn", "info"])
def test_every_colour_can_be_read(scheme: int, ground: str, name: str) -> None:
    """Contrast is at least 4.5 to 1 (WCAG AA) on both grounds in both schemes."""
    blocks = re.findall(r":root \{(.*?)\}", STYLE, re.S)
    assert len(blocks) == 2
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", blocks[scheme]))
    dark, light = sorted(map(luminance, (colours[ground], colours[name])))
    assert (light + 0.05) / (dark + 0.05) >= 4.5


TEXTS = st.text(max_size=12) | st.sampled_from(
    ['"price": 1.5', '\\"qty\\":2', '{"lastPrice":3}', "price", 'x"price', '"', "\\"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS | st.just("price"), inner, max_size=3),
    max_leaves=12,
)


def keep_decimals(text: str) -> str:
    """The script's first step on a message, with the script's own expression."""
    literal = re.search(r"const DECIMALS = /(.*)/g;", SCRIPT)
    assert literal
    return re.sub(literal[1], r'\1"\2"', text)


@example({'x"price': 5, "reason": '"qty": 1', "n": ['\\"price":1']}, "5.892E-4")
@given(JSON, st.decimals(allow_nan=False, allow_infinity=False).map(str))
def test_prices_keep_their_digits_and_nothing_else_changes(message: Any, number: str) -> None:
    """A price is read as its text. Strings that look like prices stay as they are."""

    def expected(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: expected(inner, name) for name, inner in value.items()}
        if isinstance(value, list):
            return [expected(inner) for inner in value]
        is_number = isinstance(value, int) and not isinstance(value, bool)
        return str(value) if is_number and key in {"price", "qty", "lastPrice"} else value

    assert json.loads(keep_decimals(json.dumps(message))) == expected(message)
    text = f'{{"qty":{number},"a":{json.dumps(message)},"lastPrice" : {number}}}'
    assert json.loads(keep_decimals(text)) == {"qty": number, "a": expected(message), "lastPrice": number}


# The following tests need node.


@pytest.fixture(scope="module")
def evaluate() -> Callable[[str, str], Any]:
    """Runs JavaScript whose last expression is JSON-able; skips the test where there is no node."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs node")

    def run(source: str, result: str) -> Any:
        script = f'"use strict";{source};console.log(JSON.stringify({result}))'
        done = subprocess.run([node, "-e", script], capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def test_the_script_is_valid(evaluate: Callable[[str, str], Any]) -> None:
    """The script parses: with a syntax error the page would show nothing."""
    assert evaluate(f"new Function({json.dumps(SCRIPT)})", "1") == 1


def test_an_exponent_is_shown_as_a_plain_number_with_the_same_digits(
    evaluate: Callable[[str, str], Any],
) -> None:
    """`5.892E-4` is shown as `0.0005892`; other numbers keep their text."""
    shown = {
        "5.892E-4": "0.0005892",
        "1E+3": "1000",
        "1.50E1": "15.0",
        "12.345e1": "123.45",
        "-1.25e-2": "-0.0125",
    }
    shown |= {
        "5E-8": "0.00000005",
        "0E-8": "0.00000000",
        "61837.63": "61837.63",
        "0.10": "0.10",
        "9e99": "9e99",
    }
    shown |= {
        "123456789.123456789012345e-5": "1234.56789123456789012345",
        "61837.630000000005": "61837.630000000005",
    }
    answers = evaluate(js_function("plain"), f"{json.dumps(list(shown))}.map(plain)")
    assert dict(zip(shown, answers, strict=True)) == shown
    assert all(Decimal(text) == Decimal(came) for came, text in shown.items())


STREAM = """
const told = [], drawn = [], link = { back: null };
const report = (kind, text) => told.push(text), settle = () => {};
const show = (symbol, trade) => drawn.push(trade.offset);
const symbol = { name: "BTC-USD", epoch: null, last: null, fresh: 0 };
const symbols = new Map([["BTC-USD", symbol]]);
const trade = offset => take({ symbol: "BTC-USD", offset });
"""
RESULT = "({ told, drawn, last: symbol.last, epoch: symbol.epoch })"


def stream(evaluate: Callable[[str, str], Any], events: str) -> Any:
    functions = map(js_function, ["take", "missed", "gapIn", "places", "joined"])
    return evaluate("\n".join([STREAM, *functions, events]), RESULT)


def test_thousands_of_notices_ask_once(evaluate: Callable[[str, str], Any]) -> None:
    """Each answer has all symbols: a page that asked for every switch would be a storm of its own."""
    script = """
let asked = null, calls = 0, REFRESH_WITHIN = 1;
const timers = [], setTimeout = (todo, wait) => timers.push([todo, wait]);
const report = () => {}, take = report, missed = report, fares = report, few = String, places = String;
const refresh = () => { calls += 1; };
"""
    heard = re.search(r"^const heard = .*?^};$", SCRIPT, re.S | re.M)
    assert heard is not None
    script += f"{js_function('refreshSoon')}\n{heard[0]}\n"
    script += """
const switched = name => heard["stream.switched"]({ symbol: name, from: "a", to: "b", reason: "x" });
for (let i = 0; i < 3000; i += 1) switched(`S${i}`);
heard["symbols.changed"]({ added: ["A"], removed: [] });
const before = calls;
timers.shift()[0]();
const after = calls;
switched("S1");
"""
    told = evaluate(script, "({ before, after, waits: timers.map(([, wait]) => wait) })")
    assert told == {"before": 0, "after": 1, "waits": [1000]}


def test_snapshot_and_live_trades_join_without_a_report(evaluate: Callable[[str, str], Any]) -> None:
    """Every trade of a stream without gaps is drawn once, in order, and nothing is reported."""
    events = (
        "joined(symbol, { epoch: 7, offset: 3, trades: [{ offset: 3 }, { offset: 2 }] }); trade(4); trade(5);"
    )
    assert stream(evaluate, events) == {"told": [], "drawn": [2, 3, 4, 5], "last": 5, "epoch": 7}


def test_no_gap_stays_silent_and_no_trade_is_drawn_twice(evaluate: Callable[[str, str], Any]) -> None:
    """Missing offsets without an announced gap are reported, and so is a repeated trade."""
    heard = stream(evaluate, "trade(1); trade(4); trade(4); trade(5);")
    assert heard["drawn"] == [1, 4, 5]
    assert [re.sub(r"\(.*", "", text).strip() for text in heard["told"]] == [
        "Gap in BTC-USD: offsets 2 to 3 did not come",
        "BTC-USD: offset 4 came twice",
    ]


def test_an_announced_gap_is_reported_once_with_its_reason(evaluate: Callable[[str, str], Any]) -> None:
    """`stream.gap` explains the skipped places, and sets the epoch. One place stands for an unknown number."""
    gap = "missed({ symbol: 'BTC-USD', epoch: 8, from: 2, to: 3, reason: 'slow_client' });"
    endless = "missed({ symbol: 'BTC-USD', epoch: 9, from: 5, to: null, reason: 'shard_restart' });"
    heard = stream(evaluate, f"trade(1); {gap} trade(4); {endless} trade(6); trade(8);")
    assert heard["drawn"] == [1, 4, 6, 8]
    assert heard["told"] == [
        "Gap in BTC-USD: offsets 2 to 3 did not come (slow_client)",
        "Gap in BTC-USD: from offset 5 on did not come (shard_restart)",
        "Gap in BTC-USD: offset 7 did not come (not announced)",
    ]
    assert stream(evaluate, f"trade(4); {endless}")["last"] == 5, "it comes back to where it was"
    assert heard["epoch"] == 9


def test_a_reconnection_reports_whether_it_is_complete(evaluate: Callable[[str, str], Any]) -> None:
    """Fetched trades are drawn. With a gap, a lost history or a refusal it is not complete."""
    start = "trade(1); link.back = { waiting: 9, fetched: 0, broken: new Set() };"
    whole = (
        "joined(symbol, { epoch: 7, offset: 3, recovered: true, trades: [{ offset: 2 }, { offset: 3 }] });"
    )
    gaps = "trades: [{ offset: 3 }], gaps: [{ from: 2, to: 2, reason: 'x' }]"
    gapped = f"joined(symbol, {{ epoch: 7, offset: 3, recovered: true, {gaps} }});"
    unknown = "gaps: [{ from: 0, to: null, reason: 'overrun' }]"
    lost = (
        f"joined(symbol, {{ epoch: 8, offset: 9, recovered: false, trades: [{{ offset: 9 }}], {unknown} }});"
    )
    verdict = "told.push([...link.back.broken].join(), link.back.fetched);"
    assert stream(evaluate, start + whole + verdict) == {
        "told": ["", 2],
        "drawn": [1, 2, 3],
        "last": 3,
        "epoch": 7,
    }
    assert stream(evaluate, start + gapped + verdict)["told"] == [
        "Gap in BTC-USD: offset 2 did not come (x)",
        "BTC-USD",
        1,
    ]
    heard = stream(evaluate, start + lost + verdict)
    assert heard["told"][0].startswith("Gap in BTC-USD: from offset 2 on did not come")
    assert heard["told"][1:] == ["BTC-USD", 0]
    assert heard["last"] == 9
    assert stream(evaluate, start + "joined(symbol, undefined);" + verdict)["told"] == ["BTC-USD", 0]


def test_what_a_crash_of_the_server_took_is_no_gap(evaluate: Callable[[str, str], Any]) -> None:
    """The page says which places are no part of the stream any more, and draws what stands there now."""
    start = "trade(1); trade(2); trade(3); link.back = { waiting: 9, fetched: 0, broken: new Set() };"
    rewound = "rewound: { epoch: 8, offset: 1 }, trades: [{ offset: 2 }]"
    heard = stream(
        evaluate, f"{start} joined(symbol, {{ epoch: 8, offset: 2, recovered: false, {rewound} }}); trade(3);"
    )
    (told,) = heard["told"]
    assert told.startswith("BTC-USD: what came behind offset 1 is not part of the stream")
    assert (heard["drawn"], heard["last"], heard["epoch"]) == ([1, 2, 3, 2, 3], 3, 8)
    verdict = "told.push([...link.back.broken].join(), link.back.fetched);"
    answer = f"joined(symbol, {{ epoch: 8, offset: 2, recovered: false, {rewound} }});"
    assert stream(evaluate, start + answer + verdict)["told"][1:] == ["", 1], "nothing is missing"


OPERATOR = """
const stored = new Map(), actors = new Map(), tree = {}, form = { hidden: true, querySelector: () => input };
const input = { value: "" }, event = { preventDefault() {} }, note = { textContent: "" };
const sessionStorage = { getItem: key => stored.get(key) ?? null, setItem: (key, value) => stored.set(key, value),
  removeItem: key => stored.delete(key) };
const $ = id => id === "token" ? form : note, put = (node, text) => { node.textContent = text; }, showTree = () => {};
const type = text => { input.value = text; keepToken(event); };
const asked = [];
const state = () => asked.push([form.hidden, operator.shut, note.textContent, authorization().Authorization ?? null]);
"""


def test_the_token_is_asked_for_once_and_forgotten_when_wrong(evaluate: Callable[[str, str], Any]) -> None:
    """401 asks for it, and nothing more is asked of the daemon meanwhile, nor after a 404. The header has UTF-8 bytes."""
    functions = map(js_function, ["operator", "askToken", "keepToken", "authorization", "showInside"])
    events = """
    state(); showInside({ code: 401 }); state(); type("wrong"); state(); showInside({ code: 401 }); state();
    type("päss"); showInside({ code: 200 }); state(); showInside({ code: 404 }); state();
    """
    assert evaluate("\n".join([OPERATOR, *functions, events]), "asked") == [
        [True, False, "", None],
        [False, True, "for the operator", None],
        [True, False, "asking", "Bearer wrong"],
        [False, True, "this token is not right", None],
        [True, False, "asking", "Bearer p\u00c3\u00a4ss"],
        [True, True, "not served here", "Bearer p\u00c3\u00a4ss"],
    ]


def test_the_token_stays_in_its_tab() -> None:
    """Nothing that outlives the tab is written, and nothing that other tabs see."""
    assert "sessionStorage" in SCRIPT
    assert re.findall(r"localStorage|indexedDB|document\.cookie|caches\.|postMessage", SCRIPT) == []
