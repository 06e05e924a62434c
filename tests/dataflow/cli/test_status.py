"""`dataflow status`: the supervision tree in a terminal."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import pytest
from rich.console import Console

from dataflow.cli import main
from dataflow.cli.ends import Failure, Mistake
from dataflow.cli.status import FEW, Answers, draw
from tests.dataflow.cli.prepared import Daemon

DAEMON = {
    "uptime": 3723.5,
    "sessions": 1200,
    "rate": 113.2,
    "sentRate": 2260.4,
    "cpu": 0.1234,
    "memory": 136314880,
    "loopLag": 0.0031,
}
OUTBOX = {"messages": 3, "bytes": 4711, "age": 0.4}


def node(path: str, *children: dict[str, Any], **told: Any) -> dict[str, Any]:
    usual = {
        "path": path,
        "kind": "supervisor" if children else "actor",
        "state": "running",
        "epoch": 1,
        "restarts": 0,
        "last_error": None,
        "last_error_at": None,
        "since": "2026-11-21T11:58:57Z",
        "age": 63.2,
        "mailbox": None,
        "children": list(children),
    }
    return usual | told


def mailbox(**told: Any) -> dict[str, Any]:
    usual = {
        "size": 1024,
        "overflow": "block",
        "accepted": 1,
        "handled": 0,
        "queued": 0,
        "dropped": {},
        "lost_in_flight": 0,
    }
    return usual | told


TREE = node(
    "",
    node(
        "cache",
        node(
            "cache/shard-0",
            restarts=3,
            last_error="ValueError: boom",
            last_error_at="2026-11-21T11:58:50Z",
            mailbox=mailbox(queued=5, dropped={"full": 1000}, lost_in_flight=2),
        ),
    ),
    node(
        "topics",
        node(
            "topics/BTC-USD",
            mailbox=mailbox(size=1, overflow="conflate", handled=1234, queued=1, dropped={"conflated": 6}),
        ),
    ),
    node(
        "sources",
        node(
            "sources/binance",
            state="backoff",
            restarts=3,
            last_error="LinkLost: silent for 15 s",
            last_error_at="2026-11-21T11:58:57Z",
            delivered={
                "trades": 98765,
                "batches": 5000,
                "bytes": 1,
                "rate": 0.0,
                "last": "2026-11-21T11:58:42Z",
                "age": 78.1,
            },
            mailbox=mailbox(accepted=0),
        ),
        node(
            "sources/new",
            delivered={"trades": 0, "batches": 0, "bytes": 0, "last": None, "age": None},
            mailbox=mailbox(accepted=0),
        ),
    ),
)
READY = {"status": "degraded", "not_ready": [], "degraded": ["sources/binance"]}


def drawn(
    tree: dict[str, Any],
    ready: dict[str, Any] = READY,
    *,
    outbox: dict[str, Any] | None = None,
    coloured: bool = False,
    daemon: dict[str, Any] = DAEMON,
    missing: Sequence[str] = (),
    width: int = 150,
    height: int | None = None,
    **options: Any,
) -> list[str]:
    out = io.StringIO()
    console = Console(
        file=out,
        width=width,
        force_terminal=coloured,
        color_system="standard" if coloured else None,
        _environ={},
    )
    told = daemon | ({} if outbox is None else {"outbox": outbox})
    console.print(
        attrs.evolve(draw(Answers(tree, ready, told, missing), "http://x:1", **options), height=height)
    )
    return [line.rstrip() for line in out.getvalue().splitlines()]


class TestDrawing:
    def test_the_whole_picture(self) -> None:
        """Each actor is a line with state, age, restarts, mailbox and last error, a source with what it delivered. The
        headline shows /ready and the daemon. A mailbox that conflates, or is not used, does not look full or idle."""
        assert drawn(TREE) == [
            "dataflow http://x:1  degraded: sources/binance",
            "up 1 h 2 min, 1,200 sessions, 113 trades/s in, 2,260 entries/s out, CPU 12 %, memory 130 MiB, "
            "loop lag 3 ms",
            "├── cache  running 1 min 3 s",
            "│   └── shard-0  running 1 min 3 s  3 restarts  0 handled, 5 of 1,024 waiting, 1,000 dropped (full), "
            "2 lost in a crash",
            "│       2026-11-21T11:58:50Z: ValueError: boom",
            "├── topics  running 1 min 3 s",
            "│   └── BTC-USD  running 1 min 3 s  1,234 handled, 6 conflated",
            "└── sources  running 1 min 3 s",
            "    ├── binance  backoff 1 min 3 s  3 restarts  0 trades/s, 98,765 in all, the last 1 min 18 s ago",
            "    │   2026-11-21T11:58:57Z: LinkLost: silent for 15 s",
            "    └── new  running 1 min 3 s  \N{EN DASH} trades/s, 0 in all",
        ]

    def test_which_source_a_symbol_comes_from(self) -> None:
        """The score of each, and of its parts those that are not what they could be."""
        full = {"connection": 30, "quality": 30, "lag": 20, "errors": 20}
        told = {
            "active": "two",
            "since": "2026-11-21T11:58:57Z",
            "age": 63.2,
            "switches": 1,
            "sources": {
                "one": {"score": 0, "state": "lost", "parts": full | {"connection": 0, "quality": 0}},
                "two": {"score": 100, "state": "live", "parts": full},
            },
        }
        ready = {"status": "ready"}
        picture = draw(Answers(node(""), ready, DAEMON | {"failover": {"A-B": told}}), "http://x:1")
        assert str(picture.head).splitlines()[2:] == [
            "A-B from two for 1 min 3 s, 1 switch; one 0 (lost, connection 0, quality 0); two 100 (live)"
        ]

    def test_how_the_symbols_of_a_source_fare(self) -> None:
        """The number in each state, what is missing, and the lag."""
        delivered = {"trades": 5, "batches": 5, "bytes": 9, "last": None, "age": None}
        quality = {"states": {"live": 1200, "stalled": 1}, "missing": 3, "lag": 0.25}
        tree = node("", node("sources", node("sources/x", delivered=delivered, quality=quality)))
        assert drawn(tree)[-1] == (
            "    └── x  running 1 min 3 s  \N{EN DASH} trades/s, 5 in all; symbols: 1,200 live, 1 stalled; 3 places missing; "
            "lag 250 ms"
        )

    @pytest.mark.parametrize(("oldest", "colour"), [(0.4, "2"), (12.0, "31")])
    def test_clients_that_do_not_read_stand_out(self, oldest: float, colour: str) -> None:
        """Who may see the clients sees what they have not taken, in red once it is old."""
        head = "".join(drawn(TREE, outbox=OUTBOX | {"age": oldest}, coloured=True, width=200)[:2])
        assert f"\x1b[{colour}m, clients have not taken 4,711 bytes for {oldest:.0f} s\x1b[0m" in head
        assert "taken" not in drawn(TREE, outbox=OUTBOX | {"age": None})[1]

    @pytest.mark.parametrize(
        ("state", "colour"),
        [
            ("running", "32"),
            ("starting", "36"),
            ("backoff", "33"),
            ("stopping", "35"),
            ("done", "2"),
            ("idle", "2"),
        ],
    )
    def test_states_have_their_colours(self, state: str, colour: str) -> None:
        """Problems have a colour of their own."""
        assert f"\x1b[{colour}m{state}\x1b[0m" in drawn(node("", node("a", state=state)), coloured=True)[2]

    def test_nothing_is_obeyed(self) -> None:
        """Names and errors are text: no markup, no escape codes, no forged lines."""
        at = "2026-11-21T11:58:57Z"
        lines = drawn(
            node("", node("sources/[red]a\x1b[2J", last_error="x\r\n└── forged [bold]", last_error_at=at))
        )
        assert lines[2:] == [
            r"└── [red]a\x1b[2J  running 1 min 3 s",
            rf"    {at}: x\x0d",
            "        └── forged [bold]",
        ]

    def test_a_crowd_is_counted(self) -> None:
        """Of many sessions the first are drawn, those that are unwell before the others, and the rest counted by
        state. --all draws each."""
        crowd = [node(f"topics/{n}", state="backoff" if n == 10 else "running") for n in range(12)]
        tree = node("", node("topics", *crowd, kind="pool"))
        assert len(drawn(tree)) == 3 + FEW + 1
        assert drawn(tree)[3].startswith("    ├── 10  backoff")
        assert drawn(tree)[-1] == "    └── and 4 running more"
        assert len(drawn(tree, everything=True)) == 3 + 12
        static = node("", node("cache", *crowd))
        assert len(drawn(static)) == 3 + 12

    def test_the_connection_of_a_source(self) -> None:
        """It stands in the place of the state of the actors, which run while they try to connect. Why it is lost has
        its time, and is told once: by the line that failed, if there is one. What is mended is not told."""
        delivered = {"trades": 5, "batches": 5, "bytes": 9, "last": None, "age": None}
        link = {"state": "lost", "age": 14.2, "reason": "silent", "reasonAt": "2026-11-21T11:58:57.123456Z"}
        lost = {"sources": {"x": link | {"delivered": {"rate": 12.34}, "circuit": "open"}}}
        tree = node("", node("sources", node("sources/x", delivered=delivered)))
        assert drawn(tree, daemon=DAEMON | lost)[-2:] == [
            "    └── x  lost 14 s, circuit open  12.3 trades/s, 5 in all",
            "        2026-11-21T11:58:57Z: silent",
        ]
        line = node("sources/x/lines", last_error="LinkLost: silent", last_error_at="2026-11-21T11:58:57Z")
        both = node("", node("sources", node("sources/x", line, delivered=delivered)))
        assert [row.strip() for row in drawn(both, daemon=DAEMON | lost) if "silent" in row] == [
            "2026-11-21T11:58:57Z: LinkLost: silent"
        ]
        link |= {"state": "connected", "reason": None, "reasonAt": None, "circuit": "closed"}
        mended = drawn(tree, daemon=DAEMON | {"sources": {"x": link}})
        assert mended[-1] == "    └── x  connected 14 s  \N{EN DASH} trades/s, 5 in all"

    def test_what_a_source_was_asked_for(self) -> None:
        """Only once something was missing."""
        delivered = {"trades": 5, "batches": 5, "bytes": 9, "last": None, "age": None}
        tree = node("", node("sources", node("sources/x", delivered=delivered)))
        refill = {"missing": 0, "questions": 0, "filled": 0, "givenUp": 0, "circuit": "closed"}
        told = {"state": "connected", "age": 3, "refill": refill}
        assert "refill" not in drawn(tree, daemon=DAEMON | {"sources": {"x": told}})[-1]
        told["refill"] = refill | {"missing": 2, "filled": 1000, "givenUp": 1, "circuit": "open"}
        assert drawn(tree, daemon=DAEMON | {"sources": {"x": told}})[-1].endswith(
            "; refill: 1,000 filled, 2 asked for, 1 given up, circuit open"
        )

    def test_what_a_source_said_that_is_of_no_use(self) -> None:
        """Its problems of all kinds are counted, where there is one."""
        delivered = {"trades": 5, "batches": 5, "bytes": 9, "last": None, "age": None}
        tree = node("", node("sources", node("sources/x", delivered=delivered)))
        told: dict[str, Any] = {"state": "connected", "age": 3, "problems": {}}
        assert "problem" not in drawn(tree, daemon=DAEMON | {"sources": {"x": told}})[-1]
        told["problems"] = {"malformed_json": 1, "bad_price": 1_000}
        assert drawn(tree, daemon=DAEMON | {"sources": {"x": told}})[-1].endswith("; 1,001 problems")

    def test_a_daemon_that_does_not_tell_its_figures(self) -> None:
        """An older one: a dash, and no guess."""
        old = {"uptime": 5, "sessions": 1, "loopLag": 2.5}
        assert drawn(node(""), daemon=old)[1] == (
            "up 5 s, 1 session, \N{EN DASH} trades/s in, \N{EN DASH} entries/s out, CPU \N{EN DASH}, memory \N{EN DASH}, loop lag 2.5 s"
        )

    def test_an_older_daemon(self) -> None:
        """What it lacks is named, and all else is drawn."""
        lines = drawn(TREE, missing=["/api/v1/status", "/api/v1/clients"], daemon={})
        assert lines[:2] == [
            "dataflow http://x:1  degraded: sources/binance",
            "an older version: it does not have /api/v1/status, /api/v1/clients",
        ]
        assert lines[2:] == [line for line in drawn(TREE) if line[0] in "├│└ "]
        assert drawn(TREE, ready={}, missing=["/ready"])[0] == "dataflow http://x:1  \N{EN DASH}"

    def test_one_restart(self) -> None:
        """In the singular."""
        assert drawn(node("", node("a", restarts=1)))[-1].endswith("  1 restart")

    def test_a_small_screen_shows_first_what_is_unwell(self) -> None:
        """With its whole path, then the sources, then the others; the last row counts what found no room."""
        assert drawn(TREE, height=9, width=70) == [
            "dataflow http://x:1  degraded: sources/binance",
            "up 1 h 2 min, 1,200 sessions, 113 trades/s in, 2,260 entries/s out,",
            "CPU 12 %, memory 130 MiB, loop lag 3 ms",
            "cache/shard-0  running 1 min 3 s  3 restarts  0 handled, 5 of 1,024 w…",
            "2026-11-21T11:58:50Z: ValueError: boom",
            "sources/binance  backoff 1 min 3 s  3 restarts  0 trades/s, 98,765 in…",
            "2026-11-21T11:58:57Z: LinkLost: silent for 15 s",
            "sources/new  running 1 min 3 s  \N{EN DASH} trades/s, 0 in all",
            "and 4 more lines",
        ]
        assert drawn(TREE, height=11) == drawn(TREE)  # it fits

    @pytest.mark.parametrize("height", [1, 2, 3, 5])
    def test_the_smallest_screens(self, height: int) -> None:
        """Never a row more than there is room for, and the last one still counts."""
        rows = drawn(TREE, height=height, width=40)
        assert len(rows) == height
        assert rows[-1].endswith(" more lines")


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Answer GET /actors with each of these in turn. Returns the list of the requests."""

    def prepare(*trees: Any, ready: Any = READY) -> list[str]:
        asked: list[str] = []
        left = list(trees)

        def call(method: str, url: str, token: str | None = None, body: Any = None, *, ok: Any = ()) -> Any:
            asked.append(f"{method} {url}")
            if url.endswith("/ready"):
                assert 503 in ok
                return ready
            if url.endswith("/api/v1/status"):
                return DAEMON
            if "/api/v1/clients" in url:
                assert {401, 403} <= set(ok)
                return {"outbox": OUTBOX}
            answer = left.pop(0)
            if isinstance(answer, BaseException):
                raise answer
            return answer

        monkeypatch.setattr("dataflow.cli.status.call", call)
        monkeypatch.setattr("time.sleep", lambda _seconds: None)
        return asked

    return prepare


class TestCommand:
    def test_once(self, answers: Any, capsys: pytest.CaptureFixture[str]) -> None:
        """The tree is drawn once and the exit code is 0, also if the daemon is not ready."""
        answers(TREE, ready={"status": "not ready", "not_ready": ["cache"], "degraded": []})
        assert main(["status", "--url", "http://x:1"]) == 0
        out = capsys.readouterr().out
        assert out.startswith("dataflow http://x:1  not ready: cache\n")
        assert "\x1b" not in out

    def test_json(self, answers: Any, capsys: pytest.CaptureFixture[str]) -> None:
        """--json passes the daemon's answers on: the tree, and beside its root all else that is shown."""
        answers(TREE)
        assert main(["status", "--json", "--url", "http://x:1"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told == TREE | {"ready": READY, "daemon": DAEMON | {"outbox": OUTBOX}, "missing": []}

    def test_watch_json(self, answers: Any, capsys: pytest.CaptureFixture[str]) -> None:
        """--watch --json prints one tree per line until it is interrupted."""
        answers(TREE, node(""), KeyboardInterrupt())
        assert main(["status", "--json", "--watch"]) == 0
        assert [json.loads(line)["path"] for line in capsys.readouterr().out.splitlines()] == ["", ""]

    def test_watch_waits_for_a_daemon(self, answers: Any, capsys: pytest.CaptureFixture[str]) -> None:
        """--watch reports a daemon that goes away, and draws it again after its return."""
        asked = answers(
            TREE, Mistake("nothing answers"), Failure("does not answer"), TREE, KeyboardInterrupt()
        )
        assert main(["status", "--watch"]) == 0
        assert len([line for line in asked if line.endswith("/actors")]) == 5
        lines = capsys.readouterr().out.splitlines()
        told = [line for line in lines if "answer" in line or line.startswith("dataflow")]
        head = "dataflow http://127.0.0.1:8080  degraded: sources/binance"
        assert (told[0], told[-1]) == (head, head)
        since = [
            re.fullmatch(r"since (\S+Z): (nothing answers|does not answer)", line) for line in told[1:-1]
        ]
        assert [match and match[2] for match in since] == ["nothing answers", "does not answer"]
        assert len({match and match[1] for match in since}) == 1, "the first question without an answer"

    def test_watch_on_a_terminal(self, answers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """A terminal is redrawn on its alternate screen, which is left at the end."""
        terminal = Console(file=io.StringIO(), force_terminal=True, width=100, _environ={"TERM": "xterm"})
        monkeypatch.setattr("dataflow.cli.status.Console", lambda: terminal)
        answers(TREE, TREE, KeyboardInterrupt())
        assert main(["status", "--watch"]) == 0
        drawn = terminal.file.getvalue()  # type: ignore[attr-defined]
        assert drawn.startswith("\x1b[?1049h")
        assert drawn.count("shard-0") >= 2
        assert "\x1b[?1049l" in drawn

    def test_watch_on_a_dumb_terminal(self, answers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """It gets one tree after the other, and not one escape code."""
        terminal = Console(file=io.StringIO(), force_terminal=True, width=100, _environ={"TERM": "dumb"})
        monkeypatch.setattr("dataflow.cli.status.Console", lambda: terminal)
        answers(TREE, TREE, KeyboardInterrupt())
        assert main(["status", "--watch"]) == 0
        drawn = terminal.file.getvalue()  # type: ignore[attr-defined]
        assert drawn.count("shard-0") == 2
        assert "\x1b" not in drawn

    def test_watch_needs_a_daemon_to_begin_with(
        self, answers: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Without a daemon at the start, --watch ends at once with the reason."""
        answers(Mistake("nothing answers"))
        assert main(["status", "--watch"]) == 1
        assert capsys.readouterr().err == "dataflow: nothing answers\n"


@pytest.fixture
def told(daemon: Daemon) -> Daemon:
    """A daemon with all that `status` asks for."""
    answers = {"/ready": READY, "/api/v1/status": DAEMON, "/api/v1/clients?limit=1": {}, "/actors": TREE}
    daemon.answers.update(
        {("GET", path): (200, json.dumps(answer).encode()) for path, answer in answers.items()}
    )
    return daemon


class TestDaemon:
    @pytest.mark.parametrize("lacks", [b'{"detail": "no such path"}', b"<html>Not Found</html>", b""])
    def test_an_older_one(self, told: Daemon, capsys: pytest.CaptureFixture[str], lacks: bytes) -> None:
        """It is shown as far as it tells. Programs find in `missing` what it does not have."""
        for path in ("/api/v1/status", "/api/v1/clients?limit=1"):
            told.answers["GET", path] = 404, lacks
        assert main(["status", "--url", told.url]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[1:3] == [
            "an older version: it does not have /api/v1/status, /api/v1/clients",
            "├── cache  running 1 min 3 s",
        ]
        assert main(["status", "--json", "--url", told.url]) == 0
        answer = json.loads(capsys.readouterr().out)
        assert answer["missing"] == ["/api/v1/status", "/api/v1/clients"]
        assert answer["children"] == TREE["children"]

    def test_none(self, daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
        """What has none of it is no daemon."""
        assert main(["status", "--url", daemon.url]) == 1
        assert capsys.readouterr().err == f"dataflow: {daemon.url} answers, but is not a dataflow daemon\n"

    def test_one_that_hangs(self, told: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
        """That is said while it hangs, and it is drawn again when it goes on."""
        text = io.StringIO()
        monkeypatch.setattr("dataflow.cli.status.Console", lambda: Console(file=text, width=100, _environ={}))
        monkeypatch.setattr("dataflow.cli.watching.PATIENCE", 0.05)

        def between_two_looks(_seconds: float) -> None:
            if "no answer" not in text.getvalue():
                told.goes_on.clear()
            else:
                told.goes_on.set()
            if text.getvalue().count("shard-0") == 2:
                raise KeyboardInterrupt

        monkeypatch.setattr("time.sleep", between_two_looks)
        assert main(["status", "--watch", "--url", told.url]) == 0
        before, after = re.split(r"(?:since \S+Z: .*\n)+", text.getvalue())
        assert before == after
