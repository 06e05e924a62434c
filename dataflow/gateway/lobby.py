"""Who is here and who may come in: the clients, their admission, and the address where they find us.

Rules of this file: it outlives the gateway's actors, as `core` does all others. It knows no protocol.
"""

from __future__ import annotations

from dataflow.settings.schema import Settings

from .admission import Admission
from .clients import Clients


class Lobby:
    """Built once from the settings."""

    def __init__(self, settings: Settings) -> None:
        self.clients = Clients()
        newcomers = settings.admission
        self.admission = Admission(newcomers.at_once, newcomers.waiting, newcomers.retry_after)
        # Where the gateway listens: a port that was any is this very one when it is started anew.
        self.port = settings.gateway.port
