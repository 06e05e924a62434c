"""WebSocket frames of both roles: client of an upstream, server of clients."""
