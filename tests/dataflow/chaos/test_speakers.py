"""A program made of the library: what the library does wrong is found out by the events and positions alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

from dataflow.chaos.check import Admitted, Seen
from dataflow.chaos.plan import Make
from dataflow.chaos.speakers import Fed
from dataflow.client import Candle, Connection, Filled, Gap, Rewound, Trade
from dataflow.client.inbox import Places

SYMBOL = "A-B"
MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


def trade(offset: int) -> Trade:
    return Trade(
        symbol=SYMBOL,
        offset=offset,
        timestamp=MOMENT,
        side="buy",
        price=Decimal(1),
        quantity=Decimal(2),
        trade_id=str(offset),
        source="x",
    )


def gap(first: int, to: int | None, reason: str = "source_gap") -> Gap:
    return Gap(symbol=SYMBOL, first=first, to=to, reason=reason)


def filled(first: int, last: int) -> Filled:
    trades = tuple(map(trade, range(first, last + 1)))
    return Filled(symbol=SYMBOL, first=first, last=last, trades=trades)


def fed(*events: Any, also: bool = False) -> Fed:
    """It has taken these events; its feed has noted them."""
    made, places = Fed("", 0, [SYMBOL], make=Make("library", also=also)), Places()
    made._feed = SimpleNamespace(positions={})  # type: ignore[assignment]
    for event in (Connection(state="connected"), *events):
        if isinstance(event, Candle):
            made._candle(event)
            continue
        places.give(event)
        told = places._cursors.get(SYMBOL)
        if told is not None:
            told.epoch = 1  # as the answer has it
        made._feed.positions.update(places.positions)  # type: ignore[union-attr]
        made._take(event)
    return made


def violations(made: Fed, last: int = 9, gaps: Mapping[int, int] | None = None) -> dict[str, int]:
    """`gaps`: what the daemon has not, first and last place."""
    admitted = Admitted()
    missing = {at for first, end in (gaps or {}).items() for at in range(first, end + 1)}
    for at in range(1, last + 1):
        if at in missing:
            admitted.gap(at, at, "source_gap")
        else:
            admitted.trade(at, Seen("x", str(at), "buy", Decimal(1), Decimal(2)))
    return dict(made.account({SYMBOL: admitted}).violations)


WHOLE = [trade(1), gap(2, 5), trade(6), filled(2, 3), gap(7, None), trade(8), filled(4, 5), trade(9)]


def test_a_program_of_a_right_library_has_nothing_to_complain_of() -> None:
    """Trades, gaps, fills and the end of a connection."""
    lost = Connection(state="lost", reason="it was cut off", code=1006)
    made = fed(*WHOLE, lost)
    made._save(made._feed)  # type: ignore[arg-type]
    assert violations(made, gaps={7: 7}) == {}
    assert made.closed == {1006: 1}


@pytest.mark.parametrize(
    ("events", "found"),
    [
        ([*WHOLE, trade(9)], {"duplicated": 1}),
        ([each for each in WHOLE if each != trade(8)], {"missing": 1}),
        ([each for each in WHOLE if each != filled(4, 5)], {"unfilled": 2}),
        ([each for each in WHOLE if each != gap(7, None)], {"untold": 1}),
        ([*WHOLE, gap(0, None)], {"unrecovered": 1}),
        ([*WHOLE, Connection(state="lost", reason="a fault of the daemon (a hole)")], {"faulty": 1}),
    ],
)
def test_what_a_library_does_wrong_is_found_out(events: list[Any], found: dict[str, int]) -> None:
    """What it leaves out, tells twice or takes for a fault of the daemon."""
    assert violations(fed(*events), gaps={7: 7}) == found


@pytest.mark.parametrize("place", [{"epoch": 1, "offset": 4}, {"epoch": 1, "offset": 5, "gaps": [[2, 2]]}])
def test_positions_are_those_of_the_program(place: dict[str, Any]) -> None:
    """Neither ahead nor behind, and with every gap that may still be filled."""
    made = fed(trade(1), gap(2, 3), trade(4), trade(5))
    made._save(made._feed)  # type: ignore[arg-type]
    assert violations(made, 5, {2: 3}) == {}
    made._save(SimpleNamespace(positions={SYMBOL: place}))  # type: ignore[arg-type]
    assert violations(made, 5, {2: 3}) == {"misplaced": 1}


def test_a_program_that_dies_knows_what_it_had_saved() -> None:
    """It gets the rest again, and the fills that came since then."""
    made = fed(trade(1), gap(2, 3), trade(4))
    made._save(made._feed)  # type: ignore[arg-type]
    since_then: list[Any] = [trade(5), filled(2, 2)]
    for event in (*since_then, Rewound(symbol=SYMBOL, epoch=2, offset=4, dropped=1), trade(5)):
        made._take(event)
    made._forget()
    assert made.position(SYMBOL) == json.loads(made._saved)[SYMBOL]["offset"] == 4
    assert violations(made, 4, {3: 3}) == {"unfilled": 1}
    for event in (Connection(state="connected"), filled(2, 2), trade(5)):
        made._take(event)
    assert violations(made, 5, {3: 3}) == {}


def candle(**changes: Any) -> Candle:
    numbers = dict.fromkeys(("open", "high", "low", "close"), Decimal(1))
    fields = {"volume": Decimal(4), "quote_volume": Decimal(4), "buy_volume": Decimal(4), "count": 2}
    places = {"first_offset": 1, "last_offset": 2, "rev": 1, "closed": True, "complete": True}
    whole: dict[str, Any] = (
        numbers | fields | places | {"symbol": SYMBOL, "interval": "1s", "start": MOMENT} | changes
    )
    return Candle(**whole)


@pytest.mark.parametrize(
    ("candles", "found"),
    [
        ([candle(), candle(rev=2)], {}),
        ([candle(count=3)], {"untrue": 1}),
        ([candle(volume=Decimal(5))], {"untrue": 1}),
        ([candle(count=3, complete=False)], {}),
        ([candle(count=3), candle(rev=2)], {}),
        ([candle(rev=2), candle()], {"reordered": 1}),
    ],
)
def test_candles_are_what_their_trades_make(candles: list[Candle], found: dict[str, int]) -> None:
    """The last revision of each, if it says that it is complete; revisions come in order."""
    assert violations(fed(trade(1), trade(2), *candles, also=True), 2) == found
