"""Data sets, decoded and whole in memory: uint8 images and integer labels, with a digest that identifies them.

Torch is imported only where a set is made: preparing and checking pictures works without it, in every process.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from repro import datasets
from repro.problem import Problem
from repro.store import NO_DATA

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class DataError(Problem):
    """Data is missing or not what it should be; the message names the file and says what to do."""


@dataclass(frozen=True)
class Dataset:
    """One half of a set: ``images`` uint8 (N, H, W, 3), ``labels`` int64 (N,) in 0..classes-1, both on one device."""

    name: str
    images: "Tensor"
    labels: "Tensor"
    classes: int
    digest: str

    def to(self, device: "torch.device") -> "Dataset":
        """Return the same set with its tensors on ``device``."""
        return Dataset(self.name, self.images.to(device), self.labels.to(device), self.classes, self.digest)


def nothing() -> Dataset:
    """Return a set without images, for what follows from the network's definition alone."""
    import torch

    return Dataset("none", torch.empty(0, 1, 1, 3, dtype=torch.uint8), torch.empty(0, dtype=torch.int64), 0, NO_DATA)


def load(name: str, root: Path | None, *, train: bool = True, download: bool = False) -> Dataset:
    """Return the training or the test half of ``cifar10``, or of ``embedded`` (drawn here, needs no ``root``).

    Raises DataError where the data is missing or altered, with what to do about it.
    """
    import torch

    if name == "embedded":
        from repro.data import embedded

        drawn = datasets.IN_MEMORY
        images, labels = embedded.draw(drawn.train if train else drawn.test, EMBEDDED_SIZE, seed=0 if train else 1)
        sums = hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
        return Dataset(
            name, torch.from_numpy(images), torch.from_numpy(labels), len(embedded.CLASSES), f"sha256:{sums}"
        )
    if name == "cifar10":
        if root is None:
            raise DataError("CIFAR-10 is needed: pass --data DIR, or set REPRO_DATA; --download fetches it into DIR")
        try:
            from repro.data import cifar10  # here: torchvision takes seconds to import
        except ModuleNotFoundError as error:
            raise DataError(f"CIFAR-10 needs {error.name}: install this package with its extra 'run'") from error
        images, labels = cifar10.read(root, train=train, download=download)
        classes = datasets.DATASETS[name].classes
        return Dataset(name, torch.from_numpy(images), torch.from_numpy(labels), classes, cifar10.DIGEST)
    raise DataError(f"unknown data set {name!r}; known are cifar10, embedded")


EMBEDDED_SIZE = 32  # pixels, the size of CIFAR-10's images
