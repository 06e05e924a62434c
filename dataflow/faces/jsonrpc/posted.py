"""JSON-RPC 2.0 by `POST /api/v1/rpc`: the calls that follow nothing, for clients without a WebSocket.

Rules of this file: HTTP alone. Whatever is wrong with the calls is an error of JSON-RPC, with 200; whatever
is wrong with the request around them is a problem document.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final, Literal, TypedDict

import trio
from msgspec import Meta
from quart import Response, request

from dataflow.gateway.about import JSON, About, Answer
from dataflow.gateway.application import HttpProblem, asker, chosen
from dataflow.gateway.face import Route
from dataflow.gateway.hall import Hall
from dataflow.gateway.limits import Account

from . import protocol
from .methods import QUESTIONS, Questions, report
from .protocol import CallError, Methods

PATH: Final = "/api/v1/rpc"
SOCKET: Final = "/ws"
TAKEN: Final = (JSON, "application/json-rpc", "application/jsonrequest")


class Asked(Questions):
    """The calls of one request."""

    __slots__ = ("_account", "hall")

    def __init__(self, hall: Hall, account: Account) -> None:
        self.hall = hall
        self._account = account

    @property
    def account(self) -> Account:
        return self._account


class _Methods(Methods):
    """The questions. Nothing can be followed here: there is no connection that updates could be sent to."""

    def find(self, name: str) -> protocol._Method:
        if name.casefold() in ("subscribe", "unsubscribe"):
            words = f"a subscription needs a connection: open a WebSocket at {SOCKET}"
            data = {"method": name, "problem": words, "valid": self.names}
            raise CallError(protocol.METHOD_NOT_FOUND, "Method not found", data)
        return super().find(name)


METHODS: Final = _Methods(**QUESTIONS)


def route(hall: Hall) -> Route:
    """The endpoint."""

    async def post() -> Response:
        return await _answer(hall)

    return Route(PATH, post, ("POST",), about=_ABOUT)


async def _answer(hall: Hall) -> Response:
    if request.mimetype not in TAKEN or request.headers.get("Content-Encoding", "identity") != "identity":
        detail = f"the body must be {JSON}, without a Content-Encoding; curl: -H 'Content-Type: {JSON}'"
        raise HttpProblem(415, "Unsupported Media Type", detail, valid=list(TAKEN))
    chosen((JSON,))
    account = hall.account(asker())
    answer = await protocol.dispatch(
        await request.get_data(),
        METHODS,
        report,
        pause=trio.lowlevel.checkpoint,
        charge=_behind_the_first(account.call),
        owner=(Asked(hall, account),),
    )
    if answer is None:
        return Response(b"", 204)
    return Response(answer, mimetype=JSON)


def _behind_the_first(charge: Callable[[], None]) -> Callable[[], None]:
    """`charge`, but for the first call: the request itself is paid for."""
    paid = [False]

    def call() -> None:
        if paid[0]:
            charge()
        paid[0] = True

    return call


class _Call(TypedDict):
    jsonrpc: Literal["2.0"]
    method: Annotated[str, Meta(examples=["getSymbols"])]


class Call(_Call, total=False):
    """A call; without an `id` it is not answered."""

    params: dict[str, Any] | list[Any]
    id: str | float | None


class _Answered(TypedDict):
    jsonrpc: Literal["2.0"]
    id: str | float | None


class Answered(_Answered, total=False):
    """The answer to a call: `result` or `error`, never both."""

    result: Any
    error: Annotated[dict[str, Any], Meta(description="code, message and data: what would be right")]


_ABOUT: Final = About(
    "Call methods of JSON-RPC 2.0",
    {
        200: Answer("the answer, or an array of them; errors too", Answered | list[Answered]),
        204: Answer("nothing is answered: all calls were notifications"),
    },
    {
        406: f"the client does not take {JSON}",
        415: "the body is of another type, or encoded",
    },
    body=Call | list[Call],
    more=f"The methods are those of the WebSocket that follow nothing: {', '.join(METHODS.names)}.",
)
