"""dataflow: trades from many exchanges, each admitted once, to many WebSocket clients."""
