"""Runs operations. What all clients of the face share is one `Service`.

Rules of this file: no I/O, and no resolver waits: two fields that wait would need asyncio. Pages are
waited for behind the run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

from dataflow.gateway.desk import Desk
from dataflow.gateway.limits import Account
from dataflow.gateway.problems import Problem

from .documents import Documents, Rejected
from .pages import Elsewhere, Pages, extensions
from .request import Request
from .schema import SCHEMA, leaf
from .selections import Selections

Result = Mapping[str, Any]


@define
class Service:
    """The documents of all clients, and who answers them. `selections`: of those who follow."""

    desk: Desk
    documents: Documents
    selections: Selections = field(factory=Selections)

    async def answer(self, request: Request, elsewhere: Elsewhere, account: Account) -> Result:
        """A result, of a query. A subscription is an error here. `account` pays."""
        try:
            document = self.documents.document(request.query, account.pay)
            if is_subscription(document, request):
                raise Rejected([GraphQLError("A subscription needs a WebSocket: graphql-transport-ws.")])
            return await self.run(document, request, elsewhere, account)
        except Rejected as rejected:
            return failed(rejected.errors)

    async def run(
        self, document: DocumentNode, request: Request, elsewhere: Elsewhere, account: Account
    ) -> Result:
        """The result of a query, in a document that is valid. Waits for the pages in it, `elsewhere`."""
        pages = Pages(self.desk)
        ran = execute_sync(
            SCHEMA,
            document,
            context_value=pages,
            variable_values=dict(request.variables),
            operation_name=request.operation_name,
            field_resolver=leaf,
        )
        assert isinstance(ran, ExecutionResult)
        if ran.data is None and ran.errors:  # it was never begun: no field of a query fails
            return failed(ran.errors)
        data = ran.data or {}
        missing = await pages.fill(data, elsewhere, account)
        errors = [*(error.formatted for error in ran.errors or ()), *missing]
        return {"errors": errors, "data": data} if errors else {"data": data}


def is_subscription(document: DocumentNode, request: Request) -> bool:
    """Whether the operation that is asked for is one. Without such an operation: no."""
    operation = get_operation_ast(document, request.operation_name)
    return operation is not None and operation.operation is OperationType.SUBSCRIPTION


def failed(errors: Sequence[GraphQLError]) -> Result:
    """The result of what was not run."""
    return {"errors": [error.formatted for error in errors]}


def refused(problem: Problem) -> Result:
    """The same for a problem of the hall."""
    error = {"message": problem.summary, "extensions": extensions(problem)}
    return {"errors": [error]}
