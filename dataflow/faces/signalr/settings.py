"""The table `[faces.signalr]`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import field, frozen, validators

from dataflow.settings.schema import FaceSettings, check_origins, check_path

_positive: Any = validators.gt(0)


@frozen(kw_only=True)
class Settings(FaceSettings):
    """The keys of the hub. Durations are seconds."""

    enabled: bool = False
    path: str = field(default="/blockchain", validator=check_path)
    origins: tuple[str, ...] = field(default=("http://localhost:4200",))
    keepalive: float = field(default=15.0, validator=_positive)
    client_timeout: float = field(default=30.0, validator=_positive)
    handshake_timeout: float = field(default=15.0, validator=_positive)
    max_recent: int = field(default=50, validator=[_positive, validators.le(1000)])

    @origins.validator
    def _pages(self, _attribute: object, value: Sequence[str]) -> None:
        check_origins(value)
