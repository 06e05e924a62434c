"""`dataflow top`: the busiest sources, topics and clients."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
import termios
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
from rich.console import Console

from dataflow.cli import main
from dataflow.cli.top import VIEWS, Seen, client_row, in_order, picture, source_row, table, topic_row
from tests.dataflow.cli.prepared import Daemon

STATUS = {"rate": 113.2, "sentRate": 226.4, "sessions": 2, "cpu": 0.12, "memory": 136314880, "loopLag": 0.003}


def source(**told: Any) -> dict[str, Any]:
    delivered = {"trades": 5, "batches": 5, "bytes": 9, "last": None, "age": 0.25, "rate": 12.3}
    quality = {"states": {"live": 2}, "missing": 0, "lag": 0.1}
    usual = {"state": "connected", "age": 63.2, "reason": None, "delivered": delivered, "quality": quality}
    return {**usual, **told}


SOURCES = {
    "slow": source(delivered={"trades": 7, "age": 3.0, "rate": 0.0}),
    "fast": source(quality={"states": {"live": 2, "stalled": 1, "lost": 3}, "lag": 2.5}),
    "old": source(state="lost", reason="silent", delivered={"trades": 1, "age": None}, quality={}),
}
CLIENT = {
    "id": 7,
    "address": "10.0.0.1:5",
    "protocol": "sse",
    "userAgent": "curl/8\x1b[2J",
    "age": 5.0,
    "follows": [{}, {}],
    "sent": 100,
    "dropped": 0,
    "outbox": {"messages": 1, "bytes": 2048, "age": 0.5},
}
TOPIC = {
    "channel": "candles",
    "symbol": "BTC-USD",
    "variant": "1m",
    "subscribers": 3,
    "offset": 9,
    "rate": 1.5,
}


def drawn(rows: list[dict[str, Any]], by: str, width: int | None = None) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width or 200, _environ={}).print(table(rows, by, width))
    return [line.rstrip() for line in out.getvalue().splitlines()]


class TestRows:
    def test_sources(self) -> None:
        """The busiest first, whose rate is not known last; in each the worst states of its symbols first. What is not
        known is a dash."""
        rows = in_order([source_row(name, told) for name, told in SOURCES.items()], "source", None)
        lines = drawn(rows, "source")
        assert [line.split()[0] for line in lines] == ["source", "fast", "slow", "old"]
        assert lines[1].split()[1:7] == ["connected", "12.3", "2.5", "s", "3", "lost,"]
        assert "3 lost, 1 stalled, 2 live" in lines[1]
        assert lines[3].split()[1:5] == ["lost", *["\N{EN DASH}"] * 3]
        assert lines[3].endswith("silent")

    def test_how_much_of_the_bounds_of_an_upstream_is_used(self) -> None:
        """That of the fullest one, and the score of the symbol that fares worst."""
        bounds = [
            {"name": "weight", "used": 600, "limit": 1200, "per": 60},
            {"name": "symbols", "used": 1, "limit": 4},
        ]
        row = source_row("x", source(bounds=bounds, score={"score": 85, "state": "live"}))
        assert (row["used"], row["score"]) == (0.5, 85)
        assert source_row("x", source(bounds=[], score=None))["used"] is None

    def test_topics_have_whole_names(self) -> None:
        """Channel, symbol and variant, where there is one."""
        assert topic_row(TOPIC)["topic"] == "candles:BTC-USD:1m"
        assert topic_row({"channel": "trades", "symbol": "BTC-USD"})["topic"] == "trades:BTC-USD"

    def test_clients_are_not_obeyed(self) -> None:
        """The name of a program is text."""
        (_, line) = drawn([client_row(CLIENT)], "client")
        assert "\x1b" not in line
        assert line.split()[:7] == ["7", "10.0.0.1:5", "\N{EN DASH}", "2", "KiB", "500", "ms"]

    @pytest.mark.parametrize(
        ("sort", "order"),
        [
            ("source", ["fast", "old", "slow"]),
            ("state", ["old", "slow", "fast"]),
            ("lag", ["fast", "slow", "old"]),
            ("trades", ["slow", "fast", "old"]),
            ("symbols", ["fast", "slow", "old"]),
        ],
    )
    def test_the_most_urgent_first(self, sort: str, order: list[str]) -> None:
        """A column sorts by what it means, not by its text."""
        rows = in_order([source_row(name, told) for name, told in SOURCES.items()], "source", sort)
        assert [row["name"] for row in rows] == order

    @pytest.mark.parametrize("by", VIEWS)
    @pytest.mark.parametrize("width", [10, 40, 60, 80, 120])
    def test_a_narrow_terminal_shows_the_first_columns(self, by: str, width: int) -> None:
        """Whole, and none that does not fit: no cell is cut, but for the first one."""
        rows = {
            "source": [source_row(name, told) for name, told in SOURCES.items()],
            "topic": [topic_row(TOPIC)],
            "client": [client_row(CLIENT)],
        }[by]
        whole, narrow = drawn(rows, by), drawn(rows, by, width)
        titles = [column.title for column in VIEWS[by].columns]
        head = narrow[0].split()
        assert head == " ".join(titles).split()[: len(head)]
        if len(head) > 1:
            assert max(map(len, narrow)) <= width
            assert all(row.startswith(cut) for row, cut in zip(whole, narrow, strict=True))


@pytest.fixture
def answering(daemon: Daemon) -> Daemon:
    """A daemon with all three answers."""
    told = {
        "/api/v1/status": {**STATUS, "sources": SOURCES},
        "/api/v1/topics?limit=200": {"total": 1, "topics": [TOPIC]},
        "/api/v1/clients?limit=200&after=0": {"total": 2, "clients": [CLIENT], "next": 7},
        "/api/v1/clients?limit=200&after=7": {"total": 2, "clients": [{**CLIENT, "id": 8}], "next": None},
    }
    daemon.answers.update(
        {("GET", path): (200, json.dumps(answer).encode()) for path, answer in told.items()}
    )
    return daemon


class TestCommand:
    def test_once(self, answering: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
        """One look, for a pipe in whole rows: what the daemon does, and the table."""
        assert main(["top", "--once", "--url", answering.url]) == 0
        head, empty, titles, *rows = capsys.readouterr().out.splitlines()
        assert head == (
            f"dataflow {answering.url}  113 trades/s in, 226 entries/s out, 2 sessions, CPU 12 %, memory 130 MiB, "
            "loop lag 3 ms"
        )
        assert (empty, titles.split()[0], len(rows)) == ("", "source", 3)

    @pytest.mark.parametrize(("by", "names"), [("source", ["fast", "slow", "old"]), ("client", [7, 8])])
    def test_json(
        self, answering: Daemon, capsys: pytest.CaptureFixture[str], by: str, names: list[Any]
    ) -> None:
        """One object, with numbers as the daemon tells them; of clients all pages."""
        assert main(["top", "--once", "--json", "--by", by, "--url", answering.url]) == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["by"], told["total"]) == (by, len(names))
        assert [row.get("name", row.get("id")) for row in told[f"{by}s"]] == names
        assert {row["rate"] for row in told["clients"]} == {None} if by == "client" else {12.3, 0.0, None}

    @pytest.mark.parametrize(("sort", "most"), [(None, "rate"), ("oldest", "oldest"), ("sent", "sent")])
    def test_of_a_crowd_the_busiest_matter(
        self, answering: Daemon, capsys: pytest.CaptureFixture[str], sort: str | None, most: str
    ) -> None:
        """Of more than 1,000 clients the daemon names those that have most of what is sorted by, however late
        they came. Only where it has no such order, those that have been there for longest are sorted."""
        page = {"total": 1001, "clients": [{**CLIENT, "id": 900}], "next": None}
        first = {"total": 1001, "clients": [CLIENT], "next": None}
        answering.answers["GET", f"/api/v1/clients?limit=200&most={most}"] = 200, json.dumps(page).encode()
        answering.answers["GET", "/api/v1/clients?limit=200&after=0"] = 200, json.dumps(first).encode()
        words = ["top", "--once", "--by", "client", "--json", "--url", answering.url]
        assert main([*words, *(["--sort", sort] if sort else [])]) == 0
        told = json.loads(capsys.readouterr().out)
        assert ([row["id"] for row in told["clients"]], told["total"]) == ([900], 1001)
        assert main([*words, "--sort", "follows"]) == 0
        assert [row["id"] for row in json.loads(capsys.readouterr().out)["clients"]] == [CLIENT["id"]]

    def test_more_than_is_wanted(self, answering: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
        """They are counted."""
        assert main(["top", "--once", "--limit", "1", "--url", answering.url]) == 0
        assert capsys.readouterr().out.splitlines()[-1] == "and 2 more sources"

    @pytest.mark.parametrize(
        ("words", "told"),
        [
            (("--sort", "size"), "--sort: found size; must be one of source, state, trades/s, lag, symbols, last, for, "),
            (("--by", "clients"), "--by: found clients; must be one of source, topic, client"),
            (("--interval", "0"), "--interval: found 0; must be more than 0 seconds"),
            (("--limit", "0"), "--limit: found 0; must be at least 1"),
        ],
    )  # fmt: skip
    def test_mistakes(self, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], told: str) -> None:
        """Each is told before anything is asked."""
        assert main(["top", *words]) == 1
        assert capsys.readouterr().err.startswith(f"dataflow: {told}")

    def test_not_for_everybody(self, daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
        """The user hears what to do; and with a token, that it is the wrong one."""
        daemon.answers["GET", "/api/v1/status"] = 200, json.dumps({**STATUS, "sources": {}}).encode()
        path = "/api/v1/clients?limit=200&after=0"
        daemon.answers["GET", path] = 401, b'{"detail": "a token is needed"}'
        words = ["top", "--once", "--by", "client", "--url", daemon.url]
        told = "dataflow: the daemon asks for the operator's token: --token, or DATAFLOW__OPERATOR__TOKEN"
        assert main(words) == 1
        assert capsys.readouterr().err == f"{told}\n"
        assert main([*words, "--token", "wrong"]) == 1
        assert capsys.readouterr().err == f"{told}, and it has another one\n"

    def test_on_a_dumb_terminal(self, answering: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
        """One look after the other, without keys and escape codes. Ctrl-C is the usual end."""
        from dataflow.cli import top

        def interrupted(_seconds: float) -> None:
            raise KeyboardInterrupt

        text = io.StringIO()
        terminal = partial(Console, file=text, force_terminal=True, _environ={"TERM": "dumb"})
        monkeypatch.setattr(top, "Console", terminal)
        monkeypatch.setattr(top, "without_keys", interrupted)
        assert main(["top", "--url", answering.url]) == 0
        assert "fast" in text.getvalue()
        assert "\x1b" not in text.getvalue()

    def test_keys(self, answering: Daemon) -> None:
        """On a terminal c shows the clients, with what each is sent a second from the second look on; q ends it with
        exit code 0, and leaves the terminal as it was."""
        ours, theirs = pty.openpty()
        before = termios.tcgetattr(theirs)
        command = [sys.executable, "-m", "dataflow", "top", "--interval", "0.05", "--url", answering.url]
        environ = os.environ | {"TERM": "xterm"}  # ours may be dumb, and has no keys then
        with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environ) as process:
            shown = b""

            def until(text: bytes) -> None:
                nonlocal shown
                while text not in shown:
                    shown += os.read(ours, 65536)

            try:
                until(b"keys: s sources")
                os.write(ours, b"c")
                until(b"10.0.0.1:5")
                until(b"  0 ")  # sent in a second: the same as in the look before
                os.write(ours, b"q")
                until(b"\x1b[?1049l")  # the other screen is left
                assert process.wait() == 0
            finally:
                process.kill()
        assert termios.tcgetattr(theirs) == before
        os.close(ours)
        os.close(theirs)


def test_a_daemon_that_goes_away(answering: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """A live look tells that, below it what there was; and it goes on. One from the start is a mistake."""
    from dataflow.cli import top

    text = io.StringIO()
    terminal = partial(
        Console, file=text, force_terminal=True, width=100, height=20, _environ={"TERM": "xterm"}
    )
    monkeypatch.setattr(top, "Console", terminal)
    path, keys = ("GET", "/api/v1/status"), iter(["", "", "q"])
    fine, gone = answering.answers[path], (503, b'{"detail": "nobody is here"}')

    def pressed(_seconds: float) -> str:
        answering.answers[path] = gone if answering.answers[path] == fine else fine
        return next(keys)

    monkeypatch.setattr(top, "single_keys", lambda: nullcontext((pressed, True)))
    monkeypatch.setattr("dataflow.cli.watching.PATIENCE", None)  # every answer is waited for
    assert main(["top", "--url", answering.url]) == 0
    looks = [look for look in text.getvalue().split("\x1b[H") if "trades/s in" in look]
    assert [("Z: nobody is here; below is what it said at" in look, "fast" in look) for look in looks] == [
        (False, True),
        (True, True),
        (False, True),
    ]
    answering.answers[path] = gone
    assert main(["top", "--url", answering.url]) == 2


@pytest.mark.parametrize("height", [6, 8, 20])
def test_an_old_look_fits_the_screen(height: int) -> None:
    """Why it is old stands there whole, above it; the table has the rest of the screen."""
    rows = [source_row(f"s{number}", source()) for number in range(40)]
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=60, height=height, _environ={}, color_system=None)
    old = "since 2026-11-28T00:18:18Z: no answer; below is what it said at 2026-11-28T00:18:17Z"
    look = Seen("source", rows, 40, STATUS)
    console.print(picture(look, "http://x:1", console, live=True, keys=True, old=old))
    lines = out.getvalue().splitlines()
    assert len(lines) == height
    assert " ".join(" ".join(lines).split()).count(old) == 1
