"""The core of a client: what it calls, what it makes of messages, and which faults of a server it names."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from dataflow.client import (
    Candle,
    Client,
    Event,
    Filled,
    Gap,
    Notice,
    Quality,
    Refused,
    Rewound,
    ServerFault,
    Subscribed,
    Topic,
    Trade,
    Unreadable,
    WrongPlace,
)
from dataflow.client.client import COLUMNS

TOPIC = Topic("trades", "BTC-USD")


def trade(offset: int, **other: Any) -> dict[str, Any]:
    return {
        "symbol": "BTC-USD",
        "timestamp": "2020-05-10T18:33:36.696315Z",
        "side": "buy",
        "qty": 1,
        "price": 2,
        "tradeId": f"t{offset}",
        "source": "acme",
        "offset": offset,
    } | other


def notification(method: str, **params: Any) -> str:
    return json.dumps({"jsonrpc": "2.0", "method": method, "params": params})


def update(offset: int, **other: Any) -> str:
    return notification("trades.update", **trade(offset, **other))


def gap(first: int, last: int | None, reason: str = "source_gap") -> str:
    head = {"symbol": "BTC-USD", "channel": "trades", "epoch": 1}
    return notification("stream.gap", **head, **{"from": first, "to": last, "reason": reason})


def filled(first: int, last: int, *offsets: int) -> str:
    told = {"from": first, "to": last, "trades": [trade(offset) for offset in offsets]}
    return notification("stream.filled", symbol="BTC-USD", channel="trades", epoch=1, **told)


def answer(offset: int, **more: Any) -> str:
    result = {"channel": "trades", "symbol": "BTC-USD", "event": "subscribed", "epoch": 1, "offset": offset}
    return json.dumps({"jsonrpc": "2.0", "id": "trades:BTC-USD", "result": result | more})


def rewind(offset: int, epoch: int = 2) -> str:
    return notification("stream.rewind", symbol="BTC-USD", channel="trades", epoch=epoch, offset=offset)


def every(symbol: str) -> dict[str, Any]:
    return {"channel": "trades", "symbol": symbol, "event": "subscribed", "epoch": 7, "offset": 612}


def every_answer(client: Client, names: list[str]) -> None:
    """Follow all symbols, of which there are these."""
    client.follow("*")
    message = {"jsonrpc": "2.0", "id": "trades:*", "result": [every(name) for name in names]}
    assert [type(event) for event in client.hear(json.dumps(message))] == [Subscribed] * len(names)


@pytest.fixture
def client() -> Client:
    """Subscribed, at place 5."""
    made = Client()
    made.follow("BTC-USD")
    assert list(made.hear(answer(5))) == [Subscribed(topic=TOPIC, epoch=1, offset=5, newest=5)]
    return made


def places(client: Client) -> list[tuple[int, int]]:
    return [(entry.first, entry.last) for entry in client.streams[TOPIC].log]


class TestCalls:
    @pytest.mark.parametrize("symbols", [1_000, 3_000, 10_000])
    def test_a_call_fits_into_a_message(self, symbols: int) -> None:
        """However many symbols are followed by `*`: all positions are named, in parts that the server takes. It would
        hang up at a longer call, each time."""
        client, names = Client(), [f"S{number}\u20ac-USDT" for number in range(symbols)]
        every_answer(client, names)
        calls = client.connect()
        parts = [json.loads(call)["params"] for call in calls]
        assert max(len(call.encode()) for call in calls) < 64 * 1024
        count = len(calls)
        assert (count == 1) == (symbols == 1_000)
        numbers = [each.get("part") for each in parts]
        assert numbers == ([[n, count] for n in range(1, count + 1)] if count > 1 else [None])
        named = [name for each in parts for name in each["since"]]
        assert named == names
        told: list[Event] = []
        for _ in parts[:-1]:
            told += client.hear(json.dumps({"jsonrpc": "2.0", "id": "trades:*", "result": []}))
        assert told == []
        goes_on = {"recovered": True, "trades": []}
        again = [{**every(name), **goes_on} for name in names]
        told += client.hear(json.dumps({"jsonrpc": "2.0", "id": "trades:*", "result": again}))
        assert [type(event) for event in told] == [Subscribed] * symbols

    def test_the_gaps_of_all_positions_together(self) -> None:
        """Where the server takes them, all are named; above that the newest of each stream."""
        gaps = [[2 * n, 2 * n] for n in range(1, 1_201)]
        for count, most in ((20, 1_000), (21, 500), (41, 250)):
            client = Client()
            for n in range(count):
                client.hold(f"S{n}", {"epoch": 7, "offset": 3_000, "gaps": gaps})
            parts = [json.loads(call)["params"]["since"] for call in client.follow("*")]
            assert [each["gaps"] for part in parts for each in part.values()] == count * [gaps[-most:]]

    def test_a_part_that_is_refused_is_no_answer(self) -> None:
        """The server refuses those behind it, too: the last one is the answer, and all are asked for again."""
        client, names = Client(), [f"S{number}" for number in range(2_000)]
        every_answer(client, names)
        first, second = client.connect()
        error = {"jsonrpc": "2.0", "id": "trades:*", "error": {"code": -32002, "message": "too many calls"}}
        assert list(client.hear(json.dumps(error))) == []
        [event] = client.hear(json.dumps(error))
        assert isinstance(event, Refused)
        assert client.again(Topic("trades", "*")) == [first, second]

    def test_the_first_call_of_a_topic_and_those_behind_it(self, client: Client) -> None:
        """At first with what was wished; then `since` with the newest place, and with the gaps that are open."""
        client.follow("A-B", snapshot=7)
        list(client.hear(gap(6, 8)))
        list(client.hear(gap(9, None)))
        first, second = map(json.loads, client.connect())
        since = {"epoch": 1, "offset": 9, "gaps": [[6, 8]]}
        assert first["params"] == {"channel": "trades", "symbol": "BTC-USD", "batch": True, "since": since}
        assert second["params"] == {"channel": "trades", "symbol": "A-B", "batch": True, "snapshot": 7}

    def test_formats_and_other_channels(self) -> None:
        """The format stands in calls for trades, the interval in those for candles; they have no `since`."""
        client = Client(format="strings", batch=False)
        calls = [
            *client.follow("A-B"),
            *client.follow("A-B", "candles", interval="1m"),
            *client.follow("A-B", "quality"),
        ]
        assert [json.loads(call)["params"] for call in calls] == [
            {"channel": "trades", "symbol": "A-B", "batch": False, "format": "strings"},
            {"channel": "candles", "symbol": "A-B", "interval": "1m"},
            {"channel": "quality", "symbol": "A-B"},
        ]

    def test_all_symbols(self) -> None:
        """`*` is one call. Its answer has one result a symbol, and `since` one position a symbol."""
        client = Client()
        client.follow("*")
        results = [
            {"channel": "trades", "symbol": name, "event": "subscribed", "epoch": 1, "offset": 4}
            for name in "AB"
        ]
        list(client.hear(json.dumps({"jsonrpc": "2.0", "id": "trades:*", "result": results})))
        list(client.hear(update(5, symbol="B")))
        [call] = client.connect()
        assert json.loads(call)["params"]["since"] == {
            "A": {"epoch": 1, "offset": 4},
            "B": {"epoch": 1, "offset": 5},
        }

    def test_a_symbol_that_comes_after_an_empty_answer(self) -> None:
        """Its arrays name all that no answer could: also those of a fill that comes before its first trade."""
        client = Client(format="compact")
        client.follow("*")
        list(client.hear(json.dumps({"jsonrpc": "2.0", "id": "trades:*", "result": []})))
        list(client.hear(notification("stream.started", symbol="B", channel="trades", epoch=1, offset=0)))
        head = {"symbol": "B", "channel": "trades", "epoch": 1}
        list(client.hear(notification("stream.gap", **head, **{"from": 1, "to": 1}, reason="source_gap")))
        row = ["B", 1, 1, "buy", 1, 1, "s", "acme"]
        list(client.hear(notification("stream.filled", **head, **{"from": 1, "to": 1}, trades=[row])))
        [event] = client.hear('["B",2,1,"buy",1,1,"t","acme"]')
        assert isinstance(event, Trade)
        assert (event.symbol, event.source) == ("B", "acme")
        assert [each.offset for each in client.streams[Topic("trades", "B")].log] == [1, 2]  # type: ignore[union-attr]

    def test_a_symbol_that_comes_later(self) -> None:
        """It is announced with its place. In compact updates it stands for itself; it is resumed like any other."""
        client = Client(format="compact")
        client.follow("*")
        first = {
            "channel": "trades",
            "symbol": "A",
            "event": "subscribed",
            "epoch": 1,
            "offset": 4,
            "topic": 0,
        }
        first |= {"columns": COLUMNS, "sources": ["acme"]}
        list(client.hear(json.dumps({"jsonrpc": "2.0", "id": "trades:*", "result": [first]})))
        started = notification("stream.started", symbol="B", channel="trades", epoch=1, offset=7)
        assert [type(event) for event in client.hear(started)] == [Subscribed, Notice]
        [event] = client.hear('["B",8,1,"buy",1,1,"t","acme"]')
        assert isinstance(event, Trade)
        assert (event.symbol, event.source) == ("B", "acme")
        [call] = client.connect()
        positions = {"A": {"epoch": 1, "offset": 4}, "B": {"epoch": 1, "offset": 8}}
        assert json.loads(call)["params"]["since"] == positions
        list(client.hear(started.replace("7", "8")))  # back: it goes on
        assert [
            each.offset for each in client.streams[Topic("trades", "B")].log if isinstance(each, Trade)
        ] == [8]


class TestEvents:
    def test_a_trade_is_read_exactly(self, client: Client) -> None:
        """All digits as they are written, the time to the microsecond, null as None."""
        text = update(6, side=None, tradeId=None).replace('"price": 2', '"price": 61837.6300000012340')
        [event] = client.hear(text.replace('"qty": 1', '"qty": 5.892E-4'))
        moment = datetime(2020, 5, 10, 18, 33, 36, 696315, UTC)
        assert event == Trade(
            symbol="BTC-USD", offset=6, timestamp=moment, side=None, price=Decimal("61837.6300000012340"),
            quantity=Decimal("0.0005892"), trade_id=None, source="acme",
        )  # fmt: skip
        assert isinstance(event, Trade)
        assert str(event.price) == "61837.6300000012340"

    def test_an_answer_is_told_in_the_order_of_the_stream(self, client: Client) -> None:
        """A rewind first, then fills of what is older, then trades and gaps by place. Nothing lost is held."""
        for said in (gap(6, 8), update(9), update(10)):
            list(client.hear(said))
        client.connect()
        said = answer(
            11,
            epoch=2,
            recovered=False,
            rewound={"epoch": 2, "offset": 9},
            filled=[{"from": 7, "to": 7, "trades": [trade(7)]}],
            trades=[trade(11, tradeId="new")],
            gaps=[{"from": 10, "to": 10, "reason": "source_gap"}],
        )
        rewound, fill, begun, hole, last = client.hear(said)
        assert begun == Subscribed(topic=TOPIC, epoch=2, offset=9, newest=11)
        assert rewound == Rewound(symbol="BTC-USD", epoch=2, offset=9, dropped=1)
        assert isinstance(fill, Filled)
        assert (fill.first, fill.last, [each.trade_id for each in fill.trades]) == (7, 7, ["t7"])
        assert hole == Gap(symbol="BTC-USD", first=10, to=10, reason="source_gap")
        assert isinstance(last, Trade)
        assert places(client) == [(6, 6), (7, 7), (8, 8), (9, 9), (10, 10), (11, 11)]

    def test_what_cannot_be_recovered_begins_anew_behind_a_hole_with_a_name(self, client: Client) -> None:
        """The gap from 0 comes also when the server did not write it. Nothing of before is held."""
        list(client.hear(update(6)))
        for told in ({"gaps": [{"from": 0, "to": None, "reason": "overrun"}]}, {}):
            client.connect()
            said = answer(3, epoch=9, recovered=False, trades=[trade(2), trade(3)], **told)
            hole, _begun, *trades = client.hear(said)
            assert hole == Gap(symbol="BTC-USD", first=0, to=None, reason="overrun")
            assert len(trades) == 2
            assert places(client) == [(0, 0), (2, 2), (3, 3)]
            assert client.streams[TOPIC].since == {"epoch": 9, "offset": 3}

    def test_a_part_that_is_lost_for_good_is_a_gap_like_others(self, client: Client) -> None:
        """The position is known, so the count goes on."""
        client.connect()
        lost = {"from": 6, "to": 7, "reason": "overrun"}
        list(client.hear(answer(8, epoch=2, recovered=False, gaps=[lost], trades=[trade(8)])))
        assert places(client) == [(6, 7), (8, 8)]
        assert client.streams[TOPIC].since == {"epoch": 2, "offset": 8, "gaps": [[6, 7]]}

    def test_a_rewind_of_a_living_connection(self, client: Client) -> None:
        """As in an answer; a gap over the place of the fork is cut there."""
        list(client.hear(gap(6, 9)))
        [event] = client.hear(
            notification("stream.rewind", symbol="BTC-USD", channel="trades", epoch=2, offset=7)
        )
        assert event == Rewound(symbol="BTC-USD", epoch=2, offset=7, dropped=0)
        assert client.streams[TOPIC].since == {"epoch": 2, "offset": 7, "gaps": [[6, 7]]}
        assert len(list(client.hear(update(8)))) == 1

    def test_a_fill_in_pieces(self, client: Client) -> None:
        """Each piece leaves smaller gaps. A piece over two gaps fills both; a repeated one is no news."""
        for said in (gap(6, 8), gap(9, 10, "slow_client"), update(11)):
            list(client.hear(said))
        assert len(list(client.hear(filled(7, 9, 7, 8, 9)))) == 2
        assert list(client.hear(filled(8, 9, 8, 9))) == []
        assert places(client) == [(at, at) for at in range(6, 12)]
        assert [(each.first, each.last) for each in client.streams[TOPIC].gaps] == [(6, 6), (10, 10)]

    def test_a_fill_of_what_this_client_never_had_is_no_news(self, client: Client) -> None:
        """It began behind that gap."""
        assert list(client.hear(filled(2, 3, 2, 3))) == []

    def test_quality_of_an_answer_and_of_an_update(self, client: Client) -> None:
        """Each source's state is an event, and the newest one is held."""
        state = {"state": "lost", "since": "2020-05-10T18:33:36.696315Z", "reason": "silent"}
        client.follow("BTC-USD", "quality")
        client.connect()
        [first, _begun] = client.hear(
            answer(5, recovered=True, quality={"state": "lost", "sources": {"acme": state}})
        )
        assert isinstance(first, Quality)
        assert (first.source, first.state, first.reason) == ("acme", "lost", "silent")
        again = state | {"symbol": "BTC-USD", "source": "acme", "state": "live", "reason": None}
        [second] = client.hear(notification("quality.update", **again))
        assert client.qualities[Topic("quality", "BTC-USD")].states == {"acme": second}

    def test_candles_are_revised(self) -> None:
        """A higher `rev` replaces what is held; one that is held already is no news."""
        client = Client()
        client.follow("BTC-USD", "candles", interval="1m")
        candle = {
            "symbol": "BTC-USD", "interval": "1m", "start": "2020-05-10T18:33:00.000000Z", "open": 1, "high": 2,
            "low": 1, "close": 2, "volume": 3, "quoteVolume": 4, "buyVolume": 0, "count": 2, "rev": 1, "closed": False,
            "complete": False, "gaps": [{"from": 3, "to": None, "reason": "source_gap"}], "firstOffset": 2, "lastOffset": 4,
        }  # fmt: skip
        [first] = client.hear(notification("candles.update", **candle))
        assert isinstance(first, Candle)
        assert (first.quote_volume, first.gaps[0].to) == (Decimal(4), None)
        assert list(client.hear(notification("candles.update", **candle))) == []
        [second] = client.hear(notification("candles.update", **candle | {"rev": 2, "high": 5}))
        bars = client.bars[Topic("candles", "BTC-USD", "1m")]
        assert list(bars.candles.values()) == [second]
        result = {
            "channel": "candles",
            "symbol": "BTC-USD",
            "interval": "1m",
            "epoch": 2,
            "offset": 0,
            "candles": [candle],
        }
        anew = json.dumps({"jsonrpc": "2.0", "id": "candles:BTC-USD:1m", "result": result})
        _begun, *candles = client.hear(anew)  # of a daemon that was started anew
        assert candles == list(bars.candles.values()) == [first]
        client.follow("BTC-USD", "candles", interval="1t")
        for place in (7, 8):
            other = candle | {"interval": "1t", "firstOffset": place, "lastOffset": place, "count": 1}
            assert len(list(client.hear(notification("candles.update", **other)))) == 1
        assert len(client.bars[Topic("candles", "BTC-USD", "1t")].candles) == 2

    def test_notices_and_refusals(self, client: Client) -> None:
        """What is told besides the streams comes as it is, also what is not known."""
        assert list(client.hear(notification("new.thing", a=1))) == [
            Notice(method="new.thing", params={"a": 1})
        ]
        error = {"code": -32602, "message": "Invalid params", "data": {"param": "symbol"}}
        [refused] = client.hear(json.dumps({"jsonrpc": "2.0", "id": "trades:BTC-USD", "error": error}))
        assert refused == Refused(
            topic=TOPIC, code=-32602, message="Invalid params", data={"param": "symbol"}
        )


class TestFaults:
    @pytest.mark.parametrize(
        ("said", "words"),
        [
            (update(8), "a hole: place 8 came, 6 was next"),
            (update(5), "told twice, or out of order: place 5 came, 6 was next"),
            (gap(7, 9), "a hole: place 7 came, 6 was next"),
            (gap(4, 9), "told twice, or out of order: place 4 came, 6 was next"),
            (filled(5, 6, 5, 6), "a fill of a place that has not come: place 6 came, 6 was next"),
        ],
    )
    def test_a_wrong_place_is_named_with_the_right_one(self, client: Client, said: str, words: str) -> None:
        """Nothing of it is taken: the next connection goes on where the stream was right."""
        with pytest.raises(WrongPlace, match=f"^BTC-USD: {words}$"):
            list(client.hear(said))
        assert client.streams[TOPIC].since == {"epoch": 1, "offset": 5}

    def test_an_answer_with_a_hole(self, client: Client) -> None:
        """Its trades must go on behind the position, and reach the answer's own."""
        for said in (
            answer(8, recovered=True, trades=[trade(7), trade(8)]),
            answer(7, recovered=True, trades=[trade(6)]),
        ):
            client.connect()
            with pytest.raises(WrongPlace):
                list(client.hear(said))
        assert client.streams[TOPIC].offset == 6

    @pytest.mark.parametrize(
        ("places", "wrong"), [((6, 8), "place 8 came, 7 was next"), ((6, 7, 7), "place 7 came, 8 was next")]
    )
    def test_a_run_of_arrays_is_taken_up_to_the_wrong_place(
        self, client: Client, places: tuple[int, ...], wrong: str
    ) -> None:
        """What comes before it is told, and stays; and all that is right is taken at once."""
        client.format = "compact"
        client.connect()
        list(client.hear(answer(5, recovered=True, topic=0, columns=COLUMNS, sources=["acme"])))
        rows = [f'[0,{place},1,"buy",1,1,"t{place}",0]' for place in places]
        told = list[Any]()

        def hear(events: Iterable[Any]) -> None:
            for event in events:
                told.append(event)

        with pytest.raises(WrongPlace, match=wrong):
            hear(client.hear(f"[{','.join(rows)}]"))
        assert [event.offset for event in told] == list(places[:-1])
        assert client.streams[TOPIC].offset == places[-2]
        rest = [event.offset for event in client.hear('[[0,%d,1,"buy",1,1,"x",0]]' % (places[-2] + 1))]  # noqa: UP031
        assert rest == [places[-2] + 1]
        client.lost()
        with pytest.raises(ServerFault, match="came without a subscription"):
            list(client.hear(f"[{rows[0]}]"))

    def test_what_came_before_a_fault_is_told(self, client: Client) -> None:
        """The good part of a message is not lost."""
        told: list[Any] = []

        def hear(events: Iterable[Any]) -> None:
            for event in events:
                told.append(event.offset)

        with pytest.raises(WrongPlace):
            hear(client.hear(f"[{update(6)},{update(8)}]"))
        assert told == [6]

    @pytest.mark.parametrize(
        "said",
        [
            filled(6, 7, 6),
            filled(6, 7, 7, 6),
            filled(8, 8, 8).replace('"t8"', '"another"'),
            filled(9, 9, 9),
            gap(10, 9),
            update(10, symbol="X-Y"),
            "[9,10,1,null,1,1,null,0]",
            filled(1, 10**15),
            notification("stream.started", symbol="BTC-USD", channel="trades", epoch=1, offset=99),
        ],
    )
    def test_what_contradicts_is_a_fault(self, client: Client, said: str) -> None:
        """A fill that does not fit, of a place that holds another trade or stands for many; a topic not followed."""
        for before in (gap(6, 7), update(8), gap(9, None)):
            list(client.hear(before))
        with pytest.raises(ServerFault):
            list(client.hear(said))
        assert client.streams[TOPIC].offset == 9

    def test_nothing_may_come_without_a_subscription(self, client: Client) -> None:
        """Not between the loss of a connection and the answer of the next one."""
        client.connect()
        with pytest.raises(ServerFault, match="without a subscription"):
            list(client.hear(update(6)))

    @pytest.mark.parametrize(
        "said",
        [
            "", "{", "[1]", '"x"', "[" * 5000, "{}", b"\xff", '{"id": "trades:BTC-USD", "result": {}}', '{"id": 1, "result": "pong"}',
            '[[0,6,1,"buy",1,1,"x",0,' + "[" * 5000, '{"method": "connection.refused", "params": null}',
            '{"method": "new.thing", "params": [1]}', gap(6, 1 << 53), answer(-1), answer(5), rewind(-1), rewind(5, epoch=-1),
        ],
    )  # fmt: skip
    def test_nonsense_is_unreadable(self, client: Client, said: str) -> None:
        """One error, whatever was said."""
        with pytest.raises(Unreadable):
            list(client.hear(said))

    def test_an_answer_is_that_of_its_call(self, client: Client) -> None:
        """The stream of another topic would begin, and the asked one never."""
        client.connect()
        with pytest.raises(ServerFault, match=r"^trades:X-Y: came as the answer to trades:BTC-USD$"):
            list(client.hear(answer(5).replace('"symbol": "BTC-USD"', '"symbol": "X-Y"')))
        assert list(client.streams) == [TOPIC]

    @pytest.mark.parametrize("value", ["sNaN", "NaN", "Infinity", "-Infinity"])
    def test_a_price_that_is_no_number_harms_nobody(self, client: Client, value: str) -> None:
        """A signalling NaN cannot even be compared."""
        list(client.hear(gap(6, 6)))
        for _ in range(2):
            with pytest.raises(Unreadable):
                list(client.hear(filled(6, 6, 6).replace('"price": 2', f'"price": "{value}"')))

    @pytest.mark.parametrize(
        ("told", "pause"), [(2, 2.0), (10**400, 300.0), (-1, None), ("x", None), (True, None)]
    )
    def test_a_wish_for_a_pause_is_bounded(self, client: Client, told: Any, pause: float | None) -> None:
        """Whatever the server says, it is some time that can be waited for."""
        list(client.hear(notification("connection.refused", reason="full", retryAfter=told)))
        assert client.retry_after == pause

    def test_columns_of_another_order_are_not_guessed(self) -> None:
        """A compact answer that names other columns is refused."""
        client = Client(format="compact")
        client.follow("BTC-USD")
        with pytest.raises(Unreadable, match="columns"):
            list(client.hear(answer(5, topic=1, columns=["topic", "price"])))


class TestBounds:
    def test_what_was_not_asked_for_is_not_kept(self, client: Client) -> None:
        """States and candles of topics that nobody follows, or not any more: nothing is held of them, or told."""
        candle = {
            "symbol": "BTC-USD", "interval": "1m", "start": "2020-05-10T18:33:00.000000Z", "open": 1, "high": 2,
            "low": 1, "close": 2, "volume": 3, "quoteVolume": 4, "buyVolume": 0, "count": 2, "rev": 1, "closed": False,
            "complete": True,
        }  # fmt: skip
        state = {
            "symbol": "BTC-USD",
            "source": "acme",
            "state": "live",
            "since": "2020-05-10T18:33:36.696315Z",
        }
        said = [notification("candles.update", **candle), notification("quality.update", **state)]
        client.follow("*", "candles", interval="1m")
        client.follow("*", "quality")
        assert sum(len(list(client.hear(each))) for each in said) == 2
        client.leave("*", "candles", interval="1m")
        client.leave("*", "quality")
        assert [list(client.hear(each)) for each in said] == [[], []]
        assert (client.bars, client.qualities) == ({}, {})

    def test_only_the_newest_entries_are_kept(self) -> None:
        """At least `keep`, at most twice as many. A gap that is forgotten from the log is still filled and told."""
        client = Client(keep=10)
        client.follow("BTC-USD")
        list(client.hear(answer(0)))
        list(client.hear(gap(1, 1)))
        for offset in range(2, 1000):
            list(client.hear(update(offset)))
            assert len(client.streams[TOPIC].log) <= 20
        assert [entry.last for entry in client.streams[TOPIC].log][-10:] == list(range(990, 1000))
        [event] = client.hear(filled(1, 1, 1))
        assert isinstance(event, Filled)
        assert client.streams[TOPIC].gaps == []

    def test_nothing_can_be_kept(self) -> None:
        """With `keep=0` a stream is a position and its open gaps."""
        client = Client(keep=0)
        client.follow("BTC-USD")
        list(client.hear(answer(0)))
        list(client.hear(f"[{update(1)},{update(2)}]"))
        assert client.streams[TOPIC].log == []


def test_what_an_answer_costs_does_not_grow_with_the_topics(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many topics each answer finds its own, and each leave as well, without a look at the others."""
    client, many = Client(), 200
    symbols = [f"S{number}-USD" for number in range(many)]
    for symbol in symbols:
        client.follow(symbol)
    client.connect()
    looks = 0

    def spelled(topic: Topic) -> str:
        nonlocal looks
        looks += 1
        return f"{topic.channel}:{topic.symbol}"

    monkeypatch.setattr(Topic, "__str__", spelled)
    for symbol in symbols:
        told = json.loads(answer(0, symbol=symbol)) | {"id": f"trades:{symbol}"}
        assert [event.topic.symbol for event in client.hear(json.dumps(told))] == [symbol]  # type: ignore[union-attr]
    for symbol in symbols:
        client.leave(symbol)
    for symbol in symbols:
        left = {"jsonrpc": "2.0", "id": f"leave trades:{symbol}", "result": {}}
        assert list(client.hear(json.dumps(left))) == []
    assert looks <= 4 * many
