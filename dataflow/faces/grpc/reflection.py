"""Server reflection, v1 and v1alpha: what can be called here, for grpcurl and others without the `.proto`.

Rules of this file: it shows the services that it is given, itself, and the files that these need.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from google.protobuf.descriptor import FileDescriptor, ServiceDescriptor

from dataflow.protobuf.grpc.reflection.v1 import reflection_pb2 as pb
from dataflow.protobuf.grpc.reflection.v1alpha import reflection_pb2 as alpha

from .call import Call
from .calls import Service
from .protocol import Status

NAME: Final = "ServerReflection"


class Reflection:
    """`grpc.reflection.v1.ServerReflection`, and v1alpha, whose messages have the same numbers."""

    descriptors = (pb.DESCRIPTOR.services_by_name[NAME], alpha.DESCRIPTOR.services_by_name[NAME])

    def __init__(self, services: Iterable[Service]) -> None:
        shown = [each for service in (*services, self) for each in service.descriptors]
        self._services = sorted(each.full_name for each in shown)
        self._files = {file.name: file for each in shown for file in _needed(each.file)}
        self._symbols = {name: file for file in self._files.values() for name in _symbols(file)}

    async def ServerReflectionInfo(self, call: Call) -> None:  # noqa: N802
        with call.lasting():
            while messages := await call.some():
                for message in messages:
                    await call.say(self._answer(call.parsed(message)))

    def _answer(self, request: Any) -> pb.ServerReflectionResponse:
        answer = pb.ServerReflectionResponse(valid_host=request.host)
        answer.original_request.MergeFromString(request.SerializeToString())
        match request.WhichOneof("message_request"):
            case "list_services":
                answer.list_services_response.service.extend(
                    pb.ServiceResponse(name=name) for name in self._services
                )
            case "file_by_filename":
                self._show(answer, self._files.get(request.file_by_filename), request.file_by_filename)
            case "file_containing_symbol":
                symbol = request.file_containing_symbol
                self._show(answer, self._symbols.get(symbol), symbol)
            case "all_extension_numbers_of_type" if request.all_extension_numbers_of_type in self._symbols:
                answer.all_extension_numbers_response.base_type_name = request.all_extension_numbers_of_type
            case None:
                _refuse(answer, Status.INVALID_ARGUMENT, "the request asks for nothing")
            case _:
                _refuse(answer, Status.NOT_FOUND, "unknown: there are no extensions here")
        return answer

    def _show(self, answer: pb.ServerReflectionResponse, file: FileDescriptor | None, wanted: str) -> None:
        if file is None:
            _refuse(answer, Status.NOT_FOUND, f"unknown: {wanted}")
            return
        shown = [each.serialized_pb for each in _needed(file)]
        answer.file_descriptor_response.file_descriptor_proto.extend(shown)


def _refuse(answer: pb.ServerReflectionResponse, status: Status, words: str) -> None:
    answer.error_response.error_code = status
    answer.error_response.error_message = words


def _needed(file: FileDescriptor) -> Iterator[FileDescriptor]:
    """`file`, and those that it imports."""
    yield file
    for each in file.dependencies:
        yield from _needed(each)


def _symbols(file: FileDescriptor) -> Iterator[str]:
    for message in file.message_types_by_name.values():
        yield from _below(message)
    for enum in file.enum_types_by_name.values():
        yield enum.full_name
    for service in file.services_by_name.values():
        yield from _of(service)


def _below(message: Any) -> Iterator[str]:
    yield message.full_name
    yield from (field.full_name for field in message.fields)
    yield from (enum.full_name for enum in message.enum_types)
    for nested in message.nested_types:
        yield from _below(nested)


def _of(service: ServiceDescriptor) -> Iterator[str]:
    yield service.full_name
    yield from (method.full_name for method in service.methods)
