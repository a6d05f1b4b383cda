"""What a net is fed: batches of raw pixels turned into float input, the way its protocol says."""

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
        total = images.to(torch.int64 if images.device.type == "cpu" else torch.float64)
        if protocol == "code":
            self.mean = (total.sum(0).double() / len(images)).float()  # (H, W, 3)
            self.scale = torch.ones(3, device=images.device)
        else:
            mean = total.sum((0, 1, 2)).double() / total[..., 0].numel()
            square = (total * total).sum((0, 1, 2)).double() / total[..., 0].numel()
            self.mean = mean.float()  # (3,)
            self.scale = (square - mean * mean).rsqrt().float()

    def __call__(self, images: Tensor) -> Tensor:
        x = images.float() - self.mean
        if self.mean.dim() == 1:
            x *= self.scale
        return x.permute(0, 3, 1, 2)


def batches(data: Dataset, batch: int, seed: int, first_step: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (images, labels) of ``batch`` rows without end, from step ``first_step`` on, in a fresh order each epoch.

    An epoch is ``len(images) // batch`` full batches; the few images left over differ from epoch to epoch.
    The order follows from seed and epoch alone, so a resumed trial goes on with the very same batches.
    """
    images, labels = data.images, data.labels
    per_epoch = len(images) // batch
    epoch, skip = divmod(first_step, per_epoch)
    while True:
        generator = torch.Generator().manual_seed(derive(seed, "order", epoch))
        order = torch.randperm(len(images), generator=generator).to(images.device)
        for step in range(skip, per_epoch):
            rows = order[step * batch : (step + 1) * batch]
            yield images[rows], labels[rows]
        epoch, skip = epoch + 1, 0
