"""The core of a client against a server that dies, fills, forgets and is cut off at any message.

The model is a dictionary from place to content. It speaks the protocol by itself: nothing of the daemon is used.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from itertools import groupby, takewhile
from typing import Any, TypeAlias

from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow.client import Client, Event, Filled, Gap, Rewound, Topic, Trade

SYMBOL = "BTC-USD"
Cell: TypeAlias = int | str  # the id of a trade, or "exact:N", or "unknown"


def is_trade(cell: Cell) -> bool:
    return isinstance(cell, int)


def digits(number: int) -> tuple[str, str]:
    """The price and quantity of a trade, with digits that only exact reading keeps."""
    return f"{61837 + number}.{number:03}000", f"0.00000{number}0"


@define
class Server:
    """The truth, the connection's messages on their way, and what an honest server says of it."""

    format: str
    counts_losses: bool  # whether it tells how much it has forgotten
    places: dict[int, Cell] = field(factory=dict)
    chain: list[tuple[int, int]] = field(factory=lambda: [(1, 1)])  # epoch, first place
    floor: int = 0
    wire: list[tuple[str, dict[str, Any]]] = field(factory=list)  # message, what it does to the beginning
    told: int | None = None  # the last place on the wire; None: nobody is subscribed
    serial: int = 0
    symbol: str = SYMBOL

    @property
    def last(self) -> int:
        return max(self.places, default=self.chain[-1][1] - 1)

    @property
    def epoch(self) -> int:
        return self.chain[-1][0]

    def new(self) -> int:
        self.serial += 1
        return self.serial

    # What happens.

    def trades(self, count: int) -> None:
        for _ in range(count):
            self.places[self.last + 1] = self.new()
        self._tell_live()

    def gap(self, count: int) -> None:
        name = f"exact:{self.new()}"
        for _ in range(count):
            self.places[self.last + 1] = name
        self._tell_live()

    def unknown(self, _count: int) -> None:
        self.places[self.last + 1] = "unknown"
        self._tell_live()

    def slow(self, count: int) -> None:
        """The client does not read: places are left out and named."""
        before = self.last
        for n in range(count):
            self.places[self.last + 1] = self.new() if n % 3 else "unknown"
        if self.told is not None:
            gap = {"from": before + 1, "to": self.last, "reason": "slow_client", "skipped": count}
            self._say("stream.gap", {"symbol": self.symbol, "channel": "trades", "epoch": self.epoch, **gap})
            self.told = self.last

    def fill(self, count: int) -> None:
        """Some of the missing trades of a gap come after all."""
        missing = [
            at for at, cell in self.places.items() if str(cell).startswith("exact") and at > self.floor
        ]
        if not missing:
            return
        first = missing[count % len(missing)]
        gap = self.places[first]
        run = list(takewhile(lambda at: self.places.get(at) == gap, range(first, first + count)))
        for at in run:
            self.places[at] = self.new()
        if self.told is not None:
            params = {"symbol": self.symbol, "channel": "trades", "epoch": self.epoch, **self._run(run)}
            self._say("stream.filled", params)

    def forget(self, count: int) -> None:
        self.floor = min(self.last, self.floor + 3 * count)

    def crash(self, count: int) -> None:
        """What was not on disk is no part of the stream any more."""
        for at in sorted(self.places)[-count:]:
            if at > self.floor:
                del self.places[at]
        kept = max(self.places, default=self.floor)
        self.chain.append((self.epoch + 1, kept + 1))
        self.hang_up()

    def hang_up(self) -> None:
        self.told = None
        self.wire.clear()

    # What is said.

    def answer(self, call: str) -> None:
        asked = json.loads(call)
        since, snapshot = asked["params"].get("since"), asked["params"].get("snapshot")
        result, effect = self.begin(since, snapshot)
        self.wire.append((text({"jsonrpc": "2.0", "result": result, "id": asked["id"]}), effect))

    def begin(
        self, since: dict[str, Any] | None, snapshot: int | None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The result of a subscription, which begins with it, and what it does to the beginning."""
        told: dict[str, Any] = {"epoch": self.epoch, "offset": self.last}
        effect: dict[str, Any] = {}
        after = None
        if since is not None:
            forks = [first - 1 for epoch, first in self.chain if epoch > since["epoch"]]
            kept = min([since["offset"], *forks])
            told["recovered"] = kept == since["offset"] and kept >= self.floor
            if kept < since["offset"]:
                told["rewound"] = {"epoch": self.epoch, "offset": kept}
                effect = {"rewind": kept}
            after = max(kept, self.floor)
            gaps: list[dict[str, Any]] = []
            if kept < self.floor and self.counts_losses:
                gaps = [{"from": kept + 1, "to": self.floor, "reason": "overrun"}]
            elif kept < self.floor:
                gaps = [{"from": 0, "to": None, "reason": "overrun"}]
                effect = {"reset": after}
            if asked_gaps := since.get("gaps"):
                told["filled"] = list(self._known(asked_gaps, kept))
        elif snapshot is not None:
            after, gaps = max(self.last - snapshot, self.floor), []
            effect = {"reset": after}
        else:
            effect = {"reset": self.last}
        if after is not None:
            runs = list(self._runs(after))
            told["trades"] = [self._trade(run[0]) for run in runs if is_trade(self.places[run[0]])]
            told["gaps"] = gaps + [self._hole(run) for run in runs if not is_trade(self.places[run[0]])]
        if self.format == "compact":
            columns = ["topic", "offset", "timestamp", "side", "price", "qty", "tradeId", "source"]
            told |= {"topic": 7, "columns": columns, "sources": ["else", "acme"]}
        head = {"channel": "trades", "symbol": self.symbol, "event": "subscribed"}
        self.told = self.last
        return head | told, effect

    def _known(self, gaps: list[list[int]], kept: int) -> Iterator[dict[str, Any]]:
        for first, last in gaps:
            places = [at for at in range(first, min(last, kept) + 1) if at in self.places]
            for known, run in groupby(places, lambda at: is_trade(self.places[at])):
                if known:
                    yield self._run(list(run))

    def _tell_live(self) -> None:
        if self.told is None:
            return
        for run in self._runs(self.told):
            if not is_trade(self.places[run[0]]):
                head = {"symbol": self.symbol, "channel": "trades", "epoch": self.epoch}
                self._say("stream.gap", head | self._hole(run))
            elif self.format == "compact":
                self.wire.append((text(self._trade(run[0])), {}))
            else:
                self._say("trades.update", self._trade(run[0]))
        self.told = self.last

    def _say(self, method: str, params: dict[str, Any]) -> None:
        self.wire.append((text({"jsonrpc": "2.0", "method": method, "params": params}), {}))

    def _runs(self, after: int) -> Iterator[list[int]]:
        """The places behind `after` as entries: each trade and unknown number alone, a gap together."""
        places = [at for at in sorted(self.places) if at > after]
        for name, group in groupby(places, lambda at: self.places[at]):
            run = list(group)
            yield from ([at] for at in run) if name == "unknown" else [run]

    def _run(self, run: list[int]) -> dict[str, Any]:
        return {"from": run[0], "to": run[-1], "trades": [self._trade(at) for at in run]}

    def _hole(self, run: list[int]) -> dict[str, Any]:
        unknown = self.places[run[0]] == "unknown"
        return {"from": run[0], "to": None if unknown else run[-1], "reason": "source_gap"}

    def _trade(self, at: int) -> Any:
        number = self.places[at]
        assert isinstance(number, int)
        price, quantity = digits(number)
        side = ("buy", "sell", None)[number % 3]
        if self.format == "compact":
            moment = 1_700_000_000_000_000 + number
            return [
                7,
                at,
                moment,
                side,
                Number(price),
                Number(quantity),
                str(number),
                1 if number % 2 else "new",
            ]
        quoted = self.format == "strings"
        return {
            "seqnum": at,
            "event": "updated",
            "channel": "trades",
            "symbol": self.symbol,
            "timestamp": f"2023-11-14T22:13:20.{number:06}Z",
            "side": side,
            "qty": quantity if quoted else Number(quantity),
            "price": price if quoted else Number(price),
            "tradeId": str(number),
            "source": "acme" if number % 2 else "new",
            "offset": at,
        }


class Number(str):
    """A JSON number with exactly these digits."""


def text(value: Any) -> str:
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(key)}:{text(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(text, value)) + "]"
    return json.dumps(value)


@define
class Reader:
    """What somebody knows who sees nothing but the events."""

    places: dict[int, Cell] = field(factory=dict)

    def take(self, event: Event) -> None:
        match event:
            case Trade():
                self._put(event)
            case Gap(first=0):
                self.places.clear()
            case Gap():
                new = dict.fromkeys(range(event.first, event.last + 1), "exact" if event.exact else "unknown")
                assert self.places.keys().isdisjoint(new)
                self.places |= new
            case Filled():
                for trade in event.trades:
                    assert self.places.pop(trade.offset) == "exact"
                    self._put(trade)
            case Rewound():
                behind = {at: cell for at, cell in self.places.items() if at > event.offset}
                assert event.dropped == sum(is_trade(cell) for cell in behind.values())
                self.places = {at: cell for at, cell in self.places.items() if at <= event.offset}

    def _put(self, trade: Trade) -> None:
        assert trade.offset not in self.places
        assert trade.trade_id is not None
        number = int(trade.trade_id)
        self.places[trade.offset] = number
        price, quantity = digits(number)
        assert (str(trade.price), trade.quantity) == (price, Decimal(quantity))
        assert trade.side == ("buy", "sell", None)[number % 3]
        assert trade.timestamp.microsecond == number
        assert trade.source == ("acme" if number % 2 else "new")


@define
class World:
    server: Server
    client: Client
    reader: Reader = field(factory=Reader)
    begin: int = 0

    def deliver(self, count: int) -> None:
        """The next messages arrive, several updates as one array."""
        arrived, self.server.wire = self.server.wire[:count], self.server.wire[count:]
        for _message, effect in arrived:
            self.begin = effect.get("reset", min(self.begin, effect.get("rewind", self.begin)))
        messages = [message for message, _effect in arrived]
        packed = len(messages) > 1 and not any('"result"' in message for message in messages)
        for message in [f"[{','.join(messages)}]"] if packed else messages:
            for event in self.client.hear(message):
                self.reader.take(event)

    def cut(self, _count: int) -> None:
        self.server.hang_up()
        self.client.lost()

    def connect(self, _count: int) -> None:
        self.cut(0)
        [call] = self.client.connect()
        self.server.answer(call)

    def crash(self, count: int) -> None:
        self.server.crash(count)
        self.client.lost()

    def do(self, deed: str, count: int) -> None:
        getattr(self if hasattr(self, deed) else self.server, deed)(count)

    def check(self) -> None:
        """After a last connection both have the same, place by place."""
        self.connect(0)
        self.deliver(len(self.server.wire))
        stream = self.client.streams[Topic("trades", SYMBOL)]
        truth = {
            at: cell if is_trade(cell) else "exact" if str(cell).startswith("exact") else "unknown"
            for at, cell in self.server.places.items()
            if at > self.begin
        }
        told_exact = {at: cell for at, cell in self.reader.places.items() if truth.get(at) != cell}
        # A slow client's gap counts places; in one of them the server itself may not know how many there were.
        assert all(cell == "exact" for cell in told_exact.values())
        assert all(truth[at] == "unknown" or at <= self.server.floor for at in told_exact)
        assert self.reader.places.keys() == truth.keys()
        held: dict[int, Cell] = {}
        for entry in stream.log:
            for at in range(entry.first, entry.last + 1) if entry.first else ():
                kind: Cell = "exact"
                if isinstance(entry, Trade):
                    kind = int(entry.trade_id or 0)
                elif not entry.exact:
                    kind = "unknown"
                held[at] = kind
        assert held == self.reader.places
        assert (stream.begin, stream.epoch, stream.offset) == (
            self.begin,
            self.server.epoch,
            self.server.last,
        )


DEEDS = (
    "trades",
    "gap",
    "unknown",
    "slow",
    "fill",
    "forget",
    "crash",
    "cut",
    "connect",
    "deliver",
    "deliver",
)


@settings(max_examples=400)
@given(
    st.sampled_from(("json", "strings", "compact")),
    st.sampled_from((None, 0, 3)),
    st.booleans(),
    st.lists(st.tuples(st.sampled_from(DEEDS), st.integers(1, 6)), max_size=40),
)
def test_any_history_cut_at_any_message_is_the_servers(
    format: Any, snapshot: int | None, counts_losses: bool, deeds: list[tuple[str, int]]
) -> None:
    """Whatever happens, after the next connection the client's log is the server's from where it began: each place
    once, filled gaps filled, nothing of a lost branch. Who reads the events alone knows the same."""
    client = Client(format=format, keep=None)
    client.follow(SYMBOL, snapshot=snapshot)
    world = World(Server(format, counts_losses), client)
    for deed, count in [("trades", 2), ("connect", 0), *deeds]:
        world.do(deed, count)
    world.check()
