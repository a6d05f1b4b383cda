"""The serial roofline of a piece of work: its arithmetic at the device's peak, then its bytes at the memory's.

It is the least time of code that does not overlap the two, each at its own limit, and shows roughly what is left to
gain. Bytes are those that fused code must move if nothing stays in a cache.
"""

import copy
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import nn

from repro.models.normalization import ResponseNorm

FLOAT, HALF = 4, 2  # bytes

VALUE_BYTES = {"fp32": FLOAT, "tf32": FLOAT, "bf16": HALF}
"""Bytes of a value between layers, by precision. TF32 is a way to multiply, not to store."""


class Peak(NamedTuple):
    """The limits of a device: floating-point operations a second by precision, and bytes a second of its memory."""

    flops: Mapping[str, float]
    bytes_s: float


PEAKS = {"NVIDIA H200": Peak({"fp32": 67e12, "tf32": 395e12, "bf16": 790e12}, 4.3e12)}
"""By the name torch gives the device; no figure was measured by us.

H200, SXM: fp32 is what NVIDIA's data sheet says (67 TFLOP/s, without tensor cores). It gives 495 and 989 TFLOP/s for
dense products in TF32 and bf16, and 4.8 TB/s of memory. Large products and copies reach about four fifths and nine
tenths of these, and that is taken here, so that a share of the floor is a share of what can be had.
"""


class Work(NamedTuple):
    """Operations (two a multiply-add) and bytes."""

    flop: float
    bytes_: float

    def seconds(self, peak: Peak, precision: str = "fp32") -> float:
        """Return the serial roofline."""
        return self.flop / peak.flops[precision] + self.bytes_ / peak.bytes_s


class Counts(NamedTuple):
    """Counts of a network for one image: multiply-adds, those of the first layer, values between layers, LRN's values.
    ``values`` are the input and the outputs of each convolution, linear layer, normalisation and pooling.
    ``parameters`` are those of the network.
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
    """Whether a layer's output goes through memory in fused code: activations, dropout and padding do not."""
    return isinstance(module, nn.Conv2d | nn.Linear | nn.MaxPool2d | nn.AvgPool2d) or "Norm" in type(module).__name__


def step(c: Counts, batch: int, precision: str = "fp32") -> Work:
    """Return a training step's work: no gradient of pixels; six passes over all values, five more over the normalised.

    Weights are read forward and backward, their gradient is written, and the optimizer makes five passes. In bf16 these
    five are over fp32 master weights, which are first copied (one read, one write) for the products.
    """
    flop = 2.0 * batch * (3 * c.macs - c.first)
    of_values = VALUE_BYTES[precision] * batch * (6 * c.values + 5 * c.normalised)
    of_weights = VALUE_BYTES[precision] * 3 + FLOAT * OPTIMIZER_PASSES
    if precision == "bf16":
        of_weights += FLOAT + HALF
    return Work(flop, float(of_values + of_weights * c.parameters))


OPTIMIZER_PASSES = 5
"""Over all parameters: weight and velocity read and written, the gradient read."""


def optimizer(c: Counts) -> Work:
    """Return the work of a step of SGD with momentum, in fp32 whatever the precision of the products."""
    return Work(0.0, float(FLOAT * OPTIMIZER_PASSES * c.parameters))


def evaluation(c: Counts, batch: int, precision: str = "fp32") -> Work:
    """Return the work of a forward pass: every value written and read, the weights read once."""
    return Work(2.0 * batch * c.macs, float(VALUE_BYTES[precision] * (2 * batch * c.values + c.parameters)))


def response_norm(values: int, precision: str = "fp32") -> Work:
    """Return the work of LRN forward (read, write) and backward (input and gradient read, gradient written)."""
    return Work(0.0, float(VALUE_BYTES[precision] * 5 * values))
