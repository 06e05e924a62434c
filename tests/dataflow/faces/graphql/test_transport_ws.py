"""The subprotocol: which message may come when, and what each is answered with."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.faces.graphql import transport_ws
from dataflow.faces.graphql.request import Request
from dataflow.faces.graphql.transport_ws import (
    Complete,
    Init,
    Order,
    Ping,
    Pong,
    Subscribe,
    Violation,
    parse,
)

SUBSCRIBE = {"id": "a", "type": "subscribe", "payload": {"query": "{__typename}"}}


def acknowledged() -> Order:
    order = Order()
    order.hear('{"type":"connection_init"}')
    return order


def code_of(order: Order, *messages: Any) -> tuple[int, str]:
    """The close code and words for the last of these messages."""
    for message in messages[:-1]:
        order.hear(json.dumps(message))
    with pytest.raises(Violation) as caught:
        order.hear(json.dumps(messages[-1]))
    return caught.value.code, caught.value.words


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"type": "connection_init"}, Init()),
        ({"type": "connection_init", "payload": {"token": "x"}}, Init()),
        ({"type": "connection_init", "payload": None}, Init()),
        ({"type": "ping"}, Ping(None)),
        ({"type": "ping", "payload": {"n": 1}}, Ping({"n": 1})),
        ({"type": "pong", "payload": {}}, Pong()),
        (SUBSCRIBE, Subscribe("a", Request("{__typename}", {}, None))),
        (
            {
                "id": "ü",
                "type": "subscribe",
                "payload": {
                    "query": "query Q($x: Int) {__typename}",
                    "operationName": "Q",
                    "variables": {"x": 1},
                    "extensions": {},
                },
                "more": 1,
            },
            Subscribe("ü", Request("query Q($x: Int) {__typename}", {"x": 1}, "Q")),
        ),
        ({"id": "a", "type": "complete"}, Complete("a")),
    ],
)
def test_messages_of_a_client(message: Any, said: Any) -> None:
    """Each kind, with all that it may carry. Members without a meaning do not matter."""
    assert parse(json.dumps(message)) == said


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '"ping"',
        "{}",
        '{"type":7}',
        '{"type":"start"}',
        '{"type":"next","id":"a","payload":{}}',
        '{"type":"connection_ack"}',
        '{"type":"connection_init","payload":"x"}',
        '{"type":"ping","payload":[]}',
        '{"type":"subscribe","payload":{"query":"{a}"}}',
        '{"type":"subscribe","id":"","payload":{"query":"{a}"}}',
        '{"type":"subscribe","id":1,"payload":{"query":"{a}"}}',
        '{"type":"subscribe","id":"%s","payload":{"query":"{a}"}}' % ("x" * 257),
        '{"type":"subscribe","id":"a"}',
        '{"type":"subscribe","id":"a","payload":{}}',
        '{"type":"subscribe","id":"a","payload":{"query":1}}',
        '{"type":"subscribe","id":"a","payload":{"query":"{a}","variables":[]}}',
        '{"type":"subscribe","id":"a","payload":{"query":"{a}","operationName":1}}',
        '{"type":"subscribe","id":"a","payload":{"query":"{a}","extensions":1}}',
        '{"type":"complete"}',
        "[" * 100_000,
        '{"type":"ping","payload":{"a":1e999}}',
    ],
)
def test_what_is_no_message_is_4400(text: str) -> None:
    """Whatever is wrong with it."""
    with pytest.raises(Violation) as caught:
        acknowledged().hear(text)
    assert caught.value.code == 4400
    assert caught.value.words.startswith("Invalid message")


def test_the_order_of_messages() -> None:
    """Each rule with its own close code, and the words of the protocol."""
    init = {"type": "connection_init"}
    assert code_of(Order(), SUBSCRIBE) == (4401, "Unauthorized")
    assert code_of(Order(), init, init) == (4429, "Too many initialisation requests")
    assert code_of(Order(), init, SUBSCRIBE, SUBSCRIBE) == (4409, "Subscriber for a already exists")
    assert code_of(Order(), init, SUBSCRIBE | {"id": "ü" * 200}, SUBSCRIBE | {"id": "ü" * 200})[0] == 4409


def test_signs_of_life_and_farewells_may_come_at_any_time() -> None:
    """Before the acknowledgement, and for operations that are not there, too."""
    order = Order()
    assert order.hear('{"type":"ping"}') == Ping(None)
    assert order.hear('{"type":"pong"}') == Pong()
    assert order.hear('{"type":"complete","id":"unknown"}') == Complete("unknown")
    assert not order.acknowledged


def test_an_id_is_free_again_when_its_operation_has_ended() -> None:
    """Whichever side has ended it."""
    order = acknowledged()
    for end in (lambda: order.ended("a"), lambda: order.hear('{"type":"complete","id":"a"}')):
        order.hear(json.dumps(SUBSCRIBE))
        assert order.running == {"a"}
        end()
        assert order.running == set()


def test_messages_of_the_server() -> None:
    """Byte by byte; an id may hold any character."""
    assert transport_ws.ACKNOWLEDGED == b'{"type":"connection_ack"}'
    assert transport_ws.pong(Ping(None)) == b'{"type":"pong"}'
    assert transport_ws.pong(Ping({"n": 1})) == b'{"type":"pong","payload":{"n":1}}'
    assert transport_ws.next_('"', b"{}") == rb'{"id":"\"","type":"next","payload":{}}'
    assert transport_ws.error("a", b"[]") == b'{"id":"a","type":"error","payload":[]}'
    assert transport_ws.complete("a") == b'{"id":"a","type":"complete"}'


def test_close_words_fit_into_a_close_frame() -> None:
    """123 bytes are the most, and text of a client may be in them."""
    assert len(Violation(4400, "ü" * 1000).words.encode()) <= 123


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
KINDS = st.sampled_from(
    ["connection_init", "connection_ack", "ping", "pong", "subscribe", "next", "error", "complete", "x"]
)
MESSAGES = st.fixed_dictionaries(
    {},
    optional={
        "type": KINDS | JSON,
        "id": st.text(max_size=3) | JSON,
        "payload": JSON
        | st.fixed_dictionaries(
            {}, optional={"query": st.just("{a}") | JSON, "variables": JSON, "operationName": JSON}
        ),
    },
).map(json.dumps)


@given(st.lists(MESSAGES | JSON.map(json.dumps) | st.text(), max_size=8))
def test_any_text_is_a_message_or_a_violation(texts: list[str]) -> None:
    """And nothing else: no text can do more than close its own connection."""
    order = Order()
    with suppress(Violation):
        for text in texts:
            order.hear(text)
