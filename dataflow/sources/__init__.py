"""Branch `sources`: how sources fare, and what a plug for one has to keep."""
