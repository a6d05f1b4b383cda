"""Names to choose from that claim files, the command line and the networks share, each spelt once."""

from typing import Literal

Scale = Literal["static", "smoke", "reduced", "paper"]
"""How much of the paper's own condition there is: nothing trained, synthetic data, less data, all of it."""

Protocol = Literal["paper", "code", "modern"]
"""The paper's text, the released source where it differs, or today's habits: docs/recipes.md compares them."""

Activation = Literal["relu", "tanh", "sigmoid"]

Norm = Literal["none", "lrn", "lrn-all-maps", "lrn-mean", "batch"]
"""None; section 3.3's, over five neighbouring maps of a tower; over five of all maps; by a tower's mean; batch norm."""

Towers = Literal["two", "half", "ungrouped"]
"""The paper's two GPUs; its one-GPU net, half the kernels in most layers; each layer sees all maps (section 3.2)."""

Form = Literal["alexnet", "alexnet-32"]
"""AlexNet as printed, or small, for pictures of 32 pixels."""

Precision = Literal["fp32", "tf32", "bf16"]
"""``repro.training.precision`` says what each computes with."""

Loader = Literal["dali", "resident", "torchvision"]
"""How pictures are read: ``repro.loading``."""
