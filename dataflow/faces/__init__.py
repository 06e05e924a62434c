"""Protocols for clients: one file or folder each, with words, errors and heartbeats of its own."""
