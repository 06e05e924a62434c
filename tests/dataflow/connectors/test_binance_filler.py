"""Promises of the `Filler` in dataflow.connectors.binance, beside an exchange whose REST was written separately."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.connector import Received
from dataflow.connectors.binance import Codec, Filler, Settings
from dataflow.domain import Item, Missing, Trade
from dataflow.sources.port import Newest, Page, Request
from dataflow.sources.reading import Unusable
from simulators import Trade as Published
from simulators.exchanges.binance import agg_trade_payload, binance_rest, trade_payload

STREAMS = ("trade", "aggTrade")
SYMBOLS = ("BTC-USDT", "ETH-USDT")


def settings(stream: str = "trade", symbols: Sequence[str] = SYMBOLS) -> Settings:
    made: Any = Settings
    return made(connector="binance", url="ws://exchange", symbols=tuple(symbols), stream=stream)  # type: ignore[no-any-return]


def published(number: int) -> Published:
    side: Any = "buy" if number % 3 else "sell"
    return Published(
        number, "BTCUSDT", side, f"{100 + number}.5", f"0.{number + 1}", 1_700_000_000_000_000 + number
    )


def streamed(stream: str, numbers: Sequence[int]) -> list[Trade]:
    """What the live stream gives of these trades."""
    codec, into = Codec("bn", settings(stream)), Received[Item]()
    write = trade_payload if stream == "trade" else agg_trade_payload
    for number in numbers:
        codec.decode(write(published(number)), into)
    assert not into.problems
    return [item for item in into.items if isinstance(item, Trade)]


def answer(request: Request, tape: Sequence[Published]) -> bytes:
    parts = urlsplit(request.path)
    query = dict(parse_qsl(parts.query))
    given_ = binance_rest(parts.path, query, lambda symbol: [each for each in tape if each.symbol == symbol])
    assert given_.status == 200
    assert given_.weight == request.weight
    return given_.body


def all_pages(filler: Filler, missing: Missing, tape: Sequence[Published]) -> list[Page]:
    request, pages = filler.fill(missing), list[Page]()
    while request is not None:
        pages.append(filler.filled(missing, request, answer(request, tape)))
        request = pages[-1].following
        assert len(pages) < 10
    return pages


@pytest.mark.parametrize("stream", STREAMS)
@given(
    first=st.integers(1, 20), count=st.integers(1, 2500), has_before=st.booleans(), behind=st.integers(0, 5)
)
def test_the_answer_holds_the_missing_trades_as_the_stream_would_have_sent_them(
    stream: str, first: int, count: int, has_before: bool, behind: int
) -> None:
    """And the trades on both sides of them, so that a wrong answer shows; nothing that was not asked for."""
    last = first + count - 1
    tape = [published(number) for number in range(last + 2 + behind)]
    after, before = streamed(stream, [first - 1, last + 1])
    end = last + 1 if has_before else last + 1 + behind
    missing = Missing(
        "bn", "BTC-USDT", after, before if has_before else None, first, last if has_before else None
    )
    found = [
        trade for page in all_pages(Filler("bn", settings(stream)), missing, tape) for trade in page.trades
    ]
    assert [trade.sequence for trade in found] == list(range(first - 1, end + 1))
    assert found[0] == after
    assert found[1:4] == streamed(stream, range(first, min(first + 3, end + 1)))
    if has_before:
        assert found[-1] == before


def test_an_answer_that_ends_too_early_is_the_last_one() -> None:
    """The REST may know less than the stream: it is asked again later, not now."""
    missing = Missing("bn", "BTC-USDT", *streamed("trade", [0, 50]), 1, 49)
    (page,) = all_pages(Filler("bn", settings()), missing, [published(number) for number in range(30)])
    assert [trade.sequence for trade in page.trades] == list(range(30))


def test_without_a_trade_to_begin_with_the_newest_are_asked_for() -> None:
    """One page of them."""
    missing = Missing("bn", "BTC-USDT", None, None)
    (page,) = all_pages(Filler("bn", settings()), missing, [published(number) for number in range(1500)])
    assert (page.trades[0].sequence, page.trades[-1].sequence, page.following) == (500, 1499, None)


@pytest.mark.parametrize("ids", [[5] * 1000, [3] * 1000, [2, 1] * 500])
def test_pages_never_go_round_in_circles(ids: list[int]) -> None:
    """A full page that does not lead on is the last one."""
    missing = Missing("bn", "BTC-USDT", streamed("trade", [5])[0], None, 6)
    filler = Filler("bn", settings())
    request = filler.fill(missing)
    assert request is not None
    row = {"price": "1", "qty": "1", "time": 1_700_000_000_000, "isBuyerMaker": True}
    page = filler.filled(missing, request, msgspec.json.encode([{"id": each, **row} for each in ids]))
    assert page.following is None or "fromId=6&" in page.following.path


def test_one_question_tells_the_newest_ids_of_twenty_symbols() -> None:
    """A symbol without a trade is left out. Its weight is that of the cheapest class."""
    symbols = [f"C{number}-USDT" for number in range(30)]
    filler, tape = Filler("bn", settings(symbols=symbols)), [published(number) for number in range(9)]
    request = filler.latest(symbols)
    assert request is not None
    assert request.weight == 2
    assert "C19USDT" in request.path
    assert "C20USDT" not in request.path
    told = answer(request, [*tape, Published(7, "C3USDT", "buy", "1", "1", 1)])
    assert filler.newest(symbols, told) == {"C3-USDT": Newest(7, "7")}
    with pytest.raises(Unusable, match=r"^unknown_symbol$"):  # it was not asked for
        filler.newest(symbols, b'[{"symbol":"C20USDT","lastId":1}]')
    assert filler.latest([]) is None


def test_aggregates_are_asked_for_one_by_one() -> None:
    """Their answer tells the time, too."""
    filler, tape = Filler("bn", settings("aggTrade")), [published(number) for number in range(9)]
    request = filler.latest(SYMBOLS)
    assert request is not None
    (trade,) = streamed("aggTrade", [8])
    assert filler.newest(SYMBOLS, answer(request, tape)) == {"BTC-USDT": Newest(8, "8", trade.timestamp)}
    assert filler.newest(SYMBOLS, b"[]") == {}


ROW = {"id": 1, "price": "1.5", "qty": "2", "time": 1_700_000_000_000, "isBuyerMaker": True}


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (b"\xff", "malformed_json"),
        (b"<html>", "malformed_json"),
        (b'{"code":-1121,"msg":"Invalid symbol."}', "unexpected_json"),
        (b"[1]", "unexpected_json"),
        *(
            (msgspec.json.encode([{**ROW, **wrong}]), reason)
            for wrong, reason in [
                ({"id": "1"}, "bad_trade_id"),
                ({"id": -1}, "bad_trade_id"),
                ({"id": 2**60}, "bad_trade_id"),
                ({"id": None}, "missing_field"),
                ({"price": 1.5}, "bad_price"),
                ({"price": "0"}, "bad_price"),
                ({"qty": "-1"}, "bad_quantity"),
                ({"time": 0}, "bad_timestamp"),
                ({"time": "now"}, "bad_timestamp"),
                ({"isBuyerMaker": 1}, "bad_side"),
            ]
        ),
    ],
)
def test_an_answer_with_one_wrong_value_cannot_be_used(told: bytes, reason: str) -> None:
    """As a whole: nothing of it is guessed or left out."""
    filler = Filler("bn", settings())
    missing = Missing("bn", "BTC-USDT", None, None)
    request = filler.fill(missing)
    assert request is not None
    with pytest.raises(Unusable, match=f"^{reason}$"):
        filler.filled(missing, request, told)


@pytest.mark.parametrize(
    "told", [b'[{"symbol":"XUSDT","lastId":1}]', b'[{"lastId":1}]', b'[{"symbol":"BTCUSDT","lastId":"1"}]']
)
def test_a_ticker_that_makes_no_sense_cannot_be_used(told: bytes) -> None:
    """Another symbol, none, or an id that is no number."""
    with pytest.raises(Unusable):
        Filler("bn", settings()).newest(SYMBOLS, told)


@given(st.binary() | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(msgspec.json.encode))
def test_any_answer_is_read_or_refused(told: bytes) -> None:
    """With `Unusable`, never another error."""
    filler, missing = Filler("bn", settings()), Missing("bn", "BTC-USDT", None, None)
    request = filler.fill(missing)
    assert request is not None
    for read in (lambda: filler.filled(missing, request, told), lambda: filler.newest(SYMBOLS, told)):
        try:
            read()
        except Unusable as error:
            assert error.reason.islower()  # noqa: PT017 - the one declared error
