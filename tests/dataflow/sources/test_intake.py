"""The one entry for what clients push: which ticks become trades, and why the others do not."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from math import inf, nan
from typing import Any

import attrs
import pytest
import trio
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from dataflow.domain import Trade
from dataflow.sources.intake import ADDRESSES, BATCHES_AT_ONCE, PRESENT, REFUSALS, Intake
from dataflow.sources.port import ListenerSettings, Pushed
from dataflow.sources.reading import Unusable
from dataflow.sources.state import Audience, SourceState
from supervisors import ActorGone

NOW = 1_735_201_234_567_000_001


@define
class Tick:
    symbol: str = "AAPL"
    price: float = 100.25
    volume: int = 10
    exchange_timestamp: int = NOW


@define
class Stage:
    """An intake, and everything that it told."""

    taken: set[str] = field(factory=set)
    discovered: list[str] = field(factory=list)
    delivered: list[Any] = field(factory=list)
    history: dict[tuple[str, str], Trade] = field(factory=dict)
    source: SourceState = field(init=False)
    intake: Intake = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.source = SourceState("ticks", settings(), Audience(), lambda: 0.0)
        self.intake = Intake(
            self.source,
            self.taken.__contains__,
            self.discovered.append,
            self._deliver,
            lambda symbol, number: self.history.get((symbol, number)),
        )

    async def _deliver(self, items: Sequence[Any]) -> None:
        self.delivered += items

    def why_not(self, pushed: Pushed) -> str | None:
        """Why a pushed trade is refused; None if it is not."""
        try:
            self.intake.accept(pushed)
        except Unusable as problem:
            return problem.reason
        return None

    def why(self, tick: Tick) -> str | None:
        """Why it is refused; None if it is not."""
        try:
            self.intake.judge(tick)
        except Unusable as problem:
            return problem.reason
        return None


def settings(**keys: Any) -> ListenerSettings:
    return ListenerSettings(connector="ticks_protobuf", **keys)


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_a_tick_is_a_trade_without_id_and_side(stage: Stage) -> None:
    """Nothing is made up. Its time is that of the exchange, its source the one that it came through."""
    assert stage.intake.judge(Tick()) == Trade(
        source="ticks",
        symbol="AAPL",
        trade_id=None,
        side=None,
        price=Decimal("100.25"),
        quantity=Decimal(10),
        timestamp=NOW,
    )


@pytest.mark.parametrize("written", [" aApL ", "AAPL", "aapl\t", "\r\nAapl"])
def test_blanks_and_small_letters_of_a_symbol_do_not_count(stage: Stage, written: str) -> None:
    """They are the same symbol, discovered once."""
    assert stage.intake.judge(Tick(written)).symbol == "AAPL"
    assert stage.intake.judge(Tick("AAPL")).symbol == "AAPL"
    assert stage.discovered == ["AAPL"]


@pytest.mark.parametrize("symbol", ["A", "9", "BRK.B", "ES_F", "X:BTCUSD", "A-B", "A" * 32])
def test_symbols_of_the_pattern(stage: Stage, symbol: str) -> None:
    """Capitals, digits and four signs, beginning with one of the first two."""
    assert stage.intake.judge(Tick(symbol)).symbol == symbol


@pytest.mark.parametrize(
    "symbol",
    [
        "",
        "   ",
        "\t\n",
        ".A",
        "-A",
        "A B",
        "A/B",
        "A*",
        "*",
        "A" * 33,
        "ÄPL",
        "AAPL\x00",
        "A\u00a0",
        "\u017f",
        "\u0131",
        "ß",
        "\uff21",
    ],
)
def test_other_symbols_are_bad(stage: Stage, symbol: str) -> None:
    """No letter becomes another one by guess: a long s is no S."""
    assert stage.why(Tick(symbol)) == "bad_symbol"
    assert not stage.discovered


@pytest.mark.parametrize("price", [0.0, -0.0, -1.0, nan, inf, -inf])
def test_prices_that_are_none(stage: Stage, price: float) -> None:
    """Only a number above zero is a price."""
    assert stage.why(Tick(price=price)) == "bad_price"


@pytest.mark.parametrize(
    ("key", "reason"), [("volume", "bad_quantity"), ("exchange_timestamp", "bad_timestamp")]
)
@pytest.mark.parametrize("value", [0, -1, -(2**63)])
def test_quantities_and_times_that_are_none(stage: Stage, key: str, value: int, reason: str) -> None:
    """A field that was left out is 0 on the wire: it is missing, and nothing takes its place."""
    assert stage.why(attrs.evolve(Tick(), **{key: value})) == reason


def test_a_time_that_no_store_can_hold_is_none(stage: Stage) -> None:
    """One such trade would stop the recording of all symbols."""
    assert stage.why(attrs.evolve(Tick(), exchange_timestamp=2**63 - 1)) == "bad_timestamp"


@given(st.floats(min_value=5e-324, allow_infinity=False))
def test_a_price_is_the_shortest_decimal_of_its_double(price: float) -> None:
    """It reads back as the same double, and has no digit that this does not need."""
    exact = Stage().intake.judge(Tick(price=price)).price
    assert float(exact) == price
    digits = exact.as_tuple().digits
    assert len(digits) <= 17
    if len(digits) > 1:
        less = Decimal(f"{price:.{len(digits) - 2}e}")
        assert float(less) != price or digits[-1] == 0


@pytest.mark.parametrize(
    ("price", "text"),
    [
        (0.1, "0.1"),
        (100.25, "100.25"),
        (100.0, "100"),
        (61837.63, "61837.63"),
        (1e22, "1E+22"),
        (5e-324, "5E-324"),
    ],
)
def test_prices_as_they_are_written(stage: Stage, price: float, text: str) -> None:
    """A tenth is a tenth."""
    assert str(stage.intake.judge(Tick(price=price)).price) == text


def test_a_volume_is_exact(stage: Stage) -> None:
    """All digits of 64 bits, which a double does not have."""
    assert stage.intake.judge(Tick(volume=2**63 - 1)).quantity == 2**63 - 1


def test_the_first_reason_counts(stage: Stage) -> None:
    """In the order of the contract, whatever else is wrong."""
    stage.taken.add("TAKEN")
    stage.source.settings = settings(max_symbols=1)
    stage.intake.judge(Tick("FIRST"))
    tick, seen = Tick("?", 0.0, 0, 0), []
    for mended in (
        {"symbol": "TAKEN"},
        {"price": 1.0},
        {"volume": 1},
        {"exchange_timestamp": 1},
    ):
        seen.append(stage.why(tick))
        tick = attrs.evolve(tick, **mended)
    seen.append(stage.why(tick))
    stage.source.settings = settings(symbols=("FIRST",))
    seen.append(stage.why(tick))
    stage.taken.clear()
    seen.append(stage.why(tick))
    assert tuple(seen) == REFUSALS


async def test_a_trade_with_an_id_is_taken_once(stage: Stage) -> None:
    """While it is on its way, and when the history has it. One that could not be delivered may come again."""
    pushed = Pushed("aapl", Decimal("1.50"), Decimal(2), NOW, "buy", "7")
    trade = stage.intake.accept(pushed)
    assert trade == Trade("ticks", "AAPL", "7", "buy", Decimal("1.5"), Decimal(2), NOW)
    assert stage.why_not(pushed) == "repeated"
    assert stage.why_not(pushed._replace(price=Decimal(2))) == "id_reused"
    assert stage.why_not(pushed._replace(symbol="GOOG")) is None
    stage.intake.adopt(is_open=False)
    with pytest.raises(ActorGone):
        await stage.intake.put([trade])
    stage.intake.adopt()
    assert stage.why_not(pushed) is None
    stage.intake._recent.clear()
    stage.history["AAPL", "7"] = trade
    assert stage.why_not(pushed) == "repeated"


def test_a_refused_symbol_is_not_discovered(stage: Stage) -> None:
    """Clients cannot fill the memory with the names of bad ticks."""
    for tick in (Tick(price=0.0), Tick(volume=0), Tick(exchange_timestamp=0)):
        stage.why(tick)
    stage.taken.add("BTC-USDT")
    stage.why(Tick("btc-usdt"))
    assert not stage.discovered
    assert not stage.intake.symbols


def test_too_many_symbols(stage: Stage) -> None:
    """Those that came first stay; however often and however written a further one comes, it is refused."""
    stage.source.settings = settings(max_symbols=2)
    assert [stage.why(Tick(each)) for each in ("A", "B", "C", " c ", "A", "b")] == [
        *(None, None, "too_many_symbols", "too_many_symbols", None, None)
    ]
    assert stage.discovered == ["A", "B"]


def test_a_list_of_symbols(stage: Stage) -> None:
    """Only these may come."""
    stage.source.settings = settings(symbols=("AAPL", "MSFT"), max_symbols=1)
    assert [stage.why(Tick(each)) for each in ("aapl", "MSFT", "GOOG")] == [None, None, "symbol_not_allowed"]


def test_other_settings_judge_anew(stage: Stage) -> None:
    """A symbol that has come may be refused from a reload on, because an exchange has it now or nobody allows it."""
    for symbol in ("A", "B", "C"):
        stage.intake.judge(Tick(symbol))
    stage.taken.add("A")
    stage.source.settings = settings(symbols=("A", "B"))
    stage.discovered.clear()
    stage.intake.adopt()
    assert [stage.why(Tick(each)) for each in ("A", "B", "C")] == ["symbol_taken", None, "symbol_not_allowed"]
    assert stage.discovered == ["B"], "the core knows it again"


async def test_what_is_put_is_counted_and_delivered(stage: Stage) -> None:
    """Trades in their order, and the bytes in which they came; bytes without a trade, too."""
    trades = [stage.intake.judge(Tick(volume=n)) for n in (1, 2, 3)]
    await stage.intake.put(trades, 99)
    await stage.intake.put([], 1)
    assert stage.delivered == trades
    assert (stage.source.delivered.trades, stage.source.delivered.batches) == (3, 1)
    assert stage.source.delivered.bytes == 100


def test_a_refusal_is_a_problem_of_the_source(stage: Stage) -> None:
    """Counted by its reason, as in /metrics."""
    stage.intake.refused("bad_price", "an excerpt")
    stage.intake.refused("bad_price", "an excerpt")
    assert stage.source.problems == {"bad_price": 2}


def test_what_came_is_live_while_the_source_listens(stage: Stage) -> None:
    """Also a symbol that came before, when the source comes back, and those that are configured."""
    stage.intake.up()
    stage.intake.judge(Tick("A"))
    assert stage.source.status("A") == "live"
    stage.source.down("port taken")
    assert stage.source.status("A") == "lost"
    stage.intake.up()
    assert stage.source.status("A") == "live"


def test_clients_hear_of_its_end_and_return(stage: Stage) -> None:
    """As of any source. Its first beginning is no connection to anybody."""
    told: list[str] = []

    class Heard(Audience):
        def connected(self, *_: Any) -> None:
            told.append("connected")

        def lost(self, *_: Any) -> None:
            told.append("lost")

        def restored(self, *_: Any) -> None:
            told.append("restored")

    stage.source.audience = Heard()
    stage.intake.up()
    stage.source.down("port taken")
    stage.intake.up()
    assert told == ["lost", "restored"]


async def test_who_pushes_by_http_is_there_for_a_while(stage: Stage, mock_clock: MockClock) -> None:
    """After its newest request, each address once, and no more of them than there is room for."""
    intake, source = stage.intake, stage.source
    intake.heard("10.0.0.1")
    mock_clock.jump(PRESENT - 1)
    intake.heard("10.0.0.2")
    intake.heard("10.0.0.1")
    intake.forget_the_silent()
    assert (source.producers, source.is_deserted) == (2, False)
    mock_clock.jump(PRESENT - 1)
    intake.heard("10.0.0.2")
    mock_clock.jump(1)
    intake.forget_the_silent()
    assert source.producers == 1
    for at in range(ADDRESSES + 9):
        intake.heard(f"10.1.{at // 256}.{at % 256}")
    assert source.producers == ADDRESSES
    mock_clock.jump(PRESENT)
    intake.forget_the_silent()
    assert (source.producers, source.is_deserted) == (0, True)


def test_spellings_and_numbers_are_forgotten(stage: Stage) -> None:
    """Endless new ones need no memory."""
    for n in range(1, 10_000):
        stage.intake.judge(Tick(" " * (n % 5000) + "A", price=float(n), volume=n))
    intake: Any = stage.intake
    assert max(len(intake._spellings), len(intake._prices), len(intake._volumes)) <= 4096


async def test_few_batches_are_judged_in_one_pass() -> None:
    """However many push at once, and whatever becomes of their ticks, others have their turn in between."""
    intake, judged = Stage().intake, 0
    most, passes = 0, 0

    async def push() -> None:
        nonlocal judged
        await intake.turn()
        judged += 1

    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(push)
        while judged < 100:
            before = judged
            await trio.lowlevel.checkpoint()
            most, passes = max(most, judged - before), passes + 1
    assert most == BATCHES_AT_ONCE
    assert passes >= 100 / BATCHES_AT_ONCE
