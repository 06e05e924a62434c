"""Runs operations. What all clients of the face share is one `Service`.

Rules of this file: no I/O, and nothing waits: every resolver answers at once. (Two fields that wait would
need asyncio.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import define, field
from graphql import (
    DocumentNode,
    ExecutionResult,
    GraphQLError,
    OperationType,
    execute_sync,
    get_operation_ast,
)

from dataflow.gateway.problems import Problem

from .documents import Documents, Rejected
from .request import Request
from .schema import SCHEMA, Desk, leaf
from .selections import Selections

Result = Mapping[str, Any]


@define
class Service:
    """The documents of all clients, and who answers them. `selections`: of those who follow."""

    desk: Desk
    documents: Documents
    selections: Selections = field(factory=Selections)

    def answer(self, request: Request, pay: Callable[[int], object]) -> Result:
        """A result, of a query. A subscription is an error here. `pay`: see `Documents.document`."""
        try:
            document = self.documents.document(request.query, pay)
            if is_subscription(document, request):
                raise Rejected([GraphQLError("A subscription needs a WebSocket: graphql-transport-ws.")])
            return self.run(document, request)
        except Rejected as rejected:
            return failed(rejected.errors)

    def run(self, document: DocumentNode, request: Request) -> Result:
        """The result of a query, in a document that is valid."""
        ran = execute_sync(
            SCHEMA,
            document,
            context_value=self.desk,
            variable_values=dict(request.variables),
            operation_name=request.operation_name,
            field_resolver=leaf,
        )
        assert isinstance(ran, ExecutionResult)
        if ran.data is None and ran.errors:  # it was never begun: no field of a query fails
            return failed(ran.errors)
        return ran.formatted


def is_subscription(document: DocumentNode, request: Request) -> bool:
    """Whether the operation that is asked for is one. Without such an operation: no."""
    operation = get_operation_ast(document, request.operation_name)
    return operation is not None and operation.operation is OperationType.SUBSCRIPTION


def failed(errors: Sequence[GraphQLError]) -> Result:
    """The result of what was not run."""
    return {"errors": [error.formatted for error in errors]}


def refused(problem: Problem) -> Result:
    """The same for a problem of the hall."""
    error = {"message": problem.summary, "extensions": {"code": type(problem).__name__, **problem.data}}
    return {"errors": [error]}
