"""The checks that every connector must pass: `dataflow conformance`, and a plugin of pytest."""
