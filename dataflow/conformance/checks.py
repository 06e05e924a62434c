"""The checks. Each is a function with a promise as its docstring; `CHECKS` is all of them, in order.

Rules of this file. A check raises `Broken` with a sentence that the author of the connector can act on. It
knows no exchange. What the recording does not show is not checked, and the report says so (`NotShown`).
"""

from __future__ import annotations

import ast
import inspect
import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Any, Final

from actors.connector import Received, Subscribed
from dataflow.domain import Item, Missed, Missing, Trade
from dataflow.domain.timestamps import EARLIEST, LATEST
from dataflow.sources.port import Codec, Filler, Newest, Page, Request
from dataflow.sources.reading import EXCERPT, Unusable

from .spoiling import extended, garbage, spoilt
from .subject import NAME, Heard, Subject, hear, tells, trades_of, twin

_SAMPLES: Final = 6  # messages with trades that are spoilt, each of another shape
_OTHERS: Final = 6  # and messages without trades
_IMPURE: Final = frozenset(
    {
        "trio",
        "asyncio",
        "socket",
        "ssl",
        "time",
        "random",
        "httpx",
        "requests",
        "threading",
        "subprocess",
        "os",
    }
)
_REASON: Final = re.compile(r"[a-z][a-z0-9_]*").fullmatch


class Broken(AssertionError):
    """A promise is not kept. The message says which, where, and what would be right."""


class NotShown(Exception):
    """The recording does not show what this check looks at. The message says what would."""


def pure(subject: Subject) -> None:
    """The module neither waits nor listens, and reads no clock."""
    tree = ast.parse(inspect.getsource(subject.module))
    for name in _imported(tree):
        if name.partition(".")[0] in _IMPURE:
            raise Broken(
                f"it imports {name}: a connector translates; whoever drives it waits and has the clock"
            )


def asks(subject: Subject) -> None:
    """It asks for symbols, and takes that back, in texts that depend on the symbols and on nothing else."""
    symbols = _symbols(subject)
    make = subject.module.Codec
    one, other = make(NAME, subject.settings), make(NAME, subject.settings)
    first, second = [*one.opening(), *subject.ask(one)], [*other.opening(), *subject.ask(other)]
    if first != second:
        raise Broken("two codecs ask for the same symbols in different words")
    if not all(
        isinstance(each, str) and each for each in (*first, *one.probe(), *one.unsubscribe(symbols[:1]))
    ):
        raise Broken("a request is no text")
    names = {subject.settings.exchange_name(symbol) for symbol in symbols}
    if len(names) < len(set(symbols)):
        raise Broken("two symbols have the same name on the exchange: refuse that in a validator of Settings")
    for name, value in one.headers():
        if not (isinstance(name, str) and isinstance(value, str)):
            raise Broken(f"the header {name!r} is no text")


def explains(subject: Subject) -> None:
    """It understands every recorded message, or names what it leaves out on purpose."""
    _shown(subject.recording.connections, "a recording: messages of the upstream, as JSON lines")
    for _, heard in _all(subject):
        for reason, excerpt in heard.received.problems:
            if reason not in subject.accepted:
                raise Broken(f"a recorded message is a problem, {reason}: {excerpt}")
        if heard.received.lost and "lost" not in subject.accepted:
            raise Broken(f"a recorded message ends the connection: {heard.received.lost}")


def trades(subject: Subject) -> None:
    """Each trade has the source's name, a configured symbol, exact positive numbers and a credible time."""
    _shown(subject.trades, "a recording with trades")
    for trade in subject.trades:
        _check_trade(trade, subject)


def order(subject: Subject) -> None:
    """The trades of one message stand in the order of time, and those of a symbol in that of its sequence."""
    _shown(subject.trades, "a recording with trades")
    for connection in subject.heard:
        last: dict[str, int] = {}
        for heard in connection:
            newest: dict[str, int] = {}
            for trade in heard.trades:
                if trade.timestamp < newest.get(trade.symbol, 0):
                    raise Broken(f"a message gives newer trades before older ones: {heard.message[:EXCERPT]}")
                newest[trade.symbol] = trade.timestamp
                if trade.sequence is not None:
                    if trade.sequence <= last.get(trade.symbol, -1):
                        told = f"{last[trade.symbol]}, then {trade.sequence}"
                        raise Broken(f"the sequence of {trade.symbol} does not grow: {told}")
                    last[trade.symbol] = trade.sequence


def marks(subject: Subject) -> None:
    """A subscription leaves a mark, unless every trade has a sequence, which proves what is missing."""
    codec = subject.codec()
    for symbol in _symbols(subject):
        mark = codec.missed(symbol)
        if mark is None and any(each.sequence is None for each in subject.trades if each.symbol == symbol):
            raise Broken(
                f"missed({symbol!r}) is None, but trades of it have no sequence: a loss would be silent"
            )
        if mark is not None and (type(mark), mark.source, mark.symbol) != (Missed, NAME, symbol):
            raise Broken(f"missed({symbol!r}) must be a Missed of this source and symbol")


def answers(subject: Subject) -> None:
    """It reports the answer to a subscription, for each symbol that trades."""
    _shown(subject.trades, "a recording with trades")
    confirmed = {
        answer.topic
        for _, heard in _all(subject)
        for _, answer in heard.received.answers
        if isinstance(answer, Subscribed)
    }
    if not confirmed:
        raise NotShown("a recording with the answers to subscriptions")
    if silent := {trade.symbol for trade in subject.trades} - confirmed:
        raise Broken(f"no answer to the subscription of {', '.join(sorted(silent))} was reported")


def same(subject: Subject) -> None:
    """The same messages mean the same on every connection: nothing is kept from one to the next."""
    _shown(subject.recording.connections, "a recording")
    for messages, heard in zip(subject.recording.connections, subject.heard, strict=True):
        codec = subject.codec()
        for message, before in zip(messages, heard, strict=True):
            if (now := hear(codec, message)) != before.received:
                raise Broken(f"a second codec understands a message differently: {message[:EXCERPT]} ({now})")


def survives(subject: Subject) -> None:
    """Nothing that comes makes it raise, or makes a trade of what is none. Problems have names."""
    fresh = subject.codec()
    for codec in (
        fresh,
        *(subject.before(n, len(c)) for n, c in enumerate(subject.recording.connections[:2])),
    ):
        for message in garbage():
            received = _heard(codec, message)
            if received.items and trades_of(received):
                raise Broken(f"a trade was made of {message!r:.200}")
            _check_problems(received)


def guesses_nothing(subject: Subject) -> None:
    """A message that lacks something, or has something of a wrong type, gives no other trade than before.

    What it would have given is told to be lost: a problem with a name, a mark, or the end of the connection.
    """
    for codec, heard in _samples(subject):
        whole = trades_of(hear(twin(codec), heard.message))
        for each in spoilt(heard.message):
            received = _heard(twin(codec), each.message)
            left = trades_of(received)
            _check_problems(received)
            if not _is_part(left, whole):
                raise Broken(f"another trade came of a spoilt message ({each.how}): {each.message[:300]}")
            if each.loses and len(left) < len(whole) and not tells(received):
                raise Broken(f"a trade was lost in silence ({each.how}): {each.message[:300]}")


def ignores_additions(subject: Subject) -> None:
    """A field that it does not know changes nothing: upstreams add some without a word."""
    for codec, heard in _samples(subject):
        before = hear(twin(codec), heard.message)
        for each in extended(heard.message):
            received = _heard(twin(codec), each.message)
            if received.items != before.items or received.answers != before.answers:
                raise Broken(f"{each.how} changes what a message means: {each.message[:300]}")


def invents_nothing(subject: Subject) -> None:
    """Messages in a wrong order, twice, or after others were lost give only trades that were sent."""
    _shown(subject.trades, "a recording with trades")
    for seed, messages in enumerate(subject.recording.connections):
        sent = {_key(trade) for heard in subject.heard[seed] for trade in heard.trades}
        for attempt in range(3):
            dice = random.Random(seed * 10 + attempt)
            some = [*messages]
            if attempt == 0:
                some = [each for each in messages for _ in range(2)]
            elif attempt == 1:
                some = [each for each in messages if dice.random() < 0.8]
            else:
                dice.shuffle(some)
            codec = subject.codec()
            for message in some:
                for trade in trades_of(_heard(codec, message)):
                    if _key(trade) not in sent:
                        raise Broken(f"a trade that was not sent came of disorder: {trade}")


def fills(subject: Subject) -> None:
    """The filler asks in paths, and reads answers without ever raising anything but Unusable."""
    filler = _filler(subject)
    for symbol in _symbols(subject):
        missing = _missing(subject, symbol)
        for request in (filler.fill(missing), filler.latest([symbol])):
            if request is not None and not (
                isinstance(request, Request) and request.path.startswith("/") and request.weight > 0
            ):
                raise Broken(f"no request with a path and a weight: {request}")
        if filler.fill(missing) != filler.fill(missing):
            raise Broken("the same question is asked in different words")
        request = filler.fill(missing) or Request("/")
        for body in garbage():
            answer = body if isinstance(body, bytes) else body.encode(errors="surrogatepass")
            page = _page(filler, missing, request, answer)
            if page is not None and page.trades:
                raise Broken(f"a trade was made of the answer {answer!r:.200}")
            _newest(filler, [symbol], answer)


def fills_nothing_else(subject: Subject) -> None:
    """A spoilt answer gives no trade that the whole one does not hold."""
    filler = _filler(subject)
    _shown(subject.recording.answers, 'a recording with answers over HTTP: "dir": "rest"')
    for answer in subject.recording.answers:
        missing = Missing(NAME, answer.symbol, None, None)
        request = Request(answer.path)
        page = _page(filler, missing, request, answer.body)
        if page is None:
            raise Broken(f"a recorded answer cannot be used: {answer.body[:EXCERPT]!r}")
        for trade in page.trades:
            _check_trade(trade, subject)
            if trade.symbol != answer.symbol:
                raise Broken(f"a trade of {trade.symbol} in an answer for {answer.symbol}")
        if [each.timestamp for each in page.trades] != sorted(each.timestamp for each in page.trades):
            raise Broken("the trades of an answer are not the oldest first")
        for each in spoilt(answer.body.decode()):
            some = _page(filler, missing, request, each.message.encode())
            if some is not None and not _is_part(some.trades, page.trades):
                raise Broken(f"another trade came of a spoilt answer ({each.how}): {each.message[:300]}")
            if some is not None and each.loses and len(some.trades) < len(page.trades):
                raise Broken(
                    f"a part of an answer was left out in silence ({each.how}): {each.message[:300]}"
                )


Check = Callable[[Subject], None]
CHECKS: Final[Sequence[Check]] = (
    *(pure, asks, explains, trades, order, marks, answers, same, survives, guesses_nothing),
    *(ignores_additions, invents_nothing, fills, fills_nothing_else),
)


def promise(check: Check) -> str:
    """What a check promises, in one line."""
    return (inspect.getdoc(check) or "").partition("\n")[0]


def _imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module or ""


def _symbols(subject: Subject) -> Sequence[str]:
    if not subject.symbols:
        raise NotShown("symbols")
    return subject.symbols


def _shown(what: Iterable[object], would: str) -> None:
    if not any(True for _ in what):
        raise NotShown(would)


def _all(subject: Subject) -> Iterator[tuple[int, Heard]]:
    return ((n, heard) for n, connection in enumerate(subject.heard) for heard in connection)


def _samples(subject: Subject) -> Iterator[tuple[Codec, Heard]]:
    """Messages of different shapes, each with a codec that has heard all before it."""
    _shown(subject.trades, "a recording with trades")
    found: set[tuple[bool, str]] = set()
    left = {True: _SAMPLES, False: _OTHERS}
    for number, connection in enumerate(subject.heard):
        for index, heard in enumerate(connection):
            kind = bool(heard.trades)
            shape = (kind, re.sub(r"[0-9.]+|\"[^\"]{0,64}\"(?!:)", "_", heard.message)[:400])
            if shape not in found and left[kind]:
                found.add(shape)
                left[kind] -= 1
                yield subject.before(number, index), heard


def _heard(codec: Codec, message: str | bytes) -> Received[Item]:
    try:
        return hear(codec, message)
    except Exception as error:
        told = f"decode raises {type(error).__name__}: {error}"
        raise Broken(f"{told}; no message may make it raise: {message!r:.300}") from error


def _check_problems(received: Received[Item]) -> None:
    for reason, excerpt in received.problems:
        if not _REASON(reason):
            raise Broken(f"a problem must have a name like missing_field, not {reason!r}")
        if len(excerpt) > EXCERPT or not (excerpt.isascii() and excerpt.isprintable()):
            raise Broken(
                f"the excerpt of a problem must be short and printable (see excerpt()): {excerpt!r:.300}"
            )


def _check_trade(trade: Trade, subject: Subject) -> None:
    wrong = None
    if trade.source != NAME:
        wrong = f"the source must be the name that it was given, not {trade.source!r}"
    elif trade.symbol not in subject.symbols:
        wrong = f"{trade.symbol!r} is not among the configured symbols"
    elif trade.side not in ("buy", "sell", None):
        wrong = f"the side must be that of the taker, buy or sell, not {trade.side!r}"
    elif not (isinstance(trade.trade_id, str | None) and trade.trade_id != ""):
        wrong = f"the id must be a text, or None, not {trade.trade_id!r}"
    elif not all(_is_positive(each) for each in (trade.price, trade.quantity)):
        wrong = "price and quantity must be exact decimals greater than 0"
    elif not (type(trade.timestamp) is int and EARLIEST < trade.timestamp < LATEST):
        wrong = f"the time must be ns since the epoch, not {trade.timestamp!r}"
    elif not (trade.sequence is None or (type(trade.sequence) is int and trade.sequence >= 0)):
        wrong = f"the sequence must be a whole number, or None, not {trade.sequence!r}"
    if wrong:
        raise Broken(f"{wrong}: {trade}")


def _is_positive(value: Any) -> bool:
    return isinstance(value, Decimal) and value.is_finite() and value > 0


def _key(trade: Trade) -> tuple[Any, ...]:
    return trade.symbol, trade.trade_id, trade.side, trade.price, trade.quantity, trade.timestamp


def _is_part(some: Sequence[Trade], whole: Sequence[Trade]) -> bool:
    """Whether `some` are trades of `whole`, in its order."""
    rest = iter(map(_key, whole))
    return all(_key(trade) in rest for trade in some)


def _filler(subject: Subject) -> Filler:
    filler = subject.filler()
    if filler is None:
        raise NotShown("a class Filler in the connector: its upstream has no REST history, or it is not read")
    return filler


def _missing(subject: Subject, symbol: str) -> Missing:
    """The question for all but the first and the last of the recorded trades, or for the newest ones."""
    some = [trade for trade in subject.trades if trade.symbol == symbol]
    if len(some) < 2:
        return Missing(NAME, symbol, None, None)
    after, before = some[0], some[-1]
    if after.sequence is None or before.sequence is None:
        return Missing(NAME, symbol, after, before)
    return Missing(
        NAME, symbol, after, before, after.sequence + 1, max(after.sequence + 1, before.sequence - 1)
    )


def _page(filler: Filler, missing: Missing, request: Request, answer: bytes) -> Page | None:
    try:
        return filler.filled(missing, request, answer)
    except Unusable as problem:
        if not _REASON(problem.reason):
            raise Broken(f"a problem must have a name like missing_field, not {problem.reason!r}") from None
        return None
    except Exception as error:
        told = f"filled raises {type(error).__name__}: {error}"
        raise Broken(f"{told}; only Unusable may come of an answer: {answer!r:.300}") from error


def _newest(filler: Filler, symbols: Sequence[str], answer: bytes) -> None:
    try:
        told = filler.newest(symbols, answer)
    except Unusable:
        return
    except Exception as error:
        raise Broken(f"newest raises {type(error).__name__}: {error}: {answer!r:.300}") from error
    if not all(symbol in symbols and isinstance(each, Newest) for symbol, each in told.items()):
        raise Broken(f"newest tells of what nobody asked for: {told}")
