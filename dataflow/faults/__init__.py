"""Breaking on purpose: which faults are in force, and where they strike."""
