"""What a face serves, told to people and tools: values for the OpenAPI document and for the page `/faces`.

Rules of this file: descriptions only. No request is checked by them; tests compare them with what is served.
A type stands for its JSON Schema, as msgspec derives it: a Struct, an attrs class, a TypedDict, `list[str]`,
or `Annotated[int, Meta(ge=1, le=50)]`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from attrs import field, frozen

from dataflow.net.address import with_port

JSON = "application/json"
NOTHING: Any = object()  # no type: there is no body, or no default


@frozen
class Parameter:
    """What a request may say beside its body. `words`: its meaning and unit.

    One `place` of "path" is always required, and its name is that of the variable in `Route.path`.
    """

    name: str
    type: Any
    words: str
    place: Literal["query", "path", "header"] = field(default="query", kw_only=True)
    required: bool = field(default=False, kw_only=True)
    default: Any = field(default=NOTHING, kw_only=True)
    example: Any = field(default=NOTHING, kw_only=True)


@frozen
class Answer:
    """One answer: `type` of its body, in `media`; `also`: in further media, for clients that prefer them.

    `headers`: those that matter, with their meaning; `sometimes`: those that an answer need not have.
    """

    words: str
    type: Any = NOTHING
    media: str = JSON
    also: Mapping[str, Any] = field(factory=dict, kw_only=True)
    headers: Mapping[str, str] = field(factory=dict, kw_only=True)
    sometimes: Mapping[str, str] = field(factory=dict, kw_only=True)


@frozen
class About:
    """An HTTP endpoint. `summary`: a few words; `more`: what else its user must know.

    `answers` and `errors` by status. Errors are `application/problem+json`; those that every endpoint has
    (400 for a wrong name, 403, 429, 500), and 401 for the operator's, need not be written.
    `body`: the type of the request's.
    """

    summary: str
    answers: Mapping[int, Answer]
    errors: Mapping[int, str] = field(factory=dict)
    parameters: Sequence[Parameter] = field(default=(), kw_only=True)
    body: Any = field(default=NOTHING, kw_only=True)
    body_media: str = field(default=JSON, kw_only=True)
    more: str = field(default="", kw_only=True)


@frozen
class Trial:
    """What a browser does to try a sample: ask once, follow events, or speak over a WebSocket.

    A socket says the first text of `say` when it is open, and each further one when the next message has
    come. `beat`: a text said again every `every` seconds, where the protocol needs one.
    """

    kind: Literal["get", "events", "socket"]
    url: str
    say: Sequence[str] = field(default=(), kw_only=True)
    protocols: Sequence[str] = field(default=(), kw_only=True)  # of WebSocket: Sec-WebSocket-Protocol
    beat: str = field(default="", kw_only=True)
    every: float = field(default=0.0, kw_only=True)


@frozen
class Sample:
    """One thing that a face serves, with a line to copy for each kind of client.

    `lines` by kind: curl, wscat, grpcurl, Python (a whole program), JavaScript, C++. The page that shows it
    replaces these words in every text: `{http}` and `{ws}` (scheme, host, port and prefix of the daemon),
    `{host}` (its name alone), `{symbol}` (BTC-USDT) and `{compact}` (BTCUSDT).
    """

    name: str
    address: str
    words: str
    lines: Mapping[str, str] = field(kw_only=True)
    trial: Trial | None = field(default=None, kw_only=True)


def simple(name: str, path: str, words: str) -> Sample:
    """A sample of an endpoint that is asked by GET, and answers at once."""
    url = f"{{http}}{path}"
    address = f"'{url}'" if "?" in url else url  # zsh takes "?" for a pattern
    lines = {"curl": f"curl {address}", "Python": f'import httpx\n\nprint(httpx.get("{url}").text)\n'}
    return Sample(name, url, words, lines=lines, trial=Trial("get", url))


def watched(name: str, url: str, words: str, shown: str = "e.data") -> Sample:
    """A sample of a WebSocket that speaks by itself. `shown`: what of the event `e` JavaScript prints."""
    lines = {
        "wscat": f"wscat -c '{url}'",
        "Python": _WATCH.replace("URL", url),
        "JavaScript": f'new WebSocket("{url}").onmessage = e => console.log({shown});',
    }
    return Sample(name, url, words, lines=lines, trial=Trial("socket", url))


_WATCH: Final = """\
import asyncio, websockets

async def main():
    async with websockets.connect("URL") as socket:
        async for message in socket:
            print(message)

asyncio.run(main())
"""


def reached(host: str, port: int) -> str:
    """Where clients reach a listener, for a sample: under any name of the daemon if it listens everywhere."""
    if host in ("0.0.0.0", "::", ""):
        host = "{host}"
    return with_port(host, port)


def socket_only(summary: str, parameters: Sequence[Parameter] = ()) -> About:
    """A path that is a WebSocket's, and answers 400 without an upgrade."""
    return About(
        summary,
        {},
        {
            400: "no upgrade is asked for, or a parameter is wrong",
            426: "the upgrade is not one of WebSocket 13",
        },
        parameters=parameters,
    )
