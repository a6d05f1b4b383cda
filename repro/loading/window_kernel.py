"""Two kernels that feed a GPU from a set in its memory: one cuts a batch's windows, one makes the network's input.

Written in Triton; imported only where a tensor lies on a GPU. A program writes some lines of one image. A line's 3 x
``crop`` numbers lie side by side; which one is read where the image is mirrored follows from place and colour alone.

The windows are copied bytes, and the input is computed by the operations of ``repro.loading.finish`` in their order,
each rounded as IEEE 754 says; so both equal a CPU's to the bit. Memory traffic: 2 bytes per number for the windows, 5
for the input (the mean and the shifts come from the cache).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from repro.models.gpu import launch

NUMBERS = 4096
"""Numbers in a tile: with 128 threads, each holds 32."""
NONE, WINDOW, CENTRE = 0, 1, 2


@triton.jit
def _seen(e, flipped, CROP: tl.constexpr):
    """Return which number of a line is seen at place e: number e, or, if flipped, with pixels from right to left."""
    return tl.where(flipped, 3 * (CROP - 1) - e + 2 * (e % 3), e)


@triton.jit
def _cut(SET, CHOSEN, OFFSETS, FLIPS, OUT, height, width, CROP: tl.constexpr, R: tl.constexpr, W: tl.constexpr):
    """Write R lines of one image's window; W is a power of 2, 3 x CROP or more."""
    image = tl.program_id(0).to(tl.int64)
    row = tl.program_id(1) * R + tl.arange(0, R)[:, None]
    e = tl.arange(0, W)[None, :]
    there = (row < CROP) & (e < 3 * CROP)
    y, x = tl.load(OFFSETS + 2 * image).to(tl.int32), tl.load(OFFSETS + 2 * image + 1).to(tl.int32)
    seen = _seen(e, tl.load(FLIPS + image) != 0, CROP)
    SET += tl.load(CHOSEN + image) * height * width * 3
    pixels = tl.load(SET + ((y + row) * width + x) * 3 + seen, mask=there)
    tl.store(OUT + image * (3 * CROP * CROP) + row * (3 * CROP) + e, pixels, mask=there)


@triton.jit
def _finish(
    IMAGES,
    OFFSETS,
    FLIPS,
    MEAN,
    SHIFT,
    STD,
    OUT,
    side,
    LESS: tl.constexpr,
    SHIFTED: tl.constexpr,
    SCALED: tl.constexpr,
    CROP: tl.constexpr,
    R: tl.constexpr,
    W: tl.constexpr,
):
    """Write R lines of one image's (IMAGES - mean + shift) / standard deviation; the last two are optional."""
    image = tl.program_id(0).to(tl.int64)
    row = tl.program_id(1) * R + tl.arange(0, R)[:, None]
    e = tl.arange(0, W)[None, :]
    there = (row < CROP) & (e < 3 * CROP)
    at = image * (3 * CROP * CROP) + row * (3 * CROP) + e
    value = tl.load(IMAGES + at, mask=there, other=0).to(tl.float32)
    if LESS == 0:
        value -= tl.load(MEAN + e % 3)
    else:
        if LESS == 1:
            y, x = tl.load(OFFSETS + 2 * image).to(tl.int32), tl.load(OFFSETS + 2 * image + 1).to(tl.int32)
            seen = _seen(e, tl.load(FLIPS + image) != 0, CROP)
        else:
            y = (side - CROP) // 2
            x = y
            seen = e
        value -= tl.load(MEAN + ((y + row) * side + x) * 3 + seen, mask=there, other=0.0)
    if SHIFTED:
        value += tl.load(SHIFT + image * 3 + e % 3)
    if SCALED:
        value = tl.div_rn(value, tl.broadcast_to(tl.load(STD + e % 3), (R, W)))
    tl.store(OUT + at, value, mask=there)


@torch.library.custom_op("repro::cut", mutates_args=())
def cut(images: Tensor, chosen: Tensor, offsets: Tensor, flips: Tensor, size: int) -> Tensor:
    """Return what ``repro.loading.resident.one_by_one`` does, on the device.

    ``images`` are uint8 (N, height, width, 3), contiguous; ``chosen`` int64 (B,), ``offsets`` int64 (B, 2) and
    ``flips`` bool (B,) lie on the same device. Each window must lie inside its image; this is not checked.
    """
    out = _windows(images, chosen, size)
    tensors = images, chosen.contiguous(), offsets.contiguous(), flips.contiguous().view(torch.uint8), out
    grid, tile = _tiles(len(chosen), size)
    launch(_cut, grid, *tensors, *images.shape[1:3], **tile)
    return out


@torch.library.custom_op("repro::finish", mutates_args=())
def finish(
    images: Tensor, offsets: Tensor, flips: Tensor, mean: Tensor, shift: Tensor | None, std: Tensor | None, *,
    centred: bool,
) -> Tensor:  # fmt: skip
    """Return float32 (B, size, size, 3): windows, uint8 of that shape, minus their mean, plus ``shift``, over ``std``.

    ``mean`` is float32 (3,) or (..., side, side, 3), whose first mean image is used: each window loses the part at its
    own place, mirrored like the window, or, where ``centred``, the centre, never mirrored. ``shift`` is float32 (B, 3),
    ``std`` (3,). The result is wrong where a window does not lie inside the mean; this is not checked.
    """
    n, size = images.shape[:2]
    out = torch.empty(images.shape, dtype=torch.float32, device=images.device)
    tensors = images.contiguous(), offsets.contiguous(), flips.contiguous().view(torch.uint8), mean.contiguous()
    # The mean stands in for what is None; the kernel never reads it there.
    rest = mean if shift is None else shift.contiguous(), mean if std is None else std.contiguous()
    less = NONE if mean.dim() == 1 else CENTRE if centred else WINDOW
    told = {"LESS": less, "SHIFTED": shift is not None, "SCALED": std is not None}
    grid, tile = _tiles(n, size)
    launch(_finish, grid, *tensors, *rest, out, mean.shape[-2] if less else 0, **told, **tile)
    return out


def _windows(images: Tensor, chosen: Tensor, size: int) -> Tensor:
    return torch.empty(len(chosen), size, size, 3, dtype=images.dtype, device=images.device)


def _tiles(n: int, size: int) -> tuple[tuple[int, int], dict[str, int]]:
    """Return the grid for n images, and the shape of a tile of lines."""
    width = triton.next_power_of_2(3 * size)
    rows = max(1, NUMBERS // width)
    return (n, triton.cdiv(size, rows)), {"CROP": size, "R": rows, "W": width}


# What torch must know of these operators: the shapes they return.

cut.register_fake(lambda images, chosen, _, __, size: _windows(images, chosen, size))
finish.register_fake(lambda images, *_, **__: torch.empty(images.shape, dtype=torch.float32, device=images.device))
