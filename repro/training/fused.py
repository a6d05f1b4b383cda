"""The update rule of 2012 as one GPU kernel a tensor. Written in Triton; imported only where weights lie on a GPU.

A step reads weights, velocities and gradients once, and writes weights and velocities once: 20 bytes a weight in single
precision, where torch's operations on lists of tensors move 44.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from repro.models.gpu import launch

BLOCK = 1024


@triton.jit
def _update(W, V, G, count, rate, momentum, decay, B: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    there = at < count
    w = tl.load(W + at, mask=there)
    g = tl.load(G + at, mask=there)
    v = momentum * tl.load(V + at, mask=there) - rate * (g + decay * w)
    tl.store(V + at, v, mask=there)
    tl.store(W + at, w + v, mask=there)


def update(weight: Tensor, velocity: Tensor, gradient: Tensor, *, rate: float, momentum: float, decay: float) -> None:
    """Update float32 ``velocity`` and ``weight`` in place by the rule of ``repro.training.sgd2012.SGD2012``.

    All three tensors have one shape and no gaps in memory; weight and velocity have the same strides.
    """
    if gradient.stride() != weight.stride():
        gradient = torch.empty_like(weight).copy_(gradient)
    count = weight.numel()
    launch(_update, (triton.cdiv(count, BLOCK),), weight, velocity, gradient, count, rate, momentum, decay, B=BLOCK)
