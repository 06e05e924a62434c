"""The page at `/`: safe files that load nothing from elsewhere, and the parts of them that need no browser.

What the page does with a daemon stands in `tests/system/test_market_page.py`.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from decimal import Decimal, localcontext
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow.app import hall
from dataflow.faces.page import OWN_FILES, Access, served
from dataflow.settings.schema import Candles, Settings
from tests.support.node import NODE
from tests.support.vendor import CHARTS, sums

FILES = Path(__file__).parents[3] / "dataflow" / "faces" / "page" / "files"
PAGE = (FILES / "index.html").read_text(encoding="utf-8")
STYLES = {each.name: each.read_text(encoding="utf-8") for each in sorted(FILES.glob("*.css"))}
SCRIPTS = {each.name: each.read_text(encoding="utf-8") for each in sorted(FILES.glob("*.js"))}
VOID = {"meta", "link", "input", "br", "hr", "img"}
LICENCE_ASKS = "https://www.tradingview.com/"
NAMESPACE = "http://www.w3.org/2000/svg"  # a name; nothing is there to be loaded


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


def test_the_markup_is_well_formed() -> None:
    """Every element is closed in its place, and no id stands twice."""
    outline = Outline()
    assert outline.faults == []
    assert [name for name, times in Counter(outline.values("id")).items() if times > 1] == []
    assert PAGE.startswith("<!doctype html>")


def test_every_name_refers_to_something() -> None:
    """Scripts ask only for ids that the page has, and import only files that are there."""
    ids = set(Outline().values("id"))
    for name, script in SCRIPTS.items():
        assert set(re.findall(r"\$\(\"([^\"]+)\"\)", script)) <= ids, name
        for path in re.findall(r"\bfrom \"([^\"]+)\"", script):
            assert path == "../client.js" or (FILES / path).is_file(), (name, path)
    assert "./vendor/lightweight-charts.standalone.production.mjs" in SCRIPTS["chart.js"]


def test_all_modules_are_asked_for_at_once() -> None:
    """The page names them: none waits for another one that imports it. The library of charts is large, and comes when it is used."""
    named = {href for href in Outline().values("href") if href.endswith(".js")} | {"page/shell.js"}
    assert named == {"client.js", *(f"page/{name}" for name in SCRIPTS)}


def test_nothing_is_loaded_from_elsewhere() -> None:
    """The page works offline and contacts no third party. One link leads away: that of the chart's licence."""
    for name, text in {**STYLES, **SCRIPTS, "index.html": PAGE}.items():
        found = re.findall(
            r"\b\w+://[^\s\"'`)]*|@import|\burl\([^)]", text.replace(LICENCE_ASKS, "").replace(NAMESPACE, "")
        )
        assert found == [], name
    outline = Outline()
    assert all(re.match(r"page/[\w.]+$", src) for src in outline.values("src"))
    assert outline.values("style") == []  # the policy would not let it work
    assert "<style" not in PAGE
    assert "unsafe" not in OWN_FILES
    assert "*" not in OWN_FILES


def test_addresses_are_relative() -> None:
    """Nobody knows where the page is mounted."""
    for name, script in SCRIPTS.items():
        assert re.findall(r"(?:fetch|ask|import)\([\"'`]/", script) == [], name
    assert [href for href in Outline().values("href") if href.startswith("/")] == []


def test_text_from_outside_never_becomes_markup() -> None:
    """Symbols, errors and reasons cannot inject anything: no script can make markup from text."""
    ways = r"(?:inner|outer|insertAdjacent|set)HTML|createContextualFragment|DOMParser|document\.write|srcdoc"
    for name, script in SCRIPTS.items():
        code = rf"{ways}|\beval\b|\bFunction\(|setTimeout\(\s*[\"'`]|setAttribute\([\"']on"
        assert re.findall(code, script) == [], name
    assert [name for _, attrs in Outline().elements for name in attrs if name.startswith("on")] == []


def test_nothing_outlives_the_tab() -> None:
    """The operator's token is kept by the tab alone."""
    for name, script in SCRIPTS.items():
        assert re.findall(r"localStorage|indexedDB|document\.cookie|BroadcastChannel", script) == [], name


def test_the_charts_are_those_of_the_registry() -> None:
    """The vendored files are unchanged, with licence and notice; the page names their maker, with a link."""
    assert sums(CHARTS) == (CHARTS / "SHA256SUMS").read_text()
    assert {"LICENSE.lightweight-charts", "NOTICE.lightweight-charts"} <= {
        each.name for each in CHARTS.iterdir()
    }
    assert LICENCE_ASKS in SCRIPTS["chart.js"]
    assert "TradingView Lightweight Charts" in SCRIPTS["chart.js"]


def test_the_page_can_know_the_intervals() -> None:
    """`/api/v1/faces` tells those of candles, in the order of the configuration."""
    settings = Settings(sources={}, candles=Candles(intervals=("1m", "1d")))
    assert served(hall(settings), Access(True, "open", None, None)).intervals == ["1m", "1d"]


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
    blocks = re.findall(r":root \{(.*?)\}", STYLES["style.css"], re.S)
    assert len(blocks) == 2
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", blocks[scheme]))
    dark, light = sorted(map(luminance, (colours[ground], colours[name])))
    assert (light + 0.05) / (dark + 0.05) >= 4.5


# The following tests run modules of the page in Node.


def evaluate(module: str, expression: str, given: Any = None) -> Any:
    """`expression`, with all that `module` exports as `m`, and `given`."""
    script = (
        f"const m = await import({json.dumps((FILES / module).as_uri())});"
        f"const given = {json.dumps(given)};console.log(JSON.stringify({expression}))"
    )
    command = [str(NODE), "--no-warnings", "--input-type=module", "-e", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_script_is_valid() -> None:
    """With a syntax error the page would show nothing."""
    for name in SCRIPTS:
        done = subprocess.run(
            [str(NODE), "--check", str(FILES / name)], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr


NUMBERS = st.decimals(0, 10**12, allow_nan=False, places=10) | st.decimals(
    min_value=Decimal("1E-12"), max_value=Decimal("1E+12"), allow_nan=False
)


@settings(max_examples=8, deadline=None)
@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=60))
def test_no_digit_of_a_price_is_lost(pairs: list[tuple[Decimal, Decimal]]) -> None:
    """However it is padded, and however long it is; and a difference of two prices is exact."""
    texts = [[str(a), str(b)] for a, b in pairs]
    answers = evaluate(
        "decimal.js",
        "given.map(([a, b]) => [m.padded(a, 4), m.padded(a, m.digits(a)), m.split(a, 4).join('.'), m.minus(a, b)])",
        texts,
    )
    for (a, b), (padded, exact, split, minus) in zip(pairs, answers, strict=True):
        assert Decimal(padded) == Decimal(exact) == Decimal(split) == a
        assert len(padded.partition(".")[2]) >= 4
        assert not exact.partition(".")[2].endswith("0")
        assert "e" not in padded.lower()
        with localcontext(prec=100):
            assert Decimal(minus) == a - b


def test_equal_digits_for_each_symbol() -> None:
    """As many as its prices need: zeros that an exchange adds at all ends are none."""
    shown = evaluate(
        "decimal.js",
        "given.map(text => m.padded(text, Math.max(...given.map(m.digits))))",
        ["61685.90000000", "61673.62", "5.892E+4"],
    )
    assert shown == ["61685.90", "61673.62", "58920.00"]


def test_no_price_is_above_the_high_of_its_day() -> None:
    """Nor below the low: a trade of the candle's own UTC day counts, though the candle does not know it yet. One of
    another day, or one that a crash took, does not."""
    candle = {"start": "2026-11-27T00:00:00.000000Z", "high": "9.5", "low": "5"}
    day = [["T23:59:59", "10.10"], ["T23:59:58", "7"], ["T01:00:00", "4.9"]]
    trades = [{"timestamp": f"2026-11-27{at}.000000Z", "price": price} for at, price in day]
    tomorrow = [*trades, {"timestamp": "2026-11-28T00:00:00.000000Z", "price": "11"}, *trades]
    taken = "(all, then = () => {}) => { const seen = new m.Extremes(); all.forEach(each => seen.traded(each)); then(seen); return seen.of(candle); }"
    answers = evaluate(
        "extremes.js",
        f"(({{ candle, lists }}) => {{ const taken = {taken}; return [...lists.map(each => taken(each)), taken(lists[0], seen => seen.forget())]; }})(given)",
        {"candle": candle, "lists": [trades, trades[1:2], tomorrow]},
    )
    unchanged = {"high": "9.5", "low": "5"}
    assert answers == [{"high": "10.10", "low": "4.9"}, unchanged, unchanged, unchanged]


def test_a_chart_has_the_digits_of_its_symbol() -> None:
    """Zeros that an exchange adds take none of them away; what a float cannot hold is not drawn."""
    asked = [
        ["61824.00000000", 2],
        ["61824", 2],
        ["2.5E-7", 8],
        ["123456789012.5", 6],
        ["12345678901234567", 2],
    ]
    assert evaluate("decimal.js", "given.map(([price, most]) => m.drawable(price, most))", asked) == [
        2,
        2,
        8,
        2,
        0,
    ]


def test_an_exponent_is_shown_as_a_plain_number_with_the_same_digits() -> None:
    """`5.892E-4` is shown as `0.0005892`; other numbers keep their text."""
    shown = {
        "5.892E-4": "0.0005892",
        "1E+3": "1000",
        "1.50E1": "15.0",
        "12.345e1": "123.45",
        "-1.25e-2": "-0.0125",
        "5E-8": "0.00000005",
        "0E-8": "0.00000000",
        "61837.63": "61837.63",
        "0.10": "0.10",
        "9e99": "9e99",
        "123456789.123456789012345e-5": "1234.56789123456789012345",
    }
    answers = evaluate("words.js", "given.map(m.plain)", list(shown))
    assert dict(zip(shown, answers, strict=True)) == shown


def test_a_lag_is_told_in_words_of_its_size() -> None:
    """Also that of a source whose clock is ahead; and a lag that nobody knows is a dash."""
    shown = {
        0.0123: "12 ms",
        -0.5: "\N{MINUS SIGN}500 ms",
        2.34: "2.3 s",
        -180.8: "\N{MINUS SIGN}3 min 0 s",
        86_400: "1 d 0 h",
    }
    assert evaluate("words.js", "given.map(m.lagOf)", [*shown, None]) == [*shown.values(), "\N{EN DASH}"]


def test_a_browser_is_told_by_its_own_word() -> None:
    """What all browsers say fills the column; other programs keep what they say."""
    linux, engine = "Mozilla/5.0 (X11; Linux x86_64)", "AppleWebKit/537.36 (KHTML, like Gecko)"
    shown = {
        f"{linux} {engine} Chrome/131.0.0.0 Safari/537.36": "Chrome/131.0.0.0",
        f"{linux} {engine} Chrome/131.0.0.0 Safari/537.36 Edg/131.0.0.0": "Edg/131.0.0.0",
        "Mozilla/5.0 (X11; Linux x86_64; rv:132.0) Gecko/20100101 Firefox/132.0": "Firefox/132.0",
        f"Mozilla/5.0 (Macintosh) {engine} Version/18.1 Safari/605.1.15": "Safari/605.1.15",
        f"{linux} (": "(",
        "Mozilla/": "Mozilla/",
        "dataflow-client": "dataflow-client",
    }
    assert evaluate("words.js", "given.map(m.program)", list(shown)) == list(shown.values())


def test_a_turnover_is_short_however_small() -> None:
    """It stands in a narrow column."""
    shown = {"1E-24": "1.00e-24", "0.0000005": "0.000000500", "0": "0.0000", "1234": "1.23 K"}
    assert evaluate("decimal.js", "given.map(m.short)", list(shown)) == list(shown.values())


TAPE = """(() => {
  const lines = [];
  for (const event of given) m.take(lines, event);
  return lines.map(({ trade, filled, gap, text }) => trade ? [trade.offset, filled ? "filled" : "trade"] : gap ? [gap.from, gap.to] : text);
})()"""


def trade(offset: int) -> dict[str, Any]:
    return {"type": "trade", "offset": offset}


def gap(first: int, last: int | None) -> dict[str, Any]:
    return {"type": "gap", "from": first, "to": last, "reason": "source_gap"}


def filled(first: int, last: int) -> dict[str, Any]:
    trades = [trade(offset) for offset in range(first, last + 1)]
    return {"type": "filled", "from": first, "to": last, "trades": trades}


def test_a_fill_stands_in_the_place_of_its_gap() -> None:
    """Where only a part came, the rest stays a gap on either side; a fill of what is not shown changes nothing."""
    heard = [trade(1), gap(2, 6), trade(7), filled(4, 5), trade(8)]
    assert evaluate("tape.js", TAPE, heard) == [
        [1, "trade"],
        [2, 3],
        [4, "filled"],
        [5, "filled"],
        [6, 6],
        [7, "trade"],
        [8, "trade"],
    ]
    assert evaluate("tape.js", TAPE, [*heard, filled(2, 3), filled(6, 6), filled(90, 91)]) == [
        [1, "trade"],
        *([place, "filled"] for place in range(2, 7)),
        [7, "trade"],
        [8, "trade"],
    ]


def test_a_rewind_takes_back_what_is_no_part_of_the_stream() -> None:
    """Trades and gaps behind its place leave the tape; a line says so; what happened besides stays."""
    lost = {"kind": "bad", "text": "lost"}
    heard = [trade(1), trade(2), gap(3, 3), trade(4), lost]
    rewound = {"type": "rewound", "epoch": 2, "offset": 2, "dropped": 1}
    lines = evaluate("tape.js", TAPE, [*heard, rewound, trade(3)])
    assert [line for line in lines if not isinstance(line, str)] == [[1, "trade"], [2, "trade"], [3, "trade"]]
    assert [line[:30] for line in lines if isinstance(line, str)] == [
        "lost",
        "What came behind place 2 is no",
    ]


def test_a_rewind_into_a_gap_leaves_its_beginning() -> None:
    """No place of the stream is left unnamed."""
    rewound = {"type": "rewound", "epoch": 2, "offset": 4, "dropped": 1}
    lines = evaluate("tape.js", TAPE, [trade(1), gap(2, 6), trade(7), rewound, trade(5)])
    assert [line for line in lines if not isinstance(line, str)] == [[1, "trade"], [2, 4], [5, "trade"]]


def test_a_gap_of_several_candles_is_one_band() -> None:
    """From the first candle that names it to the last one; an open one reaches the end."""
    source = {"from": 5, "to": 7, "reason": "source_gap"}
    candles = [
        {"time": 0, "gaps": []},
        {"time": 60, "gaps": [source]},
        {"time": 120, "gaps": [source]},
        {"time": 180, "gaps": [{"from": 9, "to": None, "reason": "source_gap"}]},
    ]
    assert evaluate("spans.js", "m.bands(given)", candles) == [
        {"from": 60, "to": 120, "open": False, "text": "3 missing (source_gap)"},
        {"from": 180, "to": 180, "open": True, "text": "missing, nobody knows how many (source_gap)"},
    ]
    assert evaluate("spans.js", "given.map(m.width)", ["1s", "15m", "4h", "1d", "100t", "10v"]) == [
        1,
        900,
        14400,
        86400,
        None,
        None,
    ]


REMEMBER = """given.map(({ symbol, count, timestamp }) => m.remember({ symbol, trades: Array(count).fill({ timestamp }) }))
    && ["A", "B", "C"].map(m.times)"""


def test_fills_are_remembered_while_the_page_lives() -> None:
    """Of each symbol its own, in seconds; 10,000 trades in all, and then the oldest are forgotten."""
    at = "2020-05-10T18:33:36.500000Z"
    heard = [{"symbol": name, "count": n, "timestamp": at} for name, n in (("A", 2), ("B", 9_999))]
    told = evaluate("fills.js", REMEMBER, heard)
    assert [len(each) for each in told] == [1, 9_999, 0]
    assert told[0] == [1_589_135_616.5]
