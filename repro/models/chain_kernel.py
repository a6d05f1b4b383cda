"""GPU kernels for what stands around a convolution: the bias and ReLU behind it, and the zero padding in front of it.

One kernel adds the bias and takes ReLU, and a second computes both gradients. A third pads with zeros and rounds to the
precision of the convolution's factors. Written in Triton; imported only where a tensor lies on a GPU.

Values lie with their channels last: a row holds the values of all maps at one place of one image. In the backward pass
a program goes through a span of rows, a tile of ``VALUES`` at a time, and sums its part of the bias's gradient in
registers; another kernel adds up these parts. No sum uses atomic additions, and the spans depend on the shape alone, so
equal inputs give equal bits on every GPU of a kind.

Arithmetic is in single precision, whatever the tensors are. With ``b`` bytes a value and each value read from memory
once, bias and ReLU move 2 b a value forward and 3 b backward. torch moves 4 b forward, as it adds the bias in place and
then takes ReLU, and 4 b backward, as it takes ReLU's gradient and then sums it. Padding moves what it reads and what it
writes; torch fills with zeros, copies, and then rounds the copy.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

from repro.models.gpu import launch

DTYPES = (torch.float32, torch.bfloat16)
VALUES = 2048
"""Values of a tile, for 128 threads: a thread holds 16, in pieces of 16 bytes."""
SPANS = 1024
"""The most programs of a gradient: about 8 on each of an H200's 132 processors."""
ADDED = 16
"""Maps whose parts a program of ``_added_up`` adds up, all at once."""
OPTIONS = {"enable_fp_fusion": True}


def fuses(layer: nn.Conv2d) -> bool:
    """Whether ``bias_relu`` can add the layer's bias: it has one, and a row of its maps fits into a tile."""
    bias = layer.bias
    return bias is not None and bias.dtype in DTYPES and len(bias) <= VALUES and layer.padding_mode == "zeros"


def pads(x: Tensor, border: tuple[int, int, int, int]) -> bool:
    """Whether ``pad`` can pad x by ``border`` (left, right, top, bottom): no gradient, lines of at most 4 * VALUES."""
    if x.dtype != torch.float32 or x.dim() != 4 or x.requires_grad or min(border) < 0:
        return False
    return x.shape[1] * (x.shape[3] + border[0] + border[1]) <= 4 * VALUES


@triton.jit
def _bias_relu(X, BIAS, Y, rows, C: tl.constexpr, R: tl.constexpr, W: tl.constexpr):
    """Write Y = max(X + BIAS, 0) for R rows; what is not a number stays that. W is C or more, a power of 2."""
    row = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)[:, None]
    c = tl.arange(0, W)[None, :]
    there = (row < rows) & (c < C)
    bias = tl.load(BIAS + c, mask=c < C, other=0.0).to(tl.float32)
    y = tl.maximum(tl.load(X + row * C + c, mask=there).to(tl.float32) + bias, 0.0, propagate_nan=tl.PropagateNan.ALL)
    tl.store(Y + row * C + c, y.to(Y.dtype.element_ty), mask=there)


@triton.jit
def _bias_relu_gradient(Y, G, D, PARTS, rows, TILES: tl.constexpr, C: tl.constexpr, R: tl.constexpr, W: tl.constexpr):
    """Write D = G where Y is not 0, else 0, for TILES times R rows, and their sums over the rows into PARTS."""
    program = tl.program_id(0)
    c = tl.arange(0, W)[None, :]
    total = tl.zeros((R, W), tl.float32)
    for tile in range(TILES):
        row = (program * TILES + tile).to(tl.int64) * R + tl.arange(0, R)[:, None]
        there = (row < rows) & (c < C)
        y = tl.load(Y + row * C + c, mask=there, other=0.0).to(tl.float32)
        d = tl.where(y <= 0.0, 0.0, tl.load(G + row * C + c, mask=there, other=0.0).to(tl.float32))
        tl.store(D + row * C + c, d.to(D.dtype.element_ty), mask=there)
        total += d
    place = tl.arange(0, W)
    tl.store(PARTS + program * C + place, tl.sum(total, 0), mask=place < C)


@triton.jit
def _added_up(PARTS, TOTAL, parts, C: tl.constexpr, S: tl.constexpr, B: tl.constexpr):
    """Write the sums of PARTS (parts, C) over the parts, of which there are S at most."""
    part = tl.arange(0, S)[:, None]
    c = tl.program_id(0) * B + tl.arange(0, B)
    found = tl.load(PARTS + part * C + c[None, :], mask=(part < parts) & (c < C)[None, :], other=0.0)
    tl.store(TOTAL + c, tl.sum(found, 0).to(TOTAL.dtype.element_ty), mask=c < C)


@triton.jit
def _pad(
    X,
    Y,
    left,
    top,
    C: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    R: tl.constexpr,
    W: tl.constexpr,
):
    """Write R lines of an image of ROWS x COLUMNS in which one of HEIGHT x WIDTH lies, and zeros around it."""
    image = tl.program_id(0).to(tl.int64)
    row = tl.program_id(1) * R + tl.arange(0, R)[:, None]
    e = tl.arange(0, W)[None, :]
    source, seen = row - top, e - left * C
    inside = (source >= 0) & (source < HEIGHT) & (seen >= 0) & (seen < WIDTH * C)
    x = tl.load(X + image * (HEIGHT * WIDTH * C) + source * (WIDTH * C) + seen, mask=inside, other=0.0)
    there = (row < ROWS) & (e < COLUMNS * C)
    at = image * (ROWS * COLUMNS * C) + row * (COLUMNS * C) + e
    tl.store(Y + at, x.to(Y.dtype.element_ty), mask=there)


@torch.library.custom_op("repro::pad", mutates_args=())
def pad(x: Tensor, left: int, right: int, top: int, bottom: int, narrow: bool) -> Tensor:
    """Return x (N, C, H, W), best in channels_last, with zeros around it; bfloat16 where ``narrow``, rounded once.

    It has no gradient. The result is wrong for what ``pads`` refuses.
    """
    x = _rows(x)
    y = _padded(x, left, right, top, bottom, narrow)
    n, maps, rows, columns = y.shape
    width = triton.next_power_of_2(maps * columns)
    tile = {"C": maps, "HEIGHT": x.shape[2], "WIDTH": x.shape[3], "ROWS": rows, "COLUMNS": columns}
    tile |= {"R": max(1, VALUES // width), "W": width}
    launch(_pad, (n, triton.cdiv(rows, tile["R"])), x, y, left, top, **tile)
    return y


@torch.library.custom_op("repro::bias_relu", mutates_args=())
def bias_relu(x: Tensor, bias: Tensor) -> Tensor:
    """Return ``relu(x + bias)`` of maps x (N, C, H, W), best in channels_last, with one number of ``bias`` (C,) a map.

    The result y lies in channels_last, rounded once to x's precision. Only y is kept for the gradient, which is 0 where
    y is 0, as torch's is. The result is wrong for what ``fuses`` refuses. Bytes: 2 b a value forward, 3 b backward.
    """
    x = _rows(x)
    y = _like(x)
    rows, shape = _shape(x)
    launch(_bias_relu, (triton.cdiv(rows, shape["R"]),), x, bias, y, rows, **shape, **OPTIONS)
    return y


@torch.library.custom_op("repro::bias_relu_gradient", mutates_args=())
def bias_relu_gradient(y: Tensor, grad: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of x and of ``bias`` from y = ``bias_relu(x, bias)`` and its gradient ``grad``."""
    y, grad = _rows(y), _rows(grad)
    out, total = _like(y), torch.empty_like(bias)
    rows, shape = _shape(y)
    if not rows:
        return out, total.zero_()
    tiles = triton.cdiv(triton.cdiv(rows, shape["R"]), SPANS)
    spans = triton.cdiv(rows, shape["R"] * tiles)
    parts = torch.empty(spans, len(bias), dtype=torch.float32, device=y.device)
    launch(_bias_relu_gradient, (spans,), y, grad, out, parts, rows, TILES=tiles, **shape, **OPTIONS)
    grid = (triton.cdiv(len(bias), ADDED),)
    constants = {"C": len(bias), "S": triton.next_power_of_2(spans), "B": ADDED}
    launch(_added_up, grid, parts, total, spans, **constants, num_warps=8, **OPTIONS)
    return out, total


def _shape(x: Tensor) -> tuple[int, dict[str, int]]:
    """Return how many rows x has, and the shape of a tile of them."""
    maps = x.shape[1]
    width = triton.next_power_of_2(maps)
    return x.numel() // maps, {"C": maps, "R": max(1, VALUES // width), "W": width}


def _padded(x: Tensor, left: int, right: int, top: int, bottom: int, narrow: bool) -> Tensor:
    shape = (*x.shape[:2], x.shape[2] + top + bottom, x.shape[3] + left + right)
    dtype = torch.bfloat16 if narrow else x.dtype
    return torch.empty(shape, dtype=dtype, device=x.device, memory_format=torch.channels_last)


def _rows(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _like(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.channels_last)


# What torch has to know of these operators: the shapes they return, and their gradients.

pad.register_fake(_padded)
bias_relu.register_fake(lambda x, _: _like(x))
bias_relu_gradient.register_fake(lambda y, _, bias: (_like(y), torch.empty_like(bias)))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(output, inputs[1])


def _back(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
    y, bias = ctx.saved_tensors
    return bias_relu_gradient(y, grad, bias)


bias_relu.register_autograd(_back, setup_context=_keep)
