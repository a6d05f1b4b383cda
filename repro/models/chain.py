"""A network as a chain of layers; on a GPU one kernel computes neighbours where that saves passes over the maps."""

from itertools import pairwise
from types import ModuleType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repro.models.gpu import kernels_for


def _kernels() -> ModuleType:
    from repro.models import chain_kernel

    return chain_kernel


class Chain(nn.Sequential):
    """torch's Sequential, with the same names and weights; quicker on a GPU.

    There, one kernel adds a convolution's bias and takes the ReLU right behind it, where ``chain_kernel.fuses`` allows
    it. ReLU behind anything else (a normalisation, pooling) is torch's, and so is a bias without ReLU. Another kernel
    pads the pictures with zeros and rounds them to the precision of the convolution's factors. The result is that of
    the layers run one by one, as they are on a CPU. Forward hooks of layers computed together are not called.
    """

    def forward(self, x: Tensor) -> Tensor:
        kernels = kernels_for(x, _kernels)
        if kernels is None or x.dim() != 4:
            alone: Tensor = super().forward(x)
            return alone
        done: nn.Module | None = None
        for layer, behind in pairwise([*self, None]):
            if layer is done:
                done = None
                continue
            if type(layer) is nn.Conv2d and isinstance(behind, nn.ReLU) and kernels.fuses(layer):
                maps = F.conv2d(x, layer.weight, None, layer.stride, layer.padding, layer.dilation, layer.groups)
                x, done = kernels.bias_relu(maps, layer.bias), behind
            elif isinstance(layer, nn.ZeroPad2d) and isinstance(behind, nn.Conv2d) and kernels.pads(x, layer.padding):
                x = kernels.pad(x, *layer.padding, _in_bf16(x))
            else:
                x = layer(x)
        return x


def _in_bf16(x: Tensor) -> bool:
    """Whether a convolution of x would round it to bfloat16 first; see ``repro.training.precision``."""
    kind = x.device.type
    if not torch.amp.is_autocast_available(kind) or not torch.is_autocast_enabled(kind):
        return False
    return torch.get_autocast_dtype(kind) == torch.bfloat16
