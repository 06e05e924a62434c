"""WebSocket frames: what comes from an upstream, and what goes to and comes from a client."""
