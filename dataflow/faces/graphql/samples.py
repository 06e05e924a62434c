"""A line to copy for each kind of client."""

from __future__ import annotations

import json
from collections.abc import Iterable
from urllib.parse import quote

from dataflow.gateway.about import Sample, Trial

from .transport_ws import SUBPROTOCOL

_BAR = '{marketData(symbol: "{symbol}") {close volume timestamp}}'
_PAST = '{trades(symbol: "{symbol}", limit: 5) {trades {price qty time offset} next}}'
_TRADES = 'subscription {trades(symbol: "{symbol}") {price qty side offset}}'
_INIT = '{"type":"connection_init"}'
_ASK = f"""\
import httpx

answer = httpx.post("URL", json={{"query": '{_BAR}'}})
print(answer.text)
"""
_FOLLOW = f"""\
# pip install "gql[websockets]"
from gql import Client, gql
from gql.transport.websockets import WebsocketsTransport

client = Client(transport=WebsocketsTransport("URL", subprotocols=["{SUBPROTOCOL}"]))
for trade in client.subscribe(gql('{_TRADES}')):
    print(trade, flush=True)
"""
_FETCH = f"""\
const answer = await fetch("URL?query=" + encodeURIComponent('{_BAR}'));
console.log(await answer.text());
"""
_ITERATE = f"""\
import {{ createClient }} from "graphql-ws";

const client = createClient({{ url: "URL" }});
for await (const trade of client.iterate({{ query: '{_TRADES}' }})) console.log(trade);
"""


def samples(path: str, page: str | None) -> Iterable[Sample]:
    """What the face serves at `path`. `page`: where GraphiQL is, if it is."""
    url = "{http}" + path
    lines = {
        "curl": f"curl {url} --json '{json.dumps({'query': _BAR})}'",
        "Python": _ASK.replace("URL", url),
        "JavaScript": _FETCH.replace("URL", url),
    }
    if page is not None:
        lines["Browser"] = "{http}" + page
    trial = Trial("get", f"{url}?query={quote(_BAR, safe='{}')}")
    words = "The bar of the day of a symbol. GraphiQL is an editor for it in the browser."
    yield Sample("GraphQL", url, words, lines=lines, trial=trial)

    lines = {"curl": f"curl {url} --json '{json.dumps({'query': _PAST})}'"}
    trial = Trial("get", f"{url}?query={quote(_PAST, safe='{}')}")
    yield Sample(
        "GraphQL pages", url, "Trades and candles of any time, page by page.", lines=lines, trial=trial
    )

    url = "{ws}" + path
    subscribe = {"id": "1", "type": "subscribe", "payload": {"query": _TRADES}}
    lines = {
        "wscat": f"wscat -w 60 -c {url} -s {SUBPROTOCOL} -x '{_INIT}' -x '{json.dumps(subscribe)}'",
        "Python": _FOLLOW.replace("URL", url),
        "JavaScript": _ITERATE.replace("URL", url),
    }
    trial = Trial("socket", url, say=(_INIT, json.dumps(subscribe)), protocols=(SUBPROTOCOL,))
    words = "Every trade of a symbol, or its bar of the day, by the subprotocol graphql-transport-ws."
    yield Sample("GraphQL subscriptions", url, words, lines=lines, trial=trial)
