"""Names to choose from that claim files, the command line and the networks share, each spelt once."""

from typing import Literal

Scale = Literal["static", "smoke", "reduced", "paper"]
"""How much of the paper's own condition there is: nothing trained, synthetic data, less data, all of it."""

Protocol = Literal["paper", "code", "modern"]
"""The text, the released source where it differs, today's habits: docs/recipes.md has them side by side."""

Activation = Literal["relu", "tanh", "sigmoid"]

Norm = Literal["none", "lrn", "lrn-all-maps", "lrn-mean", "batch"]
"""Section 3.3's, over five maps; then over all maps, and by their mean; batch norm."""

Towers = Literal["two", "half", "ungrouped"]
"""The paper's two GPUs; one of them, with half the kernels; every layer sees all maps (section 3.2)."""

Form = Literal["alexnet", "alexnet-32"]
"""AlexNet as printed, or small, for pictures of 32 pixels."""

Precision = Literal["fp32", "tf32", "bf16"]
"""``repro.training.precision`` says what each computes with."""

Loader = Literal["dali", "resident", "torchvision"]
"""How pictures are read: ``repro.loading``."""
