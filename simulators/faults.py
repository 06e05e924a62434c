"""Faults of messages, on purpose. Pure: decides what happens to each message, and sends nothing itself.

Rule 1: a fault strikes market data only (`refuse`: subscriptions only; `rest_...`: questions by HTTP only),
never answers and heartbeats. A stalled connection swallows those too.
Rule 2: the random numbers are seeded, so a run can be repeated.
Rule 3: at most one fault strikes a message: the oldest one that fits.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from typing import Any, Literal, TypeAlias, get_args

from attrs import Attribute, asdict, define, field, frozen, validators

Kind: TypeAlias = Literal[
    "drop",
    "duplicate",
    "reorder",
    "delay",
    "stall",
    "mute",
    "skip",
    "truncate",
    "garbage",
    "refuse",
    "rest_error",
    "rest_limit",
    "rest_slow",
    "rest_endless",
    "rest_huge",
    "rest_redirect",
    "rest_half",
    "rest_lie",
]
KINDS: tuple[str, ...] = get_args(Kind)


def _at_least(low: int) -> Callable[[Fault, Attribute[Any], Any], None]:
    def check(fault: Fault, attribute: Attribute[Any], value: Any) -> None:
        if value is not None and not value >= low:
            raise ValueError(f"{attribute.name} must be at least {low}, not {value}")

    return check


@define
class Fault:
    """One fault in force.

    `times` is how many messages it strikes (None: no limit). `probability` is the chance for each message.
    `symbol` is the only symbol that it strikes (None: all). `seconds` is how long a `delay`, a `stall` or a
    `rest_slow` lasts, and what `rest_limit` asks the client to wait (1 without it); a stall without it lasts
    as long as the connection. `struck` counts.
    """

    kind: Kind = field(validator=validators.in_(KINDS))
    times: int | None = field(default=1, validator=_at_least(1))
    probability: float = field(default=1.0, validator=[validators.ge(0.0), validators.le(1.0)])
    symbol: str | None = None
    seconds: float | None = field(default=None, validator=_at_least(0))
    id: int = 0
    struck: int = 0

    @property
    def spent(self) -> bool:
        """Whether it has struck `times` messages."""
        return self.times is not None and self.struck >= self.times


@define
class Faults:
    """The faults in force on one exchange, and how many messages were struck, by kind."""

    seed: int = 0
    struck: dict[str, int] = field(factory=dict)
    _active: list[Fault] = field(factory=list)
    _made: int = 0
    _dice: random.Random = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._dice = random.Random(self.seed)

    def add(
        self,
        kind: Kind,
        *,
        times: int | None = 1,
        probability: float = 1.0,
        symbol: str | None = None,
        seconds: float | None = None,
    ) -> Fault:
        """Add a fault. ValueError when the parameters make no sense; the message says what would."""
        if kind in ("delay", "rest_slow") and seconds is None:
            raise ValueError(f"a {kind} needs `seconds`")
        self._made += 1
        fault = Fault(kind, times, probability, symbol, seconds, id=self._made)
        self._active.append(fault)
        return fault

    def withdraw(self, number: int | None = None) -> int:
        """Remove the fault with this id (None: all faults); returns how many were removed."""
        gone = [fault for fault in self._active if number is None or fault.id == number]
        self._active = [fault for fault in self._active if fault not in gone]
        return len(gone)

    def active(self) -> list[dict[str, Any]]:
        """The faults in force, as plain data."""
        return [asdict(fault) for fault in self._active]

    def strike(self, symbol: str, *kinds: Kind) -> Fault | None:
        """The fault that strikes a message about `symbol` now, if any, and count it.

        Only `kinds` are tried; without them, the kinds that strike data.
        """
        return self._first((symbol,), kinds or ON_DATA)

    def strike_question(self, words: Collection[str]) -> Fault | None:
        """The fault that strikes a question by HTTP with these words, if any, and count it."""
        return self._first(words, ON_QUESTIONS)

    def _first(self, names: Collection[str], kinds: tuple[Kind, ...]) -> Fault | None:
        for fault in self._active:
            if self._strikes(fault, names, kinds):
                return self._count(fault)
        return None

    def _strikes(self, fault: Fault, names: Collection[str], kinds: tuple[Kind, ...]) -> bool:
        if fault.kind not in kinds or not (fault.symbol is None or fault.symbol in names):
            return False
        return fault.probability >= 1.0 or self._dice.random() < fault.probability

    def _count(self, fault: Fault) -> Fault:
        fault.struck += 1
        self.struck[fault.kind] = self.struck.get(fault.kind, 0) + 1
        self._active = [each for each in self._active if not each.spent]
        return fault

    def noise(self) -> str:
        """A text that no exchange would send: random by the seed, printable, and not JSON."""
        return "\x7f" + "".join(self._dice.choices('{}[]:,"\\abcdef0123456789\u00e9\u2603', k=24))


ON_DATA: tuple[Kind, ...] = (
    *("drop", "duplicate", "reorder", "delay", "stall", "mute", "skip", "truncate", "garbage"),
)
ON_QUESTIONS: tuple[Kind, ...] = tuple(kind for kind in get_args(Kind) if kind.startswith("rest_"))
SILENCE = float("inf")


@frozen
class Wait:
    """A pause: everything behind it in the outbox waits for so many seconds."""

    seconds: float


Piece: TypeAlias = str | Wait


def mangle(fault: Fault | None, text: str, faults: Faults) -> tuple[list[Piece], list[Piece]]:
    """The texts to send instead of `text` now, and those behind the next message of the connection."""
    match fault.kind if fault else None:
        case "drop" | "mute":
            return [], []
        case "duplicate":
            return [text, text], []
        case "reorder":
            return [], [text]
        case "delay":
            assert fault is not None
            return [Wait(fault.seconds or 0.0), text], []
        case "truncate":
            return [text[: len(text) // 2]], []
        case "garbage":
            return [faults.noise(), text], []
    return [text], []
