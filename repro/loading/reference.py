"""The loader one would write first: a DataLoader over a data set that opens each JPEG with Pillow.

The other loaders are checked against it and timed beside it. Its order, places and flips are those of `resident`.
"""

import multiprocessing
from collections.abc import Generator, Iterator, Mapping
from itertools import count as count_from
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from repro.data import DataError
from repro.data.processes import start_a_reader
from repro.loading import Job, Window, digest_of, draw, identity, refuse_another, rows
from repro.seeds import derive
from repro.training import views

if TYPE_CHECKING:
    from repro.data.prepared import Prepared

NAME = "torchvision"


def decode(path: Path, side: int) -> np.ndarray:
    """Return the JPEG at ``path`` as uint8 (side, side, 3): grey in three equal channels, EXIF orientation ignored.

    Raises DataError, which names the file, where it is missing, broken or of another size.
    """
    from PIL import Image  # here: `resident` from tensors needs no decoder

    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError) as error:  # Pillow raises SyntaxError for some broken headers
        raise DataError(f"{path} cannot be decoded: {error}") from error
    if pixels.shape != (side, side, 3):
        raise DataError(f"{path} is {pixels.shape[1]} x {pixels.shape[0]} pixels, not {side} x {side}")
    return pixels


class _Windows(Dataset[tuple[Tensor, int]]):
    """One window and its label for (row, y, x, flip)."""

    def __init__(self, data: "Prepared", crop: int) -> None:
        self.root, self.side, self.files, self.crop = data.root, data.side, data.files["train"], crop

    def __getitem__(self, item: tuple[int, int, int, bool]) -> tuple[Tensor, int]:
        row, y, x, flip = item
        path, label = self.files[row]
        window = decode(self.root / path, self.side)[y : y + self.crop, x : x + self.crop]
        return torch.from_numpy((window[:, ::-1] if flip else window).copy()), label


class _Whole(Dataset[tuple[Tensor, int]]):
    """One stored image and its label, of those in ``part``, in file order."""

    def __init__(self, data: "Prepared", split: str, part: slice) -> None:
        self.root, self.side, self.files = data.root, data.side, data.files[split][part]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        path, label = self.files[row]
        return torch.from_numpy(decode(self.root / path, self.side).copy()), label


class _Steps:
    """A batch sampler for a DataLoader: the items of each batch, from a given step on."""

    def __init__(self, job: Job, images: int, side: int, first_step: int) -> None:
        self.job, self.images, self.side, self.first_step = job, images, side, first_step

    def __iter__(self) -> Iterator[list[tuple[int, int, int, bool]]]:
        for step, chosen in enumerate(rows(self.job, self.images, self.first_step), self.first_step):
            offsets, flips = draw(self.job, self.side, step)
            yield [
                (row, y, x, flip)
                for row, (y, x), flip in zip(chosen.tolist(), offsets.tolist(), flips.tolist(), strict=True)
            ]


class Reference:
    """A loader with ``workers`` processes (0: none). It resumes by skipping, so its state is its identity alone."""

    name = NAME

    def __init__(self, data: "Prepared", job: Job, *, device: torch.device, workers: int) -> None:
        job.places(data.side)  # refuses a window that does not fit
        self.per_epoch = job.per_epoch(len(data.files["train"]))
        self._data, self._job, self._device, self._workers = data, job, device, workers
        self._identity = identity(NAME, job, digest_of(data))
        self._stream: Generator[Window, None, None] | None = None

    def train(self, first_step: int) -> Iterator[Window]:
        self.close()
        self._stream = self._train(first_step)
        return self._stream

    def _train(self, first_step: int) -> Generator[Window, None, None]:
        steps = _Steps(self._job, len(self._data.files["train"]), self._data.side, first_step)
        loader = self._loader(_Windows(self._data, self._job.crop), batch_sampler=steps)
        for step, (images, labels) in zip(count_from(first_step), _without_traceback(loader), strict=False):
            window = Window(images, labels, *draw(self._job, self._data.side, step))
            yield Window(*(part.to(self._device, non_blocking=True) for part in window))

    def views(self, split: str, count: Literal[1, 10]) -> Iterator[tuple[Tensor, Tensor]]:
        batch = max(1, self._job.batch // count)
        own = _Whole(self._data, split, self._job.part(len(self._data.files[split])))
        for images, labels in _without_traceback(self._loader(own, batch_size=batch)):
            chosen = cut(images.to(self._device, non_blocking=True), count, self._job.crop)
            yield chosen, labels.to(self._device, non_blocking=True)

    def _loader(self, dataset: Dataset[tuple[Tensor, int]], **how: Any) -> DataLoader[tuple[Tensor, int]]:
        return DataLoader(
            dataset,
            num_workers=self._workers,
            multiprocessing_context=_processes() if self._workers else None,
            worker_init_fn=start_a_reader,
            # Without its own generator it would draw from torch's global one.
            generator=torch.Generator().manual_seed(derive(self._job.seed, "workers")),
            pin_memory=self._device.type == "cuda",
            **how,
        )

    def state(self) -> dict[str, Any]:
        return {"identity": self._identity}

    def restore(self, state: Mapping[str, Any]) -> None:
        refuse_another(state, self._identity)

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()  # ends the worker processes
            self._stream = None


def _processes() -> BaseContext:
    """Return the context that starts worker processes, never as forks of this one.

    A fork inherits the locks that threads of DALI or torch hold, but not those threads, and so may wait for ever.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # torch is imported once, not in each worker
    return context


def cut(images: Tensor, count: Literal[1, 10], crop: int) -> Tensor:
    """Return the views (n, count, crop, crop, 3) of whole images (n, side, side, 3): the centre, or all ten."""
    if count == 10:
        return views.ten_views(images, crop)
    y, x = ((side - crop) // 2 for side in images.shape[1:3])
    return images[:, None, y : y + crop, x : x + crop].contiguous()


def _without_traceback(loader: DataLoader[tuple[Tensor, int]]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the batches. A DataError of a worker process comes with its whole traceback, and is raised as one line."""
    try:
        yield from loader
    except DataError as error:
        raise DataError(str(error).strip().rpartition("DataError: ")[2]) from error
