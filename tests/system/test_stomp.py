"""STOMP over the real daemon, plain and over SockJS: frames, aggregates, signalling, ends, and hostile clients."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.outbox import SlowClient
from dataflow.settings.schema import Limits, Session
from tests.support.waiting import until
from tests.system.stomping import (
    MARKET_DATA,
    PLAIN,
    SOCKJS,
    Client,
    Stage,
    client,
    settled,
    stage,
)

BOTH = pytest.mark.parametrize("path", [PLAIN, SOCKJS], ids=["plain", "sockjs"])


# The beginning.


@BOTH
async def test_a_connection_begins_as_agreed(path: str) -> None:
    """The best version in common, the slower heart-beats, our name and the session's; `host` may be missing."""
    async with stage() as s, client(s.daemon, path) as one:
        await one.send(
            "CONNECT", "accept-version:1.1,1.0", "heart-beat:20000,4000", "login:a\\b", "passcode:x"
        )
        await one.until("CONNECTED")
        [connected] = one.frames
        assert connected.headers.pop("server").startswith("dataflow/")
        assert connected.headers.pop("session")
        assert connected.headers == {"version": "1.1", "heart-beat": "10000,20000"}
        if path == SOCKJS:
            assert one.texts[0] == "o"


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (["v10.stomp", "v11.stomp", "v12.stomp"], "v12.stomp"),
        (["v10.stomp", "x"], "v10.stomp"),
        (None, None),
    ],
)
async def test_the_best_subprotocol_is_chosen(offered: list[str] | None, chosen: str | None) -> None:
    """Whatever the client names first; one that offers none gets none."""
    async with stage() as s, client(s.daemon, subprotocols=offered) as one:
        assert one.socket.subprotocol == chosen
        assert (await one.connect()).headers["version"] == "1.2"


async def test_a_message_may_be_binary_and_line_ends_may_be_crlf() -> None:
    """Some libraries send bytes; we send text."""
    async with stage() as s, client(s.daemon) as one:
        await one.socket.send_message(b"\r\nSTOMP\r\naccept-version:1.2\r\nreceipt:a\r\n\r\n\0\r\n")
        await one.until("RECEIPT")
        assert [each.command for each in one.frames] == ["CONNECTED", "RECEIPT"]


async def test_several_frames_in_a_message_are_answered_in_order() -> None:
    """And one that is spread over messages is one frame."""
    async with stage() as s, client(s.daemon) as one:
        await one.say("CONNECT\naccept-version:1.2\n\n\0\nACK\nid:1\nreceipt:a\\cb\n\n\0NACK\nid:1\nrec")
        await one.say("eipt:c\n\n\0DISCONNECT\nreceipt:d\n\n\0ACK\nreceipt:never\nid:1\n\n\0")
        await until(lambda: one.closed)
        assert [each.headers.get("receipt-id") for each in one.frames] == [None, "a:b", "c", "d"]
        assert one.closed == (1000, "disconnected")


@BOTH
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("SUBSCRIBE\nid:0\ndestination:/topic/signaling\n\n\0", "first frame must be CONNECT"),
        ("CONNECT\naccept-version:3.0\n\n\0", "no version in common"),
        ("CONNECT\nheart-beat:x\n\n\0", "heart-beat"),
        ("nonsense\0", "empty line"),
        ("CONNECT\nx:" + "y" * 70_000 + "\n\n\0", "65536 bytes"),
    ],
)
async def test_who_does_not_begin_properly_is_told_and_closed(path: str, text: str, words: str) -> None:
    """An ERROR in plain words, then the end; for a version the ones that there are."""
    async with stage() as s, client(s.daemon, path) as one:
        await one.say(text)
        await until(lambda: one.closed)
        [error] = one.frames
        assert error.command == "ERROR"
        assert words in error.headers["message"]
        assert ("version" in error.headers) is ("version" in words)
        assert error.headers.get("version", "1.0,1.1,1.2") == "1.0,1.1,1.2"
        if path == SOCKJS:
            assert one.texts[-1] == 'c[3000,"Go away!"]'
        await settled(s)


@BOTH
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("SEND\ndestination:/topic/x\nreceipt:r\n\nx\0", "a topic is for subscriptions"),
        ("SEND\ndestination:/queue/x\nreceipt:r\n\nx\0", "unknown destination"),
        ("SEND\nreceipt:r\n\nx\0", "destination"),
        ("SUBSCRIBE\nid:1\ndestination:/topic/other\nreceipt:r\n\n\0", "unknown destination"),
        ("SUBSCRIBE\nid:1\ndestination:/topic/market-data/\nreceipt:r\n\n\0", "symbol"),
        ("SUBSCRIBE\nid:1\ndestination:/topic/market-data/a b\nreceipt:r\n\n\0", "symbol"),
        ("SUBSCRIBE\nid:1\ndestination:/topic/signaling/a/b\nreceipt:r\n\n\0", "unknown destination"),
        ("SUBSCRIBE\ndestination:/topic/signaling\nreceipt:r\n\n\0", "id"),
        ("SUBSCRIBE\nid:1\nreceipt:r\n\n\0", "destination"),
        ("SUBSCRIBE\nid:0\ndestination:/topic/signaling\nreceipt:r\n\n\0", "in use"),
        ("SUBSCRIBE\nid:" + "1" * 300 + "\ndestination:/topic/signaling\nreceipt:r\n\n\0", "256 characters"),
        ("UNSUBSCRIBE\nreceipt:r\n\n\0", "id"),
        ("BEGIN\ntransaction:t\nreceipt:r\n\n\0", "no transactions"),
        ("COMMIT\ntransaction:t\nreceipt:r\n\n\0", "no transactions"),
        ("ABORT\ntransaction:t\nreceipt:r\n\n\0", "no transactions"),
        ("SEND\ndestination:/app/signal\ntransaction:t\nreceipt:r\n\n\0", "no transactions"),
        ("CONNECT\nreceipt:r\n\n\0", "connected already"),
        ("subscribe\nreceipt:r\n\n\0", "unknown command"),
        ("SEND\ndestination:/app/signal\nreceipt:r\n\n[]\0", "JSON object"),
        ("SEND\ndestination:/app/signal\nreceipt:r\n\n{}\0", "type"),
        ('SEND\ndestination:/app/signal\nreceipt:r\n\n{"type":"ICE","candidate":{}}\0', "candidate"),
        ("ACK\nid:\\t\nreceipt:r\n\n\0", "escape"),
        ("SEND\ncontent-length:70000\nreceipt:r\n\n\0", "65536 bytes"),
    ],
)
async def test_a_mistake_is_told_and_ends_the_connection(path: str, text: str, words: str) -> None:
    """An ERROR with the receipt that was asked for; nothing of the client is left, and others hear nothing."""
    async with stage() as s, client(s.daemon) as other, client(s.daemon, path) as one:
        await other.connect()
        await other.subscribe("0", "/topic/signaling")
        await one.connect()
        await one.subscribe("0", MARKET_DATA)
        await one.say(text)
        await until(lambda: one.closed)
        error = one.frames[-1]
        assert error.command == "ERROR"
        assert words in error.headers["message"] or words in error.body
        if words not in ("escape", "65536 bytes"):  # of a frame that cannot be read nothing is known
            assert error.headers["receipt-id"] == "r"
        await until(lambda: s.sessions == 1)
        assert s.listeners == 0
        assert other.of("MESSAGE") == []
        assert s.daemon.crashes() == []


# Aggregates.


@BOTH
async def test_an_aggregate_comes_at_once_and_then_with_each_trade(path: str) -> None:
    """Exact numbers, volume and time as text, the destination as it was written, LF alone."""
    async with stage() as s, client(s.daemon, path) as one:
        await s.publish(("100.50", "0.5"), ("99.00", "1.25"))
        await one.connect()
        await one.subscribe("a:b", "/topic/market-data/ btcusdt")
        await until(lambda: len(one.of("MESSAGE")) == 1)
        await s.publish(("101.125", "0.25"))
        await until(lambda: len(one.of("MESSAGE")) == 2)
        first, second = one.of("MESSAGE")
        assert first.headers == {
            "subscription": "a:b",
            "destination": "/topic/market-data/ btcusdt",
            "content-type": "application/json",
            "message-id": "2",
            "content-length": str(len(first.body)),
        }
        assert first.json == {
            "symbol": "BTC-USDT",
            "open": Decimal("100.50"),
            "high": Decimal("100.50"),
            "low": Decimal("99.00"),
            "close": Decimal("99.00"),
            "volume": "1.75",
            "timestamp": "1700006400002",
        }
        assert list(first.json) == ["symbol", "open", "high", "low", "close", "volume", "timestamp"]
        assert second.json == first.json | {
            "high": Decimal("101.125"),
            "close": Decimal("101.125"),
            "volume": "2",
            "timestamp": "1700006400003",
        }
        assert not any("\r" in text for text in one.texts)


async def test_a_client_of_1_0_needs_no_id() -> None:
    """The destination stands in for it, when it subscribes and when it leaves."""
    async with stage() as s, client(s.daemon) as one:
        await one.send("CONNECT")
        await one.until("CONNECTED")
        assert one.frames[0].headers["version"] == "1.0"
        await one.send("SUBSCRIBE", f"destination:{MARKET_DATA}")
        await until(lambda: s.listeners == 1)
        await s.publish(("1.5", "1"))
        await one.until("MESSAGE")
        assert one.of("MESSAGE")[0].headers["subscription"] == MARKET_DATA
        await one.send("UNSUBSCRIBE", f"destination:{MARKET_DATA}", "receipt:u")
        await one.until("RECEIPT")
        assert s.listeners == 0


async def test_a_symbol_that_does_not_exist_yet_may_be_followed() -> None:
    """It is accepted, says nothing, and leaves nothing behind."""
    async with stage() as s, client(s.daemon) as one:
        await one.connect()
        await one.subscribe("0", "/topic/market-data/AAPL")
        await s.publish(("1.5", "1"))
        await one.send("UNSUBSCRIBE", "id:0", "receipt:u")
        await one.until("RECEIPT", 2)
        assert one.of("MESSAGE") == []
        assert sum(s.daemon.core.topics.subscribers.values()) == 0


@BOTH
async def test_one_client_may_follow_a_topic_under_several_ids(path: str) -> None:
    """Each gets the state first, then each update once; an id that leaves takes none of the others with it."""
    async with stage() as s, client(s.daemon, path) as one:
        await s.publish(("1", "1"))
        await one.connect()
        await one.subscribe("a")
        await s.publish(("2", "1"))
        await until(lambda: len(one.messages("a")) == 2)
        await one.subscribe("b", "/topic/market-data/BTCUSDT")
        await s.publish(("3", "1"))
        await until(lambda: len(one.messages("b")) == 2 and len(one.messages("a")) == 3)
        await one.send("UNSUBSCRIBE", "id:a", "receipt:u")
        await one.until("RECEIPT", 3)
        await s.publish(("4", "1"))
        await until(lambda: len(one.messages("b")) == 3)
        assert [m.json["close"] for m in one.messages("a")] == [1, 2, 3]
        assert [m.json["close"] for m in one.messages("b")] == [2, 3, 4]
        assert {m.headers["destination"] for m in one.messages("b")} == {"/topic/market-data/BTCUSDT"}
        await one.send("UNSUBSCRIBE", "id:b", "receipt:v")
        await one.until("RECEIPT", 4)
        assert s.listeners == 0


async def test_subscriptions_have_a_bound_and_are_counted() -> None:
    """Of ids and rooms as of topics; what is given back can be had again."""
    limits = Limits(subscriptions=3, loopback=True)
    async with stage(session=Session(max_subscriptions=2), limits=limits) as s, client(s.daemon) as one:
        [account] = [conversation.account for conversation in await connected(s, one)]
        await one.subscribe("a")
        await one.subscribe("b")
        assert account.subscriptions == 2
        for id_ in "ab":
            await one.send("UNSUBSCRIBE", f"id:{id_}")
        await one.subscribe("c", "/topic/signaling")
        await one.subscribe("d", "/topic/signaling")
        assert account.subscriptions == 2
        async with client(s.daemon) as two:
            await two.connect()
            await two.subscribe("a")
            await two.send("SUBSCRIBE", "id:b", "destination:/topic/signaling/x", "receipt:r")
            await until(lambda: two.closed)
            assert two.frames[-1].headers["message"] == "too many subscriptions"
        await until(lambda: account.subscriptions == 2)
        await one.send("SUBSCRIBE", "id:e", "destination:/topic/signaling", "receipt:r")
        await until(lambda: one.closed)
        assert one.frames[-1].headers["receipt-id"] == "r"
        await settled(s)
        assert account.subscriptions == 0


async def connected(s: Stage, one: Client) -> list[Any]:
    """The conversations of all clients, once `one` is connected."""
    await one.connect()
    return [session._dialogue for session in s.daemon.lobby.clients]


# Signalling.

OFFER = {
    "type": "OFFER",
    "senderId": "peer-1",
    "targetId": "peer-2",
    "sdp": "v=0\r\ns=é\r\n",
    "candidate": None,
}


@BOTH
async def test_a_signal_goes_to_all_in_the_room_and_to_its_sender(path: str) -> None:
    """Five keys in order, text unchanged, the order of arrival; other rooms and later clients hear nothing."""
    async with (
        stage() as s,
        client(s.daemon, path) as one,
        client(s.daemon) as two,
        client(s.daemon) as three,
    ):
        for each, destination in (
            (one, "/topic/signaling"),
            (two, "/topic/signaling"),
            (three, "/topic/signaling/b"),
        ):
            await each.connect()
            await each.subscribe("0", destination)
        sent = [OFFER | {"sdp": f"{number}"} for number in range(20)]
        for offer in [OFFER, *sent]:
            await one.send("SEND", "destination:/app/signal", body=json.dumps(offer | {"unknown": 1}))
        await three.send("SEND", "destination:/app/signal/b", "receipt:r", body='{"type":"JOIN"}')
        for each in (one, two):
            await until(lambda each=each: len(each.of("MESSAGE")) == 21)
            assert [message.json for message in each.of("MESSAGE")] == [OFFER, *sent]
            assert list(each.of("MESSAGE")[0].json) == list(OFFER)
            assert each.of("MESSAGE")[0].headers["destination"] == "/topic/signaling"
            assert len({message.headers["message-id"] for message in each.of("MESSAGE")}) == 21
        await three.until("MESSAGE")
        assert [message.json["type"] for message in three.of("MESSAGE")] == ["JOIN"]
        assert three.of("MESSAGE")[0].headers["destination"] == "/topic/signaling/b"
        async with client(s.daemon) as late:
            await late.connect()
            await late.subscribe("0", "/topic/signaling")
            await two.send("SEND", "destination:/app/signal", body='{"type":"LATE"}')
            await late.until("MESSAGE")
            assert [message.json["type"] for message in late.of("MESSAGE")] == ["LATE"]


async def test_a_deaf_member_of_a_room_is_let_go_and_nobody_waits_for_it() -> None:
    """Nothing is kept for it, whatever the policy for trades; the others hear everything."""
    settings = Session(outbox=20, slow_client=SlowClient.CONFLATE)
    async with stage(session=settings) as s, client(s.daemon) as quick, client(s.daemon, buffer=4096) as deaf:
        await quick.connect()
        await quick.subscribe("0", "/topic/signaling")
        await deaf.say("CONNECT\naccept-version:1.2\n\n\0SUBSCRIBE\nid:0\ndestination:/topic/signaling\n\n\0")
        await until(lambda: s.sessions == 2)
        session = list(s.daemon.lobby.clients)[-1]
        await until(lambda: session._dialogue._subscribed)
        sent = 0
        while session.ended is None:
            await quick.send(
                "SEND", "destination:/app/signal", body=json.dumps(OFFER | {"sdp": "x" * 30_000})
            )
            sent += 1
            await until(lambda sent=sent: len(quick.of("MESSAGE")) == sent)
        assert "slow" in session.ended.words
        await until(lambda: s.sessions == 1)


async def test_without_signalling_there_is_no_such_destination() -> None:
    """`signalling = false` switches it off; the words name what there is."""
    async with stage(signalling=False) as s, client(s.daemon) as one:
        await one.connect()
        await one.send("SUBSCRIBE", "id:0", "destination:/topic/signaling")
        await until(lambda: one.closed)
        assert one.frames[-1].json["valid"] == ["/topic/market-data/SYMBOL"]


# Heart-beats, silence, slowness.


@BOTH
async def test_heart_beats_go_both_ways_and_silence_ends(path: str, mock_clock: MockClock) -> None:
    """We send what was agreed; who leaves out three is closed, though its connection still answers pings."""
    async with stage(heartbeat=2.0) as s, client(s.daemon, path) as one:
        assert (await one.connect("heart-beat:1000,3000")).headers["heart-beat"] == "3000,2000"
        for number in range(1, 4):
            await wait_all_tasks_blocked(0.01)
            mock_clock.jump(3.0)
            await until(lambda number=number: one.beats == number)
            await one.say("\n")
            await until(lambda: heard_now(s))
        for _ in range(2):
            mock_clock.jump(2.9)
            await wait_all_tasks_blocked(0.01)
            assert one.closed is None
        mock_clock.jump(0.3)
        await until(lambda: one.closed)
        assert one.frames[-1].headers == {"message": "no heart-beat for 6 s"}
        await settled(s)


def heard_now(s: Stage) -> bool:
    [session] = s.daemon.lobby.clients
    return session._dialogue._pulse.silent_at == trio.current_time() + 6.0
