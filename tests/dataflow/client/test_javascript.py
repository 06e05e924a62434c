"""The client in JavaScript decides as the core in Python does: the same messages make the same events and positions.

Both hear a pretended server (`test_model`): of an honest one everything, of a lying one everything up to the lie.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow.client import (
    Client,
    Event,
    Filled,
    Gap,
    Notice,
    Refused,
    Rewound,
    ServerFault,
    Subscribed,
    Topic,
    Trade,
)
from tests.support.node import FOLDER, NODE, compiled

from .test_model import DEEDS, SYMBOL, Reader, Server, text

LIES = ("skip", "twice", "swap", "garbage", "foreign")
GARBAGE = (
    "",
    "nonsense",
    "{}",
    "null",
    "7",
    "[]",
    '{"jsonrpc":"2.0","result":null,"id":null}',
    '{"jsonrpc":"2.0","method":"trades.update","params":{}}',
    '{"jsonrpc":"2.0","method":"stream.gap","params":{"symbol":"BTC-USD","channel":"trades","epoch":1,"from":"x"}}',
    '{"jsonrpc":"2.0","method":"stream.rewind","params":{"symbol":"BTC-USD","channel":"trades","epoch":1}}',
)


@define
class Program:
    """`tests/node/agreement.mjs`: a case in, an outcome out."""

    process: subprocess.Popen[str]

    def run(self, **case: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(case) + "\n")
        self.process.stdin.flush()
        outcome: dict[str, Any] = json.loads(self.process.stdout.readline())
        return outcome


@pytest.fixture(scope="module")
def javascript() -> Iterator[Program]:
    command = [str(NODE), "agreement.mjs"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=FOLDER, stdin=pipe, stdout=pipe, text=True) as process:
        yield Program(process)
        process.kill()


@define
class World:
    """The server, the core, and what happened, as a case for the other client."""

    server: Any  # a `Server`, or a `Hub`
    core: Client
    events: list[Event] = field(factory=list)
    calls: list[Any] = field(factory=list)
    faults: list[bool] = field(factory=list)
    steps: list[Any] = field(factory=list)
    is_cut: bool = True

    def connect(self, _count: int) -> None:
        self.server.hang_up()
        self.steps.append(["connect", None])
        self.is_cut = False
        self.ask(self.core.connect())

    def ask(self, calls: list[str]) -> None:
        self.calls.append([json.loads(call)["params"] for call in calls])
        for call in calls:
            self.server.answer(call)

    def deliver(self, count: int) -> None:
        messages = [message for message, _ in self.server.wire[:count]]
        del self.server.wire[:count]
        packed = len(messages) > 1 and not any('"result"' in message for message in messages)
        for message in [f"[{','.join(messages)}]"] if packed else messages:
            self.say(message)

    def say(self, message: str) -> None:
        if self.is_cut:
            return
        self.steps.append(["say", message])
        try:
            for event in self.core.hear(message):
                if not isinstance(event, Subscribed):  # the other client does not tell it
                    self.events.append(event)
        except ServerFault:
            self.is_cut = True
            self.server.hang_up()
            self.core.lost()
        self.faults.append(self.is_cut)

    def crash(self, count: int) -> None:
        self.server.crash(count)

    def lie(self, kind: str, number: int) -> None:
        # Answers stay where they are: the core takes them twice, and takes fills before them.
        wire, told = (
            self.server.wire,
            [n for n, (text, _) in enumerate(self.server.wire) if '"method"' in text],
        )
        at = told[number % len(told)] if told else None
        if kind == "garbage":
            self.say(GARBAGE[number % len(GARBAGE)])
        elif kind == "foreign":
            params = self.server._trade_of(number)
            self.say(json.dumps({"jsonrpc": "2.0", "method": "trades.update", "params": params}))
        elif at is None:
            pass
        elif kind == "skip":
            del wire[at]
        elif kind == "twice":
            wire.insert(at, wire[at])
        elif kind == "swap":
            wire[at], wire[told[-1]] = wire[told[-1]], wire[at]

    def do(self, deed: str, number: int) -> None:
        if deed in LIES:
            self.lie(deed, number)
        elif deed == "cut":
            self.connect(0)
        else:
            getattr(self if hasattr(self, deed) else self.server, deed)(number)

    @property
    def position(self) -> dict[str, Any]:
        stream = self.core.streams.get(Topic("trades", SYMBOL))
        return {} if stream is None or stream.since is None else {SYMBOL: stream.since}


class Liar(Server):
    def _trade_of(self, number: int) -> dict[str, Any]:
        moment = "2023-11-14T22:13:20.000001Z"
        return {
            "symbol": ("ETH-USD", SYMBOL)[number % 2],
            "offset": number,
            "timestamp": moment,
            "side": "buy",
            "price": "1.0",
            "qty": "2.0",
            "tradeId": "7",
            "source": "acme",
        }


@define
class User(Reader):
    """Somebody who sees nothing but the events of the client in JavaScript."""

    position: int = 0
    left_out: int = 0

    def hear(self, events: list[dict[str, Any]]) -> None:
        for event in events:
            match event:
                case {"type": "rewound", "epoch": epoch, "offset": offset, "dropped": dropped}:
                    self.take(Rewound(symbol=SYMBOL, epoch=epoch, offset=offset, dropped=dropped))
                case {"type": "gap"}:
                    self.left_out += event.get("skipped", 0) if event["reason"] == "slow_reader" else 0
                    self.take(msgspec.convert(event, Gap))
                case {"type": "trade"}:
                    self.take(trade(event))
                case {"type": "filled"}:
                    trades = tuple(map(trade, event["trades"]))
                    self.take(Filled(symbol=SYMBOL, first=event["from"], last=event["to"], trades=trades))

    def check(self, positions: dict[str, Any]) -> None:
        """What a later `since` would say is what this user has."""
        if self.places:
            assert positions[SYMBOL]["offset"] == max(self.places)
            open_places = {
                at for first, last in positions[SYMBOL].get("gaps", ()) for at in range(first, last + 1)
            }
            assert {at for at, cell in self.places.items() if cell == "exact"} <= open_places


def trade(event: dict[str, Any]) -> Trade:
    fields = event | {"price": Decimal(event["price"]), "qty": Decimal(event["qty"])}
    return msgspec.convert(fields, Trade)


def told(event: Event) -> dict[str, Any]:
    """An event of the core as the other client has it."""
    kind = {Trade: "trade", Gap: "gap", Filled: "filled", Rewound: "rewound"}[type(event)]
    fields = msgspec.to_builtins(event, builtin_types=(Decimal, datetime))
    return {"type": kind} | {
        name: spelled(value) for name, value in fields.items() if name != "skipped" or value
    }


def spelled(value: Any) -> Any:
    match value:
        case Decimal():
            return str(value)
        case datetime():
            return value.isoformat(timespec="microseconds").replace("+00:00", "Z")
        case dict():
            return {"type": "trade"} | {name: spelled(each) for name, each in value.items()}
        case list() | tuple():
            return [spelled(each) for each in value]
    return value


@settings(max_examples=300)
@given(
    st.sampled_from((None, 0, 3)),
    st.booleans(),
    st.lists(st.tuples(st.sampled_from((*DEEDS, *DEEDS, *LIES)), st.integers(1, 6)), max_size=40),
)
def test_both_say_and_tell_the_same(
    javascript: Program, snapshot: int | None, counts_losses: bool, deeds: list[tuple[str, int]]
) -> None:
    """The same calls with the same `since`, the same events in the same order, the same faults, the same position."""
    core = Client(format="strings", keep=None)
    core.follow(SYMBOL, snapshot=snapshot)
    world = World(Liar("strings", counts_losses), core)
    for deed, number in [("trades", 2), ("connect", 0), *deeds, ("deliver", 99)]:
        world.do(deed, number)
    outcome = javascript.run(snapshot=snapshot, since=None, room=None, steps=world.steps)
    assert [told(event) for event in world.events] == outcome["told"]
    assert world.calls == outcome["calls"]
    assert world.faults == outcome["faults"]
    assert world.position == outcome["positions"]


@define
class Hub:
    """The streams of all symbols behind one subscription. Its calls may be refused for a while."""

    counts_losses: bool
    wire: list[tuple[str, dict[str, Any]]] = field(factory=list)
    streams: list[Server] = field(factory=list)
    is_followed: bool = False
    refuses: int = 0  # the call of that number, of the next ones
    since: dict[str, Any] = field(factory=dict)  # of the parts that came
    came: int = 0

    def appear(self, _number: int) -> None:
        """A further symbol, told to those who follow all."""
        if len(self.streams) == len(NAMES):
            return
        made = Server("strings", self.counts_losses, wire=self.wire, symbol=NAMES[len(self.streams)])
        self.streams.append(made)
        if self.is_followed:
            place = {"epoch": made.epoch, "offset": made.last}
            made._say("stream.started", {"symbol": made.symbol, "channel": "trades", **place})
            made.told = made.last

    def busy(self, number: int) -> None:
        self.refuses = number

    def crash(self, count: int) -> None:
        for each in self.streams:
            each.crash(count)
        self.hang_up()

    def hang_up(self) -> None:
        self.is_followed, self.came = False, 0
        for each in self.streams:
            each.hang_up()

    def answer(self, call: str) -> None:
        asked = json.loads(call)
        params = asked["params"]
        number, count = params.get("part", [1, 1])
        self.since = {} if number == 1 else self.since
        self.refuses -= 1
        told: dict[str, Any] = {"error": {"code": -32002, "message": "too many calls"}}
        if self.refuses != 0 and self.came == number - 1:
            self.came = number % count
            self.since |= params.get("since", {})
            told = {"result": []}
            if number == count:
                self.is_followed = True
                snapshot = params.get("snapshot")
                told = {
                    "result": [each.begin(self.since.get(each.symbol), snapshot)[0] for each in self.streams]
                }
        elif self.refuses != 0:
            told = {"error": {"code": -32000, "message": "temporarily unavailable"}}
            self.came = 0
        self.wire.append((text({"jsonrpc": "2.0", "id": asked["id"], **told}), {}))


@define
class AllOfThem(World):
    """A world of several streams."""

    is_refused: bool = False  # as far as the client knows

    def say(self, message: str) -> None:
        super().say(message)
        refused = [event for event in self.events if isinstance(event, Refused)]
        self.is_refused |= bool(refused)
        self.events = [event for event in self.events if not isinstance(event, Refused | Notice)]

    def connect(self, number: int) -> None:
        self.is_refused = False
        super().connect(number)

    def again(self, _number: int) -> None:
        """The pause after a refusal is over."""
        if self.is_refused and not self.is_cut:
            self.is_refused = False
            self.steps.append(["again", None])
            self.ask(self.core.again(Topic("trades", "*")))

    def storm(self, number: int) -> None:
        """It comes back, is refused, and waits."""
        self.server.busy(number)
        self.connect(0)
        self.deliver(9)
        self.again(0)

    def do(self, deed: str, number: int) -> None:
        if deed in ("trades", "gap", "unknown", "fill", "forget"):
            getattr(self.server.streams[number % len(self.server.streams)], deed)(number)
        else:
            super().do(deed, number)

    @property
    def position(self) -> dict[str, Any]:
        return {topic.symbol: stream.since for topic, stream in self.core.streams.items() if stream.since}


NAMES = ('A"B-USD', 20 * "\u20ac", "7", "\U0001f600", "B\\-USD", "CONSTRUCTOR")  # the second has many bytes
ALL_DEEDS = (
    "trades",
    "gap",
    "unknown",
    "fill",
    "forget",
    "appear",
    "busy",
    "again",
    "storm",
    "crash",
    "connect",
)


@settings(max_examples=200)
@given(
    st.sampled_from((None, 3)),
    st.booleans(),
    st.lists(
        st.tuples(
            st.sampled_from((*ALL_DEEDS, *ALL_DEEDS, *("deliver",) * 6, "skip", "twice")), st.integers(1, 6)
        ),
        max_size=50,
    ),
)
def test_both_go_on_with_all_streams(
    javascript: Program, snapshot: int | None, counts_losses: bool, deeds: list[tuple[str, int]]
) -> None:
    """Of all symbols, whose positions need several calls, some of them refused: the same parts, the same events, and
    each stream is the server's."""
    core = Client(format="strings", keep=None)
    world = AllOfThem(Hub(counts_losses), core)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dataflow.client.client.POSITIONS_AT_ONCE", 100)
        patch.setattr("dataflow.client.client.MOST_GAPS_OF_ALL", 4)
        core.follow("*", snapshot=snapshot)
        begin = [("appear", 0), ("appear", 0), ("appear", 0), ("trades", 2), ("connect", 0)]
        for deed, number in [*begin, *deeds, ("deliver", 99)]:
            world.do(deed, number)
    outcome = javascript.run(
        symbol="*", snapshot=snapshot, since=None, room=None, small=True, steps=world.steps
    )
    assert world.calls == outcome["calls"]
    assert [told(event) for event in world.events] == outcome["told"]
    assert world.faults == outcome["faults"]
    assert world.position == outcome["positions"]
    if counts_losses:  # nothing has to begin anew
        assert all(event.first for event in world.events if isinstance(event, Gap))
    if world.server.is_followed and not {"skip", "twice"} & {deed for deed, _ in deeds}:
        ends = {each.symbol: (each.epoch, each.last) for each in world.server.streams}
        assert {s: (each["epoch"], each["offset"]) for s, each in world.position.items()} == ends


TRADE = {
    "symbol": SYMBOL,
    "channel": "trades",
    "timestamp": "2023-11-14T22:13:20Z",
    "side": "buy",
    "price": "-1.5",
}
TRADE |= {"qty": "1.0", "tradeId": "x", "source": "acme"}
GAP = {"symbol": SYMBOL, "channel": "trades", "epoch": 2, "from": 9, "to": 9, "reason": "source_gap"}
FILL = GAP | {"from": 6, "to": 6, "trades": [TRADE | {"offset": 6}]}
PLACE = {"symbol": SYMBOL, "channel": "trades"}
NEVER: dict[str, tuple[str, dict[str, Any]]] = {  # the stream is at place 8 of epoch 2, with a gap at 6 and 7
    "a quantity of nothing": ("trades.update", TRADE | {"offset": 9, "qty": "0.00"}),
    "less than nothing": ("trades.update", TRADE | {"offset": 9, "qty": "-1"}),
    "a quantity without end": ("trades.update", TRADE | {"offset": 9, "qty": "Infinity"}),
    "a price that is no number": ("trades.update", TRADE | {"offset": 9, "price": "NaN"}),
    "a third side": ("trades.update", TRADE | {"offset": 9, "side": "hold"}),
    "a time of nowhere": ("trades.update", TRADE | {"offset": 9, "timestamp": "2023-11-14T22:13:20"}),
    "a gap of an earlier epoch": ("stream.gap", GAP | {"epoch": 1}),
    "a gap of a later epoch": ("stream.gap", GAP | {"epoch": 3}),
    "a gap of no epoch": ("stream.gap", GAP | {"epoch": None}),
    "a gap that ends before it begins": ("stream.gap", GAP | {"to": 8}),
    "a fill of an earlier epoch": ("stream.filled", FILL | {"epoch": 1}),
    "another place": ("trades.update", TRADE | {"offset": 10}),
    "a gap without end": ("stream.gap", GAP | {"to": 1 << 70}),
    "a fill of all there is": ("stream.filled", FILL | {"from": 1, "to": 10**15, "trades": []}),
    "a fill of another place": ("stream.filled", FILL | {"trades": [TRADE | {"offset": 7}]}),
    "a fill with nothing": ("stream.filled", FILL | {"trades": [TRADE | {"offset": 6, "qty": "0"}]}),
    "a fill of another symbol": ("stream.filled", FILL | {"trades": [TRADE | {"offset": 6, "symbol": "ETH-USD"}]}),
    "a rewind before all": ("stream.rewind", PLACE | {"epoch": 3, "offset": -5}),
    "a rewind to what has not come": ("stream.rewind", PLACE | {"epoch": 3, "offset": 11}),
    "a rewind to where it is": ("stream.rewind", PLACE | {"epoch": 3, "offset": 8}),
    "a rewind within the epoch": ("stream.rewind", PLACE | {"epoch": 2, "offset": 7}),
    "a rewind to an earlier epoch": ("stream.rewind", PLACE | {"epoch": 1, "offset": 7}),
    "an earlier epoch that goes on": ("answer", {"epoch": 1}),
    "a rewind to another epoch": ("answer", {"recovered": False, "rewound": {"epoch": 3, "offset": 7}}),
    "a rewind within the epoch of the answer": ("answer", {"rewound": {"epoch": 2, "offset": 7}}),
    "trades of another symbol": ("answer", {"trades": [TRADE | {"offset": 9, "symbol": "ETH-USD"}], "offset": 9}),
    "a fill of another symbol in the answer": (
        "answer",
        {"filled": [{"from": 6, "to": 6, "trades": [TRADE | {"offset": 6, "symbol": "ETH-USD"}]}]},
    ),
    "fewer places than it says": ("answer", {"offset": 9}),
    "the count is behind": ("answer", {"offset": 7}),
    "a refusal in the answer": ("answer", {"error": {"code": -32000, "message": "no"}}),
}  # fmt: skip


@pytest.mark.parametrize("lie", NEVER)
def test_what_a_right_server_never_says(javascript: Program, lie: str) -> None:
    """Both take it for a fault of the server, and go on at the last right place."""
    world, (method, params) = honest(None, True), NEVER[lie]
    for deed, number in [("trades", 2), ("deliver", 99), ("crash", 1), ("connect", 0), ("trades", 2)]:
        world.do(deed, number)
    for deed, number in [("gap", 2), ("trades", 1), ("deliver", 99)]:
        world.do(deed, number)
    before = world.position
    assert before == {SYMBOL: {"epoch": 2, "offset": 8, "gaps": [[6, 7]]}}
    if method == "answer":
        world.connect(0)
        [(message, _)] = world.server.wire
        answer = json.loads(message)
        answer |= {"error": params["error"]} if "error" in params else {"result": answer["result"] | params}
        world.say(json.dumps(answer))
    else:
        world.say(json.dumps({"jsonrpc": "2.0", "method": method, "params": params}))
    assert world.is_cut
    assert world.position == before
    for deed, number in [("connect", 0), ("trades", 1), ("deliver", 99)]:
        world.do(deed, number)
    outcome = javascript.run(snapshot=None, since=None, room=None, steps=world.steps)
    assert not world.is_cut
    assert world.faults == outcome["faults"]
    assert [told(event) for event in world.events] == outcome["told"]
    assert world.calls == outcome["calls"]
    assert world.position == outcome["positions"]


def honest(snapshot: int | None, counts_losses: bool, before: Sequence[tuple[str, int]] = ()) -> World:
    """`before`: what happened at the server before the client came."""
    core = Client(format="strings", keep=None)
    core.follow(SYMBOL, snapshot=snapshot)
    world = World(Server("strings", counts_losses), core)
    for deed, number in [*before, ("trades", 2)]:
        getattr(world.server, deed)(number)
    world.connect(0)
    return world


@settings(max_examples=200)
@given(
    st.booleans(),
    st.integers(1, 12),
    st.lists(st.tuples(st.sampled_from((*DEEDS, "take")), st.integers(1, 6)), max_size=50),
)
def test_a_slow_reader_knows_what_it_lacks(
    javascript: Program, counts_losses: bool, room: int, deeds: list[tuple[str, int]]
) -> None:
    """Whatever waits too long: each place comes once and in order, those left out as gaps, and the position is that of
    what was taken."""
    world = honest(3, counts_losses)
    for deed, number in [*deeds, ("deliver", 99), ("connect", 0), ("deliver", 99)]:
        if deed == "take":
            world.steps.append([deed, number])
        else:
            world.do(deed, number)
    world.steps.append(["take", 500])
    outcome = javascript.run(snapshot=3, since=None, room=room, steps=world.steps)
    slow, fast = User(), User()
    fast.hear([told(event) for event in world.events])
    begun = 0
    for count, positions in outcome["taken"]:
        slow.hear(outcome["told"][begun:count])
        slow.check(positions)
        begun = count
    assert slow.places.keys() == fast.places.keys()
    assert all(cell in ("exact", fast.places[at]) for at, cell in slow.places.items())
    assert bool(slow.left_out) <= bool(outcome["dropped"])
    position, whole = outcome["positions"][SYMBOL], world.position[SYMBOL]
    assert (position["epoch"], position["offset"]) == (whole["epoch"], whole["offset"])


@settings(max_examples=150)
@given(
    st.sampled_from((None, 0, 3)),
    st.booleans(),
    st.lists(st.tuples(st.sampled_from(DEEDS), st.integers(1, 6)), max_size=25),
    st.lists(st.tuples(st.sampled_from(DEEDS), st.integers(1, 6)), max_size=25),
)
def test_positions_outlive_the_program(
    javascript: Program,
    snapshot: int | None,
    counts_losses: bool,
    deeds: list[tuple[str, int]],
    later: list[tuple[str, int]],
) -> None:
    """Who keeps the positions and begins again with them misses nothing, gets nothing twice, and fills his gaps."""
    world = honest(snapshot, counts_losses)
    for deed, number in [*deeds, ("connect", 0), ("deliver", 99)]:
        world.do(deed, number)
    first = javascript.run(snapshot=snapshot, since=None, room=None, steps=world.steps)
    world.steps.clear()
    for deed, number in [("trades", 1), ("connect", 0), *later, ("deliver", 99)]:
        world.do(deed, number)
    second = javascript.run(snapshot=None, since=first["positions"][SYMBOL], room=None, steps=world.steps)
    events = [told(event) | {"dropped": 0} for event in world.events]
    assert events == [event | {"dropped": 0} for event in first["told"] + second["told"]]
    assert world.calls == first["calls"] + second["calls"]
    assert world.position == second["positions"]


FAST = tuple(deed for deed in DEEDS if deed != "slow")  # else only one of both lacks what was left out


@settings(max_examples=150)
@given(
    st.booleans(),
    st.integers(0, 12),
    st.lists(st.tuples(st.sampled_from(FAST), st.integers(1, 6)), max_size=25),
    st.lists(st.tuples(st.sampled_from(FAST), st.integers(1, 6)), max_size=25),
)
def test_a_later_subscription_to_the_same_symbol(
    javascript: Program,
    counts_losses: bool,
    snapshot: int,
    deeds: list[tuple[str, int]],
    later: list[tuple[str, int]],
) -> None:
    """It gets its own snapshot, and then what the first one gets; the first one is told nothing twice."""
    world = honest(2, counts_losses, before=[("trades", 1), ("gap", 4), ("trades", 1), ("gap", 2)])
    for deed, number in [*deeds, ("connect", 0), ("deliver", 99)]:
        world.do(deed, number)
    world.steps.append(["follow", snapshot])
    params = {"channel": "trades", "symbol": SYMBOL, "snapshot": snapshot}
    world.server.answer(json.dumps({"id": f"trades:{SYMBOL}", "params": params}))
    (message, _), *_ = world.server.wire
    world.server.wire.clear()
    world.steps.append(["say", message])
    begin = max(world.server.last - snapshot, world.server.floor)
    for deed, number in [*later, ("deliver", 99), ("connect", 0), ("deliver", 99)]:
        world.do(deed, number)
    outcome = javascript.run(snapshot=2, since=None, room=None, steps=world.steps)
    assert [told(event) for event in world.events] == outcome["told"]
    one, other = User(), User()
    one.hear(outcome["told"])
    other.hear(outcome["toldLater"])
    known = {at: cell for at, cell in one.places.items() if at > begin}
    assert known.items() <= other.places.items()
    for at, cell in other.places.items() - one.places.items():  # before the first one began
        truth = world.server.places.get(at)
        # The answers are those to the core, which never asked for these gaps.
        may_lack = at <= world.server.floor or {"cut", "connect", "crash"} & {deed for deed, _ in later}
        assert cell == truth or not isinstance(truth, int) or (may_lack and cell == "exact")


def test_the_declarations_are_those_of_the_code(checkout: Path, tmp_path: Path) -> None:
    """The compiler of TypeScript takes the module for what `client.d.ts` says, and a program in TypeScript for right."""
    room = checkout / "dataflow" / "client" / "javascript"
    for name in ("client.js", "client.d.ts"):
        shutil.copy(room / name, tmp_path)
    shutil.copy(room / "client.js", tmp_path / "untyped.js")
    shutil.copy(FOLDER / "typed.ts", tmp_path)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    assert compiled(tmp_path, "typed.ts") == ""
