"""The subprotocol `graphql-transport-ws`: its messages, and the order in which they may come.

Rules of this file: pure, and no GraphQL: a request is a value here, its answer bytes. A client that breaks a
rule raises `Violation` with the close code of the protocol, and nothing else is raised.

    client                      server
    connection_init        ->
                           <-   connection_ack
    subscribe {id}         ->
                           <-   next {id} ... complete {id} | error {id}
    complete {id}          ->
    ping, pong             <->  ping, pong
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import msgspec
from attrs import define, field, frozen

from .request import BadRequest, Request, decode, read

SUBPROTOCOL: Final = "graphql-transport-ws"
INIT_WITHIN: Final = 3.0  # seconds for `connection_init`
ACKNOWLEDGED: Final = b'{"type":"connection_ack"}'

MALFORMED: Final = 4400  # close codes
UNAUTHORIZED: Final = 4401
WRONG_SUBPROTOCOL: Final = 4406
INIT_TIMEOUT: Final = 4408
ID_IN_USE: Final = 4409
SECOND_INIT: Final = 4429

MAX_ID: Final = 256  # characters: every result carries it; libraries send 36
_MAX_WORDS: Final = 120  # characters of a close reason: 123 bytes fit, and these words are ASCII


class Violation(Exception):
    """A client broke a rule: the connection is to be closed with this code and these words."""

    def __init__(self, code: int, words: str) -> None:
        words = words.encode("ascii", "replace").decode()[:_MAX_WORDS]
        super().__init__(words)
        self.code = code
        self.words = words


@frozen
class Init:
    """The client begins."""


@frozen
class Ping:
    """A sign of life is asked for. `payload` comes back with it."""

    payload: dict[str, Any] | None


@frozen
class Pong:
    """A sign of life."""


@frozen
class Subscribe:
    """An operation is to be run, under this id."""

    id: str
    request: Request


@frozen
class Complete:
    """The client wants no more of an operation."""

    id: str


Said: TypeAlias = Init | Ping | Pong | Subscribe | Complete


@define
class Order:
    """What one client may say next. `running`: the ids of its operations."""

    acknowledged: bool = False
    running: set[str] = field(factory=set)

    def hear(self, text: str) -> Said:
        """One message of the client. An operation in it runs from now on, until `ended`. Raises Violation."""
        said = parse(text)
        match said:
            case Init():
                if self.acknowledged:
                    raise Violation(SECOND_INIT, "Too many initialisation requests")
                self.acknowledged = True
            case Subscribe(id):
                if not self.acknowledged:
                    raise Violation(UNAUTHORIZED, "Unauthorized")
                if id in self.running:
                    raise Violation(ID_IN_USE, f"Subscriber for {id} already exists")
                self.running.add(id)
            case Complete(id):
                self.running.discard(id)
        return said

    def ended(self, id: str) -> None:
        """The server has ended an operation. Idempotent."""
        self.running.discard(id)


def parse(text: str) -> Said:
    """A message of a client. Raises Violation."""
    try:
        return _parse(decode(text))
    except BadRequest as error:
        raise Violation(MALFORMED, f"Invalid message: {error}") from None


def _parse(message: Any) -> Said:
    if not isinstance(message, dict):
        raise BadRequest("a message is a JSON object")
    kind, payload = message.get("type"), message.get("payload")
    match kind:
        case "connection_init" | "ping" | "pong":
            if not isinstance(payload, dict | None):
                raise BadRequest("'payload' must be an object")
            return Ping(payload) if kind == "ping" else Pong() if kind == "pong" else Init()
        case "subscribe":
            return Subscribe(_id(message), read(payload))
        case "complete":
            return Complete(_id(message))
        case str():
            raise BadRequest("no 'type' that a client may send")
    raise BadRequest("'type' is missing")


def _id(message: dict[str, Any]) -> str:
    id = message.get("id")
    if not isinstance(id, str) or not 0 < len(id) <= MAX_ID:
        raise BadRequest(f"'id' must be text of 1 to {MAX_ID} characters")
    return id


def pong(ping: Ping) -> bytes:
    """The answer to a ping."""
    payload = {} if ping.payload is None else {"payload": ping.payload}
    return msgspec.json.encode({"type": "pong", **payload})


def next_head(id: str) -> bytes:
    """What stands before a result; `TAIL` stands behind it."""
    return b'{"id":%b,"type":"next","payload":' % msgspec.json.encode(id)


TAIL: Final = b"}"


def next_(id: str, result: bytes) -> bytes:
    """One result of an operation, a JSON object."""
    return next_head(id) + result + TAIL


def error(id: str, errors: bytes) -> bytes:
    """An operation that does not run: `errors` is a JSON list. Nothing of it follows."""
    return b'{"id":%b,"type":"error","payload":%b}' % (msgspec.json.encode(id), errors)


def complete(id: str) -> bytes:
    """The end of an operation."""
    return b'{"id":%b,"type":"complete"}' % msgspec.json.encode(id)
