"""The commands of `pygan.cli`, one file each; `parser` and `wording` are what they share."""
