"""permessage-deflate: what is agreed on, what the libraries of clients make of our frames, and we of theirs."""

from __future__ import annotations

import random
import tracemalloc
import zlib
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory, PerMessageDeflate
from websockets.frames import Frame
from websockets.frames import Opcode as TheirOpcode
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, Event, Message, Ping, TextMessage
from wsproto.extensions import PerMessageDeflate as WsprotoDeflate

from dataflow.net.websocket.deflate import (
    LEAST,
    MOST,
    Agreement,
    InflatingParser,
    Pieces,
    agree,
    packer,
    totals,
)
from dataflow.net.websocket.frames import Opcode, binary_frames, text_frames
from dataflow.net.websocket.parser import FromPeer, Goodbye, unmasked
from dataflow.net.websocket.parser import Ping as PingOfPeer

LIMIT = 65_536
RECORDED = Path(__file__).parents[2] / "data" / "binance_spot_btcusdt_20240808.jsonl"
OURS = "permessage-deflate; server_max_window_bits=12; client_no_context_takeover"
MASK = b"\x01\x02\x03\x04"


def updates(count: int) -> list[bytes]:
    """Messages of real data, all of about one length."""
    lines = RECORDED.read_bytes().splitlines()
    return [lines[at % len(lines)] for at in range(count)]


def agreed(offers: str) -> Agreement:
    agreement = agree(offers)
    assert agreement is not None
    return agreement


CHAINED = agreed("permessage-deflate")
APART = agreed("permessage-deflate; server_no_context_takeover")


# The agreement.


@pytest.mark.parametrize(
    ("offers", "answer"),
    [
        ("permessage-deflate", OURS),
        ("permessage-deflate; client_max_window_bits", OURS),  # browsers, Node
        ("permessage-deflate; server_max_window_bits=12; client_max_window_bits=12", OURS),  # Python
        ("permessage-deflate;server_max_window_bits=15;client_max_window_bits=8", OURS),
        ('permessage-deflate; server_max_window_bits="15"', OURS),
        ("permessage-deflate; client_no_context_takeover", OURS),
        (
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover",  # Go
            f"{OURS}; server_no_context_takeover",
        ),
        ("x-webkit-deflate-frame, permessage-deflate", OURS),
        (
            "permessage-deflate; server_max_window_bits=9, permessage-deflate; server_no_context_takeover",
            f"{OURS}; server_no_context_takeover",
        ),
        ("permessage-deflate; unknown, permessage-deflate", OURS),
        ('other; x="permessage-deflate, y", permessage-deflate', OURS),
    ],
)
def test_the_first_offer_that_can_be_kept_is_accepted(offers: str, answer: str) -> None:
    """With what it demands, and with what spares both sides memory. wsproto's client finds it proper."""
    assert agreed(offers).answer == answer
    asked_for_less = any(f"server_max_window_bits={bits}" in offers for bits in (9, 12, 15))
    ours = WsprotoDeflate(server_max_window_bits=12 if asked_for_less else 15)
    ours.finalize(answer)
    assert ours.enabled()
    assert ours.server_max_window_bits == 12


@pytest.mark.parametrize(
    "offers",
    [
        None,
        "",
        ",",
        "x-webkit-deflate-frame",
        "permessage-deflatex",
        "permessage-deflate; server_max_window_bits=11",  # our window is wider
        "permessage-deflate; server_max_window_bits",  # must have a value
        "permessage-deflate; server_max_window_bits=16",
        "permessage-deflate; server_max_window_bits=012",
        "permessage-deflate; client_max_window_bits=7",
        "permessage-deflate; client_no_context_takeover=1",
        "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
        "permessage-deflate; unknown",
        "permessage-deflate;",
        'permessage-deflate; server_max_window_bits="12',
        'other; x="permessage-deflate, permessage-deflate, y"',
    ],
)
def test_an_offer_that_cannot_be_kept_is_declined(offers: str | None) -> None:
    """It is as if it were not there: the client gets uncompressed messages."""
    assert agree(offers) is None


@settings(deadline=None)
@given(st.text(alphabet='permsag-dflat_;,="1 \\', max_size=60))
def test_no_offer_raises_or_takes_long(offers: str) -> None:
    """Whatever a client writes, it is an agreement or none."""
    for value in (offers, f"permessage-deflate; {offers}", offers * 200):
        assert agree(value) in (None, CHAINED, APART)


# Frames that are sent.


class Theirs:
    """What the inflaters of client libraries make of our bytes: `websockets`, then wsproto."""

    def __init__(self, agreement: Agreement) -> None:
        keeps = not agreement.chained
        self.extension = PerMessageDeflate(keeps, True, 12, 15)
        deflate = WsprotoDeflate(server_no_context_takeover=keeps, server_max_window_bits=12)
        deflate._enabled = True
        self.client = Connection(ConnectionType.CLIENT, extensions=[deflate])

    def read(self, data: bytes) -> list[str | bytes]:
        """The messages in `data`, the same for both."""
        by_one = self._by_websockets(data)
        self.client.receive_data(data)
        by_other = joined(list(self.client.events()))
        assert by_one == by_other
        return by_one

    def _by_websockets(self, data: bytes) -> list[str | bytes]:
        made: list[str | bytes] = []
        parts: list[bytes] = []
        binary = False
        for first, payload in frames_in(data):
            frame = Frame(TheirOpcode(first & 15), payload, bool(first & 0x80), bool(first & 0x40))
            binary = first & 15 == Opcode.BINARY or (binary and first & 15 == Opcode.CONTINUATION)
            parts.append(bytes(self.extension.decode(frame).data))
            if first & 0x80:
                whole = b"".join(parts)
                parts.clear()
                made.append(whole if binary else whole.decode())
        return made


def joined(events: Sequence[Event]) -> list[str | bytes]:
    made: list[str | bytes] = []
    parts: list[Any] = []
    for event in events:
        assert isinstance(event, Message)
        parts.append(event.data)
        if event.message_finished:
            made.append(parts[0][:0].join(parts))
            parts.clear()
    return made


def frames_in(data: bytes) -> list[tuple[int, bytes]]:
    """The first byte and the payload of each of a server's frames."""
    found, at = [], 0
    while at < len(data):
        first, length = data[at], data[at + 1]
        at += 2
        if length > 125:
            size = 2 if length == 126 else 8
            length = int.from_bytes(data[at : at + size], "big")
            at += size
        found.append((first, data[at : at + length]))
        at += length
    return found


KINDS = [(CHAINED, Opcode.TEXT), (APART, Opcode.TEXT), (CHAINED, Opcode.BINARY), (APART, Opcode.BINARY)]

texts = (
    st.text(max_size=40).map(str.encode)
    | st.integers(100, 3000).map(lambda length: b"price:12345.678," * (length // 16))
    | st.integers(0, 2000).map(lambda seed: updates(seed + 1)[-1])
)


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(KINDS), st.lists(st.lists(texts, min_size=1, max_size=20), min_size=1, max_size=6))
def test_libraries_of_clients_read_the_same_messages(
    kind: tuple[Agreement, Opcode], payloads: list[list[bytes]]
) -> None:
    """Compressed or not, empty or long, in one payload or several: the same messages, in order."""
    agreement, opcode = kind
    pack, client = packer(opcode, agreement), Theirs(agreement)
    for messages in payloads:
        expected = messages if opcode is Opcode.BINARY else [text.decode() for text in messages]
        assert client.read(pack(messages)) == expected


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from([CHAINED, APART]),
    st.lists(st.lists(texts, min_size=4, max_size=12), min_size=3, max_size=6),
    st.randoms(use_true_random=False),
)
def test_a_payload_needs_no_other(
    agreement: Agreement, payloads: list[list[bytes]], chance: random.Random
) -> None:
    """Clients may get different payloads, in any order, some of them twice: each is understood by itself.

    So one payload serves all clients, and a slow client may miss some.
    """
    pack = packer(Opcode.TEXT, agreement)
    made = [(pack(messages), [text.decode() for text in messages]) for messages in payloads]
    client = Theirs(agreement)
    for payload, messages in chance.choices(made, k=8):
        assert client.read(payload) == messages


def test_short_payloads_leave_uncompressed_and_so_do_those_that_do_not_shrink() -> None:
    """To the byte what a client without the agreement gets: no reserved bit is set."""
    noise = random.Random(1).randbytes(2 * LEAST)
    for agreement in (CHAINED, APART):
        pack = packer(Opcode.TEXT, agreement)
        assert pack([b"x" * (LEAST - 1)]) == text_frames([b"x" * (LEAST - 1)])
        assert pack([b"x" * LEAST]) != text_frames([b"x" * LEAST])
        assert pack([b"x" * (MOST + 1)]) == text_frames([b"x" * (MOST + 1)])
        assert packer(Opcode.BINARY, agreement)([noise]) == binary_frames([noise])
        assert pack.plain([b"x" * LEAST]) == text_frames([b"x" * LEAST])


def test_only_long_messages_are_compressed_for_clients_that_keep_nothing() -> None:
    """Each of their messages is compressed by itself: a short one would not shrink."""
    long = updates(20)
    data = packer(Opcode.TEXT, APART)([long[0], b"".join(long), long[1]])
    assert [first & 0x40 for first, _ in frames_in(data)] == [0, 0x40, 0]


def test_many_short_messages_shrink_like_a_long_one() -> None:
    """Real updates: 64 messages take less than an eighth of their bytes, 16 less than a sixth."""
    pack = packer(Opcode.TEXT, CHAINED)
    for count, share in ((16, 6), (64, 8)):
        messages = updates(count)
        assert len(pack(messages)) * share < len(text_frames(messages))
    assert len(packer(Opcode.TEXT, APART)(updates(64))) == len(text_frames(updates(64)))


def test_what_was_compressed_is_counted() -> None:
    """Once a payload, however many clients get it: what was not compressed does not count."""
    before, after = totals()
    data = packer(Opcode.TEXT, CHAINED)(updates(64))
    packer(Opcode.TEXT, CHAINED)([b"short"])
    assert totals() == (before + sum(map(len, updates(64))), after + len(data))


@settings(deadline=None, max_examples=60)
@example([b"begun", b""])
@given(st.lists(st.binary(max_size=3000).map(lambda data: data.hex().encode()), min_size=2, max_size=6))
def test_a_long_message_in_pieces_is_one_message(pieces: list[bytes]) -> None:
    """However long its pieces are, and if the last one is empty; and what follows is understood."""
    for agreement in (CHAINED, APART):
        client = Theirs(agreement)
        maker = Pieces(Opcode.TEXT)
        data = b"".join(maker.frame(text, number == len(pieces)) for number, text in enumerate(pieces, 1))
        assert client.read(data) == [b"".join(pieces).decode()]
        behind = updates(16)
        assert client.read(packer(Opcode.TEXT, agreement)(behind)) == [text.decode() for text in behind]


# Messages that are received.


def masked(first: int, payload: bytes) -> bytes:
    """A client's frame."""
    head = bytes((first,))
    if len(payload) < 126:
        head += bytes((0x80 | len(payload),))
    elif len(payload) < 65536:
        head += b"\xfe" + len(payload).to_bytes(2, "big")
    else:
        head += b"\xff" + len(payload).to_bytes(8, "big")
    return head + MASK + unmasked(payload, MASK)


def deflated(data: bytes, level: int = 6, bits: int = 15) -> bytes:
    deflater = zlib.compressobj(level, zlib.DEFLATED, -bits)
    return (deflater.compress(data) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]


def read(data: bytes, places: Sequence[int] = (), limit: int = LIMIT, binary: bool = True) -> list[FromPeer]:
    reader = InflatingParser(masked=True, max_message_bytes=limit, binary=binary)
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    seen: list[FromPeer] = []
    for a, b in pairwise(edges):
        seen += reader.feed(data[a:b], 0)
        if seen and isinstance(seen[-1], Goodbye):
            break
    return seen


def fault_of(data: bytes, **options: Any) -> tuple[int, str]:
    *_, goodbye = read(data, **options)
    assert isinstance(goodbye, Goodbye)
    assert goodbye.fault
    return goodbye.code, goodbye.reason


def by_websockets() -> Callable[[Event], bytes]:
    """A client of `websockets`, made by what we answer to its own offer."""
    factory = ClientPerMessageDeflateFactory(server_max_window_bits=12, client_max_window_bits=True)
    offers = factory.get_request_params()
    offer = "; ".join(["permessage-deflate", *(n if v is None else f"{n}={v}" for n, v in offers)])
    answered = [part.strip().partition("=") for part in agreed(offer).answer.split(";")[1:]]
    extension = factory.process_response_params([(n, v or None) for n, _, v in answered], [])

    def send(event: Event) -> bytes:
        opcode = {TextMessage: TheirOpcode.TEXT, BytesMessage: TheirOpcode.BINARY, Ping: TheirOpcode.PING}
        data = event.payload if isinstance(event, Ping) else event.data  # type: ignore[attr-defined]
        data = data.encode() if isinstance(data, str) else data
        frame = extension.encode(Frame(opcode[type(event)], data))
        return masked(0x80 | (0x40 if frame.rsv1 else 0) | frame.opcode, bytes(frame.data))

    return send


def by_wsproto() -> Callable[[Event], bytes]:
    deflate = WsprotoDeflate(client_no_context_takeover=True)
    deflate._enabled = True
    return Connection(ConnectionType.CLIENT, extensions=[deflate]).send


@settings(deadline=None, max_examples=80)
@given(
    st.sampled_from([by_websockets, by_wsproto]),
    st.lists(
        st.text(max_size=60).map(TextMessage)
        | st.text(max_size=9).map(lambda text: TextMessage(text * 500))
        | st.binary(max_size=300).map(BytesMessage)
        | st.binary(max_size=20).map(Ping),
        max_size=8,
    ),
    st.lists(st.integers(min_value=0), max_size=10),
)
def test_clients_are_understood_however_their_bytes_are_cut(
    client: Callable[[], Callable[[Event], bytes]], events: list[Event], places: list[int]
) -> None:
    """What `websockets` and wsproto compress comes out whole and in order, with their pings in between."""
    send = client()
    data = b"".join(map(send, events))
    meaning = [
        PingOfPeer(bytes(each.payload)) if isinstance(each, Ping) else each.data  # type: ignore[attr-defined]
        for each in events
    ]
    assert read(data, places) == meaning


@settings(deadline=None, max_examples=80)
@given(
    st.text(max_size=400), st.lists(st.integers(min_value=0), max_size=6), st.lists(st.integers(min_value=0))
)
def test_fragments_end_anywhere_and_control_frames_come_between(
    text: str, edges: list[int], places: list[int]
) -> None:
    """A message may be cut inside a character and inside a block; a ping between two fragments is a ping."""
    data = deflated(text.encode())
    cuts = [0, *sorted(edge % (len(data) + 1) for edge in edges), len(data)]
    sent = b""
    for number, (a, b) in enumerate(pairwise(cuts), 1):
        final = 0x80 if number == len(cuts) - 1 else 0
        sent += masked(final | (0x41 if number == 1 else 0), data[a:b]) + masked(0x89, b"%d" % number)
    seen = read(sent, places)
    assert [each for each in seen if isinstance(each, str)] == [text]
    assert sum(isinstance(each, PingOfPeer) for each in seen) == len(cuts) - 1
    assert isinstance(seen[-1], PingOfPeer)
    assert seen[-2] == text


def test_uncompressed_messages_are_welcome_beside_compressed_ones() -> None:
    """A client compresses what it likes."""
    sent = masked(0x81, b"plain") + masked(0xC1, deflated(b"packed")) + masked(0x82, b"\x00")
    assert read(sent) == ["plain", "packed", b"\x00"]


@pytest.mark.parametrize("level", range(10))
@pytest.mark.parametrize("bits", [9, 12, 15])
def test_every_way_to_compress_is_understood(level: int, bits: int) -> None:
    """Stored blocks, fixed and dynamic trees, any window."""
    text = b"".join(updates(100))
    assert read(masked(0xC1, deflated(text, level, bits))) == [text.decode()]


def test_a_last_block_may_be_marked() -> None:
    """RFC 7692, section 7.2.3.4: by a client that cannot flush otherwise. Nothing may stand behind it."""
    deflater = zlib.compressobj(6, zlib.DEFLATED, -15)
    marked = deflater.compress(b"Hello") + deflater.flush()
    assert read(masked(0xC1, marked + b"\x00")) == ["Hello"]
    assert read(masked(0xC1, marked)) == ["Hello"]
    assert fault_of(masked(0xC1, marked + deflated(b"more")))[0] == 1007


@pytest.mark.parametrize("first", [0xC0, 0x40, 0xC8, 0xC9, 0xCA, 0xA1, 0x91, 0xE1])
def test_a_reserved_bit_out_of_its_place_is_a_protocol_error(first: int) -> None:
    """On a continuation, on a control frame, and any other reserved bit: 1002."""
    code, words = fault_of(masked(0x01, b"begun") + masked(first, b""))
    assert code == 1002
    assert "a reserved bit is set" in words


def test_what_keeps_a_context_is_refused() -> None:
    """A second message that refers to the first was compressed against the agreement: 1007, and no guess."""
    deflater = zlib.compressobj(6, zlib.DEFLATED, -15)
    one, two = (
        (deflater.compress(data) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]
        for data in (b"a long text that comes twice", b"a long text that comes twice")
    )
    sent = masked(0xC1, one) + masked(0xC1, two)
    assert read(sent)[0] == "a long text that comes twice"
    assert fault_of(sent)[0] == 1007


@settings(deadline=None, max_examples=150)
@given(st.binary(min_size=1, max_size=120), st.data())
def test_corrupt_data_is_never_a_message(text: bytes, data: st.DataObject) -> None:
    """Cut off anywhere it is 1007; with other bytes in it, it is that, or what zlib itself makes of it."""
    packed = deflated(text)
    kept = data.draw(st.integers(0, len(packed) - 1))
    seen = read(masked(0xC2, packed[:kept]))
    assert len(seen) == 1
    if isinstance(seen[0], Goodbye):
        assert (seen[0].code, seen[0].fault) == (1007, True)
    else:  # what was cut off had no meaning
        assert seen == [text]
    garbage = data.draw(st.binary(max_size=80))
    seen = read(masked(0xC2, garbage))
    if isinstance(seen[0], Goodbye):
        assert (seen[0].code, seen[0].fault) == (1007, True)
    else:
        inflater = zlib.decompressobj(-15)
        assert seen == [inflater.decompress(garbage + b"\x00\x00\xff\xff")]


def test_text_is_checked_behind_its_compression() -> None:
    """Bytes that are no UTF-8: 1007, at once and not only at the end of the message."""
    assert fault_of(masked(0x41, deflated(b"\xff" + b"x" * 1000)))[0] == 1007
    assert fault_of(masked(0xC1, deflated("é".encode()[:1])))[0] == 1007


@pytest.mark.parametrize("over", [0, 1])
def test_the_bound_counts_what_comes_out(over: int) -> None:
    """As many bytes as a message may have are welcome; one more is 1009."""
    packed = deflated(b"x" * (LIMIT + over))
    for sent in (masked(0xC1, packed), masked(0x41, packed[:10]) + masked(0x80, packed[10:])):
        seen = read(sent)
        if over:
            assert fault_of(sent) == (1009, f"a message may have {LIMIT} bytes")
        else:
            assert seen == ["x" * LIMIT]


def test_a_bomb_costs_no_more_than_the_bound() -> None:
    """A gigabyte in a megabyte: it ends when the bound is reached, and nothing beyond is ever made."""
    bomb = masked(0xC2, deflated(b"\0" * (1 << 24)) * 64)[:16_384]  # as much as one receive brings
    tracemalloc.start()
    try:
        assert fault_of(bomb)[0] == 1009
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 8 * LIMIT


def test_data_without_content_has_a_bound_too() -> None:
    """Empty blocks make nothing, for ever: more than twice the bound of them is 1009."""
    empty = b"\x00\x00\x00\xff\xff" * (2 * LIMIT // 5)
    assert read(masked(0xC1, empty + b"\x00"))[0] == ""
    assert fault_of(masked(0x41, empty) + masked(0x80, empty))[0] == 1009


def test_nothing_is_kept_between_messages() -> None:
    """An inflater lives as long as its message: an idle client costs none."""
    reader = InflatingParser(masked=True, max_message_bytes=LIMIT, binary=False)
    assert list(reader.feed(masked(0xC1, deflated(b"x" * 1000)), 0)) == ["x" * 1000]
    assert reader._inflater is None


@settings(deadline=None, max_examples=300)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([0xC1, 0x41, 0x80, 0x00, 0x81, 0xC2, 0x42]) | st.integers(0, 255),
            st.text(max_size=20).map(lambda text: deflated(text.encode()))
            | st.binary(max_size=12)
            | st.just(b""),
        ),
        max_size=6,
    ),
    st.lists(st.integers(min_value=0), max_size=4),
)
def test_no_bytes_raise(frames: list[tuple[int, bytes]], places: list[int]) -> None:
    """Any frames, cut anywhere: one goodbye at most, the last thing read. It is a fault where `websockets`
    finds one, and else the messages are the same."""
    sent = b"".join(masked(first, payload) for first, payload in frames)
    seen = read(sent, places)
    assert not any(isinstance(each, Goodbye) for each in seen[:-1])
    ours = [each for each in seen if isinstance(each, str | bytes)]
    theirs = _messages_by_websockets(frames)
    if seen and isinstance(seen[-1], Goodbye) and seen[-1].fault:
        assert seen[-1].code in (1002, 1007)
        assert ours == theirs[: len(ours)]
    else:
        assert ours == theirs


def _messages_by_websockets(frames: list[tuple[int, bytes]]) -> list[str | bytes]:
    """Up to the first fault or close frame."""
    extension = PerMessageDeflate(False, True, 15, 15)
    made: list[str | bytes] = []
    parts: list[bytes] = []
    binary: bool | None = None
    for first, payload in frames:
        try:
            opcode = TheirOpcode(first & 15)
            if first & 0x30 or (first & 0x48 == 0x48) or (opcode >= 8 and not first & 0x80):
                return made
            if opcode is TheirOpcode.CLOSE:
                return made
            if opcode >= 8:
                continue
            if (opcode is TheirOpcode.CONT) is (binary is None):
                return made
            binary = opcode is TheirOpcode.BINARY if binary is None else binary
            frame = Frame(opcode, payload, bool(first & 0x80), bool(first & 0x40))
            frame = extension.decode(frame, max_size=LIMIT)
            if frame.rsv1:
                return made
            parts.append(bytes(frame.data))
            if first & 0x80:
                whole = b"".join(parts)
                made.append(whole if binary else whole.decode())
                parts.clear()
                binary = None
        except (ValueError, ProtocolError, PayloadTooBig, UnicodeDecodeError):
            return made
    return made
