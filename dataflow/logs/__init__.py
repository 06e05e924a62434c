"""The log, and what a terminal can show."""

from .logs import Burst, Format, Level, configure, log_event

__all__ = ["Burst", "Format", "Level", "configure", "log_event"]
