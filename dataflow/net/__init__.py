"""Sockets, TLS and WebSocket frames, in both directions: bytes only, no trade and no actor."""
