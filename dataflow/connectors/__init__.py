"""The languages of the exchanges, one module each.

A connector is what `dataflow.sources.port` asks for: `Settings`, the keys of its `[sources.NAME]` block, and
`Codec`, which says what to send and understands what comes. It is pure: no socket, no clock, no retry,
no memory beyond its connection. It names no other connector, and nothing outside names it but the
configuration. What it cannot understand it reports as a problem, `(reason, excerpt)` with a snake_case
reason that stays the same, and it guesses nothing: a trade is complete or it is no trade.
"""
