"""The loader `resident`: all images are decoded once and kept on the device, and nothing is read during training.

A hundred classes of ILSVRC at 256 pixels take 25 GB. Order, places and flips follow from seed and step alone.
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from repro.loading import Job, Window, digest_of, draw, identity, refuse_another, rows
from repro.loading.reference import cut, decode
from repro.models.gpu import kernels_for
from repro.training import views

if TYPE_CHECKING:
    from repro.data.prepared import Prepared

NAME = "resident"
CHUNK = 256  # images decoded at a time


class Resident:
    """A loader over images in memory; its state is its identity alone."""

    name = NAME

    def __init__(self, splits: Mapping[str, tuple[Tensor, Tensor]], digest: str, job: Job) -> None:
        """Take ``splits``, "train" and others for ``views``: images uint8 (N, side, side, 3) and labels int64 (N,).

        They stay on their device. ``digest`` tells this set from others when a state is restored. Raises ValueError
        where the job does not fit them.
        """
        images = splits["train"][0]
        job.places(images.shape[1])
        self.per_epoch = job.per_epoch(len(images))
        self._splits, self._job = splits, job
        self._identity = identity(NAME, job, digest)

    @classmethod
    def open(cls, data: "Prepared", job: Job, *, device: torch.device, workers: int) -> "Resident":
        """Return a loader of the decoded ``data``. Raises DataError, naming the file, where one cannot be decoded."""
        job.places(data.side)
        job.per_epoch(len(data.files["train"]))
        splits = {split: decoded(data, split, device=device, workers=workers) for split in data.files}
        return cls(splits, digest_of(data), job)

    def train(self, first_step: int) -> Iterator[Window]:
        images, labels = self._splits["train"]
        for step, chosen in enumerate(rows(self._job, len(images), first_step), first_step):
            offsets, flips = draw(self._job, images.shape[1], step)
            if images.device.type == "cpu":
                window = one_by_one(images, chosen, offsets, flips, self._job.crop)
            else:
                # A blocking copy would make every step wait for the one before it.
                drawn = (chosen, offsets, flips)
                chosen, offsets, flips = (part.to(images.device, non_blocking=True) for part in drawn)
                window = at_once(images, chosen, offsets, flips, self._job.crop)
            yield Window(window, labels[chosen], offsets, flips)

    def views(self, split: str, count: Literal[1, 10]) -> Iterator[tuple[Tensor, Tensor]]:
        batch = max(1, self._job.batch // count)
        own = self._job.part(len(self._splits[split][1]))
        for images, labels in zip(*(part[own].split(batch) for part in self._splits[split]), strict=True):
            yield cut(images, count, self._job.crop), labels

    def state(self) -> dict[str, Any]:
        return {"identity": self._identity}

    def restore(self, state: Mapping[str, Any]) -> None:
        refuse_another(state, self._identity)

    def close(self) -> None:
        """Do nothing: the images are freed with the loader."""


def one_by_one(images: Tensor, chosen: Tensor, offsets: Tensor, flips: Tensor, size: int) -> Tensor:
    """Return the windows (B, size, size, 3) of rows ``chosen``, copied one after the other.

    Equal to ``views.mirror(views.crop(images[chosen], offsets, size), flips)``, which on a CPU takes twenty times as
    long: indexing costs per pixel what a copy costs per line.
    """
    windows = torch.empty(len(chosen), size, size, 3, dtype=images.dtype)
    for window, row, (y, x), flip in zip(windows, chosen.tolist(), offsets.tolist(), flips.tolist(), strict=True):
        seen = images[row, y : y + size, x : x + size]
        window.copy_(seen.flip(1) if flip else seen)
    return windows


def at_once(images: Tensor, chosen: Tensor, offsets: Tensor, flips: Tensor, size: int) -> Tensor:
    """Return the same windows, for devices where every call costs a launch.

    On a GPU one kernel cuts them; elsewhere, and where the images are not contiguous, one gather from a view of all.
    """
    kernels = kernels_for(images, on_a_gpu)
    if kernels and images.is_contiguous():
        windows: Tensor = kernels.cut(images, chosen, offsets, flips, size)
        return windows
    return views.mirror(all_windows(images, size)[chosen, offsets[:, 0], offsets[:, 1]], flips)


def on_a_gpu() -> ModuleType:
    """Return the kernels that feed a GPU."""
    from repro.loading import window_kernel

    return window_kernel


def all_windows(images: Tensor, size: int) -> Tensor:
    """Return every window of every image as a view, (N, places, places, size, size, 3), without a copy."""
    return images.unfold(1, size, 1).unfold(2, size, 1).permute(0, 1, 2, 4, 5, 3)


def decoded(data: "Prepared", split: str, *, device: torch.device, workers: int) -> tuple[Tensor, Tensor]:
    """Return a split's images, uint8 (N, side, side, 3), and labels, int64 (N,), on ``device``, in file order.

    They are decoded on the CPU, by DALI where it is installed and otherwise by Pillow; both give equal bytes. Raises
    DataError, which names the file, where one cannot be decoded.
    """
    files = data.files[split]
    images = torch.empty(len(files), data.side, data.side, 3, dtype=torch.uint8, device=device)
    at = 0
    for part in _parts(data, split, workers):
        images[at : at + len(part)] = part
        at += len(part)
    return images, torch.tensor([label for _, label in files], dtype=torch.int64, device=device)


def _parts(data: "Prepared", split: str, workers: int) -> Iterator[Tensor]:
    """Yield the split's images in file order, a chunk at a time, on the CPU."""
    try:
        from repro.loading.dali import DaliError, whole
    except ImportError:
        yield from _by_pillow(data, split, workers)
        return
    try:
        for images, _ in whole(data, split, CHUNK, device=torch.device("cpu"), workers=workers):
            yield images
    except DaliError:
        for _ in _by_pillow(data, split, workers):  # DALI does not always name the file; this does
            pass
        raise


def _by_pillow(data: "Prepared", split: str, workers: int) -> Iterator[Tensor]:
    paths = iter(data.root / path for path, _ in data.files[split])
    with ThreadPoolExecutor(max(1, workers)) as pool:  # Pillow releases the interpreter's lock to decode
        while chunk := list(islice(paths, CHUNK)):
            pictures = pool.map(lambda path: torch.from_numpy(decode(path, data.side).copy()), chunk)
            yield torch.stack(list(pictures))
