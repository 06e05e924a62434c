"""The reasons of an end, in the close codes of WebSocket (RFC 6455, section 7.4.1)."""

from __future__ import annotations

from typing import Final

from actors.session import Ending, WireClosed

CODES: Final = {
    Ending.GONE: 1000,
    Ending.GOING_AWAY: 1001,
    Ending.SLOW: 1008,
    Ending.SILENT: 1011,
    Ending.FAILED: 1011,
    Ending.REFUSED: 1013,
}


class WebSocketClosed(WireClosed):
    """A WebSocket has ended, by either side: `code` and `reason` as in the close frame."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(f"{code} {reason}".strip())
        self.code = code
        self.reason = reason
