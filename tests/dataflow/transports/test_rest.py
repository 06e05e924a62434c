"""A source by questions: each trade once, nothing guessed where the answers do not meet, and a pace."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
import trio
import trio.testing
from attrs import define, field

from actors.connector import LinkLost, Received, Refused, Subscribed, Unsubscribed
from dataflow.connectors.binance import Settings
from dataflow.domain import Item, Missed, Missing, Trade
from dataflow.net.budget import RestFailed
from dataflow.sources.port import RATE_LIMITED, Page, Request
from dataflow.sources.reading import Unusable
from dataflow.transports.rest import RestLink

A, B = "A-USD", "B-USD"
MARK = Missed("polled", A, "source_gap")


def trade(number: int, symbol: str = A, sequence: bool = True, **changed: Any) -> Trade:
    values = {"price": Decimal(1), "timestamp": number * 10**9, "trade_id": str(number)} | changed
    return Trade(
        *("polled", symbol, values["trade_id"], "buy", values["price"], Decimal(1), values["timestamp"]),
        number if sequence else None,
    )


@define
class Upstream:
    """A filler and a client in one: the tape is what the exchange has, `limit` what it tells at once."""

    tape: dict[str, list[Trade]] = field(factory=dict)
    limit: int = 1000
    failures: list[Exception] = field(factory=list)
    asked: list[tuple[float, str, str]] = field(factory=list)  # when, path, tag
    tagged: bool = False

    def fill(self, missing: Missing) -> Request | None:
        after = "" if missing.after is None else missing.after.trade_id
        return Request(f"/{missing.symbol}?after={after}", 3)

    def filled(self, missing: Missing, request: Request, answer: bytes) -> Page:
        if answer == b"?":
            raise Unusable("malformed_json")
        after, _, newest = (
            request.path.partition("after=")[2].partition("&"),
            "",
            self.tape.get(missing.symbol, []),
        )
        if not after[0]:
            return Page(newest[-self.limit :])
        behind = [each for each in newest if int(each.trade_id or 0) >= int(after[0])]
        more = behind[self.limit :]
        following = Request(f"/{missing.symbol}?after={more[0].trade_id}") if more else None
        return Page(behind[: self.limit], following)

    def latest(self, symbols: Sequence[str]) -> Request | None: ...
    def newest(self, symbols: Sequence[str], answer: bytes) -> Any: ...

    async def get(self, path: str, *_about: Any) -> bytes:
        body, _ = await self.get_changed(path, "")
        assert body is not None
        return body

    async def get_changed(self, path: str, tag: str, *_about: Any) -> tuple[bytes | None, str]:
        await trio.lowlevel.checkpoint()
        self.asked.append((trio.current_time(), path, tag))
        if self.failures:
            raise self.failures.pop(0)
        now = f'"{sum(map(len, self.tape.values()))}"' if self.tagged else ""
        return (None if tag and tag == now else b"[]"), now


def link(upstream: Any, marked: bool = False, **keys: Any) -> RestLink:
    settings = Settings(connector="binance", url="ws://x", transport="rest", **{"poll_interval": 2.0, **keys})
    return RestLink("polled", settings, upstream, lambda _symbol: MARK if marked else None, upstream)


def told(received: Received[Item]) -> list[Any]:
    return [each.trade_id if isinstance(each, Trade) else each for each in received.items]


def answers(received: Received[Item]) -> list[Any]:
    return [answer for _, answer in received.answers]


async def test_each_trade_comes_once(autojump_clock: object) -> None:
    """The newest page first, then what is behind the newest; each question after the interval."""
    upstream = Upstream({A: [trade(n) for n in range(1, 5)]}, limit=2)
    polled = link(upstream)
    await polled.subscribe([A])
    first = await polled.receive()
    assert (answers(first), told(first)) == ([Subscribed(A)], ["3", "4"])
    upstream.tape[A] += [trade(n) for n in range(5, 10)]
    second = await polled.receive()
    assert (answers(second), told(second)) == ([], ["5", "6", "7", "8", "9"])
    assert told(await polled.receive()) == []
    times = [when for when, path, _ in upstream.asked]
    assert times == [times[0], *[times[0] + 2.0] * 3, times[0] + 4.0]


async def test_a_hole_in_the_sequence_is_left_to_the_history(autojump_clock: object) -> None:
    """No mark: the numbers show exactly what is missing."""
    upstream = Upstream({A: [trade(1)]})
    polled = link(upstream)
    await polled.subscribe([A])
    await polled.receive()
    upstream.tape[A] = [trade(3), trade(4)]
    assert told(await polled.receive()) == ["3", "4"]


async def test_without_a_sequence_the_overlap_is_the_proof(autojump_clock: object) -> None:
    """Where the answer holds what came before, nothing is missing; where it does not, a mark says so."""
    upstream = Upstream({A: [trade(n, sequence=False) for n in (1, 2)]})
    polled = link(upstream, marked=True)
    await polled.subscribe([A])
    assert told(await polled.receive()) == [Missed("polled", A, "source_gap", resubscribed=True), "1", "2"]
    upstream.tape[A].append(trade(3, sequence=False))
    assert told(await polled.receive()) == ["3"]
    assert told(await polled.receive()) == []
    upstream.tape[A] = [trade(n, sequence=False) for n in (7, 8)]
    assert told(await polled.receive()) == [MARK, "7", "8"]


async def test_symbols_take_turns(autojump_clock: object) -> None:
    """The longest due first; one that is let go of is asked about no more, and that is acknowledged."""
    upstream = Upstream({A: [trade(1)], B: [trade(1, B)]})
    polled = link(upstream)
    await polled.subscribe([A, B])
    heard = [*answers(await polled.receive()), *answers(await polled.receive())]
    assert heard == [Subscribed(A), Subscribed(B)]
    await polled.unsubscribe([A])
    assert answers(await polled.receive()) == [Unsubscribed(A)]
    for _ in range(2):
        await polled.receive()
    assert [path[1:6] for _, path, _ in upstream.asked] == [A, B, B, B]


async def test_questions_are_spread_over_the_minute(autojump_clock: object) -> None:
    """However many symbols there are: no burst that ends in a pause, which would count as a silence."""
    symbols = [f"S{n}-USD" for n in range(50)]
    upstream = Upstream({symbol: [trade(1, symbol)] for symbol in symbols})
    polled = link(upstream, refill_weight=360)
    await polled.subscribe(symbols)
    for _ in range(200):
        await polled.receive()
    times = [when for when, _, _ in upstream.asked]
    pauses = {round(later - earlier, 6) for earlier, later in pairwise(times)}
    assert pauses == {round(3 * 60 / (360 * 0.75), 6)}
    assert len({path for _, path, _ in upstream.asked[:50]}) == 50


async def test_a_symbol_that_the_upstream_does_not_know_is_refused(autojump_clock: object) -> None:
    """By a client error to its first question, with the words of the upstream; the others go on."""
    upstream = Upstream({B: [trade(1, B)]}, failures=[RestFailed("client_error", "HTTP status 400: no A")])
    polled = link(upstream)
    await polled.subscribe([A, B])
    (refused,) = answers(await polled.receive())
    assert refused == Refused((A,), "HTTP status 400: no A")
    assert answers(await polled.receive()) == [Subscribed(B)]


async def test_a_symbol_without_a_usable_answer_is_refused(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the third try: one broken answer proves nothing. To be asked too often is no fault of the symbol."""

    def fails(reason: str) -> Any:
        def filled(*_about: Any) -> Page:
            raise Unusable(reason)

        return filled

    polled = link(Upstream())
    await polled.subscribe([A])
    monkeypatch.setattr(Upstream, "filled", fails("refused"))
    heard = [await polled.receive() for _ in range(3)]
    assert [len(each.problems) for each in heard] == [1, 1, 1]
    assert [answers(each) for each in heard] == [
        [],
        [],
        [Refused((A,), "its answers cannot be used: refused")],
    ]
    monkeypatch.setattr(Upstream, "filled", fails(RATE_LIMITED))
    other = link(Upstream())
    await other.subscribe([A])
    with pytest.raises(LinkLost, match="rate_limited"):
        await other.receive()


async def test_an_upstream_that_fails_at_first_is_lost_at_once() -> None:
    """As a handshake that fails: the supervisor tries again after the backoff."""
    polled = link(Upstream(failures=[RestFailed("unreachable", "Connection refused")]))
    await polled.subscribe([A])
    with pytest.raises(LinkLost, match="unreachable: Connection refused"):
        await polled.receive()


async def test_a_passing_failure_is_forgiven_and_told(autojump_clock: object) -> None:
    """Asked again, more and more slowly, and no trade is lost by it."""
    upstream = Upstream({A: [trade(1)]})
    polled = link(upstream)
    await polled.subscribe([A])
    await polled.receive()
    upstream.tape[A].append(trade(2))
    upstream.failures = [RestFailed("server_error", "502")]
    received = await polled.receive()
    assert (told(received), received.problems) == (["2"], [("server_error", "502")])
    times = [when - upstream.asked[0][0] for when, _, _ in upstream.asked]
    assert times == [0.0, 2.0, 6.0]


async def test_failures_without_an_end_lose_the_link(autojump_clock: object) -> None:
    """Before the silence would be noticed, and with the reason."""
    upstream = Upstream({A: [trade(1)]})
    polled = link(upstream, stale_after=20.0)
    await polled.subscribe([A])
    await polled.receive()
    upstream.failures = [RestFailed("server_error", "502")] * 100
    with pytest.raises(LinkLost, match="server_error: 502"):
        await polled.receive()
    assert trio.current_time() - upstream.asked[0][0] <= 20.0


async def test_an_upstream_that_wants_us_to_wait_is_obeyed() -> None:
    """The next attempt is not made before that."""
    polled = link(Upstream(failures=[RestFailed("rate_limited", "429", wait=30.0)]))
    await polled.subscribe([A])
    with pytest.raises(LinkLost) as lost:
        await polled.receive()
    assert lost.value.at_least == 30.0


async def test_an_answer_that_did_not_change_costs_nothing(autojump_clock: object) -> None:
    """Its tag is sent back while the question is the same."""
    upstream = Upstream({A: []}, tagged=True)
    polled = link(upstream)
    await polled.subscribe([A])
    assert answers(await polled.receive()) == [Subscribed(A)]
    assert told(await polled.receive()) == []
    upstream.tape[A].append(trade(1))
    assert told(await polled.receive()) == ["1"]
    assert [tag for _, _, tag in upstream.asked] == ["", '"0"', '"0"']


@pytest.mark.parametrize(
    ("lie", "reason"),
    [
        ([trade(2), trade(2, price=Decimal(9))], "poll_conflict"),
        ([trade(2, B)], "poll_symbol"),
        ([trade(2, sequence=False, trade_id=None)], "poll_nameless"),
    ],
)
async def test_a_lying_answer_is_refused_whole(
    lie: list[Trade], reason: str, autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted under its name; the honest answer comes with the next question."""
    upstream = Upstream({A: [trade(1)]})
    polled = link(upstream)
    await polled.subscribe([A])
    await polled.receive()
    with monkeypatch.context() as patch:
        patch.setattr(Upstream, "filled", lambda *_about: Page([trade(3), *lie]))
        received = await polled.receive()
    assert (told(received), [name for name, _ in received.problems]) == ([], [reason])
    upstream.tape[A].append(trade(2))
    assert told(await polled.receive()) == ["2"]


async def test_a_cancelled_read_loses_nothing(autojump_clock: object) -> None:
    """What was asked for and not taken is asked for again."""
    upstream = Upstream({A: [trade(1)]})
    polled = link(upstream)
    await polled.subscribe([A])
    with trio.CancelScope() as scope:
        scope.cancel()
        await polled.receive()
    with trio.move_on_after(0):
        await polled.receive()
    assert told(await polled.receive()) == ["1"]


async def test_a_goodbye_ends_the_questions(autojump_clock: object) -> None:
    """Nothing is asked after it, also by a read that waits for the next turn."""
    upstream = Upstream({A: [trade(1)]})
    polled = link(upstream)
    await polled.subscribe([A])
    await polled.receive()
    async with trio.open_nursery() as nursery:

        async def read_on() -> None:
            with pytest.raises(LinkLost):
                await polled.receive()

        nursery.start_soon(read_on)
        await trio.testing.wait_all_tasks_blocked()
        await polled.part()
    with pytest.raises(LinkLost):
        await polled.receive()
    assert len(upstream.asked) == 1
