"""The cases that read pictures: decoding, the loaders, and training fed by them or by a set in memory."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from repro.bench import scripts
from repro.bench.plain import plain
from repro.bench.results import NETS
from repro.bench.setting import RATE, SEED, Case, Settings, batch_of, classes, model_of, ours, plain_trainer, trainer
from repro.bench.timing import Side, nothing
from repro.data import Dataset
from repro.loading import Job, Loader, make
from repro.loading.finish import Finish
from repro.loading.resident import decoded
from repro.models.cifar import NETS as CIFAR_NETS
from repro.training.inputs import Input, batches
from repro.training.optimizer import optimizer_for

WORKERS = 2  # threads or processes that decode, as in training
AHEAD = 4  # batches a loader may have ready: taken before its clock starts
SETTLE_S = 0.5  # in which its queue fills again, while nobody is timed
IN_MEMORY = 10_240  # pictures of the set that lies in memory: 80 batches of 128
NO_FLOOR = "no floor known for this case"


def cifar(s: Settings, stack: ExitStack) -> Case:
    """Return training a CIFAR-10 net (18pct, unless one was asked for) on a set in memory, by the package's loop.

    Beside it the same net, written plainly: from a set on the device, and from a DataLoader, the loss read every step.
    """
    s = s if s.net in CIFAR_NETS else replace(s, net="18pct")
    side = NETS[s.net].crop
    generator = np.random.default_rng(SEED)
    count = max(IN_MEMORY, s.batch)
    images = generator.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    labels = generator.integers(0, classes(s), count)
    data = Dataset("synthetic", torch.from_numpy(images), torch.from_numpy(labels), classes(s), "").to(s.device)
    model = model_of(s)
    by_hand = plain(model).to(s.device, memory_format=torch.channels_last)
    by_loader = plain(model).to(s.device)
    stream = _endless(scripts.InMemory(images, labels), s, stack)
    own = ours(s, model)
    fed = trainer(
        s, own, batches(data, s.batch, SEED), Input(data.images, "modern"), optimizer_for(own, "modern", RATE)
    )
    sides = (
        fed,
        Side("plain torch, set on the device",
             scripts.on_device(by_hand, data.images, data.labels, s.batch, RATE), s.batch, foreign=True),
        Side("plain torch, DataLoader", scripts.told(by_loader, stream, s.device, RATE), s.batch,
             before=partial(_empty, stream), after=_settle, foreign=True),
    )  # fmt: skip
    return Case("images", f"training {s.net} from {count:,} pictures in memory", sides, no_floor=NO_FLOOR)


def decode(s: Settings, _stack: ExitStack) -> Case:
    """Return decoding a set once, as the resident loader does, beside Pillow in as many threads."""
    assert s.pictures is not None
    root = s.pictures.root
    paths = [root / path for path, _ in s.pictures.files["train"]]
    pictures = replace(s.pictures, files={"train": s.pictures.files["train"]})

    def by_pillow() -> None:
        with ThreadPoolExecutor(WORKERS) as pool:
            for _ in pool.map(_pixels, paths):
                pass

    cpu = torch.device("cpu")
    sides = (
        Side("repro", lambda: decoded(pictures, "train", device=cpu, workers=WORKERS), len(paths)),
        Side("Pillow, 2 threads", by_pillow, len(paths), foreign=True),
    )
    return Case("images", f"decoding {_told(s)}", sides, no_floor=NO_FLOOR)


def _pixels(path: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def loader(s: Settings, stack: ExitStack) -> Case:
    """Return DALI, the resident loader, the package's plain DataLoader, each with its finish, and torchvision's script.

    The last reads the same files, but takes a random part of each and resizes it.
    """
    sides = []
    for name in ("dali", "resident", "torchvision"):
        take, around = _stream(s, stack, name)
        sides.append(Side(name, take, s.batch, **around))
    script = _script(s, stack)
    sides.append(
        Side("torchvision's script", partial(_to, script, s.device), s.batch, before=partial(_empty, script),
             after=_settle, foreign=True)
    )  # fmt: skip
    return Case("images", f"{_told(s)}, to the input of {s.net}", tuple(sides), no_floor=NO_FLOOR)


def loader_and_step(s: Settings, stack: ExitStack) -> Case:
    """Return the step fed by DALI, beside the step alone, and plain trainings fed by a DataLoader.

    That of torchvision's script trains torchvision's AlexNet where the net is ``alexnet``, else the same net.
    """
    model = model_of(s)
    twin, other_twin = plain(model).to(s.device), plain(model).to(s.device)
    name = "torchvision's script"
    if s.net == "alexnet":
        from torchvision.models import alexnet

        other_twin, name = alexnet(num_classes=classes(s)).to(s.device), "torchvision's AlexNet and script"
    take, around = _stream(s, stack, "dali")
    fed = trainer(s, ours(s, model), iter(take, None), lambda x: x)
    other, other_around = _stream(s, stack, "torchvision")
    images, labels = batch_of(s)
    alone = trainer(s, ours(s, model_of(s)), repeat((images, labels)), lambda x: x, name="the step alone")
    script = _script(s, stack)
    sides = (
        fed._replace(**around),
        alone,
        Side("plain torch, DataLoader", plain_trainer(twin, lambda: _contiguous(other())), s.batch, **other_around),
        Side(name, scripts.told(other_twin, script, s.device, RATE), s.batch, before=partial(_empty, script),
             after=_settle, foreign=True),
    )  # fmt: skip
    what = f"a training step of {s.net} fed from {_told(s)}"
    return Case("images", what, sides, no_floor=NO_FLOOR)


def _contiguous(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return batch[0].contiguous(), batch[1]


def _told(s: Settings) -> str:
    assert s.pictures is not None
    return f"JPEG files of {s.pictures.side} pixels"


def _stream(s: Settings, stack: ExitStack, name: str) -> tuple[Callable[[], tuple[Tensor, Tensor]], dict[str, Any]]:
    """Return what gives the next batch of a loader as a network's input with its labels, and what is done around it."""
    assert s.pictures is not None
    net, side = NETS[s.net], s.pictures.side
    found: Loader = make(name, s.pictures, Job(s.batch, net.crop, SEED), device=s.device, workers=WORKERS)
    stack.callback(found.close)
    windows = found.train(0)
    finish = Finish.less_mean_image(torch.full((side, side, 3), 120.0, device=s.device), "window")

    def take() -> tuple[Tensor, Tensor]:
        window = next(windows)
        return finish(window, 0), window.labels

    if name == "resident":
        return take, {"before": nothing, "after": nothing}
    return take, {"before": partial(_empty, windows), "after": _settle}


def _script(s: Settings, stack: ExitStack) -> Any:
    assert s.pictures is not None
    return _endless(scripts.folder(s.pictures.root / "train", NETS[s.net].crop), s, stack)


def _endless(data: Any, s: Settings, stack: ExitStack) -> Any:
    """Return the batches of a DataLoader, whose processes end with the case."""
    stream = scripts.endless(scripts.loader(data, s.batch, WORKERS, pin=s.device.type == "cuda"))
    stack.callback(stream.close)
    return stream


def _to(stream: Any, device: torch.device) -> tuple[Tensor, Tensor]:
    images, labels = next(stream)
    return images.to(device, non_blocking=True), labels.to(device, non_blocking=True)


def _empty(stream: Any) -> None:
    """Take what a queue holds ready."""
    for _ in range(AHEAD):
        next(stream)


def _settle() -> None:
    time.sleep(SETTLE_S)
