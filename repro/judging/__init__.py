"""What measured values mean: intervals, the rules of a verdict, their power, and comparisons of records.

Light: no torch, nothing random, and no I/O but to read records and to note bands.
"""
