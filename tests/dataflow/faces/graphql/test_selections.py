"""What subscriptions ask for, and how their events are written: the same as if the document were run for each."""

from __future__ import annotations

import gc
import json
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from graphql import ExecutionResult, execute_sync
from hypothesis import given
from hypothesis import strategies as st

from actors.update import Stream, Update
from dataflow.domain import Gap, Recorded, Topic, Trade
from dataflow.domain.aggregate import Aggregate
from dataflow.faces.graphql.documents import Rejected, checked
from dataflow.faces.graphql.request import Request
from dataflow.faces.graphql.schema import SCHEMA, leaf
from dataflow.faces.graphql.selections import KEPT_RESULTS, RESULTS, Selection, Selections, wanted
from dataflow.gateway.spelling import encode

TOPIC = Topic("trades", "BTC-USDT")
TRADE = Trade(
    "binance",
    "BTC-USDT",
    "7",
    "sell",
    Decimal("61711.40000000"),
    Decimal("0.00040000"),
    1_700_000_000_123_456_789,
    1,
)
BAR = Aggregate(
    symbol="BTC-USDT",
    start=1_699_920_000_000_000_000,
    open=Decimal("1.10"),
    high=Decimal("3"),
    low=Decimal("1E-7"),
    close=Decimal("2.50"),
    volume=Decimal("15.000"),
    count=3,
    timestamp=1_700_000_000_123_456_789,
    offset=3,
)


def asked(text: str, **variables: Any) -> Any:
    return wanted(checked(text, 15), Request(text, variables, None))


def test_an_event_of_trades() -> None:
    """All fields, with the digits that they have inside; the order is that of the document."""
    wish = asked(
        'subscription{trades(symbol:" btcusdt"){symbol price qty side tradeId timestamp time offset source __typename}}'
    )
    assert (wish.root, wish.symbol, wish.key) == ("trades", " btcusdt", "trades")
    assert Selection(wish).result(Recorded(6, TRADE)) == (
        b'{"data":{"trades":{"symbol":"BTC-USDT","price":61711.40000000,"qty":0.00040000,"side":"sell",'
        b'"tradeId":"7","timestamp":"1700000000123","time":"2023-11-14T22:13:20.123456Z","offset":6,'
        b'"source":"binance","__typename":"Trade"}}}'
    )


def test_a_trade_without_id_and_side_has_none() -> None:
    """As ticks are: null, and nothing that was made up."""
    wish = asked('subscription{trades(symbol:"AAPL"){side tradeId}}')
    tick = msgspec.structs.replace(TRADE, source="ticks", symbol="AAPL", trade_id=None, side=None)
    assert Selection(wish).result(Recorded(1, tick)) == b'{"data":{"trades":{"side":null,"tradeId":null}}}'


def test_an_event_of_the_bar_of_the_day() -> None:
    """Prices are numbers, volume and time are text: exact, without an exponent."""
    wish = asked('subscription{marketData(symbol:"x"){symbol open high low close volume timestamp}}')
    assert Selection(wish).result(BAR) == (
        b'{"data":{"marketData":{"symbol":"BTC-USDT","open":1.10,"high":3,"low":1E-7,"close":2.50,"volume":"15",'
        b'"timestamp":"1700000000123"}}}'
    )


@pytest.mark.parametrize(
    ("text", "variables"),
    [
        ('subscription{a:trades(symbol:"B"){p:price q:price __typename}}', {}),
        (
            "subscription($s:String!){trades(symbol:$s){...F ...on Trade{side}}} fragment F on Trade{qty price}",
            {"s": "B"},
        ),
        (
            'subscription($no:Boolean!){trades(symbol:"B"){price @skip(if:$no) qty @include(if:$no) side}}',
            {"no": True},
        ),
        (
            'subscription($no:Boolean!){trades(symbol:"B"){price @skip(if:$no) qty @include(if:$no) side}}',
            {"no": False},
        ),
        ('subscription{trades(symbol:"B"){price} trades(symbol:"B"){qty}}', {}),
        ('subscription{trades(symbol:"B"){offset offset}}', {}),
    ],
)
def test_a_selection_writes_what_a_run_of_the_document_would(text: str, variables: dict[str, Any]) -> None:
    """Aliases, fragments, directives, variables: GraphQL itself decides, once."""
    document = checked(text, 15)
    ran = execute_sync(
        SCHEMA,
        document,
        variable_values=variables,
        field_resolver=lambda source, info, **_: leaf(source, info) if source else Recorded(6, TRADE),
    )
    assert isinstance(ran, ExecutionResult)
    assert Selection(asked(text, **variables)).result(Recorded(6, TRADE)) == encode(ran.formatted)


FIELDS = st.sampled_from(
    [
        "symbol",
        "price",
        "qty",
        "side",
        "tradeId",
        "timestamp",
        "time",
        "offset",
        "source",
        "__typename",
        "a:price",
        "b:qty",
    ]
)


@given(st.lists(FIELDS, min_size=1, max_size=10))
def test_any_selection_is_what_a_run_would_give(fields: list[str]) -> None:
    """In the order of its first mention, each once."""
    text = f'subscription{{trades(symbol:"B"){{{" ".join(fields)}}}}}'
    written = json.loads(Selection(asked(text)).result(Recorded(6, TRADE)))
    assert list(written["data"]["trades"]) == list(dict.fromkeys(field.partition(":")[0] for field in fields))


@pytest.mark.parametrize(
    ("text", "variables", "words"),
    [
        ("subscription($s:String!){trades(symbol:$s){price}}", {}, "String!"),
        ("subscription($s:String!){trades(symbol:$s){price}}", {"s": 1}, "String cannot represent"),
        (
            'subscription A{trades(symbol:"B"){price}} subscription B{trades(symbol:"B"){price}}',
            {},
            "operation name",
        ),
        (
            'subscription{trades(symbol:"B"){' + " ".join(f"a{n}:side" for n in range(51)) + "}}",
            {},
            "at most 50 fields",
        ),
        ('subscription{trades(symbol:"B"){' + "x" * 1000 + ":side}}", {}, "1000 characters of keys"),
    ],
)
def test_what_cannot_be_followed(text: str, variables: dict[str, Any], words: str) -> None:
    """A variable that does not fit, nobody knows which operation, or too much for each trade."""
    with pytest.raises(Rejected, match=words):
        asked(text, **variables)


def test_equal_selections_are_one_as_long_as_somebody_follows() -> None:
    """Of one topic; then nothing is kept."""
    selections = Selections()
    one = selections.share(TOPIC, asked('subscription{trades(symbol:"B"){price}}'))
    assert selections.share(TOPIC, asked('subscription X {trades(symbol:"B"){...{price}}}')) is one
    assert selections.share(TOPIC, asked('subscription{trades(symbol:"B"){p:price}}')) is not one
    assert selections.share(Topic("trades", "C"), asked('subscription{trades(symbol:"B"){price}}')) is not one
    del one
    gc.collect()
    assert len(selections) == 0


def test_a_place_is_written_once_for_all() -> None:
    """Each entry in its place, also those that are missing, and for a client that is behind. Few are kept."""
    selection = Selection(asked('subscription{trades(symbol:"B"){offset}}'))
    stream = Stream(TOPIC, 1, hole=Gap)
    update = Update(stream, 6, [(6, TRADE), (8, Gap(7, 8, "source_gap")), (9, TRADE)])
    results = selection.results(update)
    assert [json.loads(each)["data"] for each in results] == [
        {"trades": {"offset": 6}},
        None,
        {"trades": {"offset": 9}},
    ]
    late = update.after(6)
    assert late is not None
    for again, before in zip(selection.results(late), results[1:], strict=True):
        assert again is before
    for place in range(10, 1000):
        selection.results(Update(stream, place, [(place, TRADE)]))
    assert len(selection._results) <= KEPT_RESULTS + 1


def test_missing_trades_are_an_event_with_an_error() -> None:
    """Which places, why, and how many trades a slow client does not get."""
    assert json.loads(RESULTS.hole(TOPIC, 1, Gap(7, 8, "source_gap"))) == {
        "data": None,
        "errors": [
            {
                "message": "Trades are missing: places 7 to 8, source_gap.",
                "extensions": {"code": "GAP", "from": 7, "to": 8, "reason": "source_gap"},
            }
        ],
    }
    error = json.loads(RESULTS.gap(TOPIC, 1, Gap(7, 7, "slow_client"), 1))["errors"][0]
    assert error["message"] == "Trades are missing: place 7, slow_client."
    assert error["extensions"]["skipped"] == 1
