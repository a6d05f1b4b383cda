"""What measured values mean: intervals, the rules of a verdict, their power, and comparisons of records.

Light: no torch, no I/O but reading records; the random generator is an argument.
"""
