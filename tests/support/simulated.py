"""Recordings of simulated exchanges: what a connector would hear, without a socket."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, unquote

from attrs import field, frozen

from dataflow import plugs
from dataflow.conformance.recording import Answer, Recording
from dataflow.conformance.subject import NAME, Subject, subject
from dataflow.domain import Missing
from dataflow.sources.port import SourceSettings
from simulators import Trade
from simulators.exchanges import find

START_US = 1_700_000_000_000_000


@frozen
class Case:
    """A connector and what is special about its rehearsal. `exchange`: the simulated one, by its name.

    `refills`: its filler, if there is one, has a question for missing trades. `named`: what the simulated
    exchange calls a symbol, where the connector has another name.
    """

    connector: str
    exchange: str
    symbols: tuple[str, ...] = ("BTC-USD", "ETH-USD")
    keys: Mapping[str, Any] = field(factory=dict)
    path: str | None = None  # of the handshake, where it is not the exchange's usual one
    accepted: tuple[str, ...] = ()
    refills: bool = True
    named: Mapping[str, str] = field(factory=dict)


def upstreams() -> list[str]:
    """The connectors of exchanges that we connect to."""
    return [
        name
        for name in plugs.names("connectors")
        if issubclass(plugs.find("connectors", name).Settings, SourceSettings)
    ]


def recorded(case: Case, count: int = 8) -> Subject:
    """The connector with a recording: it subscribes, and each symbol trades `count` times."""
    path = case.path or find(case.exchange).dialect(frozenset()).path
    keys = {"url": f"wss://upstream.example{path}", **case.keys}
    about = subject(case.connector, case.symbols, accepted=case.accepted, **keys)
    codec = about.module.Codec(NAME, about.settings)
    dialect = find(case.exchange).dialect(frozenset(_name(case, about, each) for each in case.symbols))
    headers = {name.lower(): value for name, value in codec.headers()}
    session = dialect.open(path, headers, lambda _symbol: False)
    messages: list[str] = []
    for request in (*codec.opening(), *codec.subscribe(case.symbols)):
        before = session.symbols
        messages += session.receive(request)
        if dialect.snapshot is not None:
            for symbol in sorted(session.symbols - before):
                messages += dialect.snapshot(session, symbol, ())
    tape: dict[str, list[Trade]] = {}
    for n in range(count):
        for symbol in case.symbols:
            trade = _trade(n, _name(case, about, symbol))
            tape.setdefault(trade.symbol, []).append(trade)
            messages += session.encode(trade)
        messages += session.beat(START_US + n * 1_000_000)
    answers = _answers(about, dialect, tape)
    return subject(
        case.connector, case.symbols, Recording((tuple(messages),), answers), case.accepted, **keys
    )


def _trade(n: int, symbol: str) -> Trade:
    side: Any = ("buy", "sell")[n % 2]
    return Trade(1_000 + n, symbol, side, f"61837.{n}5", f"0.0{n + 1}", START_US + n * 1_000_123)


def _name(case: Case, about: Subject, symbol: str) -> str:
    return case.named.get(symbol) or about.settings.exchange_name(symbol)


def _answers(about: Subject, dialect: Any, tape: Mapping[str, Sequence[Trade]]) -> list[Answer]:
    """What the exchange's REST says to the questions of the filler, page after page."""
    filler, found = about.filler(), list[Answer]()
    if filler is None or getattr(dialect, "rest", None) is None:
        return found
    for symbol in about.symbols:
        missing = Missing(NAME, symbol, None, None)
        request = filler.fill(missing)
        while request is not None and len(found) < 8:
            path, _, query = request.path.partition("?")
            said = dialect.rest(unquote(path), _query(query), lambda name: tape.get(name, ()))
            assert said.status == 200, said
            body = said.body.encode() if isinstance(said.body, str) else said.body
            found.append(Answer(symbol, request.path, body))
            request = filler.filled(missing, request, body).following
    return found


def _query(text: str) -> dict[str, str]:
    return dict(parse_qsl(text, keep_blank_values=True))
