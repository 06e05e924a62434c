"""How trades and notices look in a terminal."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.cli.columns import Columns, in_words
from dataflow.client import Trade

AT = datetime(2020, 5, 10, 18, 33, 36, 696315, tzinfo=UTC)


def trade(price: str = "8501.10", quantity: str = "5.892E-4", **other: Any) -> Trade:
    usual = {"symbol": "BTC-USD", "offset": 7, "timestamp": AT, "side": "buy", "trade_id": "t7"}
    told = {**usual, "source": "blockchain", "price": Decimal(price), "quantity": Decimal(quantity), **other}
    return Trade(**told)


class TestTrades:
    def test_a_trade_is_an_aligned_line(self) -> None:
        """Time, symbol, side, price, quantity, source and place. No scientific notation."""
        columns = Columns(7)
        assert [columns.trade(trade()), columns.trade(trade("12345678.25", "20", side="sell"))] == [
            "18:33:36.696 BTC-USD buy      8501.1              0.0005892  blockchain #7",
            "18:33:36.696 BTC-USD sell 12345678.25            20.0000000  blockchain #7",
        ]

    @pytest.mark.parametrize(
        ("side", "colour"), [("buy", "\x1b[32m"), ("sell", "\x1b[31m"), ("odd", "\x1b[33m")]
    )
    def test_sides_have_their_colours(self, side: str, colour: str) -> None:
        """A buy is green, a sell is red, another side is yellow."""
        assert f"{colour}{side:<4}\x1b[0m" in Columns(7, coloured=True).trade(trade(side=side))

    def test_a_side_that_the_source_does_not_tell(self) -> None:
        """It is a dash, and takes as much room."""
        shown = Columns(7).trade(trade(side=None, trade_id=None))
        assert shown == Columns(7).trade(trade()).replace("buy ", "-   ")

    @pytest.mark.parametrize("price", ["8501.10000000", "8501.1", "8501", "0.00000612", "12345678.5", "1E+3"])
    def test_the_decimal_points_are_aligned(self, price: str) -> None:
        """Exchanges differ in their trailing zeros: the columns stay straight and no value changes."""
        shown = Columns(7).trade(trade(price))
        assert Decimal(shown[26:43].strip()) == Decimal(price)
        assert shown[34] in ". "
        assert shown[43:].split() == ["0.0005892", "blockchain", "#7"]
        assert len(shown) == len(Columns(7).trade(trade()))

    def test_a_symbol_has_equal_digits(self) -> None:
        """`61685.99000000` of one exchange does not stand beside `61673.6` of another. Another symbol has
        digits of its own."""
        columns = Columns(7)
        shown = [columns.trade(trade(price)) for price in ("61685.99000000", "61673.6", "61674")]
        assert [line[26:43].rstrip() for line in shown] == ["   61685.99", "   61673.60", "   61674.00"]
        assert columns.trade(trade("3000", symbol="ETH-USD"))[26:43].strip() == "3000"

    @given(st.lists(st.decimals(0, 10**7, allow_nan=False, places=None), max_size=6))
    def test_no_value_changes(self, prices: list[Decimal]) -> None:
        """Only zeros at the end of a price come and go."""
        columns = Columns(7)
        for price in prices:
            shown = columns.trade(trade(str(price)))
            assert Decimal(shown[26:].split()[0]) == price

    def test_nothing_is_obeyed(self) -> None:
        """Escape codes in texts from the daemon do not reach the terminal."""
        columns = Columns(7)
        shown = [columns.trade(trade(symbol="\x1b[2J", source="\x1b]0;x\x07")), columns.news("\x1b[2J: a\nb")]
        assert "\x1b" not in "".join(shown)
        assert shown[1] == "-- \\x1b[2J: a\n    b"


@pytest.mark.parametrize(
    ("method", "told", "words"),
    [
        ("stream.gap", {"symbol": "A-B", "from": 3, "to": 5, "reason": "slow_client"}, "A-B: #3 to 5 did not come (slow_client)"),
        ("stream.gap", {"symbol": "A-B", "from": 3, "to": 3, "reason": "x"}, "A-B: #3 did not come (x)"),
        ("stream.gap", {"symbol": "A-B", "from": 3, "to": None, "reason": "x"}, "A-B: #3 to ? did not come (x)"),
        ("stream.filled", {"symbol": "A-B", "from": 3, "to": 5, "trades": []}, "A-B: #3 to 5 came after all"),
        ("stream.started", {"symbol": "A-B", "channel": "trades", "epoch": 2, "offset": 0}, "A-B: new here"),
        ("stream.rewind", {"symbol": "A-B", "epoch": 2, "offset": 8}, "A-B: forget all behind #8, the daemon crashed before it was kept"),
        ("stream.switched", {"symbol": "A-B", "offset": 7, "from": "one", "to": "two", "reason": "one is lost"}, "A-B: from two behind #7 (one is lost)"),
        ("symbols.changed", {"added": ["A-B"], "removed": ["C-D"]}, "symbols: A-B is new, C-D is gone"),
        ("connection.lost", {"source": "acme", "reason": "silent"}, "acme: connection lost (silent)"),
        ("connection.restored", {"source": "acme", "action": "resubscribe"}, "acme: connection restored"),
        ("connection.draining", {}, "the daemon is going away"),
        ("new.thing", {"a": 1}, 'new.thing {"a": 1}'),
    ],
)  # fmt: skip
def test_notices_are_sentences(method: str, told: dict[str, Any], words: str) -> None:
    """Gaps and connections are shown in words, an unknown notification unchanged."""
    assert in_words(method, told) == words
