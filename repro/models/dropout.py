"""Dropout by counting: a mask is a pure function of the layer's seed, the step, the row of the batch and the neuron.

A layer uses the SplitMix64 sequence of its seed (Steele, Lea and Flood, "Fast splittable pseudorandom number
generators", OOPSLA 2014; constants of java.util.SplittableRandom), of which each step has 2**32 words to itself. A row
of the batch takes as many words as its neurons need, one bit a neuron. The arithmetic is on integers modulo 2**64, so
masks are the same on a CPU and a GPU. Nothing is drawn from a stream: a resumed training needs no state, and the masks
of a part of the batch, or of one tower's neurons, are slices of the whole.

On a GPU ``repro.models.dropout_kernel`` computes the same bits; torch's operations, as on a CPU, are the reference.
"""

from types import ModuleType

import torch
from torch import Tensor, nn

from repro.models.gpu import kernels_for
from repro.seeds import derive

BITS = 64
STEP = 1 << 32
"""Words of a step: enough for 65,536 images of 4 million neurons."""


def _signed(bits: int) -> int:
    """Return the int64 with these 64 bits."""
    return (bits + (1 << 63)) % (1 << 64) - (1 << 63)


GAMMA = 0x9E3779B97F4A7C15
FIRST, SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def mixed(x: Tensor) -> Tensor:
    """Return each int64 of ``x`` with its 64 bits mixed, one to one: Stafford's Mix13, which SplitMix64 uses."""
    x = (x ^ _right(x, 30)) * _signed(FIRST)
    x = (x ^ _right(x, 27)) * _signed(SECOND)
    return x ^ _right(x, 31)


def _right(x: Tensor, places: int) -> Tensor:
    """Return the bits of ``x`` shifted right, with zeros shifted in; torch's own shift repeats the sign."""
    return x >> places & (1 << BITS - places) - 1


def _kernel() -> ModuleType:
    from repro.models import dropout_kernel

    return dropout_kernel


class Draw(nn.Module):
    """Which masks all dropout layers of a network use: those of ``step``, for the batch's rows from ``first`` on.

    The step lies in a tensor, int64 (), on the network's device, so that a CUDA graph reads it anew at each replay.
    """

    step: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("step", torch.zeros((), dtype=torch.int64), persistent=False)
        self.first = 0

    def at(self, step: int) -> None:
        """Go to ``step``, in [0, 2**32)."""
        self.step.fill_(step)


class Dropout(nn.Module):
    """Dropout with probability 0.5 for the neurons of (N, ...), numbered as they lie when flattened.

    As in section 4.2, neurons that are kept do not change in training, and all are halved in testing. ``inverted``:
    those kept are doubled in training, and none changes in testing. ``part`` is (index, count): which of ``count``
    equal parts of the neurons this layer holds. Until ``key`` gives it a seed, a layer uses seed 0.
    """

    seed: Tensor

    def __init__(self, *, inverted: bool, draw: Draw | None = None, part: tuple[int, int] = (0, 1)) -> None:
        super().__init__()
        self.inverted, self.part = inverted, part
        self.draw = Draw() if draw is None else draw
        self.register_buffer("seed", torch.zeros((), dtype=torch.int64), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x if self.inverted else x * 0.5
        kernels = kernels_for(x, _kernel)
        if kernels and kernels.drops(x):
            factor = 2.0 if self.inverted else 1.0
            dropped: Tensor = kernels.drop(x, self.seed, self.draw.step, self.draw.first, *self.part, factor)
            return dropped
        kept = x * self.mask(x)
        return kept * 2 if self.inverted else kept

    def mask(self, x: Tensor) -> Tensor:
        """Return which neurons of ``x`` are kept at the step, bool, of its shape and on its device."""
        rows, own = len(x), x[0].numel()
        which, parts = self.part
        words = -(-own * parts // BITS)  # of a row of the whole layer
        low, high = which * own // BITS, -(-(which + 1) * own // BITS)
        numbers = torch.arange(self.draw.first * words + 1, (self.draw.first + rows) * words + 1, device=x.device)
        start = self.draw.step * _signed(GAMMA * STEP) + self.seed
        row = mixed(numbers.view(rows, words)[:, low:high] * _signed(GAMMA) + start)
        bit = 1 << torch.arange(BITS, device=x.device)
        first = which * own - low * BITS
        return (row[..., None] & bit).ne(0).flatten(1)[:, first : first + own].reshape(x.shape)

    def extra_repr(self) -> str:
        return f"p=0.5, inverted={self.inverted}" + (f", part={self.part}" if self.part[1] > 1 else "")


def key(model: nn.Module, seed: int) -> Draw:
    """Give the dropout layers of ``model`` their seeds and one ``Draw`` in common, and return it.

    A layer's seed follows from ``seed``, a trial's, and the layer's number. The training sets the step in the ``Draw``.
    """
    layers = [module for module in model.modules() if isinstance(module, Dropout)]
    draw = layers[0].draw if layers else Draw()
    for number, layer in enumerate(layers):
        layer.draw = draw
        layer.seed.fill_(derive(seed, "dropout", number))
    return draw
