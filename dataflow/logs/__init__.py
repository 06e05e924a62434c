"""The log, and safe text for terminals."""

from .logs import Burst, Format, Level, configure, dropped, finish, log_event, often, reopen
from .outlet import unhinder

__all__ = [
    "Burst",
    "Format",
    "Level",
    "configure",
    "dropped",
    "finish",
    "log_event",
    "often",
    "reopen",
    "unhinder",
]
