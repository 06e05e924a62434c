"""Fault injection: the registry of faults in force, random faults, and the points at which faults strike."""
