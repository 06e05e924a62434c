"""What the face serves, told to people and tools."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, TypedDict

from dataflow.gateway.about import About, Answer, Parameter, Sample, Trial

SCRIPT: Final = "application/javascript"
_PLACES: Final = (
    Parameter("server", str, "any word without a dot; it means nothing", place="path", example="000"),
    Parameter(
        "client", str, "a word without a dot by which the client is known", place="path", example="k3j8xq"
    ),
)
_NO_ROOM: Final = {
    404: "a word in the path has a dot",
    429: "this client has as many sessions as it may have",
    503: "no room for another client",
}
_FRAMES: Final = (
    "SockJS frames, a line each: `o` at the beginning, `a` and an array of messages, `h` now and then, and"
    " `c` at the end. A client without an open response for 5 s is gone."
)


class Info(TypedDict):
    """What a SockJS client wants to know before it chooses a transport."""

    entropy: int
    origins: list[str]
    cookie_needed: bool
    websocket: bool


GREETING: Final = About(
    "SockJS greets",
    {200: Answer("a line of text", str, "text/plain")},
    {400: "a WebSocket without what HTTP/2 needs for it", 426: "a handshake that lacks what it needs"},
)
INFO: Final = About("What a SockJS client may choose from", {200: Answer("the answer", Info)})
TRANSPORTS: Final = {
    "xhr": About(
        "Receive one batch of SockJS frames",
        {200: Answer("what waits, or comes within a minute", str, SCRIPT)},
        _NO_ROOM,
        parameters=_PLACES,
        more=_FRAMES,
    ),
    "xhr_streaming": About(
        "Receive SockJS frames as they come",
        {200: Answer("a line of 2,048 letters, and then frames; it ends after 128 KiB", str, SCRIPT)},
        _NO_ROOM,
        parameters=_PLACES,
        more=_FRAMES,
    ),
    "xhr_send": About(
        "Send messages of a SockJS client",
        {204: Answer("they are taken")},
        {
            400: "no JSON array of strings",
            404: "there is no such client",
            429: "messages come faster than they are answered",
        },
        parameters=_PLACES,
        body=list[str],
    ),
}

_ROOM: Final = "/app/signal/demo"
_JOIN: Final = '{"type":"JOIN","senderId":"peer-1"}'
_CONNECT: Final = "CONNECT\naccept-version:1.2\n\n\0"
_STOMPJS: Final = """\
import { Client } from "@stomp/stompjs";

const client = new Client({ brokerURL: "{ws}PATH/websocket" });
client.onConnect = () => {
  client.subscribe("DESTINATION", message => console.log(message.body));
  SEND
};
client.activate();
"""
_SOCKJS: Final = _STOMPJS.replace(
    'brokerURL: "{ws}PATH/websocket"', 'webSocketFactory: () => new SockJS("{http}PATH")'
).replace('"@stomp/stompjs";', '"@stomp/stompjs";\nimport SockJS from "sockjs-client";')
_PYTHON: Final = """\
# pip install stomp.py
import time
from urllib.parse import urlsplit

import stomp

class Listener(stomp.ConnectionListener):
    def on_message(self, frame):
        print(frame.body, flush=True)

server = urlsplit("{ws}PATH/websocket")
connection = stomp.WSConnection([(server.hostname, server.port)], ws_path=server.path)
connection.set_listener("", Listener())
connection.connect(wait=True)
connection.subscribe("DESTINATION", id="0")
SEND
time.sleep(60)
"""


def samples(path: str, signalling: bool) -> Iterable[Sample]:
    """Market data, the same over SockJS, and signalling."""
    data = "/topic/market-data/{compact}"
    yield _sample(
        "STOMP",
        path,
        data,
        "The running bar of the day: the state first, then a message with each trade.",
        _STOMPJS,
        _subscribe(data),
    )
    yield _sample("STOMP over SockJS", path, data, "For browsers behind proxies without WebSockets.", _SOCKJS)
    if signalling:
        yield _sample(
            "WebRTC signalling",
            path,
            "/topic/signaling/demo",
            "What is sent to /app/signal/demo comes to all who listen here.",
            _STOMPJS,
            _subscribe("/topic/signaling/demo") + f"SEND\ndestination:{_ROOM}\n\n{_JOIN}\0",
            sends=True,
        )


def _subscribe(destination: str) -> str:
    return f"SUBSCRIBE\nid:0\ndestination:{destination}\n\n\0"


def _sample(
    name: str, path: str, destination: str, words: str, script: str, say: str = "", sends: bool = False
) -> Sample:
    def filled(text: str, send: str) -> str:
        text = text.replace("PATH", path).replace("DESTINATION", destination)
        return re.sub(r" *SEND\n", send if sends else "", text)

    lines = {
        "JavaScript": filled(script, f'  client.publish({{ destination: "{_ROOM}", body: {_JOIN!r} }});\n')
    }
    if say:
        lines["Python"] = filled(_PYTHON, f'connection.send("{_ROOM}", {_JOIN!r})\n')
    url = f"{{ws}}{path}/websocket" if say else f"{{http}}{path}"
    trial = Trial("socket", url, say=[_CONNECT, say], protocols=["v12.stomp"]) if say else None
    return Sample(name, url, words, lines=lines, trial=trial)
