"""Branch `topics`: the streams that somebody listens to."""
