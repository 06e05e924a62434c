"""HTTP and WebSocket on Trio: from bytes to requests and wires. Knows no trade and no actor of the tree."""
