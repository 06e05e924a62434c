"""The reasons of an end, in the close codes of WebSocket (RFC 6455, section 7.4.1)."""

from __future__ import annotations

from typing import Final

from actors.session import Ending, WireClosed

CODES: Final = {
    Ending.GONE: 1000,
    Ending.GOING_AWAY: 1001,
    Ending.SLOW: 1008,
    Ending.VIOLATION: 1008,  # a wire that finds one says what it was, in a code of its own
    Ending.OPERATOR: 1008,
    Ending.SILENT: 1011,
    Ending.FAILED: 1011,
    Ending.REFUSED: 1013,
}


class WebSocketClosed(WireClosed):
    """A WebSocket has ended, by either side: `code` and `reason` as in the close frame.

    `fault`: the peer broke a rule, and was told so.
    """

    def __init__(self, code: int, reason: str = "", fault: bool = False) -> None:
        super().__init__(f"{code} {reason}".strip(), Ending.VIOLATION if fault else Ending.GONE)
        self.code: int = code
        self.reason = reason
