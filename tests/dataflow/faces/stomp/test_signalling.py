"""Promises of faces.stomp.signalling: five keys, unchanged texts, one order for all in a room, and nothing kept."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st

from dataflow.faces.stomp.signalling import MAX_MEMBERS, Rooms, Signal, read
from dataflow.gateway.problems import InvalidValue, TooManySubscriptions


@define(eq=False)
class Peer:
    """Somebody in rooms."""

    heard: list[bytes] = field(factory=list)

    def signalled(self, room: str, signal: Signal) -> int:
        self.heard.append(signal.written(written))
        return 1


def written(number: int, text: bytes) -> bytes:
    return b"%d %b" % (number, text)


def test_a_signal_has_five_keys_in_their_order() -> None:
    """Absent ones are null, unknown ones are dropped, whatever the order in which they came."""
    sent = b'{"x": [1], "sdp": "v=0\\r\\n", "senderId": "peer-1", "type": "OFFER", "targetId": "peer-2"}'
    assert read(sent) == (
        b'{"type":"OFFER","senderId":"peer-1","targetId":"peer-2","sdp":"v=0\\r\\n","candidate":null}'
    )


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"OFFER",
        b"[]",
        b"null",
        b'"OFFER"',
        b"{}",
        b'{"senderId":"peer-1"}',
        b'{"type":null}',
        b'{"type":1}',
        b'{"type":"ICE","candidate":{"sdpMid":"0"}}',
        b'{"type":"ICE","senderId":7}',
        b'{"type":"ICE"',
        b'{"type":"\xff"}',
        b'{"type":"\\ud800"}',
        b'{"type":"ICE","x":' + b"[" * 50_000,
    ],
)
def test_what_is_no_signal_is_refused(sent: bytes) -> None:
    """No object, no type, a value that is no text: the sender is told what one looks like."""
    with pytest.raises(InvalidValue) as caught:
        read(sent)
    assert caught.value.data["example"]["type"] == "OFFER"


texts = st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"])))


@given(
    st.dictionaries(st.sampled_from(["senderId", "targetId", "sdp", "candidate", "y"]), texts),
    st.text("AÄ😀"),
)
def test_text_arrives_unchanged(values: dict[str, Any], kind: str) -> None:
    """An SDP is a contract: not a byte of it may differ."""
    told = json.loads(read(json.dumps(values | {"type": kind}).encode()))
    assert list(told) == ["type", "senderId", "targetId", "sdp", "candidate"]
    values.pop("y", None)
    assert {key: value for key, value in told.items() if value is not None} == {
        key: value for key, value in (values | {"type": kind}).items() if value is not None
    }


@given(st.binary(max_size=40))
def test_bytes_are_a_signal_or_refused(sent: bytes) -> None:
    """Never another error."""
    with suppress(InvalidValue):
        assert json.loads(read(sent))["type"] is not None


def test_all_in_a_room_hear_the_same_in_one_order() -> None:
    """Others do not, and who comes later hears what comes later."""
    rooms, one, two, late, other = Rooms(), Peer(), Peer(), Peer(), Peer()
    rooms.enter("a", one)
    rooms.enter("a", two)
    rooms.enter("b", other)
    assert rooms.tell("a", b"x") == 2
    rooms.enter("a", late)
    assert rooms.tell("a", b"y") == 3
    assert rooms.tell("c", b"z") == 0
    assert one.heard == two.heard == [b"1 x", b"2 y"]
    assert late.heard == [b"2 y"]
    assert other.heard == []


def test_a_text_is_made_once_for_all_clients_of_a_kind() -> None:
    """However many there are."""
    rooms, made = Rooms(), list[bytes]()

    def write(number: int, text: bytes) -> bytes:
        made.append(text)
        return text

    class Listener(Peer):
        def signalled(self, room: str, signal: Signal) -> int:
            signal.written(write)
            return 1

    for _ in range(5):
        rooms.enter("", Listener())
    rooms.tell("", b"x")
    assert made == [b"x"]


def test_a_room_is_gone_with_its_last_member() -> None:
    """Nothing of it is left. A member leaves as often as it entered."""
    rooms, one, two = Rooms(), Peer(), Peer()
    for peer in (one, one, two):
        rooms.enter("a", peer)
    assert rooms.tell("a", b"x") == 2
    rooms.leave("a", one)
    assert rooms.tell("a", b"x") == 2
    rooms.leave("a", one)
    assert rooms.tell("a", b"x") == 1
    rooms.leave("a", two)
    assert len(rooms) == 0


def test_a_room_has_a_bound() -> None:
    """A signal is given to all members in one go, to each as often as it entered: one more is refused."""
    rooms, first, last = Rooms(), Peer(), Peer()
    for peer in [*[first] * 99, *(Peer() for _ in range(MAX_MEMBERS - 100)), last]:
        rooms.enter("a", peer)
    for more in (first, Peer()):
        with pytest.raises(TooManySubscriptions):
            rooms.enter("a", more)
    rooms.enter("b", Peer())
    rooms.leave("a", first)
    rooms.enter("a", last)
    assert rooms.tell("a", b"x") == MAX_MEMBERS - 98
