"""The network's input from uint8 windows, on the device: one finish for all loaders.

It subtracts the mean, adds the colour shift, and divides, each if there is something to do it with. The result has the
same bits as when each operation is done by itself. On a GPU ``repro.loading.window_kernel`` does it in one kernel.
"""

from typing import Literal

import torch
from torch import Tensor

from repro.loading import Window
from repro.loading.resident import all_windows, on_a_gpu
from repro.models.gpu import kernels_for
from repro.seeds import derive
from repro.training.parallel import part

Mode = Literal["window", "centre"]


class Finish:
    """Makes float32 (B, 3, crop, crop), channels_last, from a Window and the step it belongs to.

    Built by ``less_mean_image`` (the protocols `code` and `paper`) or ``standardised`` (`modern`).
    """

    def __init__(
        self, mean: Tensor, std: Tensor | None, mode: Mode | None, colour: Tensor | None, seed: int,
        of: tuple[int, int] = (0, 1),
    ) -> None:  # fmt: skip
        self._seed, self._mode, self._of = seed, mode, of
        self._colour = None if colour is None else colour.float().cpu()
        self._mean, self._std = mean.float().contiguous(), std
        self._looped = mean.device.type == "cpu"
        if mode == "window":
            # The mirrored mean is kept too: what a mirrored image loses is a plain window of it.
            self._mean = torch.stack([self._mean, self._mean.flip(1)])  # (2, side, side, 3)

    @classmethod
    def less_mean_image(
        cls, mean: Tensor, mode: Mode, *, colour: Tensor | None = None, seed: int = 0, of: tuple[int, int] = (0, 1),
        divisor: float = 1.0,
    ) -> "Finish":  # fmt: skip
        """Return the finish (pixel - mean + shift) / divisor, the mean image (side, side, 3) on the windows' device.

        Mode `window` subtracts the part of the mean at the window's own place, mirrored like the window. Mode `centre`
        subtracts the mean's centre, never mirrored: convdata_jpeg.py of the release subtracts it after mirroring.
        ``colour`` is M (3, 3) of ``views.colour_matrix``, or None for no shift. The shifts are drawn from ``seed`` for
        the windows of all ranks; ``of`` is this rank and the number of ranks. Raises ValueError for another mode, or a
        mean of another shape.
        """
        if mode not in ("window", "centre"):
            raise ValueError(f"unknown mode {mode!r}; known: window, centre")
        if mean.dim() != 3 or mean.shape[0] != mean.shape[1] or mean.shape[2] != 3:
            raise ValueError(f"a mean image is (side, side, 3), not {tuple(mean.shape)}")
        std = None if divisor == 1.0 else torch.full((3,), divisor, device=mean.device)
        return cls(mean, std, mode, colour, seed, of)

    @classmethod
    def standardised(
        cls, mean: Tensor, std: Tensor, *, colour: Tensor | None = None, seed: int = 0, of: tuple[int, int] = (0, 1)
    ) -> "Finish":
        """Return the finish (pixel - mean + shift) / std, mean and standard deviation (3,) in levels of 0..255.

        Otherwise as ``less_mean_image``.
        """
        return cls(mean, std.float(), None, colour, seed, of)

    def __call__(self, window: Window, step: int) -> Tensor:
        shift = None
        if self._colour is not None:
            rank, world = self._of
            whole = colour_shift(self._colour, world * len(window.images), self._seed, step)
            own = whole[part(len(whole), rank, world)]
            shift = own.to(window.images.device, non_blocking=True)  # else every step would wait for the last
        return self._input(window.images, window.offsets, window.flips, shift)

    def finish_views(self, views: Tensor) -> Tensor:
        """Return float32 (n * v, 3, crop, crop), channels_last, of uint8 views (n, v, crop, crop, 3), unshifted.

        With v = 1 the view is the centre, with v = 10 they are those of ``repro.training.views.ten_views``; the views
        of an image follow one another. Raises ValueError for another v.
        """
        n, v, crop = views.shape[:3]
        if v not in (1, 10):
            raise ValueError(f"{v} views are neither the centre nor all ten")
        edge = self._mean.shape[1] - crop if self._mode else 0
        view = torch.arange(v, device=views.device)  # made on the device, because a copy from the host would wait
        corner, centre = view % 5, (view % 5 == 4) | (v == 1)
        y, x = (torch.where(centre, edge // 2, edge * bit) for bit in (corner // 2, corner % 2))
        return self._input(views.flatten(0, 1), torch.stack([y, x], 1).repeat(n, 1), (view >= 5).repeat(n), None)

    def _input(self, images: Tensor, offsets: Tensor, flips: Tensor, shift: Tensor | None) -> Tensor:
        n, crop = images.shape[:2]
        if kernels := kernels_for(images, on_a_gpu):
            centred = self._mode == "centre"
            found: Tensor = kernels.finish(images, offsets, flips, self._mean, shift, self._std, centred=centred)
            return found.permute(0, 3, 1, 2)
        # Lines of 3 * crop numbers: with an innermost axis of three the loops inside torch crawl.
        pixels = images.reshape(n, crop, 3 * crop)
        shift = None if shift is None else shift.repeat(1, crop)[:, None]
        std = None if self._std is None else self._std.repeat(crop)
        if self._looped:
            lines = _one_by_one(pixels, self._means(offsets, flips, crop), shift, std)
        else:
            lines = _at_once(pixels, self._means(offsets, flips, crop), shift, std)
        return lines.view(n, crop, crop, 3).permute(0, 3, 1, 2)

    def _means(self, offsets: Tensor, flips: Tensor, crop: int) -> list[Tensor] | Tensor:
        """Return each image's mean in lines: on a CPU as views of the mean, elsewhere gathered, or one for all."""
        if self._mode is None:
            line = self._mean.repeat(crop)
            return [line] * len(flips) if self._looped else line
        edge = self._mean.shape[1] - crop
        if self._mode == "centre":
            corner, end = edge // 2, edge // 2 + crop
            lines = self._mean[corner:end, corner:end].flatten(1)
            return [lines] * len(flips) if self._looped else lines
        y, x = offsets.unbind(1)
        x = torch.where(flips, edge - x, x)  # where the window lies in the mirrored mean
        if self._looped:
            lines = self._mean.flatten(2)
            places = zip(flips.long().tolist(), y.tolist(), x.tolist(), strict=True)
            return [lines[side, y : y + crop, 3 * x : 3 * (x + crop)] for side, y, x in places]
        return all_windows(self._mean, crop)[flips.long(), y, x].flatten(2)


def colour_shift(matrix: Tensor, count: int, seed: int, step: int) -> Tensor:
    """Return M @ N(0, 1)^3 for each of ``count`` images, float32 (count, 3), in levels of 0..255.

    It follows from seed and step alone; it is drawn and multiplied on the CPU, so that every device gets the same.
    """
    generator = torch.Generator().manual_seed(derive(seed, "colour", step))
    return torch.randn(count, 3, generator=generator) @ matrix.T


def _one_by_one(pixels: Tensor, means: list[Tensor], shift: Tensor | None, std: Tensor | None) -> Tensor:
    """Return (pixels - mean + shift) / std, image by image: each stays in the cache until it is done."""
    result = torch.empty(pixels.shape, dtype=torch.float32)
    for i, (image, mean) in enumerate(zip(result, means, strict=True)):
        image.copy_(pixels[i]).sub_(mean)
        if shift is not None:
            image.add_(shift[i])
        if std is not None:
            image.div_(std)
    return result


def _at_once(pixels: Tensor, means: Tensor, shift: Tensor | None, std: Tensor | None) -> Tensor:
    """Return the same with one call per operation, for devices without our kernel where every call costs a launch."""
    result = pixels - means
    if shift is not None:
        result += shift
    if std is not None:
        result /= std
    return result
