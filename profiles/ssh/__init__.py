"""Latency on a board that ``ssh`` reaches: measured there, reported here, nothing left behind.

:func:`edgekd.profiles.measure_on_host` is the way in. This file travels to the board with what it holds, so it
imports nothing.
"""
