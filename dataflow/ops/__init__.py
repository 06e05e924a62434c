"""Metrics and readiness, for operators. Nothing is counted here."""
