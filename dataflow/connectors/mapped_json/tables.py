"""The tables of a mapping: what is said to the upstream, how it answers, and where a trade has what.

Rules of this file: pure. Every mistake that can be seen without the upstream is found here, so that `dataflow
check` tells it. README.md of the connectors explains the keys.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, Literal, TypeAlias

import msgspec
from attrs import Attribute, field, frozen, validators

from .paths import Condition, check_condition, check_path, check_template, filled, inside_json, is_json
from .paths import placeholders as named

Side: TypeAlias = Literal["buy", "sell"]
TimeUnit: TypeAlias = Literal["s", "ms", "us", "ns", "rfc3339"]

SYMBOL: Final = ("symbol", "symbol:lower", "symbol:upper")
SYMBOLS: Final = "symbols"
ID: Final = "id"
FORM: Final = ("BASE", "base", "QUOTE", "quote", "SYMBOL", "symbol")
OF_REST: Final = (*SYMBOL, "after_id", "after_sequence", "after_ms", "after_s", "next_sequence")
_PATH: Final = re.compile(r"/[!-~]*")

Check: TypeAlias = Callable[[Any, "Attribute[Any]", Any], None]


def _check(rule: Callable[[Any], None]) -> Check:
    """A validator of attrs; an empty value is one that was not written."""
    return lambda _made, _attribute, value: rule(value) if value not in ("", None) else None


def _each(rule: Callable[[Any], None]) -> Check:
    def check(_made: Any, _attribute: Attribute[Any], value: Sequence[Any]) -> None:
        for each in value:
            rule(each)

    return check


def _needed(rule: Callable[[Any], None]) -> Check:
    return lambda _made, _attribute, value: rule(value)


def _named(text: str) -> None:
    """A text in which `{symbol}` stands for the exchange's name."""
    check_template(text, SYMBOL)
    if not named(text):
        raise ValueError('must have {symbol} in it: it tells the name from the rest, as in "trades_{symbol}"')


def _message(valid: Sequence[str], text: str) -> None:
    """A message to the upstream. One that means to be JSON must be it."""
    check_template(text, valid)
    if not text:
        raise ValueError("must not be empty")
    if is_json(text):
        sample = {**dict.fromkeys(SYMBOL, "X"), SYMBOLS: '["X"]', ID: "1"}
        try:
            msgspec.json.decode(filled(text, sample))
        except msgspec.DecodeError as error:
            raise ValueError(f"must be JSON, once its placeholders are filled: {error}") from None


def _of_symbols(text: str) -> None:
    names = set(named(text))
    check_template(text, (*SYMBOL, SYMBOLS, ID))
    if (SYMBOLS in names) == (not names.isdisjoint(SYMBOL)):
        raise ValueError("must have either {symbol}, for one message each, or {symbols}, a list of them")
    _message((*SYMBOL, SYMBOLS, ID), text)


def _one_of_many(text: str) -> None:
    _named(text)
    if is_json(text):
        _message(SYMBOL, text)


@frozen(kw_only=True)
class Requests:
    """`[sources.NAME.requests]`: templates of what is said.

    `each`: one symbol of the list `{symbols}`; JSON, or a text that becomes one of JSON. `most`: symbols in
    one list. `most_of_connection`: symbols on one connection, more need more connections; 0: any number.
    """

    subscribe: str = field(default="", validator=_check(_of_symbols))
    unsubscribe: str = field(default="", validator=_check(_of_symbols))
    probe: str = field(default="", validator=_check(partial(_message, (ID,))))
    opening: tuple[str, ...] = field(default=(), validator=_each(partial(_message, ())))
    each: str = field(default="{symbol}", validator=_needed(_one_of_many))
    most: int = field(default=50, validator=validators.gt(0))
    most_of_connection: int = field(default=0, validator=validators.ge(0))

    def told_each(self, name: str) -> str:
        """One symbol of a list, as JSON. `name`: the exchange's."""
        if is_json(self.each):
            return filled(self.each, spellings(name, inside_json))
        return f'"{inside_json(filled(self.each, spellings(name)))}"'


@frozen(kw_only=True)
class Answer:
    """How an answer looks, and whom it concerns.

    `symbol`: the path of the names; `symbol_form`: the text in which a name stands there. `id`: the path of
    our number. Without both it answers the oldest open request. `reason`: the path of the words of a refusal.
    `is_all`: it names all that is subscribed now.
    """

    when: Condition = field(validator=_needed(check_condition))
    symbol: str = field(default="", validator=_check(partial(check_path, each=True)))
    symbol_form: str = field(default="{symbol}", validator=_needed(_named))
    id: str = field(default="", validator=_check(check_path))
    reason: str = field(default="", validator=_check(check_path))
    is_all: bool = field(default=False)

    @is_all.validator
    def _has_names(self, _attribute: object, value: bool) -> None:
        if value and not self.symbol:
            raise ValueError("must come with symbol, the path of the names")


@frozen(kw_only=True)
class Answers:
    """`[sources.NAME.answers]`: messages that are no trades.

    `assumed`: the upstream acknowledges nothing, so its next message counts as the acknowledgement.
    `leaving`: it announces its end. `ignored`: messages that mean nothing here, such as heartbeats.
    """

    subscribed: Answer | None = None
    unsubscribed: Answer | None = None
    refused: Answer | None = None
    assumed: bool = field(default=False)
    leaving: Condition = field(factory=dict)
    ignored: tuple[Condition, ...] = field(default=(), validator=_each(check_condition))

    @leaving.validator
    def _can_be_asked(self, _attribute: object, value: Condition) -> None:
        if value:
            check_condition(value)

    @assumed.validator
    def _or_told(self, _attribute: object, value: bool) -> None:
        if value and self.subscribed is not None:
            raise ValueError("must not be true where subscribed tells how the acknowledgement looks")


@frozen(kw_only=True)
class Fields:
    """Where trades are, and what is where in each; a path each.

    `at`: the trade, or with `*` each trade, in the message. `sides`: what the upstream writes: the side of
    the taker. `is_signed`: the sign of the quantity is the side, a sale is negative. `sequence`: a number
    that grows by one from trade to trade of a symbol. `newest_first`: a message has them in that order.
    """

    at: str = field(default="", validator=_check(partial(check_path, each=True)))
    symbol: str = field(default="", validator=_check(check_path))
    symbol_form: str = field(default="{symbol}", validator=_needed(_named))
    price: str = field(validator=_needed(check_path))
    quantity: str = field(validator=_needed(check_path))
    time: str = field(validator=_needed(check_path))
    time_unit: TimeUnit
    side: str = field(default="", validator=_check(check_path))
    sides: Mapping[str, Side] = field(factory=dict)
    is_signed: bool = False
    id: str = field(default="", validator=_check(check_path))
    sequence: str = field(default="", validator=_check(check_path))
    newest_first: bool = False

    @at.validator
    def _is_in_the_message(self, _attribute: object, value: str) -> None:
        if value.startswith("="):
            raise ValueError('must be a path; "=" is for values')

    @sides.validator
    def _with_side(self, _attribute: object, value: Mapping[str, Side]) -> None:
        if value and not self.side:
            raise ValueError("must come with side, the path of what it translates")

    @side.validator
    def _with_sides(self, _attribute: object, value: str) -> None:
        if value and self.is_signed:
            raise ValueError("must not come with is_signed: both tell the side")
        if value and not self.sides:
            raise ValueError('must come with sides, such as { B = "buy", S = "sell" }: the side of the taker')


@frozen(kw_only=True)
class Trades(Fields):
    """`[sources.NAME.trades]`: the messages that bring trades.

    `is_replayed`: after a subscription the upstream repeats the newest trades.
    """

    when: Condition = field(validator=_needed(check_condition))
    symbol: str = field(validator=_needed(check_path))
    is_replayed: bool = field(default=False)

    @is_replayed.validator
    def _can_be_recognised(self, _attribute: object, value: bool) -> None:
        if value and not self.id and not self.sequence:
            raise ValueError("must come with id or sequence, or each repeated trade would count twice")


def _rest_path(text: str) -> None:
    check_template(text, OF_REST)
    if _PATH.fullmatch(text) is None:
        raise ValueError('must begin with "/", and have no blanks: it stands behind refill_url')


@frozen(kw_only=True)
class Rest:
    """`[sources.NAME.rest]`: how past trades are asked for by HTTP.

    `newest`: the path of the newest trades. `after`: the path of the trades behind a known one; without it
    only the newest can be had. `weight`: what a request costs; `weight_header`: the header of an answer that
    tells the weight used in this minute. `trades`: where a trade has what in an answer;
    without a path of the symbol it is the one that was asked for.
    """

    newest: str = field(validator=_needed(_rest_path))
    after: str = field(default="", validator=_check(_rest_path))
    weight: int = field(default=1, validator=validators.gt(0))
    weight_header: str = ""
    trades: Fields


def spellings(name: str, written: Callable[[str], str] = str) -> dict[str, str]:
    """What the placeholders of a symbol stand for. `name`: the exchange's."""
    values = (name, name.lower(), name.upper())
    return {key: written(value) for key, value in zip(SYMBOL, values, strict=True)}
