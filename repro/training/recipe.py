"""How a network is trained to the end, by protocol: the optimizer, and the rate of each layer at each step.

Sources: section 5 of the paper (`paper`); layers/layer-params-145-2010.cfg and, for the CIFAR-10 nets,
layer-params-conv-local-13pct.cfg of the released source (`code`). `modern` is torch's SGD with momentum.
"""

from typing import Any, Literal

import torch
from torch import nn

from repro.models import cifar
from repro.paper import MOMENTUM
from repro.training import schedule
from repro.training.optimizer import BIAS_RATE, in_one_kernel
from repro.training.schedule import Plateau, Released
from repro.training.sgd2012 import SGD2012


class Recipe:
    """The optimizer of a network and its schedule; ``done`` is the fraction of the epochs that is over, 0 to 1.

    Under `paper` all parameters learn and decay alike. Under `code` biases learn twice as fast, without decay. Their
    rate falls only once, and never in the CIFAR-10 nets. With the released schedule the weights of AlexNet's conv1 are
    slowed down, and then, with its biases, frozen before the end.
    """

    def __init__(
        self, model: nn.Sequential, *, net: str, protocol: str, rate: float, weight_decay: float,
        kind: Literal["released", "plateau"],
    ) -> None:  # fmt: skip
        local = net in cifar.NETS
        self.released: Released = schedule.CONV_LOCAL if local else schedule.ALEXNET
        self.plateau = Plateau() if kind == "plateau" else None
        self.least_of_biases = 1.0 if local else 1 / schedule.DIVISOR
        self.slow_conv1 = protocol == "code" and not local and self.plateau is None
        groups: dict[tuple[bool, bool, float], dict[str, Any]] = {}
        for name, parameter in model.named_parameters():
            layer, _, part = name.partition(".")
            code = protocol == "code"
            bias, slow = code and part == "bias", self.slow_conv1 and layer == "conv1"
            decay = 0.0 if bias else _decay(layer) if code and local else weight_decay
            base = BIAS_RATE * rate if bias else rate
            group = groups.setdefault((bias, slow, decay), {"params": [], "weight_decay": decay})
            group |= {"lr": base, "base": base, "bias": bias, "slow": slow}
            group["params"].append(parameter)
        rest: dict[str, Any] = {"lr": rate, "momentum": MOMENTUM}
        self.optimizer: torch.optim.Optimizer
        if protocol == "modern":
            self.optimizer = torch.optim.SGD([*groups.values()], **rest, fused=in_one_kernel(model))
        else:
            self.optimizer = SGD2012([*groups.values()], **rest)

    @property
    def converged(self) -> bool:
        """Whether the schedule itself says that the training is over."""
        return self.plateau is not None and self.plateau.converged

    def set_rates(self, done: float) -> None:
        """Set the rate of every group for the step at ``done``."""
        factor = self.plateau.factor if self.plateau is not None else self.released.factor(done)
        for group in self.optimizer.param_groups:
            own = schedule.conv1_factor(done) if group["slow"] else factor
            if group["bias"] and own > 0.0:
                own = max(own, self.least_of_biases)
            group["lr"] = group["base"] * own

    def state_dict(self) -> dict[str, Any]:
        plateau = None if self.plateau is None else self.plateau.state_dict()
        return {"optimizer": self.optimizer.state_dict(), "plateau": plateau}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        if self.plateau is not None:
            self.plateau.load_state_dict(state["plateau"])


def _decay(layer: str) -> float:
    return cifar.WEIGHT_DECAY[layer.rstrip("0123456789")]
