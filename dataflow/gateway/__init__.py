"""The hall that all faces share: admission of clients, their turns, the join of past and live."""
