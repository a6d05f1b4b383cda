"""The loader `dali`: NVIDIA DALI reads, decodes, cuts and mirrors; all random numbers are drawn inside its pipeline.

A window's corner is drawn as a whole number of pixels. The operators that take a uniform position in [0, 1) instead
round it, so that the two outermost places come half as often as the others, or one of them never.

Decoders: with ``device="cpu"`` only the window is decoded, and the pixels are Pillow's to the bit. On a GPU the whole
image is decoded, because a region may keep the hardware decoder from being used. Both use fancy upsampling of chroma.
Images are taken as they are stored, whatever their EXIF orientation, as Pillow does.
"""

import base64
import hashlib
import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from nvidia import dali
from nvidia.dali import fn, pipeline_def, types
from torch import Tensor

from repro.data import DataError
from repro.loading import Job, Window, digest_of, identity, refuse_another
from repro.loading.reference import cut
from repro.seeds import derive

if TYPE_CHECKING:
    from repro.data.prepared import Prepared

NAME = "dali"
HW_DECODER_LOAD = 0.65
"""The share of a batch that a GPU's JPEG engines decode, if it has any; part of the identity of a GPU's windows."""


class DaliError(DataError):
    """DALI could not read or decode; the message is DALI's, and usually names the file."""


def _decoded(jpegs: Any, start: Any, size: int, gpu: bool, hw_decoder_load: float) -> Any:
    """Return the node of the windows of ``size`` pixels at ``start`` (y, x), uint8 HWC in RGB."""
    how = {"output_type": types.RGB, "jpeg_fancy_upsampling": True, "adjust_orientation": False}
    where = {"start": start, "shape": [size, size], "axes": [0, 1]}
    if not gpu:
        return fn.decoders.image_slice(jpegs, device="cpu", name="decoder", **where, **how)
    images = fn.decoders.image(jpegs, device="mixed", hw_decoder_load=hw_decoder_load, name="decoder", **how)
    return fn.slice(images, name="window", **where)


@pipeline_def
def _training(data: "Prepared", job: Job, gpu: bool, hw_decoder_load: float) -> Any:
    """Return windows, labels, offsets and flips.

    The order is the same on all ranks, each of which reads its own part of it; the rest is drawn for each by itself.
    Every operator has a name, by which a checkpoint finds it: names given by DALI hang on the order of construction.
    """
    jpegs, labels = fn.readers.file(
        file_root=str(data.root),
        files=[path for path, _ in data.files["train"]],
        labels=[label for _, label in data.files["train"]],
        shard_id=job.rank,
        num_shards=job.world,
        shuffle_after_epoch=True,  # all files, before the first epoch too; the other kind shuffles within a buffer
        shuffle_after_epoch_seed=derive(job.seed, "dali", "order"),
        pad_last_batch=True,  # every epoch is equally long on every rank
        seed=derive(job.seed, "dali", "reader"),
        name="reader",
    )
    places = range(job.places(data.side)) if job.crops else [_centre(data, job)]
    offsets = fn.random.uniform(
        values=[float(place) for place in places],
        shape=[2],
        dtype=types.INT32,
        seed=derive(job.seed, "dali", "offsets", job.rank),
        name="offsets",
    )
    flips = fn.random.coin_flip(
        probability=0.5 if job.crops else 0.0,
        dtype=types.INT32,
        seed=derive(job.seed, "dali", "flips", job.rank),
        name="flips",
    )
    if job.alike > 1:
        offsets, flips = (fn.permute_batch(drawn, indices=job.drawn(job.batch)) for drawn in (offsets, flips))
    images = _decoded(jpegs, offsets, job.crop, gpu, hw_decoder_load)
    return fn.flip(images, horizontal=flips, name="mirror"), labels, offsets, flips


@pipeline_def
def _in_order(root: Path, files: Sequence[tuple[str, int]], start: int, size: int, gpu: bool) -> Any:
    """Return the same window of each of ``files``, in this order, and labels."""
    jpegs, labels = fn.readers.file(
        file_root=str(root),
        files=[path for path, _ in files],
        labels=[label for _, label in files],
        pad_last_batch=True,
        name="reader",
    )
    return _decoded(jpegs, [start, start], size, gpu, HW_DECODER_LOAD), labels


def _centre(data: "Prepared", job: Job) -> int:
    """Return the y of the centre window's corner, which is also its x."""
    return (job.places(data.side) - 1) // 2


class Dali:
    """A loader with ``workers`` threads that works two batches ahead.

    A batch stays valid for as long as it is held: its tensors share DALI's buffers, and the dynamic executor takes a
    buffer back only when nobody holds it.
    """

    name = NAME

    def __init__(
        self,
        data: "Prepared",
        job: Job,
        *,
        device: torch.device,
        workers: int,
    ) -> None:
        images = len(data.files["train"])
        job.places(data.side)  # refuses a window that does not fit
        self.per_epoch = job.per_epoch(images)
        # Batches that DALI fills up with repeated images come after the full ones, and are skipped.
        largest_part = math.ceil(images / job.world)
        self._leftover = math.ceil(largest_part / job.batch) - self.per_epoch
        self._data, self._job, self._device, self._workers = data, job, device, workers
        gpu = device.type == "cuda"
        source = inspect.getsource(_training) + inspect.getsource(_decoded)
        self._identity = identity(
            NAME,
            job,
            digest_of(data),
            side=data.side,
            dali=dali.__version__,
            pipeline=hashlib.sha256(source.encode()).hexdigest()[:16],
            decoder=f"mixed, hw_decoder_load {HW_DECODER_LOAD}" if gpu else "cpu",
        )
        self._step = 0
        self._checkpoint: bytes | None = None
        self._pipeline: Any = None

    def train(self, first_step: int) -> Iterator[Window]:
        """Return the windows from ``first_step`` on: where this loader stands, or 0 to start afresh.

        Raises ValueError for another step: what DALI drew before cannot be drawn again without its state.
        """
        if first_step == 0 and self._step:
            self.close()
        if first_step != self._step:
            raise ValueError(f"DALI stands at step {self._step}: restore the state of step {first_step} first")
        return self._train()

    def _train(self) -> Iterator[Window]:
        if self._pipeline is None:
            self._pipeline = _training(
                self._data,
                self._job,
                self._device.type == "cuda",
                HW_DECODER_LOAD,
                **_settings(self._job.batch, self._device, self._workers),
                seed=derive(self._job.seed, "dali", self._job.rank),
                enable_checkpointing=True,  # even when nothing is saved: the order after an epoch depends on it
                checkpoint=self._checkpoint,
            )
            _told(self._pipeline.build)
        while True:
            if self._step and self._step % self.per_epoch == 0:
                for _ in range(self._leftover):
                    _run(self._pipeline, self._device)
            images, labels, offsets, flips = _run(self._pipeline, self._device)
            self._step += 1
            yield Window(
                images,
                _sent(labels, torch.int64, self._device).flatten(),
                _sent(offsets, torch.int64, self._device),
                _sent(flips, torch.bool, self._device).flatten(),
            )

    def views(self, split: str, count: Literal[1, 10]) -> Iterator[tuple[Tensor, Tensor]]:
        crop, batch = self._job.crop, max(1, self._job.batch // count)
        how = {"device": self._device, "workers": self._workers}
        own = self._job.part(len(self._data.files[split]))
        if count == 1:
            start = _centre(self._data, self._job)
            for images, labels in _windows(self._data.root, self._data.files[split][own], batch, start, crop, **how):
                yield images[:, None], labels
        else:
            side = self._data.side
            for images, labels in _windows(self._data.root, self._data.files[split][own], batch, 0, side, **how):
                yield cut(images, count, crop), labels

    def state(self) -> dict[str, Any]:
        """Return the step, DALI's checkpoint in base 64, and the identity that both belong to."""
        checkpoint = self._checkpoint if self._pipeline is None else self._pipeline.checkpoint()
        text = None if checkpoint is None else base64.b64encode(checkpoint).decode()
        return {"identity": self._identity, "step": self._step, "checkpoint": text}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go to where ``state`` was saved.

        Raises ValueError where it belongs to other data, or to another job, pipeline or version of DALI. In most of
        these cases DALI itself would go on without an error, but with other batches.
        """
        refuse_another(state, self._identity)
        self.close()
        self._step = state["step"]
        self._checkpoint = None if state["checkpoint"] is None else base64.b64decode(state["checkpoint"])

    def close(self) -> None:
        """Release the pipeline with its threads and buffers, and go back to step 0."""
        self._pipeline = self._checkpoint = None
        self._step = 0


def whole(
    data: "Prepared",
    split: str,
    batch: int,
    *,
    device: torch.device,
    workers: int,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield every stored image of a split once, in file order: uint8 (n, side, side, 3), and labels int64 (n,).

    ``n`` is ``batch``, and less at the end. Raises DaliError where an image cannot be read.
    """
    return _windows(data.root, data.files[split], batch, 0, data.side, device=device, workers=workers)


def _windows(
    root: Path,
    files: Sequence[tuple[str, int]],
    batch: int,
    start: int,
    size: int,
    *,
    device: torch.device,
    workers: int,
) -> Iterator[tuple[Tensor, Tensor]]:
    left = len(files)
    if not left:
        return
    settings = _settings(min(batch, left), device, workers)
    pipeline = _in_order(root, files, start, size, device.type == "cuda", **settings)
    _told(pipeline.build)
    while left > 0:
        images, labels = _run(pipeline, device)
        n = min(left, len(images))  # the last batch is filled up with repeated images
        yield images[:n], _sent(labels[:n], torch.int64, device).flatten()
        left -= n


def _sent(value: Tensor, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return one of DALI's CPU tensors on ``device``, without waiting there for the step before.

    It is copied first: DALI may write to its memory again before the device has read it, where that is pinned.
    """
    return value.to(dtype, copy=True).to(device, non_blocking=True)


def _settings(batch: int, device: torch.device, workers: int) -> dict[str, Any]:
    """Return the settings that every pipeline is built with."""
    number = (device.index or 0) if device.type == "cuda" else None
    return {
        "batch_size": batch,
        "num_threads": max(1, workers),
        "device_id": number,
        "prefetch_queue_depth": 2,
        "exec_dynamic": True,
    }


def _run(pipeline: Any, device: torch.device) -> list[Tensor]:
    """Return the next outputs as tensors that share DALI's buffers; on a GPU in order with torch's current stream."""
    stream = torch.cuda.current_stream(device) if device.type == "cuda" else None
    return [torch.from_dlpack(output.as_tensor()) for output in _told(pipeline.run, stream)]


def _told(call: Any, *arguments: Any) -> Any:
    """Return what ``call`` returns. Raises DaliError, in one line, where DALI raises."""
    try:
        return call(*arguments)
    except RuntimeError as error:
        cause = str(error).rpartition("encountered:")[2].partition("Current pipeline")[0]
        raise DaliError(f"the loader 'dali' failed: {' '.join(cause.split())}") from error
