"""A missing trade that comes late reaches everybody who was told that it is missing, once, and nobody else."""

from __future__ import annotations

import csv
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from attrs import define
from trio.testing import wait_all_tasks_blocked

from actors.outbox import SlowClient
from dataflow.cache.archive import Batch, Run
from dataflow.cache.history import History
from dataflow.domain import Topic
from dataflow.faces.jsonrpc.methods import Calls
from dataflow.faces.sse import Stream, Wanted
from dataflow.gateway.recovery import Since
from dataflow.server.handshake import Handshake
from dataflow.settings.schema import Cache, Session
from simulators import Exchange, Trade, open_binance
from tests.actors.fakes import FakeWire
from tests.support.memory_archive import MemoryArchive
from tests.support.waiting import until
from tests.system.daemon import Client, Daemon, client, daemon, from_binance, http_client

SYMBOL = "BTC-USDT"
TOPIC = Topic("trades", SYMBOL)
NOBODY = Handshake("/", "", (), "192.0.2.1:1", encrypted=False)
ALL = 1 << 40  # bytes: as much as there is


@define
class Stage:
    exchange: Exchange
    daemon: Daemon

    @property
    def history(self) -> History:
        return self.daemon.core.history(SYMBOL)

    async def trade(self, *ids: int) -> None:
        """The exchange sends these; returns when the last one is judged."""
        for number in ids:
            at = 1_700_000_000_000_000 + number
            await self.exchange.publish(
                Trade(id=number, symbol="BTCUSDT", side="sell", price="2.50", qty="0.5", timestamp_us=at)
            )
        last = str(ids[-1])
        await until(lambda: last in self.history._feed("binance").ids)

    def places(self) -> list[str]:
        return shown([entry_of(place, entry) for place, entry in self.history.places(0, 1000)])

    async def fake(self, room: int) -> FakeWire:
        """A client that takes `room` bytes, and more when its `reads` says so."""
        wire = FakeWire(room)
        await self.daemon.hall.open_session(wire, lambda session: Calls(session, self.daemon.hall), NOBODY)
        return wire

    def since(self, offset: int, *gaps: tuple[int, int], epoch: int | None = None) -> dict[str, Any]:
        epoch = self.history.epoch if epoch is None else epoch
        return {"epoch": epoch, "offset": offset, "gaps": [list(gap) for gap in gaps]}


def entry_of(place: int, entry: Any) -> dict[str, Any]:
    if hasattr(entry, "first"):
        return {"from": entry.first, "to": entry.last}
    return {"offset": place, "tradeId": entry.trade_id}


def shown(entries: list[dict[str, Any]]) -> list[str]:
    """Each place: the id of its trade, "-" in a gap."""
    found: list[str] = []
    for entry in entries:
        found += ["-"] * (entry["to"] - entry["from"] + 1) if "from" in entry else [entry["tradeId"]]
    return found


def told(fill: dict[str, Any]) -> tuple[int, int, list[str]]:
    assert [each["offset"] for each in fill["trades"]] == list(range(fill["from"], fill["to"] + 1))
    return fill["from"], fill["to"], [each["tradeId"] for each in fill["trades"]]


@asynccontextmanager
async def stage(**tables: Any) -> AsyncIterator[Stage]:
    async with (
        open_binance() as exchange,
        daemon(sources=from_binance(exchange.url, SYMBOL, eager=True), **tables) as d,
    ):
        await exchange.wait_subscribed(["BTCUSDT"])
        yield Stage(exchange, d)


async def test_who_was_told_of_the_gap_is_told_of_the_fill() -> None:
    """In a message of its own, behind the gap; then the stream goes on where it was."""
    async with stage() as s, client(s.daemon.url) as early:
        await early.call("subscribe", channel="trades", symbol=SYMBOL)
        await s.trade(1, 5)
        await early.until(lambda: early.trades()[1:])
        await s.trade(3)
        await early.until(lambda: early.of("stream.filled"))
        await s.trade(2, 4, 6)
        await early.until(lambda: early.trades()[2:])
        fills = early.of("stream.filled")
        assert [told(each) for each in fills] == [(3, 3, ["3"]), (2, 2, ["2"]), (4, 4, ["4"])]
        assert {(each["symbol"], each["channel"], each["epoch"]) for each in fills} == {
            (SYMBOL, "trades", s.history.epoch)
        }
        assert s.places() == ["1", "2", "3", "4", "5", "6"]
        async with client(s.daemon.url) as late:
            answer = await late.call("subscribe", channel="trades", symbol=SYMBOL, snapshot=9)
            assert shown(answer["trades"]) == ["1", "2", "3", "4", "5", "6"]
            assert "gaps" not in answer
            await late.call("ping")
            assert late.of("stream.filled") == [], "it never heard of a gap"


async def test_a_crash_of_the_topic_neither_repeats_nor_loses_a_fill() -> None:
    """What was told is remembered outside of the actor."""
    async with stage() as s, client(s.daemon.url) as one:
        await one.call("subscribe", channel="trades", symbol=SYMBOL)
        await s.trade(1, 4)
        await one.until(lambda: one.trades()[1:])
        await s.trade(2)
        await one.until(lambda: one.of("stream.filled"))
        fanout = s.daemon.core.topics.opened(TOPIC)
        assert fanout is not None
        fanout.fills = 0  # as if the actor had died before it wrote down that all had it
        await s.trade(3, 5)
        await one.until(lambda: one.trades()[2:])
        assert [told(each) for each in one.of("stream.filled")] == [(2, 2, ["2"]), (3, 3, ["3"])]


async def test_whoever_asks_again_gets_what_came_meanwhile() -> None:
    """Pages, downloads and candles. A page that is kept (`ETag`) is not the same any more."""
    path, bars = f"/api/v1/trades/{SYMBOL}", f"/api/v1/candles/{SYMBOL}?interval=1m"
    async with stage() as s, http_client(s.daemon.http) as http, client(s.daemon.url) as one:
        await s.trade(1, 5)
        before = await http.get(path)
        assert [(gap["from"], gap["to"]) for gap in before.json()["gaps"]] == [(2, 4)]
        [bar] = (await http.get(bars)).json()["candles"]
        assert (bar["count"], bar["complete"], len(bar["gaps"])) == (2, False, 1)
        await s.trade(3)
        await until(lambda: s.places() == ["1", "-", "3", "-", "5"])
        after = await http.get(path, headers={"If-None-Match": before.headers["etag"]})
        assert after.status_code == 200
        page = await one.call("getTrades", symbol=SYMBOL, after={"epoch": s.history.epoch, "offset": 1})
        for told, ids in ((after.json(), ["1", "3", "5"]), (page, ["3", "5"])):
            assert [each["tradeId"] for each in told["trades"]] == ids
            assert [(gap["from"], gap["to"]) for gap in told["gaps"]] == [(2, 2), (4, 4)]
            assert told["next"]["offset"] == 5
        lines = (await http.get(path, headers={"Accept": "application/x-ndjson"})).text.splitlines()
        assert shown([json.loads(line) for line in lines]) == ["1", "-", "3", "-", "5"]
        rows = list(csv.DictReader((await http.get(path, headers={"Accept": "text/csv"})).text.splitlines()))
        assert [row["tradeId"] or row["from"] for row in rows] == ["1", "2", "3", "4", "5"]
        await s.trade(2, 4)
        await until(lambda: s.places() == ["1", "2", "3", "4", "5"])
        [whole] = (await http.get(bars)).json()["candles"]
        assert (whole["count"], whole["complete"], whole["gaps"]) == (5, True, [])
        assert whole["rev"] > bar["rev"]


async def test_a_client_that_comes_back_asks_for_its_gaps() -> None:
    """`since` with `gaps` is answered with what is known of them; what is still missing stays a gap."""
    async with stage() as s, client(s.daemon.url) as one:
        await s.trade(1, 5, 9, 3, 4, 7)
        await until(lambda: s.places() == ["1", "-", "3", "4", "5", "-", "7", "-", "9"])
        answer = await one.call(
            "subscribe", channel="trades", symbol=SYMBOL, since=s.since(5, (2, 4), (6, 8))
        )
        assert answer["recovered"] is True
        assert [told(each) for each in answer["filled"]] == [(3, 4, ["3", "4"])], (
            "6 to 8 are behind its position"
        )
        assert shown(answer["trades"]) == ["7", "9"]
        assert [(gap["from"], gap["to"]) for gap in answer["gaps"]] == [(6, 6), (8, 8)]
        again = await one.call("subscribe", channel="trades", symbol=SYMBOL, since=s.since(9, (2, 2)))
        assert "filled" not in again
        too_many = await one.ask(
            "subscribe", channel="trades", symbol=SYMBOL, since=s.since(9, *[(2, 2)] * 1001)
        )
        assert too_many["error"]["data"]["problem"] == "at most 1,000 gaps"
        wrong = await one.ask("subscribe", channel="trades", symbol=SYMBOL, since=s.since(9, ("2", 2)))  # type: ignore[arg-type]
        assert wrong["error"]["code"] == -32602


async def test_sse_tells_a_fill_without_an_id() -> None:
    """The id is the place to go on from, and a fill moves nothing."""
    async with stage() as s:
        wire = FakeWire(ALL)
        await s.daemon.hall.open_session(wire, lambda session: Stream(session, s.daemon.hall), NOBODY)
        await wire.says(Wanted(TOPIC, None))  # type: ignore[arg-type]
        await s.trade(1, 3)
        await s.trade(2)
        await until(lambda: any("event: filled" in each for each in events(wire)))
        [filled] = [each for each in events(wire) if "event: filled" in each]
        assert "id:" not in filled
        assert told(json.loads(filled.partition("data: ")[2])) == (2, 2, ["2"])


async def test_a_fill_waits_its_turn_behind_the_gap() -> None:
    """In the outbox of a client that reads slowly the gap comes first, and the fill once."""
    async with stage() as s:
        wire = await s.fake(room=ALL)
        await wire.says(json.dumps(call("subscribe")))
        await until(lambda: wire.texts)
        wire.room = 0
        await s.trade(1, 3)
        await s.trade(2)
        await s.trade(4)
        await wait_all_tasks_blocked(0.01)
        wire.reads(ALL)
        await until(lambda: len(kinds(wire)) == 5)
        assert kinds(wire) == ["update 1", "gap 2", "update 3", "filled 2", "update 4"]


async def test_a_fill_is_not_dropped_before_a_slow_client() -> None:
    """The oldest updates are; their places are announced as left out before a fill that lies among them."""
    async with stage(session=Session(outbox=4, slow_client=SlowClient.DROP_OLDEST)) as s:
        wire = await s.fake(room=ALL)
        await wire.says(json.dumps(call("subscribe")))
        await until(lambda: wire.texts)
        wire.room = 0
        await s.trade(1, *range(3, 9))
        await s.trade(2)
        await s.trade(*range(9, 20))
        await until(lambda: s.history.last == 19)
        await wait_all_tasks_blocked(0.01)
        wire.reads(ALL)
        await until(lambda: kinds(wire)[-1:] == ["update 19"])
        assert "filled 2" in kinds(wire)
        places = [
            int(each.split()[1].partition("-")[0]) for each in kinds(wire) if not each.startswith("filled")
        ]
        assert places == sorted(places)
        assert kinds(wire).index("filled 2") > 0, "the places around it come first, as trades or as left out"


def events(wire: FakeWire) -> list[str]:
    """Of a stream of Server-Sent Events; each message of a fake wire ends a line of its own."""
    said = b"".join(wire.sent).decode()
    return [each.strip("\n") for each in said.split("\n\n") if each.strip("\n:")]


def call(method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": {"symbol": SYMBOL, **params}}


def kinds(wire: FakeWire) -> list[str]:
    """What came behind the answer: the kind and the first place of each message."""
    found = []
    for text in wire.texts:
        message = json.loads(text)
        params = message.get("params")
        if params is not None:
            kind = message["method"].split(".")[1]
            found.append(f"{kind} {params.get('offset', params.get('from'))}")
    return found


# With a disk.


@define
class Disk:
    """An archive behind the histories of a daemon, written by hand."""

    stage: Stage
    archive: MemoryArchive

    @classmethod
    def of(cls, stage: Stage) -> Disk:
        archive = MemoryArchive()
        archive.begin(stage.history.epoch)
        stage.daemon.core.tiers._archive = archive
        return cls(stage, archive)

    def write(self) -> None:
        """All that memory has and the disk has not."""
        history, streams = self.stage.history, self.archive.open().streams
        done = streams[SYMBOL].last if SYMBOL in streams else 0
        places = history.places(done, 100_000)
        if places:
            self.archive.append(Batch([Run.of(SYMBOL, places)]))
        self.stage.daemon.core.tiers.stored_from({SYMBOL: self.archive.open().streams[SYMBOL].first})


async def since(one: Client, place: dict[str, Any], **more: Any) -> dict[str, Any]:
    answer: dict[str, Any] = await one.call("subscribe", channel="trades", symbol=SYMBOL, since=place, **more)
    return answer


async def test_a_client_gets_from_disk_what_memory_has_forgotten() -> None:
    """All since its position, without a seam: `recovered` is true."""
    async with stage(cache=Cache(trades_per_symbol=10)) as s, client(s.daemon.url) as one:
        disk = Disk.of(s)
        for start in range(1, 2001, 10):
            await s.trade(*range(start, start + 10))
            disk.write()
        await s.trade(2003)
        assert s.history.first > 1900
        answer = await since(one, s.since(5))
        assert answer["recovered"] is True
        assert shown(answer["trades"]) == [str(each) for each in [*range(6, 2001), 2003]]
        assert [(gap["from"], gap["to"]) for gap in answer["gaps"]] == [(2001, 2002)]
        assert answer["offset"] == 2003
        await s.trade(2004)
        await one.until(lambda: one.trades())
        async with client(s.daemon.url) as two:
            answer = await two.call("subscribe", channel="trades", symbol=SYMBOL, snapshot=1000)
            assert shown(answer["trades"]) == [str(each) for each in [*range(1003, 2001), 2003, 2004]]


async def test_a_disk_that_fails_is_a_gap_and_no_recovery(lines: list[str]) -> None:
    """Before the answer has begun, and in its midst: never silence, and memory's part comes all the same.

    The log has one line for all clients that are told so.
    """
    async with stage(cache=Cache(trades_per_symbol=10)) as s, client(s.daemon.url) as one:
        disk = Disk.of(s)
        for start in range(1, 101, 10):
            await s.trade(*range(start, start + 10))
            disk.write()
        disk.archive.broken = "gone"
        answer = await since(one, s.since(5))
        assert answer["recovered"] is False
        first = s.history.first
        assert answer["gaps"] == [{"from": 6, "to": first - 1, "reason": "overrun"}]
        assert shown(answer["trades"]) == [str(each) for each in range(first, 101)]
        async with client(s.daemon.url) as two:
            answer = await two.call("subscribe", channel="trades", symbol=SYMBOL, snapshot=50)
            assert answer["gaps"] == [{"from": 0, "to": None, "reason": "overrun"}]
            assert shown(answer["trades"]) == [str(each) for each in range(first, 101)]
    assert sum("an answer without what is on disk" in line for line in lines) == 1


async def test_a_hole_on_disk_is_a_gap_and_no_recovery() -> None:
    """What was damaged is named."""
    async with stage(cache=Cache(trades_per_symbol=10)) as s, client(s.daemon.url) as one:
        disk = Disk.of(s)
        for start in range(1, 101, 10):
            await s.trade(*range(start, start + 10))
            disk.write()
        disk.archive.lose(SYMBOL, 20, 29)
        answer = await since(one, s.since(5))
        assert answer["recovered"] is False
        assert answer["gaps"] == [{"from": 20, "to": 29, "reason": "overrun"}]


async def test_gaps_are_filled_from_disk() -> None:
    """`since` with `gaps` reaches below memory."""
    async with stage(cache=Cache(trades_per_symbol=10)) as s, client(s.daemon.url) as one:
        disk = Disk.of(s)
        for start in range(1, 101, 10):
            await s.trade(*range(start, start + 10))
            disk.write()
        answer = await since(one, s.since(100, (3, 5), (89, 95)))
        assert [told(each)[:2] for each in answer["filled"]] == [(3, 5), (89, 95)]


@pytest.mark.parametrize("held", [4, 7, 9])
async def test_a_client_on_a_lost_branch_is_rewound(held: int) -> None:
    """It is told the last place that counts, gets all behind it, and its gaps beyond are gone."""
    async with stage() as s, client(s.daemon.url) as one:
        await s.trade(*range(1, 7), 8, 9)
        await s.trade(7)
        s.history.shared = {5: 7}  # of an earlier epoch the places up to 7 are a part of this log
        answer = await since(one, s.since(held, (7, 7), (8, 8), epoch=5))
        if held <= 7:
            assert answer["recovered"] is True
            assert "rewound" not in answer
        else:
            assert answer["recovered"] is False
            assert answer["rewound"] == {"epoch": s.history.epoch, "offset": 7}
        filled = [told(each) for each in answer.get("filled", [])]
        assert filled == ([(7, 7, ["7"])] if held >= 7 else [])
        behind = range(min(held, 7) + 1, 10)
        assert shown(answer["trades"]) == [str(each) for each in behind]
        assert answer["epoch"] == s.history.epoch


async def test_what_cannot_be_had_behind_a_fork_is_a_gap() -> None:
    """From the fork on, so that the client knows all that it misses."""
    async with stage(cache=Cache(trades_per_symbol=10)) as s, client(s.daemon.url) as one:
        await s.trade(*range(1, 31))
        s.history.shared = {5: 7}
        answer = await since(one, s.since(9, epoch=5))
        assert answer["recovered"] is False
        assert answer["rewound"] == {"epoch": s.history.epoch, "offset": 7}
        assert answer["gaps"] == [{"from": 8, "to": 20, "reason": "overrun"}]
        assert shown(answer["trades"]) == [str(each) for each in range(21, 31)]
        answer = await since(one, s.since(9, epoch=5), snapshot=2)
        assert answer["gaps"] == [{"from": 0, "to": None, "reason": "overrun"}]
        assert shown(answer["trades"]) == ["29", "30"]


async def test_sse_begins_with_the_rewind() -> None:
    """Then come the places behind it, in order."""
    async with stage() as s:
        await s.trade(*range(1, 10))
        s.history.shared = {5: 7}
        wire = FakeWire(ALL)
        await s.daemon.hall.open_session(wire, lambda session: Stream(session, s.daemon.hall), NOBODY)
        await wire.says(Wanted(TOPIC, Since(5, 9)))  # type: ignore[arg-type]
        await until(lambda: events(wire))
        epoch = s.history.epoch
        first, *others = events(wire)
        assert first == f'id: {epoch}-7\nevent: rewind\ndata: {{"epoch":{epoch},"offset":7}}'
        assert [each.split("\n")[:2] for each in others] == [
            [f"id: {epoch}-8", "event: trade"],
            [f"id: {epoch}-9", "event: trade"],
        ]


async def test_a_fill_during_a_long_answer_is_told_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer told of the gap, so the fill comes; a slice that is read later has the trade already."""
    monkeypatch.setattr("dataflow.gateway.recovery.RECOVERY_SLICE", 5)
    async with stage() as s:
        await s.trade(1, *range(3, 31), 32, *range(34, 40))
        wire = await s.fake(room=100)
        await wire.says(json.dumps(call("subscribe", since=s.since(0))))
        await until(lambda: wire.sent)
        await wait_all_tasks_blocked(0.01)
        await s.trade(2)
        await s.trade(31)
        wire.reads(ALL)
        await s.trade(33)
        await s.trade(40)
        await until(lambda: kinds_of_all(wire)[-1:] == ["update 40"])
        [answer] = [json.loads(each)["result"] for each in wire.texts if "result" in json.loads(each)]
        open_gaps = {(gap["from"], gap["to"]) for gap in answer["gaps"]}
        told_later = [each for each in kinds_of_all(wire) if each.startswith("filled")]
        assert (2, 2) in open_gaps
        assert "filled 2" in told_later
        for place in (31, 33):
            assert ((place, place) in open_gaps) == (f"filled {place}" in told_later)


def kinds_of_all(wire: FakeWire) -> list[str]:
    """The same, while a message is on its way."""
    try:
        return kinds(wire)
    except json.JSONDecodeError:
        return []


async def test_with_a_history_a_fill_is_told_after_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the disk fails nobody hears of it, by no way; then everybody does."""
    monkeypatch.setattr("dataflow.cache.recorder.RETRY", 0.01)
    archive = MemoryArchive()
    async with stage(archive=archive) as s, client(s.daemon.url) as one:
        await one.call("subscribe", channel="trades", symbol=SYMBOL)
        await s.trade(1, 3)
        await until(lambda: s.daemon.core.recording.is_complete)
        archive.broken = "full"
        await s.trade(2)
        await until(lambda: s.daemon.core.recording.totals.errors > 3)
        assert s.places() == ["1", "-", "3"]
        answer = await since(one, s.since(3, (2, 2)))
        assert "filled" not in answer
        assert one.of("stream.filled") == []
        archive.broken = None
        await one.until(lambda: one.of("stream.filled"))
        assert [told(each) for each in one.of("stream.filled")] == [(2, 2, ["2"])]
        assert [entry.trade_id for _, entry in archive.behind(SYMBOL, 0, 9)] == ["1", "2", "3"]  # type: ignore[union-attr]


async def test_a_gap_is_filled_across_a_death() -> None:
    """What an upstream repeats to the next daemon fills the gap that the last one wrote down."""
    archive = MemoryArchive()
    async with open_binance() as exchange:
        sources = from_binance(exchange.url, SYMBOL, eager=True)
        async with daemon(sources=sources, archive=archive) as d:
            await exchange.wait_subscribed(["BTCUSDT"])
            s = Stage(exchange, d)
            await s.trade(1, 5, 6)
            await until(lambda: d.core.recording.is_complete)
            place = s.since(6, (2, 4))
            d.die()
        await exchange.wait_disconnected()
        async with daemon(sources=sources, archive=archive) as d, client(d.url) as one:
            await exchange.wait_subscribed(["BTCUSDT"])
            s = Stage(exchange, d)
            answer = await since(one, place)
            assert answer["recovered"] is True
            assert "filled" not in answer
            await s.trade(2, 3, 4, 5, 6, 7)
            await one.until(lambda: one.trades())
            await one.until(lambda: len(one.of("stream.filled")) >= 1 and filled_places(one) == [2, 3, 4])
            answer = await since(one, place)
            assert [each["offset"] for fill in answer["filled"] for each in fill["trades"]] == [2, 3, 4]
            assert s.places() == ["1", "2", "3", "4", "5", "6", "7"]


def filled_places(one: Client) -> list[int]:
    return [trade["offset"] for fill in one.of("stream.filled") for trade in fill["trades"]]
