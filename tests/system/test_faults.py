"""Faults injected into the whole daemon, over HTTP and from the command line: the promises to clients hold."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from attrs import define
from prometheus_client.parser import text_string_to_metric_families
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.connector import Received
from dataflow.domain import Item
from dataflow.faults.registry import Faults, InjectedFault
from dataflow.gateway.faulty import FaultyWire
from dataflow.server.socket_wire import SocketWire
from dataflow.settings.schema import BackoffSettings, Chaos, Gateway
from dataflow.transports.websocket import WebSocketLink, WebSocketSource
from simulators import Trade
from tests.support.waiting import until
from tests.system.daemon import client, daemon, http_client
from tests.system.test_process import running
from tests.system.test_trouble import OPEN, World, every_node, sources

BOTH = pytest.mark.parametrize("kind", ["binance", "blockchain"])


@define
class World(World):
    """A simulated exchange, the daemon, a client, and faults injected over HTTP as an operator does it."""

    http: httpx.AsyncClient = None  # type: ignore[assignment]

    @property
    def faults(self) -> Faults:
        assert self.daemon.core.faults is not None
        return self.daemon.core.faults

    @property
    def shard(self) -> str:
        """The path of the shard of the symbol."""
        (owner,) = [n for n, s in enumerate(self.daemon.core.stores) if self.symbol in s.symbols()]
        return f"cache/shard-{owner}"

    def path(self, name: str) -> str:
        victims = [c.split("/")[-1] for c in self.sessions()]
        return name.format(shard=self.shard, kind=self.kind, symbol=self.symbol, victim=victims[-1])

    def sessions(self) -> list[str]:
        return [n.path for n in every_node(self.daemon.root.tree()) if n.path.startswith("gateway/sessions/")]

    async def inject(self, path: str, kind: str, **more: Any) -> dict[str, Any]:
        answer = await self.http.post("/faults", json={"path": self.path(path), "kind": kind, **more})
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    async def catch_up(self) -> None:
        """Publish until the listener has the newest trade."""
        while True:
            await self.publish()
            await wait_all_tasks_blocked(0.002)
            if self.ids(self._published)[0] in [t["tradeId"] for t in self.listener.trades()[-1:]]:
                return

    def assert_promise(self) -> None:
        """Every trade that was published came once and in order, or a gap stands in its place."""
        expected, n = 1, 0  # the next place of the stream, and the last trade that was found
        gap = False
        for entry in self.listener.stream(self.symbol):
            if "tradeId" in entry:
                number = int(entry["tradeId"]) // (1 if self.kind == "binance" else 7)
                assert entry["offset"] == expected
                assert number > n
                assert gap or number == n + 1, f"{n + 1} to {number - 1} are missing without a word"
                expected, n, gap = entry["offset"] + 1, number, False
            else:
                assert entry["from"] == expected
                expected, gap = (entry["to"] or entry["from"]) + 1, True
        assert n == self._published

    def assert_nothing_else_restarted(self, path: str) -> None:
        """Of a source: a fault at its `message` concerns its connection."""
        fine = {path, f"{path}/lines/1"}
        restarted = {node.path for node in every_node(self.daemon.root.tree()) if node.restarts}
        assert restarted <= fine
        crashed = [p for p in self.daemon.crashes() if not p.startswith("gateway/sessions/")]
        assert set(crashed) <= fine


@asynccontextmanager
async def world(
    kind: str = "binance",
    opened: dict[str, Any] | None = None,
    tables: dict[str, Any] | None = None,
    **more: Any,
) -> AsyncIterator[World]:
    tables = {"chaos": Chaos(enabled=True, seed=1), **(tables or {})}
    async with (
        OPEN[kind](**(opened or {})) as exchange,
        daemon(sources=sources(kind, exchange.url, **more), **tables) as d,
        client(d.url) as listener,
        http_client(d.http) as http,
    ):
        made = World(kind, exchange, d, listener, http=http)
        await listener.call("subscribe", symbol=made.symbol)
        await made.subscribed()
        await made.publish(3)
        await made.heard(3)
        yield made


# -- every kind at every type of actor -------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(
    ("path", "fault", "more"),
    [
        ("{shard}", "crash", {}),
        ("{shard}", "crash", {"times": 3}),
        ("{shard}", "delay", {"seconds": 0.02}),
        ("topics/{symbol}", "crash", {}),
        ("topics/{symbol}", "delay", {"seconds": 0.02}),
        ("sources/{kind}", "crash", {}),
        ("sources/{kind}", "crash", {"times": 3}),
        ("sources/{kind}", "delay", {"seconds": 0.02}),
        ("sources/{kind}", "drop", {}),
        ("sources/{kind}", "drop", {"times": 4}),
        ("sources/{kind}", "disconnect", {}),
    ],
)
async def test_the_stream_tells_the_truth(kind: str, path: str, fault: str, more: dict[str, Any]) -> None:
    """For each fault: trades come once and in order, a gap stands in place of missing ones, and only the struck
    actor restarts."""
    async with world(kind) as w:
        made = await w.inject(path, fault, **more)
        assert made["struck"] == 0
        while w.faults.active():
            await w.publish()
            await wait_all_tasks_blocked(0.002)
        await w.subscribed()
        await w.catch_up()
        w.assert_promise()
        w.assert_nothing_else_restarted(made["path"])
        assert w.faults.struck == {(made["path"], fault): made["times"]}


@pytest.mark.parametrize("point", ["start", "ready", "stop"])
@pytest.mark.parametrize("fault", ["crash", "delay"])
@pytest.mark.parametrize("path", ["{shard}", "topics/{symbol}", "sources/{kind}"])
async def test_a_restart_that_is_disturbed_is_tried_again(path: str, fault: str, point: str) -> None:
    """A restart by hand is disturbed at start, ready or stop: the actor comes back, and no trade is lost."""
    async with world(opened={"absent": "held", "replay_last": 100}) as w:
        made = await w.inject(path, fault, point=point, **({"seconds": 0.02} if fault == "delay" else {}))
        await w.http.post(f"/actors/{made['path']}/restart")
        await w.daemon.until(lambda: w.faults.struck and w.daemon.root.find(made["path"]).state == "running")
        await w.subscribed()
        await w.catch_up()
        w.assert_promise()
        assert w.listener.of("stream.gap") == []
        w.assert_nothing_else_restarted(made["path"])


async def test_a_dropped_message_is_noticed_by_its_sequence() -> None:
    """A raw message is dropped before it is decoded: the next trade id shows that one trade is missing."""
    async with world() as w:
        await w.inject("sources/{kind}", "drop")
        await w.publish(2)
        assert await w.heard(4) == w.ids(1, 2, 3, 5)
        (gap,) = w.listener.of("stream.gap")
        assert (gap["from"], gap["to"], gap["reason"]) == (4, 4, "source_gap")
        assert w.daemon.crashes() == []


async def test_a_lost_connection_is_told_as_injected() -> None:
    """Clients get the usual notification, with the honest reason `injected disconnect`."""
    async with world() as w:
        await w.inject("sources/{kind}", "disconnect")
        await w.publish()
        await w.listener.until(lambda: w.listener.of("connection.restored"))
        assert [lost["reason"] for lost in w.listener.of("connection.lost")] == ["injected disconnect"]


async def test_a_crash_is_reported_as_injected() -> None:
    """The event and `last_error` in /actors show that the crash was injected."""
    async with world() as w:
        await w.inject("{shard}", "crash")
        await w.publish()
        await w.daemon.until(lambda: w.daemon.crashes("cache/"))
        (crash,) = [e for e in w.daemon.events if e.kind == "crash"]
        assert [type(error) for error in crash.errors] == [InjectedFault]
        assert "injected crash at receive" in (await w.http.get(f"/actors/{w.shard}")).json()["last_error"]


@pytest.mark.parametrize(("fault", "code"), [("crash", 1011), ("disconnect", 1006)])
@pytest.mark.parametrize("says", [True, False])
async def test_a_session_that_is_struck_takes_only_its_client_with_it(
    fault: str, code: int, says: bool
) -> None:
    """Only the client of the struck session is disconnected, also if it only listens. Others get every trade,
    and the client may reconnect."""
    async with world() as w, client(w.daemon.url) as victim:
        await victim.call("subscribe", symbol=w.symbol)
        await w.inject("gateway/sessions/{victim}", fault)
        if says:
            with pytest.raises(KeyError):
                await victim.ask("ping")
        else:
            await w.publish()
            await victim.until(lambda: victim.closed)
        assert victim.closed is not None
        assert victim.closed[0] == code
        async with client(w.daemon.url) as again:
            await again.call("subscribe", symbol=w.symbol)
            await w.catch_up()
            await again.until(lambda: again.trades())
        w.assert_promise()
        assert w.listener.closed is None
        w.assert_nothing_else_restarted("")
        assert w.faults.struck == {("gateway/sessions", fault): 1}


async def test_any_session_is_one_session() -> None:
    """`gateway/sessions` hits the first session that passes a message, and only as often as requested."""
    async with world() as w, client(w.daemon.url) as one, client(w.daemon.url) as other:
        await one.call("subscribe", symbol=w.symbol)
        await other.call("subscribe", symbol=w.symbol)
        await w.inject("gateway/sessions", "disconnect")
        await w.publish(2)
        while len(w.sessions()) > 2:
            await wait_all_tasks_blocked()
        await wait_all_tasks_blocked()
        assert len(w.sessions()) == 2
        assert w.faults.active() == []


async def test_a_session_that_reads_late_answers_late(mock_clock: MockClock) -> None:
    """A delay of a session's reader holds requests back and loses none. Updates go out meanwhile."""
    async with world() as w, client(w.daemon.url) as victim:
        await victim.call("ping")
        await w.inject("gateway/sessions/{victim}", "delay", seconds=5)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(victim.call, "ping")
            while not w.faults.struck:
                await wait_all_tasks_blocked()
            await w.publish()
            await w.heard(4)
            assert victim.answers == {}
            mock_clock.jump(5)
        w.assert_promise()


# -- hangs: a watchdog notices ----------------------------------------------------------------------------


async def pass_time(w: World, mock_clock: MockClock, step: float, until: Any) -> float:
    """Jump the clock in steps until `until()` holds. Returns the seconds that it took."""
    began = trio.current_time()
    while not until():
        mock_clock.jump(step)
        await wait_all_tasks_blocked(0.001)
    return trio.current_time() - began


@BOTH
async def test_a_hanging_shard_is_found_and_its_batch_is_a_gap(kind: str, mock_clock: MockClock) -> None:
    """The watchdog ends the shard. The trades in its hand become a gap, the trades in its mailbox arrive."""
    async with world(kind) as w:
        await w.inject("{shard}", "hang")
        await w.publish()
        while not w.faults.struck:
            await wait_all_tasks_blocked()
        await w.publish(3)
        await wait_all_tasks_blocked()
        took = await pass_time(w, mock_clock, 1, lambda: w.daemon.crashes("cache/"))
        assert 10 <= took <= 12
        assert [e.path for e in w.daemon.events if e.kind == "hung"] == [w.shard]
        mock_clock.jump(0.2)
        await w.heard(6)
        await w.catch_up()
        w.assert_promise()
        stream = w.listener.stream(w.symbol)
        reasons = [entry["reason"] for entry in stream if "reason" in entry]
        assert reasons == ["source_gap" if kind == "binance" else "shard_restart"]
        w.assert_nothing_else_restarted(w.shard)
        assert w.faults.active() == []


async def test_a_hanging_subscription_is_found_and_loses_nothing(mock_clock: MockClock) -> None:
    """Trades that were not fanned out yet are still in the history, and the next incarnation sends them."""
    async with world() as w:
        await w.inject("topics/{symbol}", "hang")
        await w.publish(5)
        await pass_time(w, mock_clock, 1, lambda: w.daemon.crashes("topics/"))
        mock_clock.jump(0.2)
        await w.heard(8)
        w.assert_promise()
        assert w.listener.of("stream.gap") == []
        w.assert_nothing_else_restarted(f"topics/{w.symbol}")


@BOTH
async def test_a_hanging_source_is_stale_and_is_reconnected(kind: str, mock_clock: MockClock) -> None:
    """The probe at half time does not wake it. After `stale_after` it reconnects, and the stream has a gap."""
    async with world(kind, stale_after=15) as w:
        await w.inject("sources/{kind}", "hang")
        await w.publish()
        while not w.faults.struck:
            await wait_all_tasks_blocked()
        took = await pass_time(w, mock_clock, 1, lambda: w.daemon.crashes("sources/"))
        assert 14 <= took <= 17
        await w.listener.until(lambda: w.listener.of("connection.lost"))
        assert "stale" in w.listener.of("connection.lost")[0]["reason"]
        await pass_time(w, mock_clock, 0.1, lambda: w.listener.of("connection.restored"))
        await w.subscribed()
        await w.catch_up()
        w.assert_promise()
        assert len(w.listener.of("stream.gap")) == 1
        w.assert_nothing_else_restarted(f"sources/{kind}")
        assert w.faults.active() == []


@pytest.mark.parametrize("point", ["start", "ready"])
async def test_a_hang_while_starting_is_ended_and_tried_again(point: str, mock_clock: MockClock) -> None:
    """The start ends after `ready_within`. The shard comes back, and its mailbox kept the trades meanwhile."""
    async with world() as w:
        await w.inject("{shard}", "hang", point=point)
        await w.http.post(f"/actors/{w.shard}/restart")
        while not w.faults.struck:
            await wait_all_tasks_blocked()
        await w.publish(3)
        await pass_time(w, mock_clock, 1, lambda: w.daemon.crashes("cache/"))
        mock_clock.jump(0.2)
        await w.heard(6)
        w.assert_promise()
        assert w.listener.of("stream.gap") == []
        w.assert_nothing_else_restarted(w.shard)


async def test_a_hang_that_is_withdrawn_in_time_costs_nothing(mock_clock: MockClock) -> None:
    """No restart and no gap: all waiting trades arrive."""
    async with world() as w:
        made = await w.inject("{shard}", "hang")
        await w.publish(5)
        while not w.faults.struck:
            await wait_all_tasks_blocked()
        assert (await w.http.delete(f"/faults/{made['id']}")).status_code == 204
        await w.heard(8)
        w.assert_promise()
        assert w.daemon.crashes() == []


async def test_a_source_that_hangs_without_another_timeout_is_found(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watchdog is the last timeout, longer than all waits of a connector. Then the source is tried again."""
    tried: list[float] = []

    @asynccontextmanager
    async def never(_source: WebSocketSource) -> AsyncIterator[None]:
        tried.append(trio.current_time())
        await trio.sleep_forever()
        yield

    async with world() as w:
        monkeypatch.setattr(WebSocketSource, "connect", never)
        await w.exchange.disconnect("abrupt")
        await pass_time(w, mock_clock, 1, lambda: len(tried) == 2)
        assert 60 <= tried[1] - tried[0] <= 65
        assert [e.path for e in w.daemon.events if e.kind == "hung"] == ["sources/binance/lines/1"]
        w.assert_nothing_else_restarted("sources/binance")


@BOTH
async def test_a_quiet_market_is_not_hung(
    kind: str, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Minutes without a trade, longer than any watchdog: no actor is restarted, and the next trade arrives."""
    unanswered: set[WebSocketLink] = set()
    probe, receive = WebSocketLink.probe, WebSocketLink.receive

    async def note_probe(link: WebSocketLink) -> None:
        unanswered.add(link)
        await probe(link)

    async def note_answer(link: WebSocketLink) -> Received[Item]:
        received = await receive(link)
        unanswered.discard(link)
        return received

    monkeypatch.setattr(WebSocketLink, "probe", note_probe)
    monkeypatch.setattr(WebSocketLink, "receive", note_answer)
    async with world(kind) as w:
        for _ in range(100):
            mock_clock.jump(2)
            # The clock waits for every answer: the exchange's, and the pong of the listener before its next call.
            await until(lambda: not unanswered)
            await w.listener.call("ping")
        await w.catch_up()
        w.assert_promise()
        assert w.daemon.crashes() == []
        assert [e for e in w.daemon.events if e.kind == "hung"] == []


# -- HTTP -----------------------------------------------------------------------------------------------


def assert_problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith("application/problem+json")
    return dict(answer.json())


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ('{"path": "cache/shard-0", "kind": "explode"}', "there is no fault 'explode'"),
        ('{"path": "cache/shard-0", "kind": "drop"}', "cannot suffer a drop at receive"),
        ('{"path": "cache/shard-0", "kind": "crash", "point": "message"}', "has no point 'message'"),
        ('{"path": "", "kind": "crash"}', "nothing supervises the root"),
        ('{"path": "cache/shard-0"}', "missing required field `kind`"),
        ('{"path": "cache/shard-0", "kind": "crash", "when": 1}', "unknown field `when`"),
        ('{"path": "cache/shard-0", "kind": "crash", "times": "3"}', "Expected `int`, got `str`"),
        ('{"path": "cache/shard-0", "kind": "crash", "times": true}', "Expected `int`, got `bool`"),
        ("[]", "Expected `object`"),
        ("crash", "malformed"),
        ("", "truncated"),
    ],
)
async def test_a_wrong_request_gets_the_reason(body: str, told: str) -> None:
    """The answer is 400 with the possible values, and no fault is in force."""
    async with world() as w:
        problem = assert_problem(await w.http.post("/faults", content=body), 400)
        assert told in problem["detail"]
        if "possible there" in problem["detail"]:
            assert problem["possible"]["receive"] == ["crash", "hang", "delay"]
            assert problem["usual"] == "receive"
        assert (await w.http.get("/faults")).json() == []


async def test_an_unknown_path_names_the_nearest() -> None:
    """A fault for a path without an actor is a 404."""
    async with world() as w:
        answer = await w.http.post("/faults", json={"path": "cache/shard-9", "kind": "crash"})
        assert "cache/shard-0" in assert_problem(answer, 404)["nearest"]


async def test_faults_are_listed_and_withdrawn() -> None:
    """The list shows the number of strikes. A fault that is over is gone, an unknown one is a 404.

    100.0 is 100, as everywhere in JSON.
    """
    async with world() as w:
        made = await w.inject("{shard}", "delay", seconds=0.01, times=100.0, probability=0.5)
        crash = await w.inject("gateway/http", "crash")
        assert made == {
            "id": 1, "path": w.shard, "kind": "delay", "point": "receive", "seconds": 0.01,
            "probability": 0.5, "times": 100, "struck": 0,
        }  # fmt: skip
        while w.faults.struck.total() < 3:
            await w.publish()
            await wait_all_tasks_blocked(0.002)
        listed = (await w.http.get("/faults")).json()
        assert [fault["id"] for fault in listed] == [1, 2]
        assert listed[0]["struck"] >= 3
        assert listed[1] == crash
        gone = await w.http.delete("/faults/1")
        assert gone.status_code == 204
        assert not {"content-length", "content-type"} & set(gone.headers)  # RFC 9110, section 8.6
        assert (await w.http.get("/faults")).json() == [crash]
        assert assert_problem(await w.http.delete("/faults/1"), 404)["in_force"] == [2]
        assert_problem(await w.http.delete("/faults/none"), 404)


async def test_one_too_many_is_a_conflict() -> None:
    """One fault too many is a 409 with the remedy in its text."""
    async with world() as w:
        for _ in range(100):
            w.faults.inject("gateway/http", "crash")
        answer = await w.http.post("/faults", json={"path": w.shard, "kind": "crash"})
        assert "withdraw one first" in assert_problem(answer, 409)["detail"]


async def test_faults_are_the_operators_alone() -> None:
    """With a configured token, listing, injecting and withdrawing need the token."""
    async with world(tables={"gateway": Gateway(port=0, admin_token="secret")}) as w:
        body = {"path": w.shard, "kind": "crash"}
        assert_problem(await w.http.post("/faults", json=body), 401)
        assert_problem(await w.http.get("/faults"), 401)
        assert_problem(await w.http.delete("/faults/1"), 401)
        answer = await w.http.post("/faults", json=body, headers={"Authorization": "Bearer secret"})
        assert answer.status_code == 201


async def test_without_chaos_there_is_nothing_to_strike() -> None:
    """Every request is a 403. There is no fault hook, no layer around a wire, no random faults and no metric."""
    tables = {"chaos": Chaos(enabled=False, faults_per_minute=10.0)}
    async with world(tables=tables) as w:
        for answer in (
            await w.http.post("/faults", json={"path": w.shard, "kind": "crash"}),
            await w.http.post("/faults", content="nonsense"),
            await w.http.get("/faults"),
            await w.http.delete("/faults/1"),
        ):
            assert "[chaos] enabled = true" in assert_problem(answer, 403)["detail"]
        assert w.daemon.core.faults is None
        assert [type(session._wire) for session in w.daemon.lobby.clients] == [SocketWire]
        assert "chaos" not in [node.path for node in every_node(w.daemon.root.tree())]
        assert "dataflow_faults" not in (await w.http.get("/metrics")).text


async def test_strikes_are_metrics() -> None:
    """The metric has labels for path and kind. All sessions share one path."""
    async with world() as w, client(w.daemon.url) as victim:
        assert all(type(session._wire) is FaultyWire for session in w.daemon.lobby.clients)
        await w.inject("gateway/sessions/{victim}", "crash")
        await w.inject("sources/{kind}", "drop", times=2)
        await w.inject("gateway/http", "crash")
        with pytest.raises(KeyError):
            await victim.ask("ping")
        await w.publish(3)
        await w.heard(4)
        text = (await w.http.get("/metrics")).text
        samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
        struck = {
            (s.labels["path"], s.labels["kind"]): s.value
            for s in samples
            if s.name == "dataflow_faults_struck_total"
        }
        assert struck == {("gateway/sessions", "crash"): 1, ("sources/binance", "drop"): 2}
        assert [s.value for s in samples if s.name == "dataflow_faults_active"] == [1]
        assert [s.value for s in samples if s.name == "dataflow_sessions_opened_total"] == [2]


# -- at random ------------------------------------------------------------------------------------------


async def test_a_daemon_recovers_from_five_minutes_of_random_faults(mock_clock: MockClock) -> None:
    """No fault spreads beyond its actor, and afterwards every actor runs."""
    chaos = Chaos(enabled=True, seed=11, faults_per_minute=20.0)
    async with world(tables={"chaos": chaos, "backoff": BackoffSettings()}) as w:
        tree = w.daemon.root.tree()
        assert [child.path for child in tree.children][-1] == "chaos"
        for _ in range(300):
            await w.publish()
            mock_clock.jump(1)
            await wait_all_tasks_blocked(0.001)
        assert w.faults.struck.total() >= 10
        assert {path.partition("/")[0] for path, _ in w.faults.struck} > {"cache", "sources"}
        await w.daemon.root.stop("chaos")
        w.faults.clear()
        await pass_time(w, mock_clock, 1, lambda: all_run(w))
        async with client(w.daemon.url) as again:
            await again.call("subscribe", symbol=w.symbol)
            await pass_time(w, mock_clock, 1, lambda: w.upstream_symbol in w.exchange.subscribed)
            await w.publish()
            await again.until(again.trades)
        crashed = {e.path for e in w.daemon.events if e.kind == "crash"}
        assert not crashed & {"", "cache", "topics", "sources", "gateway", "gateway/http", "chaos"}


def all_run(w: World) -> bool:
    return all(node.state == "running" or node.path == "chaos" for node in every_node(w.daemon.root.tree()))


# -- from the command line --------------------------------------------------------------------------------


async def test_the_command_line_against_a_daemon(tmp_path: Path) -> None:
    """Inject, list, wait for the effect, withdraw. A mistake is one line with exit code 1."""
    chaos = tmp_path / "chaos.toml"
    # No probe: its answer would be a message, and the fault strikes at the first one. The long `stale_after`
    # allows for commands that are slow on a busy machine.
    chaos.write_text("[chaos]\nenabled = true\n[sources.binance]\nstale_after = 86400.0\n")
    async with running(tmp_path, "--config", str(chaos)) as r:

        async def fault(*words: str) -> tuple[int, str, str]:
            command = [sys.executable, "-m", "dataflow", "fault", *words, "--url", f"127.0.0.1:{r.port}"]
            pipes = partial(trio.run_process, capture_stdout=True, capture_stderr=True, check=False)
            done: subprocess.CompletedProcess[bytes] = await pipes(command)
            return done.returncode, done.stdout.decode(), done.stderr.decode()

        outcomes: dict[int, tuple[int, str, str]] = {}

        async def at(n: int, *words: str) -> None:
            outcomes[n] = await fault(*words)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(at, 1, "cache/shard-9", "crash")
            nursery.start_soon(at, 2, "cache/shard-0", "drop")
            nursery.start_soon(at, 3, "sources/binance", "disconnect")
        assert outcomes[1][::2] == (1, outcomes[1][2])
        assert "there is no actor at 'cache/shard-9'; the nearest are cache/shard-" in outcomes[1][2]
        assert "cannot suffer a drop at receive; possible there: crash, hang, delay at" in outcomes[2][2]
        assert outcomes[2][0] == 1
        assert outcomes[3] == (
            0, "fault 1: disconnect at message of sources/binance, struck 0 of 1 times\n", "",
        )  # fmt: skip
        code, listed, _ = await fault("--list", "--json")
        assert (code, [each["id"] for each in json.loads(listed)]) == (0, [1])
        async with client(r.url) as listener:
            await listener.call("subscribe", symbol="BTC-USDT")  # the answer to the subscription strikes
            await listener.until(lambda: listener.of("connection.restored"))
            assert listener.of("connection.lost")[0]["reason"] == "injected disconnect"
            await r.exchange.wait_subscribed(["BTCUSDT"])
            # The first fault struck inside a connection, this one strikes at a supervisor: both hooks are installed.
            assert (await fault("topics/BTC-USDT", "crash"))[0] == 0
            for n in (1, 2, 3):
                await r.exchange.publish(Trade(n, "BTCUSDT", "buy", "1", "1", 1_700_000_000_000_000 + n))
            await listener.until(lambda: listener.traded.total() == 3)
        assert (await fault("--list"))[:2] == (0, "no faults in force\n")
        await fault("gateway/http", "crash")
        assert (await fault("--withdraw", "3"))[:2] == (0, "withdrawn\n")
