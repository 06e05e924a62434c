"""The cost of TLS: the same saturation, eight updates a send, with and without TLS."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ..compiled import Missing, program, program_with_tls
from ..plan import Bench, Figures, Scenario, Step
from ..servers import Dataflow
from .saturation import measure, told

CLIENTS, JOINED = 1_000, 8
PLAIN, TLS = "plain", "TLS"
_RATE = 5_000  # trades a second, more than the daemon can send
_REMEMBERED = 200_000


def steps(bench: Bench) -> Iterator[Step]:
    seconds = 2.0 if bench.quick else 4.0
    for lane in (PLAIN, TLS):
        if bench.wanted("dataflow"):
            yield Step(
                f"{lane}, {JOINED} joined", "dataflow", seconds + 5, partial(_measure, bench, lane, seconds)
            )


def work(lane: str) -> str:
    """The name of a row."""
    return f"{lane}, {JOINED} joined"


def _measure(bench: Bench, lane: str, seconds: float) -> Figures:
    tables = {"fanout": {"joined": JOINED}, "cache": {"trades_per_symbol": _REMEMBERED}}
    with tempfile.TemporaryDirectory() as folder:
        if lane == TLS:
            certificate, key = _certificate(Path(folder))
            tables["gateway"] = {"tls_certificate": str(certificate), "tls_key": str(key)}  # type: ignore[dict-item]
        server = Dataflow(bench.cores, bench.checkout, tables)
        try:
            client = program_with_tls("wsload") if lane == TLS else program("wsload")
            options = {"tls": True} if lane == TLS else {}
            return measure(bench, server, CLIENTS, seconds, f"rate {_RATE}", client=client, **options)
        finally:
            server.close()


def _certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate and its key, for this run alone. Raises Missing."""
    openssl = shutil.which("openssl")
    if openssl is None:
        raise Missing("openssl is needed for a certificate (on Debian: apt install openssl)")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    made = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    made += ["-subj", "/CN=localhost", "-days", "2", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(made, check=True, capture_output=True)
    return certificate, key


SCENARIO = Scenario("tls", "deliveries a second over TLS", (3, 1), steps, told)
