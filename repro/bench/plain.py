"""The same networks written with torch's own layers, the peers of ours."""

import copy
from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repro.models.dropout import Dropout
from repro.models.layers import SameMapNorm
from repro.models.normalization import ResponseNorm
from repro.models.pooling import MaxPool2d


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


class PlainDropout(nn.Dropout):
    """The dropout of section 4.2: half of the neurons in training, half of their output in testing."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 0.5 if self.training else x * 0.5


def plain(model: nn.Sequential) -> nn.Sequential:
    """Return a copy of ``model`` with the same weights that computes the same, in torch's layers and default layout.

    The chain of layers is torch's too, so the copy computes in single precision, whatever that of ``model`` is.
    Dropout draws its own masks from torch's generator.
    """
    twin = nn.Sequential(OrderedDict(copy.deepcopy([*model.named_children()])))
    twin = twin.to(memory_format=torch.contiguous_format)
    for name, module in twin.named_children():
        if isinstance(module, ResponseNorm):
            setattr(twin, name, PlainResponseNorm(module))
        elif isinstance(module, SameMapNorm):
            setattr(twin, name, PlainSameMapNorm(module))
        elif isinstance(module, MaxPool2d):
            setattr(twin, name, nn.MaxPool2d(module.kernel_size, module.stride, ceil_mode=True))
        elif isinstance(module, Dropout):
            setattr(twin, name, nn.Dropout() if module.inverted else PlainDropout())
    return twin.train(model.training)
