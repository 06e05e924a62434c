"""The way out: what clients may ask (`jsonrpc`), what they are told (`wire`), and the server between."""
