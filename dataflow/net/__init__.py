"""Sockets, TLS and WebSocket frames, in both directions. Bytes only: no trade, no actor. See README.md."""
