"""The optimizers of the protocols."""

import torch
from torch import nn

from repro.paper import MOMENTUM
from repro.training.sgd2012 import groups_2012


def optimizer_for(model: nn.Module, protocol: str, rate: float) -> torch.optim.Optimizer:
    """Return SGD with momentum 0.9, no weight decay, constant ``rate``.

    `code`: biases learn at twice the rate (epsB = 2 epsW in the layer-params files). While the rate is constant,
    torch's rule and the 2012 rule (rate inside the velocity) are the same recurrence.
    """
    groups = groups_2012(model, rate, weight_decay=0.0) if protocol == "code" else [{"params": [*model.parameters()]}]
    return torch.optim.SGD(groups, lr=rate, momentum=MOMENTUM, fused=in_one_kernel(model))


def in_one_kernel(model: nn.Module) -> bool | None:
    """Return True on a GPU, to have torch update the parameters in one kernel; elsewhere None: torch decides."""
    return True if next(model.parameters()).is_cuda else None
