"""The HTTP application: problems as answers, and no path twice."""

from __future__ import annotations

from typing import Any

import pytest
from quart import Response, request
from quart.testing import WebsocketResponseError
from trio.testing import MockClock

from dataflow.gateway.application import BODY_SECONDS, MAX_BODY_BYTES, create_app
from dataflow.gateway.face import Entrance, Route
from dataflow.gateway.problems import Forbidden, InvalidValue, Problem, Unauthorised
from dataflow.server.handshake import Handshake, Socket


async def nothing(*_args: Any) -> Any:
    raise AssertionError("no client comes")


class Expired(Unauthorised):
    """A face's own kind of a problem."""


@pytest.mark.parametrize(("error", "status"), [(Expired("old token"), 401), (Forbidden("not you"), 403)])
async def test_a_problem_is_answered_by_its_kind(error: Problem, status: int) -> None:
    """A narrower kind has the status of the wider one."""

    async def handler() -> Response:
        raise error

    app = create_app([Route("/try", handler)], [], nothing)
    answer = await app.test_client().get("/try")
    assert answer.status_code == status
    assert (await answer.get_json())["detail"] == error.summary


async def read_the_body() -> Response:
    return Response(f"{len(await request.get_data())}")


async def test_a_body_is_bounded() -> None:
    """A longer one is refused with 413 in a problem document."""
    app = create_app([Route("/take", read_the_body, ("POST",))], [], nothing)
    answer = await app.test_client().post("/take", data=bytes(MAX_BODY_BYTES))
    assert await answer.get_data() == b"%d" % MAX_BODY_BYTES
    answer = await app.test_client().post("/take", data=bytes(MAX_BODY_BYTES + 1))
    assert answer.status_code == (await answer.get_json())["status"] == 413


async def test_a_body_that_does_not_come_is_not_waited_for(autojump_clock: MockClock) -> None:
    """It has its time, and then is refused with 408."""
    app = create_app([Route("/take", read_the_body, ("POST",))], [], nothing)
    async with app.test_client().request("/take", method="POST") as connection:
        await connection.send(b"not all")
        began = autojump_clock.current_time()
        answer: Any = await connection.as_response()
        assert autojump_clock.current_time() - began == BODY_SECONDS
        assert answer.status_code == (await answer.get_json())["status"] == 408


async def test_a_path_in_any_case() -> None:
    """Capitals do not matter in its words, and stay in its variables; other paths keep their case."""

    async def price(name: str) -> Response:
        return Response(name)

    routes = [Route("/Instruments/<name>/price", price, any_case=True), Route("/Exact/<name>", price)]
    client = create_app(routes, [], nothing).test_client()
    for path in ("/Instruments/bTc/price", "/instruments/bTc/PRICE"):
        answer = await client.get(path)
        assert await answer.get_data() == b"bTc"
    for path in ("/Instrument/bTc/price", "/Instruments/bTc/pric.", "/Instruments//price", "/exact/bTc"):
        assert (await client.get(path)).status_code == 404
    assert (await client.post("/INSTRUMENTS/x/PRICE")).status_code == 405


async def test_a_client_is_refused_before_its_websocket_opens() -> None:
    """By a problem, as a route refuses; who has no fault is attended to."""
    attended = []

    async def attend(connection: Any, entrance: Entrance) -> None:
        attended.append(connection.path)
        await connection.accept()

    def check(client: Handshake) -> None:
        if client.query == "broken":
            raise RuntimeError("a mistake of ours")
        if client.query:
            raise InvalidValue("query", client.query, "none is allowed")

    entrance = Entrance(Socket("/talk"), lambda _session, _client: None, check)
    app = create_app([], [entrance], attend)
    for path, status in (("/talk?x", 400), ("/talk?broken", 500)):
        async with app.test_client().websocket(path) as refused:
            with pytest.raises(WebsocketResponseError) as told:
                await refused.receive()
            assert told.value.response.status_code == status
    assert attended == []
    async with app.test_client().websocket("/talk") as admitted:
        await admitted.send("let me in")
    assert attended == ["/talk"]
    at = [Handshake("/talk", query, (), "127.0.0.1:1", False) for query in ("x", "broken", "")]
    assert [entrance.admits(client) for client in at] == [False, False, True]
