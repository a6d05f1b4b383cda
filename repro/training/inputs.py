"""The input of a net: batches of raw pixels, turned into floats as its protocol says."""

from collections.abc import Iterator

import torch
from torch import Tensor

from repro.data import Dataset
from repro.seeds import derive


class Input:
    """Float input from uint8 pixels. `code`: 0..255 minus the mean image; `modern`: per channel mean 0 and s.d. 1.

    Calling it maps uint8 (N, H, W, 3) to float32 (N, 3, H, W) in channels_last, which costs no copy.
    """

    def __init__(self, images: Tensor, protocol: str) -> None:
        if protocol == "code":
            total = torch.stack([part.sum(0, dtype=torch.int64) for part in images.split(1024)]).sum(0)
            self.mean = (total.double() / len(images)).float()  # (H, W, 3)
            self.scale = torch.ones(3, device=images.device)
        else:
            # From the histogram of each channel: exact sums, and no wide copy of all the images.
            counts = torch.stack([images[..., channel].reshape(-1).bincount(minlength=256) for channel in range(3)])
            value = torch.arange(256, device=images.device)
            mean = (counts * value).sum(1).double() / images[..., 0].numel()
            square = (counts * value * value).sum(1).double() / images[..., 0].numel()
            self.mean = mean.float()  # (3,)
            self.scale = (square - mean * mean).rsqrt().float()

    def __call__(self, images: Tensor) -> Tensor:
        x = images.float() - self.mean
        if self.mean.dim() == 1:
            x *= self.scale
        return x.permute(0, 3, 1, 2)


def rows(
    images: int,
    batch: int,
    seed: int,
    first_step: int,
    *,
    rank: int = 0,
    world: int = 1,
    device: torch.device | str = "cpu",
) -> Iterator[Tensor]:
    """Yield the rows, int64 (batch,), of each step from ``first_step`` on, without end, in a fresh order each epoch.

    An epoch is as many full batches as there are for each rank; the few images left over differ from epoch to epoch.
    The order follows from seed and epoch alone, so a resumed trial goes on with the very same batches. Ranks take turns
    at them.
    """
    per_epoch = images // (world * batch)
    epoch, skip = divmod(first_step, per_epoch)
    while True:
        generator = torch.Generator().manual_seed(derive(seed, "order", epoch))
        order = torch.randperm(images, generator=generator).to(device)
        for step in range(skip, per_epoch):
            start = (step * world + rank) * batch
            yield order[start : start + batch]
        epoch, skip = epoch + 1, 0


def batches(data: Dataset, batch: int, seed: int, first_step: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (images, labels) of the ``batch`` rows of each step from ``first_step`` on, without end."""
    images, labels = data.images, data.labels
    for chosen in rows(len(images), batch, seed, first_step, device=images.device):
        yield images[chosen], labels[chosen]
