"""Numbers of the paper that the code needs, each once, with its section and unit."""

BATCH = 128
"""Images a step (section 5)."""

MOMENTUM = 0.9
"""Of the velocity (section 5)."""

FIGURE_1_TARGET = 0.25
"""Training error, as a fraction, that the nets of Figure 1 are timed to (section 3.1)."""
