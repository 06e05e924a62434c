"""`dataflow demo`: free ports, and the invitation."""

from __future__ import annotations

import io
import socket
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
import trio
from rich.console import Console

from dataflow.cli import demo
from dataflow.cli.demo import (
    Exchanges,
    at_ports,
    command_name,
    free_ports,
    invitation,
    listening_at_free_ports,
)
from dataflow.cli.ends import Mistake
from dataflow.settings.load import load, shipped
from dataflow.settings.schema import Gateway, Settings


@pytest.fixture
def simulated() -> Settings:
    return load([shipped("server.toml"), shipped("simulated.toml")], {})


class TestPorts:
    def test_a_port_that_is_taken_is_passed_over(self) -> None:
        """The next free port is used if the usual one is taken, also if only the controls' port is taken."""
        with (
            socket.create_server(("127.0.0.1", 0)) as exchange,
            socket.create_server(("127.0.0.1", 0)) as controls,
        ):
            taken, below = exchange.getsockname()[1], controls.getsockname()[1] - demo.CONTROLS_ABOVE
            found = free_ports({"blockchain": taken, "binance": below})
        assert found["blockchain"] > taken
        assert found["binance"] > below

    def test_no_port_is_given_twice(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Two exchanges never get the same port."""
        monkeypatch.setattr(demo, "_is_free", lambda port: True)
        assert free_ports({"blockchain": 5000, "binance": 5000}) == {"blockchain": 5000, "binance": 5001}

    def test_nothing_free_is_said(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The error names the range if every port is taken."""
        monkeypatch.setattr(demo, "_is_free", lambda port: False)
        with pytest.raises(Mistake, match=r"^no port from 5001 to 5050 is free for the simulated binance$"):
            free_ports({"binance": 5001})

    def test_sources_follow_their_exchange(self, simulated: Settings) -> None:
        """The daemon connects to the exchanges' present ports. Sources with other addresses keep them."""
        moved = at_ports(simulated, {"blockchain": 5003, "binance": 5001})
        assert moved.sources["blockchain"].url == "ws://127.0.0.1:5003/mercury-gateway/v1/ws"
        assert moved.sources["binance"] == simulated.sources["binance"]
        other = at_ports(simulated, {"blockchain": 5003, "binance": 5004}).sources["binance"]
        assert (other.url, other.refill_url) == ("ws://127.0.0.1:5004/stream", "http://127.0.0.1:5004")
        real = load([shipped("server.toml")], {})
        assert at_ports(real, {"blockchain": 5003, "binance": 5004}) == real

    def test_other_listeners_find_a_free_port_too(
        self, simulated: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Ports that are taken, by others or by the gateway itself, are passed over; free ones stay as they are."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            ticks = attrs.evolve(simulated.sources["ticks"], port=port)
            gateway = attrs.evolve(simulated.gateway, port=port + 1)
            wanted = attrs.evolve(simulated, gateway=gateway, sources={**simulated.sources, "ticks": ticks})
            moved = listening_at_free_ports(wanted)
        assert moved.sources["ticks"].port > port + 1
        monkeypatch.setattr(demo, "why_not_free", lambda host, port: None)  # another test may take one now
        assert listening_at_free_ports(moved) == moved
        assert moved.sources["binance"] == simulated.sources["binance"]

    def test_no_free_port_for_a_listener_is_said(
        self, simulated: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The error names the range and what it is for."""
        monkeypatch.setattr(demo, "why_not_free", lambda host, port: OSError())
        with pytest.raises(Mistake, match=r"^no port from 9000 to 9049 is free for ticks$"):
            listening_at_free_ports(simulated)


class TestInvitation:
    @staticmethod
    def shown(settings: Settings, width: int = 80) -> str:
        out = io.StringIO()
        ports = {"blockchain": 5000, "binance": 5001}
        console = Console(file=out, width=width, _environ={})
        console.print(invitation(settings, ports, ".venv/bin/dataflow"))
        return out.getvalue()

    def test_the_suggestions_fit_a_terminal(self, simulated: Settings) -> None:
        """Each suggestion is one line of a terminal with 80 columns, ready to be copied."""
        text = self.shown(simulated)
        for line in (
            "http://127.0.0.1:8080/ ",
            "http://127.0.0.1:8080/faces ",
            ".venv/bin/dataflow tail BTC-USD BTC-USDT ",
            ".venv/bin/dataflow simulate ticks ",
            ".venv/bin/dataflow status --watch ",
            """curl 127.0.0.1:5101/disconnect -d '{"mode":"drop","seconds":5}' """,
            "curl -X POST 127.0.0.1:8080/actors/cache/shard-0/restart ",
        ):
            assert line in text

    def test_another_port_is_part_of_the_suggestions(self, simulated: Settings) -> None:
        """The suggested commands contain the address of a daemon on another port."""
        text = self.shown(attrs.evolve(simulated, gateway=Gateway(port=9000)))
        assert "tail BTC-USD BTC-USDT --url 127.0.0.1:9000 " in text
        assert "8080" not in text

    def test_a_moved_source_is_part_of_the_suggestions(self, simulated: Settings) -> None:
        """Ticks are pushed to where the source listens."""
        ticks = attrs.evolve(simulated.sources["ticks"], port=9001)
        text = self.shown(attrs.evolve(simulated, sources={"ticks": ticks}))
        assert "simulate ticks --to 127.0.0.1:9001 " in text

    def test_the_command_as_it_can_be_typed(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """The name if it is on the PATH, else the relative path, or `python -m dataflow`."""
        own = tmp_path / "bin" / "dataflow"
        own.parent.mkdir()
        own.write_text("#!/bin/sh\n")
        own.chmod(0o755)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [str(own)])
        monkeypatch.setenv("PATH", "/nowhere")
        assert command_name() == "bin/dataflow"
        monkeypatch.setenv("PATH", str(own.parent))
        assert command_name() == "dataflow"
        monkeypatch.setattr(sys, "argv", [str(tmp_path / "__main__.py")])
        monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
        assert command_name() == "bin/python -m dataflow"


class TestExchanges:
    async def test_they_are_an_actor(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The actor is ready when both exchanges serve, and ends at the stop."""
        asked: list[dict[str, Any]] = []
        ended = trio.Event()

        async def serve_demo(*, task_status: Any, **options: Any) -> None:
            asked.append(options)
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                ended.set()

        monkeypatch.setattr("simulators.serve_demo", serve_demo)
        ready = trio.Event()
        ctx: Any = SimpleNamespace(ready=ready.set, stopping=trio.Event())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Exchanges(5003, 5004).run, ctx)
            await ready.wait()
            assert asked == [{"host": "127.0.0.1", "blockchain_port": 5003, "binance_port": 5004}]
            assert not ended.is_set()
            ctx.stopping.set()
        assert ended.is_set()
