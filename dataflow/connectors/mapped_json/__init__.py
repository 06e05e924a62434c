"""Any JSON over WebSocket, by configuration alone: `connector = "mapped_json"`.

Rules of this file. The mapping says what a message means; nothing else is known of the upstream, and nothing
is guessed. A message is tried against the conditions of the mapping in this order: trades, refused,
subscribed, unsubscribed, leaving, ignored; the first one that holds decides. A message that fits none is a
problem with a name.

An answer names its symbols, or repeats the number of our request, or it is that of our oldest open request
of its kind, for an upstream answers in order. Nothing is believed that nobody asked for.

Without a sequence, a trade that cannot be read is marked as a loss of its symbol, or of all if it names none;
so is a message that cannot be read, for it may have been a trade.

Problems: not_text, malformed_json, unknown_message, missing_field, unknown_symbol, bad_timestamp, bad_side,
bad_price, bad_quantity, bad_trade_id, bad_sequence, unknown_answer, rejected.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import count, islice
from typing import Any, Final
from urllib.parse import quote

from attrs import Factory, field, frozen

from actors.connector import Received
from dataflow.domain import Item, Missed, Missing, Trade
from dataflow.sources.port import Newest, Page, Proof, Request, SourceSettings, told_apart
from dataflow.sources.reading import Unusable, decoded, excerpt, words_of

from .fields import Names, Reader
from .paths import (
    ABSENT,
    all_finder,
    check_template,
    condition,
    decode_json,
    filled,
    finder,
    inside_json,
    placeholders,
)
from .tables import FORM, ID, SYMBOLS, Answer, Answers, Requests, Rest, Trades, spellings

OPEN: Final = 1000  # requests whose answers are waited for; the oldest are forgotten

_SUBSCRIBE: Final = "subscribe"
_UNSUBSCRIBE: Final = "unsubscribe"
_PROBE: Final = "probe"
_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


@frozen(kw_only=True)
class Settings(SourceSettings):
    """The keys of a mapping. `form`: what the upstream calls a symbol, made of `{BASE}`, `{quote}` and so on.

    `headers`: of the handshake. `requests`, `answers`, `trades` and `rest` are tables of their own.
    """

    form: str = field(default="{SYMBOL}")
    headers: Mapping[str, str] = field(default=Factory(dict), repr=False)
    requests: Requests = field(factory=Requests)
    answers: Answers = field(factory=Answers)
    trades: Trades
    rest: Rest | None = field(default=None)
    symbols: tuple[str, ...] = field(default=(), validator=told_apart)

    @property
    def symbols_a_request(self) -> int:  # type: ignore[override]  # here the mapping tells
        """Those that the template has room for."""
        return self.requests.most if SYMBOLS in placeholders(self.requests.subscribe) else 1

    @property
    def symbols_a_connection(self) -> int:  # type: ignore[override]
        """As the mapping says."""
        return self.requests.most_of_connection or sys.maxsize

    @property
    def numbered(self) -> Proof:
        return Proof.NUMBERS if self.trades.sequence else Proof.NOTHING

    @property
    def weight_header(self) -> str | None:  # type: ignore[override]
        """As the mapping says."""
        return (self.rest and self.rest.weight_header) or None

    @rest.validator
    def _has_an_address(self, _attribute: object, value: Rest | None) -> None:
        if value is not None and not self.refill_url:
            raise ValueError("must come with refill_url, scheme and host of what is asked")
        if value is None and self.refill_url:
            raise ValueError("is missing: refill_url says whom to ask, and this table would say how")

    @form.validator
    def _can_be_filled(self, _attribute: object, value: str) -> None:
        check_template(value, FORM)
        if not placeholders(value):
            raise ValueError('must have a symbol in it, such as "{BASE}/{QUOTE}"')

    @headers.validator
    def _can_be_sent(self, _attribute: object, value: Mapping[str, str]) -> None:
        for name, text in value.items():
            if _HEADER.fullmatch(name) is None or not text.isprintable() or not text.isascii():
                raise ValueError(f"must have names and values that HTTP can send; {name} is wrong")

    @symbols.validator
    def _can_be_named(self, _attribute: object, value: tuple[str, ...]) -> None:
        for symbol in value:
            if symbol not in self.names and symbol.count("-") > 1 and not _is_whole(self.form):
                raise ValueError(f"{symbol} has more than a base and a quote: names must tell its name there")

    @answers.validator
    def _fit_the_requests(self, _attribute: object, value: Answers) -> None:
        if not self.requests.subscribe and not value.assumed:
            raise ValueError(
                "must have assumed = true where [requests] has no subscribe: nothing will be acknowledged"
            )
        if value.subscribed is None and not value.assumed:
            raise ValueError(
                "must tell how an acknowledgement looks, subscribed = { when = ... }, or assumed = true where"
                " the upstream sends none"
            )
        by_id = [each for each in (value.subscribed, value.refused) if each is not None and each.id]
        if by_id and ID not in placeholders(self.requests.subscribe):
            raise ValueError("must not have id where the template subscribe has no {id} to be repeated")

    def derived(self, symbol: str) -> str:
        """As `form` says."""
        base, _, quote = symbol.partition("-")
        values = (base, base.lower(), quote, quote.lower(), symbol, symbol.lower())
        return filled(self.form, dict(zip(FORM, values, strict=True)))


def _is_whole(form: str) -> bool:
    return not {"SYMBOL", "symbol"}.isdisjoint(placeholders(form))


class Codec:
    """The language of a mapping, for one connection."""

    def __init__(self, name: str, settings: Settings) -> None:
        self._name = name
        self._exchange_name = settings.exchange_name
        self._requests, self._headers = settings.requests, settings.headers
        self._mark = (
            None
            if settings.trades.sequence
            else Missed(name, "", "source_gap", resubscribed=settings.trades.is_replayed)
        )
        known = settings.symbols
        self._names = Names(settings.trades.symbol_form, settings.exchange_name, known)
        self._trades = Reader(name, settings.trades, self._names)
        self._is_trades = condition(settings.trades.when)
        answers = settings.answers
        self._assumed = answers.assumed
        make = self._answer
        self._subscribed = make(answers.subscribed, known)
        self._unsubscribed = make(answers.unsubscribed, known)
        self._refused = make(answers.refused, known)
        self._is_leaving = condition(answers.leaving) if answers.leaving else None
        self._ignored = [condition(each) for each in answers.ignored]
        self._ids = count(1)
        self._open: dict[int, tuple[str, list[str]]] = {}  # our requests by number, the oldest first
        self._held: dict[str, None] = {}  # subscribed, as far as the upstream has told

    def headers(self) -> Collection[tuple[str, str]]:
        """Those of the mapping."""
        return tuple(self._headers.items())

    def opening(self) -> Sequence[str]:
        """The messages of the mapping."""
        return self._requests.opening

    def subscribe(self, symbols: Collection[str]) -> Sequence[str]:
        """A request for each symbol, or for several where the template has a list."""
        for symbol in symbols:
            for names in self._all_names():
                names.add(symbol)
        messages = self._ask(_SUBSCRIBE, self._requests.subscribe, symbols)
        if self._assumed and self._requests.probe:
            messages += self.probe()  # something that is answered, in a market that may be silent
        return messages

    def unsubscribe(self, symbols: Collection[str]) -> Sequence[str]:
        """Likewise. Nothing where the mapping has no such template: the trades go on, and are admitted."""
        return (
            self._ask(_UNSUBSCRIBE, self._requests.unsubscribe, symbols) if self._requests.unsubscribe else []
        )

    def probe(self) -> Sequence[str]:
        """The message of the mapping, if it has one."""
        return [self._request(_PROBE, self._requests.probe, ())] if self._requests.probe else []

    def missed(self, symbol: str) -> Missed | None:
        """A mark, unless a sequence shows missing trades."""
        mark = self._mark
        return mark and Missed(mark.source, symbol, mark.reason, resubscribed=mark.resubscribed)

    def decode(self, message: str | bytes, into: Received[Item]) -> None:
        """Add the content of `message` to `into`. The top of this file lists the problems."""
        try:
            said = decoded(message, decode_json)
        except Unusable as problem:
            self._lose(self._held, into)
            into.problems.append((problem.reason, excerpt(message)))
            return
        try:
            if self._is_trades(said):
                self._assume(into)
                self._take_trades(said, message, into)
            elif self._refused is not None and self._refused.fits(said):
                self._take_refusal(self._refused, said, into)
            else:
                self._assume(into)
                self._take_other(said, into)
        except Unusable as problem:
            into.problems.append((problem.reason, excerpt(message)))

    def _take_trades(self, said: Any, message: str | bytes, into: Received[Item]) -> None:
        try:
            parts = self._trades.parts(said)
        except Unusable:
            self._lose(self._held, into)
            raise
        for part in parts:
            try:
                into.items.append(self._trades.trade(said, part))
            except Unusable as problem:
                self._lose(self._affected(said, part), into)
                into.problems.append((problem.reason, excerpt(message)))

    def _affected(self, said: Any, part: Any) -> Collection[str]:
        """The subscribed symbols of which a trade that cannot be read may be."""
        try:
            symbol = self._trades.symbol(said, part)
        except Unusable:
            return ()
        return self._held if symbol is None else self._held.keys() & {symbol}

    def _lose(self, symbols: Iterable[str], into: Received[Item]) -> None:
        """A trade of these could not be read. A sequence would show that by itself."""
        if self._mark is not None:
            into.items.extend(Missed(self._mark.source, each, self._mark.reason) for each in symbols)

    def _take_other(self, said: Any, into: Received[Item]) -> None:
        if self._subscribed is not None and self._subscribed.fits(said):
            self._take_answer(_SUBSCRIBE, self._subscribed, said, into)
        elif self._unsubscribed is not None and self._unsubscribed.fits(said):
            self._take_answer(_UNSUBSCRIBE, self._unsubscribed, said, into)
        elif self._is_leaving is not None and self._is_leaving(said):
            into.leaving = "the upstream announced its end"
        elif not any(fits(said) for fits in self._ignored):
            raise Unusable("unknown_message")

    # -- answers --------------------------------------------------------------------------------------

    def _take_answer(self, kind: str, answer: _Answer, said: Any, into: Received[Item]) -> None:
        if answer.is_all:
            self._compare(frozenset(answer.symbols(said)), into)
            return
        kind, symbols = self._answered(kind, answer, said)
        if kind == _SUBSCRIBE:
            self._has(symbols, into)
        elif kind == _UNSUBSCRIBE:
            self._has_not(symbols, into)

    def _has(self, symbols: Iterable[str], into: Received[Item]) -> None:
        self._held.update(dict.fromkeys(symbols))
        into.subscribed(*symbols)

    def _has_not(self, symbols: Iterable[str], into: Received[Item]) -> None:
        for symbol in symbols:
            self._held.pop(symbol, None)
        into.unsubscribed(*symbols)

    def _take_refusal(self, answer: _Answer, said: Any, into: Received[Item]) -> None:
        try:
            kind, symbols = self._answered(_SUBSCRIBE, answer, said)
        except Unusable:
            raise Unusable("rejected") from None
        if kind != _SUBSCRIBE:
            raise Unusable("rejected")
        into.refused(answer.reason(said), *symbols)

    def _answered(self, kind: str, answer: _Answer, said: Any) -> tuple[str, Sequence[str]]:
        """The kind and the symbols of the request that is answered. Raises Unusable if there is none."""
        if answer.has_id:
            number = answer.number(said)
            if number not in self._open:
                raise Unusable("unknown_answer")
            return self._open.pop(number)
        if answer.has_symbols:
            named = answer.symbols(said)
            if not named or not self._close_all(kind, named):
                raise Unusable("unknown_answer")
            return kind, named
        oldest = next((number for number, (of, _) in self._open.items() if of == kind), None)
        if oldest is None:
            raise Unusable("unknown_answer")
        return self._open.pop(oldest)

    def _close_all(self, kind: str, symbols: Sequence[str]) -> bool:
        closed = [self._close(kind, symbol) for symbol in symbols]
        return all(closed)

    def _close(self, kind: str, symbol: str) -> bool:
        """The request for `symbol` is answered. Returns whether there was one."""
        for number, (of, symbols) in self._open.items():
            if of == kind and symbol in symbols:
                symbols.remove(symbol)
                if not symbols:
                    del self._open[number]
                return True
        return False

    def _compare(self, now: Collection[str], into: Received[Item]) -> None:
        """The upstream has told all that is subscribed now."""
        for symbol in now:
            self._close(_SUBSCRIBE, symbol)
        new, gone = sorted(set(now) - self._held.keys()), sorted(self._held.keys() - now)
        self._has(new, into)
        self._has_not(gone, into)

    def _assume(self, into: Received[Item]) -> None:
        """Whatever came, the upstream has taken our subscriptions, if the mapping says so."""
        if not self._assumed or not self._open:
            return
        for number in [number for number, (kind, _) in self._open.items() if kind == _SUBSCRIBE]:
            self._has(self._open.pop(number)[1], into)

    # -- requests -------------------------------------------------------------------------------------

    def _ask(self, kind: str, template: str, symbols: Iterable[str]) -> list[str]:
        if not template:  # everything comes by itself
            self._remember(next(self._ids), kind, list(symbols))
            return []
        rest = iter(symbols)
        most = self._requests.most if SYMBOLS in placeholders(template) else 1
        messages = []
        while some := tuple(islice(rest, most)):
            messages.append(self._request(kind, template, some))
        return messages

    def _request(self, kind: str, template: str, symbols: Sequence[str]) -> str:
        number = next(self._ids)
        if kind != _UNSUBSCRIBE or self._unsubscribed is not None or ID in placeholders(template):
            self._remember(number, kind, list(symbols))
        names = [self._exchange_name(symbol) for symbol in symbols]
        values = {ID: str(number), SYMBOLS: f"[{', '.join(map(self._requests.told_each, names))}]"}
        if len(names) == 1:
            values |= spellings(names[0], inside_json)
        return filled(template, values)

    def _remember(self, number: int, kind: str, symbols: list[str]) -> None:
        self._open[number] = (kind, symbols)
        if len(self._open) > OPEN:
            del self._open[next(iter(self._open))]

    def _answer(self, written: Answer | None, known: Iterable[str]) -> _Answer | None:
        if written is None:
            return None
        return _Answer(written, Names(written.symbol_form, self._exchange_name, known))

    def _all_names(self) -> Iterable[Names]:
        yield self._names
        yield from (each.names for each in (self._subscribed, self._unsubscribed, self._refused) if each)


class _Answer:
    """Recognises and reads one kind of answer."""

    def __init__(self, written: Answer, names: Names) -> None:
        self.names = names
        self.fits = condition(written.when)
        self.has_symbols, self.has_id, self.is_all = bool(written.symbol), bool(written.id), written.is_all
        self._find_names = all_finder(written.symbol)
        self._find_id = finder(written.id)
        self._find_reason = finder(written.reason) if written.reason else None

    def symbols(self, said: Any) -> list[str]:
        """The symbols that it names. Raises Unusable."""
        found: list[Any] = []
        for value in self._find_names(said):
            if value is not ABSENT:
                found += value if type(value) is list else [value]
        return list(dict.fromkeys(self.names.symbol(each) for each in found))

    def number(self, said: Any) -> int | None:
        """The number of our request; None if there is none."""
        found = self._find_id(said, said)
        if type(found) is str and found.isascii() and found.isdecimal() and len(found) < 20:
            found = int(found)
        return found if type(found) is int else None

    def reason(self, said: Any) -> str:
        """The words of the upstream."""
        found = None if self._find_reason is None else self._find_reason(said, said)
        return words_of(str(found) if isinstance(found, int) else found)


class Filler:
    """Past trades by HTTP, where the mapping has `[rest]`."""

    def __init__(self, name: str, settings: Settings) -> None:
        self._rest = settings.rest
        self._exchange_name = settings.exchange_name
        self._reader = None
        if settings.rest is not None:
            of = settings.rest.trades
            names = Names(of.symbol_form, settings.exchange_name, settings.symbols) if of.symbol else None
            self._reader = Reader(name, of, names)

    def fill(self, missing: Missing) -> Request | None:
        """The trades behind the last known one, or the newest."""
        return None if self._rest is None else self._request(self._rest, missing.symbol, missing.after)

    def filled(self, missing: Missing, request: Request, answer: bytes) -> Page:
        """The trades of an answer that were asked for. Raises Unusable."""
        assert self._rest is not None
        trades = [each for each in self._trades(missing.symbol, answer) if _is_asked(each, missing)]
        following = None
        if self._rest.after and trades and _goes_on(trades[-1], missing):
            following = self._request(self._rest, missing.symbol, trades[-1])
        return Page(trades, None if following == request else following)

    def latest(self, symbols: Sequence[str]) -> Request | None:
        """The newest trades of the first symbol."""
        return None if self._rest is None else self._request(self._rest, symbols[0], None)

    def newest(self, symbols: Sequence[str], answer: bytes) -> Mapping[str, Newest]:
        """The last trade of the answer."""
        trades = self._trades(symbols[0], answer)
        return {each.symbol: Newest.of(each) for each in trades[-1:]}

    def _request(self, rest: Rest, symbol: str, after: Trade | None) -> Request:
        values = spellings(self._exchange_name(symbol), _in_address)
        if after is None or not rest.after:
            return Request(filled(rest.newest, values), rest.weight)
        sequence = after.sequence
        values |= {
            "after_id": _in_address(after.trade_id or ""),
            "after_sequence": "" if sequence is None else str(sequence),
            "next_sequence": "" if sequence is None else str(sequence + 1),
            "after_ms": str(after.timestamp // 10**6),
            "after_s": str(after.timestamp // 10**9),
        }
        return Request(filled(rest.after, values), rest.weight)

    def _trades(self, symbol: str, answer: bytes) -> list[Trade]:
        assert self._reader is not None
        try:
            said = decoded(answer.decode(), decode_json)
        except UnicodeDecodeError:
            raise Unusable("malformed_json") from None
        return [self._reader.trade(said, part, symbol) for part in self._reader.parts(said)]


def _is_asked(trade: Trade, missing: Missing) -> bool:
    """Whether a trade lies between the known ones. These two belong to it: they prove that nothing else is
    missing."""
    return _lies(trade, missing.after) >= 0 and _lies(trade, missing.before) <= 0


def _lies(trade: Trade, known: Trade | None) -> int:
    """Behind a known trade (1), before it (-1), or neither, as far as one can tell (0)."""
    if known is None:
        return 0
    if trade.sequence is not None and known.sequence is not None:
        return (trade.sequence > known.sequence) - (trade.sequence < known.sequence)
    return (trade.timestamp > known.timestamp) - (trade.timestamp < known.timestamp)


def _goes_on(newest: Trade, missing: Missing) -> bool:
    """Whether there may be more behind the newest trade of an answer."""
    before = missing.before
    if newest.sequence is not None and missing.last is not None:
        return newest.sequence < missing.last
    return before is None or _lies(newest, before) < 0


def _in_address(text: str) -> str:
    return quote(text, safe="")
