"""The results as tables: for the terminal, and in Markdown for the README of this folder.

Rules of this file: a figure is the median of its rounds. With several rounds, the least and the most follow in
brackets. A server that could not be measured is listed with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from .aims import AIMS, OURS, beside_jsonrpc, shown
from .peers import CACHING, CRYPTOFEED, JOINED, JOINING, LIMIT, STRAWBERRY
from .results import Results, Spread
from .scenarios import (
    ALL,
    client,
    deflate,
    faces,
    graphql,
    grpc,
    rates,
    saturation,
    stalled,
    start,
    storm,
    tls,
)

BEGIN, END = "<!-- written by `make bench`: begin -->", "<!-- written by `make bench`: end -->"
README = Path(__file__).parent / "README.md"
PICTURES = "results"  # as seen from there
_NAMES = {OURS: "**dataflow**", LIMIT: "the limit: C, one `send` a client", "FastAPI": "FastAPI + uvicorn"}
_NAMES |= {
    JOINING: "the same, joining, behind a socket",
    "websockets": "`websockets.broadcast`",
    "Node ws": "Node `ws`",
    STRAWBERRY: "strawberry + uvicorn",
    CACHING: "the same with its caches of documents",
}


def aims(results: Results) -> str:
    """Columns for the terminal: aim, measured figure, verdict. Leaves out the aims that this run could not measure."""
    rows = [("", "aim", "measured", "")]
    for aim in AIMS:
        value = aim.measured(results)
        if value is None and len(results.runs) < len(ALL):
            continue
        told = "-" if value is None else f"{shown(value)}{aim.unit}"
        rows.append((aim.about, aim.aim(), told, aim.verdict(results)))
    widths = [max(len(row[n]) for row in rows) for n in range(4)]
    return "\n".join(
        "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def into(readme: Path, results: Results) -> None:
    """Replace the text between the markers. Raises ValueError when a marker is missing."""
    text = readme.read_text()
    pattern = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"{readme} has no place for the results: {BEGIN}")
    chapter = "\n\n".join((BEGIN, *_chapter(results), END))
    readme.write_text(pattern.sub(lambda _found: chapter, text))


def _chapter(results: Results) -> Iterator[str]:
    yield _aims_table(results)
    yield from _section(results, "saturation", _saturation)
    yield from _section(results, "rates", _rates)
    yield from _section(results, "deflate", _deflate)
    yield from _section(results, "memory", _memory)
    yield from _section(results, "ingest", _ingest)
    yield from _section(results, "ticks", _ticks)
    yield from _section(results, "storm", _storm)
    yield from _section(results, "stalled", _stalled)
    yield from _section(results, "tls", _tls)
    yield from _section(results, "faces", _faces)
    yield from _section(results, "grpc", _grpc)
    yield from _section(results, "graphql", _graphql)
    yield from _section(results, "client", _client)
    yield from _section(results, "start", _start)
    yield _origin(results)


def _section(results: Results, scenario: str, section: object) -> Iterator[str]:
    if scenario in results.runs:
        yield from section(results)  # type: ignore[operator]
        yield from _missing(results, scenario)


def _aims_table(results: Results) -> str:
    rows = []
    for aim in AIMS:
        value = aim.measured(results)
        told = "" if value is None else f"{shown(value)}{aim.unit}"
        rows.append([aim.about, aim.aim(), told, aim.verdict(results)])
    return _table(["", "aim", "measured", ""], rows)


def _saturation(results: Results) -> Iterator[str]:
    yield "**Saturation**: deliveries a second with a constant backlog, one update a `send`."
    yield _picture("throughput", "deliveries a second at saturation")
    works = [saturation.work(1_000), saturation.work(5_000)]
    rows = []
    for server in _best_first(results, "saturation", works[0], "per_second"):
        cells = [_name(server)]
        for work in works:
            share = results.ratio("saturation", "per_second", (work, server), (work, LIMIT))
            spread = results.spread("saturation", work, server, "per_second")
            cells += [_thousands(spread), "" if share is None else f"{share:.2f}"]
        rows.append(cells)
    yield _table(["", "1,000 subscribers", "of the limit", "5,000 subscribers", "of the limit"], rows)
    joined = results.spread("saturation", saturation.work(1_000, saturation.JOINED), OURS, "per_second")
    if joined:
        yield (
            f"With joined updates (dataflow joins them as soon as more than one is due): {_thousands(joined)} "
            f"deliveries a second to 1,000 subscribers."
        )


def _rates(results: Results) -> Iterator[str]:
    yield (
        "**Fixed rates**: age of an update on arrival (p50 / p99), and CPU of the server, 1,000 clients. "
        "dataflow gets its updates from another process through a socket. It decodes, compares and remembers them. "
        "The peers make their own updates, by a timer. They do not join updates, so they cannot go beyond their "
        "saturation."
    )
    yield _picture("latency", "age of an update by rate")
    tried = rates.measured(results)
    works = [rates.work(rate, rates.CLIENTS) for rate in tried]
    servers = list(dict.fromkeys(server for work in works for server in results.servers("rates", work)))
    rows = [[_name(server), *(_latency(results, work, server) for work in works)] for server in servers]
    yield _table(["", *(f"{rate:,}/s" for rate in tried)], rows)
    yield from _beside_joining(results, tried)
    single = results.spread("rates", rates.work(100, 1), OURS, "p50_ms")
    if single:
        yield f"One client at 100 trades a second: p50 {_ms(single)}, source to client."


def _beside_joining(results: Results, tried: Sequence[int]) -> Iterator[str]:
    """How near dataflow comes to the limit that works as it does."""
    told = {}
    for rate in tried:
        p50, p99 = (rates.beside(results, name, rate, OURS, JOINING) for name in ("p50_ms", "p99_ms"))
        if p50 is not None and p99 is not None:
            told[f"{rate:,}/s"] = f"{p50:.2f} / {p99:.2f}"
    if told:
        yield (
            f"Second limit: a C program that gets its updates from the same source through a socket. It does not decode "
            f"them. It joins all that came during the last pass, at most {JOINED}, into one `send` a client. dataflow's "
            f"p50 / p99, as multiples of this limit's:"
        )
        yield _table(["", *told], [[_name(OURS), *told.values()]])


def _latency(results: Results, work: str, server: str) -> str:
    share = results.median("rates", work, server, "share")
    if share is None:
        return ""
    if share < rates.IN_TIME:
        return "overloaded"
    p50, p99, cpu = (
        results.median("rates", work, server, name) for name in ("p50_ms", "p99_ms", "server_cpu")
    )
    if p50 is None or p99 is None or cpu is None:
        return ""
    return f"{p50:.1f} / {p99:.1f} ms, {cpu:.0%}"


def _deflate(results: Results) -> Iterator[str]:
    yield (
        f"**Compression**: {deflate.CLIENTS:,} clients, by the format that they ask for, with and without an offer of "
        "permessage-deflate. Bytes of an update on the wire, its age on arrival (p50 / p99), and CPU of the server."
    )
    rows = []
    for kind in deflate.KINDS:
        row = [kind]
        for rate in deflate.RATES:
            work = deflate.work(rate, kind)
            found = [
                results.median("deflate", work, OURS, name)
                for name in ("bytes_per_update", "p50_ms", "p99_ms", "server_cpu")
            ]
            row.append("" if None in found else "{:.0f} B, {:.1f} / {:.1f} ms, {:.0%}".format(*found))
        rows.append(row)
    yield _table(["", *(f"{rate:,}/s" for rate in deflate.RATES)], rows)


def _memory(results: Results) -> Iterator[str]:
    yield "**Memory of an idle session**: growth of the process with thousands of connected clients."
    yield _picture("memory", "memory of an idle session")
    rows = []
    for work in results.works("memory"):
        for server in _best_first(results, "memory", work, "kib", most=False):
            name = _name(server) if work == "connected" else f"{_name(server)}, {work}"
            rows.append([name, _with_spread(results.spread("memory", work, server, "kib"), "{:.1f}", " KiB")])
    yield _table(["", "a session"], rows)


def _ingest(results: Results) -> Iterator[str]:
    yield (
        "**Ingest**: trades a second from one socket, on one core. dataflow decodes, compares and remembers each trade; "
        "with a subscriber it also encodes and delivers each. cryptofeed calls a callback. The picows reader decodes "
        "with msgspec and keeps the newest trades in a deque."
    )
    yield _picture("ingest", "trades a second from a source")
    rows = []
    for work in results.works("ingest"):
        for server in _best_first(results, "ingest", work, "per_second"):
            beside = ("binance, no subscriber", CRYPTOFEED)
            ratio = (
                results.ratio("ingest", "per_second", (work, server), beside) if "binance" in work else None
            )
            spread = results.spread("ingest", work, server, "per_second")
            told = work if server == OURS else work.partition(",")[0]
            rows.append([_name(server), told, _thousands(spread), "" if ratio is None else f"{ratio:.1f} x"])
    yield _table(["", "source", "trades/s", "cryptofeed"], rows)


def _ticks(results: Results) -> Iterator[str]:
    yield "**Ticks by TCP**: a producer pushes as fast as the daemon reads; every tick is judged, remembered and delivered."
    rows = [
        [work, _thousands(results.spread("ticks", work, OURS, "per_second"))]
        for work in results.works("ticks")
    ]
    yield _table(["", "ticks/s"], rows)


def _faces(results: Results) -> Iterator[str]:
    yield (
        f"**Faces**: {faces.CLIENTS:,} clients of one face at {faces.RATE} trades a second, each of which is an update for "
        f"each client. Deliveries by the server's CPU time; memory of a further client that gets nothing."
    )
    rows = []
    for face in _best_first(results, "faces", faces.DELIVERIES, "per_cpu_second"):
        ratio = beside_jsonrpc(face)(results)
        memory = results.spread("faces", faces.IDLE, face, "kib")
        rows.append(
            [
                face,
                _thousands(results.spread("faces", faces.DELIVERIES, face, "per_cpu_second")),
                "" if ratio is None else f"{ratio:.2f}",
                _with_spread(memory, "{:.1f}", " KiB"),
            ]
        )
    yield _table(["", "deliveries a CPU second", "JSON-RPC", "idle client"], rows)


def _grpc(results: Results) -> Iterator[str]:
    yield (
        "**gRPC**: messages on one stream, beside grpcio's own server, which checks and keeps nothing. Out of the daemon "
        f"come the states of {grpc.RATE:,} trades a second; grpcio's server sends without a pause. The client is grpcio's, "
        "in Python."
    )
    rows = []
    for work in results.works("grpc"):
        for server in results.servers("grpc", work):
            ratio = results.ratio("grpc", "per_cpu_second", (work, server), (work, grpc.THEIRS))
            rows.append(
                [
                    f"{_name(server)}, {work}",
                    _thousands(results.spread("grpc", work, server, "per_second")),
                    _thousands(results.spread("grpc", work, server, "per_cpu_second")),
                    "" if ratio is None else f"{ratio:.1f} x",
                ]
            )
    yield _table(["", "messages/s", "a CPU second of the server", "grpcio"], rows)


def _graphql(results: Results) -> Iterator[str]:
    yield (
        f"**GraphQL**: one query of seven fields, {graphql.WORK}, one request at a time on each. The peer has its answer in "
        f"a dictionary."
    )
    rows = [
        [
            _name(server),
            *(
                _thousands(results.spread("graphql", graphql.WORK, server, figure))
                for figure in ("per_second", "per_cpu_second")
            ),
        ]
        for server in _best_first(results, "graphql", graphql.WORK, "per_cpu_second")
    ]
    yield _table(["", "queries/s", "a CPU second of the server"], rows)


def _storm(results: Results) -> Iterator[str]:
    def told(figure: str, form: str, unit: str) -> str:
        return _with_spread(results.spread("storm", storm.WORK, OURS, figure), form, unit)

    yield f"**Storms**: {storm.CLIENTS:,} clients come at once. Then the gateway restarts."
    rows = [
        [
            "the last client is connected, subscribed, and has a snapshot of 50, after",
            told("seconds", "{:.1f}", " s"),
        ],
        ["longest wait of a client", told("wait_max", "{:.1f}", " s")],
        ["longest silence towards a client", told("silence", "{:.1f}", " s")],
        [
            "after the restart: the last client is back, and has everything that it missed, after",
            told("back_seconds", "{:.1f}", " s"),
        ],
        ["places lost; gaps; answers that did not recover", _lost(results)],
        ["p99 of 100 other clients: before the storm", told("served_p99_before_ms", "{:.1f}", " ms")],
        ["p99 of these clients: during the storm", told("served_p99_during_ms", "{:.1f}", " ms")],
    ]
    yield _table(["", ""], rows)


def _lost(results: Results) -> str:
    found = [results.spread("storm", storm.WORK, OURS, name) for name in ("lost", "gaps", "unrecovered")]
    return "; ".join("" if each is None else f"{each.most:.0f}" for each in found)


def _stalled(results: Results) -> Iterator[str]:
    yield (
        f"**Slow clients**: {stalled.STALLED} of {stalled.STALLED + stalled.READING:,} clients stop reading, at "
        f"{stalled.RATE:,} trades a second. The table shows the effect on the other clients."
    )
    rows = []
    for policy in (stalled.NOBODY, *stalled.POLICIES):
        p99 = results.spread("stalled", policy, OURS, "p99_ms")
        ratio = results.ratio("stalled", "p99_ms", (policy, OURS), (stalled.NOBODY, OURS))
        name = policy if policy == stalled.NOBODY else f"`{policy}`"
        rows.append([name, "" if p99 is None else _ms(p99), "" if ratio is None else f"{ratio:.2f}"])
    yield _table(["", "p99 of the others", "ratio to no stalled client"], rows)


def _tls(results: Results) -> Iterator[str]:
    ratio = results.ratio("tls", "per_second", (tls.work(tls.TLS), OURS), (tls.work(tls.PLAIN), OURS))
    plain, encrypted = (
        _thousands(results.spread("tls", tls.work(lane), OURS, "per_second")) for lane in (tls.PLAIN, tls.TLS)
    )
    told = "" if ratio is None else f", {ratio:.2f} of plain"
    yield (
        f"**TLS**, {tls.CLIENTS:,} clients, {tls.JOINED} updates a send: {encrypted or 'not measured'} deliveries a "
        f"second{told} ({plain or 'not measured'})."
    )


def _client(results: Results) -> Iterator[str]:
    yield (
        "**The Python client**: trades into a program that looks at each price, from a server with ready-made messages. "
        '`json.loads` makes binary numbers; the rows "exact" make `Decimal`, as the feed does. CPU time decides: the '
        "server shares the machine."
    )
    rows = []
    for reader in results.servers("client", client.WORK):
        spreads = (results.spread("client", client.WORK, reader, name) for name in client.FIGURES)
        cells = [reader, *map(_thousands, spreads)]
        for feed in client.OURS:
            ratios = results.ratios("client", client.PER_CPU, (client.WORK, feed), (client.WORK, reader))
            cells.append("" if reader in client.OURS else _with_spread(Spread.of(ratios), "{:.1f}", " x"))
        rows.append(cells)
    heads = [f"{feed.rpartition(' ')[2]}, beside it" for feed in client.OURS]
    yield _table(["", "trades a second", "trades a CPU second", *heads], rows)


def _start(results: Results) -> Iterator[str]:
    seconds, mib, cpu = (
        results.median("start", start.WORK, OURS, name) for name in ("seconds", "mib", "server_cpu")
    )
    if seconds is not None and mib is not None and cpu is not None:
        yield f"**The daemon alone**: ready after {seconds:.2f} s, {mib:.0f} MiB, {cpu:.1%} of a core while idle."


def _origin(results: Results) -> str:
    lines = []
    for run in {repr(run): run for run in results.runs.values()}.values():
        machine = run["machine"]
        names = ", ".join(name for name, other in results.runs.items() if other == run)
        versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
        lines.append(
            f"Measured on {run['date']} ({names}; {'quick' if run['quick'] else 'full'}) on {machine['cpu']}, "
            f"{machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']} {machine['kernel']}, load "
            f"{machine['load_before']} before; dataflow {run['dataflow']}, Python {machine['python']}, {versions}. "
            f"Medians, with the least and the most in brackets. The server had one core; its clients and its source had "
            f"another. The load client used at most {_busiest(results):.0%} of its core. All figures: "
            f"[`figures.json`]({PICTURES}/figures.json)."
        )
    return "\n\n".join(lines)


def _busiest(results: Results) -> float:
    return max((row.figures.get("client_cpu", 0.0) for row in results.rows), default=0.0)


def _missing(results: Results, scenario: str) -> Iterator[str]:
    found = {what: why for what, why in results.missing.items() if what.partition(":")[0] == scenario}
    if found:
        yield (
            "Missing: "
            + "; ".join(f"{what.partition(': ')[2]} ({_line(why)})" for what, why in found.items())
            + "."
        )


# -- cells --------------------------------------------------------------------------------------------


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _best_first(results: Results, scenario: str, work: str, figure: str, *, most: bool = True) -> list[str]:
    servers = results.servers(scenario, work)
    return sorted(servers, key=lambda name: results.median(scenario, work, name, figure) or 0.0, reverse=most)


def _picture(name: str, about: str) -> str:
    return f"![{about}]({PICTURES}/{name}.svg)"


def _name(server: str) -> str:
    return _NAMES.get(server, server)


def _thousands(spread: Spread | None) -> str:
    return "" if spread is None else _with_spread(spread, "{:,.0f}", "")


def _ms(spread: Spread) -> str:
    return _with_spread(spread, "{:.2f}", " ms")


def _with_spread(spread: Spread | None, form: str, unit: str) -> str:
    if spread is None:
        return ""
    told = f"{form.format(spread.median)}{unit}"
    if spread.rounds == 1:
        return told
    return f"{told} ({form.format(spread.least)} … {form.format(spread.most)})"


def _line(text: str) -> str:
    return text.strip().partition("\n")[0]
