"""GPU kernels for the layers of 2012 that move the most bytes for the least arithmetic: LRN and max pooling.

Written in Triton, and imported only where a tensor lies on a GPU (or by tests, under Triton's interpreter). Values lie
with their channels last, so the maps of a tower are neighbours in memory. A thread holds pieces of ``V`` channels, 16
bytes, each of which it reads or writes at once. It sums over neighbouring maps in its registers, from its own piece and
the adjacent ones, which the cache already holds.

Arithmetic is in single precision, whatever the tensors are. No sum uses atomic additions, and none depends on how the
work is divided while a thread has whole pieces (in programs of fewer than 128, the compiler lets threads exchange
squares, which rounds them). So equal inputs give equal bits. The bytes that a call must move are given below, with
``b`` bytes a value and each value read from memory once. For conv1 and 128 pictures (96 maps of 55 x 55: 37,171,200
values) in bfloat16 that is 149 MB for LRN and 223 MB for its gradient, and 101 MB each for pooling to 27 x 27.
"""

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from repro.models.gpu import launch

DTYPES = (torch.float32, torch.bfloat16)
POWER = 0.75
NORM_PIECES, POOL_PIECES = 256, 128
"""Pieces of a program with 128 threads: few enough to leave registers for several programs at a time."""
OPTIONS = {"enable_fp_fusion": True}


def normalises(maps: int, *, size: int, power: float, k: float, dtype: torch.dtype) -> bool:
    """Whether ``norm`` can take a tower of ``maps`` maps: windows of at most 9 maps, power 0.75, whole pieces, k > 0.

    Every LRN of the paper and of the 2012 source is like that. Others go through torch's operations, on a GPU too.
    """
    return dtype in DTYPES and maps % _width(dtype) == 0 and size // 2 <= 4 and power == POWER and k > 0


def pools(x: Tensor, *, kernel: int, stride: int) -> bool:
    """Whether ``pool`` can take x (N, C, H, W): windows of up to 15 x 15, no larger than a map and with no gaps."""
    if x.dtype not in DTYPES or not 1 <= stride <= kernel <= min(15, *x.shape[2:]):
        return False
    return x.shape[1:].numel() // _pool_width(x.shape[1], x.dtype) <= 65535 * POOL_PIECES  # CUDA's largest grid


def _width(dtype: torch.dtype) -> int:
    """Return V: how many values 16 bytes hold."""
    return 16 // dtype.itemsize


def _pool_width(maps: int, dtype: torch.dtype) -> int:
    """Return V where nothing is summed over maps: pieces may be smaller, but all of one size."""
    return math.gcd(maps, _width(dtype))


@triton.jit
def _columns4(tile, B: tl.constexpr):
    even, odd = tl.split(tl.reshape(tile, (B, 2, 2)))
    zero, two = tl.split(even)
    one, three = tl.split(odd)
    return zero, one, two, three


@triton.jit
def _columns(tile, B: tl.constexpr, V: tl.constexpr):
    """Return the V columns of a tile (B, V), each (B,); a thread has a row in its registers, so nothing moves."""
    if V == 4:
        return _columns4(tile, B)
    else:
        even, odd = tl.split(tl.reshape(tile, (B, 4, 2)))
        zero, two, four, six = _columns4(even, B)
        one, three, five, seven = _columns4(odd, B)
        return zero, one, two, three, four, five, six, seven


@triton.jit
def _tile4(zero, one, two, three, B: tl.constexpr):
    return tl.reshape(tl.join(tl.join(zero, two), tl.join(one, three)), (B, 4))


@triton.jit
def _tile(columns, B: tl.constexpr, V: tl.constexpr):
    """Return the tile (B, V) of V columns: the way back from ``_columns``."""
    if V == 4:
        return _tile4(columns[0], columns[1], columns[2], columns[3], B)
    else:
        even = _tile4(columns[0], columns[2], columns[4], columns[6], B)
        odd = _tile4(columns[1], columns[3], columns[5], columns[7], B)
        return tl.reshape(tl.join(even, odd), (B, 8))


@triton.jit
def _window(before, here, after, H: tl.constexpr, B: tl.constexpr, V: tl.constexpr):
    """Return the sum of each column of ``here`` and the H columns on either side of it; all tiles are (B, V)."""
    columns = _columns(before, B, V) + _columns(here, B, V) + _columns(after, B, V)
    sums = ()
    for i in tl.static_range(V, 2 * V):
        total = columns[i - H]
        for j in tl.static_range(i - H + 1, i + H + 1):
            total += columns[j]
        sums += (total,)
    return _tile(sums, B, V)


@triton.jit
def _direct_and_steep(g, x, s):
    """Return g s ** -0.75 and g x s ** -1.75, by roots: a gradient's part along its own map and what others take."""
    root = tl.rsqrt(s)
    direct = g * (root * tl.sqrt(root))
    return direct, direct * x * (root * root)


@triton.jit
def _load(P, at, there):
    """Return a tile in single precision, zero where ``there`` (B,) is false."""
    return tl.load(P + at, mask=there[:, None], other=0.0).to(tl.float32)


@triton.jit
def _norm(X, Y, pieces, a, k, ROW: tl.constexpr, H: tl.constexpr, B: tl.constexpr, V: tl.constexpr):
    """Write Y = X s ** -0.75, s = k + a (sum of X ** 2 over 2 H + 1 maps). A row has ROW pieces. Bytes: 2 b a value."""
    first = tl.program_id(0).to(tl.int64) * B
    lane = tl.arange(0, B)
    there = lane < pieces - first
    place = ((first % ROW).to(tl.int32) + lane) % ROW
    at = first * V + lane[:, None] * V + tl.arange(0, V)[None, :]
    x = _load(X, at, there)
    before = _load(X, at - V, there & (place > 0))
    after = _load(X, at + V, there & (place < ROW - 1))
    y, _ = _direct_and_steep(x, x, k + a * _window(before * before, x * x, after * after, H, B, V))
    tl.store(Y + at, y.to(Y.dtype.element_ty), mask=there[:, None])


@triton.jit
def _norm_gradient(X, G, D, pieces, a, k, ROW: tl.constexpr, H: tl.constexpr, B: tl.constexpr, V: tl.constexpr):
    """Write D = G s ** -0.75 - 1.5 a X (sum of G X s ** -1.75 over the window), s as in ``_norm``. Bytes: 3 b a value.

    The sum needs s of the H maps on either side, and so X of 2 H: of the pieces beside ours, and where those are too
    narrow of the next. What is worked out for the farther columns of a piece is wrong, but nobody uses it, and the
    compiler drops it.
    """
    first = tl.program_id(0).to(tl.int64) * B
    lane = tl.arange(0, B)
    there = lane < pieces - first
    place = ((first % ROW).to(tl.int32) + lane) % ROW
    left, right = there & (place > 0), there & (place < ROW - 1)
    at = first * V + lane[:, None] * V + tl.arange(0, V)[None, :]
    x, before, after = _load(X, at, there), _load(X, at - V, left), _load(X, at + V, right)
    g, g_before, g_after = _load(G, at, there), _load(G, at - V, left), _load(G, at + V, right)
    if 2 * H > V:
        far_before = _load(X, at - 2 * V, there & (place > 1))
        far_after = _load(X, at + 2 * V, there & (place < ROW - 2))
    else:
        far_before = tl.zeros_like(x)
        far_after = tl.zeros_like(x)
    q, q_before, q_after = x * x, before * before, after * after
    direct, steep = _direct_and_steep(g, x, k + a * _window(q_before, q, q_after, H, B, V))
    s_before = k + a * _window(far_before * far_before, q_before, q, H, B, V)
    s_after = k + a * _window(q, q_after, far_after * far_after, H, B, V)
    _, steep_before = _direct_and_steep(g_before, before, s_before)
    _, steep_after = _direct_and_steep(g_after, after, s_after)
    across = _window(steep_before, steep, steep_after, H, B, V)
    tl.store(D + at, (direct - 1.5 * a * x * across).to(D.dtype.element_ty), mask=there[:, None])


@triton.jit
def _pool(
    X,
    Y,
    WON,
    ROWS,
    COLUMNS,
    HEIGHT,
    WIDTH,
    C: tl.constexpr,
    K: tl.constexpr,
    S: tl.constexpr,
    B: tl.constexpr,
    V: tl.constexpr,
):
    """Write each window's largest value, and its place there from 0 to K * K - 1, the first of equals.

    A window that holds what is not a number gives that. Bytes: b + (b + 1) / S ** 2 a value of X.
    """
    image = tl.program_id(0).to(tl.int64)
    X += image * HEIGHT * WIDTH * C
    Y += image * ROWS * COLUMNS * C
    WON += image * ROWS * COLUMNS * C
    piece = tl.program_id(1) * B + tl.arange(0, B)
    window, c = piece // (C // V), piece % (C // V) * V
    i, j = window // COLUMNS, window % COLUMNS
    there = i < ROWS
    within = tl.arange(0, V)[None, :]
    best = tl.full((B, V), float("-inf"), tl.float32)
    won = tl.zeros((B, V), tl.int32)
    for y in tl.static_range(K):
        for x in tl.static_range(K):
            row, column = i * S + y, j * S + x
            inside = (there & (row < HEIGHT) & (column < WIDTH))[:, None]
            at = ((row * WIDTH + column) * C + c)[:, None] + within
            value = tl.load(X + at, mask=inside, other=float("-inf")).to(tl.float32)
            won = tl.where(value > best, y * K + x, won)
            best = tl.maximum(best, value, propagate_nan=tl.PropagateNan.ALL)
    at = (window * C + c)[:, None] + within
    tl.store(Y + at, best.to(Y.dtype.element_ty), mask=there[:, None])
    tl.store(WON + at, won.to(tl.uint8), mask=there[:, None])


@triton.jit
def _pool_gradient(
    G,
    WON,
    D,
    ROWS,
    COLUMNS,
    HEIGHT,
    WIDTH,
    C: tl.constexpr,
    K: tl.constexpr,
    S: tl.constexpr,
    B: tl.constexpr,
    V: tl.constexpr,
):
    """Write for each value the sum of what the windows it won bring it. Bytes: b + (b + 1) / S ** 2 a value of D.

    A thread does the S x S values that begin the same windows: all lie in a few windows, each of which is read once.
    """
    image = tl.program_id(0).to(tl.int64)
    G += image * ROWS * COLUMNS * C
    WON += image * ROWS * COLUMNS * C
    D += image * HEIGHT * WIDTH * C
    piece = tl.program_id(1) * B + tl.arange(0, B)
    square, c = piece // (C // V), piece % (C // V) * V
    across = tl.cdiv(WIDTH, S)
    i, j = square // across, square % across
    within = tl.arange(0, V)[None, :]
    SPAN: tl.constexpr = (K - 1) // S + 1  # windows a side that hold the first value
    windows = ()
    for back in tl.static_range(SPAN):
        for aside in tl.static_range(SPAN):
            row, column = i - back, j - aside
            inside = ((row >= 0) & (row < ROWS) & (column >= 0) & (column < COLUMNS))[:, None]
            at = ((row * COLUMNS + column) * C + c)[:, None] + within
            won = tl.load(WON + at, mask=inside, other=255).to(tl.int32)
            windows += ((won, tl.load(G + at, mask=inside, other=0.0).to(tl.float32)),)
    for down in tl.static_range(S):
        for right in tl.static_range(S):
            total = tl.zeros((B, V), tl.float32)
            for back in tl.static_range(SPAN - 1, -1, -1):
                for aside in tl.static_range(SPAN - 1, -1, -1):
                    if down + back * S < K and right + aside * S < K:
                        won, g = windows[back * SPAN + aside]
                        total += tl.where(won == (down + back * S) * K + right + aside * S, g, 0.0)
            row, column = i * S + down, j * S + right
            inside = ((row < HEIGHT) & (column < WIDTH))[:, None]
            at = ((row * WIDTH + column) * C + c)[:, None] + within
            tl.store(D + at, total.to(D.dtype.element_ty), mask=inside)


@torch.library.custom_op("repro::norm", mutates_args=())
def norm(x: Tensor, towers: int, size: int, scale: float, k: float) -> Tensor:
    """Return ``repro.models.normalization.response_norm`` of each of ``towers`` blocks of maps, with power 0.75.

    x is (N, C, H, W), best in channels_last, as the result is. The result is wrong for what ``normalises`` refuses.
    Only x is kept for the gradient. Bytes: 2 b a value forward, 3 b backward.
    """
    x = _rows(x)
    y = _like(x)
    _over_rows(_norm, x, y, towers=towers, size=size, scale=scale, k=k)
    return y


@torch.library.custom_op("repro::norm_gradient", mutates_args=())
def norm_gradient(x: Tensor, grad: Tensor, towers: int, size: int, scale: float, k: float) -> Tensor:
    """Return the gradient of x, given ``grad``, the gradient of ``norm(x, ...)``."""
    x, grad = _rows(x), _rows(grad)
    out = _like(x)
    _over_rows(_norm_gradient, x, grad, out, towers=towers, size=size, scale=scale, k=k)
    return out


def _over_rows(kernel: Any, x: Tensor, *rest: Tensor, towers: int, size: int, scale: float, k: float) -> None:
    width = _width(x.dtype)
    pieces, row = x.numel() // width, x.shape[1] // towers // width
    constants = {"ROW": row, "H": size // 2, "B": NORM_PIECES, "V": width}
    launch(kernel, (triton.cdiv(pieces, NORM_PIECES),), x, *rest, pieces, scale, k, **constants, **OPTIONS)


@torch.library.custom_op("repro::pool", mutates_args=())
def pool(x: Tensor, kernel: int, stride: int) -> tuple[Tensor, Tensor]:
    """Return the maxima of x (N, C, H, W) over square windows, and the place of each in its window (uint8).

    The last window may reach over the edge. Both results are in channels_last, and wrong for what ``pools`` refuses.
    The gradient needs only the places. Bytes, forward and backward alike: b + (b + 1) / stride ** 2 a value of x.
    """
    x = _rows(x)
    y = _pooled(x, kernel, stride)
    won = _pooled(x, kernel, stride, torch.uint8)
    _over_images(_pool, (x, y, won), y.shape[2] * y.shape[3], y, x, K=kernel, S=stride)
    return y, won


@torch.library.custom_op("repro::pool_gradient", mutates_args=())
def pool_gradient(grad: Tensor, won: Tensor, height: int, width: int, kernel: int, stride: int) -> Tensor:
    """Return the gradient of the input (N, C, height, width) of ``pool``, given that of its maxima and their places."""
    grad = _rows(grad)
    out = _unpooled(grad, height, width)
    squares = triton.cdiv(height, stride) * triton.cdiv(width, stride)
    _over_images(_pool_gradient, (grad, won, out), squares, grad, out, K=kernel, S=stride)
    return out


def _over_images(
    program: Any, tensors: tuple[Tensor, ...], places: int, small: Tensor, large: Tensor, **windows: int
) -> None:
    n, maps = large.shape[:2]
    width = _pool_width(maps, large.dtype)
    grid = (n, triton.cdiv(places * (maps // width), POOL_PIECES))
    constants = {"C": maps, "B": POOL_PIECES, "V": width} | windows
    launch(program, grid, *tensors, *small.shape[2:], *large.shape[2:], **constants, **OPTIONS)


def _rows(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _like(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.channels_last)


def _pooled(x: Tensor, kernel: int, stride: int, dtype: torch.dtype | None = None) -> Tensor:
    rows, columns = (-(-(side - kernel) // stride) + 1 for side in x.shape[2:])
    return _empty((*x.shape[:2], rows, columns), x, dtype)


def _unpooled(grad: Tensor, height: int, width: int) -> Tensor:
    return _empty((*grad.shape[:2], height, width), grad)


def _empty(shape: tuple[int, ...], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    return torch.empty(shape, dtype=dtype or like.dtype, device=like.device, memory_format=torch.channels_last)


# What torch has to know of these operators: the shapes they return, and their gradients.

norm.register_fake(lambda x, *_: _like(x))
norm_gradient.register_fake(lambda x, *_: _like(x))
pool.register_fake(lambda x, *windows: (_pooled(x, *windows), _pooled(x, *windows, dtype=torch.uint8)))
pool_gradient.register_fake(lambda grad, _, height, width, *__: _unpooled(grad, height, width))


def _keep_norm(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001 (torch names them)
    x, *ctx.settings = inputs
    ctx.save_for_backward(x)


def _norm_back(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    (x,) = ctx.saved_tensors
    return norm_gradient(x, grad, *ctx.settings), None, None, None, None


def _keep_pool(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, *windows = inputs
    ctx.settings = (*x.shape[2:], *windows)
    ctx.save_for_backward(output[1])


def _pool_back(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    (won,) = ctx.saved_tensors
    return pool_gradient(grad, won, *ctx.settings), None, None


norm.register_autograd(_norm_back, setup_context=_keep_norm)
pool.register_autograd(_pool_back, setup_context=_keep_pool)
