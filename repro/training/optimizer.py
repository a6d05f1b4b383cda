"""The optimizers of the protocols."""

from typing import Any

import torch
from torch import nn

from repro.paper import MOMENTUM

BIAS_RATE = 2.0
"""The rate of the biases over that of the weights, in the released settings (epsB, epsW in layer-params-145.cfg).

The paper says "equal learning rate for all layers" and does not mention the biases.
"""


def optimizer_for(model: nn.Module, protocol: str, rate: float) -> torch.optim.Optimizer:
    """Return SGD with momentum 0.9, no weight decay, constant ``rate``.

    `code`: biases learn at twice the rate. While the rate is constant, torch's rule and the 2012 rule (rate inside the
    velocity) are the same recurrence.
    """
    groups: list[dict[str, Any]] = [{"params": [*model.parameters()]}]
    if protocol == "code":
        biases = [p for name, p in model.named_parameters() if name.endswith("bias")]
        weights = [p for name, p in model.named_parameters() if not name.endswith("bias")]
        groups = [{"params": weights}, {"params": biases, "lr": BIAS_RATE * rate}]
    return torch.optim.SGD(groups, lr=rate, momentum=MOMENTUM, fused=in_one_kernel(model))


def in_one_kernel(model: nn.Module) -> bool | None:
    """Return True on a GPU, to have torch update the parameters in one kernel; elsewhere None: torch decides."""
    return True if next(model.parameters()).is_cuda else None
