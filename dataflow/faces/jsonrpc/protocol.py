"""JSON-RPC 2.0, to the letter (https://www.jsonrpc.org/specification).

Rules of this file. Text in, bytes out: no socket, no clock, no framework. An id goes back exactly as it came,
digit for digit. A notification is never answered, not even with an error. An answer has `result` or `error`,
never both. An exception other than `CallError` or `Problem` may hold secrets: it is reported inside, and the
client gets an internal error without details. The calls of a batch run one after the other, in order. A long
answer is written piece by piece (`Long`); an exception in its midst is raised, for nothing can follow it.

Where the specification leaves a choice: the case of method names does not matter, unknown members of a
request are ignored, and an invalid request with a valid id is answered with that id.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cache
from typing import Any, Final, Protocol, TypeAlias, TypeVar

import msgspec
from attrs import frozen

from dataflow.domain.errors import DataflowError
from dataflow.gateway.problems import (
    Forbidden,
    InvalidValue,
    Problem,
    TooManyRequests,
    TooManySubscriptions,
    Unauthorised,
    Unavailable,
)
from dataflow.gateway.spelling import encode as _encode
from dataflow.gateway.spelling import read_number

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
UPSTREAM_UNAVAILABLE: Final = -32000
UNAUTHORISED: Final = -32001
RATE_LIMITED: Final = -32002
TOO_MANY_SUBSCRIPTIONS: Final = -32003

MAX_BATCH: Final = 100  # calls; a longer batch is refused as a whole, because each call may start work
MAX_ANSWERS: Final = 4 << 20  # bytes of answers to one batch; above it, further calls are refused

_SHOWN: Final = 80  # characters of a wrong name that the client gets back
_PLACE: Final = re.compile(r" - at `\$\.?(.*?)`$")

PIECE_BYTES: Final = 32 * 1024  # answers of a batch that are sent together

T = TypeVar("T")

Handler: TypeAlias = Callable[..., Awaitable[Any]]
Write: TypeAlias = Callable[[bytes], Awaitable[None]]
Report: TypeAlias = Callable[[str, Exception], None]


@frozen
class _Method:
    name: str
    params: type | None
    handler: Handler


class CallError(DataflowError):
    """A call that ends with an error. `code` tells whose fault it is, `data` helps the client."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data


@frozen
class Long:
    """A result that may be too long to stand in memory whole.

    `tell(write)` writes the beginning of its JSON text, in pieces, and returns the rest. It may raise as a
    handler may, before it writes.
    """

    tell: Callable[[Write], Awaitable[bytes]]


def translated(problem: Problem) -> CallError:
    """`problem` as an error of JSON-RPC."""
    if isinstance(problem, InvalidValue):
        return CallError(INVALID_PARAMS, "Invalid params", problem.data)
    if isinstance(problem, TooManySubscriptions):
        return CallError(TOO_MANY_SUBSCRIPTIONS, problem.summary, problem.data)
    if isinstance(problem, TooManyRequests):
        return CallError(RATE_LIMITED, problem.summary, problem.data)
    if isinstance(problem, Unavailable):
        return CallError(UPSTREAM_UNAVAILABLE, problem.summary, problem.data)
    if isinstance(problem, Unauthorised | Forbidden):
        return CallError(UNAUTHORISED, problem.summary, problem.data)
    raise TypeError(f"no code for {type(problem).__name__}")


class Methods:
    """A table of methods: `name=(params, handler)`.

    `params` is an attrs class or msgspec Struct. Its fields are the parameters, by name, or by position in
    the order of definition. The handler is awaited with an instance of it. With None, the method has no
    parameters and the handler no argument.
    """

    def __init__(self, **table: tuple[type | None, Handler]) -> None:
        self._methods = {name.casefold(): _Method(name, *entry) for name, entry in table.items()}
        if len(self._methods) < len(table):
            raise ValueError("two methods whose names differ only in case")

    @property
    def names(self) -> list[str]:
        """The names in their own spelling."""
        return [method.name for method in self._methods.values()]

    def find(self, name: str) -> _Method:
        """The method of that name in any case. Raises CallError."""
        method = self._methods.get(name.casefold())
        if method is None:
            raise CallError(
                METHOD_NOT_FOUND,
                "Method not found",
                {"method": name[:_SHOWN], "nearest": _nearest(name, self.names), "valid": self.names},
            )
        return method


@frozen
class Call:
    """A valid request. `id` is its JSON text, None for a notification; `params` is a list, dict or None."""

    method: str
    params: Any
    id: msgspec.Raw | None


@frozen
class Invalid:
    """An invalid request, alone or in a batch, and the error to answer."""

    id: msgspec.Raw
    error: CallError


class _Request(msgspec.Struct):
    jsonrpc: Any = msgspec.UNSET
    method: Any = msgspec.UNSET
    params: Any = msgspec.UNSET
    id: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_NULL: Final = msgspec.Raw(b"null")
_RESULT: Final = b'{"jsonrpc":"2.0","result":'
_request: Final = msgspec.json.Decoder(_Request, float_hook=read_number)
_value: Final = msgspec.json.Decoder(float_hook=read_number)
_batch: Final = msgspec.json.Decoder(list[msgspec.Raw])
_any: Final = msgspec.json.Decoder(msgspec.Raw)


def _nothing() -> None:
    pass


async def dispatch(
    text: str | bytes,
    methods: Methods,
    report: Report,
    *,
    max_batch: int = MAX_BATCH,
    max_answers: int = MAX_ANSWERS,
    pause: Callable[[], Awaitable[None]] | None = None,
    write: Write | None = None,
    charge: Callable[[], None] = _nothing,
    owner: tuple[Any, ...] = (),
    gather: Callable[[Write], Gathering] | None = None,
) -> bytes | None:
    """Run the calls in `text`, in order, and return the answer; None when there is nothing to answer.

    `write` is awaited with the beginning of a long answer, in pieces; then only the rest is returned. Without
    it the answer is returned whole.

    `report(method, exception)` is called for every exception of a handler that is neither a CallError nor a
    Problem. When the answers to a batch exceed `max_answers` bytes, its further calls are refused. `pause` is
    awaited before each call of a batch but the first, so that a batch does not block the event loop. `charge`
    is called before each call; it may raise a Problem, which is the answer then. Every handler gets `owner`
    before its parameters, so that many clients can share one table of methods. `gather` makes of the answers,
    of one or of several, what a protocol around this one has for them. Without it a batch has one array.
    """
    kept: list[bytes] = []

    async def keep(text: bytes) -> None:
        kept.append(text)

    async def drop(text: bytes) -> None:
        if pause is not None:
            await pause()

    async def answer(request: Call | Invalid, write: Write) -> bytes | None:
        told = _Told(write if request.id is not None else drop)
        try:
            charge()
        except Problem as problem:
            return None if request.id is None else error_of(request.id, translated(problem))
        return await _answer(request, methods, report, owner, told)

    requests = parse(text, max_batch)
    if not isinstance(requests, list) and gather is None:
        rest = await answer(requests, write or keep)
        return b"".join([*kept, rest]) if rest is not None and kept else rest
    requests = requests if isinstance(requests, list) else [requests]
    array = (gather or Array)(write or keep)
    for number, request in enumerate(requests):
        if pause is not None and number:
            await pause()
        if isinstance(request, Call) and request.id is not None and array.size > max_answers:
            request = Invalid(request.id, _too_much(max_answers))
        member = await answer(request, array.write)
        if member is not None:
            await array.end(member)
    rest = array.rest()
    return b"".join([*kept, rest]) if rest is not None and kept else rest


def parse(text: str | bytes, max_batch: int = MAX_BATCH) -> Call | Invalid | list[Call | Invalid]:
    """The request, or the list of requests, in `text`. Never raises, whatever a client sent."""
    try:
        if not _is_array(text):
            return _read(text)
        members = _batch.decode(text)
        if not members or len(members) > max_batch:
            return Invalid(_NULL, _wrong_length(len(members), max_batch))
        return [_read(member) for member in members]
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        return Invalid(_NULL, CallError(PARSE_ERROR, "Parse error", {"problem": str(error)}))


def result_of(call_id: msgspec.Raw, result: Any) -> bytes:
    """An answer with a result. Raises TypeError or ValueError when `result` cannot be written as JSON."""
    return _encode({"jsonrpc": "2.0", "result": result, "id": call_id})


def error_of(call_id: msgspec.Raw, error: CallError) -> bytes:
    """An answer with an error. Raises TypeError or ValueError when its `data` cannot be written as JSON."""
    told: dict[str, Any] = {"code": error.code, "message": error.message}
    if error.data is not None:
        told["data"] = error.data
    return _encode({"jsonrpc": "2.0", "error": told, "id": call_id})


class _Told:
    """The answer to one call on its way. `begun`: a part of it is written, so no error can be answered."""

    def __init__(self, write: Write) -> None:
        self.begun = False
        self._write = write

    async def whole(self, call_id: msgspec.Raw, result: Long) -> bytes:
        """An answer with this result, or the rest of it."""
        rest = await result.tell(self._write_on)
        return b'%b%b,"id":%b}' % (b"" if self.begun else _RESULT, rest, bytes(call_id))

    async def _write_on(self, text: bytes) -> None:
        head, self.begun = b"" if self.begun else _RESULT, True
        await self._write(head + text)


class Gathering(Protocol):
    """The answers to a batch, on their way. `size`: the bytes of all of them so far."""

    size: int

    async def write(self, text: bytes) -> None:
        """A piece of a member, which is not its end."""

    async def end(self, text: bytes) -> None:
        """A member, or the rest of one."""

    def rest(self) -> bytes | None:
        """What is not written yet; None when there is nothing to answer."""


class Array:
    """The answers to a batch, or the parts of one answer, as one array: a `Gathering`."""

    def __init__(self, write: Write) -> None:
        self.size = 0
        self._write = write
        self._waiting: list[bytes] = []
        self._inside = False  # a member has begun

    async def write(self, text: bytes) -> None:
        """A piece of a member, which is not its end."""
        self._put(text)
        self._inside = True
        await self._flush()

    async def end(self, text: bytes) -> None:
        """A member, or the rest of one."""
        self._put(text)
        self._inside = False
        if sum(map(len, self._waiting)) > PIECE_BYTES:
            await self._flush()

    def rest(self) -> bytes | None:
        """The end of the array; None when there was no member."""
        return b"".join([*self._waiting, b"]"]) if self.size else None

    def _put(self, text: bytes) -> None:
        if not self._inside:
            self._waiting.append(b"," if self.size else b"[")
        self._waiting.append(text)
        self.size += len(text)

    async def _flush(self) -> None:
        text, self._waiting = b"".join(self._waiting), []
        await self._write(text)


async def _answer(
    request: Call | Invalid, methods: Methods, report: Report, owner: tuple[Any, ...], told: _Told
) -> bytes | None:
    if isinstance(request, Invalid):
        return error_of(request.id, request.error)
    call_id = _NULL if request.id is None else request.id
    try:
        answer = await _run(request, call_id, methods, owner, told)
    except Exception as error:
        if told.begun:
            raise
        report(request.method[:_SHOWN], error)
        failed = CallError(INTERNAL_ERROR, "Internal error", {"problem": "the server failed, and knows it"})
        answer = error_of(call_id, failed)
    return None if request.id is None else answer


async def _run(
    call: Call, call_id: msgspec.Raw, methods: Methods, owner: tuple[Any, ...], told: _Told
) -> bytes:
    try:
        method = methods.find(call.method)
        arguments = _arguments(method, call.params)
        result = await method.handler(*owner, *arguments)
        if isinstance(result, Long):
            return await told.whole(call_id, result)
        return result_of(call_id, result)
    except (CallError, Problem) as error:
        if told.begun:
            raise
        return error_of(call_id, error if isinstance(error, CallError) else translated(error))


def _is_array(text: str | bytes) -> bool:
    return text.lstrip()[:1] in ("[", b"[")


def _read(text: str | bytes | msgspec.Raw) -> Call | Invalid:
    """A member of a batch or a whole text. Raises msgspec.DecodeError, not ValidationError, for no JSON."""
    try:
        request = _request.decode(text)
    except msgspec.ValidationError as error:
        _any.decode(text)  # the wrong type may come before broken JSON: that is a parse error
        return Invalid(_NULL, _invalid_request(_plain(str(error))))
    call_id = None if request.id is msgspec.UNSET else _valid_id(request.id)
    if call_id is None and request.id is not msgspec.UNSET:
        return Invalid(_NULL, _invalid_request("id must be a string, a number or null"))
    if problem := _problem(request):
        return Invalid(call_id or _NULL, _invalid_request(problem))
    return Call(request.method, None if request.params is msgspec.UNSET else request.params, call_id)


def _valid_id(written: Any) -> msgspec.Raw | None:
    try:
        value = _value.decode(written)
    except msgspec.ValidationError:  # an integer of thousands of digits
        return None
    return msgspec.Raw(bytes(written)) if value is None or type(value) in (str, int, float) else None


def _problem(request: _Request) -> str | None:
    if request.jsonrpc != "2.0":
        return 'jsonrpc must be "2.0"'
    if not isinstance(request.method, str):
        return "method must be a string"
    if request.params is not msgspec.UNSET and not isinstance(request.params, list | dict):
        return "params must be an array or an object"
    return None


def _too_much(most: int) -> CallError:
    advice = f"the answers to this batch exceed {most} bytes: ask for the rest in another one"
    return CallError(RATE_LIMITED, "Rate limited", {"problem": advice, "limit": most})


def _invalid_request(problem: str, **more: Any) -> CallError:
    return CallError(INVALID_REQUEST, "Invalid Request", {"problem": problem, **more})


def _wrong_length(length: int, most: int) -> CallError:
    if not length:
        return _invalid_request("a batch must hold at least one call")
    return _invalid_request(f"a batch may hold at most {most} calls", limit=most, found=length)


@cache
def _fields(params: type) -> tuple[Any, ...]:
    """The fields of a class of parameters; to inspect the class for every call would be slow."""
    return tuple(msgspec.inspect.type_info(params).fields)  # type: ignore[attr-defined]


def _arguments(method: _Method, params: Sequence[Any] | Mapping[str, Any] | None) -> tuple[Any, ...]:
    """The arguments of the handler. Raises CallError."""
    if method.params is None:
        if params:
            raise _invalid_params(f"{method.name} takes no parameters")
        return ()
    fields = _fields(method.params)
    names = [field.encode_name for field in fields]
    named = _named(params or {}, names)
    for name in named:
        if name not in names:
            raise _invalid_params(
                "unknown parameter", param=name[:_SHOWN], nearest=_nearest(name, names), valid=names
            )
    for field in fields:
        if field.required and field.encode_name not in named:
            raise _invalid_params("is missing", param=field.encode_name, valid=names)
    return (_converted(named, method.params),)


def _named(params: Sequence[Any] | Mapping[str, Any], names: list[str]) -> dict[str, Any]:
    if isinstance(params, Mapping):
        return dict(params)
    if len(params) > len(names):
        raise _invalid_params(f"at most {len(names)} parameters", found=len(params), valid=names)
    return dict(zip(names, params, strict=False))


def read(name: str, value: Any, kind: type[T]) -> T:
    """A parameter as a value of `kind`, where its place among the others tells the kind. Raises CallError."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        text = str(error)
        place = _PLACE.search(text)
        where = {"param": f"{name}.{place[1]}"} if place else {"param": name, "value": value}
        raise _invalid_params(_plain(_PLACE.sub("", text)), **where) from error


def _converted(named: dict[str, Any], params: type) -> Any:
    try:
        return msgspec.convert(named, params)
    except msgspec.ValidationError as error:
        text = str(error)
        place = _PLACE.search(text)
        where = {"param": place[1]} if place else {}
        if place and place[1] in named:
            where["value"] = named[place[1]]
        raise _invalid_params(_plain(_PLACE.sub("", text)), **where) from error


def _invalid_params(problem: str, **more: Any) -> CallError:
    return CallError(INVALID_PARAMS, "Invalid params", {**more, "problem": problem})


def _nearest(name: str, names: list[str]) -> list[str]:
    by_folded = {known.casefold(): known for known in names}
    found = difflib.get_close_matches(name[:_SHOWN].casefold(), by_folded, n=3, cutoff=0.5)
    return [by_folded[folded] for folded in found]


def _plain(message: str) -> str:
    return message.replace("`", "")
