"""The update rule of section 5, as the released source computes it (weights.cu)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from repro.models import gpu
from repro.paper import LEARNING_RATE, MOMENTUM, WEIGHT_DECAY


class SGD2012(torch.optim.Optimizer):
    """Momentum with the weight decay inside the velocity and the rate baked into it.

        v <- momentum * v - weight_decay * rate * w - rate * gradient;  w <- w + v

    At a constant rate this is torch's SGD. After a change of rate it is not: the old velocity keeps the old rate for
    the few steps it lives. A group with rate 0 is skipped whole, its velocity frozen, as the source does.
    """

    def __init__(
        self, params: Any, lr: float = LEARNING_RATE, momentum: float = MOMENTUM, weight_decay: float = WEIGHT_DECAY
    ) -> None:
        if lr < 0 or not 0 <= momentum < 1 or weight_decay < 0:
            raise ValueError(
                f"need lr >= 0, 0 <= momentum < 1, weight_decay >= 0; got {lr}, {momentum}, {weight_decay}"
            )
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Take one step, all parameters of a group at once."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params: list[Tensor] = [p for p in group["params"] if p.grad is not None]
            rate = group["lr"]
            if not params or rate == 0:
                continue
            for p in params:
                if "v" not in self.state[p]:
                    self.state[p]["v"] = torch.zeros_like(p)
            velocities = [self.state[p]["v"] for p in params]
            if params[0].is_cuda and params[0].dtype == torch.float32 and gpu.wanted():
                _in_kernels(params, velocities, group)
                continue
            steps = [p.grad for p in params]
            if group["weight_decay"]:
                steps = torch._foreach_add(steps, params, alpha=group["weight_decay"])
            torch._foreach_mul_(velocities, group["momentum"])
            torch._foreach_add_(velocities, steps, alpha=-rate)
            torch._foreach_add_(params, velocities)
        return loss


def _in_kernels(params: list[Tensor], velocities: list[Tensor], group: dict[str, Any]) -> None:
    from repro.training import fused  # needs Triton, which torch brings along where there are GPUs

    for p, v in zip(params, velocities, strict=True):
        assert p.grad is not None
        fused.update(p, v, p.grad, rate=group["lr"], momentum=group["momentum"], decay=group["weight_decay"])
