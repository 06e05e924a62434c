"""JSON-RPC 2.0 over WebSocket, at `/ws`; calls also by `POST /api/v1/rpc`; and its client for browsers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from attrs import frozen

from dataflow.gateway import face
from dataflow.gateway.about import Sample, Trial, simple
from dataflow.gateway.face import Entrance, Route
from dataflow.gateway.hall import Hall
from dataflow.server.handshake import Socket
from dataflow.settings.schema import FaceSettings

from . import described, library, posted
from .methods import Calls, formats

PATH: Final = "/ws"


@frozen(kw_only=True)
class Settings(FaceSettings):
    """The table `[faces.jsonrpc]`."""


class Face(face.Face):
    """One WebSocket, one endpoint beside it, their description, and the client library in JavaScript."""

    def routes(self, hall: Hall) -> Iterable[Route]:
        return (posted.route(hall), described.route(hall), *library.routes())

    def sockets(self, hall: Hall) -> Iterable[Entrance]:
        known = formats(hall.core.symbols, list(hall.settings.sources))
        return (Entrance(Socket(PATH), lambda session, _client: Calls(session, hall, known)),)

    def about(self, hall: Hall) -> Iterable[Sample]:
        url = f"{{ws}}{PATH}"
        lines = {
            "wscat": f"wscat -w 60 -c {url} -x '{_SUBSCRIBE}'",
            "Python": _PYTHON.replace("URL", url),
            "JavaScript": _JAVASCRIPT.replace("URL", url),
            "dataflow": "dataflow tail --url {http} {symbol}",
        }
        words = "Subscriptions with resume, recent trades, symbols and status: the main protocol."
        yield Sample("JSON-RPC 2.0", url, words, lines=lines, trial=Trial("socket", url, say=[_SUBSCRIBE]))
        url = f"{{http}}{posted.PATH}"
        lines = {
            "curl": f"curl {url} -H 'Content-Type: application/json' -d '{_GET_TRADES}'",
            "Python": f"import httpx\n\nprint(httpx.post('{url}', json={_GET_TRADES}).text)\n",
        }
        words = "The same calls without a WebSocket, but for subscriptions."
        yield Sample("JSON-RPC 2.0 by POST", url, words, lines=lines)
        yield simple("AsyncAPI", described.PATH, "All messages of JSON-RPC over WebSocket, for tools.")


_SUBSCRIBE: Final = (
    '{"jsonrpc":"2.0","id":1,"method":"subscribe","params":{"channel":"trades","symbol":"{symbol}"}}'
)
_GET_TRADES: Final = '{"jsonrpc":"2.0","id":1,"method":"getTrades","params":{"symbol":"{symbol}","limit":2}}'
_PYTHON: Final = f"""\
from websockets.sync.client import connect

with connect("URL") as ws:
    ws.send('{_SUBSCRIBE}')
    for message in ws:
        print(message, flush=True)
"""
_JAVASCRIPT: Final = f"""\
const ws = new WebSocket("URL");
ws.onopen = () => ws.send('{_SUBSCRIBE}');
ws.onmessage = ({{ data }}) => console.log(data);
"""
