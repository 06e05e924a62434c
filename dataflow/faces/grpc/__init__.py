"""gRPC at a port of its own: ticks in, aggregates out, with the standard health service and reflection.

Rules of this file: it is read whether or not the face is enabled, so it imports nothing that needs the
library protobuf.
"""

from __future__ import annotations

from collections.abc import Iterable

from attrs import field, frozen, validators

from dataflow import paths, plugs
from dataflow.gateway import face
from dataflow.gateway.about import Sample, reached
from dataflow.gateway.hall import Hall
from dataflow.settings.schema import FaceSettings
from supervisors import Child


@frozen(kw_only=True)
class Settings(FaceSettings):
    """The table `[faces.grpc]`. Off unless it is switched on, because it needs a library, and a port."""

    enabled: bool = False
    host: str = field(default="127.0.0.1", validator=validators.min_len(1))
    port: int = field(default=50051, validator=[validators.ge(0), validators.le(65535)])


class Face(face.Face):
    """A listener. Raises ConfigError without the library."""

    follows_days = True

    def __init__(self, settings: Settings) -> None:
        plugs.library("google.protobuf", "protobuf", "[faces.grpc]")
        from .listener import Place

        self._place = Place(settings.host, settings.port)

    def children(self, hall: Hall) -> Iterable[Child]:
        from .listener import Listener

        return (
            Child(
                paths.name(paths.GRPC),
                lambda: Listener(hall, self._place),
                stop_within=hall.settings.supervision.stop_within,
            ),
        )

    def about(self, hall: Hall) -> Iterable[Sample]:
        from .marketdata import SOURCE
        from .samples import samples

        return samples(reached(self._place.host, self._place.port), hall.intake(SOURCE) is not None)
