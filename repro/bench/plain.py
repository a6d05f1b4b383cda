"""The same networks as one writes them with torch's own layers: what ours is timed beside."""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repro.models.layers import SameMapNorm
from repro.models.normalization import ResponseNorm


class PlainResponseNorm(nn.Module):
    """torch's own LRN, on each of ``towers`` equal blocks of maps, which in torch's default layout costs no copy."""

    def __init__(self, norm: ResponseNorm) -> None:
        super().__init__()
        self.towers = norm.towers
        # torch divides alpha by the size of the window
        self.norm = nn.LocalResponseNorm(norm.size, alpha=norm.scale * norm.size, beta=norm.power, k=norm.k)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        out: Tensor = self.norm(x.reshape(n * self.towers, c // self.towers, h, w))
        return out.reshape(n, c, h, w)


class PlainSameMapNorm(nn.Module):
    """The normalisation within a map, by torch's average pooling."""

    def __init__(self, norm: SameMapNorm) -> None:
        super().__init__()
        self.size, self.scale = norm.size, norm.scale

    def forward(self, x: Tensor) -> Tensor:
        mean = F.avg_pool2d(x * x, self.size, stride=1, padding=self.size // 2)
        return x * (1 + self.scale * mean) ** -0.75


def plain(model: nn.Sequential) -> nn.Sequential:
    """Return a copy of ``model`` with the same weights that computes the same, in torch's layers and default layout."""
    twin = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
    for name, module in twin.named_children():
        if isinstance(module, ResponseNorm):
            setattr(twin, name, PlainResponseNorm(module))
        elif isinstance(module, SameMapNorm):
            setattr(twin, name, PlainSameMapNorm(module))
    return twin
