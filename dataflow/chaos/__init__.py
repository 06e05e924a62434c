"""A rehearsal: the whole daemon under a storm of faults, and a verdict on what its clients got.

`plan` decides what will happen, `run` has it happen, `client` and `witness` tell what did, `check` judges it.
"""
