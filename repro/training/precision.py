"""With how many bits a network computes: the policies a condition may ask for.

`fp32`: single precision, 24 bits, on every device. `tf32`: on GPUs that have it, convolutions and matrix products take
in factors of 11 bits and add up 24. `bf16`: they take in and give out 8 bits; what torch knows to need more, as losses,
keeps 24, and so do weights, velocities and updates. The norms of this package compute with 24 all through.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from repro.choices import Precision


def use(precision: Precision) -> None:
    """Set what this process allows of single precision: factors of 11 bits under `tf32` only."""
    factors = "tf32" if precision == "tf32" else "ieee"
    torch.backends.cuda.matmul.fp32_precision = factors
    torch.backends.cudnn.conv.fp32_precision = factors


def compute_in(model: nn.Module, precision: Precision) -> nn.Module:
    """Have ``model`` compute in ``precision`` from now on, and return it: float32 goes in and comes out.

    Weights and names stay as they are.
    """
    if precision == "bf16":
        model.__class__ = _narrow(type(model))
    return model


@cache
def _narrow(kind: Any) -> type[nn.Module]:
    """Return a module that computes as ``kind`` does, with the factors of its products in bf16."""

    class Narrow(kind):  # type: ignore[misc]
        def forward(self, x: Tensor) -> Tensor:
            # No cache of rounded weights: each is used once, and one made while a GPU records would outlive it.
            with torch.autocast(x.device.type, torch.bfloat16, cache_enabled=False):
                found: Tensor = super().forward(x)
            return found.float()

    Narrow.__name__ = Narrow.__qualname__ = kind.__name__
    return Narrow
