"""Promises of faces.stomp.sockjs: the framing of a protocol that WebSocket and HTTP carry alike."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.faces.stomp.sockjs import BrokenFraming, closed, escaped, messages


@pytest.mark.parametrize(
    ("sent", "found"),
    [('["a"]', ["a"]), ('["a","b"]', ["a", "b"]), ('"a"', ["a"]), ("[]", []), (b' ["\\n"] ', ["\n"])],
)
def test_messages_come_alone_or_in_an_array(sent: str | bytes, found: list[str]) -> None:
    """Both are in use."""
    assert messages(sent) == found


@pytest.mark.parametrize(
    "sent",
    ["", "[", "[1]", "1", "null", '{"a":"b"}', '["a"', '["a"] x', '["\\ud800"]', b'["\xff"]', "[" * 50_000],
)
def test_anything_else_is_broken_framing(sent: str | bytes) -> None:
    """One error for all of it, however deep or badly encoded."""
    with pytest.raises(BrokenFraming):
        messages(sent)


@given(st.one_of(st.text(), st.binary()))
def test_a_message_is_accepted_or_broken(sent: str | bytes) -> None:
    """Never another error."""
    with suppress(BrokenFraming):
        assert all(isinstance(each, str) for each in messages(sent))


@given(st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(exclude_categories=["Cs"])))
def test_parts_of_a_message_may_be_escaped_apart(head: str, body: str) -> None:
    """Heads are each client's own and bodies are shared: together they are one JSON string."""
    sent = b'a["' + escaped(head.encode()) + escaped(body.encode()) + b'"]'
    assert json.loads(sent[1:]) == [head + body]


def test_the_last_frame() -> None:
    """A code and a reason."""
    assert closed() == b'c[3000,"Go away!"]'
    assert closed(2010, 'a "b"') == b'c[2010,"a \\"b\\""]'
