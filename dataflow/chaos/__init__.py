"""A rehearsal: the whole daemon under a storm of faults, and a verdict on what its clients got.

`plan` decides what will happen, `check` judges what did, `run` does it.
"""
