"""The rehearsal: the daemon survives a short storm, and a sabotaged daemon is found out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from attrs import evolve
from loguru import logger

from actors.update import Update
from dataflow import cli
from dataflow.cache.delivery import Delivery
from dataflow.cache.feed import Feed
from dataflow.cache.history import History
from dataflow.cache.verdict import Verdict
from dataflow.chaos import producers, run
from dataflow.chaos.check import Figures
from dataflow.chaos.lives import Lives
from dataflow.chaos.plan import Deaths, Rehearsal, make
from dataflow.chaos.run import Progress, rehearse, shape
from dataflow.cli.chaos import repeat, rows, verdict
from dataflow.domain import Gap, Item, Trade
from dataflow.domain.aggregate import Aggregate
from dataflow.faces.grpc.marketdata import Ticks
from dataflow.faces.jsonrpc.format import Updates
from dataflow.settings.load import load, shipped
from dataflow.topics.days import Day as DayLog
from dataflow.topics.prices import PriceLog
from dataflow.topics.trades import TradeLog
from simulators.player import Player

STORM = Rehearsal(seed=11, minutes=0.1, faults_per_minute=150)
BREEZE = Rehearsal(seed=3, minutes=0.03, faults_per_minute=34)  # a single trouble
REPEATING = 249  # with this seed the exchange cuts the connection and repeats its last trades


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """No log of failures that were made on purpose, least of all by loguru's own handler."""
    logger.disable("dataflow")
    yield
    logger.enable("dataflow")


async def test_a_storm_is_survived() -> None:
    """Fifteen troubles in six seconds: every invariant holds, and enough trades and restarts happened."""
    told: list[Progress] = []
    figures = await rehearse(STORM, told.append)
    assert figures.evidence == []
    assert figures.held
    plan = make(STORM, shape(load([shipped("server.toml"), shipped("simulated.toml")], {}), STORM.clients))
    assert figures.faults.total() == len(plan.steps)
    assert sum(source.admitted for source in figures.sources.values()) > 100  # also on a busy machine
    assert {
        "client-0",
        "sse",
        "pricehub",
        "marketdata",
        "signalr",
        "stomp",
        "graphql",
        "grpc",
    } <= figures.clients.keys()
    assert {"ticks-tcp", "ticks-grpc"} <= figures.sources.keys()
    assert all(source.admitted > 10 for source in figures.sources.values())
    assert all(client.delivered > 10 for client in figures.clients.values())
    assert figures.restarts.total() > 0
    assert figures.recovery
    assert figures.balances > 10
    assert {progress.phase for progress in told} == {"starting", "running", "settling"}


async def test_what_was_sent_to_a_connection_that_had_ended_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is noticed with the next trade only: so there is a next one, before the verdict."""
    pause, resume, calls = Player.pause, Player.resume, list[str]()

    def silent_at_first(self: Any) -> list[str]:
        return [] if "resume" in calls else ["the newest trade was not admitted"]

    def pausing(self: Player) -> None:
        calls.append("pause")
        pause(self)

    def resuming(self: Player) -> None:
        calls.append("resume")
        resume(self)

    monkeypatch.setattr(Player, "pause", pausing)
    monkeypatch.setattr(Player, "resume", resuming)
    monkeypatch.setattr(run, "REST_WITHIN", 0.5)
    monkeypatch.setattr("dataflow.chaos.run._Play._not_admitted", silent_at_first)
    figures = await rehearse(BREEZE)
    assert figures.unsettled == []
    assert "resume" in calls
    assert calls[-1] == "pause"


async def test_a_subscription_that_skips_an_update_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trades do not reach clients: one that checks by itself misses them, a core names the hole.

    One trade would not be enough: all clients may have it from their answers already.
    """
    whole, skipped = TradeLog.read, list[int]()

    def skipping(self: TradeLog, after: int) -> Update | None:
        update = whole(self, after)
        if update is not None and len(skipped) < 50 and len(update.places) > 1 and after > 10:
            skipped.append(update.first)
            return Update(update.stream, update.places[0][0] + 1, update.places[1:])
        return update

    monkeypatch.setattr(TradeLog, "read", skipping)
    figures = await rehearse(BREEZE)
    assert skipped
    assert set(figures.violations) <= {"missing", "faulty"}
    assert not figures.held


async def test_a_daemon_that_does_not_deduplicate_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeated trades are admitted again: twice in the stream, and delivered twice."""
    judge = History._judge

    def forgetful(self: History, trade: Trade, feed: Feed) -> Verdict:
        verdict = judge(self, trade, feed)
        return Verdict.ADMITTED if verdict is Verdict.DUPLICATE else verdict

    monkeypatch.setattr(History, "_judge", forgetful)
    figures = await rehearse(evolve(BREEZE, seed=REPEATING))
    assert {"twice", "duplicated"} <= set(figures.violations), figures.evidence


async def test_a_daemon_that_alters_a_trade_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The side of a trade is flipped on the way to the clients."""
    whole = Updates.texts

    def flipping(self: Updates, places: Iterable[tuple[int, Trade | Gap]]) -> list[bytes]:
        return [text.replace(b'"side":"sell"', b'"side":"buy"') for text in whole(self, places)]

    monkeypatch.setattr(Updates, "texts", flipping)
    assert set((await rehearse(BREEZE)).violations) == {"altered"}


async def test_states_that_are_not_true_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prices come twice, and days lack half of their volume until all settles: at their clients, and at no other.

    One price or state would not be enough: a client that is behind gets the newest alone.
    """
    read, fold, struck = PriceLog.read, DayLog.state, Counter[str]()
    settle, settles = run._Play._settle, list[bool]()

    def repeating(self: PriceLog, after: int) -> Update | None:
        update = read(self, after)
        if update is not None and struck["price"] < 50 and _differ(update.places[-2:]):
            struck["price"] += 1
            update.places = [*update.places[:-1], update.places[-2], update.places[-1]]
        return update

    def halved(self: DayLog) -> Aggregate:
        state = fold(self)
        if settles:
            return state
        struck["day"] += 1
        return msgspec.structs.replace(state, volume=state.volume / 2)

    async def settling(self: Any) -> None:
        settles.append(True)  # each symbol has one more trade from now on: the last state is true
        await settle(self)

    monkeypatch.setattr(PriceLog, "read", repeating)
    monkeypatch.setattr(DayLog, "state", halved)
    monkeypatch.setattr(run._Play, "_settle", settling)
    figures = await rehearse(BREEZE)
    assert struck.keys() == {"price", "day"}
    assert set(figures.violations) == {"untrue"}
    wrong = {name for name, client in figures.clients.items() if client.violations}
    assert "pricehub" in wrong
    assert wrong - {"pricehub"} <= {"marketdata", "stomp", "graphql", "grpc"}
    assert len(wrong) > 1


def _differ(places: Sequence[tuple[int, Any]]) -> bool:
    return len({trade.price for _, trade in places}) == 2 and len({trade.symbol for _, trade in places}) == 1


async def test_a_silent_loss_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """One trade is lost between connector and shard, and the stream has no gap for it."""
    whole, seen, lost = Delivery.__call__, list[Trade](), list[Trade]()

    def losing(self: Delivery, items: Sequence[Item]) -> None:
        numberless = [item for item in items if isinstance(item, Trade) and item.sequence is None]
        seen.extend(numberless)
        if numberless and not lost and len(seen) > 10:
            lost.append(numberless[0])
        # Also when it is repeated after a reconnection: it is lost on this way, always.
        whole(self, [item for item in items if not lost or item != lost[0]])

    monkeypatch.setattr(Delivery, "__call__", losing)
    figures = await rehearse(BREEZE)
    assert len(lost) == 1
    assert figures.violations == {"unaccounted": 1}


async def test_a_tick_that_is_lost_or_altered_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of each producer does not reach the shards; another has one more in its volume."""
    whole, ticks = Delivery.put, Counter[str]()

    def handled(trade: Any) -> list[Any]:
        if not isinstance(trade, Trade):
            return [trade]  # what an exchange was asked for comes on this way, too
        ticks[trade.symbol] += 1
        if ticks[trade.symbol] == 3:  # soon: a slow machine pushes few
            return []
        more = Decimal("0.5") if ticks[trade.symbol] == 5 else 0
        return [msgspec.structs.replace(trade, quantity=trade.quantity + more)]

    async def losing(self: Delivery, items: Sequence[Item]) -> None:
        await whole(self, [kept for item in items for kept in handled(item)])

    monkeypatch.setattr(Delivery, "put", losing)
    figures = await rehearse(BREEZE)
    assert set(ticks) == {"AAPL", "MSFT"}
    for name in ("ticks-tcp", "ticks-grpc"):
        assert figures.sources[name].violations == {"unaccounted": 2, "invented": 1}
    assert set(figures.violations) == {"unaccounted", "invented"}


async def test_a_wrong_word_about_ticks_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a call tells fewer than were taken."""
    monkeypatch.setattr(Ticks, "told", "Received 3 ticks")
    monkeypatch.setattr(producers, "AT_ONCE", 10)
    figures = await rehearse(BREEZE)
    assert set(figures.violations) == {"denied"}
    assert figures.sources["ticks-grpc"].denied == figures.violations["denied"]


def test_the_command_tells_its_verdict_by_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """0 if every invariant held, 1 if not. Both print the command that repeats the rehearsal."""
    figures = Figures()

    async def rehearsed(rehearsal: Rehearsal, tell: Any) -> Figures:
        return figures

    monkeypatch.setattr("dataflow.chaos.run.rehearse", rehearsed)
    assert cli.main(["chaos", "--seed", "5", "--minutes", "2"]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "every invariant held",
        "repeat with: dataflow chaos --seed 5 --minutes 2",
    ]
    figures.left_behind.append("2 sockets, 1 before")
    assert cli.main(["chaos", "--seed", "5"]) == 1
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "BROKEN: left_behind 1",
        "  left_behind: 2 sockets, 1 before",
        "repeat with: dataflow chaos --seed 5 --minutes 1",
    ]
    assert cli.main(["chaos", "--seed", "5", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["held"], told["violations"]) == (False, {"left_behind": 1})
    assert told["repeat"] == "dataflow chaos --seed 5 --minutes 1"


def test_deaths_have_a_verdict_of_their_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same exit codes and last lines as without `--deaths`."""
    lives = Lives()

    async def outlived(deaths: Deaths, tell: Any) -> Lives:
        assert deaths == Deaths(5, deaths=3, seconds=0.5, clients=3)
        return lives

    monkeypatch.setattr("dataflow.chaos.deaths.outlive", outlived)
    assert cli.main(["chaos", "--seed", "5", "--deaths", "3", "--seconds", "0.5"]) == 0
    lives.lost.append("A: 1 trades, the first at 7")
    assert cli.main(["chaos", "--seed", "5", "--deaths", "3", "--seconds", "0.5"]) == 1
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "BROKEN: lost 1",
        "  lost: A: 1 trades, the first at 7",
        "repeat with: dataflow chaos --seed 5 --deaths 3 --seconds 0.5",
    ]


@pytest.mark.parametrize(
    "words", [["--deaths", "0"], ["--minutes", "0"], ["--clients", "0"], ["--faults-per-minute", "-3"]]
)
def test_a_rehearsal_of_nothing_is_a_mistake(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The mistake is one line with exit code 1 and no traceback."""
    assert cli.main(["chaos", *words]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "must be" in line


def test_the_command_that_repeats_a_rehearsal_has_only_unusual_options() -> None:
    """It names every option that the plan depends on, except defaults."""
    assert repeat(Rehearsal(1, minutes=0.5)) == "dataflow chaos --seed 1 --minutes 0.5"
    everything = repeat(Rehearsal(1, minutes=2, clients=5, faults_per_minute=90))
    assert everything == "dataflow chaos --seed 1 --minutes 2 --faults-per-minute 90 --clients 5"
    assert repeat(Deaths(1, deaths=200)) == "dataflow chaos --seed 1 --deaths 200"
    assert repeat(Deaths(1, 3, 0.5, 2)) == "dataflow chaos --seed 1 --deaths 3 --seconds 0.5 --clients 2"


def test_the_table_has_every_row_of_the_verdict() -> None:
    """The rows are there also when nothing happened."""
    names = [name for name, _told in rows(Figures())]
    first = ["troubles", "crashes", "restarts", "back after", "gaps"]
    assert names == [*first, "closed with", "mailboxes", "left behind"]
    assert verdict(Figures()) == "every invariant held"
