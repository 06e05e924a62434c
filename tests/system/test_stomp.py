"""STOMP over the real daemon, plain and over SockJS: frames, aggregates, signalling, ends, and hostile clients."""

from __future__ import annotations

import itertools
import json
from contextlib import suppress
from decimal import Decimal
from typing import Any

import httpx
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked
from trio_websocket import ConnectionClosed

from actors.outbox import SlowClient
from dataflow.faces.stomp import Face, requests
from dataflow.faces.stomp.conversation import CONNECT_WITHIN
from dataflow.faces.stomp.requests import GONE_AFTER
from dataflow.gateway.identity import ANONYMOUS
from dataflow.server.response_wire import CLOSE_WITHIN, InboxFull, ResponseWire
from dataflow.settings.schema import Gateway, Limits, Session
from tests.support.waiting import until
from tests.system.daemon import client as jsonrpc_client
from tests.system.daemon import daemon, http_client
from tests.system.stomping import MARKET_DATA, PLAIN, SOCKJS, Client, Stage, client, settled, stage

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


FALSE_STARTS = [
    ("SUBSCRIBE\nid:0\ndestination:/topic/signaling\n\n\0", "first frame must be CONNECT"),
    ("CONNECT\naccept-version:3.0\n\n\0", "no version in common"),
    ("CONNECT\nheart-beat:x\n\n\0", "heart-beat"),
    ("nonsense\0", "empty line"),
    ("CONNECT\nx:" + "y" * 70_000 + "\n\n\0", "65536 bytes"),
]


@BOTH
async def test_who_does_not_begin_properly_is_told_and_closed(path: str) -> None:
    """An ERROR in plain words, then the end; for a version the ones that there are."""
    async with stage() as s:
        for text, words in FALSE_STARTS:
            async with client(s.daemon, path) as one:
                await one.say(text)
                await until(lambda one=one: one.closed)
                [error] = one.frames
                assert error.command == "ERROR"
                assert words in error.headers["message"]
                assert ("version" in error.headers) is ("version" in words)
                assert error.headers.get("version", "1.0,1.1,1.2") == "1.0,1.1,1.2"
                if path == SOCKJS:
                    assert one.texts[-1] == 'c[3000,"Go away!"]'
            await settled(s)


MISTAKES = [
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
]


@BOTH
async def test_a_mistake_is_told_and_ends_the_connection(path: str) -> None:
    """An ERROR with the receipt that was asked for; nothing of the client is left, and others hear nothing."""
    async with stage() as s, client(s.daemon) as other:
        await other.connect()
        await other.subscribe("0", "/topic/signaling")
        for text, words in MISTAKES:
            async with client(s.daemon, path) as one:
                await one.connect()
                await one.subscribe("0", MARKET_DATA)
                await one.say(text)
                await until(lambda one=one: one.closed)
                error = one.frames[-1]
                assert error.command == "ERROR"
                assert words in error.headers["message"] or words in error.body, text
                if words not in ("escape", "65536 bytes"):  # of a frame that cannot be read nothing is known
                    assert error.headers["receipt-id"] == "r", text
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
        await three.until("RECEIPT", 2)  # of what it has sent, too
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


async def test_who_does_not_connect_is_closed(mock_clock: MockClock) -> None:
    """A WebSocket without a CONNECT holds a place for a while only, whatever else it sends."""
    async with stage() as s, client(s.daemon) as one:
        await one.say("\n")
        await until(lambda: s.sessions == 1)
        await wait_all_tasks_blocked(0.01)
        mock_clock.jump(CONNECT_WITHIN)
        await until(lambda: one.closed)
        assert one.frames[-1].headers["message"] == "no CONNECT for 15 s"
        await settled(s)


async def test_sockjs_has_a_sign_of_life_of_its_own(mock_clock: MockClock) -> None:
    """`h` every 25 s, for proxies that close quiet connections."""
    async with stage() as s, client(s.daemon, SOCKJS) as one:
        await one.connect()
        for number in (1, 2):
            await wait_all_tasks_blocked(0.01)
            for _ in range(2):  # in steps, so that its pongs are heard
                mock_clock.jump(12.5)
                await wait_all_tasks_blocked(0.01)
            await until(lambda number=number: one.texts.count("h") == number)
        assert one.texts[0] == "o"


async def test_a_slow_client_gets_the_newest_state_and_never_goes_back() -> None:
    """What waits for it is bounded; the last state always arrives; others get every state."""
    settings = Session(outbox=10, slow_client=SlowClient.DISCONNECT)
    async with (
        stage(session=settings) as s,
        client(s.daemon) as quick,
        client(s.daemon, buffer=4096) as slow,
    ):
        await quick.connect()
        await quick.subscribe("0")
        await slow.say(f"CONNECT\naccept-version:1.2\n\n\0SUBSCRIBE\nid:0\ndestination:{MARKET_DATA}\n\n\0")
        await until(lambda: s.listeners == 2)
        session = list(s.daemon.lobby.clients)[-1]
        session._wire._sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_SNDBUF, 4096)
        while not session.waiting:
            await s.publish(*[(str(s.published + 1 + n), "1") for n in range(20)])
        for _ in range(5):
            await s.publish(*[(str(s.published + 1 + n), "1") for n in range(20)])
            assert session.waiting <= 1
        await until(lambda: len(quick.of("MESSAGE")) == s.published)
        assert [m.json["close"] for m in quick.of("MESSAGE")] == list(range(1, s.published + 1))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(slow.listen)
            await until(lambda: slow.of("MESSAGE") and slow.of("MESSAGE")[-1].json["close"] == s.published)
            nursery.cancel_scope.cancel()
        closes = [m.json["close"] for m in slow.of("MESSAGE")]
        assert closes == sorted(set(closes))
        assert len(closes) < s.published
        assert session.ended is None


async def test_a_flood_is_refused_in_the_protocol_s_words(mock_clock: MockClock) -> None:
    """Calls are paid for, and the one who has too many is told and closed; in one message or in many."""
    limits = Limits(calls_per_second=1, loopback=True)
    for text, times in (("\n", 12), ("ACK\nid:1\n\n\0", 12), ("ACK\nid:1\n\n\0" * 20, 1)):
        async with stage(limits=limits) as s, client(s.daemon) as one:
            await one.connect()
            with suppress(ConnectionClosed):
                for _ in range(times):
                    await one.say(text)
            await until(lambda one=one: one.closed)
            assert one.frames[-1].headers["message"] == "too many calls"


@pytest.mark.parametrize("subject", ["frames", "signals"])
async def test_bytes_are_paid_for(subject: str, mock_clock: MockClock) -> None:
    """What a client has sent, and what a signal costs by the number of those who hear it."""
    limits = Limits(bytes_per_second=5_000, loopback=True)
    async with stage(limits=limits) as s, client(s.daemon) as one:
        await one.connect()
        for id_ in range(20):
            await one.subscribe(
                str(id_), "/topic/signaling" if subject == "signals" else f"/topic/signaling/{id_}"
            )
        body = '{"type":"ICE","sdp":"%s"}' % ("x" * 3000 if subject == "signals" else "x" * 30_000)
        for _ in range(3):
            await one.send("SEND", "destination:/app/signal", body=body)
        await until(lambda: one.closed)
        assert one.frames[-1].headers["message"] == "too many bytes"


@pytest.mark.parametrize("path", [PLAIN, SOCKJS])
async def test_without_room_a_client_is_told_when_to_come_back(path: str) -> None:
    """In STOMP's words, or in SockJS's, because its client is not open yet."""
    async with stage(gateway=Gateway(port=0, max_sessions=1)) as s, client(s.daemon) as one:
        await one.connect()
        async with client(s.daemon, path) as two:
            await until(lambda: two.closed)
            assert two.closed is not None
            assert two.closed[0] == 1013
            [text] = two.texts
            assert "too many sessions, try again in" in text
            assert text.startswith("ERROR\nmessage:" if path == PLAIN else "c[1013,")
        async with http_client(s.daemon.http) as http:
            answer = await http.post("/ws/0/one/xhr")
            assert answer.status_code == 503
            assert int(answer.headers["Retry-After"]) >= 1


async def test_a_vanished_peer_is_noticed(mock_clock: MockClock) -> None:
    """A connection that neither sends nor answers ends, though its client never promised a heart-beat."""
    async with stage() as s, await raw(s) as stream:
        await stream.send_all(HANDSHAKE + masked(f"CONNECT\n\n\0SUBSCRIBE\ndestination:{MARKET_DATA}\n\n\0"))
        await until(lambda: s.listeners == 1)
        for _ in range(2):
            await wait_all_tasks_blocked(0.01)
            mock_clock.jump(20.0)
        await until(lambda: s.listeners == 0)
        await wait_all_tasks_blocked(0.01)
        mock_clock.jump(3.0)  # a polite end has its time
        await settled(s)


HANDSHAKE = (
    b"GET /ws/websocket HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def masked(text: str) -> bytes:
    """A short WebSocket message of a client, with a mask of zeros."""
    return b"\x81" + bytes([0x80 | len(text)]) + b"\0\0\0\0" + text.encode()


async def raw(s: Stage) -> trio.SocketStream:
    """A connection without any library."""
    host, _, port = s.daemon.http.removeprefix("http://").partition(":")
    return await trio.open_tcp_stream(host, int(port))


@BOTH
async def test_a_server_that_stops_says_so(path: str) -> None:
    """An ERROR, SockJS's last frame, and 1001."""
    async with stage() as s, client(s.daemon, path) as one:
        await one.connect()
        await one.subscribe("0")
        await s.daemon.root.supervisor("gateway").restart("sessions")
        await until(lambda: one.closed)
        assert one.frames[-1].command == "ERROR"
        assert one.frames[-1].headers == {"message": "server going away"}
        assert one.closed == (1001, "server going away")
        assert (one.texts[-1] == 'c[3000,"Go away!"]') is (path == SOCKJS)


async def test_who_comes_back_to_a_server_that_stops_is_sent_away(mock_clock: MockClock) -> None:
    """A client that was told to go away asks again at once: it would only be cut off, without a word."""
    async with stage() as s, http_client(s.daemon.http) as http:
        assert (await http.post("/ws/0/me/xhr")).text == "o\n"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(s.daemon.root.stop, "gateway")
            last = await http.post("/ws/0/me/xhr")
            assert last.text.splitlines()[-1] == 'c[3000,"Go away!"]'
            # The server waits for the next poll, which would show that this one has arrived.
            refused = await http.post("/ws/0/again/xhr")
            mock_clock.autojump_threshold = 0.01
            assert refused.status_code == 503
            assert refused.json()["detail"] == "going away, try again later"
            assert int(refused.headers["retry-after"]) > 0


@pytest.mark.parametrize("path", [PLAIN, SOCKJS, "xhr"])
async def test_a_hundred_clients_that_leave_leave_nothing(path: str) -> None:
    """No session, subscription, room, topic or task, however rudely they go."""
    limits = Limits(loopback=True)
    async with stage(limits=limits) as s, http_client(s.daemon.http) as http:
        s.daemon.keep_events = False
        [face] = [each for each in s.daemon.hall.faces if isinstance(each, Face)]
        assert face.service.rooms is not None
        before = tasks(s)
        follow = [
            f"SUBSCRIBE\nid:{id_}\ndestination:{destination}\n\n\0"
            for id_, destination in enumerate(
                [MARKET_DATA, "/topic/market-data/BTCUSDT", "/topic/market-data/NONE", "/topic/signaling/a"]
            )
        ]
        text = "CONNECT\naccept-version:1.2\n\n\0" + "".join(follow)
        for number in range(100):
            if path == "xhr":
                await by_xhr(s, http, f"client{number}", text)
                continue
            async with client(s.daemon, path) as one:
                await one.say(text)
                if number % 2:
                    await until(lambda: s.listeners >= 1)
        if path == "xhr":  # they count as gone when no response is open for a while
            assert s.sessions <= 100
            await s.daemon.root.supervisor("gateway").restart("sessions")
        await settled(s, lambda: len(face.service.rooms or ()) == 0)
        assert sum(s.daemon.core.topics.subscribers.values()) == 0
        assert s.daemon.hall.quotas.account(ANONYMOUS, "127.0.0.1").subscriptions == 0
        await until(lambda: tasks(s) <= before + 2)  # topics that linger
        assert s.daemon.crashes() == []


def tasks(s: Stage) -> int:
    """The actors of the whole tree."""
    nodes = [s.daemon.hall.tree()]
    count = 0
    while nodes:
        count += 1
        nodes += nodes.pop().children
    return count


async def by_xhr(s: Stage, http: httpx.AsyncClient, name: str, text: str) -> None:
    """A client that opens a streaming response, says this, takes a part, and goes without a word."""
    async with await raw(s) as stream:
        line = f"POST /ws/0/{name}/xhr_streaming HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
        await stream.send_all(line.encode())
        heard = b""
        for word in (b"\no\n", b"CONNECTED"):
            while word not in heard.replace(b"\r", b""):
                heard += await stream.receive_some()
            await http.post(
                f"/ws/0/{name}/xhr_send", content=json.dumps([text if word != b"CONNECTED" else "\n"])
            )


# SockJS by HTTP.


@pytest.mark.parametrize("path", ["/ws", "/ws/"])
async def test_sockjs_greets_where_it_never_upgrades(path: str) -> None:
    """A plain GET; a handshake that a proxy broke is told so, and JSON-RPC keeps the WebSocket."""
    async with stage() as s, http_client(s.daemon.http) as http:
        answer = await http.get(path)
        assert (answer.status_code, answer.text) == (200, "Welcome to SockJS!\n")
        assert answer.headers["content-type"] == "text/plain; charset=UTF-8"
        broken = await http.get(path, headers={"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="})
        assert broken.status_code == 426
        assert broken.headers["upgrade"] == "websocket"
        async with jsonrpc_client(s.daemon.url) as rpc:
            assert await rpc.call("ping") == "pong"


async def test_a_face_that_is_off_is_a_404() -> None:
    """And at `/ws` there is a WebSocket alone, as ever."""
    async with daemon(sources={}) as d, http_client(d.http) as http:
        assert (await http.get("/ws")).status_code == 426
        for path in ("/ws/", "/ws/info", "/ws/websocket"):
            assert (await http.get(path)).status_code == 404
        assert (await http.post("/ws/0/a/xhr")).status_code == 404


async def test_info_tells_what_there_is() -> None:
    """Never from a cache; a page of an invited site may read it, with credentials, and another may not."""
    site = "http://site.example"
    async with stage(gateway=Gateway(port=0, origins=(site,))) as s, http_client(s.daemon.http) as http:
        one, two = [await http.get("/ws/info", headers={"Origin": site}) for _ in range(2)]
        told = one.json()
        entropy = told.pop("entropy")
        assert told == {"origins": ["*:*"], "cookie_needed": False, "websocket": True}
        assert 0 <= entropy < 1 << 32
        assert entropy != two.json()["entropy"]
        assert one.headers["cache-control"] == "no-store, no-cache, must-revalidate, max-age=0"
        assert one.headers["access-control-allow-origin"] == site
        assert one.headers["access-control-allow-credentials"] == "true"
        asked = {"Origin": site, "Access-Control-Request-Method": "POST"}
        for path in ("/ws/info", "/ws/0/a/xhr", "/ws/0/a/xhr_send", "/ws/0/a/xhr_streaming"):
            preflight = await http.options(path, headers=asked)
            assert preflight.status_code == 200
            assert preflight.headers["access-control-allow-origin"] == site
            assert preflight.headers["access-control-allow-credentials"] == "true"
        foreign = await http.get("/ws/info", headers={"Origin": "http://other.example"})
        assert foreign.status_code == 403


@pytest.mark.parametrize("path", ["/ws/a.b/c/xhr", "/ws/a/b.c/xhr_streaming", "/ws/a//xhr", "/ws/a/b/jsonp"])
async def test_a_path_that_is_none_of_sockjs_is_a_404(path: str) -> None:
    """No dot in its words, and no transport that is not served."""
    async with stage() as s, http_client(s.daemon.http) as http:
        assert (await http.post(path)).status_code in (404, 405)
        for words in ("/ws/a.b/c/websocket", "/ws/a/b.c/websocket"):
            headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
            headers["Sec-WebSocket-Key"] = "dGhlIHNhbXBsZSBub25jZQ=="
            assert (await http.get(words, headers=headers)).status_code == 404
        assert s.sessions == 0


async def test_a_client_by_polls_alone(mock_clock: MockClock) -> None:
    """Each poll brings one batch; what the client sends goes beside; the server's word means nothing."""
    async with stage() as s, http_client(s.daemon.http) as http:
        await s.publish(("1.5", "1"))
        assert (await http.post("/ws/000/me/xhr")).text == "o\n"
        text = f"SUBSCRIBE\nid:0\ndestination:{MARKET_DATA}\n\n\0"
        sent = await http.post(
            "/ws/111/me/xhr_send", content=json.dumps(["CONNECT\naccept-version:1.2\n\n\0", text])
        )
        assert (sent.status_code, sent.content) == (204, b"")
        heard = ""
        while "MESSAGE" not in heard:
            heard += (await http.post("/ws/222/me/xhr")).text
        lines = heard.splitlines()
        assert all(line.startswith('a["') for line in lines)
        assert [json.loads(line[1:])[0].split("\n")[0] for line in lines] == ["CONNECTED", "MESSAGE"]
        async with trio.open_nursery() as nursery:
            answers = list[str]()

            async def poll() -> None:
                answers.append((await http.post("/ws/000/me/xhr", timeout=None)).text)

            nursery.start_soon(poll)
            await s.publish(("2.5", "1"))
        assert '\\"close\\":2.5' in answers[0]
        await http.post("/ws/000/me/xhr_send", content=json.dumps(["DISCONNECT\nreceipt:r\n\n\0"]))
        last = (await http.post("/ws/000/me/xhr")).text
        assert last.splitlines()[-1] == 'c[3000,"Go away!"]'
        await wait_all_tasks_blocked()
        mock_clock.jump(CLOSE_WITHIN)  # a last word has its time
        await settled(s)
        assert (await http.post("/ws/000/me/xhr_send", content='["x"]')).status_code == 404


@pytest.mark.parametrize("older", ["xhr", "xhr_streaming"])
async def test_a_newer_response_takes_the_place_of_an_older_one(older: str) -> None:
    """The older one is told so and ends, as when a browser's connection has hung."""
    async with stage() as s, http_client(s.daemon.http) as http, trio.open_nursery() as nursery:
        await http.post("/ws/0/me/xhr")
        answers = list[str]()

        async def poll(transport: str) -> None:
            answers.append((await http.post(f"/ws/0/me/{transport}", timeout=None)).text)

        nursery.start_soon(poll, older)
        await until(lambda: [session for session in s.daemon.lobby.clients if session._wire.polled])
        nursery.start_soon(poll, "xhr")
        await until(lambda: answers)
        assert answers[0].splitlines()[-1] == 'c[2010,"Another connection still open"]'
        await http.post("/ws/0/me/xhr_send", content='["CONNECT\\n\\n\\u0000"]')
        await until(lambda: len(answers) == 2)
        assert "CONNECTED" in answers[1]


async def test_messages_that_are_not_heard_in_time_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """With 429 and a time, and counted; the connection stays."""
    async with stage() as s, http_client(s.daemon.http) as http:
        await http.post("/ws/0/me/xhr")
        with monkeypatch.context() as patched:

            def full(_wire: ResponseWire, _message: object) -> None:
                raise InboxFull

            patched.setattr(ResponseWire, "hear", full)
            answer = await http.post("/ws/0/me/xhr_send", content='["CONNECT\\n\\n\\u0000"]')
        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")
        assert s.daemon.hall.quotas.refused["messages"] == 1
        assert (await http.post("/ws/0/me/xhr_send", content='["CONNECT\\n\\n\\u0000"]')).status_code == 204
        assert "CONNECTED" in (await http.post("/ws/0/me/xhr")).text


async def test_a_message_with_nothing_in_it_means_nothing() -> None:
    """Neither an empty one nor an empty array, as the SockJS protocol has it for WebSockets."""
    async with stage() as s, client(s.daemon, SOCKJS) as one:
        for sent in ("", "[]", '[""]'):
            await one.socket.send_message(sent)
        await one.connect()
        assert one.closed is None


async def test_broken_json_is_refused_and_hurts_nobody() -> None:
    """The request is answered with the mistake; the client goes on. Over a WebSocket it is the end."""
    async with stage() as s, http_client(s.daemon.http) as http:
        await http.post("/ws/0/me/xhr")
        for sent in (b"", b"[", b"[1]", b"{}", b'["\xff"]'):
            answer = await http.post("/ws/0/me/xhr_send", content=sent)
            assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
        for sent in (b"[", b"[1]", b"{}"):
            async with client(s.daemon, SOCKJS) as one:
                await one.socket.send_message(sent.decode())
                await until(lambda one=one: one.closed)
                assert one.texts[-1] == 'c[3000,"Go away!"]'
        await until(lambda: s.sessions == 1)


async def test_a_request_that_is_too_long_is_refused() -> None:
    """As every body is; and messages that nobody takes are bounded."""
    async with stage() as s, http_client(s.daemon.http) as http:
        await http.post("/ws/0/me/xhr")
        assert (
            await http.post("/ws/0/me/xhr_send", content=b'["' + b"x" * 70_000 + b'"]')
        ).status_code == 413
        assert s.sessions == 1


async def test_a_streaming_response_ends_at_its_length_and_the_next_one_goes_on() -> None:
    """Nothing is lost in between; the first line is what old browsers want."""
    async with stage() as s, http_client(s.daemon.http) as http:
        text = (
            "CONNECT\naccept-version:1.2\n\n\0SUBSCRIBE\nid:0\ndestination:/topic/signaling\nreceipt:s\n\n\0"
        )
        await http.post("/ws/0/me/xhr")
        await http.post("/ws/0/me/xhr_send", content=json.dumps([text]))
        numbers = list[str]()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(signal_on_and_on, s)
            for _ in range(2):
                async with http.stream("POST", "/ws/0/me/xhr_streaming", timeout=None) as response:
                    lines = [line async for line in response.aiter_lines()]
                assert lines[0] == "h" * 2048
                assert sum(map(len, lines)) > 128 * 1024
                frames = [json.loads(line[1:])[0] for line in lines[1:] if line.startswith("a")]
                numbers += [
                    f.split('"senderId":"')[1].split('"')[0] for f in frames if f.startswith("MESSAGE")
                ]
            nursery.cancel_scope.cancel()
        assert numbers == [str(number) for number in range(int(numbers[0]), int(numbers[0]) + len(numbers))]


async def signal_on_and_on(s: Stage) -> None:
    """Signals with their number, as fast as they come back."""
    async with client(s.daemon) as one:
        await one.connect()
        await one.subscribe("0", "/topic/signaling")
        for number in itertools.count():
            body = json.dumps({"type": "ICE", "senderId": str(number), "sdp": "x" * 8_000})
            await one.send("SEND", "destination:/app/signal", body=body)
            await until(lambda n=number: len(one.of("MESSAGE")) > n)
            await until(lambda: all(session.waiting < 5 for session in s.daemon.lobby.clients))


async def test_a_client_without_a_response_is_gone(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After 5 s, and with all that it followed."""
    assert GONE_AFTER == 5.0
    monkeypatch.setattr(requests, "GONE_AFTER", GONE_AFTER)
    async with stage() as s, http_client(s.daemon.http) as http:
        await http.post("/ws/0/me/xhr")
        text = f"CONNECT\n\n\0SUBSCRIBE\ndestination:{MARKET_DATA}\n\n\0"
        await http.post("/ws/0/me/xhr_send", content=json.dumps([text]))
        await until(lambda: s.listeners == 1)
        await wait_all_tasks_blocked(0.01)
        mock_clock.jump(4.9)
        await wait_all_tasks_blocked(0.01)
        assert s.sessions == 1
        mock_clock.jump(0.2)
        await until(lambda: s.listeners == 0)
        for _ in range(3):  # a last word has its time
            mock_clock.jump(1.0)
            await wait_all_tasks_blocked(0.01)
        await settled(s)
