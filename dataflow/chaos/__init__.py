"""The rehearsal: the whole daemon under random faults, with clients that check every trade, and a verdict.

`plan` draws the faults, `run` and `deaths` carry them out, `check` and `lives` judge. See README.md.
"""
