"""The serial roofline of a piece of work: its arithmetic at the device's peak, then its bytes at the memory's.

It is a floor for code that does not overlap the two, and each as if nothing else were: what is left to gain, roughly.
Bytes are those that fused single-precision code must move, if nothing stays in a cache.
"""

import copy
from typing import NamedTuple

import torch
from torch import nn

from repro.models.normalization import ResponseNorm

FLOAT = 4  # bytes


class Peak(NamedTuple):
    """Of a device: floating-point operations a second in single precision (no TF32), bytes a second of its memory."""

    flops: float
    bytes_s: float


PEAKS = {"NVIDIA H200": Peak(67e12, 4.8e12)}
"""By the name torch gives the device. Source: NVIDIA's data sheet of the H200 (SXM)."""


class Work(NamedTuple):
    """Operations (two a multiply-add) and bytes."""

    flop: float
    bytes_: float

    def seconds(self, peak: Peak) -> float:
        """Return the serial roofline."""
        return self.flop / peak.flops + self.bytes_ / peak.bytes_s


class Counts(NamedTuple):
    """Of a network, an image: multiply-adds, those of its first layer, values its layers read and write, LRN's values.

    ``values`` are the input and what each convolution, linear layer, normalisation and pooling gives; ``parameters``
    are the network's.
    """

    macs: int
    first: int
    values: int
    normalised: int
    parameters: int


def counts(model: nn.Sequential, size: int) -> Counts:
    """Count a network for images of ``size`` pixels a side, from the shapes alone."""
    x = torch.empty(1, 3, size, size, device="meta")
    macs: list[int] = []
    values, normalised = x.numel(), 0
    with torch.no_grad():
        for module in copy.deepcopy(model).to("meta"):
            x = module(x)
            if isinstance(module, nn.Conv2d | nn.Linear):
                macs.append(module.weight.numel() * (x[0, 0].numel() if x.dim() == 4 else 1))
            normalised += x.numel() if isinstance(module, ResponseNorm) else 0
            values += x.numel() if _moves(module) else 0
    return Counts(sum(macs), macs[0], values, normalised, sum(p.numel() for p in model.parameters()))


def _moves(module: nn.Module) -> bool:
    """Whether a layer's output goes through memory in fused code: activations, dropout and padding ride along."""
    return isinstance(module, nn.Conv2d | nn.Linear | nn.MaxPool2d | nn.AvgPool2d) or "Norm" in type(module).__name__


def step(c: Counts, batch: int) -> Work:
    """Return a training step: no gradient of the pixels; six passes over the values, five more over the normalised.

    Weights: read forward and backward, their gradient written, and the optimizer's five passes.
    """
    flop = 2.0 * batch * (3 * c.macs - c.first)
    moved = batch * (6 * c.values + 5 * c.normalised) + (3 + OPTIMIZER_PASSES) * c.parameters
    return Work(flop, float(FLOAT * moved))


OPTIMIZER_PASSES = 5
"""Over all parameters: weight and velocity read and written, the gradient read."""


def optimizer(c: Counts) -> Work:
    """Return a step of SGD with momentum."""
    return Work(0.0, float(FLOAT * OPTIMIZER_PASSES * c.parameters))


def evaluation(c: Counts, batch: int) -> Work:
    """Return a forward pass: every value written and read, the weights read once."""
    return Work(2.0 * batch * c.macs, float(FLOAT * (2 * batch * c.values + c.parameters)))


def response_norm(values: int) -> Work:
    """Return LRN forward (read, write) and backward (input and gradient read, gradient written)."""
    return Work(0.0, float(FLOAT * 5 * values))
