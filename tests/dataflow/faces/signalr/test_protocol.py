"""The records of a hub: read and written as the specification has them, however they are cut, and nothing else."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dataflow.faces.jsonrpc.protocol import PIECE_BYTES
from dataflow.faces.signalr.json_hub import JSON
from dataflow.faces.signalr.messagepack_hub import MESSAGEPACK
from dataflow.faces.signalr.protocol import (
    CLOSE,
    IGNORED,
    PING,
    BadRecord,
    Handshake,
    HubProtocol,
    Inbound,
    Invocation,
    Record,
    chosen,
    welcome,
)

MOST = 200
PROTOCOLS: list[HubProtocol] = [JSON, MESSAGEPACK]
TEXTS = [
    b'{"jsonrpc":"2.0","method":"ping"}',
    b'{"a":"quoted \\"x\\" and \\\\ and \\n and \\u001e","b":[1.50,null]}',
    '{"a":"\u00e9\u4e2d\U0001f600\u2028"}'.encode(),
    b"{}",
    b'"%b"' % (b"x" * 300),
    b'"%b"' % (b"x" * 70_000),
]

by_protocol = pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda each: each.name)


def read_all(inbound: Inbound, protocol: HubProtocol) -> list[Record]:
    records = []
    while (record := inbound.next(protocol)) is not None:
        records.append(record)
    return records


def packed(*record: Any) -> bytes:
    """A record of MessagePack, its length in front; written here a second time, in other words."""
    body = msgspec.msgpack.encode(list(record))
    length, prefix = len(body), b""
    while True:
        prefix += bytes([length % 128 + (128 if length >= 128 else 0)])
        length //= 128
        if not length:
            return prefix + body


def unpacked(data: bytes) -> list[Any]:
    records = []
    while data:
        length, at = 0, 0
        while True:
            length += (data[at] % 128) << (7 * at)
            at += 1
            if data[at - 1] < 128:
                break
        assert len(data) >= at + length
        records.append(msgspec.msgpack.decode(data[at : at + length]))
        data = data[at + length :]
    return records


class TestHandshake:
    """The first record chooses the protocol of all others."""

    @pytest.mark.parametrize("version", [0, 1, 2])
    @by_protocol
    def test_versions_of_today_and_before(self, protocol: HubProtocol, version: int) -> None:
        """Some clients say 0 after a negotiation in version 0."""
        inbound = Inbound(MOST)
        inbound.feed(f'{{"protocol":"{protocol.name}","version":{version}}}\x1e')
        handshake = inbound.handshake()
        assert handshake == Handshake(protocol.name, version)
        assert chosen(handshake, PROTOCOLS) is protocol

    def test_its_answer_is_an_empty_object(self) -> None:
        assert welcome() == b"{}\x1e"

    @pytest.mark.parametrize(
        ("handshake", "words"),
        [
            (Handshake("x", 1), "The protocol 'x' is not supported."),
            (Handshake("json", 3), "The server does not support version 3 of the 'json' protocol."),
            (Handshake("json", -1), "The server does not support version -1 of the 'json' protocol."),
        ],
    )
    def test_what_is_not_supported_is_named(self, handshake: Handshake, words: str) -> None:
        """As in the words that clients know."""
        with pytest.raises(BadRecord) as error:
            chosen(handshake, PROTOCOLS)
        assert str(error.value) == words
        assert json.loads(welcome(str(error.value))[:-1]) == {"error": words}

    def test_a_protocol_that_the_transport_cannot_carry_is_not_supported(self) -> None:
        """Server-Sent Events have text only."""
        with pytest.raises(BadRecord, match="The protocol 'messagepack' is not supported"):
            chosen(Handshake("messagepack", 1), [JSON])

    @pytest.mark.parametrize(
        "record",
        [
            "",
            "x",
            "[]",
            "{}",
            '{"protocol":"json"}',
            '{"protocol":1,"version":1}',
            '{"version":1}',
            "[" * 5000,
        ],
    )
    def test_what_is_no_handshake_is_the_declared_error(self, record: str) -> None:
        inbound = Inbound(10_000)
        inbound.feed(record + "\x1e")
        with pytest.raises(BadRecord):
            inbound.handshake()

    def test_records_may_come_with_it(self) -> None:
        """What stands behind it in the same message is heard."""
        inbound = Inbound(MOST)
        inbound.feed('{"protocol":"json","version":1}\x1e{"type":6}\x1e{"ty')
        assert inbound.handshake() == Handshake("json", 1)
        assert read_all(inbound, JSON) == [PING]
        inbound.feed('pe":7}\x1e')
        assert read_all(inbound, JSON) == [CLOSE]

    def test_it_may_come_in_pieces(self) -> None:
        inbound = Inbound(MOST)
        for letter in '{"protocol":"json","version":1}':
            inbound.feed(letter)
            assert inbound.handshake() is None
        inbound.feed(b"\x1e")
        assert inbound.handshake() == Handshake("json", 1)


CALL = {"type": 1, "target": "SendMessage", "arguments": ["x"]}
RECORDS_IN_JSON: list[tuple[dict[str, Any], Record]] = [
    (CALL, Invocation(None, "SendMessage", ["x"], False, 0)),
    (CALL | {"invocationId": "0"}, Invocation("0", "SendMessage", ["x"], False, 0)),
    (CALL | {"invocationId": None}, Invocation(None, "SendMessage", ["x"], False, 0)),
    (CALL | {"headers": {"a": "b"}, "streamIds": []}, Invocation(None, "SendMessage", ["x"], False, 0)),
    (CALL | {"arguments": [1, None, {}]}, Invocation(None, "SendMessage", [1, None, {}], False, 0)),
    ({"type": 1, "target": "x"}, Invocation(None, "x", [], False, 0)),
    (CALL | {"type": 4, "invocationId": "1"}, Invocation("1", "SendMessage", ["x"], True, 0)),
    ({"type": 2, "invocationId": "1", "item": 4}, IGNORED),
    ({"type": 3, "invocationId": "1", "result": None}, IGNORED),
    ({"type": 5, "invocationId": "1"}, IGNORED),
    ({"type": 6}, PING),
    ({"type": 7}, CLOSE),
    ({"type": 7, "error": "x", "allowReconnect": True}, CLOSE),
    ({"type": 8, "sequenceId": 1}, IGNORED),
    ({"type": 9, "sequenceId": 1}, IGNORED),
    ({"type": 77}, IGNORED),
]
RECORDS_IN_MESSAGEPACK: list[tuple[list[Any], Record]] = [
    ([1, {}, None, "SendMessage", ["x"], []], Invocation(None, "SendMessage", ["x"], False, 0)),
    ([1, {"a": "b"}, "0", "SendMessage", ["x"]], Invocation("0", "SendMessage", ["x"], False, 0)),
    ([1, {}, None, "SendMessage", [1, b"x"], []], Invocation(None, "SendMessage", [1, b"x"], False, 0)),
    ([4, {}, "1", "SendMessage", ["x"], []], Invocation("1", "SendMessage", ["x"], True, 0)),
    ([2, {}, "1", 4], IGNORED),
    ([3, {}, "1", 2], IGNORED),
    ([5, {}, "1"], IGNORED),
    ([6], PING),
    ([7, None, True], CLOSE),
    ([8, 1], IGNORED),
    ([9, 1], IGNORED),
    ([77, "more"], IGNORED),
]


def without_size(record: Record) -> Any:
    return (
        (record.id, record.target, record.arguments, record.streaming)
        if isinstance(record, Invocation)
        else record
    )


class TestReading:
    """Every record of the specification, and no other."""

    @pytest.mark.parametrize(("written", "record"), RECORDS_IN_JSON)
    def test_a_record_in_json(self, written: dict[str, Any], record: Record) -> None:
        read = JSON.read(json.dumps(written).encode())
        assert without_size(read) == without_size(record)

    @pytest.mark.parametrize(("written", "record"), RECORDS_IN_MESSAGEPACK)
    def test_a_record_in_messagepack(self, written: list[Any], record: Record) -> None:
        read = MESSAGEPACK.read(msgspec.msgpack.encode(written))
        assert without_size(read) == without_size(record)

    @pytest.mark.parametrize(
        "record",
        [
            b"",
            b"x",
            b"{}",
            b"[]",
            b"1",
            b'{"type":"1"}',
            b'{"type":1.5}',
            b'{"type":1,"target":4}',
            b'{"type":1,"target":"x","arguments":"y"}',
            b'{"type":1,"target":"x","invocationId":4}',
            b'{"type":6}{"type":6}',
            b'{"type":1,"target":"\xff"}',
            b'{"type":1,"target":"x","arguments":["\xff"]}',
            b'{"type":1,"target":"x","arguments":' + b"[" * 5000,
        ],
    )
    def test_broken_json_is_the_declared_error(self, record: bytes) -> None:
        with pytest.raises(BadRecord):
            JSON.read(record)

    @pytest.mark.parametrize(
        "record",
        [
            b"",
            b"\xc1",
            b"\x80",
            b"\x90",
            b"\x91\xa1x",
            b"\x91\xc3",
            msgspec.msgpack.encode([1]),
            msgspec.msgpack.encode([1, {}, 4, "x", []]),
            msgspec.msgpack.encode([1, {}, "1", 4, []]),
            msgspec.msgpack.encode([1, {}, "1", "x", "y"]),
            msgspec.msgpack.encode([6]) + b"\x00",
            b"\x91" * 5000,
        ],
    )
    def test_broken_messagepack_is_the_declared_error(self, record: bytes) -> None:
        with pytest.raises(BadRecord):
            MESSAGEPACK.read(record)

    @given(st.binary(max_size=60))
    @example(b"\x92\x01\x81\x90\x01")
    @example(b"\x05\x92\x01\x81\x90\x01")
    def test_any_bytes_are_read_or_the_declared_error(self, data: bytes) -> None:
        """In both protocols, as a record and as a stream."""
        for protocol in PROTOCOLS:
            inbound = Inbound(MOST)
            inbound.feed(data)
            for read in (
                lambda p=protocol: p.read(data),
                lambda i=inbound, p=protocol: read_all(i, p),
                Inbound(MOST).handshake,
            ):
                with suppress(BadRecord):
                    read()

    @given(st.lists(st.sampled_from(RECORDS_IN_JSON), max_size=6), st.lists(st.integers(1, 40), max_size=40))
    def test_records_may_be_cut_anywhere_in_json(
        self, chosen: list[tuple[dict[str, Any], Record]], cuts: list[int]
    ) -> None:
        """A record spread over messages, and several in one."""
        self.check_cut(
            JSON, b"".join(json.dumps(each).encode() + b"\x1e" for each, _ in chosen), chosen, cuts
        )

    @given(
        st.lists(st.sampled_from(RECORDS_IN_MESSAGEPACK), max_size=6),
        st.lists(st.integers(1, 40), max_size=40),
    )
    def test_records_may_be_cut_anywhere_in_messagepack(
        self, chosen: list[tuple[list[Any], Record]], cuts: list[int]
    ) -> None:
        self.check_cut(MESSAGEPACK, b"".join(packed(*each) for each, _ in chosen), chosen, cuts)

    @staticmethod
    def check_cut(
        protocol: HubProtocol, data: bytes, chosen: list[tuple[Any, Record]], cuts: list[int]
    ) -> None:
        inbound, read = Inbound(MOST), []
        for cut in cuts:
            inbound.feed(data[:cut])
            data = data[cut:]
            read += read_all(inbound, protocol)
        inbound.feed(data)
        read += read_all(inbound, protocol)
        assert list(map(without_size, read)) == [without_size(record) for _, record in chosen]

    @pytest.mark.parametrize("whole", [False, True])
    def test_a_record_may_be_so_long_and_no_longer(self, whole: bool) -> None:
        """It is refused before it has come whole; what is exactly as long is read."""
        for protocol, fits, too_long in (
            (JSON, b'{"type":6}'.ljust(MOST) + b"\x1e", b'{"type":6}'.ljust(MOST + 1) + b"\x1e"),
            (MESSAGEPACK, packed(2, "x" * (MOST - 4)), packed(2, "x" * (MOST - 3))),
        ):
            inbound = Inbound(MOST)
            inbound.feed(fits)
            assert len(read_all(inbound, protocol)) == 1
            inbound.feed(too_long if whole else too_long[:-1])
            with pytest.raises(BadRecord, match="a record may have 200 bytes"):
                inbound.next(protocol)

    def test_a_length_without_an_end_is_refused(self) -> None:
        """Five bytes are all that it may have."""
        inbound = Inbound(MOST)
        inbound.feed(b"\x80" * 4)
        assert inbound.next(MESSAGEPACK) is None
        inbound.feed(b"\x80")
        with pytest.raises(BadRecord):
            inbound.next(MESSAGEPACK)


class TestWriting:
    """What clients get, to the letter."""

    @pytest.mark.parametrize("text", TEXTS, ids=len)
    def test_a_text_arrives_unchanged(self, text: bytes) -> None:
        """As the one argument of an invocation without an id; the record ends with 0x1e, or has its length in front."""
        written = JSON.message(text)
        assert written.endswith(b"\x1e")
        assert written.count(b"\x1e") == 1
        assert json.loads(written[:-1]) == {
            "type": 1,
            "target": "ReceiveMessage",
            "arguments": [text.decode()],
        }
        [record] = unpacked(MESSAGEPACK.message(text))
        assert record == [1, {}, None, "ReceiveMessage", [text.decode()], []]

    @by_protocol
    def test_several_texts_are_whole_records_in_one_message(self, protocol: HubProtocol) -> None:
        """In their order; nothing of nothing."""
        assert list(protocol.joined(TEXTS[:3])) == [b"".join(map(protocol.message, TEXTS[:3]))]
        assert list(protocol.joined([])) == []

    def test_the_other_records_in_json(self) -> None:
        told = [
            (JSON.ping, {"type": 6}),
            (JSON.completion("0"), {"type": 3, "invocationId": "0", "result": None}),
            (JSON.completion('"', "no"), {"type": 3, "invocationId": '"', "error": "no"}),
            (JSON.close(None, True), {"type": 7, "allowReconnect": True}),
            (JSON.close("why", False), {"type": 7, "error": "why"}),
        ]
        for written, record in told:
            assert written.endswith(b"\x1e")
            assert json.loads(written[:-1]) == record

    def test_the_other_records_in_messagepack(self) -> None:
        told = [
            (MESSAGEPACK.ping, [6]),
            (MESSAGEPACK.completion("0"), [3, {}, "0", 3, None]),
            (MESSAGEPACK.completion("0", "no"), [3, {}, "0", 1, "no"]),
            (MESSAGEPACK.close(None, True), [7, None, True]),
            (MESSAGEPACK.close("why" * 100, False), [7, "why" * 100, False]),
        ]
        for written, record in told:
            assert unpacked(written) == [record]

    @pytest.mark.parametrize("pieces", [[b'{"a":', b'"\\"', b'"}'], [b"{}"], [b"x" * PIECE_BYTES, b"y"]])
    @by_protocol
    async def test_answers_are_messages_of_their_own(
        self, protocol: HubProtocol, pieces: list[bytes]
    ) -> None:
        """A long one in pieces, several behind each other: together they are the same records."""
        sent: list[bytes] = []

        async def begin(text: bytes) -> None:
            sent.append(text)

        answers = protocol.answers(begin)
        for _ in range(2):
            for piece in pieces[:-1]:
                await answers.write(piece)
            await answers.end(pieces[-1])
        assert b"".join(sent) + answers.rest() == protocol.message(b"".join(pieces)) * 2
        assert answers.size == 2 * len(b"".join(pieces))
        assert answers.rest() == b""
