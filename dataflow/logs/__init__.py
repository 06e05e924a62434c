"""The log, and safe text for terminals."""

from .logs import Burst, Format, Level, configure, log_event

__all__ = ["Burst", "Format", "Level", "configure", "log_event"]
