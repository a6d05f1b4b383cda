"""Local response normalisation (section 3.3): a plain function as the reference, and the layers.

``ResponseNorm`` has a gradient written by hand. On a CPU it takes one matrix product forward and one backward; on a GPU
it is a kernel of ``repro.models.kernels``. The layers compute in at least single precision, and round their results to
the precision of their input.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from repro.models.gpu import kernels_for


def response_norm(x: Tensor, *, size: int, scale: float, power: float, k: float) -> Tensor:
    """Return ``x * (k + scale * sum of squares over ``size`` neighbouring maps) ** -power``; x is (N, C, H, W).

    The window is centred, and clipped at the first and the last map; ``size`` is odd. ``scale`` multiplies each square:
    the paper's alpha as printed, or alpha / size as the released source has it (layer.py divides "scale" by "size").
    """
    half = size // 2
    squares = F.pad((x * x).flatten(2).transpose(1, 2), (half, half))  # (N, H*W, C + 2 * half)
    total = sum(squares[..., i : i + x.shape[1]] for i in range(size))
    denominator = torch.as_tensor(total).transpose(1, 2).unflatten(2, x.shape[2:])
    return x * (k + scale * denominator) ** -power


class ResponseNorm(nn.Module):
    """Cross-map LRN within each of ``towers`` equal blocks of maps: in 2012 N was counted per GPU.

    On a GPU, x in single precision or bfloat16 goes through a kernel where ``kernels.normalises`` allows it, as it does
    for every LRN of the registry. The rest (double precision, another power) is computed as on a CPU.
    """

    def __init__(self, *, size: int, scale: float, power: float, k: float, towers: int = 1) -> None:
        super().__init__()
        self.size, self.scale, self.power, self.k, self.towers = size, scale, power, k, towers

    def forward(self, x: Tensor) -> Tensor:
        kernels, maps = kernels_for(x), x.shape[1] // self.towers
        if kernels and kernels.normalises(maps, size=self.size, power=self.power, k=self.k, dtype=x.dtype):
            rows = x.contiguous(memory_format=torch.channels_last)  # here, so that the gradient keeps this copy
            normed: Tensor = kernels.norm(rows, self.towers, self.size, self.scale, self.k)
            return normed
        wide = _wide(x)
        band = _band(x.shape[1], self.size, self.towers, wide.dtype, x.device)
        out: Tensor = _ResponseNorm.apply(wide, band, self.scale, self.power, self.k)
        return out.to(x.dtype)

    def extra_repr(self) -> str:
        return f"size={self.size}, scale={self.scale:g}, power={self.power}, k={self.k}, towers={self.towers}"


@cache
def _band(maps: int, size: int, towers: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the matrix of zeros and ones that sums each map's window, its neighbours in the same tower."""
    index = torch.arange(maps)  # on the CPU: the copy has arrived before another thread can ask for it
    near = (index[:, None] - index).abs() <= size // 2
    tower = index // (maps // towers)
    return (near & (tower[:, None] == tower)).to(device, dtype)


class _ResponseNorm(torch.autograd.Function):
    """``response_norm`` with the window sums as a matrix product, and one formula for the gradient.

    With s = k + scale * (x x) B: y = x s^-power, and dx = dy s^-power - 2 scale power x ((dy x s^(-power - 1)) B).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, band: Tensor, scale: float, power: float, k: float) -> Tensor:
        rows = x.permute(0, 2, 3, 1).flatten(0, 2)  # a view where x is channels_last
        total = _sums(rows * rows, band).mul_(scale).add_(k)
        factor = _inverse_power(total, power)
        ctx.save_for_backward(rows, total, factor, band)
        ctx.scale, ctx.power = scale, power
        return _as_maps(rows * factor, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, total, factor, band = ctx.saved_tensors
        g = grad.permute(0, 2, 3, 1).flatten(0, 2)
        direct = g * factor
        across = _sums((direct * rows).div_(total), band).mul_(rows)
        return _as_maps(direct.sub_(across, alpha=2 * ctx.scale * ctx.power), grad), None, None, None, None


def _sums(rows: Tensor, band: Tensor) -> Tensor:
    """Return ``rows @ band`` in the precision they have, even where autocast asks for another."""
    kind = rows.device.type
    if not torch.amp.is_autocast_available(kind) or not torch.is_autocast_enabled(kind):
        return rows @ band
    with torch.autocast(kind, enabled=False):
        return rows @ band


def _wide(x: Tensor) -> Tensor:
    """Return x with at least 24 bits: squares and a power need more than 8."""
    return x.float() if x.dtype.itemsize < 4 else x


def _inverse_power(x: Tensor, power: float) -> Tensor:
    if power != 0.75:
        return x**-power
    root = x.rsqrt()
    return root.sqrt().mul_(root)  # the paper's power, by two roots


def _as_maps(rows: Tensor, like: Tensor) -> Tensor:
    """Return rows (N * H * W, C) as (N, C, H, W) in channels_last, without a copy."""
    n, _, h, w = like.shape
    return rows.unflatten(0, (n, h, w)).permute(0, 3, 1, 2)


class MeanResponseNorm(nn.Module):
    """LRN by the mean square of all maps of a tower: a control that shows what the local window contributes.

    The mean is multiplied by ``size`` and then by ``scale``, so that where activations are equal it is as strong as
    ``ResponseNorm``.
    """

    def __init__(self, *, size: int, scale: float, power: float, k: float, towers: int = 1) -> None:
        super().__init__()
        self.size, self.scale, self.power, self.k, self.towers = size, scale, power, k, towers

    def forward(self, x: Tensor) -> Tensor:
        n, c = x.shape[:2]
        apart = _wide(x).reshape(n, self.towers, c // self.towers, *x.shape[2:])
        total = self.size * (apart * apart).mean(2, keepdim=True)
        return (apart * (self.k + self.scale * total) ** -self.power).reshape(x.shape).to(x.dtype)

    def extra_repr(self) -> str:
        return f"size={self.size}, scale={self.scale:g}, power={self.power}, k={self.k}, towers={self.towers}"
