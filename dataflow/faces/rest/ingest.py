"""`POST /api/v1/ingest/NAME`: producers push trades to a source with `connector = "push"`.

Rules of this file. The source's token alone decides who may push; without one only this machine may. A body
is read piece by piece, and nothing is read ahead of the shards, so TCP itself slows a producer down. What was
read is counted in the answer, whatever becomes of the rest: a producer repeats all of it after any failure,
for trades with ids are taken once. A source takes a few requests at a time, one address half of them; more
are refused at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import trio
from attrs import define, field
from quart import Response, request

from actors.connector import Received
from dataflow.domain import Item
from dataflow.gateway.about import JSON
from dataflow.gateway.application import BODY_SECONDS, MAX_BODY_BYTES, HttpProblem, asker, json_response
from dataflow.gateway.hall import Hall
from dataflow.gateway.identity import Identity
from dataflow.gateway.limits import Account
from dataflow.gateway.problems import TooManyRequests
from dataflow.sources.intake import REPEATED, Intake
from dataflow.sources.port import Intaker, PushSettings, codec_class
from dataflow.sources.state import LinkState
from supervisors import ActorGone

from .lines import NDJSON

AT_ONCE: Final = 16_384  # bytes of one batch: some 150 trades
LINES_AT_ONCE: Final = 200  # of one batch: to refuse a line takes as long however short it is
TAKEN_WITHIN: Final = 10.0  # seconds for the shards to take a batch
RETRY_AFTER: Final = 1.0  # seconds, for what ends nobody knows when
BUSY: Final = "too_many_requests"


@define
class Told:
    """The answer: what became of the trades. `examples`: a refused line for each reason."""

    accepted: int = 0
    repeated: int = 0
    refused: Counter[str] = field(factory=Counter)
    examples: dict[str, str] = field(factory=dict)

    @property
    def body(self) -> dict[str, Any]:
        return {
            "accepted": self.accepted,
            "refused": dict(self.refused),
            "repeated": self.repeated,
            "examples": self.examples,
        }


class Ingest:
    """The endpoint. `_busy` counts the requests under way, of a source and of an address at it."""

    def __init__(self, hall: Hall) -> None:
        self._hall = hall
        self._busy: Counter[tuple[str, str | None]] = Counter()

    async def post(self, source: str) -> Response:
        settings, intake = self._door(source)
        self._check_producer(source, settings)
        lines = _is_lines()
        with self._seat(source, settings, intake):
            push = _Push(intake, codec_class(settings)(settings, intake.accept), self._hall.account(asker()))
            await (push.lines() if lines else push.one())
        return json_response(push.told.body, 202)

    def _door(self, name: str) -> tuple[PushSettings, Intake]:
        core = self._hall.core
        intake, source = core.intake(name), core.sources.get(name)
        if intake is None or source is None or not isinstance(source.settings, PushSettings):
            valid = [each.name for each in core.sources.values() if isinstance(each.settings, PushSettings)]
            raise HttpProblem(404, "Not Found", f"nobody pushes to a source {name[:80]!r}", valid=valid)
        if source.link is not LinkState.CONNECTED:
            raise _unavailable("this source takes nothing at present")
        return source.settings, intake

    def _check_producer(self, name: str, settings: PushSettings) -> None:
        trust_local = self._hall.settings.operator.trust_local
        Identity(settings.token, trust_local, f"[sources.{name}] token").require_operator(asker())

    @contextmanager
    def _seat(self, name: str, settings: PushSettings, intake: Intake) -> Iterator[None]:
        """Room for one request. Raises TooManyRequests without it."""
        address = self._hall.client_address(asker())
        whole, own = (name, None), (name, address)
        if self._busy[whole] >= settings.max_requests or self._busy[own] >= (settings.max_requests + 1) // 2:
            self._hall.core.sources[name].problem(BUSY, address)
            raise TooManyRequests("requests at once", RETRY_AFTER)
        self._busy.update((whole, own))
        intake.heard(address)
        try:
            yield
        finally:
            self._busy.subtract((whole, own))
            self._busy += Counter()  # forgets those that are 0


class _Push:
    """One request."""

    def __init__(self, intake: Intake, codec: Intaker, account: Account) -> None:
        self._intake = intake
        self._codec = codec
        self._account = account
        self._is_counted = request.content_length is not None  # and paid for with the answer
        self.told = Told()

    async def lines(self) -> None:
        """Any number of trades, one a line."""
        while (data := await self._next()) is not None:
            for batch in batches(data):
                await self._take(batch)
        await self._take(b"\n")  # the last line need not have an end

    async def one(self) -> None:
        """One trade, on any number of lines: to JSON they are blanks."""
        body = b""
        while (data := await self._next()) is not None:
            body += data
            if len(body) > MAX_BODY_BYTES:
                raise HttpProblem(
                    413,
                    "Request Entity Too Large",
                    f"one trade has at most {MAX_BODY_BYTES:,} bytes; many are {NDJSON}, one a line",
                )
        await self._take(body.replace(b"\n", b" ") + b"\n")

    async def _next(self) -> bytes | None:
        with trio.move_on_after(BODY_SECONDS) as scope:
            data: bytes | None = await anext(aiter(request.body), None)
        if scope.cancelled_caught:
            detail = f"nothing came for {BODY_SECONDS:g} s; send it again"
            raise HttpProblem(408, "Request Timeout", detail, **self.told.body)
        if data is not None and not self._is_counted:
            self._account.pay(len(data))
            await self._account.paid()
        return data

    async def _take(self, data: bytes) -> None:
        await self._intake.turn()
        received = Received[Item](size=len(data))
        self._codec.decode(data, received)
        for reason, excerpt in received.problems:
            self._refuse(reason, excerpt)
        # A batch that is cut off would be lost in part: its end is the shards', not the producer's.
        with trio.CancelScope(shield=True, deadline=trio.current_time() + TAKEN_WITHIN):
            try:
                await self._intake.put(received.items, received.size)
            except ActorGone:
                raise _unavailable("this source is just being stopped", **self.told.body) from None
            self.told.accepted += len(received.items)
            return
        raise _unavailable("the daemon is behind; send it again", **self.told.body)

    def _refuse(self, reason: str, excerpt: str) -> None:
        if reason == REPEATED:
            self.told.repeated += 1
            return
        self._intake.refused(reason, excerpt)
        self.told.refused[reason] += 1
        self.told.examples.setdefault(reason, excerpt)


def batches(data: bytes) -> Iterator[bytes]:
    """The bytes in parts, none with too many bytes or lines for one turn."""
    at = 0
    while at < len(data):
        *lines, rest = data[at : at + AT_ONCE].split(b"\n", LINES_AT_ONCE)
        size = sum(map(len, lines)) + len(lines) + (0 if len(lines) == LINES_AT_ONCE else len(rest))
        yield data[at : at + size]
        at += size


def _is_lines() -> bool:
    """Whether the body is NDJSON; otherwise it is JSON. Raises HttpProblem for anything else."""
    if (
        request.mimetype not in (JSON, NDJSON)
        or request.headers.get("Content-Encoding", "identity") != "identity"
    ):
        detail = f"the body must be {JSON}, one trade, or {NDJSON}, one a line, without a Content-Encoding"
        raise HttpProblem(415, "Unsupported Media Type", detail, valid=[JSON, NDJSON])
    return request.mimetype == NDJSON


def _unavailable(detail: str, **told: Any) -> HttpProblem:
    return HttpProblem(503, "Service Unavailable", detail, retry_after=RETRY_AFTER, **told)
