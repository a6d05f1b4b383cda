"""Trainings as others write them, the peers of ours: torchvision's script, a DataLoader, a set on the device.

They use torch and torchvision only, and run none of this package's code. They follow the practice, not the text, of
what they stand for: references/classification/train.py of torchvision, and loops like those of airbench.
"""

import multiprocessing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, RandomSampler

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of each colour, by which such scripts standardise pixels in 0 to 1."""


EPOCHS = 1_000_000  # more than are ever asked for


def loader(data: "Dataset[Any]", batch: int, workers: int, *, pin: bool) -> "DataLoader[Any]":
    """Return a DataLoader that shuffles, with all epochs in one stream.

    Else its queue would run empty at the end of each epoch, which comes far more often with the few pictures here than
    with the sets that such scripts are for. Its processes are never forked: DALI has threads in this process, and a
    fork would inherit their locks.
    """
    kind = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    endless = RandomSampler(data, num_samples=EPOCHS * len(data))  # type: ignore[arg-type]
    return DataLoader(
        data, batch, sampler=endless, num_workers=workers, drop_last=True, pin_memory=pin,
        multiprocessing_context=multiprocessing.get_context(kind),
    )  # fmt: skip


def folder(root: Path, crop: int) -> "Dataset[Any]":
    """Return class folders of pictures as torchvision's script reads them: a random part, resized, mirrored or not."""
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    steps = [v2.RandomResizedCrop(crop, antialias=True), v2.RandomHorizontalFlip(), v2.PILToTensor()]
    steps += [v2.ToDtype(torch.float, scale=True), v2.Normalize(MEAN, STD)]
    found: Dataset[Any] = ImageFolder(root, v2.Compose(steps))
    return found


class InMemory(Dataset[tuple[Tensor, int]]):
    """Pictures (N, H, W, 3) uint8 in memory, given one by one as torchvision's CIFAR10 does: as a PIL picture first."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        from torchvision.transforms import v2

        self.images, self.labels = images, labels
        self.transform = v2.Compose([v2.PILToTensor(), v2.ToDtype(torch.float, scale=True), v2.Normalize(MEAN, STD)])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


def told(
    model: nn.Module, stream: Iterator[tuple[Tensor, Tensor]], device: torch.device, rate: float
) -> Callable[[], None]:
    """Return a step that reads its loss, top-1 and top-5 accuracy back at once, as scripts that print them do."""
    optimizer = torch.optim.SGD(model.parameters(), rate, momentum=0.9, weight_decay=1e-4)
    sums = [0.0, 0.0, 0.0]

    def call() -> None:
        images, labels = next(stream)
        images, labels = images.to(device), labels.to(device)
        logits = model(images)
        loss = F.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.inference_mode():
            right = logits.topk(5, dim=1).indices == labels[:, None]
            for at, value in enumerate((loss, right[:, 0].float().mean(), right.any(1).float().mean())):
                sums[at] += value.item()

    return call


def on_device(
    model: nn.Module, images: Tensor, labels: Tensor, batch: int, rate: float
) -> Callable[[], None]:  # fmt: skip
    """Return a step on a set that lies on the device, standardised beforehand, shuffled by one permutation an epoch.

    ``images`` are uint8 (N, H, W, 3). No picture is shifted or mirrored, as none is in ours, and nothing is read back.
    """
    mean, std = (torch.tensor(values, device=images.device) for values in (MEAN, STD))
    ready = images.float().div_(255).sub_(mean).div_(std).permute(0, 3, 1, 2)
    optimizer = torch.optim.SGD(model.parameters(), rate, momentum=0.9)

    def rows() -> Iterator[Tensor]:
        while True:
            order = torch.randperm(len(ready), device=ready.device)
            yield from order[: len(order) // batch * batch].view(-1, batch)

    chosen = rows()

    def call() -> None:
        own = next(chosen)
        F.cross_entropy(model(ready[own]), labels[own]).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return call
