"""`check --connect`: every source is tried for real, as the daemon would use it, and what was seen is told.

Rules of this file. A trial uses the daemon's own parts (transport, codec, connector, questions by HTTP), so
that what works here works there. It changes nothing and keeps nothing. Every step has a verdict and a few
words; a step that cannot be tried after a failure is left out. Words of an upstream are cut, and no secret is
shown. Each trial ends in time, whatever the upstream does.
"""

from __future__ import annotations

import os
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from enum import Enum
from functools import partial
from socket import gaierror
from typing import Any, Final

import trio
from attrs import define, field, frozen

from actors.connector import Connector, Interest, Patience
from dataflow import plugs
from dataflow.app import asks
from dataflow.domain import Item, Missing, Trade
from dataflow.domain.secrets import concealed
from dataflow.domain.timestamps import to_rfc3339
from dataflow.net.address import Address, parse
from dataflow.net.budget import Asks, Budget, Priority, RestFailed
from dataflow.net.listening import why_refused
from dataflow.settings.schema import Settings
from dataflow.sources.port import (
    AnySourceSettings,
    Filler,
    ListenerSettings,
    Page,
    SourceSettings,
    codec_class,
    filler_of,
)
from dataflow.sources.reading import Unusable
from supervisors import Child, Restart, Supervisor, UnknownChild, leaves, open_supervisor

AT_ONCE: Final = 8  # sources
EXPIRES_SOON: Final = 14  # days
LATE: Final = 5.0  # seconds: older trades are late, or our clock is wrong ...
AHEAD: Final = 1.0  # ... as it is when trades come from the future
SHOWN: Final = 5  # refusals, and kinds of messages that were not understood
CUT: Final = 200  # characters of a step's words
DAY: Final = 86_400.0


class Verdict(Enum):
    """What came of a step. A `NOTE` is no failure, but somebody should read it."""

    OK = "ok"
    NOTE = "note"
    FAILED = "failed"


@frozen
class Step:
    """One thing that was tried: `name` is a word or two, `words` what was seen."""

    name: str
    verdict: Verdict
    words: str


@define
class Trial:
    """What was seen of one source."""

    name: str
    address: str
    steps: list[Step] = field(factory=list)

    @property
    def is_fine(self) -> bool:
        return all(step.verdict is not Verdict.FAILED for step in self.steps)

    def saw(self, name: str, words: str, verdict: Verdict = Verdict.OK) -> None:
        """A step is done."""
        told = concealed(words)
        self.steps.append(Step(name, verdict, told if len(told) <= CUT else f"{told[: CUT - 3]}..."))

    def failed(self, name: str, words: str) -> None:
        """A step has failed."""
        self.saw(name, words, Verdict.FAILED)


def as_data(trial: Trial) -> dict[str, Any]:
    """A trial for programs."""
    steps = [{"step": each.name, "verdict": each.verdict.value, "words": each.words} for each in trial.steps]
    return {"address": trial.address, "ok": trial.is_fine, "steps": steps}


def as_text(trial: Trial) -> str:
    """A trial for people: a block of lines."""
    lines = [f"{each.verdict.value:<6}  {each.name:<12}  {each.words}" for each in trial.steps]
    return "\n  ".join([f"{trial.name}: {trial.address}", *lines])


async def try_all(
    settings: Settings,
    within: float,
    is_free: Callable[[str, int], OSError | None],
    done: Callable[[Trial], None],
) -> list[Trial]:
    """Try every source, a few at a time. `done` hears of each, as it ends. In the order of the configuration.

    `within`: seconds to wait for the first trades. `is_free(host, port)`: why nothing can listen there.
    """
    trials = [Trial(name, concealed(each.address)) for name, each in settings.sources.items()]
    turns = trio.Semaphore(AT_ONCE)

    async def one(trial: Trial, source: AnySourceSettings) -> None:
        async with turns:
            await _try(trial, source, settings, within, is_free)
        done(trial)

    async with trio.open_nursery() as nursery:
        for trial, source in zip(trials, settings.sources.values(), strict=True):
            nursery.start_soon(one, trial, source)
    return trials


async def _try(
    trial: Trial,
    source: AnySourceSettings,
    settings: Settings,
    within: float,
    is_free: Callable[[str, int], OSError | None],
) -> None:
    if isinstance(source, SourceSettings):
        await _try_upstream(trial, source, within)
        return
    if isinstance(source, ListenerSettings):
        table, host, port = f"[sources.{trial.name}]", source.host, source.port
    else:
        table, host, port = "[gateway]", settings.gateway.host, settings.gateway.port
    error = is_free(host, port)
    if error is None:
        trial.saw("port", f"{host}:{port} is free")
    else:
        trial.failed("port", f"{host}:{port}: {why_refused(error, f'{table} host', f'{table} port')}")


# -- an upstream --------------------------------------------------------------------------------------


async def _try_upstream(trial: Trial, source: SourceSettings, within: float) -> None:
    limit = 2 * source.connect_within + 6 * source.subscribe_within + within
    with trio.move_on_after(limit) as scope:
        if source.transport == "websocket":
            if source.proxy:
                trial.saw("proxy", "name, TCP and TLS are the proxy's: not tried by themselves", Verdict.NOTE)
            if source.proxy or await _reaches(trial, parse(source.url), source.connect_within):
                await _subscribes(trial, source, within)
        await _asks(trial, source)
    if scope.cancelled_caught:
        trial.failed("time", f"the trial took longer than {limit:g} s")


async def _reaches(trial: Trial, address: Address, within: float) -> bool:
    """Whether name, TCP and TLS work, one after the other."""
    step = "name"
    try:
        with trio.fail_after(within):
            found = await trio.socket.getaddrinfo(address.host, address.port, type=trio.socket.SOCK_STREAM)
            addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
            trial.saw(step, f"{address.host} is {', '.join(addresses[:SHOWN])}")
            step, begin = "tcp", trio.current_time()
            stream = await trio.open_tcp_stream(address.host, address.port)
            async with stream:
                trial.saw(step, f"port {address.port} answers after {_milliseconds(begin)} ms")
                step = "tls"
                if address.encrypted:
                    await _encrypts(trial, address, stream)
                else:
                    trial.saw(step, "none: everything can be read on the way", Verdict.NOTE)
            return True
    except trio.TooSlowError:
        trial.failed(step, f"no answer within {within:g} s")
    except gaierror as error:
        trial.failed("name", f"cannot find {address.host}: {error.strerror}")
    except (OSError, trio.BrokenResourceError) as error:
        trial.failed(step, _why(error))
    return False


async def _encrypts(trial: Trial, address: Address, stream: trio.SocketStream) -> None:
    encrypted = trio.SSLStream(stream, ssl.create_default_context(), server_hostname=address.host)
    await encrypted.do_handshake()
    certificate: Mapping[str, Any] = encrypted.getpeercert() or {}
    days = (ssl.cert_time_to_seconds(str(certificate["notAfter"])) - time.time()) / DAY
    soon = days < EXPIRES_SOON
    trial.saw(
        "tls",
        f"the certificate is good for {days:.0f} days{'; it expires soon' if soon else ''}",
        Verdict.NOTE if soon else Verdict.OK,
    )


def _why(error: BaseException) -> str:
    """The first cause, in the words of the operating system, or of TLS."""
    first = next(iter(leaves(error.__cause__ or error)))
    if isinstance(first, ssl.SSLError):
        return getattr(first, "verify_message", None) or first.reason or str(first)
    return os.strerror(first.errno) if isinstance(first, OSError) and first.errno else str(first)


def _milliseconds(begin: float) -> str:
    return f"{(trio.current_time() - begin) * 1000:.0f}"


@define
class _Seen:
    """An observer of the connector, and where it delivers to."""

    subscribed_symbols: set[str] = field(factory=set)
    refusals: dict[str, str] = field(factory=dict)
    problems: Counter[str] = field(factory=Counter)
    excerpts: dict[str, str] = field(factory=dict)
    first: dict[str, Trade] = field(factory=dict)
    ages: list[float] = field(factory=list)  # seconds, of each trade as it came
    reason: str | None = None
    is_up: bool = False
    has_opened: bool = False
    changed: trio.Event = field(factory=trio.Event)

    def _news(self) -> None:
        self.changed.set()
        self.changed = trio.Event()

    def connecting(self) -> None: ...
    def waiting(self, seconds: float) -> None: ...
    def leaving(self, words: str) -> None: ...
    def parted(self) -> None: ...

    def up(self, _topics: Collection[str]) -> None:
        self.is_up = True
        self._news()

    def down(self, reason: str) -> None:
        self.reason = reason
        self._news()

    def subscribed(self, topic: str) -> None:
        self.subscribed_symbols.add(topic)
        self._news()

    def unsubscribed(self, topic: str) -> None:
        self.subscribed_symbols.discard(topic)

    def refused(self, topic: str, reason: str) -> None:
        self.refusals[topic] = reason
        self._news()

    def problem(self, reason: str, excerpt: str) -> None:
        self.problems[reason] += 1
        self.excerpts.setdefault(reason, excerpt)

    def received(self, items: int, size: int) -> None: ...

    def deliver(self, items: Sequence[Item]) -> None:
        now = time.time()
        for item in items:
            if isinstance(item, Trade):
                self.first.setdefault(item.symbol, item)
                if len(self.ages) < 1000:
                    self.ages.append(now - item.timestamp / 1e9)
        self._news()


async def _subscribes(trial: Trial, source: SourceSettings, within: float) -> None:
    """The daemon's own connector subscribes to all symbols, and waits for their first trades."""
    seen, symbols = _Seen(), source.symbols[: source.symbols_a_connection]
    make_codec = partial(codec_class(source), trial.name, source)
    upstream = plugs.find("transports", source.transport).Source(trial.name, source, make_codec)
    connector: Connector[Item] = Connector(
        _Opened(upstream, seen),
        Interest(symbols),
        seen.deliver,
        make_codec().missed,
        seen,
        Patience(source.stale_after, source.subscribe_within),
    )
    child = Child("trial", lambda: connector, restart=Restart.TEMPORARY, stop_within=1.0)
    async with open_supervisor(Supervisor(children=(child,)), blocked_after=None) as root:
        while seen.reason is None and not seen.is_up:
            await seen.changed.wait()
        with trio.move_on_after(within):
            while seen.reason is None and not seen.first.keys() >= seen.subscribed_symbols:
                await seen.changed.wait()
        reason = seen.reason
        with suppress(UnknownChild):  # it has ended by itself
            await root.stop("trial")
    _tell(trial, seen, symbols, len(source.symbols) - len(symbols), reason)


class _Opened:
    """An upstream that tells when it has opened: a failure before that is the handshake's."""

    def __init__(self, upstream: Any, seen: _Seen) -> None:
        self._upstream = upstream
        self._seen = seen

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Any]:
        async with self._upstream.connect() as link:
            self._seen.has_opened = True
            yield link


def _tell(trial: Trial, seen: _Seen, symbols: Sequence[str], more: int, reason: str | None) -> None:
    """The steps of a conversation that has ended. `more`: symbols that were left out."""
    if not seen.has_opened:
        trial.failed("handshake", reason or "nothing came of it")
        return
    trial.saw("handshake", "the upstream speaks WebSocket")
    _tell_subscriptions(trial, seen, symbols, more)
    if seen.problems:
        kinds = [
            f"{name} ({count}): {seen.excerpts[name]}" for name, count in seen.problems.most_common(SHOWN)
        ]
        trial.saw("messages", f"some were not understood: {'; '.join(kinds)}", Verdict.NOTE)
    if reason is not None:
        trial.failed("connection", reason)
    elif seen.subscribed_symbols:
        _tell_trades(trial, seen)


def _tell_subscriptions(trial: Trial, seen: _Seen, symbols: Sequence[str], more: int) -> None:
    if not symbols:
        trial.saw("subscription", "there are no symbols to subscribe to", Verdict.NOTE)
        return
    refused = [f"{symbol}: {why}" for symbol, why in seen.refusals.items()]
    silent = [each for each in symbols if each not in seen.subscribed_symbols and each not in seen.refusals]
    words = f"{len(seen.subscribed_symbols)} of {len(symbols)} symbols"
    words += f", {more} more were not tried: they need further connections" if more else ""
    words += f"; refused: {_some(refused)}" if refused else ""
    words += f"; no answer for {_some(silent)}" if silent else ""
    trial.saw("subscription", words, Verdict.FAILED if refused or silent else Verdict.OK)


def _tell_trades(trial: Trial, seen: _Seen) -> None:
    quiet = sorted(seen.subscribed_symbols - seen.first.keys())
    if not seen.first:
        why = "what came was not understood" if seen.problems else "the market may be quiet"
        trial.saw("first trade", f"none in this time: {why}", Verdict.NOTE)
        return
    one = next(iter(seen.first.values()))
    words = f"{one.symbol}: {one.quantity:f} at {one.price:f}, of {to_rfc3339(one.timestamp)}"
    trial.saw("first trade", words + (f"; none of {_some(quiet)} in this time" if quiet else ""))
    age = min(seen.ages)
    if age < -AHEAD:
        words = f"trades are {-age:.1f} s ahead of our clock: it is slow, or the exchange's is fast"
        trial.saw("clock", words, Verdict.NOTE)
    elif age > LATE:
        words = f"the newest trade was {age:.1f} s old when it came: it is late, or our clock is fast"
        trial.saw("clock", words, Verdict.NOTE)
    else:
        old = f"{age:.3f} s old" if age >= 0 else f"{-age:.3f} s ahead"
        trial.saw("clock", f"a trade is {old} when it comes, by our clock")


def _some(words: Sequence[str]) -> str:
    return ", ".join(words[:SHOWN]) + (f" and {len(words) - SHOWN} more" if len(words) > SHOWN else "")


# -- its REST -----------------------------------------------------------------------------------------


async def _asks(trial: Trial, source: SourceSettings) -> None:
    """One question for the newest trades; of a source that is polled one for each symbol. Of several good
    answers the last one is told."""
    filler = filler_of(trial.name, source)
    is_polled = source.transport == "rest"
    symbols = source.symbols if is_polled else source.symbols[:1]
    about = [Missing(trial.name, symbol, None, None) for symbol in symbols]
    if filler is None or not about or not filler.fill(about[0]):
        if is_polled:
            trial.failed("rest", "this connector has no question for past trades, so it cannot be polled")
        else:
            trial.saw("rest", "nothing can be asked: missing trades will stay gaps", Verdict.NOTE)
        return
    budget, failures, told = Budget(source.refill_weight), list[str](), ""
    async with asks(source, budget) as client:
        for missing in about:
            begin = trio.current_time()
            try:
                page = await _page(client, filler, missing)
            except RestFailed as error:
                if error.reason != "client_error":  # it concerns no symbol: the next one would fare no better
                    failures.append(f"{error.reason}: {error}")
                    break
                failures.append(f"{missing.symbol}: {error.reason}: {error}")
            except Unusable as problem:
                failures.append(f"{missing.symbol}: the answer cannot be used: {problem.reason}")
            else:
                told = f"{len(page.trades)} trades of {missing.symbol} after {_milliseconds(begin)} ms"
    for failure in failures[:SHOWN]:
        trial.failed("rest", failure)
    if len(failures) > SHOWN:
        trial.failed("rest", f"and {len(failures) - SHOWN} more symbols")
    if told:
        used = budget.used(trio.current_time())
        trial.saw("rest", f"{told}, weight {used} of {source.refill_weight} a minute")


async def _page(client: Asks, filler: Filler, missing: Missing) -> Page:
    """Raises RestFailed and Unusable."""
    request = filler.fill(missing)
    if not request:
        raise Unusable("no_question")
    answer = await client.get(request.path, request.weight, Priority.FILL)
    return filler.filled(missing, request, answer)
