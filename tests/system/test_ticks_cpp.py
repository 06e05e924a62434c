"""A producer in C++, built from the `.proto` that is shipped: what it says is what a subscriber gets."""

from __future__ import annotations

import shutil
import subprocess
from decimal import Decimal
from pathlib import Path

import pytest
import trio

from tests.support.waiting import until
from tests.system.daemon import client, daemon
from tests.system.test_ticks import NOW, admitted, from_producers

ROOT = Path(__file__).parents[2]
NEEDED = shutil.which("protoc"), shutil.which("g++"), Path("/usr/include/google/protobuf/message.h").exists()


@pytest.fixture
def producer(tmp_path: Path) -> Path:
    if not all(NEEDED):
        pytest.skip("needs protobuf-compiler, libprotobuf-dev and g++ (on Debian: apt install)")
    binary = tmp_path / "ticks"
    protos = ROOT / "dataflow" / "protobuf"
    subprocess.run(["protoc", f"--cpp_out={tmp_path}", f"-I{protos}", "marketdata.proto"], check=True)
    sources = [ROOT / "tests" / "native" / "ticks.cpp", tmp_path / "marketdata.pb.cc"]
    command = ["g++", "-std=c++17", f"-I{tmp_path}", *sources, "-o", binary, "-lprotobuf", "-pthread"]
    subprocess.run(command, check=True)
    return binary


async def test_a_client_in_cpp(producer: Path) -> None:
    """Every value exactly, in order, however fast it sends; and it ends without a trace."""
    async with daemon(sources=from_producers()) as d, client(d.url) as c:
        await until(lambda: d.core.sources["ticks"].link.value == "connected")
        port = d.root.find("sources/ticks/listener").value.rpartition(":")[2]
        await trio.run_process([producer, port, "1", str(NOW)])
        await until(lambda: d.core.history("AAPL").last == 1)
        await c.call("subscribe", symbol="AAPL")
        await trio.run_process([producer, port, "500", str(NOW)])
        await c.until(lambda: len(c.trades()) == 500)
        assert [
            (t["price"], t["qty"], t["tradeId"], t["side"], t["source"], t["offset"]) for t in c.trades()
        ] == [(Decimal("100.25") + Decimal(n) / 4, 10 + n, None, None, "ticks", 2 + n) for n in range(500)]
        assert [trade.timestamp for trade in admitted(d)[1:]] == [NOW + n for n in range(500)]
        assert not d.core.sources["ticks"].problems
