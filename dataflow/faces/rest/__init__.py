"""REST at `/api/v1`: symbols, trades and candles of any time, and the state of the daemon, by plain HTTP."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from attrs import frozen

from dataflow.gateway import face
from dataflow.gateway.about import Sample, Trial, simple
from dataflow.gateway.face import Route
from dataflow.gateway.hall import Hall
from dataflow.settings.schema import FaceSettings

from . import about
from .endpoints import Endpoints
from .ingest import Ingest

ROOT: Final = "/api/v1"


@frozen(kw_only=True)
class Settings(FaceSettings):
    """The table `[faces.rest]`."""


class Face(face.Face):
    """Endpoints alone."""

    def routes(self, hall: Hall) -> Iterable[Route]:
        of = Endpoints(hall)
        return (
            Route(f"{ROOT}/symbols", of.symbols, about=about.SYMBOLS),
            Route(f"{ROOT}/symbols/<symbol>", of.symbol, about=about.SYMBOL),
            Route(f"{ROOT}/trades/<symbol>", of.trades, about=about.TRADES),
            Route(f"{ROOT}/candles/<symbol>", of.candles, about=about.CANDLES),
            Route(f"{ROOT}/status", of.status, about=about.STATUS),
            Route(f"{ROOT}/sources", of.sources, about=about.SOURCES),
            Route(f"{ROOT}/sources/<name>", of.source, about=about.SOURCE),
            Route(f"{ROOT}/ingest/<source>", Ingest(hall).post, ("POST",), streams=True, about=about.INGEST),
        )

    def about(self, hall: Hall) -> Iterable[Sample]:
        url = f"{{http}}{ROOT}/trades/{{symbol}}"
        lines = {
            "curl": f"curl '{url}?order=desc&limit=5'",
            "CSV": f"curl -H 'Accept: text/csv' {url}",
            "Python": _TABLE.replace("URL", url),
        }
        words = "Trades of any time, in pages; or all of them, as CSV or NDJSON."
        trial = Trial("get", f"{url}?order=desc&limit=5")
        yield Sample("Trades", url, words, lines=lines, trial=trial)
        yield simple("Candles", f"{ROOT}/candles/{{symbol}}?limit=5", "Candles of any time and interval.")
        yield simple("Symbols", f"{ROOT}/symbols", "What can be asked for and followed.")
        yield simple("Status", f"{ROOT}/status", "The sources, the clients and the event loop.")


_TABLE: Final = """\
import csv

import httpx

with httpx.stream("GET", "URL", headers={"Accept": "text/csv"}) as answer:
    for row in csv.DictReader(answer.iter_lines()):
        print(row["timestamp"], row["side"], row["price"], row["qty"], row["reason"])
"""
