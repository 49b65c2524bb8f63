"""Measures how fast headrace is, each figure against a floor taken in the same round: `python -m bench`."""
