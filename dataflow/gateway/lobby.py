"""The connected clients, the admission of new ones, and the ports where the gateway listens.

Rules of this file: the lobby outlives the gateway's actors, as `core` outlives all others. It knows no
protocol.
"""

from __future__ import annotations

from dataflow.settings.schema import Settings

from .admission import Admission
from .clients import Clients


class Lobby:
    """The state of the gateway. Built once from the settings."""

    def __init__(self, settings: Settings) -> None:
        self.clients = Clients()
        newcomers = settings.admission
        self.admission = Admission(newcomers.at_once, newcomers.waiting, newcomers.retry_after)
        # Port 0 means any port. The server writes the real one here, so a restart keeps it.
        self.port = settings.gateway.port
        self.operator_port = settings.operator.port or 0
