"""Each fault does exactly what it says, as often as it says, and only to its own messages."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from simulators import Exchange, Faults, Trade, binance_dialect, blockchain_dialect, open_blockchain
from simulators.faults import KINDS, ON_QUESTIONS

Connect = Callable[..., Any]
Make = Callable[..., Trade]
Ids = Callable[[list[str]], list[int]]


def seqnums(texts: list[str]) -> list[int]:
    return [json.loads(text)["seqnum"] for text in texts]


@pytest.mark.parametrize(
    ("kind", "expected_ids", "expected_seqnums"),
    [
        ("drop", [2, 3], [2, 3]),
        ("duplicate", [1, 1, 2, 3], [1, 1, 2, 3]),
        ("reorder", [2, 1, 3], [2, 1, 3]),
        ("skip", [1, 2, 3], [2, 3, 4]),
    ],
)
async def test_order_and_number_on_the_wire(
    kind: Any, expected_ids: list[int], expected_seqnums: list[int], connect: Connect, make: Make, ids: Ids
) -> None:
    """One fault strikes the first of three trades; the other two are untouched."""
    async with open_blockchain() as exchange, connect(exchange.url) as raw:
        await raw.subscribe(exchange, "BTC-USD")
        exchange.fault(kind)
        await exchange.publish_all([make(1), make(2), make(3)])
        texts = await raw.texts(len(expected_ids))
        assert (ids(texts), seqnums(texts)) == (expected_ids, expected_seqnums)
        assert exchange.faults.active() == []
        assert exchange.faults.struck == {kind: 1}


async def test_truncate_sends_half_a_message(connect: Connect, make: Make, ids: Ids) -> None:
    """The first half of a message is no JSON; the next message is complete."""
    async with open_blockchain() as exchange, connect(exchange.url) as raw:
        await raw.subscribe(exchange, "BTC-USD")
        exchange.fault("truncate")
        await exchange.publish_all([make(1), make(2)])
        half = await raw.text()
        assert half.startswith('{"seqnum":1,"event":"updated"')
        with pytest.raises(ValueError, match=r"."):
            json.loads(half)
        assert ids([await raw.text()]) == [2]


async def test_garbage_comes_before_the_intact_message(connect: Connect, make: Make, ids: Ids) -> None:
    """The noise is an extra message, so no trade is lost."""
    async with open_blockchain() as exchange, connect(exchange.url) as raw:
        await raw.subscribe(exchange, "BTC-USD")
        exchange.fault("garbage")
        await exchange.publish(make(1))
        with pytest.raises(ValueError, match=r"."):
            json.loads(await raw.text())
        assert ids([await raw.text()]) == [1]


async def test_a_refused_subscription_is_rejected_once(connect: Connect) -> None:
    """Only for its symbol, with a reason; the next attempt succeeds."""
    async with open_blockchain() as exchange, connect(exchange.url) as raw:
        exchange.fault("refuse", symbol="BTC-USD")
        await raw.subscribe(exchange, "ETH-USD")
        answer = await raw.ask(action="subscribe", channel="trades", symbol="BTC-USD")
        assert (answer["event"], answer["symbol"]) == ("rejected", "BTC-USD")
        await raw.subscribe(exchange, "BTC-USD")


async def test_binance_refuses_a_subscription_with_an_error(attach: Connect) -> None:
    """The answer is an error with the request's id."""
    exchange = Exchange(binance_dialect())
    exchange.fault("refuse")
    async with attach(exchange) as raw:
        answer = await raw.ask(method="SUBSCRIBE", params=["btcusdt@trade"], id=9)
        assert (answer["error"]["code"], answer["id"]) == (2, 9)
        assert exchange.subscribed == frozenset()


async def test_a_delay_holds_what_follows(
    attach: Connect, make: Make, ids: Ids, autojump_clock: MockClock
) -> None:
    """The message is late, and those behind it too, in order: like on a slow line."""
    exchange = Exchange(blockchain_dialect(heartbeat=None))
    async with attach(exchange) as raw:
        await raw.subscribe(exchange, "BTC-USD")
        exchange.fault("delay", seconds=7.0)
        begin = trio.current_time()
        await exchange.publish_all([make(1), make(2)])
        assert ids(await raw.texts(2)) == [1, 2]
        assert trio.current_time() - begin == pytest.approx(7.0)


async def test_a_stalled_connection_stays_open_and_says_nothing(
    attach: Connect, make: Make, ids: Ids, autojump_clock: MockClock
) -> None:
    """No trade, no heartbeat, no answer comes. Afterwards the sequence numbers have gaps."""
    exchange = Exchange(blockchain_dialect())
    async with attach(exchange) as raw:
        await raw.ask(action="subscribe", channel="heartbeat")
        await raw.subscribe(exchange, "BTC-USD")
        begin = trio.current_time()
        exchange.fault("stall", seconds=12.0)
        await exchange.publish(make(1))
        await raw.send(action="subscribe", channel="trades", symbol="ETH-USD")
        beat = await raw.get()
        assert trio.current_time() - begin == pytest.approx(15.0)
        assert (beat["channel"], beat["seqnum"]) == ("heartbeat", 6)
        assert exchange.connections[0].swallowed == 4
        await exchange.publish(make(2))
        assert ids([await raw.text()]) == [2]


async def test_a_muted_symbol_is_silent_until_it_is_subscribed_anew(
    connect: Connect, make: Make, ids: Ids
) -> None:
    """The other symbols go on, and no sequence number of the connection is missing."""
    async with open_blockchain(symbols=["BTC-USD", "ETH-USD"]) as exchange, connect(exchange.url) as raw:
        await raw.subscribe(exchange, "BTC-USD")
        await raw.subscribe(exchange, "ETH-USD")
        exchange.fault("mute", symbol="BTC-USD")
        await exchange.publish_all([make(1), make(2), make(3, symbol="ETH-USD")])
        text = await raw.text()
        assert ids([text]) == [3]
        assert exchange.connections[0].swallowed == 2
        await raw.ask(action="unsubscribe", channel="trades", symbol="BTC-USD")
        await raw.subscribe(exchange, "BTC-USD")
        await exchange.publish(make(4))
        assert ids([await raw.text()]) == [4]
        assert exchange.faults.active() == []


async def test_a_stall_by_hand_lasts_as_long_as_the_connection(
    attach: Connect, make: Make, ids: Ids, autojump_clock: MockClock
) -> None:
    """Only connections that are open now are silent; a client that reconnects is served."""
    exchange = Exchange(blockchain_dialect())
    async with attach(exchange) as raw:
        await raw.subscribe(exchange, "BTC-USD")
        exchange.stall()
        await exchange.publish(make(1))
        with trio.move_on_after(10_000.0) as waited:
            await raw.text()
        assert waited.cancelled_caught
        assert raw.websocket.closed is None
    async with attach(exchange) as raw:
        await raw.subscribe(exchange, "BTC-USD")
        await exchange.publish(make(2))
        assert ids([await raw.text()]) == [2]


async def test_a_fault_strikes_its_symbol_so_often(connect: Connect, make: Make, ids: Ids) -> None:
    """Two messages of one symbol, none of the other; no answers and no heartbeats."""
    async with open_blockchain() as exchange, connect(exchange.url) as raw:
        exchange.fault("drop", times=2, symbol="BTC-USD")
        await raw.subscribe(exchange, "BTC-USD")
        await raw.subscribe(exchange, "ETH-USD")
        await exchange.publish_all([make(1), make(2, "ETH-USD"), make(3), make(4)])
        assert ids(await raw.texts(2)) == [2, 4]


async def test_a_fault_can_be_withdrawn(connect: Connect, make: Make, ids: Ids) -> None:
    """By its id, or all at once; a withdrawn fault strikes nothing."""
    async with open_blockchain() as exchange, connect(exchange.url) as raw:
        await raw.subscribe(exchange, "BTC-USD")
        first = exchange.fault("drop", times=None)
        exchange.fault("duplicate", times=None)
        assert exchange.faults.withdraw(first.id) == 1
        await exchange.publish(make(1))
        assert exchange.faults.withdraw() == 1
        await exchange.publish(make(2))
        assert ids(await raw.texts(3)) == [1, 1, 2]


@given(st.integers(0, 2**32), st.floats(0.05, 0.95))
def test_random_faults_are_seeded(seed: int, probability: float) -> None:
    """The same seed strikes the same messages."""

    def struck(faults: Faults) -> list[bool]:
        faults.add("drop", times=None, probability=probability)
        return [faults.strike("X") is not None for _ in range(50)]

    assert struck(Faults(seed)) == struck(Faults(seed))


def test_a_probability_is_respected() -> None:
    """A fault with probability 0.5 strikes about half of many messages."""
    faults = Faults(1)
    faults.add("drop", times=None, probability=0.5)
    struck = sum(faults.strike("X") is not None for _ in range(1000))
    assert 400 < struck < 600


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"kind": "nope"}, "kind"),
        ({"kind": "delay"}, "needs `seconds`"),
        ({"kind": "drop", "times": 0}, "times"),
        ({"kind": "drop", "probability": 1.5}, "probability"),
        ({"kind": "stall", "seconds": -1.0}, "seconds"),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(options: dict[str, Any], told: str) -> None:
    """At once, not when it would strike; the error names the parameter."""
    with pytest.raises(ValueError, match=told):
        Faults().add(**options)


def test_binance_has_no_number_to_skip() -> None:
    """The error says what to do instead."""
    with pytest.raises(ValueError, match="drop"):
        Exchange(binance_dialect()).fault("skip")


def test_noise_is_never_a_message() -> None:
    """No seed makes JSON of it."""
    faults = Faults(3)
    for _ in range(200):
        with pytest.raises(ValueError, match=r"."):
            json.loads(faults.noise())


def test_every_kind_is_tested_here() -> None:
    """A kind of fault without a test is a defect. Those of questions are tested in `test_rest`."""
    tested = {
        "drop",
        "duplicate",
        "reorder",
        "skip",
        "truncate",
        "garbage",
        "refuse",
        "delay",
        "stall",
        "mute",
    }
    assert set(KINDS) - set(ON_QUESTIONS) == tested
