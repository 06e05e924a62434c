"""The command line: commands, options, error texts and exit codes."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
import pytest
from cyclopts import Parameter
from loguru import logger

import dataflow
from dataflow.cli import _COMMANDS, app, main
from dataflow.cli.columns import Columns
from dataflow.cli.common import daemon_url, until_interrupted
from dataflow.cli.config import CONFIG
from dataflow.cli.daemon import told_end, why_not_free
from dataflow.cli.ends import Failure, Interrupted, Mistake
from dataflow.cli.history import HISTORY
from dataflow.cli.simulate import SIMULATORS, as_line
from dataflow.cli.top import VIEWS
from dataflow.settings.load import load, shipped
from dataflow.settings.schema import Settings
from simulators import CONTROLS_ABOVE
from tests.dataflow.cli.prepared import Daemon
from tests.support.ports import own_port


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("DATAFLOW__")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "120")


@pytest.fixture
def app_run(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Settings, dict[str, Any]]]:
    """Replaces `dataflow.app`. Holds the arguments of each `run`."""
    asked: list[tuple[Settings, dict[str, Any]]] = []
    fake = ModuleType("dataflow.app")

    def run(settings: Settings, **options: Any) -> int:
        asked.append((settings, options))
        return 0

    fake.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "dataflow.app", fake)
    monkeypatch.setattr(dataflow, "app", fake, raising=False)
    monkeypatch.setattr("dataflow.logs.configure", lambda *arguments, **options: None)
    return asked


@pytest.fixture
def taken() -> Iterator[int]:
    """A port of the loopback with a listener."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


class Output:
    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def of(self, *words: str) -> tuple[int, str, str]:
        """The exit code, standard output and standard error of a command."""
        code = main(words)
        out, err = self._capsys.readouterr()
        return code, out, err


@pytest.fixture
def output(capsys: pytest.CaptureFixture[str]) -> Output:
    return Output(capsys)


EVERY = (
    [(name,) for name, *_ in _COMMANDS]
    + [("simulate", name) for name, *_ in SIMULATORS]
    + [("history", name) for name, *_ in HISTORY]
    + [("config", name) for name, *_ in CONFIG]
)


class TestHelp:
    def test_version(self, output: Output) -> None:
        """The version goes to standard output."""
        assert output.of("--version") == (0, "dataflow 0.1.0\n", "")

    def test_version_is_quick(self) -> None:
        """The version needs none of the large libraries."""
        code = (
            "import sys; from dataflow.cli import main; main(['--version']);"
            "print({'trio', 'cyclopts', 'rich', 'httpx', 'quart', 'attrs', 'loguru'} & set(sys.modules))"
        )
        told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert told.stdout == "dataflow 0.1.0\nset()\n"

    def test_without_a_command_the_help_is_shown(self, output: Output) -> None:
        """It lists every command, and examples to start with."""
        code, out, _ = output.of()
        assert code == 0
        for name in ("run", "check", "demo", "status", "tail", "fault", "simulate", "client", "bench"):
            assert f"│ {name} " in out
        assert "Examples:\n\n  dataflow demo" in out

    @pytest.mark.parametrize("words", [(), ("status",), ("config", "show")], ids=" ".join)
    def test_help_is_a_word_too(self, output: Output, words: tuple[str, ...]) -> None:
        """`dataflow help COMMAND` is what one tries first."""
        assert output.of("help", *words) == output.of(*words, "--help")

    @pytest.mark.parametrize("words", EVERY, ids=" ".join)
    def test_every_command_explains_itself(self, output: Output, words: tuple[str, ...]) -> None:
        """Every command has --help, with at least one example that calls this command."""
        code, out, err = output.of(*words, "--help")
        assert (code, err) == (0, "")
        assert out.startswith(f"Usage: dataflow {' '.join(words)}")
        assert f"  dataflow {' '.join(words)}" in out.partition("Examples:")[2]

    def test_a_command_shows_its_whole_explanation(self, output: Output) -> None:
        """The one line in the list of commands does not replace the explanation in the command's own help."""
        assert "The daemon needs [chaos] enabled = true." in output.of("fault", "--help")[1]
        assert "The daemon needs" not in output.of("--help")[1]

    @pytest.mark.parametrize("words", EVERY, ids=" ".join)
    def test_examples_can_be_typed(self, words: tuple[str, ...]) -> None:
        """Every command accepts its own examples."""
        table = {
            name: examples for name, _where, _help, *examples in (*_COMMANDS, *SIMULATORS, *HISTORY, *CONFIG)
        }
        for example in table[words[-1]]:
            typed = re.split("[|>]", example)[0].split()
            call = typed[typed.index("dataflow") + 1 :]
            app().parse_args(call, exit_on_error=False, print_error=False)


@pytest.fixture
def page(checkout: Path) -> str:
    return (checkout / "dataflow" / "cli" / "README.md").read_text()


class TestReadme:
    def test_it_has_every_command(self, page: str) -> None:
        """The table names those that there are, and of `config` both."""
        rows = re.findall(r"^\| `([a-z ]+)` \| .* \| `dataflow ([^`]+)` \|$", page, re.M)
        names = {name for name in app() if not name.startswith("-")}
        assert {name for name, _ in rows} == names - {"config"} | {"config show", "config default"}
        assert [name for name, example in rows if not example.startswith(name)] == []

    def test_its_examples_can_be_typed(self, page: str) -> None:
        """Every command line is accepted."""
        examples = re.findall(r"`dataflow ([a-z][^`|]+)`", page) + re.findall(r"^dataflow (.*)$", page, re.M)
        typed = [re.split("[#>|]|mkdir", example)[0].split() for example in examples]
        assert len(typed) > 20
        for words in (
            each for each in typed if not {"COMMAND", "SHELL"} & set(each) and "http://" not in each[0]
        ):
            app().parse_args(words, exit_on_error=False, print_error=False)

    @pytest.mark.parametrize("by", VIEWS)
    def test_it_has_every_column_of_top(self, page: str, by: str) -> None:
        """In the order in which they stand."""
        (row,) = re.findall(rf"^\| `{by}` \| (`{VIEWS[by].columns[0].title}`.*) \|$", page, re.M)
        assert re.findall("`([^`]+)`", row) == [column.title for column in VIEWS[by].columns]


def test_the_options_of_simulate_are_those_of_the_readme(checkout: Path) -> None:
    """Each option that a simulator takes stands in the table, and no other one. (Keys: tests/simulators.)"""
    table = (checkout / "simulators" / "README.md").read_text().partition("| option of `simulate` |")[2]
    rows = [line.split("|")[1] for line in table.partition("\n\n")[0].splitlines()[2:]]
    told = {name for row in rows for name in re.findall(r"`(--[\w-]+)", row)}
    taken: set[str] = set()
    for name in ("binance", "replay", "ticks"):
        found = app()["simulate"][name].assemble_argument_collection(default_parameter=Parameter(negative=()))
        taken |= {option for each in found for option in each.names if option.startswith("--")}
    assert told == {name.partition(".")[0] for name in taken}


class TestClient:
    def test_it_speaks_as_tail_does(self) -> None:
        """The price before the quantity, in the same columns; notices in words, and no raw object. What is no trade at
        all is shown as it is."""
        told = {"symbol": "BTC-USD", "offset": 7, "side": "buy", "price": 8501.5, "qty": 1, "tradeId": "t7"}
        told |= {"timestamp": "2020-05-10T18:33:36.696315Z", "source": "s", "seqnum": 1, "event": "updated"}
        columns = Columns(7)
        assert as_line(columns, "trades.update", told) == (
            "18:33:36.696 BTC-USD buy      8501.5              1          s #7"
        )
        lost = {"source": "s\x1b", "reason": "silent"}
        assert as_line(columns, "connection.lost", lost) == "-- s\\x1b: connection lost (silent)"
        assert as_line(columns, "trades.update", {"symbol": "A-B"}).startswith(
            "-- UNREADABLE trade (Object missing"
        )


class TestEnds:
    @pytest.mark.parametrize(
        ("words", "told"),
        [
            (("tial",), "dataflow: there is no dataflow tial; did you mean tail?\n"),
            (("tail",), "dataflow: tail needs a symbol, such as `dataflow tail BTC-USD`"),
            (("zzz",), "dataflow: there is no dataflow zzz; dataflow --help lists what there is\n"),
            (("config", "sohw"), "dataflow: there is no dataflow config sohw; did you mean show?\n"),
            (
                ("tail", "A-B", "--cuont=3"),
                "dataflow: dataflow tail has no option --cuont; did you mean --count?\n",
            ),
            (("top", "--zz"), "dataflow: dataflow top has no option --zz; dataflow top --help lists what"),
            (("fault", "a", "boom"), "dataflow: KIND: found boom; must be one of crash, hang, delay, drop,"),
            (("run", "--log-level", "x"), "dataflow: --log-level: found x; must be one of debug, info,"),
            (
                ("tail", "A-B", "--count", "x"),
                "dataflow: --count: found x; must be a whole number",
            ),
            (("tail", "A-B", "--count", "0"), "dataflow: --count: found 0; must be at least 1"),
            (("chaos", "--minutes", "-1"), "dataflow: --minutes: found -1.0; must be > 0\n"),
            (
                ("chaos", "--deaths", "1", "--seconds", "0"),
                "dataflow: --seconds: found 0.0; must be > 0\n",
            ),
            (("chaos", "--minutes", "x"), "dataflow: --minutes: found x; must be a number"),
            (("run", "-c"), "dataflow: -c needs a value; dataflow run --help says which"),
            (
                ("simulate", "replay"),
                "dataflow: dataflow simulate replay needs a FILE; dataflow simulate replay --help has",
            ),
            (("run", "my.toml"), "dataflow: did you mean dataflow run --config my.toml?\n"),
            (
                ("demo", "a.toml", "b.toml"),
                "dataflow: did you mean dataflow demo --config a.toml --config b.toml?\n",
            ),
            (
                ("status", "now"),
                "dataflow: dataflow status does not take now; dataflow status --help says what it takes\n",
            ),
            (
                ("history", "list", "a", "b"),
                "dataflow: dataflow history list does not take a b; dataflow history list --help",
            ),
            (("client",), "dataflow: client needs a symbol, such as `dataflow client BTC-USD`"),
            (("fault", "a"), "dataflow: fault needs a path and a kind, such as"),
            (("run", "--port", "99999"), "dataflow: --port: found 99999; must be 0 to 65535"),
            (("run", "--config", "nope.toml"), "nope.toml: no such file"),
            (("demo", "--config", "nope.toml"), "nope.toml: no such file"),
            (("simulate", "replay", "nope.csv"), "dataflow: nope.csv: no such file"),
            (("simulate", "binance", "--speed", "0"), "dataflow: --speed: found 0; must be a number greater"),
            (
                ("simulate", "binance", "--port", "99999"),
                "dataflow: --port: found 99999; must be 0 to 65435\n",
            ),
            (("simulate", "ticks", "--to", "9000"), "dataflow: --to: found 9000; must be HOST:PORT"),
            (
                ("simulate", "ticks", "--every", "-1"),
                "dataflow: --every: found -1; must be seconds, at least 0",
            ),
            *(
                (
                    words,
                    f"dataflow: --url: found {words[-1] or 'nothing'}; must be an address such as http://127",
                )
                for url in ("ftp://x", "http://x:y", "http://x:99999", "http://[::1", "http://", "")
                for words in (("status", "--url", url), ("client", "A-B", "--url", url))
            ),
        ],
    )
    def test_a_mistake_is_one_line(self, output: Output, words: tuple[str, ...], told: str) -> None:
        """A mistake of the user is one clear line on standard error and exit code 1, without a traceback."""
        code, out, err = output.of(*words)
        assert (code, out) == (1, "")
        assert err.startswith(told)
        assert err.count("\n") == 1

    @pytest.mark.parametrize(
        "words", [("status",), ("fault", "a", "crash"), ("tail", "A-B"), ("status", "--watch")]
    )
    def test_no_daemon(self, output: Output, words: tuple[str, ...]) -> None:
        """Without a daemon the error says how to start one."""
        with socket.socket() as silent:  # bound, so that no other program gets the port, and not listening
            silent.bind(("127.0.0.1", 0))
            port = silent.getsockname()[1]
            code, out, err = output.of(*words, "--url", f"http://127.0.0.1:{port}")
        assert (code, out) == (1, "")
        assert err.count("\n") == 1
        assert f"nothing answers at {'ws' if words[0] == 'tail' else 'http'}://127.0.0.1:{port}/" in err
        assert "start a daemon with `dataflow demo` or `dataflow run`" in err

    def test_an_internal_failure(self, output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
        """A defect is exit code 2 with a traceback."""

        def broken(*_arguments: object) -> Settings:
            raise ZeroDivisionError

        monkeypatch.setattr("dataflow.cli.daemon.written", broken)
        code, _, err = output.of("check")
        assert code == 2
        assert "ZeroDivisionError" in err
        assert "Traceback" in err
        assert err.endswith("dataflow: an internal failure, not your mistake; please report the text above\n")

    @pytest.mark.parametrize(
        ("error", "code", "told"),
        [
            (Mistake("no"), 1, "dataflow: no\n"),
            (Failure("no"), 2, "dataflow: no\n"),
            (Interrupted("the end"), 130, "dataflow: interrupted before the end\n"),
            (KeyboardInterrupt(), 130, "dataflow: interrupted before it was done\n"),
            (BaseExceptionGroup("", [BaseExceptionGroup("", [Mistake("deep")])]), 1, "dataflow: deep\n"),
            (
                BaseExceptionGroup("", [KeyboardInterrupt()]),
                130,
                "dataflow: interrupted before it was done\n",
            ),
        ],
    )
    def test_how_an_error_ends(
        self, output: Output, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, told: str
    ) -> None:
        """The type of the error decides the exit code, also inside the exception groups of nurseries."""

        def fail(_words: object) -> int:
            raise error

        monkeypatch.setattr("dataflow.cli._call", fail)
        assert output.of("check") == (code, "", told)

    def test_a_failure_in_an_async_command_keeps_its_cause(self) -> None:
        """An error in an async command comes out unchanged."""

        async def fail() -> None:
            raise Mistake("no")

        with pytest.RaisesGroup(Mistake):
            until_interrupted(fail)


class TestCheck:
    def test_without_a_file(self, output: Output, tmp_path: Path) -> None:
        """It says which configuration was checked."""
        last = "this is the configuration as shipped; dataflow check FILE... checks yours"
        assert output.of("check")[1].splitlines()[-1] == last
        assert last not in output.of("check", str(shipped("server.toml")))[1]

    def test_a_variable_that_was_meant_for_us(self, output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its name has a warning, which changes no verdict."""
        monkeypatch.setenv("DATAFLOW_GATEWAY__PORT", "9000")
        told = "DATAFLOW_GATEWAY__PORT is not read; did you mean DATAFLOW__GATEWAY__PORT?"
        code, out, err = output.of("check")
        assert (code, err) == (0, f"warning: {told}\n")
        assert out.startswith("fine: listens on 127.0.0.1:8080")
        assert json.loads(output.of("check", "--json")[1])["warnings"] == [told]

    @pytest.mark.parametrize("command", ["check", "run"])
    def test_a_file_that_lies_over_another_one(
        self, output: Output, monkeypatch: pytest.MonkeyPatch, command: str
    ) -> None:
        """The shipped overlay alone lacks nearly everything. The last line says which file to name first."""
        overlay = shipped("simulated.toml")
        monkeypatch.chdir(overlay.parent)
        option = [] if command == "check" else ["--config"]
        code, _, err = output.of(command, *option, "simulated.toml")
        again = " ".join(["dataflow", command, *option, "server.toml", *option, "simulated.toml"])
        assert code == 1
        assert err.splitlines()[-1] == f"simulated.toml lies over another file; name that one first: {again}"
        assert main(again.split()[1:]) == 0 if command == "check" else True

    def test_a_file_with_mistakes_of_its_own(self, output: Output, tmp_path: Path) -> None:
        """Another file below it would not help, and none is proposed."""
        file = tmp_path / "a.toml"
        file.write_text("[gateway]\nport = 'x'\n")
        assert output.of("check", str(file))[2].count("\n") == 1

    def test_a_certificate_that_is_missing(
        self, output: Output, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The line names the file or the variable that wrote the key, the key, and the file that is missing. `run` says
        the same."""
        file = tmp_path / "a.toml"
        file.write_text("[gateway]\ntls_certificate = '/nowhere/c.pem'\n[sources]\n")
        monkeypatch.setenv("DATAFLOW__GATEWAY__TLS_KEY", "/nowhere/k.pem")
        told = [
            f"{file}: [gateway] tls_certificate: /nowhere/c.pem: no such file",
            "DATAFLOW__GATEWAY__TLS_KEY: [gateway] tls_key: /nowhere/k.pem: no such file",
        ]
        assert output.of("check", str(file))[2].splitlines() == told
        assert output.of("run", "--config", str(file))[2].splitlines() == told

    def test_fine(self, output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
        """The output shows the resulting address, sources and symbols. The environment counts."""
        monkeypatch.setenv("DATAFLOW__GATEWAY__PORT", "9000")
        code, out, err = output.of("check")
        assert (code, err) == (0, "")
        assert out.splitlines()[0] == "fine: listens on 127.0.0.1:9000"
        assert "  binance: BTC-USDT, ETH-USDT from wss://stream.binance.com:443/stream" in out.splitlines()
        assert "prove" not in out, "both sources number what they send"

    def test_which_source_takes_over(self, output: Output, tmp_path: Path) -> None:
        """The order is that of the configuration; a symbol with one source alone is told, too."""
        file, url = tmp_path / "my.toml", 'url = "ws://a/stream"\nsymbols = ["A-B", "C-D"]\n'
        file.write_text(
            f'[sources.x]\nconnector = "binance"\n{url}[sources.y]\nconnector = "binance"\n{url}'
            '[symbols.A-B]\nmode = "failover"\nsources = ["y", "x"]\n'
            '[symbols.C-D]\nmode = "failover"\nsources = ["x"]\n'
        )
        code, out, _ = output.of("check", str(file))
        assert code == 0
        assert out.splitlines()[-2:] == [
            "  A-B: from y, else from x",
            "  C-D: from x, and nothing takes over from it",
        ]

    def test_fine_for_programs(self, output: Output) -> None:
        """--json gives the same content as one object."""
        code, out, _ = output.of(
            "check", str(shipped("server.toml")), str(shipped("simulated.toml")), "--json"
        )
        told = json.loads(out)
        assert code == 0
        assert told["ok"] is True
        assert told["sources"]["binance"]["url"] == "ws://127.0.0.1:5001/stream"

    def test_a_source_that_listens(self, output: Output) -> None:
        """It is told apart from one that is connected to, and that nothing proves its completeness."""
        files = str(shipped("server.toml")), str(shipped("simulated.toml"))
        why = "cannot prove completeness: what a producer does not push is not known"
        written = f"  ticks: any symbols from producers at tcp://127.0.0.1:9000\n    {why}\n"
        assert written in f"{output.of('check', *files)[1]}\n"
        told = json.loads(output.of("check", *files, "--json")[1])["sources"]["ticks"]
        assert told == {
            "connector": "ticks_protobuf",
            "url": "tcp://127.0.0.1:9000",
            "symbols": ["*"],
            "completeness": why,
        }

    def test_a_face_with_a_port_of_its_own(self, output: Output) -> None:
        """Its address is told, like that of the gateway; a face that is off has none."""
        files = str(shipped("server.toml")), str(shipped("simulated.toml"))
        assert "  grpc: clients at 127.0.0.1:50051" in output.of("check", *files)[1].splitlines()
        assert json.loads(output.of("check", *files, "--json")[1])["faces"] == {"grpc": "127.0.0.1:50051"}
        assert json.loads(output.of("check", "--json")[1])["faces"] == {}

    def test_two_faces_that_want_one_path(self, output: Output, tmp_path: Path) -> None:
        """Each pair has a line, which names both and the first path that they want; `run` says the same."""
        file = tmp_path / "a.toml"
        file.write_text(
            "[faces.graphql]\nenabled = true\npath = '/ws'\n[faces.signalr]\nenabled = true\npath = '/pricehub'\n"
            "[faces.pricehub]\nenabled = true\n[sources]\n"
        )
        told = [
            "[faces]: pricehub and signalr both want GET /pricehub; give one another path",
            "[faces]: graphql and jsonrpc both want the WebSocket /ws; give one another path",
        ]
        code, out, err = output.of("check", str(file))
        assert (code, out, err.splitlines()) == (1, "", told)
        code, _, err = output.of("run", "--config", str(file), "--port", "0")
        assert (code, err.splitlines()[-2:]) == (1, told)

    def test_two_listeners_with_one_port(self, output: Output, tmp_path: Path) -> None:
        """The gateway, faces and sources that listen: each clash has its line. A face that is off, and any
        free port, clash with nothing."""
        file = tmp_path / "a.toml"
        ticks = "connector = 'ticks_protobuf'"
        file.write_text(
            "[gateway]\nport = 9000\n[operator]\nport = 8081\n[faces.grpc]\nenabled = true\nport = 8081\n"
            f"[sources.a]\n{ticks}\n[sources.b]\n{ticks}\nport = 9002\n[sources.c]\n{ticks}\nport = 9002\n"
        )
        assert output.of("check", str(file))[2].splitlines() == [
            f"{file}: [faces.grpc] port: 8081 is that of [operator] already",
            f"{file}: [sources.a] port: 9000 is that of [gateway] already",
            f"{file}: [sources.c] port: 9002 is that of [sources.b] already",
        ]
        file.write_text(
            "[gateway]\nport = 0\n[faces.grpc]\nenabled = false\nport = 9000\n"
            f"[sources.a]\n{ticks}\n[sources.b]\n{ticks}\nport = 0\n[sources.c]\n{ticks}\nport = 0\n"
        )
        assert output.of("check", str(file))[0] == 0

    def test_without_sources(self, output: Output, tmp_path: Path) -> None:
        """A configuration without sources is valid, and check mentions it."""
        (tmp_path / "a.toml").write_text("")
        assert output.of("check", str(tmp_path / "a.toml"))[1].splitlines()[1:] == [
            "  no sources, so there will be no trades"
        ]

    def test_every_mistake(self, output: Output, tmp_path: Path) -> None:
        """All mistakes are shown at once, one per line, and the exit code is 1."""
        file = tmp_path / "a.toml"
        file.write_text("[gateway]\nport = 'x'\n[cash]\n")
        code, out, err = output.of("check", str(file))
        assert (code, out) == (1, "")
        assert err.splitlines() == [
            f'{file}: [gateway] port: found "x"; must be a whole number',
            f"{file}: [cash]: unknown table; did you mean \"cache\"? valid: admission, backoff, cache, candles, chaos, "
            "faces, fanout, gateway, history, limits, operator, runtime, session, sources, supervision, symbols",
        ]  # fmt: skip
        code, out, err = output.of("check", str(file), "--json")
        assert (code, err) == (1, "")
        assert json.loads(out)["ok"] is False
        assert len(json.loads(out)["problems"]) == 2


SOURCE = '[sources.binance]\nconnector = "binance"\nurl = "wss://stream.example.com/stream"\nsymbols = ["BTC-USDT"]\n'


class TestRun:
    def test_as_shipped(self, output: Output, app_run: list[Any]) -> None:
        """Without --config the daemon uses the shipped file, and reads it again. --port overrides everything."""
        port = own_port()
        assert output.of("run", "--port", str(port))[0] == 0
        ((settings, options),) = app_run
        as_shipped = load([shipped("server.toml")], {})
        assert settings == attrs.evolve(as_shipped, gateway=attrs.evolve(as_shipped.gateway, port=port))
        assert options.keys() == {"read"}
        assert options["read"]() == settings

    @pytest.mark.parametrize(("source", "warned"), [("", True), (SOURCE, False)])
    def test_a_daemon_without_sources_warns(
        self,
        output: Output,
        app_run: list[Any],
        tmp_path: Path,
        source: str,
        warned: bool,
    ) -> None:
        """A file without sources replaces the shipped one: the daemon runs, and says that no trade will come."""
        (tmp_path / "a.toml").write_text(f"[gateway]\nport = 0\n{source}")
        lines: list[str] = []
        sink = logger.add(lambda message: lines.append(str(message)), level="WARNING", format="{message}")
        code, _, _ = output.of("run", "--config", str(tmp_path / "a.toml"))
        logger.remove(sink)
        assert code == 0
        assert lines == (["no sources, so there will be no trades\n"] if warned else [])

    def test_files_and_environment(
        self, output: Output, app_run: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """Files are merged in their order on the command line, then the environment."""
        (tmp_path / "a.toml").write_text("[gateway]\nport = 0\nmax_sessions = 1\n[cache]\nshards = 3\n")
        (tmp_path / "b.toml").write_text("[gateway]\nmax_sessions = 2\n")
        monkeypatch.setenv("DATAFLOW__CACHE__SHARDS", "4")
        assert output.of("run", "-c", str(tmp_path / "a.toml"), "--config", str(tmp_path / "b.toml"))[0] == 0
        ((settings, _),) = app_run
        assert (settings.gateway.port, settings.gateway.max_sessions, settings.cache.shards) == (0, 2, 4)

    @pytest.mark.parametrize("command", ["run", "demo"])
    def test_a_port_that_is_taken(self, output: Output, app_run: list[Any], taken: int, command: str) -> None:
        """A taken port is reported in one line, before anything starts."""
        code, out, err = output.of(command, "--port", str(taken))
        assert (code, out) == (1, "")
        assert err == (
            f"dataflow: cannot listen on 127.0.0.1:{taken}: something else listens there already; "
            "choose another with --port\n"
        )
        assert app_run == []

    def test_an_address_that_is_not_ours(self, output: Output, app_run: list[Any], monkeypatch: Any) -> None:
        """An address of another machine is a mistake of the user, too."""
        monkeypatch.setenv("DATAFLOW__GATEWAY__HOST", "192.0.2.1")
        code, _, err = output.of("run", "--port", "0")
        assert code == 1
        assert err.startswith("dataflow: cannot listen on 192.0.2.1:0: ")
        assert "; [gateway] host must be an address of this machine" in err
        assert app_run == []

    def test_a_free_port_is_free(self, taken: int) -> None:
        """Port 0 is always free, a port with a listener is not."""
        assert why_not_free("127.0.0.1", 0) is None
        assert why_not_free("127.0.0.1", taken) is not None

    def test_the_exit_code_is_the_daemons(self, output: Output, app_run: list[Any], monkeypatch: Any) -> None:
        """The command returns the exit code of the daemon."""
        monkeypatch.setattr(dataflow.app, "run", lambda settings: 2)
        assert output.of("run", "--port", "0")[0] == 2


FAULT = (
    b'{"id": 7, "path": "cache/shard-0", "kind": "delay", "point": "receive", "seconds": 0.5, '
    b'"probability": 0.25, "times": 3, "struck": 1}'
)
TOLD = "fault 7: delay of 0.5 s at receive of cache/shard-0, with probability 0.25, struck 1 of 3 times"


def listening_above(distance: int) -> tuple[int, socket.socket]:
    """A port of our own, and a listener so many ports above it."""
    while True:
        port = own_port()
        with suppress(OSError):  # that one may be another program's
            return port, socket.create_server(("127.0.0.1", port + distance))


class TestSimulate:
    @pytest.mark.parametrize("above", [0, CONTROLS_ABOVE])
    def test_a_taken_port_is_named(self, output: Output, above: int) -> None:
        """The line names the port that is taken: that of the exchange, or that of its controls."""
        port, listener = listening_above(above)
        with listener:
            code, _, err = output.of("simulate", "binance", "--port", str(port), "--no-keyboard")
        assert code == 1
        assert err == (
            f"dataflow: cannot listen on 127.0.0.1:{port + above}: something else listens there already; "
            "choose another with --port\n"
        )

    def test_another_mistake_is_not_blamed_on_a_port(self, output: Output, taken: int) -> None:
        """A wrong speed is reported as such, also while the port is taken."""
        _, _, err = output.of("simulate", "binance", "--port", str(taken), "--speed", "0")
        assert err.startswith("dataflow: --speed: found 0; must be")


class TestFault:
    def test_inject(self, output: Output, daemon: Daemon) -> None:
        """The request holds exactly the given options, and the token."""
        daemon.answers["POST", "/faults"] = (201, FAULT)
        code, out, _ = output.of(
            *("fault", "cache/shard-0", "delay", "--seconds", "0.5", "--times", "3"),
            *("--url", daemon.url, "--token", "s3cret"),
        )
        assert (code, out) == (0, f"{TOLD}\n")
        wanted = {"path": "cache/shard-0", "kind": "delay", "seconds": 0.5, "times": 3}
        assert daemon.asked == [("POST", "/faults", "Bearer s3cret", wanted)]

    def test_list_and_withdraw(self, output: Output, daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
        """Faults can be listed and withdrawn. The token may come from the environment."""
        monkeypatch.setenv("DATAFLOW__GATEWAY__ADMIN_TOKEN", "s3cret")
        monkeypatch.setenv("DATAFLOW__GATEWAY__PORT", daemon.url.rpartition(":")[2])
        daemon.answers["GET", "/faults"] = (200, b"[" + FAULT + b"]")
        daemon.answers["DELETE", "/faults/7"] = (204, b"")
        assert output.of("fault", "--list") == (0, f"{TOLD}\n", "")
        assert output.of("fault", "--list", "--json") == (0, f"[{FAULT.decode()}]\n", "")
        assert output.of("fault", "--withdraw", "7") == (0, "withdrawn\n", "")
        assert [asked[:3] for asked in daemon.asked][-1] == ("DELETE", "/faults/7", "Bearer s3cret")

    def test_a_token_is_sent_as_utf_8(self, output: Output, daemon: Daemon) -> None:
        """Also where it is not ASCII. What no header can carry is refused in one line, without the token."""
        daemon.answers["GET", "/faults"] = (200, b"[]")
        for token in ("pässwort", "日本", "two words"):
            assert output.of("fault", "--list", "--token", token, "--url", daemon.url)[0] == 0
            sent = daemon.asked[-1][2]
            assert sent is not None
            assert sent.encode("latin-1") == f"Bearer {token}".encode()
        code, out, err = output.of("fault", "--list", "--token", "two\nlines", "--url", daemon.url)
        assert (code, out) == (1, "")
        assert err == "dataflow: the token holds a control character, which no header can carry\n"

    def test_no_proxy_stands_between(
        self, output: Output, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A proxy from the environment is not used: the daemon is nearly always on this machine."""
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        monkeypatch.delenv("NO_PROXY", raising=False)
        daemon.answers["GET", "/faults"] = (200, b"[]")
        assert output.of("fault", "--list", "--url", daemon.url) == (0, "no faults in force\n", "")

    @pytest.mark.parametrize(
        ("status", "answer", "code", "told"),
        [
            (
                403,
                b'{"detail": "faults need [chaos] enabled = true"}',
                1,
                "faults need [chaos] enabled = true",
            ),
            (404, b'{"detail": "no actor", "nearest": ["a/b", "c"]}', 1, "no actor; the nearest are a/b, c"),
            (500, b'{"detail": "a failure inside"}', 2, "a failure inside"),
            (418, b"{}", 1, "{url}/faults answers with status 418"),
            (200, b"<html>", 1, "{url}/faults answers, but is not a dataflow daemon"),
        ],
    )
    def test_a_refusal(
        self, output: Output, daemon: Daemon, status: int, answer: bytes, code: int, told: str
    ) -> None:
        """The error line is the reason from the daemon. Server errors are exit code 2."""
        daemon.answers["POST", "/faults"] = (status, answer)
        told = told.replace("{url}", daemon.url)
        assert output.of("fault", "a", "crash", "--url", daemon.url) == (code, "", f"dataflow: {told}\n")


class TestBench:
    @pytest.fixture
    def checkout(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
        monkeypatch.setattr("dataflow.cli.bench.CHECKOUT", tmp_path)
        return tmp_path

    def test_it_is_run_in_the_checkout(self, output: Output, checkout: Path) -> None:
        """The options are passed on, and the command returns the exit code of the measurements."""
        folder = checkout / "tests" / "bench"
        folder.mkdir(parents=True)
        text = "import pathlib, sys; pathlib.Path('told').write_text(' '.join(sys.argv[1:])); raise SystemExit(2)"
        (folder / "__main__.py").write_text(text)
        assert output.of("bench", "rates", "--only", "dataflow", "--only", "picows", "--quick")[0] == 2
        assert (checkout / "told").read_text() == "rates --quick --only dataflow --only picows"

    def test_outside_a_checkout(self, output: Output, checkout: Path) -> None:
        """The error says that the measurements need a checkout."""
        assert output.of("bench") == (
            1,
            "",
            "dataflow: the measurements are not part of the installed package; in a checkout: make bench\n",
        )


class TestAddress:
    @pytest.mark.parametrize(
        ("given", "environ", "url"),
        [
            (None, {}, "http://127.0.0.1:8080"),
            (None, {"DATAFLOW__GATEWAY__PORT": "9000"}, "http://127.0.0.1:9000"),
            (None, {"DATAFLOW__GATEWAY__HOST": "0.0.0.0"}, "http://127.0.0.1:8080"),
            (None, {"DATAFLOW__GATEWAY__HOST": "::"}, "http://[::1]:8080"),
            (None, {"DATAFLOW__GATEWAY__HOST": '"::1"'}, "http://[::1]:8080"),
            ("example.com:1/", {}, "http://example.com:1"),
            ("https://example.com/x/", {"DATAFLOW__GATEWAY__PORT": "9000"}, "https://example.com/x"),
            ("wss://example.com", {}, "https://example.com"),
            ("ws://example.com:1", {}, "http://example.com:1"),
            (None, {"DATAFLOW__GATEWAY__TLS_CERTIFICATE": "a.pem"}, "https://127.0.0.1:8080"),
        ],
    )
    def test_where_the_daemon_is(
        self, monkeypatch: pytest.MonkeyPatch, given: str | None, environ: dict[str, str], url: str
    ) -> None:
        """The environment that configures the daemon is the default; --url overrides it."""
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        assert daemon_url(given) == url


class TestEndOfTheDaemon:
    @pytest.mark.parametrize(("code", "told"), [(0, ["stopped in order"]), (1, []), (2, [])])
    def test_a_stop_in_order_is_told(self, code: int, told: list[str]) -> None:
        """So one knows that it is over, and that the history is closed. Another end has told its reason."""
        said: list[str] = []
        sink = logger.add(lambda message: said.append(message.record["message"]))
        assert told_end(code) == code
        logger.remove(sink)
        assert said == told
