"""K nets of one shape trained as one: their maps side by side, every convolution in K groups.

A small net leaves a device idle between its many small pieces of work; K at once are as many pieces, each K times as
large. Nothing flows from one net to another: each has its own weights, batches and rate, and in float64 learns what it
learns alone. In float32 it does so, up to rounding, for a few steps only, as other kernels add in another order.
"""

import copy
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repro.models.chain import Chain
from repro.models.layers import LocallyConnected2d, SameMapNorm, local
from repro.models.normalization import ResponseNorm

_WITHIN_A_MAP = nn.ReLU | nn.Tanh | nn.Sigmoid | nn.MaxPool2d | nn.AvgPool2d | SameMapNorm


class Linears(nn.Module):
    """K linear layers: (K, N, inputs) to (K, N, outputs); ``weight`` is (K, outputs, inputs)."""

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.stack([layer.weight.detach() for layer in layers]))
        self.bias = nn.Parameter(torch.stack([layer.bias.detach() for layer in layers]))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias.unsqueeze(1), x, self.weight.transpose(1, 2))


class Locals(nn.Module):
    """K ``LocallyConnected2d``: (N, K * C, size, size) to (N, K * filters, size, size).

    ``weight`` is (K * places, C * kernel**2, filters) and ``bias`` (K * places, filters).
    """

    def __init__(self, layers: Sequence[LocallyConnected2d]) -> None:
        super().__init__()
        self.count, self.kernel = len(layers), layers[0].kernel
        self.weight = nn.Parameter(torch.cat([layer.weight.detach() for layer in layers]))
        self.bias = nn.Parameter(torch.cat([layer.bias.detach() for layer in layers]))

    def forward(self, x: Tensor) -> Tensor:
        return local(x, self.weight, self.bias, self.kernel, nets=self.count)


class Apart(nn.Module):
    """(N, K * C, H, W) to (K, N, C * H * W): from here on each net has rows of its own."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(len(x), self.count, -1).transpose(0, 1)


def stack(models: Sequence[nn.Sequential]) -> nn.Sequential:
    """Return K nets of one shape, each with its own weights, as one net.

    It maps (N, K * 3, size, size), K batches side by side (see ``beside``), to (K, N, classes). Its parameters are
    copies that keep their names, with the nets along the first axis. Raises ValueError for a layer that is not known to
    keep nets apart, say batch normalisation, or dropout, whose masks would have to be those of each net alone.
    """
    found = Chain()  # as the nets themselves are
    for name, first in models[0].named_children():
        found.add_module(name, _stacked(first, [model.get_submodule(name) for model in models]))
    return found


def _stacked(first: nn.Module, layers: Sequence[nn.Module]) -> nn.Module:
    """Return one layer for those of the same name in every net."""
    count = len(layers)
    match first:
        case nn.Conv2d():
            made = nn.Conv2d(
                count * first.in_channels, count * first.out_channels, first.kernel_size, first.stride, first.padding,
                first.dilation, count * first.groups, device="meta",
            )  # fmt: skip
            for part in ("weight", "bias"):
                setattr(made, part, nn.Parameter(torch.cat([getattr(layer, part).detach() for layer in layers])))
            return made
        case nn.Linear():
            return Linears(layers)  # type: ignore[arg-type]
        case LocallyConnected2d():
            return Locals(layers)  # type: ignore[arg-type]
        case ResponseNorm():
            made = copy.deepcopy(first)
            made.towers = count * first.towers
            return made
        case nn.Flatten():
            return Apart(count)
        case _ if isinstance(first, _WITHIN_A_MAP):
            return copy.deepcopy(first)
    raise ValueError(f"{type(first).__name__} is not known to keep nets apart that lie side by side")


def beside(batches: Iterable[Tensor]) -> Tensor:
    """Return K batches (N, 3, size, size) as one (N, K * 3, size, size), in channels_last."""
    return torch.cat([batch.permute(0, 2, 3, 1) for batch in batches], 3).permute(0, 3, 1, 2)


def learn(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Leave in each net's parameters the gradient of its own mean loss.

    ``labels`` are (K, N). Returns the numbers of errors, and mean losses in nats, (K,) each.
    """
    logits = model(images)
    losses = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none").mean(1)
    losses.sum().backward()
    return (logits.detach().argmax(2) != labels).sum(1), losses.detach()


class Momentum(torch.optim.Optimizer):
    """SGD with momentum where each of the K nets has a rate of its own; torch's rule, without weight decay.

    ``velocity <- momentum * velocity + gradient; weight <- weight - lr * rate * velocity``. ``rates`` are (K,), and
    ``lr`` is a factor for all of them.
    """

    def __init__(self, model: nn.Module, rates: Tensor, momentum: float, lr: float = 1.0) -> None:
        super().__init__(model.parameters(), {"lr": lr, "momentum": momentum})
        # A rate for each index of the first axis, which in a convolution runs over the filters of all nets.
        self.rates = [
            rates.to(p).repeat_interleave(len(p) // len(rates)).view(-1, *(1,) * (p.dim() - 1))
            for p in self.param_groups[0]["params"]
        ]

    @torch.no_grad()
    def step(self, _closure: None = None) -> None:  # type: ignore[override]
        """Take one step."""
        (group,) = self.param_groups
        parameters = group["params"]
        for p in parameters:
            if not self.state[p]:
                self.state[p]["velocity"] = torch.zeros_like(p)
        velocities = [self.state[p]["velocity"] for p in parameters]
        torch._foreach_mul_(velocities, group["momentum"])
        torch._foreach_add_(velocities, [p.grad for p in parameters])
        torch._foreach_sub_(parameters, torch._foreach_mul(velocities, self.rates), alpha=group["lr"])
