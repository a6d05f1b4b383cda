"""Loaders of prepared images: all give uint8 windows of one form, and one finish makes the network's input from them.

A loader reads, decodes, cuts and mirrors; it never computes with floats. So for an equal image, offset and flip they
give equal bytes (all of them decode alike on a CPU; for a GPU's decoder see ``repro.loading.dali``), and their costs
can be compared. ``repro.loading.finish`` does the rest, on the device.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, get_args

import torch
from torch import Tensor

from repro import choices
from repro.data.processes import cores
from repro.problem import Problem, suggest
from repro.seeds import derive
from repro.training import inputs
from repro.training.parallel import part

if TYPE_CHECKING:
    from repro.data.prepared import Prepared


class Window(NamedTuple):
    """A training batch of B windows, on one device.

    ``images`` uint8 (B, crop, crop, 3), those of ``flips`` already mirrored left to right; ``labels`` int64 (B,);
    ``offsets`` int64 (B, 2), the window's upper left corner as y, x in the stored image, before mirroring;
    ``flips`` bool (B,).
    """

    images: Tensor
    labels: Tensor
    offsets: Tensor
    flips: Tensor


@dataclass(frozen=True)
class Job:
    """What any loader is asked for.

    Batches of ``batch`` windows of ``crop`` pixels a side, at random places and with random flips where ``crops``,
    otherwise the centre unmirrored; of a batch, each ``alike`` windows in a row share place and flip. This is rank
    ``rank`` of ``world``. Each rank reads its own part of every epoch, ``batch`` windows a step, so together they read
    ``world`` times as many. ``seed`` is the trial's, the same on all ranks.
    """

    batch: int
    crop: int
    seed: int
    crops: bool = True
    alike: int = 1
    rank: int = 0
    world: int = 1

    def per_epoch(self, images: int) -> int:
        """Return how many full batches of ``images`` each rank takes in an epoch. Raises ValueError where none."""
        steps = images // self.world // self.batch
        if not steps:
            raise ValueError(f"{self.world} x {self.batch} images a batch are more than the {images} there are")
        return steps

    def part(self, images: int) -> slice:
        """Return the slice of ``images``, in file order, that this rank looks at where each is looked at once."""
        return part(images, self.rank, self.world)

    def drawn(self, windows: int) -> list[int]:
        """Return, for each of ``windows`` in a row, the index of the one whose place and flip it has."""
        return [i - i % self.alike for i in range(windows)]

    def places(self, side: int) -> int:
        """Return how many places a window has along ``side`` pixels. Raises ValueError where it does not fit."""
        if not 0 < self.crop <= side:
            raise ValueError(f"a window of {self.crop} pixels does not fit into images of {side}")
        return side - self.crop + 1


class Loader(Protocol):
    """Where the windows of one data set come from.

    ``train(first_step)`` is endless; an epoch is ``per_epoch`` full batches in a fresh order, and the few images left
    over differ from epoch to epoch. ``views`` gives every image of the rank's part of a split once, in file order:
    uint8 (n, count, crop, crop, 3), with n at most ``Job.batch // count``, and labels int64 (n,); the one view is the
    centre, the ten are those of ``repro.training.views.ten_views``.

    ``state()`` is the state after the windows drawn so far. A new loader of the same job that is given it by
    ``restore`` continues with the very same windows from ``train(step)``. ``restore`` raises ValueError where data,
    batch, rank or anything else that decides them differs. The state is plain values, fit for
    ``repro.training.checkpoint``.
    """

    name: str
    per_epoch: int

    def train(self, first_step: int) -> Iterator[Window]: ...
    def views(self, split: str, count: Literal[1, 10]) -> Iterator[tuple[Tensor, Tensor]]: ...
    def state(self) -> dict[str, Any]: ...
    def restore(self, state: Mapping[str, Any]) -> None: ...
    def close(self) -> None: ...


def rows(job: Job, images: int, first_step: int) -> Iterator[Tensor]:
    """Return what ``repro.training.inputs.rows`` yields for this job. Raises ValueError where no batch is full."""
    job.per_epoch(images)
    return inputs.rows(images, job.batch, job.seed, first_step, rank=job.rank, world=job.world)


def draw(job: Job, side: int, step: int) -> tuple[Tensor, Tensor]:
    """Return offsets, int64 (batch, 2) as y, x, and flips, bool (batch,), of one step in images of ``side`` pixels.

    They follow from seed and step alone: every rank draws them for the windows of all ranks, and takes its own part.
    All ``side - crop + 1`` places along an axis are equally likely, and a flip is as likely as none.
    """
    places = job.places(side)
    if not job.crops:
        return torch.full((job.batch, 2), (places - 1) // 2), torch.zeros(job.batch, dtype=torch.bool)
    generator = torch.Generator().manual_seed(derive(job.seed, "crops", step, 0))
    whole = job.world * job.batch
    offsets = torch.randint(places, (whole, 2), generator=generator)
    flips = torch.randint(2, (whole,), generator=generator).bool()
    own = job.drawn(whole)[job.part(whole)]
    return offsets[own], flips[own]


def identity(name: str, job: Job, data: str, **more: str | float) -> dict[str, Any]:
    """Return everything that decides which windows a loader gives, for its state: a flat dict of plain values."""
    return {"loader": name, "data": data, **asdict(job), **more}


def digest_of(data: "Prepared") -> str:
    """Return a digest of a prepared data set and of the list of its training files, 16 hex digits.

    The list is included although the set has its own digest, because readers pick files by their index in the list.
    """
    listing = "\n".join(f"{label} {path}" for path, label in data.files["train"])
    return hashlib.sha256(f"{data.digest}\n{listing}".encode()).hexdigest()[:16]


def refuse_another(state: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Raise ValueError, naming what differs, unless ``state`` was saved by a loader of the identity ``own``."""
    saved = state.get("identity", {})
    differing = sorted(key for key in {*saved, *own} if saved.get(key) != own.get(key))
    if differing:
        told = ", ".join(f"{key} {saved.get(key)} (here {own.get(key)})" for key in differing)
        raise ValueError(f"the saved state belongs to another loader: {told}")


def make(
    name: str, data: "Prepared", job: Job, *, device: torch.device | str = "cpu", workers: int | None = None
) -> "Loader":  # fmt: skip
    """Return the loader called ``name``, with ``workers`` threads (dali, resident) or processes (torchvision).

    By default there is one for each of the ``cores``; their number does not change what a loader gives.

    Raises Problem for an unknown name, and where NVIDIA DALI is asked for and missing (no other loader takes its
    place). Raises ValueError where the job does not fit the data, and DataError where an image is broken (`resident`
    reads all of them here).
    """
    device = torch.device(device)
    workers = cores() if workers is None else workers
    if name == "resident":
        from repro.loading.resident import Resident

        return Resident.open(data, job, device=device, workers=workers)
    if name == "torchvision":
        from repro.loading.reference import Reference

        return Reference(data, job, device=device, workers=workers)
    if name == "dali":
        try:
            from repro.loading.dali import Dali
        except ImportError as error:
            raise Problem(
                "the loader 'dali' needs NVIDIA DALI (Linux only): install this package with its extra 'dali', or take "
                f"'resident' or 'torchvision' ({error})"
            ) from error
        return Dali(data, job, device=device, workers=workers)
    known = get_args(choices.Loader)
    raise Problem(f"unknown loader {name!r}; known are {', '.join(known)}{suggest(name, known)}")
