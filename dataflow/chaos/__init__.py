"""The rehearsal: the whole daemon under random faults, with clients that check every trade, and a verdict.

`plan` draws the faults, `run` carries them out, `client` and `witness` record the results, `check` judges.
"""
