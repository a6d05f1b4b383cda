"""The precision in which a network computes: the policies that a condition may ask for, by bits of the significand.

`fp32`: single precision, 24 bits, on every device. `tf32`: on GPUs that have it, convolutions and matrix products round
their factors to 11 bits and sum with 24. `bf16`: their inputs and outputs have 8 bits. What torch knows to need more,
such as losses, keeps 24, as do weights, velocities and updates. This package's norms compute with 24 throughout.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from repro.choices import Precision


def use(precision: Precision) -> None:
    """Set how this process multiplies in single precision: with factors of 11 bits under `tf32`, else of 24."""
    factors = "tf32" if precision == "tf32" else "ieee"
    torch.backends.cuda.matmul.fp32_precision = factors
    torch.backends.cudnn.conv.fp32_precision = factors


def compute_in(model: nn.Module, precision: Precision) -> nn.Module:
    """Have ``model`` compute in ``precision`` from now on, and return it; its input and output stay float32.

    Weights and names stay as they are.
    """
    if precision == "bf16":
        model.__class__ = _narrow(type(model))
    return model


@cache
def _narrow(kind: Any) -> type[nn.Module]:
    """Return a subclass of ``kind`` that computes as it does, with the factors of its products in bf16."""

    class Narrow(kind):  # type: ignore[misc]
        def forward(self, x: Tensor) -> Tensor:
            # No cache of rounded weights: each is used once, and one made during a recording would outlive it.
            with torch.autocast(x.device.type, torch.bfloat16, cache_enabled=False):
                found: Tensor = super().forward(x)
            return found.float()

    Narrow.__name__ = Narrow.__qualname__ = kind.__name__
    return Narrow
