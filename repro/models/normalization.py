"""Local response normalisation of section 3.3, eager and plain: the reference that faster ones are held against."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def response_norm(x: Tensor, *, size: int, scale: float, power: float, k: float) -> Tensor:
    """Return ``x * (k + scale * sum of squares over ``size`` neighbouring maps) ** -power``; x is (N, C, H, W).

    The window is centred, clipped at the first and the last map; ``size`` is odd. ``scale`` multiplies each square:
    the paper's alpha as printed, alpha / size as its source computes it (layer.py divides "scale" by "size").
    """
    half = size // 2
    squares = F.pad((x * x).flatten(2).transpose(1, 2), (half, half))  # (N, H*W, C + 2 * half)
    total = sum(squares[..., i : i + x.shape[1]] for i in range(size))
    denominator = torch.as_tensor(total).transpose(1, 2).unflatten(2, x.shape[2:])
    return x * (k + scale * denominator) ** -power


class ResponseNorm(nn.Module):
    """Cross-map LRN, on each of ``towers`` equal blocks of maps apart: N was counted per GPU in 2012."""

    def __init__(self, *, size: int, scale: float, power: float, k: float, towers: int = 1) -> None:
        super().__init__()
        self.size, self.scale, self.power, self.k, self.towers = size, scale, power, k, towers

    def forward(self, x: Tensor) -> Tensor:
        settings = {"size": self.size, "scale": self.scale, "power": self.power, "k": self.k}
        if self.towers == 1:
            return response_norm(x, **settings)
        n, c = x.shape[:2]
        apart = x.reshape(n * self.towers, c // self.towers, *x.shape[2:])
        return response_norm(apart, **settings).reshape(x.shape)

    def extra_repr(self) -> str:
        return f"size={self.size}, scale={self.scale:g}, power={self.power}, k={self.k}, towers={self.towers}"


class MeanResponseNorm(nn.Module):
    """LRN over the mean square of all maps of a tower, for readers who ask what the local window is good for.

    ``scale`` is per square of a window of ``size`` maps, so that at equal activations it is as strong as
    ``ResponseNorm``.
    """

    def __init__(self, *, size: int, scale: float, power: float, k: float, towers: int = 1) -> None:
        super().__init__()
        self.size, self.scale, self.power, self.k, self.towers = size, scale, power, k, towers

    def forward(self, x: Tensor) -> Tensor:
        n, c = x.shape[:2]
        apart = x.reshape(n, self.towers, c // self.towers, *x.shape[2:])
        total = self.size * (apart * apart).mean(2, keepdim=True)
        return (apart * (self.k + self.scale * total) ** -self.power).reshape(x.shape)

    def extra_repr(self) -> str:
        return f"size={self.size}, scale={self.scale:g}, power={self.power}, k={self.k}, towers={self.towers}"
