"""The formats `compact` and `strings`: other bytes, the same values as in `json`."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dataflow.domain import Gap, Topic, Trade
from dataflow.domain.notice import Draining
from dataflow.domain.quality import Grade, Quality
from dataflow.faces.jsonrpc.compact import COLUMNS, Compact
from dataflow.faces.jsonrpc.format import JSONRPC, STRINGS
from dataflow.gateway.format import Format

TOPIC = Topic("trades", "BTC-USD")
TRADE = Trade(
    source="kraken",
    symbol="BTC-USD",
    trade_id="12886314421",
    side="buy",
    price=Decimal("8501.10"),
    quantity=Decimal("5.892E-4"),
    timestamp=1_589_135_616_696_315_999,
)
COMPACT = Compact(["AAPL", "BTC-USD"], ["blockchain", "kraken"])

_NUMBERS = st.decimals(allow_nan=False, allow_infinity=False, min_value=Decimal("1e-30"), max_value=10**30)
_TRADES = st.builds(
    Trade,
    source=st.sampled_from(["blockchain", "kraken", 'a "later" one', "später"]),
    symbol=st.just("BTC-USD"),
    trade_id=st.none() | st.text(st.characters(exclude_categories=("Cs",)), max_size=12),
    side=st.sampled_from(["buy", "sell", None]),
    price=_NUMBERS,
    quantity=_NUMBERS,
    timestamp=st.integers(0, 4_000_000_000 * 10**9),
)


def live(format: Format, *places: tuple[int, Trade | Gap]) -> list[str]:
    return [text.decode() for text in format.encoder(TOPIC, 5)(places)]


def exact(text: str | bytes) -> Any:
    return json.loads(text, parse_float=Decimal)


def test_a_compact_trade_is_the_contract_to_the_byte() -> None:
    """Topic, place, microseconds, side, price, quantity, id, source; the same live and in an answer."""
    expected = '[1,7,1589135616696315,"buy",8501.10,0.0005892,"12886314421",1]'
    assert live(COMPACT, (7, TRADE)) == [expected]
    assert COMPACT.item(TOPIC, 5, 7, TRADE).decode() == expected


def test_the_same_trade_in_strings_to_the_byte() -> None:
    """As in `json`, but for the two numbers: they keep every digit as text."""
    fields = (
        '{"seqnum":7,"event":"updated","channel":"trades","symbol":"BTC-USD",'
        '"timestamp":"2020-05-10T18:33:36.696315Z","side":"buy","qty":"0.0005892","price":"8501.10",'
        '"tradeId":"12886314421","source":"kraken","offset":7}'
    )
    assert live(STRINGS, (7, TRADE)) == [f'{{"jsonrpc":"2.0","method":"trades.update","params":{fields}}}']
    assert STRINGS.item(TOPIC, 5, 7, TRADE).decode() == fields


def test_what_came_after_the_start_is_written_by_its_name() -> None:
    """A number would have to be explained, and the explanation could be dropped before a slow client.

    Also the source of such a symbol: who follows all symbols may have had no answer that names it.
    """
    late = Trade("coinbase", "NEW-USD", None, None, Decimal(1), Decimal(2), 1_000)
    topic = Topic("trades", "NEW-USD")
    assert COMPACT.encoder(topic, 1)([(1, late)]) == [b'["NEW-USD",1,1,null,1,2,null,"coinbase"]']
    known = Trade("kraken", "NEW-USD", None, None, Decimal(1), Decimal(2), 1_000)
    assert COMPACT.encoder(topic, 1)([(1, known)]) == [b'["NEW-USD",1,1,null,1,2,null,"kraken"]']
    assert bytes(COMPACT.key(topic)) == b'"NEW-USD"'
    assert bytes(COMPACT.key(TOPIC)) == b"1"


def test_a_fill_has_its_trades_as_the_format_has_them() -> None:
    """`stream.filled` live, and `from`, `to` and `trades` in an answer."""
    for format in (JSONRPC, STRINGS, COMPACT):
        trades = [exact(format.item(TOPIC, 5, place, TRADE)) for place in (7, 8)]
        fill = {"from": 7, "to": 8, "trades": trades}
        assert exact(format.fill(TOPIC, 5, [(7, TRADE), (8, TRADE)])) == fill
        told = exact(format.filled(TOPIC, 5, [(7, TRADE), (8, TRADE)]) or b"")
        assert told["method"] == "stream.filled"
        assert told["params"] == {"symbol": "BTC-USD", "channel": "trades", "epoch": 5, **fill}


def test_gaps_notices_and_other_channels_are_the_same_in_all_formats() -> None:
    """Only trades are written otherwise."""
    gap, lost = Gap(3, 9, "source_gap"), Quality("BTC-USD", "kraken", Grade.LOST, 1, "cut")
    for format in (COMPACT, STRINGS):
        assert live(format, (9, gap)) == [JSONRPC.gap(TOPIC, 5, gap).decode()]
        assert format.hole(TOPIC, 5, gap) == JSONRPC.hole(TOPIC, 5, gap)
        assert format.gap(TOPIC, 5, gap, 6) == JSONRPC.gap(TOPIC, 5, gap, 6)
        assert format.notice(Draining()) == JSONRPC.notice(Draining())
    quality = Topic("quality", "BTC-USD")
    assert STRINGS.encoder(quality, 5)([(1, lost)]) == JSONRPC.encoder(quality, 5)([(1, lost)])


@given(st.lists(_TRADES, min_size=1, max_size=4))
def test_every_trade_means_the_same_in_all_formats(trades: list[Trade]) -> None:
    """Any digits, any text as id, no side, no id, trades that share a moment: nothing is lost or changed."""
    places = list(enumerate(trades, start=3))
    texts = zip(trades, *(live(format, *places) for format in (JSONRPC, STRINGS, COMPACT)), strict=True)
    for offset, (trade, plain, strings, compact) in enumerate(texts, start=3):
        told = exact(plain)["params"]
        quoted = exact(strings)["params"]
        row = dict(zip(COLUMNS, exact(compact), strict=True))
        for amount, written in ((trade.price, "price"), (trade.quantity, "qty")):
            assert Decimal(quoted[written]).as_tuple() == amount.as_tuple()
            assert f'"{written}":{quoted[written]},' in plain
            assert f",{quoted[written]}," in compact
        assert {**quoted, "price": told["price"], "qty": told["qty"]} == told
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=row["timestamp"])
        assert f"{moment:%Y-%m-%dT%H:%M:%S.%fZ}" == told["timestamp"]
        source = row["source"]
        assert (COMPACT.sources[source] if isinstance(source, int) else source) == told["source"]
        assert row["topic"] == 1
        same = ("offset", "side", "price", "qty", "tradeId")
        assert [row[name] for name in same] == [told[name] for name in same]
        assert told["offset"] == offset
