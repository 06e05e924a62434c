"""The promises of the bench about its own figures: equal work, ratios within a round, no silent omission."""

from __future__ import annotations

import re
import socket
import sys
import threading
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path

import pytest

from dataflow.domain import Topic, Trade
from dataflow.faces.jsonrpc.format import JSONRPC
from dataflow.net.websocket.deflate import agree, packer
from dataflow.net.websocket.frames import Opcode
from dataflow.server.handshake import Door, Socket
from dataflow.settings.load import load
from dataflow.sources.port import SourceSettings
from tests.bench import compare, compiled, peers, report
from tests.bench.aims import AIMS, Aim
from tests.bench.compiled import Missing
from tests.bench.load import Load
from tests.bench.machine import Cores
from tests.bench.plan import Bench, Figures, Row, Scenario, Step, carry_out
from tests.bench.processes import Program, ProgramFailed
from tests.bench.results import Results, Spread
from tests.bench.scenarios import client, faces, graphql, grpc, rates
from tests.bench.servers import SYMBOL, UPDATE, config_of, toml

linux = pytest.mark.skipif(sys.platform != "linux", reason="the bench starts its programs on Linux only")

MACHINE = dict.fromkeys(("cpu", "cores", "memory_gib", "system", "kernel", "load_before", "python"), "x")
RUN = {"date": "d", "machine": MACHINE, "versions": {}, "dataflow": "c", "quick": False}


def rows(*figures: float, server: str = "dataflow") -> list[Row]:
    return [Row("rates", "w", server, n, {"p50_ms": figure}) for n, figure in enumerate(figures)]


class TestFairness:
    def test_peers_send_what_the_daemon_sends(self) -> None:
        """The update of the peers equals the daemon's, byte for byte."""
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
        expected = JSONRPC.encoder(Topic("trades", SYMBOL), 1)([(17, trade)])[0].decode()
        assert UPDATE.replace("@N", "17").replace("@S", "1763696936212345678") == expected

    def test_the_daemon_knows_nobody_but_the_feeds(self, tmp_path: Path) -> None:
        """A feed that is silent would make it ask the real exchange. Older checkouts ask nobody."""
        ports = {"binance": 1234, "blockchain": 5678}
        (tmp_path / "bench.toml").write_text(toml(config_of(9, ports, {})))
        for source in load([tmp_path / "bench.toml"], {}).sources.values():
            assert isinstance(source, SourceSettings)
            where = f"127.0.0.1:{ports[source.connector]}"
            assert source.url == f"ws://{where}/stream"
            assert source.refill_url in ("", f"http://{where}")
        (tmp_path / "config").mkdir()
        (tmp_path / "config" / "server.toml").touch()
        assert "refill_url" not in config_of(9, ports, {}, tmp_path)["sources.binance"]

    def test_ratios_are_taken_within_a_round(self) -> None:
        """A slow round of the machine does not change the ratios of other rounds."""
        results = Results(rows(8.0, 20.0, 60.0) + rows(4.0, 40.0, 30.0, server="picows"))
        assert results.ratio("rates", "p50_ms", ("w", "dataflow"), ("w", "picows")) == 2.0

    def test_a_round_that_one_of_them_lacks_counts_for_nothing(self) -> None:
        """Only rounds that both have are compared."""
        results = Results(rows(10.0, 90.0) + rows(5.0, server="picows"))
        assert results.ratio("rates", "p50_ms", ("w", "dataflow"), ("w", "picows")) == 2.0

    def test_the_joining_limit_joins_as_many_as_the_daemon(self, tmp_path: Path) -> None:
        """Its bound is the default of `[fanout] joined`."""
        file = tmp_path / "bench.toml"
        file.write_text(toml({"gateway": {"port": 1}}))
        assert load([file], {}).fanout.joined == peers.JOINED

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
        """Met, missed by so much, or not measured."""
        assert Aim("", 2.0, "", least, lambda _results: measured).verdict(Results()) == verdict

    @pytest.mark.parametrize("rate", [500, 5_000])
    @pytest.mark.parametrize(("share", "expected"), [(1.0, 1.5), (0.9, None)])
    def test_latency_is_held_against_the_joining_limit(
        self, rate: int, share: float, expected: float | None
    ) -> None:
        """A ratio, not milliseconds; without a ratio when the limit itself was overloaded."""
        figures = {
            "dataflow": {"p99_ms": 30.0, "share": 1.0},
            peers.JOINING: {"p99_ms": 20.0, "share": share},
        }
        work = rates.work(rate, rates.CLIENTS)
        results = Results([Row("rates", work, server, 0, found) for server, found in figures.items()])
        aims = [aim for aim in AIMS if "C limit that joins" in aim.about]
        assert [aim.bound for aim in aims] == [2, 2]
        found = [aim.measured(results) for aim in aims]
        assert found == ([expected, None] if rate == 5_000 else [None, expected])

    @pytest.mark.parametrize(
        ("words", "figures", "expected"),
        [
            ("JSON-RPC: SignalR", {"faces": {"JSON-RPC": 100.0, "SignalR": 95.0}}, 0.95),
            ("the same: /pricehub", {"faces": {"JSON-RPC": 100.0, "pricehub": 120.0}}, 1.2),
            ("the same: STOMP", {"faces": {"JSON-RPC": 100.0, "STOMP": 50.0}}, 0.5),
            ("the same: SSE", {"faces": {"JSON-RPC": 100.0, "SSE": 50.0}}, 0.5),
            (
                "all faces on and unused",
                {"faces": {"JSON-RPC": 99.0, "JSON-RPC, no other face": 100.0}},
                0.99,
            ),
            ("messages in a CPU second", {"in": {"dataflow": 150.0, "grpcio": 100.0}}, 1.5),
            ("messages out a CPU second", {"out": {"dataflow": 50.0, "grpcio": 100.0}}, 0.5),
            (
                "GraphQL",
                {"graphql": {"dataflow": 300.0, "strawberry": 100.0, "strawberry, caching": 9.0}},
                3.0,
            ),
        ],
    )
    def test_faces_are_held_against_cpu_time(
        self, words: str, figures: dict[str, dict[str, float]], expected: float
    ) -> None:
        """The ratio of what one CPU second does; nothing without both figures."""
        scenario = {
            "faces": ("faces", faces.DELIVERIES),
            "in": ("grpc", grpc.IN),
            "out": ("grpc", grpc.OUT),
            "graphql": ("graphql", graphql.WORK),
        }
        rows_ = [
            Row(*scenario[work], server, 0, {"per_cpu_second": figure})
            for work, found in figures.items()
            for server, figure in found.items()
        ]
        (aim,) = [aim for aim in AIMS if words in aim.about]
        assert aim.measured(Results(rows_)) == expected
        assert [aim.measured(Results([row])) for row in rows_] == [None] * len(rows_)


class TestComparing:
    def test_order_alternates(self) -> None:
        """ABBA."""
        assert [side[0] for pair in range(2) for side in compare.order(pair)] == ["b", "a", "a", "b"]

    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            ([1.0] * 5, None),  # 93.8 % at best
            ([6.0, 1.0, 2.0, 3.0, 4.0, 5.0], (1.0, 6.0)),  # 96.9 %
            ([float(n) for n in range(1, 11)], (2.0, 9.0)),  # 97.9 %
            ([float(n) for n in range(1, 21)], (6.0, 15.0)),  # 95.9 %
            ([], None),
        ],
    )
    def test_interval_of_the_median(self, values: list[float], expected: tuple[float, float] | None) -> None:
        """The ranks are those of the tables for the sign test."""
        assert compare.interval(values) == expected

    @pytest.mark.parametrize(
        ("bounds", "more", "expected"),
        [
            ((1.1, 1.3), True, "better"),
            ((1.1, 1.3), False, "worse"),
            ((0.8, 0.9), True, "worse"),
            ((0.8, 0.9), False, "better"),
            ((0.9, 1.0), True, "no difference shown"),
            (None, True, "too few pairs"),
        ],
    )
    def test_verdict(self, bounds: tuple[float, float] | None, more: bool, expected: str) -> None:
        """Only an interval without 1 shows a difference."""
        assert compare.verdict(compare.Compared("", "", more), bounds) == expected

    def test_table(self) -> None:
        """Ratios are taken within a pair; a pair that lacks a run counts for nothing."""
        ingest = next(measure for measure in compare.MEASURES if measure.name == "ingest")
        results = Results()
        for pair in range(6):
            for side, figure in (("before", 100.0 + pair), ("after", 2 * (100.0 + pair))):
                results.rows.append(Row("ingest", "ingest", side, pair, {"per_second": figure}))
        results.rows.append(Row("ingest", "ingest", "before", 6, {"per_second": 1.0}))
        head, line = compare.table(results, [ingest]).splitlines()
        assert "after/before" in head
        assert line.split() == ["ingest:", "trades/s", "102", "205", "2.000", "2.000", "…", "2.000", "better"]

    def test_cpu_time_a_million(self) -> None:
        """CPU seconds a million updates, beside the wall time of the run."""
        assert compare.prepared({"per_cpu_second": 250_000.0}, 5.0) == {
            "per_cpu_second": 250_000.0,
            "cpu": 4.0,
            "run_seconds": 5.0,
        }

    def test_an_unfit_run_and_a_failed_run_are_reported(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """An unfit run stays in the ratios and is counted. A failed run has no row, and the others go on."""

        def run(bench: Bench, _window: float) -> Figures:
            if bench.quick:
                raise ProgramFailed("it ended")
            return {"x": 1.0}

        measure = compare.Measure("m", 1, run, (compare.Compared("x", "x"),), lambda _figures: "overloaded")
        cores = Cores({0}, {0}, {0})
        benches = {"before": Bench(cores, tmp_path), "after": Bench(cores, tmp_path, quick=True)}
        comparison = compare.Comparison(benches, [measure], 2, 1.0)
        comparison.carry_out()
        assert [(row.server, row.round) for row in comparison.results.rows] == [("before", 0), ("before", 1)]
        assert comparison.failed == [f"pair {n}, m, after: ProgramFailed: it ended" for n in (1, 2)]
        assert "m, before: overloaded in 2 of 2 runs" in comparison.told()
        assert "OVERLOADED" in capsys.readouterr().out

    def test_a_checkout_without_an_environment(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Nothing runs with another checkout's code."""
        assert compare.main(["--before", str(tmp_path), "no-such-measure"]) == 1
        assert "no measure no-such-measure" in capsys.readouterr().err
        with pytest.raises(Missing, match="has no environment"):
            compare.origin(tmp_path)


class TestKeeping:
    def test_rows_survive_the_file(self, tmp_path: Path) -> None:
        """A file keeps all rows. A scenario that is measured again replaces only itself."""
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
        """The text outside of the markers stays. Without markers nothing is written."""
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

    def test_the_chapter_has_its_own_readme(self) -> None:
        """It has the markers, and its links lead to files. The project's README has no markers."""
        text = report.README.read_text()
        assert (text.count(report.BEGIN), text.count(report.END)) == (1, 1)
        links = set(re.findall(r"\]\(([^)]+)\)", text))
        assert len(links) == 5  # four pictures and the figures, which each run may name
        assert [link for link in links if not (report.README.parent / link).is_file()] == []
        assert report.BEGIN not in (report.README.parents[2] / "README.md").read_text()

    def test_ratios_to_the_joining_limit_are_shown(self, tmp_path: Path) -> None:
        """A table of their own, for the rates that both have."""
        rows_ = []
        for server, p50, p99 in (("dataflow", 6.0, 9.0), (peers.JOINING, 4.0, 4.5)):
            figures = {"p50_ms": p50, "p99_ms": p99, "server_cpu": 0.5, "share": 1.0}
            rows_.append(Row("rates", rates.work(500, rates.CLIENTS), server, 0, figures))
        readme = tmp_path / "README.md"
        readme.write_text(report.BEGIN + report.END)
        report.into(readme, Results(rows_, {"rates": RUN}))
        assert "|  | 500/s |\n| --- | ---: |\n| **dataflow** | 1.50 / 2.00 |" in readme.read_text()

    def test_faces_are_shown(self, tmp_path: Path) -> None:
        """Each beside JSON-RPC, the best first, with the memory of its idle client; and each protocol's peer."""
        deliveries = {"SSE": 50_000.0, "JSON-RPC": 100_000.0}
        rows_ = [
            Row("faces", faces.DELIVERIES, face, 0, {"per_cpu_second": figure})
            for face, figure in deliveries.items()
        ]
        rows_.append(Row("faces", faces.IDLE, "SSE", 0, {"kib": 38.7}))
        for scenario, work, peer in (("grpc", grpc.IN, grpc.THEIRS), ("graphql", graphql.WORK, "strawberry")):
            for server, figure in (("dataflow", 3_000.0), (peer, 1_000.0)):
                figures = {"per_second": figure / 2, "per_cpu_second": figure}
                rows_.append(Row(scenario, work, server, 0, figures))
        rows_.append(Row("ticks", "one subscriber", "dataflow", 0, {"per_second": 123_456.0}))
        readme = tmp_path / "README.md"
        readme.write_text(report.BEGIN + report.END)
        report.into(readme, Results(rows_, dict.fromkeys(("faces", "grpc", "graphql", "ticks"), RUN)))
        text = readme.read_text()
        assert "| JSON-RPC | 100,000 | 1.00 |  |\n| SSE | 50,000 | 0.50 | 38.7 KiB |" in text
        assert "| **dataflow**, in | 1,500 | 3,000 | 3.0 x |\n| grpcio, in | 500 | 1,000 | 1.0 x |" in text
        assert "| **dataflow** | 1,500 | 3,000 |\n| strawberry + uvicorn | 500 | 1,000 |" in text
        assert "| one subscriber | 123,456 |" in text

    def test_the_python_client_is_shown_beside_its_peers(self, tmp_path: Path) -> None:
        """By CPU time within each round: a busy machine slows all readers, and tells nothing of them."""
        readme, figures = tmp_path / "README.md", Results(runs={"client": RUN})
        readme.write_text(f"{report.BEGIN}\nold\n{report.END}\n")
        for reader, each in (
            ("dataflow, asyncio", 300_000),
            ("dataflow, Trio", 200_000),
            (client.PLAIN, 100_000),
        ):
            for n, seconds in enumerate((2, 4)):
                told = {"per_second": 10_000 / seconds, "per_cpu_second": each / seconds}
                figures.rows.append(Row("client", client.WORK, reader, n, told))
        report.into(readme, figures)
        row = "| websockets + json | 3,750 (2,500 … 5,000) | 37,500 (25,000 … 50,000) | 3.0 x (3.0 … 3.0) | 2.0 x (2.0 … 2.0) |"
        assert row in readme.read_text()
        assert "| the same on Trio | >= 1.50 x | 2 x | met |" in readme.read_text()


class TestRunning:
    def test_what_fails_stops_nothing_and_is_told(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A failed step is a failure of the run. A step that lacks a program is missing by name. The others go on."""

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
    def test_the_joining_limit_delivers_every_update_in_order(self, tmp_path: Path) -> None:
        """From the feed through the limit to all clients, with updates joined on the way."""
        try:
            wsload = compiled.program("wsload")
        except Missing as why:
            pytest.skip(str(why))
        limit = peers.server(peers.JOINING, Cores({0}, {0}, {0}), 5)
        try:
            with Load(wsload, limit.port, 5, text="{}", cores={0}, log=tmp_path / "log") as load:
                limit.tell("rate 5000")
                windows = [load.window(0.1, limit.program)]
                while not windows[-1].least:  # a busy machine may bring some clients nothing in one of them
                    windows.append(load.window(0.1, limit.program))
        finally:
            limit.close()
        assert [(each.skipped, each.gaps, each.dead) for each in windows] == [(0, 0, 0)] * len(windows)

    @linux
    def test_the_load_client_looks_into_compressed_messages(self, tmp_path: Path) -> None:
        """Every third client does: separate messages, arrays of them, and arrays of eight values, in order."""
        try:
            wsload = compiled.program_with_zlib("wsload")
        except Missing as why:
            pytest.skip(str(why))
        agreement = agree("permessage-deflate")
        assert agreement is not None
        numbers = range(1, 65)
        updates = [
            UPDATE.replace("@N", str(n)).replace("@S", "1763696936212345678").encode() for n in numbers
        ]
        values = [b'[0,%d,1700,"buy",61837.63,1763696936212345678,"17",0]' % n for n in range(65, 129)]
        pack = packer(Opcode.TEXT, agreement)
        payload = pack(updates[:32]) + pack([b"[" + b",".join(updates[32:]) + b"]"])
        payload += pack(values[:32]) + pack([b"[" + b",".join(values[32:]) + b"]"])
        door = Door([Socket("/ws")], deflate=True)
        with socket.create_server(("127.0.0.1", 0)) as listener, ExitStack() as stack:
            sent: list[int] = []

            def serve() -> None:
                for _ in range(6):
                    client = stack.enter_context(listener.accept()[0])
                    opening = door.answer(client.recv(4096))
                    assert opening is not None
                    client.sendall(opening.response + payload)
                    sent.append(len(opening.response + payload))

            server = threading.Thread(target=serve)
            server.start()
            port = listener.getsockname()[1]
            with Load(
                wsload, port, 6, text="", cores={0}, log=tmp_path / "log", deflate=True, look=3
            ) as load:
                server.join(60)
                told = load.mark()
                while told["bytes"] < sum(sent):
                    more = load.mark()
                    told = {
                        name: told[name] + more[name] for name in ("updates", "bytes", "skipped", "others")
                    }
        assert told["updates"] == 6 * 128
        assert (told["skipped"], told["others"]) == (0, 0)

    @linux
    def test_a_program_is_ended(self, tmp_path: Path) -> None:
        """Also a program that ignores signals: it is killed by its own id."""
        deaf = "import signal, sys, time; signal.signal(15, signal.SIG_IGN); print('{}', flush=True); time.sleep(600)"
        program = Program("deaf", [sys.executable, "-c", deaf], cores={0}, log=tmp_path / "log")
        program.answer(120)
        program.close(within=0.05)
        assert not program.alive()

    @linux
    def test_a_program_that_ends_says_why(self, tmp_path: Path) -> None:
        """The error has the exit code and the last line."""
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
        """It loads the values that the bench writes."""
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
