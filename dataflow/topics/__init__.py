"""Branch `topics`: the streams that have subscribers."""
