"""The ways to an upstream, one module each. I/O only: the codec writes and reads the messages."""
