"""What a protocol's conversation hands on to its client's session."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from dataflow.faces.jsonrpc.format import JSONRPC
from dataflow.gateway.face import Conversation


class _Silent(Conversation):
    format = JSONRPC

    async def answer(self, message: Any) -> None:
        raise AssertionError

    def refusal(self, problem: Any) -> None:
        raise AssertionError


def test_only_payloads_that_are_shared_are_packed_as_shared() -> None:
    """What a kind of wire does once for all clients, compression for example, must not happen once a client."""
    session = SimpleNamespace(frame=b"".join, plain=b"-".join)
    conversation = _Silent.__new__(_Silent)
    conversation.session = session  # type: ignore[assignment]
    assert conversation.rendering().frame is session.frame
    assert conversation.personal((b"<", b">")).pack([b"a", b"b"]) == b"<a>-<b>"
