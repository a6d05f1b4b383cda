"""A data set with both its halves, in memory or as prepared files, and the statistics its input needs."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from repro.data import embedded
from repro.data.processes import cores
from repro.loading import Job, Loader, make
from repro.loading.resident import Resident, decoded
from repro.problem import Problem

if TYPE_CHECKING:
    from repro.data.prepared import Prepared


CPU = torch.device("cpu")
_in_turn = threading.RLock()
"""Trials in threads of one process may want a set at the same moment: the first one makes it, and the others wait."""


def workers() -> int:
    """Return how many threads or processes decode for a trial: its share of the cores that this process may use.

    Trials side by side in processes have the cores shared out as torch's threads. There are at least two workers where
    there are two cores: who gives torch one thread on a busy machine still wants a batch decoded during a step.
    """
    return min(cores(), max(2, torch.get_num_threads()))


class Colours(NamedTuple):
    """Statistics of the training set: mean image (side, side, 3); mean, s.d., eigenvalues (3,); eigenvectors (3, 3)."""

    mean: Tensor
    channel_mean: Tensor
    channel_std: Tensor
    eigenvalues: Tensor
    eigenvectors: Tensor


@dataclass(frozen=True)
class Pictures:
    """Either ``halves`` in memory ("train" and "val": uint8 (N, side, side, 3) and labels) or ``prepared`` files."""

    name: str
    classes: int
    digest: str
    halves: Mapping[str, tuple[Tensor, Tensor]] | None = None
    prepared: "Prepared | None" = None
    device: torch.device = CPU

    @classmethod
    def drawn(cls, train: int, val: int, digest: str, side: int = 32) -> "Pictures":
        """Return ``train`` and ``val`` synthetic pictures in memory, uint8 (side, side, 3), as the set ``digest``."""
        halves = {}
        for seed, (split, count) in enumerate((("train", train), ("val", val))):
            images, labels = embedded.draw(count, side, seed)
            halves[split] = (torch.from_numpy(images), torch.from_numpy(labels))
        return cls("embedded", len(embedded.CLASSES), digest, halves=halves)

    def to(self, device: torch.device) -> "Pictures":
        """Return the same set for ``device``; files stay where they are until a loader reads them."""
        halves = self.halves and {k: (x.to(device), y.to(device)) for k, (x, y) in self.halves.items()}
        return replace(self, halves=halves, device=device)

    def count(self, split: str) -> int:
        """Return the number of images in "train" or "val"."""
        if self.halves is not None:
            return len(self.halves[split][1])
        assert self.prepared is not None
        return len(self.prepared.files[split])

    @property
    def held(self) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Both halves on the device, decoded once for all the trials that use them."""
        with _in_turn:
            return self._held

    @cached_property
    def _held(self) -> Mapping[str, tuple[Tensor, Tensor]]:
        if self.prepared is None:
            assert self.halves is not None
            return self.halves
        whole = self.prepared
        return {split: decoded(whole, split, device=self.device, workers=workers()) for split in whole.files}

    def loader(self, name: str, job: Job) -> Loader:
        """Return a loader of these pictures. Raises Problem where ``name`` cannot serve them."""
        if name == "resident":
            return Resident(self.held, self.digest, job)
        if self.prepared is None:
            raise Problem(f"{self.name} lies in memory, so only the loader 'resident' serves it, not {name!r}")
        return make(name, self.prepared, job, device=self.device, workers=workers())

    @property
    def colours(self) -> Colours:
        """The statistics of the training images, on the CPU in float64."""
        with _in_turn:
            return self._colours

    @cached_property
    def _colours(self) -> Colours:
        if self.prepared is not None:
            from repro.data.prepared import statistics

            s = statistics(self.prepared)
            found = (s.mean, s.channel_mean, s.channel_std, s.eigenvalues, s.eigenvectors)
            return Colours(*(torch.as_tensor(part.copy()) for part in found))
        assert self.halves is not None
        images = self.halves["train"][0].cpu()
        total = torch.zeros(images.shape[1:], dtype=torch.int64)
        products = torch.zeros(3, 3, dtype=torch.float64)
        for part in images.split(1024):
            total += part.sum(0, dtype=torch.int64)
            pixels = part.reshape(-1, 3).double()
            products += pixels.T @ pixels  # of whole numbers below 2**53: exact
        mean = total.double() / len(images)
        channel = mean.mean((0, 1))
        matrix = products / (images.numel() // 3) - torch.outer(channel, channel)
        values, vectors = torch.linalg.eigh(matrix)
        return Colours(mean, channel, matrix.diagonal().sqrt(), values.flip(0), vectors.flip(1))
