"""The log: one line per event, no forged lines, no endless repetition."""

from __future__ import annotations

import io
import json
import logging
import math
import re
import warnings
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loguru import logger

from dataflow.logs import Burst, Format, configure, log_event, often
from dataflow.logs.terminal import wants_colour


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    logger.remove()
    logging.captureWarnings(False)
    logging.root.handlers[:], logging.root.level = handlers, level


class LinkLost(Exception):
    """Replaces the connector's class: the log recognises it by its name."""


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def event(kind: str, **told: Any) -> Any:
    usual = {
        "path": "sources/acme",
        "epoch": 1,
        "at": 0.0,
        "errors": (),
        "restarts": 0,
        "delay": None,
        "detail": None,
    }
    return SimpleNamespace(kind=kind, **usual | told)


def human(**options: Any) -> io.StringIO:
    out = io.StringIO()
    configure("human", "debug", out, **options)
    return out


def lines(out: io.StringIO) -> list[str]:
    """The log without the times. Every line must have one."""
    text = out.getvalue()
    assert text.endswith("\n")
    return [re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} ", "", line) for line in text.splitlines()]


class TestFormats:
    def test_a_human_line(self) -> None:
        """A line has time, level, path and message. A pipe gets no colours."""
        out = human()
        logger.info("listening on {}", "127.0.0.1:8080")
        logger.bind(path="gateway").warning("full")
        assert lines(out) == ["INFO    listening on 127.0.0.1:8080", "WARNING gateway: full"]
        assert "\x1b" not in out.getvalue()

    def test_a_terminal_gets_colours(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The level is coloured on a terminal."""
        monkeypatch.delenv("NO_COLOR", raising=False)
        monkeypatch.setenv("TERM", "xterm")
        configure("human", "info", out := Terminal())
        logger.error("no")
        assert "\x1b[31mERROR  \x1b[0m no" in out.getvalue()

    @pytest.mark.parametrize(
        ("stream", "environ", "wanted"),
        [
            (Terminal(), {}, True),
            (Terminal(), {"NO_COLOR": ""}, True),
            (Terminal(), {"NO_COLOR": "1"}, False),
            (Terminal(), {"TERM": "dumb"}, False),
            (io.StringIO(), {}, False),
        ],
    )
    def test_colours(self, stream: io.StringIO, environ: dict[str, str], wanted: bool) -> None:
        """Colours are for terminals, unless NO_COLOR or TERM=dumb forbids them."""
        assert wants_colour(stream, environ) is wanted

    def test_a_json_line(self) -> None:
        """The JSON format is one object per line, with the bound values and a UTC time."""
        configure("json", "info", out := io.StringIO())
        logger.bind(path="sources/ä").warning("twice\nbroken")
        logger.debug("below the level")
        (line,) = out.getvalue().splitlines()
        told = json.loads(line)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", told.pop("time"))
        assert told == {"level": "warning", "message": "twice\nbroken", "path": "sources/ä"}

    def test_a_json_line_holds_its_traceback(self) -> None:
        """In JSON the traceback is a field and adds no lines."""
        configure("json", "info", out := io.StringIO())
        log_event(event("crash", errors=(raised(KeyError("x")),), delay=1.0, restarts=2))
        (line,) = out.getvalue().splitlines()
        told = json.loads(line)
        assert told["event"] == "crash"
        assert told["exception"].startswith("Traceback (most recent call last)")
        assert told["exception"].endswith("KeyError: 'x'")

    def test_a_crash_prints_no_variables(self) -> None:
        """A crash does not print the variables near it, such as a history of a million trades or a secret."""
        looked = []

        class Hoard:
            def __repr__(self) -> str:
                looked.append(self)
                return "a million trades"

        def crash(hoard: Hoard) -> None:
            raise ValueError("crash", hoard is None)

        out = io.StringIO()
        configure("human", stream=out)
        try:
            crash(Hoard())
        except ValueError as error:
            logger.opt(exception=error).error("crashed")
        assert "ValueError" in out.getvalue()
        assert looked == []

    def test_text_from_outside_forges_nothing(self) -> None:
        """Control characters from outside become visible, and further lines are indented, also in tracebacks."""
        out = human()
        logger.warning("{}", "\x1b[2Jgone\r\n2026-01-01 00:00:00.000 ERROR   forged {extra} <red>")
        log_event(event("crash", path="a\nb", errors=(raised(ValueError("\x1b]0;title\x07\nERROR x")),)))
        assert "\x1b" not in out.getvalue()
        assert lines(out)[:2] == [
            r"WARNING \x1b[2Jgone\x0d",
            "    2026-01-01 00:00:00.000 ERROR   forged {extra} <red>",
        ]
        assert [line for line in out.getvalue().splitlines() if re.match(r"\S", line)][1:] == [
            out.getvalue().splitlines()[2]
        ]

    @pytest.mark.parametrize("format", ["human", "json"])
    def test_no_line_holds_a_secret(self, format: Format) -> None:
        """Not in the message, in a bound value, in a traceback or in an error of the tree."""
        configure(format, "debug", out := io.StringIO())
        logger.bind(path="sources/a", token="planted").info("from {}", "wss://user:planted@host/")
        log_event(event("crash", errors=(raised(ValueError("ws://user:planted@host?apiKey=planted")),)))
        assert "planted" not in out.getvalue()
        assert "user:***@host" in out.getvalue()

    def test_the_standard_library_is_heard(self) -> None:
        """Warnings of libraries appear in the same log with the logger's name; their lower levels do not."""
        configure("json", "debug", out := io.StringIO())
        logging.getLogger("hypercorn.error").warning("odd %s", "{thing}")
        logging.getLogger("hypercorn.error").info("chatter")
        logging.getLogger("x").log(35, "own level")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            configure("json", "debug", out)
            warnings.warn("old", UserWarning, stacklevel=1)
        told = [json.loads(line) for line in out.getvalue().splitlines()]
        assert [(t["logger"], t["level"]) for t in told] == [
            ("hypercorn.error", "warning"),
            ("x", "level 35"),
            ("py.warnings", "warning"),
        ]
        assert told[0]["message"] == "odd {thing}"


class TestEvents:
    @pytest.mark.parametrize(
        ("told", "line"),
        [
            (event("ready"), "DEBUG   sources/acme: ready"),
            (event("ready", epoch=3), "INFO    sources/acme: back, incarnation 3"),
            (event("exit"), "DEBUG   sources/acme: ended by itself"),
            (event("declined"), "DEBUG   sources/acme: declined to start"),
            (event("stopped", path=""), "DEBUG   root: stopped"),
            (event("stop_cancelled"), "WARNING sources/acme: did not stop when asked, and was cancelled"),
            (event("unstopped"), "ERROR   sources/acme: did not stop when cancelled, and was left behind"),
            (event("hung"), "ERROR   sources/acme: made no progress, and was cancelled"),
            (
                event("dead_letter", detail=("{a}", 2)),
                "ERROR   sources/acme: 2 messages in hand were lost: ('{a}', 2)",
            ),
            (
                event("dead_letter", detail=("x" * 999,)),
                f"ERROR   sources/acme: 1 messages in hand were lost: ('{'x' * 295}...",
            ),
            (
                event("given_up", errors=(ValueError("x"), KeyError())),
                "WARNING sources/acme: crashed too often, and was given up: ValueError: x; KeyError",
            ),
            (
                event("auto_shutdown"),
                "INFO    sources/acme: ends, because its significant children have ended",
            ),
            (event("suppressed", path="", detail=7), "WARNING root: 7 more crashes in the last second"),
            (event("unheard_of", detail="?"), "WARNING sources/acme: unheard_of: ?"),
            (
                event("crash", errors=(LinkLost("silent for 15 s"),), restarts=4, delay=2.345),
                "INFO    sources/acme: link lost: silent for 15 s; restart 4 in 2.3 s",
            ),
            (
                event("start_failed", errors=(LinkLost("refused"),), restarts=1, delay=1.0),
                "INFO    sources/acme: link lost: refused; restart 1 in 1.0 s",
            ),
        ],
    )
    def test_one_line(self, told: Any, line: str) -> None:
        """An expected event is one line with path, cause and consequence, without a traceback."""
        out = human()
        log_event(told)
        assert lines(out) == [line]

    @pytest.mark.parametrize(
        ("kind", "head"),
        [
            ("crash", "ERROR   sources/acme: crashed: ValueError: bad; no restart"),
            ("start_failed", "ERROR   sources/acme: did not start: ValueError: bad; no restart"),
            ("cleanup_error", "ERROR   sources/acme: failed while stopping: ValueError: bad"),
            (
                "escalated",
                "ERROR   sources/acme: crashed too often, its supervisor gives up: ValueError: bad",
            ),
        ],
    )
    def test_a_defect_has_its_traceback(self, kind: str, head: str) -> None:
        """A crash of our code has a traceback."""
        out = human()
        log_event(event(kind, errors=(raised(ValueError("bad")),)))
        first, *rest = lines(out)
        assert first == head
        assert rest[0] == "    Traceback (most recent call last):"
        assert rest[-1] == "    ValueError: bad"

    def test_every_error_of_a_crash_is_shown(self) -> None:
        """A crash with several errors shows each, also if one of them is a lost link."""
        out = human()
        log_event(event("crash", errors=(raised(LinkLost("gone")), raised(KeyError("x")))))
        text = out.getvalue()
        assert "crashed: gone; KeyError: 'x'; no restart" in text
        assert text.count("Traceback") >= 2

    def test_a_blocked_loop_shows_the_whole_stack(self) -> None:
        """The stack of the code that blocks the event loop is not cut."""
        out = human()
        log_event(event("blocked", path="", detail="line 1\n" + "x" * 999))
        assert lines(out) == ["ERROR   root: the event loop is blocked:", "    line 1", "    " + "x" * 999]


def test_a_line_says_how_often_only_if_it_was_more_than_once() -> None:
    """`(1 times)` says nothing."""
    assert [often(count) for count in (1, 2, 1234)] == ["", " (2 times)", " (1,234 times)"]


class TestBurst:
    def test_the_first_is_told_at_once(self) -> None:
        """The first occurrence is logged at once, independent of other reasons."""
        burst = Burst(quiet=10, every=60)
        assert burst.occurred("a", 0.0) == 1
        assert burst.occurred("b", 0.0) == 1

    def test_a_burst_is_counted(self) -> None:
        """Repetitions are counted, and the number is logged with the first one of the next burst."""
        burst = Burst(quiet=10, every=60)
        assert [burst.occurred("a", t) for t in (0.0, 1.0, 2.0)] == [1, 0, 0]
        assert burst.occurred("a", 12.0) == 3
        assert burst.occurred("a", 12.5) == 0

    def test_a_burst_without_end_is_told_regularly(self) -> None:
        """An endless burst is logged every `every` seconds, with the number since the last line."""
        burst = Burst(quiet=10, every=60)
        told = {t: n for t in range(0, 130, 5) if (n := burst.occurred("a", float(t)))}
        assert told == {0: 1, 60: 12, 120: 12}

    def test_the_first_few_may_be_told_freely(self) -> None:
        """Each of them at once; after a pause there may be as many again."""
        burst = Burst(quiet=10, every=60, freely=3)
        assert [burst.occurred("a", t) for t in (0.0, 1.0, 2.0, 3.0, 4.0)] == [1, 1, 1, 0, 0]
        assert [burst.occurred("a", t) for t in (14.0, 15.0, 16.0, 17.0)] == [3, 1, 1, 0]

    def test_a_burst_that_is_over_can_be_settled(self) -> None:
        """What was not told of it is told once, without waiting for the next occurrence."""
        burst = Burst(quiet=10, every=60)
        for t in (0.0, 1.0, 2.0):
            burst.occurred("a", t)
        burst.occurred("b", 8.0)
        burst.occurred("b", 9.0)
        assert burst.settle(11.9) == []
        assert burst.settle(12.0) == [("a", 2)]
        assert burst.settle(18.0) == []
        assert burst.settle(math.inf) == [("b", 1)]
        assert burst.occurred("a", 20.0) == 1

    def test_endless_reasons_cost_no_memory(self) -> None:
        """With too many reasons the least recent one is forgotten."""
        burst = Burst(remembered=2)
        assert [burst.occurred(r, 0.0) for r in "abacb"] == [1, 1, 0, 1, 1]

    @given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 30)), max_size=40))
    def test_every_occurrence_is_told_once(self, happened: list[tuple[str, int]]) -> None:
        """The logged numbers, plus one more line after a silence, add up to the occurrences."""
        burst, now, told = Burst(quiet=10, every=60), 0.0, dict.fromkeys("abc", 0)
        for reason, later in happened:
            now += later
            told[reason] += burst.occurred(reason, now)
        for reason in "abc":
            told[reason] += burst.occurred(reason, now + 10)
        assert told == {r: 1 + sum(reason == r for reason, _ in happened) for r in "abc"}
