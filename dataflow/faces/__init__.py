"""How clients see us: one folder or file a protocol, with words, errors and heartbeats of its own."""
