"""Branch `cache`: admits, orders and remembers trades."""
