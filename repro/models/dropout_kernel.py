"""Dropout as one GPU kernel a pass, which computes each neuron's bit where it is needed and keeps no mask.

Written in Triton; imported only where a tensor lies on a GPU. Bits and values are those of ``repro.models.dropout``:
the integer arithmetic is the same, and a neuron is multiplied by 0 or 1 and then by ``factor``, 1 or 2, which rounds
nothing. The backward pass treats the gradient in the same way, and computes the same bits again.

Bytes, forward and backward alike: 2 b a value, ``b`` being the bytes of a value.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from repro.models import dropout
from repro.models.gpu import launch

DTYPES = (torch.float32, torch.bfloat16)
BLOCK = 1024

_GAMMA = tl.constexpr(dropout.GAMMA)
_STEP = tl.constexpr(dropout.GAMMA * dropout.STEP % (1 << dropout.BITS))
_FIRST, _SECOND = tl.constexpr(dropout.FIRST), tl.constexpr(dropout.SECOND)


def drops(x: Tensor) -> bool:
    """Whether ``drop`` can take x (N, ...): its values lie in the order in which their bits are counted.

    Others, such as maps in channels_last, go through torch's operations, on a GPU too.
    """
    if x.dtype not in DTYPES or not x.is_contiguous() or not x.numel():
        return False
    return x[0].numel() <= 65535 * BLOCK  # CUDA's largest grid


@triton.jit
def _drop(X, Y, SEED, STEP, first, own, words, before, factor, B: tl.constexpr):
    """Write Y = X times ``factor`` where a neuron is kept, else times 0. A row has ``own`` values and ``words`` words.

    The bits are those of row ``first`` + r of the batch, and of its neurons from ``before`` on.
    """
    row = tl.program_id(0).to(tl.int64)
    place = tl.program_id(1) * B + tl.arange(0, B)
    there = place < own
    neuron = before + place
    number = ((first + row) * words + 1 + neuron // 64).to(tl.uint64)
    x = tl.load(STEP).to(tl.uint64) * _STEP + tl.load(SEED).to(tl.uint64) + number * _GAMMA
    x = (x ^ (x >> 30)) * _FIRST
    x = (x ^ (x >> 27)) * _SECOND
    x = x ^ (x >> 31)
    kept = (x >> (neuron % 64).to(tl.uint64)) & 1
    at = row * own + place
    value = tl.load(X + at, mask=there).to(tl.float32) * kept.to(tl.float32) * factor
    tl.store(Y + at, value.to(Y.dtype.element_ty), mask=there)


@torch.library.custom_op("repro::drop", mutates_args=())
def drop(x: Tensor, seed: Tensor, step: Tensor, first: int, which: int, parts: int, factor: float) -> Tensor:
    """Return x (N, ...) times ``factor``, 1 or 2, where ``repro.models.dropout.Dropout.mask`` keeps it, else times 0.

    ``seed`` and ``step``, int64 (), are on x's device. x holds the batch's rows from ``first`` on, and of the neurons
    part ``which`` of ``parts``. No values are kept for the gradient. The result is wrong for what ``drops`` refuses.
    """
    x = x.contiguous()
    y = torch.empty_like(x)
    own = x[0].numel()
    words = -(-own * parts // dropout.BITS)
    grid = (len(x), triton.cdiv(own, BLOCK))
    launch(_drop, grid, x, y, seed, step, first, own, words, which * own, factor, B=BLOCK)
    return y


# What torch has to know of this operator: the shape it returns, and its gradient.

drop.register_fake(lambda x, *_: torch.empty_like(x, memory_format=torch.contiguous_format))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001 (torch names them)
    _, seed, step, *ctx.settings = inputs
    ctx.save_for_backward(seed, step)  # so that torch refuses a backward pass once the step has changed


def _back(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return drop(grad, *ctx.saved_tensors, *ctx.settings), None, None, None, None, None, None


drop.register_autograd(_back, setup_context=_keep)
