"""The endpoints of the hub, described for people and tools. See `gateway.about`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Literal

import msgspec

from dataflow.gateway.about import About, Answer, Parameter, Sample, Trial

NEGOTIATED_BEFORE: Final = Parameter("id", str, "the id from the answer to the negotiation", required=True)
_NO_ID: Final = {400: "no id", 404: "an unknown id: negotiate again"}
_FULL: Final = {429: "this client has as many as it may have", 503: "no room for another client"}


class Transport(msgspec.Struct, rename="camel"):
    """A way to connect, and the kinds of records that it carries: Text (`json`), Binary (`messagepack`)."""

    transport: Literal["WebSockets", "ServerSentEvents", "LongPolling"]
    transfer_formats: Sequence[Literal["Text", "Binary"]]


class Negotiated(msgspec.Struct, rename="camel", omit_defaults=True):
    """The client connects with `?id=connectionToken`; in version 0, which has none, with the connectionId."""

    negotiate_version: int
    connection_id: str
    available_transports: Sequence[Transport]
    connection_token: str | msgspec.UnsetType = msgspec.UNSET


NEGOTIATE: Final = About(
    "Negotiate a connection of SignalR",
    {200: Answer("the id to connect with, within 15 s, and the transports", Negotiated)},
    {400: "a version that is no whole number"} | _FULL,
    parameters=(
        Parameter("negotiateVersion", int, "of the negotiation; more than 1 counts as 1", default=0),
    ),
)
LISTEN: Final = About(
    "Records of SignalR: a stream, or long polling",
    {
        200: Answer("records; of a poll none, if it is the first one or nothing comes", str, "*/*"),
        204: Answer("of a poll: the connection has ended, or a newer poll has taken its place"),
    },
    _NO_ID | {409: "the id is in use"} | _FULL,
    parameters=(NEGOTIATED_BEFORE,),
    more="With `Accept: text/event-stream` a stream without end, else a poll of up to 90 s. A WebSocket"
    " opens at the same path.",
)
HEAR: Final = About(
    "Send records of SignalR",
    {200: Answer("they will be heard in their order", str, "text/plain")},
    _NO_ID | _FULL | {429: "faster than they are heard: send them again"},
    parameters=(NEGOTIATED_BEFORE,),
    body=str,
    body_media="text/plain",
    more="For clients with Server-Sent Events or long polling.",
)
LEAVE: Final = About(
    "End a connection with long polling",
    {202: Answer("it ends", str, "text/plain")},
    _NO_ID,
    parameters=(NEGOTIATED_BEFORE,),
)

_CALL: Final = (
    '{"jsonrpc":"2.0","id":"1","method":"subscribe","params":{"channel":"trades","symbol":"{symbol}"}}'
)
_JAVASCRIPT: Final = f"""\
import {{ HubConnectionBuilder }} from "@microsoft/signalr";

const hub = new HubConnectionBuilder().withUrl("URL").withAutomaticReconnect().build();
hub.on("ReceiveMessage", (text) => console.log(text));
await hub.start();
await hub.invoke("SendMessage", '{_CALL}');
"""
_PYTHON: Final = f"""\
import time
from signalrcore.hub_connection_builder import HubConnectionBuilder

reconnect = {{"type": "raw", "keep_alive_interval": 10, "reconnect_interval": 5}}
hub = HubConnectionBuilder().with_url("URL").with_automatic_reconnect(reconnect).build()
hub.on("ReceiveMessage", lambda arguments: print(arguments[0], flush=True))
hub.on_open(lambda: hub.send("SendMessage", ['{_CALL}']))
hub.start()
while True:
    time.sleep(1)
"""


def samples(path: str) -> Iterable[Sample]:
    """For the hub at `path`."""
    url, ws = f"{{http}}{path}", f"{{ws}}{path}"
    handshake = '{"protocol":"json","version":1}\x1e'
    escaped = _CALL.replace('"', '\\"')
    say = [handshake, f'{{"type":1,"target":"SendMessage","arguments":["{escaped}"]}}\x1e']
    yield Sample(
        "SignalR",
        url,
        "A hub: JSON-RPC in the records of SignalR, with reconnection by its own clients.",
        lines={"JavaScript": _JAVASCRIPT.replace("URL", url), "Python": _PYTHON.replace("URL", url)},
        trial=Trial("socket", ws, say=say, beat='{"type":6}\x1e', every=15.0),
    )
