"""Layers of 2011 that torch does not have in this form."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class AvgPool(nn.AvgPool2d):
    """Average pooling whose partial windows at the right and bottom average what they hold, as in cuda-convnet.

    Without padding ``count_include_pad=False`` changes no value, but it avoids the wrong gradient that
    torch.compile gives for ``ceil_mode=True`` (pytorch issue 198119).
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
        return local(x, self.weight, self.bias, self.kernel)


def local(x: Tensor, weight: Tensor, bias: Tensor, kernel: int, nets: int = 1) -> Tensor:
    """Return (N, nets * filters, H, W), made of (N, nets * C, H, W) by ``nets`` such layers that lie side by side.

    ``weight`` is (nets * places, C * kernel**2, filters) and ``bias`` (nets * places, filters), with H * W places and
    an odd ``kernel``. The result is in channels_last.
    """
    n, _, h, w = x.shape
    patches: Tensor = _Patches.apply(x, kernel, nets)
    as_patches = weight.unflatten(1, (-1, kernel**2)).transpose(1, 2).flatten(1, 2)  # channels last, as they lie there
    out = torch.baddbmm(bias.unsqueeze(1), patches, as_patches)  # (nets * places, N, filters)
    out = out.view(nets, h, w, n, -1).permute(3, 1, 2, 0, 4).reshape(n, h, w, -1).permute(0, 3, 1, 2)
    return out.contiguous(memory_format=torch.channels_last)


class _Patches(torch.autograd.Function):
    """The window around each place as one row: (N, nets * C, H, W) to (nets * H * W, N, kernel**2 * C).

    In a row the channels lie innermost, as in maps in channels_last: whole runs of numbers are copied. The gradient by
    hand adds up kernel**2 shifted maps. With that order, it takes half the time of autograd's, on a CPU.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: int, nets: int) -> Tensor:
        n, wide, h, w = x.shape
        ctx.sizes = n, h, w, wide // nets, kernel, nets
        rows = F.pad(x.permute(0, 2, 3, 1), (0, 0, *(kernel // 2,) * 4))
        windows = rows.unfold(1, kernel, 1).unfold(2, kernel, 1)  # (N, H, W, nets * C, kernel, kernel), a view
        return windows.unflatten(3, (nets, -1)).permute(3, 1, 2, 0, 5, 6, 4).reshape(nets * h * w, n, -1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        n, h, w, channels, kernel, nets = ctx.sizes
        shifted = grad.view(nets, h, w, n, kernel, kernel, channels).permute(3, 1, 2, 4, 5, 0, 6)
        wide = torch.promote_types(grad.dtype, torch.float32)  # kernel**2 numbers are added: too many for 8 bits
        rows = grad.new_zeros(n, h + kernel - 1, w + kernel - 1, nets, channels, dtype=wide)
        for i in range(kernel):
            for j in range(kernel):
                rows[:, i : i + h, j : j + w] += shifted[:, :, :, i, j]
        border = kernel // 2
        inner = rows[:, border : border + h, border : border + w].to(grad.dtype)
        return inner.flatten(3).permute(0, 3, 1, 2), None, None


class SameMapNorm(nn.Module):
    """Local response normalisation over a square window of the same map: type ``rnorm`` of cuda-convnet.

    ``x * (1 + scale / size**2 * sum of squares over size x size, clipped at the border) ** -0.75``, for x of shape
    (N, C, H, W); ``size`` is odd. The power, 0.75, is the same in every net that has this layer.
    """

    def __init__(self, *, size: int, scale: float) -> None:
        super().__init__()
        self.size, self.scale = size, scale

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float() if x.dtype.itemsize < 4 else x  # squares and a power need more than 8 bits
        out: Tensor = _SameMapNorm.apply(wide, self.size, self.scale)
        return out.to(x.dtype)


class _SameMapNorm(torch.autograd.Function):
    """The norm with its gradient by hand: half the time of autograd's, which calls ``pow`` in both directions.

    With s = 1 + scale * mean(x**2) and q = 1 / s: y = x q**.75, and as the window is symmetric,
    dx = dy q**.75 - 1.5 scale x mean(dy x q**1.75).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, size: int, scale: float) -> Tensor:
        ctx.size, ctx.scale = size, scale
        inverse = _mean(x * x, size).mul_(scale).add_(1.0).reciprocal_()
        power = inverse.sqrt()
        power.mul_(power.sqrt())
        ctx.save_for_backward(x, inverse, power)
        return x * power

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        x, inverse, power = ctx.saved_tensors
        direct = grad * power
        return direct.addcmul_(x, _mean((direct * x).mul_(inverse), ctx.size), value=-1.5 * ctx.scale), None, None


def _mean(x: Tensor, size: int) -> Tensor:
    """Return the mean over the size x size cells around each cell; cells beyond the border count as zeros."""
    return F.avg_pool2d(x, size, stride=1, padding=size // 2)
