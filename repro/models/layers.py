"""Layers of 2011 that torch does not have in this form."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class AvgPool(nn.AvgPool2d):
    """Average pooling with partial windows at the right and bottom divided by what they hold, as in cuda-convnet.

    ``count_include_pad=False`` changes nothing without padding, but keeps clear of torch.compile's wrong
    gradient for ``ceil_mode=True`` (pytorch issue 198119).
    """

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__(kernel, stride, ceil_mode=True, count_include_pad=False)


class LocallyConnected2d(nn.Module):
    """A convolution whose every place has weights and a bias of its own; stride 1, "same" padding, odd kernel.

    Maps (N, C, size, size) to (N, filters, size, size); ``weight`` is (places, C * kernel**2, filters) and
    ``bias`` (places, filters), a place being row * size + column. Source: layer type ``local`` of cuda-convnet.
    """

    def __init__(self, channels: int, filters: int, *, kernel: int, size: int) -> None:
        super().__init__()
        self.kernel, self.size, self.filters = kernel, size, filters
        self.fan_in = channels * kernel * kernel
        self.weight = nn.Parameter(torch.empty(size * size, self.fan_in, filters))
        self.bias = nn.Parameter(torch.empty(size * size, filters))

    def forward(self, x: Tensor) -> Tensor:
        n, k = x.shape[0], self.kernel
        padded = F.pad(x, (k // 2,) * 4)
        windows = padded.unfold(2, k, 1).unfold(3, k, 1)  # (N, C, size, size, k, k), a view
        patches = windows.permute(2, 3, 0, 1, 4, 5).reshape(self.size**2, n, self.fan_in)
        out = torch.baddbmm(self.bias.unsqueeze(1), patches, self.weight)  # (places, N, filters)
        return out.permute(1, 2, 0).reshape(n, self.filters, self.size, self.size)


class SameMapNorm(nn.Module):
    """Local response normalisation over a square window of the same map: type ``rnorm`` of cuda-convnet.

    ``x * (1 + scale / size**2 * sum of squares over size x size, clipped at the border) ** -power``, for x of
    shape (N, C, H, W); ``size`` is odd.
    """

    def __init__(self, *, size: int, scale: float, power: float) -> None:
        super().__init__()
        self.size, self.scale, self.power = size, scale, power

    def forward(self, x: Tensor) -> Tensor:
        # zero padding counted in the divisor: scale * mean over size**2 cells is scale / size**2 * the sum
        mean_square = F.avg_pool2d(x * x, self.size, stride=1, padding=self.size // 2)
        return x * (1.0 + self.scale * mean_square) ** -self.power
