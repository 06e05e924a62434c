"""The README of the client protocol is true: its table, its examples and its two clients."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from trio_websocket import ConnectionClosed

from dataflow.domain import Gap, Topic, Trade
from dataflow.domain.candle import MINUTE
from dataflow.domain.notice import (
    Draining,
    Refused,
    SourceLost,
    SourceRestored,
    Started,
    StreamSwitched,
    SymbolsChanged,
    Waiting,
)
from dataflow.domain.quality import Grade, Quality
from dataflow.faces.jsonrpc import methods, parts, protocol
from dataflow.faces.jsonrpc.format import JSONRPC
from dataflow.gateway import limits, recovery
from dataflow.settings.schema import Settings
from dataflow.sources import lookout
from dataflow.topics.candles import Bar
from simulators import Exchange, open_binance
from simulators import Trade as Simulated
from tests.support.waiting import until
from tests.system.daemon import Daemon, client, connection, daemon, from_binance

SYMBOL = "BTC-USDT"
PRICES = ("61711.40", "61711.90", "61712.00", "", "", "61711.10", "61710.00", "61710.50")
AMOUNTS = ("0.5", "0.25", "0.0004", "", "", "1", "0.1", "0.2")


@pytest.fixture(scope="module")
def readme(checkout: Path) -> str:
    return (checkout / "dataflow" / "faces" / "jsonrpc" / "README.md").read_text(encoding="utf-8")


def blocks(readme: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", readme, re.DOTALL)


def messages(readme: str) -> Iterator[tuple[str, Any]]:
    """Every JSON example in its order, with its arrow. Raises ValueError for what is no JSON."""
    for block in blocks(readme, "json"):
        for arrow, text in re.findall(r"^([→←]) (.*?)(?=^[→←] |\Z)", block, re.DOTALL | re.M):
            yield arrow, json.loads(text)


def shape(value: Any) -> Any:
    """The names of all members and the kinds of all values; the values themselves do not matter."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [shape(inner) for inner in value[:1]]
    return "number" if type(value) in (int, float) else type(value).__name__


def test_the_table_has_the_methods_and_parameters_that_exist(readme: str) -> None:
    """In their order, which is that of parameters without names; a "?" marks those that may be left out."""
    section = readme[readme.index("## Calls") : readme.index("## Trades")]
    told = {
        name: re.findall(r"`(\w+)(\??): \w+`", params)
        for name, params in re.findall(r"^\| `([\w.]+)` \|(.*?)\|", section, re.M)
    }
    table = methods._METHODS
    existing = {}
    for name in table.names:
        params: Any = table.find(name).params
        fields = () if params is None else msgspec.inspect.type_info(params).fields  # type: ignore[attr-defined]
        existing[name] = [(each.encode_name, "" if each.required else "?") for each in fields]
    assert told == existing


def test_the_table_of_errors_has_the_codes_that_exist(readme: str) -> None:
    """All of them, and no other."""
    codes = {
        value for name, value in vars(protocol).items() if name.isupper() and type(value) is int and value < 0
    }
    assert {int(code) for code in re.findall(r"^\| (-\d+) \|", readme, re.M)} == codes


def test_the_table_of_limits_has_those_of_the_code(readme: str) -> None:
    """As many as there may be by default, in the words of people."""
    table = readme[readme.index("## Limits") : readme.index("## A client in Python")]
    default = Settings()
    for told in (
        f"{default.gateway.max_message_bytes >> 10} KiB",
        f"{protocol.MAX_BATCH} calls; {protocol.MAX_ANSWERS >> 20} MiB of answers",
        f"{recovery.MOST_GAPS:,} gaps",
        f"{parts.MOST_GAPS_OF_ALL:,} gaps in all positions",
        f"{recovery.RECOVERY_LIMIT:,} places, {recovery.FILLED_LIMIT:,} trades in `filled`",
        f"{default.session.max_subscriptions} subscriptions",
        f"{default.limits.sessions:,} sessions, {default.limits.subscriptions:,} subscriptions",
        f"{default.limits.calls_per_second:,.0f} calls and {default.limits.bytes_per_second / 1e6:.0f} MB",
        f"{limits.READS_AT_ONCE} reads at once, {limits.READS_WAITING} that wait",
        f"{default.gateway.max_sessions:,} sessions",
    ):
        assert told in table, told
    assert limits.BURST_SECONDS == 10


def test_the_tables_of_quality_and_gaps(readme: str) -> None:
    """The states of a symbol, and the reasons of gaps that the code gives."""
    quality = readme[readme.index("## Quality") : readme.index("## Symbols")]
    assert re.findall(r"^\| `(\w+)` \|", quality, re.M) == [str(grade) for grade in Grade]
    trades = readme[readme.index("| reason of a gap") : readme.index("`getRecentTrades` pages")]
    assert set(re.findall(r"^\| `(\w+)` \|", trades, re.M)) == {
        "source_gap",
        "shard_restart",
        "overrun",
        "slow_client",
        "not_recorded",
    }


def test_every_notification_is_as_it_is_shown(readme: str) -> None:
    """Each kind that exists stands there, with its members and their order."""
    told = {
        m["method"]: shape(m["params"]) for arrow, m in messages(readme) if arrow == "←" and "method" in m
    }
    topic = Topic("trades", SYMBOL)
    trade = Trade("binance", SYMBOL, "1", "buy", 1, 1, 0)  # type: ignore[arg-type]
    [update] = JSONRPC.encoder(topic, 1)([(1, trade)])
    [quality] = JSONRPC.encoder(Topic("quality", SYMBOL), 1)(
        [(1, Quality(SYMBOL, "binance", Grade.LOST, 0, "cut"))]
    )
    filled = JSONRPC.filled(topic, 1, [(1, trade)])
    [started] = JSONRPC.encoder(Topic("trades", "*"), 1)([(0, Started(SYMBOL, "trades", 1, 0))])
    full = Bar.at(trade, 1, MINUTE)
    full.gaps = (Gap(1, 2, "x"),)
    [candle] = JSONRPC.encoder(Topic("candles", SYMBOL, "1m"), 1)([(1, full.candle(SYMBOL, "1m"))])
    notices = [
        JSONRPC.notice(notice)
        for notice in (
            SourceLost("binance", "cut", (SYMBOL,)),
            SourceRestored("binance", (SYMBOL,)),
            StreamSwitched(SYMBOL, "trades", 1, 2, "binance", "kraken", "cut"),
            SymbolsChanged((SYMBOL,), ()),
            Waiting(1, 1.0),
            Refused("full", 5.0),
            Draining(),
        )
    ]
    existing = [
        json.loads(text)
        for text in (
            update,
            quality,
            candle,
            started,
            JSONRPC.gap(topic, 1, Gap(1, 2, "x")),
            filled,
            *notices,
        )
    ]
    assert json.dumps(told, sort_keys=True) == json.dumps(
        {m["method"]: shape(m["params"]) for m in existing}, sort_keys=True
    )
    for example in existing:
        (shown,) = {tuple(m["params"]) for _, m in messages(readme) if m.get("method") == example["method"]}
        assert list(shown) == list(example["params"])
    assert json.loads(JSONRPC.item(topic, 1, 1, trade)).keys() == existing[0]["params"].keys()


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\x83\x80maskMASK", 1002),  # an opcode that is not defined
        (b"\x82\x81mask" + bytes([ord("m") ^ 0xFF]), 1003),  # a binary message
        (b"\x81\x81mask" + bytes([ord("m") ^ 0xFF]), 1007),  # text: the byte 0xFF
        (b"\x81\xff" + (65_536).to_bytes(8, "big") + b"mask" + bytes(65_536), None),  # 64 KiB are allowed
        (b"\x81\xff" + (65_537).to_bytes(8, "big") + b"mask" + bytes(65_537), 1009),
    ],
)
async def test_wrong_messages_close_with_the_code_of_the_table(
    readme: str, frame: bytes, code: int | None
) -> None:
    """The README has each of these codes."""
    async with stage() as (_, built), connection(built.url) as socket:
        await socket._stream.send_all(frame)
        if code is None:
            assert "error" in json.loads(await socket.get_message())
            return
        with pytest.raises(ConnectionClosed) as closed:
            await socket.get_message()
        assert closed.value.reason is not None
        assert closed.value.reason.code == code
        table = readme[readme.index("| close code |") : readme.index("## Errors")]
        assert str(code) in re.findall(r"\b1\d{3}\b", table)


@asynccontextmanager
async def stage(*, can_be_asked: bool = False) -> AsyncIterator[tuple[Exchange, Daemon]]:
    """`can_be_asked`: for missing trades."""
    async with open_binance() as exchange:
        more = {"refill_url": exchange.rest_url} if can_be_asked else {}
        sources = from_binance(exchange.url, SYMBOL, eager=True, **more)
        async with daemon(sources=sources) as made:
            await exchange.wait_subscribed(["BTCUSDT"])
            yield exchange, made


async def publish(exchange: Exchange, built: Daemon, *ids: int) -> None:
    """Trades of the example, admitted when it returns; an id that is left out is a gap."""
    for n in ids:
        side = "sell" if n in (2, 6) else "buy"
        at = 1_700_000_000_000_000 + n
        await exchange.publish(Simulated(n, "BTCUSDT", side, PRICES[n - 1], AMOUNTS[n - 1], at))
    while built.core.history(SYMBOL).last < ids[-1]:
        await trio.lowlevel.checkpoint()


async def test_every_call_is_answered_as_it_is_shown(readme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples are sent to a daemon; the answers have the members that the README shows."""
    monkeypatch.setattr(lookout, "LOOK_EVERY", 0.01)
    shown = list(messages(readme))
    calls = [(call, answer) for (arrow, call), (_, answer) in pairwise(shown) if arrow == "→"]
    assert len(calls) == 11
    async with stage(can_be_asked=True) as (exchange, built), client(built.url) as c:
        pulses = built.core.sources["binance"].vitals.pulses
        await until(lambda: SYMBOL in pulses)
        await publish(exchange, built, 1, 2)
        await until(lambda: pulses[SYMBOL].grade is Grade.LIVE and pulses[SYMBOL].missing == 0)
        for call, expected in calls:
            assert expected["id"] == call["id"]
            answer = await c.ask(call["method"], **call.get("params", {}))
            member = "error" if "error" in expected else "result"
            assert shape(json.loads(json.dumps(answer[member], default=float))) == shape(expected[member])


async def test_the_python_client_prints_what_is_shown(readme: str, tmp_path: Path) -> None:
    """As a program of its own, through a loss at the source and a restart of the server."""
    (program,), (output,) = blocks(readme, "python"), blocks(readme, "text")
    (tmp_path / "follow.py").write_text(program)
    said: list[str] = []
    news = trio.Event()

    async def read(stream: trio.abc.ReceiveStream) -> None:
        nonlocal news
        rest = b""
        async for some in stream:
            *lines, rest = (rest + some).split(b"\n")
            said.extend(line.decode() for line in lines)
            news.set()
            news = trio.Event()

    async def until(count: int) -> None:
        while len([line for line in said if line != "no answer"]) < count:
            await news.wait()

    async with stage() as (exchange, built), trio.open_nursery() as nursery:
        await publish(exchange, built, 1, 2)
        run = partial(
            trio.run_process,
            [sys.executable, str(tmp_path / "follow.py"), built.url, SYMBOL],
            stdout=subprocess.PIPE,
            check=False,
        )
        process = await nursery.start(run)
        nursery.start_soon(read, process.stdout)
        await until(2)
        await publish(exchange, built, 3, 6)
        await until(5)
        await built.root.restart("gateway")
        await publish(exchange, built, 7)
        await until(7)
        await publish(exchange, built, 8)
        await until(8)
        process.terminate()
    assert [line for line in said if line != "no answer"] == output.splitlines()


async def test_the_python_client_ends_with_an_error(readme: str, tmp_path: Path) -> None:
    """A symbol that does not exist is no outage: it tells the nearest, and stops."""
    (program,) = blocks(readme, "python")
    (tmp_path / "follow.py").write_text(program)
    async with stage() as (_, built):
        done = await trio.run_process(
            [sys.executable, str(tmp_path / "follow.py"), built.url, "BTC-USD"],
            capture_stderr=True,
            check=False,
        )
    assert done.returncode == 1
    assert b"refused" in done.stderr
    assert SYMBOL.encode() in done.stderr


PAGE = """
globalThis.WebSocket = class {
  sent = [];
  send(text) { this.sent.push(text); }
};
"""


def test_the_javascript_client_understands_the_examples(readme: str) -> None:
    """It sends a call that is shown, and every example of a message makes it print something or nothing."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs node")
    (program,) = blocks(readme, "js")
    examples = [m for arrow, m in messages(readme) if arrow == "←" and ("method" in m or m["id"] in (1, 5))]
    drive = (
        "socket.onopen();"
        f"for (const message of {json.dumps(examples)}) socket.onmessage({{ data: JSON.stringify(message) }});"
        "socket.onclose({ code: 1001, reason: 'bye' }); console.log(socket.sent[0]);"
    )
    done = subprocess.run(
        [node, "-e", PAGE + program + drive], capture_output=True, text=True, check=True, timeout=120
    )
    lines = done.stdout.splitlines()
    call = next(m for arrow, m in messages(readme) if arrow == "→")
    assert json.loads(lines.pop()) == call
    assert [line for line in lines if not line.startswith(("refused", " ", "}"))] == [
        "BTC-USDT 612 buy 0.00016 at 61686",
        "BTC-USDT 613 sell 0.25 at 61685.9",
        "BTC-USDT gap 614 615 source_gap",
        "closed 1001 bye",
    ]


def test_links_lead_somewhere(checkout: Path, readme: str) -> None:
    """Every file that it links to exists."""
    folder = checkout / "dataflow" / "faces" / "jsonrpc"
    links = re.findall(r"\]\((?!http)([^)#]+)\)", readme)
    assert [link for link in links if not (folder / link).exists()] == []
