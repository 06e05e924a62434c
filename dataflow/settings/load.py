"""Loads settings: merges files and environment, finds the plugs, and reports all mistakes at once.

Rules of this file: only named files are read, no file is searched for. The settings classes of sources and
faces belong to their plugs, which are found by name.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from attrs import frozen
from cattrs import AttributeValidationNote, ClassValidationError

from dataflow import plugs
from dataflow.domain import Missing
from dataflow.domain.errors import ConfigError
from dataflow.domain.symbols import ANY, Names, compact
from dataflow.sources.port import AnySourceSettings, ProducerSettings, SourceSettings, filler_of

from . import environment
from .schema import FaceSettings, Mode, Settings, source_rules
from .structure import (
    Hook,
    Leaf,
    Objection,
    Table,
    class_hook,
    explain,
    instead,
    shown,
    strict_converter,
    wrong,
)

CONNECTORS = "connectors"  # rooms of plugs
FACES = "faces"


def load(files: Sequence[Path], environ: Mapping[str, str]) -> Settings:
    """Merge `files` from left to right, then the `DATAFLOW__TABLE__KEY` variables of `environ`.

    Raises ConfigError with all problems, one line each.
    """
    return read(files, environ).settings


@frozen
class Written:
    """The settings, and where each written value came from. `tree`: the merged layers."""

    settings: Settings
    tree: Table

    def origin(self, *path: str) -> str | None:
        """The file or the variable that wrote the key at the end of `path`; None: nobody did."""
        place: Table | Leaf | None = self.tree
        for name in path:
            place = place.get(name) if isinstance(place, Table) else None
        return None if place is None else place.origin


def read(files: Sequence[Path], environ: Mapping[str, str]) -> Written:
    """The same with the origins. Raises ConfigError."""
    problems: list[str] = []
    tree = Table("configuration")
    for file in files:
        _merge(tree, _read(file, problems))
    for name, layer in environment.layers(environ):
        if (why := environment.objection(name)) is None:
            _merge(tree, layer)
        else:
            problems.append(f"{name}: {why}")
    settings = _settings(tree, problems)
    if problems or settings is None:
        raise ConfigError(problems)
    return Written(settings, tree)


def shipped(name: str) -> Path:
    """A configuration file shipped with dataflow: from the installed package, else from the checkout."""
    package = Path(__file__).parents[1]
    installed = package / "shipped" / name
    return installed if installed.exists() else package.parent / "config" / name


# -- layers: written values with their origins --------------------------------------------------------


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
    except UnicodeDecodeError as error:
        problems.append(f"{file}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8")
    except tomllib.TOMLDecodeError as error:
        problems.append(f"{file}: not valid TOML: {error}")
    return Table(str(file))


def _leaves(table: dict[str, Any], origin: str) -> Table:
    content = (
        (key, _leaves(value, origin) if isinstance(value, dict) else Leaf(value, origin))
        for key, value in table.items()
    )
    return Table(origin, content)


# -- tables -------------------------------------------------------------------------------------------


def _settings(tree: Table, problems: list[str]) -> Settings | None:
    """The settings. If there are mistakes: None, and they are added to `problems`."""
    problems += _names(tree.get("sources"))
    try:
        settings = _converter.structure(tree, Settings)
    except ClassValidationError as error:
        problems += explain(error, tree, root=Settings)
        return None
    problems += _two_tokens(tree, settings)
    problems += _one_port(tree, settings)
    problems += _listeners_apart(tree, settings)
    problems += _names_apart(tree, settings)
    problems += _tickers_apart(tree, settings)
    problems += _can_be_polled(tree, settings)
    problems += _sources_of_symbols(tree, settings)
    return settings


def _two_tokens(tree: Any, settings: Settings) -> Iterator[str]:
    """Checked by hand, because it concerns two tables. The line has no token in it."""
    token, old = settings.operator.token, settings.gateway.admin_token
    if token is not None and old is not None and token != old:
        origin, other = tree["operator"]["token"].origin, tree["gateway"]["admin_token"].origin
        yield (
            f"{origin}: [operator] token: differs from [gateway] admin_token, its old name, in {other};"
            " write one of them"
        )


def _one_port(tree: Any, settings: Settings) -> Iterator[str]:
    port = settings.operator.port
    if port and port == settings.gateway.port:
        yield wrong(tree["operator"]["port"], "[operator] port", "must not be that of [gateway]")


def _listeners_apart(tree: Any, settings: Settings) -> Iterator[str]:
    """Two listeners cannot have one port: the gateway's, those of faces that are on, those of sources."""
    taken = {settings.operator.port: "[operator]", settings.gateway.port: "[gateway]"}
    faces = {name: face for name, face in settings.faces.items() if face.enabled}
    for kind, listeners in (("faces", faces), ("sources", settings.sources)):
        for name, keys in listeners.items():
            port, table = getattr(keys, "port", 0), f"[{kind}.{name}]"
            if port and port in taken:
                yield f"{tree[kind][name].origin}: {table} port: {port} is that of {taken[port]} already"
            taken.setdefault(port, table)


def _names_apart(tree: Any, settings: Settings) -> Iterator[str]:
    """Clients may leave out the dashes of a symbol: no two symbols, of any sources, may become one so."""
    names = Names(each for source in settings.sources.values() for each in source.symbols)
    for symbols in names.ambiguous():
        *_, name = (name for name, source in settings.sources.items() if set(symbols) & set(source.symbols))
        told = " and ".join(map(shown, symbols))
        yield (
            f"{tree['sources'][name]['symbols'].origin}: [sources.{name}] symbols: {told} have the same name"
            f" without their dashes, {shown(compact(symbols[0]))}, which clients may use; leave one out"
        )


def _tickers_apart(tree: Any, settings: Settings) -> Iterator[str]:
    """What an exchange has cannot be pushed: every tick of it would be refused."""
    listening = {n: s for n, s in settings.sources.items() if isinstance(s, ProducerSettings)}
    exchanges = {n: s for n, s in settings.sources.items() if n not in listening}
    for name, source in listening.items():
        for symbol in source.symbols:
            whose = next((n for n, each in exchanges.items() if symbol in each.symbols), None)
            if whose is not None and symbol != ANY:
                yield (
                    f"{tree['sources'][name]['symbols'].origin}: [sources.{name}] symbols: {shown(symbol)} is"
                    f" that of [sources.{whose}], and cannot be pushed; leave it out"
                )


def _can_be_polled(tree: Any, settings: Settings) -> Iterator[str]:
    """A source that is polled needs a connector with questions for past trades, and time for them."""
    for name, source in settings.sources.items():
        if not isinstance(source, SourceSettings) or source.transport != "rest":
            continue
        filler, block = filler_of(name, source), tree["sources"][name]
        asked = filler and filler.fill(Missing(name, next(iter(source.symbols), "A-B"), None, None))
        if asked is None:
            yield wrong(
                block["transport"],
                f"[sources.{name}] transport",
                f"the connector {source.connector} has no questions for past trades, or no refill_url: only a"
                ' "websocket" is possible',
            )
        elif source.lines > 1:
            yield wrong(
                block["lines"],
                f"[sources.{name}] lines",
                'must be 1 with transport = "rest": several would ask the same questions',
            )
        elif source.poll_interval >= source.stale_after / 2:
            yield wrong(
                block.get("poll_interval", block["transport"]),
                f"[sources.{name}] poll_interval",
                f"must be below half of stale_after, which is {source.stale_after:g}: else every pause would"
                " count as a silence",
            )


def _sources_of_symbols(tree: Any, settings: Settings) -> Iterator[str]:
    """`[symbols]` chooses among the sources that list a symbol."""
    listed = {name: source.symbols for name, source in settings.sources.items()}
    known = sorted({symbol for symbols in listed.values() for symbol in symbols} - {ANY})
    for symbol, keys in settings.symbols.items():
        block, table = tree["symbols"][symbol], f"[symbols.{symbol}]"
        listing = [name for name, symbols in listed.items() if symbol in symbols]
        if not listing:
            yield f"{block.origin}: {table}: no source lists this symbol; {_nearest(symbol, known)}"
            continue
        for name in dict.fromkeys(keys.sources):
            source = settings.sources.get(name)
            if source is None:
                why = f"there is no source {shown(name)}; {instead(name, listing)}"
            elif isinstance(source, ProducerSettings):
                why = f"producers push to {shown(name)}, so it cannot be one of several; leave it out"
            elif name not in listing:
                why = f"[sources.{name}] does not list it in `symbols`; {instead('', listing)}"
            elif keys.sources.count(name) > 1:
                why = f"{shown(name)} is named more than once"
            else:
                continue
            yield f"{block['sources'].origin}: {table} sources: {why}"
        pushed = [name for name in listing if isinstance(settings.sources[name], ProducerSettings)]
        if keys.mode is Mode.FAILOVER and not keys.sources and pushed:
            yield (
                f"{block.origin}: {table} mode: producers push to {shown(pushed[0])}, and nobody can tell a"
                ' silent one from a dead one; leave out mode = "failover"'
            )


def _nearest(name: str, known: Sequence[str]) -> str:
    """The hint for an unknown name, where there may be thousands of valid ones."""
    near = difflib.get_close_matches(name.upper(), known, n=3)
    return f"did you mean {' or '.join(map(shown, near))}?" if near else "add it to the `symbols` of one"


def _names(sources: Table | Leaf | None) -> Iterator[str]:
    """Checked by hand, because cattrs checks a name only if its block has no mistake."""
    for name, block in sources.items() if isinstance(sources, Table) else ():
        if not name or "/" in name:
            yield f'{block.origin}: [sources.{name}]: the name must not be empty or contain "/"'


_converter = strict_converter()


@_converter.register_structure_hook
def _source(written: Any, _: object) -> AnySourceSettings:
    """A block of `[sources]`, as the settings class of its connector."""
    if not isinstance(written, Table):
        raise ValueError
    try:
        hook = _connector_hook(written.get("connector"))
    except Objection as objection:
        raise ClassValidationError("", [objection, *_common_mistakes(written)], SourceSettings) from None
    source: AnySourceSettings = hook(written, None)
    return source


def _connector_hook(leaf: Table | Leaf | None) -> Hook:
    if leaf is None:
        raise Objection("connector", f"is missing; {instead('', plugs.names(CONNECTORS))}")
    if not isinstance(leaf, Leaf) or not isinstance(leaf.value, str):
        raise Objection("connector", "must be text")
    if "." not in leaf.value and leaf.value not in plugs.names(CONNECTORS):
        raise Objection("connector", f"unknown connector; {instead(leaf.value, plugs.names(CONNECTORS))}")
    try:
        cls = _settings_class_of(leaf.value)
        return class_hook(cls, _converter, source_rules(cls))
    except Exception as error:  # the import of a user's module may raise anything
        raise Objection("connector", f"cannot be used: {type(error).__name__}: {error}") from error


def _common_mistakes(written: Table) -> Iterator[Exception]:
    """Other mistakes of a block without a usable connector: in the keys that all sources share."""
    common = {a.name for a in attrs.fields(SourceSettings)} - {"connector"}
    block = Table(written.origin, [(key, leaf) for key, leaf in written.items() if key in common])
    try:
        class_hook(SourceSettings, _converter, source_rules(SourceSettings))(block, None)
    except ClassValidationError as error:
        yield from (each for each in error.exceptions if not isinstance(each, KeyError))


def _settings_class_of(connector: str) -> type[AnySourceSettings]:
    module = plugs.find(CONNECTORS, connector)
    cls: type[AnySourceSettings] = module.Settings
    if not issubclass(cls, AnySourceSettings):
        raise TypeError(f"{module.__name__}.Settings is not derived from dataflow.sources.SourceSettings")
    if not callable(module.Codec):
        raise TypeError(f"{module.__name__}.Codec is not a class")
    return cls


def _faces(written: Any, _: object) -> dict[str, FaceSettings]:
    """The blocks of `[faces]`, each as the settings class of its face."""
    if not isinstance(written, Table):
        raise ValueError
    made: dict[str, FaceSettings] = {}
    errors: list[Exception] = []
    for name, block in written.items():
        if name not in plugs.names(FACES):
            errors.append(Objection(name, f"unknown face; {instead(name, plugs.names(FACES))}"))
            continue
        try:
            cls = plugs.find(FACES, name).Settings
        except ImportError as error:  # a library that only this face needs
            errors.append(Objection(name, f"cannot be used: {error}"))
            continue
        try:
            made[name] = class_hook(cls, _converter)(block, None)
        except (ValueError, ClassValidationError) as error:
            error.add_note(AttributeValidationNote(f"face {name}", name, cls))
            errors.append(error)
    if errors:
        raise ClassValidationError("faces", errors, Settings)
    return made


_converter.register_structure_hook_func(lambda kind: kind == Mapping[str, FaceSettings], _faces)
