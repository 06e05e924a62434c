"""Promises of faces.jsonrpc.protocol."""

from __future__ import annotations

import json
from collections import Counter
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from dataflow.faces.jsonrpc import protocol as jsonrpc
from dataflow.faces.jsonrpc.protocol import (
    Call,
    CallError,
    Invalid,
    Long,
    Methods,
    Write,
    dispatch,
    parse,
)


@frozen
class Subtract:
    minuend: int
    subtrahend: int


@frozen
class Position:
    epoch: int
    offset: int


@frozen(kw_only=True)
class Subscribe:
    symbol: str
    snapshot: int | None = None
    since: Position | None = None


class Sum(msgspec.Struct):
    a: int = 0
    b: int = 0
    c: int = 0


class Server:
    """The specification's server with further methods; `log` has their calls."""

    def __init__(self) -> None:
        self.log: list[Any] = []
        self.reports: list[tuple[str, Exception]] = []
        self.methods = Methods(
            subtract=(Subtract, self.subtract),
            sum=(Sum, self.sum),
            update=(None, self.notify),
            notify_hello=(Sum, self.notify),
            notify_sum=(Sum, self.notify),
            get_data=(None, self.get_data),
            subscribe=(Subscribe, self.subscribe),
            refuse=(None, self.refuse),
            crash=(None, self.crash),
            unprintable=(None, self.unprintable),
            getSymbols=(None, self.get_data),
        )

    async def subtract(self, params: Subtract) -> int:
        self.log.append(params)
        return params.minuend - params.subtrahend

    async def sum(self, params: Sum) -> int:
        self.log.append("sum")
        return params.a + params.b + params.c

    async def notify(self, params: Any = None) -> None:
        self.log.append("notify")

    async def get_data(self) -> list[Any]:
        self.log.append("get_data")
        return ["hello", 5]

    async def subscribe(self, params: Subscribe) -> Subscribe:
        self.log.append(params)
        return params

    async def refuse(self) -> None:
        raise CallError(-32003, "too many subscriptions", {"limit": 3})

    async def crash(self) -> None:
        raise RuntimeError("a secret of the house")

    async def unprintable(self) -> Any:
        return object()

    async def answer(self, text: str | bytes, **options: Any) -> Any:
        said = await dispatch(text, self.methods, self.report, **options)
        return None if said is None else json.loads(said)

    def report(self, method: str, error: Exception) -> None:
        self.reports.append((method, error))


def without_data(answer: Any) -> Any:
    """The answer as the specification shows it: `data` is our own."""
    if isinstance(answer, list):
        return [without_data(member) for member in answer]
    if isinstance(answer, dict) and "error" in answer:
        told = {key: value for key, value in answer["error"].items() if key != "data"}
        return {**answer, "error": told}
    return answer


def error(code: int, message: str, call_id: Any = None) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "error": {"code": code, "message": message}, "id": call_id}


def result(value: Any, call_id: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "result": value, "id": call_id}


INVALID = error(-32600, "Invalid Request")
PARSE = error(-32700, "Parse error")

# Every example of section 7 of the specification, in its order. Its method names are ours where the
# specification calls something that exists.
SPECIFICATION: list[tuple[str, Any]] = [
    ('{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 1}', result(19, 1)),
    ('{"jsonrpc": "2.0", "method": "subtract", "params": [23, 42], "id": 2}', result(-19, 2)),
    (
        '{"jsonrpc": "2.0", "method": "subtract", "params": {"subtrahend": 23, "minuend": 42}, "id": 3}',
        result(19, 3),
    ),
    (
        '{"jsonrpc": "2.0", "method": "subtract", "params": {"minuend": 42, "subtrahend": 23}, "id": 4}',
        result(19, 4),
    ),
    ('{"jsonrpc": "2.0", "method": "update", "params": [1,2,3,4,5]}', None),
    ('{"jsonrpc": "2.0", "method": "foobar"}', None),
    ('{"jsonrpc": "2.0", "method": "foobar", "id": "1"}', error(-32601, "Method not found", "1")),
    ('{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]', PARSE),
    ('{"jsonrpc": "2.0", "method": 1, "params": "bar"}', INVALID),
    (
        '[{"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"}, {"jsonrpc": "2.0", "method"]',
        PARSE,
    ),
    ("[]", INVALID),
    ("[1]", [INVALID]),
    ("[1,2,3]", [INVALID, INVALID, INVALID]),
    (
        """[
        {"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},
        {"jsonrpc": "2.0", "method": "notify_hello", "params": [7]},
        {"jsonrpc": "2.0", "method": "subtract", "params": [42,23], "id": "2"},
        {"foo": "boo"},
        {"jsonrpc": "2.0", "method": "foo.get", "params": {"name": "myself"}, "id": "5"},
        {"jsonrpc": "2.0", "method": "get_data", "id": "9"}
        ]""",
        [
            result(7, "1"),
            result(19, "2"),
            INVALID,
            error(-32601, "Method not found", "5"),
            result(["hello", 5], "9"),
        ],
    ),
    (
        """[
        {"jsonrpc": "2.0", "method": "notify_sum", "params": [1,2,4]},
        {"jsonrpc": "2.0", "method": "notify_hello", "params": [7]}
        ]""",
        None,
    ),
]


@pytest.mark.parametrize(("text", "expected"), SPECIFICATION)
async def test_the_examples_of_the_specification(text: str, expected: Any) -> None:
    """Every one of them, as text and as bytes."""
    assert without_data(await Server().answer(text)) == expected
    assert without_data(await Server().answer(text.encode())) == expected


@pytest.mark.parametrize(
    "call_id",
    [
        *("1", "0", "-5", "1.0", "1.10", "1e2", "1E+2", "123456789012345678901234567890", "1e999", "null"),
        *('"x"', '""', '"\\u00e9\\n"', '"\\/"', '" 1 "'),
    ],
)
async def test_an_id_goes_back_digit_for_digit(call_id: str) -> None:
    """Strings, numbers of any form and null, in answers and in errors; null is an id, not a notification."""
    server = Server()
    for method in ("get_data", "nothing"):
        said = await dispatch(
            f'{{"jsonrpc":"2.0","method":"{method}","id" : {call_id} }}', server.methods, server.report
        )
        assert said is not None
        assert said.endswith(f'"id":{call_id}}}'.encode())


@pytest.mark.parametrize("call_id", ["true", "false", "[]", "[1]", "{}", "9" * 5000])
async def test_another_id_is_an_invalid_request(call_id: str) -> None:
    """It is not sent back."""
    server = Server()
    answer = await server.answer(f'{{"jsonrpc":"2.0","method":"get_data","id":{call_id}}}')
    assert without_data(answer) == INVALID
    assert server.log == []


@pytest.mark.parametrize(
    ("member", "call_id", "problem"),
    [
        ('{"method":"get_data","id":5}', 5, 'jsonrpc must be "2.0"'),
        ('{"jsonrpc":"1.0","method":"get_data","id":5}', 5, 'jsonrpc must be "2.0"'),
        ('{"jsonrpc":2.0,"method":"get_data","id":5}', 5, 'jsonrpc must be "2.0"'),
        ('{"jsonrpc":"2.0","id":5}', 5, "method must be a string"),
        ('{"jsonrpc":"2.0","method":null,"id":5}', 5, "method must be a string"),
        (
            '{"jsonrpc":"2.0","method":"get_data","params":null,"id":5}',
            5,
            "params must be an array or an object",
        ),
        ('{"jsonrpc":"2.0","method":"get_data","params":"x"}', None, "params must be an array or an object"),
        ('"x"', None, "Expected object, got str"),
        ("null", None, "Expected object, got null"),
    ],
)
async def test_an_invalid_request_is_told_what_is_wrong(member: str, call_id: Any, problem: str) -> None:
    """Alone and in a batch, with its id when that is valid; no method is run."""
    server = Server()
    expected = {
        **error(-32600, "Invalid Request", call_id),
        "error": {"code": -32600, "message": "Invalid Request", "data": {"problem": problem}},
    }
    assert await server.answer(member) == expected
    assert await server.answer(f"[{member}]") == [expected]
    assert server.log == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "{",
        "nonsense",
        '{"jsonrpc":"2.0","method":"\\q","id":1}',
        "[1,",
        "[{]",
        "{}{}",
        "[1] 2",
        "1 2",
        '"x"y',
        "\ud800",
        '[{"jsonrpc":"2.0","method":"get_data","id":1},{"jsonrpc":"2.0","method":"\\q"}]',
        "[" * 100_000,
        '{"jsonrpc":"2.0","method":"get_data","id":"\\q"}',
        '{"a":' * 100_000,
        '{"id":01}',
        b"\xff",
        b'{"id":"\xff"}',
    ],
)
async def test_broken_json_is_one_parse_error_and_runs_nothing(text: str | bytes) -> None:
    """A batch that is broken anywhere is broken as a whole."""
    server = Server()
    answer = await server.answer(text)
    assert without_data(answer) == PARSE
    assert answer["error"]["data"]["problem"]
    assert server.log == []


async def test_a_batch_is_bounded() -> None:
    """One call too many: one refusal, and none of them runs. Exactly the allowed number is run."""
    server = Server()
    call = '{"jsonrpc":"2.0","method":"sum"}'
    assert await server.answer(f"[{','.join([call] * 3)}]", max_batch=3) is None
    assert server.log == ["sum"] * 3
    assert await server.answer(f"[{','.join([call] * 4)}]", max_batch=3) == {
        **INVALID,
        "error": {
            "code": -32600,
            "message": "Invalid Request",
            "data": {"problem": "a batch may hold at most 3 calls", "limit": 3, "found": 4},
        },
    }
    assert server.log == ["sum"] * 3


async def test_the_answers_to_a_batch_are_bounded() -> None:
    """Above the bound, calls are refused and not run. Notifications have no answer, so they run."""
    server = Server()
    call = {"jsonrpc": "2.0", "method": "get_data", "id": 1}
    notice = {"jsonrpc": "2.0", "method": "sum"}
    answers = await server.answer(json.dumps([call, call, notice, call]), max_answers=60)
    assert [answer.get("error", {}).get("code") for answer in answers] == [None, None, -32002]
    assert server.log == ["get_data", "get_data", "sum"]


async def test_a_batch_does_not_keep_the_event_loop() -> None:
    """Other tasks may run before every call of a batch."""
    server = Server()
    pauses: list[int] = []

    async def pause() -> None:
        pauses.append(len(server.log))

    await server.answer(json.dumps([{"jsonrpc": "2.0", "method": "sum"}] * 3), pause=pause)
    assert pauses == [1, 2]


async def test_the_calls_of_a_batch_run_in_order() -> None:
    """Notifications among them too."""
    server = Server()
    names = ["sum", "update", "get_data", "sum", "update"]
    await server.answer(json.dumps([{"jsonrpc": "2.0", "method": name} for name in names]))
    assert server.log == ["sum", "notify", "get_data", "sum", "notify"]


@pytest.mark.parametrize("name", ["getSymbols", "getsymbols", "GETSYMBOLS", "GetSymbols"])
async def test_the_case_of_a_method_name_does_not_matter(name: str) -> None:
    """A rule of the public contract."""
    assert await Server().answer(json.dumps({"jsonrpc": "2.0", "method": name, "id": 1})) == result(
        ["hello", 5], 1
    )


async def test_an_unknown_method_is_told_the_right_names() -> None:
    """The nearest names and all of them. A long name comes back cut."""
    server = Server()
    answer = await server.answer('{"jsonrpc":"2.0","method":"Subscrib","id":1}')
    assert answer["error"]["data"] == {
        "method": "Subscrib",
        "nearest": ["subscribe", "subtract"],
        "valid": server.methods.names,
    }
    assert "getSymbols" in answer["error"]["data"]["valid"]
    long = await server.answer(json.dumps({"jsonrpc": "2.0", "method": "x" * 60_000, "id": 1}))
    assert len(json.dumps(long)) < 1000


def test_two_methods_that_differ_only_in_case_cannot_be() -> None:
    """One of them could never be called."""

    async def nothing() -> None: ...

    with pytest.raises(ValueError, match="differ only in case"):
        Methods(ping=(None, nothing), PING=(None, nothing))


@pytest.mark.parametrize(
    ("method", "params", "data"),
    [
        (
            "subscribe",
            {"simbol": "A"},
            {"param": "simbol", "problem": "unknown parameter", "nearest": ["symbol"]},
        ),
        ("subscribe", {}, {"param": "symbol", "problem": "is missing"}),
        ("subscribe", [], {"param": "symbol", "problem": "is missing"}),
        ("subscribe", None, {"param": "symbol", "problem": "is missing"}),
        ("subscribe", [1], {"param": "symbol", "value": 1, "problem": "Expected str, got int"}),
        (
            "subscribe",
            {"symbol": "A", "snapshot": "3"},
            {"param": "snapshot", "value": "3", "problem": "Expected int | null, got str"},
        ),
        (
            "subscribe",
            {"symbol": "A", "since": {"epoch": 1}},
            {
                "param": "since",
                "value": {"epoch": 1},
                "problem": "Object missing required field offset",
            },
        ),
        (
            "subscribe",
            {"symbol": "A", "since": {"epoch": 1, "offset": "x"}},
            {"param": "since.offset", "problem": "Expected int, got str"},
        ),
        ("subtract", [1, 2, 3], {"problem": "at most 2 parameters", "found": 3}),
        ("get_data", [1], {"problem": "get_data takes no parameters"}),
        ("GET_DATA", {"x": 1}, {"problem": "get_data takes no parameters"}),
    ],
)
async def test_wrong_params_are_told_the_right_ones(method: str, params: Any, data: dict[str, Any]) -> None:
    """The answer names the parameter, the problem and valid names; the handler is not run."""
    server = Server()
    request = {"jsonrpc": "2.0", "method": method, "id": 1}
    if params is not None:
        request["params"] = params
    answer = await server.answer(json.dumps(request))
    assert (answer["error"]["code"], answer["error"]["message"]) == (-32602, "Invalid params")
    assert answer["error"]["data"].items() >= data.items()
    assert answer["error"]["data"].get("valid") in (
        None,
        ["symbol", "snapshot", "since"],
        ["minuend", "subtrahend"],
    )
    assert server.log == []


async def test_params_arrive_typed() -> None:
    """By name or by position, nested ones too; a missing one has its default."""
    server = Server()
    by_name = {"symbol": "A-B", "since": {"epoch": 1, "offset": 2}}
    for params in (by_name, ["A-B", None, {"epoch": 1, "offset": 2}]):
        await server.answer(json.dumps({"jsonrpc": "2.0", "method": "subscribe", "params": params}))
    assert server.log == [Subscribe(symbol="A-B", since=Position(1, 2))] * 2
    for params in ([], {}):
        answer = await server.answer(
            json.dumps({"jsonrpc": "2.0", "method": "get_data", "params": params, "id": 1})
        )
        assert answer == result(["hello", 5], 1)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (
            '{"symbol": "A-B", "snapshot": 50.0, "since": {"epoch": 1.0, "offset": 2e3}}',
            (50, Position(1, 2000)),
        ),
        ('["A-B", 5e1]', (50, None)),
        ('["A-B", 50.00000000000000000000]', (50, None)),
        ('["A-B", 9007199254740993.0]', (9007199254740993, None)),
    ],
)
async def test_a_whole_number_is_an_integer(written: str, expected: Any) -> None:
    """JSON has one kind of number, of which no digit is guessed; one in an object inside counts too."""
    server = Server()
    await server.answer(f'{{"jsonrpc":"2.0","method":"subscribe","params":{written}}}')
    (params,) = server.log
    assert (params.snapshot, params.since) == expected
    assert type(params.snapshot) is int


@pytest.mark.parametrize(
    "written",
    ["50.5", "1e300", "1e400", "1e" + "9" * 50, "50.00000000000000000001", '"50"', "true", "[50.0]"],
)
async def test_another_number_is_no_integer(written: str) -> None:
    """It has a fraction, or is beyond all bounds; text and booleans are no numbers. The id is answered."""
    server = Server()
    answer = await server.answer(
        f'{{"jsonrpc":"2.0","method":"subscribe","params":["A-B",{written}],"id":1}}'
    )
    assert (answer["id"], answer["error"]["code"]) == (1, -32602)
    assert answer["error"]["data"]["param"] == "snapshot"
    assert server.log == []


async def test_a_refusal_reaches_the_client() -> None:
    """With the code, message and data of the CallError. It is not reported as a failure inside."""
    server = Server()
    assert await server.answer('{"jsonrpc":"2.0","method":"refuse","id":1}') == {
        "jsonrpc": "2.0",
        "error": {"code": -32003, "message": "too many subscriptions", "data": {"limit": 3}},
        "id": 1,
    }
    assert await server.answer('{"jsonrpc":"2.0","method":"refuse"}') is None
    assert server.reports == []


@pytest.mark.parametrize("method", ["crash", "unprintable"])
async def test_a_failure_inside_is_reported_and_never_leaks(method: str) -> None:
    """In a notification too, and when a result cannot be written."""
    server = Server()
    answer = await server.answer(
        f'[{{"jsonrpc":"2.0","method":"{method}","id":1}},{{"jsonrpc":"2.0","method":"sum","id":2}}]'
    )
    assert without_data(answer) == [error(-32603, "Internal error", 1), result(0, 2)]
    assert "secret" not in json.dumps(answer)
    assert "Error" not in json.dumps(answer)
    assert await server.answer(f'{{"jsonrpc":"2.0","method":"{method}"}}') is None
    assert [name for name, _ in server.reports] == [method] * 2


class Writer:
    """Keeps what is written before the rest of an answer."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    async def write(self, text: bytes) -> None:
        self.pieces.append(text)


class Numbers(msgspec.Struct):
    upto: int
    fail: bool = False


async def _numbers(asked: Numbers) -> Long:
    async def tell(write: Write) -> bytes:
        if asked.fail and not asked.upto:
            raise CallError(jsonrpc.INVALID_PARAMS, "Invalid params")
        for n in range(asked.upto):
            await write(b"%b%d" % (b"," if n else b"[", n))
        if asked.fail:
            raise RuntimeError("in the midst")
        return b"]" if asked.upto else b"[]"

    return Long(tell)


LONG = Methods(numbers=(Numbers, _numbers))
CALL = {"jsonrpc": "2.0", "method": "numbers"}


def no_report(method: str, error: Exception) -> None:
    raise AssertionError(method) from error


@pytest.mark.parametrize("upto", [0, 1, 3])
async def test_a_long_result_is_written_in_pieces(upto: int) -> None:
    """Pieces and rest together are the answer; without a writer it is returned whole."""
    asked = json.dumps(CALL | {"id": 7, "params": {"upto": upto}})
    writer = Writer()
    rest = await dispatch(asked, LONG, no_report, write=writer.write)
    assert len(writer.pieces) == upto
    assert rest is not None
    whole = b"".join([*writer.pieces, rest])
    assert json.loads(whole) == {"jsonrpc": "2.0", "result": list(range(upto)), "id": 7}
    assert await dispatch(asked, LONG, no_report) == whole


async def test_long_results_in_a_batch_are_one_array() -> None:
    """Each at its place, beside short ones and errors; a notification writes nothing."""
    calls = [
        CALL | {"id": 1, "params": {"upto": 2}},
        CALL | {"params": {"upto": 3}},
        CALL | {"id": 2, "params": {"upto": 0, "fail": True}},
        CALL | {"id": 3, "method": "none"},
        CALL | {"id": 4, "params": {"upto": 0}},
        CALL | {"id": 5, "params": {"upto": 1}},
    ]
    writer = Writer()
    rest = await dispatch(json.dumps(calls), LONG, no_report, write=writer.write)
    assert len(writer.pieces) == 3
    assert rest is not None
    whole = b"".join([*writer.pieces, rest])
    answers = json.loads(whole)
    assert [answer["id"] for answer in answers] == [1, 2, 3, 4, 5]
    assert [answer.get("result") for answer in answers] == [[0, 1], None, None, [], [0]]
    assert await dispatch(json.dumps(calls), LONG, no_report) == whole


async def test_many_answers_of_a_batch_are_written_as_they_come() -> None:
    """None of them is long, but together they would be: they do not wait for the last one."""
    texts = Methods(sum=(Sum, _long_text))
    writer = Writer()
    calls = [{"jsonrpc": "2.0", "method": "sum", "id": n} for n in range(50)]
    rest = await dispatch(json.dumps(calls), texts, no_report, write=writer.write)
    assert rest is not None
    assert 5 <= len(writer.pieces) <= 50
    assert max(map(len, writer.pieces)) < 3 * jsonrpc.PIECE_BYTES
    answers = json.loads(b"".join([*writer.pieces, rest]))
    assert [answer["id"] for answer in answers] == list(range(50))


async def _long_text(_asked: Sum) -> str:
    return "x" * 10_000


async def test_a_failure_in_the_midst_of_an_answer_is_raised() -> None:
    """What has begun cannot become an error: the caller ends the connection."""
    asked = json.dumps(CALL | {"id": 7, "params": {"upto": 2, "fail": True}})
    for text in (asked, f"[{asked}]"):
        with pytest.raises(RuntimeError, match="in the midst"):
            await dispatch(text, LONG, no_report, write=Writer().write)


async def test_a_cancelled_call_is_cancelled() -> None:
    """A BaseException is no internal error: it passes through."""

    class Cancelled(BaseException):
        pass

    async def cancel() -> None:
        raise Cancelled

    reports: list[Any] = []
    methods = Methods(cancel=(None, cancel))
    with pytest.raises(Cancelled):
        await dispatch('{"jsonrpc":"2.0","method":"cancel","id":1}', methods, lambda *a: reports.append(a))
    assert reports == []


async def test_results_are_written_exactly() -> None:
    """Decimals become numbers with their digits; raw JSON stays as it is."""

    async def mixed() -> Any:
        return {
            "price": Decimal("8501.10"),
            "trade": msgspec.Raw(b'{"qty":5.892E-4}'),
            "counts": Counter("aab"),
        }

    said = await dispatch('{"jsonrpc":"2.0","method":"mixed","id":1}', Methods(mixed=(None, mixed)), print)
    assert said == (
        b'{"jsonrpc":"2.0","result":{"price":8501.10,"trade":{"qty":5.892E-4},"counts":{"a":2,"b":1}},"id":1}'
    )


def test_a_request_can_be_parsed_without_being_run() -> None:
    """The result is a call, an invalid request, or a list of these."""
    call = parse('{"jsonrpc":"2.0","method":"ping","params":[1.5]}')
    assert call == Call("ping", [1.5], None)
    assert isinstance(parse("{"), Invalid)
    batch = parse('[{"jsonrpc":"2.0","method":"ping","id":7},7]')
    assert isinstance(batch, list)
    assert [type(member) for member in batch] == [Call, Invalid]


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
NAMES = ["subtract", "sum", "update", "subscribe", "refuse", "crash", "unprintable", "nothing"]
requests = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.just("2.0") | st.just("2.0") | json_values,
        "method": st.sampled_from(NAMES) | json_values,
        "params": st.lists(st.integers(), max_size=3)
        | st.dictionaries(st.sampled_from(["a", "minuend", "subtrahend", "symbol"]), json_values, max_size=3)
        | json_values,
        "id": st.integers() | st.text(max_size=5) | st.none() | json_values,
    },
)


def is_call(member: Any) -> bool:
    """The definition of a request, taken from the specification again."""
    return (
        isinstance(member, dict)
        and member.get("jsonrpc") == "2.0"
        and isinstance(member.get("method"), str)
        and isinstance(member.get("params", []), list | dict)
        and ("id" not in member or isinstance(member["id"], str | int | float | None))
        and not isinstance(member.get("id"), bool)
    )


def check_answer(answer: Any) -> None:
    assert set(answer) in ({"jsonrpc", "result", "id"}, {"jsonrpc", "error", "id"})
    assert answer["jsonrpc"] == "2.0"
    if "error" in answer:
        assert set(answer["error"]) == {"code", "message", "data"}


@given(st.lists(requests | json_values, max_size=5) | requests | json_values)
async def test_every_request_gets_a_legal_answer(asked: Any) -> None:
    """Fuzz of structure: each answer has the right id and the right form."""
    answer = await Server().answer(json.dumps(asked))
    members = asked if isinstance(asked, list) else [asked]
    owed = [member for member in members if not is_call(member) or "id" in member]
    if asked == []:
        assert without_data(answer) == INVALID
        return
    answers = (
        answer if isinstance(asked, list) and answer is not None else [answer] if answer is not None else []
    )
    assert len(answers) == len(owed)
    for given_answer, member in zip(answers, owed, strict=True):
        check_answer(given_answer)
        if is_call(member):
            assert given_answer["id"] == member["id"]
            assert type(given_answer["id"]) is type(member["id"])
        else:
            assert given_answer["error"]["code"] == -32600


VALID = '[{"jsonrpc":"2.0","method":"subtract","params":[42,23.5],"id":"1"},{"jsonrpc":"2.0","method":"sum","id":2}]'


@given(st.integers(0, len(VALID) - 1), st.integers(0, len(VALID)), st.text(max_size=3))
async def test_damaged_text_is_answered(start: int, end: int, inserted: str) -> None:
    """Fuzz of text: broken JSON is the parse error; all other text is answered, or is a notification."""
    server = Server()
    text = VALID[:start] + inserted + VALID[end:]
    answer = await server.answer(text)
    try:
        json.loads(text)
    except ValueError:
        assert without_data(answer) == PARSE
        assert server.log == []
    else:
        for member in answer if isinstance(answer, list) else [answer] if answer else []:
            check_answer(member)


@given(st.binary(max_size=60) | st.text(max_size=60))
async def test_noise_is_answered(noise: str | bytes) -> None:
    """Fuzz: one legal answer, never an exception."""
    answer = await Server().answer(noise)
    for member in answer if isinstance(answer, list) else [answer]:
        check_answer(member)
        assert member["error"]["code"] in (jsonrpc.PARSE_ERROR, jsonrpc.INVALID_REQUEST)
