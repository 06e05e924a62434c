"""The ways to an upstream, one module each: I/O only, the words are the codec's."""
