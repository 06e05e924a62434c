"""What the bench promises about its own figures: fair work, honest ratios, nothing left out in silence."""

from __future__ import annotations

import sys
from decimal import Decimal
from pathlib import Path

import pytest

from dataflow.config import load
from dataflow.domain import Trade
from dataflow.gateway import wire
from tests.bench import report
from tests.bench.aims import Aim
from tests.bench.compiled import Missing
from tests.bench.machine import Cores
from tests.bench.plan import Bench, Figures, Row, Scenario, Step, carry_out
from tests.bench.processes import Program, ProgramFailed
from tests.bench.results import Results, Spread
from tests.bench.servers import SYMBOL, UPDATE, toml

linux = pytest.mark.skipif(sys.platform != "linux", reason="the bench starts its programs on Linux only")


def rows(*figures: float, server: str = "dataflow") -> list[Row]:
    return [Row("rates", "w", server, n, {"p50_ms": figure}) for n, figure in enumerate(figures)]


class TestFairness:
    def test_peers_send_what_the_daemon_sends(self) -> None:
        """The update of the peers is the daemon's own, byte for byte."""
        trade = Trade(
            source="binance",
            symbol=SYMBOL,
            trade_id="17",
            side="sell",
            price=Decimal("61837.63000000"),
            quantity=Decimal("1763696936212345678"),
            timestamp=1767323045678000000,
            sequence=17,
        )
        expected = wire.Updates(SYMBOL, 1).messages([(17, trade)])[0].text.decode()
        assert UPDATE.replace("@N", "17").replace("@S", "1763696936212345678") == expected

    def test_ratios_are_taken_within_a_round(self) -> None:
        """What slows the machine down in one round does not reach the figures of another."""
        results = Results(rows(8.0, 20.0, 60.0) + rows(4.0, 40.0, 30.0, server="picows"))
        assert results.ratio("rates", "p50_ms", ("w", "dataflow"), ("w", "picows")) == 2.0

    def test_a_round_that_one_of_them_lacks_counts_for_nothing(self) -> None:
        """Only rounds that both have are compared."""
        results = Results(rows(10.0, 90.0) + rows(5.0, server="picows"))
        assert results.ratio("rates", "p50_ms", ("w", "dataflow"), ("w", "picows")) == 2.0

    def test_what_was_not_measured_is_none(self) -> None:
        """No row, no figure."""
        results = Results(rows(1.0))
        assert results.spread("rates", "w", "picows", "p50_ms") is None
        assert results.ratio("rates", "p50_ms", ("w", "dataflow"), ("w", "picows")) is None
        assert Spread.of([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0, 3)


class TestAims:
    @pytest.mark.parametrize(
        ("least", "measured", "verdict"),
        [
            (True, 2.0, "met"),
            (True, 1.5, "missed by 25%"),
            (False, 2.0, "met"),
            (False, 2.5, "missed by 25%"),
            (False, 20.0, "missed, 10 times as much"),
            (False, None, "not measured"),
        ],
    )
    def test_verdict(self, least: bool, measured: float | None, verdict: str) -> None:
        """Met, or missed by how much, or not measured."""
        assert Aim("", 2.0, "", least, lambda _results: measured).verdict(Results()) == verdict


class TestKeeping:
    def test_rows_survive_the_file(self, tmp_path: Path) -> None:
        """What is kept is what was measured; scenarios that are measured again replace themselves alone."""
        first = Results(
            rows(1.5), {"rates": {"date": "a"}, "tls": {"date": "a"}}, {"rates: picows": "no network"}
        )
        first.save(tmp_path / "figures.json")
        kept = Results.load(tmp_path / "figures.json")
        assert kept == first
        kept.replace(Results(rows(2.5), {"rates": {"date": "b"}}))
        assert kept.median("rates", "w", "dataflow", "p50_ms") == 2.5
        assert kept.runs == {"rates": {"date": "b"}, "tls": {"date": "a"}}
        assert kept.missing == {}

    def test_only_the_chapter_is_written(self, tmp_path: Path) -> None:
        """What stands outside of the markers stays; without them nothing is written."""
        readme = tmp_path / "README.md"
        readme.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
        report.into(readme, Results())
        text = readme.read_text()
        assert text.startswith(f"before\n{report.BEGIN}\n")
        assert text.endswith(f"{report.END}\nafter\n")
        assert "\nold\n" not in text
        readme.write_text("nothing")
        with pytest.raises(ValueError, match="no place"):
            report.into(readme, Results())
        assert readme.read_text() == "nothing"


class TestRunning:
    def test_what_fails_stops_nothing_and_is_told(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A step that fails is a failure of the run, one that lacks something is missing by name, others go on."""

        def fails() -> Figures:
            raise ProgramFailed("it ended")

        def lacks() -> Figures:
            raise Missing("no node")

        steps = [Step("w", "a", 1, fails), Step("w", "b", 1, lacks), Step("w", "c", 1, lambda: {"x": 1.0})]
        bench = Bench(Cores({0}, {0}, {0}), tmp_path)
        carry_out(bench, [Scenario("s", "", (2, 1), lambda _bench: steps, str)])
        assert [(row.server, row.round) for row in bench.rows] == [("c", 0), ("c", 1)]
        assert bench.missing == {"s: b": "no node"}
        assert bench.failed == ["s, w, a: ProgramFailed: it ended"] * 2
        assert "[6/6] s, w: c" in capsys.readouterr().out

    @linux
    def test_a_program_is_ended(self, tmp_path: Path) -> None:
        """Also one that hears nothing: by its own id, and its last words are told."""
        deaf = "import signal, sys, time; signal.signal(15, signal.SIG_IGN); print('{}', flush=True); time.sleep(600)"
        program = Program("deaf", [sys.executable, "-c", deaf], cores={0}, log=tmp_path / "log")
        program.answer(120)
        program.close(within=0.05)
        assert not program.alive()

    @linux
    def test_a_program_that_ends_says_why(self, tmp_path: Path) -> None:
        """Exit code and last line are in the error."""
        program = Program(
            "brief",
            [sys.executable, "-c", "raise SystemExit('out of luck')"],
            cores={0},
            log=tmp_path / "log",
        )
        with pytest.raises(ProgramFailed, match=r"brief ended \(exit code 1\): out of luck"):
            program.answer(120)
        program.close()

    def test_the_daemon_understands_its_configuration(self, tmp_path: Path) -> None:
        """What is written for it is what it loads."""
        file = tmp_path / "bench.toml"
        source = {
            "connector": "binance",
            "url": "ws://127.0.0.1:1/stream",
            "symbols": [SYMBOL],
            "eager": True,
        }
        file.write_text(
            toml({"gateway": {"port": 1}, "sources.binance": source, "fanout": {"interval": 0.5}})
        )
        settings = load([file], {})
        assert (settings.gateway.port, settings.fanout.interval) == (1, 0.5)
        assert settings.sources["binance"].symbols == (SYMBOL,)
        assert settings.sources["binance"].eager is True
