"""Metrics, readiness and the lag of the event loop, for operators."""
