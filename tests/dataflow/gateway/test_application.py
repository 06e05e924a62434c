"""The HTTP application: problems as answers, and no path twice."""

from __future__ import annotations

from typing import Any

import pytest
from quart import Response

from dataflow.gateway.application import create_app
from dataflow.gateway.face import Route
from dataflow.gateway.problems import Forbidden, Problem, Unauthorised


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


def test_two_faces_with_one_path_are_an_error() -> None:
    """Else the second would never be asked. Another method is another endpoint."""

    async def handler() -> Response:
        return Response()

    create_app([Route("/a", handler), Route("/a", handler, ("POST",))], [], nothing)
    with pytest.raises(ValueError, match="/a"):
        create_app([Route("/a", handler), Route("/a", handler)], [], nothing)
