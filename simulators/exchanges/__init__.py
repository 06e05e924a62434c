"""The exchanges that can be simulated: one file each."""
