"""The guide at /docs/guide/: served as it was built, searched in a browser, and its tutorial does what it says."""

from __future__ import annotations

import json
import re
import shlex
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import expect

from dataflow.cli import app
from dataflow.domain.quality import Grade
from dataflow.faces import guide
from dataflow.settings.schema import Gateway
from tests.support.browser import Heard, browse
from tests.support.guide import GUIDE, shared
from tests.support.tutorial import Reader
from tests.system.daemon import daemon, http_client


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small guide, where the daemon looks for it."""
    folder = tmp_path / "site"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text("<title>the guide</title>")
    (folder / "assets" / "own.js").write_text("start()")
    (tmp_path / "secret.txt").write_text("not for you")
    monkeypatch.setattr(guide, "SITE", folder)
    return folder


async def test_it_is_served_as_it_was_built(site: Path) -> None:
    """Each file under its name and by its kind; a browser that has it is told so. Nothing outside is served."""
    async with daemon(sources={}) as d, http_client(d.http) as http:
        page = await http.get("/docs/guide/")
        assert (page.status_code, page.text) == (200, "<title>the guide</title>")
        assert page.headers["content-type"].startswith("text/html")
        assert "unsafe" not in page.headers["content-security-policy"]
        script = await http.get("/docs/guide/assets/own.js")
        assert (script.text, script.headers["content-type"]) == ("start()", "text/javascript; charset=utf-8")
        again = await http.get("/docs/guide/", headers={"If-None-Match": page.headers["etag"]})
        assert again.status_code == 304
        moved = await http.get("/docs/guide")
        assert (moved.status_code, moved.headers["location"]) == (302, "guide/")
        for name in (
            "no.html",
            "assets",
            "../secret.txt",
            "..%2fsecret.txt",
            "%2e%2e/secret.txt",
            "a%00b",
        ):
            answer = await http.get(f"/docs/guide/{name}")
            assert answer.status_code == 404, name
            assert "not for you" not in answer.text


async def test_a_new_one_is_served_at_once(site: Path) -> None:
    """Without a guide the page says what to do; after `make docs` the next request gets it."""
    page = (site / "index.html").read_text()
    (site / "index.html").unlink()
    async with daemon(sources={}) as d, http_client(d.http) as http:
        answer = await http.get("/docs/guide/")
        assert answer.status_code == 200
        assert "make docs" in answer.text
        (site / "index.html").write_text(page)
        assert (await http.get("/docs/guide/")).text == page


async def test_it_is_read_in_a_browser(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below a prefix, wide and narrow: it finds a word, asks nobody else, and its policy hinders nothing."""
    monkeypatch.setattr(guide, "SITE", shared(tmp_path_factory))

    def visit(page: Any, heard: Heard) -> tuple[str, Heard]:
        page.goto(f"{http}/feed/docs/guide/")
        expect(page.locator(".md-search-result__meta")).to_have_text("Type to start searching")
        page.locator(".md-search__input").press_sequentially("overrun")  # it hears keys; `fill` has none
        found = page.locator(".md-search-result__link", has_text="overrun").first
        found.wait_for()
        said = found.inner_text()
        found.click()
        page.locator("h1", has_text="The client protocol").wait_for()
        page.set_viewport_size({"width": 390, "height": 800})
        page.goto(f"{http}/feed/docs/guide/config.html")
        page.wait_for_function("() => document.documentElement.scrollWidth <= 390")
        return said, heard

    async with daemon(sources={}, gateway=Gateway(port=0, root_path="/feed")) as d:
        http = d.http
        said, heard = await browse(visit)
        assert "overrun" in said
        assert heard.complaints == []
        hosts = {urlsplit(url).netloc for url in heard.urls if not url.startswith("data:")}
        assert hosts == {urlsplit(http).netloc}


LISTENING = r"listening on http://127\.0\.0\.1:(\d+)/ "
SIMULATED = r"on ws://127\.0\.0\.1:(\d+)/\S*, controls on http://127\.0\.0\.1:(\d+)/"
# What the demo is, at free ports. A slow machine, too, refills what is missing before anybody hears of a gap.
DEMO = """
[history]
directory = "history"
[chaos]
enabled = true
[sources.blockchain]
url = "ws://127.0.0.1:{blockchain}/mercury-gateway/v1/ws"
[sources.binance]
url = "ws://127.0.0.1:{binance}/stream"
refill_url = "http://127.0.0.1:{binance}"
hold = 60.0
[backoff]
initial_delay = 0.1
"""


@pytest.fixture(scope="module")
def demo(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    """What `make run` starts. The ports that the pages name, and the real ones."""
    stage = Reader("five-minutes", tmp_path_factory.mktemp("demo"))
    with ExitStack() as running:
        exchanges = {
            name: running.enter_context(stage.running(f"dataflow simulate {name} --port 0", SIMULATED))
            for name in ("blockchain", "binance")
        }
        (stage.folder / "demo.toml").write_text(
            DEMO.format(**{name: each.heard(SIMULATED)[1] for name, each in exchanges.items()})
        )
        files = f"--config {checkout}/config/server.toml --config demo.toml"
        daemon = running.enter_context(stage.running(f"dataflow run {files}", LISTENING))
        yield {
            "8080": int(daemon.heard(LISTENING)[1]),
            "5101": int(exchanges["binance"].heard(SIMULATED)[2]),
        }


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Callable[..., Reader]]:
    """Makes a reader of a page. At the end no block of it is left."""
    made: list[Reader] = []

    def read(page: str, ports: dict[str, int] | None = None) -> Reader:
        made.append(Reader(page, tmp_path, dict(ports or {})))
        return made[-1]

    yield read
    assert [block for each in made for block in each.blocks] == []


def test_five_minutes(reader: Callable[..., Reader], demo: dict[str, int]) -> None:
    """Six trades; a lost connection that nobody need notice; a crash of one actor that only this one has."""
    me = reader("five-minutes", demo)
    assert me.next("sh") == "make run\n"
    assert me.next("sh") == ". .venv/bin/activate\n"
    lines = [line for line in me.run("dataflow tail").splitlines() if not line.startswith("--")]
    assert [line.split()[1] for line in lines] == ["BTC-USDT"] * 6
    answers = [json.loads(line) for line in me.run("curl").splitlines() if line]
    assert len(answers[0]["trades"]) == 2
    assert answers[1]["candles"]
    with me.running(me.next("sh", "dataflow tail BTC-USDT").strip(), r"#\d+") as tail:
        me.run("curl")
        tail.hear("-- binance: connection lost")
        tail.hear("-- binance: connection restored")
        tail.hear(r"#\d+\n")
        places = [int(place) for place in re.findall(r"#(\d+)\n", tail.said)]
        assert places == list(range(places[0], places[-1] + 1))
    assert "shard-0" in me.run("dataflow fault cache/shard-0 crash")
    while "injected crash" not in _actors(me):
        pass
    assert "1 restart" in me.run("dataflow status")


def _actors(me: Reader) -> str:
    return httpx.get(f"http://127.0.0.1:{me.ports['8080']}/actors", trust_env=False, timeout=60).text


def test_a_first_source(reader: Callable[..., Reader]) -> None:
    """A mapping and a connector, both tried on an exchange; a lost message becomes a gap; the promises hold."""
    me = reader("first-source")
    with me.running(me.next("sh", "dataflow simulate coinbase").strip() + " --port 0", SIMULATED) as exchange:
        found = exchange.heard(SIMULATED)
        me.ports |= {"5002": int(found[1]), "5102": int(found[2])}
        me.write("mine.toml", "toml", "[sources.mine]")
        said = me.run("dataflow check mine.toml")
        assert "1 of 1 symbols" in said
        assert "first trade   BTC-USD" in said
        with me.running(me.next("sh", "dataflow run").strip(), LISTENING) as started:
            me.ports["8080"] = int(started.heard(LISTENING)[1])
            assert len(me.run("dataflow tail").splitlines()) == 5
            me.run("curl")
            ask = me.blocks[0]
            gaps: list[Any] = []
            while not gaps:  # until the message behind the lost one has come
                gaps = json.loads(me.run("curl"))["gaps"]
                me.blocks.insert(0, ask)
            assert {gap["reason"] for gap in gaps} == {"source_gap"}
            me.blocks.pop(0)
        me.ports.pop("8080")
        me.write("feeds/my_feeds/mine.py", "python")
        me.write("session.jsonl", "json")
        assert "BROKEN" not in me.run("export PYTHONPATH=feeds")
        me.write("own.toml", "toml")
        assert "first trade   BTC-USD" in me.run("export PYTHONPATH=feeds")


def test_operating(reader: Callable[..., Reader]) -> None:
    """Everything that an operator is told to look at is there; the history goes on, or begins anew after a kill."""
    me = reader("operating")
    with me.running(me.next("sh", "dataflow simulate binance").strip() + " --port 0", SIMULATED) as exchange:
        me.ports["5001"] = int(exchange.heard(SIMULATED)[1])
        me.write("mine.toml", "toml", "[history]")
        assert re.search(r"first trade +(BTC|ETH)-USDT", me.run("dataflow check mine.toml"))
        start = me.next("sh", "dataflow run").strip()
        with me.running(start, LISTENING) as life:
            me.ports["8080"] = int(life.heard(LISTENING)[1])
            with me.running("dataflow tail BTC-USDT --snapshot 2", r"(?s)#\d+.*#\d+"):
                pass  # there are two trades of it
            said = me.run("export DATAFLOW__OPERATOR__TOKEN")
            assert "shard-0" in said
            assert "binance  connected" in said
            said = me.run("curl")
            assert '"status":"ready"' in said
            for metric in re.findall(r"^\| `(dataflow_\w+)", me.text, re.MULTILINE):
                assert f"\n{metric}{{" in said or f"\n{metric} " in said, metric
            quality = json.loads(me.run("curl"))["quality"]
            assert quality["state"] in re.findall(r"^\| `([a-z]+)` \|", me.text, re.MULTILINE)
            assert "BTC-USDT" in me.run("dataflow history list")
            assert (me.folder / "trades.csv").read_text().count("\n") > 1
            assert "begins" in life.said
        me.ports.pop("8080")
        with me.running(start, LISTENING) as life:
            life.heard(r"epoch \d+ goes on")
            life.process.kill()
        with me.running(start, LISTENING) as life:
            life.heard("begins, because the history was not closed in order")
            me.run("sed")
            life.process.send_signal(signal.SIGHUP)
            life.hear(r"reloaded: \[sources.binance\] symbols")


def test_the_states_of_a_symbol_are_all_told() -> None:
    """None can be met that the page does not explain."""
    text = (GUIDE / "pages" / "operating.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `([a-z]+)` \|", text, re.MULTILINE)) == {grade.value for grade in Grade}


def test_rehearsing(reader: Callable[..., Reader], demo: dict[str, int]) -> None:
    """Faults of actors and exchanges are taken; a short rehearsal has its verdict."""
    me = reader("rehearsing", demo)
    assert me.next("sh") == "make run\n"
    assert "gateway/herald" in me.run("dataflow fault sources/binance disconnect")
    with me.running(me.next("sh", "dataflow tail").strip(), r"#\d+"):
        pass
    given, taken = me.blocks[0][1].splitlines()
    me.blocks[:1] = [("sh", given), ("sh", taken)]
    number = re.search(r"fault (\d+)", me.run("dataflow fault cache/shard-1 delay"))
    assert number
    me.blocks[0] = ("sh", re.sub(r"\d+$", number[1], taken))
    assert "withdrawn" in me.run("dataflow fault --withdraw")
    me.run("curl localhost")
    me.blocks[0] = ("sh", me.blocks[0][1].replace("--minutes 0.1", "--minutes 0.02"))
    assert "every invariant held" in me.run("dataflow chaos --seed 7 --minutes")
    words = shlex.split(me.next("sh", "dataflow chaos --seed 7 --deaths"))[1:]
    app("chaos").parse_args(words, exit_on_error=False, print_error=False)  # the tests of chaos kill daemons


# A trade, or a gap: others make faults at the same demo.
PLACES = r"(?m)^(\d+) (?:(?:buy|sell) \d+\.\d+ \d+\.\d+|to (?:(\d+)|None): missing, \w+)\n"


def test_a_first_client(reader: Callable[..., Reader], demo: dict[str, int]) -> None:
    """In Python a second run goes on at the very next place; in JavaScript the same trades come."""
    me = reader("first-client", demo)
    assert me.next("sh") == "make run\n"
    me.write("follow.py", "python")
    follow = me.next("sh", "python follow.py").strip()
    places = []
    for _ in range(2):
        with me.running(follow, r"(?m)^(?=\d)") as program:
            for _ in range(5):
                told = program.hear(PLACES)
                places += range(int(told[1]), int(told[2] or told[1]) + 1)
            program.process.send_signal(signal.SIGINT)
            program.process.wait()
        kept = json.loads((me.folder / "place.json").read_text())["BTC-USDT"]["offset"]
        assert kept >= places[-1]
        places += range(places[-1] + 1, kept + 1)  # printed meanwhile
    assert places == list(range(places[0], places[-1] + 1))
    me.run("curl")
    me.write("follow.mjs", "js")
    with me.running(me.next("sh", "node follow.mjs").strip(), r"(?m)^\d+ (?:buy|sell) \d+\.\d+ \d+\.\d+\n"):
        pass
    assert len(json.loads(me.run("curl"))["trades"]) == 2
