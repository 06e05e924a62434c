"""The generated Python is that of the `.proto` files, and these say what clients that exist already send."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from dataflow.protobuf.grpc.health.v1 import health_pb2
from dataflow.protobuf.grpc.reflection.v1 import reflection_pb2
from dataflow.protobuf.grpc.reflection.v1alpha import reflection_pb2 as reflection_alpha_pb2
from dataflow.protobuf.marketdata_pb2 import Aggregate, Tick

HERE = Path(__file__).parents[3] / "dataflow" / "protobuf"


def generated(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): file.read_text()
        for pattern in ("**/*_pb2.py", "**/*_pb2.pyi")
        for file in folder.glob(pattern)
    }


def test_the_generated_files_are_those_of_the_proto_files(tmp_path: Path) -> None:
    """Nobody edits them, and nobody forgets `make proto`."""
    subprocess.run(["make", "-s", "proto", f"ARGS={tmp_path}"], cwd=HERE.parents[1], check=True)
    assert generated(tmp_path) == generated(HERE)
    assert len(generated(HERE)) == 2 * len(list(HERE.glob("**/*.proto"))) == 8


def test_a_tick_on_the_wire() -> None:
    """The bytes of a client that was built from its own copy of the file: numbers and types are as they were."""
    written = bytes.fromhex(
        "0a0420616170"  # 1: " aap"
        "110000000000105940"  # 2: 100.25, a double
        "180a"  # 3: 10
        "20c1dfbd81c58aab8a18"  # 4: ns, a varint
        "2801"  # 5
    )
    assert Tick.FromString(written) == Tick(
        symbol=" aap",
        price=100.25,
        volume=10,
        exchange_timestamp=1735201234567000001,
        ingest_timestamp=1,
    )


def test_an_aggregate_on_the_wire() -> None:
    """The numbers of its fields, those of the old clients first."""
    fields = {field.name: field.number for field in Aggregate.DESCRIPTOR.fields}
    names = ("symbol", "open", "high", "low", "close", "volume", "timestamp", "volume_exact")
    assert fields == {name: number for number, name in enumerate(names, 1)}


@pytest.mark.parametrize(
    ("module", "file", "methods"),
    [
        (
            health_pb2,
            "grpc/health/v1/health.proto",
            [f"grpc.health.v1.Health.{method}" for method in ("Check", "List", "Watch")],
        ),
        *(
            (
                module,
                f"grpc/reflection/{version}/reflection.proto",
                [f"grpc.reflection.{version}.ServerReflection.ServerReflectionInfo"],
            )
            for module, version in ((reflection_pb2, "v1"), (reflection_alpha_pb2, "v1alpha"))
        ),
    ],
)
def test_the_standard_services_have_their_standard_names(module: Any, file: str, methods: list[str]) -> None:
    """Tools find them by these names."""
    assert file == module.DESCRIPTOR.name
    services = module.DESCRIPTOR.services_by_name.values()
    assert methods == [method.full_name for service in services for method in service.methods]
