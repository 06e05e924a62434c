"""The tables of the configuration: one class per table.

Rules of this file: defaults are written here. `config/server.toml` repeats each with its unit and its effect,
and a test compares the two. Durations are seconds.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import Any

from attrs import Factory, field, frozen, validators

from actors.outbox import SlowClient
from dataflow.domain.candle import SECOND, CandleRules, interval
from dataflow.net.address import check_origin, parse, parse_proxy
from dataflow.sources.port import AnySourceSettings

from .structure import Rules, shown

_positive: Any = validators.gt(0)
_not_negative: Any = validators.ge(0)
_NAME = r"[0-9A-Za-z._-]+"
_STEP = r"/[0-9A-Za-z._~-]+"  # of a path
_ORIGIN = r"\*|null|[a-z][a-z0-9+.-]*://[^/\sA-Z]+"


def _each(pattern: str, values: Sequence[str], valid: str) -> None:
    """Raises ValueError unless every value matches."""
    for value in values:
        if not re.fullmatch(pattern, value):
            raise ValueError(f"must be a list, each {valid}; {shown(value)} is not")


def check_origins(values: Sequence[str]) -> None:
    """Raises ValueError unless every value can be the origin of a page."""
    _each(_ORIGIN, values, 'scheme://host or scheme://host:port in small letters, or "*"')


def check_path(_settings: object, _attribute: object, value: str) -> None:
    """The validator of the path of a face. Raises ValueError."""
    if not re.fullmatch(f"({_STEP})+", value):
        raise ValueError('must begin with "/" and not end with it, such as "/v1/prices"')


def why_not_sendable(token: str) -> str | None:
    """Why no header can carry a token; None if one can. It is sent as UTF-8."""
    try:
        sent = token.encode(errors="surrogateescape")  # the environment's bytes, UTF-8 or not
    except UnicodeEncodeError:
        return "holds a character that UTF-8 cannot express"
    if re.search(rb"[\x00-\x08\x0a-\x1f\x7f]", sent):
        return "holds a control character, which no header can carry"
    return "begins or ends with a blank, which no header can carry" if sent != sent.strip(b" \t") else None


def _sendable(_settings: object, _attribute: object, token: Any) -> None:
    if (why := why_not_sendable(token)) is not None:
        raise ValueError(why)


_token: Any = [validators.min_len(1), _sendable]


@frozen(kw_only=True)
class Gateway:
    """`[gateway]`: the address for clients, and limits for all of them."""

    host: str = "127.0.0.1"
    port: int = field(default=8080, validator=[validators.ge(0), validators.le(65535)])
    max_sessions: int = field(default=10_000, validator=_positive)
    max_memory: int = field(default=0, validator=_not_negative)
    max_message_bytes: int = field(default=65_536, validator=_positive)
    deflate: bool = True
    drain_seconds: float = field(default=5.0, validator=_not_negative)
    admin_token: str | None = field(default=None, repr=False, validator=validators.optional(_token))
    tls_certificate: str | None = field(default=None)
    tls_key: str | None = field(default=None)
    hosts: tuple[str, ...] = field(default=())
    origins: tuple[str, ...] = field(default=())
    trusted_proxies: tuple[str, ...] = field(default=())
    root_path: str = field(default="")
    ready_needs_sources: bool = False

    @hosts.validator
    def _names(self, _attribute: object, value: Sequence[str]) -> None:
        _each(_NAME, value, 'a name without scheme and port, such as "feed.example.com"')

    @origins.validator
    def _pages(self, _attribute: object, value: Sequence[str]) -> None:
        check_origins(value)

    @trusted_proxies.validator
    def _networks(self, _attribute: object, value: Sequence[str]) -> None:
        for each in value:
            try:
                ipaddress.ip_network(each)
            except ValueError as error:
                raise ValueError(f"must be IP addresses or networks: {error}") from None

    @root_path.validator
    def _prefix(self, _attribute: object, value: str) -> None:
        if not re.fullmatch(f"({_STEP})*", value):
            raise ValueError('must be empty, or begin with "/" and not end with it, such as "/feed"')

    @tls_certificate.validator
    @tls_key.validator
    def _both_or_neither(self, _attribute: object, _value: str | None) -> None:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key belong together")


@frozen(kw_only=True)
class Operator:
    """`[operator]`: who may change something or look inside, and where."""

    token: str | None = field(default=None, repr=False, validator=validators.optional(validators.min_len(1)))
    trust_local: bool = True
    host: str = field(default="127.0.0.1")
    port: int | None = field(
        default=None, validator=validators.optional([validators.ge(0), validators.le(65535)])
    )

    @host.validator
    def _of_a_listener(self, _attribute: object, value: str) -> None:
        if self.port is None and value != "127.0.0.1":
            raise ValueError(
                "must have a port beside it: without one the operator has no listener of its own"
            )


@frozen(kw_only=True)
class Admission:
    """`[admission]`: how many clients are answered at once and how many may wait for their first answer."""

    at_once: int = field(default=16, validator=_positive)
    waiting: int = field(default=10_000, validator=_positive)
    retry_after: float = field(default=5.0, validator=_positive)


@frozen(kw_only=True)
class FanOut:
    """`[fanout]`: how updates are batched on their way to the clients."""

    interval: float = field(default=0.0, validator=[validators.ge(0), validators.le(1)])
    joined: int = field(default=256, validator=_positive)


@frozen(kw_only=True)
class Session:
    """`[session]`: limits for one client, and the policy for slow clients."""

    outbox: int = field(default=1024, validator=_positive)
    outbox_bytes: int = field(default=1_048_576, validator=_positive)
    slow_client: SlowClient = SlowClient.DISCONNECT
    ping_interval: float = field(default=20.0, validator=_positive)
    ping_timeout: float = field(default=20.0, validator=_positive)
    max_subscriptions: int = field(default=100, validator=_positive)


@frozen(kw_only=True)
class Limits:
    """`[limits]`: what one address may have, and one client with a name, wherever it comes from."""

    sessions: int = field(default=1_000, validator=_positive)
    subscriptions: int = field(default=10_000, validator=_positive)
    calls_per_second: float = field(default=1_000.0, validator=_positive)
    bytes_per_second: float = field(default=10_000_000.0, validator=_positive)
    waiting: int = field(default=1_000, validator=_positive)
    loopback: bool = False


@frozen(kw_only=True)
class Cache:
    """`[cache]`: size and age of the history."""

    shards: int = field(default=2, validator=_positive)
    trades_per_symbol: int = field(default=10_000, validator=_positive)
    max_age_seconds: float = field(default=3600.0, validator=_positive)


class WhenFull(Enum):
    """What happens when the disk has no room for the history."""

    DROP_OLDEST = "drop_oldest"
    STOP_RECORDING = "stop_recording"


class Send(Enum):
    """When clients get a trade."""

    AT_ONCE = "at_once"
    AFTER_COMMIT = "after_commit"


@frozen(kw_only=True)
class History:
    """`[history]`: what is kept on disk, and for how long. Without a directory or a server: nothing."""

    store: str = "sqlite"
    directory: str = ""
    dsn: str = field(default="", repr=False)
    keep_days: int = field(default=7, validator=_positive)
    keep_trades: int = field(default=0, validator=_not_negative)
    interval: float = field(default=0.05, validator=[_positive, validators.le(60)])
    min_free_bytes: int = field(default=1_073_741_824, validator=_not_negative)
    when_full: WhenFull = WhenFull.DROP_OLDEST
    send: Send = Send.AT_ONCE

    @property
    def is_on(self) -> bool:
        """Whether anything is kept on disk."""
        return bool(self.directory or self.dsn)


@frozen(kw_only=True)
class Candles:
    """`[candles]`: the bars that clients can ask for, and when a bar is over."""

    intervals: tuple[str, ...] = field(default=("1s", "5s", "15s", "1m", "5m", "15m", "1h", "4h", "1d"))
    record: tuple[str, ...] = field(default=("*",))
    lateness: float = field(default=2.0, validator=_not_negative)
    revise_within: float = field(default=3600.0, validator=_not_negative)
    throttle: float = field(default=1.0, validator=_positive)

    @intervals.validator
    def _are_known(self, _attribute: object, value: Sequence[str]) -> None:
        for each in value:
            try:
                interval(each)
            except ValueError as error:
                raise ValueError(f"{shown(each)} {error}") from None
        if len(set(value)) < len(value):
            raise ValueError("must name no interval twice")

    @property
    def rules(self) -> CandleRules:
        """The same in ns."""
        lateness, revise_within, throttle = (
            int(seconds * SECOND) for seconds in (self.lateness, self.revise_within, self.throttle)
        )
        return CandleRules(self.intervals, self.record, lateness, revise_within, throttle)


@frozen(kw_only=True)
class BackoffSettings:
    """`[backoff]`: delays before attempts to reconnect a lost source."""

    initial_delay: float = field(default=1.0, validator=_positive)
    max_delay: float = field(default=30.0, validator=_positive)
    multiplier: float = field(default=2.0, validator=validators.ge(1.0))
    jitter: float = field(default=0.2, validator=_not_negative)

    @max_delay.validator
    def _not_below_the_first(self, _attribute: object, value: float) -> None:
        if value < self.initial_delay:
            raise ValueError(f"must be >= initial_delay, which is {self.initial_delay}")


@frozen(kw_only=True)
class Supervision:
    """`[supervision]`: crashes of an internal part before its whole branch restarts."""

    restarts: int = field(default=3, validator=_not_negative)
    within: float = field(default=5.0, validator=_positive)
    stop_within: float = field(default=5.0, validator=_not_negative)


@frozen(kw_only=True)
class Runtime:
    """`[runtime]`: the Python process itself."""

    gc_thresholds: tuple[int, ...] = field(default=(5_000, 3, 1_000))

    @gc_thresholds.validator
    def _three_counts(self, _attribute: object, value: tuple[int, ...]) -> None:
        if len(value) != 3 or min(value) < 0:
            raise ValueError("must be three whole numbers >= 0")


@frozen(kw_only=True)
class Chaos:
    """`[chaos]`: fault injection on request, and random faults."""

    enabled: bool = False
    seed: int | None = None
    faults_per_minute: float = field(default=0.0, validator=_not_negative)


class Mode(Enum):
    """What several sources of one symbol are to each other."""

    ALL = "all"
    FAILOVER = "failover"


@frozen(kw_only=True)
class Symbol:
    """`[symbols."NAME"]`: which sources a symbol comes from. Without names: every source that lists it."""

    sources: tuple[str, ...] = ()
    mode: Mode = Mode.ALL
    return_after: float = field(default=10.0, validator=_not_negative)


@frozen(kw_only=True)
class FaceSettings:
    """The keys that every `[faces.NAME]` block has."""

    enabled: bool = True


@frozen(kw_only=True)
class Settings:
    """The whole configuration.

    `sources` maps the name of a source to an instance of its connector's settings class. `faces` maps the
    name of a face to an instance of its settings class, for faces with a written table.
    """

    gateway: Gateway = Gateway()
    operator: Operator = Operator()
    admission: Admission = Admission()
    session: Session = Session()
    limits: Limits = Limits()
    fanout: FanOut = FanOut()
    cache: Cache = Cache()
    history: History = History()
    candles: Candles = Candles()
    backoff: BackoffSettings = BackoffSettings()
    supervision: Supervision = Supervision()
    runtime: Runtime = Runtime()
    chaos: Chaos = Chaos()
    sources: Mapping[str, AnySourceSettings] = Factory(dict)
    symbols: Mapping[str, Symbol] = Factory(dict)
    faces: Mapping[str, FaceSettings] = Factory(dict)

    @property
    def operator_token(self) -> str | None:
        """The operator's token, under whichever of its two names it stands."""
        return self.operator.token or self.gateway.admin_token


def _address(value: str) -> Iterator[str]:
    try:
        parse(value)
    except ValueError as error:
        yield str(error)


def _origin(value: str) -> Iterator[str]:
    try:
        if value:
            check_origin(value)
    except ValueError as error:
        yield str(error)


def _proxy(value: str) -> Iterator[str]:
    try:
        if value:
            parse_proxy(value)
    except ValueError as error:
        yield str(error)


def source_rules(cls: type[AnySourceSettings]) -> Rules:
    """The rules for a block of `[sources]`, beside the validators of its class."""

    def symbols(value: Sequence[str]) -> Iterator[str]:
        for symbol in dict.fromkeys(value):
            if not cls.symbol_form.fits(symbol):
                yield f"{shown(symbol)} must be {cls.symbol_form.words}"
            elif value.count(symbol) > 1:
                yield f"{shown(symbol)} is named more than once"

    return {"url": _address, "refill_url": _origin, "proxy": _proxy, "symbols": symbols}
