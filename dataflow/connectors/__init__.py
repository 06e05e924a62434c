"""The languages of the exchanges, one module each. README.md explains how to add one.

A connector satisfies `dataflow.sources.port`: `Settings` are the keys of its `[sources.NAME]` block, and
`Codec` makes requests and decodes messages. It is pure: no socket, no clock, no retry, no memory beyond its
connection. It names no other connector, and only the configuration names it. A message that it cannot
understand becomes a problem: `(reason, excerpt)`, with a snake_case reason that never changes. It guesses
nothing: a trade is complete, or it is no trade.
"""
