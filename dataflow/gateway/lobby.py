"""The connected clients, the admission of new ones, and the ports where the gateway listens.

Rules of this file: the lobby outlives the gateway's actors, as `core` outlives all others. It knows no
protocol.
"""

from __future__ import annotations

from dataflow.events import Events
from dataflow.server.connection import ServerStats
from dataflow.settings.schema import Settings

from .admission import Admission
from .certificates import InService
from .clients import Clients
from .hops import networks
from .limits import Quotas
from .room import Room


class Lobby:
    """The state of the gateway. Built once from the settings. `room`: by default as much as they ask for.

    `events`: where a client that takes nothing is told.
    """

    def __init__(self, settings: Settings, room: Room | None = None, events: Events | None = None) -> None:
        self.clients = Clients(events)
        self.room = room or Room(settings.gateway.max_sessions)
        self.stats = ServerStats()
        self.quotas = Quotas(settings.limits, networks(settings.gateway.trusted_proxies))
        self.short_of_memory = False  # then nobody new comes in
        self.certificate = InService()
        newcomers = settings.admission
        self.admission = Admission(newcomers.at_once, newcomers.waiting, newcomers.retry_after)
        # Port 0 means any port. The server writes the real one here, so a restart keeps it.
        self.port = settings.gateway.port
        self.operator_port = settings.operator.port or 0
