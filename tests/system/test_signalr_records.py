"""The SignalR hub, record by record and request by request: what no client library would show, or do."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
import trio
from attrs import define, field

from actors.outbox import SlowClient
from dataflow import plugs
from dataflow.faces.signalr import Settings, endpoint
from dataflow.server.polling_wire import PollingWire
from dataflow.server.response_wire import InboxFull, ResponseWire
from dataflow.settings.schema import Gateway, Limits, Session
from tests.dataflow.faces.signalr.test_protocol import packed, unpacked
from tests.support.waiting import until
from tests.system.daemon import http_client
from tests.system.hub import (
    HANDSHAKE,
    RESTORED,
    SUBSCRIBE,
    SYMBOL,
    Stage,
    call,
    expected,
    invocation,
    negotiated,
    opened,
    raw,
    rejection,
    stage,
)

PAGE = "http://localhost:4200"
EVENTS = {"Accept": "text/event-stream"}
TRANSPORTS = [
    {"transport": "WebSockets", "transferFormats": ["Text", "Binary"]},
    {"transport": "ServerSentEvents", "transferFormats": ["Text"]},
    {"transport": "LongPolling", "transferFormats": ["Text", "Binary"]},
]


@define
class Polls:
    """A client with long polling, one request after the other."""

    http: httpx.AsyncClient
    path: str
    answers: list[httpx.Response] = field(factory=list)

    async def poll(self) -> httpx.Response:
        self.answers.append(await self.http.get(self.path, timeout=None))
        return self.answers[-1]

    async def say(self, text: str | bytes) -> httpx.Response:
        return await self.http.post(self.path, content=text)

    async def keep_polling(self) -> None:
        while (await self.poll()).status_code == 200:
            pass

    @property
    def records(self) -> list[Any]:
        return [json.loads(each) for each in "".join(a.text for a in self.answers).split("\x1e")[:-1]]


async def polls(http: httpx.AsyncClient) -> Polls:
    """After its first poll."""
    made = Polls(http, f"/blockchain?id={await negotiated(http)}")
    first = await made.poll()
    assert (first.status_code, first.content) == (200, b"")
    assert first.headers["content-type"].startswith("text/plain")
    return made


def wire_of(s: Stage, polled: Polls) -> PollingWire:
    """The daemon's end of a client that polls."""
    hub = s.seats.client(polled.path.partition("=")[2])
    assert hub is not None
    assert isinstance(hub.wire, PollingWire)
    return hub.wire


@define
class Events:
    """A client with Server-Sent Events; what came, as it came."""

    path: str
    response: httpx.Response
    text: str = ""
    ended: bool = False

    async def listen(self) -> None:
        try:
            async for piece in self.response.aiter_text():
                self.text += piece
        except httpx.RemoteProtocolError:
            pass
        self.ended = True

    @property
    def records(self) -> list[Any]:
        comment, *events = self.text.split("\r\n\r\n")
        assert comment == ":"  # the stream has begun
        assert events[-1] == ""
        data = [event.removeprefix("data: ") for event in events[:-1]]
        return [json.loads(record) for event in data for record in event.split("\x1e")[:-1]]


def refused(answer: httpx.Response, status: int) -> bool:
    return (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


class TestNegotiation:
    """An id and the transports, for clients of today and of before."""

    @pytest.mark.parametrize(
        ("query", "version"),
        [("", 0), ("?negotiateVersion=0", 0), ("?negotiateVersion=1", 1), ("?negotiateVersion=2", 1)],
    )
    @pytest.mark.parametrize("content_type", [None, "text/plain;charset=UTF-8", "application/json"])
    async def test_versions(self, query: str, version: int, content_type: str | None) -> None:
        """In version 1 the token is a secret of its own; names of transports and formats are those of the clients."""
        async with stage() as s, http_client(s.daemon.http) as http:
            headers = {} if content_type is None else {"Content-Type": content_type}
            answers = [await http.post(f"/blockchain/negotiate{query}", headers=headers) for _ in range(2)]
            assert [(a.status_code, a.headers["content-type"]) for a in answers] == [
                (200, "application/json")
            ] * 2
            told = [answer.json() for answer in answers]
            ids = [
                each.pop(key) for each in told for key in ("connectionId", "connectionToken") if key in each
            ]
            assert told == [{"negotiateVersion": version, "availableTransports": TRANSPORTS}] * 2
            assert len(set(ids)) == 2 * (version + 1)
            async with raw(s, f"?id={ids[-1]}") as hub:
                assert hub.messages[0] == "{}\x1e"

    async def test_what_is_no_negotiation_is_refused(self) -> None:
        async with stage() as s, http_client(s.daemon.http) as http:
            assert refused(await http.get("/blockchain/negotiate"), 405)
            assert refused(await http.post("/blockchain/negotiate?negotiateVersion=x"), 400)
            assert refused(await http.post("/blockchain/negotiate?negotiateVersion=-1"), 400)
            ignored = await http.post("/blockchain/negotiate?negotiateVersion=1&useStatefulReconnect=true")
            assert "useStatefulReconnect" not in ignored.json()

    async def test_ids_of_one_address_are_bounded(self) -> None:
        """Only unused ones count. The refusal says when to come back, and is counted."""
        async with stage(limits=Limits(sessions=2, loopback=True)) as s, http_client(s.daemon.http) as http:
            for _ in range(2):
                await negotiated(http)
            answer = await http.post("/blockchain/negotiate")
            assert refused(answer, 429)
            assert int(answer.headers["Retry-After"]) >= 1
            assert s.daemon.lobby.admission.refused["too many negotiations"] == 1

    async def test_a_disabled_face_is_a_404(self) -> None:
        """Its default: nothing is there, by no way."""
        assert not plugs.find("faces", "signalr").Settings().enabled
        async with stage(Settings()) as s, http_client(s.daemon.http) as http:
            assert refused(await http.post("/blockchain/negotiate"), 404)
            assert refused(await http.get("/blockchain?id=x"), 404)
            assert await rejection(s) == 404


class TestIds:
    """An id is for one client, and for nobody else."""

    async def test_a_websocket_without_an_id_is_a_new_connection(self) -> None:
        """Clients that skip the negotiation; what some of them send in its place means nothing."""
        async with stage() as s:
            for query in ("", "?connectionId=x", "?access_token=x"):
                async with raw(s, query) as hub:
                    assert (await hub.ask(call("ping", 1)))["result"] == "pong"

    async def test_an_unknown_id_is_a_404_and_one_in_use_a_409(self) -> None:
        """For a WebSocket before it opens, and for each kind of request."""
        async with stage() as s, http_client(s.daemon.http) as http:
            id = await negotiated(http)

            assert await rejection(s, "?id=unknown") == 404
            for method in ("GET", "POST", "DELETE"):
                assert refused(await http.request(method, "/blockchain?id=unknown"), 404)
                assert refused(await http.request(method, "/blockchain"), 400)
            assert refused(await http.delete(f"/blockchain?id={id}"), 404)  # nothing has begun
            assert (await http.head(f"/blockchain?id={id}")).status_code == 200  # and takes nothing
            async with raw(s, f"?id={id}"):
                assert await rejection(s, f"?id={id}") == 409
                for headers in ({}, EVENTS):
                    assert refused(await http.get(f"/blockchain?id={id}", headers=headers), 409)
                for method in ("POST", "DELETE"):  # a WebSocket sends no requests
                    assert refused(await http.request(method, f"/blockchain?id={id}"), 400)
            await until(lambda: s.hubs == 0)
            assert await rejection(s, f"?id={id}") == 404
            assert refused(await http.get(f"/blockchain?id={id}"), 404)

    async def test_a_token_in_the_address_is_never_logged(self, lines: list[str]) -> None:
        """Browsers send it there. It means nothing while there is nothing to authorise, and is a secret all the same."""
        async with stage() as s, http_client(s.daemon.http) as http:
            async with raw(s, "?access_token=planted-secret"):
                pass
            await http.get("/blockchain?id=x&access_token=planted-secret")
            await http.post("/blockchain/negotiate", headers={"Authorization": "Bearer planted-secret"})
            await until(lambda: any("client came" in line for line in lines))
        assert "planted-secret" not in "\n".join(lines)


class TestHandshake:
    """The first record; without a good one there is no connection."""

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ('{"protocol":"x","version":1}\x1e', "The protocol 'x' is not supported."),
            (
                '{"protocol":"json","version":7}\x1e',
                "The server does not support version 7 of the 'json' protocol.",
            ),
            ('{"type":6}\x1e', "The handshake is not understood"),
            ("x" * 70 + "\x1e", "The handshake is not understood"),
        ],
    )
    async def test_what_is_none_is_answered_with_the_error(self, text: str, words: str) -> None:
        """In the answer to the handshake; then the connection ends."""
        async with stage() as s, raw(s, handshake=None) as hub:
            await hub.say(text)
            await until(lambda: hub.closed)
            (message,) = hub.messages
            assert message.endswith("\x1e")
            assert json.loads(message[:-1])["error"].startswith(words)

    async def test_it_has_its_time(self) -> None:
        """Then the client is told, whatever else the WebSocket does; over every transport."""
        settings = Settings(enabled=True, handshake_timeout=0.05)
        async with stage(settings) as s, http_client(s.daemon.http) as http, raw(s, handshake=None) as hub:
            await until(lambda: hub.closed)
            assert hub.messages == ['{"error":"no handshake for 0.05 s"}\x1e']
            polled = await polls(http)
            await polled.keep_polling()
            assert polled.records == [{"error": "no handshake for 0.05 s"}]
            assert polled.answers[-1].status_code == 204
            await until(lambda: s.hubs == 0)

    async def test_nothing_is_said_before_it(self) -> None:
        """Not even a notice to all."""
        async with stage() as s, raw(s, handshake=None) as hub, raw(s) as other:
            await s.exchange.disconnect("graceful")
            await until(lambda: len(other.received) == 2)
            assert hub.messages == []

    async def test_messagepack_is_not_for_server_sent_events(self) -> None:
        """They have text only."""
        async with stage() as s, http_client(s.daemon.http) as http, trio.open_nursery() as nursery:
            path = f"/blockchain?id={await negotiated(http)}"
            async with http.stream("GET", path, headers=EVENTS, timeout=None) as response:
                events = Events(path, response)
                nursery.start_soon(events.listen)
                await http.post(path, content='{"protocol":"messagepack","version":1}\x1e')
                await until(lambda: events.ended)
                assert events.records == [{"error": "The protocol 'messagepack' is not supported."}]


class TestRecords:
    """However they are cut; each call with its answer, and its completion behind it."""

    async def test_records_behind_the_handshake_and_in_pieces(self) -> None:
        """Several in one message, one in several."""
        async with stage() as s, raw(s, handshake=None) as hub:
            first = invocation(call("ping", "a"), "0")
            await hub.say(HANDSHAKE + '{"type":6}\x1e' + first + first[:5], first[5:20], first[20:])
            await until(lambda: len(hub.records) == 4)
            assert hub.messages[0] == "{}\x1e"
            pong = {
                "type": 1,
                "target": "ReceiveMessage",
                "arguments": ['{"jsonrpc":"2.0","result":"pong","id":"a"}'],
            }
            done = {"type": 3, "invocationId": "0", "result": None}
            assert hub.records == [pong, done, pong, done]

    @pytest.mark.parametrize("id", ["1", 1, -7, 1.5, 'x\u00e9\x1e"\\', None])
    async def test_an_id_comes_back_in_its_type(self, id: Any) -> None:
        async with stage() as s, raw(s) as hub:
            await hub.say(invocation(json.dumps({"jsonrpc": "2.0", "method": "Ping", "id": id})))
            await until(lambda: hub.received)
            assert hub.received == [{"jsonrpc": "2.0", "result": "pong", "id": id}]

    async def test_an_array_is_answered_by_messages(self) -> None:
        """One for each member that wants an answer, in order, with their errors; then the completion. Never an array."""
        members = [json.loads(call("ping", 1)), json.loads(call("ping")), 7, json.loads(call("nothing", "2"))]
        async with stage() as s, raw(s) as hub:
            await hub.say(
                invocation(json.dumps(members), "9"), invocation("[]", "10"), invocation(call("ping"), "11")
            )
            await until(lambda: len(hub.of(3)) == 3)
            assert [each["type"] for each in hub.records] == [1, 1, 1, 3, 1, 3, 3]
            ids = [(each["id"], each.get("error", {}).get("code")) for each in hub.received]
            assert ids == [(1, None), (None, -32600), ("2", -32601), (None, -32600)]

    async def test_a_notification_is_never_answered(self) -> None:
        """Neither a good one nor a wrong one; an invocation with an id has its completion all the same."""
        async with stage() as s, raw(s) as hub:
            await hub.say(
                invocation(call("ping")),
                invocation(call("nothing")),
                invocation(call("subscribe", symbol=SYMBOL), "1"),
            )
            await until(lambda: hub.of(3))
            assert hub.records == [{"type": 3, "invocationId": "1", "result": None}]
            await s.publish(1)
            await until(lambda: hub.trades)
            assert hub.trades == [expected(1)]

    async def test_what_has_no_meaning_harms_nothing(self) -> None:
        """Streams are refused by their completion; items, cancellations and acknowledgements are not heard."""
        async with stage() as s, raw(s) as hub:
            for kind in (2, 3, 5, 8, 9, 77):
                await hub.say(json.dumps({"type": kind, "invocationId": "1", "sequenceId": 1}) + "\x1e")
            stream = {"type": 4, "invocationId": "s", "target": "SendMessage", "arguments": [call("ping", 1)]}
            await hub.say(json.dumps(stream) + "\x1e")
            for target, arguments in (("Subscribe", ["x"]), ("SendMessage", []), ("SendMessage", [4])):
                record = {"type": 1, "invocationId": "e", "target": target, "arguments": arguments}
                await hub.say(json.dumps(record) + "\x1e")
            upper = {
                "type": 1,
                "target": "SENDMESSAGE",
                "arguments": [call("ping", 1)],
                "headers": {},
                "streamIds": [],
            }
            await hub.say(json.dumps(upper) + "\x1e")
            await until(lambda: hub.received)
            told = hub.of(3)
            assert [each["invocationId"] for each in told] == ["s", "e", "e", "e"]
            assert all(each["error"] and "result" not in each for each in told)
            assert len(hub.records) == 5

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("x\x1e", "not understood"),
            ('{"type":"1"}\x1e', "not understood"),
            ('{"type":1,"target":"' + "x" * 1000, "may have 1000 bytes"),
            ('{"type":6}' + " " * 1000 + "\x1e", "may have 1000 bytes"),
        ],
    )
    @pytest.mark.parametrize("piece", [600, 2000])
    async def test_a_broken_record_is_the_last_one(self, text: str, words: str, piece: int) -> None:
        """The client is told why, and costs others nothing. However long: in pieces that a WebSocket may have, or in
        one message, which is then too long for it."""
        async with (
            stage(gateway=Gateway(port=0, max_message_bytes=1000)) as s,
            raw(s) as other,
            raw(s) as hub,
        ):
            await other.ask(SUBSCRIBE)
            await hub.ask(call("ping", 1))
            for start in range(0, len(text), piece):
                await hub.say(text[start : start + piece])
            await until(lambda: hub.closed)
            last = hub.records[-1]
            assert (last["type"], "allowReconnect" in last) == (7, False)
            assert words in last["error"] or (hub.closed[0] == 1009 and "1000 bytes" in last["error"])
            await s.publish(1)
            await until(lambda: other.trades)
            assert s.daemon.crashes() == []

    async def test_a_client_that_closes_is_gone(self) -> None:
        """By its own last record."""
        async with stage() as s, raw(s) as hub:
            await hub.say('{"type":7}\x1e')
            await until(lambda: hub.closed)
            assert hub.records == []
            assert s.hubs == 0


class TestCalls:
    """JSON-RPC as the hub's clients know it."""

    @pytest.mark.parametrize(
        ("method", "params", "words"),
        [
            ("subscribe", {"channel": "candles", "symbol": SYMBOL}, "Only 'trades' channel is supported"),
            ("subscribe", {"channel": "trades"}, "Symbol is required"),
            ("subscribe", {"channel": "trades", "symbol": ""}, "Symbol is required"),
            ("subscribe", {"channel": "trades", "symbol": None}, "Symbol is required"),
            ("subscribe", {"channel": "trades", "symbol": "NO-PE"}, "Invalid symbol: NO-PE"),
            ("subscribe", {"symbol": "btc-usdt"}, "Invalid symbol: btc-usdt"),
            ("subscribe", {"symbol": "BTCUSDT"}, "Invalid symbol: BTCUSDT"),
            ("unsubscribe", {"channel": "x", "symbol": SYMBOL}, "Only 'trades' channel is supported"),
            ("unsubscribe", {"symbol": "NO-PE"}, "Invalid symbol: NO-PE"),
            ("getRecentTrades", {"count": 5}, "Symbol is required"),
            ("getRecentTrades", {"symbol": "NO-PE"}, "Invalid symbol: NO-PE"),
            ("getRecentTrades", {"symbol": SYMBOL, "count": 0}, "Count must be between 1 and 50"),
            ("getRecentTrades", {"symbol": SYMBOL, "count": 51}, "Count must be between 1 and 50"),
        ],
    )
    async def test_mistakes_have_the_words_that_clients_know(
        self, method: str, params: dict[str, Any], words: str
    ) -> None:
        async with stage() as s, raw(s) as hub:
            answer = await hub.ask(call(method, "1", **params))
            assert "result" not in answer
            assert (answer["error"]["code"], answer["error"]["message"]) == (-32602, "Invalid params")
            assert words in json.dumps(answer["error"]["data"])

    @pytest.mark.parametrize(
        ("text", "code", "message"),
        [
            ("{", -32700, "Parse error"),
            ('{"jsonrpc":"2.0"}', -32600, "Invalid Request"),
            ('{"jsonrpc":"2.0","method":"x","id":"1"}', -32601, "Method not found"),
        ],
    )
    async def test_other_errors(self, text: str, code: int, message: str) -> None:
        async with stage() as s, raw(s) as hub:
            answer = await hub.ask(text)
            assert (answer["error"]["code"], answer["error"]["message"]) == (code, message)

    async def test_recent_trades(self) -> None:
        """Newest first, 50 of them unless fewer are wanted; behind a time the oldest, oldest first. Both bounds exclude."""
        async with stage() as s, raw(s) as hub:
            await s.publish(70)

            async def recent(**params: Any) -> list[Any]:
                answer = await hub.ask(call("GetRecentTrades", "1", symbol=SYMBOL, **params))
                trades = answer["result"]
                assert trades == [expected(trade["offset"]) for trade in trades]
                return [trade["offset"] for trade in trades]

            at = {number: expected(number)["timestamp"] for number in (20, 60)}
            assert await recent() == list(range(70, 20, -1))
            assert await recent(count=50.0) == list(range(70, 20, -1))
            assert await recent(count=2) == [70, 69]
            assert await recent(count=3, beforeTimestamp=at[20]) == [19, 18, 17]
            assert await recent(count=3, afterTimestamp=at[20]) == [21, 22, 23]
            assert await recent(afterTimestamp=at[60].replace("Z", "+00:00")) == list(range(61, 71))
            assert await recent(count=2, afterTimestamp=at[60], beforeTimestamp=at[20]) == [61, 62]

    async def test_the_number_of_recent_trades_is_configured(self) -> None:
        """The bound, its words and the default follow it."""
        async with stage(Settings(enabled=True, max_recent=3)) as s, raw(s) as hub:
            await s.publish(5)
            answer = await hub.ask(call("getRecentTrades", 1, symbol=SYMBOL))
            assert [trade["offset"] for trade in answer["result"]] == [5, 4, 3]
            answer = await hub.ask(call("getRecentTrades", 1, symbol=SYMBOL, count=4))
            assert "Count must be between 1 and 3" in json.dumps(answer["error"]["data"])

    async def test_an_update_is_that_of_json_rpc(self) -> None:
        """Digit for digit the same text, with the digits of the exchange; and recovery works as there."""
        async with stage() as s, raw(s) as hub, opened(s.daemon.url) as rpc:
            await rpc.send_message(SUBSCRIBE)
            await rpc.get_message()
            answer = await hub.ask(SUBSCRIBE)
            await s.publish(40)
            await until(lambda: len(hub.trades) == 40)
            texts = [each["arguments"][0] for each in hub.of(1)][1:]
            assert texts == [await rpc.get_message() for _ in range(40)]
            assert '"qty":0.50000000,"price":1.25000000,' in texts[0]
            position = {"epoch": answer["result"]["epoch"], "offset": 10}
            async with raw(s) as late:
                told = (await late.ask(call("subscribe", 2, symbol=SYMBOL, since=position)))["result"]
                assert told["recovered"] is True
                assert told["trades"] == [expected(number) for number in range(11, 41)]

    async def test_a_long_past_is_whole(self) -> None:
        """A thousand trades, in pieces of one record; live updates stand behind it, without a hole."""
        async with stage() as s, raw(s) as hub:
            await s.publish(1000)
            epoch = s.daemon.core.epoch
            await hub.say(
                invocation(call("subscribe", 1, symbol=SYMBOL, since={"epoch": epoch, "offset": 0}), "0")
            )
            await s.publish(20)
            await until(lambda: hub.of(3))
            (answer,) = [each for each in hub.received if "id" in each]
            await until(lambda: len(answer["result"]["trades"]) + len(hub.trades) == 1020)
            offsets = [trade["offset"] for trade in (*answer["result"]["trades"], *hub.trades)]
            assert offsets == list(range(1, 1021))
            kinds = [each["type"] for each in hub.records]
            assert kinds.index(3) == 1  # right behind the answer

    async def test_outages_and_gaps_are_told(self) -> None:
        """As notifications, to whoever follows something and to whoever does not."""
        async with stage() as s, raw(s) as hub, raw(s) as idle:
            await hub.ask(SUBSCRIBE)
            await s.publish(1)
            s.published += 3
            await s.publish(1)
            await until(lambda: len(hub.trades) == 2)
            (gap,) = [each["params"] for each in hub.received if each.get("method") == "stream.gap"]
            assert (gap["from"], gap["to"], gap["reason"], gap["symbol"]) == (2, 4, "source_gap", SYMBOL)
            await s.exchange.disconnect("graceful")
            await until(lambda: len(idle.received) == 2)
            lost, restored = idle.received
            assert (lost["method"], restored["method"]) == ("connection.lost", "connection.restored")
            assert lost["params"]["reason"]
            assert restored["params"]["action"] == "resubscribe"
            assert not {"id"} & (lost.keys() | restored.keys())


class TestSignsOfLife:
    """Pings both ways; who is silent is let go."""

    async def test_a_quiet_client_is_pinged(self) -> None:
        """Again and again; whoever answers stays, however little else it says."""
        async with stage(Settings(enabled=True, keepalive=0.02, client_timeout=30.0)) as s, raw(s) as hub:
            for count in range(1, 5):
                await until(lambda count=count: len(hub.of(6)) >= count)
                await hub.say('{"type":6}\x1e')
            assert {"type": 6} in hub.records
            assert hub.closed is None

    async def test_a_silent_client_is_let_go(self) -> None:
        """Though its WebSocket answers pings: those of a library say nothing about the client."""
        async with stage(Settings(enabled=True, keepalive=0.02, client_timeout=0.1)) as s, raw(s) as hub:
            while hub.closed is None:
                with trio.move_on_after(0.01):
                    await hub.socket.ping()
            assert hub.of(6)
            assert hub.records[-1] == {"type": 7, "error": "no sign of life for 0.1 s"}
            assert s.hubs == 0

    async def test_server_sent_events_have_both(self) -> None:
        """Pings come, and silence ends them."""
        settings = Settings(enabled=True, keepalive=0.02, client_timeout=0.1)
        async with stage(settings) as s, http_client(s.daemon.http) as http, trio.open_nursery() as nursery:
            path = f"/blockchain?id={await negotiated(http)}"
            async with http.stream("GET", path, headers=EVENTS, timeout=None) as response:
                events = Events(path, response)
                nursery.start_soon(events.listen)
                assert (await http.post(path, content=HANDSHAKE)).status_code == 200
                await until(lambda: events.ended)
            assert events.records[0] == {}
            assert {"type": 6} in events.records
            assert events.records[-1] == {"type": 7, "error": "no sign of life for 0.1 s"}

    async def test_long_polling_has_none(self) -> None:
        """No pings, and no silence: a poll that waits is sign enough."""
        settings = Settings(enabled=True, keepalive=0.02, client_timeout=0.05)
        async with stage(settings) as s, http_client(s.daemon.http) as http:
            polled = await polls(http)
            await polled.say(HANDSHAKE + invocation(SUBSCRIBE))
            async with raw(s) as beside:
                await until(lambda: beside.closed)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(polled.keep_polling)
                await until(lambda: len(polled.records) == 3)
                async with raw(s) as beside:
                    await until(lambda: beside.closed)
                await s.publish(1)
                await until(lambda: len(polled.records) == 4)
                assert json.loads(polled.records[-1]["arguments"][0])["params"] == expected(1)
                assert (await http.delete(polled.path)).status_code == 202
            assert polled.answers[-1].status_code == 204
            await until(lambda: s.hubs == 0)


class TestLongPolling:
    """Requests one after the other, and nothing lost between them."""

    async def test_records_of_a_burst_are_whole_and_in_order(self) -> None:
        """However many polls it takes."""
        async with stage() as s, http_client(s.daemon.http) as http, trio.open_nursery() as nursery:
            polled = await polls(http)
            posted = await polled.say(HANDSHAKE + invocation(SUBSCRIBE))
            assert (posted.status_code, posted.content) == (200, b"")
            nursery.start_soon(polled.keep_polling)
            await until(lambda: s.listeners == 1)
            await s.publish(500)
            await until(lambda: len(polled.records) == 503)
            texts = [json.loads(each["arguments"][0]) for each in polled.records[3:]]
            assert [each["params"] for each in texts] == [expected(number) for number in range(1, 501)]
            await http.delete(polled.path)

    async def test_the_handshake_may_come_before_the_first_poll(self) -> None:
        """As signalrcore does it: then that poll is not empty."""
        async with stage() as s, http_client(s.daemon.http) as http:
            polled = Polls(http, f"/blockchain?id={await negotiated(http)}")
            assert (await polled.say(HANDSHAKE)).status_code == 200
            assert (await polled.poll()).text.startswith("{}\x1e")
            await http.delete(polled.path)

    async def test_a_poll_that_brings_nothing_ends_before_its_client_gives_up(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Empty, with 200, and the connection goes on. Clients wait for 100 s."""
        assert 80 < endpoint.POLL_SECONDS < 100
        monkeypatch.setattr(endpoint, "POLL_SECONDS", 0.01)
        async with stage() as s, http_client(s.daemon.http) as http:
            polled = await polls(http)
            await polled.say(HANDSHAKE)
            while len(polled.records) < 2:
                await polled.poll()
            empty = await polled.poll()
            assert (empty.status_code, empty.content) == (200, b"")
            await polled.say(invocation(call("ping", "a")))
            while len(polled.records) < 3:
                await polled.poll()
            assert json.loads(polled.records[-1]["arguments"][0])["result"] == "pong"

    async def test_a_newer_poll_ends_the_older_one(self) -> None:
        """With 204; the connection goes on by the newer."""
        async with stage() as s, http_client(s.daemon.http) as http, trio.open_nursery() as nursery:
            polled = await polls(http)
            await polled.say(HANDSHAKE)
            await polled.poll()
            wire = wire_of(s, polled)
            nursery.start_soon(polled.poll)
            await until(lambda: wire.polled)
            nursery.start_soon(polled.poll)
            await until(lambda: len(polled.answers) == 3)
            assert polled.answers[2].status_code == 204
            await polled.say(invocation(call("ping", 1)))
            await until(lambda: len(polled.answers) == 4)
            assert "pong" in polled.answers[3].text
            await http.delete(polled.path)

    async def test_a_client_that_stops_asking_is_gone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """After 15 s, whether a poll of its was cut off or none came."""
        assert endpoint.GONE_AFTER == 15
        async with stage() as s, http_client(s.daemon.http) as http:
            with monkeypatch.context() as patched:
                patched.setattr(endpoint, "GONE_AFTER", 0.05)
                silent = await polls(http)
            await until(lambda: s.hubs == 0 and len(s.seats) == 0)
            assert refused(await http.get(silent.path), 404)
            polled = await polls(http)
            await polled.say(HANDSHAKE + invocation(SUBSCRIBE))
            wire = wire_of(s, polled)  # not the hub: its id is known for as long as anybody keeps it
            async with trio.open_nursery() as nursery:
                nursery.start_soon(polled.keep_polling)
                await until(lambda: len(polled.records) == 3 and wire.polled)
                wire._gone_after = 0.05
                nursery.cancel_scope.cancel()
            await until(lambda: s.hubs == 0 and s.listeners == 0 and len(s.seats) == 0)
            assert refused(await polled.http.get(polled.path), 404)

    async def test_messagepack_comes_as_bytes(self) -> None:
        async with stage() as s, http_client(s.daemon.http) as http:
            polled = await polls(http)
            call_ = packed(1, {}, "0", "SendMessage", [call("ping", 1)], [])
            await polled.say(b'{"protocol":"messagepack","version":1}\x1e' + call_)
            received = b""
            while b"\xa10\x03\xc0" not in received:  # the completion
                answer = await polled.poll()
                received += answer.content
                assert answer.headers["content-type"] == "application/octet-stream"
            handshake, _, rest = received.partition(b"\x1e")
            assert handshake == b"{}"
            restored, pong, done = unpacked(rest)
            assert json.loads(restored[4][0]) == RESTORED
            assert pong == [1, {}, None, "ReceiveMessage", ['{"jsonrpc":"2.0","result":"pong","id":1}'], []]
            assert done == [3, {}, "0", 3, None]
            await http.delete(polled.path)

    async def test_messages_that_are_not_heard_in_time_are_refused(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With 429 and a time, and counted; the connection stays."""
        async with stage() as s, http_client(s.daemon.http) as http:
            polled = await polls(http)
            with monkeypatch.context() as patched:

                def full(_wire: ResponseWire, _message: object) -> None:
                    raise InboxFull("messages come faster than they are answered")

                patched.setattr(ResponseWire, "hear", full)
                answer = await polled.say(HANDSHAKE)
            assert refused(answer, 429)
            assert answer.headers["Retry-After"] == "1"
            assert s.daemon.hall.quotas.refused["messages"] == 1
            assert (await polled.say(HANDSHAKE)).status_code == 200
            await http.delete(polled.path)

    async def test_a_body_that_is_too_long_is_refused(self) -> None:
        async with stage() as s, http_client(s.daemon.http) as http:
            polled = await polls(http)
            assert refused(await polled.say("x" * 70_000), 413)
            await polled.say(HANDSHAKE)
            assert (await polled.poll()).text.startswith("{}\x1e")
            await http.delete(polled.path)


class TestEnds:
    """Nothing stays behind, nobody is held up, and everybody learns the end."""

    async def test_a_stop_is_told_in_the_last_record(self) -> None:
        """With the word that the client may come back; over every transport, behind everything else."""
        async with (
            stage() as s,
            http_client(s.daemon.http) as http,
            raw(s) as hub,
            trio.open_nursery() as nursery,
        ):
            await hub.ask(SUBSCRIBE)
            polled = await polls(http)
            await polled.say(HANDSHAKE)
            await polled.poll()
            nursery.start_soon(polled.keep_polling)
            path = f"/blockchain?id={await negotiated(http)}"
            async with http.stream("GET", path, headers=EVENTS, timeout=None) as response:
                events = Events(path, response)
                nursery.start_soon(events.listen)
                await http.post(path, content=HANDSHAKE)
                await until(lambda: events.text.count("\x1e") == 2)
                await s.daemon.root.supervisor("gateway").restart("sessions")
                await until(lambda: events.ended and hub.closed)
            last = {"type": 7, "allowReconnect": True}
            assert hub.records[-1] == last
            assert hub.closed == (1001, "server going away")
            assert events.records[-1] == last
            await until(lambda: polled.answers[-1].status_code == 204)
            assert polled.records[-1] == last

    @pytest.mark.parametrize("policy", [SlowClient.DISCONNECT, SlowClient.DROP_OLDEST])
    async def test_a_client_that_does_not_read_holds_nobody_up(self, policy: SlowClient) -> None:
        """It is let go, or told what it missed; what waits is bounded; another client gets everything."""
        settings = Session(outbox=50, slow_client=policy)
        async with stage(session=settings) as s, raw(s) as quick, opened(s.url.replace("http", "ws")) as deaf:
            await quick.ask(SUBSCRIBE)
            await deaf.send_message(HANDSHAKE + invocation(SUBSCRIBE))
            await until(lambda: s.listeners == 2)
            session: Any = list(s.daemon.lobby.clients)[-1]
            session._wire._sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_SNDBUF, 4096)
            while session.ended is None and not session.dropped:
                await s.publish(100)
                assert session.waiting <= 50 + 256
            if policy is SlowClient.DISCONNECT:
                assert session.ended.words == "slow client: 50 messages were waiting"
            else:
                gaps: list[Any] = []
                while not gaps:  # it begins to read, and is told
                    records = (await deaf.get_message()).split("\x1e")[:-1]
                    gaps = [each for each in records if "slow_client" in each]
                assert json.loads(json.loads(gaps[0])["arguments"][0])["params"]["skipped"] > 0
            await until(lambda: len(quick.trades) == s.published)
            assert [trade["offset"] for trade in quick.trades] == list(range(1, s.published + 1))

    @pytest.mark.parametrize("way", ["websocket", "events", "polls"])
    async def test_a_hundred_that_come_and_vanish_leave_nothing(self, way: str) -> None:
        """No session, no id, no subscription, no task."""

        async def come(s: Stage, http: httpx.AsyncClient) -> None:
            if way == "websocket":
                async with raw(s, f"?id={await negotiated(http)}") as hub:
                    await hub.ask(SUBSCRIBE)
                return
            if way == "polls":
                polled = await polls(http)
                await polled.say(HANDSHAKE + invocation(SUBSCRIBE))
                await polled.poll()
                assert (await http.delete(polled.path)).status_code == 202
                return
            path = f"/blockchain?id={await negotiated(http)}"
            async with http.stream("GET", path, headers=EVENTS) as response, trio.open_nursery() as nursery:
                events = Events(path, response)
                nursery.start_soon(events.listen)
                await http.post(path, content=HANDSHAKE + invocation(SUBSCRIBE))
                await until(lambda: "subscribed" in events.text)
                nursery.cancel_scope.cancel()

        async with stage() as s, http_client(s.daemon.http) as http:
            await come(s, http)
            await until(lambda: s.hubs == 0 and s.listeners == 0)
            tasks = trio.lowlevel.current_statistics().tasks_living
            for _ in range(20):
                async with trio.open_nursery() as nursery:
                    for _ in range(5):
                        nursery.start_soon(come, s, http)
            await until(lambda: s.hubs == 0 and s.listeners == 0 and len(s.seats) == 0)
            await until(lambda: trio.lowlevel.current_statistics().tasks_living <= tasks + 10)
            assert s.daemon.crashes() == []

    async def test_without_room_a_client_is_told_when_to_come_back(self) -> None:
        """In the answer to the handshake, or by 503; the one that is there stays."""
        async with (
            stage(gateway=Gateway(port=0, max_sessions=1)) as s,
            http_client(s.daemon.http) as http,
            raw(s) as hub,
            raw(s, handshake=None) as second,
        ):
            await until(lambda: second.closed)
            assert "too many sessions, try again in" in json.loads(second.messages[0][:-1])["error"]
            for headers in ({}, EVENTS):
                answer = await http.get(f"/blockchain?id={await negotiated(http)}", headers=headers)
                assert refused(answer, 503)
                assert int(answer.headers["Retry-After"]) >= 1
            assert (await hub.ask(call("ping", 1)))["result"] == "pong"
            assert len(s.seats) == 0


class TestPages:
    """Pages of other sites: those of the face's own list, there and nowhere else."""

    async def test_a_page_of_the_list_may_use_the_hub(self) -> None:
        """With credentials, by its name and never by a star; errors too can be read."""
        async with stage() as s, http_client(s.daemon.http) as http:
            for method, path, status in (
                ("POST", "/blockchain/negotiate", 200),
                ("GET", "/blockchain?id=x", 404),
                ("GET", "/blockchain/negotiate", 405),
            ):
                answer = await http.request(method, path, headers={"Origin": PAGE})
                assert answer.status_code == status
                assert answer.headers["Access-Control-Allow-Origin"] == PAGE
                assert answer.headers["Access-Control-Allow-Credentials"] == "true"
            async with opened(s.url.replace("http", "ws"), ("origin", PAGE)):
                pass

    @pytest.mark.parametrize("path", ["/blockchain/negotiate", "/blockchain?id=x"])
    async def test_its_preflight(self, path: str) -> None:
        """Methods of the path, and the headers that its clients send."""
        async with stage() as s, http_client(s.daemon.http) as http:
            wanted = "content-type, x-requested-with, x-signalr-user-agent, authorization"
            asked = {
                "Origin": PAGE,
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": wanted,
            }
            answer = await http.options(path, headers=asked)
            assert answer.status_code < 300
            assert answer.headers["Access-Control-Allow-Origin"] == PAGE
            assert answer.headers["Access-Control-Allow-Credentials"] == "true"
            allowed = {
                each.strip().lower() for each in answer.headers["Access-Control-Allow-Headers"].split(",")
            }
            assert {each.strip() for each in wanted.split(",")} <= allowed
            methods = {each.strip() for each in answer.headers["Access-Control-Allow-Methods"].split(",")}
            assert methods >= ({"POST"} if path.endswith("negotiate") else {"GET", "POST", "DELETE"})

    async def test_it_may_do_nothing_else_and_others_nothing_at_all(self) -> None:
        """Other paths do not know it; a page that nobody invited is refused here, also by a WebSocket."""
        async with stage() as s, http_client(s.daemon.http) as http:
            assert refused(await http.get("/health", headers={"Origin": PAGE}), 403)
            for foreign in ("http://evil.example", "http://localhost:4201", "null"):
                answer = await http.post("/blockchain/negotiate", headers={"Origin": foreign})
                assert refused(answer, 403)
                assert "Access-Control-Allow-Origin" not in answer.headers
                assert await rejection(s, "", ("origin", foreign)) == 403

    async def test_pages_of_the_gateway_may_too(self) -> None:
        """And below a prefix it is the same."""
        gateway = Gateway(port=0, origins=("http://page.example",), root_path="/feed")
        async with stage(gateway=gateway) as s, http_client(s.daemon.http) as http:
            for prefix in ("", "/feed"):
                for origin in (PAGE, "http://page.example"):
                    answer = await http.post(f"{prefix}/blockchain/negotiate", headers={"Origin": origin})
                    assert answer.status_code == 200
                    assert answer.headers["Access-Control-Allow-Credentials"] == "true"
                    url = s.daemon.http.replace("http", "ws") + prefix + "/blockchain"
                    async with opened(url, ("origin", origin)):
                        pass
