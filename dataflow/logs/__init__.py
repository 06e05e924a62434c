"""The log, and safe text for terminals."""

from .logs import (
    Burst,
    Format,
    Level,
    configure,
    dropped,
    failure,
    finish,
    is_link_lost,
    log_event,
    often,
    reopen,
    words,
)
from .outlet import unhinder

__all__ = [
    "Burst",
    "Format",
    "Level",
    "configure",
    "dropped",
    "failure",
    "finish",
    "is_link_lost",
    "log_event",
    "often",
    "reopen",
    "unhinder",
    "words",
]
