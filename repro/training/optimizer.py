"""The optimizers of the protocols."""

import torch
from torch import nn

from repro.paper import MOMENTUM


def optimizer_for(model: nn.Module, protocol: str, rate: float) -> torch.optim.Optimizer:
    """Return SGD with momentum 0.9, no weight decay, constant ``rate``.

    `code`: biases learn at twice the rate (epsB = 2 epsW in the layer-params files). While the rate is constant,
    torch's rule and the 2012 rule (rate inside the velocity) are the same recurrence.
    """
    biases = [p for name, p in model.named_parameters() if name.endswith("bias")]
    weights = [p for name, p in model.named_parameters() if not name.endswith("bias")]
    bias_rate = 2 * rate if protocol == "code" else rate
    groups = [{"params": weights, "lr": rate}, {"params": biases, "lr": bias_rate}]
    return torch.optim.SGD(groups, momentum=MOMENTUM)
