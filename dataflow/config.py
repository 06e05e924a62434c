"""Settings: what can be configured, and how files and environment become it.

Rules of this file: a default is written once, here; `config/server.toml` repeats each with its unit and
consequence, and a test holds the two together. `load` tells every mistake at once. No file is searched for:
what is read is what was named. Durations are seconds.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs
from attrs import Factory, field, frozen, validators
from cattrs import ClassValidationError

from actors.outbox import SlowClient

from .errors import ConfigError
from .ports import SourceSettings
from .structure import (
    Hook,
    Leaf,
    Objection,
    Rules,
    Table,
    class_hook,
    explain,
    instead,
    shown,
    strict_converter,
)

# == settings: classes and their validators ===========================================================

_positive: Any = validators.gt(0)
_not_negative: Any = validators.ge(0)


@frozen(kw_only=True)
class Gateway:
    """`[gateway]`: where clients connect, and how many may."""

    host: str = "127.0.0.1"
    port: int = field(default=8080, validator=[validators.ge(0), validators.le(65535)])
    max_sessions: int = field(default=10_000, validator=_positive)
    max_message_bytes: int = field(default=65_536, validator=_positive)
    drain_seconds: float = field(default=5.0, validator=_not_negative)
    admin_token: str | None = field(
        default=None, repr=False, validator=validators.optional(validators.min_len(1))
    )
    tls_certificate: str | None = field(default=None)
    tls_key: str | None = field(default=None)

    @tls_certificate.validator
    @tls_key.validator
    def _both_or_neither(self, _attribute: object, _value: str | None) -> None:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key belong together")


@frozen(kw_only=True)
class Admission:
    """`[admission]`: how many clients are answered at once, and how many may wait for their first answer."""

    at_once: int = field(default=16, validator=_positive)
    waiting: int = field(default=10_000, validator=_positive)
    retry_after: float = field(default=5.0, validator=_positive)


@frozen(kw_only=True)
class FanOut:
    """`[fanout]`: how updates are joined on their way to the clients."""

    interval: float = field(default=0.0, validator=[validators.ge(0), validators.le(1)])
    joined: int = field(default=256, validator=_positive)


@frozen(kw_only=True)
class Session:
    """`[session]`: what one client may hold and owe."""

    outbox: int = field(default=1024, validator=_positive)
    slow_client: SlowClient = SlowClient.DISCONNECT
    ping_interval: float = field(default=20.0, validator=_positive)
    ping_timeout: float = field(default=20.0, validator=_positive)
    max_subscriptions: int = field(default=100, validator=_positive)


@frozen(kw_only=True)
class Cache:
    """`[cache]`: how much of the past is remembered."""

    shards: int = field(default=2, validator=_positive)
    trades_per_symbol: int = field(default=10_000, validator=_positive)
    max_age_seconds: float = field(default=3600.0, validator=_positive)


@frozen(kw_only=True)
class BackoffSettings:
    """`[backoff]`: how long a source that was lost is left alone before the next attempt."""

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
    """`[supervision]`: how often a part of ours may crash before its whole branch starts anew."""

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
    """`[chaos]`: whether faults may be injected on purpose, and how many come unasked."""

    enabled: bool = False
    seed: int | None = None
    faults_per_minute: float = field(default=0.0, validator=_not_negative)


@frozen(kw_only=True)
class Settings:
    """Everything that can be configured. `sources` maps a name to its connector's own settings class."""

    gateway: Gateway = Gateway()
    admission: Admission = Admission()
    session: Session = Session()
    fanout: FanOut = FanOut()
    cache: Cache = Cache()
    backoff: BackoffSettings = BackoffSettings()
    supervision: Supervision = Supervision()
    runtime: Runtime = Runtime()
    chaos: Chaos = Chaos()
    sources: Mapping[str, SourceSettings] = Factory(dict)


def _address(value: str) -> Iterator[str]:
    with suppress(ValueError):  # of an IPv6 address that is not one
        parts = urlsplit(value)
        if parts.scheme and parts.hostname:
            return
    yield 'must be a whole address, such as "wss://host/path"'


def _symbols(value: Sequence[str]) -> Iterator[str]:
    for symbol in dict.fromkeys(value):
        if not re.fullmatch(r"[^\s/-]+-[^\s/-]+", symbol) or symbol != symbol.upper():
            yield f'{shown(symbol)} must be BASE-QUOTE in capitals, such as "BTC-USD"'
        elif value.count(symbol) > 1:
            yield f"{shown(symbol)} is named more than once"


# what every source needs, whatever validators its connector adds
SOURCE_RULES: Rules = {"url": _address, "symbols": _symbols}


# == reading: files, environment and connectors become settings =======================================


def load(files: Sequence[Path], environ: Mapping[str, str]) -> Settings:
    """Merge `files` from left to right, then the `DATAFLOW__TABLE__KEY` variables of `environ`.

    Raises ConfigError with every problem found, one line each.
    """
    problems: list[str] = []
    tree = Table("configuration")
    for file in files:
        _merge(tree, _read(file, problems))
    for layer in _environment(environ):
        _merge(tree, layer)
    settings = _settings(tree, problems)
    if problems or settings is None:
        raise ConfigError(problems)
    return settings


def shipped(name: str) -> Path:
    """A configuration file that comes with dataflow: of the installed package, else of the checkout."""
    here = Path(__file__).parent
    installed = here / "shipped" / name
    return installed if installed.exists() else here.parent / "config" / name


def connectors() -> list[str]:
    """The names that `connector = ...` knows without a dot."""
    from . import connectors as package

    return sorted(module.name for module in pkgutil.iter_modules(package.__path__) if module.name[0] != "_")


# -- layers: what was written, and by whom ------------------------------------------------------------


def _merge(into: Table, layer: Table) -> None:
    for key, new in layer.items():
        old = into.get(key)
        if isinstance(old, Table) and isinstance(new, Table):
            _merge(old, new)
        else:
            into[key] = new


def _read(file: Path, problems: list[str]) -> Table:
    try:
        return _leaves(tomllib.loads(file.read_text(encoding="utf-8-sig")), str(file))
    except FileNotFoundError:
        problems.append(f"{file}: no such file")
    except OSError as error:
        problems.append(f"{file}: cannot be read: {error.strerror}")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        problems.append(f"{file}: not valid TOML: {error}")
    return Table(str(file))


def _leaves(table: dict[str, Any], origin: str) -> Table:
    content = (
        (key, _leaves(value, origin) if isinstance(value, dict) else Leaf(value, origin))
        for key, value in table.items()
    )
    return Table(origin, content)


def _environment(environ: Mapping[str, str]) -> Iterator[Table]:
    for name in sorted(environ):
        if name.startswith("DATAFLOW__"):
            *tables, key = name.lower().split("__")[1:]
            tree = Table(name, [(key, Leaf(_toml_value(environ[name]), name, environ[name]))])
            for table in reversed(tables):
                tree = Table(name, [(table, tree)])
            yield tree


def _toml_value(text: str) -> Any:
    """`text` as TOML would read it after an equals sign; what is not TOML is plain text."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return parsed["value"] if len(parsed) == 1 else text


# -- tables -------------------------------------------------------------------------------------------


def _settings(tree: Table, problems: list[str]) -> Settings | None:
    """The settings, or None with at least one more line in `problems`."""
    problems += _names(tree.get("sources"))
    try:
        return _converter.structure(tree, Settings)
    except ClassValidationError as error:
        problems += explain(error, tree)
    return None


def _names(sources: Table | Leaf | None) -> Iterator[str]:
    """By hand: cattrs checks a name only when its block has no mistake."""
    for name, block in sources.items() if isinstance(sources, Table) else ():
        if not name or "/" in name:
            yield f'{block.origin}: [sources.{name}]: the name must not be empty or contain "/"'


_converter = strict_converter()


@_converter.register_structure_hook
def _source(written: Any, _: object) -> SourceSettings:
    """A block of `[sources]`, as the settings class of its connector."""
    if not isinstance(written, Table):
        raise ValueError
    try:
        hook = _connector_hook(written.get("connector"))
    except Objection as objection:
        raise ClassValidationError("", [objection, *_common_mistakes(written)], SourceSettings) from None
    source: SourceSettings = hook(written, None)
    return source


def _connector_hook(leaf: Table | Leaf | None) -> Hook:
    if leaf is None:
        raise Objection("connector", f"is missing; {instead('', connectors())}")
    if not isinstance(leaf, Leaf) or not isinstance(leaf.value, str):
        raise Objection("connector", "must be text")
    if "." not in leaf.value and leaf.value not in connectors():
        raise Objection("connector", f"unknown connector; {instead(leaf.value, connectors())}")
    try:
        return class_hook(_settings_class_of(leaf.value), _converter, SOURCE_RULES)
    except Exception as error:  # a module of the user's may raise anything at import
        raise Objection("connector", f"cannot be used: {type(error).__name__}: {error}") from error


def _common_mistakes(written: Table) -> Iterator[Exception]:
    """Other mistakes of a block without a usable connector: in the written keys that all sources have."""
    common = {a.name for a in attrs.fields(SourceSettings)} - {"connector"}
    block = Table(written.origin, [(key, leaf) for key, leaf in written.items() if key in common])
    try:
        class_hook(SourceSettings, _converter, SOURCE_RULES)(block, None)
    except ClassValidationError as error:
        yield from (each for each in error.exceptions if not isinstance(each, KeyError))


def _settings_class_of(connector: str) -> type[SourceSettings]:
    name = connector if "." in connector else f"{__package__}.connectors.{connector}"
    module = importlib.import_module(name)
    cls: type[SourceSettings] = module.Settings
    if not issubclass(cls, SourceSettings):
        raise TypeError(f"{name}.Settings is not derived from dataflow.ports.SourceSettings")
    if not callable(module.Codec):
        raise TypeError(f"{name}.Codec is not a class")
    return cls
