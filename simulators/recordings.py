"""Reads recorded traffic: WebSocket messages as JSON lines, and tables of trades.

Rule 1: a message that cannot be replayed is counted by its kind. It is never dropped silently, never
repaired.
Rule 2: numbers keep all digits; a price is never a float.
Rule 3: the time of a tick is when its message was received, or else the timestamp of the trade.
"""

from __future__ import annotations

import codecs
import csv
import gzip
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from decimal import Decimal
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Literal

import msgspec
from attrs import field, frozen

from .feed import Tick
from .trade import Item, StreamMessage, Trade

_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00Z")


class RecordingError(ValueError):
    """A file is no recording that can be played; the message names the file, the line and the reason."""


@frozen
class Recording:
    """The ticks of a file, in its order. `skipped` counts lines that cannot be replayed, by their kind."""

    ticks: tuple[Tick, ...]
    skipped: Counter[str] = field(factory=Counter)

    @property
    def trades(self) -> tuple[Trade, ...]:
        """Only the trades."""
        return tuple(tick.item for tick in self.ticks if isinstance(tick.item, Trade))


@frozen
class _Line:
    msg: str
    dir: str = "in"
    t: float | None = None
    t_ns: int | None = None


_NOTHING = msgspec.Raw()


@frozen
class _Message:
    """The fields that distinguish the kinds of messages; the rest stays undecoded."""

    stream: str | None = None
    data: msgspec.Raw = _NOTHING
    e: str | None = None
    event: str | None = None
    channel: str | None = None


@frozen
class _BinanceTrade:
    E: int
    s: str
    p: str
    q: str
    T: int
    m: bool
    t: int | None = None
    a: int | None = None
    f: int | None = None
    l: int | None = None  # noqa: E741 - the exchange's own name


@frozen
class _BlockchainTrade:
    symbol: str
    timestamp: datetime
    side: Literal["buy", "sell"]
    qty: Decimal
    price: Decimal
    trade_id: str


_line = msgspec.json.Decoder(_Line)
_message = msgspec.json.Decoder(_Message)
_binance_trade = msgspec.json.Decoder(_BinanceTrade)
_blockchain_trade = msgspec.json.Decoder(_BlockchainTrade)


def read(path: str | Path | Traversable) -> Recording:
    """Read recorded messages (``.jsonl``) or a table of trades (``.csv``); either may end in ``.gz``.

    Raises RecordingError for another ending and for a file that does not parse, OSError for a file that
    cannot be opened.
    """
    name = path.name if not isinstance(path, str) else path
    reader = read_csv if name.removesuffix(".gz").endswith(".csv") else read_messages
    if not name.removesuffix(".gz").endswith((".csv", ".jsonl")):
        raise RecordingError(f"{name}: neither .jsonl nor .csv (either may be .gz)")
    try:
        with _opened(path) as file:
            return reader(file)
    except (ValueError, KeyError, EOFError, gzip.BadGzipFile) as wrong:
        raise RecordingError(f"{name}: {wrong}") from wrong


def shipped(name: str) -> Recording:
    """Read one of the recordings in `simulators/data`; its README describes them."""
    return read(resources.files("simulators") / "data" / name)


def read_messages(lines: Iterable[bytes]) -> Recording:
    """Read JSON lines ``{"t": seconds, "t_ns": ..., "dir": "in", "msg": text}``; one of the times is enough.

    ValueError names a line that does not parse.
    """
    skipped: Counter[str] = Counter()
    ticks: list[Tick] = []
    for number, text in enumerate(lines, 1):
        try:
            found = _tick(_line.decode(text))
        except (ValueError, msgspec.MsgspecError) as wrong:
            raise ValueError(f"line {number}: {wrong}") from wrong
        if isinstance(found, str):
            skipped[found] += 1
        else:
            ticks.append(found)
    return Recording(tuple(ticks), skipped)


def read_csv(lines: Iterable[bytes]) -> Recording:
    """Read a table `trade_id,timestamp_us,symbol,side,price,qty`. ValueError names a wrong line."""
    rows = csv.DictReader(line.decode() for line in lines)
    return Recording(tuple(_row(number, row) for number, row in enumerate(rows, 2)))


def _row(number: int, row: dict[str, str]) -> Tick:
    try:
        at = int(row["timestamp_us"])
        side: Literal["buy", "sell"] = row["side"]  # type: ignore[assignment]  # `Trade` checks it
        return Tick(at * 1000, Trade(int(row["trade_id"]), row["symbol"], side, row["price"], row["qty"], at))
    except (KeyError, ValueError, TypeError) as wrong:
        raise ValueError(f"line {number}: {wrong}") from wrong


@contextmanager
def _opened(path: str | Path | Traversable) -> Iterator[Iterable[bytes]]:
    real = Path(path) if isinstance(path, str) else path
    with real.open("rb") as raw:
        if not real.name.endswith(".gz"):
            yield _unmarked(raw)
            return
        with gzip.open(raw) as unpacked:
            yield _unmarked(unpacked)


def _unmarked(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Without the byte order mark that editors of Windows put before UTF-8."""
    for number, line in enumerate(lines):
        yield line if number else line.removeprefix(codecs.BOM_UTF8)


def _tick(line: _Line) -> Tick | str:
    if line.dir != "in":
        return line.dir
    item = _item(line.msg.encode())
    return item if isinstance(item, str) else Tick(_received_ns(line, item), item)


def _received_ns(line: _Line, item: Item) -> int:
    if line.t_ns is not None:
        return line.t_ns
    if line.t is not None:
        return int(Decimal(str(line.t)) * 1_000_000_000)
    if isinstance(item, Trade):
        return item.timestamp_us * 1000
    raise ValueError("neither a time of receipt nor a timestamp")


def _item(text: bytes) -> Item | str:
    message = _message.decode(text)
    if message.stream is not None and bytes(message.data):
        return _streamed(message.stream, bytes(message.data))
    if message.e in ("trade", "aggTrade"):
        return _from_binance(text)
    if message.channel == "trades" and message.event == "updated":
        return _from_blockchain(text)
    return f"{message.channel} {message.event}" if message.event else message.e or "other"


def _streamed(stream: str, data: bytes) -> Item:
    if stream.endswith(("@trade", "@aggTrade")):
        return _from_binance(data)
    return StreamMessage(stream, data.decode())


def _from_binance(data: bytes) -> Trade:
    seen = _binance_trade.decode(data)
    number = seen.t if seen.a is None else seen.a
    members = None if seen.f is None or seen.l is None else (seen.f, seen.l)
    if number is None or (seen.a is None) != (members is None):
        raise ValueError("a trade without its id")
    side: Literal["buy", "sell"] = "sell" if seen.m else "buy"
    return Trade(number, seen.s, side, seen.p, seen.q, seen.T * 1000, seen.E * 1000, members)


def _from_blockchain(text: bytes) -> Trade:
    seen = _blockchain_trade.decode(text)
    at = (seen.timestamp - _EPOCH) // timedelta(microseconds=1)
    return Trade(int(seen.trade_id), seen.symbol, seen.side, f"{seen.price:f}", f"{seen.qty:f}", at)
